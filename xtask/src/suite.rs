//! `cargo xtask test`: every check of the repository, one step after the other.
//!
//! The first failing step ends the run. All steps share one target folder and one profile, so
//! nothing is compiled twice: the build step selects what the test step runs.

use crate::{Failure, tidy, tools};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// Where the tests find the command that the build step made.
const BINARY_VARIABLE: &str = "SYNCLINE_BIN";

/// Where the tests find the app with an old SQLite.
const OLD_SQLITE_VARIABLE: &str = "SYNCLINE_OLD_SQLITE";

/// Features that are off by default.
const OPTIONAL: &str = "syncline-cli/otel";

/// One step: its name and what it does.
struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// A function of this program.
    Call(fn(&Path) -> Result<(), Failure>),
    /// A cargo command line.
    Cargo(&'static [&'static str]),
}

#[rustfmt::skip]
const STEPS: &[Step] = &[
    Step { name: "tools", work: Work::Call(|_| tools::prepare()) },
    Step { name: "format", work: Work::Cargo(&["fmt", "--all", "--check"]) },
    Step { name: "tidy", work: Work::Call(tidy::run) },
    Step { name: "clippy", work: Work::Cargo(
        &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]) },
    // The whole workspace rather than the command alone: features are unified over the packages
    // selected, so a narrower build would compile shared dependencies a second time.
    // What is behind a feature is built and tested; clippy has seen the command without it.
    Step { name: "build", work: Work::Cargo(
        &["build", "--locked", "--workspace", "--all-targets", "--features", OPTIONAL]) },
    // A workspace of its own: one build can link only one SQLite.
    Step { name: "old", work: Work::Cargo(&["build", "--locked",
        "--manifest-path", "crates/store/tests/old-sqlite/Cargo.toml"]) },
    Step { name: "binaries", work: Work::Call(|_| {
        require(BINARY_VARIABLE, &binary())?;
        require(OLD_SQLITE_VARIABLE, &old_sqlite())
    }) },
    // Includes the doctests.
    Step { name: "test", work: Work::Cargo(
        &["test", "--locked", "--workspace", "--features", OPTIONAL]) },
    Step { name: "docs", work: Work::Cargo(
        &["doc", "--locked", "--workspace", "--no-deps"]) },
];

/// Runs all steps in `root`; prints each with its wall time and a summary at the end.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    let mut done = Vec::new();
    for step in STEPS {
        println!("\n==> {}{}", step.name, command_line(&step.work));
        let begin = Instant::now();
        let outcome = perform(step, root);
        let took = begin.elapsed();
        println!("<== {}: {}", step.name, seconds(took));
        done.push((step.name, took, outcome.is_ok()));
        if outcome.is_err() {
            summarize(&done);
            return outcome;
        }
    }
    summarize(&done);
    println!(
        "xtask test: all {} steps passed in {}",
        STEPS.len(),
        seconds(start.elapsed())
    );
    Ok(())
}

fn command_line(work: &Work) -> String {
    match work {
        Work::Call(_) => String::new(),
        Work::Cargo(arguments) => format!(": cargo {}", arguments.join(" ")),
    }
}

fn perform(step: &Step, root: &Path) -> Result<(), Failure> {
    let outcome = match step.work {
        Work::Call(function) => function(root).map_err(|failure| failure.to_string()),
        Work::Cargo(arguments) => verdict(cargo(arguments, root).status()),
    };
    let name = step.name;
    outcome.map_err(|why| Failure::Step { name, why })
}

/// Whether a cargo command passed, or why not.
pub(crate) fn verdict(ended: io::Result<ExitStatus>) -> Result<(), String> {
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("cargo did not start: {error}")),
    }
}

/// Cargo, in the environment that a person would call it in.
pub(crate) fn cargo(arguments: &[&str], root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    forget_this_run(&mut command);
    command.env("CARGO_TARGET_DIR", target());
    command.env(BINARY_VARIABLE, binary());
    command.env(OLD_SQLITE_VARIABLE, old_sqlite());
    if arguments.first() == Some(&"doc") {
        command.env("RUSTDOCFLAGS", "-D warnings");
    }
    command
}

/// What `cargo run` set for this program would make build scripts that watch it run again.
pub(crate) fn forget_this_run(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

/// The target folder that this program is in.
pub(crate) fn target() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let target = this.ancestors().nth(2).unwrap_or(Path::new("target"));
    target.to_path_buf()
}

/// A program that was built in the profile `dev`.
fn built(name: &str) -> PathBuf {
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    target().join("debug").join(name)
}

/// The command under test.
fn binary() -> PathBuf {
    built("syncline")
}

/// The app with an old SQLite.
fn old_sqlite() -> PathBuf {
    built("old-sqlite")
}

fn require(variable: &str, binary: &Path) -> Result<(), Failure> {
    if binary.is_file() {
        println!("{variable}={}", binary.display());
        return Ok(());
    }
    Err(Failure::Missing(format!(
        "the build made no {}",
        binary.display()
    )))
}

fn summarize(done: &[(&str, Duration, bool)]) {
    println!("\n==> summary");
    for (name, took, passed) in done {
        let verdict = if *passed { "passed" } else { "FAILED" };
        println!("{name:<8} {:>9}  {verdict}", seconds(*took));
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, work: Work) -> Step {
        Step { name, work }
    }

    #[test]
    fn a_failing_step_names_itself_and_its_reason() {
        let broken = |_: &Path| Err(Failure::Findings(2));
        let failure = perform(&step("odd", Work::Call(broken)), Path::new(".")).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "step `odd` failed: 2 house rule findings"
        );
    }

    #[test]
    fn a_command_passes_only_with_status_zero() {
        let ended = |arguments| cargo(arguments, Path::new(".")).output().map(|o| o.status);
        assert_eq!(verdict(ended(&["--version"])), Ok(()));
        let why = verdict(ended(&["no-such-subcommand"])).unwrap_err();
        assert!(why.starts_with("exit status"));
        let why = verdict(Command::new("no-such-program").status()).unwrap_err();
        assert!(why.starts_with("cargo did not start"));
    }

    #[test]
    fn a_missing_binary_is_an_error() {
        let failure = require(BINARY_VARIABLE, Path::new("no/such/binary")).unwrap_err();
        assert!(failure.to_string().contains("no/such/binary"));
    }

    #[test]
    fn every_step_that_resolves_dependencies_is_locked() {
        for step in STEPS {
            if let Work::Cargo(arguments) = step.work {
                assert!(arguments[0] == "fmt" || arguments.contains(&"--locked"));
            }
        }
    }

    #[test]
    fn only_the_documentation_is_built_with_its_flags() {
        let has_flags = |arguments| {
            let command = cargo(arguments, Path::new("."));
            command.get_envs().any(|(name, _)| name == "RUSTDOCFLAGS")
        };
        assert!(has_flags(&["doc"]));
        assert!(!has_flags(&["test"]));
    }
}
