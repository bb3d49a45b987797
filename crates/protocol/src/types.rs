//! `GET` and `PUT /v1/types`: what the synced tables look like, so that another device can make them.

use crate::EntityType;
use serde::{Deserialize, Serialize};

/// The body of `PUT /v1/types` and the answer to `GET /v1/types`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeDefinitions {
    /// By name.
    pub types: Vec<TypeDefinition>,
}

/// An entity type as a device that attached it describes its table. Parts, never SQL statements:
/// a device that creates the table quotes every name itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeDefinition {
    /// The entity type.
    pub name: EntityType,
    /// The table's name.
    pub table: String,
    /// Counts the changes of the table's schema; a definition with a higher one replaces a lower.
    pub schema_version: u32,
    /// All stored columns in table order, the key's too.
    pub columns: Vec<ColumnDefinition>,
    /// The names of the primary key's columns, in key order.
    pub key: Vec<String>,
    /// Further unique column lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<Vec<String>>,
    /// Foreign keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<ReferenceDefinition>,
    /// Declared WITHOUT ROWID.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_rowid: bool,
    /// Declared STRICT.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnDefinition {
    /// The column's name.
    pub name: String,
    /// The field's name on the wire, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The declared type as written; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub declared: String,
    /// The collation, where it is not BINARY: `NOCASE` or `RTRIM`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub collation: String,
    /// Declared NOT NULL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null: bool,
    /// The default, when it is a literal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<crate::Value>,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceDefinition {
    /// The columns of this table.
    pub columns: Vec<String>,
    /// The table referred to.
    pub table: String,
    /// The columns there, in the same order.
    pub to_columns: Vec<String>,
    /// What becomes of the row when the one referred to is deleted.
    #[serde(default, skip_serializing_if = "ReferenceAction::is_none")]
    pub on_delete: ReferenceAction,
    /// What becomes of the row when the key of the one referred to changes.
    #[serde(default, skip_serializing_if = "ReferenceAction::is_none")]
    pub on_update: ReferenceAction,
}

/// What a foreign key does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceAction {
    /// Nothing: the statement fails in the end if the reference dangles.
    #[default]
    NoAction,
    /// The statement fails at once.
    Restrict,
    /// The columns become NULL.
    SetNull,
    /// The columns take their defaults.
    SetDefault,
    /// The row goes along.
    Cascade,
}

impl ReferenceAction {
    fn is_none(&self) -> bool {
        *self == Self::NoAction
    }
}
