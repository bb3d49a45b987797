//! Stories of `pull-then-push`: what is about to be sent is looked at first, so that conflicts are
//! decided on the device and not by a refused push; the feed is read last.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use std::sync::Arc;
use syncline::{Checkpoint, SyncOrder, Watcher};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE list (id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, note TEXT,
                       list TEXT REFERENCES list (id))";

/// Alice and Bob with a list and three tasks; Alice goes by `pull-then-push`.
fn world() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Bob");
    world.sql(
        "Bob",
        "INSERT INTO list VALUES ('l', 'home');
         INSERT INTO task VALUES ('1', 'milk', '', 'l'), ('2', 'tea', '', 'l'), ('3', 'rice', '', 'l')",
    );
    world.sync("Bob");
    world.configure(|config| config.order = SyncOrder::PullThenPush);
    world.device("Alice");
    world.sync("Alice");
    world.requests("Alice");
    world
}

fn titles(world: &mut World, name: &str) -> Vec<String> {
    world.rows(name, "SELECT id || title || note FROM task ORDER BY id")
}

/// How many conflicts a refused push has shown, and how many were decided at all.
fn conflicts(world: &mut World, name: &str) -> Vec<String> {
    let sql = "SELECT json_extract(error, '$.side') || ' ' || entity_id FROM syncline_conflict ORDER BY entity_id";
    world.rows(name, sql)
}

#[test]
fn a_conflict_is_decided_before_the_first_push_and_the_feed_is_read_after_it() {
    let mut world = world();
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.sql(
        "Bob",
        "UPDATE task SET title = 'soy milk', note = 'cold' WHERE id = '1'",
    );
    world.sql(
        "Bob",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO task (id, title) SELECT 'n' || i, 'x' FROM n",
    );
    world.sync("Bob");
    world.sync("Alice");
    let asked = world.requests("Alice");
    assert_eq!(asked[..3], ["fetch", "push", "pull"], "{asked:?}");
    assert!(asked[3..].iter().all(|word| *word == "pull"), "{asked:?}");
    assert_eq!(
        asked.len(),
        2 + 4,
        "one push, and it went through: {asked:?}"
    );
    assert_eq!(conflicts(&mut world, "Alice"), [r#"pull "1""#]);
    world.sync("Bob");
    assert_eq!(titles(&mut world, "Bob")[0], "1oat milkcold");
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn what_did_not_change_is_not_touched() {
    let mut world = world();
    world.sql(
        "Alice",
        "UPDATE task SET title = 'a' WHERE id = '1'; DELETE FROM task WHERE id = '2'",
    );
    world.sql(
        "Alice",
        "INSERT INTO task (id, title, list) VALUES ('new', 'b', 'l')",
    );
    let entries = "SELECT seq || mutation || op FROM syncline_outbox ORDER BY seq";
    let before = world.rows("Alice", entries);
    world.offline_after("Alice", 2);
    world.sync("Alice");
    assert_eq!(world.requests("Alice"), ["fetch", "fetch", "push"]);
    assert_eq!(world.rows("Alice", entries), before);
    world.heal("Alice");
    world.settle("Alice");
    assert_eq!(conflicts(&mut world, "Alice"), [] as [&str; 0]);
    assert_eq!(
        world.rows(
            "Alice",
            "SELECT count(*) FROM syncline_log WHERE kind = 'applied'"
        ),
        ["3"]
    );
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn an_entity_that_was_deleted_elsewhere_is_met_before_the_push() {
    let mut world = world();
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.sql("Bob", "DELETE FROM task WHERE id = '1'");
    world.sync("Bob");
    world.sync("Alice");
    assert_eq!(
        world.requests("Alice"),
        ["fetch", "pull"],
        "nothing is left to send"
    );
    assert_eq!(conflicts(&mut world, "Alice"), [r#"pull "1""#]);
    assert_eq!(
        titles(&mut world, "Alice"),
        ["2tea", "3rice"],
        "the delete wins"
    );
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn a_row_whose_parent_is_gone_waits_for_the_feed() {
    let mut world = world();
    world.sql("Bob", "DELETE FROM task; DELETE FROM list");
    world.sync("Bob");
    world.sql(
        "Alice",
        "INSERT INTO task (id, title, list) VALUES ('new', 'b', 'l')",
    );
    world.sync("Alice");
    let asked = world.requests("Alice");
    assert_eq!(asked[..2], ["fetch", "pull"], "{asked:?}");
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn a_newer_row_that_refers_to_what_is_not_here_waits_for_the_feed() {
    let mut world = world();
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.sql(
        "Bob",
        "INSERT INTO list VALUES ('k', 'work'); UPDATE task SET list = 'k' WHERE id = '1'",
    );
    world.sync("Bob");
    world.sync("Alice");
    let asked = world.requests("Alice");
    assert_eq!(asked[..3], ["fetch", "pull", "push"], "{asked:?}");
    let open = "SELECT count(*) FROM syncline_conflict WHERE resolved_at IS NULL";
    assert_eq!(world.rows("Alice", open), ["0"], "nobody is asked");
    world.run_until_quiet();
    let lists = world.rows("Bob", "SELECT title || list FROM task WHERE id = '1'");
    assert_eq!(lists, ["oat milkk"]);
    world.assert_converged();
}

#[test]
fn a_new_row_that_took_the_id_of_a_deleted_one_is_not_taken_for_it() {
    let mut world = World::new("CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT)");
    world.device("Bob");
    world.sql("Bob", "INSERT INTO task (title) VALUES ('milk')");
    world.sync("Bob");
    world.configure(|config| config.order = SyncOrder::PullThenPush);
    world.device("Alice");
    world.sync("Alice");
    world.sql("Bob", "DELETE FROM task");
    world.sync("Bob");
    // SQLite gives the same id again.
    world.sql(
        "Alice",
        "DELETE FROM task; INSERT INTO task (title) VALUES ('tea')",
    );
    world.sync("Alice");
    world.run_until_quiet();
    assert_eq!(world.rows("Bob", "SELECT title FROM task"), ["tea"]);
    world.assert_converged();
}

#[test]
fn what_may_have_been_sent_is_not_looked_at() {
    let mut world = world();
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.fault("Alice", Fault::Repeat);
    world.fault("Alice", Fault::LoseAnswer);
    world.sync("Alice");
    world.requests("Alice");
    world.sql("Bob", "UPDATE task SET title = 'soy' WHERE id = '1'");
    world.sync("Bob");
    world.sql(
        "Alice",
        "UPDATE task SET note = 'mine' WHERE id = '1'; UPDATE task SET note = 'too' WHERE id = '2'",
    );
    world.pass(600_000);
    world.feed("Alice", syncline::Input::Tick);
    world.settle("Alice");
    world.run_until_quiet();
    assert_eq!(titles(&mut world, "Bob")[..2], ["1soymine", "2teatoo"]);
    world.assert_converged();
}

/// A device that dies before the given unit of store work.
fn dies_before(world: &mut World, work: &'static str) {
    world.crash("Alice");
    let watcher: Watcher = Arc::new(move |name, moment| {
        if name == work && moment == syncline::Moment::Before {
            std::panic::panic_any("killed");
        }
    });
    world.restart_watched("Alice", watcher);
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.sync("Alice")));
    assert!(killed.is_err(), "{work} was reached");
    world.crash("Alice");
    world.restart("Alice");
}

#[test]
fn a_crash_between_looking_and_pushing_loses_and_doubles_nothing() {
    for work in ["targets", "meet", "claim"] {
        let mut world = world();
        world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
        world.sql(
            "Bob",
            "UPDATE task SET title = 'soy milk', note = 'cold' WHERE id = '1'",
        );
        world.sync("Bob");
        dies_before(&mut world, work);
        world.run_until_quiet();
        assert_eq!(titles(&mut world, "Bob")[0], "1oat milkcold", "{work}");
        assert_eq!(conflicts(&mut world, "Alice"), [r#"pull "1""#], "{work}");
        assert_eq!(world.batches("Alice").len(), 1, "{work}");
        world.assert_converged();
    }
}

#[test]
fn from_a_server_that_gives_no_single_entities_the_feed_is_read_first() {
    let mut world = world();
    world.without("Alice", "fetch");
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.sql("Bob", "UPDATE task SET title = 'soy milk' WHERE id = '1'");
    world.sync("Bob");
    world.sync("Alice");
    assert_eq!(world.requests("Alice"), ["fetch", "pull", "push"]);
    world.sql(
        "Alice",
        "UPDATE task SET title = 'rice milk' WHERE id = '1'",
    );
    world.sync("Alice");
    assert_eq!(
        world.requests("Alice"),
        ["pull", "push"],
        "it is not asked again"
    );
    world.run_until_quiet();
    assert_eq!(titles(&mut world, "Bob")[0], "1rice milk");
    world.assert_converged();
}

#[test]
fn in_checkpoint_mode_nothing_shows_before_the_head() {
    let mut world = world();
    world.checkpoint(Some(Checkpoint {
        changes: 10_000,
        bytes: 1 << 20,
    }));
    world.crash("Alice");
    world.restart("Alice");
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.sql(
        "Bob",
        "UPDATE task SET title = 'soy milk', note = 'cold' WHERE id = '1'",
    );
    world.sync("Bob");
    world.sync("Alice");
    assert_eq!(world.requests("Alice")[..3], ["hello", "fetch", "pull"]);
    world.run_until_quiet();
    assert_eq!(titles(&mut world, "Bob")[0], "1oat milkcold");
    world.assert_converged();
}

#[test]
fn a_long_outbox_is_looked_at_batch_by_batch() {
    let mut world = world();
    world.configure(|config| config.push_mutations = 100);
    world.crash("Alice");
    world.sql(
        "Bob",
        "WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 349)
                      INSERT INTO task (id, title) SELECT i, 'x' FROM n",
    );
    world.sync("Bob");
    world.restart("Alice");
    world.sync("Alice");
    world.requests("Alice");
    world.sql(
        "Alice",
        "UPDATE task SET title = 'alice' WHERE id >= '100' AND list IS NULL",
    );
    world.sql(
        "Bob",
        "UPDATE task SET note = 'bob' WHERE id >= '100' AND list IS NULL",
    );
    world.sync("Bob");
    world.sync("Alice");
    let asked = world.requests("Alice");
    let batch = ["fetch", "fetch", "push"];
    assert_eq!(
        asked[..9],
        [batch, batch, ["fetch", "push", "pull"]].concat(),
        "{asked:?}"
    );
    assert!(
        conflicts(&mut world, "Alice")
            .iter()
            .all(|one| one.starts_with("pull "))
    );
    world.run_until_quiet();
    world.assert_converged();
}
