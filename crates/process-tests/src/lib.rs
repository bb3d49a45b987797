//! What the tests with real processes share: children that end with the test, a server that can be
//! killed and comes back on its port, a proxy that spoils chosen exchanges, and row by row
//! comparison of files with each other and with the server's listing.
//!
//! Every wait is bounded and every child is killed by its own id, however the test ends. Nothing
//! here knows the engine from inside: files are read with plain SQLite, the server over HTTP.

// Tools of tests: what cannot go on panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod command;
mod device;
mod http;
mod kills;
mod listing;
mod process;
mod proxy;
mod rows;
mod sample;
mod sample_generated;
mod server;

pub use command::{Tool, python, syncline_command};
pub use device::{Device, copy_database, copy_state};
pub use kills::{KillFigures, Programs, kill_again_and_again, kill_migrations};
pub use listing::listing;
pub use process::{Ended, Running};
pub use proxy::{Act, Proxy, Seen, Traffic};
pub use rows::{Rows, assert_same, assert_settled, number, rows, rows_of, settled};
pub use sample::{Sample, copy_schema, sample_database};
pub use server::{SECRET, Server, token};

use std::time::Duration;

/// No single step of any test takes longer, unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);
