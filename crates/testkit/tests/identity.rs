//! Stories of whose data it is, and of a server that is not the one it was.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline::{Existing, Input, Notice, Reason, State};
use syncline_testkit::World;

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)";

#[test]
fn what_one_account_wrote_is_never_sent_under_another() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO task VALUES ('2', 'a secret')");
    let mallory = world.token("mallory");
    world.use_token("Alice", mallory);
    world.crash("Alice");
    world.restart("Alice");
    world.sync("Alice");
    assert_eq!(world.get("Alice").engine().state(), State::BlockedAuth);
    let told = |n: &Notice| matches!(n, Notice::OtherAccount { offered, .. } if offered.subject == "mallory");
    assert!(world.get("Alice").notices.iter().any(told));
    assert_eq!(world.on_server("task").len(), 1);
    assert_eq!(
        world.status("Alice").outbox["pending"],
        1,
        "it is kept for its owner"
    );

    let owner = world.token("somebody");
    world.use_token("Alice", owner);
    world.run_until_quiet();
    assert_eq!(world.on_server("task").len(), 2);
}

/// Found by the simulator: an engine that had greeted the server under the old credentials pushed under
/// the new ones without asking whose they are.
#[test]
fn new_credentials_are_greeted_before_anything_is_sent_under_them() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO task VALUES ('2', 'a secret')");
    let pushes = world.traffic("Alice").pushes;
    let mallory = world.token("mallory");
    world.use_token("Alice", mallory);
    world.feed("Alice", Input::Trigger(Reason::AuthRefreshed));
    assert_eq!(world.traffic("Alice").pushes, pushes);
    assert_eq!(world.get("Alice").engine().state(), State::BlockedAuth);

    let owner = world.token("somebody");
    world.use_token("Alice", owner);
    world.feed("Alice", Input::Trigger(Reason::AuthRefreshed));
    assert_eq!(world.on_server("task").len(), 2);
}

#[test]
fn an_empty_server_never_means_delete_all() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk'), ('2', 'bread')",
    );
    world.run_until_quiet();
    world.sql("Bob", "INSERT INTO task VALUES ('3', 'butter')");
    // Too long ago to be offered again.
    world.sql("Alice", "DELETE FROM syncline_journal");
    world.replace_server("epoch-2");
    world.run_until_quiet();
    for name in ["Alice", "Bob"] {
        let notices = &world.get(name).notices;
        assert!(
            notices.contains(&Notice::EpochChanged),
            "{name}: {notices:?}"
        );
        let rows = world.rows(name, "SELECT title FROM task ORDER BY id");
        assert!(
            rows.starts_with(&["milk".to_owned(), "bread".to_owned()]),
            "{name}: {rows:?}"
        );
    }
    let held = |n: &Notice| matches!(n, Notice::SweepHeld { rows: 2, .. });
    assert!(
        world.get("Alice").notices.iter().any(held),
        "the app is asked (I3)"
    );
    assert_eq!(world.status("Alice").held_removals["task"], 2);
    assert_eq!(
        world.on_server("task").len(),
        1,
        "what was not sent yet is sent"
    );
}

#[test]
fn rows_that_a_reset_server_still_lacks_leave_and_edited_ones_stay() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    for n in 0..20 {
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('t{n}', 'milk')"),
        );
    }
    world.run_until_quiet();
    world.device("Bob");
    world.run_until_quiet();
    // Bob is away while rows go and the server forgets how far he was.
    world.offline("Bob");
    world.sql("Alice", "DELETE FROM task WHERE id IN ('t1', 't2')");
    world.sync("Alice");
    world.sql("Bob", "UPDATE task SET title = 'oat milk' WHERE id = 't3'");
    world.forget_cursor("Bob");
    world.online("Bob");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT count(*) FROM task"), ["18"]);
    assert_eq!(
        world.rows("Alice", "SELECT title FROM task WHERE id = 't3'"),
        ["oat milk"]
    );
}

#[test]
fn adopted_rows_take_the_servers_state_and_what_it_lacks_is_uploaded() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk'), ('2', 'bread')",
    );
    world.run_until_quiet();
    let rows = "INSERT INTO task VALUES ('1', 'old milk'), ('3', 'butter')";
    world.device_existing("Bob", rows, Existing::Adopt);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT title FROM task ORDER BY id"),
        ["milk", "bread", "butter"]
    );
}

#[test]
fn a_second_engine_on_one_file_stands_back_until_the_first_is_gone() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.sync("Alice");
    let path = world.path("Alice");
    let now = world.now();
    let options = syncline::StoreOptions::new("another process", 99);
    let store = syncline::Store::open(&path, options).unwrap();
    let mut second = syncline::Engine::new(store, syncline::Config::default(), 99).unwrap();
    let ask = syncline::Input::Trigger(syncline::Reason::UserAsked);
    let out = second.handle(ask.clone(), now);
    assert!(
        out.contains(&syncline::Outgoing::Notice(Notice::Standby)),
        "{out:?}"
    );
    // The first is gone without a word; its lease ends, the second takes over, and the first,
    // should it come back, is fenced off.
    world.pass(60_001);
    let later = world.now();
    second.handle(syncline::Input::Tick, later);
    assert_eq!(second.state(), State::Connecting);
    world.sync("Alice");
    let fenced = |n: &Notice| matches!(n, Notice::Standby | Notice::StoreTrouble(_));
    assert!(world.get("Alice").notices.iter().any(fenced));
}
