//! A row that was created here is recognised in the feed by the key of its create.

use super::{Move, Reason, relocate, with_id};
use crate::apply::Applier;
use crate::conflict::record;
use crate::error::StoreError;
use crate::meta;
use crate::outbox::{self, Entry, EntryState};
use crate::retry::apply_waiting;
use rusqlite::{OptionalExtension, params};
use syncline_core::EntityRef;
use syncline_protocol::{Change, EntityId, Operation};

/// The feed shows what a create of this file has made before the answer came, under the id that the
/// server chose: it is the row that is here, and waits for its answer under that id.
pub(crate) fn recognise(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
    change: &Change,
) -> Result<(), StoreError> {
    let Some(key) = &change.key else {
        return Ok(());
    };
    if is_made_by_copy(applier, entity, key.as_str())? {
        record::recognised(applier.tx, entity, applier.now)?;
    }
    let create: Option<(i64, String)> = applier
        .tx
        .prepare_cached(
            "SELECT seq, entity_id FROM syncline_outbox
              WHERE idempotency_key = ?1 AND entity_type = ?2 AND entity_id <> ?3
                AND op = 'create' AND frozen IS NOT NULL",
        )?
        .query_row(
            [
                key.as_str(),
                entity.entity_type.as_str(),
                entity.id.as_str(),
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((seq, id)) = create else {
        return Ok(());
    };
    let id = EntityId::parse(id).map_err(|error| StoreError::Refused(error.to_string()))?;
    let before = with_id(entity, id);
    let way = Move {
        entity: before.clone(),
        from: seq,
        to: entity.clone(),
        reason: Reason::Assigned,
        settling: None,
    };
    // Where the row cannot go there, the answer says the same again.
    relocate(applier, &way)?;
    // Another row has that id on the server, and its change has waited.
    apply_waiting(applier, &before)
}

/// Whether a copy of this file has made it already, under the id that it has here. What became of the create is asked
/// then, and what became of an earlier row of that id, unless nothing is left of that: the copy was done with it (O1).
fn is_made_by_copy(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
    key: &str,
) -> Result<bool, StoreError> {
    let (tx, names) = (
        applier.tx,
        (entity.entity_type.as_str(), entity.id.as_str()),
    );
    let entries = outbox::of_entity(tx, names.0, names.1)?;
    let is_unsent = |entry: &Entry| entry.state == EntryState::Pending && !entry.is_sent();
    let is_made = |entry: &Entry| {
        entry.op == Operation::Create && entry.mutation.as_str() == key && entry.key.is_none()
    };
    let made = entries
        .iter()
        .position(|entry| is_made(entry) && is_unsent(entry));
    let Some((made, earlier)) = made.and_then(|at| Some((entries.get(at)?, entries.get(..at)?)))
    else {
        return Ok(false);
    };
    let was_made_here = earlier
        .first()
        .is_some_and(|first| first.op == Operation::Create);
    if was_made_here && earlier.iter().all(is_unsent) {
        let detail =
            serde_json::json!({ "reason": "created and deleted again before it was sent" });
        for entry in earlier {
            outbox::settle(tx, entry, "superseded", &detail, applier.now)?;
        }
        applier.rekeying.outbox_changed();
    }
    tx.prepare_cached(
        "UPDATE syncline_outbox SET origin_client = coalesce(shared_with, (SELECT value FROM syncline_meta WHERE key = ?4))
          WHERE entity_type = ?1 AND entity_id = ?2 AND seq <= ?3
            AND state = 'pending' AND frozen IS NULL AND origin_client IS NULL",
    )?
    .execute(params![names.0, names.1, made.seq, meta::key::CLIENT_ID])?;
    Ok(true)
}
