//! One push followed by its mutation id through the logs of both sides, and what must not be there.

use crate::harness::{Home, Ran, Server, run, sql, syncline, value};
use serde_json::Value;
use std::path::Path;

const JSON_LOG: [&str; 3] = ["-vv", "--log", "json"];

/// The lines of a log that speak of this text, as JSON.
fn lines(log: &str, about: &str) -> Vec<Value> {
    log.lines()
        .filter(|line| line.contains(about))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn messages(lines: &[Value]) -> Vec<&str> {
    let message = |line: &'_ Value| line["message"].as_str().map(str::len);
    assert!(lines.iter().all(|line| message(line).is_some()));
    lines
        .iter()
        .filter_map(|line| line["message"].as_str())
        .collect()
}

fn line<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["message"] == message);
    found.unwrap_or_else(|| panic!("no {message:?} in {lines:#?}"))
}

fn logged_server(folder: &Path) -> Server {
    Server::start_with(folder, "127.0.0.1:0", &JSON_LOG)
}

fn sync(server: &Server, db: &str, trace: Option<&str>) -> Ran {
    let mut command = syncline(&[&["sync", db], &JSON_LOG[..]].concat());
    command.env("SYNCLINE_TOKEN", &server.token);
    command.env_remove("TRACEPARENT");
    command.envs(trace.map(|trace| ("TRACEPARENT", trace)));
    run(command).expect_code(0)
}

fn newest_mutation(db: &str) -> String {
    value(
        db,
        "SELECT mutation FROM syncline_outbox ORDER BY seq DESC LIMIT 1",
    )
}

#[test]
fn a_mutation_is_followed_by_its_id_through_the_logs_of_both_sides() {
    let home = Home::new();
    let server = logged_server(home.folder.path());
    let (a, b) = (
        home.attached("a.db", "", &server.url),
        home.attached("b.db", "", &server.url),
    );
    sync(&server, &a, None);
    sync(&server, &b, None);
    sql(&a, "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)");
    let mutation = newest_mutation(&a);
    let client = sync(&server, &a, None).stderr;
    sync(&server, &b, None);
    let log = server.stop("TERM").expect_code(0).stderr;

    let here = lines(&client, &mutation);
    let way = [
        "recorded", "claimed", "sent", "answered", "booked", "echoed",
    ];
    assert_eq!(messages(&here), way, "{client}");
    assert!(
        here.iter()
            .all(|line| line["mutation"] == mutation.as_str())
    );
    assert_eq!(line(&here, "booked")["outcome"], "applied");
    let there = lines(&log, &mutation);
    // The last is the pull of the other device.
    let way = ["received", "decided", "committed", "sent", "sent"];
    assert_eq!(messages(&there), way, "{log}");
    assert_eq!(line(&there, "committed")["outcome"], "applied");
    assert_eq!(
        line(&there, "sent")["position"],
        line(&here, "echoed")["position"]
    );

    // Both sides call the exchange by the same names.
    let (sent, received) = (line(&here, "sent"), line(&there, "received"));
    assert_eq!(sent["request"], line(&here, "answered")["request"]);
    for name in ["request", "trace"] {
        assert!(sent[name].is_string(), "{name}: {sent}");
        assert_eq!(sent[name], received["span"][name], "{name}");
    }
    assert_eq!(sent["client"], received["client"]);
}

#[test]
fn a_conflict_and_a_merged_mutation_are_followed_too() {
    let home = Home::new();
    let server = logged_server(home.folder.path());
    let (a, b) = (
        home.attached("a.db", "", &server.url),
        home.attached("b.db", "", &server.url),
    );
    sql(&a, "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)");
    let first = newest_mutation(&a);
    sql(&a, "UPDATE task SET title = 'oat milk'");
    let merged = newest_mutation(&a);
    let log = sync(&server, &a, None).stderr;
    let way = lines(&log, &merged);
    assert_eq!(messages(&way)[..2], ["recorded", "merged"], "{log}");
    assert_eq!(line(&way, "merged")["into"], first.as_str());

    sync(&server, &b, None);
    sql(&a, "UPDATE task SET title = 'tea'");
    sync(&server, &a, None);
    sql(&b, "UPDATE task SET title = 'soy milk'");
    let disputed = newest_mutation(&b);
    let log = sync(&server, &b, None).stderr;
    let way = lines(&log, &disputed);
    let begins = ["recorded", "claimed", "sent", "answered", "resolved"];
    assert_eq!(messages(&way)[..5], begins, "{log}");
    assert_eq!(line(&way, "answered")["outcome"], "conflict");
    assert!(line(&way, "resolved")["rule"].is_string());
    assert_eq!(
        line(&way, "booked")["outcome"],
        "applied",
        "sent again: {log}"
    );
}

#[test]
fn every_subcommand_logs_in_json() {
    let home = Home::new();
    let server = logged_server(home.folder.path());
    let db = home.database("a.db", "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)");
    let (data, copy) = (server.data.display().to_string(), home.path("copy.db"));
    std::fs::write(
        home.path("change.sql"),
        "CREATE TABLE note (id TEXT PRIMARY KEY)",
    )
    .unwrap();
    let change = home.path("change.sql").display().to_string();
    for line in [
        &["attach", &db, "--remote", &server.url, "--all"][..],
        &["status", &db],
        &["explain", &db, "task", "t1"],
        &["outbox", "list", &db],
        &["sync", &db],
        &["conflicts", "list", &db],
        &["migrate", &db, &change],
        &["clone", &server.url, &copy.display().to_string()],
        &["token", "--data", &data, "--subject", "joe"],
        &["detach", &db],
    ] {
        let mut command = syncline(&[line, &["-vvv", "--log", "json"]].concat());
        command.env("SYNCLINE_TOKEN", &server.token);
        let ran = run(command).expect_code(0);
        lines(&ran.stderr, "");
    }
    let log = server.stop("TERM").expect_code(0).stderr;
    assert!(!lines(&log, "").is_empty());
}

#[test]
fn the_trace_of_whoever_starts_the_command_is_passed_on() {
    let home = Home::new();
    let server = logged_server(home.folder.path());
    let db = home.attached("a.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    let mutation = newest_mutation(&db);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    sync(
        &server,
        &db,
        Some(&format!("00-{trace}-b7ad6b7169203331-01")),
    );
    sql(&db, "UPDATE project SET name = 'y'");
    let untraced = newest_mutation(&db);
    sync(&server, &db, Some("00-forged\r\nline-01"));
    let log = server.stop("TERM").expect_code(0).stderr;
    assert_eq!(
        line(&lines(&log, &mutation), "received")["span"]["trace"],
        trace
    );
    let own = lines(&log, &untraced);
    let own = line(&own, "received")["span"]["trace"].as_str().unwrap();
    assert!(own.len() == 32 && own != trace, "{own}");
    assert!(!log.contains("forged"), "{log}");
}
