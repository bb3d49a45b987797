//! Plain REST: the same entities, the same rules, in HTTP's own words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use serde_json::{Value as Json, json};
use syncline_protocol::Access;
use syncline_server::{
    CommandConfig, IdAssignment, MemoryStorage, Request, Response, ServerConfig, Storage,
    StorageError, TypeConfig,
};

/// A request as a program without Syncline sends it.
fn plain<S: Storage>(server: &Server<S>, caller: &Caller, method: &str, target: &str) -> Request {
    let token = format!("Bearer {}", server.token(caller));
    Request::new(method, target).header("authorization", token)
}

fn send<S: Storage>(
    server: &Server<S>,
    (method, target): (&str, &str),
    headers: &[(&str, &str)],
    body: &Json,
) -> Response {
    let mut request = plain(server, &ann(), method, target);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    if !body.is_null() {
        let content_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        request = request.header("content-type", content_type);
        request.body = body.to_string().into_bytes();
    }
    server.send(&request)
}

fn body(response: &Response) -> Json {
    serde_json::from_slice(&response.body).unwrap_or(Json::Null)
}

fn header(response: &Response, name: &str) -> String {
    response.headers.get(name).unwrap_or_default().to_owned()
}

fn get<S: Storage>(server: &Server<S>, target: &str) -> Response {
    send(server, ("GET", target), &[], &Json::Null)
}

const MILK: &str = "/v1/entities/task/milk";

fn with_milk() -> (Server<MemoryStorage>, String) {
    let server = server();
    let created = send(
        &server,
        ("PUT", MILK),
        &[("if-none-match", "*")],
        &json!({"title": "milk", "done": 0}),
    );
    assert_eq!(created.status, 201, "{}", text(&created));
    assert_eq!(header(&created, "location"), MILK);
    let etag = header(&created, "etag");
    (server, etag)
}

#[test]
fn an_entity_lives_and_dies_in_http() {
    let (server, etag) = with_milk();
    let read = get(&server, MILK);
    assert_eq!((read.status, header(&read, "etag")), (200, etag.clone()));
    assert_eq!(body(&read), json!({"title": "milk", "done": 0}));
    for tag in [&etag, "*", &format!("W/{etag}"), &format!("\"x\", {etag}")] {
        let unchanged = send(
            &server,
            ("GET", MILK),
            &[("if-none-match", tag)],
            &Json::Null,
        );
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{tag}");
        assert_eq!(header(&unchanged, "etag"), etag);
    }
    // PATCH: what is mentioned, null meaning NULL.
    let patched = send(
        &server,
        ("PATCH", MILK),
        &[("if-match", &etag)],
        &json!({"done": null}),
    );
    assert_eq!(patched.status, 200, "{}", text(&patched));
    assert_eq!(body(&patched), json!({"title": "milk", "done": null}));
    // PUT: all of it; what is left out becomes NULL.
    let tag = header(&patched, "etag");
    let put = send(
        &server,
        ("PUT", MILK),
        &[("if-match", &tag)],
        &json!({"size": 1.5}),
    );
    assert_eq!(
        body(&put),
        json!({"title": null, "done": null, "size": 1.5})
    );
    assert_eq!(body(&get(&server, MILK)), body(&put));
    // A device sees the same.
    assert_eq!(server.pull(&ann(), None, 10).ids(), ["milk"]);
    let gone = send(&server, ("DELETE", MILK), &[("if-match", "*")], &Json::Null);
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    expect(&get(&server, MILK), 404, "no-entity");
    let again = send(
        &server,
        ("PUT", MILK),
        &[("if-none-match", "*")],
        &json!({}),
    );
    expect(&again, 409, "deleted");
}

#[test]
fn nothing_is_written_over_unseen() {
    let (server, etag) = with_milk();
    let fields = json!({"title": "mine"});
    for method in ["PUT", "PATCH", "DELETE"] {
        let bare = send(&server, (method, MILK), &[], &fields);
        expect(&bare, 428, "precondition-required");
    }
    let created = send(&server, ("PUT", MILK), &[("if-none-match", "*")], &fields);
    expect(&created, 412, "precondition-failed");
    let changed = send(&server, ("PATCH", MILK), &[("if-match", &etag)], &fields);
    assert_eq!(changed.status, 200);
    let state = server.state(&ann());
    for tag in [
        etag.as_str(),
        "\"\"",
        "x",
        &format!("W/{}", header(&changed, "etag")),
    ] {
        for method in ["PUT", "PATCH", "DELETE"] {
            let late = send(&server, (method, MILK), &[("if-match", tag)], &fields);
            expect(&late, 412, "precondition-failed");
        }
    }
    let both = [("if-match", etag.as_str()), ("if-none-match", "*")];
    expect(
        &send(&server, ("PUT", MILK), &both, &fields),
        400,
        "malformed",
    );
    // A tag of another history is none, though the version is the same.
    let tag = header(&changed, "etag");
    let storage = server.service.storage();
    storage.write(|tx| tx.set_epoch(&"e2".into())).unwrap();
    let late = send(&server, ("PATCH", MILK), &[("if-match", &tag)], &fields);
    expect(&late, 412, "precondition-failed");
    storage.write(|tx| tx.set_epoch(&EPOCH.into())).unwrap();
    assert_eq!(server.state(&ann()), state);
}

#[test]
fn a_request_with_a_key_takes_effect_once() {
    let server = server();
    let key = [("idempotency-key", "order-1")];
    let post = |title: &str| {
        let fields = json!({ "title": title });
        send(&server, ("POST", "/v1/entities/task"), &key, &fields)
    };
    let first = post("milk");
    assert_eq!(first.status, 201, "{}", text(&first));
    assert_eq!(header(&first, "idempotency-replayed"), "");
    let again = post("milk");
    assert_eq!(header(&again, "idempotency-replayed"), "true");
    for name in ["etag", "location"] {
        assert_eq!(header(&again, name), header(&first, name), "{name}");
    }
    assert_eq!((again.status, &again.body), (201, &first.body));
    expect(&post("other"), 422, "key-reused");
    let id = header(&first, "location");
    assert_eq!(body(&get(&server, &id)), json!({"title": "milk"}));
    // A refusal is repeated too; and a replay comes before the precondition.
    let tag = header(&first, "etag");
    let patch = |key: &str| {
        let headers = [("if-match", tag.as_str()), ("idempotency-key", key)];
        send(&server, ("PATCH", &id), &headers, &json!({"title": "tea"}))
    };
    assert_eq!(patch("p1").status, 200);
    expect(&patch("p2"), 412, "precondition-failed");
    assert_eq!((patch("p1").status, patch("p2").status), (200, 412));
    assert_eq!(header(&patch("p2"), "idempotency-replayed"), "true");
    // Without a key each request is one of its own.
    let count = server.pull(&ann(), None, 100).end.count;
    for _ in 0..2 {
        let bare = send(&server, ("POST", "/v1/entities/task"), &[], &json!({}));
        assert_eq!(bare.status, 201);
    }
    assert_eq!(server.pull(&ann(), None, 100).end.count, count + 2);
    for bad in ["", "a b", &"x".repeat(65)] {
        let headers = [("idempotency-key", bad)];
        let response = send(&server, ("POST", "/v1/entities/task"), &headers, &json!({}));
        expect(&response, 400, "malformed");
    }
}

fn declared() -> Server<MemoryStorage> {
    let mut config = ServerConfig::default();
    let withdraw = CommandConfig {
        add: [("balance".to_owned(), json!("-$amount"))].into(),
        ..CommandConfig::default()
    };
    let account = TypeConfig {
        schema: Some(json!({"properties": {"balance": {"minimum": 0}}})),
        commands: [("withdraw".to_owned(), withdraw)].into(),
        ..TypeConfig::default()
    };
    let task = TypeConfig {
        id: IdAssignment::Integer,
        ..TypeConfig::default()
    };
    config.types = [("account".to_owned(), account), ("task".to_owned(), task)].into();
    Server::new(MemoryStorage::new(EPOCH), config)
}

#[test]
fn commands_and_refusals_by_field() {
    let server = declared();
    let path = "/v1/entities/account/a%3Ab";
    let fields = json!({"balance": 10});
    let created = send(&server, ("PUT", path), &[("if-none-match", "*")], &fields);
    assert_eq!(created.status, 201, "{}", text(&created));
    let withdraw = |headers: &[(&str, &str)], amount: i64| {
        let target = format!("{path}:withdraw");
        send(
            &server,
            ("POST", &target),
            headers,
            &json!({ "amount": amount }),
        )
    };
    let paid = withdraw(&[("idempotency-key", "w1")], 4);
    assert_eq!((paid.status, body(&paid)), (200, json!({"balance": 6})));
    assert_eq!(
        body(&withdraw(&[("idempotency-key", "w1")], 4)),
        json!({"balance": 6})
    );
    let stale = header(&created, "etag");
    expect(
        &withdraw(&[("if-match", &stale)], 1),
        412,
        "precondition-failed",
    );
    let refused = withdraw(&[], 7);
    expect(&refused, 422, "validation");
    assert_eq!(body(&refused)["errors"][0]["field"], "balance");
    let unknown = send(&server, ("POST", &format!("{path}:rob")), &[], &json!({}));
    expect(&unknown, 404, "unknown-command");
    let absent = "/v1/entities/account/nobody:withdraw";
    let absent = send(&server, ("POST", absent), &[], &json!({"amount": 1}));
    expect(&absent, 404, "no-entity");
    // A type whose ids the server chooses.
    let made = send(&server, ("POST", "/v1/entities/task"), &[], &json!({}));
    assert_eq!(header(&made, "location"), "/v1/entities/task/1");
    let put = send(
        &server,
        ("PUT", "/v1/entities/task/9"),
        &[("if-none-match", "*")],
        &json!({}),
    );
    expect(&put, 422, "id-assignment");
    for method in ["GET", "POST"] {
        let undeclared = send(&server, (method, "/v1/entities/note"), &[], &json!({}));
        expect(&undeclared, 404, "no-entity");
    }
}

#[test]
fn a_list_goes_on_by_its_link() {
    let server = server();
    let batch: Vec<_> = ["a b", "c/d", "e", "é", "z"]
        .iter()
        .map(|id| create(id_key(id), id, id))
        .collect();
    server.push(&ann(), &batch);
    server.push(&ann(), &[delete("gone", "e", version(3))]);
    let mut target = "/v1/entities/task?limit=2".to_owned();
    let mut ids = Vec::new();
    loop {
        let page = get(&server, &target);
        assert_eq!(page.status, 200, "{}", text(&page));
        let json = body(&page);
        for item in json["items"].as_array().unwrap() {
            ids.push(item["id"].as_str().unwrap().to_owned());
            assert_eq!(item["fields"]["title"], item["id"]);
        }
        let Some(next) = json["next"].as_str() else {
            assert_eq!(header(&page, "link"), "");
            break;
        };
        assert_eq!(header(&page, "link"), format!("<{next}>; rel=\"next\""));
        next.clone_into(&mut target);
    }
    assert_eq!(ids, ["a b", "c/d", "z", "é"]);
    assert_eq!(
        body(&get(&server, "/v1/entities/none")),
        json!({"items": []})
    );
    for bad in ["limit=0", "limit=x"] {
        let response = get(&server, &format!("/v1/entities/task?{bad}"));
        expect(&response, 400, "malformed");
    }
}

fn id_key(id: &str) -> &'static str {
    match id {
        "a b" => "k1",
        "c/d" => "k2",
        "e" => "k3",
        "z" => "k5",
        _ => "k4",
    }
}

#[test]
fn bodies_paths_and_methods() {
    let (server, etag) = with_milk();
    let state = server.state(&ann());
    let raw = |method: &str, target: &str, content_type: &str, body: &[u8]| {
        let mut request = plain(&server, &ann(), method, target)
            .header("content-type", content_type)
            .header("if-match", etag.clone());
        request.body = body.to_vec();
        server.send(&request)
    };
    for bad in [
        "",
        "[]",
        "null",
        "{\"a\":true}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":9223372036854775808}",
    ] {
        let response = raw("PUT", MILK, "application/json", bad.as_bytes());
        expect(&response, 400, "malformed");
    }
    let deep = "[".repeat(10_000);
    let deep = raw("PUT", MILK, "application/json", deep.as_bytes());
    expect(&deep, 400, "malformed");
    expect(&raw("PUT", MILK, "text/plain", b"{}"), 415, "content-type");
    expect(
        &raw("PATCH", MILK, "application/json", b"{}"),
        415,
        "content-type",
    );
    let nul = raw("PUT", MILK, "application/json", b"{\"a\":\"\\u0000\"}");
    expect(&nul, 422, "validation");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(300 << 10));
    let large = raw("PUT", MILK, "application/json", large.as_bytes());
    expect(&large, 413, "too-large");
    for (target, status) in [
        ("/v1/entities", 404),
        ("/v1/entities/", 404),
        ("/v1/entities/task/", 404),
        ("/v1/entities/task/a/b", 404),
        ("/v1/entities/%ff/x", 404),
        ("/v1/entities/task/007", 404),
        ("/v1/entities/task/a%00b", 404),
    ] {
        assert_eq!(get(&server, target).status, status, "{target}");
        let put = raw("PUT", target, "application/json", b"{}");
        assert_eq!(put.status, status, "{target}");
    }
    for (method, target, allow) in [
        ("DELETE", "/v1/entities/task", "GET, POST"),
        ("POST", MILK, "GET, PUT, PATCH, DELETE"),
        ("OPTIONS", MILK, "GET, PUT, PATCH, DELETE"),
    ] {
        let response = send(&server, (method, target), &[], &json!({}));
        expect(&response, 405, "method-not-allowed");
        assert_eq!(header(&response, "allow"), allow);
    }
    assert_eq!(server.state(&ann()), state);
}

/// Every call that can be made about an entity, a key or the types.
fn calls() -> Vec<(&'static str, &'static str)> {
    vec![
        ("GET", MILK),
        ("PUT", MILK),
        ("PATCH", MILK),
        ("DELETE", MILK),
        ("POST", "/v1/entities/task/milk:shout"),
        ("GET", "/v1/entities/task"),
        ("POST", "/v1/entities/task"),
        ("GET", "/v1/types"),
        ("PUT", "/v1/types"),
        ("POST", "/v1/mutations/k1/cancel"),
    ]
}

fn call(server: &Server<MemoryStorage>, caller: &Caller, method: &str, target: &str) -> Response {
    let mut request = server
        .request(caller, method, target)
        .header("if-match", "*")
        .json("{\"types\":[]}");
    if method == "PATCH" {
        request = plain(server, caller, method, target)
            .header("if-match", "*")
            .header("content-type", "application/merge-patch+json");
        request.body = b"{}".to_vec();
    }
    if method != "GET" && target.contains("entities") {
        request.body = b"{\"title\":\"theirs\"}".to_vec();
    }
    server.send(&request)
}

#[test]
fn what_is_anothers_is_answered_as_what_is_not_there() {
    let (server, _) = with_milk();
    let state = server.state(&ann());
    let stranger = Caller::new("other", "ann", PHONE);
    for (method, target) in &calls()[..4] {
        let foreign = call(&server, &stranger, method, target);
        let absent = call(&server, &stranger, method, &target.replace("milk", "never"));
        expect(&foreign, 404, "no-entity");
        assert_eq!(foreign.body, absent.body, "{method}");
    }
    let list = call(&server, &stranger, "GET", "/v1/entities/task");
    assert_eq!(body(&list), json!({"items": []}));
    assert_eq!(server.state(&ann()), state);
    // Keys are the subject's and the tenant's own.
    let key = [("idempotency-key", "same")];
    let mine = send(
        &server,
        ("POST", "/v1/entities/task"),
        &key,
        &json!({"a": 1}),
    );
    assert_eq!(mine.status, 201);
    for other in [stranger, Caller::new("acme", "bob", LAPTOP)] {
        let request = plain(&server, &other, "POST", "/v1/entities/task")
            .header("idempotency-key", "same")
            .json("{\"a\":2}");
        let response = server.send(&request);
        assert_eq!(response.status, 201, "{}", text(&response));
        assert_eq!(header(&response, "idempotency-replayed"), "");
    }
}

#[test]
fn without_a_right_there_is_no_way_in() {
    let (server, _) = with_milk();
    let state = server.state(&ann());
    let reader = Caller {
        access: Access::Read,
        ..ann()
    };
    for (method, target) in calls() {
        let mut nobody = Request::new(method, target).header("syncline-protocol", "2026-11-01");
        expect(&server.send(&nobody), 401, "token-missing");
        nobody = nobody.header("authorization", "Bearer x.y.z");
        expect(&server.send(&nobody), 401, "token-invalid");
        let response = call(&server, &reader, method, target);
        match (method, target.contains("mutations")) {
            ("GET", _) | (_, true) => assert_eq!(response.status, 200, "{method} {target}"),
            _ => expect(&response, 403, "read-only"),
        }
    }
    assert_eq!(server.state(&ann()), state);
}

#[test]
fn a_storage_that_fails_has_done_nothing() {
    let mut steps = 0;
    loop {
        let server = server();
        let error = StorageError::internal("planned");
        server.service.storage().fail_after(steps, error);
        let key = [("idempotency-key", "k")];
        let response = send(
            &server,
            ("POST", "/v1/entities/task"),
            &key,
            &json!({"a": 1}),
        );
        if response.status == 201 {
            break;
        }
        expect(&response, 500, "internal");
        let again = send(
            &server,
            ("POST", "/v1/entities/task"),
            &key,
            &json!({"a": 1}),
        );
        assert_eq!(header(&again, "idempotency-replayed"), "", "step {steps}");
        assert_eq!(server.pull(&ann(), None, 10).end.count, 1);
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
}
