//! Every command on every kind of wrong file: the right code, a message that names the mend, and
//! the file as it was, byte for byte.

use crate::harness::{BINARY, Home, Ran, run, sql, syncline};
use std::path::Path;

const URL: &str = "http://127.0.0.1:1";

/// Every command that takes a database.
const COMMANDS: [&[&str]; 11] = [
    &["attach", "DB", "--remote", URL, "--all"],
    &["sync", "DB"],
    &["run", "DB"],
    &["status", "DB"],
    &["outbox", "list", "DB"],
    &["outbox", "show", "DB", "1"],
    &["outbox", "retry", "DB", "1"],
    &["outbox", "discard", "DB", "1"],
    &["detach", "DB"],
    &["doctor", "DB"],
    &["doctor", "DB", "--repair"],
];

fn on(db: &str, args: &[&str]) -> Ran {
    let args = args.iter().map(|arg| if *arg == "DB" { db } else { arg });
    let mut args: Vec<&str> = args.collect();
    args.push("--json");
    let mut command = syncline(&args);
    command.env("SYNCLINE_TOKEN", "some.good.token");
    run(command)
}

#[track_caller]
fn refused(ran: &Ran, args: &[&str], code: &str) {
    assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
    assert_eq!(ran.json()["error"]["code"], code, "{args:?}: {ran:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(lines[0].starts_with("error: "), "{args:?}: {ran:?}");
    assert!(lines[1].starts_with("hint: "), "{args:?}: {ran:?}");
    assert_eq!(lines.len(), 2, "{args:?}: {ran:?}");
}

/// The bytes of the file, and what stands beside it and is not empty or SQLite's own index.
fn fingerprint(path: &Path) -> (Option<Vec<u8>>, Vec<String>) {
    let bytes = std::fs::read(path).ok();
    let mut beside: Vec<String> = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.metadata().unwrap().len() > 0)
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-shm"))
        .collect();
    beside.sort();
    (bytes, beside)
}

#[track_caller]
fn all_refuse(db: &str, expected: impl Fn(&str) -> Option<&'static str>) {
    for args in COMMANDS {
        let Some(code) = expected(args[0]) else {
            continue;
        };
        let before = fingerprint(Path::new(db));
        refused(&on(db, args), args, code);
        assert!(
            fingerprint(Path::new(db)) == before,
            "{args:?} changed the file"
        );
    }
}

#[test]
fn a_missing_file_is_never_made() {
    let home = Home::new();
    let db = home.path("nothing.db");
    all_refuse(db.to_str().unwrap(), |_| Some("no-database"));
    assert_eq!(std::fs::read_dir(home.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_is_no_database() {
    let home = Home::new();
    let folder = home.path("folder");
    std::fs::create_dir(&folder).unwrap();
    all_refuse(folder.to_str().unwrap(), |_| Some("is-a-directory"));
}

#[test]
fn a_text_file_is_no_database() {
    let home = Home::new();
    for (name, text) in [
        ("short", "hello".to_owned()),
        ("long", "hello\n".repeat(5_000)),
    ] {
        let path = home.path(name);
        std::fs::write(&path, text).unwrap();
        all_refuse(path.to_str().unwrap(), |_| Some("not-a-database"));
    }
}

#[test]
fn a_damaged_database_is_left_alone() {
    let home = Home::new();
    let db = home.database("a.db", "");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes[100..4096].fill(0xa5);
    std::fs::write(&db, bytes).unwrap();
    all_refuse(&db, |_| Some("damaged"));
}

#[test]
fn an_empty_file_has_nothing_to_sync() {
    let home = Home::new();
    let path = home.path("empty.db");
    std::fs::write(&path, "").unwrap();
    all_refuse(path.to_str().unwrap(), |command| match command {
        "attach" => None,
        _ => Some("not-attached"),
    });
    let db = path.to_str().unwrap();
    let ran = on(db, COMMANDS[0]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("no table that could be synced"),
        "{ran:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[test]
fn a_database_that_is_not_attached_is_told() {
    let home = Home::new();
    let db = home.database("a.db", "");
    all_refuse(&db, |command| match command {
        "attach" => None,
        _ => Some("not-attached"),
    });
}

#[test]
fn metadata_of_a_newer_version_is_left_alone() {
    let home = Home::new();
    let db = home.attached(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)",
        URL,
    );
    sql(
        &db,
        "UPDATE syncline_meta SET value = 999 WHERE key = 'schema_version'",
    );
    all_refuse(&db, |_| Some("newer-metadata"));
}

#[test]
fn tables_that_cannot_be_synced_are_told_and_nothing_is_attached() {
    let home = Home::new();
    let db = home.database(
        "a.db",
        "CREATE TABLE heap (x); CREATE TABLE ratio (x REAL PRIMARY KEY);",
    );
    let before = fingerprint(Path::new(&db));
    for (table, code, word) in [
        ("nothing", "no-such-table", "check the spelling"),
        ("open_task", "is-a-view", "sync the tables that it reads"),
        ("heap", "no-primary-key", "PRIMARY KEY"),
        ("ratio", "table-cannot-sync", "INTEGER, TEXT or BLOB"),
        (
            "sqlite_schema",
            "table-cannot-sync",
            "not one of the app's tables",
        ),
    ] {
        let args = [
            "attach", "DB", "--remote", URL, "--table", "task", "--table", table,
        ];
        let ran = on(&db, &args);
        refused(&ran, &args, code);
        assert!(ran.stderr.contains(word), "{ran:?}");
        assert!(fingerprint(Path::new(&db)) == before, "{table}");
    }
    let all = ["attach", "DB", "--remote", URL, "--all"];
    refused(&on(&db, &all), &all, "no-primary-key");
    assert!(fingerprint(Path::new(&db)) == before);
}

#[test]
fn a_file_syncs_with_one_remote() {
    let home = Home::new();
    let db = home.attached("a.db", "", URL);
    let before = fingerprint(Path::new(&db));
    let args = ["attach", "DB", "--remote", "http://127.0.0.1:2", "--all"];
    let ran = on(&db, &args);
    refused(&ran, &args, "attached-elsewhere");
    assert!(ran.stderr.contains(URL), "{ran:?}");
    assert!(fingerprint(Path::new(&db)) == before);
}

/// A file that this user may read and not write.
#[cfg(unix)]
#[test]
fn a_read_only_file_can_be_looked_at() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let home = Home::new();
    let plain = home.database("plain.db", "");
    let db = home.attached(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)",
        URL,
    );
    // Rights mean nothing to root, so that a copy of the command is run as nobody.
    let root = chown("/", Some(0), None).is_ok();
    let binary = home.path("binary");
    std::fs::copy(BINARY, &binary).unwrap();
    for db in [&plain, &db] {
        mode(Path::new(db), 0o444);
    }
    mode(home.folder.path(), 0o555);
    for (args, code) in [
        (COMMANDS[0], Some("read-only")),
        (COMMANDS[1], Some("read-only")),
        (COMMANDS[3], None),
        (COMMANDS[4], None),
        (COMMANDS[7], Some("read-only")),
        (COMMANDS[8], Some("read-only")),
    ] {
        let db = if args[0] == "attach" { &plain } else { &db };
        let before = fingerprint(Path::new(db));
        let mut command = std::process::Command::new(&binary);
        command.args(args.iter().map(|arg| if *arg == "DB" { db } else { *arg }));
        command
            .arg("--json")
            .env("SYNCLINE_TOKEN", "some.good.token");
        if root {
            command.uid(65_534).gid(65_534);
        }
        let ran = run(command);
        match code {
            None => assert_eq!(ran.code, 0, "{args:?}: {ran:?}"),
            Some(code) => refused(&ran, args, code),
        }
        assert!(fingerprint(Path::new(db)) == before, "{args:?}");
    }
    mode(home.folder.path(), 0o755);
}
