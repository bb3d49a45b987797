//! The rows of a device's tables, under the names of the wire.

use super::check::{Checked, sql};
use super::drawn::{field, quoted};
use super::scenario::Setup;
use crate::reference::values;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The fields of rows, by their ids.
pub(crate) type Rows = BTreeMap<String, Map<String, Value>>;

/// Rows of a device.
pub(crate) fn rows(setup: &Setup, conn: &Connection, table: &str) -> Checked<Rows> {
    read(setup, conn, table).map_err(sql)
}

/// The same, for whoever writes them.
pub(crate) fn read(setup: &Setup, conn: &Connection, table: &str) -> rusqlite::Result<Rows> {
    let key = setup.key(table);
    let computed = setup.computed(table);
    if setup.drawn_table(table).is_some() && !is_there(conn, table)? {
        return Ok(Rows::new());
    }
    let mut statement = conn.prepare_cached(&format!("SELECT * FROM {}", quoted(table)))?;
    let mut found = Rows::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut fields = Map::new();
        let mut parts = vec![Value::Null; key.len()];
        // Asked of each row: before the first step the names may be those of an older schema.
        for (at, column) in row.as_ref().column_names().into_iter().enumerate() {
            let value = row.get_ref(at)?;
            match key.iter().position(|name| name == column) {
                Some(place) => parts[place] = part(value),
                None if computed.contains(&column) => {}
                None => {
                    fields.insert(field(column).to_owned(), json(value));
                }
            }
        }
        found.insert(values::id(&parts), fields);
    }
    Ok(found)
}

/// A table that comes with a change of the schema is not everywhere at once.
fn is_there(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let mut found = conn.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1")?;
    found.exists([table])
}

/// A value as a part of an id.
fn part(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Blob(bytes) => values::hex(bytes),
        other => json(other),
    }
}

/// A value as one of a field.
fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => integer.into(),
        ValueRef::Real(real) => real.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => values::blob(bytes),
    }
}
