//! Unique fields and references: by which values the entities of a type are found.
//!
//! An index holds hashes, so that a long value costs no more than a short one. NULL is never
//! indexed: it equals nothing and refers to nothing.

use crate::IndexEntry;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{EntityId, Fields, KeyPart, Value};

/// The unique fields and references of a type.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct IndexRules {
    /// Lists of fields that no two entities share.
    pub(crate) unique: Vec<Vec<String>>,
    /// Field to the type whose entity it names.
    pub(crate) references: BTreeMap<String, String>,
}

/// An index and the hash under which something stands there.
pub(crate) type Place = (String, [u8; 32]);

impl IndexRules {
    pub(crate) fn is_empty(&self) -> bool {
        self.unique.is_empty() && self.references.is_empty()
    }

    /// The rules as text: entities that were indexed by other rules are indexed anew.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Where an entity with these fields stands.
    pub(crate) fn entries(
        &self,
        entity_type: &str,
        id: &str,
        fields: &Fields,
    ) -> BTreeSet<IndexEntry> {
        let unique = self.unique.iter();
        let unique = unique.filter_map(|list| unique_place(entity_type, list, fields));
        let references = self.references.iter().filter_map(|(field, target)| {
            let id = referred(fields.get(field)?)?;
            Some(reference_place(target, &id))
        });
        let entry = |(index, value)| IndexEntry {
            index,
            value,
            entity_type: entity_type.to_owned(),
            id: id.to_owned(),
        };
        unique.chain(references).map(entry).collect()
    }
}

/// None when a field is absent or NULL.
pub(crate) fn unique_place(entity_type: &str, list: &[String], fields: &Fields) -> Option<Place> {
    let values: Option<Vec<&Value>> = list
        .iter()
        .map(|name| fields.get(name).filter(|value| !value.is_null()))
        .collect();
    let values = serde_json::to_vec(&values?).ok()?;
    let index = serde_json::to_string(&("unique", entity_type, list)).ok()?;
    Some((index, Sha256::digest(values).into()))
}

/// Where those stand that refer to this entity.
pub(crate) fn reference_place(target_type: &str, id: &str) -> Place {
    let index = serde_json::to_string(&("reference", target_type)).unwrap_or_default();
    (index, Sha256::digest(id.as_bytes()).into())
}

/// The id of the entity that a value names; none for NULL and for what is no key.
pub(crate) fn referred(value: &Value) -> Option<String> {
    let part = match value {
        Value::Integer(integer) => KeyPart::Integer(*integer),
        Value::Text(text) => KeyPart::Text(text.clone()),
        Value::Blob(bytes) => KeyPart::Blob(bytes.clone()),
        Value::Null | Value::Real(_) => return None,
    };
    let id = EntityId::from_parts(&[part]).ok()?;
    Some(id.as_str().to_owned())
}
