//! Stories of rows whose key can never be synced: they fail alone, and everything else goes on (O4).
#![allow(clippy::unwrap_used)] // helpers of tests

use rusqlite::Connection;
use syncline::{Existing, Notice};
use syncline_store::outbox_view::{self, Which};
use syncline_store::{digest, explain};
use syncline_testkit::World;

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)";
const ODD: &str = "INSERT INTO task VALUES (CAST(x'61FF' AS TEXT), 'odd')";

fn pair() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.run_until_quiet();
    world
}

fn app(world: &mut World) -> Connection {
    Connection::open(world.path("Alice")).unwrap()
}

fn entities(world: &mut World) -> Vec<String> {
    let now = world.now();
    let (entries, _) = outbox_view::list(&app(world), Which::All, 10, now).unwrap();
    entries.into_iter().map(|one| one.entity_id).collect()
}

#[test]
fn a_key_that_is_not_utf8_fails_alone_and_both_ways_go_on() {
    let mut world = pair();
    world.sql("Bob", "INSERT INTO task VALUES ('b', 'from Bob')");
    world.sync("Bob");
    world.sql("Alice", ODD);
    world.sql("Alice", "INSERT INTO task VALUES ('a', 'fine')");
    assert_eq!(entities(&mut world), [r#"{"$text":"61FF"}"#, "a"]);
    world.run_until_quiet();
    let on_server: Vec<String> = world.on_server("task").into_keys().collect();
    assert_eq!(on_server, ["a", "b"]);
    let pulled = "SELECT title FROM task WHERE id = 'b'";
    assert_eq!(world.rows("Alice", pulled), ["from Bob"]);
    let status = world.status("Alice");
    assert_eq!((status.outbox["failed"], status.outbox["pending"]), (1, 0));
    let error = status.last_error.unwrap();
    assert!(error.detail.contains("not valid UTF-8"), "{error:?}");
    assert_eq!(error.entity_id.unwrap(), r#"{"$text":"61FF"}"#);
    assert_eq!(entities(&mut world), [r#"{"$text":"61FF"}"#]);
    // Discarded, it leaves nothing.
    let seq = world.rows("Alice", "SELECT seq FROM syncline_outbox")[0].parse();
    let (seq, now) = (seq.unwrap(), world.now());
    world
        .get("Alice")
        .engine()
        .store()
        .discard(seq, now)
        .unwrap();
    let left =
        "SELECT (SELECT count(*) FROM syncline_outbox) + (SELECT count(*) FROM syncline_base)";
    assert_eq!(world.rows("Alice", left), ["0"]);
}

/// The row is there, and no other one is taken for it.
#[test]
fn a_key_that_is_not_utf8_keeps_no_snapshot_comparison_or_recovery_from_its_end() {
    let mut world = pair();
    world.sql("Alice", ODD);
    world.sql("Alice", "INSERT INTO task VALUES ('a', 'fine')");
    world.run_until_quiet();
    world.forget_cursor("Alice");
    world.run_until_quiet();
    let digest = digest::read(&app(&mut world)).unwrap().unwrap();
    assert_eq!(digest.types[0].len(), 1);
    let trigger =
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%AFTER UPDATE%'";
    for trigger in world.rows("Alice", trigger) {
        world.sql("Alice", &format!("DROP TRIGGER \"{trigger}\""));
    }
    world.sql("Alice", "UPDATE task SET title = 'unseen' WHERE id = 'a'");
    world.run_until_quiet();
    let on_server = format!("{:?}", world.on_server("task"));
    assert!(
        on_server.contains("unseen") && !on_server.contains("odd"),
        "{on_server}"
    );
    let there = "SELECT hex(id) || ' ' || title FROM task ORDER BY id";
    assert_eq!(world.rows("Alice", there), ["61 unseen", "61FF odd"]);
    assert_eq!(world.status("Alice").outbox["failed"], 1);
    world.sql(
        "Alice",
        "DELETE FROM task WHERE title = 'odd'; DELETE FROM syncline_outbox",
    );
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn what_names_a_mutation_of_such_a_row_is_explained() {
    let mut world = pair();
    world.offline("Alice");
    world.sql("Alice", ODD);
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', 'fine');
         UPDATE syncline_outbox SET depends_on = (SELECT json_array(mutation) FROM syncline_outbox LIMIT 1)
          WHERE entity_id = 'a'",
    );
    assert_eq!(entities(&mut world).len(), 2);
    let now = world.now();
    let explained = explain::explain(&app(&mut world), "task", "a", now).unwrap();
    let told = format!("{explained:?}");
    assert!(told.contains("61FF"), "{told}");
    world.online("Alice");
    world.run_until_quiet();
    assert_eq!(world.status("Alice").outbox["failed"], 1);
}

/// Its bytes are not those of the text that a person sees.
#[test]
fn a_row_that_was_there_before_is_not_uploaded_under_another_key() {
    let mut world = World::new(SCHEMA);
    let rows = format!("{ODD}; INSERT INTO task VALUES ('a', 'fine')");
    world.device_existing("Alice", &rows, Existing::Upload);
    world.run_until_quiet();
    let on_server: Vec<String> = world.on_server("task").into_keys().collect();
    assert_eq!(on_server, ["a"]);
    assert_eq!(world.rows("Alice", "SELECT count(*) FROM task"), ["2"]);
}

/// The error says what is wrong and with which key; the notice names no row that is innocent.
#[test]
fn a_key_that_can_never_be_synced_is_told_by_what_is_wrong_with_it() {
    for (key, reason, recorded) in [
        (
            "'a' || char(0)",
            "the control character U+0000; remove it from the key",
            "a\\u0000",
        ),
        (
            "'a' || char(10) || 'b'",
            "the control character U+000A; remove it from the key",
            "a\\u000ab",
        ),
        ("NULL", "the key is NULL", r#"{"$null":1}"#),
        (
            "CAST(x'FF' AS TEXT)",
            "not valid UTF-8",
            r#"{"$text":"FF"}"#,
        ),
        ("hex(zeroblob(200))", "the id has 402 bytes", "…"),
    ] {
        let mut world = World::new("CREATE TABLE task (id BLOB PRIMARY KEY, title TEXT)");
        world.device("Alice");
        world.run_until_quiet();
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES (0, 'innocent'), ({key}, 'odd')"),
        );
        world.run_until_quiet();
        assert_eq!(world.on_server("task").len(), 1, "{key}");
        let told = world
            .get("Alice")
            .notices
            .iter()
            .find_map(|notice| match notice {
                Notice::MutationFailed { entity, error, .. } => {
                    Some((entity.clone(), error.clone()))
                }
                _ => None,
            });
        let (entity, error) = told.unwrap();
        assert_eq!(
            (entity, error.code.as_str()),
            (None, "invalid-key"),
            "{key}"
        );
        assert!(error.detail.contains(reason), "{key}: {}", error.detail);
        let end = format!("{recorded})");
        assert!(error.detail.ends_with(&end), "{key}: {}", error.detail);
    }
}
