//! Stories of commands and of fields that the server sets: the server decides, on whatever it has.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use syncline_server::{CommandConfig, FieldConfig, ServerConfig, ServerSet, TypeConfig};
use syncline_store::conflict::Choice;
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE account (id TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL, note TEXT, changed_by TEXT);";

/// Balances never fall below 0, and only the command `withdraw` is known.
fn bank() -> World {
    let withdraw = CommandConfig {
        args: Some(serde_json::json!({ "required": ["amount"] })),
        add: BTreeMap::from([("balance".to_owned(), "-$amount".into())]),
        ..CommandConfig::default()
    };
    let changed_by = FieldConfig {
        set: Some(ServerSet::Subject),
        read_only: false,
    };
    let account = TypeConfig {
        schema: Some(serde_json::json!({ "properties": { "balance": { "minimum": 0 } } })),
        commands: BTreeMap::from([("withdraw".to_owned(), withdraw)]),
        fields: BTreeMap::from([("changed_by".to_owned(), changed_by)]),
        ..TypeConfig::default()
    };
    let config = ServerConfig {
        types: BTreeMap::from([("account".to_owned(), account)]),
        ..ServerConfig::default()
    };
    let mut world = World::with_server(SCHEMA, config);
    world.device("Alice");
    world.device("Bob");
    world.sql(
        "Alice",
        "INSERT INTO account (id, balance) VALUES ('a', 10)",
    );
    world.run_until_quiet();
    world
}

/// The app shows the effect at once on its only row and records what is meant.
fn command(world: &mut World, who: &str, name: &str, amount: i64) {
    world.sql(
        who,
        &format!(
            "BEGIN IMMEDIATE;
             UPDATE account SET balance = balance - {amount};
             UPDATE syncline_outbox
                SET command = json_object('name', '{name}', 'args', json_object('amount', {amount}))
              WHERE seq = (SELECT max(seq) FROM syncline_outbox);
             COMMIT"
        ),
    );
}

fn balance(world: &mut World, who: &str) -> String {
    world.rows(who, "SELECT balance FROM account").remove(0)
}

#[test]
fn what_two_devices_withdraw_offline_is_withdrawn_twice() {
    let mut world = bank();
    command(&mut world, "Alice", "withdraw", 3);
    command(&mut world, "Bob", "withdraw", 4);
    assert_eq!(balance(&mut world, "Alice"), "7", "shown at once");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(balance(&mut world, "Alice"), "3");
}

#[test]
fn a_command_whose_answer_is_lost_is_carried_out_once() {
    let mut world = bank();
    command(&mut world, "Alice", "withdraw", 3);
    world.fault("Alice", Fault::LoseAnswer);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(balance(&mut world, "Bob"), "7");
}

#[test]
fn several_commands_on_one_row_are_each_carried_out() {
    let mut world = bank();
    for amount in 1..=3 {
        command(&mut world, "Alice", "withdraw", amount);
    }
    world.sql("Bob", "UPDATE account SET note = 'hers'");
    world.sync("Bob");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(balance(&mut world, "Bob"), "4");
    assert_eq!(world.rows("Alice", "SELECT note FROM account"), ["hers"]);
}

#[test]
fn an_edit_behind_a_command_survives_what_the_command_came_to() {
    let mut world = bank();
    command(&mut world, "Alice", "withdraw", 3);
    command(&mut world, "Bob", "withdraw", 1);
    world.sync("Bob");
    world.fault("Alice", Fault::Hold);
    world.sync("Alice");
    world.sql("Alice", "UPDATE account SET note = 'groceries'");
    world.release("Alice");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT note FROM account"), ["groceries"]);
    assert_eq!(balance(&mut world, "Bob"), "6");
}

#[test]
fn a_command_that_the_server_refuses_waits_for_a_person() {
    let mut world = bank();
    command(&mut world, "Alice", "withdraw", 30);
    world.run_until_quiet();
    assert_eq!(world.status("Alice").outbox["failed"], 1);
    let seq = world.rows("Alice", "SELECT seq FROM syncline_outbox");
    let now = world.now();
    let seq = seq[0].parse().unwrap();
    world
        .get("Alice")
        .engine()
        .store()
        .discard(seq, now)
        .unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(balance(&mut world, "Alice"), "10", "taken back");
}

#[test]
fn an_unknown_command_fails_and_changes_nothing() {
    let mut world = bank();
    command(&mut world, "Alice", "print_money", 3);
    world.run_until_quiet();
    let code = "SELECT json_extract(last_error, '$.code') FROM syncline_outbox";
    assert_eq!(world.rows("Alice", code), ["unknown-command"]);
    assert_eq!(balance(&mut world, "Bob"), "10");
}

#[test]
fn fields_that_the_server_sets_come_back_with_the_answer() {
    let mut world = bank();
    world.sql(
        "Alice",
        "UPDATE account SET note = 'x', changed_by = 'a liar'",
    );
    world.sync("Alice");
    let changed_by = "SELECT changed_by FROM account";
    assert_eq!(world.rows("Alice", changed_by), ["somebody"]);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", changed_by), ["somebody"]);
}

/// Also into a row of which another column, without a default, was edited meanwhile.
#[test]
fn fields_that_the_server_sets_come_back_beside_what_was_edited_meanwhile() {
    let mut world = bank();
    world.sql(
        "Alice",
        "UPDATE account SET note = 'x', changed_by = 'a liar'",
    );
    world.hold_push("Alice");
    world.sql("Alice", "UPDATE account SET balance = 9");
    // Only the answer arrives, no page after it.
    world.offline("Alice");
    world.release("Alice");
    let row = "SELECT balance || note || changed_by FROM account";
    assert_eq!(world.rows("Alice", row), ["9xsomebody"]);
    world.online("Alice");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", row), ["9xsomebody"]);
}

/// F:S12: a person who decides for the row that is here decides for each of the commands on it.
#[test]
fn commands_on_a_row_that_both_made_are_all_carried_out_when_a_person_keeps_it() {
    let mut world = bank();
    for (who, balance) in [("Alice", 20), ("Bob", 10)] {
        let sql = format!(
            "DELETE FROM account; INSERT INTO account (id, balance) VALUES ('b', {balance})"
        );
        world.sql(who, &sql);
    }
    for amount in [3, 4] {
        command(&mut world, "Bob", "withdraw", amount);
    }
    world.sync("Alice");
    world.sync("Bob");
    let open = world.rows(
        "Bob",
        "SELECT id FROM syncline_conflict WHERE resolved_at IS NULL",
    );
    let (id, now) = (open[0].parse().unwrap(), world.now());
    let store = world.get("Bob").engine().store();
    store.resolve_conflict(id, &Choice::Mine, now).unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(balance(&mut world, "Bob"), "13");
}
