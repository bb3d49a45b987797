//! The real command: real files, a real server, real processes, and every wait bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that fails panics

mod admin;
mod bad_files;
mod bad_use;
mod cloning;
mod configuring;
mod conflicts;
mod detaching;
mod devices;
mod doctoring;
mod exit_codes;
mod explaining;
mod following;
mod harness;
mod metrics;
mod outbox;
mod replaying;
mod running;
mod schema_and_sweep;
mod secrets;
mod serving;
#[cfg(feature = "otel")]
mod spans;
