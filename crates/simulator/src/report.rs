//! What a run of many seeds is told as: figures for people, and the same as JSON.

use crate::level::{Broken, Cell, Played};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What came of many seeds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Which level.
    pub level: String,
    /// The first seed.
    pub from: u64,
    /// How many were played.
    pub seeds: u64,
    /// How many of them twice, to compare the traces (F:S24).
    pub twice: u64,
    /// Steps taken in all.
    pub steps: u64,
    /// Time that passed in the worlds, in hours.
    pub virtual_hours: f64,
    /// Wall time, in seconds.
    pub wall_s: f64,
    /// Hash over all traces, in the order of seeds: equal runs have equal digests.
    pub digest: String,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Kinds of faults that did not strike.
    pub missed: Vec<&'static str>,
    /// Visits to cells of the machine's table, as `state × input`.
    pub cells: BTreeMap<String, u64>,
    /// Cells that were not visited, and why.
    pub unreached: BTreeMap<String, &'static str>,
    /// Anything else that was counted.
    pub counts: BTreeMap<&'static str, u64>,
    /// Seeds that broke an invariant.
    pub failures: Vec<Failure>,
}

/// A seed that broke an invariant.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
    /// A shrunk scenario, as a test to paste.
    pub scenario: Option<String>,
}

impl Report {
    /// Takes in one more seed.
    pub fn add(&mut self, seed: u64, played: Played) {
        self.seeds += 1;
        self.steps += played.steps;
        self.virtual_hours += (played.virtual_ms as f64) / 3_600_000.0;
        for (kind, n) in played.faults {
            *self.faults.entry(kind).or_default() += n;
        }
        for ((state, input), n) in played.cells {
            *self.cells.entry(cell(&(state, input))).or_default() += n;
        }
        for (what, n) in played.counts {
            *self.counts.entry(what).or_default() += n;
        }
        if let Some(broken) = played.broken {
            self.fail(seed, broken);
        }
    }

    /// Lists what of a table was not visited, and which faults did not strike. A cell that is said never to be visited
    /// and was is a failure.
    pub fn compare(&mut self, table: Vec<(Cell, &'static str)>, faults: Vec<&'static str>) {
        let named = table.into_iter().map(|(one, why)| (cell(&one), why));
        let (visited, unreached): (Vec<_>, Vec<_>) =
            named.partition(|(one, _)| self.cells.contains_key(one));
        self.unreached = unreached.into_iter().collect();
        for (one, why) in visited.iter().filter(|(_, why)| why.starts_with("never: ")) {
            let detail = format!("{one} was visited ({why})");
            self.fail(self.from, Broken::new("coverage", detail));
        }
        self.missed = faults;
        self.missed.retain(|kind| !self.faults.contains_key(kind));
    }

    /// Notes a failure.
    pub fn fail(&mut self, seed: u64, Broken { invariant, detail }: Broken) {
        self.failures.push(Failure {
            seed,
            invariant,
            detail,
            scenario: None,
        });
    }

    /// Whether no seed broke an invariant.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }
}

/// How a cell is written.
pub fn cell((state, input): &Cell) -> String {
    format!("{state} × {input}")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.seeds as f64 / self.wall_s.max(0.001);
        writeln!(
            f,
            "{}: {} seeds from {} ({} played twice), {} steps, {:.1} hours simulated in {:.1} s ({rate:.0} seeds/s), digest {}",
            self.level,
            self.seeds,
            self.from,
            self.twice,
            self.steps,
            self.virtual_hours,
            self.wall_s,
            self.digest
        )?;
        writeln!(f, "{} kinds of faults:", self.faults.len())?;
        for (kind, n) in &self.faults {
            writeln!(f, "  {n:>9}  {kind}")?;
        }
        for kind in &self.missed {
            writeln!(f, "          0  {kind}")?;
        }
        writeln!(f, "{} cells of the machine's table:", self.cells.len())?;
        for (cell, n) in &self.cells {
            writeln!(f, "  {n:>9}  {cell}")?;
        }
        if !self.unreached.is_empty() {
            writeln!(f, "{} cells not visited:", self.unreached.len())?;
        }
        for (cell, why) in &self.unreached {
            writeln!(f, "             {cell} ({why})")?;
        }
        for (what, n) in &self.counts {
            writeln!(f, "  {n:>9}  {what}")?;
        }
        for failure in &self.failures {
            writeln!(
                f,
                "seed {} breaks {}: {}",
                failure.seed, failure.invariant, failure.detail
            )?;
            if let Some(scenario) = &failure.scenario {
                writeln!(f, "{scenario}")?;
            }
        }
        write!(f, "{} failures", self.failures.len())
    }
}
