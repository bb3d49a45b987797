//! Following the app's schema: what a change of it means for the registered types.
//!
//! The engine remembers each table's columns. When the schema has changed, a renamed table is
//! found by its capture triggers (SQLite takes them along), a renamed column by its place; its
//! field keeps its name on the wire. Triggers are renewed, the type's schema version goes up. If
//! the triggers were gone, or made for another table than the one that is there, writes may have
//! escaped them: [`crate::recover`] looks for those.

use crate::capture::{self, CaptureState};
use crate::error::{StoreError, json, to_json};
use crate::meta;
use crate::recover;
use crate::store::{EntityTypes, RegisteredType};
use crate::table::{Place, Table, TableError};
use crate::type_options::TypeOptions;
use rusqlite::{Connection, Transaction, params};
use std::collections::BTreeMap;
use syncline_core::Now;

/// A row of `syncline_entity_type`, as it was left.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) table: String,
    pub(crate) schema_version: u32,
    pub(crate) options: TypeOptions,
    layout: Vec<Place>,
}

/// What became of one type's table.
pub(crate) struct Followed {
    /// Fields of columns that were not there before.
    pub(crate) new_fields: Vec<String>,
    /// Columns with other names than before: old and new.
    pub(crate) renamed: Vec<(String, String)>,
}

/// Takes over whatever the app changed since the last time; returns the types as they are now.
pub(crate) fn follow(tx: &Transaction<'_>) -> Result<EntityTypes, StoreError> {
    let mut escaped = BTreeMap::new();
    for known in known(tx)? {
        let Some(table) = locate(tx, &known)? else {
            tracing::warn!(entity_type = known.name, "its table is gone");
            meta::set(tx, &format!("{}{}", meta::key::TABLE_GONE, known.name), 1)?;
            continue;
        };
        let before = known.schema_version;
        match take_over(tx, &known, &table) {
            Ok(followed) => {
                let types = EntityTypes::load(tx)?;
                let Some(entity_type) = types.get(&known.name) else {
                    continue;
                };
                // SQLite keeps triggers in step with renamed columns: these are as good as new.
                let as_left = RegisteredType {
                    schema_version: before,
                    ..entity_type.clone()
                };
                let state = capture::verify(tx, &as_left)?;
                if state != CaptureState::Current || entity_type.schema_version != before {
                    tracing::warn!(
                        entity_type = known.name,
                        ?state,
                        "the schema changed: capture triggers are renewed"
                    );
                    capture::install(tx, entity_type)?;
                }
                if matches!(state, CaptureState::Missing | CaptureState::Stale) {
                    escaped.insert(known.name, followed.new_fields);
                }
            }
            Err(StoreError::Table(error)) if !matches!(error, TableError::Storage(_)) => {
                tracing::warn!(entity_type = known.name, %error, "the table cannot be synced now")
            }
            Err(error) => return Err(error),
        }
    }
    let types = EntityTypes::load(tx)?;
    for (name, new_fields) in escaped {
        if let Some(entity_type) = types.get(&name) {
            recover::start(tx, &types, entity_type, &new_fields, time(tx)?)?;
        }
    }
    Ok(types)
}

/// All registered types as they were left.
pub(crate) fn known(conn: &Connection) -> Result<Vec<Known>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT name, table_name, schema_version, options, columns FROM syncline_entity_type ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    let mut known = Vec::new();
    while let Some(row) = rows.next()? {
        known.push(Known {
            name: row.get(0)?,
            table: row.get(1)?,
            schema_version: row.get(2)?,
            options: TypeOptions::from_json(&row.get::<_, String>(3)?)?,
            layout: json("type's columns", &row.get::<_, String>(4)?)?,
        });
    }
    Ok(known)
}

/// The name of the type's table now: as it was, or that on which its capture triggers stand.
fn locate(tx: &Transaction<'_>, known: &Known) -> Result<Option<String>, StoreError> {
    if table_exists(tx, &known.table)? {
        return Ok(Some(known.table.clone()));
    }
    Ok(capture::table_of(tx, &known.name)?)
}

pub(crate) fn table_exists(conn: &Connection, name: &str) -> Result<bool, StoreError> {
    Ok(conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE)",
        [name],
        |row| row.get(0),
    )?)
}

/// Writes down the table as it is now. Nothing is counted if it is as it was.
pub(crate) fn take_over(
    tx: &Transaction<'_>,
    known: &Known,
    table: &str,
) -> Result<Followed, StoreError> {
    let found = Table::read(tx, table)?;
    let renamed = renamed(&known.layout, &found.layout);
    let changed = !known.layout.is_empty() && known.layout != found.layout;
    let mut options = known.options.clone();
    if changed {
        follow_columns(&mut options, &renamed, &found);
    }
    let found = Table::read_with(tx, table, &options)?;
    if changed || known.layout.is_empty() || found.name != known.table {
        tx.execute(
            "UPDATE syncline_entity_type
                SET table_name = ?2, columns = ?3, options = ?4, schema_version = schema_version + ?5
              WHERE name = ?1",
            params![
                known.name,
                found.name,
                to_json(&found.layout),
                to_json(&options),
                changed
            ],
        )?;
    }
    let was_there = |name: &str| {
        let known = known.layout.iter();
        let mut same = known.filter(|place| place.name.eq_ignore_ascii_case(name));
        same.next().is_some() || renamed.iter().any(|(_, to)| to.eq_ignore_ascii_case(name))
    };
    let new_fields = (found.columns.iter())
        .filter(|column| !was_there(&column.name))
        .map(|column| column.field.clone())
        .collect();
    Ok(Followed {
        new_fields,
        renamed,
    })
}

/// Columns at the same place and of the same type, of which the old name is gone and the new one
/// was not there.
fn renamed(before: &[Place], after: &[Place]) -> Vec<(String, String)> {
    let has = |places: &[Place], name: &str| {
        (places.iter()).any(|place| place.name.eq_ignore_ascii_case(name))
    };
    (before.iter().zip(after))
        .filter(|(old, new)| old.declared.eq_ignore_ascii_case(&new.declared))
        .filter(|(old, new)| !has(after, &old.name) && !has(before, &new.name))
        .map(|(old, new)| (old.name.clone(), new.name.clone()))
        .collect()
}

/// Options go with their columns: other names in place of renamed ones, nothing of dropped ones.
/// The field of a renamed column keeps the name that others know.
fn follow_columns(options: &mut TypeOptions, renamed: &[(String, String)], table: &Table) {
    let now = |name: &String| {
        let mut same = (renamed.iter()).filter(|(old, _)| old.eq_ignore_ascii_case(name));
        same.next()
            .map_or_else(|| name.clone(), |(_, new)| new.clone())
    };
    let there = |name: &String| table.has_column(name);
    options.leave_out = (options.leave_out.iter().map(now)).filter(there).collect();
    let mut fields: BTreeMap<String, String> = (options.fields.iter())
        .map(|(column, field)| (now(column), field.clone()))
        .filter(|(column, _)| there(column))
        .collect();
    for (old, new) in renamed {
        let synced = (table.columns.iter()).any(|column| column.name == *new);
        let declared = (fields.keys()).any(|column| column.eq_ignore_ascii_case(new));
        if synced && !declared && !options.leave_out.contains(new) {
            fields.insert(new.clone(), old.clone());
        }
    }
    fields.retain(|column, field| column != field);
    options.fields = fields;
    for reference in &mut options.references {
        reference.columns = reference.columns.iter().map(now).collect();
    }
    (options.references).retain(|reference| reference.columns.iter().all(there));
}

/// Remembers a table's columns when it is attached.
pub(crate) fn remember(
    tx: &Transaction<'_>,
    entity_type: &str,
    table: &Table,
) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE syncline_entity_type SET columns = ?2 WHERE name = ?1")?
        .execute(params![entity_type, to_json(&table.layout)])?;
    Ok(())
}

/// `PRAGMA schema_version`, which every change of the schema raises.
pub(crate) fn cookie(conn: &Connection) -> Result<i64, StoreError> {
    Ok(conn.pragma_query_value(None, "schema_version", |row| row.get(0))?)
}

/// The time by SQLite's clock, as the capture triggers note it.
pub(crate) fn time(conn: &Connection) -> Result<Now, StoreError> {
    let unix_ms = conn.query_row(&format!("SELECT {}", capture::NOW), [], |row| row.get(0))?;
    Ok(Now {
        monotonic_ms: 0,
        unix_ms,
    })
}
