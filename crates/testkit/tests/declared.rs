//! Stories of tables with declared options.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline_protocol::Value;
use syncline_store::{DeclaredReference, TypeOptions};
use syncline_testkit::World;

const ALICE: &str = "
    CREATE TABLE list (id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, price REAL, list TEXT, draft TEXT DEFAULT 'none');";
/// An older app: another order, another name for the title, no draft.
const BOB: &str = "
    CREATE TABLE list (id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, list TEXT, price REAL, label TEXT);";

fn options(fields: &[(&str, &str)], leave_out: &[&str]) -> TypeOptions {
    TypeOptions {
        fields: (fields.iter())
            .map(|&(column, field)| (column.to_owned(), field.to_owned()))
            .collect(),
        leave_out: leave_out.iter().map(|&name| name.to_owned()).collect(),
        references: vec![DeclaredReference {
            columns: vec!["list".to_owned()],
            table: "list".to_owned(),
        }],
        ..TypeOptions::default()
    }
}

fn world() -> World {
    let mut world = World::new(ALICE);
    let declared = options(&[], &["draft"]);
    world.device_declared("Alice", ALICE, [("task".to_owned(), declared)].into());
    let declared = options(&[("label", "title")], &[]);
    world.device_declared("Bob", BOB, [("task".to_owned(), declared)].into());
    world
}

/// Two apps call a column by two names, and one has a column that is nobody else's business.
#[test]
fn two_apps_with_other_columns_share_what_they_share() {
    let mut world = world();
    world.sql("Alice", "INSERT INTO list VALUES ('l', 'food'); INSERT INTO task VALUES ('a', 'milk', 0.1, 'l', 'secret')");
    world.run_until_quiet();
    assert_eq!(world.rows("Bob", "SELECT label FROM task"), ["milk"]);
    world.sql("Bob", "UPDATE task SET label = 'oat milk', price = 0.2; INSERT INTO task VALUES ('b', 'l', 1.5, 'tea')");
    world.run_until_quiet();
    assert_eq!(
        world.rows(
            "Alice",
            "SELECT title || ' ' || draft FROM task ORDER BY id"
        ),
        ["oat milk secret", "tea none"],
        "a row written by the engine keeps its local value, a new one gets the default"
    );
    let row = world.on_server("task").remove("a").unwrap();
    assert_eq!(row.get("title"), Some(&Value::Text("oat milk".to_owned())));
    assert_eq!(row.len(), 3, "{row:?}");
    // A conflict, field by field, under the common names.
    world.sql(
        "Alice",
        "UPDATE task SET title = 'A', draft = 'x' WHERE id = 'a'",
    );
    world.sql("Bob", "UPDATE task SET price = 9.0 WHERE id = 'a'");
    world.run_until_quiet();
    for (name, column) in [("Alice", "title"), ("Bob", "label")] {
        let sql = format!("SELECT {column} || price FROM task WHERE id = 'a'");
        assert_eq!(world.rows(name, &sql), ["A9.0"], "{name}");
        world.assert_equals_server(name);
    }
}

/// A reference that only the app knows orders mutations like one of the schema.
#[test]
fn declared_references_give_the_order() {
    let mut world = world();
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0.1, 'l', ''); INSERT INTO list VALUES ('l', 'food')");
    world.sync("Alice");
    // One batch went without the child, the next one with it.
    let log = "SELECT entity_type FROM syncline_log WHERE kind = 'applied' ORDER BY id";
    assert_eq!(world.rows("Alice", log), ["list", "task"]);
    world.run_until_quiet();
    assert_eq!(world.rows("Bob", "SELECT list FROM task"), ["l"]);
}

/// Numbers of entries go on after the outbox was empty.
#[test]
fn numbers_of_entries_go_on() {
    let mut world = world();
    for title in ["milk", "tea", "bread"] {
        world.sql(
            "Alice",
            &format!("REPLACE INTO task (id, title) VALUES ('1', '{title}')"),
        );
        world.run_until_quiet();
        assert_eq!(
            world.rows("Alice", "SELECT count(*) FROM syncline_outbox"),
            ["0"]
        );
    }
    world.sql("Alice", "DELETE FROM task");
    assert_eq!(
        world.rows("Alice", "SELECT seq FROM syncline_outbox"),
        ["4"]
    );
}
