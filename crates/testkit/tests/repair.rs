//! Narrow repair, step by step: what differs takes over the server's state like a pulled change, and
//! whatever happened meanwhile is respected.
#![allow(clippy::unwrap_used)] // helpers of tests

use rusqlite::Connection;
use std::collections::BTreeMap;
use syncline::Store;
use syncline_core::EntityRef;
use syncline_protocol::{Change, DigestChanges, EntityId, EntityType};
use syncline_server::{Now as ServerNow, Request};
use syncline_store::digest::{self, Divergence, LocalDigest};
use syncline_store::{Repaired, StoreError};
use syncline_testkit::World;

const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT UNIQUE);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, project TEXT REFERENCES project(id), title TEXT);";

fn world() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.sql(
        "Alice",
        "INSERT INTO project VALUES ('p', 'one'), ('q', 'two'); INSERT INTO task VALUES ('t', 'p', 'x'), ('u', 'q', 'y')",
    );
    world.run_until_quiet();
    world.assert_equals_server("Alice");
    world
}

fn plant(world: &mut World, sql: &str) {
    let planted = format!(
        "BEGIN; INSERT INTO syncline_guard VALUES (1); {sql}; DELETE FROM syncline_guard; COMMIT"
    );
    world.sql("Alice", &planted);
}

/// What the server has of these entities, asked like any client would.
fn on_server(world: &World, entity_type: &str, ids: &[&str]) -> BTreeMap<EntityId, Change> {
    let ids: String = serde_json::to_string(ids).unwrap();
    let ids: String = ids.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let request = Request::new("GET", &format!("/v1/digest?type={entity_type}&ids={ids}"))
        .header("syncline-protocol", syncline_protocol::PROTOCOL_VERSION)
        .header(
            "authorization",
            format!("Bearer {}", world.token("somebody")),
        );
    let now = ServerNow::from_unix_ms(world.now().unix_ms);
    let answer = world.server().handle(&request, now);
    let answer: DigestChanges = serde_json::from_slice(&answer.body).unwrap();
    answer
        .changes
        .into_iter()
        .map(|change| (change.id.clone(), change))
        .collect()
}

/// What differs among these entities.
fn found(world: &mut World, names: &[(&str, &str)]) -> (LocalDigest, Vec<Divergence>) {
    let conn = Connection::open(world.path("Alice")).unwrap();
    let digest = digest::read(&conn).unwrap().unwrap();
    let mut all = Vec::new();
    for (entity_type, id) in names {
        let change = on_server(world, entity_type, &[id]).into_values().next();
        let entity = EntityRef {
            entity_type: EntityType::new(*entity_type),
            id: EntityId::parse(*id).unwrap(),
        };
        all.extend(digest::judge(&conn, &digest, &entity, change.as_ref()).unwrap());
    }
    (digest, all)
}

fn repair(
    world: &mut World,
    digest: &LocalDigest,
    found: &[Divergence],
) -> Result<Repaired, StoreError> {
    let now = world.now();
    let store: &mut Store = world.get("Alice").engine().store();
    store.repair((&digest.scope, digest.position), found, now)
}

#[test]
fn unique_values_that_were_swapped_and_a_missing_parent_are_mended_at_once() {
    let mut world = world();
    plant(
        &mut world,
        "UPDATE project SET name = 'x' WHERE id = 'p'; UPDATE project SET name = 'one' WHERE id = 'q';
         UPDATE project SET name = 'two' WHERE id = 'p'; DELETE FROM task",
    );
    // The child before its parent, and each of the swapped before the other has left.
    let names = [
        ("task", "t"),
        ("task", "u"),
        ("project", "p"),
        ("project", "q"),
    ];
    let (digest, all) = found(&mut world, &names);
    assert_eq!(all.len(), 4);
    repair(&mut world, &digest, &all).unwrap();
    world.assert_equals_server("Alice");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT count(*) FROM syncline_outbox"),
        ["0"]
    );
}

#[test]
fn what_changed_meanwhile_is_left_alone() {
    let mut world = world();
    plant(&mut world, "UPDATE task SET title = 'odd'");
    let (digest, all) = found(&mut world, &[("task", "t"), ("task", "u")]);
    // One gets a mutation, the other changes unseen once more.
    world.sql("Alice", "UPDATE task SET title = 'mine' WHERE id = 't'");
    plant(&mut world, "UPDATE task SET title = 'odder' WHERE id = 'u'");
    let repaired = repair(&mut world, &digest, &all).unwrap();
    assert_eq!((repaired.left_alone, repaired.taken_over), (2, 0));
    assert_eq!(
        world.rows("Alice", "SELECT title FROM task"),
        ["mine", "odder"]
    );

    // A position that moved on says nothing of what was compared before.
    let (digest, all) = found(&mut world, &[("task", "u")]);
    world.run_until_quiet();
    let repaired = repair(&mut world, &digest, &all).unwrap();
    assert_eq!((repaired.left_alone, repaired.taken_over), (1, 0));
    let (digest, all) = found(&mut world, &[("task", "u")]);
    assert_eq!(repair(&mut world, &digest, &all).unwrap().taken_over, 1);
    world.assert_equals_server("Alice");
}

#[test]
fn only_the_engine_repairs() {
    let mut world = world();
    plant(&mut world, "UPDATE task SET title = 'odd'");
    let (digest, all) = found(&mut world, &[("task", "t")]);
    world.sql("Alice", "UPDATE syncline_lease SET token = token + 1");
    let refused = repair(&mut world, &digest, &all);
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    assert_eq!(
        world.rows("Alice", "SELECT title FROM task"),
        ["odd", "odd"]
    );
}

#[test]
fn a_column_s_default_and_a_column_s_number_are_no_difference() {
    let mut world = World::new("");
    let one = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, n REAL, code TEXT)";
    let two = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, n INTEGER, code INTEGER, more TEXT DEFAULT 'x')";
    world.device_declared("Alice", two, BTreeMap::new());
    world.device_declared("Bob", one, BTreeMap::new());
    world.sql("Bob", "INSERT INTO task VALUES ('t', 1, '7')");
    world.run_until_quiet();
    let row = "SELECT n || '|' || code || '|' || more FROM task";
    assert_eq!(world.rows("Alice", row), ["1|7|x"]);
    assert!(found(&mut world, &[("task", "t")]).1.is_empty());
    plant(&mut world, "UPDATE task SET more = 'y'");
    let (_, all) = found(&mut world, &[("task", "t")]);
    assert_eq!(all[0].fields, ["more"]);
}
