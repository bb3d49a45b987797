//! Golden explanations: what `syncline explain` prints of a row in every state that it can be in, as
//! text and as JSON, in `tests/explanations/`. After a wanted change, run with
//! `UPDATE_EXPLANATIONS=1` and read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test reads and writes its files

use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use syncline::ConflictRules;
use syncline::{Checkpoint, Input};
use syncline_server::{ServerConfig, TypeConfig};
use syncline_store::TypeOptions;
use syncline_store::explain::explain;
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT UNIQUE);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, project TEXT REFERENCES project(id), title TEXT);";
/// When the world begins; what capture triggers note by the real clock is told as this.
const START: i64 = 1_800_000_000_000;

/// Alice and Bob have the project p.
fn pair() -> World {
    with_server(ServerConfig::default())
}

fn with_server(config: ServerConfig) -> World {
    let mut world = World::with_server(SCHEMA, config);
    world.device("Alice");
    world.device("Bob");
    world.sql("Alice", "INSERT INTO project VALUES ('p', 'home')");
    world.run_until_quiet();
    world
}

/// Compares what is said of a row on Alice's device with the golden files of this name.
fn tells(world: &mut World, (entity_type, id): (&str, &str), golden: &str) {
    let (path, now) = (world.path("Alice"), world.now());
    let conn = Connection::open(&path).unwrap();
    let mut explanation = explain(&conn, entity_type, id, now).unwrap();
    for entry in &mut explanation.mutations {
        entry.created_at = START;
    }
    let (text, json) = syncline_cli::explained("app.db", &explanation, now.unix_ms);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let json = serde_json::to_string_pretty(&json).unwrap() + "\n";
    let folder = path.parent().unwrap().display().to_string();
    let mut names = BTreeMap::new();
    let mut normal = |text: &str| {
        let text = text.replace(&format!("\"{folder}/Alice.db\""), "Alice");
        let text = text.replace(&format!("\\\"{folder}/Alice.db\\\""), "Alice");
        name_mutations(&text, &mut names)
    };
    for (text, extension) in [(normal(&text), "txt"), (normal(&json), "json")] {
        compare(&format!("{golden}.{extension}"), &text);
    }
}

/// Mutation ids are random: each is told as `m1`, `m2` … by first appearance.
fn name_mutations(text: &str, names: &mut BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_hexdigit());
        let (word, more) = rest.split_at(end.unwrap_or(rest.len()));
        if word.len() == 32 {
            let next = format!("m{}", names.len() + 1);
            out.push_str(names.entry(word.to_owned()).or_insert(next));
        } else {
            out.push_str(word);
        }
        let mut chars = more.chars();
        out.extend(chars.next());
        rest = chars.as_str();
    }
    out
}

fn compare(file: &str, told: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/explanations")
        .join(file);
    if std::env::var_os("UPDATE_EXPLANATIONS").is_some() {
        std::fs::write(&path, told).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == told,
        "{file} has changed:\n{}",
        diff(&golden, told)
    );
}

/// The lines between what both have at their start and at their end.
fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let most = old.len().min(new.len());
    let start = (0..most).take_while(|at| old[*at] == new[*at]).count();
    let same = |back: &usize| old[old.len() - back] == new[new.len() - back];
    let end = (1..=most - start).take_while(same).count();
    let mut text = String::new();
    for line in &old[start..old.len() - end] {
        writeln!(text, "- {line}").unwrap();
    }
    for line in &new[start..new.len() - end] {
        writeln!(text, "+ {line}").unwrap();
    }
    text
}

const P: (&str, &str) = ("project", "p");
const T: (&str, &str) = ("task", "t");

#[test]
fn synced_and_deleted_rows() {
    let mut world = pair();
    tells(&mut world, P, "synced");
    world.sql("Bob", "UPDATE project SET name = 'flat'");
    world.run_until_quiet();
    tells(&mut world, P, "synced_from_elsewhere");
    world.sql("Alice", "DELETE FROM project");
    world.run_until_quiet();
    tells(&mut world, P, "deleted");
    tells(&mut world, ("project", "nowhere"), "no_such_row");
}

#[test]
fn pending_rows() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'work'");
    tells(&mut world, P, "pending");
    world.sql(
        "Alice",
        "INSERT INTO project VALUES ('q', 'garden'); INSERT INTO task VALUES ('t', 'q', 'x');
         UPDATE task SET title = 'y'",
    );
    tells(&mut world, T, "waits_for_parent");
    world.feed("Alice", Input::Pause);
    tells(&mut world, P, "paused");
    world.feed("Alice", Input::Resume);
    world.run_until_quiet();
    world.sql(
        "Alice",
        "DELETE FROM task; DELETE FROM project WHERE id = 'q'",
    );
    tells(&mut world, ("project", "q"), "waits_for_reference");
    world.feed("Alice", Input::Stop);
    world.pass(120_000);
    tells(&mut world, ("project", "q"), "no_engine");
    world.sql(
        "Alice",
        "INSERT INTO syncline_meta VALUES ('settings', '{\"order\":2}')",
    );
    tells(&mut world, ("project", "q"), "pull_only");
}

#[test]
fn rows_that_name_what_goes_before_them() {
    let mut world = pair();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('t', NULL, 'x'), ('u', NULL, 'y');
         UPDATE syncline_outbox SET depends_on =
            (SELECT json_array(mutation) FROM syncline_outbox WHERE entity_id = 'u') WHERE entity_id = 't'",
    );
    tells(&mut world, T, "waits_for_mutation");
    world.sql(
        "Alice",
        "UPDATE syncline_outbox SET depends_on = NULL, group_id = 'g';
         UPDATE syncline_outbox SET state = 'failed' WHERE entity_id = 'u'",
    );
    tells(&mut world, T, "waits_for_group");
    world.sql(
        "Alice",
        "UPDATE syncline_outbox SET group_id = NULL, cancel = 1 WHERE entity_id = 't'",
    );
    tells(&mut world, T, "cancelling");
}

#[test]
fn sent_rows() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'work'");
    world.hold_push("Alice");
    tells(&mut world, P, "leased_by_another_process");
    world.crash("Alice");
    world.pass(120_000);
    tells(&mut world, P, "left_in_flight");
    world.restart("Alice");
    world.fault("Alice", Fault::LoseAnswer);
    world.sync("Alice");
    world.settle("Alice");
    tells(&mut world, P, "synced_after_a_lost_answer");
}

#[test]
fn rows_behind_an_engine_that_cannot() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'work'");
    let busy = Fault::Status(503, Some(Duration::from_secs(30)));
    world.fault("Alice", busy);
    world.sync("Alice");
    tells(&mut world, P, "backoff");
    world.pass(40_000);
    world.offline("Alice");
    world.sync("Alice");
    tells(&mut world, P, "offline");
    world.online("Alice");
    world.settle("Alice");
    world.sql("Alice", "UPDATE project SET name = 'again'");
    world.use_token("Alice", "rubbish".to_owned());
    world.sync("Alice");
    tells(&mut world, P, "credentials");
}

#[test]
fn rows_of_which_nothing_was_pulled_yet() {
    let mut world = World::new(SCHEMA);
    world.device_existing(
        "Alice",
        "INSERT INTO project VALUES ('p', 'home')",
        syncline::Existing::Adopt,
    );
    tells(&mut world, P, "never_pulled");
    world.sql("Alice", "UPDATE project SET name = 'work'");
    tells(&mut world, P, "waits_for_snapshot");
}

#[test]
fn a_conflict() {
    let mut world = pair();
    for (name, title) in [("Bob", "b"), ("Alice", "a")] {
        world.offline(name);
        let insert = format!("INSERT INTO task VALUES ('t', NULL, '{title}')");
        world.sql(name, &insert);
    }
    world.online("Bob");
    world.online("Alice");
    tells(&mut world, T, "conflict");
}

#[test]
fn dead_letters() {
    let strict = serde_json::json!({
        "type": "object", "properties": { "title": { "type": "string", "maxLength": 3 } }
    });
    let mut config = ServerConfig::default();
    for (name, schema) in [("project", None), ("task", Some(strict))] {
        let declared = TypeConfig {
            schema,
            ..TypeConfig::default()
        };
        config.types.insert(name.to_owned(), declared);
    }
    let mut world = with_server(config);
    world.sql("Alice", "INSERT INTO task VALUES ('t', NULL, 'too long')");
    world.sync("Alice");
    tells(&mut world, T, "failed");
    world.sql("Alice", "INSERT INTO task VALUES ('u', NULL, 'ill')");
    world.poison("Alice", "ill");
    for _ in 0..40 {
        world.sync("Alice");
        world.pass(400_000);
    }
    tells(&mut world, ("task", "u"), "dead");
}

#[test]
fn put_off_rows() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'work'");
    world.sql(
        "Alice",
        "UPDATE syncline_outbox SET not_before = 1800000000000 + 3600000, attempts = 3,
                last_error = '{\"code\":\"busy\",\"detail\":\"try later\"}'",
    );
    tells(&mut world, P, "put_off");
}

#[test]
fn received_changes_that_find_no_place() {
    let mut world = pair();
    for name in ["Alice", "Bob"] {
        world.offline(name);
    }
    world.sql("Alice", "INSERT INTO project VALUES ('a', 'same')");
    world.sql(
        "Bob",
        "INSERT INTO project VALUES ('b', 'same'); INSERT INTO task VALUES ('t', 'b', 'x')",
    );
    world.online("Bob");
    world.online("Alice");
    tells(&mut world, ("project", "b"), "quarantined");
    tells(&mut world, T, "in_the_inbox");
}

#[test]
fn received_changes_that_wait_for_an_answer() {
    let mut world = pair();
    world.sql("Alice", "UPDATE project SET name = 'mine'");
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    world.sql("Bob", "UPDATE project SET name = 'theirs'");
    world.sync("Bob");
    world.pass(60_000);
    world.pull_only("Alice");
    tells(&mut world, P, "in_the_inbox_for_an_answer");
}

#[test]
fn received_changes_that_wait_for_the_head() {
    let mut world = pair();
    world.configure(|config| config.page_changes = 1);
    world.checkpoint(Some(Checkpoint {
        changes: 1_000,
        bytes: 1_000_000,
    }));
    world.restart("Alice");
    world.sql(
        "Bob",
        "UPDATE project SET name = 'theirs'; INSERT INTO task VALUES ('t', 'p', 'x')",
    );
    world.sync("Bob");
    world.offline_after("Alice", 2);
    world.sync("Alice");
    tells(&mut world, P, "in_the_inbox_for_the_head");
}

#[test]
fn rows_out_of_scope() {
    let mut world = pair();
    world.sql(
        "Alice",
        "CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT); INSERT INTO note VALUES ('n', 'mine');
         CREATE VIEW titles AS SELECT title FROM task",
    );
    tells(&mut world, ("note", "n"), "out_of_scope");
    tells(&mut world, ("titles", "1"), "out_of_scope_view");

    let mut world = World::new("");
    let schema = "CREATE TABLE reading (id PRIMARY KEY NOT NULL, value TEXT, note TEXT);
                  INSERT INTO reading VALUES (1.5, 'x', 'y'), ('r', 'x', 'y')";
    let options = TypeOptions {
        leave_out: ["note".to_owned()].into(),
        ..TypeOptions::default()
    };
    world.device_declared("Alice", schema, [("reading".to_owned(), options)].into());
    world.run_until_quiet();
    tells(&mut world, ("reading", "1.5"), "out_of_scope_key");
    tells(&mut world, ("reading", "r"), "out_of_scope_column");
}

#[test]
fn writes_that_escaped_capture() {
    let mut world = pair();
    world.sql(
        "Alice",
        "DROP TRIGGER syncline_capture_project_after_update; UPDATE project SET name = 'unseen'",
    );
    tells(&mut world, P, "escaped_capture");
    world.offline("Alice");
    world.sync("Alice");
    tells(&mut world, P, "escaped_capture_not_compared");
}

#[test]
fn held_removals_and_natural_keys() {
    let mut world = pair();
    world.sql("Bob", "INSERT INTO project VALUES ('b', 'attic')");
    world.run_until_quiet();
    world.replace_server("epoch-2");
    world.sync("Alice");
    let b = ("project", "b");
    tells(&mut world, b, "held");
    world.sql("Alice", "UPDATE project SET name = 'kept?' WHERE id = 'b'");
    tells(&mut world, b, "waits_for_held");

    let mut world = World::new(SCHEMA);
    let rules = ConflictRules {
        natural_key: ["name".to_owned()].into(),
        ..ConflictRules::default()
    };
    world.device_ruled("Alice", "project", &rules);
    world.sql("Alice", "INSERT INTO project VALUES ('p', 'home')");
    tells(&mut world, P, "waits_for_head");
}
