//! Deterministic simulation: one seed decides a whole history of devices, a server, a network and a
//! clock; faults happen in it, invariants are checked, and a seed that breaks one is shrunk to a
//! scenario that can be pasted as a test.
//!
//! There are two levels. *store* runs the real engine (machine and store on SQLite) against the real
//! server; *core* runs the machine alone against a model of both, many times as fast. What they have in
//! common is here: where randomness comes from ([`rng`]), what a level must offer ([`level`]), what is
//! counted ([`report`]), and how seeds are run ([`runner`]). Nothing here reads a clock that could
//! change what a seed does, and nothing is kept in global state.
//!
//! Without the feature `store` there is only the core level, and little to build.

pub mod command;
pub mod level;
pub mod model;
#[cfg(feature = "store")]
pub mod reference;
pub mod report;
pub mod rng;
pub mod runner;
#[cfg(feature = "store")]
pub mod store;
