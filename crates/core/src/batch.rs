//! What is pushed: entities by name, mutations with their bytes frozen.

use std::fmt;
use syncline_protocol::{EntityId, EntityType, IdempotencyKey, MutationId, Operation};

/// Names one entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityRef {
    /// Its registered type.
    pub entity_type: EntityType,
    /// Its id within the type.
    pub id: EntityId,
}

impl fmt::Display for EntityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.entity_type, self.id)
    }
}

/// Claimed outbox entries, in local order, at most one per entity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The entries.
    pub entries: Vec<BatchEntry>,
}

/// One claimed outbox entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchEntry {
    /// Its local order: names the entry in the outbox.
    pub seq: i64,
    /// The mutation's correlation id.
    pub mutation: MutationId,
    /// The key under which these bytes are sent, now and ever (E3).
    pub key: IdempotencyKey,
    /// The entity.
    pub entity: EntityRef,
    /// What is done to it.
    pub op: Operation,
    /// Attributable failures so far.
    pub attempts: u32,
    /// The mutation as JSON, byte for byte as it is sent.
    pub frozen: String,
}
