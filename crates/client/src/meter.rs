//! The meter: counts and times what the engine does, through the `metrics` facade. Without a recorder
//! in the process it costs nearly nothing.
//!
//! Labels are words of this code, or names that an app gives (rules): never an id, a value, or a
//! server's words, so a metric has few series. `docs/metrics.md` lists them all.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use std::path::Path;
use std::time::Duration;
use syncline_core::{Notice, RemoteAnswer, State, StoreAnswer, StoreWork};
use syncline_store::status::Status;

const CYCLES: &str = "syncline_cycles_total";
const REQUEST_SECONDS: &str = "syncline_request_duration_seconds";
const STORE_SECONDS: &str = "syncline_store_duration_seconds";
const STORE_FAILURES: &str = "syncline_store_failures_total";
const CLAIMS: &str = "syncline_claims_total";
const CLAIMED: &str = "syncline_claimed_mutations_total";
const MUTATIONS: &str = "syncline_mutations_total";
const PAGES: &str = "syncline_pages_total";
const CHANGES: &str = "syncline_changes_total";
const CONFLICTS: &str = "syncline_conflicts_total";
const BACKOFFS: &str = "syncline_backoffs_total";
const LEASE: &str = "syncline_lease_changes_total";
const OUTBOX: &str = "syncline_outbox_entries";
const OLDEST: &str = "syncline_oldest_pending_age_seconds";
const INBOX: &str = "syncline_inbox_changes";
const STAGED: &str = "syncline_staged_changes";
const OPEN_CONFLICTS: &str = "syncline_open_conflicts";
const WAL: &str = "syncline_wal_bytes";
const STATE: &str = "syncline_engine_state";
const LAST_PUSH: &str = "syncline_last_push_timestamp_seconds";
const LAST_PULL: &str = "syncline_last_pull_timestamp_seconds";

/// Every state that an engine may be in, as far as it is known here.
const STATES: [State; 9] = [
    State::Idle,
    State::Connecting,
    State::Pushing,
    State::Pulling,
    State::BlockedAuth,
    State::BlockedConflict,
    State::Backoff,
    State::Paused,
    State::Stopped,
];

const COUNTERS: [(&str, Unit, &str); 10] = [
    (CYCLES, Unit::Count, "Cycles that ended, by how"),
    (
        STORE_FAILURES,
        Unit::Count,
        "Units of store work that failed and were rolled back, by kind of trouble",
    ),
    (CLAIMS, Unit::Count, "Claims that found something to send"),
    (
        CLAIMED,
        Unit::Count,
        "Mutations that were claimed; again each time they are sent again",
    ),
    (
        MUTATIONS,
        Unit::Count,
        "Mutations that were booked, by what became of them",
    ),
    (PAGES, Unit::Count, "Pages that were applied or staged"),
    (
        CHANGES,
        Unit::Count,
        "Pulled changes, by what became of them",
    ),
    (
        CONFLICTS,
        Unit::Count,
        "Conflicts, by the rule that decided; `person` when none did",
    ),
    (
        BACKOFFS,
        Unit::Count,
        "Failed requests that are repeated after a pause, by why",
    ),
    (
        LEASE,
        Unit::Count,
        "Changes of who is the engine of the file: this process, another one, or nobody",
    ),
];

const GAUGES: [(&str, Unit, &str); 9] = [
    (OUTBOX, Unit::Count, "Entries in the outbox, by state"),
    (
        OLDEST,
        Unit::Seconds,
        "Age of the oldest mutation that is not settled; 0 when all are",
    ),
    (INBOX, Unit::Count, "Pulled changes that wait in the inbox"),
    (
        STAGED,
        Unit::Count,
        "Pulled changes that wait for the head, to be applied together",
    ),
    (
        OPEN_CONFLICTS,
        Unit::Count,
        "Conflicts that wait for a person",
    ),
    (WAL, Unit::Bytes, "Size of the database's write-ahead log"),
    (
        STATE,
        Unit::Count,
        "1 for the state that the engine is in, 0 for the others",
    ),
    (
        LAST_PUSH,
        Unit::Seconds,
        "When a push last took effect, in seconds since 1970; 0 for never",
    ),
    (
        LAST_PULL,
        Unit::Seconds,
        "When the head of the feed was last reached, in seconds since 1970; 0 for never",
    ),
];

/// In seconds.
const HISTOGRAMS: [(&str, &str); 2] = [
    (
        REQUEST_SECONDS,
        "Requests to the server, by kind and by outcome: `ok`, or why there is no result",
    ),
    (
        STORE_SECONDS,
        "Units of store work, each one transaction, by kind",
    ),
];

/// Tells the process's recorder what the metrics of this library mean; to be called once, after it was
/// installed.
pub fn describe_metrics() {
    for (name, unit, text) in COUNTERS {
        describe_counter!(name, unit, text);
    }
    for (name, unit, text) in GAUGES {
        describe_gauge!(name, unit, text);
    }
    for (name, text) in HISTOGRAMS {
        describe_histogram!(name, Unit::Seconds, text);
    }
    #[cfg(feature = "http")]
    syncline_remote_http::describe_metrics();
}

/// Who is the engine of the file, as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Holder {
    #[default]
    Nobody,
    Own,
    Other,
}

/// Counts what one engine does.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    holder: Holder,
}

impl Meter {
    /// A unit of store work ended.
    pub(crate) fn store(&mut self, work: &StoreWork, answer: &StoreAnswer, took: Duration) {
        histogram!(STORE_SECONDS, "work" => work.word()).record(took);
        match (work, answer) {
            (_, StoreAnswer::Failed(fault)) => {
                counter!(STORE_FAILURES, "kind" => fault.kind.word()).increment(1);
            }
            (_, StoreAnswer::Acquired) => self.held_by(Holder::Own),
            (_, StoreAnswer::HeldByOther { .. }) => self.held_by(Holder::Other),
            (_, StoreAnswer::Claimed(claimed)) if !claimed.batch.entries.is_empty() => {
                counter!(CLAIMS).increment(1);
                counter!(CLAIMED).increment(count(claimed.batch.entries.len()));
            }
            (StoreWork::Book { bookings, .. }, StoreAnswer::Booked(_)) => {
                for booking in bookings {
                    counter!(MUTATIONS, "outcome" => booking.verdict.word()).increment(1);
                }
            }
            (_, StoreAnswer::PageApplied(summary)) => {
                counter!(PAGES).increment(1);
                for (landed, changes) in [
                    ("upserted", summary.upserts),
                    ("deleted", summary.deletes),
                    ("merged", summary.merged),
                    ("parked", summary.parked),
                    ("skipped", summary.skipped),
                ] {
                    counter!(CHANGES, "landed" => landed).increment(changes);
                }
            }
            _ => {}
        }
    }

    /// The app is told something.
    pub(crate) fn notice(&self, notice: &Notice) {
        match notice {
            Notice::CycleEnded(end) => counter!(CYCLES, "end" => end.word()).increment(1),
            Notice::BackingOff { error, .. } => {
                counter!(BACKOFFS, "reason" => error.word()).increment(1);
            }
            Notice::ConflictResolved { rule, .. } => {
                counter!(CONFLICTS, "rule" => rule.clone()).increment(1);
            }
            Notice::ConflictOpened { .. } => counter!(CONFLICTS, "rule" => "person").increment(1),
            _ => {}
        }
    }

    /// The lease was given back.
    pub(crate) fn let_go(&mut self) {
        if self.holder == Holder::Own {
            self.held_by(Holder::Nobody);
        }
    }

    fn held_by(&mut self, holder: Holder) {
        if std::mem::replace(&mut self.holder, holder) == holder {
            return;
        }
        let to = match holder {
            Holder::Nobody => "nobody",
            Holder::Own => "own",
            Holder::Other => "other",
        };
        counter!(LEASE, "to" => to).increment(1);
    }
}

/// A request was answered, or ended without an answer.
pub(crate) fn answered(request: &'static str, answer: &RemoteAnswer, took: Duration) {
    let outcome = answer.error().map_or("ok", |error| error.word());
    histogram!(REQUEST_SECONDS, "kind" => request, "outcome" => outcome).record(took);
}

/// Sets what is not counted but looked up.
pub(crate) fn look(status: &Status, state: State, path: &Path) {
    for (entries_state, entries) in &status.outbox {
        gauge!(OUTBOX, "state" => entries_state.clone()).set(float(*entries));
    }
    gauge!(OLDEST).set(seconds(status.oldest_pending_age_ms));
    gauge!(INBOX).set(float(status.inbox));
    gauge!(STAGED).set(float(status.staged));
    gauge!(OPEN_CONFLICTS).set(float(status.open_conflicts));
    gauge!(LAST_PUSH).set(seconds(status.last_push_at));
    gauge!(LAST_PULL).set(seconds(status.last_pull_at));
    for one in STATES {
        let is = if one == state { 1.0 } else { 0.0 };
        gauge!(STATE, "state" => one.as_str()).set(is);
    }
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let wal = std::fs::metadata(wal).map_or(0, |metadata| metadata.len());
    gauge!(WAL).set(float(wal));
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Exact up to 2^53, which no such number reaches.
#[allow(clippy::cast_precision_loss)]
fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(ms: Option<i64>) -> f64 {
    let ms = u64::try_from(ms.unwrap_or(0)).unwrap_or(0);
    Duration::from_millis(ms).as_secs_f64()
}
