//! Rows whose parent another device has deleted: the app's own schema says what becomes of them.
//!
//! A device that removes a row because the server did, while rows here may reference it, notes that
//! (`syncline_removed`). When the pull has reached the head, and deletes of the children have come if
//! they were to come, it does for the rows that are left what SQLite would have done had it seen them
//! when the parent was deleted, and records that as ordinary mutations:
//!
//! | ON DELETE | the child | the parent |
//! |---|---|---|
//! | CASCADE | is deleted; what was unsynced of it stays in a conflict record | stays deleted |
//! | SET NULL, SET DEFAULT | gets the other reference | stays deleted |
//! | RESTRICT, NO ACTION; the above where a constraint does not let them | stays | is created again |
//!
//! A child that waits for an answer or for a person is left alone until that is decided, and its
//! parent's note with it (E5). Several devices may do the same: equal deletes and equal rows are no
//! conflict, and a parent that is there again already is taken as it is.

use crate::apply::Applier;
use crate::captured;
use crate::conflict::Loss;
use crate::conflict::record::{self, BySchema};
use crate::error::{StoreError, json, to_json};
use crate::inbox;
use crate::outbox::{self, Entry, EntryState, Recorded};
use crate::row::{self, Written};
use crate::stage;
use crate::state;
use crate::store::{EntityTypes, RegisteredType};
use crate::table::{Column, OnDelete, Reference};
use crate::type_options::IdMode;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{EntityRef, Notice, WaitsFor, changed};
use syncline_protocol::{EntityId, Fields, Operation, RemoteState, ServerVersion, Value};

/// As the outbox says why a mutation was recorded.
pub(crate) const ORIGIN: &str = "reference";

/// A row that went because the server does not have it.
struct Removed<'a> {
    entity_type: &'a RegisteredType,
    /// The row as it was.
    fields: Fields,
    /// The deletion, where it is known.
    deletion: Option<(ServerVersion, i64)>,
}

/// Notes a row that goes because the server does not have it, if rows here could reference it.
pub(crate) fn note(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    entity_type: &RegisteredType,
    id: &EntityId,
    fields: &Fields,
    deletion: Option<(&ServerVersion, i64)>,
) -> Result<(), StoreError> {
    if !is_referenced(types, entity_type) {
        return Ok(());
    }
    tx.prepare_cached(
        "INSERT OR REPLACE INTO syncline_removed (entity_type, entity_id, fields, version, position)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        entity_type.name,
        id.as_str(),
        to_json(fields),
        deletion.map(|(version, _)| version.as_str()),
        deletion.map(|(_, position)| position)
    ])?;
    Ok(())
}

/// Notes a row that is about to go, as it stands in its table.
pub(crate) fn note_standing(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    entity_type: &RegisteredType,
    id: &EntityId,
) -> Result<(), StoreError> {
    match row::read(tx, &entity_type.table, id)? {
        Some(fields) => note(tx, types, entity_type, id, &fields, None),
        None => Ok(()),
    }
}

/// Whether a table that is synced references this one.
pub(crate) fn is_referenced(types: &EntityTypes, entity_type: &RegisteredType) -> bool {
    let table = &entity_type.table.name;
    let mut references = types.iter().flat_map(|one| &one.table.references);
    references.any(|reference| reference.table.eq_ignore_ascii_case(table))
}

/// The values by which rows may reference noted rows of the table that a reference leads to.
pub(crate) fn noted_values(
    tx: &Connection,
    types: &EntityTypes,
    reference: &Reference,
) -> Result<Vec<Vec<SqlValue>>, StoreError> {
    let notes = notes(tx, types)?;
    let found = notes.iter().filter_map(|(entity, removed)| {
        let table = &removed.entity_type.table;
        let same = table.name.eq_ignore_ascii_case(&reference.table);
        same.then(|| row::values_of(table, &reference.to_columns, &entity.id, &removed.fields))?
    });
    Ok(found.collect())
}

fn notes<'a>(
    conn: &Connection,
    types: &'a EntityTypes,
) -> Result<BTreeMap<EntityRef, Removed<'a>>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT entity_type, entity_id, fields, version, position FROM syncline_removed",
    )?;
    let mut rows = statement.query([])?;
    let mut notes = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let (Some(entity_type), Ok(id)) =
            (types.get(&name), EntityId::parse(row.get::<_, String>(1)?))
        else {
            continue;
        };
        let (version, position): (Option<String>, Option<i64>) = (row.get(3)?, row.get(4)?);
        let removed = Removed {
            entity_type,
            fields: json("removed row", &row.get::<_, String>(2)?)?,
            deletion: version.map(ServerVersion::new).zip(position),
        };
        let entity_type = entity_type.entity_type();
        notes.insert(EntityRef { entity_type, id }, removed);
    }
    Ok(notes)
}

fn forget(tx: &Transaction<'_>, entity: &EntityRef) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM syncline_removed WHERE entity_type = ?1 AND entity_id = ?2")?
        .execute([entity.entity_type.as_str(), entity.id.as_str()])?;
    Ok(())
}

/// What SQLite would have done when the parent was deleted.
enum Plan {
    /// It would have refused.
    Undo,
    /// That cannot be said yet.
    Wait,
    /// This, in order.
    Do(Vec<(EntityRef, Act)>),
}

enum Act {
    Delete,
    Set(Fields),
}

/// The head is reached: looks after the rows that reference noted ones. Whether anything was done, after which what waits
/// may find a place.
pub(crate) fn mend(applier: &mut Applier<'_>) -> Result<bool, StoreError> {
    let notes = notes(applier.tx, applier.types)?;
    let mut mended = false;
    for undo in [true, false] {
        // First what SQLite would have refused: a parent that comes back may be a child of another.
        for entity in notes.keys() {
            mended |= settle(applier, &notes, entity, undo)?;
        }
    }
    Ok(mended)
}

fn settle(
    applier: &mut Applier<'_>,
    notes: &BTreeMap<EntityRef, Removed<'_>>,
    entity: &EntityRef,
    undo: bool,
) -> Result<bool, StoreError> {
    let (tx, Some(removed)) = (applier.tx, notes.get(entity)) else {
        return Ok(false);
    };
    if row::read(tx, &removed.entity_type.table, &entity.id)?.is_some() {
        // One that was made here under the id since will have another, and the children are not its own.
        if !is_proposed(tx, removed.entity_type, entity)? {
            forget(tx, entity)?;
        }
        return Ok(false);
    }
    if is_busy(tx, entity, None)? {
        return Ok(false);
    }
    let plan = plan(applier, entity, removed)?;
    tx.execute_batch("SAVEPOINT syncline_mend")?;
    let told = applier.notices.len();
    let done = match &plan {
        Plan::Undo => restore(applier, notes, entity)?,
        Plan::Do(acts) if !undo => carry_out(applier, entity, acts)?,
        Plan::Do(_) | Plan::Wait => false,
    };
    if done {
        forget(tx, entity)?;
    } else {
        tx.execute_batch("ROLLBACK TO syncline_mend")?;
        applier.notices.truncate(told);
    }
    tx.execute_batch("RELEASE syncline_mend")?;
    Ok(done)
}

/// Whether the id is only what a row that was created here would have.
fn is_proposed(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
) -> Result<bool, StoreError> {
    let entries = outbox::of_entity(tx, entity.entity_type.as_str(), entity.id.as_str())?;
    let created = entries.iter().any(|entry| entry.op == Operation::Create);
    Ok(created && entity_type.id_mode() != IdMode::Client)
}

/// Waits for an answer, for a person or for something in the inbox; but for a parent that is gone nobody
/// has to wait.
fn is_busy(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    gone: Option<&String>,
) -> Result<bool, StoreError> {
    let view = state::view(tx, entity)?;
    let waits = view.waiting.is_some() && !waits_for(tx, entity, gone)?;
    if view.sent || view.conflict_open || waits || stage::holds(tx, entity)? {
        return Ok(true);
    }
    let entries = outbox::of_entity(tx, entity.entity_type.as_str(), entity.id.as_str())?;
    let held = |entry: &Entry| matches!(entry.state, EntryState::Failed | EntryState::Dead);
    Ok(view.dirty && entries.iter().any(held))
}

/// Whether what the server has of an entity finds no place because this parent is missing.
fn waits_for(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    parent: Option<&String>,
) -> Result<bool, StoreError> {
    let Some(parent) = parent else {
        return Ok(false);
    };
    let reason = inbox::reason(tx, entity)?;
    Ok(reason.as_deref() == Some(WaitsFor::Parent.as_str())
        && inbox::detail(tx, entity)? == *parent)
}

fn plan(
    applier: &Applier<'_>,
    parent: &EntityRef,
    removed: &Removed<'_>,
) -> Result<Plan, StoreError> {
    let (tx, types) = (applier.tx, applier.types);
    let mut doomed = BTreeSet::from([parent.clone()]);
    let (mut refusing, mut acts) = (BTreeSet::new(), Vec::new());
    let mut wait = false;
    let mut next = vec![(
        removed.entity_type,
        parent.id.clone(),
        removed.fields.clone(),
    )];
    while let Some((of, id, fields)) = next.pop() {
        for child_type in types.iter() {
            for reference in &child_type.table.references {
                if !reference.table.eq_ignore_ascii_case(&of.table.name) {
                    continue;
                }
                let values = row::values_of(&of.table, &reference.to_columns, &id, &fields);
                for (child_id, child_fields) in row::referring(tx, child_type, reference, values)? {
                    let child = EntityRef {
                        entity_type: child_type.entity_type(),
                        id: child_id,
                    };
                    if doomed.contains(&child) {
                        continue;
                    }
                    let cascade = reference.on_delete == OnDelete::Cascade;
                    let gone = format!("{}/{id}", reference.table);
                    if is_busy(tx, &child, Some(&gone))? {
                        wait = true;
                    } else if cascade {
                        doomed.insert(child.clone());
                        next.push((child_type, child.id.clone(), child_fields));
                        acts.push((child, Act::Delete));
                    } else if let Some(fields) = other_reference(tx, child_type, reference)? {
                        acts.push((child, Act::Set(fields)));
                    } else {
                        refusing.insert(child);
                    }
                }
            }
        }
    }
    if refusing.iter().any(|child| !doomed.contains(child)) {
        return Ok(Plan::Undo);
    }
    if wait {
        return Ok(Plan::Wait);
    }
    // Children before their parents.
    acts.reverse();
    acts.retain(|(child, act)| matches!(act, Act::Delete) || !doomed.contains(child));
    Ok(Plan::Do(acts))
}

/// What SET NULL or SET DEFAULT makes of a reference; `None` where SQLite would refuse that, or is to.
fn other_reference(
    conn: &Connection,
    child: &RegisteredType,
    reference: &Reference,
) -> Result<Option<Fields>, StoreError> {
    let mut fields = Fields::new();
    for name in &reference.columns {
        let named = |column: &&Column| column.name.eq_ignore_ascii_case(name);
        let Some(column) = child.table.columns.iter().find(named) else {
            return Ok(None); // A part of the key: without it the row would be another one.
        };
        let value = match reference.on_delete {
            OnDelete::SetNull => Value::Null,
            OnDelete::SetDefault => match row::default_of(conn, column)? {
                Some(value) => value,
                None => return Ok(None),
            },
            OnDelete::NoAction | OnDelete::Cascade => return Ok(None),
        };
        if value == Value::Null && column.not_null {
            return Ok(None);
        }
        fields.insert(column.field.clone(), value);
    }
    let none = EntityId::from(0);
    let values = row::reference_values(&child.table, reference, &none, &fields);
    let leads_nowhere = match values {
        Some(values) => !row::parent_exists(conn, reference, &values)?,
        None => false,
    };
    Ok((!leads_nowhere).then_some(fields))
}

/// Deletes and changes the children; `false` where something does not let that happen.
fn carry_out(
    applier: &mut Applier<'_>,
    parent: &EntityRef,
    acts: &[(EntityRef, Act)],
) -> Result<bool, StoreError> {
    let (mut deleted, mut changed) = (0, 0);
    for (child, act) in acts {
        let Some(child_type) = applier.types.get(child.entity_type.as_str()) else {
            return Ok(false);
        };
        let Some(found) = row::read(applier.tx, &child_type.table, &child.id)? else {
            continue;
        };
        let done = match act {
            Act::Delete => delete(applier, child_type, child, &found, parent)?,
            Act::Set(fields) => set(applier, child_type, child, &found, fields)?,
        };
        if !done {
            return Ok(false);
        }
        match act {
            Act::Delete => deleted += 1,
            Act::Set(_) => changed += 1,
        }
    }
    if deleted + changed > 0 {
        applier.rekeying.outbox_changed();
        applier.notices.push(Notice::OrphansMended {
            parent: parent.clone(),
            deleted,
            changed,
        });
    }
    Ok(true)
}

fn delete(
    applier: &mut Applier<'_>,
    child_type: &RegisteredType,
    child: &EntityRef,
    found: &Fields,
    parent: &EntityRef,
) -> Result<bool, StoreError> {
    let (tx, names) = (applier.tx, (child.entity_type.as_str(), child.id.as_str()));
    let entries = outbox::of_entity(tx, names.0, names.1)?;
    let base = match entries.is_empty() {
        true => Some(found.clone()),
        false => captured::base_of(tx, names.0, names.1)?.into_fields(),
    };
    if !entries.is_empty() {
        let reason = format!("{parent}, which it references, was deleted elsewhere");
        let detail = serde_json::json!({ "reason": reason, "rule": "cascade" });
        let edited = base
            .as_ref()
            .map_or_else(|| found.clone(), |base| changed(base, found));
        let decision = BySchema {
            entity: child,
            mutations: entries
                .iter()
                .map(|entry| entry.mutation.as_str())
                .collect(),
            base: base.as_ref(),
            local: Some(found),
            result: None,
            rule: "cascade",
            reason,
            lost_mine: match edited.is_empty() {
                true => Loss::Nothing,
                false => Loss::Values(edited),
            },
            lost_theirs: Loss::Nothing,
        };
        record::by_schema(tx, decision, applier.now)?;
        for entry in &entries {
            outbox::settle(tx, entry, "superseded", &detail, applier.now)?;
        }
    }
    if let Some(waiting) = state::unpark(tx, child)? {
        let (version, position) = (&waiting.remote.version, waiting.remote.position);
        state::set_known(tx, child, version, position, false)?;
    }
    if applier.write_row(child_type, child, None)? != Written::Done {
        return Ok(false);
    }
    match &base {
        None => captured::delete_base(tx, names.0, names.1)?,
        Some(base) => {
            captured::write_base(tx, names.0, names.1, Some(base))?;
            write_down(applier, child_type, &child.id, Operation::Delete, None)?;
        }
    }
    Ok(true)
}

fn set(
    applier: &mut Applier<'_>,
    child_type: &RegisteredType,
    child: &EntityRef,
    found: &Fields,
    fields: &Fields,
) -> Result<bool, StoreError> {
    let (tx, names) = (applier.tx, (child.entity_type.as_str(), child.id.as_str()));
    if outbox::of_entity(tx, names.0, names.1)?.is_empty() {
        captured::write_base(tx, names.0, names.1, Some(found))?;
    }
    if row::set(tx, &child_type.table, &child.id, fields)? != Written::Done {
        return Ok(false);
    }
    write_down(
        applier,
        child_type,
        &child.id,
        Operation::Update,
        Some(fields),
    )?;
    Ok(true)
}

/// Creates the parent again, and before it those that it references and that went with it.
fn restore(
    applier: &mut Applier<'_>,
    notes: &BTreeMap<EntityRef, Removed<'_>>,
    entity: &EntityRef,
) -> Result<bool, StoreError> {
    let tx = applier.tx;
    let (mut order, mut next) = (Vec::new(), vec![entity.clone()]);
    while let Some(entity) = next.pop() {
        let Some(removed) = notes.get(&entity).filter(|_| !order.contains(&entity)) else {
            continue;
        };
        let table = &removed.entity_type.table;
        for reference in &table.references {
            let values = row::reference_values(table, reference, &entity.id, &removed.fields);
            let Some(values) = values else { continue };
            if row::parent_exists(tx, reference, &values)? {
                continue;
            }
            next.extend(applier.types.parent(reference, &values));
        }
        order.push(entity);
    }
    for entity in order.iter().rev() {
        let Some(removed) = notes.get(entity) else {
            continue;
        };
        let of = removed.entity_type;
        let fields = &without_lost_parents(applier, entity, removed, &order)?;
        if row::write(tx, &of.table, &entity.id, fields)? != Written::Done {
            return Ok(false);
        }
        captured::write_base(tx, &of.name, entity.id.as_str(), None)?;
        if let Some((version, position)) = &removed.deletion {
            state::set_known(tx, entity, version, *position, true)?;
        }
        write_down(applier, of, &entity.id, Operation::Create, Some(fields))?;
        let decision = BySchema {
            entity,
            mutations: Vec::new(),
            base: Some(&removed.fields),
            local: Some(&removed.fields),
            result: Some(fields),
            rule: "restored",
            reason: "deleted elsewhere while rows here reference it".to_owned(),
            lost_mine: Loss::Nothing,
            lost_theirs: Loss::Deletion,
        };
        record::by_schema(tx, decision, applier.now)?;
        applier.notices.push(Notice::DeletionUndone {
            entity: entity.clone(),
        });
    }
    applier.rekeying.outbox_changed();
    Ok(true)
}

/// The fields of a row that is created again; where it referenced another one that was deleted here since, that reference is
/// empty, if it can be.
fn without_lost_parents(
    applier: &Applier<'_>,
    entity: &EntityRef,
    removed: &Removed<'_>,
    restored: &[EntityRef],
) -> Result<Fields, StoreError> {
    let (table, mut fields) = (&removed.entity_type.table, removed.fields.clone());
    for reference in &table.references {
        let values = row::reference_values(table, reference, &entity.id, &fields);
        let is_synced = applier.types.of_table(&reference.table).is_some();
        let Some(values) = values.filter(|_| is_synced) else {
            continue;
        };
        let parent = applier.types.parent(reference, &values);
        let is_restored = parent.is_some_and(|parent| restored.contains(&parent));
        if is_restored || row::parent_exists(applier.tx, reference, &values)? {
            continue;
        }
        let of_it = |name: &str| {
            reference
                .columns
                .iter()
                .any(|one| one.eq_ignore_ascii_case(name))
        };
        for column in table
            .columns
            .iter()
            .filter(|one| of_it(&one.name) && !one.not_null)
        {
            fields.insert(column.field.clone(), Value::Null);
        }
    }
    Ok(fields)
}

fn write_down(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    id: &EntityId,
    op: Operation,
    fields: Option<&Fields>,
) -> Result<(), StoreError> {
    let recorded = Recorded {
        entity_type,
        id,
        op,
        fields,
        origin: ORIGIN,
    };
    outbox::record(applier.tx, &recorded, applier.now).map(drop)
}

/// Whether all that is unsettled of an entity is its being created again for its children's sake:
/// then a row that is there already will do.
pub(crate) fn is_only_restored(entries: &[Entry]) -> bool {
    !entries.is_empty() && entries.iter().all(is_restored)
}

/// Whether this entry creates a parent again.
pub(crate) fn is_restored(entry: &Entry) -> bool {
    entry.op == Operation::Create && entry.origin.as_deref() == Some(ORIGIN)
}

/// What is known of a deletion.
pub(crate) fn deletion(remote: Option<&RemoteState>) -> Option<(&ServerVersion, i64)> {
    remote.map(|remote| (&remote.version, remote.position))
}
