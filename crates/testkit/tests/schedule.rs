//! Stories of the schedule: policies, sparing a metered network, pausing.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline::{Constraints, CycleEnd, Input, Notice, Reason, State, SyncOrder};
use syncline_testkit::World;

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)";

/// Two devices that both have a task; whichever is made later goes by this policy.
fn world(policy: SyncOrder) -> World {
    let mut world = World::new(SCHEMA);
    world.device("Bob");
    world.sql("Bob", "INSERT INTO task VALUES ('1', 'milk')");
    world.run_until_quiet();
    world.configure(|config| config.order = policy);
    world.device("Alice");
    world.run_until_quiet();
    world
}

fn titles(world: &mut World, name: &str) -> Vec<String> {
    world.rows(name, "SELECT id || title FROM task ORDER BY id")
}

#[test]
fn pull_then_push_meets_a_conflict_here_rather_than_at_the_server() {
    let mut world = world(SyncOrder::PullThenPush);
    world.offline("Alice");
    world.sql("Alice", "UPDATE task SET title = 'oat milk'");
    world.sql("Bob", "UPDATE task SET title = 'tea'");
    world.sync("Bob");
    let before = world.batches("Alice").len();
    world.online("Alice");
    let after = world.batches("Alice").len();
    assert_eq!(after - before, 1, "one push, and it went through");
    world.run_until_quiet();
    assert_eq!(titles(&mut world, "Bob"), ["1oat milk"]);
    world.assert_converged();
}

#[test]
fn pull_only_keeps_writes_and_push_only_takes_nothing() {
    for (policy, alice, bob) in [
        (
            SyncOrder::PullOnly,
            ["1milk", "2a", "3b"].as_slice(),
            ["1milk", "3b"].as_slice(),
        ),
        (
            SyncOrder::PushOnly,
            &["1milk", "2a"],
            &["1milk", "2a", "3b"],
        ),
    ] {
        let mut world = world(SyncOrder::PushThenPull);
        world.configure(|config| config.order = policy);
        world.crash("Alice");
        world.restart("Alice");
        world.sql("Alice", "INSERT INTO task VALUES ('2', 'a')");
        world.sql("Bob", "INSERT INTO task VALUES ('3', 'b')");
        for name in ["Bob", "Alice", "Bob"] {
            world.sync(name);
        }
        assert_eq!(titles(&mut world, "Alice"), alice, "{policy:?}");
        assert_eq!(titles(&mut world, "Bob"), bob, "{policy:?}");
    }
}

#[test]
fn on_a_metered_network_only_urgent_mutations_travel_unless_a_person_asks() {
    let mut world = world(SyncOrder::PushThenPull);
    let metered = Constraints {
        metered: true,
        low_power: false,
    };
    world.feed("Alice", Input::Constraints(metered));
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('2', 'later');
         INSERT INTO task VALUES ('x', 'fire');
         UPDATE syncline_outbox SET lane = 0 WHERE entity_id = 'x'",
    );
    world.sql("Bob", "INSERT INTO task VALUES ('4', 'new')");
    world.sync("Bob");
    let before = world.traffic("Alice");
    for reason in [Reason::MutationEnqueued, Reason::RemoteHint, Reason::Timer] {
        world.feed("Alice", Input::Trigger(reason));
        world.pass(20_000);
        world.feed("Alice", Input::Tick);
    }
    assert_eq!(world.traffic("Alice"), before, "nothing travels");
    world.feed("Alice", Input::Trigger(Reason::UrgentMutation));
    world.sync("Bob");
    assert_eq!(titles(&mut world, "Bob"), ["1milk", "4new", "xfire"]);
    assert_eq!(titles(&mut world, "Alice"), ["1milk", "2later", "xfire"]);
    world.sync("Alice");
    assert_eq!(titles(&mut world, "Alice").len(), 4, "a person asked");
    world.sql("Alice", "INSERT INTO task VALUES ('5', 'last')");
    world.feed("Alice", Input::Constraints(Constraints::default()));
    world.sync("Bob");
    assert_eq!(titles(&mut world, "Bob").len(), 5);
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn a_pause_in_the_middle_of_a_push_loses_and_doubles_nothing() {
    let mut world = world(SyncOrder::PushThenPull);
    world.sql("Alice", "INSERT INTO task VALUES ('2', 'tea')");
    world.hold_push("Alice");
    world.feed("Alice", Input::Pause);
    assert_eq!(world.get("Alice").engine().state(), State::Paused);
    world.sql(
        "Alice",
        "UPDATE task SET title = 'green tea' WHERE id = '2'",
    );
    // The server did it; the answer comes when nobody waits for it any more.
    world.release("Alice");
    let before = world.traffic("Alice");
    world.get("Alice").notices.clear();
    world.sync("Alice");
    world.feed("Alice", Input::Trigger(Reason::MutationEnqueued));
    world.pass(600_000);
    world.feed("Alice", Input::Tick);
    assert_eq!(
        world.traffic("Alice"),
        before,
        "nothing is asked of the world"
    );
    let ends = [Notice::CycleEnded(CycleEnd::Paused)];
    assert!(
        world.get("Alice").notices.ends_with(&ends),
        "whoever asks is told"
    );
    world.feed("Alice", Input::Resume);
    world.run_until_quiet();
    assert_eq!(titles(&mut world, "Bob"), ["1milk", "2green tea"]);
    world.assert_converged();
}
