//! The expressions that capture triggers are made of.
//!
//! Every function returns a piece of SQL and uses only what SQLite 3.38 has built in. Long chains
//! are built as balanced trees ([`concat`], [`any_of`]), since SQLite bounds the depth of
//! expressions, not their length.

use crate::store::RegisteredType;
use crate::table::{Affinity, Column, Table, quote_ident};
use serde_json::Value as Json;

/// Blobs beyond this many bytes are recorded as too large to sync.
const MAX_BLOB_LENGTH: u32 = 16 * 1024 * 1024;

/// Milliseconds since 1970. SQLite's 'now' stands still during one statement, nested triggers
/// included.
pub(crate) const NOW: &str = "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)";

/// A new correlation id, which is also the key under which an untouched mutation is sent: the
/// digits of a UUIDv7 (RFC 9562 5.7) without its hyphens, so that the server's keys grow at the end.
pub(crate) const MUTATION_ID: &str = "printf('%012x', CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)) \
     || '7' || substr(lower(hex(randomblob(2))), 1, 3) || '8' || substr(lower(hex(randomblob(8))), 1, 15)";

/// What every capture trigger is subject to.
pub(super) const UNGUARDED: &str = "NOT EXISTS (SELECT 1 FROM syncline_guard)";

/// A row whose columns an expression reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// The row as the statement found it.
    Old,
    /// The row as the statement writes it.
    New,
    /// A row of the table itself, in a query over [`Subject::from`].
    Stored,
}

/// A table under capture: what the pieces of SQL are about.
pub(super) struct Subject<'a> {
    pub(super) table: &'a Table,
    /// The entity type as an SQL text literal.
    pub(super) kind: String,
    /// Of the entity type, as it is noted with each entry.
    pub(super) schema_version: u32,
    /// The lane of the entity type, as it is noted with each entry; `None` for the usual one.
    pub(super) lane: Option<i64>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(entity_type: &'a RegisteredType) -> Self {
        Self {
            table: &entity_type.table,
            kind: literal(&entity_type.name),
            schema_version: entity_type.schema_version,
            lane: entity_type.options.lane.number(),
        }
    }

    /// `FROM` this: the table under a name that hides neither NEW nor OLD.
    pub(super) fn from(&self) -> String {
        let name = quote_ident(&self.table.name);
        match self.alias() {
            None => name,
            Some(alias) => format!("{name} AS {alias}"),
        }
    }

    fn alias(&self) -> Option<&'static str> {
        let name = &self.table.name;
        let hides = name.eq_ignore_ascii_case("new") || name.eq_ignore_ascii_case("old");
        hides.then_some("syncline_row")
    }

    /// A column of a row.
    pub(super) fn column(&self, row: Row, name: &str) -> String {
        let prefix = match row {
            Row::Old => "OLD".to_owned(),
            Row::New => "NEW".to_owned(),
            Row::Stored => match self.alias() {
                None => quote_ident(&self.table.name),
                Some(alias) => alias.to_owned(),
            },
        };
        format!("{prefix}.{}", quote_ident(name))
    }

    /// The entity id of a row: the same text as `EntityId` gives, or a text that is no entity id
    /// when the key cannot be synced (NULL, REAL, text with U+0000).
    pub(super) fn id(&self, row: Row) -> String {
        match self.table.key.as_slice() {
            [single] if self.table.integer_key => {
                format!("CAST({} AS TEXT)", self.column(row, &single.name))
            }
            [single] => {
                let value = self.column(row, &single.name);
                let text = format!(
                    "CASE WHEN substr({value}, 1, 1) IN ('\"', '[', '{{') \
                     OR ltrim({value}, '0123456789-') = '' THEN {} ELSE {value} END",
                    quoted(&value)
                );
                self.key_part(single, &value, &text)
            }
            several => {
                let part = |column: &Column| {
                    let value = self.column(row, &column.name);
                    self.key_part(column, &value, &quoted(&value))
                };
                let parts: Vec<String> = several.iter().map(part).collect();
                format!("'[' || {} || ']'", concat(&parts, " || ',' || "))
            }
        }
    }

    fn key_part(&self, column: &Column, value: &str, text: &str) -> String {
        let classes = self.classes(column);
        let mut cases = format!("CASE typeof({value})");
        if classes.text {
            cases += &format!(" WHEN 'text' THEN {text}");
        }
        if classes.integer {
            cases += &format!(" WHEN 'integer' THEN CAST({value} AS TEXT)");
        }
        if classes.blob {
            cases += &format!(" WHEN 'blob' THEN {}", hex(value));
        }
        if classes.real {
            cases += &format!(" WHEN 'real' THEN '{{\"$real\":\"' || {value} || '\"}}'");
        }
        cases + " ELSE '{\"$null\":1}' END"
    }

    /// A column's value, of OLD or a stored row, in the triggers' form of JSON. A REAL only says
    /// that its value stands in a row of its own.
    pub(super) fn encode(&self, row: Row, column: &Column) -> String {
        let value = self.column(row, &column.name);
        let classes = self.classes(column);
        let mut cases = String::new();
        if classes.real {
            cases += " WHEN 'real' THEN '{\"$real\":\"row\"}'";
        }
        if classes.blob {
            // Only hexadecimal can outgrow what SQLite takes and fail the app's statement.
            cases += &format!(
                " WHEN 'blob' THEN CASE WHEN length({value}) > {MAX_BLOB_LENGTH} \
                 THEN '{{\"$large\":1}}' ELSE {} END",
                hex(&value)
            );
        }
        match cases.as_str() {
            "" => format!("json_quote({value})"),
            _ => format!("CASE typeof({value}){cases} ELSE json_quote({value}) END"),
        }
    }

    /// Whether two rows differ in a column: by bytes and by storage class, whatever the column's
    /// collation says.
    pub(super) fn differs(&self, column: &Column, a: Row, b: Row) -> String {
        let (a, b) = (self.column(a, &column.name), self.column(b, &column.name));
        self.values_differ(column, &a, &b)
    }

    /// As [`Subject::differs`], for any two expressions.
    pub(super) fn values_differ(&self, column: &Column, a: &str, b: &str) -> String {
        let bytes = format!("{a} COLLATE BINARY IS NOT {b}");
        // 1 and 1.0 are equal in SQL; only a column that converts nothing can hold both.
        match column.affinity {
            Affinity::Blob => format!("({bytes} OR typeof({a}) <> typeof({b}))"),
            _ => bytes,
        }
    }

    /// Whether OLD and NEW have the same key.
    pub(super) fn same_key(&self) -> String {
        let differing: Vec<String> = (self.table.key.iter())
            .map(|column| self.differs(column, Row::Old, Row::New))
            .collect();
        format!("NOT ({})", any_of(&differing))
    }

    /// Whether OLD and NEW differ in a column outside the key.
    pub(super) fn fields_differ(&self) -> String {
        let differing: Vec<String> = (self.table.columns.iter())
            .map(|column| self.differs(column, Row::Old, Row::New))
            .collect();
        any_of(&differing)
    }

    /// Finds, in the table, the row that NEW has become, if it is still there under its key.
    pub(super) fn is_new_row(&self) -> String {
        let mut conditions = Vec::new();
        if let Some(rowid) = self.table.rowid_name {
            let stored = self.column(Row::Stored, rowid);
            conditions.push(format!("{stored} = NEW.{rowid}"));
        }
        if !self.table.integer_key {
            for (at, column) in self.table.key.iter().enumerate() {
                let stored = self.column(Row::Stored, &column.name);
                let new = self.column(Row::New, &column.name);
                if self.table.without_rowid {
                    let collation = quote_ident(self.key_collation(at));
                    conditions.push(format!("{stored} COLLATE {collation} = {new}"));
                }
                conditions.push(format!("{stored} COLLATE BINARY IS {new}"));
            }
        }
        conditions.join(" AND ")
    }

    /// The collation of the primary key's index for its column at that position.
    pub(super) fn key_collation(&self, at: usize) -> &str {
        let primary = self.table.unique_indexes.first();
        primary
            .and_then(|index| index.terms.get(at))
            .map_or("BINARY", |term| term.collation.as_str())
    }

    /// The columns outside the key that can hold a REAL.
    pub(super) fn real_columns(&self) -> Vec<&'a Column> {
        let can_be_real = |column: &&Column| self.classes(column).real;
        self.table.columns.iter().filter(can_be_real).collect()
    }

    /// The storage classes besides NULL that a column's values can have.
    pub(super) fn classes(&self, column: &Column) -> Classes {
        let declared = column.declared.to_ascii_uppercase();
        let only = |integer, real, text, blob| Classes {
            integer,
            real,
            text,
            blob,
        };
        match (self.table.strict, declared.as_str()) {
            (true, "INT" | "INTEGER") => only(true, false, false, false),
            (true, "REAL") => only(false, true, false, false),
            (true, "TEXT") => only(false, false, true, false),
            (true, "BLOB") => only(false, false, false, true),
            _ if column.affinity == Affinity::Text => only(false, false, true, true),
            _ => only(true, true, true, true),
        }
    }
}

/// See [`Subject::classes`].
pub(super) struct Classes {
    pub(super) integer: bool,
    pub(super) real: bool,
    pub(super) text: bool,
    pub(super) blob: bool,
}

/// A text as a JSON string. What comes out of SQL's JSON functions is marked as JSON, which
/// `json_quote` would leave as it is; a concatenation is not.
fn quoted(text: &str) -> String {
    format!("json_quote({text} || '')")
}

fn hex(blob: &str) -> String {
    format!("'{{\"$hex\":\"' || hex({blob}) || '\"}}'")
}

/// A text as an SQL literal. Names with U+0000 never get here.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The start of a JSON member, `"name":` and what follows, in an SQL literal.
pub(super) fn member(before: &str, name: &str, after: &str) -> String {
    literal(&format!("{before}{}:{after}", Json::from(name)))
}

/// `FROM` this: the given columns, one a row: its number among them, its field, and how a REAL of
/// that field looks in a payload.
pub(super) fn field_rows(columns: &[&Column]) -> String {
    let rows: Vec<String> = (columns.iter().enumerate())
        .map(|(number, column)| {
            let mark = member("", &column.field, "{\"$real\":\"row\"}");
            format!("({number}, {}, {mark})", literal(&column.field))
        })
        .collect();
    format!("(VALUES {}) AS syncline_field", rows.join(", "))
}

/// The value of the column that the row of [`field_rows`] is about.
pub(super) fn field_value(columns: &[&Column], value: impl Fn(&Column) -> String) -> String {
    let cases: String = (columns.iter().enumerate())
        .map(|(number, column)| format!(" WHEN {number} THEN {}", value(column)))
        .collect();
    format!("CASE syncline_field.column1{cases} END")
}

/// The parts joined by an operator, as a balanced tree.
pub(super) fn concat(parts: &[String], operator: &str) -> String {
    if parts.len() <= 8 {
        return parts.join(operator);
    }
    let (left, right) = parts.split_at(parts.len() / 2);
    format!(
        "({}){operator}({})",
        concat(left, operator),
        concat(right, operator)
    )
}

/// Whether one of the conditions holds.
pub(super) fn any_of(conditions: &[String]) -> String {
    match conditions {
        [] => "0".to_owned(),
        _ => concat(conditions, " OR "),
    }
}
