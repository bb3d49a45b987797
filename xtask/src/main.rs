//! The chores of this repository: `cargo xtask test`, `cargo xtask tidy`, `cargo xtask deps`,
//! `cargo xtask idle`, `cargo xtask torture`.
//!
//! Everything here uses the standard library only and never opens a network connection itself.

mod bugs;
mod deps;
mod idle;
mod json;
mod stamp;
mod suite;
mod tidy;
mod tools;
mod torture;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <task>

  test   install what the tests need, then run everything that must pass:
         formatting, tidy, clippy, build, tests and doctests, documentation
  tidy   check the house rules that a machine can check (see CONTRIBUTING.md)
  deps   check that the stated versions are true: lowest and newest dependencies, Rust;
         bundled SQLite and rustls only (needs the registry)
  idle   measure what an engine costs while nothing happens: CPU and requests
         (Linux; a number of seconds may follow)
  torture [--minutes M] [--seeds N] [--only PART,…] [--seed S] [--profile P] [--no-report]
         simulate, kill, fail and fuzz for longer than tests may, and write the
         figures to docs/proof.md
  bugs [NAME…] [--minutes M] [--profile P] [--target DIR] [--no-report]
         plant bugs into a copy, one by one, and see whether the simulator finds each;
         the table goes to docs/planted-bugs.md
  help   print this text
";

/// Why a task did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that the tests need is missing and could not be installed.
    Missing(String),
    /// A step of the suite ended badly.
    Step { name: &'static str, why: String },
    /// The house rules are broken this many times.
    Findings(usize),
    /// This many checks of the dependencies failed.
    Dependencies(usize),
    /// This many planted bugs were not found.
    Bugs(usize),
    /// This many parts of the torture found something.
    Torture(usize),
    /// A file or folder of the repository could not be read.
    Read(PathBuf, std::io::Error),
    /// The command line names no task.
    Usage(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Missing(what) => write!(f, "{what}"),
            Failure::Step { name, why } => write!(f, "step `{name}` failed: {why}"),
            Failure::Findings(1) => write!(f, "1 house rule finding"),
            Failure::Findings(count) => write!(f, "{count} house rule findings"),
            Failure::Dependencies(1) => write!(f, "1 dependency check"),
            Failure::Dependencies(count) => write!(f, "{count} dependency checks"),
            Failure::Bugs(count) => write!(f, "planted bugs that were not found: {count}"),
            Failure::Torture(1) => write!(f, "1 part found something"),
            Failure::Torture(count) => write!(f, "{count} parts found something"),
            Failure::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Failure::Usage(word) => write!(f, "no task `{word}`; see `cargo xtask help`"),
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask {}: FAILED: {failure}", words.join(" "));
            let wrong_use = matches!(failure, Failure::Usage(_));
            ExitCode::from(if wrong_use { 2 } else { 1 })
        }
    }
}

fn run(words: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["test"] => suite::run(&root()),
        ["tidy"] => tidy::run(&root()),
        ["deps"] => deps::run(&root()),
        ["idle"] => idle::run(&root(), None),
        ["torture", ref words @ ..] => torture::run(&root(), words),
        ["bugs", ref words @ ..] => bugs::run(&root(), words),
        ["idle", seconds] => idle::run(&root(), Some(seconds)),
        [] | ["help" | "-h" | "--help"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(Failure::Usage(words.join(" "))),
    }
}

/// The root of the repository: the folder above this package's. Cargo says at run time where that is;
/// a program built for one checkout and run in another would look at the wrong one.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().unwrap_or(&package).to_path_buf()
}
