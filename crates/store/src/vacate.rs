//! Rows taken out of their table for a moment, so that others can take their places: values of a
//! UNIQUE index that are swapped or passed on fit in no order of single writes.
//!
//! Everything of the row comes back, also what is not synced: the columns that stay on this
//! device, and the rowid.

use crate::error::StoreError;
use crate::row::{self, Written};
use crate::table::{Table, quote_ident};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use syncline_protocol::{EntityId, Fields};

/// A row that was taken out.
#[derive(Debug, Clone)]
pub(crate) struct Vacated {
    /// Its synced fields.
    pub(crate) fields: Fields,
    columns: Vec<String>,
    values: Vec<SqlValue>,
}

/// Takes a row out; `None` when it is not there.
pub(crate) fn vacate(
    conn: &Connection,
    table: &Table,
    id: &EntityId,
) -> Result<Option<Vacated>, StoreError> {
    let Some(fields) = row::read(conn, table, id)? else {
        return Ok(None);
    };
    let rowid = table.rowid_name.filter(|_| !table.integer_key);
    let sql = format!(
        "SELECT {}* FROM {} WHERE {}",
        rowid.map_or_else(String::new, |name| format!("{name}, ")),
        quote_ident(&table.name),
        row::where_key(table)
    );
    let mut statement = conn.prepare(&sql)?;
    let mut columns: Vec<String> = statement
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    if let (Some(first), Some(rowid)) = (columns.first_mut(), rowid) {
        rowid.clone_into(first);
    }
    let count = columns.len();
    let values = statement
        .query_row(params_from_iter(row::key_values(id)), |row| {
            (0..count)
                .map(|index| row.get::<_, SqlValue>(index))
                .collect()
        })
        .optional()?;
    let Some(values) = values else {
        return Ok(None);
    };
    let (columns, values) = stored_only(table, columns, values);
    match row::remove(conn, table, id)? {
        Written::Done => Ok(Some(Vacated {
            fields,
            columns,
            values,
        })),
        // A trigger of the app's keeps it where it is.
        Written::NoParent(_) | Written::Refused(_) => Ok(None),
    }
}

fn stored_only(
    table: &Table,
    columns: Vec<String>,
    values: Vec<SqlValue>,
) -> (Vec<String>, Vec<SqlValue>) {
    columns
        .into_iter()
        .zip(values)
        .filter(|(name, _)| !table.generated.contains(name))
        .unzip()
}

/// Puts it back, with these fields laid over it.
pub(crate) fn put_back(
    conn: &Connection,
    table: &Table,
    row: &Vacated,
    fields: &Fields,
) -> Result<Written, StoreError> {
    let mut values = row.values.clone();
    for (column, value) in row::given(table, fields) {
        if let Some(at) = row.columns.iter().position(|name| name == column) {
            values[at] = row::to_sql(value);
        }
    }
    let names: Vec<String> = row.columns.iter().map(|name| quote_ident(name)).collect();
    let marks: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
    let sql = format!(
        "INSERT INTO {} ({}) VALUES ({})",
        quote_ident(&table.name),
        names.join(", "),
        marks.join(", ")
    );
    row::run(conn, &sql, values.into_iter())
}
