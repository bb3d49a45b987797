//! Capture triggers: what every kind of statement leaves in the outbox and in the bases.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

#[path = "capture/constructs.rs"]
mod constructs;
#[path = "capture/install.rs"]
mod install;
#[path = "capture/nested.rs"]
mod nested;
#[path = "capture/old_sqlite.rs"]
mod old_sqlite;
#[path = "capture/options.rs"]
mod options;
#[path = "capture/python.rs"]
mod python;
#[path = "capture/random.rs"]
mod random;
#[path = "capture/replace.rs"]
mod replace;
#[path = "capture/statements.rs"]
mod statements;
#[path = "capture/support.rs"]
mod support;
#[path = "capture/tables.rs"]
mod tables;
#[path = "capture/values.rs"]
mod values;
