//! Requests to ask and good answers to give.

use crate::server::{Received, Reply, Server};
use std::time::Duration;
use syncline_core::{
    Batch, BatchEntry, EntityRef, Fetched, Page, Remote, RemoteAnswer, RemoteError, RemoteRequest,
    Wanted,
};
use syncline_protocol::{ClientId, EntityId, Hello, Operation, PushResponse, Scope};
use syncline_remote_http::{HttpRemote, HttpRemoteBuilder};

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const PROBLEM: &str = "application/problem+json";

pub(crate) const HELLO: &str = r#"{"protocol_versions":["2026-11-01"],"server":"test","epoch":"e","server_time_ms":1,"principal":{"tenant":"t","subject":"s"},"scopes":[],"limits":{"push_mutations":1,"push_bytes":1,"mutation_bytes":1,"page_changes":1},"key_retention_ms":1}"#;
pub(crate) const PUSHED: &str =
    r#"{"epoch":"e","results":[{"key":"k1","outcome":"applied","version":"1","position":4}]}"#;
pub(crate) const FETCHED: &str = r#"{"epoch":"e","position":7,"changes":[{"type":"task","id":"1","op":"delete","version":"6","position":6}]}"#;
pub(crate) const CHANGE: &str = r#"{"change":{"type":"task","id":"a","op":"upsert","version":"1","position":4,"fields":{"title":"milk"}}}"#;
pub(crate) const END: &str =
    r#"{"page":{"cursor":"c","position":4,"count":1,"phase":"feed","at_head":true}}"#;

pub(crate) fn client() -> ClientId {
    ClientId::new("0123456789abcdef0123456789abcdef")
}

/// A builder whose time-outs suit tests.
pub(crate) fn builder(server: &Server) -> HttpRemoteBuilder {
    HttpRemote::builder(&server.url).request_timeout(Duration::from_secs(5))
}

pub(crate) async fn hello(remote: &HttpRemote) -> Result<Hello, RemoteError> {
    match remote.send(RemoteRequest::Hello { client: client() }).await {
        RemoteAnswer::Hello(result) => result,
        other => panic!("an answer of another kind: {other:?}"),
    }
}

pub(crate) async fn push(
    remote: &HttpRemote,
    frozen: &[&str],
) -> Result<PushResponse, RemoteError> {
    let entries = frozen.iter().enumerate().map(|(index, frozen)| BatchEntry {
        seq: i64::try_from(index).unwrap(),
        mutation: "m".into(),
        key: "k1".into(),
        entity: EntityRef {
            entity_type: "task".into(),
            id: EntityId::from(1),
        },
        op: Operation::Create,
        attempts: 0,
        group: None,
        origin: None,
        again: false,
        frozen: (*frozen).to_owned(),
    });
    let request = RemoteRequest::Push {
        client: client(),
        batch: Batch {
            bytes: 0,
            entries: entries.collect(),
        },
        token: None,
    };
    match remote.send(request).await {
        RemoteAnswer::Push(result) => result,
        other => panic!("an answer of another kind: {other:?}"),
    }
}

pub(crate) async fn pull(remote: &HttpRemote, cursor: Option<&str>) -> Result<Page, RemoteError> {
    let request = RemoteRequest::Pull {
        client: client(),
        scope: Scope::new("list/ü&1"),
        cursor: cursor.map(str::to_owned),
        limit: 100,
        bytes: None,
    };
    match remote.send(request).await {
        RemoteAnswer::Pull(result) => result,
        other => panic!("an answer of another kind: {other:?}"),
    }
}

pub(crate) async fn fetch(remote: &HttpRemote) -> Result<Fetched, RemoteError> {
    let request = RemoteRequest::Fetch {
        client: client(),
        scope: Scope::new("s"),
        wanted: Wanted {
            entity_type: "task".into(),
            ids: vec![EntityId::from(1), EntityId::parse("\"2\"").unwrap()],
        },
    };
    match remote.send(request).await {
        RemoteAnswer::Fetch(result) => result,
        other => panic!("an answer of another kind: {other:?}"),
    }
}

/// The answer that a good server gives.
pub(crate) fn good(request: &Received) -> Reply {
    let path = request.target.split('?').next().unwrap();
    match path.rsplit('/').next().unwrap() {
        "hello" => Reply::marked(request, 200, JSON, HELLO),
        "push" => Reply::marked(request, 200, JSON, PUSHED),
        "digest" => Reply::marked(request, 200, JSON, FETCHED),
        "pull" => Reply::marked(request, 200, NDJSON, format!("{CHANGE}\n{END}\n")),
        _ => Reply::bare(404, ""),
    }
}

/// A server that does the same whatever it is asked.
pub(crate) fn always<F>(answer: F) -> Server
where
    F: Fn(&Received) -> Reply + Send + Sync + 'static,
{
    Server::start(move |request| answer(request).steps())
}

/// What a test needs to know of an error.
pub(crate) fn bucket(error: &RemoteError) -> &'static str {
    match error {
        RemoteError::Unreachable { .. } => "unreachable",
        RemoteError::Transient {
            overloaded: true, ..
        } => "overloaded",
        RemoteError::Transient { .. } => "transient",
        RemoteError::Auth { .. } => "auth",
        RemoteError::TooLarge { .. } => "too-large",
        RemoteError::CursorGone { .. } => "cursor-gone",
        RemoteError::Forked { .. } => "forked",
        RemoteError::Incompatible { .. } => "incompatible",
        RemoteError::Misconfigured { .. } => "misconfigured",
        other => panic!("a new bucket: {other:?}"),
    }
}
