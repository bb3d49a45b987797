//! A row that was created here and deleted again, and of which nobody else knows: its id is free.

use super::Moved;
use crate::apply::Applier;
use crate::captured;
use crate::error::StoreError;
use crate::outbox::{self, Entry};
use crate::row;
use crate::store::RegisteredType;
use rusqlite::Connection;
use syncline_core::EntityRef;
use syncline_protocol::Operation;

/// Whether nothing is left of a row that was created here: it was deleted again before anything of it was sent.
pub(super) fn is_undone(
    conn: &Connection,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    entries: &[Entry],
) -> Result<bool, StoreError> {
    let alone = |entry: &Entry| entry.is_sent() || entry.stands_alone();
    let ends = entries.last().map(|entry| entry.op) == Some(Operation::Delete);
    Ok(ends
        && !entries.iter().any(alone)
        && row::read(conn, &entity_type.table, &entity.id)?.is_none())
}

pub(super) fn forget(
    applier: &Applier<'_>,
    entity: &EntityRef,
    entries: &[Entry],
) -> Result<Moved, StoreError> {
    let (tx, detail) = (
        applier.tx,
        serde_json::json!({ "reason": "created and deleted again before it was sent" }),
    );
    for entry in entries {
        outbox::settle(tx, entry, "superseded", &detail, applier.now)?;
    }
    captured::delete_base(tx, entity.entity_type.as_str(), entity.id.as_str())?;
    Ok(Moved::Free)
}
