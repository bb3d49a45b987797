//! Stories of conflicts that wait for a person: what is shown, what can be chosen, and taking it back.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use syncline::{Notice, Policy};
use syncline_protocol::{Fields, Value};
use syncline_store::StoreError;
use syncline_store::conflict::{
    ChangedBy, Choice, Conflict, ConflictDetails, ConflictFilter, FieldChoice,
};
use syncline_testkit::World;

const SCHEMA: &str =
    "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER, note TEXT)";

/// Bob, who decides himself, has changed the title to `soy` and the note; Alice, the title to `oat`
/// and `done`, and hers is on the server.
fn disputed() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.device_with("Bob", Policy::Manual);
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk', 0, NULL), ('2', 'bread', 0, NULL)",
    );
    world.run_until_quiet();
    world.sql(
        "Alice",
        "UPDATE task SET title = 'oat', done = 1 WHERE id = '1'",
    );
    world.sql(
        "Bob",
        "UPDATE task SET title = 'soy', note = 'two' WHERE id = '1'",
    );
    world.sync("Alice");
    world.sync("Bob");
    world
}

fn open(world: &mut World, name: &str) -> Vec<Conflict> {
    let store = world.get(name).engine().store();
    store.conflicts(&ConflictFilter::open()).unwrap()
}

fn only(world: &mut World, name: &str) -> ConflictDetails {
    let found = open(world, name);
    assert_eq!(found.len(), 1, "{found:?}");
    world
        .get(name)
        .engine()
        .store()
        .conflict(found[0].id)
        .unwrap()
}

fn choose(world: &mut World, name: &str, id: i64, choice: &Choice) -> Result<(), StoreError> {
    let now = world.now();
    world
        .get(name)
        .engine()
        .store()
        .resolve_conflict(id, choice, now)
}

fn undo(world: &mut World, name: &str, id: i64) -> Result<(), StoreError> {
    let now = world.now();
    world.get(name).engine().store().undo_resolution(id, now)
}

fn outbox(world: &mut World, name: &str) -> Vec<String> {
    let all = "SELECT seq || mutation || op || coalesce(payload, '') || state || coalesce(idempotency_key, '')
                 FROM syncline_outbox ORDER BY seq";
    world.rows(name, all)
}

fn row(world: &mut World, name: &str) -> Vec<String> {
    let all = "SELECT concat_ws('|', title, done, note) FROM task WHERE id = '1'";
    world.rows(name, all)
}

#[test]
fn a_person_sees_field_by_field_what_happened_and_everything_else_goes_on() {
    let mut world = disputed();
    let told = |n: &Notice| matches!(n, Notice::ConflictOpened { .. });
    assert!(world.get("Bob").notices.iter().any(told));
    world.sql("Bob", "UPDATE task SET done = 1 WHERE id = '2'");
    world.sync("Bob");
    world.sync("Alice");
    let other = "SELECT done FROM task WHERE id = '2'";
    assert_eq!(world.rows("Alice", other), ["1"]);
    let shown = only(&mut world, "Bob");
    let field = |name: &str| shown.fields.iter().find(|one| one.name == name).unwrap();
    assert_eq!(field("title").changed_by, ChangedBy::Both);
    assert_eq!(field("title").base, Some(Value::from("milk")));
    assert_eq!(field("title").mine, Some(Value::from("soy")));
    assert_eq!(field("title").theirs, Some(Value::from("oat")));
    assert_eq!(field("done").changed_by, ChangedBy::Theirs);
    assert_eq!(field("note").changed_by, ChangedBy::Mine);
    let policy = |word: &str| {
        let row = shown
            .policies
            .iter()
            .find(|one| one.policy == word)
            .unwrap();
        row.row.as_ref().and_then(|row| row.get("title")).cloned()
    };
    assert_eq!(policy("server-wins"), Some(Value::from("oat")));
    assert_eq!(policy("client-wins"), Some(Value::from("soy")));
    assert_eq!(policy("manual"), None);
    // A local edit meanwhile is shown, and its mutation named.
    world.sql("Bob", "UPDATE task SET note = 'three' WHERE id = '1'");
    let shown = only(&mut world, "Bob");
    assert_eq!(
        shown.local.unwrap().get("note"),
        Some(&Value::from("three"))
    );
    assert_eq!(shown.conflict.mutations.len(), 2);
}

#[test]
fn each_choice_flows_out_as_an_ordinary_mutation() {
    let document: Fields = [
        ("title", Value::from("rice")),
        ("done", 2i64.into()),
        ("note", Value::Null),
    ]
    .into_iter()
    .collect();
    let field = BTreeMap::from([("title".to_owned(), FieldChoice::Mine)]);
    let value = BTreeMap::from([(
        "title".to_owned(),
        FieldChoice::Value(Value::from("almond")),
    )]);
    for (choice, expected) in [
        (Choice::Mine, vec!["soy|0|two"]),
        (Choice::Theirs, vec!["oat|1"]),
        (Choice::Fields(field), vec!["soy|1|two"]),
        (Choice::Fields(value), vec!["almond|1|two"]),
        (Choice::Document(document), vec!["rice|2"]),
        (Choice::Delete, vec![]),
    ] {
        let mut world = disputed();
        let id = only(&mut world, "Bob").conflict.id;
        choose(&mut world, "Bob", id, &choice).unwrap();
        world.run_until_quiet();
        world.assert_converged();
        assert_eq!(row(&mut world, "Alice"), expected, "{choice:?}");
        assert!(open(&mut world, "Bob").is_empty());
        let decided = world.get("Bob").engine().store().conflict(id).unwrap();
        assert_eq!(
            decided.conflict.resolution.as_deref(),
            Some(choice.as_str())
        );
    }
}

#[test]
fn a_choice_that_leaves_something_open_or_cannot_be_changes_nothing() {
    let mut world = disputed();
    let id = only(&mut world, "Bob").conflict.id;
    let before = (row(&mut world, "Bob"), outbox(&mut world, "Bob"));
    let partial: Fields = [("title", "x")].into_iter().collect();
    let unknown = BTreeMap::from([("tittle".to_owned(), FieldChoice::Mine)]);
    for (choice, why) in [
        (Choice::Fields(BTreeMap::new()), "both sides changed title"),
        (Choice::Fields(unknown), "no field \"tittle\""),
        (Choice::Document(partial), "lacks these fields: done, note"),
    ] {
        let refused = choose(&mut world, "Bob", id, &choice)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!((row(&mut world, "Bob"), outbox(&mut world, "Bob")), before);
    assert!(choose(&mut world, "Bob", id + 7, &Choice::Mine).is_err());
    choose(&mut world, "Bob", id, &Choice::Mine).unwrap();
    let twice = choose(&mut world, "Bob", id, &Choice::Theirs)
        .unwrap_err()
        .to_string();
    assert!(twice.contains("decided already: mine"), "{twice}");
}

#[test]
fn a_conflict_whose_remote_moves_on_is_refreshed_and_not_duplicated() {
    let mut world = disputed();
    let first = only(&mut world, "Bob");
    world.sql(
        "Alice",
        "UPDATE task SET title = 'rye', note = 'hers' WHERE id = '1'",
    );
    world.run_until_quiet();
    let refreshed = only(&mut world, "Bob");
    assert_eq!(refreshed.conflict.id, first.conflict.id);
    assert_eq!(
        refreshed.remote.unwrap().get("title"),
        Some(&Value::from("rye"))
    );
    assert_eq!(
        refreshed.base.unwrap().get("title"),
        Some(&Value::from("milk"))
    );
    assert_eq!(world.status("Bob").inbox, 0);
    // Resolved, and the remote moves on once more before it is pushed.
    choose(&mut world, "Bob", first.conflict.id, &Choice::Mine).unwrap();
    world.sql("Alice", "UPDATE task SET done = 5 WHERE id = '1'");
    world.sync("Alice");
    world.run_until_quiet();
    let again = only(&mut world, "Bob");
    choose(&mut world, "Bob", again.conflict.id, &Choice::Mine).unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(row(&mut world, "Alice"), ["soy|0|two"]);
}

#[test]
fn a_conflict_settles_itself_when_the_remote_takes_back_what_it_did() {
    let mut world = disputed();
    world.sql(
        "Alice",
        "UPDATE task SET title = 'milk', done = 0 WHERE id = '1'",
    );
    world.run_until_quiet();
    assert!(open(&mut world, "Bob").is_empty());
    world.assert_converged();
    assert_eq!(row(&mut world, "Alice"), ["soy|0|two"]);
}

#[test]
fn a_choice_can_be_taken_back_until_it_is_pushed() {
    for choice in [Choice::Mine, Choice::Theirs, Choice::Delete] {
        let mut world = disputed();
        world.sql("Bob", "UPDATE task SET note = 'three' WHERE id = '1'");
        let before = (row(&mut world, "Bob"), outbox(&mut world, "Bob"));
        let shown = only(&mut world, "Bob");
        let id = shown.conflict.id;
        choose(&mut world, "Bob", id, &choice).unwrap();
        undo(&mut world, "Bob", id).unwrap();
        assert_eq!(
            (row(&mut world, "Bob"), outbox(&mut world, "Bob")),
            before,
            "{choice:?}"
        );
        assert_eq!(only(&mut world, "Bob").conflict.id, id);
        // It is as open as it was: paused, and to be decided.
        world.sync("Bob");
        assert_eq!(row(&mut world, "Alice"), ["oat|1"]);
        choose(&mut world, "Bob", id, &Choice::Mine).unwrap();
        world.sync("Bob");
        let late = undo(&mut world, "Bob", id).unwrap_err().to_string();
        assert!(late.contains("too late"), "{late}");
        world.run_until_quiet();
        world.assert_converged();
        assert_eq!(row(&mut world, "Alice"), ["soy|0|three"]);
    }
}

#[test]
fn discarding_its_mutations_closes_a_conflict_or_decides_it_afresh() {
    let mut world = disputed();
    world.sql("Bob", "UPDATE task SET done = 9 WHERE id = '1'");
    let seqs = world.rows("Bob", "SELECT seq FROM syncline_outbox ORDER BY seq");
    let discard = |world: &mut World, seq: &str| {
        let now = world.now();
        let seq = seq.parse().unwrap();
        world.get("Bob").engine().store().discard(seq, now).unwrap();
    };
    discard(&mut world, &seqs[0]);
    let shown = only(&mut world, "Bob");
    assert_eq!(
        shown.local.unwrap().get("title"),
        Some(&Value::from("milk"))
    );
    discard(&mut world, &seqs[1]);
    assert!(open(&mut world, "Bob").is_empty());
    assert_eq!(row(&mut world, "Bob"), ["oat|1"]);
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn a_choice_survives_crashes_and_cannot_be_taken_back_once_it_may_have_been_sent() {
    let mut world = disputed();
    let id = only(&mut world, "Bob").conflict.id;
    choose(&mut world, "Bob", id, &Choice::Mine).unwrap();
    world.crash("Bob");
    world.restart("Bob");
    world.hold_push("Bob");
    let late = undo(&mut world, "Bob", id).unwrap_err().to_string();
    assert!(late.contains("too late"), "it may have been sent: {late}");
    world.crash("Bob");
    world.restart("Bob");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(row(&mut world, "Alice"), ["soy|0|two"]);
}
