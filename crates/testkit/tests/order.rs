//! Stories of order and dependence: parents first, one bad mutation holds only its own.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use syncline::Notice;
use syncline_server::{ServerConfig, TypeConfig};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, project TEXT REFERENCES project(id) ON DELETE CASCADE,
                       parent TEXT REFERENCES task(id), title TEXT);";

/// A server that refuses tasks with a title of more than ten characters.
fn strict() -> ServerConfig {
    let schema = serde_json::json!({ "properties": { "title": { "maxLength": 10 } } });
    let types = BTreeMap::from([
        ("project".to_owned(), TypeConfig::default()),
        (
            "task".to_owned(),
            TypeConfig {
                schema: Some(schema),
                ..TypeConfig::default()
            },
        ),
    ]);
    ServerConfig {
        types,
        ..ServerConfig::default()
    }
}

fn pair(config: ServerConfig) -> World {
    let mut world = World::with_server(SCHEMA, config);
    world.device("Alice");
    world.device("Bob");
    world
}

#[test]
fn a_parent_and_its_children_made_offline_arrive_together() {
    let mut world = pair(ServerConfig::default());
    world.sql(
        "Alice",
        "INSERT INTO project VALUES ('p', 'garden');
         INSERT INTO task VALUES ('a', 'p', NULL, 'dig'), ('b', 'p', 'a', 'sow'), ('c', 'p', 'b', 'water')",
    );
    world.run_until_quiet();
    world.assert_converged();
    world.sql(
        "Bob",
        "DELETE FROM task WHERE id IN ('b', 'c'); DELETE FROM project",
    );
    world.run_until_quiet();
    world.assert_converged();
    assert!(
        world.on_server("task").is_empty(),
        "the cascade took the last task along"
    );
}

#[test]
fn children_recorded_before_their_parents_still_follow_them() {
    let mut world = pair(ServerConfig::default());
    world.sql(
        "Alice",
        "PRAGMA foreign_keys = OFF;
         INSERT INTO task VALUES ('a', 'p', NULL, 'dig');
         INSERT INTO project VALUES ('p', 'garden');
         PRAGMA foreign_keys = ON;",
    );
    world.run_until_quiet();
    world.assert_converged();
    let sent = world.batches("Alice").concat();
    assert_eq!(sent, ["Create project/p", "Create task/a"]);
}

#[test]
fn rows_that_reference_each_other_do_arrive() {
    let mut world = pair(ServerConfig::default());
    world.sql(
        "Alice",
        "PRAGMA foreign_keys = OFF;
         INSERT INTO task VALUES ('a', NULL, 'b', 'hen'), ('b', NULL, 'a', 'egg');
         PRAGMA foreign_keys = ON;",
    );
    world.run_until_quiet();
    assert_eq!(world.on_server("task").len(), 2);
    assert_eq!(world.status("Alice").outbox["pending"], 0);
}

#[test]
fn a_change_waits_in_the_inbox_for_its_parent() {
    let mut world = pair(ServerConfig::default());
    world.configure(|config| config.page_changes = 1);
    world.device("Carol");
    world.sync("Carol");
    // The task's place in the feed is before its project's: the project is edited later.
    world.sql("Alice", "INSERT INTO project VALUES ('p', 'garden'); INSERT INTO task VALUES ('a', 'p', NULL, 'dig')");
    world.sync("Alice");
    world.sql("Alice", "UPDATE project SET name = 'orchard'");
    world.sync("Alice");
    // Carol sees the task first; it waits until the project has come.
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Carol", "SELECT name FROM project"), ["orchard"]);
    assert_eq!(
        world.rows("Carol", "PRAGMA foreign_key_check"),
        Vec::<String>::new()
    );
}

#[test]
fn one_refused_mutation_among_a_thousand_holds_only_itself() {
    let mut world = pair(strict());
    world.sync("Alice");
    for n in 0..1000 {
        let title = if n == 137 {
            "much too long a title"
        } else {
            "fine"
        };
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('{n}', NULL, NULL, '{title}')"),
        );
    }
    let before = world.traffic("Alice").pushes;
    world.run_until_quiet();
    assert_eq!(world.on_server("task").len(), 999);
    assert_eq!(
        world.traffic("Alice").pushes - before,
        2,
        "two full batches, nothing more"
    );
    let status = world.status("Alice");
    assert_eq!((status.outbox["failed"], status.outbox["pending"]), (1, 0));
    let error = status.last_error.unwrap();
    assert_eq!(error.entity_id.as_deref(), Some("\"137\""));
    assert!(error.detail.starts_with("validation"), "{}", error.detail);
    let told = |n: &Notice| matches!(n, Notice::MutationFailed { error, .. } if error.errors[0].field == "title");
    assert!(world.get("Alice").notices.iter().any(told));
}

#[test]
fn what_depends_on_a_refused_mutation_waits_and_goes_with_it_or_after_it() {
    let mut world = pair(strict());
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, NULL, 'much too long a title'), ('b', NULL, 'a', 'child'), ('c', NULL, NULL, 'free')",
    );
    world.run_until_quiet();
    assert_eq!(
        world.on_server("task").into_keys().collect::<Vec<_>>(),
        ["c"]
    );
    let status = world.status("Alice");
    assert_eq!((status.outbox["failed"], status.outbox["pending"]), (1, 1));

    // Mended by an ordinary edit and a retry: the fresh edit is folded in, under a new key.
    world.sql("Alice", "UPDATE task SET title = 'short' WHERE id = 'a'");
    let seq: i64 = world.rows(
        "Alice",
        "SELECT seq FROM syncline_outbox WHERE state = 'failed'",
    )[0]
    .parse()
    .unwrap();
    let now = world.now();
    world.get("Alice").engine().store().retry(seq, now).unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("task").len(), 3);
}

#[test]
fn discarding_a_refused_create_takes_its_dependents_along() {
    let mut world = pair(strict());
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, NULL, 'much too long a title'), ('b', NULL, 'a', 'child'), ('c', NULL, NULL, 'free')",
    );
    world.run_until_quiet();
    let seq: i64 = world.rows(
        "Alice",
        "SELECT seq FROM syncline_outbox WHERE state = 'failed'",
    )[0]
    .parse()
    .unwrap();
    let now = world.now();
    let gone = world
        .get("Alice")
        .engine()
        .store()
        .discard(seq, now)
        .unwrap();
    assert_eq!(gone.gone.len(), 2);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Alice", "SELECT id FROM task"), ["c"]);
}

#[test]
fn discarding_a_refused_parent_takes_back_what_was_moved_under_it() {
    let mut world = pair(strict());
    world.sql("Alice", "INSERT INTO task VALUES ('c', NULL, NULL, 'free')");
    world.run_until_quiet();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, NULL, 'much too long a title'); UPDATE task SET parent = 'a' WHERE id = 'c'",
    );
    world.run_until_quiet();
    let seq: i64 = world.rows(
        "Alice",
        "SELECT seq FROM syncline_outbox WHERE state = 'failed'",
    )[0]
    .parse()
    .unwrap();
    let now = world.now();
    assert_eq!(
        world
            .get("Alice")
            .engine()
            .store()
            .discard(seq, now)
            .unwrap()
            .gone
            .len(),
        2
    );
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "PRAGMA foreign_key_check"),
        Vec::<String>::new()
    );
}

#[test]
fn discarding_a_refused_edit_takes_the_row_back_to_its_base() {
    let mut world = pair(strict());
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, NULL, 'fine')");
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET title = 'much too long a title'");
    world.run_until_quiet();
    let seq: i64 = world.rows(
        "Alice",
        "SELECT seq FROM syncline_outbox WHERE state = 'failed'",
    )[0]
    .parse()
    .unwrap();
    let now = world.now();
    world
        .get("Alice")
        .engine()
        .store()
        .discard(seq, now)
        .unwrap();
    assert_eq!(world.rows("Alice", "SELECT title FROM task"), ["fine"]);
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn a_remote_edit_of_a_row_with_a_refused_edit_is_merged_and_the_refused_one_stays() {
    let mut world = pair(strict());
    world.sql("Alice", "INSERT INTO project VALUES ('p', 'garden'); INSERT INTO task VALUES ('a', NULL, NULL, 'fine')");
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET title = 'much too long a title'");
    world.run_until_quiet();
    world.sql("Bob", "UPDATE task SET project = 'p'");
    world.run_until_quiet();
    assert_eq!(
        world.rows("Alice", "SELECT project || ': ' || title FROM task"),
        ["p: much too long a title"]
    );
    assert_eq!(
        world.status("Alice").outbox["failed"],
        1,
        "it is not sent again unasked"
    );
}

#[test]
fn one_mutation_that_breaks_every_request_ends_dead_alone() {
    let mut world = pair(ServerConfig::default());
    world.sync("Alice");
    for n in 0..1000 {
        let title = if n == 137 { "poison" } else { "fine" };
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('{n}', NULL, NULL, '{title}')"),
        );
    }
    world.poison("Alice", "poison");
    let before = world.traffic("Alice").pushes;
    world.sync("Alice");
    world.settle("Alice");
    assert_eq!(world.on_server("task").len(), 999);
    let status = world.status("Alice");
    assert_eq!(
        (status.outbox["dead"], status.outbox["pending"]),
        (1, 0),
        "{status:?}"
    );
    let pushes = world.traffic("Alice").pushes - before;
    assert!(pushes <= 40, "{pushes} round trips");
}

/// O4: mutations that break every request keep nothing else from going, however many they are, and by
/// what goes they are known.
#[test]
fn several_mutations_that_break_every_request_end_dead_and_the_rest_goes() {
    let mut world = pair(ServerConfig::default());
    world.sync("Alice");
    for n in 0..5 {
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('{n}', NULL, NULL, 'poison')"),
        );
    }
    world.sql("Alice", "INSERT INTO task VALUES ('9', NULL, NULL, 'fine')");
    world.poison("Alice", "poison");
    world.sync("Alice");
    world.settle("Alice");
    assert_eq!(world.on_server("task").len(), 1);
    let status = world.status("Alice");
    assert_eq!(status.outbox["dead"], 5, "{status:?}");
}

#[test]
fn a_request_that_is_too_large_is_halved() {
    let mut world = pair(ServerConfig::default());
    world.sync("Alice");
    for n in 0..20 {
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('{n}', NULL, NULL, 'fine')"),
        );
    }
    world.fault("Alice", Fault::Status(413, None));
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.on_server("task").len(), 20);
}

#[test]
fn text_that_no_server_could_take_fails_alone_with_its_reason() {
    let mut world = pair(ServerConfig::default());
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, NULL, 'a' || char(0) || 'b'), ('b', NULL, NULL, 'fine')");
    world.run_until_quiet();
    let status = world.status("Alice");
    assert_eq!(status.outbox["failed"], 1);
    assert!(status.last_error.unwrap().detail.contains("U+0000"));
    assert_eq!(world.on_server("task").len(), 1);
}

#[test]
fn rows_that_refer_to_each_other_in_a_circle_arrive_once_all_of_them_are_here() {
    let mut world = pair(ServerConfig::default());
    // Bob has read the feed to its head, so what follows comes to him as single changes.
    world.run_until_quiet();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, NULL, 'one'), ('b', NULL, 'a', 'two'), ('c', NULL, 'b', 'three');
         INSERT INTO task VALUES ('under', NULL, 'c', 'below');
         UPDATE task SET parent = 'c' WHERE id = 'a'",
    );
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Bob", "SELECT id || ' < ' || parent FROM task ORDER BY id"),
        ["a < c", "b < a", "c < b", "under < c"]
    );
    world.assert_equals_server("Bob");
}
