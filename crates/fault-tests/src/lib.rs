//! Scripts of ordinary work, played on files that fail: every call that SQLite makes in turn, once or
//! for good, in every way that fits it, and power loss in the middle of every change.
//!
//! A script's work must end in typed errors, never in a panic. Then the fault ends, and what the files
//! hold is judged: each transaction whole or not at all, what was acknowledged there, and a sync that
//! comes to its end with every effect on the server exactly once.
//!
//! `cargo test` plays a share; `cargo run --release -p syncline-fault-tests -- --minutes M` plays all
//! of them, then random pairs of faults until the time is up.

// Tools of tests: what cannot go on panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod device;
mod files;
mod matrix;
mod server;

pub use matrix::{Case, Figures, Scene, Script, all_cases, play, play_share, power_cases};

/// Every script there is.
pub fn scripts() -> Vec<Script> {
    let mut scripts = device::scripts();
    scripts.extend(files::scripts());
    scripts.extend(server::scripts());
    scripts
}

/// The script of this name.
pub fn script(name: &str) -> Script {
    let found = scripts().into_iter().find(|script| script.name == name);
    found.unwrap_or_else(|| panic!("no script {name:?}"))
}
