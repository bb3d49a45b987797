//! Copied and restored files: exchange tokens notice them, inherited keys keep effects single.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use serde_json::json;
use syncline_protocol::{
    Assign, EntityId, ExchangeToken, Mutation, Outcome, PushRequest, PushResponse,
};
use syncline_server::{Exchange, MemoryStorage, Storage};

fn exchange(
    server: &Server<MemoryStorage>,
    token: Option<&ExchangeToken>,
    mutations: &[Mutation],
) -> Result<PushResponse, ()> {
    let push = PushRequest {
        token: token.cloned(),
        ..whole(&ann(), mutations)
    };
    let response = server.push_body(&ann(), serde_json::to_vec(&push).unwrap());
    if response.status == 200 {
        return Ok(serde_json::from_slice(&response.body).unwrap());
    }
    expect(&response, 409, "client-forked");
    Err(())
}

fn token_after(server: &Server<MemoryStorage>, token: Option<&ExchangeToken>) -> ExchangeToken {
    exchange(server, token, &[]).unwrap().token.unwrap()
}

#[test]
fn every_push_exchanges_the_token_and_one_lost_answer_is_forgiven() {
    let server = server();
    let first = token_after(&server, None);
    assert_ne!(
        token_after(&server, None),
        first,
        "the first answer was lost"
    );
    let second = token_after(&server, None);
    let third = token_after(&server, Some(&second));
    // The answer with `third` is lost: the client presents `second` again, however often.
    let fourth = token_after(&server, Some(&second));
    let fifth = token_after(&server, Some(&second));
    assert!(
        exchange(&server, Some(&third), &[]).is_err(),
        "never booked"
    );
    assert!(exchange(&server, Some(&fourth), &[]).is_err());
    let sixth = token_after(&server, Some(&fifth));
    for old in [None, Some(&first), Some(&second), Some(&fourth)] {
        assert!(exchange(&server, old, &[]).is_err());
    }
    token_after(&server, Some(&sixth));
}

#[test]
fn a_copy_is_noticed_and_nothing_of_it_happens() {
    let server = server();
    let booked = token_after(&server, None);
    let next = token_after(&server, Some(&booked));
    let next = token_after(&server, Some(&next));
    let state = server.state(&ann());
    let late = [create("k1", "milk", "from the copy")];
    assert!(exchange(&server, Some(&booked), &late).is_err());
    assert!(exchange(&server, None, &late).is_err(), "it had one");
    assert!(exchange(&server, Some(&"1-2-3".into()), &late).is_err());
    assert_eq!(server.state(&ann()), state);
    assert_eq!(
        text(&server.get(&ann(), "/v1/mutations/k1")),
        "{\"state\":\"unknown\"}"
    );
    // The original goes on.
    assert!(exchange(&server, Some(&next), &late).is_ok());
    for bad in [json!(""), json!("a b"), json!("x".repeat(65)), json!(7)] {
        let body = json!({"client": PHONE, "mutations": [], "token": bad}).to_string();
        expect(&server.push_body(&ann(), body), 400, "malformed");
    }
}

#[test]
fn tokens_of_another_client_or_tenant_are_none() {
    let server = server();
    let token = token_after(&server, None);
    for other in [
        Caller::new("acme", "ann", LAPTOP),
        Caller::new("other", "ann", PHONE),
    ] {
        let push = PushRequest {
            token: Some(token.clone()),
            ..whole(&other, &[])
        };
        let body = serde_json::to_vec(&push).unwrap();
        expect(&server.push_body(&other, body), 409, "client-forked");
    }
}

#[test]
fn a_new_history_forgets_the_tokens() {
    let server = server();
    let token = token_after(&server, None);
    let storage = server.service.storage();
    storage.write(|tx| tx.set_epoch(&"e2".into())).unwrap();
    let lost = token_after(&server, Some(&token));
    let fresh = token_after(&server, Some(&token));
    assert!(exchange(&server, Some(&lost), &[]).is_err());
    token_after(&server, Some(&fresh));
    assert!(exchange(&server, None, &[]).is_err());
}

#[test]
fn a_server_that_has_forgotten_its_last_answers_starts_a_new_history() {
    let server = server();
    let token = token_after(&server, None);
    let token = token_after(&server, Some(&token));
    let earlier = Exchange {
        previous: 0,
        current: 1,
    };
    let storage = server.service.storage();
    storage
        .write(|tx| tx.put_exchange("acme", &PHONE.into(), earlier))
        .unwrap();
    let answer = exchange(&server, Some(&token), &[create("k1", "milk", "1")]).unwrap();
    assert_ne!(
        answer.epoch.as_str(),
        EPOCH,
        "it was restored from a backup"
    );
    assert_eq!(answer.results[0].outcome, applied(1));
    let next = token_after(&server, answer.token.as_ref());
    token_after(&server, Some(&next));
}

fn inherit(mutations: &[Mutation], keys: &[&str], from: &str) -> PushRequest {
    let laptop = Caller::new("acme", "ann", LAPTOP);
    PushRequest {
        inherited: keys
            .iter()
            .map(|key| ((*key).into(), from.into()))
            .collect(),
        ..whole(&laptop, mutations)
    }
}

#[test]
fn an_inherited_key_takes_effect_once_whoever_sends_it() {
    let server = server();
    let laptop = Caller::new("acme", "ann", LAPTOP);
    server.push(&ann(), &[create("k1", "milk", "sent before the copy")]);
    let batch = [
        create("k1", "milk", "differs by now"),
        create("k2", "tea", "never sent before"),
        update("k3", "milk", after("k1"), "rests on it"),
        create("own", "bread", "of the copy itself"),
    ];
    let push = inherit(&batch, &["k1", "k2", "k3"], PHONE);
    let results = server.push_whole(&push, &laptop).results;
    assert_eq!(
        (&results[0].outcome, results[0].duplicate),
        (&applied(1), true)
    );
    assert_eq!(
        (&results[1].outcome, results[1].duplicate),
        (&applied(2), false)
    );
    assert_eq!(results[2].outcome, applied(3));
    assert_eq!(results[3].outcome, applied(4));
    // What was new is recorded in the key space that it came from.
    let state = server.state(&ann());
    for mutation in &batch[1..3] {
        let original = server
            .push(&ann(), std::slice::from_ref(mutation))
            .remove(0);
        assert!(original.duplicate);
    }
    let own = server.get(&ann(), "/v1/mutations/own");
    assert_eq!(text(&own), "{\"state\":\"unknown\"}");
    let again = server.push_whole(&push, &laptop).results;
    assert!(again.iter().all(|result| result.duplicate));
    assert_eq!(server.state(&ann()), state);
    // A later mutation of the copy may rest on one that it inherited.
    let next = update("next", "milk", after("k3"), "on");
    let push = inherit(&[next, create("k2", "tea", "x")], &["k2"], PHONE);
    let results = server.push_whole(&push, &laptop).results;
    assert_eq!(results[0].outcome, applied(5));
}

/// A copy was there first with the edit alone; here a later one had become part of it, and must not be taken for done.
#[test]
fn an_inherited_key_that_covers_more_than_was_done_is_told_apart() {
    let server = server();
    let laptop = Caller::new("acme", "ann", LAPTOP);
    server.push(&ann(), &[create("k1", "milk", "milk")]);
    server.push(&ann(), &[update("k2", "milk", at(1), "oat milk")]);
    let covering = |names: &[&str], mutation: Mutation| {
        let covers = names.iter().map(|name| (*name).into()).collect();
        let push = inherit(&[Mutation { covers, ..mutation }], &["k2"], PHONE);
        server.push_whole(&push, &laptop).results.remove(0).outcome
    };
    let both = update("k2", "milk", at(1), "rye milk");
    assert!(matches!(
        covering(&["k2", "later"], both.clone()),
        Outcome::Rejected { code, .. } if code == "key-reused"
    ));
    // Earlier keys of the mutation itself say nothing more, and of a delete there is nothing more to be done.
    assert_eq!(covering(&["k2", "m-k2", "m-k2.1"], both), applied(2));
    let deletes = delete("k2", "milk", at(1));
    assert_eq!(covering(&["k2", "later"], deletes), applied(2));
    assert_eq!(
        server.push_one(&ann(), &update("later", "milk", at(2), "rye milk")),
        applied(3)
    );
}

/// A copy has offered it to a restored server under the key that it had first; here it was refused under that and has the next.
#[test]
fn an_inherited_key_that_covers_an_earlier_one_of_its_mutation_is_not_done_again() {
    let server = server();
    let laptop = Caller::new("acme", "ann", LAPTOP);
    server.push(&ann(), &[create("k1", "milk", "milk")]);
    let under = |key: &str, covers: &[&str], title: &str| {
        let covers = covers.iter().map(|name| (*name).into()).collect();
        let mutation = update(key, "milk", at(1), title);
        let push = Mutation {
            mutation: key.split('.').next().unwrap().into(),
            covers,
            ..mutation
        };
        server
            .push_whole(&inherit(&[push], &[key], PHONE), &laptop)
            .results
            .remove(0)
    };
    assert_eq!(under("m", &[], "oat milk").outcome, applied(2));
    let again = under("m.1", &["m"], "rye milk");
    assert_eq!((again.outcome, again.duplicate), (applied(2), true));
    let more = under("m.1", &["m", "later"], "tea").outcome;
    assert!(matches!(more, Outcome::Rejected { code, .. } if code == "key-reused"));
    // One that was refused before decides nothing.
    let refused = under("n", &[], "tea").outcome;
    assert!(matches!(refused, Outcome::Conflict { .. }));
    let decided = under("n.1", &["n"], "tea");
    assert!(matches!(decided.outcome, Outcome::Conflict { .. }) && !decided.duplicate);
}

/// Two copies of a file have given a new row two ids: whoever comes later is told the one that it has.
#[test]
fn an_inherited_create_under_another_id_is_told_the_id_of_the_row() {
    let server = server();
    let laptop = Caller::new("acme", "ann", LAPTOP);
    let proposed = |id: &str| Mutation {
        assign: Some(Assign::IfTaken),
        ..create("k1", id, "milk")
    };
    server.push(&ann(), &[proposed("7")]);
    let push = inherit(&[proposed("8")], &["k1"], PHONE);
    let results = server.push_whole(&push, &laptop).results;
    assert!(results[0].duplicate);
    match &results[0].outcome {
        Outcome::Applied { id, .. } => assert_eq!(id.as_ref().map(EntityId::as_str), Some("7")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_of_other_people_cannot_be_inherited() {
    let server = server();
    let bob = Caller::new("acme", "bob", PHONE);
    let laptop = Caller::new("acme", "ann", LAPTOP);
    server.push(&bob, &[create("k1", "secret", "bob's")]);
    let push = inherit(&[create("k1", "secret", "mine")], &["k1"], PHONE);
    let body = serde_json::to_vec(&push).unwrap();
    expect(&server.push_body(&laptop, body), 403, "client-mismatch");
    for inherited in [json!({"k9": PHONE}), json!({"k1": "phone"}), json!(["k1"])] {
        let body = json!({"client": LAPTOP, "inherited": inherited,
            "mutations": [create("k1", "a", "a")]});
        expect(
            &server.push_body(&laptop, body.to_string()),
            400,
            "malformed",
        );
    }
    let outcome = server.push_one(&laptop, &create("k1", "mine", "mine"));
    assert!(matches!(outcome, Outcome::Applied { position: 2, .. }));
}
