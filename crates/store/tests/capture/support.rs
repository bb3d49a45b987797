//! A fresh database under capture, and what was captured as readable lines.

use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Connection, params};
use syncline_store::captured::{self, BaseState};
use syncline_store::table::{Table, list_tables};
use syncline_store::{RegisteredType, TypeOptions, capture, table::TableError};

pub(crate) const SCHEMA: &str = include_str!("../../src/schema/0001_initial.sql");

/// Puts the engine's schema and the app's tables into a database and captures all of them, each
/// under its own name as entity type.
pub(crate) fn prepare(conn: &mut Connection, ddl: &str) {
    conn.execute_batch(SCHEMA).unwrap();
    conn.execute_batch(ddl).unwrap();
    capture_all(conn);
}

/// Installs the capture triggers of all app tables.
pub(crate) fn capture_all(conn: &mut Connection) {
    let tx = conn.transaction().unwrap();
    for name in list_tables(&tx).unwrap() {
        capture::install(
            &tx,
            &RegisteredType::new(&name, Table::read(&tx, &name).unwrap()),
        )
        .unwrap();
    }
    tx.commit().unwrap();
}

pub(crate) fn database(ddl: &str) -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    prepare(&mut conn, ddl);
    conn
}

pub(crate) fn read(ddl: &str, name: &str) -> Result<Table, TableError> {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(ddl).unwrap();
    Table::read(&conn, name)
}

/// Checks what would be declared for a table.
pub(crate) fn read_with(ddl: &str, name: &str, options: &TypeOptions) -> Result<(), TableError> {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(ddl).unwrap();
    Table::check_options(&conn, name, options)
}

/// Forgets everything captured, as if it had been settled.
pub(crate) fn settle(conn: &Connection) {
    conn.execute_batch(
        "DELETE FROM syncline_outbox; DELETE FROM syncline_outbox_real;
         DELETE FROM syncline_base; DELETE FROM syncline_base_real;",
    )
    .unwrap();
}

/// The outbox, one line per entry: `op type/id {fields}`.
pub(crate) fn outbox(conn: &Connection) -> Vec<String> {
    let mut statement = conn
        .prepare("SELECT seq, op, entity_type, entity_id FROM syncline_outbox ORDER BY seq")
        .unwrap();
    let entries = statement
        .query_map([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                String::from_utf8_lossy(row.get_ref(3)?.as_bytes().unwrap()).into_owned(),
            ))
        })
        .unwrap();
    entries
        .map(|entry| {
            let (seq, op, kind, id) = entry.unwrap();
            match captured::fields_of_mutation(conn, seq) {
                Ok(None) => format!("{op} {kind}/{id}"),
                Ok(Some(fields)) => {
                    let fields = serde_json::to_string(&fields).unwrap();
                    format!("{op} {kind}/{id} {fields}")
                }
                Err(error) => format!("{op} {kind}/{id} !{error}"),
            }
        })
        .collect()
}

/// The bases that have outbox entries, one line each: `type/id {fields}` or `type/id absent`.
pub(crate) fn bases(conn: &Connection) -> Vec<String> {
    let mut statement = conn
        .prepare(
            "SELECT DISTINCT entity_type, entity_id FROM syncline_outbox
             ORDER BY entity_type, entity_id",
        )
        .unwrap();
    let entities = statement
        .query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .unwrap();
    entities
        .map(|entity| {
            let (kind, id) = entity.unwrap();
            match captured::base_of(conn, &kind, &id).unwrap() {
                BaseState::None => format!("{kind}/{id} none"),
                BaseState::Absent => format!("{kind}/{id} absent"),
                BaseState::Present(fields) => {
                    format!("{kind}/{id} {}", serde_json::to_string(&fields).unwrap())
                }
            }
        })
        .collect()
}

/// What must hold whatever was captured.
pub(crate) fn check_tables(conn: &Connection) {
    for (what, sql) in [
        (
            "REALs without an entry",
            "SELECT count(*) FROM syncline_outbox_real
             WHERE seq NOT IN (SELECT seq FROM syncline_outbox)",
        ),
        (
            "REALs without a base",
            "SELECT count(*) FROM syncline_base_real WHERE (entity_type, entity_id) NOT IN
             (SELECT entity_type, entity_id FROM syncline_base)",
        ),
        (
            "entries without a base",
            "SELECT count(*) FROM syncline_outbox WHERE (entity_type, entity_id) NOT IN
             (SELECT entity_type, entity_id FROM syncline_base)",
        ),
        (
            "odd mutation ids or times",
            "SELECT count(*) FROM syncline_outbox
             WHERE mutation NOT GLOB '[0-9a-f]*' OR length(mutation) <> 32
                OR abs(created_at - unixepoch() * 1000) > 3600000",
        ),
    ] {
        let count: i64 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{what}");
    }
}

/// One statement and what it must leave.
#[derive(Default)]
pub(crate) struct Case {
    pub(crate) ddl: &'static str,
    /// Made before, and settled.
    pub(crate) given: &'static str,
    /// Made before, and not settled: left out of `then`.
    pub(crate) pending: &'static str,
    pub(crate) when: &'static str,
    pub(crate) then: &'static [&'static str],
    pub(crate) bases: &'static [&'static str],
}

impl Case {
    /// Runs the case with `recursive_triggers` off and on; both must record the same.
    pub(crate) fn check(&self) {
        for recursive in ["OFF", "ON"] {
            let conn = database(self.ddl);
            conn.execute_batch(&format!(
                "PRAGMA recursive_triggers = {recursive}; {}",
                self.given
            ))
            .unwrap();
            settle(&conn);
            conn.execute_batch(self.pending).unwrap();
            let before = outbox(&conn);
            let message = format!(
                "{}\n{}\n{}\n{}\nrecursive_triggers {recursive}",
                self.ddl, self.given, self.pending, self.when
            );
            run(&conn, self.when);
            let after = outbox(&conn);
            assert_eq!(after[..before.len()], before, "{message}");
            assert_eq!(after[before.len()..], *self.then, "{message}");
            if !self.bases.is_empty() {
                assert_eq!(bases(&conn), self.bases, "{message}");
            }
            check_tables(&conn);
        }
    }
}

/// Runs statements one by one; those that the app's own constraints refuse may fail.
pub(crate) fn run(conn: &Connection, sql: &str) {
    let mut batch = rusqlite::Batch::new(conn, sql);
    while let Some(mut statement) = batch.next().unwrap() {
        let refused = match statement.query([]) {
            Ok(mut rows) => loop {
                match rows.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            },
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            let code = error.sqlite_error_code();
            assert_eq!(
                code,
                Some(rusqlite::ErrorCode::ConstraintViolation),
                "{sql}: {error}"
            );
        }
    }
}

pub(crate) fn count(conn: &Connection, table: &str) -> i64 {
    conn.query_row(&format!("SELECT count(*) FROM {table}"), params![], |row| {
        row.get(0)
    })
    .unwrap()
}
