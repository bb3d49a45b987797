//! The command `syncline-simulator`: arguments in, a report out. Never decides anything itself.

use clap::Parser;
use std::process::ExitCode;
use syncline_simulator::command::{Arguments, run};

fn main() -> ExitCode {
    run(&Arguments::parse())
}
