//! The app's own triggers while the engine applies: what writes synced tables is held off, everything else
//! fires, and both can be declared otherwise.

use crate::support::{Device, NOW, delete, request, text, upsert};
use rusqlite::Connection;
use syncline_core::Policy;
use syncline_protocol::Change;
use syncline_store::attach::{AttachReport, Declaration, Tables, attach};
use syncline_store::{StoreError, TypeOptions, WhileApplying};

/// A search index and an audit trail of this device, a time stamp of the row, and a counter in a row of a synced table.
const SCHEMA: &str = "
    CREATE TABLE list (id TEXT PRIMARY KEY NOT NULL, tasks INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, list TEXT, title TEXT, stamp TEXT);
    CREATE VIRTUAL TABLE task_index USING fts5(id, title);
    CREATE TRIGGER index_new AFTER INSERT ON task BEGIN
        INSERT INTO task_index (id, title) VALUES (NEW.id, NEW.title); END;
    CREATE TRIGGER index_old AFTER DELETE ON task BEGIN
        DELETE FROM task_index WHERE id = OLD.id; END;
    CREATE TRIGGER index_again AFTER UPDATE ON task BEGIN
        UPDATE task_index SET title = NEW.title WHERE id = NEW.id; END;
    CREATE TABLE audit (what TEXT);
    CREATE TRIGGER audited AFTER INSERT ON task BEGIN
        INSERT INTO audit VALUES ('new ' || NEW.id); END;
    CREATE TRIGGER stamped AFTER UPDATE OF title ON task BEGIN
        UPDATE task SET stamp = 'here' WHERE id = NEW.id; END;
    CREATE TRIGGER counted AFTER INSERT ON task BEGIN
        UPDATE list SET tasks = tasks + 1 WHERE id = NEW.list; END;";

fn device() -> Device {
    let tables = ["list", "task"].map(str::to_owned);
    Device::with(SCHEMA, Tables::Named(tables.into()))
}

fn task(id: &str, position: i64, title: &str) -> Change {
    let fields = [
        ("list", "l".into()),
        ("title", title.into()),
        ("stamp", "there".into()),
    ];
    upsert("task", text(id), position, &fields)
}

fn found(device: &Device, word: &str) -> Vec<String> {
    device.rows(&format!(
        "SELECT id FROM task_index WHERE task_index MATCH '{word}'"
    ))
}

#[test]
fn a_search_index_and_an_audit_trail_follow_and_what_is_synced_is_not_written_twice() {
    let mut device = device();
    device.snapshot(
        2,
        vec![
            upsert("list", text("l"), 1, &[("tasks", 1.into())]),
            task("t", 2, "oat milk"),
        ],
    );
    assert_eq!(found(&device, "milk"), ["t"]);
    assert_eq!(device.rows("SELECT what FROM audit"), ["new t"]);
    assert_eq!(device.rows("SELECT tasks FROM list"), ["1"]);
    device.feed(3, vec![task("t", 3, "bread")]);
    assert_eq!(found(&device, "milk"), Vec::<String>::new());
    assert_eq!(found(&device, "bread"), ["t"]);
    assert_eq!(device.rows("SELECT stamp FROM task"), ["there"]);
    device.feed(4, vec![delete("task", text("t"), 4)]);
    assert_eq!(found(&device, "bread"), Vec::<String>::new());
    // They are where they were, for the app's own writes.
    device.sql("INSERT INTO task VALUES ('u', 'l', 'salt', 'app')");
    device.sql("UPDATE task SET title = 'sugar'");
    assert_eq!(
        device.rows("SELECT stamp, tasks FROM task, list"),
        ["here|2"]
    );
    assert_eq!(found(&device, "sugar"), ["u"]);
}

/// Attaches again with these triggers declared for tasks.
fn declare(
    device: &Device,
    triggers: &[(&str, WhileApplying)],
) -> Result<AttachReport, StoreError> {
    let mut request = request(Tables::Named(vec!["task".to_owned()]));
    let triggers = triggers
        .iter()
        .map(|(name, one)| ((*name).to_owned(), *one));
    let declaration = Declaration {
        name: "task".to_owned(),
        rules: Policy::default().into(),
        options: TypeOptions {
            triggers: triggers.collect(),
            ..TypeOptions::default()
        },
    };
    request.declared.insert("task".to_owned(), declaration);
    attach(&mut Connection::open(&device.path).unwrap(), &request, NOW)
}

#[test]
fn attach_lists_both_kinds() {
    let device = device();
    let report = declare(&device, &[]).unwrap();
    assert_eq!(report.triggers_held, ["stamped", "counted"]);
    let firing = ["index_new", "index_old", "index_again", "audited"];
    assert_eq!(report.triggers_firing, firing);
}

#[test]
fn a_trigger_does_what_is_declared_for_it() {
    let mut device = device();
    let (fires, held) = (WhileApplying::Fires, WhileApplying::Held);
    let report = declare(&device, &[("AUDITED", held), ("stamped", fires)]).unwrap();
    assert_eq!(report.triggers_held, ["audited", "counted"]);
    device.restart();
    device.snapshot(2, vec![task("t", 2, "milk")]);
    device.feed(3, vec![task("t", 3, "bread")]);
    assert_eq!(device.rows("SELECT what FROM audit"), Vec::<String>::new());
    assert_eq!(device.rows("SELECT stamp FROM task"), ["here"]);
    let outbox = "SELECT count(*) FROM syncline_outbox";
    assert_eq!(device.rows(outbox), ["0"], "what it wrote is not recorded");
    device.sql("INSERT INTO task VALUES ('u', 'l', 'salt', 'app')");
    assert_eq!(device.rows("SELECT what FROM audit"), ["new u"]);
}

#[test]
fn a_trigger_that_is_not_there_is_refused_by_name() {
    let device = device();
    let error = declare(&device, &[("adited", WhileApplying::Held)]).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("no trigger \"adited\""), "{said}");
}
