//! Rows of the app's tables as entities: read, write, remove, find parents.

use crate::capture;
use crate::error::{StoreError, is_rows_fault};
use crate::store::RegisteredType;
use crate::table::{Affinity, Column, Reference, Table, quote_ident};
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use syncline_protocol::{EntityId, Fields, KeyPart, Value};

/// What came of writing a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is there.
    Done,
    /// The row it references is not.
    NoParent(String),
    /// A constraint, a column's type or a trigger of the app's does not let it in.
    Refused(String),
}

pub(crate) fn key_values(id: &EntityId) -> impl Iterator<Item = SqlValue> {
    id.parts().into_iter().map(|part| match part {
        KeyPart::Integer(integer) => SqlValue::Integer(integer),
        KeyPart::Text(text) => SqlValue::Text(text),
        KeyPart::Blob(bytes) => SqlValue::Blob(bytes),
    })
}

pub(crate) fn to_sql(value: &Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Integer(integer) => SqlValue::Integer(*integer),
        Value::Real(real) => SqlValue::Real(*real),
        Value::Text(text) => SqlValue::Text(text.clone()),
        Value::Blob(bytes) => SqlValue::Blob(bytes.clone()),
    }
}

fn from_sql(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        // Text that is no UTF-8 cannot be synced; a replacement character shows where it was.
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

pub(crate) fn where_key(table: &Table) -> String {
    // The second comparison keeps keys apart that a NOCASE column calls equal.
    let same = |(index, column): (usize, &Column)| {
        let (name, n) = (quote_ident(&column.name), index + 1);
        format!("{name} = ?{n} AND {name} COLLATE BINARY = ?{n}")
    };
    table
        .key
        .iter()
        .enumerate()
        .map(same)
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// The synced fields of a row.
pub(crate) fn read(
    conn: &Connection,
    table: &Table,
    id: &EntityId,
) -> Result<Option<Fields>, StoreError> {
    let columns = column_list(table);
    let sql = format!(
        "SELECT {columns} FROM {} WHERE {}",
        quote_ident(&table.name),
        where_key(table)
    );
    Ok(conn
        .prepare_cached(&sql)?
        .query_row(params_from_iter(key_values(id)), |row| {
            fields_from(table, row, 0)
        })
        .optional()?)
}

fn column_list(table: &Table) -> String {
    if table.columns.is_empty() {
        return "1".to_owned();
    }
    table
        .columns
        .iter()
        .map(|column| quote_ident(&column.name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn fields_from(table: &Table, row: &Row<'_>, offset: usize) -> rusqlite::Result<Fields> {
    let mut fields = Fields::new();
    for (index, column) in table.columns.iter().enumerate() {
        fields.insert(column.field.clone(), from_sql(row.get_ref(offset + index)?));
    }
    Ok(fields)
}

/// Every row of a table in key order: its id (or why its key cannot be one) and its fields.
pub(crate) fn for_each(
    conn: &Connection,
    table: &Table,
    each: impl FnMut(Result<EntityId, String>, Fields) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for_each_where(conn, table, "1", &[], each)
}

/// Every row whose referenced row is not there.
pub(crate) fn for_each_orphan(
    conn: &Connection,
    table: &Table,
    reference: &Reference,
    each: impl FnMut(Result<EntityId, String>, Fields) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let child = quote_ident(&table.name);
    let column = |name: &String| format!("{child}.{}", quote_ident(name));
    let known = |name: &String| format!("{} IS NOT NULL", column(name));
    let same =
        |(to, from): (&String, &String)| format!("parent.{} = {}", quote_ident(to), column(from));
    let pairs = reference.to_columns.iter().zip(&reference.columns);
    let filter = format!(
        "{} AND NOT EXISTS (SELECT 1 FROM {} AS parent WHERE {})",
        reference
            .columns
            .iter()
            .map(known)
            .collect::<Vec<_>>()
            .join(" AND "),
        quote_ident(&reference.table),
        pairs.map(same).collect::<Vec<_>>().join(" AND ")
    );
    for_each_where(conn, table, &filter, &[], each)
}

/// The rows of a type that reference a row with these values; those with a key that cannot be synced
/// are left out.
pub(crate) fn referring(
    conn: &Connection,
    entity_type: &RegisteredType,
    reference: &Reference,
    values: Option<Vec<SqlValue>>,
) -> Result<Vec<(EntityId, Fields)>, StoreError> {
    let mut found = Vec::new();
    let Some(values) = values else {
        return Ok(found);
    };
    let same =
        |(index, column): (usize, &String)| format!("{} = ?{}", quote_ident(column), index + 1);
    let filter: Vec<String> = reference.columns.iter().enumerate().map(same).collect();
    let filter = filter.join(" AND ");
    for_each_where(conn, &entity_type.table, &filter, &values, |id, fields| {
        found.extend(id.ok().map(|id| (id, fields)));
        Ok(())
    })?;
    Ok(found)
}

/// The ids of rows with these values in these columns, the first few.
pub(crate) fn with_values(
    conn: &Connection,
    table: &Table,
    values: &[(&str, SqlValue)],
    limit: usize,
) -> Result<Vec<EntityId>, StoreError> {
    let same = |(index, (name, _)): (usize, &(&str, SqlValue))| {
        format!("{} = ?{}", quote_ident(name), index + 1)
    };
    let conditions: Vec<String> = values.iter().enumerate().map(same).collect();
    let values = values.iter().map(|(_, value)| value.clone());
    ids_where(conn, table, &conditions.join(" AND "), values, limit)
}

/// The ids of rows for which a condition holds, the first few.
pub(crate) fn ids_where(
    conn: &Connection,
    table: &Table,
    condition: &str,
    values: impl Iterator<Item = SqlValue>,
    limit: usize,
) -> Result<Vec<EntityId>, StoreError> {
    let keys: Vec<String> = table
        .key
        .iter()
        .map(|column| quote_ident(&column.name))
        .collect();
    let sql = format!(
        "SELECT {} FROM {} WHERE {condition} LIMIT {limit}",
        keys.join(", "),
        quote_ident(&table.name)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        ids.extend(id_from(table, row)?.ok());
    }
    Ok(ids)
}

fn for_each_where(
    conn: &Connection,
    table: &Table,
    filter: &str,
    values: &[SqlValue],
    mut each: impl FnMut(Result<EntityId, String>, Fields) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let keys: Vec<String> = table
        .key
        .iter()
        .map(|column| quote_ident(&column.name))
        .collect();
    let keys = keys.join(", ");
    let sql = format!(
        "SELECT {keys}, {} FROM {} WHERE {filter} ORDER BY {keys}",
        column_list(table),
        quote_ident(&table.name)
    );
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        let id = id_from(table, row)?;
        each(id, fields_from(table, row, table.key.len())?)?;
    }
    Ok(())
}

fn id_from(table: &Table, row: &Row<'_>) -> rusqlite::Result<Result<EntityId, String>> {
    let mut parts = Vec::with_capacity(table.key.len());
    for index in 0..table.key.len() {
        let value = row.get_ref(index)?;
        if matches!(value, ValueRef::Text(text) if std::str::from_utf8(text).is_err()) {
            return Ok(Err("its key is text that is not valid UTF-8".to_owned()));
        }
        parts.push(match from_sql(value) {
            Value::Integer(integer) => KeyPart::Integer(integer),
            Value::Text(text) => KeyPart::Text(text),
            Value::Blob(bytes) => KeyPart::Blob(bytes),
            Value::Null => return Ok(Err("its key is NULL".to_owned())),
            Value::Real(_) => return Ok(Err("its key is a REAL".to_owned())),
        });
    }
    Ok(EntityId::from_parts(&parts).map_err(|error| error.to_string()))
}

/// Whether a value is what the column holds when nobody gave it one. What a default computes anew
/// for each row cannot be told from what was given: it counts as nobody's.
pub(crate) fn is_default(
    conn: &Connection,
    column: &Column,
    value: &Value,
) -> Result<bool, StoreError> {
    Ok(default_value(conn, column)?.is_none_or(|default| default == *value))
}

/// What the column holds when nobody gave it a value; `None`: that is computed anew for each row.
pub(crate) fn default_value(
    conn: &Connection,
    column: &Column,
) -> Result<Option<Value>, StoreError> {
    let Some(default) = given_default(column) else {
        return Ok(Some(Value::Null));
    };
    let constant = capture::constant_default(default);
    constant
        .map(|constant| self::constant(conn, column, &constant))
        .transpose()
}

/// A column's default, other than NULL.
fn given_default(column: &Column) -> Option<&String> {
    let given = |default: &&String| !default.trim().eq_ignore_ascii_case("null");
    column.default.as_ref().filter(given)
}

/// Adds to what the server has of a row the fields that were there and that it does not mention any more: they are what a
/// column holds when nobody gave it a value.
pub(crate) fn complete(
    conn: &Connection,
    table: &Table,
    before: &Fields,
    told: &mut Fields,
) -> Result<(), StoreError> {
    for column in &table.columns {
        let field = &column.field;
        if before.contains(field)
            && !told.contains(field)
            && let Some(default) = default_value(conn, column)?
            && !(column.not_null && default == Value::Null)
        {
            told.insert(field.clone(), default);
        }
    }
    Ok(())
}

/// The value of a DEFAULT clause, if it is the same for every row.
pub(crate) fn default_of(conn: &Connection, column: &Column) -> Result<Option<Value>, StoreError> {
    match column.default.as_deref().map(str::trim) {
        None => Ok(Some(Value::Null)),
        Some(text) if text.eq_ignore_ascii_case("null") => Ok(Some(Value::Null)),
        Some(text) => match capture::constant_default(text) {
            Some(text) => constant(conn, column, &text).map(Some),
            None => Ok(None),
        },
    }
}

/// What a column makes of a constant.
pub(crate) fn constant(
    conn: &Connection,
    column: &Column,
    constant: &str,
) -> Result<Value, StoreError> {
    let stored = match column.affinity {
        Affinity::Text => format!("iif(typeof({constant}) = 'blob', {constant}, {constant} || '')"),
        Affinity::Real => {
            format!("iif(typeof({constant}) = 'integer', {constant} + 0.0, {constant})")
        }
        _ => constant.to_owned(),
    };
    let sql = format!("SELECT {stored}");
    Ok(conn.query_row(&sql, [], |row| Ok(from_sql(row.get_ref(0)?)))?)
}

/// Writes a whole row: inserts it, or sets the fields if it is there. Not for a part of a row: SQLite
/// refuses an insert without a NOT NULL column even where the row is there. Fields that the table does
/// not have are passed over; columns that are not given or not synced keep their value or take their
/// default.
pub(crate) fn write(
    conn: &Connection,
    table: &Table,
    id: &EntityId,
    fields: &Fields,
) -> Result<Written, StoreError> {
    let given = given(table, fields);
    let sql = upsert_sql(table, &given);
    let values = key_values(id).chain(given.iter().map(|(_, value)| to_sql(value)));
    run(conn, &sql, values)
}

/// The columns for which there is a field, with its value.
pub(crate) fn given<'a>(table: &'a Table, fields: &'a Fields) -> Vec<(&'a str, &'a Value)> {
    table
        .columns
        .iter()
        .filter_map(|column| {
            fields
                .get(&column.field)
                .map(|value| (column.name.as_str(), value))
        })
        .collect()
}

fn upsert_sql(table: &Table, given: &[(&str, &Value)]) -> String {
    let keys: Vec<String> = table
        .key
        .iter()
        .map(|column| quote_ident(&column.name))
        .collect();
    let names: Vec<String> = given.iter().map(|(name, _)| quote_ident(name)).collect();
    let all = keys
        .iter()
        .chain(&names)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let marks = (1..=keys.len() + names.len())
        .map(|n| format!("?{n}"))
        .collect::<Vec<_>>()
        .join(", ");
    let then = if names.is_empty() {
        "DO NOTHING".to_owned()
    } else {
        // Not `excluded`: SQLite makes a REAL of the wrong column of it where a generated column stands before a REAL one.
        let sets: Vec<String> = (names.iter().zip(keys.len() + 1..))
            .map(|(name, n)| format!("{name} = ?{n}"))
            .collect();
        format!("DO UPDATE SET {}", sets.join(", "))
    };
    let (table, keys) = (quote_ident(&table.name), keys.join(", "));
    format!("INSERT INTO {table} ({all}) VALUES ({marks}) ON CONFLICT ({keys}) {then}")
}

/// Removes a row, if it is there.
pub(crate) fn remove(
    conn: &Connection,
    table: &Table,
    id: &EntityId,
) -> Result<Written, StoreError> {
    let sql = format!(
        "DELETE FROM {} WHERE {}",
        quote_ident(&table.name),
        where_key(table)
    );
    run(conn, &sql, key_values(id))
}

/// Gives a row another key; everything else of it stays.
pub(crate) fn rename(
    conn: &Connection,
    table: &Table,
    old: &EntityId,
    new: &EntityId,
) -> Result<Written, StoreError> {
    let columns = table.key.iter().map(|column| column.name.as_str());
    update(conn, table, old, columns, key_values(new))
}

/// Sets fields of a row that is there.
pub(crate) fn set(
    conn: &Connection,
    table: &Table,
    id: &EntityId,
    fields: &Fields,
) -> Result<Written, StoreError> {
    let given = given(table, fields);
    let values = given.iter().map(|(_, value)| to_sql(value));
    update(conn, table, id, given.iter().map(|(name, _)| *name), values)
}

fn update<'n>(
    conn: &Connection,
    table: &Table,
    id: &EntityId,
    columns: impl Iterator<Item = &'n str>,
    values: impl Iterator<Item = SqlValue>,
) -> Result<Written, StoreError> {
    let first = table.key.len() + 1;
    let sets: Vec<String> = columns
        .enumerate()
        .map(|(index, name)| format!("{} = ?{}", quote_ident(name), first + index))
        .collect();
    if sets.is_empty() {
        return Ok(Written::Done);
    }
    let sql = format!(
        "UPDATE {} SET {} WHERE {}",
        quote_ident(&table.name),
        sets.join(", "),
        where_key(table)
    );
    run(conn, &sql, key_values(id).chain(values))
}

pub(crate) fn run(
    conn: &Connection,
    sql: &str,
    values: impl Iterator<Item = SqlValue>,
) -> Result<Written, StoreError> {
    match conn.prepare_cached(sql)?.execute(params_from_iter(values)) {
        Ok(_) => Ok(Written::Done),
        // A trigger's RAISE(ROLLBACK) took the whole transaction along: not only this row's matter.
        Err(error) if is_rows_fault(&error) && !conn.is_autocommit() => {
            Ok(Written::Refused(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The value of a column of an entity, whether it is a key column or a field.
fn column_value(table: &Table, id: &EntityId, fields: &Fields, column: &str) -> Option<SqlValue> {
    match table
        .key
        .iter()
        .position(|key| key.name.eq_ignore_ascii_case(column))
    {
        Some(index) => key_values(id).nth(index),
        None => {
            let named = |known: &&Column| known.name.eq_ignore_ascii_case(column);
            let field = &table.columns.iter().find(named)?.field;
            fields.get(field).map(to_sql)
        }
    }
}

/// The values with which an entity references a parent; `None` when one of them is NULL or unknown.
pub(crate) fn reference_values(
    table: &Table,
    reference: &Reference,
    id: &EntityId,
    fields: &Fields,
) -> Option<Vec<SqlValue>> {
    match reference.to_columns.is_empty() {
        true => None,
        false => values_of(table, &reference.columns, id, fields),
    }
}

/// The values of these columns of an entity; `None` when there are none, or one is NULL or unknown.
pub(crate) fn values_of(
    table: &Table,
    columns: &[String],
    id: &EntityId,
    fields: &Fields,
) -> Option<Vec<SqlValue>> {
    let value = |column: &String| {
        column_value(table, id, fields, column).filter(|value| *value != SqlValue::Null)
    };
    let values: Option<Vec<SqlValue>> = columns.iter().map(value).collect();
    values.filter(|values| !values.is_empty())
}

/// Whether the referenced row is there.
pub(crate) fn parent_exists(
    conn: &Connection,
    reference: &Reference,
    values: &[SqlValue],
) -> Result<bool, StoreError> {
    let same =
        |(index, column): (usize, &String)| format!("{} = ?{}", quote_ident(column), index + 1);
    let matches: Vec<String> = reference.to_columns.iter().enumerate().map(same).collect();
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {} WHERE {})",
        quote_ident(&reference.table),
        matches.join(" AND ")
    );
    Ok(conn
        .prepare_cached(&sql)?
        .query_row(params_from_iter(values), |row| row.get(0))?)
}

/// The entity id that reference values name in the parent's table, when they are its primary key.
pub(crate) fn parent_id(
    parent: &Table,
    reference: &Reference,
    values: &[SqlValue],
) -> Option<EntityId> {
    let part = |key: &Column| {
        let at = reference
            .to_columns
            .iter()
            .position(|to| to.eq_ignore_ascii_case(&key.name))?;
        match &values[at] {
            SqlValue::Integer(integer) => Some(KeyPart::Integer(*integer)),
            SqlValue::Text(text) => Some(KeyPart::Text(text.clone())),
            SqlValue::Blob(bytes) => Some(KeyPart::Blob(bytes.clone())),
            _ => None,
        }
    };
    let parts: Option<Vec<KeyPart>> = parent.key.iter().map(part).collect();
    EntityId::from_parts(&parts?).ok()
}
