//! Requests of the engine as requests of the protocol, and answers of the protocol as answers to the
//! engine: what `remote-http` does with sockets, done without. An answer is believed by the same marks
//! and falls into the same buckets (`docs/protocol.md`); nothing that comes in can make this panic.

use serde::de::DeserializeOwned;
use std::time::Duration;
use syncline_core::{Fetched, Page, PageChange, RemoteAnswer, RemoteError, RemoteRequest};
use syncline_protocol::{
    CONTENT_TYPE_PROBLEM, DigestChanges, HEADER_CLIENT, HEADER_PROTOCOL, HEADER_REQUEST,
    PROTOCOL_VERSION, Problem, PullLine,
};
use syncline_server::{Request, Response};

/// A request as it goes over the wire, under this request id.
pub(crate) fn request(request: &RemoteRequest, id: u64, token: &str) -> Request {
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
            let body = serde_json::to_vec(types).unwrap_or_default();
            (client, Request::new("PUT", "/v1/types").json(body))
        }
        RemoteRequest::Fetch {
            client,
            scope,
            wanted,
        } => {
            let ids = serde_json::to_string(&wanted.ids).unwrap_or_default();
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
        .header(HEADER_REQUEST, id.to_string())
        .header("authorization", format!("Bearer {token}"))
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

/// The kind of a request, for the report.
pub(crate) fn kind(request: &RemoteRequest) -> &'static str {
    match request {
        RemoteRequest::Hello { .. } => "hello",
        RemoteRequest::Push { .. } => "push",
        RemoteRequest::Cancel { .. } => "cancel",
        RemoteRequest::Register { .. } => "register",
        RemoteRequest::Fetch { .. } => "fetch",
        RemoteRequest::Pull { .. } => "pull",
    }
}

/// An answer without a result, of the kind of the request.
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

/// Whether an answer has no result.
pub(crate) fn is_error(answer: &RemoteAnswer) -> bool {
    matches!(
        answer,
        RemoteAnswer::Hello(Err(_))
            | RemoteAnswer::Push(Err(_))
            | RemoteAnswer::Cancel(Err(_))
            | RemoteAnswer::Register(Err(_))
            | RemoteAnswer::Fetch(Err(_))
            | RemoteAnswer::Pull(Err(_))
    )
}

/// What a client makes of an answer to its request of this id.
pub(crate) fn read(request: &RemoteRequest, id: u64, response: &Response) -> RemoteAnswer {
    match marked(request, id, response) {
        Err(detail) => failure(request, RemoteError::Unreachable { detail }),
        Ok(()) if response.status == 200 => body(request, response)
            .unwrap_or_else(|detail| failure(request, garbage(response.status, detail))),
        Ok(()) => failure(request, refusal(response)),
    }
}

fn marked(request: &RemoteRequest, id: u64, response: &Response) -> Result<(), String> {
    if response.headers.get(HEADER_PROTOCOL).is_none() {
        return Err("an answer without the protocol's header".to_owned());
    }
    let echo = response.headers.get(HEADER_REQUEST);
    if echo != Some(id.to_string().as_str()) {
        return Err("an answer to another request".to_owned());
    }
    let wanted = match (response.status, request) {
        (200, RemoteRequest::Pull { .. }) => "application/x-ndjson",
        (200, _) => "application/json",
        _ => CONTENT_TYPE_PROBLEM,
    };
    match response.headers.get("content-type") == Some(wanted) {
        true => Ok(()),
        false => Err("an answer of another content type".to_owned()),
    }
}

fn body(request: &RemoteRequest, response: &Response) -> Result<RemoteAnswer, String> {
    Ok(match request {
        RemoteRequest::Hello { .. } => RemoteAnswer::Hello(Ok(json(&response.body)?)),
        RemoteRequest::Push { .. } => RemoteAnswer::Push(Ok(json(&response.body)?)),
        RemoteRequest::Cancel { .. } => RemoteAnswer::Cancel(Ok(json(&response.body)?)),
        RemoteRequest::Register { .. } => RemoteAnswer::Register(Ok(())),
        RemoteRequest::Fetch { .. } => RemoteAnswer::Fetch(Ok(fetched(&response.body)?)),
        RemoteRequest::Pull { .. } => RemoteAnswer::Pull(Ok(page(&response.body)?)),
    })
}

fn fetched(body: &[u8]) -> Result<Fetched, String> {
    let digest: DigestChanges = json(body)?;
    Ok(Fetched {
        epoch: digest.epoch,
        position: digest.position,
        changes: digest.changes.into_iter().map(PageChange::Valid).collect(),
        bytes: body.len() as u64,
    })
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn page(body: &[u8]) -> Result<Page, String> {
    let mut changes = Vec::new();
    for line in body.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(PullLine::Change(change)) => changes.push(PageChange::Valid(change)),
            Ok(PullLine::Page(end)) if end.count == changes.len() => {
                let bytes = body.len() as u64;
                return Ok(Page {
                    changes,
                    end,
                    bytes,
                });
            }
            Ok(PullLine::Page(end)) => {
                return Err(format!(
                    "{} changes said, {} came",
                    end.count,
                    changes.len()
                ));
            }
            Err(error) if line.starts_with(br#"{"change":{"#) && line.ends_with(b"}}") => {
                let raw = String::from_utf8_lossy(line).into_owned();
                let detail = error.to_string();
                changes.push(PageChange::Invalid { raw, detail });
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("the answer ends before the end of its page".to_owned())
}

fn garbage(status: u16, detail: String) -> RemoteError {
    RemoteError::Transient {
        status,
        detail,
        retry_after: None,
        overloaded: false,
    }
}

fn refusal(response: &Response) -> RemoteError {
    let status = response.status;
    let problem = serde_json::from_slice::<Problem>(&response.body).ok();
    let word = problem.as_ref().map_or("", Problem::word).to_owned();
    let detail = format!("{word} ({status})");
    let asked = response.headers.get("retry-after");
    let retry_after = asked
        .and_then(|asked| asked.parse().ok())
        .map(Duration::from_secs);
    match (status, word.as_str()) {
        (401, _) => RemoteError::Auth { detail },
        (408 | 425 | 429 | 500.., _) => RemoteError::Transient {
            status,
            detail,
            retry_after,
            overloaded: matches!(status, 429 | 503),
        },
        (413, _) => RemoteError::TooLarge { detail },
        (409, "client-forked") => RemoteError::Forked { detail },
        (410, _) | (400, "cursor-invalid") => RemoteError::CursorGone { detail },
        (415 | 426, _) | (400, "protocol-unsupported") => RemoteError::Incompatible { detail },
        _ => RemoteError::Misconfigured { status, detail },
    }
}
