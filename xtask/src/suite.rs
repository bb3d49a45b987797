//! `cargo xtask test`: every check of the repository, one step after the other.
//!
//! The first failing step ends the run. All steps share one target folder and one profile, so
//! nothing is compiled twice: the build step selects what the test step runs.

use crate::{Failure, tidy, tools};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the tests find the command that the build step made.
const BINARY_VARIABLE: &str = "SYNCLINE_BIN";

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
    Step { name: "build", work: Work::Cargo(
        &["build", "--locked", "--workspace", "--all-targets"]) },
    Step { name: "binary", work: Work::Call(|_| require(&binary())) },
    // Includes the doctests.
    Step { name: "test", work: Work::Cargo(&["test", "--locked", "--workspace"]) },
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
    let failed = |why: String| Failure::Step {
        name: step.name,
        why,
    };
    match step.work {
        Work::Call(function) => function(root).map_err(|failure| failed(failure.to_string())),
        Work::Cargo(arguments) => {
            let status = cargo(arguments, root).status();
            match status {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(failed(status.to_string())),
                Err(error) => Err(failed(format!("cargo did not start: {error}"))),
            }
        }
    }
}

/// Cargo, in the environment that a person would call it in.
fn cargo(arguments: &[&str], root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    // What `cargo run` set for this program would make build scripts that watch it run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.env(BINARY_VARIABLE, binary());
    if arguments.first() == Some(&"doc") {
        command.env("RUSTDOCFLAGS", "-D warnings");
    }
    command
}

/// The command under test. It is built beside this program, in the profile `dev`.
fn binary() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let profiles = this.ancestors().nth(2).unwrap_or(Path::new("target"));
    let name = format!("syncline{}", std::env::consts::EXE_SUFFIX);
    profiles.join("debug").join(name)
}

fn require(binary: &Path) -> Result<(), Failure> {
    if binary.is_file() {
        println!("{BINARY_VARIABLE}={}", binary.display());
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
    fn a_failing_command_names_its_step_and_status() {
        let step = step("odd", Work::Cargo(&["no-such-subcommand"]));
        let failure = perform(&step, Path::new(".")).unwrap_err().to_string();
        assert!(failure.starts_with("step `odd` failed: exit status"));
    }

    #[test]
    fn a_succeeding_command_passes() {
        perform(
            &step("version", Work::Cargo(&["--version"])),
            Path::new("."),
        )
        .unwrap();
    }

    #[test]
    fn a_missing_binary_is_an_error() {
        let failure = require(Path::new("no/such/binary")).unwrap_err();
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
