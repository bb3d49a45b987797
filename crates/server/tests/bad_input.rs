//! Hostile and odd input: each gets its status and word, and leaves the state as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use serde_json::{Value as Json, json};
use syncline_protocol::{FieldError, Hello, Operation, Outcome};
use syncline_server::{MemoryStorage, Request, ServerConfig};

fn one(fields: &str) -> String {
    format!(
        "{{\"client\":\"{PHONE}\",\"mutations\":[{{\"key\":\"k9\",\"mutation\":\"m\",\
         \"type\":\"task\",\"id\":\"9\",\"op\":\"create\",\"fields\":{fields}}}]}}"
    )
}

#[test]
fn a_problem_quotes_nothing_of_what_was_sent() {
    let server = server();
    for body in [
        r#"{"client":"CLIENT","mutations":"canary"}"#,
        r#"{"client":"CLIENT","mutations":[{"key":"k","mutation":"m","type":"t","id":"1","op":"canary"}]}"#,
        r#"{"client":"CLIENT","mutations":[{"key":"k","mutation":"m","type":"t","id":"1","op":"create","fields":"canary"}]}"#,
        r#"{"client":"CLIENT","mutations":[{"key":"k","mutation":"m","type":"t","id":"1","op":"create","fields":{"f":{"$real":"canary"}}}]}"#,
        r#"{"client":"CLIENT","mutations":[{"key":"k","mutation":"m","type":"t","id":"1","op":"create","fields":{"f":{"$bytes":"canary!"}}}]}"#,
    ] {
        let response = server.push_body(&ann(), body.replace("CLIENT", PHONE));
        assert!((200..500).contains(&response.status), "{body}");
        let answer = String::from_utf8(response.body).unwrap();
        assert!(!answer.contains("canary"), "{answer}");
    }
}

#[test]
fn bodies_that_cannot_be_read() {
    let server = server();
    server.push(&ann(), &[create("k1", "1", "one")]);
    let state = server.state(&ann());
    let whole = one("{\"a\":1}");
    let mut bodies: Vec<Vec<u8>> = (0..whole.len())
        .map(|cut| whole.as_bytes()[..cut].to_vec())
        .collect();
    let nested = |depth: usize| {
        one(&format!(
            "{{\"a\":{}1{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        ))
    };
    let texts = [
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        format!("\u{feff}{whole}"),
        format!("{whole}{whole}"),
        "[".repeat(100_000),
        nested(40),
        nested(10),
        one("{\"a\":1,\"a\":2}"),
        one("[]"),
        one("{\"a\":true}"),
        one("{\"a\":9223372036854775808}"),
        one("{\"a\":-9223372036854775809}"),
        one("{\"a\":-0}"),
        one("{\"a\":1e400}"),
        one("{\"a\":NaN}"),
        one("{\"a\":{\"$blob\":\"?\"}}"),
        one("{\"a\":{\"$blob\":\"AA==\",\"x\":\"\"}}"),
        one("{\"a\":\"\\ud800\"}"),
        whole.replace("\"k9\"", "\"\""),
        whole.replace("\"k9\"", "\"a b\""),
        whole.replace("\"k9\"", "\"a\\r\\nb\""),
        whole.replace("\"k9\"", &format!("\"{}\"", "k".repeat(65))),
        whole.replace("\"k9\"", "7"),
        whole.replace("\"m\"", "\"é\""),
        whole.replace("create", "upsert"),
        whole.replace("\"op\"", "\"key\""),
        whole.replace("\"mutations\"", "\"mutation\""),
        whole.replace("\"op\"", "\"base\":{\"position\":{}},\"op\""),
        whole.replace("\"op\"", "\"base\":\"x\",\"op\""),
        whole.replace(PHONE, "phone"),
        whole.replace(PHONE, &"g".repeat(32)),
        whole.replace(PHONE, LAPTOP), // the header names another client
    ];
    bodies.extend(texts.into_iter().map(String::into_bytes));
    let mut invalid = whole.clone().into_bytes();
    let at = whole.find("task").unwrap();
    invalid[at] = 0xff;
    bodies.push(invalid);
    // Nor in what nobody reads of it.
    let mut unread = whole
        .replacen('{', "{\"later\":{\"a\":\"~\"},", 1)
        .into_bytes();
    let at = unread.iter().position(|byte| *byte == b'~').unwrap();
    unread[at] = 0xff;
    bodies.push(unread);
    for body in bodies {
        let response = server.push_body(&ann(), body.clone());
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        assert_eq!(response.status, 400, "{shown}");
        assert_eq!(problem(&response), (400, "malformed".to_owned()), "{shown}");
        assert_eq!(server.state(&ann()), state, "{shown}");
    }
    // What is not known is ignored: a newer client may say more.
    let newer = whole.replace("\"op\"", "\"later\":[1],\"op\"");
    assert_eq!(server.push_body(&ann(), newer).status, 200);
}

#[test]
fn mutations_that_can_be_read_and_never_accepted() {
    let server = server();
    let long = "x".repeat(200);
    let plain = json!({"title": "x"});
    let cases: [(Json, &str); 12] = [
        (json!({"type": ""}), "validation"),
        (json!({"type": long}), "validation"),
        (json!({"type": "a\nb"}), "validation"),
        (json!({"id": ""}), "validation"),
        (json!({"id": "007"}), "validation"),
        (json!({"id": "x".repeat(257)}), "validation"),
        (json!({"id": "a\u{0}b"}), "validation"),
        (json!({"fields": {"": 1}}), "validation"),
        (json!({"fields": {(long.as_str()): 1}}), "validation"),
        (json!({"fields": {"a\u{7}": 1}}), "validation"),
        (json!({"fields": {"a": "x\u{0}y"}}), "validation"),
        (
            json!({"op": "delete", "base": {"version": {"epoch": "e1", "version": "1"}}}),
            "validation",
        ),
    ];
    for (nth, (change, code)) in cases.into_iter().enumerate() {
        let mut mutation = json!({"key": format!("k{nth}"), "mutation": "m", "type": "task",
            "id": "1", "op": "create", "fields": plain});
        for (name, value) in change.as_object().unwrap() {
            mutation[name] = value.clone();
        }
        let body = json!({"client": PHONE, "mutations": [mutation]}).to_string();
        for duplicate in [false, true] {
            let response = server.push_body(&ann(), body.clone());
            let push: syncline_protocol::PushResponse = serde_json::from_slice(&response.body)
                .unwrap_or_else(|_| panic!("{}", text(&response)));
            assert_eq!(rejected(&push.results[0].outcome), code, "{change}");
            assert_eq!(push.results[0].duplicate, duplicate, "{change}");
        }
    }
    assert_eq!(server.pull(&ann(), None, 10).end.position, 0);
    let nul = mutation(
        "n",
        Operation::Create,
        "1",
        None,
        json!({"a": "\u{0}", "b": "c"}),
    );
    let Outcome::Rejected { errors, .. } = server.push_one(&ann(), &nul) else {
        panic!("U+0000 was taken");
    };
    let named: Vec<&FieldError> = errors.iter().collect();
    assert_eq!((named.len(), named[0].field.as_str()), (1, "a"));
}

#[test]
fn sizes_beyond_the_limits() {
    let mut config = ServerConfig::default();
    config.limits.push_mutations = 3;
    config.limits.mutation_bytes = 1000;
    config.limits.push_bytes = 5000;
    let server = Server::new(MemoryStorage::new(EPOCH), config);
    let many = ["a", "b", "c", "d"].map(|id| create(id, id, id));
    let body = json!({"client": PHONE, "mutations": many}).to_string();
    expect(&server.push_body(&ann(), body), 413, "batch-too-large");
    expect(
        &server.push_body(&ann(), vec![b' '; 5001]),
        413,
        "body-too-large",
    );
    let results = server.push(
        &ann(),
        &[
            create("k1", "1", &"x".repeat(1000)),
            create("k2", "2", "small"),
        ],
    );
    assert_eq!(rejected(&results[0].outcome), "too-large");
    assert_eq!(results[1].outcome, applied(1), "the others go on");
}

#[test]
fn content_types() {
    let server = server();
    let push = |content_type: Option<&str>| {
        let mut request = server.request(&ann(), "POST", "/v1/push");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        request.body = one("{}").into_bytes();
        server.send(&request)
    };
    let bad = [
        None,
        Some(""),
        Some("text/plain"),
        Some("application/jsonx"),
        Some("application/json; charset=latin1"),
        Some("multipart/form-data; boundary=application/json"),
    ];
    for content_type in bad {
        expect(&push(content_type), 415, "content-type");
    }
    for content_type in ["application/json", "Application/JSON; charset=\"UTF-8\""] {
        assert_eq!(push(Some(content_type)).status, 200);
    }
}

#[test]
fn paths_methods_and_versions() {
    let server = server();
    for path in [
        "/",
        "",
        "/v1",
        "/v1/",
        "/v1/push/",
        "/v2/push",
        "/v1//push",
        "/V1/push",
        "/v1/push%00",
        "/../v1/push",
        "/healthz/x",
        "/v1/mutations//cancel",
        "/v1/mutations/k/cancel/",
        "/v1/types/",
        "/v1/types/task",
    ] {
        expect(&server.get(&ann(), path), 404, "not-found");
    }
    for (method, path, allow) in [
        ("GET", "/v1/push", "POST"),
        ("POST", "/v1/pull", "GET"),
        ("DELETE", "/v1/mutations/k", "GET"),
        ("HEAD", "/v1/hello", "GET"),
        ("GET", "/v1/mutations/k/cancel", "POST"),
        ("POST", "/v1/types", "GET, PUT"),
        ("DELETE", "/v1/types", "GET, PUT"),
        ("POST", "/healthz", "GET"),
        ("G\u{1b}[31m", "/healthz", "GET"),
    ] {
        let response = server.send(&server.request(&ann(), method, path));
        expect(&response, 405, "method-not-allowed");
        assert_eq!(response.headers.get("allow"), Some(allow));
    }
    for version in [None, Some(""), Some("2026-11-02"), Some("\u{1b}[31m")] {
        let token = format!("Bearer {}", server.token(&ann()));
        let mut request = Request::new("GET", "/v1/hello").header("authorization", token);
        if let Some(version) = version {
            request = request.header("syncline-protocol", version);
        }
        let response = server.send(&request);
        expect(&response, 400, "protocol-unsupported");
        assert!(
            text(&response).contains("2026-11-01"),
            "it lists what it speaks"
        );
    }
}

#[test]
fn queries() {
    let server = server();
    for query in [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1&limit=2",
        "limit=1.5",
        "scope=default&scope=default",
        "limit=99999999999999999999999",
        "bytes=0",
        "bytes=x",
    ] {
        let response = server.get(&ann(), &format!("/v1/pull?{query}"));
        expect(&response, 400, "malformed");
    }
    for query in [
        "",
        "limit=1000000",
        "bytes=99999999",
        "unknown=1&unknown=2",
        "scope=default",
        "&&&",
    ] {
        let response = server.get(&ann(), &format!("/v1/pull?{query}"));
        assert_eq!(response.status, 200, "{query}");
    }
}

#[test]
fn the_request_id_is_echoed_when_it_is_one() {
    let server = server();
    let echo = |id: &str| {
        let request = Request::new("GET", "/healthz").header("syncline-request", id);
        let response = server.send(&request);
        response.headers.get("syncline-request").map(str::to_owned)
    };
    assert_eq!(echo("r-1"), Some("r-1".to_owned()));
    let longest = "x".repeat(64);
    assert_eq!(echo(&longest), Some(longest.clone()));
    for bad in ["", "a b", "a\r\nset-cookie: x", "é", &"x".repeat(65)] {
        assert_eq!(echo(bad), None, "{bad:?}");
    }
    // Errors carry it too.
    let missing = Request::new("GET", "/nowhere").header("syncline-request", "r-2");
    let response = server.send(&missing);
    assert_eq!(response.headers.get("syncline-request"), Some("r-2"));
}

#[test]
fn hello_and_health() {
    let server = server();
    let response = server.get(&ann(), "/v1/hello");
    let hello: Hello = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(hello.protocol_versions, ["2026-11-01"]);
    assert_eq!(hello.epoch.as_str(), EPOCH);
    assert_eq!(hello.server_time_ms, server.now_ms.get());
    assert_eq!(hello.principal, ann().identity().principal);
    assert_eq!(hello.scopes[0].scope.as_str(), "default");
    let health = server.send(&Request::new("GET", "/healthz"));
    assert_eq!(
        (health.status, text(&health).as_str()),
        (200, "{\"status\":\"ready\"}")
    );
}
