//! Stories of a bad network: nothing is lost, nothing is doubled.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::time::Duration;
use syncline::rusqlite::Connection;
use syncline::{CycleEnd, Notice, Reason};
use syncline_core::{Input, RemoteError};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER)";

fn two_devices() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world
}

#[test]
fn what_one_device_writes_the_other_sees() {
    let mut world = two_devices();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk', 0), ('2', 'bread', 0)",
    );
    world.sql("Bob", "INSERT INTO task VALUES ('3', 'butter', 1)");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Bob", "SELECT title FROM task ORDER BY id"),
        ["milk", "bread", "butter"]
    );
    world.sql(
        "Bob",
        "DELETE FROM task WHERE id = '1'; UPDATE task SET done = 1 WHERE id = '2'",
    );
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT id || done FROM task ORDER BY id"),
        ["21", "31"]
    );
}

#[test]
fn a_lost_answer_is_settled_by_sending_the_same_again() {
    let mut world = two_devices();
    world.sync("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.fault("Alice", Fault::LoseAnswer);
    world.sync("Alice");
    assert_eq!(world.status("Alice").outbox["pending"], 1);
    world.run_until_quiet();
    world.assert_converged();
    let duplicates: u64 = world
        .get("Alice")
        .notices
        .iter()
        .map(|notice| match notice {
            Notice::Pushed { duplicates, .. } => *duplicates,
            _ => 0,
        })
        .sum();
    assert_eq!(duplicates, 1, "the server had it already and said so");
    assert_eq!(world.on_server("task").len(), 1);
}

#[test]
fn a_repeated_request_has_one_effect() {
    let mut world = two_devices();
    world.sync("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.fault("Alice", Fault::Repeat);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("task").len(), 1);
}

#[test]
fn a_late_answer_of_a_given_up_request_changes_nothing() {
    let mut world = two_devices();
    world.sync("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.fault("Alice", Fault::Hold);
    world.sync("Alice");
    world.feed("Alice", Input::NetworkLost);
    let before = world.dump("Alice");
    world.release("Alice");
    assert_eq!(
        world.status("Alice").outbox["pending"],
        1,
        "the late answer is ignored (F:B3)"
    );
    assert_eq!(world.dump("Alice"), before);
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn an_edit_made_during_the_push_survives_the_answer() {
    let mut world = two_devices();
    world.sync("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.fault("Alice", Fault::Hold);
    world.sync("Alice");
    world.sql("Alice", "UPDATE task SET title = 'oat milk'");
    world.release("Alice");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT title FROM task"), ["oat milk"]);
}

#[test]
fn a_servers_wish_to_be_left_alone_is_obeyed_even_when_the_user_asks() {
    let mut world = two_devices();
    world.sync("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.fault("Alice", Fault::Status(503, Some(Duration::from_secs(60))));
    world.sync("Alice");
    let requests = world.traffic("Alice").requests;
    world.pass(30_000);
    world.sync("Alice");
    world.feed("Alice", Input::Trigger(Reason::NetworkAvailable));
    assert_eq!(world.traffic("Alice").requests, requests);
    let told = world
        .get("Alice")
        .notices
        .iter()
        .rev()
        .find_map(|notice| match notice {
            Notice::CycleEnded(end) => Some(end.clone()),
            _ => None,
        });
    assert!(
        matches!(
            told,
            Some(CycleEnd::RemoteFailed(RemoteError::Transient { .. }))
        ),
        "{told:?}"
    );
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn new_writes_do_not_shorten_a_backoff() {
    let mut world = two_devices();
    world.sync("Alice");
    world.offline("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.sync("Alice");
    let due = world.get("Alice").engine().next_wakeup();
    let requests = world.traffic("Alice").requests;
    world.sql("Alice", "INSERT INTO task VALUES ('2', 'bread', 0)");
    world.feed("Alice", Input::Trigger(Reason::MutationEnqueued));
    assert_eq!(world.get("Alice").engine().next_wakeup(), due);
    assert_eq!(world.traffic("Alice").requests, requests);
}

#[test]
fn an_hour_of_503_kills_nothing() {
    let mut world = two_devices();
    world.sync("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    let end = world.now().unix_ms + 3_600_000;
    while world.now().unix_ms < end {
        if world.get("Alice").link_is_clear() {
            world.fault("Alice", Fault::Status(503, None));
        }
        let (at, _) = world.get("Alice").engine().next_wakeup().unwrap();
        let wait = at.saturating_sub(world.now().monotonic_ms).max(1);
        world.pass(wait);
        world.feed("Alice", Input::Tick);
    }
    assert_eq!(world.status("Alice").outbox["dead"], 0);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT title FROM task"), ["milk"]);
}

#[test]
fn a_token_that_expires_in_mid_push_is_refreshed_once_and_nothing_is_lost() {
    let mut world = two_devices();
    world.configure(|config| config.push_mutations = 2);
    world.device("Carol");
    world.sync("Carol");
    for n in 0..9 {
        world.sql(
            "Carol",
            &format!("INSERT INTO task VALUES ('{n}', 'task {n}', 0)"),
        );
    }
    world.expire_token_after("Carol", 2);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("task").len(), 9);
    let asked = world
        .get("Carol")
        .notices
        .iter()
        .any(|n| matches!(n, Notice::CredentialsNeeded { .. }));
    assert!(!asked, "the refresh was enough");
}

#[test]
fn a_captive_portal_changes_nothing() {
    let mut world = two_devices();
    world.sync("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    for _ in 0..4 {
        world.fault("Alice", Fault::Portal);
    }
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("task").len(), 1);
}

#[test]
fn while_a_request_is_on_the_wire_no_transaction_is_open() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.hold_push("Alice");
    // Only with neither a writer nor a reader in the way the log can be begun anew.
    let app = Connection::open(world.path("Alice")).unwrap();
    app.busy_timeout(Duration::ZERO).unwrap();
    let busy = app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    assert_eq!(busy, Ok(0), "somebody reads or writes (A4)");
    world.release("Alice");
    world.run_until_quiet();
    world.assert_converged();
}
