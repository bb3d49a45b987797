//! What an app's table looks like: its columns, key, unique indexes and references.
//!
//! [`Table::read`] introspects one table and refuses, with the reason and the mend, those that
//! cannot be synced. Nothing here writes; names are used as SQLite gives them, and every piece of
//! SQL made from one goes through [`quote_ident`].

mod index_sql;
mod options;
mod order;
mod read;

pub use order::topological_order;
pub use read::list_tables;

use serde::{Deserialize, Serialize};

/// An app's table that can be synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The name, spelled as the schema spells it.
    pub name: String,
    /// The synced columns outside the key, in table order. Generated columns are left out: every
    /// device computes them itself.
    pub columns: Vec<Column>,
    /// Columns that stay on this device.
    pub left_out: Vec<Column>,
    /// Every column with a place in the table, in table order.
    pub layout: Vec<Place>,
    /// The primary key's columns, in key order; at least one.
    pub key: Vec<Column>,
    /// The column lists of all unique indexes without expressions, the primary key's first.
    pub unique: Vec<Vec<String>>,
    /// All unique indexes in full, the primary key's first.
    pub unique_indexes: Vec<UniqueIndex>,
    /// The foreign keys, and after them the references that were declared to Syncline.
    pub references: Vec<Reference>,
    /// Declared WITHOUT ROWID.
    pub without_rowid: bool,
    /// Declared STRICT.
    pub strict: bool,
    /// The key is the rowid (`INTEGER PRIMARY KEY`): always an integer, assigned when absent.
    pub integer_key: bool,
    /// Generated columns, which can be part of a unique index.
    pub generated: Vec<String>,
    /// A name under which the rowid can be asked for; `None` in a table WITHOUT ROWID.
    pub rowid_name: Option<&'static str>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, spelled as the schema spells it.
    pub name: String,
    /// The name of its field in payloads and on the wire; the column's own unless declared.
    pub field: String,
    /// The declared type as written; may be empty.
    pub declared: String,
    /// What the declared type makes of values.
    pub affinity: Affinity,
    /// Declared NOT NULL (or made so by the kind of key).
    pub not_null: bool,
    /// The DEFAULT clause as written.
    pub default: Option<String>,
}

/// A column as a place in its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The name, spelled as the schema spells it.
    pub name: String,
    /// The declared type as written; may be empty.
    pub declared: String,
}

/// The five column affinities of SQLite (<https://sqlite.org/datatype3.html#type_affinity>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Numbers become integers where that loses nothing.
    Integer,
    /// Numbers become text.
    Text,
    /// Values stay as they come; also called NONE, and what ANY is in a STRICT table.
    Blob,
    /// Numbers become REAL.
    Real,
    /// As `Integer`.
    Numeric,
}

/// A unique index or constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueIndex {
    /// Its name; `None` for an `INTEGER PRIMARY KEY`, which has no index of its own.
    pub name: Option<String>,
    /// What must be unique, in index order.
    pub terms: Vec<UniqueTerm>,
    /// The WHERE clause of a partial index, as written.
    pub filter: Option<String>,
}

/// One term of a unique index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueTerm {
    /// A column or an expression.
    pub kind: TermKind,
    /// The collation under which values count as equal.
    pub collation: String,
}

/// What a term of an index is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TermKind {
    /// A column, possibly a generated one.
    Column(String),
    /// An expression, as written.
    Expression(String),
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The columns of this table.
    pub columns: Vec<String>,
    /// The table referred to, as written.
    pub table: String,
    /// The columns there, in the same order; empty if that table does not exist.
    pub to_columns: Vec<String>,
    /// What becomes of rows whose referenced row is deleted.
    pub on_delete: OnDelete,
}

/// The ON DELETE clause of a foreign key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDelete {
    /// The deletion is refused; also RESTRICT, and what is declared to Syncline only.
    #[default]
    NoAction,
    /// They are deleted too.
    Cascade,
    /// They reference nothing any more.
    SetNull,
    /// They reference what the columns' defaults say.
    SetDefault,
}

/// Why a table cannot be synced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Nothing of that name.
    #[error("there is no table {0:?}; check the spelling, and that this is the right file")]
    NoSuchTable(String),
    /// A view has no rows of its own.
    #[error("{0:?} is a view; sync the tables that it reads instead")]
    View(String),
    /// A virtual table or one of its shadow tables: triggers cannot be put on it.
    #[error(
        "{0:?} is a virtual table or belongs to one, where nothing can be recorded; sync the ordinary table that feeds it"
    )]
    Virtual(String),
    /// One of SQLite's or of the engine's own.
    #[error("{0:?} is not one of the app's tables; names with sqlite_ and syncline_ are taken")]
    Reserved(String),
    /// Rows without identity.
    #[error(
        "table {0:?} has no PRIMARY KEY, so its rows cannot be told apart on another device; make a table with one (such as id TEXT PRIMARY KEY NOT NULL) and copy the rows over"
    )]
    NoPrimaryKey(String),
    /// A REAL key has no canonical text.
    #[error(
        "key column {column:?} of table {table:?} is declared {declared}, and floating-point numbers do not identify rows; use INTEGER, TEXT or BLOB"
    )]
    RealKey {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its declared type.
        declared: String,
    },
    /// A name that could not stand in messages, ids or logs.
    #[error("the name {0:?} contains a control character; rename it")]
    ControlCharacter(String),
    /// Three columns hide all names of the rowid.
    #[error(
        "table {0:?} has columns named rowid, _rowid_ and oid, which hides the rowid; rename one of them"
    )]
    HiddenRowid(String),
    /// The text of a unique index could not be taken apart.
    #[error(
        "the unique index {index:?} of table {table:?} is written in a way that is not understood; drop it and make it again, without comments inside"
    )]
    UnreadableIndex {
        /// The table.
        table: String,
        /// The index.
        index: String,
    },
    /// An option names a column that is not there.
    #[error(
        "table {table:?} has no column {column:?}, which its options name; check the spelling, or take it out of them"
    )]
    UnknownColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// An option names a trigger that the table does not have.
    #[error(
        "table {table:?} has no trigger {trigger:?}, which its options name; check the spelling, or take it out of them"
    )]
    UnknownTrigger {
        /// The table.
        table: String,
        /// The trigger.
        trigger: String,
    },
    /// An option for a column that is computed everywhere.
    #[error(
        "column {column:?} of table {table:?} is generated: every device computes it, and it is never synced; take it out of the options"
    )]
    GeneratedOption {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Without its key a row is no entity.
    #[error(
        "key column {column:?} of table {table:?} cannot be left out: other devices know the row by it"
    )]
    KeyLeftOut {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The engine could not insert rows.
    #[error(
        "column {column:?} of table {table:?} cannot be left out: it is NOT NULL and has no default, so rows of other devices could not be inserted; give it a DEFAULT"
    )]
    RequiredLeftOut {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Keys travel in the entity's id.
    #[error(
        "key column {column:?} of table {table:?} has no field that could have another name: keys travel in the entity's id"
    )]
    KeyField {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A field's name that the wire does not take.
    #[error(
        "the field of column {column:?} of table {table:?} must have a name of 1 to 128 bytes without control characters; rename it"
    )]
    UnfitField {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Two columns would overwrite each other.
    #[error(
        "two columns of table {table:?} have the field {field:?} (upper and lower case are the same); give one of them another"
    )]
    SameField {
        /// The table.
        table: String,
        /// The field.
        field: String,
    },
    /// A declared reference that fits no key.
    #[error(
        "the reference of table {table:?} from ({columns}) to {to:?} does not fit: the primary key there is ({key}); name an existing table and as many columns as its key has"
    )]
    UnfitReference {
        /// The table.
        table: String,
        /// The table referred to.
        to: String,
        /// The columns here.
        columns: String,
        /// The key there.
        key: String,
    },
    /// Nobody can make another key of several columns.
    #[error(
        "the ids of table {0:?} cannot be assigned: its key has several columns; leave its id mode at client"
    )]
    UnfitIdMode(String),
    /// SQLite's answer to a question about the schema.
    #[error("reading the schema: {0}")]
    Storage(#[from] rusqlite::Error),
}

impl Affinity {
    /// The affinity of a declared type, by the rules of SQLite in their order.
    pub fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if has("INT") {
            Affinity::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Affinity::Text
        } else if has("BLOB") || declared.is_empty() {
            Affinity::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

impl UniqueIndex {
    /// The columns, unless one of the terms is an expression.
    pub fn columns(&self) -> Option<Vec<String>> {
        self.terms
            .iter()
            .map(|term| match &term.kind {
                TermKind::Column(name) => Some(name.clone()),
                TermKind::Expression(_) => None,
            })
            .collect()
    }
}

/// A name as an SQL identifier, whatever it contains.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
