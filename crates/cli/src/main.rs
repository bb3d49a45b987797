//! The `syncline` command: everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    syncline_cli::main()
}
