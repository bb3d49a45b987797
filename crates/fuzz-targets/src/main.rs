//! `syncline-fuzz-targets seeds FOLDER`: writes each target's seeds, for the fuzzer to begin with.
//! `syncline-fuzz-targets check TARGET FILE…`: checks single inputs, a crash of the fuzzer's above all.

// A tool of tests: what cannot go on panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use syncline_fuzz_targets::{TARGETS, check};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["seeds", folder] => {
            for target in TARGETS {
                let folder = Path::new(folder).join(target.name);
                std::fs::create_dir_all(&folder).unwrap();
                for (nth, seed) in (target.seeds)().iter().enumerate() {
                    std::fs::write(folder.join(format!("seed-{nth}")), seed).unwrap();
                }
            }
        }
        ["check", target, ref files @ ..] => {
            for file in files {
                check(target, &std::fs::read(file).unwrap());
            }
        }
        _ => panic!("seeds FOLDER, or check TARGET FILE…"),
    }
}
