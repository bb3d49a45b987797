//! Stories of two people changing the same things.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline::{Notice, Policy, State};
use syncline_testkit::{Fault, World};

const SCHEMA: &str =
    "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER, note TEXT)";

/// Alice and Bob, both with the task `1`, and offline.
fn apart(policy: Policy) -> World {
    let mut world = World::new(SCHEMA);
    world.device_with("Alice", policy);
    world.device_with("Bob", policy);
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0, NULL)");
    world.run_until_quiet();
    world.offline("Alice");
    world.offline("Bob");
    world
}

fn together(world: &mut World) {
    world.online("Alice");
    world.online("Bob");
    world.run_until_quiet();
}

fn conflict_records(world: &mut World, name: &str) -> usize {
    world.rows(name, "SELECT id FROM syncline_conflict").len()
}

#[test]
fn edits_of_different_fields_both_stand() {
    let mut world = apart(Policy::FieldMerge);
    world.sql("Alice", "UPDATE task SET title = 'oat milk'");
    world.sql("Bob", "UPDATE task SET done = 1");
    together(&mut world);
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT title || done FROM task"),
        ["oat milk1"]
    );
    let lost = "SELECT outcome ->> 'lost_mine' || ', ' || (outcome ->> 'lost_theirs') FROM syncline_conflict";
    assert_eq!(world.rows("Bob", lost), ["nothing, nothing"]);
}

#[test]
fn of_two_edits_of_one_field_the_later_to_arrive_stands_and_the_other_is_kept_in_a_record() {
    let mut world = apart(Policy::FieldMerge);
    world.sql("Alice", "UPDATE task SET title = 'oat milk'");
    world.sql("Bob", "UPDATE task SET title = 'soy milk'");
    together(&mut world);
    world.assert_converged();
    assert_eq!(world.rows("Alice", "SELECT title FROM task"), ["soy milk"]);
    let lost = world.rows("Bob", "SELECT remote ->> 'title' FROM syncline_conflict");
    assert_eq!(lost, ["oat milk"]);
}

#[test]
fn server_wins_takes_the_edit_that_came_first() {
    let mut world = apart(Policy::ServerWins);
    world.sql("Alice", "UPDATE task SET title = 'oat milk'");
    world.sql("Bob", "UPDATE task SET title = 'soy milk', done = 1");
    together(&mut world);
    world.assert_converged();
    assert_eq!(
        world.rows("Bob", "SELECT title || done FROM task"),
        ["oat milk0"]
    );
    let lost = world.rows("Bob", "SELECT local ->> 'title' FROM syncline_conflict");
    assert_eq!(lost, ["soy milk"]);
}

/// A snapshot that says again what the rows were based on contradicts nothing.
#[test]
fn a_fresh_snapshot_takes_no_edit_of_a_row_that_the_server_has_not_changed() {
    use Policy::{ClientWins, FieldMerge, LastWriterWins, Manual, ServerWins};
    for policy in [ServerWins, FieldMerge, ClientWins, LastWriterWins, Manual] {
        let mut world = apart(policy);
        world.sql("Alice", "UPDATE task SET title = 'oat milk'");
        world.forget_cursor("Alice");
        together(&mut world);
        world.assert_converged();
        let title = world.rows("Bob", "SELECT title FROM task");
        assert_eq!(title, ["oat milk"], "{policy}");
        assert_eq!(conflict_records(&mut world, "Alice"), 0, "{policy}");
        // The same for a row that was deleted here.
        world.offline("Alice");
        world.sql("Alice", "DELETE FROM task");
        world.forget_cursor("Alice");
        together(&mut world);
        world.assert_converged();
        let left = world.rows("Bob", "SELECT id FROM task");
        assert_eq!(left, Vec::<String>::new(), "{policy}");
    }
}

#[test]
fn client_wins_takes_the_edit_that_came_last_as_a_whole() {
    let mut world = apart(Policy::ClientWins);
    world.sql("Alice", "UPDATE task SET title = 'oat milk'");
    world.sql("Bob", "UPDATE task SET done = 1");
    together(&mut world);
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT title || done FROM task"),
        ["milk1"]
    );
    assert_eq!(
        conflict_records(&mut world, "Bob"),
        1,
        "Alice's title gave way"
    );
}

#[test]
fn a_delete_wins_over_an_edit_whoever_comes_first() {
    for (first, second) in [("Alice", "Bob"), ("Bob", "Alice")] {
        let mut world = apart(Policy::FieldMerge);
        world.sql("Alice", "UPDATE task SET title = 'oat milk'");
        world.sql("Bob", "DELETE FROM task");
        world.online(first);
        world.online(second);
        world.run_until_quiet();
        world.assert_converged();
        assert_eq!(
            world.rows("Alice", "SELECT id FROM task"),
            Vec::<String>::new()
        );
        let kept = conflict_records(&mut world, "Alice") + conflict_records(&mut world, "Bob");
        assert_eq!(kept, 1, "the edit is kept in a record");
    }
}

#[test]
fn two_deletes_of_one_row_agree() {
    let mut world = apart(Policy::FieldMerge);
    world.sql("Alice", "DELETE FROM task");
    world.sql("Bob", "DELETE FROM task");
    together(&mut world);
    world.assert_converged();
    assert!(world.on_server("task").is_empty());
}

#[test]
fn a_deleted_row_can_be_made_again() {
    let mut world = apart(Policy::FieldMerge);
    world.sql(
        "Alice",
        "DELETE FROM task; INSERT INTO task VALUES ('1', 'again', 0, NULL)",
    );
    together(&mut world);
    world.assert_converged();
    world.sql("Bob", "DELETE FROM task");
    world.run_until_quiet();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'and again', 0, NULL)",
    );
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT title FROM task"), ["and again"]);
}

#[test]
fn two_creates_of_one_id_wait_for_a_person_and_everything_else_goes_on() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0, NULL)");
    world.sql(
        "Bob",
        "INSERT INTO task VALUES ('1', 'beer', 0, NULL), ('2', 'bread', 0, NULL)",
    );
    world.run_until_quiet();
    assert_eq!(world.status("Bob").open_conflicts, 1);
    assert_eq!(world.get("Bob").engine().state(), State::BlockedConflict);
    let told = |n: &Notice| matches!(n, Notice::ConflictOpened { .. });
    assert!(
        world.get("Bob").notices.iter().any(told),
        "the app is told (C4)"
    );
    assert_eq!(
        world.rows("Alice", "SELECT title FROM task ORDER BY id"),
        ["milk", "bread"]
    );
    assert_eq!(
        world.rows("Bob", "SELECT title FROM task ORDER BY id"),
        ["beer", "bread"]
    );

    // Discarding Bob's create takes the server's row.
    let seq: i64 = world.rows("Bob", "SELECT seq FROM syncline_outbox")[0]
        .parse()
        .unwrap();
    let now = world.now();
    world.get("Bob").engine().store().discard(seq, now).unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Bob", "SELECT title FROM task WHERE id = '1'"),
        ["milk"]
    );
    world.sql("Bob", "UPDATE task SET done = 1 WHERE id = '1'");
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn the_same_create_on_two_devices_is_one() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    for name in ["Alice", "Bob"] {
        world.sql(name, "INSERT INTO task VALUES ('1', 'milk', 0, NULL)");
    }
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.status("Bob").open_conflicts, 0);
}

#[test]
fn a_remote_change_waits_while_the_outcome_of_a_push_is_unknown() {
    let mut world = apart(Policy::FieldMerge);
    world.online("Alice");
    world.online("Bob");
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET title = 'oat milk'");
    world.fault("Alice", Fault::LoseAnswer);
    world.sync("Alice");
    world.sql("Bob", "UPDATE task SET note = 'two litres'");
    world.sync("Bob");
    world.settle("Bob");
    // Alice pulls before her push has gone again.
    world.pull_only("Alice");
    let waiting = "SELECT waits_for FROM syncline_inbox";
    let row = "SELECT title || ': ' || coalesce(note, '-') FROM task";
    assert_eq!(world.rows("Alice", waiting), ["answer"]);
    assert_eq!(world.rows("Alice", row), ["oat milk: -"]);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Alice", row), ["oat milk: two litres"]);
}

#[test]
fn an_edit_taken_back_before_it_was_sent_sends_nothing() {
    let mut world = apart(Policy::FieldMerge);
    let sent = world.traffic("Alice").mutations;
    world.sql(
        "Alice",
        "UPDATE task SET title = 'oat milk'; UPDATE task SET title = 'milk'",
    );
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('2', 'x', 0, NULL); DELETE FROM task WHERE id = '2'",
    );
    together(&mut world);
    world.assert_converged();
    assert_eq!(world.traffic("Alice").mutations, sent);
    assert_eq!(conflict_records(&mut world, "Alice"), 0);
}

#[test]
fn many_edits_of_one_row_travel_as_one() {
    let mut world = apart(Policy::FieldMerge);
    let sent = world.traffic("Alice").mutations;
    for n in 0..50 {
        world.sql("Alice", &format!("UPDATE task SET title = 'draft {n}'"));
    }
    together(&mut world);
    world.assert_converged();
    assert_eq!(world.traffic("Alice").mutations, sent + 1);
    assert_eq!(world.rows("Bob", "SELECT title FROM task"), ["draft 49"]);
}

#[test]
fn a_trigger_that_stamps_rows_runs_where_the_edit_was_made_and_nowhere_else() {
    let mut world = World::new(
        "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, edits INTEGER DEFAULT 0);
         CREATE TRIGGER stamp AFTER UPDATE OF title ON task
           BEGIN UPDATE task SET edits = edits + 1 WHERE id = NEW.id; END;",
    );
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", "INSERT INTO task (id, title) VALUES ('1', 'milk')");
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET title = 'oat milk'");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT edits FROM task"), ["1"]);
    // It is still there, in its place, and what it does is still recorded.
    world.sql("Bob", "UPDATE task SET title = 'soy milk'");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT title || edits FROM task"),
        ["soy milk2"]
    );
}
