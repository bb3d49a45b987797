//! Stories of rows that a snapshot lacks while something of them is not settled here: what is held,
//! what was sent and has no answer, and what is about another copy's mutation.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline_core::{Notice, SyncOrder};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)";

/// Alice and Bob have these rows; Bob has deleted them since, and Alice does not know how far she was.
fn deleted_elsewhere(rows: &str) -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", &format!("INSERT INTO task VALUES {rows}"));
    world.run_until_quiet();
    world.offline("Alice");
    world.sql("Bob", "DELETE FROM task");
    world.sync("Bob");
    world.forget_cursor("Alice");
    world
}

/// A person says that what is held may go; how many rows went.
fn confirm(world: &mut World) -> u64 {
    let now = world.now();
    let store = world.get("Alice").engine().store();
    store.confirm_sweep("task", now).unwrap()
}

/// O1: the state under an edit of the last row is the server's as of the snapshot, like any other.
#[test]
fn the_last_row_is_deleted_on_both_sides_and_nothing_is_sent() {
    let mut world = deleted_elsewhere("('1', 'milk')");
    world.sql("Alice", "DELETE FROM task");
    world.online("Alice");
    world.run_until_quiet();
    world.assert_converged();
    let sent = world.batches("Alice").concat();
    assert!(sent.iter().all(|one| one.starts_with("Create")), "{sent:?}");
}

/// I3: what was pushed just before the snapshot began and is edited is held with the rest.
#[test]
fn an_edited_row_that_was_pushed_before_the_snapshot_is_held_with_the_others() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk'), ('2', 'bread')",
    );
    // Both are known to be there, and no page has told of them.
    world.offline_after("Alice", 3);
    world.sync("Alice");
    assert_eq!(world.on_server("task").len(), 2);
    world.sync("Bob");
    world.sql("Bob", "DELETE FROM task");
    world.sync("Bob");
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.online("Alice");
    world.pull_only("Alice");
    assert_eq!(world.status("Alice").held_removals["task"], 2);
    assert_eq!(confirm(&mut world), 2);
    world.run_until_quiet();
    world.assert_converged();
    assert!(world.on_server("task").is_empty());
}

/// What a copy of the file may have sent has to be asked about, held or not; only then it is decided.
#[test]
fn a_held_row_whose_edit_may_have_been_sent_stays_held_until_that_is_answered() {
    let mut world = deleted_elsewhere("('1', 'milk'), ('2', 'bread')");
    world.online("Alice");
    world.run_until_quiet();
    assert_eq!(world.status("Alice").held_removals["task"], 2);
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.sql(
        "Alice",
        "UPDATE syncline_outbox SET origin_client = (SELECT value FROM syncline_meta WHERE key = 'client_id')",
    );
    world.offline("Alice");
    assert_eq!(confirm(&mut world), 1, "the other one goes");
    assert_eq!(world.status("Alice").held_removals["task"], 1);
    world.online("Alice");
    world.run_until_quiet();
    let outbox = world.rows(
        "Alice",
        "SELECT op FROM syncline_outbox WHERE state <> 'failed'",
    );
    assert!(outbox.is_empty(), "it was asked: {outbox:?}");
}

/// F:S11: a create without an answer was done and deleted since; a snapshot told of the latter first.
#[test]
fn a_row_that_was_made_and_deleted_under_an_unanswered_create_leaves() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO task VALUES ('2', 'bread')");
    world.fault("Alice", Fault::LoseAnswer);
    world.sync("Alice");
    assert_eq!(world.on_server("task").len(), 2);
    world.offline("Alice");
    // Too long ago to be offered again.
    world.sql("Alice", "DELETE FROM syncline_journal");
    world.crash("Alice");
    let now = world.back_up_server("epoch-2");
    world.restore_server(now);
    world.run_until_quiet();
    world.sql("Bob", "DELETE FROM task");
    world.run_until_quiet();
    world.configure(|config| config.order = SyncOrder::PullThenPush);
    world.restart("Alice");
    world.online("Alice");
    world.run_until_quiet();
    let rows = world.rows("Alice", "SELECT id FROM task ORDER BY id");
    assert_eq!(rows, ["1"], "one is held, as after every change of history");
    assert_eq!(world.status("Alice").held_removals["task"], 1);
}

/// F:S12: an edit of a row whose create was answered as somebody else's, in the middle of a snapshot.
#[test]
fn a_row_that_was_pushed_during_a_snapshot_is_not_taken_for_deleted() {
    let mut world = World::new(SCHEMA);
    world.configure(|config| {
        config.page_changes = 1;
        config.push_mutations = 1;
    });
    world.device("Bob");
    world.sql(
        "Bob",
        "INSERT INTO task VALUES ('1', 'milk'), ('2', 'bread')",
    );
    world.device("Alice");
    world.run_until_quiet();
    // The first of two pages; what it has passed is not in the second one.
    world.forget_cursor("Alice");
    world.offline_after("Alice", 1);
    world.sync("Alice");
    let phase = world.rows("Alice", "SELECT phase FROM syncline_cursor");
    assert_eq!(phase, ["snapshot"]);
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('0', 'butter');
         UPDATE task SET title = 'salted butter' WHERE id = '0';
         UPDATE syncline_outbox SET lane = 2 WHERE op = 'update'",
    );
    for _ in 0..4 {
        world.fault("Alice", Fault::Repeat);
    }
    world.online("Alice");
    world.run_until_quiet();
    world.assert_converged();
    let told = |notice: &Notice| matches!(notice, Notice::ConflictOpened { .. });
    assert!(!world.get("Alice").notices.iter().any(told));
    let records = world.rows("Alice", "SELECT count(*) FROM syncline_conflict");
    assert_eq!(records, ["0"], "nobody has deleted it");
}

/// P5: what is deleted here as well is settled by the snapshot, although other rows are held.
#[test]
fn a_row_that_is_deleted_on_both_sides_is_settled_beside_held_ones() {
    let mut world = deleted_elsewhere("('1', 'milk'), ('2', 'bread')");
    world.sql("Alice", "DELETE FROM task WHERE id = '1'");
    world.online("Alice");
    world.pull_only("Alice");
    assert_eq!(world.status("Alice").held_removals["task"], 1);
    let left = world.rows("Alice", "SELECT op FROM syncline_outbox");
    assert!(left.is_empty(), "{left:?}");
}

/// F:S12: the removal that a person confirms is that of the row that was there.
#[test]
fn a_row_that_is_made_anew_under_the_id_of_a_held_one_stays() {
    let mut world = deleted_elsewhere("('1', 'milk'), ('2', 'bread')");
    world.online("Alice");
    world.run_until_quiet();
    assert_eq!(world.status("Alice").held_removals["task"], 2);
    world.sql(
        "Alice",
        "UPDATE task SET title = 'oat milk' WHERE id = '1';
         DELETE FROM task WHERE id = '1';
         INSERT INTO task VALUES ('1', 'butter')",
    );
    assert_eq!(confirm(&mut world), 1, "the other one goes");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT title FROM task"), ["butter"]);
}
