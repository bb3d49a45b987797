//! `cargo xtask deps`: whether what `Cargo.toml` says about dependencies is true.
//!
//! Versions are resolved in copies of the repository below the target folder, never in the
//! repository itself. Not a part of `cargo xtask test`: it needs the registry, and its verdict may
//! change although nothing in the repository did.

mod graph;

use crate::{Failure, suite};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

/// One check: its name, what passes, how to mend what does not.
struct Check {
    name: &'static str,
    passes: &'static str,
    mend: &'static str,
    work: fn(&Path) -> Result<Verdict, String>,
}

/// How a check ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// This machine cannot tell.
    Unknown(String),
}

const CHECKS: &[Check] = &[
    Check {
        name: "graph",
        passes: "SQLite is bundled, TLS is rustls, nothing in Cargo.lock needs a newer Rust",
        mend: "take away the feature or the dependency (`cargo tree -i NAME -e features`), or raise \
               rust-version in Cargo.toml, README.md and CONTRIBUTING.md",
        work: |root| graph(root),
    },
    Check {
        name: "rust",
        passes: "compiles with the stated rust-version",
        mend: "write it without what is newer, or raise rust-version in Cargo.toml, README.md and \
               CONTRIBUTING.md",
        work: |root| rust(root),
    },
    Check {
        name: "newest",
        passes: "compiles with the newest versions that the stated rust-version admits",
        mend: "adapt the code, or narrow the version in Cargo.toml and say why",
        work: |root| resolved(root, "newest", &["update", "--quiet"]),
    },
    Check {
        name: "minimal",
        passes: "compiles with the lowest versions that the manifests state",
        mend: "raise the version in the manifest to the first that works",
        work: |root| {
            let lowest = &["update", "--quiet", "-Z", "direct-minimal-versions"];
            resolved(root, "minimal", lowest)
        },
    },
];

/// With `--keep-going`, so that one run shows everything that there is to mend.
const COMPILE: &[&str] = &[
    "check",
    "--quiet",
    "--locked",
    "--workspace",
    "--all-targets",
    "--keep-going",
];

/// Runs every check, also after one that failed, and prints a line for each at the end.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut failed = 0;
    for check in CHECKS {
        println!("==> {}", check.name);
        let outcome = (check.work)(root);
        failed += usize::from(outcome.is_err());
        lines.push(line(check, &outcome));
    }
    println!("\n==> summary\n{}", lines.join("\n"));
    match failed {
        0 => Ok(()),
        count => Err(Failure::Dependencies(count)),
    }
}

fn line(check: &Check, outcome: &Result<Verdict, String>) -> String {
    let (verdict, words) = match outcome {
        Ok(Verdict::Passed) => ("passed", check.passes.to_owned()),
        Ok(Verdict::Unknown(why)) => ("NOT CHECKED", why.clone()),
        Err(why) => ("FAILED", format!("{why}; to mend: {}", check.mend)),
    };
    format!("{:<8} {verdict:<11}  {words}", check.name)
}

/// The rules that the locked graph must keep.
fn graph(root: &Path) -> Result<Verdict, String> {
    let findings = graph::findings(&metadata(root)?)?;
    match findings.is_empty() {
        true => Ok(Verdict::Passed),
        false => Err(findings.join(", ")),
    }
}

/// Compiles what is locked with the Rust version that is stated, if it is installed.
fn rust(root: &Path) -> Result<Verdict, String> {
    let stated = graph::stated_rust(&metadata(root)?)?;
    let list = Command::new("rustup").args(["toolchain", "list"]).output();
    let list = list.map_or(String::new(), |list| text(&list));
    let Some(toolchain) = installed(&list, &stated) else {
        let why = format!(
            "Rust {stated} is not installed (`rustup toolchain install {stated}`); \
             what is stated of the language and the libraries was not compiled"
        );
        return Ok(Verdict::Unknown(why));
    };
    let mut command = Command::new("rustup");
    command
        .args(["run", toolchain, "cargo"])
        .args(COMPILE)
        .arg("--target-dir")
        .arg(suite::target())
        .current_dir(root);
    succeeded(command.status(), "cargo check")?;
    Ok(Verdict::Passed)
}

/// The installed toolchain that is this Rust version.
fn installed<'a>(list: &'a str, stated: &str) -> Option<&'a str> {
    let names = list.lines().filter_map(|line| line.split(' ').next());
    let mut names = names.filter_map(|name| Some((name, name.strip_prefix(stated)?)));
    let found = names.find(|(_, rest)| rest.is_empty() || rest.starts_with(['-', '.']));
    found.map(|(name, _)| name)
}

/// Compiles a copy of the repository with versions that `update` chooses.
fn resolved(root: &Path, name: &str, update: &[&str]) -> Result<Verdict, String> {
    let copy = copy(root, name)?;
    let mut choose = suite::cargo(update, &copy);
    if update.contains(&"-Z") {
        // The option is unstable, the versions that it chooses are not.
        choose.env("RUSTC_BOOTSTRAP", "1");
    }
    succeeded(choose.status(), &format!("cargo {}", update.join(" ")))?;
    // The usual target folder: what has the usual version is compiled already.
    let mut compile = suite::cargo(COMPILE, &copy);
    compile.arg("--target-dir").arg(suite::target());
    succeeded(compile.status(), "cargo check")?;
    Ok(Verdict::Passed)
}

/// A fresh copy of what git knows or would add, without what is ignored.
fn copy(root: &Path, name: &str) -> Result<PathBuf, String> {
    let to = suite::target().join("xtask-deps").join(name);
    match std::fs::remove_dir_all(&to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&to, &error))?,
        _ => {}
    }
    let list = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let list = Command::new("git").args(list).current_dir(root).output();
    for path in text(&finished(list, "git ls-files")?).split_terminator('\0') {
        let (from, to) = (root.join(path), to.join(path));
        // What was deleted is listed until the deletion is committed.
        if from.is_file() {
            let folder = to.parent().unwrap_or(&to);
            std::fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
            std::fs::copy(&from, &to).map_err(|error| at(&from, &error))?;
        }
    }
    Ok(to)
}

fn metadata(root: &Path) -> Result<String, String> {
    let arguments = ["metadata", "--format-version", "1", "--locked"];
    let output = suite::cargo(&arguments, root).output();
    finished(output, "cargo metadata").map(|output| text(&output))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn finished(output: io::Result<Output>, what: &str) -> Result<Output, String> {
    match output {
        Ok(output) if output.status.success() => Ok(output),
        Ok(output) => {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            Err(format!("{what}: {}", output.status))
        }
        Err(error) => Err(format!("{what} did not start: {error}")),
    }
}

fn succeeded(ended: io::Result<ExitStatus>, what: &str) -> Result<(), String> {
    suite::verdict(ended).map_err(|why| format!("{what}: {why}"))
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolchain_of_a_version_is_found_by_its_name() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\n1.9.0-x\n1.90.0-x\n";
        assert_eq!(installed(list, "1.90"), Some("1.90.0-x"));
        assert_eq!(installed("1.90-x\n", "1.90"), Some("1.90-x"));
        assert_eq!(installed(list, "1.9"), Some("1.9.0-x"));
        assert_eq!(installed(list, "1.89"), None);
        assert_eq!(installed("", "1.90"), None);
    }

    #[test]
    fn each_check_has_one_line_and_a_failure_says_how_to_mend() {
        let check = &CHECKS[0];
        let passed = line(check, &Ok(Verdict::Passed));
        assert!(passed.starts_with("graph    passed"));
        let unknown = line(check, &Ok(Verdict::Unknown("no Rust".to_owned())));
        assert!(unknown.contains("NOT CHECKED  no Rust"));
        let failed = line(check, &Err("odd".to_owned()));
        assert!(failed.contains("FAILED       odd; to mend: take away"));
        assert_eq!(failed.lines().count(), 1);
    }
}
