//! Ids are replaced while an app, in a process of its own, keeps writing rows under keys that SQLite assigns.

// A test that cannot go on has failed; the panic says where.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use syncline_process_tests::{
    Device, PATIENCE, Server, assert_same, assert_settled, listing, number, token,
};

const DEVICE: &str = env!("CARGO_BIN_EXE_syncline-test-device");
const SERVER: &str = env!("CARGO_BIN_EXE_syncline-test-server");

const SCHEMA: &str = "
    CREATE TABLE note (id INTEGER PRIMARY KEY, label TEXT NOT NULL);
    CREATE TABLE remark (id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES note(id), label TEXT NOT NULL);";

/// Pushes of each engine while both apps write.
const PUSHES: usize = 12;

#[test]
fn two_devices_assign_the_same_ids_while_other_processes_keep_writing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::own(SERVER, &folder.path().join("server"), None);
    let devices = ["alice", "bob"].map(|name| {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let path = folder.path().join(name).join("app.db");
        Device::create(DEVICE, path, SCHEMA)
            .remote(&server.url(), &token())
            .options("--set debounce_ms=5 --set poll_interval_ms=20 --set push_mutations=20")
    });
    let mut engines = Vec::new();
    for device in &devices {
        device.run("--attach upload attach").success();
        let engine = device.start("run");
        engine.line_after("running", PATIENCE).unwrap();
        engines.push(engine);
    }
    let writers = [0, 1].map(|nth| devices[nth].start(&format!("insert device{nth}")));
    for engine in &engines {
        for _ in 0..PUSHES {
            engine.line_after("pushed ", PATIENCE).unwrap();
        }
    }
    let mut promised = BTreeSet::new();
    for writer in writers {
        let lines = writer.kill().lines;
        let told = lines.iter().filter_map(|line| line.strip_prefix("ack "));
        promised.extend(told.map(str::to_owned));
    }
    for engine in engines {
        engine.kill();
    }
    for nth in [0, 1, 0] {
        devices[nth].sync();
    }

    let on_server = listing(&server.url(), &token());
    for device in &devices {
        assert_same(
            "after the writing",
            ("a device", &device.rows()),
            ("the server", &on_server),
        );
        assert_settled("after the writing", &device.path);
        // What was acknowledged is there, each remark below its own note.
        let sql = "SELECT count(*) FROM note";
        let notes = number(&device.path, sql);
        let sql = "SELECT count(*) FROM note JOIN remark ON remark.note = note.id AND remark.label = note.label";
        assert_eq!(number(&device.path, sql), notes, "remarks by their notes");
        let sql = "SELECT count(DISTINCT label) FROM note";
        assert_eq!(number(&device.path, sql), notes, "each note once");
        let lost: Vec<&String> = (promised.iter())
            .filter(|label| {
                let sql = format!("SELECT count(*) FROM note WHERE label = '{label}'");
                number(&device.path, &sql) != 1
            })
            .collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
    let replaced = "SELECT count(*) FROM syncline_id_map WHERE entity_type = 'note'";
    let replaced: i64 = devices
        .iter()
        .map(|device| number(&device.path, replaced))
        .sum();
    println!("{} acknowledged, {replaced} ids replaced", promised.len());
    assert!(replaced > 0, "no id was taken");
}
