//! By what a request is found again in the log: what the client sends, where that is valid, else
//! something new. Nothing that a stranger made up reaches the log unchecked.

use crate::Headers;
use crate::service::{request_id, trace};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use syncline_protocol::{HEADER_REQUEST, HEADER_TRACE_PARENT, TraceParent};

/// Gives a request an id and a trace if it brings none that is valid.
pub(super) fn correlate(headers: &mut Headers) {
    if request_id(headers).is_none() {
        headers.set(HEADER_REQUEST, format!("server-{:016x}", random()));
    }
    if trace(headers).is_none() {
        let id = u128::from(random()) << 64 | u128::from(random());
        let new = TraceParent::new(id, random(), false);
        headers.set(
            HEADER_TRACE_PARENT,
            new.map_or_else(String::new, |new| new.to_string()),
        );
    }
}

/// Never zero, and hardly ever the same; nothing depends on its being unpredictable.
fn random() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}
