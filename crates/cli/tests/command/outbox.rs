//! Looking at the outbox and mending it, with no engine and beside one.

use crate::harness::{
    Home, Ran, Running, Server, rows, run, sql, syncline, until, value, with_token,
};
use std::time::Duration;

const NOBODY: &str = "http://127.0.0.1:1";

const FAMILY: &str = "INSERT INTO project VALUES ('p1', 'home');
    INSERT INTO task VALUES ('t1', 'milk', 0, 'p1'), ('t2', 'bread', 0, NULL);";

fn outbox(args: &[&str]) -> Ran {
    run(syncline(&[&["outbox"], args].concat()))
}

/// A server that takes no title longer than five characters.
fn strict_server(home: &Home) -> Server {
    let config = home.path("server.toml");
    let text = "[types.project]\n[types.member]\n[types.task]\n\
                schema = { properties = { title = { maxLength = 5 } } }\n";
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    Server::start_with(home.folder.path(), "127.0.0.1:0", &["--config", config])
}

#[test]
fn list_tells_what_each_entry_waits_for() {
    let home = Home::new();
    let db = home.attached("a.db", FAMILY, NOBODY);
    sql(&db, "UPDATE task SET done = 1 WHERE id = 't2'");
    let json = outbox(&["list", &db, "--json"]).expect_code(0).json();
    assert_eq!(json["total"], 4);
    let entries = json["entries"].as_array().unwrap();
    let of = |id: &str, op: &str| {
        let found = entries
            .iter()
            .find(|entry| entry["entity_id"] == id && entry["op"] == op);
        found
            .unwrap_or_else(|| panic!("{op} {id} in {json}"))
            .clone()
    };
    assert_eq!(of("p1", "create")["waits_for"], serde_json::Value::Null);
    assert_eq!(of("t1", "create")["waits_for"]["for"], "parent");
    assert_eq!(of("t1", "create")["waits_for"]["entity_id"], "p1");
    assert_eq!(of("t2", "update")["waits_for"]["for"], "earlier");
    let text = outbox(&["list", &db, "--limit", "2"]).expect_code(0).stdout;
    assert!(
        text.contains("WAITS FOR") && text.contains("and 2 more"),
        "{text}"
    );
}

#[test]
fn show_tells_payload_base_and_error() {
    let home = Home::new();
    let server = strict_server(&home);
    let db = home.attached(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)",
        &server.url,
    );
    with_token(&server, &["sync", &db]).expect_code(0);
    sql(&db, "UPDATE task SET title = 'much too long'");
    with_token(&server, &["sync", &db]).expect_code(10);
    let seq = value(&db, "SELECT CAST(seq AS TEXT) FROM syncline_outbox");
    let json = outbox(&["show", &db, &seq, "--json"]).expect_code(0).json();
    assert_eq!(json["state"], "failed");
    assert_eq!(
        json["payload"],
        serde_json::json!({ "title": "much too long" })
    );
    assert_eq!(json["base"]["title"], "milk");
    assert_eq!(json["last_error"]["errors"][0]["field"], "title");
    let text = outbox(&["show", &db, &seq]).expect_code(0).stdout;
    for word in ["failed", "much too long", "\"title\": \"milk\"", "title: "] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let all = outbox(&["list", &db, "--all", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(all["settled"][0]["outcome"], "applied");

    // Given up: the row is what the server has.
    let json = outbox(&["discard", &db, &seq, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(json["discarded"][0]["payload"]["title"], "much too long");
    assert_eq!(value(&db, "SELECT title FROM task"), "milk");
    with_token(&server, &["sync", &db]).expect_code(0);
    let text = outbox(&["list", &db]).expect_code(0).stdout;
    assert!(text.contains("the outbox is empty"), "{text}");
}

#[test]
fn discard_tells_everything_it_took_along() {
    let home = Home::new();
    let db = home.attached("a.db", FAMILY, NOBODY);
    sql(&db, "UPDATE task SET title = 'oat milk' WHERE id = 't1'");
    let seq = value(
        &db,
        "SELECT CAST(seq AS TEXT) FROM syncline_outbox WHERE entity_id = 'p1'",
    );
    let text = outbox(&["discard", &db, &seq]).expect_code(0).stdout;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(
        text.contains("create project p1 {\"name\":\"home\"}"),
        "{text}"
    );
    assert!(
        text.contains("create task t1") && text.contains("update task t1"),
        "{text}"
    );
    assert_eq!(rows(&db).len(), 1);
    assert_eq!(
        value(&db, "SELECT count(*) FROM syncline_outbox"),
        "Integer(1)"
    );
}

#[test]
fn what_cannot_be_done_is_told_and_changes_nothing() {
    let home = Home::new();
    let db = home.attached("a.db", FAMILY, NOBODY);
    let before = std::fs::read(&db).unwrap();
    for act in ["show", "retry", "discard"] {
        let ran = outbox(&[act, &db, "99", "--json"]).expect_code(1);
        assert_eq!(ran.json()["error"]["code"], "no-such-entry", "{ran:?}");
        assert!(ran.stderr.contains("hint: syncline outbox list"), "{ran:?}");
    }
    let ran = outbox(&["retry", &db, "1", "--json"]).expect_code(1);
    assert!(
        ran.stderr.contains("only failed and dead entries"),
        "{ran:?}"
    );
    assert_eq!(std::fs::read(&db).unwrap(), before);
    assert_eq!(
        outbox(&["list", &db, "--json"]).expect_code(0).json()["total"],
        3
    );
}

#[test]
fn retry_beside_a_running_engine_is_sent_at_once() {
    let home = Home::new();
    let server = strict_server(&home);
    let db = home.attached(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'much too long', 0, NULL)",
        &server.url,
    );
    let mut command = syncline(&["run", &db]);
    command.env("SYNCLINE_TOKEN", &server.token);
    let sidecar = Running::start(command);
    let failed = "SELECT count(*) FROM syncline_outbox WHERE state = 'failed'";
    until("it is refused", Duration::from_secs(5), || {
        value(&db, failed) == "Integer(1)"
    });
    sql(&db, "UPDATE task SET title = 'short'");
    std::thread::sleep(Duration::from_millis(300));
    outbox(&["retry", &db, "1"]).expect_code(0);
    until("all is pushed", Duration::from_secs(5), || {
        value(&db, "SELECT count(*) FROM syncline_outbox") == "Integer(0)"
    });
    sidecar.signal("TERM");
    let ran = sidecar.end().expect_code(0);
    assert!(ran.stderr.contains("refused and waits for you"), "{ran:?}");
}

#[test]
fn edit_mends_what_the_server_refused() {
    let home = Home::new();
    let server = strict_server(&home);
    let rows =
        "INSERT INTO task VALUES ('t1', 'much too long', 0, NULL), ('t2', 'far too long', 0, NULL)";
    let db = home.attached("a.db", rows, &server.url);
    with_token(&server, &["sync", &db]).expect_code(10);
    let set = [
        "edit",
        &db,
        "1",
        "--set",
        "title=\"short\"",
        "--set",
        "done=1",
    ];
    outbox(&set).expect_code(0);
    assert_eq!(
        value(&db, "SELECT title || done FROM task WHERE id = 't1'"),
        "short1"
    );
    outbox(&["edit", &db, "2", "--set", "title=short"]).expect_code(2);
    let unknown = outbox(&["edit", &db, "2", "--set", "titel=\"x\"", "--json"]).expect_code(1);
    assert!(
        unknown
            .stderr
            .contains("the fields are: title, done, project"),
        "{unknown:?}"
    );
    with_token(&server, &["sync", &db]).expect_code(10);
    let would = outbox(&["discard", &db, "--all-failed", "--dry-run", "--json"]).expect_code(0);
    assert_eq!(would.json()["would_discard"][0]["entity_id"], "t2");
    let gone = outbox(&["discard", &db, "--all-failed", "--json"]).expect_code(0);
    assert_eq!(gone.json()["discarded"].as_array().unwrap().len(), 1);
    with_token(&server, &["sync", &db]).expect_code(0);
    assert_eq!(value(&db, "SELECT group_concat(id) FROM task"), "t1");
}

#[test]
fn export_is_exact() {
    let home = Home::new();
    let db = home.attached(
        "a.db",
        "INSERT INTO project VALUES ('p', x'00ff');
         INSERT INTO member VALUES ('p', 9007199254740993, 0.1), ('p', 2, 9e999);",
        NOBODY,
    );
    sql(
        &db,
        "UPDATE syncline_outbox SET command = '{\"name\":\"join\"}', lane = 2 WHERE seq = 2",
    );
    let text = outbox(&["export", &db]).expect_code(0).stdout;
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let project = lines
        .iter()
        .find(|line| line["entity_type"] == "project")
        .unwrap();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        project["payload"]["name"],
        serde_json::json!({"$blob": "AP8="})
    );
    assert!(text.contains(r#""payload":{"share":0.1}"#), "{text}");
    assert!(
        text.contains(r#""payload":{"share":{"$real":"inf"}}"#),
        "{text}"
    );
    assert_eq!(lines[1]["command"]["name"], "join");
    let letters = outbox(&["export", &db, "--dead-letters"]).expect_code(0);
    assert_eq!(letters.stdout, "");
    let json = outbox(&["export", &db, "--json"]).expect_code(0).json();
    assert_eq!(json["entries"].as_array().unwrap().len(), 3);
}
