//! Stories of apps that change their schema, and of writes that escape capture meanwhile.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline::{Existing, Notice, Policy};
use syncline_protocol::{ClientId, Value};
use syncline_store::TypeOptions;
use syncline_store::attach::{AttachRequest, Declaration, Tables, attach};
use syncline_store::migrate::{MigrateReport, migrate};
use syncline_testkit::World;

const SCHEMA: &str = "
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, price REAL, list TEXT);
    CREATE TABLE list (id TEXT PRIMARY KEY NOT NULL, name TEXT);";
const ROWS: &str = "
    INSERT INTO list VALUES ('l', 'food');
    INSERT INTO task VALUES ('a', 'milk', 0.1, 'l'), ('b', 'tea', 1.0, 'l'), ('c', 'salt', 2.0, 'l'), ('d', 'rice', 3.0, 'l');";
/// As SQLite's documentation advises for changes that ALTER TABLE cannot make; the triggers go.
const REBUILD: &str = "
    CREATE TABLE task_new (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL, price REAL, list TEXT);
    INSERT INTO task_new SELECT * FROM task; DROP TABLE task; ALTER TABLE task_new RENAME TO task;";

fn world() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", ROWS);
    world.run_until_quiet();
    world
}

fn recovered(world: &mut World, name: &str) -> u64 {
    let notices = world.get(name).notices.iter();
    let rows = notices.filter_map(|notice| match notice {
        Notice::Recovered { rows, .. } => Some(*rows),
        _ => None,
    });
    rows.sum()
}

fn migrated(world: &mut World, name: &str, script: &str) -> MigrateReport {
    migrate(&world.path(name), script).unwrap()
}

fn version(world: &mut World, name: &str) -> String {
    let sql = "SELECT schema_version FROM syncline_entity_type WHERE table_name LIKE 't%'";
    world.rows(name, sql).remove(0)
}

/// A table is rebuilt, and another program writes it before the engine looks: nothing is lost.
#[test]
fn writes_while_the_triggers_were_gone_are_found() {
    for running in [true, false] {
        let mut world = world();
        if !running {
            world.crash("Alice");
        }
        world.sql("Bob", "UPDATE task SET price = 9.0 WHERE id = 'd'");
        world.sync("Bob");
        world.sql("Alice", REBUILD);
        world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = 'a'; DELETE FROM task WHERE id = 'b'; INSERT INTO task VALUES ('n', 'new', 5.5, 'l')");
        assert_eq!(
            world.rows("Alice", "SELECT count(*) FROM syncline_outbox"),
            ["0"]
        );
        if !running {
            world.restart("Alice");
        }
        world.run_until_quiet();
        let titles = ["oat milk", "salt", "rice", "new"];
        for name in ["Alice", "Bob"] {
            assert_eq!(
                world.rows(name, "SELECT title FROM task ORDER BY id"),
                titles,
                "{name}"
            );
            assert_eq!(
                world.rows(name, "SELECT price FROM task WHERE id = 'd'"),
                ["9.0"],
                "{name}"
            );
            world.assert_equals_server(name);
        }
        assert_eq!(recovered(&mut world, "Alice"), 3);
        world.assert_converged();
    }
}

/// Rows with unsettled mutations are looked at as well, before and after the triggers are back.
#[test]
fn what_escaped_from_dirty_rows_is_found() {
    let mut world = world();
    world.offline("Alice");
    world.sql("Alice", "UPDATE task SET price = 7.0 WHERE id IN ('a', 'b'); DELETE FROM task WHERE id = 'c'; INSERT INTO task VALUES ('n', 'new', 1.0, 'l')");
    world.sql("Alice", REBUILD);
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id IN ('a', 'd'); DELETE FROM task WHERE id IN ('b', 'n'); INSERT INTO task VALUES ('c', 'pepper', 1.5, NULL)");
    world.sync("Alice");
    // Triggers are back; what they take as a base is not what the server has.
    world.sql("Alice", "UPDATE task SET price = 8.0 WHERE id = 'd'");
    world.online("Alice");
    world.run_until_quiet();
    for name in ["Alice", "Bob"] {
        let rows = world.rows(name, "SELECT title || price FROM task ORDER BY id");
        assert_eq!(rows, ["oat milk7.0", "pepper1.5", "oat milk8.0"], "{name}");
        world.assert_equals_server(name);
    }
    world.assert_converged();
}

/// Rows that disappear by the table while nothing was recorded are not deleted everywhere (I3).
#[test]
fn a_table_that_comes_back_empty_deletes_nothing() {
    let mut world = world();
    world.sql("Alice", "DROP TABLE task; CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, price REAL, list TEXT)");
    world.run_until_quiet();
    let held = |n: &Notice| matches!(n, Notice::RecoveryHeld { entity_type, rows: 4 } if entity_type == "task");
    assert!(world.get("Alice").notices.iter().any(held));
    assert_eq!(world.rows("Alice", "SELECT count(*) FROM task"), ["4"]);
    world.assert_equals_server("Bob");
    world.assert_converged();
}

/// RENAME COLUMN without `migrate`: SQLite keeps the triggers working; the field keeps its name.
#[test]
fn a_renamed_column_keeps_its_field() {
    let mut world = world();
    world.sql("Alice", "ALTER TABLE task RENAME COLUMN title TO label; UPDATE task SET label = 'oat milk' WHERE id = 'a'");
    world.sql("Bob", "UPDATE task SET title = 'green tea' WHERE id = 'b'");
    world.run_until_quiet();
    assert_eq!(
        world.rows("Bob", "SELECT title FROM task WHERE id = 'a'"),
        ["oat milk"]
    );
    assert_eq!(
        world.rows("Alice", "SELECT label FROM task WHERE id = 'b'"),
        ["green tea"]
    );
    assert_eq!(version(&mut world, "Alice"), "2");
    assert_eq!(
        recovered(&mut world, "Alice"),
        0,
        "nothing had to be compared"
    );
    world.assert_equals_server("Alice");
}

/// Attaching again with a declaration that says nothing of the renamed column leaves it its field.
#[test]
fn attaching_again_keeps_the_field_of_a_renamed_column() {
    let mut world = world();
    world.sql("Alice", "ALTER TABLE task RENAME COLUMN title TO label");
    world.run_until_quiet();
    let again = |world: &mut World, fields: &[(&str, &str)]| {
        let fields = fields.iter();
        let declared = Declaration {
            name: "task".to_owned(),
            rules: Policy::ClientWins.into(),
            options: TypeOptions {
                fields: fields
                    .map(|&(column, field)| (column.to_owned(), field.to_owned()))
                    .collect(),
                ..TypeOptions::default()
            },
        };
        let request = AttachRequest {
            remote: "test:".to_owned(),
            tables: Tables::Named(vec!["task".to_owned()]),
            rules: Default::default(),
            existing: Existing::Upload,
            policy: Policy::default(),
            declared: [("task".to_owned(), declared)].into(),
            settings: None,
            client: ClientId::new("0".repeat(32)),
        };
        let mut conn = rusqlite::Connection::open(world.path("Alice")).unwrap();
        let report = attach(&mut conn, &request, world.now()).unwrap();
        assert_eq!(report.updated, ["task"]);
    };
    again(&mut world, &[("price", "cost")]);
    world.sql("Bob", "ALTER TABLE task RENAME COLUMN price TO cost");
    world.sql("Alice", "UPDATE task SET label = 'oat milk' WHERE id = 'a'");
    world.sql("Bob", "UPDATE task SET title = 'green tea' WHERE id = 'b'");
    world.run_until_quiet();
    let label = "SELECT label FROM task WHERE id = 'b'";
    assert_eq!(world.rows("Alice", label), ["green tea"]);
    let title = "SELECT title FROM task WHERE id = 'a'";
    assert_eq!(world.rows("Bob", title), ["oat milk"]);
    // Given up by saying so.
    again(&mut world, &[("label", "label"), ("price", "cost")]);
    world.sql("Alice", "UPDATE task SET label = 'tea' WHERE id = 'b'");
    world.run_until_quiet();
    let row = world.on_server("task").remove("b").unwrap();
    assert_eq!(row.get("label"), Some(&Value::Text("tea".to_owned())));
}

/// A renamed table is the same entity type; an added column is captured; both while running.
#[test]
fn a_renamed_table_and_a_new_column_are_followed() {
    let mut world = world();
    world.sql("Alice", "ALTER TABLE task RENAME TO todo; ALTER TABLE todo ADD COLUMN done INTEGER DEFAULT 0; UPDATE todo SET done = 1 WHERE id = 'a'");
    world.run_until_quiet();
    world.sql("Alice", "UPDATE todo SET done = 2 WHERE id = 'b'");
    world.run_until_quiet();
    assert_eq!(world.rows("Bob", "SELECT count(*) FROM task"), ["4"]);
    // The other device gets the column later, with what the first one wrote into it.
    world.sql("Bob", "ALTER TABLE task ADD COLUMN done INTEGER DEFAULT 0");
    world.run_until_quiet();
    let done = "SELECT done FROM task ORDER BY id";
    assert_eq!(world.rows("Bob", done), ["1", "2", "0", "0"]);
    assert_eq!(recovered(&mut world, "Alice"), 1);
    assert_eq!(
        recovered(&mut world, "Bob"),
        0,
        "a default overwrites nobody"
    );
}

/// What an app writes into a new column without having seen what others have there hides it, or gives way to it: either
/// way nothing is lost.
#[test]
fn what_a_write_into_a_new_column_hides_is_recorded() {
    let column = "ALTER TABLE task ADD COLUMN note TEXT";
    let written =
        "UPDATE task SET note = 'x' WHERE id = 'a'; UPDATE task SET note = 'b' WHERE id = 'b'";
    // With a record, since the triggers know the column already; or without one.
    for (recorded, shown, lost) in [(true, "x", "a, "), (false, "a", ", x")] {
        let mut world = world();
        world.sql("Alice", column);
        world.sql("Alice", "UPDATE task SET note = id");
        world.run_until_quiet();
        if recorded {
            world.crash("Bob");
            migrated(&mut world, "Bob", column);
        } else {
            world.sql("Bob", column);
        }
        world.sql("Bob", written);
        if recorded {
            world.restart("Bob");
        }
        world.run_until_quiet();
        world.assert_converged();
        let notes = world.rows("Alice", "SELECT note FROM task ORDER BY id");
        assert_eq!(notes, [shown, "b", "c", "d"]);
        let kept = "SELECT entity_id || ': ' || coalesce(outcome ->> '$.lost_theirs.values.note', '') || ', '
                                             || coalesce(outcome ->> '$.lost_mine.values.note', '')
                      FROM syncline_conflict WHERE resolution = 'new-column'";
        assert_eq!(world.rows("Bob", kept), [format!("a: {lost}")]);
    }
}

/// A row is deleted and made anew by an app that lacks a column: what stood there is gone everywhere, whether a device saw
/// the deletion or has the row as it is in the end, and also where the row is edited meanwhile.
#[test]
fn a_row_made_anew_without_a_column_has_its_default_everywhere() {
    for edited in [false, true] {
        let mut world = world();
        world.device("Carol");
        world.run_until_quiet();
        migrated(&mut world, "Alice", "ALTER TABLE task DROP COLUMN price");
        world.run_until_quiet();
        world.sql("Alice", "DELETE FROM task WHERE id = 'a'");
        world.sync("Alice");
        world.sync("Carol");
        world.sql("Alice", "INSERT INTO task VALUES ('a', 'milk', 'm')");
        world.sync("Alice");
        if edited {
            world.sql("Bob", "UPDATE task SET title = 'oat milk' WHERE id = 'a'");
        }
        world.run_until_quiet();
        let title = if edited { "oat milk" } else { "milk" };
        for name in ["Bob", "Carol"] {
            let rows = world.rows(name, "SELECT title || '|' || list || '|' || coalesce(price, 'none') FROM task WHERE id = 'a'");
            assert_eq!(rows, [format!("{title}|m|none")], "{name}");
        }
    }
}

/// `migrate`: one script, any kind of change, nothing lost, and names on the wire as they were.
#[test]
fn migrate_takes_the_wire_along() {
    let mut world = world();
    world.offline("Alice");
    world.sql(
        "Alice",
        "UPDATE task SET price = 7.0, title = 'oat milk' WHERE id = 'a'",
    );
    let report = migrated(
        &mut world,
        "Alice",
        "
        -- what ALTER TABLE alone could not do beside triggers
        ALTER TABLE task DROP COLUMN price;
        ALTER TABLE task RENAME COLUMN title TO label;
        ALTER TABLE task RENAME TO todo;
        CREATE INDEX by_label ON todo (label);
        ALTER TABLE todo ADD COLUMN done INTEGER NOT NULL DEFAULT 0;",
    );
    assert_eq!(report.statements, 5);
    assert_eq!(report.tables[0].table, "todo");
    assert_eq!(report.tables[0].schema_version, 2);
    assert_eq!(report.tables[0].fields["label"], "title");
    assert!(!report.tables[0].rows_changed);
    world.sql("Alice", "UPDATE todo SET label = 'rye' WHERE id = 'd'");
    // What was recorded before is sent as it was, also of the column that is gone; also when the
    // row has changed on the server.
    world.sql("Bob", "UPDATE task SET list = 'm' WHERE id = 'a'");
    world.sync("Bob");
    world.online("Alice");
    world.run_until_quiet();
    let rows = world.rows("Bob", "SELECT title || price || list FROM task ORDER BY id");
    assert_eq!(rows, ["oat milk7.0m", "tea1.0l", "salt2.0l", "rye3.0l"]);
    assert_eq!(
        world.rows("Alice", "SELECT label || list FROM todo WHERE id = 'a'"),
        ["oat milkm"]
    );
    assert_eq!(recovered(&mut world, "Alice"), 0);
}

/// What a script does to rows is recorded like any write of the app's.
#[test]
fn rows_that_a_migration_changes_are_sent() {
    let mut world = world();
    let report = migrated(
        &mut world,
        "Alice",
        &format!("UPDATE task SET title = upper(title) WHERE id < 'c'; {REBUILD}"),
    );
    assert!(report.tables[0].rows_changed);
    world.run_until_quiet();
    assert_eq!(
        world.rows("Bob", "SELECT title FROM task ORDER BY id"),
        ["MILK", "TEA", "salt", "rice"]
    );
    assert_eq!(recovered(&mut world, "Alice"), 2);
    world.assert_converged();
}

/// Refused: as if nothing had happened.
#[test]
fn a_migration_that_cannot_be_followed_changes_nothing() {
    let mut world = world();
    let path = world.path("Alice");
    // The field "name" is taken by a column that is called otherwise now.
    world.sql("Alice", "ALTER TABLE list RENAME COLUMN name TO words");
    world.sync("Alice");
    for (script, said) in [
        (
            "ALTER TABLE task DROP COLUMN price; DROP TABLE task",
            "drops table \"task\"",
        ),
        (
            "CREATE TABLE t2 (id TEXT, title TEXT); INSERT INTO t2 SELECT id, title FROM task; DROP TABLE task; ALTER TABLE t2 RENAME TO task",
            "no PRIMARY KEY",
        ),
        (
            "ALTER TABLE task ADD COLUMN x; BEGIN; ALTER TABLE task ADD COLUMN y; COMMIT",
            "says BEGIN",
        ),
        ("ALTER TABLE task ADD COLUMN x; COMMIT", "says COMMIT"),
        (
            "ALTER TABLE task ADD COLUMN x; ALTER TABLE gone ADD COLUMN x",
            "no such table",
        ),
        (
            "ALTER TABLE list ADD COLUMN name TEXT",
            "two columns of table \"list\"",
        ),
    ] {
        let dump =
            |world: &mut World| world.rows("Alice", "SELECT sql FROM sqlite_schema ORDER BY name");
        let before = dump(&mut world);
        let error = migrate(&path, script).unwrap_err().to_string();
        assert!(error.contains(said), "{script}: {error}");
        assert_eq!(dump(&mut world), before, "{script}");
    }
    world.sql("Alice", "UPDATE task SET title = 'x' WHERE id = 'a'");
    world.run_until_quiet();
    world.assert_equals_server("Bob");
    world.assert_converged();
}

/// Without `migrate` SQLite refuses this, and nothing is lost by it.
#[test]
fn drop_column_without_migrate_fails() {
    let mut world = world();
    let app = rusqlite::Connection::open(world.path("Alice")).unwrap();
    let error = app
        .execute_batch("ALTER TABLE task DROP COLUMN price")
        .unwrap_err();
    assert!(
        error.to_string().contains("syncline_capture_task"),
        "{error}"
    );
}

/// What was written before goes out, the other device keeps its rows, and the app is told what can be done.
#[test]
fn a_table_that_is_lost_is_told_and_loses_nothing_that_was_written() {
    let new = "(id TEXT PRIMARY KEY NOT NULL, title TEXT, price REAL, list TEXT)";
    let gone = ("DROP TABLE task", "no table \"task\"");
    let keyless = (
        "ALTER TABLE task RENAME TO old; CREATE TABLE task AS SELECT * FROM old; DROP TABLE old",
        "no PRIMARY KEY",
    );
    let empty = format!("CREATE TABLE task {new}");
    let rebuilt = format!(
        "ALTER TABLE task RENAME TO old; CREATE TABLE task {new}; INSERT INTO task SELECT * FROM old; DROP TABLE old"
    );
    for ((lost, why), back) in [(gone, empty), (keyless, rebuilt)] {
        let mut world = world();
        world.offline("Alice");
        world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = 'a'");
        world.sql("Alice", lost);
        world.online("Alice");
        world.sql("Bob", "UPDATE task SET title = 'pepper' WHERE id = 'c'");
        world.run_until_quiet();
        let told: Vec<String> = (world.get("Alice").notices.iter())
            .filter_map(|notice| match notice {
                Notice::TypeUnsyncable {
                    entity_type,
                    reason,
                } if entity_type == "task" => Some(reason.clone()),
                _ => None,
            })
            .collect();
        assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
        let titles = "SELECT title FROM task ORDER BY id";
        let theirs = ["oat milk", "tea", "pepper", "rice"];
        assert_eq!(world.rows("Bob", titles), theirs, "after {lost}");
        let waiting = "SELECT entity_id || waits_for FROM syncline_inbox";
        assert_eq!(
            world.rows("Alice", waiting),
            ["atype", "ctype"],
            "after {lost}"
        );
        // The table is back: so is everything.
        world.sql("Alice", &back);
        world.run_until_quiet();
        assert_eq!(world.rows("Alice", titles), theirs, "after {lost}");
        world.assert_equals_server("Bob");
        world.assert_converged();
    }
}

/// The engine has seen that the table is gone before anything was sent.
#[test]
fn a_table_that_was_gone_gets_its_unsent_rows_back() {
    let mut world = world();
    world.offline("Alice");
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = 'a'; DELETE FROM task WHERE id = 'b'; INSERT INTO task VALUES ('n', 'new', 1.5, 'l')");
    world.sql("Alice", "DROP TABLE task");
    world.sync("Alice");
    let told = |notice: &Notice| matches!(notice, Notice::TypeUnsyncable { .. });
    assert!(world.get("Alice").notices.iter().any(told));
    world.sql(
        "Alice",
        "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, price REAL, list TEXT)",
    );
    world.sync("Alice");
    let rows = "SELECT title || price FROM task ORDER BY id";
    assert_eq!(world.rows("Alice", rows), ["oat milk0.1", "new1.5"]);
    world.online("Alice");
    world.run_until_quiet();
    for name in ["Alice", "Bob"] {
        let all = ["oat milk0.1", "salt2.0", "rice3.0", "new1.5"];
        assert_eq!(world.rows(name, rows), all, "{name}");
        world.assert_equals_server(name);
    }
    world.assert_converged();
}
