//! The shim does what it is told, and nothing where it is told nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use rusqlite::{Connection, ErrorCode};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use syncline_fault_vfs::{Call, Damage, Failure, Fault, Faults, seed_randomness, set_clock};

fn open(folder: &Path) -> Connection {
    let conn = Connection::open(folder.join("app.db")).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    conn.execute_batch("CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY)")
        .unwrap();
    conn
}

fn insert(conn: &Connection, n: i64) -> rusqlite::Result<usize> {
    conn.execute("INSERT INTO entry VALUES (?1)", [n])
}

fn entries(folder: &Path) -> i64 {
    let conn = Connection::open(folder.join("app.db")).unwrap();
    let check: String = conn
        .query_row("PRAGMA quick_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    conn.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn each_failure_of_each_call_arrives_as_its_own_code() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::in_folder(folder.path());
    let conn = open(folder.path());
    // It waits for ten seconds before it gives a lock up.
    set_clock(Some(0));
    for (call, failure, code) in [
        (Call::Write, Failure::Full, ErrorCode::DiskFull),
        (Call::Write, Failure::Io, ErrorCode::SystemIoFailure),
        (Call::Sync, Failure::Io, ErrorCode::SystemIoFailure),
        (Call::ShmLock, Failure::Io, ErrorCode::SystemIoFailure),
        // SQLite's word for a reader that never gets its lock.
        (
            Call::ShmLock,
            Failure::Busy,
            ErrorCode::FileLockingProtocolFailed,
        ),
    ] {
        faults.fail(Fault::lasting(call, 1, failure));
        let error = insert(&conn, 1).unwrap_err();
        assert_eq!(
            error.sqlite_error_code(),
            Some(code),
            "{call:?} {failure:?}"
        );
        assert!(faults.heal() > 0);
    }
    set_clock(None);
    insert(&conn, 1).unwrap();
    assert_eq!(entries(folder.path()), 1);
}

#[test]
fn a_fault_strikes_at_its_number_once_or_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::in_folder(folder.path());
    let conn = open(folder.path());
    faults.fail(Fault::once(Call::Sync, 2, Failure::Io));
    insert(&conn, 1).unwrap();
    insert(&conn, 2).unwrap_err();
    insert(&conn, 3).unwrap();
    faults.fail(Fault::lasting(Call::Sync, 2, Failure::Io));
    insert(&conn, 4).unwrap();
    insert(&conn, 5).unwrap_err();
    insert(&conn, 6).unwrap_err();
    assert_eq!(faults.failed(), 2);
    assert_eq!(faults.calls()[&Call::Sync], 3);
}

#[test]
fn other_folders_are_left_alone() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let faults = Faults::in_folder(one.path());
    let conn = open(other.path());
    faults.fail(Fault::lasting(Call::Write, 1, Failure::Full));
    insert(&conn, 1).unwrap();
    assert_eq!(faults.failed(), 0);
}

/// A commit that was acknowledged with FULL is there after each power loss; the same with OFF is
/// lost, which shows that the loss is a real one.
#[test]
fn f_a3_what_was_synced_survives_a_power_loss_and_the_rest_need_not() {
    let mut lost = 0;
    for synchronous in ["FULL", "OFF"] {
        for at in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let faults = Faults::in_folder(folder.path());
            let conn = open(folder.path());
            conn.pragma_update(None, "synchronous", synchronous)
                .unwrap();
            conn.pragma_update(None, "wal_autocheckpoint", 4).unwrap();
            insert(&conn, 0).unwrap();
            faults.watch_power(Some(at));
            let acknowledged = (1..20).take_while(|n| insert(&conn, *n).is_ok()).count();
            let acknowledged = 1 + i64::try_from(acknowledged).unwrap();
            if !faults.power_failed() {
                break;
            }
            for damage in [
                Damage::Lost,
                Damage::Kept,
                Damage::Shortened(at),
                Damage::Torn(at),
            ] {
                let after = tempfile::tempdir().unwrap();
                faults.survivors(after.path(), damage);
                match synchronous {
                    "FULL" => assert!(
                        entries(after.path()) >= acknowledged,
                        "change {at}, {damage:?}"
                    ),
                    _ if damage == Damage::Lost => {
                        lost += i64::from(entries(after.path()) < acknowledged);
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(lost > 0, "without a sync nothing was ever lost");
}

/// SQLite's randomness belongs to the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn randomness_and_time_come_from_the_test() {
    let _alone = alone();
    let conn = Connection::open_in_memory().unwrap();
    let blob = |seed| {
        seed_randomness(seed);
        conn.query_row("SELECT hex(randomblob(16))", [], |row| {
            row.get::<_, String>(0)
        })
        .unwrap()
    };
    let first = blob(Some(7));
    assert_eq!(blob(Some(7)), first);
    assert_ne!(blob(Some(8)), first);
    assert_ne!(blob(None), first);

    let now = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)";
    let read = || conn.query_row(now, [], |row| row.get::<_, i64>(0)).unwrap();
    set_clock(Some(1_800_000_000_123));
    assert_eq!(read(), 1_800_000_000_123);
    assert_eq!(read(), 1_800_000_000_123);
    set_clock(None);
    assert_ne!(read(), 1_800_000_000_123);
}

#[test]
fn waiting_for_a_lock_takes_no_time_under_a_clock_of_the_tests() {
    let folder = tempfile::tempdir().unwrap();
    syncline_fault_vfs::install();
    let (one, other) = (open(folder.path()), open(folder.path()));
    other
        .busy_timeout(std::time::Duration::from_secs(3600))
        .unwrap();
    one.execute_batch("BEGIN IMMEDIATE").unwrap();
    set_clock(Some(0));
    assert!(insert(&other, 1).is_err());
    set_clock(None);
}
