//! S1: a file that cannot be opened is left as it is, byte for byte, and the error tells a damaged
//! file from one that only cannot be read now.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use syncline_core::{FaultKind, Now, Policy, StoreAnswer, StoreWork};
use syncline_protocol::ClientId;
use syncline_store::attach::{AttachRequest, Existing, Tables, attach};
use syncline_store::{Store, StoreError, StoreOptions};

fn now() -> Now {
    Now {
        monotonic_ms: 0,
        unix_ms: 1_800_000_000_000,
    }
}

fn request() -> AttachRequest {
    AttachRequest {
        remote: "http://localhost".to_owned(),
        tables: Tables::All,
        rules: Default::default(),
        existing: Existing::Upload,
        policy: Policy::default(),
        declared: BTreeMap::new(),
        settings: None,
        client: ClientId::new("c"),
    }
}

/// An attached database with a hundred rows that wait to be sent, in one file.
fn attached(folder: &Path) -> PathBuf {
    let path = folder.join("app.db");
    let mut conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT)")
        .unwrap();
    attach(&mut conn, &request(), now()).unwrap();
    conn.execute_batch(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
         INSERT INTO task SELECT i, hex(zeroblob(200)) FROM n",
    )
    .unwrap();
    path
}

fn open(path: &Path) -> Result<Store, StoreError> {
    let mut options = StoreOptions::new("test", 1);
    options.busy_timeout_ms = 50;
    Store::open(path, options)
}

/// Opening, and if that still works the first units of work, fail with an error of this kind; the
/// file is what it was. The same for attaching it.
#[track_caller]
fn refused(path: &Path, kind: FaultKind) {
    let before = std::fs::read(path).ok();
    let first = match open(path) {
        Err(error) => (error.kind(), error.to_string()),
        Ok(mut store) => match store.perform(&StoreWork::Acquire, now()) {
            StoreAnswer::Failed(fault) => (fault.kind, fault.detail),
            answer => panic!("{path:?} was opened: {answer:?}"),
        },
    };
    assert_eq!(first.0, kind, "{path:?}: {}", first.1);
    let mut conn = Connection::open(path).unwrap_or_else(|_| Connection::open_in_memory().unwrap());
    conn.busy_timeout(std::time::Duration::from_millis(50))
        .unwrap();
    assert!(attach(&mut conn, &request(), now()).is_err(), "{path:?}");
    drop(conn);
    assert!(std::fs::read(path).ok() == before, "{path:?} was changed");
}

#[test]
fn a_damaged_file_is_told_from_others_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = attached(folder.path());
    let whole = std::fs::read(&path).unwrap();
    let text = b"no database at all\n".repeat(500);
    let mut garbled = whole.clone();
    garbled[100..4096].fill(0xa5);
    for (what, bytes) in [
        ("half of it", whole[..whole.len() / 8192 * 4096].to_vec()),
        ("a page and a bit", whole[..4196].to_vec()),
        ("a text", text),
        ("garbage on the first page", garbled),
    ] {
        std::fs::write(&path, bytes).unwrap();
        println!("{what}");
        refused(&path, FaultKind::Corrupt);
    }
    std::fs::write(&path, whole).unwrap();
    assert!(open(&path).is_ok(), "it is as good as before");
}

#[test]
fn a_file_that_cannot_be_read_now_is_not_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    // What SQLite cannot open at all: as without permission, which root does not lack.
    let inside = folder.path().join("a-directory.db");
    std::fs::create_dir(&inside).unwrap();
    assert_eq!(open(&inside).err().unwrap().kind(), FaultKind::Unavailable);
    let missing = folder.path().join("missing.db");
    assert_eq!(open(&missing).err().unwrap().kind(), FaultKind::Unavailable);
    assert!(!missing.exists(), "opening makes no file");

    let path = attached(folder.path());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    refused(&path, FaultKind::Busy);
    other.execute_batch("ROLLBACK").unwrap();
    let mut store = open(&path).unwrap();
    let acquired = store.perform(&StoreWork::Acquire, now());
    assert!(matches!(acquired, StoreAnswer::Acquired), "{acquired:?}");
}

#[cfg(unix)]
#[test]
fn without_permission_a_file_is_not_called_damaged() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = attached(folder.path());
    let allow = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
    allow(0o000).unwrap();
    if std::fs::read(&path).is_ok() {
        println!("this user may read everything");
        return;
    }
    assert_eq!(open(&path).err().unwrap().kind(), FaultKind::Unavailable);
    allow(0o600).unwrap();
    assert!(open(&path).is_ok());
}
