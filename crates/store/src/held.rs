//! Removals that wait for a person (I3): rows that a snapshot did not have, kept here until someone
//! says that they are to go, or that the server is to have them again.
//!
//! While a row is held, edits of it wait too: the server would only answer that it is not there. What may have
//! reached the server all the same is asked about first, and the row stays held until that is answered.

use crate::apply::Applier;
use crate::captured;
use crate::error::StoreError;
use crate::meta;
use crate::orphans;
use crate::outbox::{self, Entry};
use crate::retry::{Occasion, retry_waiting};
use crate::row::{self, Written};
use crate::state;
use crate::store::RegisteredType;
use crate::sweep;
use rusqlite::{Connection, Transaction, params};
use std::collections::BTreeMap;
use syncline_core::{EntityRef, Notice, PageSummary};
use syncline_protocol::{ConflictReason, EntityId, Operation, RemoteState};

/// Holds these rows of a type, and no others of it.
pub(crate) fn hold<'a>(
    tx: &Transaction<'_>,
    entity_type: &str,
    ids: impl Iterator<Item = &'a EntityId>,
) -> Result<(), StoreError> {
    forget_type(tx, entity_type)?;
    for id in ids {
        tx.prepare_cached("INSERT INTO syncline_held (entity_type, entity_id) VALUES (?1, ?2)")?
            .execute([entity_type, id.as_str()])?;
    }
    Ok(())
}

/// Holds one more row.
pub(crate) fn hold_one(applier: &mut Applier<'_>, entity: &EntityRef) -> Result<(), StoreError> {
    let name = entity.entity_type.as_str();
    applier
        .tx
        .prepare_cached(
            "INSERT OR IGNORE INTO syncline_held (entity_type, entity_id) VALUES (?1, ?2)",
        )?
        .execute([name, entity.id.as_str()])?;
    applier.notices.push(Notice::SweepHeld {
        entity_type: name.to_owned(),
        rows: 1,
    });
    Ok(())
}

/// A server that was restored lacks the row. Who made it may offer it again, so its edits wait with it until
/// the snapshot has been read, and then for what is decided about the row (I3).
pub(crate) fn hold_missing(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
    reason: ConflictReason,
    remote: Option<&RemoteState>,
) -> Result<bool, StoreError> {
    let lacks = reason == ConflictReason::Missing && remote.is_none();
    let lost = lacks
        && meta::get::<i64>(applier.tx, meta::key::RESET)?.is_some()
        && only_updated(
            applier.tx,
            entity.entity_type.as_str(),
            &entity.id,
            i64::MIN,
        )?;
    if lost {
        hold_one(applier, entity)?;
    }
    Ok(lost)
}

fn forget_type(tx: &Transaction<'_>, entity_type: &str) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM syncline_held WHERE entity_type = ?1",
        [entity_type],
    )?;
    Ok(())
}

/// The server speaks of the entity after all: what it says holds.
pub(crate) fn release(tx: &Transaction<'_>, entity: &EntityRef) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM syncline_held WHERE entity_type = ?1 AND entity_id = ?2")?
        .execute([entity.entity_type.as_str(), entity.id.as_str()])?;
    Ok(())
}

/// How many are held, by entity type.
pub(crate) fn counts(conn: &Connection) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement = conn
        .prepare_cached("SELECT entity_type, count(*) FROM syncline_held GROUP BY entity_type")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A mutation of it took effect: the server has the row, or nobody has it any more, unless a snapshot
/// that lacks the row is newer.
pub(crate) fn answered(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    op: Operation,
    position: i64,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM syncline_held WHERE entity_type = ?1 AND entity_id = ?2
            AND (?3 OR NOT EXISTS (SELECT 1 FROM syncline_cursor WHERE phase = 'feed' AND position >= ?4))",
    )?
    .execute(params![
        entity.entity_type.as_str(),
        entity.id.as_str(),
        op == Operation::Delete,
        position
    ])?;
    Ok(())
}

/// The held rows are to go; how many went. A row that has something waiting stays, and one of which
/// something is under way stays held until that is answered.
pub(crate) fn confirm(applier: &mut Applier<'_>, name: &str) -> Result<u64, StoreError> {
    let (entity_type, held) = held(applier, name)?;
    let mut gone = 0;
    for entity in held {
        if !decided(applier, &entity)? {
            continue;
        }
        let entries = of_entity(applier.tx, &entity)?;
        let (earlier, made_anew) = entries.split_at(end_of_row(&entries));
        let reason = "its row is gone on the server, as a person confirmed";
        settle(applier, earlier, reason)?;
        if !made_anew.is_empty() {
            captured::write_base(applier.tx, name, entity.id.as_str(), None)?;
            continue;
        }
        let row = row::read(applier.tx, &entity_type.table, &entity.id)?;
        if applier.write_row(entity_type, &entity, None)? == Written::Done {
            if let Some(row) = &row {
                let (tx, types) = (applier.tx, applier.types);
                orphans::note(tx, types, entity_type, &entity.id, row, None)?;
            }
            captured::delete_base(applier.tx, name, entity.id.as_str())?;
            gone += 1;
        }
    }
    retry_waiting(applier, Occasion::Changed, &mut PageSummary::default())?;
    Ok(gone)
}

/// The server is to have the held rows again: each is offered as a create; how many.
pub(crate) fn restore(applier: &mut Applier<'_>, name: &str) -> Result<u64, StoreError> {
    let (entity_type, held) = held(applier, name)?;
    let mut offered = 0;
    for entity in held {
        let row = row::read(applier.tx, &entity_type.table, &entity.id)?;
        if let (true, Some(row)) = (decided(applier, &entity)?, row) {
            let entries = of_entity(applier.tx, &entity)?;
            settle(applier, &entries, "the row is offered as a whole")?;
            let now = applier.now;
            sweep::record_create(applier.tx, entity_type, &entity.id, &row, "restored", now)?;
            offered += 1;
        }
    }
    Ok(offered)
}

fn held<'a>(
    applier: &Applier<'a>,
    name: &str,
) -> Result<(&'a RegisteredType, Vec<EntityRef>), StoreError> {
    let entity_type = applier
        .types
        .get(name)
        .ok_or_else(|| StoreError::Refused(format!("no table is attached as {name:?}")))?;
    let mut statement = applier.tx.prepare_cached(
        "SELECT entity_id FROM syncline_held WHERE entity_type = ?1 ORDER BY entity_id",
    )?;
    let ids: Vec<String> = statement
        .query_map(params![name], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if ids.is_empty() {
        return Err(StoreError::Refused(format!("no removal of {name} is held")));
    }
    let entity = |id| {
        Some(EntityRef {
            entity_type: entity_type.entity_type(),
            id: EntityId::parse(id).ok()?,
        })
    };
    Ok((entity_type, ids.into_iter().filter_map(entity).collect()))
}

/// A person has decided about a held row: it is held no more, unless something of it is under way at
/// the server. False: something else has to be decided or answered first.
fn decided(applier: &Applier<'_>, entity: &EntityRef) -> Result<bool, StoreError> {
    if is_under_way(applier.tx, entity)? {
        return Ok(false);
    }
    release(applier.tx, entity)?;
    let view = state::view(applier.tx, entity)?;
    Ok(!view.conflict_open && view.waiting.is_none())
}

/// Whether something of it may have reached the server in its present history. What is offered
/// again waits here like any edit of a row that is held, and what follows it with it (O1).
fn is_under_way(tx: &Transaction<'_>, entity: &EntityRef) -> Result<bool, StoreError> {
    let entries = of_entity(tx, entity)?;
    let frozen = entries.iter().any(|entry| entry.frozen.is_some());
    Ok(frozen || entries.first().is_some_and(Entry::is_under_way))
}

/// How many of an entity's mutations are about the row that is held: the app may have deleted it itself and
/// made another one under its id, which stays.
fn end_of_row(entries: &[Entry]) -> usize {
    let deleted = entries
        .iter()
        .rposition(|entry| entry.op == Operation::Delete);
    deleted.map_or(entries.len(), |deleted| deleted + 1)
}

fn of_entity(tx: &Transaction<'_>, entity: &EntityRef) -> Result<Vec<Entry>, StoreError> {
    outbox::of_entity(tx, entity.entity_type.as_str(), entity.id.as_str())
}

fn settle(applier: &Applier<'_>, entries: &[Entry], reason: &str) -> Result<(), StoreError> {
    let detail = serde_json::json!({ "reason": reason });
    for entry in entries {
        outbox::settle(applier.tx, entry, "superseded", &detail, applier.now)?;
    }
    Ok(())
}

/// Whether all that is known of an entity beyond its row, as of this position, are updates that are not
/// under way: without its row at the server they mean nothing.
pub(crate) fn only_updated(
    tx: &Transaction<'_>,
    name: &str,
    id: &EntityId,
    position: i64,
) -> Result<bool, StoreError> {
    let entity = EntityRef {
        entity_type: name.into(),
        id: id.clone(),
    };
    let view = state::view(tx, &entity)?;
    if !view.dirty
        || is_under_way(tx, &entity)?
        || view.reflects.is_some_and(|reflects| reflects > position)
        || view.waiting.is_some()
    {
        return Ok(false);
    }
    let entries = of_entity(tx, &entity)?;
    Ok(entries.iter().all(|entry| entry.op == Operation::Update))
}
