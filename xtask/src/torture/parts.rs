//! The parts: what each runs, and which share of the time it has.

use super::child::{self, Ended};
use super::figures::{self, Found};
use crate::suite::target;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// One part.
pub(super) struct Part {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// Its heading in the report.
    pub(super) title: &'static str,
    /// What it is, for the report.
    pub(super) what: &'static str,
    /// Its share of the time.
    pub(super) weight: f64,
    /// The figure by which it is measured, and what is wanted of it.
    pub(super) goal: (&'static str, u64),
    play: fn(&Run<'_>) -> Found,
}

/// Where, how long, from which seed, how many seeds at most, built how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) root: &'a Path,
    pub(super) minutes: f64,
    pub(super) seed: u64,
    pub(super) seeds: Option<u64>,
    pub(super) profile: &'a str,
}

/// One part's run.
struct Run<'a> {
    name: &'static str,
    root: &'a Path,
    minutes: f64,
    seed: u64,
    seeds: Option<u64>,
    profile: &'a str,
}

/// Whose programs are run.
const PACKAGES: [&str; 3] = [
    "syncline-simulator",
    "syncline-process-tests",
    "syncline-fault-tests",
];

/// So much longer than its share may a part take to end by itself.
const GRACE: Duration = Duration::from_secs(180);

pub(super) const PARTS: &[Part] = &[
    Part {
        name: "core",
        title: "Simulation of the core",
        what: "The state machine against models of store and server, under a virtual network and clock; one \
               seed decides everything. Invariants are checked on the way and at the end; a share of the seeds \
               is played twice and must give the same trace.",
        weight: 6.0,
        goal: ("seeds", 1_000_000),
        play: core,
    },
    Part {
        name: "store",
        title: "Simulation on real SQLite",
        what: "The real engine with the real store on SQLite files against the real server, under a virtual \
               network and clock, which is SQLite's as well; ids that SQLite draws are named anew by the seed.",
        weight: 9.0,
        goal: ("seeds", 50_000),
        play: store,
    },
    Part {
        name: "bugs",
        title: "Planted bugs",
        what: "Bugs that a sync engine could have are planted one by one into a copy of the repository, and the \
               simulator must find each; a clean copy must pass. Which were found within how many seeds, and when each was \
               played last, stands in `docs/planted-bugs.md`.",
        weight: 12.0,
        goal: ("planted bugs found", 40),
        play: bugs,
    },
    Part {
        name: "kills",
        title: "Kills",
        what: "Engines, writers and servers, several processes on one file, are killed with SIGKILL at random \
               moments and started again, and so are migrations. What a writer's commits were acknowledged \
               is known from its pipe. At the end of each world everything acknowledged must be on the server \
               and on the other device, every transaction whole, every key used once.",
        weight: 7.0,
        goal: ("kills", 5_000),
        play: kills,
    },
    Part {
        name: "files",
        title: "Files that fail",
        what: "Scripts of ordinary work on device and server on a shim under SQLite: calls that the script \
               makes fail in turn, as many as there is time for (disk full, I/O error, failed sync, busy, cannot open, no memory), once and \
               for good, with and without a crash afterwards; the power fails in the middle of every change, and \
               what was not synced is lost, kept, shortened or torn; then random pairs of faults until the time \
               is up. After each case: typed errors, transactions whole, what was acknowledged there, a sync \
               that comes to its end with every effect once.",
        weight: 3.0,
        goal: ("cases in which a fault struck", 3_000),
        play: files,
    },
    Part {
        name: "fuzz",
        title: "Fuzzing",
        what: "Everything that is read from outside, as functions that check laws, under libFuzzer with \
               coverage and the address sanitizer, from the corpora in the repository on.",
        weight: 5.0,
        goal: ("targets", 9),
        play: fuzz,
    },
];

/// Plays a part in its share of the time.
pub(super) fn play(part: &Part, setting: Setting<'_>) -> Found {
    let Setting {
        root,
        minutes,
        seed,
        seeds,
        profile,
    } = setting;
    (part.play)(&Run {
        name: part.name,
        root,
        minutes,
        seed,
        seeds,
        profile,
    })
}

impl Run<'_> {
    fn log(&self, name: &str) -> PathBuf {
        target().join("torture").join(format!("{name}.log"))
    }

    fn most(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0) + GRACE
    }

    /// Builds a package's programs; where they are. All packages are built at once, since features are
    /// unified over those that are selected; where that fails, this one may be built alone.
    fn build(&self, package: &str) -> Result<PathBuf, Found> {
        println!("building {package}");
        let all: Vec<&str> = PACKAGES
            .iter()
            .flat_map(|package| ["-p", package])
            .collect();
        let log = self.log(&format!("{}-build", self.name));
        let mut ended = String::new();
        for packages in [all, vec!["-p", package]] {
            let mut arguments = vec!["build", "--locked", "--profile", self.profile];
            arguments.extend(packages);
            let mut cargo = crate::suite::cargo(&arguments, self.root);
            match child::run(&mut cargo, &log, Duration::from_secs(3600)) {
                Ok(Ended::With(status)) if status.success() => {
                    let folder = if self.profile == "dev" {
                        "debug"
                    } else {
                        self.profile
                    };
                    return Ok(target().join(folder));
                }
                other => ended = format!("{other:?}"),
            }
        }
        Err(Found::problem(format!(
            "{package} cannot be built ({ended}); see {}",
            log.display()
        )))
    }

    /// Runs a program to its end; its output, and what is wrong with how it ended.
    fn finish(&self, command: &mut Command) -> (String, Option<String>) {
        let log = self.log(self.name);
        let ended = child::run(command, &log, self.most());
        let output = fs::read(&log).unwrap_or_default();
        let output = String::from_utf8_lossy(&output).into_owned();
        let problem = match ended {
            Ok(Ended::With(status)) if status.success() => None,
            Ok(Ended::With(status)) => Some(format!("it ended with {status}{}", tail(&output))),
            Ok(Ended::TooLate) => Some(format!("it did not end in time{}", tail(&output))),
            Err(error) => Some(format!("it did not start: {error}")),
        };
        (output, problem)
    }
}

/// The end of an output, for a report.
fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let from = lines.len().saturating_sub(12);
    format!("; its last words:\n{}", lines[from..].join("\n"))
}

fn core(run: &Run<'_>) -> Found {
    simulator(run, "core")
}

fn store(run: &Run<'_>) -> Found {
    simulator(run, "store")
}

fn simulator(run: &Run<'_>, level: &str) -> Found {
    let programs = match run.build("syncline-simulator") {
        Ok(programs) => programs,
        Err(problem) => return problem,
    };
    let report = run.log(level).with_extension("json");
    // What an earlier run left must not be taken for this one's.
    let _ = fs::remove_file(&report);
    let mut command = Command::new(programs.join("syncline-simulator"));
    command.args(["--level", level]);
    command.args(["--minutes", &run.minutes.to_string()]);
    command.args([
        "--from",
        &run.seed.saturating_mul(1_000_000_000).to_string(),
    ]);
    if let Some(seeds) = run.seeds {
        command.args(["--seeds", &seeds.to_string()]);
    }
    // Making a scenario smaller takes longer than there is; a seed can be played again at any time.
    command.arg("--no-shrink").arg("--json").arg(&report);
    let (_, problem) = run.finish(&mut command);
    let mut found = match fs::read_to_string(&report) {
        Ok(text) => figures::of_simulator(&text),
        Err(_) => Found::default(),
    };
    if found.problems.is_empty() {
        found.problems.extend(problem);
    }
    found
}

/// This program's own task, as a process that can be ended.
fn bugs(run: &Run<'_>) -> Found {
    let this = match std::env::current_exe() {
        Ok(this) => this,
        Err(error) => return Found::problem(format!("this program cannot be found: {error}")),
    };
    let mut command = Command::new(this);
    command.current_dir(run.root);
    command.args(["bugs", "--minutes", &run.minutes.to_string()]);
    let (output, problem) = run.finish(&mut command);
    let mut found = figures::of_bugs(&output);
    if found.problems.is_empty() {
        found.problems.extend(problem);
    }
    found
}

fn kills(run: &Run<'_>) -> Found {
    let programs = match run.build("syncline-process-tests") {
        Ok(programs) => programs,
        Err(problem) => return problem,
    };
    let mut command = Command::new(programs.join("syncline-kills"));
    // Without a number it ends at one that fits a test.
    command.args(["--kills", "6000"]);
    command.args(["--minutes", &run.minutes.to_string()]);
    command.args(["--seed", &run.seed.to_string()]);
    told(run, &mut command)
}

fn files(run: &Run<'_>) -> Found {
    let programs = match run.build("syncline-fault-tests") {
        Ok(programs) => programs,
        Err(problem) => return problem,
    };
    let mut command = Command::new(programs.join("syncline-fault-tests"));
    command.args(["--minutes", &run.minutes.to_string()]);
    command.args(["--seed", &run.seed.to_string()]);
    told(run, &mut command)
}

/// Runs a program that tells figures line by line.
fn told(run: &Run<'_>, command: &mut Command) -> Found {
    let (output, problem) = run.finish(command);
    let mut found = figures::in_lines(&output);
    if found.problems.is_empty() {
        found.problems.extend(problem);
    }
    found
}

/// How many targets are fuzzed at once.
const AT_ONCE: usize = 2;

fn fuzz(run: &Run<'_>) -> Found {
    let folder = run.root.join("fuzz");
    let programs = match build_fuzzers(run, &folder) {
        Ok(programs) => programs,
        Err(problem) => return problem,
    };
    let targets = match targets(&folder) {
        Ok(targets) => targets,
        Err(error) => return Found::problem(format!("the targets cannot be listed: {error}")),
    };
    let rounds = targets.len().div_ceil(AT_ONCE).max(1) as f64;
    let seconds = (run.minutes * 60.0 / rounds).floor().max(1.0) as u64;
    let mut found = Found::default();
    found.add("targets", targets.len());
    found.add("seconds for each", seconds);
    let mut all = 0;
    for some in targets.chunks(AT_ONCE) {
        let children: Vec<_> = some
            .iter()
            .map(|name| (name, fuzz_one(run, &folder, &programs, name, seconds)))
            .collect();
        let until = Instant::now() + Duration::from_secs(seconds) + GRACE;
        for (name, child) in children {
            let ended = child.and_then(|mut child| child::wait(&mut child, until));
            let output = fs::read(run.log(&format!("fuzz-{name}"))).unwrap_or_default();
            let output = String::from_utf8_lossy(&output);
            let runs = figures::statistic(&output, "stat::number_of_executed_units");
            let runs: u64 = runs.and_then(|runs| runs.parse().ok()).unwrap_or(0);
            all += runs;
            found.add(format!("runs of `{name}`"), runs);
            match ended {
                Ok(Ended::With(status)) if status.success() && runs > 0 => {}
                ended => (found.problems).push(format!("{name}: {ended:?}{}", tail(&output))),
            }
        }
    }
    found.add("runs in all", all);
    found
}

/// One program of a name each.
fn targets(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Builds the fuzzer's programs with coverage and the address sanitizer; where they are. What that needs
/// of the compiler is not stable, so a stable one is told to allow it.
fn build_fuzzers(run: &Run<'_>, folder: &Path) -> Result<PathBuf, Found> {
    println!("building the fuzzer's programs");
    let log = run.log("fuzz-build");
    let mut cargo = Command::new("cargo");
    crate::suite::forget_this_run(&mut cargo);
    cargo.current_dir(folder).env("RUSTC_BOOTSTRAP", "1");
    cargo.args(["fuzz", "build", "--fuzz-dir", "."]);
    match child::run(&mut cargo, &log, Duration::from_secs(3600)) {
        Ok(Ended::With(status)) if status.success() => {}
        ended => {
            return Err(Found::problem(format!(
                "the fuzzer's programs cannot be built ({ended:?}); `cargo install cargo-fuzz` helps \
                 if that is missing; see {}",
                log.display()
            )));
        }
    }
    let entries = fs::read_dir(folder.join("target")).into_iter().flatten();
    let built = entries
        .flatten()
        .map(|entry| entry.path().join("release"))
        .find(|path| path.join("push_request").exists());
    built.ok_or_else(|| Found::problem("the fuzzer's programs are not where they should be"))
}

fn fuzz_one(
    run: &Run<'_>,
    folder: &Path,
    programs: &Path,
    name: &str,
    seconds: u64,
) -> std::io::Result<Child> {
    let [work, artifacts] = ["work", "artifacts"].map(|kind| folder.join(kind).join(name));
    for made in [&work, &artifacts] {
        fs::create_dir_all(made)?;
    }
    let mut command = Command::new(programs.join(name));
    // What is found goes to the first folder; the others are only read.
    command.current_dir(folder).arg(work);
    for kind in ["corpus", "regressions"] {
        let inputs = folder.join(kind).join(name);
        if inputs.is_dir() {
            command.arg(inputs);
        }
    }
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-seed={}", run.seed));
    for option in [
        "-timeout=25",
        "-rss_limit_mb=2048",
        "-max_len=16384",
        "-print_final_stats=1",
        "-detect_leaks=0",
        "-verbosity=1",
    ] {
        command.arg(option);
    }
    child::start(&mut command, &run.log(&format!("fuzz-{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fuzz_target_has_a_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let names = targets(&root.join("fuzz")).unwrap();
        assert!(names.len() >= 9, "{names:?}");
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        for name in names {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }

    #[test]
    fn names_of_parts_differ() {
        let names: std::collections::BTreeSet<_> = PARTS.iter().map(|part| part.name).collect();
        assert_eq!(names.len(), PARTS.len());
    }
}
