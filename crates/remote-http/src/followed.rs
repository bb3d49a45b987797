//! What the log says of each mutation of a push, so that one can be followed by its id.
//!
//! Costs nothing unless level debug is listened to. A row's values are shown only to a host that
//! asked for them.

use std::collections::BTreeMap;
use syncline_core::{Batch, BatchEntry};
use syncline_protocol::{ClientId, IdempotencyKey, PushResponse, TraceId};
use tracing::Level;

/// The mutations of a push, if anybody wants to hear of them.
pub(crate) struct Followed {
    entries: Vec<BatchEntry>,
    values: bool,
}

impl Followed {
    pub(crate) fn of(batch: Batch, values: bool) -> Self {
        let entries = match tracing::enabled!(Level::DEBUG) {
            true => batch.entries,
            false => Vec::new(),
        };
        Self { entries, values }
    }

    pub(crate) fn sent(&self, client: &ClientId, request: &str, trace: TraceId) {
        for entry in &self.entries {
            tracing::debug!(
                mutation = %entry.mutation,
                key = %entry.key,
                entity = %entry.entity,
                client = %client,
                request,
                trace = %trace,
                values = self.values.then_some(entry.frozen.as_str()),
                "sent"
            );
        }
    }

    pub(crate) fn answered(&self, request: &str, response: &PushResponse) {
        if self.entries.is_empty() {
            return;
        }
        let results = response.results.iter();
        let results: BTreeMap<&IdempotencyKey, _> = results.map(|one| (&one.key, one)).collect();
        for entry in &self.entries {
            let result = results.get(&entry.key);
            tracing::debug!(
                mutation = %entry.mutation,
                key = %entry.key,
                request,
                outcome = result.map_or("none", |result| result.outcome.word()),
                duplicate = result.is_some_and(|result| result.duplicate),
                "answered"
            );
        }
    }

    pub(crate) fn not_answered(&self, request: &str, why: &str) {
        for entry in &self.entries {
            tracing::debug!(
                mutation = %entry.mutation,
                key = %entry.key,
                request,
                why,
                "not answered"
            );
        }
    }
}
