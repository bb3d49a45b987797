//! What a server reads: pushes, REST bodies, targets, cursors, tokens, compressed bodies, its
//! configuration.

use crate::texts;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use std::path::Path;
use syncline_protocol::{
    Access, HEADER_CLIENT, HEADER_PROTOCOL, PROTOCOL_VERSION, Principal, PullLine, PushRequest,
    PushResponse,
};
use syncline_server::{
    Authenticator, Identity, MemoryStorage, Now, Request, Response, ServerConfig, Service, Storage,
    issue_token,
};

const SECRET: &[u8] = b"a secret of at least 32 bytes for tests";
const CLIENT: &str = "00000000000000000000000000000001";

fn now() -> Now {
    Now::from_unix_ms(1_800_000_000_000)
}

/// A server that has a few entities, and a token for it.
struct Server {
    service: Service<MemoryStorage>,
    token: String,
}

impl Server {
    fn new() -> Self {
        let storage = MemoryStorage::new("0123456789abcdef");
        let authenticator = Authenticator::hs256(SECRET).unwrap();
        let service = Service::new(storage, authenticator, ServerConfig::default()).unwrap();
        let identity = Identity {
            principal: Principal {
                tenant: "acme".to_owned(),
                subject: "ann".to_owned(),
            },
            access: Access::Write,
        };
        let token = issue_token(SECRET, &identity, now(), 3600).unwrap();
        let server = Self { service, token };
        let beginning = json!({"client": CLIENT, "mutations": [
            {"key": "k1", "mutation": "k1", "type": "task", "id": "1", "op": "create", "fields": {"title": "one"}},
            {"key": "k2", "mutation": "k2", "type": "task", "id": "2", "op": "create", "fields": {"title": "two", "n": 1}},
            {"key": "k3", "mutation": "k3", "type": "task", "id": "2", "op": "delete", "base": {"after": "k2"}},
        ]});
        let made = server.ask(
            server
                .request("POST", "/v1/push")
                .json(beginning.to_string()),
        );
        assert_eq!(made.status, 200);
        server
    }

    fn request(&self, method: &str, target: &str) -> Request {
        Request::new(method, target)
            .header(HEADER_PROTOCOL, PROTOCOL_VERSION)
            .header(HEADER_CLIENT, CLIENT)
            .header("authorization", format!("Bearer {}", self.token))
    }

    /// Asks. Whatever was asked, the answer is no fault of the server's own, and a problem says so.
    fn ask(&self, request: Request) -> Response {
        let response = self.service.handle(&request, now());
        assert!(response.status < 500, "{}: {response:?}", response.status);
        if response.status >= 400 {
            let problem: Json = serde_json::from_slice(&response.body).expect("a problem");
            assert!(problem["type"].is_string(), "{problem}");
        }
        response
    }

    fn head(&self) -> i64 {
        let storage = self.service.storage();
        storage
            .read(|tx| tx.head("acme", &"default".into()))
            .unwrap()
    }

    /// Everything, as a pull tells it.
    fn listing(&self) -> Vec<u8> {
        let response = self.ask(self.request("GET", "/v1/pull?limit=1000"));
        assert_eq!(response.status, 200);
        for line in response.body.split(|byte| *byte == b'\n') {
            let line: Option<PullLine> = match line {
                [] => None,
                line => Some(serde_json::from_slice(line).expect("what was taken can be told")),
            };
            drop(line);
        }
        response.body.to_vec()
    }
}

/// The body of a push. Sent again it says the same and does nothing; refused, it did nothing. A struct
/// and a tree read it alike.
pub(crate) fn push_request(data: &[u8]) {
    let server = Server::new();
    let before = server.head();
    let push = || server.ask(server.request("POST", "/v1/push").json(data.to_vec()));
    let first = push();
    let read = serde_json::from_slice::<PushRequest>(data);
    if first.status != 200 {
        assert_eq!(server.head(), before, "refused, and something happened");
        return;
    }
    let read = read.expect("what was answered was read");
    // A tree also reads what a struct passes over, where half a surrogate pair may stand.
    if let Ok(tree) = serde_json::from_slice::<Json>(data) {
        let through_tree: PushRequest = serde_json::from_value(tree).expect("read as a tree");
        assert_eq!(read, through_tree, "a struct and a tree differ");
    }
    let written = serde_json::to_vec(&read).unwrap();
    assert_eq!(
        serde_json::from_slice::<PushRequest>(&written).unwrap(),
        read
    );

    let answer: PushResponse = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(
        answer.results.len(),
        read.mutations.len(),
        "a result for each"
    );
    let (after, listing) = (server.head(), server.listing());
    let again = push();
    if again.status == 200 {
        let again: PushResponse = serde_json::from_slice(&again.body).unwrap();
        for (first, again) in answer.results.iter().zip(&again.results) {
            assert_eq!(first.key, again.key);
            if first.outcome.is_final() {
                assert_eq!(first.outcome, again.outcome, "two answers for one key");
            }
        }
    }
    let open = answer
        .results
        .iter()
        .any(|result| !result.outcome.is_final());
    assert!(open || server.head() == after, "a second effect");
    assert!(open || server.listing() == listing);
}

pub(crate) fn push_seeds() -> Vec<Vec<u8>> {
    let push = |mutations: Json| json!({"client": CLIENT, "mutations": mutations}).to_string();
    let one = |id: &str, more: Json| {
        let mut mutation = json!({"key": "a", "mutation": "a", "type": "task", "id": id});
        let own = mutation.as_object_mut().unwrap();
        own.extend(more.as_object().unwrap().clone());
        mutation
    };
    let values = json!({"n": null, "i": -9_223_372_036_854_775_807_i64, "r": 0.1, "t": "tëxt", "b": {"$blob": "AP8"}});
    let base =
        json!({"position": {"epoch": "0123456789abcdef", "scope": "default", "position": 3}});
    [
        push(json!([])),
        push(json!([one("3", json!({"op": "create", "fields": values}))])),
        push(json!([one("[1,\"a\"]", json!({"op": "create", "fields": {}, "assign": "if-taken"}))])),
        push(json!([one("1", json!({"op": "update", "base": base, "fields": {"title": "new"}}))])),
        push(json!([one("1", json!({"op": "update", "base": {"version": {"epoch": "0123456789abcdef", "version": "1"}}, "fields": {"title": "x"}}))])),
        push(json!([one("1", json!({"op": "delete", "base": {"after": "k1"}}))])),
        push(json!([one("2", json!({"op": "create", "fields": {"title": "again"}}))])),
        push(json!([one("1", json!({"op": "update", "command": {"name": "ship", "args": {"n": 1}}}))])),
        json!({"client": CLIENT, "groups": [["a", "b"]], "inherited": {"a": "00000000000000000000000000000002"},
               "mutations": [one("5", json!({"op": "create", "covers": ["c"]})),
                             {"key": "b", "mutation": "b", "type": "note", "id": "x'00ff'", "op": "create"}]}).to_string(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// The body of a REST write; the first byte chooses the method.
pub(crate) fn rest_body(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else {
        return;
    };
    let server = Server::new();
    let (head, before) = (server.head(), server.listing());
    let (method, precondition) = [
        ("PATCH", ("if-match", "*")),
        ("PUT", ("if-match", "*")),
        ("PUT", ("if-none-match", "*")),
        ("POST", ("accept", "*/*")),
    ][usize::from(choice % 4)];
    let target = match (method, precondition.0) {
        ("POST", _) => "/v1/entities/task",
        (_, "if-none-match") => "/v1/entities/task/new",
        _ => "/v1/entities/task/1",
    };
    let content_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let mut request = Request::new(method, target)
        .header("authorization", format!("Bearer {}", server.token))
        .header("idempotency-key", "rest-1")
        .header("content-type", content_type)
        .header(precondition.0, precondition.1);
    request.body = body.to_vec();
    let response = server.ask(request);
    if response.status >= 400 {
        assert_eq!(server.head(), head, "refused, and something happened");
        assert_eq!(server.listing(), before);
        return;
    }
    let sent: serde_json::Map<String, Json> = serde_json::from_slice(body).expect("an object");
    let read = server.ask(
        Request::new("GET", response.headers.get("location").unwrap_or(target))
            .header("authorization", format!("Bearer {}", server.token)),
    );
    assert_eq!(read.status, 200);
    let now: serde_json::Map<String, Json> = serde_json::from_slice(&read.body).unwrap();
    assert!(server.listing() != before || sent.is_empty() || method == "PATCH");
    for name in sent.keys() {
        assert!(now.contains_key(name), "{name} was sent and is not there");
    }
    if method == "PATCH" && !sent.contains_key("title") {
        assert_eq!(now["title"], "one", "a field that was not sent changed");
    }
}

pub(crate) fn rest_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "0{\"title\":\"new\"}",
        "0{\"title\":null,\"n\":1}",
        "0{}",
        "1{\"n\":9007199254740993,\"r\":-0.0}",
        "2{\"title\":\"x\",\"b\":{\"$blob\":\"AP8\"}}",
        "3{\"title\":\"posted\"}",
    ])
}

/// Anything as the target of a GET or DELETE.
pub(crate) fn request_target(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else {
        return;
    };
    let server = Server::new();
    let head = server.head();
    for method in ["GET", "DELETE"] {
        let request = server.request(method, target).header("if-match", "*");
        let response = server.ask(request);
        let own = target.starts_with("/v1/entities/") && method == "DELETE";
        assert!(
            own || server.head() == head,
            "{method} {target} changed something"
        );
        assert_eq!(
            response.headers.get(HEADER_PROTOCOL),
            Some(PROTOCOL_VERSION),
            "{target}"
        );
    }
}

pub(crate) fn target_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "/v1/hello",
        "/v1/pull?scope=default&limit=10",
        "/v1/pull?cursor=abc",
        "/v1/live?scope=default",
        "/v1/mutations/k1",
        "/v1/types",
        "/v1/entities/task",
        "/v1/entities/task/1",
        "/v1/entities/task/%5B1%2C%22a%22%5D?limit=2",
        "/healthz",
    ])
}

/// A cursor: only one that this server made is taken.
pub(crate) fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // What means something in a target of its own is another question.
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return;
    }
    let server = Server::new();
    let target = format!("/v1/pull?limit=1&cursor={text}");
    let response = server.ask(server.request("GET", &target));
    match response.status {
        200 => assert!(
            text.is_empty() || cursors(&server).iter().any(|own| own == text),
            "a cursor that was never handed out was taken: {text}"
        ),
        400 | 410 => {}
        other => panic!("{other} for cursor {text:?}"),
    }
}

/// The cursors that the server hands out while it is read in pages of one.
fn cursors(server: &Server) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for _ in 0..10 {
        let cursor = found.last().map(|cursor| format!("&cursor={cursor}"));
        let target = format!("/v1/pull?limit=1{}", cursor.unwrap_or_default());
        let response = server.ask(server.request("GET", &target));
        for line in response.body.split(|byte| *byte == b'\n') {
            if let Ok(PullLine::Page(end)) = serde_json::from_slice(line) {
                found.push(end.cursor.to_string());
            }
        }
    }
    found
}

pub(crate) fn cursor_seeds() -> Vec<Vec<u8>> {
    let mut seeds = cursors(&Server::new());
    seeds.dedup();
    seeds.truncate(4);
    let mut seeds: Vec<Vec<u8>> = seeds.into_iter().map(String::into_bytes).collect();
    seeds.extend(texts(&["abc", "AAAA"]));
    seeds
}

/// A token as it is sent, and the same bytes as claims that are signed with the right secret. No token
/// but those that carry a signature of that secret is ever believed.
pub(crate) fn token(data: &[u8]) {
    let server = Server::new();
    let hello = |token: &str| {
        server
            .ask(
                Request::new("GET", "/v1/hello")
                    .header(HEADER_PROTOCOL, PROTOCOL_VERSION)
                    .header("authorization", format!("Bearer {token}")),
            )
            .status
    };
    if let Ok(text) = std::str::from_utf8(data) {
        let status = hello(text);
        let own = text.trim() == server.token || token_seeds().iter().any(|seed| seed == data);
        assert!(
            status == 401 || (own && status == 200),
            "{status} for {text:?}"
        );
    }
    if let Ok(claims) = serde_json::from_slice::<&RawValue>(data) {
        let key = EncodingKey::from_secret(SECRET);
        let signed = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
        let status = hello(&signed.expect("JSON can be signed"));
        let tree: Json = serde_json::from_slice(data).unwrap_or_default();
        if status == 200 {
            assert!(
                tree["sub"].is_string(),
                "believed without a subject: {tree}"
            );
            let until = tree["exp"].as_f64().unwrap_or_default();
            assert!(until > 1_799_999_000.0, "believed after its end: {tree}");
        } else {
            assert_eq!(status, 401);
        }
    }
}

pub(crate) fn token_seeds() -> Vec<Vec<u8>> {
    let mut seeds = texts(&[
        "{\"sub\":\"ann\",\"aud\":\"syncline\",\"exp\":1800003600,\"tenant\":\"acme\",\"access\":\"write\"}",
        "{\"sub\":\"ann\",\"aud\":[\"syncline\",\"other\"],\"exp\":1.8e9,\"nbf\":1700000000}",
        "{\"sub\":\"ann\",\"aud\":\"other\",\"exp\":1800003600}",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
    ]);
    seeds.push(Server::new().token.into_bytes());
    seeds
}

/// A compressed body; the first byte chooses the coding. What is compressed is read back; nothing
/// grows beyond the bound.
pub(crate) fn compressed_body(data: &[u8]) {
    const LIMIT: usize = 32 << 10;
    let Some((&choice, body)) = data.split_first() else {
        return;
    };
    let coding = ["gzip", "zstd", "identity", "deflate"][usize::from(choice % 4)];
    let decoded = syncline_server::fuzzing::decode(body.to_vec(), Some(coding), LIMIT);
    if let Ok(decoded) = &decoded {
        assert!(coding == "identity" || decoded.len() <= LIMIT);
    }
    for coding in ["gzip", "zstd"] {
        let packed = syncline_server::fuzzing::encode(body.to_vec(), coding);
        if let Some(packed) = packed {
            let back = syncline_server::fuzzing::decode(packed, Some(coding), LIMIT);
            assert_eq!(back.as_deref(), Ok(body), "{coding}");
        }
    }
}

pub(crate) fn compressed_seeds() -> Vec<Vec<u8>> {
    let text = "{\"client\":\"x\",\"mutations\":[]} ".repeat(40);
    let mut seeds = Vec::new();
    for (choice, coding) in [(0_u8, "gzip"), (1, "zstd")] {
        let mut seed = vec![choice];
        let packed = syncline_server::fuzzing::encode(text.clone().into_bytes(), coding);
        seed.extend(packed.expect("it is long enough"));
        seeds.push(seed);
    }
    seeds.push(b"2plain".to_vec());
    seeds.push([b"2".as_slice(), &[b'a'; 1500]].concat());
    seeds
}

/// `server.toml`. What is read makes a service, or says why not.
pub(crate) fn server_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Files named by a configuration are the operator's own; here there are none.
    match ServerConfig::parse(text, Path::new("/nonexistent/server.toml")) {
        Ok(config) => {
            assert!(config.key_retention_ms >= 0 && config.tombstone_retention_ms >= 0);
            let storage = MemoryStorage::new("0123456789abcdef");
            let authenticator = Authenticator::hs256(SECRET).unwrap();
            if let Err(error) = Service::new(storage, authenticator, config) {
                assert!(!error.to_string().is_empty());
            }
        }
        Err(error) => assert!(error.to_string().len() > 10, "{error}"),
    }
}

pub(crate) fn config_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "",
        "key_retention_days = 90\ntombstone_retention_days = 30\n",
        "[limits]\npush_mutations = 10\npush_bytes = 1000\n",
        "[types.task]\nid = \"client\"\nunique = [[\"title\"]]\n",
        "[types.task.schema]\ntype = \"object\"\n[types.task.schema.properties.title]\ntype = \"string\"\n",
        "[types.task.references]\nproject = \"project\"\n[types.task.commands.ship]\n",
    ])
}
