//! SQLite as a storage: the conformance suite, and what only files can get wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use rusqlite::Connection;
use std::path::Path;
use syncline_protocol::Scope;
use syncline_server::{Storage, conformance};
use syncline_server_sqlite::{OpenError, SqliteStorage};

fn head(storage: &SqliteStorage) -> i64 {
    storage
        .read(|tx| tx.head("acme", &Scope::from("default")))
        .unwrap()
}

fn bump(storage: &SqliteStorage) -> i64 {
    storage
        .write(|tx| tx.bump_head("acme", &Scope::from("default"), 1))
        .unwrap()
}

#[test]
fn conforms_on_disk() {
    let parent = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance::run(|| {
        count.set(count.get() + 1);
        SqliteStorage::open(parent.path().join(count.get().to_string())).unwrap()
    });
}

#[test]
fn conforms_in_memory() {
    conformance::run(|| SqliteStorage::open_in_memory().unwrap());
}

#[test]
fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let open = || SqliteStorage::open(directory.path()).unwrap();
    let first = open();
    bump(&first);
    let epoch = first.read(|tx| tx.epoch()).unwrap();
    let secret = first.cursor_secret();
    drop(first);
    let second = open();
    assert_eq!(head(&second), 1);
    assert_eq!(second.read(|tx| tx.epoch()).unwrap(), epoch);
    assert_eq!(second.cursor_secret(), secret);
    assert_eq!(epoch.as_str().len(), 32);
    drop(second);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = SqliteStorage::open(elsewhere.path()).unwrap();
    assert_ne!(other.read(|tx| tx.epoch()).unwrap(), epoch);
    assert_ne!(other.cursor_secret(), secret);
}

#[test]
fn only_one_may_serve_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = SqliteStorage::open(directory.path()).unwrap();
    let second = SqliteStorage::open(directory.path());
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    bump(&first);
    drop(first);
    assert_eq!(head(&SqliteStorage::open(directory.path()).unwrap()), 1);
}

#[cfg(unix)]
#[test]
fn the_secret_is_for_its_owner_only_and_a_damaged_one_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteStorage::open(directory.path()).unwrap());
    let secret = directory.path().join("secret");
    let mode = std::fs::metadata(&secret).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(&secret, b"short").unwrap();
    let opened = SqliteStorage::open(directory.path());
    assert!(
        matches!(opened, Err(OpenError::Secret { .. })),
        "{opened:?}"
    );
    assert_eq!(std::fs::read(&secret).unwrap(), b"short");
}

#[test]
fn a_newer_foreign_or_garbled_database_is_refused_and_left_alone() {
    type Prepare = fn(&Path);
    let prepare: [(&str, Prepare); 3] = [
        ("version 99", |path| {
            let connection = Connection::open(path).unwrap();
            connection.pragma_update(None, "user_version", 99).unwrap();
        }),
        ("not one of a Syncline server", |path| {
            let connection = Connection::open(path).unwrap();
            connection.pragma_update(None, "application_id", 7).unwrap();
        }),
        ("not a database", |path| {
            std::fs::write(path, [b'x'; 4096]).unwrap();
        }),
    ];
    for (words, prepare) in prepare {
        let directory = tempfile::tempdir().unwrap();
        drop(SqliteStorage::open(directory.path()).unwrap());
        let database = directory.path().join("server.db");
        prepare(&database);
        let before = std::fs::read(&database).unwrap();
        let error = SqliteStorage::open(directory.path()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(std::fs::read(&database).unwrap(), before, "{words}");
    }
}

#[test]
fn readers_do_not_wait_for_a_writer() {
    let directory = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(directory.path()).unwrap();
    storage
        .write(|tx| {
            tx.bump_head("acme", &Scope::from("default"), 5)?;
            assert_eq!(head(&storage), 0, "the last committed state");
            Ok(())
        })
        .unwrap();
    assert_eq!(head(&storage), 5);
}
