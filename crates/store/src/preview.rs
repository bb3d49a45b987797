//! What the next sync would send: the very claim, in a transaction that is rolled back.

use crate::claim::Claimer;
use crate::error::StoreError;
use crate::settings::{Settings, server_limits};
use crate::store::EntityTypes;
use crate::{captured, meta};
use rusqlite::{Connection, TransactionBehavior};
use std::collections::BTreeSet;
use syncline_core::{ClaimLimits, Dice, Now};

/// What would be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// The batches, as JSON texts of mutations, if each of them were applied.
    pub batches: Vec<Vec<String>>,
    /// Keys in them that were made up for this look: the sync will use others.
    pub made_up_keys: Vec<String>,
}

/// Looks at what would be sent. Nothing is changed.
pub fn preview(
    conn: &mut Connection,
    settings: &Settings,
    now: Now,
) -> Result<Preview, StoreError> {
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
        urgent_only: false,
        in_order: false,
    };
    let mut dice = Dice::seeded(0);
    let kept: BTreeSet<String> = tx
        .prepare("SELECT idempotency_key FROM syncline_outbox WHERE frozen IS NOT NULL AND idempotency_key IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut preview = Preview::default();
    loop {
        let claimer = Claimer::new(&tx, &types, &limits, &mut dice, (now, now.unix_ms), (0, 0))?;
        let batch = claimer.claim()?.batch;
        if batch.entries.is_empty() {
            break;
        }
        let mut sent = Vec::new();
        for entry in batch.entries {
            // As if it were applied: what waits for it can go with the next batch.
            captured::delete_reals(&tx, entry.seq)?;
            tx.execute("DELETE FROM syncline_outbox WHERE seq = ?1", [entry.seq])?;
            let key = entry.key.as_str();
            // A mutation that is sent as it was recorded goes under its own id.
            if !kept.contains(key) && key != entry.mutation.as_str() {
                preview.made_up_keys.push(key.to_owned());
            }
            sent.push(entry.frozen);
        }
        preview.batches.push(sent);
    }
    tx.rollback()?;
    Ok(preview)
}
