//! `docs/proof.md`: what was run, for how long, and what it found. Each part has a block between two
//! marks; a run replaces the blocks of the parts that it ran and leaves the others.

use super::figures::Found;
use super::parts::{PARTS, Part, Setting};
use crate::Failure;
use crate::stamp::date;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

const INTRODUCTION: &str = "\
# Proof

What has tried to break Syncline, for how long, and what came of it. `cargo xtask torture` runs it and writes this
page; nothing here is written by hand. `cargo xtask torture --minutes 30` runs everything, `--only kills,fuzz` some of
it, and leaves what the page says of the rest. The tests of every change run a bounded share of each.

## What it cannot see

- **Real disks.** Power loss is played by a shim under SQLite that forgets what was not synced. Whether a disk, its
  controller or a file system keeps what it says that it has synced is not tested, nor is a kernel that crashes.
- **Kills are kills of processes.** The kernel lives on, and so does what it has in memory.
- **The network is played** in the simulations, and loopback in the loop of kills: no TLS, no proxies, no real
  losses. The HTTP code has tests of its own, and fuzzing of what it reads.
- **One machine**: no clocks that differ for real, no network file systems, no other operating system than the one
  below.
- **The server runs on SQLite or in memory.** Other storages are not part of this.
- **What the model does not know.** A rule that is misunderstood in the same way by the engine and by the reference
  model is not found by comparing them.
- **Bounds.** A seed that was not played, an input that was not tried. The figures say how many were.
";

/// The page.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Proof {
    /// The blocks by part, as they are written.
    blocks: BTreeMap<String, String>,
}

impl Proof {
    /// Reads the page, if there is one.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::Read(path.to_owned(), error)),
        }
    }

    fn parse(text: &str) -> Self {
        let mut blocks = BTreeMap::new();
        for part in PARTS {
            let (begin, end) = marks(part.name);
            let block = text
                .split_once(&begin)
                .and_then(|(_, rest)| rest.split_once(&end));
            if let Some((block, _)) = block
                && block.trim() != NOT_RUN
            {
                blocks.insert(part.name.to_owned(), block.trim().to_owned());
            }
        }
        Self { blocks }
    }

    /// Takes over what came of a part that was built from this commit.
    pub(super) fn take(&mut self, part: &Part, found: &Found, setting: Setting<'_>, commit: &str) {
        let when = format!(
            "{}, commit {commit}, {} cores, {}, profile `{}`; given {:.1} minutes from seed {} on",
            date(SystemTime::now()),
            std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            machine(),
            setting.profile,
            setting.minutes,
            setting.seed
        );
        self.blocks
            .insert(part.name.to_owned(), block(&when, found));
    }

    /// Writes the page.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        fs::write(path, self.text()).map_err(|error| Failure::Read(path.to_owned(), error))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{INTRODUCTION}\n## In short\n\n| part | measured by | wanted | reached | found |\n|---|---|---|---|---|\n"
        );
        for part in PARTS {
            let (measure, goal) = part.goal;
            let block = self.blocks.get(part.name);
            let reached = block
                .and_then(|block| value(block, measure))
                .unwrap_or("not run");
            let problems = match block {
                None => "",
                Some(block) if block.contains(PROBLEMS) => "see below",
                Some(_) => "nothing",
            };
            // Writing to a text does not fail.
            let _ = writeln!(
                text,
                "| {} | {measure} | {goal} | {reached} | {problems} |",
                part.title.to_lowercase()
            );
        }
        for part in PARTS {
            let (begin, end) = marks(part.name);
            let block = self.blocks.get(part.name).map_or(NOT_RUN, String::as_str);
            let what = part.what.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = write!(
                text,
                "\n## {}\n\n{what}\n\n{begin}\n{block}\n{end}\n",
                part.title
            );
        }
        text
    }
}

const PROBLEMS: &str = "It found:";
const NOT_RUN: &str = "Not run yet.";

fn marks(name: &str) -> (String, String) {
    (
        format!("<!-- {name} -->"),
        format!("<!-- end of {name} -->"),
    )
}

fn block(when: &str, found: &Found) -> String {
    let mut block = format!("{when}.\n\n");
    if !found.figures.is_empty() {
        block.push_str("| figure | value |\n|---|---|\n");
        for (name, value) in &found.figures {
            let _ = writeln!(block, "| {name} | {value} |");
        }
    }
    if !found.problems.is_empty() {
        let _ = write!(block, "\n{PROBLEMS}\n\n");
        for problem in found.problems.iter().take(20) {
            let _ = write!(block, "```text\n{}\n```\n", problem.replace("```", "'''"));
        }
    }
    block.trim().to_owned()
}

/// The value of a figure in a block.
fn value<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("| {name} | ");
    let line = block.lines().find_map(|line| line.strip_prefix(&start))?;
    line.strip_suffix(" |")
}

fn machine() -> String {
    format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a change of the words around the figures, run with `UPDATE_PROOF=1`.
    #[test]
    fn the_page_in_the_repository_is_one_that_this_program_writes() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/proof.md");
        let proof = Proof::read(&page).unwrap();
        if std::env::var_os("UPDATE_PROOF").is_some() {
            proof.write(&page).unwrap();
        }
        assert_eq!(fs::read_to_string(page).unwrap(), proof.text());
    }

    #[test]
    fn a_run_of_one_part_leaves_what_is_said_of_the_others() {
        let found = |value: &str, problems: &[&str]| Found {
            figures: vec![(PARTS[0].goal.0.to_owned(), value.to_owned())],
            problems: problems.iter().map(|&one| one.to_owned()).collect(),
        };
        let setting = Setting {
            root: Path::new("."),
            minutes: 1.0,
            seed: 1,
            seeds: None,
            profile: "release",
        };
        let mut proof = Proof::default();
        proof.take(&PARTS[0], &found("12", &[]), setting, "abc");
        proof.take(
            &PARTS[1],
            &found("7", &["seed 3 breaks E1"]),
            setting,
            "abc",
        );
        let text = proof.text();
        assert!(text.contains("| 12 | nothing |"), "{text}");
        assert!(text.contains("| 7 | see below |"), "{text}");
        assert!(text.contains("| not run |"), "{text}");
        let mut again = Proof::parse(&text);
        assert_eq!(again, proof);
        again.take(&PARTS[1], &found("8", &[]), setting, "abc");
        assert_eq!(again.blocks[PARTS[0].name], proof.blocks[PARTS[0].name]);
        assert!(!again.text().contains("seed 3"));
    }
}
