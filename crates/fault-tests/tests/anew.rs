//! After an I/O error the engine goes on with a connection that is new (F:A10).

#![allow(clippy::unwrap_used)] // helpers of tests

use syncline_fault_vfs::{Call, Failure, Fault, Faults};
use syncline_testkit::World;

/// Plays one push while this goes wrong; how many files the engine opened in it.
fn opened_after(call: Call, failure: Failure) -> u64 {
    let mut world = World::new("CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)");
    let faults = Faults::in_folder(&world.folder());
    world.device("Alice");
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
    faults.fail(Fault::once(call, 1, failure));
    world.sync("Alice");
    assert_eq!(faults.failed(), 1, "{call:?} {failure:?}");
    world.run_until_quiet();
    world.assert_equals_server("Alice");
    let left = world.rows("Alice", "SELECT seq FROM syncline_outbox");
    assert!(left.is_empty(), "{left:?}");
    faults.calls().get(&Call::Open).copied().unwrap_or(0)
}

#[test]
fn f_a10_after_an_io_error_the_file_is_opened_anew() {
    for call in [Call::Sync, Call::Write, Call::Read] {
        assert!(opened_after(call, Failure::Io) > 0, "{call:?}");
    }
}

#[test]
fn what_rolls_back_cleanly_is_no_reason_to() {
    assert_eq!(opened_after(Call::Write, Failure::Full), 0);
    assert_eq!(opened_after(Call::ShmLock, Failure::Busy), 0);
}
