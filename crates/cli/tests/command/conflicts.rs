//! Conflicts for people: looking at them, deciding, taking it back, with no engine and beside one.

use crate::harness::{Home, Ran, Running, Server, run, sql, syncline, until, value, with_token};
use std::process::Stdio;
use std::time::Duration;

fn conflicts(args: &[&str]) -> Ran {
    run(syncline(&[&["conflicts"], args].concat()))
}

/// Two devices; the task's title on b.db waits for a person.
struct Disputed {
    home: Home,
    server: Server,
    a: String,
    b: String,
}

fn disputed() -> Disputed {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let rows = "INSERT INTO task VALUES ('t1', 'milk', 0, NULL), ('t2', 'bread', 0, NULL)";
    let (a, b) = (home.database("a.db", rows), home.database("b.db", ""));
    for db in [&a, &b] {
        let attach = [
            "attach",
            db,
            "--remote",
            &server.url,
            "--all",
            "--policy",
            "manual",
        ];
        run(syncline(&attach)).expect_code(0);
        with_token(&server, &["sync", db]).expect_code(0);
    }
    sql(&a, "UPDATE task SET title = 'oat milk' WHERE id = 't1'");
    sql(
        &b,
        "UPDATE task SET title = 'soy milk' WHERE id = 't1'; UPDATE task SET done = 1 WHERE id = 't2'",
    );
    with_token(&server, &["sync", &a]).expect_code(0);
    let ran = with_token(&server, &["sync", &b]).expect_code(10);
    assert!(ran.stdout.contains("syncline conflicts list"), "{ran:?}");
    Disputed { home, server, a, b }
}

fn title(db: &str) -> String {
    value(db, "SELECT title FROM task WHERE id = 't1'")
}

#[test]
fn a_conflict_is_listed_shown_decided_and_taken_back() {
    let Disputed { home, server, a, b } = disputed();
    let listed = conflicts(&["list", &b, "--json"]).expect_code(0).json();
    assert_eq!(listed["open"], 1);
    let id = listed["conflicts"][0]["id"].to_string();
    let text = conflicts(&["list", &b]).expect_code(0).stdout;
    assert!(text.contains("task t1") && text.contains("open"), "{text}");

    let shown = conflicts(&["show", &b, &id]).expect_code(0).stdout;
    for mention in [
        "\"milk\"",
        "\"soy milk\"",
        "\"oat milk\"",
        "both",
        "server-wins",
        "take theirs",
    ] {
        assert!(shown.contains(mention), "{mention} in:\n{shown}");
    }
    let json = conflicts(&["show", &b, &id, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(json["local"]["title"], "soy milk");
    assert_eq!(json["remote"]["title"], "oat milk");

    let field = ["resolve", &b, &id, "--field", "title=\"rice milk\""];
    let decided = conflicts(&field).expect_code(0).stdout;
    assert!(decided.contains("undo"), "{decided}");
    assert_eq!(title(&b), "rice milk");
    let again = conflicts(&["resolve", &b, &id, "--mine", "--json"]).expect_code(1);
    assert_eq!(again.json()["error"]["code"], "decided-already");
    conflicts(&["undo", &b, &id]).expect_code(0);
    assert_eq!(title(&b), "soy milk");

    let row = home.path("row.json");
    std::fs::write(&row, r#"{"title": "tea", "done": 1, "project": null}"#).unwrap();
    let document = [
        "resolve",
        &b,
        &id,
        "--document",
        row.to_str().unwrap(),
        "--json",
    ];
    let ran = conflicts(&document).expect_code(0).json();
    assert_eq!(ran["conflict"]["state"], "resolved");
    for db in [&b, &a] {
        with_token(&server, &["sync", db]).expect_code(0);
        assert_eq!(title(db), "tea");
    }
    let late = conflicts(&["undo", &b, &id, "--json"])
        .expect_code(1)
        .json();
    let message = late["error"]["message"].as_str().unwrap();
    assert!(message.contains("too late"), "{message}");
    let all = conflicts(&["list", &b, "--all"]).expect_code(0).stdout;
    assert!(all.contains("decided by you: document"), "{all}");
    let none = conflicts(&["list", &b]).expect_code(0).stdout;
    assert!(none.contains("no conflict waits"), "{none}");
}

#[test]
fn what_cannot_be_is_told_and_changes_nothing() {
    let Disputed {
        home: _home,
        server: _server,
        b,
        ..
    } = disputed();
    let missing = conflicts(&["show", &b, "99", "--json"]).expect_code(1);
    assert_eq!(missing.json()["error"]["code"], "no-such-conflict");
    let id = conflicts(&["list", &b, "--json"]).json()["conflicts"][0]["id"].to_string();
    for (choice, code) in [
        (&["--field", "title=soy"] as &[&str], 2),
        (&["--mine", "--theirs"], 2),
        (&[], 2),
        (&["--document", "/no/such/file"], 2),
        (&["--field", "titel=mine"], 1),
        (&["--field", "title=mine", "--field", "title=theirs"], 2),
    ] {
        let args = [&["resolve", &b, &id], choice].concat();
        conflicts(&args).expect_code(code);
    }
    let undo = conflicts(&["undo", &b, &id, "--json"])
        .expect_code(1)
        .json();
    let message = undo["error"]["message"].as_str().unwrap();
    assert!(message.contains("open"), "{message}");
    assert_eq!(title(&b), "soy milk");
    assert_eq!(conflicts(&["list", &b, "--json"]).json()["open"], 1);
}

#[test]
fn a_decision_beside_a_running_engine_is_pushed_at_once() {
    let Disputed {
        home: _home,
        server,
        a,
        b,
    } = disputed();
    let mut command = syncline(&["run", &b]);
    command.env("SYNCLINE_TOKEN", &server.token);
    command.stdin(Stdio::null());
    let running = Running::start(command);
    until("the engine runs", Duration::from_secs(20), || {
        value(&b, "SELECT count(*) FROM syncline_lease") != "Integer(0)"
    });
    let id = conflicts(&["list", &b, "--json"]).json()["conflicts"][0]["id"].to_string();
    conflicts(&["resolve", &b, &id, "--mine"]).expect_code(0);
    // Well before it would have asked by itself, every 15 seconds.
    until("it is pushed", Duration::from_secs(10), || {
        value(&b, "SELECT count(*) FROM syncline_outbox") == "Integer(0)"
    });
    with_token(&server, &["sync", &a]).expect_code(0);
    assert_eq!(title(&a), "soy milk");
    running.signal("TERM");
    running.end().expect_code(0);
}
