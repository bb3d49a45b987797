//! Fields that the server has and the local table lacks: kept beside the row, sent back only where the row is
//! created again, and written into the column once the table has one. A row without such fields costs nothing.

use crate::captured::{self, BaseState};
use crate::conflict::Loss;
use crate::conflict::record::{self, BySchema};
use crate::error::{StoreError, json, to_json};
use crate::follow;
use crate::inbox;
use crate::outbox::{self, Entry};
use crate::row::{self, Written};
use crate::store::RegisteredType;
use crate::table::Table;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use syncline_core::{EntityRef, WaitsFor};
use syncline_protocol::{ChangeKind, EntityId, Fields, Operation, Value};

/// The fields that the table has, and those that it lacks.
pub(crate) fn split(table: &Table, fields: Fields) -> (Fields, Fields) {
    if row::given(table, &fields).len() == fields.len() {
        return (fields, Fields::new());
    }
    let mut known = Fields::new();
    let mut unknown = Fields::new();
    for (name, value) in &fields {
        let has = table.columns.iter().any(|column| column.field == *name);
        let side = if has { &mut known } else { &mut unknown };
        side.insert(name.clone(), value.clone());
    }
    (known, unknown)
}

/// Keeps what the table lacks of a remote state, in place of what was kept before.
pub(crate) fn keep(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    unknown: &Fields,
) -> Result<(), StoreError> {
    if unknown.is_empty() {
        return forget(tx, entity);
    }
    tx.prepare_cached(
        "INSERT INTO syncline_unknown_fields (entity_type, entity_id, fields) VALUES (?1, ?2, ?3)
         ON CONFLICT (entity_type, entity_id) DO UPDATE SET fields = excluded.fields",
    )?
    .execute(params![
        entity.entity_type.as_str(),
        entity.id.as_str(),
        to_json(unknown)
    ])?;
    Ok(())
}

/// What is kept of an entity.
pub(crate) fn of(conn: &Connection, entity: &EntityRef) -> Result<Fields, StoreError> {
    let sql =
        "SELECT fields FROM syncline_unknown_fields WHERE entity_type = ?1 AND entity_id = ?2";
    let names = [entity.entity_type.as_str(), entity.id.as_str()];
    let kept: Option<String> = conn
        .prepare_cached(sql)?
        .query_row(names, |row| row.get(0))
        .optional()?;
    kept.map_or(Ok(Fields::new()), |text: String| {
        json("unknown field", &text)
    })
}

/// A whole row as it is created again: what is kept beside it belongs to it.
pub(crate) fn with_kept(
    conn: &Connection,
    entity: &EntityRef,
    row: &Fields,
) -> Result<Fields, StoreError> {
    let mut whole = of(conn, entity)?;
    whole.patch(row);
    Ok(whole)
}

/// The entity is gone, or has no such fields any more.
pub(crate) fn forget(tx: &Transaction<'_>, entity: &EntityRef) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM syncline_unknown_fields WHERE entity_type = ?1 AND entity_id = ?2",
    )?
    .execute([entity.entity_type.as_str(), entity.id.as_str()])?;
    Ok(())
}

/// What an applied mutation says of them.
pub(crate) fn after_push(
    tx: &Transaction<'_>,
    entity_type: Option<&RegisteredType>,
    entity: &EntityRef,
    op: Operation,
    fields: Option<&Fields>,
) -> Result<(), StoreError> {
    match (op, fields, entity_type) {
        (Operation::Delete, ..) => forget(tx, entity),
        (_, Some(fields), Some(entity_type)) => {
            keep(tx, entity, &split(&entity_type.table, fields.clone()).1)
        }
        _ => Ok(()),
    }
}

/// The table of a type has changed: what it has a column for now goes into the rows, as if the
/// column had been there when the field arrived. An edit of that column that was recorded here since stands; what was
/// written without a record, as a migration does, gives way. What is hidden by the one or the other was not seen by
/// whoever wrote over it: a conflict record has it. A value that the column refuses waits in the inbox.
pub(crate) fn adopt(tx: &Transaction<'_>, entity_type: &RegisteredType) -> Result<(), StoreError> {
    let kept: Vec<(String, String)> = tx
        .prepare_cached(
            "SELECT entity_id, fields FROM syncline_unknown_fields WHERE entity_type = ?1",
        )?
        .query_map([&entity_type.name], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut adopted = Vec::new();
    for (id, fields) in kept {
        let (known, unknown) = split(&entity_type.table, json("unknown field", &fields)?);
        if let (false, Ok(id)) = (known.is_empty(), EntityId::parse(id)) {
            adopted.push((id, known, unknown));
        }
    }
    if adopted.is_empty() {
        return Ok(());
    }
    let held = tx.execute("INSERT OR IGNORE INTO syncline_guard (held) VALUES (1)", [])?;
    for (id, known, unknown) in adopted {
        let entity = EntityRef {
            entity_type: entity_type.entity_type(),
            id,
        };
        keep(tx, &entity, &unknown)?;
        adopt_row(tx, entity_type, &entity, known)?;
    }
    if held > 0 {
        tx.execute("DELETE FROM syncline_guard", [])?;
    }
    Ok(())
}

/// The row takes over what is kept beside it.
fn adopt_row(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    mut known: Fields,
) -> Result<(), StoreError> {
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let entries = outbox::of_entity(tx, names.0, names.1)?;
    if !entries.is_empty()
        && let BaseState::Present(mut base) = captured::base_of(tx, names.0, names.1)?
    {
        base.patch(&known);
        captured::write_base(tx, names.0, names.1, Some(&base))?;
    }
    let mut edited = Fields::new();
    for entry in &entries {
        let payload = captured::fields_of_mutation(tx, entry.seq)?.unwrap_or_default();
        for name in payload.names() {
            if let Some(value) = known.remove(name) {
                edited.insert(name, value);
            }
        }
    }
    let Some(row) = row::read(tx, &entity_type.table, &entity.id)? else {
        return Ok(());
    };
    let mut whole = row.clone();
    whole.patch(&known);
    if let Written::Refused(why) = row::set(tx, &entity_type.table, &entity.id, &known)? {
        let kind = ChangeKind::Upsert(whole);
        let now = inbox::last_pull(tx)?.1;
        return inbox::park_pulled(tx, entity, kind, WaitsFor::Constraint, &why, now);
    }
    let mut unrecorded = Fields::new();
    for column in &entity_type.table.columns {
        if let Some(here) = row.get(&column.field)
            && known.contains(&column.field)
            && *here != Value::Null
            && !row::is_default(tx, column, here)?
        {
            unrecorded.insert(column.field.clone(), here.clone());
        }
    }
    let lost = [unrecorded, edited].map(|hidden| Loss::of(hidden, &whole));
    keep_record(tx, entity, &entries, (&row, &whole), lost)
}

/// What a write into a new column hides, or gives way to, stays in a conflict record.
fn keep_record(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    entries: &[Entry],
    (before, after): (&Fields, &Fields),
    [lost_mine, lost_theirs]: [Loss; 2],
) -> Result<(), StoreError> {
    if lost_mine == Loss::Nothing && lost_theirs == Loss::Nothing {
        return Ok(());
    }
    let base =
        captured::base_of(tx, entity.entity_type.as_str(), entity.id.as_str())?.into_fields();
    let decision = BySchema {
        entity,
        mutations: entries.iter().map(|one| one.mutation.as_str()).collect(),
        base: base.as_ref(),
        local: Some(before),
        result: Some(after),
        rule: "new-column",
        reason: "a new column was written before what others have in it was there".to_owned(),
        lost_mine,
        lost_theirs,
    };
    record::by_schema(tx, decision, follow::time(tx)?)
}
