//! Removals that wait for a person, decided through the handle of a running engine.
#![allow(clippy::unwrap_used)] // helpers of tests

use rusqlite::Connection;
use std::path::Path;
use syncline::{Existing, Syncline};

fn text(path: &Path, sql: &str) -> String {
    let app = Connection::open(path).unwrap();
    app.query_row(sql, [], |row| row.get::<_, Option<String>>(0))
        .unwrap()
        .unwrap_or_default()
}

/// Four rows as they are after syncing; a snapshot did not have the first two of them.
fn with_held_rows() -> (tempfile::TempDir, Syncline) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch(
        "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT);
         INSERT INTO task VALUES ('a', '1'), ('b', '2'), ('c', '3'), ('d', '4');",
    )
    .unwrap();
    let builder = Syncline::builder(&path)
        .remote("http://127.0.0.1:1")
        .state_dir(folder.path().join("state"))
        .attach(["task"])
        .existing(Existing::Adopt);
    builder.attach_only().unwrap();
    app.execute_batch("INSERT INTO syncline_held VALUES ('task', 'a'), ('task', 'b')")
        .unwrap();
    (folder, builder.open().unwrap())
}

#[tokio::test]
async fn held_removals_are_confirmed() {
    let (folder, sync) = with_held_rows();
    assert_eq!(sync.status().unwrap().held_removals["task"], 2);
    assert_eq!(sync.confirm_sweep("task").await.unwrap(), 2);
    let path = folder.path().join("app.db");
    assert_eq!(text(&path, "SELECT group_concat(id) FROM task"), "c,d");
    assert!(sync.status().unwrap().held_removals.is_empty());
    let recorded = text(&path, "SELECT group_concat(op) FROM syncline_outbox");
    assert_eq!(recorded, "", "the server lacks them already");
    let again = sync.confirm_sweep("task").await.unwrap_err();
    assert!(
        again.to_string().contains("no removal of task is held"),
        "{again}"
    );
}

#[tokio::test]
async fn held_removals_are_offered_to_the_server_again() {
    let (folder, sync) = with_held_rows();
    assert_eq!(sync.restore_sweep("task").await.unwrap(), 2);
    let path = folder.path().join("app.db");
    let offered = "SELECT group_concat(op || entity_id || payload, ' ') FROM syncline_outbox";
    assert_eq!(
        text(&path, offered),
        r#"createa{"title":"1"} createb{"title":"2"}"#
    );
    assert_eq!(text(&path, "SELECT group_concat(id) FROM task"), "a,b,c,d");
    assert!(sync.status().unwrap().held_removals.is_empty());
    let unknown = sync.restore_sweep("nothing").await.unwrap_err();
    assert!(
        unknown.to_string().contains("no table is attached"),
        "{unknown}"
    );
}
