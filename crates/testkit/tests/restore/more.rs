//! Commands, groups and ids that SQLite assigned; crashes; a server that does not know that it was
//! restored.

use super::{BOTH, all_settled, pair, tasks};
use std::collections::BTreeMap;
use syncline::Notice;
use syncline_server::{CommandConfig, ServerConfig, TypeConfig};
use syncline_testkit::{Fault, World};

/// Accounts with a command `withdraw`; Alice and Bob in sync over two of them.
fn bank() -> World {
    let withdraw = CommandConfig {
        add: BTreeMap::from([("balance".to_owned(), "-$amount".into())]),
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
    let schema = "CREATE TABLE account (id TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL)";
    let mut world = World::with_server(schema, config);
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", "INSERT INTO account VALUES ('a', 100), ('b', 100)");
    world.run_until_quiet();
    world
}

fn withdraw(world: &mut World, who: &str, amount: i64) {
    let sql = format!(
        "BEGIN IMMEDIATE;
         UPDATE account SET balance = balance - {amount} WHERE id = 'a';
         UPDATE syncline_outbox
            SET command = json_object('name', 'withdraw', 'args', json_object('amount', {amount}))
          WHERE seq = (SELECT max(seq) FROM syncline_outbox);
         COMMIT"
    );
    world.sql(who, &sql);
}

fn balances(world: &mut World, who: &str) -> Vec<String> {
    world.rows(who, "SELECT id || ' ' || balance FROM account ORDER BY id")
}

#[test]
fn commands_that_a_backup_lacks_are_carried_out_again_and_the_others_are_not() {
    for first in BOTH {
        let mut world = bank();
        withdraw(&mut world, "Alice", 1);
        world.run_until_quiet();
        withdraw(&mut world, "Bob", 2);
        world.run_until_quiet();
        let backup = world.back_up_server("epoch-2");
        withdraw(&mut world, "Alice", 10);
        world.run_until_quiet();
        withdraw(&mut world, "Bob", 20);
        world.run_until_quiet();
        world.restore_server(backup);
        world.sync(first);
        all_settled(&mut world, &BOTH);
        assert_eq!(balances(&mut world, "Alice"), ["a 67", "b 100"], "{first}");
    }
}

#[test]
fn a_group_that_a_backup_lacks_comes_back_as_a_whole() {
    for fault in [None, Some(Fault::LoseAnswer)] {
        let mut world = bank();
        let backup = world.back_up_server("epoch-2");
        world.sql(
            "Alice",
            "BEGIN IMMEDIATE;
             UPDATE account SET balance = 70 WHERE id = 'a';
             UPDATE account SET balance = 130 WHERE id = 'b';
             UPDATE syncline_outbox SET group_id = 'transfer';
             COMMIT",
        );
        world.run_until_quiet();
        world.restore_server(backup);
        world.sync("Bob");
        if let Some(fault) = fault {
            world.fault("Alice", fault);
        }
        all_settled(&mut world, &BOTH);
        assert_eq!(balances(&mut world, "Bob"), ["a 70", "b 130"]);
        let groups = world.rows(
            "Alice",
            "SELECT group_id FROM syncline_journal WHERE op = 'update'",
        );
        assert_eq!(
            groups,
            ["transfer", "transfer"],
            "it was offered as a group"
        );
    }
}

#[test]
fn a_crash_amid_the_offering_or_a_lost_request_costs_nothing() {
    for faults in 0..12 {
        let mut world = pair();
        let backup = world.back_up_server("epoch-2");
        world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'; INSERT INTO task VALUES ('4', 'jam', NULL, 0); DELETE FROM task WHERE id = '3'");
        world.run_until_quiet();
        world.sql("Alice", "UPDATE task SET note = 'plum' WHERE id = '4'; UPDATE task SET title = 'soy milk' WHERE id = '1'");
        world.run_until_quiet();
        world.restore_server(backup);
        // The first requests go through (twice, which is all the same), the next is lost on its way
        // there or back, and then the power.
        for _ in 0..faults / 2 {
            world.fault("Alice", Fault::Repeat);
        }
        let lost = [Fault::LoseRequest, Fault::LoseAnswer][faults % 2].clone();
        world.fault("Alice", lost);
        world.sync("Alice");
        world.crash("Alice");
        world.restart("Alice");
        all_settled(&mut world, &BOTH);
        let expected = ["1 soy milk", "2 bread", "4 jam plum"];
        assert_eq!(tasks(&mut world, "Bob"), expected, "{faults}");
    }
}

const ASSIGNED: &str = "
    CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT, project INTEGER REFERENCES project(id));";

/// A project with a task in it, with the ids that SQLite gives them.
fn project(world: &mut World, who: &str, name: &str) {
    world.sql(
        who,
        &format!(
            "BEGIN IMMEDIATE;
             INSERT INTO project (name) VALUES ('{name}');
             INSERT INTO task (title, project) VALUES ('task of {name}', last_insert_rowid());
             COMMIT"
        ),
    );
}

/// The restored server gives the ids of lost rows to others: each row is there once all the same,
/// with what belongs to it.
#[test]
fn rows_with_assigned_ids_come_back_beside_those_that_have_their_ids_now() {
    for first in [BOTH, ["Bob", "Alice"]] {
        let mut world = World::new(ASSIGNED);
        world.device("Alice");
        world.device("Bob");
        project(&mut world, "Alice", "house");
        world.run_until_quiet();
        let backup = world.back_up_server("epoch-2");
        // Bob's rows get other ids than he gave them, since Alice was first.
        project(&mut world, "Alice", "garden");
        project(&mut world, "Bob", "cellar");
        world.run_until_quiet();
        world.sql(
            "Bob",
            "UPDATE task SET title = 'dig' WHERE title = 'task of cellar'",
        );
        world.run_until_quiet();
        world.restore_server(backup);
        // Somebody new takes the ids that are free again.
        world.device("Carol");
        world.sync("Carol");
        project(&mut world, "Carol", "roof");
        world.sync("Carol");
        for name in first {
            world.sync(name);
        }
        all_settled(&mut world, &["Alice", "Bob", "Carol"]);
        let sql =
            "SELECT name || ': ' || title FROM task JOIN project p ON p.id = project ORDER BY 1";
        let expected = [
            "cellar: dig",
            "garden: task of garden",
            "house: task of house",
            "roof: task of roof",
        ];
        for name in ["Alice", "Bob", "Carol"] {
            assert_eq!(world.rows(name, sql), expected, "{first:?}: {name}");
        }
    }
}

#[test]
fn a_server_that_does_not_know_that_it_was_restored_finds_out_and_gets_everything_again() {
    for write in [false, true] {
        let mut world = pair();
        let backup = world.copy_server();
        world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'; INSERT INTO task VALUES ('4', 'jam', NULL, 0)");
        world.run_until_quiet();
        world.restore_server(backup);
        if write {
            world.sql("Alice", "UPDATE task SET note = 'plum' WHERE id = '4'; UPDATE task SET note = 'one' WHERE id = '1'");
        }
        all_settled(&mut world, &BOTH);
        let expected = match write {
            true => ["1 oat milk one", "2 bread", "3 tea", "4 jam plum"],
            false => ["1 oat milk", "2 bread", "3 tea", "4 jam"],
        };
        assert_eq!(tasks(&mut world, "Bob"), expected);
    }
}

/// The history changes after the greeting and before the first page, which comes without a cursor.
#[test]
fn a_server_restored_between_the_greeting_and_the_first_page_is_greeted_again() {
    let mut world = pair();
    world.device("Carol");
    // The greeting, and what the tables look like.
    world.offline_after("Carol", 2);
    world.sync("Carol");
    assert_eq!(world.rows("Carol", "SELECT count(*) FROM task"), ["0"]);
    let backup = world.back_up_server("epoch-2");
    world.restore_server(backup);
    world.online("Carol");
    world.run_until_quiet();
    let epochs = "SELECT epoch || ' ' || (SELECT value FROM syncline_meta WHERE key = 'epoch') FROM syncline_cursor";
    assert_eq!(world.rows("Carol", epochs), ["epoch-2 epoch-2"]);
    assert!(world.get("Carol").notices.contains(&Notice::EpochChanged));
    // What she writes is based on the history that she has.
    world.sql("Carol", "UPDATE task SET note = 'two' WHERE id = '2'");
    all_settled(&mut world, &["Alice", "Bob", "Carol"]);
    let conflicts = "SELECT count(*) FROM syncline_conflict";
    assert_eq!(world.rows("Carol", conflicts), ["0"]);
}
