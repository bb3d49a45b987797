//! What can be declared for an entity type beside its table and policy: the JSON in the column
//! `options` of `syncline_entity_type`.

use crate::error::{StoreError, json};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The declared options of an entity type. All have defaults that work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeOptions {
    /// In which lane its mutations travel, unless a write says otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lane: Lane,
    /// Who decides the ids of its entities; `None`: what suits the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_mode: Option<IdMode>,
    /// References that the schema does not declare.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<DeclaredReference>,
    /// Columns that stay on this device.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leave_out: BTreeSet<String>,
    /// Columns whose field has another name on the wire: column to field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// The app's own triggers on the table, where they shall not do what suits what they write.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub triggers: BTreeMap<String, WhileApplying>,
}

/// What a trigger of the app's does while the engine writes what came from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhileApplying {
    /// It fires, as for a write of the app's. What it writes is not recorded, so it must not write what
    /// is synced. The default for one that writes no synced table.
    Fires,
    /// It is held off: its effects come as data. The default for one that writes a synced table.
    Held,
}

/// The order in which mutations travel: all that can go of a higher lane goes before a lower one,
/// except that every eighth batch goes in local order, whatever the lanes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Before everything else.
    Urgent,
    /// What nothing was said about.
    #[default]
    Normal,
    /// When nothing else waits.
    Background,
}

impl Lane {
    /// As it stands in the outbox: nothing for the usual one.
    pub(crate) fn number(self) -> Option<i64> {
        match self {
            Lane::Urgent => Some(0),
            Lane::Normal => None,
            Lane::Background => Some(2),
        }
    }
}

/// Who decides the id of a new entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdMode {
    /// The key is the id, for ever; the app makes it unique (UUIDs, natural keys). The default for
    /// keys that the app gives.
    Client,
    /// The key is a proposal; when it is taken the row gets another one. The default for an
    /// `INTEGER PRIMARY KEY`, which SQLite assigns.
    Provisional,
    /// The key is a temporary name; the server always assigns another one.
    Server,
}

/// A reference that the app knows and the schema does not declare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredReference {
    /// The columns of this table.
    pub columns: Vec<String>,
    /// The table referred to; its primary key is meant.
    pub table: String,
}

impl TypeOptions {
    pub(crate) fn from_json(text: &str) -> Result<Self, StoreError> {
        json("type's options", text)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
