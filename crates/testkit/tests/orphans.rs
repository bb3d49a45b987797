//! Stories of rows whose parent is deleted on another device: the app's schema says what follows.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use syncline::{Checkpoint, Notice};
use syncline_server::{ServerConfig, TypeConfig};
use syncline_testkit::{Fault, World};

const DEVICES: [&str; 3] = ["Alice", "Bob", "Carol"];

fn schema(task: &str, step: &str) -> String {
    format!(
        "CREATE TABLE list (id TEXT PRIMARY KEY NOT NULL, name TEXT);
         CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT,
                            list TEXT DEFAULT 'inbox' REFERENCES list(id) {task});
         CREATE TABLE step (id TEXT PRIMARY KEY NOT NULL, task TEXT REFERENCES task(id) {step});"
    )
}

/// Three devices that all have the lists `garden` and `inbox`.
fn world(schema: &str) -> World {
    with_server(schema, ServerConfig::default())
}

fn with_server(schema: &str, config: ServerConfig) -> World {
    let mut world = World::with_server(schema, config);
    DEVICES.iter().for_each(|name| world.device(name));
    world.sql(
        "Alice",
        "INSERT INTO list VALUES ('garden', 'x'), ('inbox', 'y')",
    );
    world.run_until_quiet();
    world
}

fn quiet(world: &mut World) {
    world.run_until_quiet();
    world.run_until_quiet();
    world.assert_converged();
    for name in DEVICES {
        world.assert_equals_server(name);
        let status = world.status(name);
        assert_eq!(status.open_conflicts + status.outbox["failed"], 0, "{name}");
        let noted = "SELECT count(*) FROM syncline_removed";
        assert_eq!(world.rows(name, noted), ["0"], "{name}");
    }
}

fn all(world: &mut World) -> String {
    let rows = world.dump("Carol");
    let rows = rows.iter().filter(|row| !row.starts_with("list: inbox"));
    rows.map(String::as_str).collect::<Vec<_>>().join("; ")
}

const DIG: &str = "INSERT INTO task VALUES ('t', 'dig', 'garden')";

#[test]
fn the_schema_decides_whoever_comes_first() {
    for (action, end) in [
        ("ON DELETE CASCADE", ""),
        ("ON DELETE SET NULL", "task: t | dig | NULL"),
        ("ON DELETE SET DEFAULT", "task: t | dig | inbox"),
        (
            "ON DELETE RESTRICT",
            "list: garden | x; task: t | dig | garden",
        ),
        ("", "list: garden | x; task: t | dig | garden"),
    ] {
        for order in [["Alice", "Bob"], ["Bob", "Alice"]] {
            let mut world = world(&schema(action, ""));
            world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
            world.sql("Bob", DIG);
            world.sync(order[0]);
            world.sync(order[1]);
            quiet(&mut world);
            assert_eq!(all(&mut world), end, "{action} {order:?}");
        }
    }
}

#[test]
fn a_device_without_the_parent_keeps_the_child_waiting_until_it_is_mended() {
    let mut world = world(&schema("ON DELETE SET NULL", ""));
    world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
    world.sql("Bob", DIG);
    world.sync("Alice");
    world.offline_after("Bob", 1);
    world.sync("Bob");
    world.sync("Alice");
    assert_eq!(world.status("Alice").inbox, 1);
    world.online("Bob");
    world.sync("Alice");
    assert_eq!(world.status("Alice").inbox, 0);
    quiet(&mut world);
    assert_eq!(all(&mut world), "task: t | dig | NULL");
}

#[test]
fn what_was_not_sent_yet_of_a_child_is_kept_in_a_record() {
    let mut world = world(&schema("ON DELETE CASCADE", ""));
    world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
    world.sync("Alice");
    world.sql("Bob", DIG);
    world.sql("Bob", "UPDATE task SET title = 'dig deep'");
    world.pull_only("Bob");
    assert!(world.rows("Bob", "SELECT id FROM task").is_empty());
    let kept = "SELECT local ->> 'title' FROM syncline_conflict WHERE resolution = 'cascade'";
    assert_eq!(world.rows("Bob", kept), ["dig deep"]);
    let closed =
        "SELECT count(*) FROM syncline_log WHERE entity_type = 'task' AND kind = 'superseded'";
    assert_eq!(world.rows("Bob", closed), ["2"]);
    let told = |n: &Notice| {
        matches!(
            n,
            Notice::OrphansMended {
                deleted: 1,
                changed: 0,
                ..
            }
        )
    };
    assert!(world.get("Bob").notices.iter().any(told));
    quiet(&mut world);
    assert!(world.on_server("task").is_empty(), "it never got there");
}

#[test]
fn what_may_have_been_sent_is_not_decided_before_its_outcome() {
    let mut world = world(&schema("ON DELETE CASCADE", ""));
    world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
    world.sync("Alice");
    world.sql("Bob", DIG);
    world.fault("Bob", Fault::LoseAnswer);
    world.sync("Bob");
    world.pull_only("Bob");
    assert_eq!(world.rows("Bob", "SELECT id FROM task"), ["t"]);
    world.crash("Bob");
    world.restart("Bob");
    quiet(&mut world);
    assert_eq!(all(&mut world), "");
}

/// The edit waits for a place for what Bob made of its row, that for the list, and the list's deletion must not wait for the edit.
#[test]
fn a_deletion_does_not_wait_for_an_edit_that_waits_for_it() {
    let mut world = world(&schema("ON DELETE CASCADE", ""));
    world.sql("Alice", "INSERT INTO task VALUES ('t', 'dig', 'inbox')");
    world.run_until_quiet();
    let moves = "UPDATE task SET list = 'garden'";
    world.sql("Bob", moves);
    world.sql("Alice", moves);
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    world.sql("Alice", "UPDATE task SET list = 'inbox'");
    world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
    world.sync("Bob");
    quiet(&mut world);
    assert_eq!(all(&mut world), "");
}

/// Bob has moved the task into the list that Alice deletes in one go with her edits of it: neither can go before the other,
/// and what Alice did knows of both.
#[test]
fn a_group_that_deletes_what_its_row_was_moved_to_goes_with_its_own_reference() {
    for (edits, title) in [
        ("UPDATE task SET title = 'dug'", "dug"),
        (
            "UPDATE task SET title = 'dug'; UPDATE task SET title = 'dug deep'",
            "dug deep",
        ),
    ] {
        for pulled in [true, false] {
            let mut world = world(&schema("ON DELETE CASCADE", ""));
            world.sql("Alice", "INSERT INTO task VALUES ('t', 'dig', 'inbox')");
            world.run_until_quiet();
            world.sql("Bob", "UPDATE task SET list = 'garden'");
            world.sync("Bob");
            let group = "UPDATE syncline_outbox SET group_id = 'g'";
            let delete = "DELETE FROM list WHERE id = 'garden'";
            world.sql(
                "Alice",
                &format!("BEGIN IMMEDIATE; {edits}; {delete}; {group}; COMMIT"),
            );
            match pulled {
                true => world.pull_only("Alice"),
                false => world.sync("Alice"),
            }
            quiet(&mut world);
            assert_eq!(all(&mut world), format!("task: t | {title} | inbox"));
            let lost =
                "SELECT outcome -> 'lost_theirs' FROM syncline_conflict WHERE entity_type = 'task'";
            let lost = world.rows("Alice", lost).join(" ");
            assert!(lost.contains("garden"), "{lost}");
        }
    }
}

/// Alice's move waits for a place for what Bob made of its row, but for another row than the list that she deletes: the
/// list goes only after the move.
#[test]
fn a_deletion_waits_for_an_edit_that_waits_for_something_else() {
    let mut world = world(
        "CREATE TABLE list (id TEXT PRIMARY KEY NOT NULL, name TEXT);
         CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL);
         CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES list(id) ON DELETE CASCADE,
                            project TEXT REFERENCES project(id));",
    );
    world.sql("Alice", "INSERT INTO task VALUES ('t', 'garden', NULL)");
    world.run_until_quiet();
    world.sql(
        "Bob",
        "INSERT INTO project VALUES ('p'); UPDATE task SET project = 'p'",
    );
    world.sync("Bob");
    world.sql(
        "Alice",
        "UPDATE task SET list = 'inbox'; DELETE FROM list WHERE id = 'garden'",
    );
    // Her move is answered, and she does not hear of the project yet.
    world.offline_after("Alice", 2);
    world.sync("Alice");
    world.sync("Bob");
    world.online("Alice");
    quiet(&mut world);
    assert_eq!(all(&mut world), "project: p; task: t | inbox | p");
}

/// Bob has moved the task into a list that Alice deletes, and before he sends that he pulls her edit of the task, which finds no
/// place with his move.
#[test]
fn a_move_to_a_row_that_is_deleted_elsewhere_follows_the_schema() {
    for (action, end) in [
        ("ON DELETE CASCADE", ""),
        ("ON DELETE SET NULL", "task: t | dig deep | NULL"),
        ("ON DELETE SET DEFAULT", "task: t | dig deep | inbox"),
        (
            "ON DELETE RESTRICT",
            "list: garden | x; task: t | dig deep | garden",
        ),
    ] {
        let mut world = world(&schema(action, ""));
        world.sql("Alice", "INSERT INTO task VALUES ('t', 'dig', 'inbox')");
        world.run_until_quiet();
        world.sql("Bob", "UPDATE task SET list = 'garden'");
        world.sql(
            "Alice",
            "DELETE FROM list WHERE id = 'garden'; UPDATE task SET title = 'dig deep'",
        );
        world.sync("Alice");
        world.pull_only("Bob");
        quiet(&mut world);
        assert_eq!(all(&mut world), end, "{action}");
    }
}

#[test]
fn grandchildren_go_along_or_keep_everything() {
    let steps =
        "INSERT INTO task VALUES ('t', 'dig', 'garden'); INSERT INTO step VALUES ('s', 't')";
    for (step, end) in [
        ("ON DELETE CASCADE", ""),
        ("ON DELETE SET NULL", "step: s | NULL"),
        ("", "list: garden | x; step: s | t; task: t | dig | garden"),
    ] {
        let mut world = world(&schema("ON DELETE CASCADE", step));
        world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
        world.sql("Bob", steps);
        world.sync("Alice");
        quiet(&mut world);
        assert_eq!(all(&mut world), end, "{step}");
    }
    // The deletion took the task along, elsewhere; only its step is new.
    let mut world = world(&schema("ON DELETE CASCADE", ""));
    world.sql("Alice", DIG);
    world.run_until_quiet();
    world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
    world.sql("Bob", "INSERT INTO step VALUES ('s', 't')");
    world.sync("Alice");
    quiet(&mut world);
    assert_eq!(
        all(&mut world),
        "list: garden | x; step: s | t; task: t | dig | garden"
    );
    let told = |n: &&Notice| matches!(n, Notice::DeletionUndone { .. });
    assert_eq!(world.get("Bob").notices.iter().filter(told).count(), 2);
}

#[test]
fn a_deletion_that_comes_with_its_childrens_needs_no_mending() {
    let mut world = world(&schema("", ""));
    world.configure(|config| config.page_changes = 1);
    world.sql("Alice", DIG);
    world.run_until_quiet();
    world.sql(
        "Alice",
        "DELETE FROM task; DELETE FROM list WHERE id = 'garden'",
    );
    quiet(&mut world);
    assert_eq!(all(&mut world), "");
    assert_eq!(
        world.rows("Carol", "SELECT count(*) FROM syncline_conflict"),
        ["0"]
    );
}

#[test]
fn a_crash_between_the_deletion_and_the_head_loses_nothing() {
    for checkpoint in [
        None,
        Some(Checkpoint {
            changes: 100,
            bytes: 1 << 20,
        }),
    ] {
        let mut world = world(&schema("ON DELETE SET NULL", ""));
        world.sql("Bob", DIG);
        world.sync("Bob");
        world.configure(|config| config.page_changes = 1);
        world.checkpoint(checkpoint);
        world.sql(
            "Alice",
            "DELETE FROM list WHERE id = 'garden'; INSERT INTO list VALUES ('a', 'a'), ('b', 'b')",
        );
        world.offline("Alice");
        world.crash("Bob");
        world.restart("Bob");
        world.online("Alice");
        world.sync("Alice");
        for _ in 0..4 {
            world.offline_after("Bob", 2);
            world.sync("Bob");
            world.crash("Bob");
            world.online("Bob");
            world.restart("Bob");
        }
        quiet(&mut world);
        assert_eq!(world.rows("Carol", "SELECT list FROM task"), ["NULL"]);
    }
}

/// Between the task's deletion and the head, where it comes back for its step, Carol deletes the list that it was in.
#[test]
fn a_parent_that_comes_back_refers_to_nothing_that_was_deleted_here_since() {
    let mut world = world(&schema("ON DELETE CASCADE", ""));
    world.sql("Bob", DIG);
    world.run_until_quiet();
    world.sql("Carol", "INSERT INTO step VALUES ('s', 't')");
    world.configure(|config| config.page_changes = 1);
    world.sql(
        "Alice",
        "DELETE FROM task; INSERT INTO list VALUES ('a', 'a'), ('b', 'b')",
    );
    world.sync("Alice");
    world.crash("Carol");
    world.restart("Carol");
    world.offline_after("Carol", 3);
    world.sync("Carol");
    assert_eq!(world.rows("Carol", "SELECT count(*) FROM task"), ["0"]);
    world.sql("Carol", "DELETE FROM list WHERE id = 'garden'");
    world.online("Carol");
    quiet(&mut world);
    let left = "SELECT concat_ws('|', task.id, title, list, step.id) FROM task, step";
    for name in DEVICES {
        assert_eq!(world.rows(name, left), ["t|dig|s"], "{name}");
    }
}

#[test]
fn a_parent_with_an_integer_key_keeps_its_id_when_it_is_created_again() {
    let mut world = World::new(
        "CREATE TABLE list (id INTEGER PRIMARY KEY, name TEXT);
         CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT,
                            list INTEGER NOT NULL REFERENCES list(id) ON DELETE SET NULL);",
    );
    DEVICES.iter().for_each(|name| world.device(name));
    world.sql("Alice", "INSERT INTO list (name) VALUES ('x'), ('y')");
    world.run_until_quiet();
    let garden = world.rows("Alice", "SELECT id FROM list WHERE name = 'x'");
    assert_eq!(garden, ["1"]);
    world.sql("Alice", "DELETE FROM list WHERE id = 1");
    world.sql("Bob", "INSERT INTO task (title, list) VALUES ('dig', 1)");
    world.sql("Carol", "INSERT INTO task (title, list) VALUES ('sow', 1)");
    world.sync("Alice");
    quiet(&mut world);
    assert_eq!(
        world.rows("Alice", "SELECT name FROM list ORDER BY id"),
        ["x", "y"]
    );
    assert_eq!(world.rows("Alice", "SELECT list FROM task"), ["1", "1"]);
}

#[test]
fn where_the_server_refuses_the_orphan_a_person_decides_and_the_rest_follows() {
    let references = BTreeMap::from([("list".to_owned(), "list".to_owned())]);
    let task = TypeConfig {
        references,
        ..TypeConfig::default()
    };
    let types = BTreeMap::from([
        ("list".to_owned(), TypeConfig::default()),
        ("task".to_owned(), task),
        ("step".to_owned(), TypeConfig::default()),
    ]);
    let config = ServerConfig {
        types,
        ..ServerConfig::default()
    };
    let mut world = with_server(&schema("ON DELETE CASCADE", ""), config);
    world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
    world.sync("Alice");
    world.sql("Bob", DIG);
    world.run_until_quiet();
    assert_eq!(
        world.rows("Bob", "SELECT state FROM syncline_outbox"),
        ["failed"]
    );
    assert_eq!(
        world.rows("Bob", "SELECT id FROM task"),
        ["t"],
        "a person decides"
    );
    let seq: i64 = world.rows("Bob", "SELECT seq FROM syncline_outbox")[0]
        .parse()
        .unwrap();
    let now = world.now();
    world.get("Bob").engine().store().discard(seq, now).unwrap();
    quiet(&mut world);
    assert_eq!(all(&mut world), "");
}

#[test]
fn devices_that_knew_the_parent_differently_ask_nobody() {
    for first in [["Bob", "Carol"], ["Carol", "Bob"]] {
        let mut world = world(&schema("", ""));
        world.sql("Alice", "UPDATE list SET name = 'z' WHERE id = 'garden'");
        world.sync("Alice");
        world.sync("Bob");
        world.sql("Alice", "DELETE FROM list WHERE id = 'garden'");
        world.sql("Bob", DIG);
        world.sql("Carol", "INSERT INTO task VALUES ('u', 'sow', 'garden')");
        world.sync("Alice");
        // Both have seen the deletion and know nothing of each other's mend.
        first.iter().for_each(|name| world.pull_only(name));
        first.iter().for_each(|name| world.sync(name));
        quiet(&mut world);
        let rows = all(&mut world);
        let (name, tasks) = rows.split_once("; ").unwrap();
        let expected = if first[0] == "Bob" { "z" } else { "x" };
        assert_eq!(
            name,
            format!("list: garden | {expected}"),
            "the first one's"
        );
        assert_eq!(tasks, "task: t | dig | garden; task: u | sow | garden");
    }
}
