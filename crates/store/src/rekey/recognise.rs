//! A row that was created here is recognised in the feed by the key of its create.

use super::{Move, Reason, relocate, with_id};
use crate::apply::Applier;
use crate::conflict::record;
use crate::error::StoreError;
use crate::meta;
use crate::state;
use rusqlite::OptionalExtension;
use syncline_core::EntityRef;
use syncline_protocol::{Change, EntityId};

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
    // A copy of this file has made it already, under the id that it has here: what became of the create is asked, and
    // of what an earlier row of that id was to become, which the copy has done before (O1).
    let recognised = applier
        .tx
        .prepare_cached(
            "UPDATE syncline_outbox SET origin_client = (SELECT value FROM syncline_meta WHERE key = ?4)
              WHERE entity_type = ?1 AND entity_id = ?2
                AND seq <= (SELECT seq FROM syncline_outbox
                             WHERE entity_type = ?1 AND entity_id = ?2 AND mutation = ?3 AND op = 'create'
                               AND state = 'pending' AND idempotency_key IS NULL AND origin_client IS NULL)
                AND state = 'pending' AND idempotency_key IS NULL AND origin_client IS NULL",
        )?
        .execute([
            entity.entity_type.as_str(),
            entity.id.as_str(),
            key.as_str(),
            meta::key::CLIENT_ID,
        ])?;
    if recognised > 0 {
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
    if let Some(waiting) = state::unpark(applier.tx, &before)? {
        applier.change(&waiting.scope, &waiting.change())?;
    }
    Ok(())
}
