//! Planted secrets and values: no log line and no error of either side may show them, however much is
//! to be said; and values are shown where a flag asks for it.

use crate::harness::{
    Home, Ran, Running, SCHEMA, Server, get, metrics_address, run, sql, syncline, until, value,
};
use rusqlite::Connection;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Stands in rows.
const VALUE: &str = "canary-in-a-row";
const REAL: &str = "424242.25";
/// Stands where a token is expected.
const TOKEN: &str = "canary-token";

struct Planted<'a> {
    home: &'a Home,
    server: &'a Server,
    log: &'a [&'a str],
    logs: String,
    shown: String,
}

impl Planted<'_> {
    fn took(&mut self, ran: &Ran) {
        self.logs += &ran.stderr;
        self.shown += &ran.stdout;
    }

    fn sync(&mut self, db: &str, token: &[&str], code: i32) {
        let args = [&["sync", db, "--budget", "20s"], token, self.log].concat();
        let ran = run(syncline(&args)).expect_code(code);
        self.took(&ran);
    }

    /// Keeps one in sync until something holds.
    fn run_until(&mut self, db: &str, token: &[&str], what: &str, holds: impl FnMut() -> bool) {
        let metrics = ["--metrics", "127.0.0.1:0"];
        let args = [&["run", db], token, self.log, &metrics].concat();
        let (running, mut stdout) = Running::start_reading(syncline(&args));
        let metrics = metrics_address(&mut stdout);
        until(what, Duration::from_secs(30), holds);
        self.logs += &get(&metrics, "/metrics");
        running.signal("TERM");
        let ran = running.end().expect_code(0);
        self.took(&ran);
    }

    /// Asks the server for something by hand; its answer is an error as it is shown.
    fn ask(&mut self, method: &str, target: &str, token: &str, body: &str) {
        let mut stream = TcpStream::connect(self.server.address()).unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             syncline-protocol: 2026-11-01\r\nauthorization: Bearer {token}\r\n\
             traceparent: 00-{TOKEN}-01\r\nsyncline-request: {TOKEN} {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        self.logs += &answer;
    }
}

/// Everything that a push can come to, on both sides, with canaries wherever something is written.
fn exchange(planted: &mut Planted<'_>) {
    let (home, server) = (planted.home, planted.server);
    let token_file = home.path("token");
    let put_token = |token: &str| std::fs::write(&token_file, token).unwrap();
    put_token(&server.token);
    let from_file = ["--token-file", token_file.to_str().unwrap()];
    let printed = format!("cat {}", token_file.display());
    let from_command = ["--token-command", printed.as_str()];

    let rows = format!(
        "INSERT INTO task VALUES ('t1', '{VALUE}', 0, NULL), ('t2', 'bread', 0, NULL);
         INSERT INTO member VALUES ('p', 1, {REAL})"
    );
    let [a, b] = [("a.db", rows.as_str()), ("b.db", "")].map(|(name, rows)| {
        let path = home.path(name);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(SCHEMA).unwrap();
        conn.execute_batch(rows).unwrap();
        path.to_str().unwrap().to_owned()
    });
    for db in [&a, &b] {
        let attach = ["attach", db, "--remote", &server.url, "--all"];
        let ran = run(syncline(&[&attach, planted.log].concat())).expect_code(0);
        planted.took(&ran);
    }
    planted.sync(&a, &from_command, 0);
    planted.sync(&b, &from_file, 0);
    // A conflict, a merge, and rows that the server will not have or that can never be sent.
    sql(
        &a,
        &format!("UPDATE task SET title = '{VALUE}-a' WHERE id = 't1'"),
    );
    planted.sync(&a, &from_file, 0);
    sql(
        &b,
        &format!("UPDATE task SET title = '{VALUE}-b' WHERE id = 't1'"),
    );
    let refused = format!("{VALUE}-{}", "x".repeat(80));
    sql(
        &b,
        &format!(
            "INSERT INTO task VALUES ('t3', '{refused}', 0, NULL);
             INSERT INTO task VALUES ('t4', '{VALUE}' || char(0), 0, NULL)"
        ),
    );
    let failed = || {
        value(
            &b,
            "SELECT count(*) FROM syncline_outbox WHERE state = 'failed'",
        )
    };
    planted.run_until(&b, &from_command, "two refusals", || {
        failed() == "Integer(2)"
    });
    planted.sync(&b, &from_file, 10);
    // Credentials that nobody accepts, or that are none.
    put_token(TOKEN);
    planted.sync(&a, &from_file, 12);
    planted.sync(&a, &from_command, 12);
    put_token(&format!("{TOKEN} {TOKEN}"));
    planted.sync(&a, &from_command, 12);
    // Requests by hand.
    let (good, client) = (server.token.clone(), "0".repeat(32));
    for token in [TOKEN, &good] {
        let operation = format!(
            r#"{{"client":"{client}","mutations":[{{"key":"k","mutation":"m","type":"task","id":"1","op":"{VALUE}"}}]}}"#
        );
        planted.ask("POST", "/v1/push", token, &operation);
        planted.ask(
            "POST",
            "/v1/push",
            token,
            &format!("{{\"client\":{VALUE:?}}}"),
        );
        planted.ask("GET", &format!("/v1/pull?cursor={VALUE}"), token, "");
        let fields = format!("{{\"title\":{:?}}}", refused);
        planted.ask("POST", "/v1/entities/task", token, &fields);
    }
}

fn logs_with(form: &str, more: &[&str]) -> (String, String, String) {
    let home = Home::new();
    let config = home.path("server.toml");
    let types = "[types.project]\n[types.member]\n[types.task]\n\
                 schema = { properties = { title = { maxLength = 40 } } }\n";
    std::fs::write(&config, types).unwrap();
    let log = [&["-vvv", "--log", form], more].concat();
    let more = [
        "--config",
        config.to_str().unwrap(),
        "--metrics",
        "127.0.0.1:0",
    ];
    let serve = [&more, log.as_slice()].concat();
    let mut server = Server::start_with(home.folder.path(), "127.0.0.1:0", &serve);
    let metrics = server.metrics();
    let mut planted = Planted {
        home: &home,
        server: &server,
        log: &log,
        logs: String::new(),
        shown: String::new(),
    };
    exchange(&mut planted);
    let (mut logs, shown) = (planted.logs, planted.shown);
    logs += &get(&metrics, "/metrics");
    let token = server.token.clone();
    logs += &server.stop("TERM").expect_code(0).stderr;
    (logs, shown, token)
}

#[track_caller]
fn assert_no_token(text: &str, token: &str) {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for secret in [TOKEN, signed, signature] {
        let at = text.lines().find(|line| line.contains(secret));
        assert_eq!(at, None, "a token is shown");
    }
}

#[test]
fn no_log_and_no_error_shows_a_secret_or_a_value() {
    for form in ["text", "json"] {
        let (logs, shown, token) = logs_with(form, &[]);
        for wanted in [
            "sent",
            "received",
            "validation",
            "unsyncable",
            "token-invalid",
            "syncline_claims_total",
            "syncline_server_mutations_total",
        ] {
            assert!(logs.contains(wanted), "{wanted}: {logs}");
        }
        assert_no_token(&(logs.clone() + &shown), &token);
        for value in [VALUE, REAL] {
            let at = logs.lines().find(|line| line.contains(value));
            assert_eq!(at, None, "a value is shown");
        }
    }
}

#[test]
fn values_are_shown_where_a_flag_asks_for_them_and_tokens_never() {
    let (logs, shown, token) = logs_with("text", &["--log-values"]);
    let with = |message: &str| {
        let mut lines = logs.lines();
        lines.any(|line| line.contains(message) && line.contains(VALUE))
    };
    assert!(with(" sent "), "{logs}");
    assert!(with(" received "), "{logs}");
    assert!(logs.contains(REAL), "{logs}");
    assert_no_token(&(logs + &shown), &token);
}
