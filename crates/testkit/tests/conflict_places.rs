//! Stories of rows that want the same place: natural keys, and unique values that collide.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use syncline::Notice;
use syncline_core::{ConflictRules, FieldRule};
use syncline_protocol::{Fields, Value};
use syncline_server::{ServerConfig, TypeConfig};
use syncline_store::conflict::{Choice, Conflict, ConflictFilter, FieldChoice, Side};
use syncline_testkit::World;

const TAGS: &str = "
    CREATE TABLE tag (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, uses INTEGER, colour TEXT);
    CREATE TABLE note (id TEXT PRIMARY KEY NOT NULL, tag TEXT REFERENCES tag (id), body TEXT)";
const LOOSE_TAGS: &str = "
    CREATE TABLE tag (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, uses INTEGER, colour TEXT);
    CREATE TABLE note (id TEXT PRIMARY KEY NOT NULL, tag TEXT REFERENCES tag (id), body TEXT)";

fn by_name() -> ConflictRules {
    ConflictRules {
        natural_key: ["name".to_owned()].into(),
        merge: [("uses".to_owned(), FieldRule::Counter)].into(),
        ..ConflictRules::default()
    }
}

fn open(world: &mut World, name: &str) -> Vec<Conflict> {
    let store = world.get(name).engine().store();
    store.conflicts(&ConflictFilter::open()).unwrap()
}

fn choose(world: &mut World, name: &str, id: i64, choice: &Choice) -> Result<(), String> {
    let now = world.now();
    let store = world.get(name).engine().store();
    store
        .resolve_conflict(id, choice, now)
        .map_err(|error| error.to_string())
}

#[test]
fn three_devices_make_the_same_thing_offline_and_it_becomes_one_with_all_its_children() {
    for schema in [TAGS, LOOSE_TAGS] {
        let mut world = World::new(schema);
        let names = ["Alice", "Bob", "Carol"];
        for name in names {
            world.device_ruled(name, "tag", &by_name());
            world.sync(name);
        }
        for name in names {
            let id = name.to_lowercase();
            world.sql(
                name,
                &format!(
                    "INSERT INTO tag VALUES ('{id}', 'red', 1, '{id}');
                     INSERT INTO note VALUES ('note of {id}', '{id}', 'x');"
                ),
            );
        }
        world.run_until_quiet();
        world.run_until_quiet();
        world.assert_converged();
        assert_eq!(
            world.rows("Alice", "SELECT count(*) || ':' || sum(uses) FROM tag"),
            ["1:3"]
        );
        let notes = "SELECT count(*) FROM note JOIN tag ON tag.id = note.tag";
        assert_eq!(world.rows("Carol", notes), ["3"]);
        assert_eq!(world.on_server("tag").len(), 1);
        // The app can look its own id up, and was told.
        assert_eq!(world.current_id("Carol", "tag", "carol"), "alice");
        let told = |n: &Notice| matches!(n, Notice::IdChanged { .. });
        assert!(world.get("Carol").notices.iter().any(told));
        let why = "SELECT reason FROM syncline_id_map WHERE old_id = 'carol'";
        assert_eq!(world.rows("Carol", why), ["natural-key"]);
    }
}

/// The race that waiting for the head leaves open: Alice is quicker while Bob's push is on its way.
#[test]
fn a_create_that_the_server_refuses_because_the_thing_is_there_becomes_one_with_it() {
    let tag = TypeConfig {
        unique: vec![vec!["name".to_owned()]],
        ..TypeConfig::default()
    };
    let config = ServerConfig {
        types: BTreeMap::from([
            ("tag".to_owned(), tag),
            ("note".to_owned(), TypeConfig::default()),
        ]),
        ..ServerConfig::default()
    };
    for schema in [TAGS, LOOSE_TAGS] {
        let mut world = World::with_server(schema, config.clone());
        for name in ["Alice", "Bob"] {
            world.device_ruled(name, "tag", &by_name());
            world.sync(name);
        }
        world.sql("Alice", "INSERT INTO tag VALUES ('a', 'red', 1, NULL)");
        world.sql(
            "Bob",
            "INSERT INTO tag VALUES ('b', 'red', 2, 'b');
             INSERT INTO note VALUES ('n', 'b', 'x')",
        );
        world.hold_push("Bob");
        world.sync("Alice");
        world.release("Bob");
        world.run_until_quiet();
        world.run_until_quiet();
        world.assert_converged();
        assert_eq!(
            world.rows("Alice", "SELECT id || uses || colour FROM tag"),
            ["a3b"]
        );
        assert_eq!(world.rows("Alice", "SELECT tag FROM note"), ["a"]);
        assert_eq!(world.status("Bob").outbox["failed"], 0);
    }
}

#[test]
fn things_with_different_natural_keys_stay_apart() {
    let mut world = World::new(TAGS);
    for (name, tag) in [("Alice", "red"), ("Bob", "blue")] {
        world.device_ruled(name, "tag", &by_name());
        world.sql(
            name,
            &format!("INSERT INTO tag VALUES ('{name}', '{tag}', 1, NULL)"),
        );
    }
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Bob", "SELECT name FROM tag ORDER BY name"),
        ["blue", "red"]
    );
}

/// Bob's `b` is not sent yet when Alice's row with the same name arrives.
fn collided() -> World {
    let mut world = World::new(TAGS);
    world.device("Alice");
    world.device("Bob");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO tag VALUES ('a', 'red', 1, NULL)");
    world.sql("Bob", "INSERT INTO tag VALUES ('b', 'red', 2, NULL)");
    world.sync("Alice");
    world.pull_only("Bob");
    world
}

#[test]
fn a_dirty_row_in_the_way_is_a_conflict_whose_end_lets_the_other_in() {
    let name = BTreeMap::from([("name".to_owned(), FieldChoice::Value(Value::from("green")))]);
    for (choice, tags) in [
        (Choice::Fields(name), vec!["a red", "b green"]),
        (Choice::Theirs, vec!["a red"]),
        (Choice::Delete, vec!["a red"]),
    ] {
        let mut world = collided();
        let found = open(&mut world, "Bob");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].showed.side, found[0].entity_id.as_str()),
            (Side::Violation, "b")
        );
        assert_eq!(found[0].showed.other.as_ref().unwrap().entity_id, "a");
        // It waits, and only it.
        world.sql("Bob", "INSERT INTO tag VALUES ('c', 'blue', 0, NULL)");
        world.run_until_quiet();
        assert_eq!(world.on_server("tag").len(), 2);
        world.sql("Bob", "DELETE FROM tag WHERE id = 'c'");
        let id = found[0].id;
        let mine = choose(&mut world, "Bob", id, &Choice::Mine).unwrap_err();
        assert!(mine.contains("would still find no place"), "{mine}");
        assert_eq!(open(&mut world, "Bob").len(), 1);
        choose(&mut world, "Bob", id, &choice).unwrap();
        world.run_until_quiet();
        world.assert_converged();
        let all = "SELECT id || ' ' || name FROM tag ORDER BY id";
        assert_eq!(world.rows("Alice", all), tags, "{choice:?}");
    }
}

/// Bob's row has an open conflict when another row arrives under its id.
#[test]
fn an_open_conflict_goes_along_when_its_row_gets_another_id() {
    let mut world = World::new("CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
    world.device("Alice");
    world.device("Bob");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO tag VALUES (1, 'red')");
    world.sql("Bob", "INSERT INTO tag VALUES (2, 'red')");
    world.sync("Alice");
    world.pull_only("Bob");
    let found = open(&mut world, "Bob");
    assert_eq!((found.len(), found[0].entity_id.as_str()), (1, "2"));
    world.sql("Alice", "INSERT INTO tag VALUES (2, 'blue')");
    world.sync("Alice");
    world.pull_only("Bob");
    let moved = open(&mut world, "Bob");
    assert_eq!((moved.len(), moved[0].id), (1, found[0].id));
    let to = world.current_id("Bob", "tag", "2");
    assert!(to != "2" && moved[0].entity_id == to, "{moved:?}");
    assert_eq!(
        world.rows("Bob", "SELECT name FROM tag WHERE id = 2"),
        ["blue"]
    );
    let name = BTreeMap::from([("name".to_owned(), FieldChoice::Value(Value::from("green")))]);
    choose(&mut world, "Bob", moved[0].id, &Choice::Fields(name)).unwrap();
    world.run_until_quiet();
    world.assert_converged();
    let names = "SELECT name FROM tag ORDER BY id";
    assert_eq!(world.rows("Alice", names), ["red", "blue", "green"]);
}

#[test]
fn a_local_edit_that_makes_room_ends_the_conflict() {
    let mut world = collided();
    assert_eq!(open(&mut world, "Bob").len(), 1);
    world.sql("Bob", "UPDATE tag SET name = 'green' WHERE id = 'b'");
    world.run_until_quiet();
    assert!(open(&mut world, "Bob").is_empty());
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT name FROM tag ORDER BY id"),
        ["red", "green"]
    );
}

#[test]
fn of_two_rows_that_are_both_on_the_server_the_one_without_a_place_waits_and_is_shown() {
    let mut world = World::new(TAGS);
    world.device("Alice");
    world.device("Bob");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO tag VALUES ('a', 'red', 1, NULL)");
    world.sql("Bob", "INSERT INTO tag VALUES ('b', 'red', 2, NULL)");
    world.run_until_quiet();
    for (name, waits) in [("Alice", "b"), ("Bob", "a")] {
        let found = open(&mut world, name);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!(found[0].entity_id, waits);
        assert!(
            found[0]
                .showed
                .constraint
                .as_ref()
                .unwrap()
                .contains("tag.name")
        );
    }
    let id = open(&mut world, "Bob")[0].id;
    let theirs = choose(&mut world, "Bob", id, &Choice::Theirs).unwrap_err();
    assert!(theirs.contains("UNIQUE"), "{theirs}");
    let document: Fields = [
        ("name", Value::from("crimson")),
        ("uses", 1i64.into()),
        ("colour", Value::Null),
    ]
    .into_iter()
    .collect();
    choose(&mut world, "Bob", id, &Choice::Document(document)).unwrap();
    world.run_until_quiet();
    world.assert_converged();
    for name in ["Alice", "Bob"] {
        assert!(open(&mut world, name).is_empty());
        let all = "SELECT id || ' ' || name FROM tag ORDER BY id";
        assert_eq!(world.rows(name, all), ["a crimson", "b red"]);
    }
}

#[test]
fn a_row_that_breaks_a_check_waits_is_shown_and_lands_when_the_server_mends_it() {
    let mut world = World::new("CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INTEGER)");
    world.device("Alice");
    let strict = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INTEGER CHECK (n < 10))";
    world.device_declared("Bob", strict, BTreeMap::new());
    world.sql("Alice", "INSERT INTO t VALUES ('a', 50), ('b', 1)");
    world.run_until_quiet();
    assert_eq!(
        world.rows("Bob", "SELECT id FROM t"),
        ["b"],
        "the page did not fail"
    );
    let found = open(&mut world, "Bob");
    assert_eq!((found.len(), found[0].entity_id.as_str()), (1, "a"));
    assert!(
        found[0]
            .showed
            .constraint
            .as_ref()
            .unwrap()
            .contains("CHECK")
    );
    world.sql("Alice", "UPDATE t SET n = 5 WHERE id = 'a'");
    world.run_until_quiet();
    assert!(open(&mut world, "Bob").is_empty());
    world.assert_converged();
    let closed = "SELECT resolution FROM syncline_conflict";
    assert_eq!(world.rows("Bob", closed), ["landed"]);
}
