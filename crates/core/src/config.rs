//! The numbers that the core decides with; every one has a default that works.

use crate::SyncOrder;
use serde::{Deserialize, Serialize};

/// Settings of the state machine. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Config {
    /// What a cycle does, in which order.
    pub order: SyncOrder,
    /// How long after a local write a sync starts, so that writes close together travel together.
    pub debounce_ms: u64,
    /// The longest that a steady stream of writes can put the sync off.
    pub debounce_longest_ms: u64,
    /// How often the remote is asked for changes when nothing else happens; ±20 % jitter.
    pub poll_interval_ms: u64,
    /// The same while the remote's hints are heard: only for those that were missed.
    pub live_poll_interval_ms: u64,
    /// Mutations in one push at most (the server's limit may be lower).
    pub push_mutations: usize,
    /// Bytes of mutations in one push at most, unless a single one has more.
    pub push_bytes: usize,
    /// Changes in one page of a pull.
    pub page_changes: usize,
    /// Attributable failures after which a mutation is `dead`.
    pub max_attempts: u32,
    /// How long a mutation that fails alone is not blamed for it while no push goes through, and the least time
    /// between two that are given up for nothing but that.
    pub lone_patience_ms: u64,
    /// Tokens that all retries of this process draw from: 5 each, 10 after no answer; an answered
    /// request gives 1 back. Without tokens every wait is the longest.
    pub retry_budget: u32,
    /// First back-off; doubled with every failure in a row.
    pub backoff_base_ms: u64,
    /// How long a greeting holds: the first cycle after that for which there is more reason than the time
    /// asks again which limits and scopes there are.
    pub greet_after_ms: u64,
    /// Longest back-off.
    pub backoff_cap_ms: u64,
    /// Back-off after an answer that a retry will hardly change (set up wrongly, incompatible).
    pub misconfigured_backoff_ms: u64,
    /// How long the right to be the engine of the file lasts without renewal.
    pub lease_ttl_ms: u64,
    /// Push-and-pull rounds in one cycle, so that a cycle always ends.
    pub rounds: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            order: SyncOrder::default(),
            debounce_ms: 100,
            debounce_longest_ms: 2_000,
            poll_interval_ms: 15_000,
            live_poll_interval_ms: 21_600_000,
            push_mutations: 500,
            push_bytes: 1 << 20,
            page_changes: 1_000,
            max_attempts: 8,
            lone_patience_ms: 3_600_000,
            retry_budget: 500,
            backoff_base_ms: 500,
            greet_after_ms: 3_600_000,
            backoff_cap_ms: 300_000,
            misconfigured_backoff_ms: 300_000,
            lease_ttl_ms: 60_000,
            rounds: 8,
        }
    }
}
