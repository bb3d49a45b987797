//! Stories of clocks that jump ten years either way: nothing changes but labels.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::time::Duration;
use syncline::{Config, Engine, Input, Notice, Outgoing, Reason, State, Store, StoreOptions};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT);
    CREATE TABLE step (id INTEGER PRIMARY KEY, what TEXT);";

/// For so long a replaced id can be looked up.
const MONTH_MS: u64 = 30 * 24 * 3_600_000;

const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 3_600_000;

/// The same story with the clock set forwards, back, and not at all.
fn each(story: impl Fn(&mut World, i64)) {
    for by_ms in [TEN_YEARS_MS, -TEN_YEARS_MS, 0] {
        let mut world = World::new(SCHEMA);
        world.device("Alice");
        world.sync("Alice");
        story(&mut world, by_ms);
    }
}

/// Lets time pass to the next deadline and says how long that was.
fn to_wakeup(world: &mut World) -> u64 {
    let now = world.now().monotonic_ms;
    let (at, _) = world.get("Alice").engine().next_wakeup().unwrap();
    let wait = at.saturating_sub(now);
    world.pass(wait);
    world.feed("Alice", Input::Tick);
    wait
}

#[test]
fn a_wait_that_the_server_asked_for_is_as_long_as_it_was() {
    each(|world, by_ms| {
        world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
        let busy = Fault::Status(503, Some(Duration::from_secs(60)));
        world.fault("Alice", busy);
        let begun = world.now().monotonic_ms;
        world.sync("Alice");
        let before = world.traffic("Alice");
        world.set_clocks(by_ms);
        for reason in [Reason::MutationEnqueued, Reason::UserAsked, Reason::Timer] {
            world.feed("Alice", Input::Trigger(reason));
            world.pass(1_000);
            world.feed("Alice", Input::Tick);
        }
        assert_eq!(world.traffic("Alice"), before);
        while world.get("Alice").engine().state() == State::Backoff {
            to_wakeup(world);
        }
        let waited = world.now().monotonic_ms - begun;
        assert!((60_000..=66_100).contains(&waited), "{waited}");
        world.run_until_quiet();
        world.assert_converged();
    });
}

#[test]
fn a_mutation_that_was_put_off_is_due_when_it_was() {
    each(|world, by_ms| {
        world.poison("Alice", "spoils");
        world.sql(
            "Alice",
            "INSERT INTO task VALUES ('a', 'spoils'); INSERT INTO task VALUES ('b', 'free')",
        );
        world.sync("Alice");
        let failed = "SELECT attempts FROM syncline_outbox WHERE entity_id = 'a'";
        while world.rows("Alice", failed) == ["0"] {
            to_wakeup(world);
        }
        let due = "SELECT not_before FROM syncline_outbox WHERE entity_id = 'a'";
        let due: i64 = world.rows("Alice", due)[0].parse().unwrap();
        let wait = u64::try_from(due - world.now().unix_ms).unwrap();
        assert!(wait > 1, "it is put off");
        let before = world.batches("Alice").len();
        world.heal("Alice");
        world.set_clocks(by_ms);
        world.pass(wait - 1);
        world.sync("Alice");
        assert_eq!(world.batches("Alice").len(), before, "not a moment sooner");
        world.pass(1);
        world.sync("Alice");
        assert_eq!(world.batches("Alice").len(), before + 1, "nor later");
        assert_eq!(world.on_server("task").len(), 2);
    });
}

#[test]
fn nothing_that_is_remembered_is_old_because_of_the_clock() {
    each(|world, by_ms| {
        let kept = |world: &mut World| {
            let count = |table| format!("SELECT count(*) FROM syncline_{table}");
            let tables = ["journal", "log"];
            tables.map(|table| world.rows("Alice", &count(table))[0].clone())
        };
        world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
        world.sync("Alice");
        world.set_clocks(by_ms);
        world.sql("Alice", "INSERT INTO task VALUES ('2', 'tea')");
        world.sync("Alice");
        assert_eq!(kept(world), ["2", "2"]);
        // Also for an engine that knows of no other time.
        world.crash("Alice");
        world.restart("Alice");
        world.sql("Alice", "INSERT INTO task VALUES ('3', 'soap')");
        world.sync("Alice");
        assert_eq!(kept(world), ["3", "3"]);
        // And when the clock is right again.
        world.set_clocks(-by_ms);
        world.sql("Alice", "INSERT INTO task VALUES ('4', 'salt')");
        world.sync("Alice");
        assert_eq!(kept(world)[0], "4", "what a restored server may have lost");
        world.assert_equals_server("Alice");
    });
}

/// Both devices choose the same id offline, and Bob's row gives way to Alice's when he pulls that: the id that it had.
fn collide(world: &mut World) -> String {
    world.run_until_quiet();
    for who in ["Alice", "Bob"] {
        world.sql(who, &format!("INSERT INTO step (what) VALUES ('{who}')"));
    }
    let old = world.rows("Bob", "SELECT max(id) FROM step").remove(0);
    world.sync("Alice");
    world.pull_only("Bob");
    old
}

/// Which of these ids lead to others yet.
fn led(world: &mut World, old: &[String]) -> Vec<bool> {
    let is_led = |id: &String| world.current_id("Bob", "step", id) != *id;
    old.iter().map(is_led).collect()
}

#[test]
fn an_id_that_was_replaced_leads_to_the_new_one_whatever_the_clock_says() {
    each(|world, by_ms| {
        world.device("Bob");
        let mut old = vec![collide(world)];
        world.set_clocks(by_ms);
        old.push(collide(world));
        assert_eq!(led(world, &old), [true; 2]);
        // And when the clock is right again: what was noted under the other one is as old as that.
        world.set_clocks(-by_ms);
        old.push(collide(world));
        assert_eq!(led(world, &old), [true; 3]);
        world.pass(MONTH_MS - 600_000);
        old.push(collide(world));
        assert_eq!(led(world, &old)[1..], [true; 3]);
        world.pass(600_001);
        old.push(collide(world));
        assert_eq!(led(world, &old), [false, false, false, true, true]);
        world.run_until_quiet();
        world.assert_converged();
    });
}

#[test]
fn an_engine_that_stands_by_waits_as_long_as_before() {
    each(|world, by_ms| {
        let options = StoreOptions::new("another process", 99);
        let store = Store::open(&world.path("Alice"), options).unwrap();
        let mut second = Engine::new(store, Config::default(), 99).unwrap();
        let ask = Input::Trigger(Reason::UserAsked);
        let out = second.handle(ask.clone(), world.now());
        assert!(out.contains(&Outgoing::Notice(Notice::Standby)), "{out:?}");
        let (at, _) = second.next_wakeup().unwrap();
        let wait = at - world.now().monotonic_ms;
        assert!(wait <= 60_001, "{wait}");
        world.set_clocks(by_ms);
        world.pass(wait - 2);
        second.handle(Input::Tick, world.now());
        second.handle(ask, world.now());
        assert_eq!(second.state(), State::Backoff);
        world.pass(2);
        second.handle(Input::Tick, world.now());
        assert_eq!(second.state(), State::Connecting, "it has taken over");
    });
}

/// Nobody takes a lease for longer than the time that leases last: one that ends later was written under
/// another clock, and its holder cannot be waited for.
#[test]
fn a_lease_from_a_clock_that_was_ahead_counts_as_expired_and_a_live_one_does_not() {
    let lasts = i64::try_from(Config::default().lease_ttl_ms).unwrap();
    for (ends_in_ms, counts) in [
        (TEN_YEARS_MS, false),
        (lasts + 1, false),
        (lasts, true),
        (1, true),
        (0, false),
        (-TEN_YEARS_MS, false),
    ] {
        let mut world = World::new(SCHEMA);
        world.device("Alice");
        world.sync("Alice");
        let until = world.now().unix_ms + ends_in_ms;
        world.sql(
            "Alice",
            &format!(
                "UPDATE syncline_lease SET holder = 'another process', token = 7, until = {until}"
            ),
        );
        let options = StoreOptions::new("this process", 99);
        let store = Store::open(&world.path("Alice"), options).unwrap();
        let mut engine = Engine::new(store, Config::default(), 99).unwrap();
        let out = engine.handle(Input::Trigger(Reason::UserAsked), world.now());
        let told = out.contains(&Outgoing::Notice(Notice::Standby));
        let lease = world.rows("Alice", "SELECT holder || ' ' || token FROM syncline_lease");
        let holder = match counts {
            true => "another process 7",
            false => "this process 8",
        };
        assert_eq!((told, lease[0].as_str()), (counts, holder), "{ends_in_ms}");
    }
}

#[test]
fn polling_and_the_debounce_go_on_as_ever() {
    each(|world, by_ms| {
        let (poll, _) = world.get("Alice").engine().next_wakeup().unwrap();
        world.set_clocks(by_ms);
        assert_eq!(world.get("Alice").engine().next_wakeup().unwrap().0, poll);
        world.sql("Alice", "INSERT INTO task VALUES ('1', 'milk')");
        world.feed("Alice", Input::Trigger(Reason::MutationEnqueued));
        assert_eq!(to_wakeup(world), 100);
        assert_eq!(world.on_server("task").len(), 1);
    });
}

#[test]
fn what_the_servers_clock_decides_is_decided_by_it_whatever_the_device_shows() {
    each(|world, by_ms| {
        let ahead = "SELECT value FROM syncline_meta WHERE key = 'server_clock_ms'";
        assert_eq!(world.rows("Alice", ahead), ["0"]);
        world.set_clocks(by_ms);
        world.sync("Alice");
        assert_eq!(world.rows("Alice", ahead), [(-by_ms).to_string()]);
    });
}
