//! Unique fields and references: kept within a batch, across batches and over a change of rules.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use syncline_protocol::{Base, Mutation, Operation, Outcome, PushRequest};
use syncline_server::{MemoryStorage, ServerConfig, StorageError, TypeConfig};

fn rules() -> ServerConfig {
    let person = TypeConfig {
        unique: vec![
            vec!["email".to_owned()],
            vec!["first".to_owned(), "last".to_owned()],
        ],
        ..TypeConfig::default()
    };
    let task = TypeConfig {
        references: BTreeMap::from([
            ("owner".to_owned(), "person".to_owned()),
            ("parent".to_owned(), "task".to_owned()),
        ]),
        ..TypeConfig::default()
    };
    ServerConfig {
        types: BTreeMap::from([("person".to_owned(), person), ("task".to_owned(), task)]),
        ..ServerConfig::default()
    }
}

fn server_with_rules() -> Server<MemoryStorage> {
    Server::new(MemoryStorage::new(EPOCH), rules())
}

fn of(entity_type: &str, key: &str, op: Operation, id: &str, fields: Json) -> Mutation {
    Mutation {
        entity_type: entity_type.into(),
        ..mutation(key, op, id, None, fields)
    }
}

fn person(key: &str, id: &str, fields: Json) -> Mutation {
    of("person", key, Operation::Create, id, fields)
}

fn task(key: &str, id: &str, fields: Json) -> Mutation {
    of("task", key, Operation::Create, id, fields)
}

fn on(base: Base, mutation: Mutation) -> Mutation {
    Mutation {
        base: Some(base),
        ..mutation
    }
}

/// Code, and the fields that were refused with their codes.
fn refused(outcome: &Outcome) -> (&str, Vec<(&str, &str)>) {
    let Outcome::Rejected { code, errors, .. } = outcome else {
        panic!("not rejected: {outcome:?}");
    };
    let errors = errors.iter();
    let errors = errors.map(|one| (one.field.as_str(), one.code.as_str()));
    (code, errors.collect())
}

fn email_taken() -> (&'static str, Vec<(&'static str, &'static str)>) {
    ("validation", vec![("email", "unique")])
}

#[test]
fn a_unique_value_belongs_to_one_entity_at_a_time() {
    let server = server_with_rules();
    let one = |mutation: Mutation| server.push_one(&ann(), &mutation);
    assert_eq!(one(person("k1", "1", json!({"email": "a"}))), applied(1));
    let outcome = one(person("k2", "2", json!({"email": "a"})));
    assert_eq!(refused(&outcome), email_taken());
    // Another class, another case and NULL are other values.
    for (nth, email) in [json!("A"), json!(1), json!(1.0), Json::Null, Json::Null]
        .into_iter()
        .enumerate()
    {
        let key = format!("n{nth}");
        let outcome = one(person(&key, &key, json!({ "email": email })));
        assert!(matches!(outcome, Outcome::Applied { .. }), "{email}");
    }
    // An update keeps its own value, takes a free one, and is refused a taken one.
    let edit = |key: &str, id: &str, base, fields| {
        one(on(base, of("person", key, Operation::Update, id, fields)))
    };
    assert_eq!(
        edit("u1", "1", version(1), json!({"email": "a", "x": 1})),
        applied(7)
    );
    let outcome = edit("u2", "1", version(7), json!({"email": "A"}));
    assert_eq!(refused(&outcome), email_taken());
    assert_eq!(
        edit("u3", "1", version(7), json!({"email": "b"})),
        applied(8)
    );
    assert_eq!(one(person("k3", "3", json!({"email": "a"}))), applied(9));
    let gone = on(
        version(9),
        of("person", "d1", Operation::Delete, "3", json!({})),
    );
    assert_eq!(one(gone), applied(10));
    assert_eq!(one(person("k4", "4", json!({"email": "a"}))), applied(11));
    // Lists count as a whole; another tenant has its own.
    let named = |first: &str, last: Json| json!({"first": first, "last": last});
    assert_eq!(one(person("l1", "l1", named("x", json!("y")))), applied(12));
    assert_eq!(one(person("l2", "l2", named("x", json!("z")))), applied(13));
    assert_eq!(one(person("l3", "l3", named("x", Json::Null))), applied(14));
    assert_eq!(one(person("l4", "l4", named("x", Json::Null))), applied(15));
    let outcome = one(person("l5", "l5", named("x", json!("y"))));
    let both = vec![("first", "unique"), ("last", "unique")];
    assert_eq!(refused(&outcome), ("validation", both));
    let other = Caller::new("other", "bob", PHONE);
    let same = person("k1", "1", json!({"email": "a"}));
    assert_eq!(server.push_one(&other, &same), applied(1));
}

#[test]
fn within_a_batch_values_move_and_failed_groups_hold_none() {
    let server = server_with_rules();
    server.push(&ann(), &[person("k1", "1", json!({"email": "a"}))]);
    let update = |key: &str, email: &str, base| {
        on(
            base,
            of(
                "person",
                key,
                Operation::Update,
                "1",
                json!({ "email": email }),
            ),
        )
    };
    let results = server.push(
        &ann(),
        &[
            update("b1", "b", version(1)),
            person("b2", "2", json!({"email": "a"})),
            person("b3", "3", json!({"email": "b"})),
            person("b4", "4", json!({"email": "b"})),
        ],
    );
    assert_eq!(results[1].outcome, applied(3));
    assert_eq!(refused(&results[2].outcome), email_taken());
    assert_eq!(refused(&results[3].outcome), email_taken());
    let push = PushRequest {
        groups: vec![vec!["g1".into(), "g2".into()]],
        ..whole(
            &ann(),
            &[
                person("g1", "5", json!({"email": "new"})),
                person("g2", "6", json!({"email": "a"})),
                person("g3", "7", json!({"email": "new"})),
            ],
        )
    };
    let results = server.push_whole(&push, &ann()).results;
    assert_eq!(refused(&results[1].outcome), email_taken());
    assert_eq!(results[2].outcome, applied(4), "the group does not hold it");
}

#[test]
fn references_name_what_is_there_and_hold_it() {
    let server = server_with_rules();
    let one = |mutation: Mutation| server.push_one(&ann(), &mutation);
    let missing = ("validation", vec![("owner", "reference")]);
    for (nth, owner) in [json!(1), json!("1"), json!(1.5), json!("")]
        .into_iter()
        .enumerate()
    {
        let outcome = one(task(&format!("m{nth}"), "t", json!({ "owner": owner })));
        assert_eq!(refused(&outcome), missing);
    }
    let results = server.push(
        &ann(),
        &[
            person("k1", "1", json!({})),
            task("k2", "t", json!({"owner": 1, "parent": "t"})),
            task("k3", "free", json!({"owner": null})),
        ],
    );
    assert_eq!(results[2].outcome, applied(3));
    let text = one(task("k4", "t2", json!({"owner": "1"})));
    assert_eq!(refused(&text), missing, "a text is not the integer");
    let drop_person = |key: &str| {
        on(
            version(1),
            of("person", key, Operation::Delete, "1", json!({})),
        )
    };
    assert_eq!(refused(&one(drop_person("d1"))), ("referenced", vec![]));
    // In one batch the child goes first, and then its parent may; both may not be one's own.
    let results = server.push(
        &ann(),
        &[
            on(
                version(2),
                of("task", "d2", Operation::Delete, "t", json!({})),
            ),
            drop_person("d3"),
        ],
    );
    assert_eq!(
        results[1].outcome,
        applied(5),
        "its own parent was no hindrance"
    );
    let late = one(task("k5", "t3", json!({"owner": 1})));
    assert_eq!(refused(&late), missing, "deleted is not there");
}

#[test]
fn rules_that_come_later_count_from_then_on() {
    let entity = |id: &str, email: &str| person(id, id, json!({ "email": email }));
    let open = server();
    open.push(
        &ann(),
        &[entity("1", "a"), entity("2", "a"), entity("3", "c")],
    );
    open.push(&ann(), &[task("t", "t", json!({"owner": 3}))]);
    let change_rules =
        |server: Server<MemoryStorage>, config| Server::new(server.service.into_storage(), config);
    let server = change_rules(open, rules());
    assert_eq!(
        refused(&server.push_one(&ann(), &entity("4", "c"))),
        email_taken()
    );
    let gone = on(
        version(3),
        of("person", "d1", Operation::Delete, "3", json!({})),
    );
    assert_eq!(
        refused(&server.push_one(&ann(), &gone)),
        ("referenced", vec![])
    );
    // Without rules nothing is indexed; with the same rules again, everything is.
    let open = change_rules(server, ServerConfig::default());
    assert_eq!(open.push_one(&ann(), &entity("5", "e")), applied(5));
    let server = change_rules(open, rules());
    assert_eq!(
        refused(&server.push_one(&ann(), &entity("6", "e"))),
        email_taken()
    );
}

#[test]
fn rules_hold_when_the_storage_fails() {
    let batch = [
        person("k1", "1", json!({"email": "a"})),
        task("k2", "t", json!({"owner": 1})),
    ];
    let mut steps = 0;
    loop {
        let server = server_with_rules();
        let error = StorageError::internal("planned");
        server.service.storage().fail_after(steps, error);
        let body = json!({"client": PHONE, "mutations": batch}).to_string();
        if server.push_body(&ann(), body).status == 200 {
            break;
        }
        let free = server.push_one(&ann(), &person("x", "9", json!({"email": "a"})));
        assert_eq!(free, applied(1), "step {steps}");
        steps += 1;
    }
    assert!(steps > 15, "{steps}");
}
