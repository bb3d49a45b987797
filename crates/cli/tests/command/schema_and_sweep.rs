//! `migrate` and `sweep`: an app's schema changes, and rows that the server has lost.

use crate::harness::{Home, Server, rows, run, schema, sql, syncline, value, with_token};
use rusqlite::Connection;
use serde_json::json;

const FAMILY: &str = "INSERT INTO project VALUES ('p1', 'home'), ('p2', 'garden');
    INSERT INTO task VALUES ('t1', 'milk', 0, 'p1'), ('t2', 'bread', 1, NULL);";

/// Two devices that have synced the family's rows.
fn two_devices(home: &Home, server: &Server) -> (String, String) {
    let a = home.attached("a.db", FAMILY, &server.url);
    let b = home.attached("b.db", "", &server.url);
    for db in [&a, &b] {
        with_token(server, &["sync", db]).expect_code(0);
    }
    (a, b)
}

#[test]
fn migrate_runs_a_script_and_the_devices_go_on_syncing() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let (a, b) = two_devices(&home, &server);
    let script = home.path("change.sql");
    std::fs::write(
        &script,
        "DROP VIEW open_task; ALTER TABLE task RENAME COLUMN title TO label;
         ALTER TABLE task ADD COLUMN note TEXT; ALTER TABLE task DROP COLUMN done;
         UPDATE task SET label = 'oat milk' WHERE id = 't1';",
    )
    .unwrap();
    let script = script.to_str().unwrap();
    let report = run(syncline(&["migrate", &a, script, "--json"]))
        .expect_code(0)
        .json();
    assert_eq!(report["migration"]["statements"], 5);
    assert_eq!(
        report["migration"]["tables"],
        json!([{ "table": "task", "entity_type": "task", "schema_version": 2,
                 "fields": { "label": "title" }, "rows_changed": true }])
    );
    sql(
        &a,
        "UPDATE task SET label = 'rye bread', note = 'n' WHERE id = 't2'",
    );
    for db in [&a, &b, &a] {
        with_token(&server, &["sync", db]).expect_code(0);
    }
    let titles = "SELECT group_concat(title || done) FROM (SELECT * FROM task ORDER BY id)";
    assert_eq!(value(&b, titles), "oat milk0,rye bread1");

    // From stdin, and told in words; nothing of a script that is refused is done.
    let path = home.path("no.sql");
    let no = path.to_str().unwrap();
    for (script, mend) in [
        ("BEGIN; CREATE TABLE x (a); COMMIT;", "take its own BEGIN"),
        ("CREATE TABLE x (a); DROP TABLE task;", "Keep the table"),
        ("CREATE TABLE x (a); SELEC 1;", "syntax error"),
    ] {
        std::fs::write(no, script).unwrap();
        let before = (schema(&a), value(&a, "SELECT count(*) FROM task"));
        let ran = run(syncline(&["migrate", &a, no, "--json"])).expect_code(1);
        assert!(ran.stderr.contains(mend), "{script}: {ran:?}");
        assert!(ran.json()["error"]["code"].is_string(), "{ran:?}");
        assert_eq!((schema(&a), value(&a, "SELECT count(*) FROM task")), before);
    }
    std::fs::remove_file(no).unwrap();
    let ran = run(syncline(&["migrate", &a, no, "--json"])).expect_code(1);
    assert_eq!(ran.json()["error"]["code"], "unreadable-script");
    std::fs::write(no, "CREATE TABLE mine (a)").unwrap();
    let mut command = syncline(&["migrate", &a, "-"]);
    command.stdin(std::fs::File::open(no).unwrap());
    let told = run(command).expect_code(0).stdout;
    assert!(
        told.contains("1 statement run") && told.contains("no synced table changed"),
        "{told}"
    );
    assert_eq!(value(&a, "SELECT count(*) FROM mine"), "Integer(0)");
}

#[test]
fn rows_that_the_server_lost_are_removed_or_given_back_as_a_person_says() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let (a, _) = two_devices(&home, &server);
    // Another server in its place, with nothing in it.
    let address = server.address().to_owned();
    server.stop("TERM").expect_code(0);
    let elsewhere = home.path("other");
    std::fs::create_dir(&elsewhere).unwrap();
    let server = Server::start_with(&elsewhere, &address, &[]);
    // It was long ago: what was confirmed lately would be offered again by itself.
    sql(&a, "DELETE FROM syncline_journal");
    let ran = with_token(&server, &["sync", &a, "--json"]).expect_code(10);
    assert_eq!(ran.json()["held_removals"], 4);
    let status = run(syncline(&["status", &a])).expect_code(0).stdout;
    assert!(status.contains("held"), "{status}");
    assert_eq!(rows(&a).len(), 4);

    let restored = run(syncline(&["sweep", "restore", &a, "project", "--json"]))
        .expect_code(0)
        .json();
    assert_eq!(restored, json!({ "offered": 2, "entity_type": "project" }));
    let told = run(syncline(&["sweep", "confirm", &a, "task"])).expect_code(0);
    assert_eq!(told.stdout.trim_end(), "removed 2 rows of task");
    let none = run(syncline(&["sweep", "confirm", &a, "task", "--json"])).expect_code(1);
    assert!(
        none.stderr.contains("no removal of task is held"),
        "{none:?}"
    );
    with_token(&server, &["sync", &a]).expect_code(0);
    assert_eq!(rows(&a).len(), 2);
    let kept = Connection::open(server.data.join("server.db")).unwrap();
    let kept: String = kept
        .query_row(
            "SELECT group_concat(type || ' ' || id, ', ') FROM (SELECT * FROM entity ORDER BY type, id)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(kept, "project p1, project p2");
}

#[test]
fn a_table_that_is_lost_is_told_by_each_sync_until_it_is_back() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)",
        &server.url,
    );
    with_token(&server, &["sync", &db]).expect_code(0);
    let schema = value(&db, "SELECT sql FROM sqlite_schema WHERE name = 'task'");
    sql(&db, "DROP TABLE task");
    for _ in 0..2 {
        let ran = with_token(&server, &["sync", &db]).expect_code(0);
        let told = "task cannot be synced: there is no table \"task\"";
        assert!(ran.stdout.contains(told), "{ran:?}");
    }
    let ran = with_token(&server, &["sync", &db, "--json"]).expect_code(0);
    assert_eq!(ran.json()["unsyncable"][0]["entity_type"], "task");
    sql(&db, &schema);
    let ran = with_token(&server, &["sync", &db]).expect_code(0);
    assert!(!ran.stdout.contains("cannot be synced"), "{ran:?}");
    assert_eq!(value(&db, "SELECT title FROM task"), "milk");
}
