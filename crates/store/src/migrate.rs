//! Changing the app's schema without losing a write: one transaction around the app's own script.
//!
//! Capture triggers get in the way of some statements (DROP COLUMN fails on them), go down with
//! others (a table that is rebuilt) and are outdated by the rest. So they are removed, the script
//! runs, and they are made anew for the tables as they are then: all of it or nothing. The names
//! on the wire stay what they were. What the script does to rows counts as the app's own writes.

use crate::capture;
use crate::error::StoreError;
use crate::follow::{self, Known};
use crate::meta;
use crate::recover;
use crate::row;
use crate::settings::Synchronous;
use crate::store::{EntityTypes, RegisteredType};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Batch, Connection, Transaction, TransactionBehavior};
use serde::Serialize;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// How long a migration waits for other writers.
const BUSY_TIMEOUT_MS: u64 = 5_000;

/// What a migration did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MigrateReport {
    /// Statements of the script.
    pub statements: u64,
    /// The synced tables that it changed.
    pub tables: Vec<MigratedTable>,
}

/// A synced table that a migration changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigratedTable {
    /// Its name now.
    pub table: String,
    /// The entity type, which keeps its name.
    pub entity_type: String,
    /// The schema version that it counts now.
    pub schema_version: u32,
    /// Columns with new names: column and the field that it still has on the wire.
    pub fields: BTreeMap<String, String>,
    /// The script changed rows: the next sync compares the table with the server, and records them.
    pub rows_changed: bool,
}

/// Runs a script of schema changes (and whatever else it does) on an attached database.
pub fn migrate(path: &Path, script: &str) -> Result<MigrateReport, StoreError> {
    let mut conn = crate::connect::connect(path, BUSY_TIMEOUT_MS, Synchronous::Full)?;
    meta::require_readable(&conn)?;
    meta::migrate(&mut conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let report = migrate_in(&tx, script)?;
    tx.commit()?;
    Ok(report)
}

fn migrate_in(tx: &Transaction<'_>, script: &str) -> Result<MigrateReport, StoreError> {
    // What changed before this script is dealt with first.
    let before = follow::follow(tx)?;
    let mut contents = BTreeMap::new();
    for entity_type in before.iter() {
        contents.insert(entity_type.name.clone(), content(tx, entity_type)?);
        capture::remove(tx, &entity_type.name)?;
        capture::mark(tx, &entity_type.table.name, &entity_type.name)?;
    }
    let mut report = MigrateReport {
        statements: run(tx, script)?,
        ..MigrateReport::default()
    };
    for known in follow::known(tx)? {
        let mark = capture::unmark(tx, &known.name)?;
        if before.get(&known.name).is_some() {
            let was = contents.remove(&known.name).unwrap_or_default();
            report.tables.extend(renew(tx, &known, mark, &was)?);
        }
    }
    Ok(report)
}

/// Makes the capture triggers of one type anew; tells what changed, if anything did.
fn renew(
    tx: &Transaction<'_>,
    known: &Known,
    mark: Option<String>,
    was: &Content,
) -> Result<Option<MigratedTable>, StoreError> {
    let table = match follow::table_exists(tx, &known.table)? {
        true => Some(known.table.clone()),
        false => mark,
    };
    let Some(table) = table else {
        return Err(StoreError::Refused(format!(
            "the script drops table {:?}, which is synced; nothing was changed. Keep the table, or \
             detach the database, change it, and attach it again with --existing adopt",
            known.table
        )));
    };
    let followed = follow::take_over(tx, known, &table)?;
    let types = EntityTypes::load(tx)?;
    let entity_type = types.get(&known.name).ok_or_else(|| {
        StoreError::Refused(format!("table {table:?} cannot be synced after the script"))
    })?;
    capture::install(tx, entity_type)?;
    let rows_changed = was.differs(&content(tx, entity_type)?, tx, entity_type)?;
    if rows_changed {
        let now = follow::time(tx)?;
        recover::start(tx, &types, entity_type, &followed.new_fields, now)?;
    }
    let renamed = !table.eq_ignore_ascii_case(&known.table);
    let changed = entity_type.schema_version != known.schema_version || renamed || rows_changed;
    Ok(changed.then(|| MigratedTable {
        table,
        entity_type: known.name.clone(),
        schema_version: entity_type.schema_version,
        fields: (followed.renamed.iter())
            .filter_map(|(_, column)| Some((column.clone(), field_of(entity_type, column)?)))
            .collect(),
        rows_changed,
    }))
}

fn field_of(entity_type: &RegisteredType, column: &str) -> Option<String> {
    let columns = &entity_type.table.columns;
    let named = columns.iter().find(|known| known.name == column)?;
    Some(named.field.clone())
}

/// Runs the statements of a script inside the transaction.
fn run(tx: &Transaction<'_>, script: &str) -> Result<u64, StoreError> {
    let mut statements = 0;
    let mut batch = Batch::new(tx, script);
    while let Some(mut statement) = batch.next()? {
        let text = statement.expanded_sql().unwrap_or_default();
        if let Some(word) = controls_transactions(&text) {
            return Err(StoreError::Refused(format!(
                "the script says {word}: it runs inside one transaction, as a whole or not at all; \
                 take its own BEGIN, COMMIT, ROLLBACK and savepoints out. Nothing was changed"
            )));
        }
        {
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        if tx.is_autocommit() {
            return Err(StoreError::Refused(
                "a trigger rolled the whole script back; nothing was changed".to_owned(),
            ));
        }
        statements += 1;
    }
    Ok(statements)
}

/// The word with which a statement begins or ends a transaction.
fn controls_transactions(statement: &str) -> Option<&'static str> {
    let mut rest = statement.trim_start();
    loop {
        rest = match (rest.strip_prefix("--"), rest.strip_prefix("/*")) {
            (Some(comment), _) => comment.split_once('\n').map_or("", |(_, after)| after),
            (_, Some(comment)) => comment.split_once("*/").map_or("", |(_, after)| after),
            _ => break,
        };
        rest = rest.trim_start();
    }
    let end = rest.find(|c: char| !c.is_ascii_alphabetic());
    let first = &rest[..end.unwrap_or(rest.len())];
    ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"]
        .into_iter()
        .find(|word| first.eq_ignore_ascii_case(word))
}

/// What the rows of a table hold, as sums over all rows: of their ids, and of each field.
#[derive(Default)]
struct Content {
    ids: u64,
    fields: BTreeMap<String, u64>,
}

fn content(conn: &Connection, entity_type: &RegisteredType) -> Result<Content, StoreError> {
    let mut content = Content::default();
    row::for_each(conn, &entity_type.table, |id, fields| {
        let Ok(id) = id else { return Ok(()) };
        content.ids = content.ids.wrapping_add(hash(&id.as_str()));
        for (name, value) in &fields {
            let sum = content.fields.entry(name.clone()).or_default();
            let value = crate::error::to_json(value);
            *sum = sum.wrapping_add(hash(&(id.as_str(), value)));
        }
        Ok(())
    })?;
    Ok(content)
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Content {
    /// Whether rows came, went or changed in what was there before; or a new column holds anything
    /// but its default.
    fn differs(
        &self,
        now: &Content,
        conn: &Connection,
        entity_type: &RegisteredType,
    ) -> Result<bool, StoreError> {
        let changed = |(name, sum): (&String, &u64)| {
            self.fields.get(name).is_some_and(|before| before != sum)
        };
        if self.ids != now.ids || now.fields.iter().any(changed) {
            return Ok(true);
        }
        let columns = entity_type.table.columns.iter();
        let new = columns.filter(|column| !self.fields.contains_key(&column.field));
        let new: Vec<_> = new.collect();
        let mut given = false;
        if !new.is_empty() && !self.fields.is_empty() {
            row::for_each(conn, &entity_type.table, |_, fields| {
                for column in &new {
                    let value = fields.get(&column.field);
                    given |= match value {
                        Some(value) => !row::is_default(conn, column, value)?,
                        None => false,
                    };
                }
                Ok(())
            })?;
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_begin_or_end_transactions_are_found() {
        for (statement, word) in [
            ("begin", Some("BEGIN")),
            (" -- now\n /* really */ COMMIT TRANSACTION;", Some("COMMIT")),
            ("END", Some("END")),
            ("ROLLBACK TO x", Some("ROLLBACK")),
            ("/* BEGIN */ SELECT 1", None),
            (
                "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END",
                None,
            ),
            ("-- only a comment", None),
        ] {
            assert_eq!(controls_transactions(statement), word, "{statement}");
        }
    }
}
