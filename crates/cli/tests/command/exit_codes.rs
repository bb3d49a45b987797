//! Each exit code of `sync`, with what it says and the work that it keeps.

use crate::harness::{Home, Server, run, sql, syncline, token, value, with_token};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use syncline_protocol::{Access, Principal};
use syncline_server::{Identity, Now, issue_token};

const MILK: &str = "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)";

/// Nothing listens there.
const NOBODY: &str = "http://127.0.0.1:1";

fn pending(db: &str) -> String {
    value(db, "SELECT count(*) FROM syncline_outbox")
}

#[test]
fn ten_when_something_waits_for_a_person() {
    let home = Home::new();
    let config = home.path("server.toml");
    std::fs::write(
        &config,
        "[types.project]\n[types.member]\n[types.task]\n\
         schema = { properties = { title = { maxLength = 5 } } }\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let server = Server::start_with(home.folder.path(), "127.0.0.1:0", &["--config", config]);
    let db = home.attached(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'milk', 0, NULL), ('t2', 'far too long', 0, NULL)",
        &server.url,
    );
    let ran = with_token(&server, &["sync", &db, "--json"]).expect_code(10);
    let summary = ran.json();
    assert_eq!(
        (&summary["pushed"], &summary["failed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(summary["exit"], 10);
    let waiting = &summary["waiting_for_person"][0];
    assert_eq!(waiting["entity_id"], "t2");
    assert_eq!(waiting["last_error"]["errors"][0]["field"], "title");
    assert_eq!(ran.stderr, "");
    let text = with_token(&server, &["sync", &db]).expect_code(10);
    assert!(
        text.stdout.contains("1 mutation waiting for you"),
        "{text:?}"
    );
    assert!(text.stdout.contains("title"), "{text:?}");
    // The row is mended, the mutation is sent again: nothing waits any more.
    sql(&db, "UPDATE task SET title = 'short' WHERE id = 't2'");
    run(syncline(&["outbox", "retry", &db, "2"])).expect_code(0);
    with_token(&server, &["sync", &db]).expect_code(0);
}

#[test]
fn eleven_when_nothing_listens() {
    let home = Home::new();
    let db = home.attached("a.db", MILK, NOBODY);
    let mut command = syncline(&["sync", &db, "--json"]);
    command.env("SYNCLINE_TOKEN", "some.good.token");
    let begun = Instant::now();
    let ran = run(command).expect_code(11);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let json = ran.json();
    assert_eq!(json["error"]["code"], "unreachable");
    assert_eq!(json["pending"], 1);
    assert!(
        ran.stderr
            .starts_with("error: the server cannot be reached"),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .contains("hint: is a server running at http://127.0.0.1:1?"),
        "{ran:?}"
    );
    assert_eq!(pending(&db), "Integer(1)");
}

#[test]
fn eleven_when_the_server_is_silent_until_the_budget_ends() {
    let home = Home::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let db = home.attached("a.db", MILK, &url);
    let mut command = syncline(&["sync", &db, "--budget", "400ms"]);
    command.env("SYNCLINE_TOKEN", "some.good.token");
    let begun = Instant::now();
    run(command).expect_code(11);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(pending(&db), "Integer(1)");
}

#[test]
fn twelve_when_credentials_are_needed() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached("a.db", MILK, &server.url);
    let elsewhere = token(&home.path("other-server"), &["--subject", "joe"]);
    let expired = expired_token(&server);
    let missing = home.path("no-such-file");
    let sync = || syncline(&["sync", &db, "--json"]);
    let with = |token: &str| {
        let mut command = sync();
        command.env("SYNCLINE_TOKEN", token);
        command
    };
    let mut file = sync();
    file.arg("--token-file").arg(&missing);
    let cases: [(&str, Command); 6] = [
        ("none is configured", sync()),
        ("none is configured", with("")),
        ("refused", with(&elsewhere)),
        ("refused", with(&expired)),
        ("white space", with("two words")),
        ("no-such-file", file),
    ];
    for (word, command) in cases {
        let begun = Instant::now();
        let ran = run(command).expect_code(12);
        assert!(begun.elapsed() < Duration::from_secs(5), "{word}");
        assert_eq!(ran.json()["error"]["code"], "credentials-needed", "{ran:?}");
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
        assert!(ran.stderr.contains("hint: set SYNCLINE_TOKEN"), "{ran:?}");
        assert!(!ran.stderr.contains(&elsewhere) && !ran.stderr.contains(&expired));
        assert_eq!(pending(&db), "Integer(1)");
    }
    with_token(&server, &["sync", &db]).expect_code(0);
    // From now on the file is joe's.
    let other = token(&server.data, &["--subject", "jane"]);
    sql(&db, "UPDATE task SET done = 1");
    let ran = run(with(&other)).expect_code(12);
    assert!(ran.stderr.contains("belongs to joe"), "{ran:?}");
    assert_eq!(pending(&db), "Integer(1)");
}

#[test]
fn a_token_file_goes_before_the_environment() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached("a.db", MILK, &server.url);
    let file = home.path("token");
    std::fs::write(&file, format!("{}\n", server.token)).unwrap();
    let mut command = syncline(&["sync", &db, "--token-file", file.to_str().unwrap()]);
    command.env("SYNCLINE_TOKEN", "not.the.one");
    run(command).expect_code(0);
}

#[test]
fn a_token_may_come_from_a_command() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached("a.db", MILK, &server.url);
    let file = home.path("to ken");
    std::fs::write(&file, format!("{}\n", server.token)).unwrap();
    let command = format!("cat '{}'", file.display());
    let ran = run(syncline(&[
        "sync",
        &db,
        "-vvv",
        "--token-command",
        &command,
    ]))
    .expect_code(0);
    assert!(!ran.stderr.contains(&server.token), "{ran:?}");
    let fails = [
        "sync",
        &db,
        "--json",
        "--token-command",
        "sh -c 'echo secret; exit 7'",
    ];
    let ran = run(syncline(&fails)).expect_code(12);
    assert!(
        ran.stderr.contains("exit status: 7") && !ran.stderr.contains("secret"),
        "{ran:?}"
    );
    run(syncline(&["sync", &db, "--token-command", "'cat"])).expect_code(2);
    let both = ["sync", &db, "--token-command", "cat x", "--token-file", "x"];
    run(syncline(&both)).expect_code(2);
}

fn expired_token(server: &Server) -> String {
    let secret = std::fs::read(server.data.join("token-secret")).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let an_hour_ago = i64::try_from(now.as_millis()).unwrap() - 3_600_000;
    let identity = Identity {
        principal: Principal {
            tenant: "default".to_owned(),
            subject: "joe".to_owned(),
        },
        access: Access::Write,
    };
    issue_token(&secret, &identity, Now::from_unix_ms(an_hour_ago), 60).unwrap()
}

#[test]
fn thirteen_when_requests_or_bytes_are_used_up() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached("a.db", MILK, &server.url);
    let ran = with_token(&server, &["sync", &db, "--max-requests", "1", "--json"]).expect_code(13);
    let told = ran.json();
    assert_eq!(
        (&told["end"], &told["pending"]),
        (&"unfinished".into(), &1.into())
    );
    assert!(told["bytes_left"].as_u64().unwrap() > 0, "{told}");
    let rows = "INSERT INTO project SELECT value, hex(zeroblob(2000)) FROM json_each('[1,2,3]')";
    sql(&db, rows);
    let bounds = ["sync", &db, "--max-bytes", "6kB", "--budget", "1m"];
    let text = with_token(&server, &bounds).expect_code(13).stdout;
    assert!(text.contains("still to be sent (about "), "{text}");
    assert!(
        text.contains("not finished: the budget is used up"),
        "{text}"
    );
    let bounds = [
        "sync",
        &db,
        "--max-bytes",
        "1MB",
        "--max-requests",
        "9",
        "--json",
    ];
    let ran = with_token(&server, &bounds).expect_code(0);
    assert_eq!(ran.json()["bytes_left"], 0);
}

#[test]
fn thirteen_when_another_process_does_not_come_to_an_end() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached("a.db", MILK, &server.url);
    // Somebody is the engine, and hangs.
    sql(
        &db,
        "INSERT INTO syncline_lease (id, holder, token, until)
         VALUES (1, 'someone', 7, 1000 * (unixepoch() + 30))",
    );
    let ran = with_token(&server, &["sync", &db, "--budget", "700ms", "--json"]).expect_code(13);
    assert_eq!(ran.json()["by"], "another_process");
    assert_eq!(ran.json()["pending"], 1);
    // Nobody is the engine any more.
    sql(&db, "UPDATE syncline_lease SET until = 0");
    with_token(&server, &["sync", &db]).expect_code(0);
}

#[test]
fn a_read_only_token_pulls_and_leaves_writes_to_a_person() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.attached("a.db", "", &server.url);
    let reader = token(&server.data, &["--subject", "joe", "--access", "read"]);
    let sync = || {
        let mut command = syncline(&["sync", &db]);
        command.env("SYNCLINE_TOKEN", &reader);
        command
    };
    run(sync()).expect_code(0);
    sql(&db, MILK);
    let ran = run(sync()).expect_code(10);
    assert!(ran.stdout.contains("forbidden"), "{ran:?}");
}
