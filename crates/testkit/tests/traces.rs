//! Traces of whole stories: what is recorded replays, hides what it should, and is the same every
//! time. They stand beside the core's tests as regression tests of the machine; after a wanted change
//! of the machine, `UPDATE_TRACES=1 cargo test -p syncline-testkit --test traces` records them anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test writes files

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use syncline::trace::{Recorder, Redactor, Trace};
use syncline::{Constraints, Input, Policy, Reason, SyncOrder};
use syncline_fault_vfs::{seed_randomness, set_clock};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER)";

/// SQLite has one generator of randomness in a process: one story at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A world that is the same every time it is played.
struct Story {
    world: World,
    _alone: MutexGuard<'static, ()>,
}

impl Story {
    fn begin() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        seed_randomness(Some(1));
        set_clock(Some(1_800_000_000_000));
        let mut world = World::new(SCHEMA);
        world.record(|| Recorder::new(Redactor::hiding([1; 32])));
        Self {
            world,
            _alone: alone,
        }
    }

    /// The traces of a device, one for each start of its engine.
    fn end(mut self, name: &str) -> Vec<String> {
        let traces = self.world.traces(name);
        seed_randomness(None);
        set_clock(None);
        traces
    }
}

/// Both devices write the same rows; some of it is merged, some waits for a person.
fn conflicts() -> Vec<String> {
    let mut story = Story::begin();
    let world = &mut story.world;
    world.device_with("Alice", Policy::Manual);
    world.device("Bob");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk', 0), ('2', 'bread', 0)",
    );
    world.run_until_quiet();
    world.sql(
        "Bob",
        "UPDATE task SET title = 'oat milk' WHERE id = '1'; DELETE FROM task WHERE id = '2'",
    );
    world.sync("Bob");
    world.sql("Alice", "UPDATE task SET title = 'soy milk' WHERE id = '1'; UPDATE task SET done = 1 WHERE id = '2'");
    world.sync("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('3', 'butter', 0)");
    world.run_until_quiet();
    story.end("Alice")
}

/// What is about to be sent is looked at first; another device was quicker.
fn looking_first() -> Vec<String> {
    let mut story = Story::begin();
    let world = &mut story.world;
    world.device("Bob");
    world.configure(|config| config.order = SyncOrder::PullThenPush);
    world.device("Alice");
    world.sql(
        "Bob",
        "INSERT INTO task VALUES ('1', 'milk', 0), ('2', 'bread', 0)",
    );
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'; UPDATE task SET done = 1 WHERE id = '2'");
    world.sql("Bob", "UPDATE task SET title = 'soy milk', done = 1 WHERE id = '1'; DELETE FROM task WHERE id = '2'");
    world.sync("Bob");
    world.sync("Alice");
    world.run_until_quiet();
    story.end("Alice")
}

/// The token is refused, renewed, and in the end the user has to sign in.
fn credentials() -> Vec<String> {
    let mut story = Story::begin();
    let world = &mut story.world;
    world.device("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.expire_token_after("Alice", 1);
    world.sync("Alice");
    world.use_token("Alice", "no token at all".to_owned());
    world.sql("Alice", "INSERT INTO task VALUES ('2', 'bread', 0)");
    world.sync("Alice");
    let token = world.token("somebody");
    world.use_token("Alice", token);
    world.feed("Alice", Input::Trigger(Reason::AuthRefreshed));
    world.run_until_quiet();
    let token = world.token("somebody else");
    world.use_token("Alice", token);
    world.crash("Alice");
    world.restart("Alice");
    world.sync("Alice");
    story.end("Alice")
}

/// Everything that can go wrong on the way, and one mutation that breaks every push.
fn bad_network() -> Vec<String> {
    let mut story = Story::begin();
    let world = &mut story.world;
    world.device("Alice");
    for id in 1..=7 {
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('{id}', 'task {id}', 0)"),
        );
    }
    for fault in [
        Fault::LoseRequest,
        Fault::Status(503, Some(Duration::from_secs(4))),
        Fault::Portal,
        Fault::Status(429, None),
        Fault::LoseAnswer,
    ] {
        world.fault("Alice", fault);
        world.sync("Alice");
        world.settle("Alice");
    }
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('8', 'poison', 0), ('9', 'bread', 0)",
    );
    world.poison("Alice", "poison");
    world.sync("Alice");
    world.settle("Alice");
    world.offline("Alice");
    world.sql("Alice", "UPDATE task SET done = 1");
    world.sync("Alice");
    world.heal("Alice");
    world.run_until_quiet();
    story.end("Alice")
}

/// The server is another one, its cursors are forgotten, the process is killed in between.
fn histories() -> Vec<String> {
    let mut story = Story::begin();
    let world = &mut story.world;
    world.device("Alice");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk', 0), ('2', 'bread', 0)",
    );
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET done = 1 WHERE id = '1'");
    world.replace_server("epoch-2");
    world.run_until_quiet();
    world.forget_cursor("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('3', 'butter', 0)");
    world.hold_push("Alice");
    world.crash("Alice");
    world.restart("Alice");
    world.run_until_quiet();
    story.end("Alice")
}

/// A debounce, a pause, a metered network, polling.
fn schedule() -> Vec<String> {
    let mut story = Story::begin();
    let world = &mut story.world;
    world.device("Alice");
    world.run_until_quiet();
    for id in 1..=5 {
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('{id}', 'task {id}', 0)"),
        );
        world.feed("Alice", Input::Trigger(Reason::MutationEnqueued));
        world.pass(40);
        world.feed("Alice", Input::Tick);
    }
    world.settle("Alice");
    world.feed("Alice", Input::Pause);
    world.sql("Alice", "UPDATE task SET done = 1");
    world.sync("Alice");
    world.feed("Alice", Input::Resume);
    let metered = Constraints {
        metered: true,
        low_power: false,
    };
    world.feed("Alice", Input::Constraints(metered));
    world.sql("Alice", "UPDATE task SET done = 2");
    world.feed("Alice", Input::Trigger(Reason::MutationEnqueued));
    world.feed("Alice", Input::Constraints(Constraints::default()));
    for _ in 0..3 {
        world.pass(20_000);
        world.feed("Alice", Input::Tick);
    }
    world.feed("Alice", Input::Stop);
    story.end("Alice")
}

type Tale = fn() -> Vec<String>;

const STORIES: [(&str, Tale); 6] = [
    ("looking-first", looking_first),
    ("conflicts", conflicts),
    ("credentials", credentials),
    ("bad-network", bad_network),
    ("histories", histories),
    ("schedule", schedule),
];

/// The folder of regression traces, which the core's tests replay.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/traces")
}

/// Replays it to its end; how many inputs it has.
fn replay(name: &str, text: &str) -> u64 {
    let mut replay = Trace::read(text.as_bytes()).unwrap().replay();
    let mut inputs = 0;
    while let Some(step) = replay.step().unwrap() {
        assert!(step.is_same(), "{name}: {step:#?}");
        inputs = step.number;
    }
    inputs
}

#[test]
fn every_story_is_the_same_trace_every_time_and_replays() {
    for (name, story) in STORIES {
        let (first, second) = (story(), story());
        assert_eq!(first, second, "{name}");
        for (start, text) in first.iter().enumerate() {
            assert!(replay(name, text) > 0, "{name} is empty");
            for value in [
                "milk", "bread", "butter", "poison", "task 1", "somebody", "no token",
            ] {
                assert!(!text.contains(value), "{name}: {value} is in {text}");
            }
            if std::env::var_os("UPDATE_TRACES").is_some() {
                let file = folder().join(format!("{name}-{}.trace", start + 1));
                std::fs::write(file, text).unwrap();
            }
        }
    }
}

#[test]
fn values_are_there_when_they_are_asked_for_and_secrets_never() {
    let mut story = Story::begin();
    let world = &mut story.world;
    world.record(|| Recorder::new(Redactor::hiding([1; 32]).showing_values()));
    world.device("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk', 0)");
    world.run_until_quiet();
    let [text] = &story.end("Alice")[..] else {
        panic!("one start is one trace");
    };
    assert!(
        text.contains("milk") && !text.contains("somebody"),
        "{text}"
    );
    assert!(replay("shown", text) > 0);
}
