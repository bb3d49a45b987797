//! Mark and sweep: after a snapshot, what is clean here and was not met is gone on the server.
//!
//! Marks are kept only when the tables were not empty before. Rows with unsettled mutations, with
//! something waiting, or pushed since the snapshot began are spared. Removing all rows of a type,
//! or very many, or any after the server's history changed, is not done but told (I3): an empty,
//! reset or shrunken feed never means "delete all". What was edited here and not met was deleted there,
//! like a pulled deletion, and so was what waits in the inbox or is the server's side of a conflict. Rows of tables attached with *adopt* that the server lacks are recorded as creates.

use crate::apply::Applier;
use crate::captured::{self, BaseState};
use crate::conflict::record;
use crate::error::StoreError;
use crate::held;
use crate::inbox;
use crate::meta;
use crate::orphans;
use crate::outbox;
use crate::recover;
use crate::row;
use crate::state;
use crate::store::{EntityTypes, RegisteredType};
use crate::unknown;
use rusqlite::{Transaction, params};
use std::collections::BTreeSet;
use syncline_core::{EntityRef, Notice, Now, PageSummary, WaitsFor};
use syncline_protocol::{Change, ChangeKind, EntityId, EntityType, Fields, Operation, Scope};

/// More rows of a type than this, and more than the server still has, are not removed unasked.
const SWEEP_FREELY: usize = 100;

/// A snapshot begins: marks are needed when there are rows to compare with.
pub(crate) fn begin(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    scope: &Scope,
) -> Result<(), StoreError> {
    tx.execute("DELETE FROM syncline_seen", [])?;
    recover::forget_missing(tx)?;
    let any = |table: &str| -> rusqlite::Result<bool> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table})");
        tx.query_row(&sql, [], |row| row.get(0))
    };
    // Below an edit, or a deletion of the last row, is what the server may have no more.
    let mut compare = any("syncline_base WHERE fields IS NOT NULL")?;
    for entity_type in types.iter() {
        compare = compare || any(&crate::table::quote_ident(&entity_type.table.name))?;
    }
    if compare {
        return Ok(meta::set(tx, meta::key::SWEEPING, 1)?);
    }
    // Nothing will be swept: what waits and is still so is shown again.
    inbox::forget_all(tx, scope)?;
    Ok(meta::clear(tx, meta::key::SWEEPING)?)
}

/// So many rows of a type are not removed unasked, on either side (I3).
pub(crate) fn is_too_many(gone: usize, left: usize) -> bool {
    left == 0 || (gone > SWEEP_FREELY && gone > left)
}

pub(crate) fn is_under_way(tx: &Transaction<'_>) -> Result<bool, StoreError> {
    Ok(meta::get::<i64>(tx, meta::key::SWEEPING)?.is_some())
}

/// The snapshot has this entity.
pub(crate) fn mark(tx: &Transaction<'_>, change: &Change) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO syncline_seen (entity_type, entity_id) VALUES (?1, ?2)",
    )?
    .execute([change.entity_type.as_str(), change.id.as_str()])?;
    Ok(())
}

/// The server has it since the snapshot began, in which version is not known here.
pub(crate) fn mark_pushed(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    position: i64,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO syncline_seen (entity_type, entity_id)
         SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM syncline_cursor WHERE phase = 'snapshot' AND position < ?3)",
    )?
    .execute(params![entity.entity_type.as_str(), entity.id.as_str(), position])?;
    Ok(())
}

/// The snapshot is complete: sweep, and look for rows whose parent did not come.
pub(crate) fn finish(
    applier: &mut Applier<'_>,
    scope: &Scope,
    sweeping: bool,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let types = applier.types;
    if sweeping {
        for entity_type in types.iter() {
            sweep_type(applier, entity_type, scope, summary)?;
        }
        delete_unattached(applier, scope, summary)?;
    }
    if recover::under_way(applier.tx)?.is_some() {
        recover::finish(applier, types, summary)?;
    }
    if sweeping {
        meta::clear(applier.tx, meta::key::SWEEPING)?;
    }
    // A push may have left a mark although nothing is to be compared.
    applier.tx.execute("DELETE FROM syncline_seen", [])?;
    meta::clear(applier.tx, meta::key::RESET)?;
    // A row that leaves may be the parent of others: until nothing changes any more.
    loop {
        let before = summary.parked;
        for entity_type in types.iter() {
            park_orphans(applier, entity_type, scope, summary)?;
        }
        if summary.parked == before {
            return Ok(());
        }
    }
}

/// What waits for its table to be attached, and was not met, is deleted as if the feed had said so.
fn delete_unattached(
    applier: &mut Applier<'_>,
    scope: &Scope,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let (tx, types) = (applier.tx, applier.types);
    let mut statement = tx.prepare_cached(
        "SELECT entity_type, entity_id FROM syncline_inbox
          WHERE waits_for = 'type' AND fields IS NOT NULL AND scope = ?1 AND position <= ?2
         EXCEPT SELECT entity_type, entity_id FROM syncline_seen
          ORDER BY entity_type, entity_id",
    )?;
    let names: Vec<(String, String)> = statement
        .query_map(params![scope.as_str(), applier.newest], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    for (name, id) in names {
        // Of a type that is attached, its own sweep has looked after it.
        if let (None, Ok(id)) = (types.get(&name), EntityId::parse(id)) {
            let entity_type = EntityType::new(name);
            delete(applier, EntityRef { entity_type, id }, scope, summary)?;
        }
    }
    Ok(())
}

fn sweep_type(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    scope: &Scope,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    let (mut confirmed, mut gone, mut edited) = (0, Vec::new(), Vec::new());
    let reset = meta::get::<i64>(tx, meta::key::RESET)?.is_some();
    let pinned = applier.newest;
    row::for_each(tx, &entity_type.table, |id, fields| {
        let Ok(id) = id else { return Ok(()) };
        match standing(tx, &entity_type.name, &id, pinned)? {
            Standing::Confirmed => confirmed += 1,
            // Edits of a row that the server lost mean nothing without the row.
            Standing::Spared
                if !is_seen(tx, &entity_type.name, &id)?
                    && held::only_updated(tx, &entity_type.name, &id, pinned)? =>
            {
                match reset {
                    true => gone.push((id, fields)),
                    false => edited.push(id),
                }
            }
            Standing::Spared => {}
            Standing::Gone => gone.push((id, fields)),
        }
        Ok(())
    })?;
    let adopt = format!("{}{}", meta::key::ADOPT, entity_type.name);
    let reset = meta::get::<i64>(tx, meta::key::RESET)?.is_some();
    let origin = if meta::get::<i64>(tx, &adopt)?.is_some() {
        Some("attach")
    } else {
        // What was written without a record, unless the server's history changed as well.
        (!reset && recover::under_way(tx)?.is_some()).then_some(recover::ORIGIN)
    };
    meta::clear(tx, &adopt)?;
    if let Some(origin) = origin {
        for (id, fields) in &gone {
            record_create(tx, entity_type, id, fields, origin, applier.now)?;
        }
        if origin == recover::ORIGIN {
            recover::count(tx, entity_type, gone.len())?;
        }
        return Ok(());
    }
    // What was just pushed from here says nothing about what the server had before.
    let count = gone.len() + edited.len();
    if count > 0 && (reset || is_too_many(count, confirmed)) {
        let ids = gone.iter().map(|(id, _)| id).chain(&edited).collect();
        return hold(applier, entity_type, &ids, scope, summary);
    }
    held::hold(tx, &entity_type.name, std::iter::empty())?;
    for (id, fields) in &gone {
        remove(applier, entity_type, id, fields)?;
        summary.deletes += 1;
    }
    delete_absent(applier, entity_type, scope, summary)
}

/// What is to go waits for a person; what an open conflict shows of the server is out of date. What is
/// under way at the server waits for its answer first, and what is deleted here as well is that.
fn hold(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    ids: &BTreeSet<&EntityId>,
    scope: &Scope,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    held::hold(tx, &entity_type.name, ids.iter().copied())?;
    applier.notices.push(Notice::SweepHeld {
        entity_type: entity_type.name.clone(),
        rows: ids.len() as u64,
    });
    for entity in absent(tx, entity_type, applier.newest)? {
        record::lost_remote(tx, &entity)?;
        let waits = state::view(tx, &entity)?.sent;
        let gone = row::read(tx, &entity_type.table, &entity.id)?.is_none();
        // Deleted here as well; another row may have its id since.
        let deleted = outbox::of_entity(tx, &entity_type.name, entity.id.as_str())?
            .iter()
            .any(|entry| entry.op == Operation::Delete);
        if !ids.contains(&entity.id) && (waits || gone || deleted) {
            delete(applier, entity, scope, summary)?;
        }
    }
    Ok(())
}

/// What has more than a row here is deleted as if the feed had said so.
fn delete_absent(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    scope: &Scope,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    for entity in absent(applier.tx, entity_type, applier.newest)? {
        delete(applier, entity, scope, summary)?;
    }
    Ok(())
}

/// A deletion at the snapshot's position.
fn delete(
    applier: &mut Applier<'_>,
    entity: EntityRef,
    scope: &Scope,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let deletion = Change {
        entity_type: entity.entity_type,
        id: entity.id,
        kind: ChangeKind::Delete,
        version: state::nameless(),
        position: applier.newest,
        key: None,
    };
    let plain = std::mem::replace(&mut applier.plain, false);
    applier.change(scope, &deletion)?.count(summary);
    applier.plain = plain;
    Ok(())
}

/// What the server had, as far as is known here, and the snapshot lacks, where that is not just a row
/// of the table: it has unsettled mutations, an open conflict, or something waiting.
fn absent(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    pinned: i64,
) -> Result<Vec<EntityRef>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT entity_id FROM syncline_outbox WHERE entity_type = ?1
          UNION SELECT entity_id FROM syncline_conflict WHERE entity_type = ?1 AND resolved_at IS NULL
          UNION SELECT entity_id FROM syncline_inbox
                 WHERE entity_type = ?1 AND fields IS NOT NULL AND position <= ?2
         EXCEPT SELECT entity_id FROM syncline_seen WHERE entity_type = ?1
         EXCEPT SELECT entity_id FROM syncline_inbox WHERE entity_type = ?1 AND waits_for = 'valid'
          ORDER BY entity_id",
    )?;
    let ids = statement.query_map(params![entity_type.name, pinned], |row| {
        captured::recorded_id(row, 0)
    })?;
    let mut found = Vec::new();
    for id in ids {
        let Ok(id) = EntityId::parse(id?) else {
            continue;
        };
        let entity = EntityRef {
            entity_type: entity_type.entity_type(),
            id,
        };
        if was_there(tx, &entity)? {
            found.push(entity);
        }
    }
    Ok(found)
}

/// Whether a deletion that was only inferred is about what the server never had: its create was under
/// way then, and refused since.
pub(crate) fn is_about_nothing(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    change: &Change,
) -> Result<bool, StoreError> {
    Ok(change.version == state::nameless() && !was_there(tx, entity)?)
}

/// Whether the server is known to have had it, or may have it by now.
fn was_there(tx: &Transaction<'_>, entity: &EntityRef) -> Result<bool, StoreError> {
    let view = state::view(tx, entity)?;
    if view.sent || view.waiting.is_some() || record::shows_remote(tx, entity)? {
        return Ok(true);
    }
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let base = captured::base_of(tx, names.0, names.1)?;
    // Below a create that was offered again, and refused, is what the server had in its old history.
    let first = outbox::of_entity(tx, names.0, names.1)?.into_iter().next();
    let made_here = first.is_some_and(|first| first.op == Operation::Create);
    Ok(matches!(base, BaseState::Present(_)) && !made_here)
}

/// Removes a clean row of which the server knows nothing.
pub(crate) fn remove(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    id: &EntityId,
    fields: &Fields,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    let entity = EntityRef {
        entity_type: entity_type.entity_type(),
        id: id.clone(),
    };
    orphans::note(tx, applier.types, entity_type, id, fields, None)?;
    row::remove(tx, &entity_type.table, id)?;
    unknown::forget(tx, &entity)?;
    Ok(captured::delete_base(tx, &entity_type.name, id.as_str())?)
}

/// What the snapshot says of a row.
enum Standing {
    /// The server has it, and not only since just now.
    Confirmed,
    /// Not to be judged by the snapshot: unsettled, waiting, or pushed since it began.
    Spared,
    /// The server does not have it.
    Gone,
}

fn is_seen(tx: &Transaction<'_>, name: &str, id: &EntityId) -> Result<bool, StoreError> {
    Ok(tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM syncline_seen WHERE entity_type = ?1 AND entity_id = ?2)",
        )?
        .query_row([name, id.as_str()], |row| row.get(0))?)
}

fn standing(
    tx: &Transaction<'_>,
    name: &str,
    id: &EntityId,
    pinned: i64,
) -> Result<Standing, StoreError> {
    let (seen, pushed, busy): (bool, bool, bool) = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM syncline_seen WHERE entity_type = ?1 AND entity_id = ?2),
                    EXISTS (SELECT 1 FROM syncline_entity_state
                             WHERE entity_type = ?1 AND entity_id = ?2 AND deleted = 0 AND position > ?3),
                    EXISTS (SELECT 1 FROM syncline_outbox WHERE entity_type = ?1 AND entity_id = ?2)
                 OR EXISTS (SELECT 1 FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2)",
        )?
        .query_row(params![name, id.as_str(), pinned], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(match (seen, pushed || busy) {
        (_, true) => Standing::Spared,
        (true, false) => Standing::Confirmed,
        (false, false) => Standing::Gone,
    })
}

/// Records an existing row as a create, as if it had just been inserted.
pub(crate) fn record_create(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    id: &EntityId,
    fields: &Fields,
    origin: &str,
    now: Now,
) -> Result<(), StoreError> {
    let entity = EntityRef {
        entity_type: entity_type.entity_type(),
        id: id.clone(),
    };
    let recorded = outbox::Recorded {
        entity_type,
        id,
        op: Operation::Create,
        fields: Some(&unknown::with_kept(tx, &entity, fields)?),
        origin,
    };
    outbox::record(tx, &recorded, now)?;
    captured::write_base(tx, &entity_type.name, id.as_str(), None)?;
    Ok(())
}

/// Clean rows whose parent is not there wait in the inbox for it.
fn park_orphans(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    scope: &Scope,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let (tx, table) = (applier.tx, &entity_type.table);
    let mut found = Vec::new();
    for reference in table
        .references
        .iter()
        .filter(|reference| !reference.to_columns.is_empty())
    {
        // Those whose parent has just left are looked after at the head.
        let noted = orphans::noted_values(tx, applier.types, reference)?;
        row::for_each_orphan(tx, table, reference, |id, fields| {
            let Ok(id) = id else { return Ok(()) };
            let values = row::reference_values(table, reference, &id, &fields);
            if !values.is_some_and(|values| noted.contains(&values)) {
                found.push((id, fields, reference.table.clone()));
            }
            Ok(())
        })?;
    }
    for (id, fields, parent) in found {
        let name = EntityType::new(entity_type.name.clone());
        let entity = EntityRef {
            entity_type: name,
            id,
        };
        let view = state::view(tx, &entity)?;
        // A row that is held stays where it is until a person decides.
        if view.dirty || view.conflict_open || view.held || view.reflects.is_some() {
            continue;
        }
        let change = Change {
            entity_type: entity.entity_type.clone(),
            id: entity.id.clone(),
            kind: syncline_protocol::ChangeKind::Upsert(fields),
            version: syncline_protocol::ServerVersion::new("0"),
            // Whatever the feed brings is newer.
            position: 0,
            key: None,
        };
        row::remove(tx, table, &entity.id)?;
        state::park(tx, scope, &change, WaitsFor::Parent, &parent, applier.now)?;
        summary.upserts = summary.upserts.saturating_sub(1);
        summary.parked += 1;
    }
    Ok(())
}
