//! Every answer to "why is this row not synced?".
#![allow(clippy::unwrap_used)] // helpers of tests

use rusqlite::Connection;
use syncline::{Input, Now};
use syncline_store::explain::{Explanation, explain};
use syncline_testkit::World;

const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT UNIQUE);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, project TEXT REFERENCES project(id), title TEXT);";

/// Alice and Bob have the project p.
fn pair() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", "INSERT INTO project VALUES ('p', 'home')");
    world.run_until_quiet();
    world
}

fn asked(world: &mut World, name: &str, entity_type: &str, id: &str) -> Explanation {
    let (path, now): (_, Now) = (world.path(name), world.now());
    explain(&Connection::open(path).unwrap(), entity_type, id, now).unwrap()
}

fn codes(world: &mut World, name: &str, entity_type: &str, id: &str) -> Vec<&'static str> {
    let explained = asked(world, name, entity_type, id);
    explained.obstacles.iter().map(|one| one.code).collect()
}

#[test]
fn a_synced_row_says_so_with_its_history() {
    let mut world = pair();
    let explained = asked(&mut world, "Alice", "project", "p");
    assert!(explained.synced && explained.here);
    assert_eq!(explained.history.len(), 1);
    assert_eq!(explained.history[0].outcome, "applied");
    assert!(!explained.history[0].mutation.is_empty());
    assert!(asked(&mut world, "Bob", "project", "p").synced);
    assert_eq!(codes(&mut world, "Bob", "project", "x"), ["no-such-row"]);
}

#[test]
fn a_pending_row_names_its_engine_or_that_there_is_none() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'work'");
    assert_eq!(
        codes(&mut world, "Alice", "project", "p"),
        ["pending", "engine"]
    );
    world.feed("Alice", Input::Stop);
    world.pass(120_000);
    assert_eq!(
        codes(&mut world, "Alice", "project", "p"),
        ["pending", "no-engine"]
    );
}

#[test]
fn a_child_waits_for_the_row_that_it_references() {
    let mut world = pair();
    world.sql(
        "Alice",
        "INSERT INTO project VALUES ('q', 'work'); INSERT INTO task VALUES ('t', 'q', 'x')",
    );
    let explained = asked(&mut world, "Alice", "task", "t");
    assert_eq!(explained.obstacles[0].code, "waits-for-parent");
    let help = explained.obstacles[0].help.as_deref();
    assert_eq!(help, Some("syncline explain DB project q"));
}

/// A deletion waits for what still references its row, but not for what waits for that deletion.
#[test]
fn a_deletion_says_what_still_references_its_row() {
    let mut world = pair();
    let project =
        "INSERT INTO project VALUES ('q', 'work'); INSERT INTO task VALUES ('t', 'p', 'x')";
    world.sql("Alice", project);
    world.run_until_quiet();
    world.sql(
        "Alice",
        "UPDATE task SET project = 'q'; UPDATE task SET project = 'p'; DELETE FROM project WHERE id = 'q'",
    );
    let codes_of_q = |world: &mut World| codes(world, "Alice", "project", "q");
    assert_eq!(codes_of_q(&mut world)[0], "waits-for-reference");
    world.sql("Bob", "UPDATE task SET project = 'q'");
    world.sync("Bob");
    world.pull_only("Alice");
    assert_eq!(codes_of_q(&mut world)[0], "pending");
}

#[test]
fn a_sent_mutation_waits_for_its_answer_and_then_for_the_back_off() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'work'");
    world.hold_push("Alice");
    assert_eq!(
        codes(&mut world, "Alice", "project", "p"),
        ["in-flight", "engine"]
    );
    world.feed("Alice", Input::NetworkLost);
    assert_eq!(
        codes(&mut world, "Alice", "project", "p"),
        ["pending", "offline"]
    );
}

#[test]
fn an_offline_device_says_what_happened() {
    let mut world = pair();
    world.offline("Alice");
    world.sql("Alice", "UPDATE project SET name = 'work'");
    world.sync("Alice");
    let explained = asked(&mut world, "Alice", "project", "p");
    let last = explained.obstacles.last().unwrap();
    assert_eq!(last.code, "offline");
    assert!(
        last.detail.contains("offline") || last.detail.contains("reach"),
        "{}",
        last.detail
    );
}

#[test]
fn wrong_credentials_and_a_pause_are_named() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'work'");
    world.use_token("Alice", "rubbish".to_owned());
    world.sync("Alice");
    assert_eq!(
        codes(&mut world, "Alice", "project", "p"),
        ["pending", "credentials"]
    );
    world.sql("Bob", "UPDATE project SET name = 'garden'");
    world.feed("Bob", Input::Pause);
    assert_eq!(
        codes(&mut world, "Bob", "project", "p"),
        ["pending", "paused"]
    );
}

#[test]
fn dead_letters_name_the_server_s_error_and_what_to_do() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'a' || char(0)");
    world.sync("Alice");
    let explained = asked(&mut world, "Alice", "project", "p");
    assert_eq!(explained.obstacles.len(), 1, "{:?}", explained.obstacles);
    assert_eq!(explained.obstacles[0].code, "failed");
    assert!(
        explained.obstacles[0].detail.contains("U+0000"),
        "{:?}",
        explained.obstacles
    );
    world.sql("Alice", "UPDATE syncline_outbox SET state = 'dead'");
    let explained = asked(&mut world, "Alice", "project", "p");
    assert_eq!(explained.obstacles[0].code, "dead");
    let help = explained.obstacles[0].help.as_deref();
    assert!(help.is_some_and(|help| help.starts_with("syncline outbox retry DB ")));
}

#[test]
fn a_conflict_is_named_with_its_number() {
    let mut world = pair();
    for (name, title) in [("Alice", "a"), ("Bob", "b")] {
        world.offline(name);
        world.sql(
            name,
            &format!("INSERT INTO task VALUES ('t', NULL, '{title}')"),
        );
    }
    world.online("Alice");
    world.online("Bob");
    let explained = asked(&mut world, "Bob", "task", "t");
    assert_eq!(explained.obstacles[0].code, "conflict");
    assert_eq!(explained.obstacles[1].code, "waits-for-conflict");
    assert_eq!(
        explained.obstacles[0].help.as_deref(),
        Some("syncline conflicts show DB 1")
    );
}

#[test]
fn what_was_received_and_finds_no_place_is_named() {
    let mut world = pair();
    world.sql(
        "Bob",
        "CREATE UNIQUE INDEX one ON task (title); INSERT INTO task VALUES ('b', NULL, 'same')",
    );
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, 'same')");
    world.run_until_quiet();
    assert_eq!(
        codes(&mut world, "Bob", "task", "a"),
        ["conflict", "quarantined"]
    );
}

#[test]
fn writes_that_may_have_escaped_are_named() {
    let mut world = pair();
    let path = world.path("Alice");
    let app = Connection::open(path).unwrap();
    let triggers: Vec<String> = app
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'project'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for trigger in triggers {
        app.execute_batch(&format!("DROP TRIGGER \"{trigger}\""))
            .unwrap();
    }
    assert_eq!(
        codes(&mut world, "Alice", "project", "p"),
        ["escaped-capture"]
    );
    world.sync("Alice");
    assert!(asked(&mut world, "Alice", "project", "p").synced);
}

#[test]
fn put_off_mutations_say_until_when_and_why() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'work'");
    world.sql(
        "Alice",
        "UPDATE syncline_outbox SET not_before = 1800000000000 + 3600000,
                last_error = '{\"code\":\"busy\",\"detail\":\"try later\"}'",
    );
    let explained = asked(&mut world, "Alice", "project", "p");
    assert_eq!(explained.obstacles[0].code, "put-off");
    assert!(explained.obstacles[0].detail.contains("busy: try later"));
}

#[test]
fn a_text_key_that_looks_like_a_number_may_be_given_plain() {
    let mut world = pair();
    world.sql("Alice", "INSERT INTO task VALUES ('42', NULL, 'x')");
    let explained = asked(&mut world, "Alice", "task", "42");
    assert!(explained.here);
    assert_eq!(explained.entity_id, "\"42\"");
    let path = world.path("Alice");
    let refused = explain(&Connection::open(path).unwrap(), "tasks", "42", world.now());
    assert!(refused.unwrap_err().to_string().contains("project, task"));
}
