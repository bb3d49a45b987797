//! `--config`: one file that says everything, read by `attach`, `sync` and `run`.

use crate::harness::{Home, Server, run, sql, syncline, value};

fn write(home: &Home, text: &str) -> String {
    let path = home.path("syncline.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const MILK: &str = "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)";

#[test]
fn a_file_says_it_all() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    std::fs::write(home.path("the-token"), &server.token).unwrap();
    let (url, db) = (&server.url, home.database("a.db", MILK));
    let config = write(
        &home,
        &format!(
            "[remote]\nurl = '{url}/'\ntoken_file = 'the-token'\n[sync]\nmax_attempts = 3\n
             [types.todo]\ntable = 'task'\npolicy = 'server-wins'\nlane = 'background'\n[types.project]"
        ),
    );
    let attach = || run(syncline(&["attach", &db, "--config", &config, "--json"]));
    let report = attach().expect_code(0).json();
    assert_eq!(report["tables"], serde_json::json!(["project", "task"]));
    assert_eq!(report["uploads"], 1);
    let again = attach().expect_code(0).json();
    assert_eq!(
        (&again["tables"], &again["updated"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    let ran = run(syncline(&["sync", &db, "--config", &config, "--json"]))
        .expect_code(0)
        .json();
    assert_eq!(ran["pushed"], 1);
    let types =
        "SELECT group_concat(name || ' ' || table_name || ' ' || conflict_rules || ' ' || options, '; ')
                   FROM (SELECT * FROM syncline_entity_type ORDER BY name)";
    assert_eq!(
        value(&db, types),
        r#"project project {} {}; todo task {"policy":"server-wins"} {"lane":"background"}"#
    );
    assert_eq!(
        value(
            &db,
            "SELECT value FROM syncline_meta WHERE key = 'settings'"
        ),
        r#"{"max_attempts":3}"#
    );

    // What changed in the file is taken over; what is not in it stays.
    write(
        &home,
        &format!("remote.url = '{url}'\n[types.todo]\ntable = 'TASK'\npolicy = 'client-wins'"),
    );
    let changed = attach().expect_code(0).json();
    assert_eq!(changed["updated"], serde_json::json!(["task"]));
    assert_eq!(
        value(
            &db,
            "SELECT count(*) FROM syncline_meta WHERE key = 'settings'"
        ),
        "Integer(0)"
    );
    assert_eq!(
        value(&db, types),
        r#"project project {} {}; todo task {"policy":"client-wins"} {}"#
    );
}

#[test]
fn attaching_is_all_or_none() {
    let home = Home::new();
    let db = home.database("a.db", MILK);
    let attach = |text: &str| {
        let config = write(&home, text);
        run(syncline(&["attach", &db, "--config", &config, "--json"]))
    };
    let before = std::fs::read(&db).unwrap();
    for (text, code, words) in [
        ("[types.task]", 2, "--remote"),
        (
            "[remote]\nurl = 'http://localhost'\nulr = 'x'",
            2,
            "syncline.toml:3: remote.ulr",
        ),
        (
            "remote.url='http://localhost'\n[types.task]\n[types.nothing]",
            1,
            "no table",
        ),
        (
            "remote.url='http://localhost'\n[types.open_task]",
            1,
            "is a view",
        ),
        (
            "remote.url='http://localhost'\n[types.task]\n[types.project]\ntable='TASK'",
            2,
            "another type has this table",
        ),
        (
            "remote.url='http://elsewhere.example'\n[types.task]",
            2,
            "plain http",
        ),
        ("remote.url='http://localhost'", 1, "no table"),
    ] {
        let ran = attach(text).expect_code(code);
        assert!(ran.json()["error"]["message"].is_string(), "{ran:?}");
        assert!(ran.stderr.contains(words), "{text}: {ran:?}");
        assert_eq!(std::fs::read(&db).unwrap(), before, "{text}");
    }
    attach("remote.url='http://localhost'\n[types.task]").expect_code(0);
    let renamed =
        attach("remote.url='http://localhost'\n[types.todo]\ntable='task'").expect_code(1);
    assert!(renamed.stderr.contains("cannot become"), "{renamed:?}");
    // A field's name cannot change under mutations that go by the old one.
    let fields = "remote.url='http://localhost'\n[types.task.fields]\ntitle = 'name'";
    assert!(attach(fields).expect_code(1).stderr.contains("sync first"));
    sql(&db, "DELETE FROM syncline_outbox");
    attach(fields).expect_code(0);
    let elsewhere = write(&home, "remote.url='http://127.0.0.1:9'");
    let ran = run(syncline(&["sync", &db, "--config", &elsewhere, "--json"])).expect_code(1);
    assert_eq!(ran.json()["error"]["code"], "attached-elsewhere");
}

#[test]
fn a_dry_run_shows_what_would_be_sent_and_changes_nothing() {
    let home = Home::new();
    let db = home.attached("a.db", MILK, "http://127.0.0.1:1");
    sql(
        &db,
        "INSERT INTO project VALUES ('p', 'x'); UPDATE project SET name = 'y';
         UPDATE task SET project = 'p'",
    );
    let outbox = || {
        let all =
            "SELECT group_concat(seq || state || ifnull(frozen, '') || op) FROM syncline_outbox";
        value(&db, all)
    };
    let before = outbox();
    let json = run(syncline(&["sync", &db, "--dry-run", "--json"]))
        .expect_code(0)
        .json();
    let sent: Vec<&serde_json::Value> = json["batches"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|batch| batch.as_array().unwrap())
        .collect();
    assert!(sent.iter().any(|one| one["type"] == "project"), "{json}");
    assert!(
        sent.iter().any(|one| one["fields"]["title"] == "milk"),
        "{json}"
    );
    assert_eq!(outbox(), before);
    // A create goes under its own key, whatever became part of it.
    let of = |name: &str| *sent.iter().find(|one| one["type"] == name).unwrap();
    assert_eq!(json["made_up_keys"], serde_json::json!([]));
    for name in ["project", "task"] {
        assert_eq!(of(name)["key"], of(name)["mutation"]);
    }
    let text = run(syncline(&["sync", &db, "--dry-run"]))
        .expect_code(0)
        .stdout;
    assert!(text.starts_with("batch 1: "), "{text}");
}

#[test]
fn a_dry_run_says_which_keys_the_sync_will_not_use() {
    let home = Home::new();
    let db = home.attached("a.db", MILK, "http://127.0.0.1:1");
    // So many edits of a row that the server has become one that it gets a key of its own.
    let edits = "UPDATE task SET title = title || '+';".repeat(33);
    sql(
        &db,
        &format!(
            "DELETE FROM syncline_outbox; DELETE FROM syncline_base;
             INSERT INTO syncline_cursor (scope, epoch, cursor, position, phase, pulled_at)
             VALUES ('default', 'e', 'c', 1, 'feed', 0);
             {edits} UPDATE task SET title = 'rice milk'"
        ),
    );
    let dry_run = ["sync", db.as_str(), "--dry-run"];
    let json = run(syncline(&[&dry_run[..], &["--json"]].concat()))
        .expect_code(0)
        .json();
    let sent = &json["batches"][0][0];
    assert_eq!(sent["fields"]["title"], "rice milk", "{json}");
    assert_ne!(sent["key"], sent["mutation"]);
    assert_eq!(json["made_up_keys"], serde_json::json!([sent["key"]]));
    let text = run(syncline(&dry_run)).expect_code(0).stdout;
    assert!(text.contains("the sync will use other keys: "), "{text}");
}
