//! Worlds for stories: named devices, one server, a link that can be bad, and a clock, all in one
//! thread and all deterministic.
//!
//! The devices run the real engine on real SQLite files; the server is the real protocol code
//! without sockets. Only the network and the time are played. A story reads like this:
//!
//! ```
//! use syncline_testkit::{Fault, World};
//!
//! let mut world = World::new("CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)");
//! world.device("Alice");
//! world.device("Bob");
//! world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
//! world.fault("Alice", Fault::LoseAnswer);
//! world.run_until_quiet();
//! assert_eq!(world.rows("Bob", "SELECT title FROM task"), ["milk"]);
//! world.assert_converged();
//! ```
//!
//! A world panics when the story it plays cannot go on: it is a test tool.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod copies;
mod device;
mod failing;
mod link;
mod look;
mod recording;
mod world;

pub use copies::Machine;
pub use device::Device;
pub use link::{Fault, Traffic};
pub use world::World;
