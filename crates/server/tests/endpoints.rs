//! Plain REST, cancelling, type definitions and the purge over real sockets: methods, targets and
//! headers arrive as they were sent, and come back so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;
#[path = "common/sockets.rs"]
mod sockets;

use common::*;
use reqwest::{Method, Response};
use serde_json::{Value as Json, json};
use sockets::*;
use std::time::{Duration, Instant};
use syncline_server::{HttpConfig, MemoryStorage, ServerConfig};

/// As a program without Syncline sends it.
async fn send(
    running: &Running,
    (method, path): (Method, &str),
    headers: &[(&str, &str)],
    body: Json,
) -> Response {
    let mut request = running.client.request(method, running.url(path));
    request = request.bearer_auth(&running.token);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_null() {
        request = request.body(body.to_string());
    }
    within(5, request.send()).await.unwrap()
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

async fn json_of(response: Response) -> Json {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

const JSON: (&str, &str) = ("content-type", "application/json");
const PATCH: (&str, &str) = ("content-type", "application/merge-patch+json");

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_lives_and_dies_over_the_wire() {
    let running = start(HttpConfig::default()).await;
    // An id that has to be escaped, as a client writes it.
    let milk = "/v1/entities/task/oat%20milk%2F1%25";
    let absent = ("if-none-match", "*");
    let created = send(
        &running,
        (Method::PUT, milk),
        &[JSON, absent],
        json!({"title": "milk"}),
    )
    .await;
    assert_eq!(created.status(), 201);
    assert_eq!(header(&created, "location"), milk);
    let etag = header(&created, "etag");

    let read = send(&running, (Method::GET, milk), &[], Json::Null).await;
    assert_eq!(
        (read.status().as_u16(), header(&read, "etag")),
        (200, etag.clone())
    );
    assert_eq!(json_of(read).await, json!({"title": "milk"}));
    let same = send(
        &running,
        (Method::GET, milk),
        &[("if-none-match", &etag)],
        Json::Null,
    )
    .await;
    assert_eq!(
        (same.status().as_u16(), header(&same, "etag")),
        (304, etag.clone())
    );
    assert!(same.bytes().await.unwrap().is_empty());

    let key = ("idempotency-key", "once");
    let headers = [PATCH, ("if-match", etag.as_str()), key];
    let patched = send(
        &running,
        (Method::PATCH, milk),
        &headers,
        json!({"done": 1}),
    )
    .await;
    assert_eq!(patched.status(), 200);
    let newer = header(&patched, "etag");
    assert_ne!(newer, etag);
    let again = send(
        &running,
        (Method::PATCH, milk),
        &headers,
        json!({"done": 1}),
    )
    .await;
    assert_eq!(header(&again, "idempotency-replayed"), "true");
    assert_eq!(header(&again, "etag"), newer);
    assert_eq!(json_of(again).await, json!({"title": "milk", "done": 1}));
    let stale = [PATCH, ("if-match", etag.as_str())];
    let refused = send(&running, (Method::PATCH, milk), &stale, json!({"done": 2})).await;
    assert_eq!(refused.status(), 412);
    let unseen = send(&running, (Method::DELETE, milk), &[], Json::Null).await;
    assert_eq!(unseen.status(), 428);

    let listed = send(
        &running,
        (Method::GET, "/v1/entities/task?limit=1"),
        &[],
        Json::Null,
    )
    .await;
    assert_eq!(json_of(listed).await["items"][0]["id"], "oat milk/1%");
    let gone = send(
        &running,
        (Method::DELETE, milk),
        &[("if-match", &newer)],
        Json::Null,
    )
    .await;
    assert_eq!(gone.status(), 204);
    let missing = send(&running, (Method::GET, milk), &[], Json::Null).await;
    assert_eq!(missing.status(), 404);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_cancelled_and_asked_about_over_the_wire() {
    let running = start(HttpConfig::default()).await;
    let cancel = running.mark(
        running
            .client
            .post(running.url("/v1/mutations/k%2F0/cancel")),
    );
    let cancel = cancel.header("syncline-client", PHONE);
    let answer = within(5, cancel.send()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = json_of(answer).await;
    assert!(answer.to_string().contains("cancelled"), "{answer}");
    let late = json!({"client": PHONE, "mutations": [create("k/0", "milk", "milk")]});
    let pushed = running.push().body(late.to_string()).send().await.unwrap();
    let pushed = json_of(pushed).await;
    assert!(pushed.to_string().contains("cancelled"), "{pushed}");
    let asked = running
        .get("/v1/mutations/k%2F0")
        .header("syncline-client", PHONE);
    assert_eq!(json_of(asked.send().await.unwrap()).await, {
        let mut same = answer;
        same["result"]["duplicate"] = json!(true);
        same
    });
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn type_definitions_go_and_come_over_the_wire() {
    let running = start(HttpConfig::default()).await;
    let types = json!({"types": [{
        "name": "task", "table": "tasks", "schema_version": 3,
        "columns": [{"name": "id", "declared": "INTEGER"},
                    {"name": "title", "declared": "TEXT", "default": "ä\u{1F600}"}],
        "key": ["id"],
    }]});
    let put = running.mark(running.client.put(running.url("/v1/types")));
    let put = put
        .header("content-type", "application/json")
        .body(types.to_string());
    let told = within(5, put.send()).await.unwrap();
    assert_eq!(told.status(), 200);
    assert_eq!(json_of(told).await, types);
    let kept = running.get("/v1/types").send().await.unwrap();
    assert_eq!(json_of(kept).await, types);
    running.stop().await;
}

/// The running server forgets by itself what is past its retention, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_forgets_keys_from_time_to_time() {
    let config = ServerConfig {
        key_retention_ms: 1,
        ..ServerConfig::default()
    };
    let http = HttpConfig {
        purge_interval: Duration::from_millis(20),
        ..HttpConfig::default()
    };
    let running = start_with(MemoryStorage::new(EPOCH), config, http).await;
    for round in 0..2 {
        let (key, id) = (format!("k{round}"), format!("i{round}"));
        let body = json!({"client": PHONE, "mutations": [create(&key, &id, "x")]}).to_string();
        let pushed = running.push().body(body).send().await.unwrap();
        assert_eq!(pushed.status(), 200);
        let path = format!("/v1/mutations/{key}");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let asked = running.get(&path).header("syncline-client", PHONE);
            let answer = json_of(asked.send().await.unwrap()).await.to_string();
            if !answer.contains("applied") {
                break;
            }
            assert!(Instant::now() < deadline, "never forgotten: {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    running.stop().await;
}
