//! What the server has, asked of the server itself: `hello`, then `pull` page by page to the head,
//! with plain HTTP and without any engine.

use super::http::{Message, exchange};
use super::rows::{Name, Rows};
use super::trouble;
use crate::Failure;
use std::net::SocketAddr;
use syncline_protocol::{
    Change, ChangeKind, HEADER_CLIENT, HEADER_PROTOCOL, HEADER_REQUEST, Hello, PROTOCOL_VERSION,
    PageEnd, PullLine,
};

/// More pages than any demo has.
const MAX_PAGES: usize = 1_000;

/// Every row that the server lists for the token's owner.
pub(super) fn fetch(server: SocketAddr, token: &str) -> Result<Rows, Failure> {
    let mut asker = Asker {
        server,
        token,
        client: client()?,
        asked: 0,
    };
    let hello: Hello = serde_json::from_slice(&asker.get("/v1/hello")?)
        .map_err(|error| trouble("the server's hello", error))?;
    let scope = hello.scopes.first().map(|grant| grant.scope.clone());
    let scope = scope.ok_or_else(|| trouble("the server's hello", "no scope is granted"))?;
    let mut rows = Rows::new();
    let mut target = format!("/v1/pull?scope={scope}&limit=500");
    for _ in 0..MAX_PAGES {
        let end = page(&asker.get(&target)?, &mut rows)?;
        if end.at_head {
            return Ok(rows);
        }
        target = format!("/v1/pull?scope={scope}&limit=500&cursor={}", end.cursor);
    }
    Err(trouble("the server's listing", "it does not end"))
}

struct Asker<'a> {
    server: SocketAddr,
    token: &'a str,
    client: String,
    asked: u32,
}

impl Asker<'_> {
    fn get(&mut self, target: &str) -> Result<Vec<u8>, Failure> {
        self.asked += 1;
        let request = Message {
            head: vec![
                format!("GET {target} HTTP/1.1"),
                format!("host: {}", self.server),
                format!("authorization: Bearer {}", self.token),
                format!("{HEADER_PROTOCOL}: {PROTOCOL_VERSION}"),
                format!("{HEADER_CLIENT}: {}", self.client),
                format!("{HEADER_REQUEST}: {}", self.asked),
            ],
            body: Vec::new(),
        };
        let answer = exchange(self.server, request)
            .map_err(|error| trouble("the server does not answer", error))?;
        match answer.start().split(' ').nth(1) {
            Some("200") => Ok(answer.body),
            _ => Err(trouble("the server answered", answer.start())),
        }
    }
}

fn page(body: &[u8], rows: &mut Rows) -> Result<PageEnd, Failure> {
    let cut = || trouble("the server's listing", "a page is cut");
    let text = std::str::from_utf8(body).map_err(|_| cut())?;
    for line in text.lines() {
        let line = serde_json::from_str(line)
            .map_err(|error| trouble("a line of the server's listing", error))?;
        match line {
            PullLine::Change(change) => apply(change, rows),
            PullLine::Page(end) => return Ok(end),
        }
    }
    Err(cut())
}

fn apply(change: Change, rows: &mut Rows) {
    let name = Name {
        entity_type: change.entity_type.as_str().to_owned(),
        entity_id: change.id.into(),
    };
    match change.kind {
        ChangeKind::Upsert(fields) => rows.insert(name, fields),
        ChangeKind::Delete => rows.remove(&name),
    };
}

fn client() -> Result<String, Failure> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| trouble("no random numbers", error))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
