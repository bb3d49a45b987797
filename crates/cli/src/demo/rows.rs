//! Rows as plain values, and the comparison of a device's file with the server's own listing.
//!
//! Neither side is asked through the engine: the file is read with SQL, the server with HTTP. The
//! only difference that is allowed is a row with a refused mutation, and only as far as that very
//! mutation explains it.

use crate::Failure;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syncline::MutationError;
use syncline_protocol::{EntityId, Fields, KeyPart, Value};
use syncline_store::captured;

/// The key column of every table of the demo.
const KEY: &str = "id";

/// A row by type and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Name {
    pub(super) entity_type: String,
    pub(super) entity_id: String,
}

/// Every row of a place.
pub(super) type Rows = BTreeMap<Name, Fields>;

/// A mutation that the server refused for good; it waits in the outbox for a person.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) seq: i64,
    pub(super) name: Name,
    op: String,
    fields: Fields,
    pub(super) error: MutationError,
}

/// A row that is not the same in both places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    #[serde(flatten)]
    pub(super) name: Name,
    /// As the device has it.
    pub(super) device: Option<Fields>,
    /// As the server has it.
    pub(super) server: Option<Fields>,
    /// The refused mutation, and nothing else, is the reason.
    pub(super) refused: bool,
}

impl Refused {
    /// The row that the refused mutation makes of the server's.
    fn explains(&self, server: Option<&Fields>) -> Option<Fields> {
        match (self.op.as_str(), server) {
            ("delete", _) | ("update", None) => None,
            (_, server) => {
                let mut row = server.cloned().unwrap_or_default();
                row.patch(&self.fields);
                Some(row)
            }
        }
    }
}

/// All rows that the two places do not agree on.
pub(super) fn compare(device: &Rows, server: &Rows, refused: &[Refused]) -> Vec<Difference> {
    let names: BTreeSet<&Name> = device.keys().chain(server.keys()).collect();
    let different = |name: &&Name| device.get(*name) != server.get(*name);
    let describe = |name: &Name| {
        let (here, there) = (device.get(name), server.get(name));
        let cause = refused.iter().find(|refused| refused.name == *name);
        Difference {
            name: name.clone(),
            device: here.cloned(),
            server: there.cloned(),
            refused: cause.is_some_and(|cause| cause.explains(there).as_ref() == here),
        }
    };
    names.into_iter().filter(different).map(describe).collect()
}

/// Opens a device's file to look at it.
pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

/// Every row of the app's tables. The key is in the row's name, not among its fields.
pub(super) fn of_file(conn: &Connection) -> Result<Rows, Failure> {
    let mut rows = Rows::new();
    let tables: Vec<String> = conn
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table'
                AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                AND name NOT LIKE 'syncline\\_%' ESCAPE '\\'",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for table in tables {
        let mut statement = conn.prepare(&format!("SELECT * FROM \"{table}\""))?;
        let columns: Vec<String> = statement
            .column_names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let mut fields = Fields::new();
            for (index, column) in columns.iter().enumerate() {
                if column != KEY {
                    fields.insert(column.as_str(), value(row.get_ref(index)?));
                }
            }
            let id: String = row.get(KEY)?;
            let id = EntityId::from_parts(&[KeyPart::Text(id)])
                .map_err(|error| super::trouble("a key", error))?;
            let name = Name {
                entity_type: table.clone(),
                entity_id: id.into(),
            };
            rows.insert(name, fields);
        }
    }
    Ok(rows)
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// The refused mutations that wait in a device's outbox.
pub(super) fn refused(conn: &Connection) -> Result<Vec<Refused>, Failure> {
    let mut statement = conn.prepare(
        "SELECT seq, entity_type, entity_id, op, coalesce(last_error, 'null')
           FROM syncline_outbox WHERE state = 'failed' ORDER BY seq",
    )?;
    let mut found = statement.query([])?;
    let mut refused = Vec::new();
    while let Some(row) = found.next()? {
        let (seq, error): (i64, String) = (row.get(0)?, row.get(4)?);
        let fields = captured::fields_of_mutation(conn, seq)
            .map_err(|error| super::trouble("a refused mutation", error))?;
        let error = serde_json::from_str::<Option<MutationError>>(&error)
            .map_err(|error| super::trouble("a refused mutation's reason", error))?;
        refused.push(Refused {
            seq,
            name: Name {
                entity_type: row.get(1)?,
                entity_id: row.get(2)?,
            },
            op: row.get(3)?,
            fields: fields.unwrap_or_default(),
            error: error.unwrap_or_else(|| MutationError::new("unknown", "no reason is recorded")),
        });
    }
    Ok(refused)
}

#[cfg(test)]
mod tests;
