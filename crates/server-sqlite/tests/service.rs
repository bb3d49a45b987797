//! The protocol over SQLite: many threads at once, and a restart in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

#[path = "../../server/tests/common/mod.rs"]
mod common;

use common::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use syncline_protocol::{ChangeKind, Mutation, Outcome, PushResponse};
use syncline_server::{Now, Request, ServerConfig, Service};
use syncline_server_sqlite::SqliteStorage;

fn open(directory: &Path) -> Server<SqliteStorage> {
    let storage = SqliteStorage::open(directory).unwrap();
    Server::new(storage, ServerConfig::default())
}

fn batch() -> Vec<Mutation> {
    (0..20)
        .flat_map(|nth| {
            let (key, id) = (format!("c{nth}"), format!("id{nth}"));
            let edit = update(&format!("u{nth}"), &id, after(&key), "edited");
            [create(&key, &id, "made"), edit]
        })
        .collect()
}

/// For threads: `Server` itself holds a clock that only one may turn.
fn push(service: &Service<SqliteStorage>, request: &Request) -> PushResponse {
    let now = Now::from_unix_ms(1_800_000_000_000);
    loop {
        let response = service.handle(request, now);
        if response.status == 200 {
            return serde_json::from_slice(&response.body).unwrap();
        }
        assert_eq!(response.status, 503, "{}", text(&response));
    }
}

#[test]
fn the_same_push_from_many_threads_takes_effect_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = open(directory.path());
    let body = serde_json::json!({"client": PHONE, "mutations": batch()}).to_string();
    let request = server.request(&ann(), "POST", "/v1/push").json(body);
    let service = &server.service;
    let answers: Vec<_> = std::thread::scope(|threads| {
        let all: Vec<_> = (0..6)
            .map(|_| threads.spawn(|| push(service, &request)))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let first = answers
        .iter()
        .filter(|answer| answer.results.iter().all(|result| !result.duplicate));
    assert_eq!(first.count(), 1, "exactly one of them did it");
    for nth in 0..batch().len() {
        let outcome = &answers[0].results[nth].outcome;
        assert!(matches!(outcome, Outcome::Applied { .. }));
        assert!(
            answers
                .iter()
                .all(|answer| &answer.results[nth].outcome == outcome)
        );
    }
    let page = server.pull(&ann(), None, 100);
    assert_eq!((page.end.position, page.end.count), (40, 20));
}

/// Three writers, each making rows and editing them.
fn requests_of_writers(server: &Server<SqliteStorage>) -> Vec<Vec<Request>> {
    (0..3)
        .map(|writer| {
            (0..15)
                .map(|nth| {
                    let (key, id) = (
                        format!("w{writer}-{nth}"),
                        format!("row{writer}-{}", nth / 2),
                    );
                    let mutation = match nth % 2 {
                        0 => create(&key, &id, &key),
                        _ => update(&key, &id, after(&format!("w{writer}-{}", nth - 1)), &key),
                    };
                    let body = serde_json::json!({"client": PHONE, "mutations": [mutation]});
                    server
                        .request(&ann(), "POST", "/v1/push")
                        .json(body.to_string())
                })
                .collect()
        })
        .collect()
}

#[test]
fn a_pull_beside_writers_ends_with_their_rows() {
    let directory = tempfile::tempdir().unwrap();
    let server = open(directory.path());
    server.push(&ann(), &batch());
    let requests = requests_of_writers(&server);
    let service = &server.service;
    let done = AtomicBool::new(false);
    let mut rows = BTreeMap::new();
    std::thread::scope(|threads| {
        let writers: Vec<_> = requests
            .iter()
            .map(|own| {
                threads.spawn(move || {
                    for request in own {
                        let answer = push(service, request);
                        let outcome = &answer.results[0].outcome;
                        assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
                    }
                })
            })
            .collect();
        let waiter = threads.spawn(|| {
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut cursor = None;
        loop {
            let last_look = done.load(Ordering::SeqCst);
            let page = server.pull(&ann(), cursor.as_deref(), 3);
            for change in &page.changes {
                let id = change.id.as_str().to_owned();
                rows.insert(id, (change.version.clone(), change.kind.clone()));
            }
            cursor = Some(page.end.cursor);
            if last_look && page.end.at_head {
                break;
            }
        }
        waiter.join().unwrap();
    });
    let snapshot: BTreeMap<_, _> = server
        .pull(&ann(), None, 1000)
        .changes
        .into_iter()
        .map(|change| (change.id.as_str().to_owned(), (change.version, change.kind)))
        .collect();
    assert_eq!(rows, snapshot);
    assert_eq!(snapshot.len(), 20 + 3 * 8);
    assert!(
        snapshot
            .values()
            .all(|(_, kind)| matches!(kind, ChangeKind::Upsert(_)))
    );
}

#[test]
fn keys_and_cursors_hold_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = open(directory.path());
    let first = server.push(&ann(), &batch());
    let page = server.pull(&ann(), None, 7);
    let state = server.state(&ann());
    drop(server);
    let server = open(directory.path());
    let again = server.push(&ann(), &batch());
    assert!(again.iter().all(|result| result.duplicate));
    let outcomes = |results: &[syncline_protocol::PushResult]| -> Vec<Outcome> {
        results
            .iter()
            .map(|result| result.outcome.clone())
            .collect()
    };
    assert_eq!(outcomes(&again), outcomes(&first));
    assert_eq!(
        server.pull(&ann(), Some(&page.end.cursor), 100).end.count,
        13
    );
    assert_eq!(server.state(&ann()), state);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = open(elsewhere.path());
    let target = format!("/v1/pull?cursor={}", page.end.cursor);
    expect(&other.get(&ann(), &target), 400, "cursor-invalid");
}
