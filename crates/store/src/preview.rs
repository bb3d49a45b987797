//! What the next sync would send: the very claim, in a transaction that is rolled back.

use crate::claim::Claimer;
use crate::error::StoreError;
use crate::settings::{Settings, server_limits};
use crate::store::EntityTypes;
use crate::{captured, meta};
use rusqlite::{Connection, TransactionBehavior};
use std::collections::BTreeSet;
use syncline_core::{ClaimLimits, Dice, Now};

/// The batches that would be sent, as JSON texts of mutations, if each of them were applied. Nothing
/// is changed. The keys of mutations that were never sent are made up and will be others.
pub fn preview(
    conn: &mut Connection,
    settings: &Settings,
    now: Now,
) -> Result<Vec<Vec<String>>, StoreError> {
    meta::require_readable(conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (types, config) = (EntityTypes::load(&tx)?, settings.config());
    let server = server_limits(&tx)?.unwrap_or_default();
    let limits = ClaimLimits {
        mutations: config.push_mutations.min(server.push_mutations).max(1),
        bytes: config.push_bytes.min(server.push_bytes / 2),
        mutation_bytes: server.mutation_bytes,
        alone: BTreeSet::new(),
        most_mutations: server.push_mutations,
        most_bytes: server.push_bytes / 2,
        under_way: BTreeSet::new(),
        in_order: false,
    };
    let mut dice = Dice::seeded(0);
    let mut batches = Vec::new();
    loop {
        let claimer = Claimer::new(&tx, &types, &limits, &mut dice, now, (0, 0))?;
        let batch = claimer.claim()?.batch;
        if batch.entries.is_empty() {
            break;
        }
        let mut sent = Vec::new();
        for entry in batch.entries {
            // As if it were applied: what waits for it can go with the next batch.
            captured::delete_reals(&tx, entry.seq)?;
            tx.execute("DELETE FROM syncline_outbox WHERE seq = ?1", [entry.seq])?;
            sent.push(entry.frozen);
        }
        batches.push(sent);
    }
    tx.rollback()?;
    Ok(batches)
}
