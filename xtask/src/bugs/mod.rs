//! `cargo xtask bugs`: the harness is tested. Bugs that a sync engine could have are planted one by one
//! into a copy of the repository, and the simulator must find each; a clean copy must pass.
//!
//! The bugs are patches in `crates/simulator/bugs`, never switches in the code. What was found, and within
//! how many seeds, is written to `docs/planted-bugs.md`.
//!
//! For the core level the simulator is built without the other one, which takes a fraction of the time.

mod copy;
mod patch;

use crate::Failure;
use crate::json::Json;
use crate::suite::target;
use copy::Copy;
use patch::Bug;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

const NOT_RUN: &str = "not run";

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
    let bugs: Vec<Bug> = (all.iter())
        .filter(|bug| {
            wanted.names.is_empty() || wanted.names.iter().any(|one| bug.name.contains(one))
        })
        .cloned()
        .collect();
    let results = play(root, &bugs, &wanted)?;
    println!("\n{}", table(&bugs, &rows(&bugs, &results)));
    if wanted.report {
        let page = root.join("docs/planted-bugs.md");
        let before = fs::read_to_string(&page).unwrap_or_default();
        let table = table(&all, &merged(&before, rows(&bugs, &results)));
        fs::write(&page, table).map_err(|error| Failure::Read(page, error))?;
    }
    match results.iter().filter(|(one, _)| !one.is_found()).count() {
        0 => Ok(()),
        missed => Err(Failure::Bugs(missed)),
    }
}

impl Outcome {
    fn is_found(&self) -> bool {
        matches!(self, Outcome::Found { .. })
    }

    fn tell(&self) -> String {
        match self {
            Outcome::Found { seeds, invariant } => format!("{seeds} ({invariant})"),
            Outcome::Missed { seeds } => format!("**not found** in {seeds}"),
            Outcome::Broken(why) => format!("**{}**", why.lines().next().unwrap_or("failed")),
            Outcome::NotRun => NOT_RUN.to_owned(),
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

/// What the table says of each bug that was played, by name: the rest of its row, and whether it was found.
type Rows = BTreeMap<String, (String, bool)>;

fn rows(bugs: &[Bug], results: &[(Outcome, u64)]) -> Rows {
    let played = bugs.iter().zip(results);
    let played = played.filter(|(_, (outcome, _))| *outcome != Outcome::NotRun);
    let row = |(bug, (outcome, took)): (&Bug, &(Outcome, u64))| {
        let told = format!("{} | {took}", outcome.tell());
        (bug.name.clone(), (told, outcome.is_found()))
    };
    played.map(row).collect()
}

/// Adds what a page said of bugs that were not played this time.
fn merged(page: &str, mut rows: Rows) -> Rows {
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [name, _, _, _, seeds, took] = cells[..]
            && seeds != NOT_RUN
        {
            let told = format!("{seeds} | {took}");
            rows.entry(name.to_owned())
                .or_insert((told, !seeds.starts_with("**")));
        }
    }
    rows
}

fn table(bugs: &[Bug], rows: &Rows) -> String {
    let row = |bug: &Bug| rows.get(&bug.name);
    let found = bugs.iter().filter_map(row).filter(|(_, found)| *found);
    let mut text = format!(
        "# Planted bugs\n\n{} of {} are found. Written by `cargo xtask bugs`: each is planted into a copy of the \
         repository ([patches](../{})), and the simulator is played until it breaks an invariant. \"Seeds\" is how many \
         that took, and which invariant showed it; building is most of the seconds. A run of some of them leaves what was \
         said of the others.\n\n\
         | bug | what is wrong | breaks | level | seeds | seconds |\n|---|---|---|---|---|---|\n",
        found.count(),
        bugs.len(),
        patch::FOLDER,
    );
    for bug in bugs {
        let Bug {
            name,
            what,
            breaks,
            level,
            ..
        } = bug;
        let not_run = format!("{NOT_RUN} | 0");
        let told = row(bug).map_or(not_run.as_str(), |(told, _)| told);
        let _ = writeln!(text, "| {name} | {what} | {breaks} | {level} | {told} |");
    }
    text
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

    #[test]
    fn what_came_of_each_is_told_in_a_table_and_stays_when_others_are_played() {
        let bug = |name: &str| Bug {
            name: name.to_owned(),
            what: "wrong".to_owned(),
            breaks: "F:S1".to_owned(),
            level: "core".to_owned(),
            path: PathBuf::new(),
        };
        let bugs = [bug("001-a"), bug("002-b"), bug("003-c")];
        let found = Outcome::Found {
            seeds: 7,
            invariant: "F:S1".to_owned(),
        };
        let results = [(found, 3), (Outcome::Missed { seeds: 9 }, 4)];
        let first = table(&bugs, &rows(&bugs[..2], &results));
        assert!(first.contains("1 of 3 are found"), "{first}");
        for row in [
            "| 001-a | wrong | F:S1 | core | 7 (F:S1) | 3 |",
            "| 002-b | wrong | F:S1 | core | **not found** in 9 | 4 |",
            "| 003-c | wrong | F:S1 | core | not run | 0 |",
        ] {
            assert!(first.contains(row), "{first}");
        }
        let found = Outcome::Found {
            seeds: 2,
            invariant: "F:S9".to_owned(),
        };
        let later = [(found, 5), (Outcome::NotRun, 0)];
        let second = table(&bugs, &merged(&first, rows(&bugs[1..], &later)));
        assert!(second.contains("2 of 3 are found"), "{second}");
        for row in ["7 (F:S1) | 3 |", "2 (F:S9) | 5 |", "not run | 0 |"] {
            assert!(second.contains(row), "{second}");
        }
    }
}
