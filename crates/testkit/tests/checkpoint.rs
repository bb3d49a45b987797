//! Stories of checkpoint mode: what others wrote together is seen together.
#![allow(clippy::unwrap_used)] // helpers of tests

use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use syncline::{Checkpoint, Notice, Policy};
use syncline_server::{CommandConfig, ServerConfig, TypeConfig};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE account (id TEXT PRIMARY KEY NOT NULL, cents INTEGER NOT NULL, note TEXT);
    CREATE TABLE entry (id TEXT PRIMARY KEY NOT NULL, account TEXT NOT NULL REFERENCES account(id), cents INTEGER);";

const ROOMY: Checkpoint = Checkpoint {
    changes: 1_000,
    bytes: 1 << 20,
};

/// Alice has ten accounts with a hundred each. Bob pulls in checkpoint mode, two changes a page.
fn bank() -> World {
    let mut world = World::new(SCHEMA);
    world.configure(|config| config.page_changes = 2);
    world.device("Alice");
    world.checkpoint(Some(ROOMY));
    world.device("Bob");
    for n in 0..10 {
        let sql = format!(
            "INSERT INTO account VALUES ('a{n}', 100, NULL); INSERT INTO entry VALUES ('e{n}', 'a{n}', 100)"
        );
        world.sql("Alice", &sql);
    }
    world.sync("Alice");
    world
}

/// A transfer from each account to the next, in one transaction; the sum stays.
fn shift(world: &mut World, by: i64) {
    let mut sql = "BEGIN;".to_owned();
    for n in 0..10 {
        let to = (n + 1) % 10;
        sql += &format!(
            "UPDATE account SET cents = cents - {n} * {by} WHERE id = 'a{n}';
             UPDATE account SET cents = cents + {n} * {by} WHERE id = 'a{to}';"
        );
    }
    world.sql("Alice", &(sql + "COMMIT"));
    world.sync("Alice");
}

/// What another connection sees of a device's tables at each moment of each unit of work.
fn polled(world: &mut World, name: &str) -> Arc<Mutex<BTreeSet<String>>> {
    let (path, seen) = (world.path(name), Arc::new(Mutex::new(BTreeSet::new())));
    let kept = Arc::clone(&seen);
    world.crash(name);
    world.restart_watched(
        name,
        Arc::new(move |_, _| {
            let sql = "SELECT count(*) || ' accounts, ' || coalesce(sum(cents), 0) || ' cents, ' ||
                              (SELECT count(*) FROM entry) || ' entries, first ' || coalesce(max(cents), 0) FROM account";
            let conn = Connection::open(&path).unwrap();
            let now = conn.query_row(sql, [], |row| row.get(0)).unwrap();
            kept.lock().unwrap().insert(now);
        }),
    );
    seen
}

#[test]
fn another_connection_sees_old_or_new_and_never_a_mix() {
    let mut world = bank();
    let seen = polled(&mut world, "Bob");
    world.sync("Bob");
    shift(&mut world, 7);
    world.sync("Bob");
    let seen: Vec<String> = seen.lock().unwrap().iter().cloned().collect();
    let expected = [
        "0 accounts, 0 cents, 0 entries, first 0",
        "10 accounts, 1000 cents, 10 entries, first 100",
        "10 accounts, 1000 cents, 10 entries, first 163",
    ];
    // The account that most came to loses what the ninth gives away.
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(seen[..2], expected[..2]);
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn a_pull_that_is_cut_off_after_each_page_goes_on_where_it_was() {
    let mut world = bank();
    let empty = ["0"];
    let mut staged = Vec::new();
    for _ in 0..4 {
        world.offline_after("Bob", 3);
        world.sync("Bob");
        world.crash("Bob");
        world.online("Bob");
        world.restart("Bob");
        assert_eq!(world.rows("Bob", "SELECT count(*) FROM account"), empty);
        staged.push(world.rows("Bob", "SELECT staged FROM syncline_status")[0].parse::<i64>());
    }
    assert!(
        staged.is_sorted_by(|a, b| a.as_ref().unwrap() < b.as_ref().unwrap()),
        "{staged:?}"
    );
    let before = world.traffic("Bob").requests;
    world.run_until_quiet();
    world.assert_converged();
    let pages = world.traffic("Bob").requests - before;
    assert!(pages < 10, "{pages}: it did not begin again");
}

#[test]
fn a_row_that_was_edited_meanwhile_is_decided_with_all_the_others() {
    let mut world = bank();
    world.sync("Bob");
    shift(&mut world, 3);
    world.sql(
        "Bob",
        "UPDATE account SET note = 'mine' WHERE id = 'a5'; UPDATE entry SET cents = 7 WHERE id = 'e1'",
    );
    let seen = polled(&mut world, "Bob");
    world.sync("Bob");
    let seen: Vec<String> = seen.lock().unwrap().iter().cloned().collect();
    // The server refuses the edit of the account and shows its state; that too waits for the rest.
    assert_eq!(seen.len(), 2, "{seen:?}");
    let status = world.status("Bob");
    assert_eq!(
        (status.staged, status.inbox, status.open_conflicts),
        (0, 0, 0)
    );
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT note FROM account WHERE id = 'a5'"),
        ["mine"]
    );
    assert_eq!(
        world.rows("Alice", "SELECT cents FROM entry WHERE id = 'e1'"),
        ["7"]
    );
}

#[test]
fn more_than_may_be_staged_arrives_all_the_same() {
    let mut world = bank();
    world.checkpoint(Some(Checkpoint {
        changes: 6,
        ..ROOMY
    }));
    let seen = polled(&mut world, "Bob");
    world.sync("Bob");
    let told = |n: &Notice| matches!(n, Notice::CheckpointSplit { changes: 6 });
    let notices = &world.get("Bob").notices;
    assert_eq!(notices.iter().filter(|n| told(n)).count(), 2, "{notices:?}");
    assert_eq!(seen.lock().unwrap().len(), 4, "{seen:?}");
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn an_expired_cursor_and_another_history_are_taken_as_a_whole_too() {
    let mut world = bank();
    world.sync("Bob");
    world.sql("Alice", "DELETE FROM entry WHERE id = 'e4'");
    shift(&mut world, 2);
    world.forget_cursor("Bob");
    let seen = polled(&mut world, "Bob");
    world.sync("Bob");
    assert_eq!(seen.lock().unwrap().len(), 2, "{seen:?}");
    world.run_until_quiet();
    world.assert_converged();

    world.device_with("Carol", Policy::default());
    let seen = polled(&mut world, "Carol");
    world.sync("Carol");
    assert_eq!(seen.lock().unwrap().len(), 2, "{seen:?}");
}

/// Two accounts with a hundred each, and the command `withdraw`. Alice moves thirty from the first to the second
/// in one transaction, of which Bob, who pulls in checkpoint mode, has seen nothing yet.
fn transfer() -> World {
    let withdraw = CommandConfig {
        add: BTreeMap::from([("cents".to_owned(), "-$amount".into())]),
        ..CommandConfig::default()
    };
    let account = TypeConfig {
        commands: BTreeMap::from([("withdraw".to_owned(), withdraw)]),
        ..TypeConfig::default()
    };
    let config = ServerConfig {
        types: BTreeMap::from([("account".to_owned(), account)]),
        ..ServerConfig::default()
    };
    let mut world = World::with_server(SCHEMA, config);
    world.device("Alice");
    world.checkpoint(Some(ROOMY));
    world.device("Bob");
    world.sql(
        "Alice",
        "INSERT INTO account (id, cents) VALUES ('a', 100), ('b', 100)",
    );
    world.run_until_quiet();
    move_thirty(&mut world);
    world
}

/// Bob withdraws ten from the first account.
fn withdraw(world: &mut World) {
    world.sql(
        "Bob",
        "BEGIN IMMEDIATE;
         UPDATE account SET cents = cents - 10 WHERE id = 'a';
         UPDATE syncline_outbox SET command = json_object('name', 'withdraw', 'args', json_object('amount', 10))
          WHERE seq = (SELECT max(seq) FROM syncline_outbox);
         COMMIT",
    );
}

const BOTH: &str = "SELECT id || cents || coalesce(note, '') FROM account ORDER BY id";

/// A command is carried out on whatever the server has, so that its answer shows what others wrote there.
#[test]
fn what_a_command_was_carried_out_on_is_seen_with_the_rest_of_it() {
    let mut world = transfer();
    withdraw(&mut world);
    let seen = polled(&mut world, "Bob");
    world.sync("Bob");
    let seen: Vec<String> = seen.lock().unwrap().iter().cloned().collect();
    let expected = [
        "2 accounts, 190 cents, 0 entries, first 100",
        "2 accounts, 190 cents, 0 entries, first 130",
    ];
    assert_eq!(seen, expected);
    assert_eq!(world.status("Bob").inbox, 0);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", BOTH), ["a60", "b130"]);
}

#[test]
fn writes_that_were_sent_behind_a_command_are_laid_over_what_it_came_to() {
    let edits = [
        ("UPDATE account SET note = 'mine' WHERE id = 'a'", "a50mine"),
        (
            "DELETE FROM account WHERE id = 'a'; INSERT INTO account VALUES ('a', 7, 'new')",
            "a7new",
        ),
    ];
    for (edit, came_to) in edits {
        for fault in [None, Some(Fault::LoseAnswer), Some(Fault::Repeat)] {
            let mut world = transfer();
            withdraw(&mut world);
            withdraw(&mut world);
            world.sql("Bob", edit);
            if let Some(fault) = fault {
                world.fault("Bob", fault);
            }
            world.run_until_quiet();
            world.assert_converged();
            assert_eq!(world.rows("Bob", BOTH), [came_to, "b130"]);
            assert_eq!(world.status("Bob").open_conflicts, 0);
        }
    }
}

#[test]
fn writes_that_follow_a_command_wait_until_what_it_came_to_shows() {
    let mut world = transfer();
    withdraw(&mut world);
    world.hold_push("Bob");
    world.sql("Bob", "UPDATE account SET note = 'mine' WHERE id = 'a'");
    // Only the answer arrives, no page after it.
    world.offline("Bob");
    world.release("Bob");
    world.sql("Bob", "UPDATE account SET note = 'ours' WHERE id = 'a'");
    assert_eq!(world.rows("Bob", BOTH), ["a90ours", "b100"]);
    let waits = "SELECT waits_for FROM syncline_pending";
    assert_eq!(world.rows("Bob", waits), ["inbox"; 2]);
    world.online("Bob");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", BOTH), ["a60ours", "b130"]);
    assert_eq!(world.status("Bob").open_conflicts, 0);
}

/// Alice moves thirty from the first account to the second, in one transaction.
fn move_thirty(world: &mut World) {
    world.sql(
        "Alice",
        "BEGIN; UPDATE account SET cents = cents - 30 WHERE id = 'a';
         UPDATE account SET cents = cents + 30 WHERE id = 'b'; COMMIT",
    );
    world.sync("Alice");
}

#[test]
fn what_a_command_that_is_offered_again_was_carried_out_on_waits_as_well() {
    let mut world = transfer();
    world.run_until_quiet();
    let backup = world.back_up_server("epoch-2");
    withdraw(&mut world);
    world.sync("Bob");
    world.restore_server(backup);
    world.hold_push("Bob");
    move_thirty(&mut world);
    // Only the answer arrives, no page after it.
    world.offline("Bob");
    world.release("Bob");
    assert_eq!(world.rows("Bob", BOTH), ["a60", "b130"]);
    world.online("Bob");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", BOTH), ["a30", "b160"]);
}
