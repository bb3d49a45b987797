//! Random histories: whatever is written, lost, repeated, crashed and in whatever order, in the end
//! everybody has the same, and every mutation is accounted for.
#![allow(clippy::unwrap_used)] // helpers of tests

use proptest::prelude::*;
use syncline::Checkpoint;
use syncline_store::doctor::{Severity, examine};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT, budget REAL);
    CREATE TABLE task (project INTEGER NOT NULL REFERENCES project(id) ON DELETE CASCADE,
                       number INTEGER NOT NULL, title TEXT, note TEXT, data BLOB,
                       PRIMARY KEY (project, number)) WITHOUT ROWID;";

const DEVICES: [&str; 3] = ["Alice", "Bob", "Carol"];

#[derive(Debug, Clone)]
enum Act {
    Write(usize, String),
    Sync(usize),
    Fault(usize, Fault),
    Offline(usize),
    Online(usize),
    Crash(usize),
    Release(usize),
    Pass(u64),
}

/// Ids of rows made by one device are its own, so that no two devices create the same row.
fn any_sql(device: usize) -> impl Strategy<Value = String> {
    let own = (0..4i64).prop_map(move |n| n * 3 + i64::try_from(device).unwrap());
    let any = 0..12i64;
    prop_oneof![
        (own.clone(), 0..9i64).prop_map(|(id, n)| format!(
            "INSERT OR IGNORE INTO project VALUES ({id}, 'made {n}', {n} / 3.0)"
        )),
        (own, 0..2i64, 0..9i64).prop_map(|(id, number, n)| format!(
            "INSERT OR REPLACE INTO task SELECT id, {number}, 'task {n}', NULL, x'0{n}' FROM project WHERE id = {id}"
        )),
        (any.clone(), 0..9i64).prop_map(|(id, n)| format!("UPDATE project SET name = 'name {n}' WHERE id = {id}")),
        (any.clone(), 0..9i64).prop_map(|(id, n)| format!("UPDATE project SET budget = {n} * 0.1 WHERE id = {id}")),
        (any.clone(), 0..9i64).prop_map(|(id, n)| format!("UPDATE task SET title = 'title {n}' WHERE project = {id}")),
        (any.clone(), 0..9i64).prop_map(|(id, n)| format!("UPDATE task SET note = 'note {n}', data = NULL WHERE project = {id}")),
        any.clone().prop_map(|id| format!("DELETE FROM task WHERE project = {id} AND number = 1")),
        any.prop_map(|id| format!("DELETE FROM project WHERE id = {id}")),
    ]
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::LoseRequest),
        Just(Fault::LoseAnswer),
        Just(Fault::Repeat),
        Just(Fault::Portal),
        Just(Fault::Hold),
        Just(Fault::Status(500, None)),
        Just(Fault::Status(503, Some(std::time::Duration::from_secs(2)))),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    (0..DEVICES.len()).prop_flat_map(|device| {
        prop_oneof![
            8 => any_sql(device).prop_map(move |sql| Act::Write(device, sql)),
            4 => Just(Act::Sync(device)),
            2 => any_fault().prop_map(move |fault| Act::Fault(device, fault)),
            1 => Just(Act::Offline(device)),
            1 => Just(Act::Online(device)),
            1 => Just(Act::Crash(device)),
            1 => Just(Act::Release(device)),
            1 => (1..5_000u64).prop_map(Act::Pass),
        ]
    })
}

fn any_calm_act() -> impl Strategy<Value = Act> {
    (0..DEVICES.len()).prop_flat_map(|device| {
        prop_oneof![
            3 => any_sql(device).prop_map(move |sql| Act::Write(device, sql)),
            1 => Just(Act::Sync(device)),
        ]
    })
}

/// Stages so little that the limit is reached too.
const LITTLE: Checkpoint = Checkpoint {
    changes: 7,
    bytes: 1 << 20,
};

/// The doctor finds nothing wrong with a device's file, at any moment of any history.
fn assert_sound(world: &mut World, name: &str) {
    let (path, now) = (world.path(name), world.now());
    let conn = rusqlite::Connection::open(&path).unwrap();
    let findings = examine(&conn, &path, now).unwrap();
    let failed: Vec<_> = (findings.iter())
        .filter(|one| one.severity == Severity::Failed)
        .collect();
    assert!(failed.is_empty(), "{name}: {failed:?}");
}

/// Plays a history; who pulls in checkpoint mode is one bit per device.
fn play(acts: &[Act], modes: u8) -> World {
    let mut world = World::new(SCHEMA);
    world.configure(|config| {
        config.push_mutations = 3;
        config.page_changes = 2;
    });
    for (bit, name) in DEVICES.iter().enumerate() {
        world.checkpoint((modes >> bit & 1 == 1).then_some(LITTLE));
        world.device(name);
    }
    for (n, act) in acts.iter().enumerate() {
        match act {
            Act::Write(device, sql) => world.sql(DEVICES[*device], sql),
            Act::Sync(device) => world.sync(DEVICES[*device]),
            Act::Fault(device, fault) => world.fault(DEVICES[*device], fault.clone()),
            Act::Offline(device) => world.offline(DEVICES[*device]),
            Act::Online(device) => world.online(DEVICES[*device]),
            Act::Crash(device) => {
                world.crash(DEVICES[*device]);
                world.checkpoint((n % 2 == 1).then_some(LITTLE));
                world.restart(DEVICES[*device]);
            }
            Act::Release(device) => world.release(DEVICES[*device]),
            Act::Pass(ms) => world.pass(*ms),
        }
        if n % 16 == 15 {
            DEVICES
                .iter()
                .for_each(|name| assert_sound(&mut world, name));
        }
    }
    for name in DEVICES {
        world.heal(name);
    }
    world.run_until_quiet();
    world.run_until_quiet();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn everybody_ends_with_the_same(acts in proptest::collection::vec(any_act(), 1..60), modes in 0u8..8) {
        let mut world = play(&acts, modes);
        world.assert_converged();
        for name in DEVICES {
            let status = world.status(name);
            prop_assert_eq!(status.outbox["failed"] + status.outbox["dead"], 0);
            prop_assert_eq!(status.open_conflicts, 0);
            world.assert_equals_server(name);
        }
    }

    /// As long as nothing goes wrong on the way, it makes no difference when pages are applied.
    #[test]
    fn both_ways_to_pull_end_in_the_same_rows(acts in proptest::collection::vec(any_calm_act(), 1..60)) {
        let mut dumps = [0, 7].map(|modes| {
            let mut world = play(&acts, modes);
            world.assert_converged();
            world.dump("Alice")
        });
        prop_assert_eq!(std::mem::take(&mut dumps[0]), std::mem::take(&mut dumps[1]));
    }
}
