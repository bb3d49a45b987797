//! What waits in the inbox: one change per entity, never applied over newer, tried again when
//! something relevant changes.

use crate::support::{Device, delete, text, upsert};
use syncline_core::PageChange;
use syncline_protocol::{Change, PagePhase, Value};

const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, project TEXT REFERENCES project(id), title TEXT);";

fn project(id: &str, position: i64) -> Change {
    upsert("project", text(id), position, &[("name", "garden".into())])
}

fn task(id: &str, position: i64, project: &str, title: &str) -> Change {
    let fields = [("project", project.into()), ("title", title.into())];
    upsert("task", text(id), position, &fields)
}

fn tasks(device: &Device) -> Vec<String> {
    device.rows("SELECT id, title FROM task ORDER BY id")
}

#[test]
fn a_newer_change_takes_the_place_of_one_that_waits_and_an_older_one_does_not() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![]);
    device.feed(2, vec![task("t", 2, "p", "milk")]);
    device.feed(3, vec![task("t", 3, "p", "oat milk")]);
    assert_eq!(device.inbox(), ["task|t|parent"]);
    assert_eq!(
        device.rows("SELECT fields ->> 'title', position FROM syncline_inbox"),
        ["oat milk|3"]
    );
    device.feed(4, vec![project("p", 4)]);
    assert_eq!(tasks(&device), ["t|oat milk"]);
    assert!(device.inbox().is_empty());
}

#[test]
fn a_delete_ends_the_waiting_of_a_change_without_a_parent() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![]);
    device.feed(2, vec![task("t", 2, "p", "milk")]);
    device.feed(3, vec![delete("task", text("t"), 3)]);
    assert!(device.inbox().is_empty());
    device.feed(4, vec![project("p", 4)]);
    assert!(tasks(&device).is_empty());
}

#[test]
fn changes_of_a_type_that_is_not_attached_wait_until_it_is() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![]);
    device.feed(
        2,
        vec![upsert("tag", text("g"), 2, &[("name", "red".into())])],
    );
    assert_eq!(device.inbox(), ["tag|g|type"]);
    device.sql("CREATE TABLE tag (id TEXT PRIMARY KEY NOT NULL, name TEXT)");
    device.attach_also(&["tag"]);
    // A page without changes is occasion enough.
    device.feed(2, vec![]);
    assert_eq!(device.rows("SELECT id, name FROM tag"), ["g|red"]);
    assert!(device.inbox().is_empty());
}

#[test]
fn what_a_constraint_keeps_out_is_tried_again_when_the_schema_changes() {
    let mut device = Device::new(
        "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT);
         CREATE TRIGGER short BEFORE INSERT ON task WHEN length(NEW.title) > 5
           BEGIN SELECT RAISE(ABORT, 'too long'); END;",
    );
    device.snapshot(1, vec![]);
    let title = [("title", "oat milk".into())];
    device.feed(2, vec![upsert("task", text("t"), 2, &title)]);
    assert_eq!(device.inbox(), ["task|t|constraint"]);
    device.feed(2, vec![]);
    assert_eq!(device.inbox(), ["task|t|constraint"], "nothing changed");
    device.sql("DROP TRIGGER short");
    device.feed(2, vec![]);
    assert_eq!(tasks(&device), ["t|oat milk"]);
}

#[test]
fn a_change_that_is_not_understood_waits_under_its_entity_and_gives_way_to_a_newer_one() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![project("p", 1)]);
    let odd = PageChange::Invalid {
        raw: r#"{"change":{"type":"project","id":"p","op":"explode","version":"2","position":2}}"#
            .to_owned(),
        detail: "unknown op".to_owned(),
    };
    device.take(PagePhase::Feed, 2, vec![odd]).unwrap();
    assert_eq!(device.inbox(), ["project|p|valid"]);
    // P6: what its server state is nobody knows, so no write is based on it.
    device.sql("UPDATE project SET name = 'yard'");
    assert_eq!(device.claimed(), Vec::<String>::new());
    device.feed(
        3,
        vec![upsert("project", text("p"), 3, &[("name", "field".into())])],
    );
    assert!(device.inbox().is_empty());
    assert_eq!(device.claimed(), ["project/p"]);
}

#[test]
fn what_was_not_understood_is_read_again_by_a_newer_program() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![]);
    let line = |name: &str| PageChange::Invalid {
        raw: format!(
            r#"{{"change":{{"type":"project","id":"p","op":"upsert","version":"2","position":2,"fields":{{"name":"{name}"}}}}}}"#
        ),
        detail: "an older program did not understand it".to_owned(),
    };
    device
        .take(PagePhase::Feed, 2, vec![line("garden")])
        .unwrap();
    device.feed(2, vec![]);
    assert_eq!(device.rows("SELECT name FROM project"), ["garden"]);
    assert!(device.inbox().is_empty());
}

#[test]
fn a_row_of_a_snapshot_that_claims_to_be_far_ahead_gives_way_to_the_feed() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(5, vec![task("t", i64::MAX, "p", "from the future")]);
    assert_eq!(device.inbox(), ["task|t|parent"]);
    device.feed(7, vec![task("t", 6, "p", "milk"), project("p", 7)]);
    assert_eq!(tasks(&device), ["t|milk"]);
}

#[test]
fn a_value_that_no_table_can_hold_is_set_aside_and_the_rest_goes_on() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![]);
    let long = "x".repeat(129);
    let name: [(&str, Value); 1] = [(&long, "x".into())];
    device.feed(
        3,
        vec![upsert("project", text("odd"), 2, &name), project("p", 3)],
    );
    assert_eq!(device.inbox(), ["project|odd|valid"]);
    assert_eq!(device.rows("SELECT id FROM project"), ["p"]);
}
