//! Ids that the server chooses: never one that was anybody's, and followed by what comes after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use syncline_protocol::{Assign, EntityId, Mutation, Outcome};
use syncline_server::{
    IdAssignment, MemoryStorage, ServerConfig, Storage, StorageError, TypeConfig,
};

fn proposal(key: &str, id: &str, assign: Assign) -> Mutation {
    Mutation {
        assign: Some(assign),
        ..create(key, id, key)
    }
}

/// Where a create was put: position and the chosen id, if it is another.
fn placed(outcome: &Outcome) -> (i64, Option<&str>) {
    match outcome {
        Outcome::Applied { position, id, .. } => (*position, id.as_ref().map(EntityId::as_str)),
        other => panic!("not applied: {other:?}"),
    }
}

fn titles<S: Storage>(server: &Server<S>) -> Vec<(String, String)> {
    let page = server.pull(&ann(), None, 100);
    let rows = page.changes.iter();
    rows.map(|row| (row.id.as_str().to_owned(), change_title(row).unwrap()))
        .collect()
}

fn declared(id: IdAssignment) -> Server<MemoryStorage> {
    let mut config = ServerConfig::default();
    let task = TypeConfig {
        id,
        ..TypeConfig::default()
    };
    config.types.insert("task".to_owned(), task);
    Server::new(MemoryStorage::new(EPOCH), config)
}

#[test]
fn two_devices_that_took_the_same_number_end_with_two_rows() {
    let server = server();
    let laptop = Caller::new("acme", "ann", LAPTOP);
    let first = server.push_one(&ann(), &proposal("p1", "5", Assign::IfTaken));
    assert_eq!(placed(&first), (1, None));
    let batch = [
        proposal("l1", "5", Assign::IfTaken),
        update("l2", "5", after("l1"), "edited"),
        update("l3", "5", after("l2"), "again"),
    ];
    let second = server.push(&laptop, &batch);
    assert_eq!(placed(&second[0].outcome), (2, Some("6")));
    assert_eq!(placed(&second[2].outcome), (4, Some("6")));
    // Repeated with the same id, and later requests still find it.
    let again = server.push(&laptop, &batch);
    assert!(again.iter().all(|result| result.duplicate));
    assert_eq!(placed(&again[0].outcome), (2, Some("6")));
    let later = server.push_one(&laptop, &update("l4", "5", after("l3"), "later"));
    assert_eq!(placed(&later), (5, Some("6")));
    let by_new_id = server.push_one(&laptop, &update("l5", "6", after("l4"), "known"));
    assert_eq!(placed(&by_new_id), (6, None));
    // Without `after` the number means what it says.
    let plain = server.push_one(&laptop, &update("l6", "5", version(1), "theirs"));
    assert_eq!(placed(&plain), (7, None));
    let expected = [("5", "theirs"), ("6", "known")];
    assert_eq!(titles(&server), expected.map(|(a, b)| (a.into(), b.into())));
}

/// Who was away has work on the earlier row, which must not hit another one.
#[test]
fn a_number_whose_deletion_is_forgotten_is_not_given_again() {
    let server = server();
    server.push(
        &ann(),
        &[create("k1", "5", "x"), delete("k2", "5", after("k1"))],
    );
    let below = server.push_one(&ann(), &proposal("k3", "3", Assign::IfTaken));
    assert_eq!(placed(&below), (3, None), "nothing is forgotten yet");
    let storage = server.service.storage();
    storage
        .write(|tx| tx.raise_horizon("acme", &"default".into(), 3))
        .unwrap();
    for (key, id, position, chosen) in [
        ("k4", "5", 4, Some("6")),
        ("k5", "2", 5, Some("7")),
        ("k6", "900", 6, None),
    ] {
        let placed_at = server.push_one(&ann(), &proposal(key, id, Assign::IfTaken));
        assert_eq!(placed(&placed_at), (position, chosen), "{id}");
    }
}

#[test]
fn a_chosen_number_was_never_anybodys() {
    let server = server();
    let gone = [
        create("k1", "41", "x"),
        delete("k2", "41", after("k1")),
        create("k3", "-7", "x"),
    ];
    server.push(&ann(), &gone);
    let taken = server.push_one(&ann(), &proposal("k4", "41", Assign::IfTaken));
    assert_eq!(placed(&taken), (4, Some("42")), "also when it is deleted");
    let always = server.push_one(&ann(), &proposal("k5", "900", Assign::Always));
    assert_eq!(placed(&always), (5, Some("43")), "a name only");
    server.push(&ann(), &[delete("k6", "43", version(5))]);
    server
        .service
        .storage()
        .write(|tx| tx.raise_horizon("acme", &"default".into(), 6))
        .unwrap();
    let next = server.push_one(&ann(), &proposal("k7", "-1", Assign::Always));
    assert_eq!(placed(&next), (7, Some("44")), "its tombstone is forgotten");
    // In one batch; and each type and tenant counts for itself.
    let batch = [
        proposal("b1", "-1", Assign::Always),
        create("b2", "46", "own"),
        proposal("b3", "-1", Assign::Always),
    ];
    let results = server.push(&ann(), &batch);
    assert_eq!(placed(&results[0].outcome).1, Some("45"));
    assert_eq!(placed(&results[2].outcome).1, Some("47"));
    let note = Mutation {
        entity_type: "note".into(),
        ..proposal("n1", "-1", Assign::Always)
    };
    assert_eq!(placed(&server.push_one(&ann(), &note)).1, Some("1"));
    let other = Caller::new("other", "bob", PHONE);
    let first = server.push_one(&other, &proposal("o1", "-1", Assign::Always));
    assert_eq!(placed(&first), (1, Some("1")));
    // The last number there is does not use up the counter.
    let largest = i64::MAX.to_string();
    server.push_one(&ann(), &create("m1", &largest, "largest"));
    let next = server.push_one(&ann(), &proposal("m2", "-1", Assign::Always));
    assert_eq!(placed(&next).1, Some("48"));
}

#[test]
fn a_number_that_was_chosen_in_vain_may_be_chosen_again() {
    let server = server();
    let mut steps = 0;
    loop {
        let error = StorageError::internal("planned");
        server.service.storage().fail_after(steps, error);
        let body = serde_json::to_vec(&whole(&ann(), &[proposal("k1", "-1", Assign::Always)]));
        let response = server.push_body(&ann(), body.unwrap());
        if response.status == 200 {
            break;
        }
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
    assert_eq!(titles(&server), [("1".to_owned(), "k1".to_owned())]);
}

#[test]
fn a_text_key_gets_a_uuid_and_other_keys_none() {
    let server = server();
    let free = server.push_one(&ann(), &proposal("k1", "draft", Assign::IfTaken));
    assert_eq!(placed(&free), (1, None));
    let mut ids = std::collections::BTreeSet::new();
    for key in ["k2", "k3"] {
        let taken = server.push_one(&ann(), &proposal(key, "draft", Assign::IfTaken));
        let id = placed(&taken).1.unwrap().to_owned();
        assert_eq!((id.len(), &id[14..15]), (36, "7"), "{id}");
        assert!(ids.insert(id));
    }
    for (nth, id) in ["[1,2]", "{\"$hex\":\"00\"}"].into_iter().enumerate() {
        let refused = proposal(&format!("r{nth}"), id, Assign::Always);
        assert_eq!(
            rejected(&server.push_one(&ann(), &refused)),
            "id-assignment"
        );
    }
    let update = Mutation {
        assign: Some(Assign::Always),
        ..update("u1", "draft", version(1), "x")
    };
    assert_eq!(rejected(&server.push_one(&ann(), &update)), "id-assignment");
}

#[test]
fn the_server_can_insist() {
    let server = declared(IdAssignment::Integer);
    let results = server.push(
        &ann(),
        &[
            create("k1", "temporary", "a"),
            update("k2", "temporary", after("k1"), "b"),
            create("k3", "1", "c"),
            create("k4", "[1,2]", "d"),
        ],
    );
    assert_eq!(placed(&results[0].outcome), (1, Some("1")));
    assert_eq!(placed(&results[1].outcome), (2, Some("1")));
    assert_eq!(placed(&results[2].outcome), (3, Some("2")));
    assert_eq!(rejected(&results[3].outcome), "id-assignment");
    let server = declared(IdAssignment::Uuid);
    let outcome = server.push_one(&ann(), &create("k1", "7", "a"));
    assert_eq!(placed(&outcome).1.unwrap().len(), 36);
}
