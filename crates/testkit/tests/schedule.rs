//! Stories of the schedule: policies, sparing a metered network, pausing.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::time::Duration;
use syncline::{Constraints, CycleEnd, Input, Live, Notice, Reason, State, SyncOrder};
use syncline_testkit::{Fault, World};

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

#[test]
fn somebody_who_types_for_a_minute_is_synced_soon_and_in_few_requests() {
    let mut world = world(SyncOrder::PushThenPull);
    let before = world.traffic("Alice");
    let (mut oldest, mut worst) = (None, 0);
    for key in 0..660 {
        let now = world.now().monotonic_ms;
        oldest.get_or_insert(now);
        world.sql("Alice", &format!("UPDATE task SET title = 'typed {key}'"));
        world.feed("Alice", Input::Trigger(Reason::MutationEnqueued));
        world.pass(90);
        world.feed("Alice", Input::Tick);
        if world.rows("Alice", "SELECT count(*) FROM syncline_outbox") == ["0"] {
            worst = worst.max(world.now().monotonic_ms - oldest.take().unwrap());
        }
    }
    let pushes = world.traffic("Alice").pushes - before.pushes;
    assert!((25..=31).contains(&pushes), "{pushes} pushes in a minute");
    assert!(worst <= 2_000 + 90, "the longest wait was {worst} ms");
    world.run_until_quiet();
    world.assert_converged();
}

const REASONS: [Reason; 12] = [
    Reason::AppStart,
    Reason::Foreground,
    Reason::NetworkAvailable,
    Reason::AuthRefreshed,
    Reason::UserAsked,
    Reason::Remediated,
    Reason::Pass,
    Reason::UrgentMutation,
    Reason::RemoteHint,
    Reason::Timer,
    Reason::MutationEnqueued,
    Reason::BackgroundMutation,
];

/// Alice and the server.
fn alone() -> World {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
    world.sync("Alice");
    world
}

/// Which reasons make Alice's engine ask something of the world at once.
fn heeded(prepare: impl Fn(&mut World)) -> Vec<Reason> {
    let asks = |reason: &Reason| {
        let mut world = alone();
        prepare(&mut world);
        let before = world.traffic("Alice").requests;
        world.feed("Alice", Input::Trigger(*reason));
        world.traffic("Alice").requests > before
    };
    REASONS.into_iter().filter(asks).collect()
}

#[test]
fn each_reason_is_heeded_where_it_should_be() {
    let idle = heeded(|_| {});
    assert_eq!(idle, REASONS[..10], "writes wait for more of them");
    let lost = |world: &mut World| {
        world.fault("Alice", Fault::LoseRequest);
        world.sync("Alice");
    };
    assert_eq!(
        heeded(lost),
        REASONS[..7],
        "a back-off is cut short by people and systems"
    );
    let told_to_wait = |world: &mut World| {
        let busy = Fault::Status(503, Some(Duration::from_secs(60)));
        world.fault("Alice", busy);
        world.sync("Alice");
    };
    assert_eq!(
        heeded(told_to_wait),
        [],
        "what the server asked for is kept"
    );
    let paused = |world: &mut World| world.feed("Alice", Input::Pause);
    assert_eq!(heeded(paused), []);
    let metered = |world: &mut World| {
        let metered = Constraints {
            metered: true,
            low_power: false,
        };
        world.feed("Alice", Input::Constraints(metered));
    };
    assert_eq!(heeded(metered), [Reason::UserAsked]);
    let with_urgent = |world: &mut World| {
        metered(world);
        world.sql(
            "Alice",
            "UPDATE task SET title = 'fire'; UPDATE syncline_outbox SET lane = 0",
        );
    };
    let urgent = [Reason::UserAsked, Reason::Pass, Reason::UrgentMutation];
    assert_eq!(heeded(with_urgent), urgent);
}

#[test]
fn polling_keeps_its_interval_with_jitter_and_is_rare_while_hints_are_heard() {
    let mut world = World::new(SCHEMA);
    // The renewal of the lease is no part of this story.
    world.configure(|config| config.lease_ttl_ms = 1_000_000_000);
    world.device("Alice");
    world.sync("Alice");
    let mut waits = Vec::new();
    for _ in 0..20 {
        let (at, _) = world.get("Alice").engine().next_wakeup().unwrap();
        let wait = at - world.now().monotonic_ms;
        waits.push(wait);
        world.pass(wait);
        let before = world.traffic("Alice").requests;
        world.feed("Alice", Input::Tick);
        assert_eq!(world.traffic("Alice").requests, before + 1, "one pull");
    }
    assert!(
        waits.iter().all(|wait| (12_000..=18_000).contains(wait)),
        "{waits:?}"
    );
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 10, "no two devices in step: {waits:?}");
    world.feed("Alice", Input::Live(Live::Heard));
    let wait = |world: &mut World| {
        let (at, _) = world.get("Alice").engine().next_wakeup().unwrap();
        at - world.now().monotonic_ms
    };
    let heard = wait(&mut world);
    assert!((17_280_000..=25_920_000).contains(&heard), "{heard}");
    world.feed("Alice", Input::Live(Live::Lost));
    let lost = wait(&mut world);
    assert!((15_000..=60_000).contains(&lost), "{lost}");
}
