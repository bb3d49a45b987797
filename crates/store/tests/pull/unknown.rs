//! Fields that the server has and the local table lacks.

use crate::support::{Device, NOW, delete, text, upsert};
use syncline_protocol::{Change, Value};

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER);";

fn task(position: i64, title: &str, colour: Option<&str>) -> Change {
    let mut fields: Vec<(&str, Value)> = vec![("title", title.into()), ("done", 0.into())];
    fields.extend(colour.map(|colour| ("colour", colour.into())));
    upsert("task", text("t"), position, &fields)
}

fn kept(device: &Device) -> Vec<String> {
    device.rows("SELECT entity_id, fields FROM syncline_unknown_fields")
}

fn one_task(colour: Option<&str>) -> Device {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![task(1, "milk", colour)]);
    device
}

#[test]
fn they_are_kept_replaced_by_newer_and_dropped_with_the_entity() {
    let mut device = one_task(Some("red"));
    assert_eq!(kept(&device), [r#"t|{"colour":"red"}"#]);
    device.feed(2, vec![task(2, "milk", Some("blue"))]);
    assert_eq!(kept(&device), [r#"t|{"colour":"blue"}"#]);
    device.feed(3, vec![task(3, "milk", None)]);
    assert!(kept(&device).is_empty());
    device.feed(4, vec![task(4, "milk", Some("green"))]);
    device.feed(5, vec![delete("task", text("t"), 5)]);
    assert!(kept(&device).is_empty());
    device.feed(6, vec![task(6, "milk", None)]);
    assert!(kept(&device).is_empty(), "a row without them costs nothing");
}

#[test]
fn they_are_never_sent_back_and_an_edit_of_other_fields_does_not_lose_them() {
    let mut device = one_task(Some("red"));
    device.sql("UPDATE task SET title = 'oat milk'");
    device.feed(
        2,
        vec![{
            let fields = [
                ("title", "milk".into()),
                ("done", 1.into()),
                ("colour", "blue".into()),
            ];
            upsert("task", text("t"), 2, &fields)
        }],
    );
    assert_eq!(device.rows("SELECT title, done FROM task"), ["oat milk|1"]);
    assert_eq!(
        device.rows("SELECT op, payload FROM syncline_outbox"),
        [r#"update|{"title":"oat milk"}"#]
    );
    assert_eq!(kept(&device), [r#"t|{"colour":"blue"}"#]);
    let lost = "SELECT outcome ->> 'lost_mine' || ', ' || (outcome ->> 'lost_theirs') FROM syncline_conflict";
    assert_eq!(device.rows(lost), ["nothing, nothing"]);
}

#[test]
fn they_go_into_the_column_once_the_table_has_it() {
    let mut device = one_task(Some("red"));
    device.sql("ALTER TABLE task ADD COLUMN colour TEXT");
    device.restart();
    assert_eq!(device.rows("SELECT colour FROM task"), ["red"]);
    assert!(kept(&device).is_empty());
    assert_eq!(
        device.rows("SELECT count(*) FROM syncline_outbox"),
        ["0"],
        "it is no local write"
    );
    device.sql("UPDATE task SET colour = 'green'");
    assert_eq!(
        device.rows("SELECT payload FROM syncline_outbox"),
        [r#"{"colour":"green"}"#]
    );
}

#[test]
fn a_dirty_row_takes_them_up_in_its_base_too() {
    let mut device = one_task(Some("red"));
    device.sql("UPDATE task SET title = 'oat milk'; ALTER TABLE task ADD COLUMN colour TEXT");
    device.restart();
    assert_eq!(
        device.rows("SELECT title, colour FROM task"),
        ["oat milk|red"]
    );
    assert_eq!(
        device.rows("SELECT fields ->> 'colour' FROM syncline_base"),
        ["red"]
    );
    let seq: i64 = device.rows("SELECT seq FROM syncline_outbox")[0]
        .parse()
        .unwrap();
    device.store.discard(seq, NOW).unwrap();
    assert_eq!(device.rows("SELECT title, colour FROM task"), ["milk|red"]);
}

#[test]
fn what_the_new_column_refuses_waits_with_the_reason() {
    let mut device = one_task(Some("red"));
    device.sql("ALTER TABLE task ADD COLUMN colour TEXT CHECK (colour <> 'red')");
    device.restart();
    assert_eq!(device.inbox(), ["task|t|constraint"]);
    device.feed(2, vec![task(2, "milk", Some("blue"))]);
    assert_eq!(device.rows("SELECT colour FROM task"), ["blue"]);
    assert!(device.inbox().is_empty());
}
