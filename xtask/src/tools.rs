//! What the tests need besides cargo: found, installed, or named in a clear error.
//!
//! Nothing is installed that is already there. System packages are installed only by root on
//! Debian and its relatives; everyone else is told what to install.

use crate::Failure;
use std::path::Path;
use std::process::{Command, Stdio};

/// A tool, how to see that it works, and what brings it.
struct Tool {
    name: &'static str,
    probe: &'static [&'static str],
    source: Source,
}

enum Source {
    Rustup(&'static str),
    Debian(&'static str),
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "rustfmt",
        probe: &["cargo", "fmt", "--version"],
        source: Source::Rustup("rustfmt"),
    },
    Tool {
        name: "clippy",
        probe: &["cargo", "clippy", "--version"],
        source: Source::Rustup("clippy"),
    },
    Tool {
        name: "a C compiler (SQLite is built from source)",
        probe: &["cc", "--version"],
        source: Source::Debian("build-essential"),
    },
    Tool {
        name: "python3 with its sqlite3 module",
        probe: &["python3", "-c", "import sqlite3"],
        source: Source::Debian("python3"),
    },
];

/// Makes sure that every tool works.
pub(crate) fn prepare() -> Result<(), Failure> {
    for tool in TOOLS {
        if !succeeds(tool.probe) {
            println!("{} is missing", tool.name);
            install(tool)?;
        }
        println!("found {}", tool.name);
    }
    Ok(())
}

fn install(tool: &Tool) -> Result<(), Failure> {
    match tool.source {
        Source::Rustup(component) => {
            loudly(&["rustup", "component", "add", component]);
        }
        Source::Debian(package) if is_root() && Path::new("/etc/debian_version").exists() => {
            loudly(&["apt-get", "update"]);
            loudly(&["apt-get", "install", "-y", package]);
        }
        Source::Debian(_) => {}
    }
    if succeeds(tool.probe) {
        return Ok(());
    }
    Err(Failure::Missing(format!(
        "the tests need {}; `{}` must succeed ({})",
        tool.name,
        tool.probe.join(" "),
        match tool.source {
            Source::Rustup(component) => format!("rustup component add {component}"),
            Source::Debian(package) => format!("Debian package {package}"),
        }
    )))
}

/// Whether the command runs and exits with 0; prints nothing.
fn succeeds(words: &[&str]) -> bool {
    command(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs an installer with its output shown. Whether it helped is seen by probing again.
fn loudly(words: &[&str]) {
    println!("$ {}", words.join(" "));
    if let Err(error) = command(words).status() {
        println!("{}: {error}", words.join(" "));
    }
}

fn command(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_tool_is_found_and_a_missing_one_is_not() {
        assert!(succeeds(&["cargo", "--version"]));
        assert!(!succeeds(&["cargo", "no-such-subcommand"]));
        assert!(!succeeds(&["no-such-program-anywhere"]));
    }
}
