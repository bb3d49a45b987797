//! Installing, removing, and telling whether the triggers are what they should be.

use crate::support::{capture_all, count, database};
use rusqlite::Connection;
use syncline_store::RegisteredType;
use syncline_store::capture::{self, CaptureState};
use syncline_store::table::Table;

const TASK: &str = "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT);
    CREATE TRIGGER older AFTER INSERT ON task BEGIN SELECT 1; END;";

fn state(conn: &Connection) -> CaptureState {
    let table = Table::read(conn, "task").unwrap();
    capture::verify(conn, &RegisteredType::new("task", table)).unwrap()
}

#[test]
fn verify_notices_what_apps_do() {
    for (change, expected) in [
        ("SELECT 1", CaptureState::Current),
        ("VACUUM", CaptureState::Current),
        ("CREATE INDEX i ON task (title)", CaptureState::Current),
        (
            "CREATE TABLE other (id PRIMARY KEY); CREATE TRIGGER t AFTER INSERT ON other BEGIN SELECT 1; END",
            CaptureState::Current,
        ),
        ("CREATE UNIQUE INDEX i ON task (title)", CaptureState::Stale),
        (
            "ALTER TABLE task ADD COLUMN done INTEGER",
            CaptureState::Stale,
        ),
        (
            "ALTER TABLE task RENAME COLUMN title TO name",
            CaptureState::Stale,
        ),
        (
            "CREATE TRIGGER newer AFTER INSERT ON Task BEGIN SELECT 1; END",
            CaptureState::Outrun,
        ),
        (
            "DROP TRIGGER older; CREATE TRIGGER older AFTER INSERT ON task BEGIN SELECT 1; END",
            CaptureState::Outrun,
        ),
        (
            "DROP TRIGGER syncline_capture_task_after_delete",
            CaptureState::Stale,
        ),
        (
            "CREATE TABLE task_new (id INTEGER PRIMARY KEY, title TEXT); DROP TABLE task; ALTER TABLE task_new RENAME TO task",
            CaptureState::Missing,
        ),
    ] {
        let mut conn = database(TASK);
        assert_eq!(state(&conn), CaptureState::Current);
        conn.execute_batch(change).unwrap();
        assert_eq!(state(&conn), expected, "{change}");
        capture_all(&mut conn);
        assert_eq!(state(&conn), CaptureState::Current, "{change}");
    }
}

#[test]
fn a_renamed_column_is_followed_by_sqlite_but_not_the_field_name() {
    // Why a rename makes the triggers stale: SQLite rewrites the columns, not our JSON names.
    let conn = database(TASK);
    conn.execute_batch(
        "ALTER TABLE task RENAME COLUMN title TO name; INSERT INTO task VALUES (1, 'x')",
    )
    .unwrap();
    assert_eq!(
        crate::support::outbox(&conn),
        [r#"create task/1 {"title":"x"}"#]
    );
}

#[test]
fn remove_leaves_the_records_and_the_apps_triggers() {
    let mut conn = database(TASK);
    conn.execute_batch("INSERT INTO task VALUES (1, 'x')")
        .unwrap();
    let tx = conn.transaction().unwrap();
    capture::remove(&tx, "task").unwrap();
    capture::remove(&tx, "never there").unwrap();
    tx.commit().unwrap();
    assert_eq!(state(&conn), CaptureState::Missing);
    assert_eq!(count(&conn, "syncline_outbox"), 1);
    // Those on the outbox keep its counts, and stay until everything is detached.
    let on_app_tables = "sqlite_schema WHERE type = 'trigger' AND tbl_name <> 'syncline_outbox'";
    assert_eq!(count(&conn, on_app_tables), 1);
    conn.execute_batch("UPDATE task SET title = 'y'").unwrap();
    assert_eq!(count(&conn, "syncline_outbox"), 1);
}

#[test]
fn the_entity_type_need_not_be_the_table() {
    let mut conn = database("CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT);");
    let tx = conn.transaction().unwrap();
    capture::remove(&tx, "task").unwrap();
    let table = Table::read(&tx, "TASK").unwrap();
    let kind = "it's a \"to-do\"";
    let entity_type = RegisteredType::new(kind, table);
    capture::install(&tx, &entity_type).unwrap();
    assert_eq!(
        capture::verify(&tx, &entity_type).unwrap(),
        CaptureState::Current
    );
    tx.execute_batch("INSERT INTO task VALUES (1, 'x'); REPLACE INTO task VALUES (1, 'y')")
        .unwrap();
    assert_eq!(
        crate::support::outbox(&tx),
        [
            format!("create {kind}/1 {{\"title\":\"x\"}}"),
            format!("update {kind}/1 {{\"title\":\"y\"}}"),
        ]
    );
    capture::remove(&tx, kind).unwrap();
    assert_eq!(
        capture::verify(&tx, &entity_type).unwrap(),
        CaptureState::Missing
    );
}

/// What a statement costs does not grow with the tables, whatever it does.
#[test]
fn rows_are_found_by_index() {
    for ddl in [
        "CREATE TABLE task (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b INTEGER);",
        "CREATE TABLE task (id TEXT PRIMARY KEY, a TEXT, b INTEGER, UNIQUE (a, b));",
        "CREATE TABLE task (id TEXT COLLATE NOCASE PRIMARY KEY, a TEXT UNIQUE, b INTEGER) WITHOUT ROWID;",
        "CREATE TABLE task (id COLLATE NOCASE, k DEFAULT 'k', a TEXT, b INTEGER, PRIMARY KEY (id, k COLLATE NOCASE), UNIQUE (a COLLATE NOCASE));
         CREATE UNIQUE INDEX i ON task (lower(a)) WHERE b > 0;",
        "CREATE TABLE task (id BLOB PRIMARY KEY, a, b); CREATE UNIQUE INDEX i ON task (a, lower(b));",
        "CREATE TABLE task (id BLOB PRIMARY KEY, a AS (b || '') UNIQUE, b);",
    ] {
        let steps = |rows: u32| {
            let conn = database(ddl);
            let fill = format!(
                "BEGIN;
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO task (id, b) SELECT i, i FROM n;
                 INSERT OR IGNORE INTO task (id, b) SELECT id, b FROM task; COMMIT"
            );
            conn.execute_batch(&fill).unwrap();
            [
                "INSERT INTO task (id, b) VALUES (-5, -5)",
                "INSERT OR REPLACE INTO task (id, b) VALUES (20, 30)",
                "UPDATE OR REPLACE task SET b = 31 WHERE id = 21",
                "UPDATE task SET id = -7 WHERE id = 22",
                "UPDATE OR REPLACE task SET id = 24 WHERE id = 23",
                "DELETE FROM task WHERE id = 25",
            ]
            .map(|sql| {
                let mut statement = conn.prepare(sql).unwrap();
                statement.execute([]).unwrap();
                statement.get_status(rusqlite::StatementStatus::VmStep)
            })
        };
        let (few, many) = (steps(100), steps(2000));
        let grown = few.iter().zip(&many).any(|(few, many)| many - few > 100);
        assert!(!grown, "{ddl}: {few:?} steps become {many:?}");
    }
}
