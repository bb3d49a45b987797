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
