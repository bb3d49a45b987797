//! The wire types of Syncline's native protocol, and nothing else.
//!
//! What client and server say to each other is spelled out here once, as `serde` types; the
//! specification in prose is `docs/protocol.md`. This crate holds no logic beyond reading,
//! writing and hashing those types: it never decides, never does I/O and never panics on what it reads.

mod digest;
mod entity_id;
mod fields;
mod hello;
mod live;
mod names;
mod problem;
mod pull;
mod push;
mod trace;
mod types;
mod value;

pub use digest::{
    ContentHash, DIGEST_IDS, DigestChanges, DigestEntities, DigestEntity, DigestRange,
    DigestRanges, RangeHasher,
};
pub use entity_id::{EntityId, EntityIdError, KeyPart, MAX_ENTITY_ID_BYTES};
pub use fields::Fields;
pub use hello::{Access, Grant, Hello, Limits, Principal};
pub use live::{CONTENT_TYPE_EVENTS, EVENT_HEAD, HEARTBEAT_MS, Head};
pub use names::{
    ClientId, EntityType, Epoch, ExchangeToken, IdempotencyKey, MutationId, Scope, ServerVersion,
};
pub use problem::{CONTENT_TYPE_PROBLEM, FieldError, Problem};
pub use pull::{CONTENT_TYPE_PAGES, Change, ChangeKind, PageEnd, PagePhase, PullLine};
pub use push::{
    Assign, Base, Command, ConflictReason, KeyOutcome, Mutation, Operation, Outcome, PushRequest,
    PushResponse, PushResult, RemoteState,
};
pub use trace::{HEADER_TRACE_PARENT, HEADER_TRACE_RESPONSE, SpanId, TraceId, TraceParent};
pub use types::{
    ColumnDefinition, ReferenceAction, ReferenceDefinition, TypeDefinition, TypeDefinitions,
};
pub use value::{Value, ValueError};

/// The protocol version this crate speaks: a date, compared as text.
pub const PROTOCOL_VERSION: &str = "2026-11-01";

/// Request and response header that carries [`PROTOCOL_VERSION`]; an answer without it did not
/// come from a Syncline server (a proxy's or a captive portal's page, say) and is never believed.
pub const HEADER_PROTOCOL: &str = "syncline-protocol";

/// Request header naming the client installation; see [`ClientId`].
pub const HEADER_CLIENT: &str = "syncline-client";

/// Request header with an id chosen by the client and echoed by the server, so that an answer is
/// known to belong to its request.
pub const HEADER_REQUEST: &str = "syncline-request";
