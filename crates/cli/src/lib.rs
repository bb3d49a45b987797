//! The `syncline` command: serve a directory, attach a database, sync it, look inside.
//!
//! One file per subcommand in `command/`; each turns its arguments into a `Report` or a
//! `Failure` and leaves printing to this file, so that text, `--json` and exit codes are the same
//! everywhere. Stdout carries results only; logs, errors and hints go to stderr. What this crate
//! must never do: print or log a token, create a database file (but for `clone`), or decide anything about syncing.

mod command;
mod cycle;
mod database;
mod demo;
mod exit;
mod exposition;
mod failure;
mod logging;
#[cfg(feature = "otel")]
mod otlp;
mod prometheus;
mod report;
mod secret;
mod signal;
mod size;
mod span;
mod surroundings;
mod text;
mod words;

pub use command::explained;
pub use exit::Exit;
pub(crate) use failure::Failure;
pub(crate) use report::Report;

use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Offline-first sync for SQLite databases.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: command::Command,
}

/// What every subcommand takes.
#[derive(Debug, Clone, clap::Args)]
struct Global {
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Say more on stderr: once what is done, twice every request and the way of each mutation,
    /// three times everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The form of log lines on stderr
    #[arg(long, global = true, value_name = "FORM", default_value = "text")]
    log: logging::Form,
    /// Let log lines show what is in rows; never tokens
    #[arg(long, global = true)]
    log_values: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &arguments),
    };
    let global = &cli.global;
    let logging = logging::start(global.verbose, global.log, global.log_values);
    let exit = match cli.command.run(&cli.global) {
        Ok(report) => report.print(cli.global.json),
        Err(failure) => failure.print(cli.global.json),
    };
    logging.end();
    ExitCode::from(exit.code())
}

/// A command line that is wrong, or one that asks for help or the version.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    // Nothing is left to tell it to if stderr is closed.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::from(Exit::Done.code());
    }
    if arguments.iter().any(|argument| argument == "--json") {
        let text = error.to_string();
        let message = text.split("\n\n").next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        let words: Vec<&str> = message.split_whitespace().collect();
        Failure::usage("usage", words.join(" ")).print_json();
    }
    ExitCode::from(Exit::Usage.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
