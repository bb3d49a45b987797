//! Stories of a person who mends the outbox: edit, discard, and what may have been sent already.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline::{Discarded, Notice, StoreError};
use syncline_protocol::{Fields, Value};
use syncline_testkit::{Fault, World};

const SCHEMA: &str =
    "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, parent TEXT REFERENCES task, title TEXT)";

fn one_device() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.sync("Alice");
    world
}

fn seq(world: &mut World, entity: &str) -> i64 {
    let sql = format!("SELECT max(seq) FROM syncline_outbox WHERE entity_id = '{entity}'");
    world.rows("Alice", &sql)[0].parse().unwrap()
}

fn discard(world: &mut World, entity: &str) -> Result<Discarded, StoreError> {
    let (seq, now) = (seq(world, entity), world.now());
    world.get("Alice").engine().store().discard(seq, now)
}

fn edit(world: &mut World, entity: &str, title: &str) -> Result<(), StoreError> {
    let (seq, now) = (seq(world, entity), world.now());
    let mut changes = Fields::new();
    changes.insert("title".to_owned(), Value::from(title));
    world.get("Alice").engine().store().edit(seq, &changes, now)
}

/// A create on its way and a child that waits for it; the fault decides what the server saw.
fn family_under_way(fault: Fault) -> World {
    let mut world = one_device();
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, 'parent')");
    world.fault("Alice", fault);
    world.sync("Alice");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('b', 'a', 'child'), ('c', NULL, 'other')",
    );
    world
}

#[test]
fn what_never_arrived_is_cancelled_and_given_up_with_its_dependents() {
    let mut world = family_under_way(Fault::LoseRequest);
    let discarded = discard(&mut world, "a").unwrap();
    assert!(discarded.gone.is_empty());
    assert_eq!(discarded.cancelling.len(), 1);
    assert_eq!(
        world.rows("Alice", "SELECT id FROM task ORDER BY id"),
        ["a", "b", "c"]
    );
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT id FROM task ORDER BY id"),
        ["c"]
    );
    assert_eq!(world.on_server("task").len(), 1);
}

#[test]
fn what_had_taken_effect_stays_and_that_is_told() {
    let mut world = family_under_way(Fault::LoseAnswer);
    discard(&mut world, "a").unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("task").len(), 3);
    let told = |notice: &Notice| matches!(notice, Notice::CancelledTooLate { .. });
    assert!(world.get("Alice").notices.iter().any(told));
}

/// What the engine had under way when it died stays marked so.
#[test]
fn what_was_under_way_when_the_engine_died_can_be_given_up() {
    let mut world = family_under_way(Fault::LoseRequest);
    let in_flight = "UPDATE syncline_outbox SET state = 'in_flight' WHERE frozen IS NOT NULL";
    world.sql("Alice", in_flight);
    discard(&mut world, "a").unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("task").len(), 1);
    assert!(
        world
            .rows("Alice", "SELECT seq FROM syncline_outbox")
            .is_empty()
    );
}

#[test]
fn a_group_and_what_is_named_as_dependent_go_along() {
    let mut world = one_device();
    world.offline("Alice");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, '1'), ('b', NULL, '2'), ('c', NULL, '3'), ('d', NULL, '4');
         UPDATE syncline_outbox SET group_id = 'g' WHERE entity_id IN ('a', 'b');
         UPDATE syncline_outbox SET depends_on = (SELECT json_array(mutation) FROM syncline_outbox WHERE entity_id = 'b')
          WHERE entity_id = 'c'",
    );
    let named = seq(&mut world, "a");
    let now = world.now();
    let dependents = world
        .get("Alice")
        .engine()
        .store()
        .dependents(named, now)
        .unwrap();
    let discarded = discard(&mut world, "a").unwrap();
    assert_eq!(discarded.gone, dependents);
    assert_eq!(discarded.gone.len(), 3);
    assert_eq!(world.rows("Alice", "SELECT id FROM task"), ["d"]);
    world.online("Alice");
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn an_edit_changes_mutation_and_row_and_nothing_newer() {
    let mut world = one_device();
    world.offline("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, 'one')");
    edit(&mut world, "a", "two").unwrap();
    assert_eq!(world.rows("Alice", "SELECT title FROM task"), ["two"]);
    let create = seq(&mut world, "a");
    world.sql("Alice", "UPDATE task SET title = 'newer'");
    let mut changes = Fields::new();
    changes.insert("title".to_owned(), Value::from("three"));
    let now = world.now();
    world
        .get("Alice")
        .engine()
        .store()
        .edit(create, &changes, now)
        .unwrap();
    assert_eq!(world.rows("Alice", "SELECT title FROM task"), ["newer"]);
    changes.insert("nothing".to_owned(), Value::Null);
    let refused = world
        .get("Alice")
        .engine()
        .store()
        .edit(create, &changes, now);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("there is no field \"nothing\"")
    );
    world.online("Alice");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Alice", "SELECT title FROM task"), ["newer"]);
}

#[test]
fn what_can_never_be_synced_is_mended_by_an_edit() {
    let mut world = one_device();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, 'x' || char(0) || 'y')",
    );
    world.run_until_quiet();
    assert_eq!(world.status("Alice").outbox["failed"], 1);
    edit(&mut world, "a", "xy").unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("task").len(), 1);
}

#[test]
fn what_may_have_been_sent_is_not_edited() {
    let mut world = family_under_way(Fault::LoseAnswer);
    let refused = edit(&mut world, "a", "other").unwrap_err().to_string();
    assert!(refused.contains("may have been sent"), "{refused}");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT title FROM task WHERE id = 'a'"),
        ["parent"]
    );
}

/// Deleted and made again: without the delete, the making is an edit of what was there.
#[test]
fn a_create_whose_delete_is_discarded_becomes_an_edit() {
    let again = "DELETE FROM task; INSERT INTO task VALUES ('a', NULL, 'two')";
    let made = "INSERT INTO task VALUES ('a', NULL, 'one')";
    let edited = "UPDATE task SET title = 'uno'";
    for (synced, before) in [(made, ""), (made, edited), ("", made)] {
        let mut world = one_device();
        world.sql("Alice", synced);
        world.run_until_quiet();
        world.offline("Alice");
        world.sql("Alice", &format!("{before}; {again}"));
        discard_delete(&mut world);
        let ops = "SELECT group_concat(op, ' ' ORDER BY seq) FROM syncline_outbox";
        let last = world.rows("Alice", ops).remove(0);
        assert!(last.ends_with("update"), "{synced} {before}: {last}");
        assert_eq!(world.rows("Alice", "SELECT title FROM task"), ["two"]);
        world.online("Alice");
        world.run_until_quiet();
        world.assert_converged();
        let conflicts = "SELECT count(*) FROM syncline_conflict";
        assert_eq!(world.rows("Alice", conflicts), ["0"]);
        assert_eq!(world.rows("Alice", "SELECT title FROM task"), ["two"]);
        let pushed = world.batches("Alice").concat().len();
        assert_eq!(pushed, 1 + usize::from(!synced.is_empty()), "{before}");
    }
}

fn discard_delete(world: &mut World) {
    let delete = "SELECT seq FROM syncline_outbox WHERE op = 'delete'";
    let delete = world.rows("Alice", delete)[0].parse().unwrap();
    let now = world.now();
    world
        .get("Alice")
        .engine()
        .store()
        .discard(delete, now)
        .unwrap();
}

/// Two edits of a row of which no request arrived, the second behind the first.
fn edits_under_way() -> World {
    let mut world = one_device();
    world.device("Bob");
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, 'milk')");
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET title = 'oat'");
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    world.sql("Alice", "UPDATE task SET title = 'soy'");
    world.pass(60_000);
    // The server is greeted anew first.
    world.fault("Alice", Fault::Repeat);
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    let frozen = "SELECT count(frozen) FROM syncline_outbox";
    assert_eq!(world.rows("Alice", frozen), ["2"]);
    world
}

fn assert_nothing_is_left(world: &mut World, title: &str) {
    world.run_until_quiet();
    let left = "SELECT seq, state, cancel, idempotency_key FROM syncline_outbox";
    assert!(world.rows("Alice", left).is_empty());
    let conflicts = "SELECT count(*) FROM syncline_conflict WHERE resolved_at IS NULL";
    assert_eq!(world.rows("Alice", conflicts), ["0"]);
    assert_eq!(world.rows("Alice", "SELECT title FROM task"), [title]);
    world.assert_converged();
}

/// What it follows was refused, so the server knows nothing of it that it could cancel. What is decided
/// about the first edit is decided without it.
#[test]
fn what_follows_a_refused_edit_is_given_up_without_being_asked_about() {
    let mut world = edits_under_way();
    world.sql("Bob", "UPDATE task SET title = 'rice'");
    world.sync("Bob");
    world.fault("Alice", Fault::Repeat);
    world.fault("Alice", Fault::LoseAnswer);
    world.pass(120_000);
    world.sync("Alice");
    world.sql("Bob", "UPDATE task SET title = 'tea'");
    world.sync("Bob");
    world.pass(120_000);
    world.pull_only("Alice");
    let waits = "SELECT json_extract(fields, '$.title') FROM syncline_inbox";
    assert_eq!(world.rows("Alice", waits), ["tea"]);
    let discarded = discard(&mut world, "a").unwrap();
    assert_eq!((discarded.gone.len(), discarded.cancelling.len()), (0, 1));
    assert_nothing_is_left(&mut world, "oat");
    let decided = "SELECT count(*) || ' ' || count(*) FILTER (WHERE local LIKE '%soy%') FROM syncline_conflict";
    assert_eq!(world.rows("Alice", decided), ["1 0"]);
    let told = |notice: &&Notice| matches!(notice, Notice::ConflictResolved { .. });
    assert_eq!(world.get("Alice").notices.iter().filter(told).count(), 1);
}

#[test]
fn edits_that_are_cancelled_one_after_the_other_are_both_given_up() {
    let mut world = edits_under_way();
    discard(&mut world, "a").unwrap();
    let first = world.rows("Alice", "SELECT min(seq) FROM syncline_outbox")[0].parse();
    let (first, now) = (first.unwrap(), world.now());
    world
        .get("Alice")
        .engine()
        .store()
        .discard(first, now)
        .unwrap();
    assert_nothing_is_left(&mut world, "milk");
}

/// The person decides while the request is under way.
#[test]
fn what_was_skipped_and_is_to_be_cancelled_is_given_up() {
    let mut world = edits_under_way();
    world.sql("Bob", "UPDATE task SET title = 'rice'");
    world.sync("Bob");
    world.hold_any_push("Alice");
    world.pass(60_000);
    world.sync("Alice");
    discard(&mut world, "a").unwrap();
    world.release("Alice");
    assert_nothing_is_left(&mut world, "oat");
}

/// An entry that is to be cancelled and has no key, as older files may have one, keeps no other from it.
#[test]
fn what_has_no_key_keeps_nothing_else_from_being_cancelled() {
    let mut world = one_device();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('c', NULL, 'other'); UPDATE syncline_outbox SET cancel = 1;
         INSERT INTO task VALUES ('a', NULL, 'parent')",
    );
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    assert_eq!(discard(&mut world, "a").unwrap().cancelling.len(), 1);
    world.run_until_quiet();
    let left = "SELECT entity_id FROM syncline_outbox";
    assert_eq!(world.rows("Alice", left), ["c"]);
    discard(&mut world, "c").unwrap();
    assert!(world.rows("Alice", left).is_empty());
    world.run_until_quiet();
    world.assert_converged();
}

/// The place to which a discarded move would go back is gone when its outcome is known: that needs a person, and nothing
/// else waits for it.
#[test]
fn what_is_given_up_and_cannot_be_taken_back_is_a_dead_letter() {
    let mut world = one_device();
    world.device("Bob");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('p', NULL, 'parent'), ('a', 'p', 'milk')",
    );
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET title = 'oat' WHERE id = 'a'");
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    world.sql("Alice", "UPDATE task SET parent = NULL WHERE id = 'a'");
    world.pass(60_000);
    world.fault("Alice", Fault::Repeat);
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    world.sql("Bob", "UPDATE task SET title = 'rice' WHERE id = 'a'");
    world.sync("Bob");
    world.sql(
        "Alice",
        "DELETE FROM task WHERE id = 'p'; INSERT INTO task VALUES ('z', NULL, 'other')",
    );
    assert_eq!(discard(&mut world, "a").unwrap().cancelling.len(), 1);
    world.run_until_quiet();
    let failed = "SELECT entity_id || ' ' || (last_error ->> '$.code') FROM syncline_outbox WHERE state = 'failed'";
    assert_eq!(world.rows("Alice", failed), ["a cancelled"]);
    assert!(world.on_server("task").contains_key("z"));
    let told = |notice: &&Notice| matches!(notice, Notice::MutationFailed { .. });
    assert_eq!(world.get("Alice").notices.iter().filter(told).count(), 1);
}
