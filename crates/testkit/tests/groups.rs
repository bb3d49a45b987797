//! Stories of groups: what was written together takes effect together, or not at all.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use syncline_server::{CommandConfig, ServerConfig, TypeConfig};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE account (id TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL);
    CREATE TABLE transfer (id TEXT PRIMARY KEY NOT NULL, source TEXT REFERENCES account(id),
                           target TEXT REFERENCES account(id), amount INTEGER);";

/// A server on which no balance is negative.
fn bank() -> World {
    let schema = serde_json::json!({ "properties": { "balance": { "minimum": 0 } } });
    let types = BTreeMap::from([
        ("transfer".to_owned(), TypeConfig::default()),
        (
            "account".to_owned(),
            TypeConfig {
                schema: Some(schema),
                ..TypeConfig::default()
            },
        ),
    ]);
    let mut world = World::with_server(
        SCHEMA,
        ServerConfig {
            types,
            ..ServerConfig::default()
        },
    );
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", "INSERT INTO account VALUES ('a', 10), ('b', 0)");
    world.run_until_quiet();
    world
}

/// Alice moves money, in one group.
fn transfer(world: &mut World, id: &str, amount: i64) {
    world.sql(
        "Alice",
        &format!(
            "BEGIN IMMEDIATE;
             CREATE TEMP TABLE IF NOT EXISTS before AS SELECT 0 AS seq;
             UPDATE before SET seq = (SELECT coalesce(max(seq), 0) FROM syncline_outbox);
             UPDATE account SET balance = balance - {amount} WHERE id = 'a';
             UPDATE account SET balance = balance + {amount} WHERE id = 'b';
             INSERT INTO transfer VALUES ('{id}', 'a', 'b', {amount});
             UPDATE syncline_outbox SET group_id = '{id}' WHERE seq > (SELECT seq FROM before);
             COMMIT"
        ),
    );
}

fn balances(world: &World) -> Vec<String> {
    let accounts = world.on_server("account");
    accounts
        .values()
        .map(|fields| serde_json::to_string(fields.get("balance").unwrap()).unwrap())
        .collect()
}

#[test]
fn a_group_arrives_as_a_whole() {
    let mut world = bank();
    transfer(&mut world, "t1", 4);
    let before = world.batches("Alice").len();
    world.run_until_quiet();
    assert_eq!(world.batches("Alice")[before].len(), 3);
    assert_eq!(balances(&world), ["6", "4"]);
    world.assert_converged();
}

#[test]
fn a_group_with_one_refused_member_does_nothing() {
    let mut world = bank();
    transfer(&mut world, "t1", 40);
    world.sql("Alice", "INSERT INTO account VALUES ('c', 1)");
    world.run_until_quiet();
    assert_eq!(balances(&world), ["10", "0", "1"], "only what is not of it");
    assert!(world.on_server("transfer").is_empty());
    let status = world.status("Alice");
    assert_eq!((status.outbox["failed"], status.outbox["pending"]), (1, 2));
}

#[test]
fn a_lost_answer_to_a_group_doubles_nothing() {
    let mut world = bank();
    transfer(&mut world, "t1", 4);
    world.fault("Alice", Fault::LoseAnswer);
    world.run_until_quiet();
    assert_eq!(balances(&world), ["6", "4"]);
    world.assert_converged();
}

#[test]
fn a_conflict_in_a_group_is_decided_and_the_whole_group_goes_again() {
    let mut world = bank();
    world.sql("Bob", "UPDATE account SET balance = 5 WHERE id = 'b'");
    world.sync("Bob");
    transfer(&mut world, "t1", 4);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("transfer").len(), 1);
    assert_eq!(balances(&world)[0], "6");
}

#[test]
fn a_group_beyond_the_servers_limit_fails_as_a_whole_and_blocks_nothing() {
    let mut world = bank();
    world.sql(
        "Alice",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
         INSERT INTO account SELECT 'big' || i, 1 FROM n;
         UPDATE syncline_outbox SET group_id = 'big';
         INSERT INTO account VALUES ('small', 1)",
    );
    world.run_until_quiet();
    let status = world.status("Alice");
    assert_eq!(
        (status.outbox["failed"], status.outbox["pending"]),
        (600, 0)
    );
    assert_eq!(world.on_server("account").len(), 3);
}

#[test]
fn a_group_is_not_split_when_batches_are_small() {
    let mut world = bank();
    world.configure(|config| config.push_mutations = 2);
    world.device("Carol");
    world.run_until_quiet();
    world.sql(
        "Carol",
        "BEGIN IMMEDIATE;
         UPDATE account SET balance = 1;
         INSERT INTO transfer VALUES ('x', 'a', 'b', 1);
         UPDATE syncline_outbox SET group_id = 'x';
         COMMIT",
    );
    let before = world.batches("Carol").len();
    world.sync("Carol");
    assert_eq!(world.batches("Carol")[before].len(), 3);
    world.run_until_quiet();
    world.assert_converged();
}

/// A change waits for the answer to a mutation that may have been sent; when its group comes to nothing
/// because of another member, nothing is left to wait for.
#[test]
fn a_change_that_waited_for_a_group_that_came_to_nothing_is_taken() {
    let mut world = bank();
    world.poison("Alice", "stuck");
    transfer(&mut world, "stuck", 4);
    world.sync("Alice");
    world.sql("Bob", "UPDATE account SET balance = balance + 1");
    world.sync("Bob");
    world.sync("Alice");
    let waiting = "SELECT count(*) FROM syncline_inbox WHERE waits_for = 'answer'";
    assert_eq!(world.rows("Alice", waiting), ["2"]);
    world.heal("Alice");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Alice", waiting), ["0"]);
    assert!(
        world
            .rows("Alice", "SELECT seq FROM syncline_outbox")
            .is_empty()
    );
}

/// What follows a member that was skipped for good was sent as well, in a push that failed as a whole.
/// It had no effect either, so that nothing waits for its answer.
#[test]
fn what_follows_a_group_that_came_to_nothing_is_written_anew_with_it() {
    let mut world = bank();
    world.poison("Alice", "first");
    transfer(&mut world, "first", 1);
    transfer(&mut world, "later", 2);
    world.sync("Alice");
    world.sql("Bob", "UPDATE account SET balance = balance + 1");
    world.sync("Bob");
    world.sync("Alice");
    let waiting = "SELECT count(*) FROM syncline_inbox WHERE waits_for = 'answer'";
    assert_eq!(world.rows("Alice", waiting), ["2"]);
    world.heal("Alice");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("transfer").len(), 2);
    assert_eq!(world.rows("Alice", waiting), ["0"]);
}

/// Two creates of one id are nobody's to merge: the group waits for a person, and the server is not asked
/// again and again.
#[test]
fn a_row_that_both_sides_created_waits_for_a_person_although_a_group_has_it() {
    let mut world = bank();
    world.offline("Alice");
    world.sql("Alice", "INSERT INTO account VALUES ('c', 5)");
    world.sql(
        "Alice",
        "UPDATE account SET balance = balance - 1 WHERE id IN ('a', 'c');
         UPDATE syncline_outbox SET group_id = 'g' WHERE op = 'update'",
    );
    world.sql("Bob", "INSERT INTO account VALUES ('c', 7)");
    world.sync("Bob");
    world.online("Alice");
    let before = world.traffic("Alice").pushes;
    world.sync("Alice");
    assert!(world.traffic("Alice").pushes - before < 10);
    assert_eq!(world.status("Alice").open_conflicts, 1);
}

/// Two places; Alice withdraws from an account and closes the place to which Bob moves that account, in one group.
fn close_a_place_behind_a_command(on_delete: &str) -> World {
    let schema = format!(
        "CREATE TABLE place (id TEXT PRIMARY KEY NOT NULL, name TEXT);
         CREATE TABLE account (id TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL,
                               place TEXT REFERENCES place(id) ON DELETE {on_delete});"
    );
    let withdraw = CommandConfig {
        add: BTreeMap::from([("balance".to_owned(), "-$amount".into())]),
        ..CommandConfig::default()
    };
    let account = TypeConfig {
        commands: BTreeMap::from([("withdraw".to_owned(), withdraw)]),
        ..TypeConfig::default()
    };
    let types = [
        ("account".to_owned(), account),
        ("place".to_owned(), TypeConfig::default()),
    ];
    let config = ServerConfig {
        types: BTreeMap::from(types),
        ..ServerConfig::default()
    };
    let mut world = World::with_server(&schema, config);
    world.device("Alice");
    world.device("Bob");
    let rows = "INSERT INTO place VALUES ('north', 'N'), ('south', 'S');
                INSERT INTO account VALUES ('a', 10, 'north')";
    world.sql("Alice", rows);
    world.run_until_quiet();
    world.sql("Bob", "UPDATE account SET place = 'south'");
    world.sync("Bob");
    world.sql(
        "Alice",
        "BEGIN IMMEDIATE;
         UPDATE account SET balance = balance - 3;
         UPDATE syncline_outbox
            SET command = json_object('name', 'withdraw', 'args', json_object('amount', 3));
         DELETE FROM place WHERE id = 'south';
         UPDATE syncline_outbox SET group_id = 'closing';
         COMMIT",
    );
    world
}

#[test]
fn a_group_of_a_command_and_a_deletion_does_not_wait_for_the_row_that_others_moved_there() {
    for (on_delete, left) in [("SET NULL", vec!["7|-"]), ("CASCADE", vec![])] {
        let mut world = close_a_place_behind_a_command(on_delete);
        world.run_until_quiet();
        world.assert_converged();
        for who in ["Alice", "Bob"] {
            assert_eq!(world.rows(who, "SELECT id FROM place"), ["north"]);
            assert_eq!(
                world.rows(
                    who,
                    "SELECT balance || '|' || coalesce(place, '-') FROM account"
                ),
                left
            );
            assert_eq!(world.rows(who, "SELECT * FROM syncline_inbox"), [""; 0]);
        }
    }
}
