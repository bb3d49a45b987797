//! `run`: a sidecar that pushes what any program writes, beside every other command.

use crate::harness::{
    Home, Running, Server, rows, run, sql, syncline, token, until, value, with_token,
};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);
/// For what takes a moment, unless the machine has much else to do.
const LONG: Duration = Duration::from_secs(60);

fn start(db: &str, server: &Server, more: &[&str]) -> Running {
    let mut command = syncline(&[&["run", db], more].concat());
    command.env("SYNCLINE_TOKEN", &server.token);
    Running::start(command)
}

fn status(db: &str) -> serde_json::Value {
    run(syncline(&["status", db, "--json"]))
        .expect_code(0)
        .json()
}

fn unsettled(db: &str) -> String {
    value(db, "SELECT count(*) FROM syncline_outbox")
}

#[test]
fn writes_of_other_programs_are_pushed_within_a_moment() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "", &server.url);
    let b = home.attached("b.db", "", &server.url);
    let sidecar = start(&a, &server, &[]);
    until("it syncs", SOON, || status(&a)["engine"] == "idle");
    for n in 0..3 {
        sql(&a, &format!("INSERT INTO project VALUES ('p{n}', 'x')"));
        let written = Instant::now();
        until("it is pushed", SOON, || unsettled(&a) == "Integer(0)");
        assert!(written.elapsed() < Duration::from_secs(3));
    }
    with_token(&server, &["sync", &b]).expect_code(0);
    assert_eq!(rows(&b).len(), 3);
    sidecar.signal("TERM");
    let ran = sidecar.end().expect_code(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    // The next one need not wait for the lease.
    assert_eq!(status(&a)["engine"], "stopped");
    with_token(&server, &["sync", &a, "--budget", "2s"]).expect_code(0);
}

#[test]
fn sync_beside_it_asks_and_waits() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "", &server.url);
    let b = home.attached("b.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    let sidecar = start(&a, &server, &["-v"]);
    until("it syncs", SOON, || status(&a)["engine"] == "idle");
    with_token(&server, &["sync", &b]).expect_code(0);
    let begun = Instant::now();
    let ran = with_token(&server, &["sync", &a, "--json"]).expect_code(0);
    assert!(
        begun.elapsed() < SOON,
        "it was asked, not waited for its next poll"
    );
    assert_eq!(ran.json()["by"], "another_process");
    assert_eq!(rows(&a), rows(&b));
    let text = with_token(&server, &["sync", &a]).expect_code(0);
    assert!(
        text.stdout
            .contains("another process is syncing this database"),
        "{text:?}"
    );

    // What the other process meets is what this one reports.
    server.stop("TERM").expect_code(0);
    let ran = run(syncline(&["sync", &a, "--json"])).expect_code(11);
    assert_eq!(ran.json()["error"]["code"], "unreachable");
    let ran = run(syncline(&["detach", &a, "--json"])).expect_code(1);
    assert_eq!(ran.json()["error"]["code"], "engine-running");
    sidecar.signal("INT");
    let ran = sidecar.end().expect_code(0);
    assert!(
        ran.stderr.contains("another process asks for a sync"),
        "{ran:?}"
    );
}

#[test]
fn a_bounded_sync_beside_it_is_made_by_it_within_the_bounds() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let rows_of_b = "INSERT INTO project VALUES ('p', 'x'), ('q', 'x'), ('r', 'x')";
    let a = home.attached("a.db", "", &server.url);
    let b = home.attached("b.db", rows_of_b, &server.url);
    let config = home.folder.path().join("syncline.toml");
    std::fs::write(&config, "[sync]\npage_changes = 1\n").unwrap();
    let config = config.to_str().unwrap();
    let quiet = ["--no-live", "--poll", "1h", "--config", config];
    let sidecar = start(&a, &server, &quiet);
    until("it syncs", LONG, || status(&a)["engine"] == "idle");
    with_token(&server, &["sync", &b]).expect_code(0);
    // One page has one change, and the engine may ask for two.
    let bounded = ["sync", &a, "--max-requests", "2", "--json"];
    let some = with_token(&server, &bounded).expect_code(13);
    assert_eq!(some.json()["by"], "another_process");
    assert_eq!(some.json()["end"], "unfinished");
    assert_eq!(rows(&a).len(), 2, "{some:?}");
    let rest = with_token(&server, &["sync", &a, "--max-bytes", "1MB", "--json"]).expect_code(0);
    assert_eq!(rest.json()["by"], "another_process");
    assert_eq!(rows(&a), rows(&b));
    server.stop("TERM").expect_code(0);
    run(syncline(&bounded)).expect_code(11);
    sidecar.signal("TERM");
    sidecar.end().expect_code(0);
}

#[test]
fn signals_ask_it_to_sync_to_rest_and_to_go_on() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "", &server.url);
    let b = home.attached("b.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    let sidecar = start(&a, &server, &["--no-live", "--poll", "1h"]);
    until("it syncs", SOON, || status(&a)["engine"] == "idle");
    with_token(&server, &["sync", &b]).expect_code(0);
    sidecar.signal("USR1");
    until("it has pulled", SOON, || rows(&a) == rows(&b));
    sidecar.signal("USR2");
    until("it rests", SOON, || status(&a)["engine"] != "idle");
    sql(&a, "INSERT INTO project VALUES ('q', 'x')");
    // Whoever wants to be the engine meanwhile can.
    with_token(&server, &["sync", &a]).expect_code(0);
    sql(&a, "INSERT INTO project VALUES ('r', 'x')");
    assert_eq!(unsettled(&a), "Integer(1)");
    sidecar.signal("USR2");
    until("it goes on", SOON, || unsettled(&a) == "Integer(0)");
    sidecar.signal("TERM");
    sidecar.end().expect_code(0);
    with_token(&server, &["sync", &b]).expect_code(0);
    assert_eq!(rows(&b).len(), 3);
}

#[test]
fn one_that_starts_at_rest_is_seen_to_rest_until_it_is_asked_to_go_on() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    let sidecar = start(&a, &server, &["--paused"]);
    until("it rests", SOON, || status(&a)["engine"] == "paused");
    assert_eq!(unsettled(&a), "Integer(1)");
    sidecar.signal("USR2");
    until("it goes on", SOON, || unsettled(&a) == "Integer(0)");
    sidecar.signal("TERM");
    sidecar.end().expect_code(0);
    assert_eq!(status(&a)["engine"], "stopped");
}

#[test]
fn it_lives_through_an_outage_and_a_new_token() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let address = server.address().to_owned();
    let a = home.attached("a.db", "", &server.url);
    let file = home.path("token");
    std::fs::write(&file, "an.old.token").unwrap();
    let mut command = syncline(&["run", &a, "--log", "json", "-vvv"]);
    command.arg("--token-file").arg(&file);
    let sidecar = Running::start(command);
    until("it wants a token", SOON, || {
        status(&a)["engine"] == "blocked_auth"
    });
    let beside = with_token(&server, &["sync", &a, "--json"]).expect_code(12);
    assert_eq!(beside.json()["by"], "another_process");
    std::thread::sleep(Duration::from_millis(20)); // another time stamp
    std::fs::write(&file, &server.token).unwrap();
    until("the new token is read", SOON, || {
        status(&a)["engine"] == "idle"
    });

    let token = server.token.clone();
    server.stop("TERM").expect_code(0);
    sql(&a, "INSERT INTO project VALUES ('p', 'x')");
    until("it backs off", SOON, || status(&a)["engine"] == "backoff");
    let _server = Server::start_with(home.folder.path(), &address, &[]);
    until("it is pushed", LONG, || unsettled(&a) == "Integer(0)");
    sidecar.signal("TERM");
    let ran = sidecar.end().expect_code(0);
    assert!(!ran.stderr.contains(&token), "a token was logged");
    for line in ran.stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string(), "{line}");
    }
}

#[test]
fn another_token_in_the_file_mends_a_wrong_account() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "", &server.url);
    with_token(&server, &["sync", &a]).expect_code(0);
    let file = home.path("token");
    let jane = token(&server.data, &["--subject", "jane"]);
    std::fs::write(&file, jane).unwrap();
    let mut command = syncline(&["run", &a]);
    command.arg("--token-file").arg(&file);
    let sidecar = Running::start(command);
    until("it is the wrong account", SOON, || {
        status(&a)["engine"] == "blocked_auth"
    });
    sql(&a, "INSERT INTO project VALUES ('p', 'x')");
    std::thread::sleep(Duration::from_millis(20)); // another time stamp
    std::fs::write(&file, &server.token).unwrap();
    until("it is pushed as joe", SOON, || {
        unsettled(&a) == "Integer(0)"
    });
    sidecar.signal("TERM");
    sidecar.end().expect_code(0);
}

#[test]
fn it_refuses_a_second_and_the_second_waits() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "", &server.url);
    let first = start(&a, &server, &[]);
    until("it syncs", SOON, || status(&a)["engine"] == "idle");
    let second = start(&a, &server, &[]);
    sql(&a, "INSERT INTO project VALUES ('p', 'x')");
    until("it is pushed", SOON, || unsettled(&a) == "Integer(0)");
    // It says so once it has started, which a busy machine puts off.
    std::thread::sleep(Duration::from_millis(1500));
    second.signal("TERM");
    let ran = second.end().expect_code(0);
    assert!(ran.stderr.contains("another process is syncing"), "{ran:?}");
    first.signal("TERM");
    first.end().expect_code(0);
}

#[test]
fn sync_can_be_interrupted() {
    let home = Home::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let a = home.attached("a.db", "INSERT INTO project VALUES ('p', 'x')", &url);
    let mut command = syncline(&["sync", &a, "--json"]);
    command.env("SYNCLINE_TOKEN", "some.good.token");
    let sync = Running::start(command);
    until("it is the engine", SOON, || {
        status(&a)["engine"] != "stopped"
    });
    std::thread::sleep(Duration::from_millis(100));
    sync.signal("INT");
    let ran = sync.end().expect_code(13);
    assert_eq!(ran.json()["end"], "interrupted");
    assert_eq!(unsettled(&a), "Integer(1)");
    assert_eq!(status(&a)["engine"], "stopped");
}

#[test]
fn what_others_write_arrives_without_a_poll() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let config = home.folder.path().join("syncline.toml");
    std::fs::write(&config, "[sync]\npoll_interval_ms = 3600000\n").unwrap();
    let config = config.to_str().unwrap();
    let (a, b) = (
        home.attached("a.db", "", &server.url),
        home.attached("b.db", "", &server.url),
    );
    let writer = start(&a, &server, &["--config", config]);
    let reader = start(&b, &server, &["--config", config]);
    until("both sync", LONG, || {
        status(&a)["engine"] == "idle" && status(&b)["engine"] == "idle"
    });
    sql(&a, "INSERT INTO project VALUES ('p', 'x')");
    // The next poll is an hour away.
    until("it arrives", LONG, || rows(&b).len() == 1);
    // Streams hold nobody up.
    let begun = Instant::now();
    server.stop("TERM").expect_code(0);
    for process in [writer, reader] {
        process.signal("TERM");
        process.end().expect_code(0);
    }
    assert!(
        begun.elapsed() < LONG / 3,
        "a stream is silent for that long"
    );
}

#[test]
fn a_watched_status_is_told_again_when_it_changes_and_ends_with_its_reader() {
    let home = Home::new();
    let a = home.attached("a.db", "", "http://127.0.0.1:9");
    let mut watch = syncline(&["status", &a, "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut pending = || {
        let line = lines.next().unwrap().unwrap();
        let status: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(status["database"], a.as_str());
        status["outbox"]["pending"].as_u64().unwrap()
    };
    assert_eq!(pending(), 0);
    sql(&a, "INSERT INTO project VALUES ('p', 'x')");
    assert_eq!(pending(), 1);
    drop(lines);
    sql(&a, "INSERT INTO project VALUES ('q', 'x')");
    until("it ends", SOON, || watch.try_wait().unwrap().is_some());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
