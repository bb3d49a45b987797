//! Rows whose id is free: one that was created here and deleted again, of which nobody else knows, and one that is deleted here and
//! lost by the server.

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

/// A row that was deleted here, and that a restored server has lost: it gave the id to another row, which that
/// deletion, offered again, must not reach.
pub(super) fn forget_lost(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    entries: &[Entry],
) -> Result<Moved, StoreError> {
    let is_gone = entries
        .last()
        .is_some_and(|last| last.op == Operation::Delete)
        && row::read(applier.tx, &entity_type.table, &entity.id)?.is_none();
    match is_gone && entries.iter().all(|entry| entry.frozen.is_none()) {
        true => settle(
            applier,
            entity,
            entries,
            "the server has lost the row, and gave its id to another one",
        ),
        false => Ok(Moved::Free),
    }
}

/// One that was created here and deleted again, and that nobody else knows.
pub(super) fn forget(
    applier: &Applier<'_>,
    entity: &EntityRef,
    entries: &[Entry],
) -> Result<Moved, StoreError> {
    settle(
        applier,
        entity,
        entries,
        "created and deleted again before it was sent",
    )
}

fn settle(
    applier: &Applier<'_>,
    entity: &EntityRef,
    entries: &[Entry],
    reason: &str,
) -> Result<Moved, StoreError> {
    let (tx, detail) = (applier.tx, serde_json::json!({ "reason": reason }));
    for entry in entries {
        outbox::settle(tx, entry, "superseded", &detail, applier.now)?;
    }
    captured::delete_base(tx, entity.entity_type.as_str(), entity.id.as_str())?;
    Ok(Moved::Free)
}
