//! Groups take effect all or none, and what was coalesced is known by all its names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use serde_json::json;
use syncline_protocol::{ConflictReason, Mutation, Outcome, PushRequest, PushResult};
use syncline_server::{MemoryStorage, StorageError};

fn grouped(mutations: &[Mutation], groups: &[&[&str]]) -> PushRequest {
    let keys = |group: &&[&str]| group.iter().map(|key| (*key).into()).collect();
    PushRequest {
        groups: groups.iter().map(keys).collect(),
        ..whole(&ann(), mutations)
    }
}

fn push(
    server: &Server<MemoryStorage>,
    mutations: &[Mutation],
    groups: &[&[&str]],
) -> Vec<PushResult> {
    let push = grouped(mutations, groups);
    server.push_whole(&push, &ann()).results
}

#[test]
fn a_group_applies_whole_and_is_repeated_whole() {
    let server = server();
    let batch = [
        create("k1", "a", "a"),
        create("k2", "b", "b"),
        update("k3", "a", after("k1"), "c"),
    ];
    let first = push(&server, &batch, &[&["k1", "k2", "k3"]]);
    assert_eq!(first[2].outcome, applied(3));
    let again = push(&server, &batch, &[&["k1", "k2", "k3"]]);
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((&again.outcome, again.duplicate), (&first.outcome, true));
    }
}

#[test]
fn one_member_that_fails_takes_the_whole_group_along_and_nothing_else() {
    let server = server();
    server.push(&ann(), &[create("k0", "taken", "taken")]);
    let batch = [
        create("a1", "free", "free"),
        create("g1", "one", "one"),
        update("g2", "one", after("g1"), "two"),
        create("g3", "taken", "no"),
        create("g4", "four", "four"),
        create("a2", "other", "other"),
        update("a3", "one", after("g1"), "x"),
    ];
    let groups: &[&[&str]] = &[&["g1", "g2", "g3", "g4"]];
    let results = push(&server, &batch, groups);
    assert_eq!(results[0].outcome, applied(2));
    for nth in [1, 2, 4] {
        assert_eq!(results[nth].outcome, skipped("g3"), "{nth}");
    }
    let found = (ConflictReason::Exists, Some((1, Some("taken".to_owned()))));
    assert_eq!(conflict(&results[3].outcome), found);
    assert_eq!(results[5].outcome, applied(3), "numbered without a gap");
    assert_eq!(results[6].outcome, skipped("g3"), "it rests on the group");
    assert_eq!(
        server.pull(&ann(), None, 10).ids(),
        ["free", "other", "taken"]
    );
    // Sent again: only the failing member has a record, and it still holds the group up.
    let again = push(&server, &batch, groups);
    assert!(again[3].duplicate);
    assert_eq!(again[1].outcome, skipped("g3"));
    // Without it the others were never tried.
    let rest = [create("g1", "one", "one"), create("g4", "four", "four")];
    let alone = push(&server, &rest, &[&["g1", "g4"]]);
    assert!(alone.iter().all(|one| !one.duplicate));
    assert_eq!(alone[1].outcome, applied(5));
}

#[test]
fn what_is_planned_beside_a_failed_group_does_not_rest_on_it() {
    let server = server();
    // The create of `x` outside would be in conflict with the group's, were that to stay.
    let batch = [
        create("g1", "x", "group"),
        create("a1", "x", "alone"),
        update("g2", "never", at(0), "no"),
    ];
    let results = push(&server, &batch, &[&["g1", "g2"]]);
    assert_eq!(results[0].outcome, skipped("g2"));
    assert_eq!(conflict(&results[2].outcome).0, ConflictReason::Missing);
    assert_eq!(results[1].outcome, skipped("g2"), "the entity waits");
    // Two groups, one after the other on one entity: the first fails, the second does not.
    let batch = [
        create("h1", "y", "first"),
        update("h2", "absent", at(0), "no"),
        create("i1", "z", "second"),
        create("i2", "w", "second"),
    ];
    let results = push(&server, &batch, &[&["h1", "h2"], &["i1", "i2"]]);
    assert_eq!(results[0].outcome, skipped("h2"));
    assert_eq!(results[2].outcome, applied(1));
    assert_eq!(results[3].outcome, applied(2));
    // A group in conflict with itself can never apply, and says so for ever.
    let batch = [create("j1", "twice", "1"), create("j2", "twice", "2")];
    for duplicate in [false, true] {
        let results = push(&server, &batch, &[&["j1", "j2"]]);
        assert_eq!(rejected(&results[1].outcome), "group");
        assert_eq!(results[1].duplicate, duplicate);
        assert_eq!(results[0].outcome, skipped("j2"));
    }
}

#[test]
fn interleaved_groups_end() {
    let server = server();
    let mut batch = Vec::new();
    let mut groups: Vec<Vec<String>> = Vec::new();
    for group in 0..100 {
        batch.push(create(&format!("a{group}"), &format!("id{group}"), "x"));
        groups.push(vec![format!("a{group}"), format!("b{group}")]);
    }
    for group in (0..100).rev() {
        batch.push(update(
            &format!("b{group}"),
            &format!("no{group}"),
            at(0),
            "x",
        ));
    }
    let request = PushRequest {
        groups: groups
            .iter()
            .map(|keys| keys.iter().map(|key| key.as_str().into()).collect())
            .collect(),
        ..whole(&ann(), &batch)
    };
    let results = server.push_whole(&request, &ann()).results;
    assert!(results[..100].iter().all(|one| !one.outcome.is_final()));
    assert!(results[100..].iter().all(|one| one.outcome.is_final()));
    assert_eq!(server.pull(&ann(), None, 10).end.position, 0);
}

#[test]
fn groups_that_cannot_be_meant() {
    let server = server();
    let batch = json!([create("k1", "a", "a"), create("k2", "b", "b")]);
    for groups in [
        json!([["k1", "k9"]]),
        json!([["k1"], ["k2", "k1"]]),
        json!([["k1", "k1"]]),
        json!([[""]]),
        json!(["k1"]),
        json!({}),
    ] {
        let body = json!({"client": PHONE, "mutations": batch, "groups": groups}).to_string();
        expect(&server.push_body(&ann(), body), 400, "malformed");
    }
    assert_eq!(server.pull(&ann(), None, 10).end.position, 0);
    assert_eq!(
        push(&server, &[create("k1", "a", "a")], &[&[], &["k1"]]).len(),
        1
    );
}

#[test]
fn a_group_is_all_or_none_also_when_the_storage_fails() {
    let batch = [create("k1", "a", "a"), create("k2", "b", "b")];
    let mut steps = 0;
    loop {
        let server = server();
        let error = StorageError::internal("planned");
        server.service.storage().fail_after(steps, error);
        let body = serde_json::to_vec(&grouped(&batch, &[&["k1", "k2"]])).unwrap();
        let response = server.push_body(&ann(), body);
        let count = server.pull(&ann(), None, 10).end.count;
        match response.status {
            200 => break assert_eq!(count, 2),
            _ => assert_eq!(count, 0, "step {steps}"),
        }
        steps += 1;
    }
    assert!(steps > 8);
}

#[test]
fn what_was_coalesced_is_answered_by_all_its_names() {
    let server = server();
    let whole = Mutation {
        covers: vec!["old1".into(), "old2".into(), "k1".into()],
        ..create("k1", "a", "whole")
    };
    assert_eq!(server.push_one(&ann(), &whole), applied(1));
    for key in ["old1", "old2"] {
        let alone = server.push(&ann(), &[create(key, "a", "part")]).remove(0);
        assert_eq!((alone.outcome, alone.duplicate), (applied(1), true));
    }
    // Who covers more under such a name says more than what was done; what else it covers was not done.
    let more = Mutation {
        covers: vec!["old1".into(), "old2".into(), "later".into()],
        ..create("old1", "a", "more")
    };
    assert!(matches!(
        server.push_one(&ann(), &more),
        Outcome::Rejected { code, .. } if code == "key-reused"
    ));
    let no_more = Mutation {
        covers: vec!["old1".into(), "old2".into()],
        ..create("old1", "a", "no more")
    };
    assert_eq!(server.push_one(&ann(), &no_more), applied(1));
    // A record that a name has already stays as it is.
    server.push(&ann(), &[create("mine", "b", "b")]);
    let covering = Mutation {
        covers: vec!["mine".into()],
        ..create("k2", "c", "c")
    };
    assert_eq!(server.push_one(&ann(), &covering), applied(3));
    let again = server.push_one(&ann(), &create("mine", "b", "b"));
    assert_eq!(again, applied(2));
    assert!(matches!(
        server.push_one(&ann(), &create("mine", "b", "other")),
        Outcome::Rejected { .. }
    ));
    let body = json!({"client": PHONE, "mutations": [
        {"key": "k3", "mutation": "m", "covers": ["a b"], "type": "t", "id": "1", "op": "create"}
    ]});
    expect(
        &server.push_body(&ann(), body.to_string()),
        400,
        "malformed",
    );
}
