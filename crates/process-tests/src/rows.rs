//! Databases read with plain SQLite, every value with its type, and compared row by row.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use syncline_protocol::{EntityId, Fields, KeyPart, Value};

/// Table and key to the fields outside the key.
pub type Rows = BTreeMap<(String, String), Fields>;

/// Opens a file that must exist.
fn open(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    conn.busy_timeout(Duration::from_secs(5)).unwrap();
    conn
}

/// The one number that a query returns.
pub fn number(path: &Path, sql: &str) -> i64 {
    open(path)
        .query_row(sql, [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Every row of every table of the app's.
pub fn rows(path: &Path) -> Rows {
    rows_of(&open(path))
}

/// As [`rows`], on a connection.
pub fn rows_of(conn: &Connection) -> Rows {
    let tables: Vec<String> = conn
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table'
                AND name NOT LIKE 'syncline\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
        )
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let mut found = Rows::new();
    for table in tables {
        read_table(conn, &table, &mut found);
    }
    found
}

fn read_table(conn: &Connection, table: &str, found: &mut Rows) {
    let columns: Vec<(String, usize)> = conn
        .prepare("SELECT name, pk FROM pragma_table_info(?1)")
        .unwrap()
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let width = columns.iter().filter(|(_, key)| *key > 0).count();
    let mut statement = conn.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let mut key = vec![KeyPart::Integer(0); width];
        let mut fields = Fields::new();
        for (index, (name, place)) in columns.iter().enumerate() {
            let value = value(row.get_ref(index).unwrap());
            match place.checked_sub(1) {
                None => drop(fields.insert(name.clone(), value)),
                Some(place) => key[place] = key_part(value),
            }
        }
        let id = EntityId::from_parts(&key).unwrap();
        let before = found.insert((table.to_owned(), id.to_string()), fields);
        assert_eq!(before, None, "{table}/{id} is there twice");
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(text) => Value::Text(std::str::from_utf8(text).unwrap().to_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

fn key_part(value: Value) -> KeyPart {
    match value {
        Value::Integer(integer) => KeyPart::Integer(integer),
        Value::Text(text) => KeyPart::Text(text),
        Value::Blob(bytes) => KeyPart::Blob(bytes),
        other => panic!("{other:?} is no key"),
    }
}

/// Panics with the first differences unless both have the same rows.
#[track_caller]
pub fn assert_same(context: &str, left: (&str, &Rows), right: (&str, &Rows)) {
    let names: std::collections::BTreeSet<_> = left.1.keys().chain(right.1.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| left.1.get(name) != right.1.get(name))
        .map(|name| {
            let (own, other) = (left.1.get(name), right.1.get(name));
            format!(
                "{name:?}\n    {}: {own:?}\n    {}: {other:?}",
                left.0, right.0
            )
        })
        .collect();
    let first = differences.iter().take(8).cloned().collect::<Vec<_>>();
    assert!(
        differences.is_empty(),
        "{context}: {} rows differ between {} and {}\n  {}",
        differences.len(),
        left.0,
        right.0,
        first.join("\n  ")
    );
}

/// What is left to do in a file, as pending, in flight, failed, dead, inbox, open conflicts.
pub fn settled(path: &Path) -> [i64; 6] {
    let sql = "SELECT pending, in_flight, failed, dead, inbox, open_conflicts FROM syncline_status";
    open(path)
        .query_row(sql, [], |row| {
            let mut counts = [0; 6];
            for (index, count) in counts.iter_mut().enumerate() {
                *count = row.get(index)?;
            }
            Ok(counts)
        })
        .unwrap()
}

/// Panics unless nothing is left to do in a file.
#[track_caller]
pub fn assert_settled(context: &str, path: &Path) {
    let left = settled(path);
    assert_eq!(left, [0; 6], "{context}: {} has work left", path.display());
}
