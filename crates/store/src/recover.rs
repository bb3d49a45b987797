//! Writes that escaped capture: found by comparing, recorded as mutations after all.
//!
//! While capture triggers were gone or stale, programs may have written without a record. Rows
//! with unsettled mutations are compared with what those mutations come to, at once. For all other
//! rows a snapshot is compared with the tables: first the feed is read to its head as usual, then
//! the snapshot begins, and while it is under way it overwrites no clean row:
//!
//! | clean row here | on the server | recorded |
//! |---|---|---|
//! | differs | has not changed since the head of the feed | an update of what differs |
//! | there | missing | a create |
//! | missing | has not changed since the head of the feed | a delete; if it would be all rows of a type, or more than the sweep removes unasked, or the table itself was gone, they come back instead (I3) |
//!
//! What changed on the server since the head of the feed is a remote change like any other.

use crate::app_triggers::{guarded, is_guarded};
use crate::apply::{Applier, Landed};
use crate::captured::{self, BaseState};
use crate::error::{StoreError, json, to_json};
use crate::meta;
use crate::outbox;
use crate::row;
use crate::state;
use crate::store::{EntityTypes, RegisteredType};
use crate::sweep;
use rusqlite::{Connection, Transaction, params};
use std::collections::BTreeSet;
use syncline_core::{EntityRef, LocalView, Notice, Now, PageSummary};
use syncline_protocol::{
    Change, ChangeKind, EntityId, EntityType, Fields, Operation, Scope, ServerVersion, Value,
};

/// As the outbox says why a mutation was recorded.
pub(crate) const ORIGIN: &str = "recovered";

/// Writes of a type may have escaped: what can be seen at once is recorded, a snapshot is due.
/// `new_fields` belong to columns that were not there before.
pub(crate) fn start(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    entity_type: &RegisteredType,
    new_fields: &[String],
    now: Now,
) -> Result<(), StoreError> {
    let key = format!("{}{}", meta::key::RECOVER_NEW, entity_type.name);
    let mut new: BTreeSet<String> = new_fields_of(tx, &entity_type.name)?;
    new.extend(new_fields.iter().cloned());
    meta::set(tx, &key, to_json(&new))?;
    check_dirty(tx, types, entity_type, &new, now)?;
    meta::set(tx, meta::key::RECOVER, 1)?;
    meta::set(tx, &format!("{}{}", meta::key::UNTOLD, entity_type.name), 1)?;
    // A snapshot under way did not compare its first pages: it begins again.
    tx.execute("DELETE FROM syncline_cursor WHERE phase = 'snapshot'", [])?;
    Ok(())
}

fn new_fields_of(conn: &Connection, name: &str) -> Result<BTreeSet<String>, StoreError> {
    let key = format!("{}{name}", meta::key::RECOVER_NEW);
    match meta::get::<String>(conn, &key)? {
        Some(text) => json("list of new fields", &text),
        None => Ok(BTreeSet::new()),
    }
}

/// Rows with unsettled mutations must be what these come to; whatever else they hold escaped. If the table itself
/// was gone, those that it lacks were not deleted one by one: they are made again.
fn check_dirty(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    entity_type: &RegisteredType,
    new: &BTreeSet<String>,
    now: Now,
) -> Result<(), StoreError> {
    let was_gone = meta::get::<i64>(tx, &gone_key(entity_type))?.is_some();
    let mut made_again = Vec::new();
    for one in escaped(tx, entity_type, new)? {
        if was_gone && one.op == Operation::Delete {
            if let Some(row) = expected(tx, &entity_type.name, &one.id)? {
                made_again.push((one.id, row));
            }
            continue;
        }
        let fields = one.fields.as_ref();
        record(tx, entity_type, &one.id, one.op, fields, now)?;
    }
    if made_again.is_empty() {
        return Ok(());
    }
    let write = || {
        for (id, row) in &made_again {
            row::write(tx, &entity_type.table, id, row)?;
        }
        Ok(())
    };
    match is_guarded(tx)? {
        true => write(),
        false => guarded(tx, types, write),
    }
}

/// What a row holds beyond its unsettled mutations.
struct Escaped {
    id: EntityId,
    op: Operation,
    /// `None` for a delete.
    fields: Option<Fields>,
}

/// Rows of a type that hold something else than their unsettled mutations come to.
pub(crate) fn escaped_ids(
    conn: &Connection,
    entity_type: &RegisteredType,
) -> Result<Vec<EntityId>, StoreError> {
    let new = new_fields_of(conn, &entity_type.name)?;
    let found = escaped(conn, entity_type, &new)?;
    Ok(found.into_iter().map(|one| one.id).collect())
}

fn escaped(
    conn: &Connection,
    entity_type: &RegisteredType,
    new: &BTreeSet<String>,
) -> Result<Vec<Escaped>, StoreError> {
    let mut statement =
        conn.prepare("SELECT DISTINCT entity_id FROM syncline_outbox WHERE entity_type = ?1")?;
    let ids = statement.query_map([&entity_type.name], |row| captured::recorded_id(row, 0));
    let ids: Vec<String> = ids?.collect::<Result<_, _>>()?;
    let mut escaped = Vec::new();
    for id in ids {
        let Ok(id) = EntityId::parse(id) else {
            continue;
        };
        let Ok(expected) = expected(conn, &entity_type.name, &id) else {
            continue; // It can never sync as it is; it fails with its reason when it is claimed.
        };
        let found = row::read(conn, &entity_type.table, &id)?;
        let (op, fields) = match (expected, found) {
            (None, Some(found)) => (Operation::Create, Some(found)),
            (Some(_), None) => (Operation::Delete, None),
            (Some(expected), Some(found)) => {
                let differing = compare(conn, entity_type, new, &found, &expected)?.mine;
                (Operation::Update, Some(differing))
            }
            (None, None) => continue,
        };
        if op != Operation::Update || fields.as_ref().is_some_and(|fields| !fields.is_empty()) {
            escaped.push(Escaped { id, op, fields });
        }
    }
    Ok(escaped)
}

/// The row that an entity's base and unsettled mutations come to.
fn expected(conn: &Connection, name: &str, id: &EntityId) -> Result<Option<Fields>, StoreError> {
    let mut state = captured::base_of(conn, name, id.as_str())?.into_fields();
    for entry in outbox::of_entity(conn, name, id.as_str())? {
        let payload = captured::fields_of_mutation(conn, entry.seq)?;
        state = crate::apply::after_mutation(state, entry.op, payload);
    }
    Ok(state)
}

fn record(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    id: &EntityId,
    op: Operation,
    fields: Option<&Fields>,
    now: Now,
) -> Result<(), StoreError> {
    let recorded = outbox::Recorded {
        entity_type,
        id,
        op,
        fields,
        origin: ORIGIN,
    };
    outbox::record(tx, &recorded, now)?;
    count(tx, entity_type, 1)
}

pub(crate) fn count(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    more: usize,
) -> Result<(), StoreError> {
    let key = format!("{}{}", meta::key::RECOVERED, entity_type.name);
    let before: i64 = meta::get(tx, &key)?.unwrap_or(0);
    let more = i64::try_from(more).unwrap_or(i64::MAX);
    Ok(meta::set(tx, &key, before.saturating_add(more))?)
}

/// Two states of a row, field by field.
struct Compared {
    /// What the local one has of its own.
    mine: Fields,
    /// What only the other one knows: values for columns that were not here when they were written.
    theirs: Fields,
}

fn compare(
    conn: &Connection,
    entity_type: &RegisteredType,
    new: &BTreeSet<String>,
    local: &Fields,
    other: &Fields,
) -> Result<Compared, StoreError> {
    let (mut mine, mut theirs) = (Fields::new(), Fields::new());
    for column in &entity_type.table.columns {
        let field = &column.field;
        let Some(here) = local.get(field) else {
            continue;
        };
        match other.get(field) {
            Some(there) if there == here => {}
            Some(there) if new.contains(field) && row::is_default(conn, column, here)? => {
                theirs.insert(field.clone(), there.clone());
            }
            None if *here == Value::Null || row::is_default(conn, column, here)? => {}
            _ => {
                mine.insert(field.clone(), here.clone());
            }
        }
    }
    Ok(Compared { mine, theirs })
}

/// The feed is at its head: if a comparison is due, the snapshot comes next. The position up to
/// which the rows are known to agree is remembered.
pub(crate) fn begin_after_feed(tx: &Transaction<'_>, scope: &Scope) -> Result<bool, StoreError> {
    if meta::get::<i64>(tx, meta::key::RECOVER)?.is_none() {
        return Ok(false);
    }
    crate::page::forget_cursor(tx, scope)?;
    Ok(true)
}

/// A cursor is about to be forgotten: what it says of the rows still holds.
pub(crate) fn keep_position(tx: &Transaction<'_>, scope: &Scope) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO syncline_meta (key, value)
         SELECT ?1, position FROM syncline_cursor WHERE scope = ?2 AND phase = 'feed'
            AND EXISTS (SELECT 1 FROM syncline_meta WHERE key = ?3)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        params![meta::key::RECOVER_FROM, scope.as_str(), meta::key::RECOVER],
    )?;
    Ok(())
}

/// A snapshot under way that is compared with the tables.
pub(crate) struct Comparison {
    /// What changed on the server after this position is a change like any other.
    position: i64,
}

/// The comparison under way, if the snapshot is one. A new history says nothing of the rows: then
/// nothing counts as agreed.
pub(crate) fn under_way(tx: &Transaction<'_>) -> Result<Option<Comparison>, StoreError> {
    if meta::get::<i64>(tx, meta::key::RECOVER)?.is_none() {
        return Ok(None);
    }
    let reset = meta::get::<i64>(tx, meta::key::RESET)?.is_some();
    let position = match reset {
        true => None,
        false => meta::get(tx, meta::key::RECOVER_FROM)?,
    };
    Ok(Some(Comparison {
        position: position.unwrap_or(-1),
    }))
}

impl Comparison {
    /// Compares one row of the snapshot; `None`: it is to be applied as usual.
    pub(crate) fn meet(
        &self,
        applier: &mut Applier<'_>,
        scope: &Scope,
        change: &Change,
    ) -> Result<Option<Landed>, StoreError> {
        let (tx, types) = (applier.tx, applier.types);
        let Some(entity_type) = types.get(change.entity_type.as_str()) else {
            return Ok(None);
        };
        let ChangeKind::Upsert(remote) = &change.kind else {
            return Ok(None);
        };
        let entity = EntityRef {
            entity_type: change.entity_type.clone(),
            id: change.id.clone(),
        };
        let view = state::view(tx, &entity)?;
        let adopted = format!("{}{}", meta::key::ADOPT, entity_type.name);
        if !self.is_agreed(view, change) || meta::get::<i64>(tx, &adopted)?.is_some() {
            return Ok(None);
        }
        if view.dirty {
            return rebase_dirty(applier, entity_type, &entity, change, remote);
        }
        let Some(local) = row::read(tx, &entity_type.table, &entity.id)? else {
            put_aside(tx, scope, change, remote)?;
            return Ok(Some(Landed::Skipped));
        };
        let new = new_fields_of(tx, &entity_type.name)?;
        let compared = compare(tx, entity_type, &new, &local, remote)?;
        if !compared.theirs.is_empty() {
            row::write(tx, &entity_type.table, &entity.id, &compared.theirs)?;
        }
        if compared.mine.is_empty() {
            return Ok(Some(Landed::Skipped));
        }
        on_top_of(applier, &entity, change, remote)?;
        let (id, mine) = (&entity.id, Some(&compared.mine));
        record(tx, entity_type, id, Operation::Update, mine, applier.now)?;
        Ok(Some(Landed::Merged))
    }

    /// Whether the server's row is the one that both sides knew before anything escaped.
    fn is_agreed(&self, view: LocalView, change: &Change) -> bool {
        let reflected = view.reflects.is_some_and(|at| at >= change.position);
        let busy = view.sent || view.conflict_open || view.waiting.is_some();
        !busy && (reflected || change.position <= self.position)
    }
}

/// The remote state is what the entity's mutations are made on.
fn on_top_of(
    applier: &Applier<'_>,
    entity: &EntityRef,
    change: &Change,
    remote: &Fields,
) -> Result<(), StoreError> {
    let (kind, id) = (entity.entity_type.as_str(), entity.id.as_str());
    captured::write_base(applier.tx, kind, id, Some(remote))?;
    state::set_known(applier.tx, entity, &change.version, change.position, false)
}

/// A row that was written again since: its base may hold what escaped before that.
fn rebase_dirty(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    change: &Change,
    remote: &Fields,
) -> Result<Option<Landed>, StoreError> {
    let (tx, kind, id) = (applier.tx, &entity_type.name, &entity.id);
    let BaseState::Present(base) = captured::base_of(tx, kind, id.as_str())? else {
        return Ok(None);
    };
    let entries = outbox::of_entity(tx, kind, id.as_str())?;
    let new = new_fields_of(tx, kind)?;
    let mut mine = compare(tx, entity_type, &new, &base, remote)?.mine;
    for entry in &entries {
        if entry.op != Operation::Update {
            mine = Fields::new();
        }
        let payload = captured::fields_of_mutation(tx, entry.seq)?.unwrap_or_default();
        payload.names().for_each(|name| {
            mine.remove(name);
        });
    }
    on_top_of(applier, entity, change, remote)?;
    if !mine.is_empty() {
        record(
            tx,
            entity_type,
            id,
            Operation::Update,
            Some(&mine),
            applier.now,
        )?;
    }
    Ok(Some(Landed::Skipped))
}

/// A row that is missing here: whether it was deleted is decided when all are known.
fn put_aside(
    tx: &Transaction<'_>,
    scope: &Scope,
    change: &Change,
    remote: &Fields,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO syncline_missing (entity_type, entity_id, scope, fields, version, position)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (entity_type, entity_id) DO UPDATE SET fields = excluded.fields,
                version = excluded.version, position = excluded.position",
    )?
    .execute(params![
        change.entity_type.as_str(),
        change.id.as_str(),
        scope.as_str(),
        to_json(remote),
        change.version.as_str(),
        change.position
    ])?;
    Ok(())
}

/// A snapshot begins: nothing is missing yet.
pub(crate) fn forget_missing(tx: &Transaction<'_>) -> Result<(), StoreError> {
    tx.execute("DELETE FROM syncline_missing", [])?;
    Ok(())
}

/// The snapshot is complete and rows that the server lacks are recorded: decides about those that
/// are missing here, and tells.
pub(crate) fn finish(
    applier: &mut Applier<'_>,
    types: &EntityTypes,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    for entity_type in types.iter() {
        settle_missing(applier, entity_type, summary)?;
        let key = format!("{}{}", meta::key::RECOVERED, entity_type.name);
        let rows: i64 = meta::get(tx, &key)?.unwrap_or(0);
        meta::clear(tx, &key)?;
        meta::clear(
            tx,
            &format!("{}{}", meta::key::RECOVER_NEW, entity_type.name),
        )?;
        meta::clear(tx, &gone_key(entity_type))?;
        if let Some(rows) = u64::try_from(rows).ok().filter(|rows| *rows > 0) {
            tracing::warn!(
                entity_type = entity_type.name,
                rows,
                "writes had escaped capture"
            );
            applier.notices.push(Notice::Recovered {
                entity_type: entity_type.name.clone(),
                rows,
            });
        }
    }
    meta::clear(tx, meta::key::RECOVER)?;
    meta::clear(tx, meta::key::RECOVER_FROM)?;
    Ok(())
}

fn settle_missing(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    let missing = take_missing(tx, &entity_type.name)?;
    if missing.is_empty() {
        return Ok(());
    }
    let seen: i64 = tx.query_row(
        "SELECT count(*) FROM syncline_seen WHERE entity_type = ?1",
        [&entity_type.name],
        |row| row.get(0),
    )?;
    let here = usize::try_from(seen)
        .unwrap_or(0)
        .saturating_sub(missing.len());
    let was_gone = meta::get::<i64>(tx, &gone_key(entity_type))?.is_some();
    if !was_gone && !sweep::is_too_many(missing.len(), here) {
        for (scope, change) in &missing {
            let entity = EntityRef {
                entity_type: change.entity_type.clone(),
                id: change.id.clone(),
            };
            if state::view(tx, &entity)?.dirty {
                // Inserted again meanwhile, with a record: the resolver's matter.
                applier.change(scope, change)?.count(summary);
                continue;
            }
            if let ChangeKind::Upsert(remote) = &change.kind {
                on_top_of(applier, &entity, change, remote)?;
            }
            record(
                tx,
                entity_type,
                &entity.id,
                Operation::Delete,
                None,
                applier.now,
            )?;
        }
        return Ok(());
    }
    for (scope, change) in &missing {
        applier.change(scope, change)?.count(summary);
    }
    applier.notices.push(Notice::RecoveryHeld {
        entity_type: entity_type.name.clone(),
        rows: missing.len() as u64,
    });
    Ok(())
}

/// Under which word it is remembered that a type's table was seen to be gone.
fn gone_key(entity_type: &RegisteredType) -> String {
    format!("{}{}", meta::key::TABLE_GONE, entity_type.name)
}

fn take_missing(tx: &Transaction<'_>, name: &str) -> Result<Vec<(Scope, Change)>, StoreError> {
    let mut statement = tx.prepare_cached(
        "DELETE FROM syncline_missing WHERE entity_type = ?1
         RETURNING entity_id, scope, fields, version, position",
    )?;
    let mut rows = statement.query([name])?;
    let mut missing = Vec::new();
    while let Some(row) = rows.next()? {
        let id = EntityId::parse(row.get::<_, String>(0)?)
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        let fields = json("missing row", &row.get::<_, String>(2)?)?;
        let change = Change {
            entity_type: EntityType::new(name),
            id,
            kind: ChangeKind::Upsert(fields),
            version: ServerVersion::new(row.get::<_, String>(3)?),
            position: row.get(4)?,
            key: None,
        };
        missing.push((Scope::new(row.get::<_, String>(1)?), change));
    }
    missing.sort_by(|a, b| a.1.id.as_str().cmp(b.1.id.as_str()));
    Ok(missing)
}
