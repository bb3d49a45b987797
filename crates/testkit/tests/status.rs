//! Stories of the status: what a UI, also of another process, is told while things go well and badly.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use syncline::rusqlite::Connection;
use syncline::{Constraints, Input, PullProgress};
use syncline_store::status;
use syncline_testkit::World;

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT);
    CREATE TABLE note (id TEXT PRIMARY KEY NOT NULL, body TEXT)";

fn tasks(from: usize, to: usize) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to})
         INSERT INTO task SELECT 't' || i, 'title' FROM n"
    )
}

fn blocked(world: &mut World) -> (String, Option<i64>) {
    let told = world.status("Alice").blocked.unwrap();
    let view = "SELECT blocked_because || '|' || blocked_detail FROM syncline_status";
    let view = world.rows("Alice", view);
    assert_eq!(
        view,
        [format!("{}|{}", told.because, told.detail)],
        "the view"
    );
    (told.because, told.until)
}

#[test]
fn what_waits_is_counted_by_state_and_type() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.run_until_quiet();
    world.offline("Alice");
    world.sql("Alice", &tasks(1, 3));
    world.pass(5_000);
    world.sql("Alice", "INSERT INTO note VALUES ('n', 'body')");
    let bytes = world.rows("Alice", "SELECT sum(length(payload)) FROM syncline_outbox");
    // Before the engine has counted them, after it has, and when some have left.
    for round in ["new", "counted"] {
        let status = world.status("Alice");
        assert_eq!(status.outbox["pending"], 4, "{round}");
        assert_eq!(status.outbox_by_type["task"]["pending"], 3, "{round}");
        assert_eq!(status.outbox_by_type["note"]["pending"], 1, "{round}");
        assert_eq!(status.backlog_bytes.to_string(), bytes[0], "{round}");
        assert_eq!(status.oldest_pending_age_ms.map(|age| age >= 0), Some(true));
        world.sync("Alice");
    }
    world.online("Alice");
    world.run_until_quiet();
    let status = world.status("Alice");
    assert!(status.outbox_by_type.is_empty(), "{status:?}");
    assert_eq!((status.backlog_bytes, status.oldest_pending_at), (0, None));
    assert_eq!(status.progress, Default::default());
}

#[test]
fn a_long_pull_tells_how_far_it_is_also_when_it_was_cut_off() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.sql("Alice", &tasks(1, 25));
    world.run_until_quiet();
    world.configure(|config| config.page_changes = 10);
    world.device("Bob");
    // Hello, types and one page; then a second one.
    for (requests, rows) in [(3, 10), (2, 20)] {
        world.offline_after("Bob", requests);
        world.sync("Bob");
        let pull = world.status("Bob").progress.pull.unwrap();
        let PullProgress { bytes, .. } = pull;
        assert!(bytes > rows * 20, "{pull:?}");
        let expected = PullProgress {
            rows,
            bytes,
            rows_to_come: Some(25 - rows),
        };
        assert_eq!(pull, expected);
        world.crash("Bob");
        let file = Connection::open(world.path("Bob")).unwrap();
        let offline = status::read(&file, world.now()).unwrap();
        assert_eq!(offline.progress.pull, Some(expected), "with no engine");
        world.online("Bob");
        world.restart("Bob");
    }
    world.run_until_quiet();
    assert_eq!(world.status("Bob").progress.pull, None);
    // The next one begins at nothing.
    world.sql("Alice", &tasks(26, 50));
    world.sync("Alice");
    world.offline_after("Bob", 1);
    world.sync("Bob");
    let pull = world.status("Bob").progress.pull.unwrap();
    assert_eq!(
        (pull.rows, pull.rows_to_come),
        (10, Some(15)),
        "a feed page"
    );
}

#[test]
fn a_long_push_tells_how_far_it_is() {
    let mut world = World::new(SCHEMA);
    world.configure(|config| config.push_mutations = 10);
    world.device("Alice");
    world.run_until_quiet();
    world.sql("Alice", &tasks(1, 25));
    // The first batch is answered, then the network is gone.
    world.offline_after("Alice", 1);
    world.sync("Alice");
    let push = world.status("Alice").progress.push.unwrap();
    assert_eq!((push.mutations, push.mutations_to_go), (10, 15));
    assert!(
        push.bytes > 10 * 20 && push.bytes_to_go > 15 * 10,
        "{push:?}"
    );
    world.online("Alice");
    world.run_until_quiet();
    assert_eq!(world.status("Alice").progress.push, None);
}

#[test]
fn what_blocks_the_engine_is_said_in_one_word() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.run_until_quiet();
    assert_eq!(world.status("Alice").blocked, None);
    let poll = world.status("Alice").next_wakeup.unwrap();
    assert_eq!(poll.reason, "poll");
    assert!(poll.at > world.now().unix_ms);

    world.offline("Alice");
    world.sync("Alice");
    let (because, until) = blocked(&mut world);
    assert_eq!(because, "offline");
    let wakeup = world.status("Alice").next_wakeup.unwrap();
    assert_eq!(
        (Some(wakeup.at), wakeup.reason.as_str()),
        (until, "back_off")
    );

    world.online("Alice");
    assert_eq!(world.status("Alice").blocked, None, "it is over");
    world.feed(
        "Alice",
        Input::Constraints(Constraints {
            metered: true,
            low_power: false,
        }),
    );
    assert_eq!(blocked(&mut world).0, "constraints");
    world.feed("Alice", Input::Constraints(Constraints::default()));
    world.feed("Alice", Input::Pause);
    assert_eq!(blocked(&mut world).0, "paused");
    assert_eq!(world.status("Alice").next_wakeup, None);
    world.feed("Alice", Input::Resume);
    assert_eq!(world.status("Alice").blocked, None);
    let token = world.token("somebody else");
    world.use_token("Alice", token);
    world.crash("Alice");
    world.restart("Alice");
    world.sync("Alice");
    assert_eq!(blocked(&mut world).0, "other_account");
}

/// Steps of SQLite's machine that a status takes: as good a measure as time, and always the same.
fn steps(world: &mut World) -> u64 {
    let conn = Connection::open(world.path("Alice")).unwrap();
    let now = world.now();
    // Statements are prepared by the first.
    status::read(&conn, now).unwrap();
    let steps = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&steps);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    conn.progress_handler(1, Some(count)).unwrap();
    status::read(&conn, now).unwrap();
    steps.load(Ordering::Relaxed)
}

#[test]
fn a_status_costs_the_same_however_much_waits() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.run_until_quiet();
    world.offline("Alice");
    world.sql("Alice", &tasks(1, 100));
    world.sync("Alice");
    let few = steps(&mut world);
    world.sql("Alice", &tasks(101, 20_000));
    world.sync("Alice");
    assert_eq!(world.status("Alice").outbox["pending"], 20_000);
    let many = steps(&mut world);
    assert!(
        many < few + 200,
        "{many} steps for 20,000 entries, {few} for 100"
    );
}
