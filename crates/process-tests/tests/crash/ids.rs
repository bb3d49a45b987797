//! The same with keys that SQLite assigns: every device chose the next integers offline, so that ids
//! are replaced during the sync in which a process dies.

use super::{World, assert_cursor_not_ahead, crash, in_parallel, moments};
use rusqlite::Connection;
use std::path::Path;
use syncline_process_tests::{Device, assert_same, assert_settled, listing, number, token};

/// `step` has a key of two parts, one of which is its parent's id.
const SCHEMA: &str = "
    CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE task (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT,
                       project INTEGER NOT NULL REFERENCES project(id),
                       parent INTEGER REFERENCES task(id));
    CREATE TABLE step (task INTEGER NOT NULL REFERENCES task(id), number INTEGER NOT NULL, what TEXT,
                       PRIMARY KEY (task, number)) WITHOUT ROWID;";

const BEGINNING: &str = "
    INSERT INTO project VALUES (1, 'house');
    INSERT INTO task (title, project, parent) VALUES ('door', 1, NULL), ('lock', 1, 1);
    INSERT INTO step VALUES (1, 1, 'measure');";

/// Bob is the first at the server: he has project 2, tasks 3 and 4 and step (3, 1) for his own.
const BOB: &str = "
    INSERT INTO project (name) VALUES ('garden');
    INSERT INTO task (title, project, parent) VALUES ('pond', 2, NULL), ('fish', 2, 3);
    INSERT INTO step VALUES (3, 1, 'dig');
    UPDATE project SET name = 'big house' WHERE id = 1;";

/// Alice chose the same ids, and the ones that the server gives next.
const ALICE: &str = "
    INSERT INTO project (name) VALUES ('car'), ('boat');
    INSERT INTO task (title, project, parent) VALUES ('wheel', 2, NULL), ('tyre', 2, 3), ('sail', 3, NULL);
    INSERT INTO step VALUES (3, 1, 'lift'), (5, 1, 'sew');
    UPDATE task SET title = 'front door', parent = 3 WHERE id = 1;
    UPDATE task SET title = 'flat tyre' WHERE title = 'tyre';
    DELETE FROM task WHERE id = 2;";

/// Carol has never synced: to her even project 1 is free.
const CAROL: &str = "
    INSERT INTO project (name) VALUES ('bike');
    INSERT INTO task (title, project, parent) VALUES ('saddle', 1, NULL), ('screw', 1, 1);
    INSERT INTO step VALUES (1, 1, 'oil');";

const OF_BEGINNING: i64 = 4;
const OF_BOB: i64 = 5;
const OF_ALICE: i64 = 9;
const OF_CAROL: i64 = 4;

/// Everything by names, so that it does not matter which ids the rows have.
const TREE: &str = "
    SELECT p.name || ': ' || t.title
           || ' < ' || coalesce((SELECT title FROM task WHERE id = t.parent), '-')
           || ', ' || coalesce((SELECT group_concat(what) FROM step WHERE task = t.id), '-')
      FROM task AS t JOIN project AS p ON p.id = t.project ORDER BY 1";

const WITH_ALICE: [&str; 6] = [
    "big house: front door < wheel, measure",
    "boat: sail < -, sew",
    "car: flat tyre < wheel, -",
    "car: wheel < -, lift",
    "garden: fish < pond, -",
    "garden: pond < -, dig",
];

const WITH_CAROL: [&str; 6] = [
    "big house: door < -, measure",
    "big house: lock < door, -",
    "bike: saddle < -, oil",
    "bike: screw < saddle, -",
    "garden: fish < pond, -",
    "garden: pond < -, dig",
];

/// By names: what had this id when it was made, and what is to be found by it still.
const ALICES_IDS: [(&str, i64, &str); 5] = [
    ("project", 2, "car"),
    ("project", 3, "boat"),
    ("task", 3, "wheel"),
    ("task", 4, "flat tyre"),
    ("task", 5, "sail"),
];

const CAROLS_IDS: [(&str, i64, &str); 3] = [
    ("project", 1, "bike"),
    ("task", 1, "saddle"),
    ("task", 2, "screw"),
];

/// Whose process dies, and what must be true in the end.
struct Case<'a> {
    file: &'static str,
    tree: &'a [&'static str],
    ids: &'a [(&'static str, i64, &'static str)],
    effects: i64,
}

const ALICES: Case<'_> = Case {
    file: "alice.db",
    tree: &WITH_ALICE,
    ids: &ALICES_IDS,
    effects: OF_BEGINNING + OF_BOB + OF_ALICE,
};

const CAROLS: Case<'_> = Case {
    file: "carol.db",
    tree: &WITH_CAROL,
    ids: &CAROLS_IDS,
    effects: OF_BEGINNING + OF_BOB + OF_CAROL,
};

/// Alice and Bob have synced the beginning; then all three have written; Bob has synced again.
fn prepare() -> World {
    let world = World::empty();
    let mut server = world.server();
    for name in ["alice.db", "bob.db", "carol.db"] {
        Device::create(super::DEVICE, world.path(name), SCHEMA);
    }
    let device = |name| world.device(name, &server);
    let (alice, bob, carol) = (device("alice.db"), device("bob.db"), device("carol.db"));
    alice.run("--attach upload attach").success();
    alice.sql(BEGINNING);
    alice.sync();
    bob.run("--attach upload sync").success();
    bob.sql(BOB);
    bob.sync();
    alice.sql(ALICE);
    carol.run("--attach upload attach").success();
    carol.sql(CAROL);
    server.kill();
    world
}

fn tree(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare(TREE).unwrap();
    let lines = statement.query_map([], |row| row.get(0)).unwrap();
    lines.collect::<Result<_, _>>().unwrap()
}

/// Each row is found by the id that it had when it was made.
fn assert_found_by_old_ids(context: &str, path: &Path, ids: &[(&str, i64, &str)]) {
    for (table, old, name) in ids {
        let column = if *table == "project" { "name" } else { "title" };
        let now = number(
            path,
            &format!("SELECT id FROM {table} WHERE {column} = '{name}'"),
        );
        let found = number(
            path,
            &format!(
                "SELECT coalesce((SELECT CAST(new_id AS INTEGER) FROM syncline_id_map
                    WHERE entity_type = '{table}' AND old_id = '{old}'), {old})"
            ),
        );
        assert_eq!(found, now, "{context}: {table} {old} was {name}");
    }
}

/// The device's process dies at the moments, one after the other; then it and Bob sync.
fn play(prepared: &World, case: &Case<'_>, deaths: &[&str]) {
    let context = format!("{} dies at {deaths:?}", case.file);
    let world = prepared.copy();
    let server = world.server();
    let (dying, bob) = (
        world.device(case.file, &server),
        world.device("bob.db", &server),
    );
    for (index, moment) in deaths.iter().enumerate() {
        if index == 0 {
            crash(&dying, moment);
        } else {
            dying.run(&format!("--crash {moment} sync"));
        }
        assert_cursor_not_ahead(&context, &dying.path, &world.path("server/server.db"));
    }
    dying.sync();
    bob.sync();
    let listed = listing(&server.url(), &token());
    for device in [&dying, &bob] {
        let name = device.path.display().to_string();
        assert_eq!(tree(&device.path), case.tree, "{context}: {name}");
        assert_same(&context, (&name, &device.rows()), ("the server", &listed));
        assert_settled(&context, &device.path);
        let broken = "SELECT count(*) FROM pragma_foreign_key_check";
        assert_eq!(number(&device.path, broken), 0, "{context}: {name}");
    }
    assert_found_by_old_ids(&context, &dying.path, case.ids);
    assert_eq!(world.effects(), case.effects, "{context}: effects");
    assert_eq!(world.keys_applied(), case.effects, "{context}: keys");
}

/// Every point of the sync, and some pairs of them.
fn play_all(case: &Case<'_>, occurrences: usize) {
    let prepared = prepare();
    let control = prepared.copy();
    let server = control.server();
    let moments = moments(&control.device(case.file, &server), occurrences);
    drop(server);
    let replaced = "SELECT count(*) FROM syncline_id_map";
    let replaced = number(&control.path(case.file), replaced);
    assert!(replaced >= 3, "only {replaced} ids were replaced");
    let mut cases: Vec<Vec<&str>> = (moments.iter()).map(|one| vec![one.as_str()]).collect();
    // The process that recovers dies as well: at booking, in the middle of replacing ids.
    for first in [
        "book:committed:1",
        "apply-page:committed:1",
        "claim:committed:2",
    ] {
        cases.push(vec![first, "book:written:1", "apply-page:written:1"]);
    }
    println!("{} cases: {cases:?}", cases.len());
    in_parallel(&cases, |deaths| play(&prepared, case, deaths));
}

#[test]
fn a_process_dies_at_every_point_of_a_sync_that_replaces_ids() {
    play_all(&ALICES, 3);
}

#[test]
fn a_process_dies_at_every_point_of_a_first_sync_that_replaces_ids() {
    play_all(&CAROLS, 2);
}
