//! Stories of digests, for any storage.
#![allow(unreachable_pub)] // each test binary has it as a module of its own

use super::common::*;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use syncline_protocol::{
    ChangeKind, ContentHash, DIGEST_IDS, DigestChanges, DigestEntities, DigestRanges, Fields,
    Operation, RangeHasher,
};
use syncline_server::{Request, Storage};

/// Asks for a digest of tasks.
fn ask<S: Storage, T: DeserializeOwned>(server: &Server<S>, caller: &Caller, query: &str) -> T {
    let response = server.get(caller, &format!("/v1/digest?type=task{query}"));
    assert_eq!(response.status, 200, "{}", text(&response));
    serde_json::from_slice(&response.body).unwrap()
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        query += &format!("&{name}=");
        value
            .bytes()
            .for_each(|byte| query += &format!("%{byte:02X}"));
    }
    query
}

/// What the ranges should be, from what a pull brings.
fn expected(entities: &BTreeMap<String, Fields>) -> Vec<(String, usize, ContentHash)> {
    let all: Vec<_> = entities.iter().collect();
    let range = |chunk: &[(&String, &Fields)]| {
        let mut hasher = RangeHasher::default();
        for (id, fields) in chunk {
            hasher.add(id, ContentHash::of_compared(fields, None));
        }
        let until = chunk.last().unwrap().0.clone();
        (until, hasher.count(), hasher.finish())
    };
    all.chunks(64).map(range).collect()
}

fn pulled<S: Storage>(server: &Server<S>) -> BTreeMap<String, Fields> {
    let page = server.pull(&ann(), None, 1000);
    assert!(page.end.at_head);
    let changes = page.changes.into_iter();
    let fields = changes.map(|change| match change.kind {
        ChangeKind::Upsert(fields) => (change.id.to_string(), fields),
        ChangeKind::Delete => panic!("a snapshot has no deletes"),
    });
    fields.collect()
}

fn told(answer: &DigestRanges) -> Vec<(String, usize, ContentHash)> {
    let ranges = answer.ranges.iter();
    ranges
        .map(|range| (range.until.to_string(), range.count, range.hash))
        .collect()
}

/// Odd values in 150 tasks, of which one is deleted and one changed.
pub fn ranges_are_those_of_what_a_pull_brings<S: Storage>(server: &Server<S>) {
    let empty: DigestRanges = ask(server, &ann(), "");
    assert_eq!(
        (empty.position, empty.ranges.len(), empty.more),
        (0, 0, false)
    );
    let odd = [
        json!(null),
        json!(i64::MAX),
        json!(0.1),
        json!({"$real": "-inf"}),
        json!({"$blob": "3q0="}),
        json!("\u{1f980}\n"),
    ];
    let creates: Vec<_> = (0..150)
        .map(|nth| {
            let fields = json!({ "title": format!("t{nth}"), "odd": odd[nth % odd.len()] });
            let id = format!("id{nth}");
            mutation(&id, Operation::Create, &id, None, fields)
        })
        .collect();
    server.push(&ann(), &creates);
    server.push(
        &ann(),
        &[
            delete("d", "id7", after("id7")),
            update("u", "id8", after("id8"), "new"),
        ],
    );
    // A type behind it in the order of keys is not walked into.
    let mut other = create("o", "o", "other");
    other.entity_type = "zebra".into();
    server.push(&ann(), &[other]);
    let tasks: BTreeMap<_, _> = pulled(server)
        .into_iter()
        .filter(|(id, _)| id != "o")
        .collect();
    let answer: DigestRanges = ask(server, &ann(), "");
    assert_eq!((answer.position, answer.more), (153, false));
    assert_eq!(tasks.len(), 149);
    assert_eq!(told(&answer), expected(&tasks));

    // From behind an id, whether it is there or not.
    let after = "id11";
    let rest: BTreeMap<_, _> = tasks.clone().split_off("id110");
    let answer: DigestRanges = ask(server, &ann(), &encoded(&[("after", after)]));
    assert_eq!(told(&answer), expected(&rest));
}

/// One range entity by entity, some of the fields, and entities in full.
pub fn a_range_is_told_entity_by_entity<S: Storage>(server: &Server<S>) {
    let fields = |title: &str| json!({ "title": title, "secret": "x", "empty": null });
    let creates =
        ["a", "b", "c", "d"].map(|id| mutation(id, Operation::Create, id, None, fields(id)));
    server.push(&ann(), &creates);
    server.push(
        &ann(),
        &[
            update("u", "b", after("b"), "B"),
            delete("x", "c", after("c")),
        ],
    );
    let range = encoded(&[("after", "a"), ("until", "c"), ("fields", r#"["title"]"#)]);
    let answer: DigestEntities = ask(server, &ann(), &range);
    let hash = ContentHash::of_compared(&fields_of(json!({ "title": "B" })), None);
    let entities: Vec<_> = (answer.entities.iter())
        .map(|one| (one.id.as_str(), one.position, one.hash))
        .collect();
    assert_eq!(
        entities,
        [("b", 5, hash)],
        "the deleted one is none, the rest is outside"
    );
    assert!(!answer.more);

    let ids = encoded(&[("ids", r#"["b","c","nowhere"]"#)]);
    let answer: DigestChanges = ask(server, &ann(), &ids);
    assert_eq!(answer.position, 6);
    let changes: Vec<_> = (answer.changes.iter())
        .map(|change| (change.id.as_str(), change.position, change_title(change)))
        .collect();
    assert_eq!(changes, [("b", 5, Some("B".to_owned())), ("c", 6, None)]);
}

/// Tenants, scopes and rights as in a pull.
pub fn only_who_may_pull_may_ask<S: Storage>(server: &Server<S>) {
    server.push(&ann(), &[create("k", "a", "secret")]);
    let mallory = Caller::new("other", "mallory", LAPTOP);
    let theirs: DigestRanges = ask(server, &mallory, "");
    assert!(theirs.ranges.is_empty());
    let theirs: DigestChanges = ask(server, &mallory, &encoded(&[("ids", r#"["a"]"#)]));
    assert!(theirs.changes.is_empty());
    let mut reader = ann();
    reader.access = syncline_protocol::Access::Read;
    let answer: DigestRanges = ask(server, &reader, "&scope=default");
    assert_eq!(answer.ranges.len(), 1);

    let get = |query: &str| server.get(&ann(), &format!("/v1/digest?{query}"));
    expect(&get("type=task&scope=all"), 403, "scope-forbidden");
    let many: Vec<String> = (0..=DIGEST_IDS).map(|nth| format!("id{nth}")).collect();
    let many = encoded(&[("ids", &serde_json::to_string(&many).unwrap())]);
    for query in [
        "",
        "scope=default",
        "type=a&type=b",
        "type=a&ids=a",
        "type=a&ids=%5B%221x%22%2C7%5D",
        "type=a&fields=title",
        "type=a&after=%7B",
        "type=a&ids=%5B%5D&until=a",
        &format!("type=a{many}"),
    ] {
        expect(&get(query), 400, "malformed");
    }
    let request =
        Request::new("GET", "/v1/digest?type=task").header("syncline-protocol", "2026-11-01");
    expect(&server.send(&request), 401, "token-missing");
    let request = server.request(&ann(), "POST", "/v1/digest?type=task");
    expect(&server.send(&request), 405, "method-not-allowed");
}
