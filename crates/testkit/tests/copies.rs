//! Stories of files that are copied or restored (I2): nothing is doubled, nothing is lost, and the
//! app is told.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline::Notice;
use syncline_testkit::{Fault, Machine, World};

const SCHEMA: &str = "
    CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, note TEXT,
                       project INTEGER REFERENCES project(id));";

fn told(world: &mut World, name: &str) -> usize {
    let notices = &world.get(name).notices;
    notices
        .iter()
        .filter(|n| **n == Notice::IdentityChanged)
        .count()
}

fn client(world: &mut World, name: &str) -> String {
    world
        .rows(
            name,
            "SELECT value FROM syncline_meta WHERE key = 'client_id'",
        )
        .remove(0)
}

/// Alice and Bob in sync; then Alice, offline, has one mutation of each kind that was never sent.
fn with_work_left() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql(
        "Alice",
        "INSERT INTO project VALUES (1, 'house');
         INSERT INTO task VALUES ('a', 'one', NULL, 1), ('b', 'two', NULL, 1), ('c', 'three', NULL, 1)",
    );
    world.run_until_quiet();
    world.sql("Bob", "INSERT INTO project (name) VALUES ('of Bob')");
    world.sync("Bob");
    world.sql(
        "Alice",
        "INSERT INTO project (name) VALUES ('garden');
         INSERT INTO task SELECT 'd', 'dig', NULL, id FROM project WHERE name = 'garden';
         UPDATE task SET title = 'uno' WHERE id = 'a';
         DELETE FROM task WHERE id = 'b'",
    );
    world
}

fn assert_done_once(world: &mut World) {
    world.assert_converged();
    for name in ["Alice", "Bob", "Copy"] {
        world.assert_equals_server(name);
        assert_eq!(
            world.rows(name, "SELECT name FROM project ORDER BY name"),
            ["garden", "house", "of Bob"],
            "{name}"
        );
        let tasks = "SELECT t.id || ' ' || title || ' ' || name FROM task t
                       JOIN project p ON p.id = t.project ORDER BY t.id";
        assert_eq!(
            world.rows(name, tasks),
            ["a uno house", "c three house", "d dig garden"],
            "{name}"
        );
        assert_eq!(world.status(name).open_conflicts, 0, "{name}");
    }
}

#[test]
fn a_copy_beside_the_original_or_on_another_machine_doubles_nothing_and_loses_nothing() {
    for machine in [Machine::Same, Machine::Another] {
        for first in ["Alice", "Copy"] {
            let mut world = with_work_left();
            world.copy("Alice", "Copy", machine);
            assert_ne!(client(&mut world, "Alice"), client(&mut world, "Copy"));
            world.sync(first);
            world.run_until_quiet();
            assert_done_once(&mut world);
            assert_eq!(told(&mut world, "Copy"), 1, "{machine:?}");
            assert_eq!(told(&mut world, "Alice"), 0, "{machine:?}");
            // Both go on as devices of their own.
            world.sql(
                "Copy",
                "UPDATE task SET note = 'from the copy' WHERE id = 'a'",
            );
            world.sql("Alice", "UPDATE task SET title = 'eins' WHERE id = 'a'");
            world.run_until_quiet();
            world.assert_converged();
            assert_eq!(
                world.rows(
                    "Bob",
                    "SELECT title || ' ' || note FROM task WHERE id = 'a'"
                ),
                ["eins from the copy"]
            );
        }
    }
}

#[test]
fn a_copy_made_while_a_push_was_under_way_repeats_it_and_doubles_nothing() {
    for fault in [Fault::LoseAnswer, Fault::LoseRequest] {
        let mut world = with_work_left();
        world.fault("Alice", fault);
        world.sync("Alice");
        world.copy("Alice", "Copy", Machine::Another);
        world.run_until_quiet();
        assert_done_once(&mut world);
    }
}

/// Started again since the backup, the device finds out by itself; else the server does.
#[test]
fn an_older_state_that_is_restored_repeats_what_was_sent_since_and_doubles_nothing() {
    for started_since in [true, false] {
        let mut world = with_work_left();
        let backup = world.back_up("Alice");
        if started_since {
            world.crash("Alice");
            world.restart("Alice");
        }
        // The backup knows nothing of this.
        world.run_until_quiet();
        world.sql("Bob", "UPDATE task SET title = 'primo' WHERE id = 'a'");
        world.run_until_quiet();
        world.sql("Alice", "UPDATE task SET note = 'later' WHERE id = 'c'");
        world.run_until_quiet();
        let before = client(&mut world, "Alice");
        world.restore("Alice", &backup);
        assert_eq!(client(&mut world, "Alice") != before, started_since);
        world.run_until_quiet();
        assert_eq!(told(&mut world, "Alice"), 1);
        assert_ne!(client(&mut world, "Alice"), before);
        world.assert_converged();
        world.assert_equals_server("Alice");
        let tasks = "SELECT id || ' ' || title || ' ' || coalesce(note, '-') FROM task ORDER BY id";
        assert_eq!(
            world.rows("Alice", tasks),
            ["a primo -", "c three later", "d dig -"],
            "what was done since is there again, and nothing was done twice"
        );
        assert_eq!(world.rows("Alice", "SELECT count(*) FROM project"), ["3"]);
    }
}

#[test]
fn a_file_that_is_moved_or_started_again_keeps_its_identity() {
    let mut world = with_work_left();
    let before = client(&mut world, "Alice");
    world.crash("Alice");
    world.restart("Alice");
    world.run_until_quiet();
    assert_eq!(client(&mut world, "Alice"), before);
    assert_eq!(told(&mut world, "Alice"), 0);
}

#[test]
fn an_engine_whose_file_got_another_identity_sends_nothing_more() {
    let mut world = with_work_left();
    let sent = world.traffic("Alice").mutations;
    world.sql(
        "Alice",
        "UPDATE syncline_meta SET value = 'somebody else' WHERE key = 'client_id'",
    );
    world.sync("Alice");
    assert_eq!(world.traffic("Alice").mutations, sent);
    let trouble = |n: &Notice| matches!(n, Notice::StoreTrouble(_));
    assert!(world.get("Alice").notices.iter().any(trouble));
}

/// One copy knows a row as it was made, another with an edit that would have become part of making it.
/// Whichever is there first: the edit is not lost.
#[test]
fn what_one_copy_sent_is_not_taken_for_all_that_another_has() {
    for later_first in [false, true] {
        let mut world = World::new(
            "CREATE TABLE place (id TEXT PRIMARY KEY NOT NULL);
             CREATE TABLE thing (id TEXT PRIMARY KEY NOT NULL, name TEXT, n INTEGER,
                                 place TEXT REFERENCES place(id));",
        );
        world.device("Alice");
        world.device("Bob");
        world.run_until_quiet();
        world.sql(
            "Alice",
            "INSERT INTO place VALUES ('shed'); INSERT INTO thing VALUES ('rake', 'rake', 1, 'shed')",
        );
        world.copy("Alice", "Early", Machine::Another);
        // What it refers to is put off, so the thing is not sent, and not made one with its edit either.
        world.sql(
            "Alice",
            "UPDATE thing SET name = 'iron rake';
             UPDATE syncline_outbox SET not_before = 1800000000000 + 600000 WHERE entity_type = 'place'",
        );
        world.sync("Alice");
        world.sql("Alice", "UPDATE syncline_outbox SET not_before = 0");
        world.copy("Alice", "Late", Machine::Another);
        world.crash("Alice");
        for name in match later_first {
            true => ["Late", "Early"],
            false => ["Early", "Late"],
        } {
            world.sync(name);
            world.settle(name);
        }
        for name in ["Bob", "Early", "Late"] {
            world.sync(name);
            world.settle(name);
            world.assert_equals_server(name);
            let row = "SELECT name || n || place FROM thing";
            assert_eq!(world.rows(name, row), ["iron rake1shed"], "{name}");
            assert_eq!(world.status(name).open_conflicts, 0, "{name}");
        }
    }
}

/// The original goes on with a row that it has not sent when the copy sends it: the row is made once, and the edit, which
/// became part of making it here, follows.
#[test]
fn a_row_that_a_copy_made_first_is_not_made_again_with_its_edits() {
    for schema in [
        "CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT, weight REAL)",
        "CREATE TABLE thing (id TEXT PRIMARY KEY NOT NULL, name TEXT, weight REAL)",
    ] {
        for pulls_first in [false, true] {
            let mut world = World::new(schema);
            world.device("Alice");
            world.device("Bob");
            world.run_until_quiet();
            world.sql("Alice", "INSERT INTO thing VALUES (7, 'rake', 0.1)");
            world.copy("Alice", "Copy", Machine::Another);
            world.sql("Bob", "INSERT INTO thing VALUES (7 + 1, 'spade', 2)");
            world.sql("Alice", "UPDATE thing SET name = 'iron rake'");
            world.sql("Alice", "UPDATE thing SET weight = 0.3");
            world.sync("Copy");
            world.settle("Copy");
            world.sync("Bob");
            world.settle("Bob");
            if pulls_first {
                world.sql(
                    "Alice",
                    "UPDATE syncline_outbox SET not_before = 1800000000000 + 600000",
                );
                world.sync("Alice");
                world.sql("Alice", "UPDATE syncline_outbox SET not_before = 0");
            }
            world.run_until_quiet();
            world.assert_converged();
            for name in ["Alice", "Bob", "Copy"] {
                world.assert_equals_server(name);
                let things = "SELECT name || ' ' || weight FROM thing ORDER BY name";
                assert_eq!(
                    world.rows(name, things),
                    ["iron rake 0.3", "spade 2.0"],
                    "{name}: {schema}"
                );
                assert_eq!(world.status(name).open_conflicts, 0, "{name}: {schema}");
            }
        }
    }
}
