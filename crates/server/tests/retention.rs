//! What is forgotten, and that nothing happens twice or comes back for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use syncline_protocol::{Hello, KeyOutcome, Outcome};
use syncline_server::{
    MemoryStorage, Purged, ServerConfig, Storage, StorageError, purge, rotate_epoch,
};

const DAY_MS: i64 = 86_400_000;

/// A UUID of version 7 with this time.
fn uuid(ms: i64) -> String {
    let digits = format!("{ms:012x}");
    format!("{}-{}-7000-8000-{ms:012}", &digits[..8], &digits[8..])
}

fn forget<S: Storage>(server: &Server<S>) -> Purged {
    let service = &server.service;
    purge(service.storage(), service.config(), server.now()).unwrap()
}

fn pass_days<S>(server: &Server<S>, days: i64) {
    server.now_ms.set(server.now_ms.get() + days * DAY_MS);
}

fn horizon<S: Storage>(server: &Server<S>) -> i64 {
    let hello = server.get(&ann(), "/v1/hello");
    let hello: Hello = serde_json::from_slice(&hello.body).unwrap();
    hello.scopes[0].horizon
}

#[test]
fn a_key_past_its_retention_is_expired_and_never_executed() {
    let server = server();
    let batch = [create(&uuid(1000), "a", "a"), create(&uuid(2000), "b", "b")];
    server.push(&ann(), &batch);
    pass_days(&server, 89);
    assert_eq!(forget(&server), Purged::default());
    let young = create(&uuid(3000), "c", "c");
    server.push(&ann(), std::slice::from_ref(&young));
    pass_days(&server, 2);
    assert_eq!(forget(&server).keys, 2);
    assert_eq!(forget(&server).keys, 0);
    let state = server.state(&ann());
    // Forgotten, and never seen but not later than the forgotten ones: nobody knows.
    for (ms, id) in [(1000, "a"), (2000, "z"), (1500, "z"), (0, "z")] {
        let result = server.push(&ann(), &[create(&uuid(ms), id, "z")]).remove(0);
        assert_eq!(
            (result.outcome, result.duplicate),
            (Outcome::Expired, false)
        );
        let path = format!("/v1/mutations/{}", uuid(ms));
        for request in [
            server.request(&ann(), "GET", &path),
            server.request(&ann(), "POST", &format!("{path}/cancel")),
        ] {
            let response = server.send(&request);
            let answer: KeyOutcome = serde_json::from_slice(&response.body).unwrap();
            let KeyOutcome::Final { result } = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(result.outcome, Outcome::Expired);
        }
    }
    let results = server.push(
        &ann(),
        &[
            create(&uuid(1000), "q", "q"),
            update("after", "q", after(&uuid(1000)), "r"),
        ],
    );
    assert_eq!(results[1].outcome, skipped(&uuid(1000)));
    assert_eq!(server.state(&ann()), state);
    // What is kept is repeated; what is later is new; other clients have other keys.
    assert!(server.push(&ann(), &[young]).remove(0).duplicate);
    assert_eq!(
        server.push_one(&ann(), &create(&uuid(2001), "d", "d")),
        applied(4)
    );
    let laptop = Caller::new("acme", "ann", LAPTOP);
    assert_eq!(
        server.push_one(&laptop, &create(&uuid(1000), "e", "e")),
        applied(5)
    );
    assert_eq!(
        server.push_one(&ann(), &create("word", "f", "f")),
        applied(6)
    );
}

#[test]
fn forgetting_that_fails_has_forgotten_nothing() {
    let mut steps = 0;
    loop {
        let server = server();
        server.push(&ann(), &[create(&uuid(1000), "a", "a")]);
        pass_days(&server, 91);
        let storage = server.service.storage();
        storage.fail_after(steps, StorageError::internal("planned"));
        let done = purge(storage, server.service.config(), server.now());
        if done.is_ok() {
            break;
        }
        let again = server
            .push(&ann(), &[create(&uuid(1000), "a", "a")])
            .remove(0);
        match again.outcome {
            Outcome::Expired => {}
            outcome => assert_eq!((outcome, again.duplicate), (applied(1), true)),
        }
        steps += 1;
    }
    assert!(steps > 1);
}

#[test]
fn tombstones_go_with_the_horizon_and_old_cursors_with_them() {
    let server = server();
    server.push(&ann(), &[create("k1", "a", "a"), create("k2", "b", "b")]);
    let old = server.pull(&ann(), None, 10).end.cursor;
    server.push(&ann(), &[delete("k3", "a", version(1))]);
    let after_delete = server.pull(&ann(), Some(&old), 10).end.cursor;
    forget(&server);
    pass_days(&server, 89);
    server.push(&ann(), &[delete("k4", "b", version(2))]);
    forget(&server);
    assert_eq!(horizon(&server), 0);
    assert_eq!(server.pull(&ann(), Some(&old), 10).end.count, 2);
    pass_days(&server, 2);
    assert_eq!(forget(&server).scopes, 1);
    assert_eq!(horizon(&server), 3);
    let response = server.get(&ann(), &format!("/v1/pull?cursor={old}"));
    expect(&response, 410, "cursor-expired");
    let page = server.pull(&ann(), Some(&after_delete), 10);
    assert_eq!(page.ids(), ["b"], "the younger tombstone is kept");
    assert_eq!(forget(&server).scopes, 0);
    pass_days(&server, 90);
    assert_eq!(forget(&server).scopes, 1);
    assert_eq!(horizon(&server), 4);
    assert_eq!(server.pull(&ann(), None, 10).end.count, 0);
}

#[test]
fn a_feed_that_ends_before_a_cursor_begins_anew() {
    let server = server();
    server.push(&ann(), &[create("k1", "a", "a"), create("k2", "b", "b")]);
    let cursor = server.pull(&ann(), None, 10).end.cursor;
    // The same database from a backup, as it was before.
    let restored = Server::new(MemoryStorage::new(EPOCH), ServerConfig::default());
    restored.push(&ann(), &[create("k1", "a", "a")]);
    let target = format!("/v1/pull?cursor={cursor}");
    expect(&restored.get(&ann(), &target), 410, "rewound");
    let epoch = || restored.service.storage().read(|tx| tx.epoch()).unwrap();
    let fresh = epoch();
    assert_ne!(fresh.as_str(), EPOCH);
    expect(&restored.get(&ann(), &target), 410, "epoch-changed");
    assert_eq!(epoch(), fresh, "once");
    // Bases of the lost history hold for nothing; keys are still known.
    let stale = restored.push_one(&ann(), &update("k3", "a", version(1), "x"));
    assert!(matches!(stale, Outcome::Conflict { .. }));
    assert!(
        restored
            .push(&ann(), &[create("k1", "a", "a")])
            .remove(0)
            .duplicate
    );
    // Another's cursor, or one that nobody made, starts nothing.
    let bob = Caller::new("other", "bob", PHONE);
    expect(&restored.get(&bob, &target), 403, "cursor-foreign");
    let next = rotate_epoch(restored.service.storage(), restored.now()).unwrap();
    assert_eq!(epoch(), next);
    assert_ne!(next, fresh);
}
