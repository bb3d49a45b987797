//! Pushes: every effect exactly once, checks in their order, and what a base must be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use serde_json::json;
use syncline_protocol::{
    Access, ConflictReason, KeyOutcome, Mutation, Operation, Outcome, PushResult,
};
use syncline_server::{ServerConfig, StorageError, TypeConfig};

#[test]
fn a_push_sent_again_is_answered_again_and_done_once() {
    let server = server();
    let batch = [
        create("k1", "milk", "milk"),
        update("k2", "milk", after("k1"), "oat milk"),
        create("k3", "milk", "again"),
        create("k4", "bread", "bread"),
    ];
    let first = server.push(&ann(), &batch);
    assert_eq!(first[0].outcome, applied(1));
    assert_eq!(first[1].outcome, applied(2));
    let found = (
        ConflictReason::Exists,
        Some((2, Some("oat milk".to_owned()))),
    );
    assert_eq!(conflict(&first[2].outcome), found);
    assert_eq!(first[3].outcome, applied(3));
    assert!(first.iter().all(|result| !result.duplicate));
    let state = server.state(&ann());
    for _ in 0..3 {
        let again = server.push(&ann(), &batch);
        let duplicates: Vec<PushResult> = first
            .iter()
            .map(|result| PushResult {
                duplicate: true,
                ..result.clone()
            })
            .collect();
        assert_eq!(again, duplicates);
        assert_eq!(server.state(&ann()), state);
    }
}

#[test]
fn a_success_sent_again_is_repeated_though_its_base_no_longer_holds() {
    let server = server();
    server.push(&ann(), &[create("k1", "milk", "milk")]);
    let edit = update("k2", "milk", at(1), "oat milk");
    assert_eq!(server.push_one(&ann(), &edit), applied(2));
    let laptop = Caller::new("acme", "ann", LAPTOP);
    let gone = delete("k1", "milk", version(2));
    assert_eq!(server.push_one(&laptop, &gone), applied(3));
    // Checking the base before the key would answer: deleted.
    let again = server.push(&ann(), &[edit]).remove(0);
    assert_eq!((again.outcome, again.duplicate), (applied(2), true));
    // Nor does a grant that was taken away change what has happened.
    let reader = Caller {
        access: Access::Read,
        ..ann()
    };
    let again = server
        .push(&reader, &[create("k1", "milk", "milk")])
        .remove(0);
    assert_eq!((again.outcome, again.duplicate), (applied(1), true));
}

#[test]
fn a_key_with_other_content_is_rejected_and_its_record_stays() {
    let server = server();
    server.push(&ann(), &[create("k1", "milk", "milk")]);
    let state = server.state(&ann());
    for other in [
        create("k1", "milk", "other title"),
        create("k1", "bread", "milk"),
        update("k1", "milk", at(1), "milk"),
        Mutation {
            mutation: "another".into(),
            ..create("k1", "milk", "milk")
        },
        Mutation {
            entity_type: "note".into(),
            ..create("k1", "milk", "milk")
        },
    ] {
        assert_eq!(rejected(&server.push_one(&ann(), &other)), "key-reused");
    }
    assert_eq!(server.state(&ann()), state);
    let again = server
        .push(&ann(), &[create("k1", "milk", "milk")])
        .remove(0);
    assert_eq!((again.outcome, again.duplicate), (applied(1), true));
    // Twice in one batch: the same is done once, other content is refused.
    let twice = [
        create("k2", "a", "a"),
        create("k2", "a", "a"),
        create("k2", "b", "b"),
    ];
    let results = server.push(&ann(), &twice);
    assert_eq!(results[0].outcome, applied(2));
    assert_eq!(
        (&results[1].outcome, results[1].duplicate),
        (&applied(2), true)
    );
    assert_eq!(rejected(&results[2].outcome), "key-reused");
    // Another client's keys are its own.
    let laptop = Caller::new("acme", "ann", LAPTOP);
    assert_eq!(
        server.push_one(&laptop, &create("k1", "tea", "tea")),
        applied(3)
    );
}

#[test]
fn the_key_stands_for_the_meaning_not_for_the_bytes() {
    let server = server();
    let body = |fields: &str| {
        format!(
            "{{\"client\":\"{PHONE}\",\"mutations\":[{{\"key\":\"k\",\"mutation\":\"m\",\
             \"type\":\"task\",\"id\":\"1\",\"op\":\"create\",\"fields\":{fields}}}]}}"
        )
    };
    let outcome = |fields: &str| {
        let response = server.push_body(&ann(), body(fields));
        let push: syncline_protocol::PushResponse = serde_json::from_slice(&response.body).unwrap();
        push.results[0].clone()
    };
    assert!(!outcome("{\"a\":1,\"b\":\"x\"}").duplicate);
    assert!(outcome(" { \"b\" : \"\\u0078\", \"a\":1 } ").duplicate);
    // 1 and 1.0 are different values.
    assert_eq!(
        rejected(&outcome("{\"a\":1.0,\"b\":\"x\"}").outcome),
        "key-reused"
    );
}

#[test]
fn after_a_failure_the_rest_of_the_entity_is_skipped_and_others_go_on() {
    let server = server();
    server.push(&ann(), &[create("k0", "milk", "milk")]);
    let batch = [
        create("k1", "milk", "again"),
        update("k2", "milk", after("k1"), "x"),
        update("k3", "milk", at(1), "y"),
        create("k4", "bread", "bread"),
        update("k5", "bread", after("k4"), "rye"),
        update("k6", "tea", after("k3"), "z"),
    ];
    let results = server.push(&ann(), &batch);
    assert_eq!(conflict(&results[0].outcome).0, ConflictReason::Exists);
    assert_eq!(results[1].outcome, skipped("k1"));
    assert_eq!(results[2].outcome, skipped("k1"));
    assert_eq!(results[3].outcome, applied(2));
    assert_eq!(results[4].outcome, applied(3));
    assert_eq!(
        results[5].outcome,
        skipped("k3"),
        "it rests on a skipped one"
    );
    // Again: the failure is repeated and still holds up what follows it.
    let again = server.push(&ann(), &batch[..3]);
    assert!(again[0].duplicate);
    assert_eq!(again[1].outcome, skipped("k1"));
    assert!(!again[1].duplicate);
    // What was skipped left nothing behind: alone it is tried for the first time.
    let alone = server.push(&ann(), &batch[2..3]).remove(0);
    assert_eq!((alone.outcome, alone.duplicate), (applied(4), false));
}

#[test]
fn a_chain_after_a_key_works_within_a_batch_and_beyond() {
    let server = server();
    let results = server.push(
        &ann(),
        &[
            create("k1", "milk", "1"),
            update("k2", "milk", after("k1"), "2"),
            update("k3", "milk", after("k2"), "3"),
        ],
    );
    assert_eq!(results[2].outcome, applied(3));
    let stale = update("k4", "milk", after("k2"), "4");
    let found = (ConflictReason::Stale, Some((3, Some("3".to_owned()))));
    assert_eq!(conflict(&server.push_one(&ann(), &stale)), found);
    let next = update("k5", "milk", after("k3"), "5");
    assert_eq!(server.push_one(&ann(), &next), applied(4));
    // Neither an unknown key, nor one of another entity, nor one of another client is a base.
    server.push(&ann(), &[create("k6", "tea", "tea")]);
    for (key, base) in [("k7", "never"), ("k8", "k6"), ("k9", "k4")] {
        let outcome = server.push_one(&ann(), &update(key, "milk", after(base), "no"));
        assert_eq!(conflict(&outcome).0, ConflictReason::Stale, "{base}");
    }
    let laptop = Caller::new("acme", "ann", LAPTOP);
    let foreign = update("k1", "milk", after("k5"), "no");
    let outcome = server.push_one(&laptop, &foreign);
    assert_eq!(conflict(&outcome).0, ConflictReason::Stale);
}

#[test]
fn a_conflict_with_the_batch_itself_names_the_right_position() {
    let server = server();
    server.push(
        &ann(),
        &[create("k1", "milk", "1"), create("k2", "tea", "t")],
    );
    let results = server.push(
        &ann(),
        &[
            create("k3", "bread", "b"),
            update("k4", "milk", at(2), "2"),
            update("k5", "milk", at(2), "3"),
            delete("k6", "tea", at(2)),
            delete("k7", "tea", at(2)),
        ],
    );
    assert_eq!(results[1].outcome, applied(4));
    let found = (ConflictReason::Stale, Some((4, Some("2".to_owned()))));
    assert_eq!(conflict(&results[2].outcome), found);
    assert_eq!(results[3].outcome, applied(5));
    assert_eq!(results[4].outcome, applied(5), "gone is gone");
    let page = server.pull(&ann(), None, 100);
    assert_eq!(page.end.position, 5);
}

#[test]
fn what_a_base_must_be() {
    let server = server();
    server.push(
        &ann(),
        &[create("k1", "milk", "1"), create("k2", "tea", "t")],
    );
    server.push(&ann(), &[update("k3", "milk", at(2), "2")]);
    let other_epoch = syncline_protocol::Base::Position {
        epoch: "other".into(),
        scope: "default".into(),
        position: 3,
    };
    let other_scope = syncline_protocol::Base::Position {
        epoch: EPOCH.into(),
        scope: "other".into(),
        position: 3,
    };
    let stale = [
        other_epoch,
        other_scope,
        at(4),
        at(2),
        at(-1),
        version(1),
        version(4),
    ];
    for (nth, base) in stale.into_iter().enumerate() {
        for (op, fields) in [
            (Operation::Update, json!({"title":"no"})),
            (Operation::Delete, json!({})),
        ] {
            let key = format!("s{nth}-{op:?}");
            let mutation = mutation(&key, op, "milk", Some(base.clone()), fields);
            let found = (ConflictReason::Stale, Some((3, Some("2".to_owned()))));
            let outcome = server.push_one(&ann(), &mutation);
            assert_eq!(conflict(&outcome), found, "{base:?}");
        }
    }
    for op in [Operation::Update, Operation::Delete] {
        let bare = mutation(&format!("b{op:?}"), op, "milk", None, json!({}));
        assert_eq!(rejected(&server.push_one(&ann(), &bare)), "base-required");
        let never = mutation(&format!("n{op:?}"), op, "never", Some(at(3)), json!({}));
        let outcome = server.push_one(&ann(), &never);
        assert_eq!(conflict(&outcome), (ConflictReason::Missing, None));
    }
    assert_eq!(
        server.push_one(&ann(), &update("u1", "milk", at(3), "3")),
        applied(4)
    );
    assert_eq!(
        server.push_one(&ann(), &update("u2", "milk", version(4), "4")),
        applied(5)
    );
    assert_eq!(
        server.push_one(&ann(), &update("u3", "tea", at(2), "u")),
        applied(6)
    );
}

#[test]
fn an_update_touches_only_its_fields() {
    let server = server();
    let fields = json!({"title":"milk","count":9_007_199_254_740_993_i64,"price":1.0,
        "photo":{"$blob":"3q0="},"note":null});
    server.push(
        &ann(),
        &[mutation("k1", Operation::Create, "milk", None, fields)],
    );
    let patch = json!({"title":null,"more":"x"});
    server.push(
        &ann(),
        &[mutation(
            "k2",
            Operation::Update,
            "milk",
            Some(at(1)),
            patch,
        )],
    );
    let page = server.pull(&ann(), None, 10);
    let syncline_protocol::ChangeKind::Upsert(fields) = &page.changes[0].kind else {
        panic!("it is alive");
    };
    let expected = "{\"count\":9007199254740993,\"more\":\"x\",\"note\":null,\
        \"photo\":{\"$blob\":\"3q0=\"},\"price\":1.0,\"title\":null}";
    assert_eq!(serde_json::to_string(fields).unwrap(), expected);
    assert_eq!(page.changes[0].key.as_ref().unwrap().as_str(), "k2");
}

#[test]
fn what_was_deleted_comes_back_only_on_purpose_and_versions_never_fall() {
    let server = server();
    server.push(
        &ann(),
        &[create("k1", "milk", "1"), create("k2", "tea", "t")],
    );
    assert_eq!(
        server.push_one(&ann(), &delete("k3", "milk", at(2))),
        applied(3)
    );
    let tombstone = (ConflictReason::Deleted, Some((3, None)));
    for (key, base) in [("c1", None), ("c2", Some(at(2))), ("c3", Some(version(1)))] {
        let mut again = create(key, "milk", "2");
        again.base = base;
        assert_eq!(conflict(&server.push_one(&ann(), &again)), tombstone);
    }
    let edit = update("c4", "milk", at(3), "no");
    assert_eq!(conflict(&server.push_one(&ann(), &edit)), tombstone);
    // Deleting once more is done already, whatever the base, and takes no position.
    let laptop = Caller::new("acme", "ann", LAPTOP);
    assert_eq!(
        server.push_one(&laptop, &delete("d1", "milk", at(1))),
        applied(3)
    );
    let undelete = |key: &str, base| Mutation {
        base: Some(base),
        ..create(key, "milk", "back")
    };
    let results = server.push(&laptop, &[undelete("u1", after("d1"))]);
    assert_eq!(results[0].outcome, applied(4));
    for (round, base) in [version(5), at(7), after("d4")].into_iter().enumerate() {
        let last = 4 + 2 * i64::try_from(round).unwrap();
        let gone = delete(&format!("d{}", round + 2), "milk", version(last));
        assert_eq!(server.push_one(&laptop, &gone), applied(last + 1));
        let back = undelete(&format!("u{}", round + 2), base);
        assert_eq!(server.push_one(&laptop, &back), applied(last + 2));
    }
    // In one batch: delete and create anew, after the delete.
    let results = server.push(
        &ann(),
        &[
            delete("b1", "milk", version(10)),
            undelete("b2", after("b1")),
            update("b3", "milk", after("b2"), "fresh"),
        ],
    );
    assert_eq!(results[2].outcome, applied(13));
}

#[test]
fn a_reader_may_not_write_and_a_client_has_one_owner() {
    let server = server();
    let reader = Caller {
        access: Access::Read,
        ..ann()
    };
    let results = server.push(
        &reader,
        &[
            create("k1", "a", "a"),
            create("k2", "b", "b"),
            update("k3", "a", after("k1"), "c"),
        ],
    );
    assert!(matches!(results[0].outcome, Outcome::Forbidden { .. }));
    assert!(matches!(results[1].outcome, Outcome::Forbidden { .. }));
    assert_eq!(results[2].outcome, skipped("k1"));
    let again = server.push(&ann(), &[create("k1", "a", "a")]).remove(0);
    assert!(matches!(again.outcome, Outcome::Forbidden { .. }) && again.duplicate);

    let bob = Caller::new("acme", "bob", PHONE);
    let body = json!({"client": PHONE, "mutations": []}).to_string();
    expect(&server.push_body(&bob, body), 403, "client-mismatch");
    expect(
        &server.get(&bob, "/v1/mutations/k1"),
        403,
        "client-mismatch",
    );
    // In another tenant the same id is another client, with keys of its own.
    let other = Caller::new("other", "bob", PHONE);
    assert_eq!(server.push_one(&other, &create("k1", "a", "a")), applied(1));
}

#[test]
fn what_became_of_a_key() {
    let server = server();
    let ask = |caller: &Caller, key: &str| -> KeyOutcome {
        let response = server.get(caller, &format!("/v1/mutations/{key}"));
        assert_eq!(response.status, 200, "{}", text(&response));
        serde_json::from_slice(&response.body).unwrap()
    };
    let results = server.push(
        &ann(),
        &[
            create("a/b%", "milk", "1"),
            create("k2", "milk", "2"),
            update("k3", "milk", at(0), "3"),
        ],
    );
    for (path, result) in [("a%2Fb%25", &results[0]), ("k2", &results[1])] {
        let result = PushResult {
            duplicate: true,
            ..result.clone()
        };
        assert_eq!(ask(&ann(), path), KeyOutcome::Final { result });
    }
    assert_eq!(
        ask(&ann(), "k3"),
        KeyOutcome::Unknown,
        "skipped is not final"
    );
    assert_eq!(ask(&ann(), "never"), KeyOutcome::Unknown);
    let other = Caller::new("other", "ann", PHONE);
    assert_eq!(ask(&other, "k2"), KeyOutcome::Unknown);
    for path in [
        "/v1/mutations/%00",
        "/v1/mutations/%ff",
        "/v1/mutations/a%20b",
    ] {
        expect(&server.get(&ann(), path), 400, "malformed");
    }
    for path in ["/v1/mutations/", "/v1/mutations/a/b", "/v1/mutations"] {
        expect(&server.get(&ann(), path), 404, "not-found");
    }
}

fn task_schema() -> serde_json::Value {
    json!({
        "type": "object",
        "required": ["title"],
        "additionalProperties": false,
        "properties": {
            "title": {"type": "string", "maxLength": 10},
            "done": {"type": "integer", "enum": [0, 1]},
            "a/b": {"type": "null"}
        }
    })
}

/// The fields that were refused and why; no value may be repeated.
fn errors(outcome: &Outcome) -> Vec<(String, String)> {
    let Outcome::Rejected { code, errors, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(code, "validation");
    let told = format!("{outcome:?}");
    assert!(!told.contains("canary"), "a value was repeated: {told}");
    errors
        .iter()
        .map(|error| (error.field.clone(), error.code.clone()))
        .collect()
}

#[test]
fn schemas_judge_the_whole_entity() {
    let config = ServerConfig {
        types: [(
            "task".to_owned(),
            TypeConfig {
                schema: Some(task_schema()),
                ..TypeConfig::default()
            },
        )]
        .into(),
        ..ServerConfig::default()
    };
    let server = Server::new(syncline_server::MemoryStorage::new(EPOCH), config);
    for (nth, (fields, field)) in [
        (json!({"done": 1}), "title"),
        (json!({"title": "canary canary"}), "title"),
        (json!({"title": "x", "done": 2}), "done"),
        (json!({"title": "x", "a/b": 1}), "a/b"),
        (json!({"title": {"$blob": "3q0="}}), "title"),
        (json!({"title": "x", "extra": "canary"}), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let bad = mutation(&format!("k{nth}"), Operation::Create, "1", None, fields);
        let outcome = server.push_one(&ann(), &bad);
        assert_eq!(errors(&outcome), [(field.to_owned(), "schema".to_owned())]);
    }
    assert_eq!(
        server.push_one(&ann(), &create("ok", "1", "milk")),
        applied(1)
    );
    // An update is judged by what comes out of it, and only once its base holds.
    let good = mutation(
        "u1",
        Operation::Update,
        "1",
        Some(at(1)),
        json!({"done": 1}),
    );
    assert_eq!(server.push_one(&ann(), &good), applied(2));
    let bad = json!({"title": null});
    let stale = mutation("u2", Operation::Update, "1", Some(at(1)), bad.clone());
    assert_eq!(
        conflict(&server.push_one(&ann(), &stale)).0,
        ConflictReason::Stale
    );
    let wrong = mutation("u3", Operation::Update, "1", Some(at(2)), bad);
    let told = errors(&server.push_one(&ann(), &wrong));
    assert_eq!(told, [("title".to_owned(), "schema".to_owned())]);
    let unknown = Mutation {
        entity_type: "note".into(),
        ..create("u4", "1", "x")
    };
    assert_eq!(rejected(&server.push_one(&ann(), &unknown)), "unknown-type");
}

#[test]
fn when_the_storage_fails_at_any_step_nothing_has_happened_and_again_is_safe() {
    let batch = [
        create("k1", "milk", "1"),
        update("k2", "milk", after("k1"), "2"),
        create("k3", "milk", "no"),
        create("k4", "tea", "t"),
    ];
    let mut steps = 0;
    loop {
        let server = server();
        let fault = || std::io::Error::other("planned canary");
        let error = match steps % 3 {
            0 => StorageError::internal(fault()),
            1 => StorageError::Busy {
                source: fault().into(),
            },
            _ => StorageError::Full {
                source: fault().into(),
            },
        };
        server.service.storage().fail_after(steps, error);
        let body = json!({"client": PHONE, "mutations": batch}).to_string();
        let response = server.push_body(&ann(), body);
        if response.status == 200 {
            break;
        }
        match steps % 3 {
            0 => expect(&response, 500, "internal"),
            _ => {
                expect(&response, 503, "unavailable");
                let seconds = response.headers.get("retry-after").unwrap();
                assert!(seconds.parse::<u32>().unwrap() > 0);
            }
        }
        assert!(!text(&response).contains("canary"));
        let page = server.pull(&ann(), None, 100);
        assert_eq!((page.end.position, page.end.count), (0, 0), "step {steps}");
        let results = server.push(&ann(), &batch);
        assert!(
            results.iter().all(|result| !result.duplicate),
            "step {steps}"
        );
        assert_eq!(results[3].outcome, applied(3));
        steps += 1;
    }
    assert!(steps > 10, "only {steps} steps were tried");
}
