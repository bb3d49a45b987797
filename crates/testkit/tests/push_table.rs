//! The table of what becomes of a push, row by row: from what the server or the network does to
//! what becomes of the mutation, whether it counts, and when the engine comes back. How an HTTP
//! answer falls into one of these buckets is tested with the remote.
#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation is a failed test

use std::time::Duration;
use syncline::trace::{Recorder, Redactor, Trace};
use syncline::{Effect, Notice, RemoteError, RemoteRequest, State};
use syncline_protocol::{Access, Principal};
use syncline_server::{Identity, Now, issue_token};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)";

/// What the world's server knows its own tokens by.
const SECRET: &[u8] = b"a secret of exactly enough bytes";

/// A device that has greeted the server and then made `writes` writes, and a record of it all.
fn world(writes: u32) -> World {
    let mut world = World::new(SCHEMA);
    world.record(|| Recorder::new(Redactor::hiding([1; 32]).showing_values()));
    world.device("Alice");
    world.sync("Alice");
    for id in 0..writes {
        world.sql("Alice", &format!("INSERT INTO task VALUES ('t{id}', 'x')"));
    }
    world
}

fn attempts(world: &mut World) -> String {
    let sql = "SELECT coalesce(max(attempts), 0) FROM syncline_outbox";
    world.rows("Alice", sql).remove(0)
}

fn wait_ms(world: &mut World) -> u64 {
    let now = world.now().monotonic_ms;
    let (at, _) = world.get("Alice").engine().next_wakeup().unwrap();
    at.saturating_sub(now)
}

/// Whatever happens once to a push of several mutations: nothing counts, all go later.
#[test]
fn nothing_that_happens_to_a_whole_request_counts_against_its_mutations() {
    let after = |seconds| Some(Duration::from_secs(seconds));
    let rows = [
        (Fault::LoseRequest, 0, 500),
        (Fault::LoseAnswer, 0, 500),
        (Fault::Portal, 0, 500),
        (Fault::Status(408, None), 0, 500),
        (Fault::Status(425, None), 0, 500),
        (Fault::Status(500, None), 0, 500),
        (Fault::Status(502, None), 0, 500),
        (Fault::Status(504, None), 0, 500),
        (Fault::Status(503, None), 0, 500),
        (Fault::Status(503, after(60)), 60_000, 66_000),
        (Fault::Status(429, None), 0, 500),
        (Fault::Status(429, after(7_200)), 3_600_000, 3_960_000),
        (Fault::Status(404, None), 300_000, 300_000),
        (Fault::Status(405, None), 300_000, 300_000),
        (Fault::Status(403, None), 300_000, 300_000),
        (Fault::Status(415, None), 300_000, 300_000),
        (Fault::Status(426, None), 300_000, 300_000),
        (Fault::Status(410, None), 0, 500),
    ];
    for (fault, least, most) in rows {
        let mut world = world(3);
        world.fault("Alice", fault.clone());
        world.sync("Alice");
        let status = world.status("Alice");
        assert_eq!(
            world.get("Alice").engine().state(),
            State::Backoff,
            "{fault:?}"
        );
        assert_eq!(status.outbox["pending"], 3, "{fault:?}");
        assert_eq!(attempts(&mut world), "0", "{fault:?}");
        // The lease is renewed meanwhile; the wait itself is what counts.
        let mut waited = 0;
        while world.get("Alice").engine().state() == State::Backoff {
            let step = wait_ms(&mut world);
            waited += step;
            world.pass(step);
            world.feed("Alice", syncline::Input::Tick);
        }
        assert!((least..=most).contains(&waited), "{fault:?}: {waited} ms");
        world.run_until_quiet();
        world.assert_equals_server("Alice");
        assert_eq!(world.on_server("task").len(), 3, "{fault:?}");
    }
}

#[test]
fn refused_credentials_are_renewed_once_and_the_same_bytes_go_again() {
    let mut world = world(3);
    world.expire_token_after("Alice", 0);
    world.sync("Alice");
    assert_eq!(world.on_server("task").len(), 3);
    assert_eq!(attempts(&mut world), "0");
    let asked = asked(&mut world);
    let renewals = asked
        .iter()
        .filter(|one| **one == Effect::RefreshCredentials);
    assert_eq!(renewals.count(), 1);
    let pushes: Vec<Vec<&str>> = asked.iter().filter_map(pushed).collect();
    assert_eq!(pushes.len(), 2, "refused and taken");
    assert_eq!(pushes[0].len(), 3);
    assert_eq!(pushes[0], pushes[1]);
}

/// Everything that Alice's machine asked for.
fn asked(world: &mut World) -> Vec<Effect> {
    let trace = world.traces("Alice").concat();
    let mut replay = Trace::read(trace.as_bytes()).unwrap().replay();
    let mut asked = Vec::new();
    while let Some(step) = replay.step().unwrap() {
        asked.extend(step.effects);
    }
    asked
}

/// The mutations of a push, byte for byte.
fn pushed(effect: &Effect) -> Option<Vec<&str>> {
    let Effect::Remote(_, RemoteRequest::Push { batch, .. }) = effect else {
        return None;
    };
    let frozen = batch.entries.iter().map(|entry| entry.frozen.as_str());
    Some(frozen.collect())
}

/// A 403 to the request as a whole is nobody's fault; here each mutation has its own no.
#[test]
fn a_renewed_token_that_may_only_read_fails_every_mutation_and_no_pull() {
    let mut world = world(3);
    world.device("Bob");
    world.sql("Bob", "INSERT INTO task VALUES ('b', 'before')");
    world.sync("Bob");
    world.expire_token_after("Alice", 0);
    let reading = reading(&world);
    world.use_token("Alice", reading);
    world.sync("Alice");
    let codes =
        "SELECT DISTINCT state || ' ' || json_extract(last_error, '$.code') FROM syncline_outbox";
    assert_eq!(world.rows("Alice", codes), ["failed forbidden"]);
    assert_eq!(world.status("Alice").outbox["failed"], 3);
    let pushes = world.traffic("Alice").pushes;
    world.sql("Bob", "INSERT INTO task VALUES ('c', 'after')");
    world.run_until_quiet();
    let pulled = "SELECT title FROM task WHERE id IN ('b', 'c') ORDER BY id";
    assert_eq!(world.rows("Alice", pulled), ["before", "after"]);
    assert_eq!(world.traffic("Alice").pushes, pushes, "a no is final");
    assert_eq!(world.on_server("task").len(), 2);
}

/// A token of the same person's that may not write.
fn reading(world: &World) -> String {
    let principal = Principal {
        tenant: "default".to_owned(),
        subject: "somebody".to_owned(),
    };
    let identity = Identity {
        principal,
        access: Access::Read,
    };
    let now = Now::from_unix_ms(world.now().unix_ms);
    issue_token(SECRET, &identity, now, 31_000_000).unwrap()
}

#[test]
fn a_batch_that_is_too_large_is_halved_and_only_what_is_too_large_alone_fails() {
    let mut world = world(4);
    world.fault("Alice", Fault::Status(413, None));
    world.fault("Alice", Fault::Status(413, None));
    world.fault("Alice", Fault::Status(413, None));
    world.run_until_quiet();
    let status = world.status("Alice");
    assert_eq!((status.outbox["failed"], status.outbox["pending"]), (1, 0));
    assert_eq!(world.on_server("task").len(), 3);
    let code = "SELECT json_extract(last_error, '$.code') FROM syncline_outbox";
    assert_eq!(world.rows("Alice", code), ["too-large"]);
}

/// A write that the server has taken, though it was not heard; sent again, it meets somebody on the way
/// who finds it too large.
fn taken_and_then_too_large() -> World {
    let mut world = world(1);
    world.fault("Alice", Fault::LoseAnswer);
    world.sync("Alice");
    assert_eq!(world.on_server("task").len(), 1);
    world.too_large("Alice", Some("t0"));
    world.run_until_quiet();
    world.too_large("Alice", None);
    world
}

fn seq(world: &mut World) -> i64 {
    let sql = "SELECT max(seq) FROM syncline_outbox";
    world.rows("Alice", sql)[0].parse().unwrap()
}

/// E1: what may have taken effect keeps its key, and a person who has it sent again doubles nothing.
#[test]
fn what_may_have_been_done_keeps_its_key_when_it_is_found_too_large() {
    let mut world = taken_and_then_too_large();
    let status = world.status("Alice");
    assert_eq!((status.outbox["dead"], status.outbox["failed"]), (1, 0));
    let sql = "SELECT (mutation = idempotency_key) || '|' || json_extract(last_error, '$.code') FROM syncline_outbox";
    assert_eq!(world.rows("Alice", sql), ["1|too-large"]);
    let (seq, now) = (seq(&mut world), world.now());
    world.get("Alice").engine().store().retry(seq, now).unwrap();
    world.run_until_quiet();
    world.assert_equals_server("Alice");
    let sql = "SELECT kind || '|' || json_extract(detail, '$.duplicate') FROM syncline_log ORDER BY id DESC LIMIT 1";
    assert_eq!(world.rows("Alice", sql), ["applied|1"]);
}

/// E5: neither is it given up before the server has said what became of its key.
#[test]
fn what_may_have_been_done_is_asked_about_before_it_is_given_up() {
    let mut world = taken_and_then_too_large();
    let (seq, now) = (seq(&mut world), world.now());
    let discarded = world
        .get("Alice")
        .engine()
        .store()
        .discard(seq, now)
        .unwrap();
    assert_eq!(discarded.cancelling, [seq]);
    world.run_until_quiet();
    world.assert_equals_server("Alice");
    assert_eq!(world.on_server("task").len(), 1, "it was done before");
    let told = |notice: &Notice| matches!(notice, Notice::CancelledTooLate { .. });
    assert!(world.get("Alice").notices.iter().any(told));
}

/// Only what was in no request before is known not to have been done.
#[test]
fn what_every_request_was_too_large_for_is_refused_and_can_be_edited() {
    let mut world = world(2);
    world.too_large("Alice", Some("t"));
    world.run_until_quiet();
    let status = world.status("Alice");
    assert_eq!((status.outbox["failed"], status.outbox["dead"]), (2, 0));
    let sql = "SELECT count(*) FROM syncline_outbox WHERE frozen IS NULL";
    assert_eq!(world.rows("Alice", sql), ["2"]);
}

#[test]
fn waits_grow_and_the_budget_of_retries_bounds_them_all() {
    let mut world = World::new(SCHEMA);
    world.configure(|config| config.retry_budget = 40);
    world.device("Alice");
    world.offline("Alice");
    for round in 0..6 {
        world.sync("Alice");
        let wait = wait_ms(&mut world);
        let bound = 500 << round;
        match round {
            0..=3 => assert!(wait <= bound, "round {round}: {wait} ms"),
            // The lease was never taken away, so the back-off is what is waited for.
            _ => {
                let delay = world
                    .get("Alice")
                    .notices
                    .iter()
                    .rev()
                    .find_map(delay)
                    .unwrap();
                assert_eq!(delay, 300_000, "the budget is used up");
            }
        }
    }
}

fn delay(notice: &Notice) -> Option<u64> {
    match notice {
        Notice::BackingOff { delay_ms, error } => {
            assert!(matches!(error, RemoteError::Unreachable { .. }), "{error}");
            Some(*delay_ms)
        }
        _ => None,
    }
}
