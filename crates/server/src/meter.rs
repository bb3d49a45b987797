//! The meter: counts and times what the server does, through the `metrics` facade. Without a recorder
//! in the process it costs nearly nothing.
//!
//! Labels are words of this code: never a tenant, a subject, a client, an entity or a value, so that
//! whoever reads the metrics learns of no tenant, and a metric has few series. `docs/metrics.md` lists
//! them all.

use crate::{Purged, StorageError};
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use std::time::Duration;
use syncline_protocol::{Outcome, PushResponse};

const REQUESTS: &str = "syncline_server_requests_total";
const SECONDS: &str = "syncline_server_request_duration_seconds";
const IN_FLIGHT: &str = "syncline_server_requests_in_flight";
const RECEIVED: &str = "syncline_server_received_bytes_total";
const SENT: &str = "syncline_server_sent_bytes_total";
const MUTATIONS: &str = "syncline_server_mutations_total";
const POSITIONS: &str = "syncline_server_feed_positions_total";
const PULLED: &str = "syncline_server_sent_changes_total";
const LAG: &str = "syncline_server_pull_lag_changes";
const STREAMS: &str = "syncline_server_live_streams";
const STORAGE: &str = "syncline_server_storage_failures_total";
const UPKEEP: &str = "syncline_server_upkeep_total";
const FORGOTTEN: &str = "syncline_server_forgotten_total";

/// Tells the process's recorder what the metrics of this library mean; to be called once, after it was
/// installed.
pub fn describe_metrics() {
    let counters = [
        (
            REQUESTS,
            Unit::Count,
            "Requests that were answered, by endpoint and status",
        ),
        (
            RECEIVED,
            Unit::Bytes,
            "Bodies of requests, as compressed as they came",
        ),
        (
            SENT,
            Unit::Bytes,
            "Bodies of answers, as compressed as they are sent; without live streams",
        ),
        (
            MUTATIONS,
            Unit::Count,
            "Mutations that were decided, by outcome; `duplicate` when an earlier request had decided it",
        ),
        (
            POSITIONS,
            Unit::Count,
            "Positions that were taken in feeds: effects of mutations",
        ),
        (
            PULLED,
            Unit::Count,
            "Changes that were sent in pages, by phase of the pull",
        ),
        (
            STORAGE,
            Unit::Count,
            "Requests that the storage could not serve, by why",
        ),
        (
            UPKEEP,
            Unit::Count,
            "Rounds of forgetting what is past its retention, by how they ended",
        ),
        (
            FORGOTTEN,
            Unit::Count,
            "What was forgotten: `keys`, and `horizons` of feeds that moved",
        ),
    ];
    for (name, unit, text) in counters {
        describe_counter!(name, unit, text);
    }
    describe_gauge!(
        IN_FLIGHT,
        Unit::Count,
        "Requests that are being answered, without live streams"
    );
    describe_gauge!(STREAMS, Unit::Count, "Live streams that are open");
    describe_histogram!(
        SECONDS,
        Unit::Seconds,
        "From the last header of a request to its answer, by endpoint; of a live stream to its start"
    );
    describe_histogram!(
        LAG,
        Unit::Count,
        "How many positions behind the head of its feed a pull begins"
    );
}

/// A request that is being answered; until it is dropped.
pub(crate) struct InFlight;

impl InFlight {
    pub(crate) fn begin() -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
    }
}

pub(crate) fn answered(endpoint: &'static str, status: u16, took: Duration) {
    counter!(REQUESTS, "endpoint" => endpoint, "status" => status.to_string()).increment(1);
    histogram!(SECONDS, "endpoint" => endpoint).record(took);
}

pub(crate) fn received(bytes: usize) {
    counter!(RECEIVED).increment(count(bytes));
}

pub(crate) fn sent(bytes: usize) {
    counter!(SENT).increment(count(bytes));
}

pub(crate) fn pushed(response: &PushResponse) {
    for result in &response.results {
        let outcome = match result.duplicate {
            true => "duplicate",
            false => result.outcome.word(),
        };
        counter!(MUTATIONS, "outcome" => outcome).increment(1);
    }
    let fresh = response.results.iter().filter(|result| !result.duplicate);
    let applied = fresh.filter(|result| matches!(result.outcome, Outcome::Applied { .. }));
    counter!(POSITIONS).increment(count(applied.count()));
}

pub(crate) fn pulled(phase: &'static str, changes: usize) {
    counter!(PULLED, "phase" => phase).increment(count(changes));
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53
pub(crate) fn behind(positions: i64) {
    histogram!(LAG).record(positions as f64);
}

pub(crate) fn stream_opened() {
    gauge!(STREAMS).increment(1.0);
}

pub(crate) fn stream_ended() {
    gauge!(STREAMS).decrement(1.0);
}

pub(crate) fn storage_failed(error: &StorageError) {
    let why = match error {
        StorageError::Busy { .. } => "busy",
        StorageError::Unavailable { .. } => "unavailable",
        StorageError::Full { .. } => "full",
        StorageError::Internal { .. } => "internal",
    };
    counter!(STORAGE, "why" => why).increment(1);
}

/// A round of forgetting ended; `None`: it failed.
pub(crate) fn forgot(purged: Option<Purged>) {
    let end = if purged.is_some() { "ok" } else { "failed" };
    counter!(UPKEEP, "end" => end).increment(1);
    let purged = purged.unwrap_or_default();
    counter!(FORGOTTEN, "what" => "keys").increment(count(purged.keys));
    counter!(FORGOTTEN, "what" => "horizons").increment(count(purged.scopes));
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
