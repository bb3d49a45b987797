//! `cargo xtask bugs`: the harness is tested. Bugs that a sync engine could have are planted one by one
//! into a copy of the repository, and the simulator must find each; a clean copy must pass.
//!
//! The bugs are patches in `crates/simulator/bugs`, never switches in the code. What was found, and within
//! how many seeds, is written to `docs/planted-bugs.md`.
//!
//! For the core level the simulator is built without the other one, which takes a fraction of the time.

mod copy;
mod page;
mod patch;

use crate::Failure;
use crate::json::Json;
use crate::stamp::{commit, date};
use crate::suite::target;
use copy::Copy;
use page::{Page, Row};
use patch::Bug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Seeds that a level has for a bug, and minutes. A clean copy has to pass the very same seeds, so that
/// what breaks is the bug's doing.
const CORE: (u64, f64) = (3_000, 1.5);
const STORE: (u64, f64) = (1_000, 3.0);
/// So much longer than its time may a run take to end by itself.
const GRACE: Duration = Duration::from_secs(60);

/// What the command line says.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    names: Vec<String>,
    minutes: f64,
    report: bool,
    /// Cargo's profile.
    profile: String,
    /// Cargo's target folder, if not one of its own.
    build: Option<PathBuf>,
}

/// What came of one bug.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// Found at the seed of this number, breaking this invariant.
    Found { seeds: u64, invariant: String },
    /// All seeds are clean.
    Missed { seeds: u64 },
    /// It could not be planted, built or played.
    Broken(String),
    /// There was no time left.
    NotRun,
}

pub(crate) fn run(root: &Path, words: &[&str]) -> Result<(), Failure> {
    let wanted = wanted(words)?;
    let all = patch::all(root)?;
    let path = root.join("docs/planted-bugs.md");
    let mut page = Page::parse(&fs::read_to_string(&path).unwrap_or_default());
    let mut bugs: Vec<Bug> = (all.iter())
        .filter(|bug| {
            wanted.names.is_empty() || wanted.names.iter().any(|one| bug.name.contains(one))
        })
        .cloned()
        .collect();
    // Those that nothing has found yet come first, since the time may not do for all.
    bugs.sort_by_key(|bug| page.is_found(&bug.name));
    // Of what the copy is made from.
    let commit = commit(root);
    let results = play(root, &bugs, &wanted)?;
    let when = format!("{}, {commit}", date(SystemTime::now()));
    for (bug, (outcome, seconds)) in bugs.iter().zip(&results) {
        if *outcome != Outcome::NotRun {
            page.take(&bug.name, Row::of(outcome, *seconds, &when));
        }
    }
    println!("\n{}", page.text(&bugs));
    if wanted.report {
        fs::write(&path, page.text(&all)).map_err(|error| Failure::Read(path, error))?;
    }
    let played = (results.iter()).filter(|(outcome, _)| *outcome != Outcome::NotRun);
    let played = played.count();
    println!("figure: planted bugs = {}", all.len());
    println!("figure: planted bugs found = {}", page.found(&all));
    println!("figure: planted bugs played this time = {played}");
    if played == 0 {
        return Err(Failure::Missing("no bug was played".to_owned()));
    }
    match (results.iter()).filter(|(one, _)| one.is_missed()).count() {
        0 => Ok(()),
        missed => Err(Failure::Bugs(missed)),
    }
}

impl Outcome {
    fn is_found(&self) -> bool {
        matches!(self, Outcome::Found { .. })
    }

    fn is_missed(&self) -> bool {
        !self.is_found() && *self != Outcome::NotRun
    }

    fn tell(&self) -> String {
        match self {
            Outcome::Found { seeds, invariant } => format!("{seeds} ({invariant})"),
            Outcome::Missed { seeds } => format!("**not found** in {seeds}"),
            Outcome::Broken(why) => format!("**{}**", why.lines().next().unwrap_or("failed")),
            Outcome::NotRun => "not run".to_owned(),
        }
    }
}

/// Plants and plays them one after the other, after a clean copy has passed: what came of each, and the
/// seconds that it took.
fn play(root: &Path, bugs: &[Bug], wanted: &Wanted) -> Result<Vec<(Outcome, u64)>, Failure> {
    let begun = Instant::now();
    let folder = target().join("planted");
    let copy = Copy::of(root, folder.join("tree"))?;
    let bench = Bench {
        copy,
        build: wanted.build.clone().unwrap_or_else(|| folder.join("build")),
        profile: wanted.profile.clone(),
    };
    println!("==> a clean copy");
    for level in ["core", "store"] {
        if bugs.iter().any(|bug| bug.level == level) {
            match bench.simulate(level) {
                Outcome::Missed { seeds } => println!("{level}: {seeds} seeds are clean"),
                other => return Err(Failure::Missing(format!("a clean copy: {}", other.tell()))),
            }
        }
    }
    let mut results = Vec::new();
    for (index, bug) in bugs.iter().enumerate() {
        let late = begun.elapsed().as_secs_f64() > wanted.minutes * 60.0;
        let since = Instant::now();
        let outcome = if late {
            Outcome::NotRun
        } else {
            bench.plant(bug)
        };
        let (told, took) = (outcome.tell(), since.elapsed().as_secs());
        println!(
            "[{}/{}] {}: {told}, {took} s",
            index + 1,
            bugs.len(),
            bug.name
        );
        results.push((outcome, took));
    }
    Ok(results)
}

/// Where bugs are planted, built and played.
struct Bench {
    copy: Copy,
    build: PathBuf,
    profile: String,
}

impl Bench {
    fn plant(&self, bug: &Bug) -> Outcome {
        if let Err(why) = self.copy.apply(&bug.path, false) {
            return Outcome::Broken(format!("does not apply: {why}"));
        }
        let outcome = self.simulate(&bug.level);
        match self.copy.apply(&bug.path, true) {
            Ok(()) => outcome,
            Err(why) => Outcome::Broken(format!("cannot be taken out again: {why}")),
        }
    }

    /// Builds the simulator and plays a level's seeds.
    fn simulate(&self, level: &str) -> Outcome {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&self.copy.tree)
            .env("CARGO_TARGET_DIR", &self.build);
        cargo.env_remove("CARGO_MANIFEST_DIR");
        cargo.args(["build", "--quiet", "-p", "syncline-simulator"]);
        cargo.args(["--profile", &self.profile]);
        if level == "core" {
            cargo.arg("--no-default-features");
        }
        let built = match cargo.output() {
            Ok(built) => built,
            Err(error) => return Outcome::Broken(error.to_string()),
        };
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            let error = said.lines().find(|line| line.starts_with("error"));
            return Outcome::Broken(format!("does not build: {}", error.unwrap_or_default()));
        }
        let (seeds, minutes) = if level == "core" { CORE } else { STORE };
        // Only here has a profile's folder another name.
        let folder = if self.profile == "dev" {
            "debug"
        } else {
            &self.profile
        };
        let report = self.build.join("report.json");
        let _ = fs::remove_file(&report);
        let name = format!("syncline-simulator{}", std::env::consts::EXE_SUFFIX);
        let mut simulator = Command::new(self.build.join(folder).join(name));
        simulator
            .current_dir(&self.build)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        simulator.env("SYNCLINE_STATE_DIR", self.build.join("state"));
        simulator.args(["--level", level, "--failures", "1", "--no-shrink"]);
        simulator.args(["--seeds", &seeds.to_string()]);
        simulator.args(["--minutes", &minutes.to_string()]);
        simulator.arg("--json").arg(&report);
        let limit = Duration::from_secs_f64(minutes * 60.0) + GRACE;
        match ends_within(&mut simulator, limit) {
            Ok(true) => read(&report),
            Ok(false) => Outcome::Found {
                seeds: 0,
                invariant: "F:L9, it does not come to an end".to_owned(),
            },
            Err(error) => Outcome::Broken(error.to_string()),
        }
    }
}

/// Runs a program; false: it had to be ended.
fn ends_within(command: &mut Command, limit: Duration) -> std::io::Result<bool> {
    let mut child = command.spawn()?;
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

fn read(report: &Path) -> Outcome {
    let Some(report) = fs::read_to_string(report)
        .ok()
        .and_then(|text| Json::read(&text))
    else {
        return Outcome::Broken("the simulator left no report".to_owned());
    };
    let number = |json: &Json, name: &str| json.word(name).and_then(|word| word.parse().ok());
    let from: u64 = number(&report, "from").unwrap_or(0);
    match report.list("failures").first() {
        Some(failure) => Outcome::Found {
            seeds: number(failure, "seed").unwrap_or(from).saturating_sub(from) + 1,
            invariant: failure.text("invariant").unwrap_or("?").to_owned(),
        },
        None => Outcome::Missed {
            seeds: number(&report, "seeds").unwrap_or(0),
        },
    }
}

fn wanted(words: &[&str]) -> Result<Wanted, Failure> {
    let mut wanted = Wanted {
        names: Vec::new(),
        minutes: 60.0,
        report: true,
        profile: "bugs".to_owned(),
        build: None,
    };
    let wrong = |what: &str| Failure::Usage(format!("bugs: {what}"));
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--minutes" => {
                let minutes = words.next().and_then(|word| word.parse().ok());
                wanted.minutes = minutes.ok_or_else(|| wrong("--minutes takes a number"))?;
            }
            "--profile" => {
                let profile = words.next().ok_or_else(|| wrong("--profile of what?"))?;
                wanted.profile = (*profile).to_owned();
            }
            "--target" => {
                let build = words.next().ok_or_else(|| wrong("--target of what?"))?;
                wanted.build = Some(PathBuf::from(build));
            }
            "--no-report" => wanted.report = false,
            other if other.starts_with('-') => return Err(wrong(other)),
            name => wanted.names.push(name.to_owned()),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_which_and_how_long() {
        let read = wanted(&["echo", "--minutes", "2.5", "--no-report"]).unwrap();
        assert_eq!(
            (read.names, read.minutes, read.report),
            (vec!["echo".to_owned()], 2.5, false)
        );
        assert!(wanted(&["--minutes"]).is_err() && wanted(&["--odd"]).is_err());
    }
}
