//! The border to the system of record: what is asked of it and how its answers are told apart.
//!
//! A [`Remote`] turns each request into traffic and each answer, however odd, into one of these
//! types. Which bucket an answer falls into is the remote's knowledge (a proxy's 200 with HTML is
//! *unreachable*); what follows from the bucket is decided by the state machine alone.

use crate::Batch;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use syncline_protocol::{
    Change, ClientId, EntityId, EntityType, Epoch, ExchangeToken, Head, Hello, IdempotencyKey,
    KeyOutcome, PageEnd, PushResponse, Scope, TypeDefinitions,
};

/// One thing asked of the system of record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteRequest {
    /// Who am I to you, and within which limits?
    Hello {
        /// This installation.
        client: ClientId,
    },
    /// Take these mutations.
    Push {
        /// This installation.
        client: ClientId,
        /// The frozen mutations, in order.
        batch: Batch,
        /// The token of the last answer that was booked.
        token: Option<ExchangeToken>,
    },
    /// Make this key never take effect, or say what became of it.
    Cancel {
        /// The installation that sent it.
        client: ClientId,
        /// The key.
        key: IdempotencyKey,
    },
    /// This is what the synced tables look like.
    Register {
        /// This installation.
        client: ClientId,
        /// The tables.
        types: TypeDefinitions,
    },
    /// What are these entities now? One that does not offer this answers
    /// [`RemoteError::Misconfigured`], and the feed is read to its head instead.
    Fetch {
        /// This installation.
        client: ClientId,
        /// The scope in which they are seen.
        scope: Scope,
        /// Which ones.
        wanted: Wanted,
    },
    /// One page of changes, please.
    Pull {
        /// This installation.
        client: ClientId,
        /// The scope whose feed is read.
        scope: Scope,
        /// Where to go on; `None` starts a snapshot.
        cursor: Option<String>,
        /// At most this many changes.
        limit: usize,
        /// About so many bytes of changes at most, where they are counted; one change always comes.
        #[serde(default, skip_serializing_if = "crate::trace::is_default")]
        bytes: Option<u64>,
    },
}

impl RemoteRequest {
    /// One word for the kind of request.
    pub fn word(&self) -> &'static str {
        match self {
            RemoteRequest::Hello { .. } => "hello",
            RemoteRequest::Push { .. } => "push",
            RemoteRequest::Cancel { .. } => "cancel",
            RemoteRequest::Register { .. } => "register",
            RemoteRequest::Fetch { .. } => "fetch",
            RemoteRequest::Pull { .. } => "pull",
        }
    }
}

/// What came of a [`RemoteRequest`], of the same kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteAnswer {
    /// To [`RemoteRequest::Hello`].
    Hello(Result<Hello, RemoteError>),
    /// To [`RemoteRequest::Push`].
    Push(Result<PushResponse, RemoteError>),
    /// To [`RemoteRequest::Cancel`].
    Cancel(Result<KeyOutcome, RemoteError>),
    /// To [`RemoteRequest::Register`].
    Register(Result<(), RemoteError>),
    /// To [`RemoteRequest::Fetch`].
    Fetch(Result<Fetched, RemoteError>),
    /// To [`RemoteRequest::Pull`].
    Pull(Result<Page, RemoteError>),
}

impl RemoteAnswer {
    /// Why there is no result, if so.
    pub fn error(&self) -> Option<&RemoteError> {
        match self {
            RemoteAnswer::Hello(answer) => answer.as_ref().err(),
            RemoteAnswer::Push(answer) => answer.as_ref().err(),
            RemoteAnswer::Cancel(answer) => answer.as_ref().err(),
            RemoteAnswer::Register(answer) => answer.as_ref().err(),
            RemoteAnswer::Fetch(answer) => answer.as_ref().err(),
            RemoteAnswer::Pull(answer) => answer.as_ref().err(),
        }
    }
}

/// Entities of one type, as many as one request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Their type.
    pub entity_type: EntityType,
    /// Their ids.
    pub ids: Vec<EntityId>,
}

/// What entities are now, all as of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The history that the positions belong to.
    pub epoch: Epoch,
    /// The head of the scope at that moment.
    pub position: i64,
    /// The entities and the remembered deletions among those that were asked for. What is not here is
    /// not in the scope.
    #[serde(with = "crate::trace::runs")]
    pub changes: Vec<PageChange>,
    /// How many bytes they had as they came, uncompressed.
    #[serde(default, skip_serializing_if = "crate::trace::is_default")]
    pub bytes: u64,
}

/// One page of a pull, complete up to its end line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The changes, in feed order (a snapshot: in key order).
    #[serde(with = "crate::trace::runs")]
    pub changes: Vec<PageChange>,
    /// The page's end.
    pub end: PageEnd,
    /// How many bytes the changes had as they came, uncompressed.
    #[serde(default, skip_serializing_if = "crate::trace::is_default")]
    pub bytes: u64,
}

/// A change as it was read: one that cannot be understood is kept and never stops the feed (P4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageChange {
    /// Understood.
    Valid(Change),
    /// Not understood.
    Invalid {
        /// The line as it came.
        raw: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// Why a request as a whole has no result, in the buckets that decide what happens next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RemoteError {
    /// No answer from the server: DNS, connection, TLS, time-out, or an answer that some other
    /// machine gave. Says nothing about the mutations; retried with back-off.
    #[error("the server cannot be reached: {detail}")]
    Unreachable {
        /// What was seen.
        detail: String,
    },
    /// The server answered that it cannot now, or garbled its answer. Retried with back-off.
    #[error("the server could not answer (status {status}): {detail}")]
    Transient {
        /// The HTTP status.
        status: u16,
        /// What was said.
        detail: String,
        /// How long the server asked to be left alone.
        #[serde(default, with = "in_ms")]
        retry_after: Option<Duration>,
        /// The server said that it is busy or down as a whole (429, 503): the batch is not suspect.
        overloaded: bool,
    },
    /// The credentials are missing, expired or refused (401).
    #[error("the server wants other credentials: {detail}")]
    Auth {
        /// What was said; never the credentials.
        detail: String,
    },
    /// Another file calls itself the same installation: this one is a copy, or was restored (409
    /// `client-forked`). A new identity is needed; what may have been sent keeps its keys.
    #[error("another copy of this database syncs under the same identity: {detail}")]
    Forked {
        /// What was said.
        detail: String,
    },
    /// The request is larger than the server takes (413).
    #[error("the request is too large for the server: {detail}")]
    TooLarge {
        /// What was said.
        detail: String,
    },
    /// The cursor means nothing to the server any more (410): start again with a snapshot.
    #[error("the server no longer knows our position: {detail}")]
    CursorGone {
        /// What was said.
        detail: String,
    },
    /// Client and server do not speak the same protocol version (400 `protocol-unsupported`, 415, 426).
    #[error("client and server do not understand each other: {detail}; upgrade the older one")]
    Incompatible {
        /// What was said.
        detail: String,
    },
    /// The server answered, but there is no such service, or it refuses this client as a whole:
    /// something is set up wrongly. Retried rarely.
    #[error(
        "the server refuses the request (status {status}): {detail}; check the remote's address and rights"
    )]
    Misconfigured {
        /// The HTTP status.
        status: u16,
        /// What was said.
        detail: String,
    },
}

impl RemoteError {
    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The word of [`RemoteError::Auth`].
    pub const AUTH: &'static str = "auth";

    /// One word for the bucket.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Transient { .. } => "transient",
            Self::Auth { .. } => Self::AUTH,
            Self::Forked { .. } => "forked",
            Self::TooLarge { .. } => "too-large",
            Self::CursorGone { .. } => "cursor-gone",
            Self::Incompatible { .. } => "incompatible",
            Self::Misconfigured { .. } => "misconfigured",
        }
    }
}

/// A span as milliseconds, the unit that everything here is computed in.
mod in_ms {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// A future that a remote returns.
pub type AnswerFuture<'a> = Pin<Box<dyn Future<Output = RemoteAnswer> + Send + 'a>>;

/// Who is told of each head that a remote hints at; quick, and never blocking.
pub type Hear = Box<dyn FnMut(Head) + Send>;

/// Ends when there is no more to be heard.
pub type ListenFuture<'a> = Pin<Box<dyn Future<Output = ListenEnd> + Send + 'a>>;

/// Why there is no more to be heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenEnd {
    /// The remote gives no hints. Asking again helps when it has become another one.
    NotOffered,
    /// The remote ended the stream in order.
    Closed,
    /// The stream could not be opened, broke, or fell silent.
    Failed(RemoteError),
}

/// A system of record.
///
/// An implementation never panics on what it receives, bounds every wait, and holds no lock or
/// transaction of the store (A4). Dropping the future gives the request up; whether the server
/// saw it is then unknown, which is why everything sent can be sent again.
pub trait Remote: Send + Sync {
    /// Sends the request and waits for its answer, of the same kind as the request.
    fn send(&self, request: RemoteRequest) -> AnswerFuture<'_>;

    /// Asks for new credentials after the old ones were refused. `Ok(())` when a request may be
    /// tried again with them; the reason otherwise (to be shown to the user, without secrets).
    fn refresh_credentials(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;

    /// Listens for hints that a scope's head moved, for as long as the remote gives them. The first
    /// head comes soon after the stream is open: whoever has heard one may rely on the stream, and
    /// one that falls silent ends by itself. What this client pushed need not be told.
    fn listen(&self, _client: ClientId, _hear: Hear) -> ListenFuture<'_> {
        Box::pin(std::future::ready(ListenEnd::NotOffered))
    }
}
