//! The sample database's tables, described, sent as JSON, made again in a new file and described
//! there: the same definitions, and tables that take the same rows.

// A test that cannot go on has failed; the panic says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;
use syncline::Syncline;
use syncline_process_tests::{Rows, assert_same, rows, sample_database};
use syncline_protocol::TypeDefinitions;
use syncline_store::{Store, StoreOptions, definitions};

/// Attaches all tables, and says what they look like.
fn attach_and_describe(path: &Path) -> TypeDefinitions {
    let builder = Syncline::builder(path).remote("http://localhost:1");
    builder.attach_all().attach_only().unwrap();
    let store = Store::open(path, StoreOptions::new("test", 1)).unwrap();
    let conn = Connection::open(path).unwrap();
    definitions::describe(&conn, store.types()).unwrap()
}

/// Every row of the file at `from`, put into the tables of the one at `to` by plain SQL.
fn copy_rows(from: &Path, to: &Path, told: &TypeDefinitions) {
    let conn = Connection::open(to).unwrap();
    // The tables come in no particular order.
    conn.pragma_update(None, "foreign_keys", false).unwrap();
    conn.execute("ATTACH DATABASE ?1 AS source", [from.to_str().unwrap()])
        .unwrap();
    for one in &told.types {
        let columns: Vec<String> = (one.columns.iter())
            .map(|column| format!("\"{}\"", column.name))
            .collect();
        let (table, columns) = (&one.table, columns.join(", "));
        let sql = format!(
            "INSERT INTO main.\"{table}\" ({columns}) SELECT {columns} FROM source.\"{table}\""
        );
        conn.execute(&sql, []).unwrap();
    }
    let broken: i64 = conn
        .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(broken, 0, "the foreign keys lead where they led");
}

fn foreign_keys(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn
        .prepare(
            "SELECT t.name || '.' || k.\"from\" || ' -> ' || k.\"table\" || '.' || coalesce(k.\"to\", 'key')
               FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) AS k
              WHERE t.type = 'table' AND t.name NOT LIKE 'syncline%' ORDER BY 1",
        )
        .unwrap();
    let lines = statement.query_map([], |row| row.get(0)).unwrap();
    lines.collect::<Result<_, _>>().unwrap()
}

#[test]
fn the_sample_databases_tables_survive_the_way_to_another_device() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.db"), folder.path().join("b.db"));
    sample_database(&first);
    let before: Rows = rows(&first);
    let keys = foreign_keys(&first);
    let told = attach_and_describe(&first);
    assert_eq!(told.types.len(), 11);
    for one in &told.types {
        assert!(!one.columns.is_empty() && !one.key.is_empty(), "{one:?}");
    }
    assert_eq!(keys.len(), 11, "{keys:?}");

    let wire = serde_json::to_string(&told).unwrap();
    let heard: TypeDefinitions = serde_json::from_str(&wire).unwrap();
    assert_eq!(heard, told);
    let mut conn = Connection::open(&second).unwrap();
    let tx = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    let left_out = definitions::create(&tx, &heard).unwrap();
    assert_eq!(left_out, Vec::<String>::new());
    tx.commit().unwrap();

    assert_eq!(foreign_keys(&second), keys);
    copy_rows(&first, &second, &told);
    assert_same("copied", ("a", &before), ("b", &rows(&second)));
    assert_eq!(attach_and_describe(&second), told);
}
