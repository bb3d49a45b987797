//! Each target on its seeds, on the inputs in `fuzz/corpus` and `fuzz/regressions`, and on random
//! mutations of all of them for a moment. Nothing guides these: `cargo xtask torture` runs the same
//! functions under a fuzzer that is guided by coverage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use syncline_fuzz_targets::{TARGETS, mutate_for};

/// Mutations of one target, and the time for them on a slow machine. They are the same in every run.
const MUTATIONS: u64 = 1_000;
const TIME: Duration = Duration::from_millis(1_500);

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn f_b10_c4_c5_whatever_is_read_from_outside_keeps_its_laws() {
    let seed = std::env::var("SEED").map_or(11, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    // `MUTATIONS=100000` goes on for as long as that takes.
    let asked = std::env::var("MUTATIONS")
        .ok()
        .map(|most| most.parse().unwrap());
    let (most, time) = asked.map_or((MUTATIONS, TIME), |most| (most, Duration::MAX / 4));
    for target in TARGETS {
        let mut inputs = (target.seeds)();
        for folder in ["corpus", "regressions"] {
            for (path, bytes) in files(&fuzz().join(folder).join(target.name)) {
                println!("{}", path.file_name().unwrap().display());
                inputs.push(bytes);
            }
        }
        inputs.sort();
        inputs.dedup();
        for input in &inputs {
            (target.check)(input);
        }
        let done = mutate_for(&target, &inputs, seed, most, time);
        println!("{}: {} inputs, {done} mutations", target.name, inputs.len());
    }
}

#[test]
fn the_corpora_are_those_of_the_targets() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    for target in TARGETS {
        // Not compared with the seeds byte by byte: a trace is another one with every change of the machine.
        let stored = files(&fuzz().join("corpus").join(target.name)).len();
        assert!(
            stored >= (target.seeds)().len(),
            "{}: run `cargo run -p syncline-fuzz-targets -- seeds fuzz/corpus`",
            target.name
        );
        let program = fuzz().join(format!("fuzz_targets/{}.rs", target.name));
        assert!(program.exists(), "{} has no fuzz program", target.name);
    }
}
