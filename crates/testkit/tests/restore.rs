//! Stories of a server that is restored from an older backup: what it lost of the mutations that it
//! had confirmed is offered again. Nothing is lost, nothing is done twice (I2, E1, E2).
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

#[path = "restore/more.rs"]
mod more;
#[path = "restore/pending.rs"]
mod pending;
#[path = "restore/random.rs"]
mod random;

use syncline::Notice;
use syncline_testkit::World;

const SCHEMA: &str =
    "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, note TEXT, done INTEGER)";

/// Alice and Bob, in sync over three tasks.
fn pair() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk', NULL, 0), ('2', 'bread', NULL, 0), ('3', 'tea', NULL, 0)",
    );
    world.run_until_quiet();
    world
}

/// Every task as id, title and note.
fn tasks(world: &mut World, name: &str) -> Vec<String> {
    let sql = "SELECT trim(id || ' ' || title || ' ' || coalesce(note, '')) FROM task ORDER BY id";
    world.rows(name, sql)
}

fn all_settled(world: &mut World, names: &[&str]) {
    world.run_until_quiet();
    world.run_until_quiet();
    world.assert_converged();
    for name in names {
        world.assert_equals_server(name);
        let status = world.status(name);
        let dead = status.outbox["failed"] + status.outbox["dead"];
        assert_eq!(dead, 0, "{name}: {status:?}");
        assert_eq!(status.open_conflicts, 0, "{name}: {status:?}");
        assert!(status.held_removals.is_empty(), "{name}: {status:?}");
    }
}

const BOTH: [&str; 2] = ["Alice", "Bob"];

#[test]
fn writes_of_two_devices_that_a_backup_lacks_come_back() {
    let mut world = pair();
    let backup = world.back_up_server("epoch-2");
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'; INSERT INTO task VALUES ('4', 'jam', NULL, 0)");
    world.run_until_quiet();
    world.sql(
        "Bob",
        "UPDATE task SET note = 'rye' WHERE id = '2'; DELETE FROM task WHERE id = '3'",
    );
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET title = 'soy milk' WHERE id = '1'");
    world.run_until_quiet();
    world.restore_server(backup);
    all_settled(&mut world, &BOTH);
    assert_eq!(
        tasks(&mut world, "Alice"),
        ["1 soy milk", "2 bread rye", "4 jam"]
    );
    for name in BOTH {
        let told = |n: &&Notice| **n == Notice::EpochChanged;
        let told = world.get(name).notices.iter().filter(told).count();
        assert_eq!(told, 1, "{name}: one reset");
        let again = |n: &Notice| *n == Notice::IdentityChanged;
        assert!(!world.get(name).notices.iter().any(again), "{name}");
    }
}

#[test]
fn what_the_backup_has_is_not_done_again_over_what_came_after_it() {
    let mut world = pair();
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.run_until_quiet();
    // Alice is away while Bob changes the same field; the backup has both writes.
    world.offline("Alice");
    world.sql("Bob", "UPDATE task SET title = 'soy milk' WHERE id = '1'");
    world.sync("Bob");
    let backup = world.back_up_server("epoch-2");
    world.restore_server(backup);
    world.online("Alice");
    all_settled(&mut world, &BOTH);
    assert_eq!(tasks(&mut world, "Alice")[0], "1 soy milk");
}

#[test]
fn what_another_device_overwrote_is_left_to_that_device() {
    for first in BOTH {
        let mut world = pair();
        let backup = world.back_up_server("epoch-2");
        world.sql(
            "Alice",
            "UPDATE task SET title = 'oat milk', note = 'two' WHERE id = '1'",
        );
        world.run_until_quiet();
        world.sql("Bob", "UPDATE task SET title = 'soy milk' WHERE id = '1'");
        world.run_until_quiet();
        world.restore_server(backup);
        world.sync(first);
        all_settled(&mut world, &BOTH);
        assert_eq!(tasks(&mut world, "Alice")[0], "1 soy milk two", "{first}");
    }
}

#[test]
fn a_delete_that_a_backup_lacks_is_done_again() {
    for first in BOTH {
        let mut world = pair();
        let backup = world.back_up_server("epoch-2");
        world.sql("Alice", "UPDATE task SET note = 'old' WHERE id = '1'");
        world.run_until_quiet();
        world.sql("Alice", "DELETE FROM task WHERE id = '1'");
        world.run_until_quiet();
        world.restore_server(backup);
        world.sync(first);
        all_settled(&mut world, &BOTH);
        assert_eq!(tasks(&mut world, "Bob"), ["2 bread", "3 tea"], "{first}");
    }
}

#[test]
fn a_row_that_was_deleted_and_made_again_is_the_new_one() {
    let mut world = pair();
    let backup = world.back_up_server("epoch-2");
    world.sql("Alice", "DELETE FROM task WHERE id = '1'");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'honey', NULL, 1)");
    world.run_until_quiet();
    world.restore_server(backup);
    all_settled(&mut world, &BOTH);
    assert_eq!(tasks(&mut world, "Bob")[0], "1 honey");
}

#[test]
fn an_edit_of_a_row_that_the_backup_lacks_waits_for_the_one_who_made_it() {
    let mut world = pair();
    let backup = world.back_up_server("epoch-2");
    world.sql("Bob", "INSERT INTO task VALUES ('9', 'jam', NULL, 0)");
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET note = 'plum' WHERE id = '9'");
    world.run_until_quiet();
    world.restore_server(backup);
    // Alice comes first: the server does not know the row yet.
    world.sync("Alice");
    world.settle("Alice");
    assert_eq!(tasks(&mut world, "Alice")[3], "9 jam plum");
    assert_eq!(world.status("Alice").held_removals["task"], 1);
    all_settled(&mut world, &BOTH);
    assert_eq!(tasks(&mut world, "Bob")[3], "9 jam plum");
}

#[test]
fn a_second_restore_is_taken_like_the_first() {
    let mut world = pair();
    let (first, second) = (
        world.back_up_server("epoch-2"),
        world.back_up_server("epoch-3"),
    );
    world.sql("Alice", "INSERT INTO task VALUES ('4', 'jam', NULL, 0); UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.run_until_quiet();
    world.restore_server(first);
    world.sync("Alice");
    world.crash("Alice");
    world.restart("Alice");
    world.restore_server(second);
    all_settled(&mut world, &BOTH);
    assert_eq!(
        tasks(&mut world, "Bob"),
        ["1 oat milk", "2 bread", "3 tea", "4 jam"]
    );
}

#[test]
fn what_is_kept_too_long_ago_or_not_at_all_is_not_offered() {
    let mut world = pair();
    let backup = world.back_up_server("epoch-2");
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.run_until_quiet();
    world.pass(100 * 24 * 3_600_000);
    world.restore_server(backup);
    all_settled(&mut world, &BOTH);
    assert_eq!(tasks(&mut world, "Alice")[0], "1 milk");
}
