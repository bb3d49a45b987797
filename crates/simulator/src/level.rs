//! What a level of simulation offers to the runner, and what a played seed leaves behind.

use std::collections::BTreeMap;

/// A way to play a seed. Playing is a pure function of the seed: no clock, no global state, no order
/// between seeds; several threads play at once.
pub trait Level: Sync {
    /// Its name on the command line and in the report.
    fn name(&self) -> &'static str;

    /// Plays one seed to its end or to the first broken invariant.
    fn play(&self, seed: u64) -> Played;

    /// Every cell of the machine's table, and why it is not reached where it is not.
    fn table(&self) -> Vec<(Cell, &'static str)> {
        Vec::new()
    }

    /// Every kind of fault that there is.
    fn faults(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// A scenario as small as possible that breaks the same invariant as the seed, as a Rust test to
    /// paste; `None` when the seed does not break it.
    fn shrink(&self, seed: u64) -> Option<String>;
}

/// A cell of the machine's table: the state it was in and the kind of the input.
pub type Cell = (&'static str, &'static str);

/// What came of one seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Played {
    /// Hash over everything that happened: requests, answers, effects, final states (F:S24).
    pub trace: u64,
    /// How much time passed in the world, in milliseconds.
    pub virtual_ms: u64,
    /// How many steps were taken.
    pub steps: u64,
    /// Faults that really happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Cells of the machine's table that were visited.
    pub cells: BTreeMap<Cell, u64>,
    /// Anything else worth counting (conflicts, mutations, …), by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// The invariant that was broken first.
    pub broken: Option<Broken>,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its id: `F:S3`, `D:E2`, `F:L1` …
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Broken {
    /// One with its id and what was seen.
    pub fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self {
            invariant,
            detail: detail.into(),
        }
    }
}

impl Played {
    /// Counts one fault that happened.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Counts a visit to a cell.
    pub fn cell(&mut self, state: &'static str, input: &'static str) {
        *self.cells.entry((state, input)).or_default() += 1;
    }

    /// Counts something else.
    pub fn count(&mut self, what: &'static str, n: u64) {
        *self.counts.entry(what).or_default() += n;
    }
}

/// Hashes what happens, in order (FNV-1a, 64 bits).
#[derive(Debug, Clone)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Takes in one more thing.
    pub fn add(&mut self, what: &[u8]) {
        for byte in what.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.0
    }
}
