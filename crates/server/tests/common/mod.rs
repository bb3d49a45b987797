//! A server without sockets and the words to talk to it, for all tests of the protocol.

#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use serde_json::{Value as Json, json};
use std::cell::Cell;
use syncline_protocol::{
    Access, Base, Change, ChangeKind, Fields, Mutation, Operation, Outcome, PageEnd, PagePhase,
    Principal, Problem, PullLine, PushRequest, PushResponse, PushResult, Value,
};
use syncline_server::{
    Authenticator, Identity, MemoryStorage, Now, Request, Response, ServerConfig, Service, Storage,
    issue_token,
};

pub const SECRET: &[u8] = b"a secret of at least 32 bytes for tests";
pub const EPOCH: &str = "0123456789abcdef";
pub const PHONE: &str = "00000000000000000000000000000001";
pub const LAPTOP: &str = "00000000000000000000000000000002";

/// A server and the clock that it is told.
pub struct Server<S> {
    pub service: Service<S>,
    pub now_ms: Cell<i64>,
}

/// Someone who asks.
#[derive(Clone)]
pub struct Caller {
    pub tenant: String,
    pub subject: String,
    pub client: String,
    pub access: Access,
}

impl Caller {
    pub fn new(tenant: &str, subject: &str, client: &str) -> Self {
        Self {
            tenant: tenant.into(),
            subject: subject.into(),
            client: client.into(),
            access: Access::Write,
        }
    }

    pub fn identity(&self) -> Identity {
        Identity {
            principal: Principal {
                tenant: self.tenant.clone(),
                subject: self.subject.clone(),
            },
            access: self.access,
        }
    }
}

pub fn ann() -> Caller {
    Caller::new("acme", "ann", PHONE)
}

/// A page as it was read.
#[derive(Debug)]
pub struct Page {
    pub changes: Vec<Change>,
    pub end: PageEnd,
}

impl Page {
    pub fn ids(&self) -> Vec<&str> {
        self.changes
            .iter()
            .map(|change| change.id.as_str())
            .collect()
    }
}

pub fn server() -> Server<MemoryStorage> {
    Server::new(MemoryStorage::new(EPOCH), ServerConfig::default())
}

impl<S: Storage> Server<S> {
    pub fn new(storage: S, config: ServerConfig) -> Self {
        let authenticator = Authenticator::hs256(SECRET).unwrap();
        Self {
            service: Service::new(storage, authenticator, config).unwrap(),
            now_ms: Cell::new(1_800_000_000_000),
        }
    }

    pub fn now(&self) -> Now {
        Now::from_unix_ms(self.now_ms.get())
    }

    pub fn token(&self, caller: &Caller) -> String {
        issue_token(SECRET, &caller.identity(), self.now(), 3600).unwrap()
    }

    /// A request with everything that a good client sends.
    pub fn request(&self, caller: &Caller, method: &str, target: &str) -> Request {
        Request::new(method, target)
            .header("syncline-protocol", "2026-11-01")
            .header("syncline-client", caller.client.clone())
            .header("syncline-request", "r-1")
            .header("authorization", format!("Bearer {}", self.token(caller)))
    }

    pub fn send(&self, request: &Request) -> Response {
        let response = self.service.handle(request, self.now());
        assert_eq!(
            response.headers.get("syncline-protocol"),
            Some("2026-11-01")
        );
        assert_eq!(response.headers.get("cache-control"), Some("no-store"));
        response
    }

    pub fn get(&self, caller: &Caller, target: &str) -> Response {
        self.send(&self.request(caller, "GET", target))
    }

    pub fn push_body(&self, caller: &Caller, body: impl Into<Vec<u8>>) -> Response {
        self.send(&self.request(caller, "POST", "/v1/push").json(body))
    }

    pub fn push(&self, caller: &Caller, mutations: &[Mutation]) -> Vec<PushResult> {
        self.push_whole(&whole(caller, mutations), caller).results
    }

    /// Pushes with everything that stands around the mutations.
    pub fn push_whole(&self, push: &PushRequest, caller: &Caller) -> PushResponse {
        let response = self.push_body(caller, serde_json::to_vec(push).unwrap());
        assert_eq!(response.status, 200, "{}", text(&response));
        let answer: PushResponse = serde_json::from_slice(&response.body).unwrap();
        let keys: Vec<_> = answer.results.iter().map(|result| &result.key).collect();
        let sent: Vec<_> = push
            .mutations
            .iter()
            .map(|mutation| &mutation.key)
            .collect();
        assert_eq!(keys, sent, "a result for each, in order");
        answer
    }

    /// Pushes one mutation.
    pub fn push_one(&self, caller: &Caller, mutation: &Mutation) -> Outcome {
        self.push(caller, std::slice::from_ref(mutation))
            .remove(0)
            .outcome
    }

    pub fn pull(&self, caller: &Caller, cursor: Option<&str>, limit: usize) -> Page {
        let mut target = format!("/v1/pull?scope=default&limit={limit}");
        if let Some(cursor) = cursor {
            target += &format!("&cursor={cursor}");
        }
        let response = self.get(caller, &target);
        assert_eq!(response.status, 200, "{}", text(&response));
        read_page(&response.body)
    }

    /// Everything that can be seen from outside: to compare before and after.
    pub fn state(&self, caller: &Caller) -> String {
        let mut pages = String::new();
        let mut cursor = None;
        loop {
            let page = self.pull(caller, cursor.as_deref(), 1000);
            pages += &format!("{:?} {}\n", page.changes, page.end.position);
            if page.end.at_head {
                return pages;
            }
            cursor = Some(page.end.cursor);
        }
    }
}

/// A push of these mutations and nothing around them.
pub fn whole(caller: &Caller, mutations: &[Mutation]) -> PushRequest {
    PushRequest {
        client: caller.client.as_str().into(),
        mutations: mutations.to_vec(),
        groups: Vec::new(),
        inherited: Default::default(),
        token: None,
    }
}

pub fn read_page(body: &[u8]) -> Page {
    let text = std::str::from_utf8(body).unwrap();
    assert!(text.ends_with('\n'));
    let mut lines: Vec<PullLine> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let Some(PullLine::Page(end)) = lines.pop() else {
        panic!("a page ends with its end");
    };
    let changes: Vec<Change> = lines
        .into_iter()
        .map(|line| match line {
            PullLine::Change(change) => change,
            PullLine::Page(_) => panic!("two ends"),
        })
        .collect();
    assert_eq!(changes.len(), end.count);
    assert!(!(end.at_head && end.phase == PagePhase::Snapshot));
    Page { changes, end }
}

pub fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

/// Status and word of an error answer, which must be a whole problem document.
pub fn problem(response: &Response) -> (u16, String) {
    assert_eq!(
        response.headers.get("content-type"),
        Some("application/problem+json"),
        "{}",
        text(response)
    );
    let problem: Problem = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(problem.status, response.status);
    assert_eq!(
        response.headers.get("www-authenticate").is_some(),
        response.status == 401
    );
    (response.status, problem.word().to_owned())
}

pub fn expect(response: &Response, status: u16, word: &str) {
    assert_eq!(
        problem(response),
        (status, word.to_owned()),
        "{}",
        text(response)
    );
}

pub fn mutation(key: &str, op: Operation, id: &str, base: Option<Base>, fields: Json) -> Mutation {
    Mutation {
        key: key.into(),
        mutation: format!("m-{key}").as_str().into(),
        covers: Vec::new(),
        entity_type: "task".into(),
        id: syncline_protocol::EntityId::parse(id).unwrap(),
        op,
        assign: None,
        base,
        fields: fields_of(fields),
        command: None,
    }
}

pub fn fields_of(fields: Json) -> Fields {
    serde_json::from_value(fields).unwrap()
}

pub fn create(key: &str, id: &str, title: &str) -> Mutation {
    mutation(key, Operation::Create, id, None, json!({ "title": title }))
}

pub fn update(key: &str, id: &str, base: Base, title: &str) -> Mutation {
    mutation(
        key,
        Operation::Update,
        id,
        Some(base),
        json!({ "title": title }),
    )
}

pub fn delete(key: &str, id: &str, base: Base) -> Mutation {
    mutation(key, Operation::Delete, id, Some(base), json!({}))
}

pub fn at(position: i64) -> Base {
    Base::Position {
        epoch: EPOCH.into(),
        scope: "default".into(),
        position,
    }
}

pub fn version(version: i64) -> Base {
    Base::Version {
        epoch: EPOCH.into(),
        version: version.to_string().as_str().into(),
    }
}

pub fn after(key: &str) -> Base {
    Base::After(key.into())
}

pub fn applied(position: i64) -> Outcome {
    Outcome::Applied {
        version: position.to_string().as_str().into(),
        position,
        fields: None,
        id: None,
    }
}

pub fn skipped(because: &str) -> Outcome {
    Outcome::Skipped {
        because: because.into(),
    }
}

/// The reason of a conflict and what it found: position and title, if alive.
pub fn conflict(
    outcome: &Outcome,
) -> (
    syncline_protocol::ConflictReason,
    Option<(i64, Option<String>)>,
) {
    let Outcome::Conflict { reason, remote } = outcome else {
        panic!("no conflict: {outcome:?}");
    };
    let remote = remote.as_ref().map(|remote| {
        assert_eq!(remote.version.as_str(), remote.position.to_string());
        (remote.position, remote.fields.as_ref().map(title))
    });
    (*reason, remote)
}

pub fn rejected(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Rejected { code, .. } => code,
        other => panic!("not rejected: {other:?}"),
    }
}

pub fn title(fields: &Fields) -> String {
    match fields.get("title") {
        Some(Value::Text(title)) => title.clone(),
        other => format!("{other:?}"),
    }
}

pub fn change_title(change: &Change) -> Option<String> {
    match &change.kind {
        ChangeKind::Upsert(fields) => Some(title(fields)),
        ChangeKind::Delete => None,
    }
}
