//! Cancelling a key: it never takes effect, or one hears that it did.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use syncline_protocol::{Access, KeyOutcome, Outcome};
use syncline_server::{Storage, StorageError};

fn cancel<S: Storage>(server: &Server<S>, caller: &Caller, key: &str) -> (Outcome, bool) {
    let path = format!("/v1/mutations/{key}/cancel");
    let response = server.send(&server.request(caller, "POST", &path));
    assert_eq!(response.status, 200, "{}", text(&response));
    match serde_json::from_slice(&response.body).unwrap() {
        KeyOutcome::Final { result } => (result.outcome, result.duplicate),
        KeyOutcome::Unknown => panic!("a cancelled key is known"),
    }
}

#[test]
fn a_key_cancelled_before_it_arrives_never_takes_effect_whatever_it_carries() {
    let server = server();
    assert_eq!(cancel(&server, &ann(), "k1"), (Outcome::Cancelled, false));
    assert_eq!(cancel(&server, &ann(), "k1"), (Outcome::Cancelled, true));
    for late in [create("k1", "milk", "milk"), create("k1", "tea", "other")] {
        let result = server.push(&ann(), &[late]).remove(0);
        assert_eq!(
            (result.outcome, result.duplicate),
            (Outcome::Cancelled, true)
        );
    }
    let page = server.pull(&ann(), None, 10);
    assert_eq!((page.end.position, page.end.count), (0, 0));
    // What rests on it is not tried.
    let results = server.push(
        &ann(),
        &[
            create("k1", "milk", "milk"),
            update("k2", "milk", after("k1"), "x"),
        ],
    );
    assert_eq!(results[1].outcome, skipped("k1"));
    let response = server.get(&ann(), "/v1/mutations/k1");
    assert!(text(&response).contains("\"cancelled\""));
}

#[test]
fn a_key_that_has_an_outcome_keeps_it() {
    let server = server();
    let batch = [create("k/1", "milk", "1"), create("k2", "milk", "2")];
    let results = server.push(&ann(), &batch);
    let state = server.state(&ann());
    assert_eq!(cancel(&server, &ann(), "k%2F1"), (applied(1), true));
    let (outcome, duplicate) = cancel(&server, &ann(), "k2");
    assert_eq!((outcome, duplicate), (results[1].outcome.clone(), true));
    assert_eq!(server.state(&ann()), state);
}

#[test]
fn keys_of_others_cannot_be_cancelled() {
    let server = server();
    server.push(&ann(), &[]);
    let path = "/v1/mutations/k1/cancel";
    let bob = Caller::new("acme", "bob", PHONE);
    let response = server.send(&server.request(&bob, "POST", path));
    expect(&response, 403, "client-mismatch");
    for other in [
        Caller::new("acme", "bob", LAPTOP),
        Caller::new("other", "ann", PHONE),
    ] {
        assert_eq!(cancel(&server, &other, "k1"), (Outcome::Cancelled, false));
    }
    assert_eq!(
        server.push_one(&ann(), &create("k1", "milk", "1")),
        applied(1)
    );
    // Giving up what one recorded oneself needs no right to write.
    let reader = Caller {
        access: Access::Read,
        ..ann()
    };
    assert_eq!(cancel(&server, &reader, "k2"), (Outcome::Cancelled, false));
    for path in ["/v1/mutations/%00/cancel", "/v1/mutations/a%20b/cancel"] {
        let response = server.send(&server.request(&ann(), "POST", path));
        expect(&response, 400, "malformed");
    }
}

#[test]
fn a_storage_that_fails_has_not_cancelled() {
    let mut steps = 0;
    loop {
        let server = server();
        let error = StorageError::internal("planned");
        server.service.storage().fail_after(steps, error);
        let request = server.request(&ann(), "POST", "/v1/mutations/k1/cancel");
        let response = server.send(&request);
        if response.status == 200 {
            break;
        }
        expect(&response, 500, "internal");
        assert_eq!(
            server.push_one(&ann(), &create("k1", "milk", "1")),
            applied(1)
        );
        steps += 1;
    }
    assert_eq!(steps, 3);
}
