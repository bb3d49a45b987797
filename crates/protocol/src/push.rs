//! `POST /v1/push`: an ordered batch of mutations and a result for each.

use crate::{
    ClientId, EntityId, EntityType, Epoch, ExchangeToken, FieldError, Fields, IdempotencyKey,
    MutationId, Scope, ServerVersion,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The body of `POST /v1/push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRequest {
    /// The installation that recorded the mutations.
    pub client: ClientId,
    /// In the order in which they were recorded; the server applies them in this order.
    pub mutations: Vec<Mutation>,
    /// Sets of keys, all in this request, whose mutations take effect all or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Vec<IdempotencyKey>>,
    /// Keys of mutations that another installation may have sent before (this one continues a
    /// copied or restored file), with that installation. A key that it used is answered with its
    /// recorded outcome even when the content differs; one that it did not use is applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inherited: BTreeMap<IdempotencyKey, ClientId>,
    /// The token of the last answer that this installation has booked; absent the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ExchangeToken>,
}

/// One local intent, as sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutation {
    /// What makes sending it again harmless.
    pub key: IdempotencyKey,
    /// For correlation in logs.
    pub mutation: MutationId,
    /// Further mutations that were coalesced into this one: sent on their own later (from a
    /// restored file), they are answered with this one's outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covers: Vec<MutationId>,
    /// The entity's registered type.
    #[serde(rename = "type")]
    pub entity_type: EntityType,
    /// The entity.
    pub id: EntityId,
    /// What is to be done.
    pub op: Operation,
    /// For a create: when the server is to choose the id itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assign: Option<Assign>,
    /// The state it was made on; a create has none, and a command needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// create: all synced columns; update: only those that changed; delete: nothing.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// What the app meant, where the server is to carry that out instead of the fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
}

/// When the server chooses the id of a created entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assign {
    /// The id is a proposal: another one if it is taken, also by a deleted entity.
    IfTaken,
    /// The id is a temporary name only: always another one.
    Always,
}

/// A named intent. The server's handler for the name decides what becomes of the entity; the
/// mutation's fields are only what the app showed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Declared at the server for the entity's type.
    pub name: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub args: Fields,
}

/// The three things a mutation can do to one entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Bring it into being; never overwrites.
    Create,
    /// Change some fields; never creates.
    Update,
    /// Remove it.
    Delete,
}

/// The state of its entity that a mutation was made on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// "As of this position of the scope's feed": the server refuses if the entity changed after.
    Position {
        /// The history that the position belongs to.
        epoch: Epoch,
        /// The feed.
        scope: Scope,
        /// The last position that the row reflects.
        position: i64,
    },
    /// Exactly this version.
    Version {
        /// The history that the version belongs to.
        epoch: Epoch,
        /// The version.
        version: ServerVersion,
    },
    /// Whatever the mutation with this key, earlier in the same batch or long since applied, left.
    After(IdempotencyKey),
}

/// The body of the answer to a push: one result for each mutation, found by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushResponse {
    /// The history that the positions and versions belong to.
    pub epoch: Epoch,
    /// In the order of the request.
    pub results: Vec<PushResult>,
    /// To be presented with the next push, once this answer is booked. A token older than the one
    /// before last shows that two files call themselves the same installation (409 `client-forked`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ExchangeToken>,
}

/// What became of one mutation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushResult {
    /// Which mutation.
    pub key: IdempotencyKey,
    /// What became of it. For one key this never changes once it is final.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The outcome was recorded by an earlier request and is only repeated here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// What can become of a mutation. `applied`, `conflict`, `rejected`, `forbidden`, `expired`
/// and `cancelled` are final for their key; `retry` and `skipped` are not and leave nothing behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// It took effect.
    Applied {
        /// The entity's version after it.
        version: ServerVersion,
        /// The entity's position in its scope's feed after it.
        position: i64,
        /// The whole entity, when it is not simply the base with the mutation's fields laid over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fields: Option<Fields>,
        /// The entity's id, when the server chose another than the one that was sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<EntityId>,
    },
    /// The base is not the current state.
    Conflict {
        /// What about it.
        reason: ConflictReason,
        /// The current state, unless the entity never existed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remote: Option<RemoteState>,
    },
    /// It will never be accepted as it is.
    Rejected {
        /// A stable word: `validation`, `unknown-type`, `unknown-command`, `key-reused`, `too-large` …
        code: String,
        /// For people.
        detail: String,
        /// Field by field, where that is known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        errors: Vec<FieldError>,
    },
    /// The principal may not do this.
    Forbidden {
        /// For people.
        detail: String,
    },
    /// Nothing happened for now; send the same again.
    Retry {
        /// For people.
        detail: String,
        /// Not before this many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<i64>,
    },
    /// Not tried, because an earlier mutation of the batch that it follows did not go through.
    Skipped {
        /// The key of that earlier mutation.
        because: IdempotencyKey,
    },
    /// The key is older than the server's memory of keys: never executed, outcome unknown.
    Expired,
    /// It was cancelled before it arrived, and never takes effect.
    Cancelled,
}

impl Outcome {
    /// Whether the server has recorded this outcome for the key and will repeat it for ever.
    pub fn is_final(&self) -> bool {
        !matches!(self, Outcome::Retry { .. } | Outcome::Skipped { .. })
    }

    /// The word for it on the wire, also in logs and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Applied { .. } => "applied",
            Outcome::Conflict { .. } => "conflict",
            Outcome::Rejected { .. } => "rejected",
            Outcome::Forbidden { .. } => "forbidden",
            Outcome::Retry { .. } => "retry",
            Outcome::Skipped { .. } => "skipped",
            Outcome::Expired => "expired",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// Why a base did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConflictReason {
    /// The entity changed since the base.
    Stale,
    /// A create found the entity alive.
    Exists,
    /// The entity was deleted since the base.
    Deleted,
    /// The server has never heard of the entity, or has long forgotten it.
    Missing,
}

/// The server's state of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteState {
    /// Its version.
    pub version: ServerVersion,
    /// Its position in its scope's feed.
    pub position: i64,
    /// All fields, or none when it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
}

/// The answer to `GET /v1/mutations/{key}`, and (always final) to `POST /v1/mutations/{key}/cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum KeyOutcome {
    /// The key was seen; this is what became of it, for ever.
    Final {
        /// The recorded result.
        result: PushResult,
    },
    /// Never seen. (A request that carries it may still be under way.)
    Unknown,
}
