//! Command lines that are wrong: exit code 2, a message that says what is right, nothing touched.

use crate::harness::{Home, run, syncline};

const URL: &str = "http://127.0.0.1:1";

/// What is written on stderr, and the command line that is wrong.
fn attach_cases(db: &str) -> Vec<(&'static str, Vec<&str>)> {
    let attach = |more: &[&'static str]| [&["attach", db], more].concat();
    vec![
        ("Usage", vec![]),
        ("unrecognized subcommand", vec!["synchronise", db]),
        ("<DB>", vec!["sync"]),
        ("--remote <URL>", attach(&["--all"])),
        ("--all", attach(&["--remote", URL])),
        (
            "cannot be used with",
            attach(&["--remote", URL, "--all", "--table", "task"]),
        ),
        (
            "merge",
            attach(&["--remote", URL, "--all", "--policy", "merge"]),
        ),
        (
            "download",
            attach(&["--remote", URL, "--all", "--existing", "download"]),
        ),
        ("https://host", attach(&["--remote", "", "--all"])),
        (
            "https://host",
            attach(&["--remote", "localhost:8470", "--all"]),
        ),
        (
            "https://host",
            attach(&["--remote", "ftp://example.org", "--all"]),
        ),
        (
            "password",
            attach(&["--remote", "https://joe:secret@example.org", "--all"]),
        ),
        (
            "--allow-plain-http",
            attach(&["--remote", "http://example.org", "--all"]),
        ),
    ]
}

/// The same, beyond `attach`.
fn more_cases<'a>(db: &'a str, data: &'a str) -> Vec<(&'static str, Vec<&'a str>)> {
    vec![
        ("no unit", vec!["sync", db, "--budget", "30"]),
        ("such as 25s", vec!["sync", db, "--budget", "soon"]),
        ("longer than nothing", vec!["sync", db, "--budget", "0s"]),
        ("invalid digit", vec!["outbox", "show", db, "first"]),
        ("not in", vec!["outbox", "retry", db, "0"]),
        ("'-1'", vec!["outbox", "discard", db, "-1"]),
        ("<SEQ>", vec!["outbox", "discard", db]),
        (
            "fortnight",
            vec![
                "token",
                "--data",
                data,
                "--subject",
                "joe",
                "--ttl",
                "1fortnight",
            ],
        ),
        (
            "at least one second",
            vec!["token", "--data", data, "--subject", "joe", "--ttl", "5ms"],
        ),
        ("--subject <NAME>", vec!["token", "--data", data]),
        (
            "address and a port",
            vec!["serve", "--data", data, "--listen", "8470"],
        ),
        (
            "address and a port",
            vec!["serve", "--data", data, "--listen", "localhost:http"],
        ),
        ("invalid value", vec!["status", db, "--log", "xml"]),
    ]
}

#[test]
fn wrong_use_is_two() {
    let home = Home::new();
    let db = home.database("a.db", "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)");
    let data = home.path("data");
    let before = std::fs::read(&db).unwrap();
    for (word, args) in attach_cases(&db)
        .into_iter()
        .chain(more_cases(&db, data.to_str().unwrap()))
    {
        let ran = run(syncline(&args)).expect_code(2);
        assert!(ran.stderr.contains(word), "{args:?}: {ran:?}");
        assert_eq!(ran.stdout, "", "{args:?}");
        let mut with_json = args.clone();
        with_json.push("--json");
        let ran = run(syncline(&with_json)).expect_code(2);
        assert!(
            ran.json()["error"]["message"].is_string(),
            "{args:?}: {ran:?}"
        );
        assert!(!ran.stdout.contains("secret"), "{ran:?}");
    }
    assert_eq!(std::fs::read(&db).unwrap(), before);
    assert!(!home.path("data").exists());
}

#[test]
fn a_subject_that_cannot_stand_in_a_token_is_refused() {
    let home = Home::new();
    let data = home.path("data");
    for subject in ["", "line\nbreak"] {
        let mut command = syncline(&["token", "--subject", subject, "--data"]);
        command.arg(&data);
        let ran = run(command).expect_code(2);
        assert!(ran.stderr.contains("1 to 128 bytes"), "{ran:?}");
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [
        &["--help"][..],
        &["--version"],
        &["sync", "--help"],
        &["help", "attach"],
    ] {
        let ran = run(syncline(args)).expect_code(0);
        assert!(!ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
    }
}

#[test]
fn plain_http_can_be_allowed() {
    let home = Home::new();
    let db = home.database("a.db", "");
    let attach = [
        "attach",
        &db,
        "--remote",
        "http://192.0.2.1",
        "--all",
        "--allow-plain-http",
    ];
    run(syncline(&attach)).expect_code(0);
    // And has to be, each time.
    let ran = run(syncline(&["sync", &db])).expect_code(2);
    assert!(ran.stderr.contains("--allow-plain-http"), "{ran:?}");
}
