//! `cargo xtask torture`: everything that tries to break Syncline, for longer than a test may take, and
//! the figures of it in `docs/proof.md`.
//!
//! Each part is a program of its own, built before the time begins to count and given a share of the
//! time. A part that fails or hangs is told in the report and does not keep the others from running. A
//! run of some parts leaves the report of the others as it is.

mod child;
mod figures;
mod parts;
mod report;

use crate::{Failure, stamp};
use parts::{PARTS, Part, Setting};
use report::Proof;
use std::path::Path;
use std::time::Instant;

/// What the command line says.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    minutes: f64,
    only: Vec<String>,
    seed: u64,
    /// So many seeds of each level at most, however much time there is.
    seeds: Option<u64>,
    /// Cargo's profile; `sim` is `release` built faster.
    profile: String,
    report: bool,
}

pub(crate) fn run(root: &Path, words: &[&str]) -> Result<(), Failure> {
    let wanted = wanted(words)?;
    let parts: Vec<&Part> = PARTS
        .iter()
        .filter(|part| wanted.only.is_empty() || wanted.only.iter().any(|name| name == part.name))
        .collect();
    let weight: f64 = parts.iter().map(|part| part.weight).sum();
    let page = root.join("docs/proof.md");
    let mut proof = Proof::read(&page)?;
    let mut failed = 0;
    for part in parts {
        let minutes = wanted.minutes * part.weight / weight;
        println!("\n==> {}: {minutes:.1} minutes", part.name);
        let begun = Instant::now();
        // Before it begins: what is checked out may be another one when it ends.
        let commit = stamp::commit(root);
        let setting = Setting {
            root,
            minutes,
            seed: wanted.seed,
            seeds: wanted.seeds,
            profile: &wanted.profile,
        };
        let found = parts::play(part, setting);
        for (name, value) in &found.figures {
            println!("{name}: {value}");
        }
        println!("<== {}: {:.0} s", part.name, begun.elapsed().as_secs_f64());
        for problem in &found.problems {
            println!("FAILED: {problem}");
        }
        failed += usize::from(!found.problems.is_empty());
        proof.take(part, &found, setting, &commit);
        // After each part, so that what was done is told whatever comes next.
        if wanted.report {
            proof.write(&page)?;
        }
    }
    match failed {
        0 => Ok(()),
        count => Err(Failure::Torture(count)),
    }
}

fn wanted(words: &[&str]) -> Result<Wanted, Failure> {
    let mut wanted = Wanted {
        minutes: 30.0,
        only: Vec::new(),
        seed: 1,
        seeds: None,
        profile: "sim".to_owned(),
        report: true,
    };
    let wrong = |what: &str| Failure::Usage(format!("torture: {what}"));
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| wrong(&format!("{word} of what?")))
        };
        match *word {
            "--minutes" => {
                let minutes = value()?.parse().ok().filter(|minutes| *minutes > 0.0);
                wanted.minutes = minutes.ok_or_else(|| wrong("--minutes takes a number"))?;
            }
            "--seed" => {
                wanted.seed = (value()?.parse()).map_err(|_| wrong("--seed takes a number"))?;
            }
            "--seeds" => {
                let seeds = value()?.parse().ok().filter(|seeds| *seeds > 0);
                wanted.seeds = Some(seeds.ok_or_else(|| wrong("--seeds takes a number"))?);
            }
            "--only" => wanted.only = value()?.split(',').map(str::to_owned).collect(),
            "--profile" => wanted.profile = (*value()?).to_owned(),
            "--no-report" => wanted.report = false,
            other => return Err(wrong(other)),
        }
    }
    let unknown = |name: &&String| PARTS.iter().all(|part| part.name != name.as_str());
    match wanted.only.iter().find(unknown) {
        Some(name) => {
            let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
            let names = names.join(", ");
            Err(wrong(&format!("no part {name:?}; the parts are {names}")))
        }
        None => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_how_long_and_what() {
        let read = wanted(&["--minutes", "2.5", "--only", "kills,fuzz", "--seed", "9"]).unwrap();
        assert_eq!((read.minutes, read.seed), (2.5, 9));
        assert_eq!(read.only, ["kills", "fuzz"]);
        assert_eq!(wanted(&[]).unwrap().minutes, 30.0);
        assert_eq!(wanted(&["--seeds", "12"]).unwrap().seeds, Some(12));
        for words in [
            &["--minutes"][..],
            &["--minutes", "soon"],
            &["--minutes", "-1"],
            &["--seeds", "0"],
            &["--only", "nothing"],
            &["kills"],
        ] {
            assert!(wanted(words).is_err(), "{words:?}");
        }
    }
}
