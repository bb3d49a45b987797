//! `doctor`: what it finds, what it compares, and that a repair touches only what differs.

use crate::harness::{
    Home, Running, Server, rows, run, sql, syncline, token, until, value, with_token,
};
use serde_json::{Value, json};
use std::time::Duration;

const FAMILY: &str = "INSERT INTO project VALUES ('p1', 'home'), ('p2', 'garden');
    INSERT INTO task VALUES ('t1', 'milk', 0, 'p1'), ('t2', 'tea', 0, 'p1'), ('t3', 'soil', 0, 'p2');
    INSERT INTO member VALUES ('p1', 7, 0.5), ('p1', 8, 1.0);";

/// Writes that no capture trigger records, as a program with a fault of its own might.
fn plant(db: &str, statements: &str) {
    sql(
        db,
        &format!(
            "BEGIN; INSERT INTO syncline_guard VALUES (1); {statements}; DELETE FROM syncline_guard; COMMIT"
        ),
    );
}

fn doctor(server: &Server, db: &str, more: &[&str], code: i32) -> Value {
    let args = [&["doctor", db, "--json"], more].concat();
    with_token(server, &args).expect_code(code).json()
}

/// The severity of each finding with this code.
fn severities<'j>(json: &'j Value, code: &str) -> Vec<&'j str> {
    let findings = json["findings"].as_array().unwrap().iter();
    let of_code = findings.filter(|one| one["code"] == code);
    of_code
        .map(|one| one["severity"].as_str().unwrap())
        .collect()
}

fn synced(home: &Home, server: &Server, name: &str, rows: &str) -> String {
    let db = home.attached(name, rows, &server.url);
    with_token(server, &["sync", &db]).expect_code(0);
    db
}

#[test]
fn a_healthy_database_is_called_so() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = synced(&home, &server, "a.db", FAMILY);
    let json = doctor(&server, &a, &[], 0);
    assert_eq!(json["healthy"], true);
    assert_eq!(json["rows"]["compared"], 7);
    for code in [
        "integrity",
        "foreign-keys",
        "journal",
        "wal",
        "permissions",
        "metadata",
        "capture",
        "escaped",
        "outbox",
        "pull",
        "server",
        "clock",
        "rows",
    ] {
        assert!(
            severities(&json, code).iter().all(|one| *one == "ok"),
            "{code}: {json}"
        );
        assert!(!severities(&json, code).is_empty(), "{code}");
    }
    let text = with_token(&server, &["doctor", &a]).expect_code(0).stdout;
    assert!(
        text.contains("7 rows are what the server has [rows]"),
        "{text}"
    );
    assert!(text.contains(&format!("mend: syncline run {a}")), "{text}");
}

#[test]
fn a_repair_takes_over_only_what_differs_and_never_a_row_with_local_work() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = synced(&home, &server, "a.db", FAMILY);
    let b = synced(&home, &server, "b.db", "");
    plant(
        &a,
        "UPDATE task SET title = 'oat milk', done = 1 WHERE id = 't1'; DELETE FROM task WHERE id = 't2';
         INSERT INTO task VALUES ('t9', 'nobody knows', 0, NULL); UPDATE member SET share = 0.25 WHERE person = 7",
    );
    sql(&a, "UPDATE task SET title = 'better soil' WHERE id = 't3'");
    let json = doctor(&server, &a, &[], 1);
    let mut divergent = json["divergent"].as_array().unwrap().clone();
    divergent.sort_by_key(|one| one["entity_id"].as_str().unwrap().to_owned());
    let of = |id: &str, kind: &str, fields: &[&str]| {
        let entity_type = if id.starts_with('[') {
            "member"
        } else {
            "task"
        };
        json!({ "entity_type": entity_type, "entity_id": id, "kind": kind, "fields": fields })
    };
    assert_eq!(
        divergent,
        [
            of(r#"["p1",7]"#, "differs", &["share"]),
            of("t1", "differs", &["title", "done"]),
            of("t2", "missing-here", &[]),
            of("t9", "missing-on-server", &[]),
        ]
    );
    assert_eq!(json["rows"]["not_comparable"], json!({ "pending": 1 }));
    let text = with_token(&server, &["doctor", &a]).expect_code(1).stdout;
    assert!(text.contains("- task t1 differs in title, done"), "{text}");
    assert!(
        text.contains(&format!("mend: syncline doctor {a} --repair")),
        "{text}"
    );
    let looked = value(&a, "SELECT title FROM task WHERE id = 't1'");
    assert_eq!(looked, "oat milk", "looking changes nothing");

    let json = doctor(&server, &a, &["--repair"], 0);
    assert_eq!(severities(&json, "repair"), ["ok"], "{json}");
    assert_eq!(
        value(&a, "SELECT count(*) FROM syncline_outbox"),
        "Integer(1)",
        "P3"
    );
    assert_eq!(
        value(&a, "SELECT title FROM task WHERE id = 't3'"),
        "better soil",
        "P2"
    );
    let was = "SELECT json_extract(detail, '$.was.title') FROM syncline_log
                WHERE kind = 'repaired' AND entity_id = 't9'";
    assert_eq!(value(&a, was), "nobody knows");
    let told = run(syncline(&["explain", &a, "task", "t1"]))
        .expect_code(0)
        .stdout;
    assert!(told.contains("update repaired"), "{told}");
    assert_eq!(doctor(&server, &a, &[], 0)["rows"]["divergent"], 0);
    with_token(&server, &["sync", &a]).expect_code(0);
    with_token(&server, &["sync", &b]).expect_code(0);
    assert_eq!(rows(&a), rows(&b));
}

#[test]
fn a_wide_range_is_found_and_many_removals_wait_for_a_person() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
                INSERT INTO task SELECT 't' || i, 'title ' || i, 0, NULL FROM n";
    let a = synced(&home, &server, "a.db", many);
    plant(
        &a,
        "UPDATE task SET title = 'odd' WHERE id IN ('t17', 't270'); INSERT INTO member VALUES ('x', 1, 1), ('x', 2, 1)",
    );
    let json = doctor(&server, &a, &[], 1);
    assert_eq!(json["rows"]["divergent"], 4);
    // The server has no member at all: that is never taken for "delete them all" (I3).
    let json = doctor(&server, &a, &["--repair"], 10);
    assert_eq!(severities(&json, "held"), ["person"], "{json}");
    assert_eq!(value(&a, "SELECT count(*) FROM member"), "Integer(2)");
    assert_eq!(
        value(&a, "SELECT title FROM task WHERE id = 't17'"),
        "title 17"
    );
    with_token(&server, &["sweep", "restore", &a, "member"]).expect_code(0);
    with_token(&server, &["sync", &a]).expect_code(0);
    assert_eq!(doctor(&server, &a, &[], 0)["rows"]["compared"], 302);
}

#[test]
fn beside_a_running_engine_it_compares_and_does_not_repair() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = synced(&home, &server, "a.db", FAMILY);
    let mut command = syncline(&["run", &a]);
    command.env("SYNCLINE_TOKEN", &server.token);
    let _sidecar = Running::start(command);
    until("it syncs", Duration::from_secs(20), || {
        run(syncline(&["status", &a, "--json"])).json()["engine"] == "idle"
    });
    plant(&a, "UPDATE task SET title = 'odd' WHERE id = 't1'");
    let json = doctor(&server, &a, &[], 1);
    assert_eq!(severities(&json, "lease"), ["ok"], "{json}");
    assert_eq!(json["rows"]["divergent"], 1);
    let json = doctor(&server, &a, &["--repair"], 1);
    assert_eq!(severities(&json, "repair"), ["failed"], "{json}");
    assert_eq!(value(&a, "SELECT title FROM task WHERE id = 't1'"), "odd");
}

#[test]
fn what_cannot_be_asked_has_its_own_codes() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = synced(&home, &server, "a.db", FAMILY);
    let jane = token(&server.data, &["--subject", "jane"]);
    let mut command = syncline(&["doctor", &a, "--json"]);
    command.env("SYNCLINE_TOKEN", &jane);
    let json = run(command).expect_code(1).json();
    assert_eq!(severities(&json, "account"), ["failed"]);
    let mut command = syncline(&["doctor", &a, "--json"]);
    command.env("SYNCLINE_TOKEN", "rubbish");
    run(command).expect_code(12);
    server.stop("TERM").expect_code(0);
    let mut command = syncline(&["doctor", &a, "--json"]);
    command.env("SYNCLINE_TOKEN", &jane);
    let json = run(command).expect_code(11).json();
    assert_eq!(severities(&json, "server"), ["warning"]);
    run(syncline(&["doctor", &a, "--offline"])).expect_code(0);
    sql(&a, "UPDATE task SET title = 'x' || char(0)");
    sql(&a, "UPDATE syncline_outbox SET state = 'failed'");
    let json = run(syncline(&["doctor", &a, "--offline", "--json"]))
        .expect_code(10)
        .json();
    assert_eq!(severities(&json, "dead-letters"), ["person"]);
}

#[test]
fn capture_that_is_gone_is_found_and_comes_back_before_anything_is_overwritten() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = synced(&home, &server, "a.db", FAMILY);
    sql(
        &a,
        "DROP TRIGGER syncline_capture_task_after_update; UPDATE task SET title = 'unseen' WHERE id = 't1'",
    );
    let json = doctor(&server, &a, &[], 1);
    assert_eq!(severities(&json, "capture"), ["failed"], "{json}");
    // What escaped is the user's: it is recorded by the next sync, not overwritten by a repair.
    let json = doctor(&server, &a, &["--repair"], 1);
    assert_eq!(severities(&json, "capture"), ["ok"], "{json}");
    assert_eq!(severities(&json, "repair"), ["failed"], "{json}");
    assert_eq!(
        value(&a, "SELECT title FROM task WHERE id = 't1'"),
        "unseen"
    );
    with_token(&server, &["sync", &a]).expect_code(0);
    assert_eq!(doctor(&server, &a, &[], 0)["rows"]["divergent"], 0);
    assert_eq!(
        value(&a, "SELECT title FROM task WHERE id = 't1'"),
        "unseen"
    );

    // A row with mutations that holds more than they say.
    sql(&a, "UPDATE task SET done = 1 WHERE id = 't2'");
    plant(&a, "UPDATE task SET title = 'unseen too' WHERE id = 't2'");
    let json = run(syncline(&["doctor", &a, "--offline", "--json"]))
        .expect_code(1)
        .json();
    assert_eq!(severities(&json, "escaped"), ["failed"], "{json}");
    doctor(&server, &a, &["--repair"], 0);
    with_token(&server, &["sync", &a]).expect_code(0);
    assert_eq!(doctor(&server, &a, &[], 0)["rows"]["divergent"], 0);
    assert_eq!(
        value(&a, "SELECT title FROM task WHERE id = 't2'"),
        "unseen too"
    );
}

#[test]
fn a_damaged_page_is_told_of_and_nothing_is_written() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                INSERT INTO task SELECT 't' || i, 'title ' || i, 0, NULL FROM n";
    let a = synced(&home, &server, "a.db", many);
    sql(&a, "PRAGMA wal_checkpoint(TRUNCATE)");
    let page: usize = {
        let root = value(&a, "SELECT rootpage FROM sqlite_schema WHERE name = 'task'");
        root.trim_start_matches("Integer(")
            .trim_end_matches(')')
            .parse()
            .unwrap()
    };
    let mut bytes = std::fs::read(&a).unwrap();
    bytes[(page - 1) * 4096..page * 4096].fill(0xa5);
    std::fs::write(&a, &bytes).unwrap();
    for more in [&["--offline"][..], &[], &["--repair"]] {
        let json = doctor(&server, &a, more, 1);
        assert!(severities(&json, "integrity").contains(&"failed"), "{json}");
    }
    assert!(std::fs::read(&a).unwrap() == bytes, "the file is as it was");
}
