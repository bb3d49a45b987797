//! What is sent: one request of the protocol as method, path, headers and body.

use crate::builder::Bounds;
use crate::digest::DigestOf;
use http::Method;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE,
    HeaderMap, HeaderName, HeaderValue,
};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use syncline_protocol::{
    CONTENT_TYPE_EVENTS, CONTENT_TYPE_PAGES, CONTENT_TYPE_PROBLEM, ClientId, EntityId,
    HEADER_CLIENT, HEADER_PROTOCOL, HEADER_REQUEST, HEADER_TRACE_PARENT, IdempotencyKey,
    PROTOCOL_VERSION, Scope, TraceParent, TypeDefinitions,
};
use url::Url;

/// Content type of a push, and of the answers to it and to a hello.
pub(crate) const CONTENT_TYPE_JSON: &str = "application/json";

/// Quick, and nearly as small as any: most of a push is short repetitive JSON.
const ZSTD_LEVEL: i32 = 1;

/// A request ready to be sent, but for its credentials.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// What the answer must be, unless it is an error.
    pub(crate) expects: &'static str,
    pub(crate) body: Option<Body>,
}

pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    zstd: bool,
}

impl Request {
    pub(crate) fn hello(base: &Url) -> Self {
        Self {
            method: Method::GET,
            url: endpoint(base, "hello"),
            expects: CONTENT_TYPE_JSON,
            body: None,
        }
    }

    pub(crate) fn push(base: &Url, body: Vec<u8>, bounds: &Bounds) -> Self {
        Self {
            method: Method::POST,
            url: endpoint(base, "push"),
            expects: CONTENT_TYPE_JSON,
            body: Some(compressed(body, bounds.compress_above)),
        }
    }

    pub(crate) fn cancel(base: &Url, key: &IdempotencyKey) -> Self {
        let mut url = endpoint(base, "mutations");
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend([key.as_str(), "cancel"]);
        }
        Self {
            method: Method::POST,
            url,
            expects: CONTENT_TYPE_JSON,
            body: None,
        }
    }

    pub(crate) fn types(base: &Url) -> Self {
        Self {
            method: Method::GET,
            url: endpoint(base, "types"),
            expects: CONTENT_TYPE_JSON,
            body: None,
        }
    }

    pub(crate) fn register(base: &Url, types: &TypeDefinitions) -> Self {
        // Texts and numbers only: writing them cannot fail.
        let bytes = serde_json::to_vec(types).unwrap_or_default();
        Self {
            method: Method::PUT,
            url: endpoint(base, "types"),
            expects: CONTENT_TYPE_JSON,
            body: Some(Body { bytes, zstd: false }),
        }
    }

    pub(crate) fn pull(
        base: &Url,
        scope: &Scope,
        cursor: Option<&str>,
        limit: usize,
        bytes: Option<u64>,
    ) -> Self {
        let mut url = endpoint(base, "pull");
        let mut query = url.query_pairs_mut();
        query.append_pair("scope", scope.as_str());
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        query.append_pair("limit", &limit.to_string());
        if let Some(bytes) = bytes {
            query.append_pair("bytes", &bytes.max(1).to_string());
        }
        drop(query);
        Self {
            method: Method::GET,
            url,
            expects: CONTENT_TYPE_PAGES,
            body: None,
        }
    }

    pub(crate) fn digest(
        base: &Url,
        of: DigestOf<'_>,
        after: Option<&EntityId>,
        until: Option<&EntityId>,
    ) -> Self {
        // Texts only: writing them cannot fail.
        let fields = serde_json::to_string(of.fields).unwrap_or_default();
        let after = after.map(|after| ("after", after.as_str()));
        let until = until.map(|until| ("until", until.as_str()));
        let range = after.into_iter().chain(until);
        Self::digest_with(base, of, range.chain([("fields", fields.as_str())]))
    }

    pub(crate) fn digest_changes(base: &Url, of: DigestOf<'_>, ids: &[EntityId]) -> Self {
        let ids = serde_json::to_string(ids).unwrap_or_default();
        Self::digest_with(base, of, [("ids", ids.as_str())].into_iter())
    }

    fn digest_with<'q>(
        base: &Url,
        of: DigestOf<'_>,
        more: impl Iterator<Item = (&'q str, &'q str)>,
    ) -> Self {
        let mut url = endpoint(base, "digest");
        url.query_pairs_mut()
            .append_pair("scope", of.scope.as_str())
            .append_pair("type", of.entity_type.as_str())
            .extend_pairs(more);
        Self {
            method: Method::GET,
            url,
            expects: CONTENT_TYPE_JSON,
            body: None,
        }
    }

    pub(crate) fn live(base: &Url) -> Self {
        Self {
            method: Method::GET,
            url: endpoint(base, "live"),
            expects: CONTENT_TYPE_EVENTS,
            body: None,
        }
    }

    /// All headers; an error when the client's id or the like cannot be one.
    pub(crate) fn headers(
        &self,
        client: &ClientId,
        (id, trace): (&str, &TraceParent),
        authorization: Option<HeaderValue>,
    ) -> Result<HeaderMap, String> {
        let own = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| format!("{text:?} cannot be a header"))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (HEADER_PROTOCOL, own(PROTOCOL_VERSION)?),
            (HEADER_CLIENT, own(client.as_str())?),
            (HEADER_REQUEST, own(id)?),
            (HEADER_TRACE_PARENT, own(&trace.to_string())?),
        ] {
            headers.insert(HeaderName::from_static(name), value);
        }
        let accept = format!("{}, {CONTENT_TYPE_PROBLEM}", self.expects);
        headers.insert(ACCEPT, own(&accept)?);
        if self.expects == CONTENT_TYPE_EVENTS {
            // Whoever compresses a stream holds its events back until there are enough.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        if let Some(body) = &self.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_JSON));
            if body.zstd {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd"));
            }
        }
        Ok(headers)
    }
}

fn endpoint(base: &Url, call: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["v1", call]);
    }
    url
}

fn compressed(plain: Vec<u8>, above: usize) -> Body {
    let compressed = match plain.len() > above {
        true => zstd::bulk::compress(&plain, ZSTD_LEVEL).ok(),
        false => None,
    };
    match compressed {
        Some(bytes) if bytes.len() < plain.len() => Body { bytes, zstd: true },
        _ => Body {
            bytes: plain,
            zstd: false,
        },
    }
}

/// Makes ids that no other request of this or any other process has.
#[derive(Debug)]
pub(crate) struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self {
            prefix: RandomState::new().build_hasher().finish(),
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn next(&self) -> String {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{count}", self.prefix)
    }
}

/// The context of an exchange that belongs to no trace yet: a new one.
pub(crate) fn new_trace() -> TraceParent {
    let [high, low, span] = [(); 3].map(|()| RandomState::new().build_hasher().finish() | 1);
    let trace = u128::from(high) << 64 | u128::from(low);
    // Neither is zero.
    TraceParent::new(trace, span, true).unwrap_or_else(new_trace)
}
