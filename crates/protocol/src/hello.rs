//! `GET /v1/hello`: who is asking, who answers, and within which limits.

use crate::{Epoch, Scope};
use serde::{Deserialize, Serialize};

/// The answer to `GET /v1/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol versions the server speaks, newest first.
    pub protocol_versions: Vec<String>,
    /// Name and version of the server software, for logs only.
    pub server: String,
    /// Identity of the history behind every cursor, position and version.
    pub epoch: Epoch,
    /// The server's clock, in milliseconds since the Unix epoch.
    pub server_time_ms: i64,
    /// Whom the credentials name; a client keeps to one.
    pub principal: Principal,
    /// What the principal may see and write.
    pub scopes: Vec<Grant>,
    /// The sizes a client must keep to.
    pub limits: Limits,
    /// How long an idempotency key is remembered, in milliseconds.
    pub key_retention_ms: i64,
}

/// The account behind a request, from verified credentials only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// Whose data: tenants never see each other's.
    pub tenant: String,
    /// Who within the tenant.
    pub subject: String,
}

/// The right to one scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The scope.
    pub scope: Scope,
    /// What may be done in it.
    pub access: Access,
    /// The oldest position from which its feed is complete; older cursors are expired.
    #[serde(default)]
    pub horizon: i64,
}

/// What a principal may do in a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Pull only.
    Read,
    /// Pull and push.
    Write,
}

/// Sizes beyond which the server answers 413 or a per-mutation rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Mutations in one push.
    pub push_mutations: usize,
    /// Bytes of one request body after decompression.
    pub push_bytes: usize,
    /// Bytes of one mutation as JSON.
    pub mutation_bytes: usize,
    /// Changes in one page of a pull.
    pub page_changes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            push_mutations: 500,
            push_bytes: 8 << 20,
            mutation_bytes: 256 << 10,
            page_changes: 1000,
        }
    }
}
