//! What is pushed: entities by name, mutations with their bytes frozen.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use syncline_protocol::{
    ClientId, EntityId, EntityType, ExchangeToken, IdempotencyKey, MutationId, Operation,
};

/// Names one entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// Claimed outbox entries, in local order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// The entries.
    pub entries: Vec<BatchEntry>,
    /// How many bytes their mutations have.
    #[serde(default, skip_serializing_if = "crate::trace::is_default")]
    pub bytes: u64,
}

/// One claimed outbox entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The group with which it takes effect all or none; all of a group are in one batch.
    pub group: Option<String>,
    /// The installation that may have sent it before, when that was another one than this.
    pub origin: Option<ClientId>,
    /// An earlier request may have carried it, from here or from another copy of the file.
    #[serde(default, skip_serializing_if = "crate::trace::is_default")]
    pub again: bool,
    /// The mutation as JSON, byte for byte as it is sent.
    pub frozen: String,
}

impl Batch {
    /// The body of the push: the frozen mutations byte for byte, never read, and around them what
    /// belongs to the request rather than to a key.
    pub fn push_body(&self, client: &ClientId, token: Option<&ExchangeToken>) -> Vec<u8> {
        let frozen: usize = self
            .entries
            .iter()
            .map(|entry| entry.frozen.len() + 1)
            .sum();
        let mut body = Vec::with_capacity(frozen + 128);
        let member = |name: &str, json: String, body: &mut Vec<u8>| {
            body.push(if body.is_empty() { b'{' } else { b',' });
            body.extend_from_slice(format!("\"{name}\":{json}").as_bytes());
        };
        member("client", json(client), &mut body);
        if let Some(token) = token {
            member("token", json(token), &mut body);
        }
        let groups = self.groups();
        if !groups.is_empty() {
            member("groups", json(&groups), &mut body);
        }
        let inherited = self.inherited();
        if !inherited.is_empty() {
            member("inherited", json(&inherited), &mut body);
        }
        member("mutations", "[".to_owned(), &mut body);
        for (index, entry) in self.entries.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(entry.frozen.as_bytes());
        }
        body.extend_from_slice(b"]}");
        body
    }

    fn groups(&self) -> Vec<Vec<&IdempotencyKey>> {
        let mut groups: BTreeMap<&str, Vec<&IdempotencyKey>> = BTreeMap::new();
        for entry in &self.entries {
            if let Some(group) = &entry.group {
                groups.entry(group).or_default().push(&entry.key);
            }
        }
        groups.into_values().collect()
    }

    fn inherited(&self) -> BTreeMap<&IdempotencyKey, &ClientId> {
        self.entries
            .iter()
            .filter_map(|entry| Some((&entry.key, entry.origin.as_ref()?)))
            .collect()
    }
}

fn json(value: &impl serde::Serialize) -> String {
    // Texts and maps of texts: this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}
