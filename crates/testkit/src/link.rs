//! The network between a device and the server: perfect unless told otherwise.

use std::collections::VecDeque;
use std::time::Duration;
use syncline_core::{
    BatchEntry, Fetched, Page, PageChange, RemoteAnswer, RemoteError, RemoteRequest,
};
use syncline_protocol::{
    DigestChanges, HEADER_CLIENT, HEADER_PROTOCOL, HEADER_REQUEST, PROTOCOL_VERSION, Problem,
    PullLine,
};
use syncline_server::{MemoryStorage, Now, Request, Response, Service};

/// Something that goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives.
    LoseRequest,
    /// The request arrives and is handled; its answer does not come back.
    LoseAnswer,
    /// The request arrives twice (a proxy repeated it); the second answer comes back.
    Repeat,
    /// A status of the server's instead of an answer; the request is not handled.
    Status(u16, Option<Duration>),
    /// Somebody else answers: a captive portal.
    Portal,
    /// The request arrives only when the story says so.
    Hold,
}

/// What went over the link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests of any kind.
    pub requests: u64,
    /// Greetings among them.
    pub greetings: u64,
    /// Pushes among them.
    pub pushes: u64,
    /// Mutations in those pushes.
    pub mutations: u64,
}

/// One device's link.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) online: bool,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) token: String,
    pub(crate) traffic: Traffic,
    /// A push whose mutations mention this text is answered 500 as a whole.
    pub(crate) poison: Option<String>,
    /// A push whose mutations mention this text is answered 413 by somebody on the way.
    pub(crate) too_large: Option<String>,
    /// A push whose mutations mention this text is never answered.
    pub(crate) hang: Option<String>,
    /// Every push: operation and entity of each of its mutations.
    pub(crate) batches: Vec<Vec<String>>,
    /// Every request, by its word.
    pub(crate) requests: Vec<&'static str>,
    /// Requests that the server answers as if it had no such service.
    pub(crate) without: Option<&'static str>,
    /// Pushes are held back on the way.
    pub(crate) hold_pushes: bool,
    /// The network goes away after this many more requests.
    pub(crate) offline_after: Option<u64>,
    /// A token expires with this many requests.
    pub(crate) expire_after: Option<u64>,
}

/// What the link does with a request.
pub(crate) enum Delivery {
    Answer(RemoteAnswer),
    Held,
}

impl Link {
    pub(crate) fn deliver(
        &mut self,
        request: &RemoteRequest,
        server: &Service<MemoryStorage>,
        now: Now,
    ) -> Delivery {
        self.traffic.requests += 1;
        self.traffic.greetings += u64::from(matches!(request, RemoteRequest::Hello { .. }));
        self.requests.push(request.word());
        if let RemoteRequest::Push { batch, .. } = request {
            self.traffic.pushes += 1;
            self.traffic.mutations += batch.entries.len() as u64;
            let name = |entry: &BatchEntry| format!("{:?} {}", entry.op, entry.entity);
            self.batches.push(batch.entries.iter().map(name).collect());
        }
        let unreachable = |detail: &str| RemoteError::Unreachable {
            detail: detail.to_owned(),
        };
        let failed = |error| Delivery::Answer(failure(request, error));
        if self.hold_pushes && matches!(request, RemoteRequest::Push { .. }) {
            return Delivery::Held;
        }
        match &mut self.offline_after {
            Some(0) => self.online = false,
            Some(left) => *left -= 1,
            None => {}
        }
        if !self.online {
            return failed(unreachable("offline"));
        }
        if self.without == Some(request.word()) {
            return failed(status_error(404, None, "not-found"));
        }
        if mentions(request, self.hang.as_deref()) {
            return failed(unreachable("timed out"));
        }
        if mentions(request, self.poison.as_deref()) {
            return failed(status_error(500, None, "internal error"));
        }
        if mentions(request, self.too_large.as_deref()) {
            return failed(status_error(413, None, "too large"));
        }
        match self.faults.pop_front() {
            None => Delivery::Answer(self.exchange(request, server, now)),
            Some(Fault::LoseRequest) => failed(unreachable("connection reset")),
            Some(Fault::LoseAnswer) => {
                self.exchange(request, server, now);
                failed(unreachable("timed out"))
            }
            Some(Fault::Repeat) => {
                self.exchange(request, server, now);
                Delivery::Answer(self.exchange(request, server, now))
            }
            Some(Fault::Status(status, after)) => failed(status_error(status, after, "told to")),
            Some(Fault::Portal) => failed(unreachable("200 without the protocol's marks")),
            Some(Fault::Hold) => Delivery::Held,
        }
    }

    /// One honest exchange with the server.
    pub(crate) fn exchange(
        &mut self,
        request: &RemoteRequest,
        server: &Service<MemoryStorage>,
        now: Now,
    ) -> RemoteAnswer {
        if let Some(left) = &mut self.expire_after {
            if *left == 0 {
                return failure(
                    request,
                    RemoteError::Auth {
                        detail: "expired".to_owned(),
                    },
                );
            }
            *left -= 1;
        }
        let response = server.handle(&self.http(request), now);
        read(request, &response)
    }

    fn http(&self, request: &RemoteRequest) -> Request {
        let (client, http) = match request {
            RemoteRequest::Hello { client } => (client, Request::new("GET", "/v1/hello")),
            RemoteRequest::Push {
                client,
                batch,
                token,
            } => {
                let body = batch.push_body(client, token.as_ref());
                (client, Request::new("POST", "/v1/push").json(body))
            }
            RemoteRequest::Cancel { client, key } => {
                let path = format!("/v1/mutations/{key}/cancel");
                (client, Request::new("POST", &path))
            }
            RemoteRequest::Register { client, types } => {
                let body = serde_json::to_vec(types).expect("types are JSON");
                (client, Request::new("PUT", "/v1/types").json(body))
            }
            RemoteRequest::Fetch {
                client,
                scope,
                wanted,
            } => {
                let ids = serde_json::to_string(&wanted.ids).expect("ids are JSON");
                let (kind, ids) = (encoded(wanted.entity_type.as_str()), encoded(&ids));
                let target = format!("/v1/digest?scope={scope}&type={kind}&ids={ids}");
                (client, Request::new("GET", &target))
            }
            RemoteRequest::Pull {
                client,
                scope,
                cursor,
                limit,
                bytes,
            } => {
                let cursor = cursor.as_ref().map(|cursor| format!("&cursor={cursor}"));
                let cursor = cursor.unwrap_or_default();
                let bytes = bytes.map(|bytes| format!("&bytes={bytes}"));
                let bytes = bytes.unwrap_or_default();
                let target = format!("/v1/pull?scope={scope}&limit={limit}{cursor}{bytes}");
                (client, Request::new("GET", &target))
            }
        };
        http.header(HEADER_PROTOCOL, PROTOCOL_VERSION)
            .header(HEADER_CLIENT, client.as_str())
            .header(HEADER_REQUEST, self.traffic.requests.to_string())
            .header("authorization", format!("Bearer {}", self.token))
    }
}

/// As the value of a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    bytes.collect()
}

fn mentions(request: &RemoteRequest, text: Option<&str>) -> bool {
    match (request, text) {
        (RemoteRequest::Push { batch, .. }, Some(text)) => batch
            .entries
            .iter()
            .any(|entry| entry.frozen.contains(text)),
        _ => false,
    }
}

fn read(request: &RemoteRequest, response: &Response) -> RemoteAnswer {
    let body = std::str::from_utf8(&response.body).expect("the server speaks UTF-8");
    if response.status != 200 {
        let problem: Problem = serde_json::from_str(body).expect("errors are problems");
        let detail = format!(
            "{} {}",
            problem.word(),
            problem.detail.clone().unwrap_or_default()
        );
        return failure(request, status_error(response.status, None, &detail));
    }
    match request {
        RemoteRequest::Hello { .. } => {
            RemoteAnswer::Hello(Ok(serde_json::from_str(body).expect("a hello")))
        }
        RemoteRequest::Push { .. } => {
            RemoteAnswer::Push(Ok(serde_json::from_str(body).expect("a push response")))
        }
        RemoteRequest::Cancel { .. } => {
            RemoteAnswer::Cancel(Ok(serde_json::from_str(body).expect("what became of a key")))
        }
        RemoteRequest::Register { .. } => RemoteAnswer::Register(Ok(())),
        RemoteRequest::Fetch { .. } => RemoteAnswer::Fetch(Ok(fetched(body))),
        RemoteRequest::Pull { .. } => RemoteAnswer::Pull(Ok(page(body))),
    }
}

fn fetched(body: &str) -> Fetched {
    let digest: DigestChanges = serde_json::from_str(body).expect("entities in full");
    Fetched {
        epoch: digest.epoch,
        position: digest.position,
        changes: digest.changes.into_iter().map(PageChange::Valid).collect(),
        bytes: body.len() as u64,
    }
}

fn page(body: &str) -> Page {
    let (mut changes, mut bytes) = (Vec::new(), 0);
    for line in body.lines() {
        match serde_json::from_str(line).expect("a pull line") {
            PullLine::Change(change) => {
                bytes += line.len() as u64;
                changes.push(PageChange::Valid(change));
            }
            PullLine::Page(end) => {
                return Page {
                    changes,
                    end,
                    bytes,
                };
            }
        }
    }
    panic!("a page without an end")
}

pub(crate) fn failure(request: &RemoteRequest, error: RemoteError) -> RemoteAnswer {
    match request {
        RemoteRequest::Hello { .. } => RemoteAnswer::Hello(Err(error)),
        RemoteRequest::Push { .. } => RemoteAnswer::Push(Err(error)),
        RemoteRequest::Cancel { .. } => RemoteAnswer::Cancel(Err(error)),
        RemoteRequest::Register { .. } => RemoteAnswer::Register(Err(error)),
        RemoteRequest::Fetch { .. } => RemoteAnswer::Fetch(Err(error)),
        RemoteRequest::Pull { .. } => RemoteAnswer::Pull(Err(error)),
    }
}

fn status_error(status: u16, retry_after: Option<Duration>, detail: &str) -> RemoteError {
    let detail = detail.to_owned();
    match status {
        401 => RemoteError::Auth { detail },
        415 | 426 => RemoteError::Incompatible { detail },
        409 if detail.starts_with("client-forked") => RemoteError::Forked { detail },
        410 => RemoteError::CursorGone { detail },
        413 => RemoteError::TooLarge { detail },
        400 if detail.starts_with("cursor-invalid") => RemoteError::CursorGone { detail },
        400..=499 if !matches!(status, 408 | 425 | 429) => {
            RemoteError::Misconfigured { status, detail }
        }
        _ => {
            let overloaded = matches!(status, 429 | 503);
            RemoteError::Transient {
                status,
                detail,
                retry_after,
                overloaded,
            }
        }
    }
}
