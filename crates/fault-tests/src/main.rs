//! `syncline-fault-tests [--minutes M] [--seed S]`: every case of every script, then random pairs of
//! faults until the time is up. Prints figures, and what went wrong; fails if anything did.

// A tool of tests: what cannot go on panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use syncline_fault_tests::{Case, Figures, Script, all_cases, play_share, power_cases, scripts};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)?.parse::<f64>().ok()
    };
    let minutes = value("--minutes").unwrap_or(1.0);
    let seed = value("--seed").map_or(1, |seed| seed as u64);
    // What each case does when all is well is nobody's concern, and a panic is told with its case.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(minutes * 60.0);
    let all: Vec<(Script, Vec<Case>)> = scripts()
        .into_iter()
        .map(|script| {
            let mut cases = all_cases(script);
            cases.extend(power_cases(script));
            (script, cases)
        })
        .collect();
    let whole: usize = all.iter().map(|(_, cases)| cases.len()).sum();
    let figures = Mutex::new(Figures::default());
    let played = Mutex::new(0_usize);
    // In random order, so that a short run sees something of each script.
    let mut work: Vec<_> = all
        .iter()
        .flat_map(|(script, cases)| cases.chunks(20).map(|some| (*script, some)))
        .collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut work);
    let work = Mutex::new(work);
    std::thread::scope(|threads| {
        for thread in 0..2 {
            let (all, work, figures, played) = (&all, &work, &figures, &played);
            threads.spawn(move || {
                loop {
                    let next = work.lock().unwrap().pop();
                    let Some((script, some)) = next else { break };
                    figures
                        .lock()
                        .unwrap()
                        .add(play_share(script, some, some.len(), Some(until)));
                    if Instant::now() < until {
                        *played.lock().unwrap() += some.len();
                    }
                }
                let mut dice = fastrand::Rng::with_seed(seed * 1000 + thread);
                while Instant::now() < until {
                    let (script, cases) = &all[dice.usize(..all.len())];
                    let pair = pair(cases, &mut dice);
                    figures
                        .lock()
                        .unwrap()
                        .add(play_share(*script, &[pair], 1, Some(until)));
                }
            });
        }
    });
    let (figures, played) = (figures.into_inner().unwrap(), played.into_inner().unwrap());
    tell(&figures, (played, whole), begun.elapsed());
    ExitCode::from(u8::from(!figures.failures.is_empty()))
}

/// Prints the figures, and what went wrong.
fn tell(figures: &Figures, (played, whole): (usize, usize), took: Duration) {
    let rate = figures.cases as f64 / took.as_secs_f64();
    println!("figure: single cases = {played} of {whole}");
    println!("figure: cases in which a fault struck = {}", figures.cases);
    println!("figure: cases in a second = {rate:.1}");
    for (kind, count) in &figures.kinds {
        println!("figure: {kind} = {count}");
    }
    for failure in &figures.failures {
        println!("FAILED {failure}");
    }
    println!("figure: failures = {}", figures.failures.len());
}

/// Two single faults at once.
fn pair(cases: &[Case], dice: &mut fastrand::Rng) -> Case {
    let mut faults = Vec::new();
    while faults.len() < 2 {
        if let Case::Fails { faults: some, .. } = &cases[dice.usize(..cases.len())] {
            faults.extend(some);
        }
    }
    Case::Fails {
        faults,
        crash: dice.bool(),
    }
}
