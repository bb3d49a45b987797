//! Runs many seeds of a level on several threads. The report does not depend on how many there were,
//! nor on which seed ended first.

use crate::level::{Broken, Level, Played, Trace};
use crate::report::Report;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One seed in so many is played twice (F:S24).
const TWICE_IN: u64 = 16;

/// So many failures are shrunk at most: each plays its seed hundreds of times.
const MOST_SHRUNK: usize = 5;

/// Which seeds to play, and how.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// No new seed is begun after this long.
    pub longest: Option<Duration>,
    /// Threads.
    pub jobs: usize,
    /// No new seed is begun after so many failures.
    pub failures: usize,
    /// Whether failures are shrunk; of many, the first few.
    pub shrink: bool,
}

impl Run {
    /// The first seeds, as every change has to hold them.
    pub fn of_every_change(seeds: u64) -> Self {
        Self {
            from: 0,
            seeds,
            longest: None,
            jobs: 2,
            failures: 3,
            shrink: true,
        }
    }
}

/// Plays the seeds and shrinks the failures.
pub fn run(level: &dyn Level, run: Run) -> Report {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let failures = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let gathered = Mutex::new(Gathered::new(level, run.from));
    std::thread::scope(|threads| {
        for _ in 0..run.jobs.max(1) {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= run.seeds {
                        return;
                    }
                    let seed = run.from.wrapping_add(at);
                    let done = play(level, seed);
                    let failed = match &done.broken {
                        Some(broken) => {
                            // A long run is worth looking into before its end.
                            eprintln!("seed {seed} breaks {}", broken.invariant);
                            failures.fetch_add(1, Ordering::Relaxed) + 1
                        }
                        None => 0,
                    };
                    let late = run
                        .longest
                        .is_some_and(|longest| begun.elapsed() >= longest);
                    if late || failed >= run.failures as u64 {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                    gathered.take(at, seed, done);
                }
            });
        }
    });
    let gathered = gathered
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let mut report = gathered.into_report();
    report.compare(level.table(), level.faults());
    report.wall_s = begun.elapsed().as_secs_f64();
    let shrunk = if run.shrink { MOST_SHRUNK } else { 0 };
    let seeds = report
        .failures
        .iter_mut()
        .filter(|one| one.invariant != "coverage");
    for failure in seeds.take(shrunk) {
        let shrunk = catch_unwind(AssertUnwindSafe(|| level.shrink(failure.seed)));
        failure.scenario = shrunk.unwrap_or_default();
    }
    report
}

/// Takes seeds into the report in their order, whichever ends first, and keeps no more than those that
/// are ahead of their turn.
struct Gathered {
    report: Report,
    digest: Trace,
    next: u64,
    ahead: BTreeMap<u64, (u64, Played)>,
}

impl Gathered {
    fn new(level: &dyn Level, from: u64) -> Self {
        Self {
            report: Report {
                level: level.name().to_owned(),
                from,
                ..Report::default()
            },
            digest: Trace::default(),
            next: 0,
            ahead: BTreeMap::new(),
        }
    }

    fn take(&mut self, at: u64, seed: u64, played: Played) {
        self.ahead.insert(at, (seed, played));
        while let Some((seed, played)) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.report.twice += u64::from(is_played_twice(seed));
            self.digest.add(&played.trace.to_le_bytes());
            self.report.add(seed, played);
        }
    }

    fn into_report(self) -> Report {
        Report {
            digest: format!("{:016x}", self.digest.hash()),
            ..self.report
        }
    }
}

fn is_played_twice(seed: u64) -> bool {
    seed.is_multiple_of(TWICE_IN)
}

/// Plays one seed; a panic is a broken invariant like any other, and so is a second run that differs.
fn play(level: &dyn Level, seed: u64) -> Played {
    let once = |seed| {
        catch_unwind(AssertUnwindSafe(|| level.play(seed))).unwrap_or_else(|panic| Played {
            broken: Some(Broken::new("F:S22", format!("panic: {}", told(&*panic)))),
            ..Played::default()
        })
    };
    let mut first = once(seed);
    if first.broken.is_none() && is_played_twice(seed) {
        let second = once(seed);
        if first != second {
            let detail = format!(
                "played twice, trace {:016x} became {:016x}",
                first.trace, second.trace
            );
            first.broken = Some(Broken::new("F:S24", detail));
        }
    }
    first
}

/// What a panic said.
pub fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a word".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks at 7, panics at 9, and is not deterministic at 32.
    struct Odd(AtomicU64);

    impl Level for Odd {
        fn name(&self) -> &'static str {
            "odd"
        }

        fn play(&self, seed: u64) -> Played {
            assert_ne!(seed, 9, "nine");
            let trace = match seed {
                32 => self.0.fetch_add(1, Ordering::Relaxed),
                _ => seed,
            };
            Played {
                trace,
                broken: (seed == 7).then(|| Broken::new("F:S1", "seven")),
                ..Played::default()
            }
        }

        fn shrink(&self, seed: u64) -> Option<String> {
            (seed == 7).then(|| "play(7)".to_owned())
        }
    }

    fn report(jobs: usize) -> Report {
        run(
            &Odd(AtomicU64::new(0)),
            Run {
                from: 0,
                seeds: 40,
                longest: None,
                jobs,
                failures: 10,
                shrink: true,
            },
        )
    }

    #[test]
    fn what_breaks_panics_or_differs_is_told_and_shrunk() {
        let report = report(3);
        let found: Vec<_> = (report.failures.iter())
            .map(|failure| (failure.seed, failure.invariant))
            .collect();
        assert_eq!(found, [(7, "F:S1"), (9, "F:S22"), (32, "F:S24")]);
        assert_eq!(report.failures[0].scenario.as_deref(), Some("play(7)"));
        assert_eq!((report.seeds, report.twice), (40, 3));
    }

    #[test]
    fn the_number_of_threads_makes_no_difference() {
        assert_eq!(report(1).digest, report(4).digest);
    }
}
