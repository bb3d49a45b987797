//! `run --record`, `sync --record` and `replay`: a trace replays, hides what it should, and damage and
//! differences are told.

use crate::harness::{Home, Ran, Running, Server, run, sql, syncline, until, value, with_token};
use std::fs;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

fn replay(path: &Path, more: &[&str]) -> Ran {
    let mut command = syncline(&["replay"]);
    command.arg(path).args(more);
    run(command)
}

/// A trace of one sync that pushes a row.
fn recorded(home: &Home, server: &Server, more: &[&str]) -> std::path::PathBuf {
    let db = home.attached(
        "a.db",
        "INSERT INTO project VALUES ('walnut', 'Top secret')",
        &server.url,
    );
    let trace = home.path("a.trace");
    let shown = trace.to_str().unwrap();
    with_token(server, &[&["sync", &db, "--record", shown], more].concat()).expect_code(0);
    trace
}

#[test]
fn a_recorded_sync_replays_and_hides_values_and_secrets() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let trace = recorded(&home, &server, &[]);
    let text = fs::read_to_string(&trace).unwrap();
    for hidden in [
        "Top secret",
        "walnut",
        server.token.as_str(),
        "subject\":\"dev",
    ] {
        assert!(!text.contains(hidden), "{hidden} is in {text}");
    }
    let ran = replay(&trace, &["--json"]).expect_code(0);
    let told = ran.json();
    assert_eq!(
        (&told["same"], &told["torn"]),
        (&true.into(), &false.into())
    );
    assert_eq!(told["values"], false);
    let inputs = told["inputs"].as_u64().unwrap();
    assert!(inputs > 8, "{told:#}");

    let printed = replay(&trace, &["--print", "--until", "3"]).expect_code(0);
    for piece in [
        "1. idle at",
        "store acquire",
        "ask#1 hello",
        "the same: 3 inputs",
    ] {
        assert!(printed.stdout.contains(piece), "{piece}: {printed:?}");
    }
    assert!(!printed.stdout.contains("4. "), "{printed:?}");
    let steps = replay(&trace, &["--print", "--json"]).expect_code(0).json();
    assert_eq!(steps["steps"].as_array().unwrap().len() as u64, inputs);
}

#[test]
fn values_are_recorded_when_asked_for_and_the_token_never() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let trace = recorded(&home, &server, &["--record-values"]);
    let text = fs::read_to_string(&trace).unwrap();
    assert!(
        text.contains("Top secret") && text.contains("walnut"),
        "{text}"
    );
    assert!(!text.contains(server.token.as_str()), "{text}");
    assert_eq!(
        replay(&trace, &["--json"]).expect_code(0).json()["values"],
        true
    );
}

#[test]
fn a_sidecar_that_is_killed_leaves_a_trace_that_replays() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached("a.db", "", &server.url);
    let trace = home.path("a.trace");
    let mut command = syncline(&["run", &db, "--record", trace.to_str().unwrap()]);
    command.env("SYNCLINE_TOKEN", &server.token);
    let sidecar = Running::start(command);
    sql(&db, "INSERT INTO project VALUES ('p', 'x')");
    let unsettled = "SELECT count(*) FROM syncline_outbox";
    until("it is pushed", LONG, || {
        value(&db, unsettled) == "Integer(0)"
    });
    sidecar.signal("KILL");
    sidecar.end();
    let told = replay(&trace, &["--json"]).expect_code(0).json();
    assert!(told["inputs"].as_u64().unwrap() > 8, "{told:#}");
}

#[test]
fn the_first_difference_is_shown_and_ends_with_1() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let trace = recorded(&home, &server, &[]);
    let text = fs::read_to_string(&trace).unwrap();
    // Another rule: pages are asked for with another limit.
    assert!(text.contains("\"page_changes\":1000,"), "{text}");
    let changed = text.replacen("\"page_changes\":1000,", "\"page_changes\":999,", 1);
    fs::write(&trace, changed).unwrap();
    let ran = replay(&trace, &[]).expect_code(1);
    for piece in [
        "DIFFERENT at input",
        "state:    pulling",
        "input:    {\"store\":{\"cursor\":null}}",
        "pull 1000 first",
        "pull 999 first",
        "\"limit\":999",
    ] {
        assert!(ran.stdout.contains(piece), "{piece}: {}", ran.stdout);
    }
    let told = replay(&trace, &["--json"]).expect_code(1).json();
    assert_eq!(told["same"], false);
    let difference = &told["difference"];
    assert_eq!(difference["state"], "pulling");
    assert_ne!(difference["recorded"], difference["replayed"]);
    let before = difference["number"].as_u64().unwrap() - 1;
    replay(&trace, &["--until", &before.to_string()]).expect_code(0);
}

#[test]
fn what_is_no_trace_is_told_and_never_replaced() {
    let home = Home::new();
    let file = home.path("file");
    for (content, code) in [
        ("", "not-a-trace"),
        ("garbage", "not-a-trace"),
        ("{\"trace\":1}\n", "damaged-trace"),
        ("{\"trace\":99,\"more\":1}\n", "newer-trace"),
    ] {
        fs::write(&file, content).unwrap();
        let ran = replay(&file, &["--json"]).expect_code(1);
        assert_eq!(ran.json()["error"]["code"], code, "{content}");
    }
    let ran = replay(&home.path("nothing there"), &["--json"]).expect_code(1);
    assert_eq!(ran.json()["error"]["code"], "cannot-read");

    let db = home.attached("a.db", "", "http://127.0.0.1:9");
    let before = fs::read(&db).unwrap();
    let ran = run(syncline(&["sync", &db, "--record", &db, "--json"])).expect_code(2);
    assert_eq!(ran.json()["error"]["code"], "not-a-trace");
    assert_eq!(fs::read(&db).unwrap(), before);
    run(syncline(&["sync", &db, "--record-values"])).expect_code(2);
}

#[test]
fn a_recording_that_cannot_be_written_does_not_keep_from_syncing() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached("a.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    let nowhere = home.path("not there").join("a.trace");
    let ran = with_token(
        &server,
        &["sync", &db, "--record", nowhere.to_str().unwrap()],
    );
    let ran = ran.expect_code(0);
    assert_eq!(
        ran.stderr.matches("the recording ends here").count(),
        1,
        "{ran:?}"
    );
}
