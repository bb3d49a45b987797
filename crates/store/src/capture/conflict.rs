//! Which stored rows stand in the way of a row about to be written.
//!
//! The conditions name at least the rows that a REPLACE would remove, index by index, in a form
//! that lets SQLite use that very index.

use super::sql::{Row, Subject, any_of};
use super::stash::Write;
use crate::table::{Column, TermKind, UniqueIndex, quote_ident};

/// Whether any stored row stands in the way of NEW, or could.
pub(super) fn has_conflict(subject: &Subject<'_>, write: Write) -> String {
    let from = subject.from();
    let exists: Vec<String> = (subject.table.unique_indexes.iter())
        .map(|index| {
            let collides = collides(subject, index, write);
            format!("EXISTS (SELECT 1 FROM {from} WHERE {collides})")
        })
        .collect();
    any_of(&exists)
}

/// Whether a stored row is one of those. With several indexes these are first looked up one by
/// one: SQLite would search the whole table for many kinds of conditions joined by OR.
pub(super) fn conflicts(subject: &Subject<'_>, write: Write) -> String {
    let table = subject.table;
    if let [index] = table.unique_indexes.as_slice() {
        return collides(subject, index, write);
    }
    let identity: Vec<String> = match table.rowid_name {
        Some(rowid) => vec![subject.column(Row::Stored, rowid)],
        None => (table.key.iter())
            .map(|column| subject.column(Row::Stored, &column.name))
            .collect(),
    };
    let (identity, from) = (identity.join(", "), subject.from());
    let lookups: Vec<String> = (table.unique_indexes.iter())
        .map(|index| {
            let collides = collides(subject, index, write);
            format!("SELECT {identity} FROM {from} WHERE {collides}")
        })
        .collect();
    format!(
        "({identity}) IN (\n    {}\n  )",
        lookups.join("\n    UNION ALL ")
    )
}

/// Whether an update gives the row another place in a unique index.
pub(super) fn moves(subject: &Subject<'_>) -> String {
    let differs = |expression: &str| {
        let old = on_row(subject, Row::Old, expression);
        let new = on_row(subject, Row::New, expression);
        format!("{old} COLLATE BINARY IS NOT {new}")
    };
    let mut moves: Vec<String> = Vec::new();
    for index in &subject.table.unique_indexes {
        moves.extend(index.terms.iter().map(|term| match &term.kind {
            TermKind::Expression(expression) => differs(expression),
            TermKind::Column(name) => {
                let old = subject.column(Row::Old, name);
                let new = subject.column(Row::New, name);
                format!("{old} COLLATE BINARY IS NOT {new}")
            }
        }));
        moves.extend(index.filter.as_ref().map(|filter| differs(filter)));
    }
    any_of(&moves)
}

/// The columns that an UPDATE must set to give a row another place in a unique index; `None` if
/// that could be any.
pub(super) fn moving_columns(subject: &Subject<'_>) -> Option<Vec<String>> {
    let table = subject.table;
    let mut names = key_columns(subject);
    for index in &table.unique_indexes {
        let columns = index.columns().filter(|_| index.filter.is_none())?;
        if columns.iter().any(|name| table.generated.contains(name)) {
            return None;
        }
        names.extend(columns);
    }
    // In table order, so that renaming a column changes nothing but its name.
    let mut ordered: Vec<String> = (table.layout.iter())
        .map(|place| place.name.clone())
        .filter(|name| names.contains(name))
        .collect();
    ordered.extend(names.into_iter().filter(|name| !table.has_column(name)));
    ordered.dedup();
    Some(ordered)
}

/// The columns that an UPDATE must set to change a row's key, under all names.
pub(super) fn key_columns(subject: &Subject<'_>) -> Vec<String> {
    let mut names: Vec<String> = (subject.table.key.iter())
        .map(|column| column.name.clone())
        .collect();
    if subject.table.integer_key {
        names.extend(["rowid", "_rowid_", "oid"].map(str::to_owned));
    }
    names
}

/// Whether a stored row, other than OLD, equals NEW in all terms of a unique index.
fn collides(subject: &Subject<'_>, index: &UniqueIndex, write: Write) -> String {
    let mut conditions: Vec<String> = (index.terms.iter())
        .map(|term| {
            let collation = quote_ident(&term.collation);
            match &term.kind {
                TermKind::Column(name) => {
                    let stored = subject.column(Row::Stored, name);
                    let new = early_value_of(subject, name);
                    format!("{stored} COLLATE {collation} = {new}")
                }
                TermKind::Expression(expression) => format!(
                    "({expression}\n) COLLATE {collation} = {}",
                    on_row(subject, Row::New, expression)
                ),
            }
        })
        .collect();
    // A line feed ends a comment that the app may have put there.
    conditions.extend(index.filter.as_ref().map(|filter| format!("({filter}\n)")));
    if write == Write::Update {
        let (id, old_id) = (subject.id(Row::Stored), subject.id(Row::Old));
        conditions.push(format!("{id} <> {old_id}"));
    }
    conditions.join(" AND ")
}

/// An expression over the table's columns, evaluated for NEW or OLD.
fn on_row(subject: &Subject<'_>, row: Row, expression: &str) -> String {
    let table = subject.table;
    let columns: Vec<String> = (table.layout.iter())
        .map(|place| {
            let name = place.name.as_str();
            let value = match row {
                Row::New => early_value_of(subject, name),
                Row::Old | Row::Stored => subject.column(row, name),
            };
            format!("{value} AS {}", quote_ident(name))
        })
        .collect();
    let (columns, name) = (columns.join(", "), quote_ident(&table.name));
    format!("(SELECT {expression}\n FROM (SELECT {columns}) AS {name})")
}

fn early_value_of(subject: &Subject<'_>, name: &str) -> String {
    let table = subject.table;
    let columns = table.key.iter().chain(&table.columns);
    match columns
        .chain(&table.left_out)
        .find(|column| column.name == name)
    {
        Some(column) => early_value(subject, column),
        None => subject.column(Row::New, name),
    }
}

/// What a column of NEW will hold: OR REPLACE puts the default in place of a NULL that is not
/// allowed, but shows the NULL beforehand.
pub(super) fn early_value(subject: &Subject<'_>, column: &Column) -> String {
    let new = subject.column(Row::New, &column.name);
    match (&column.default, column.not_null) {
        (Some(default), true) => match constant_default(default) {
            Some(constant) => format!("coalesce({new}, {constant})"),
            None => new,
        },
        _ => new,
    }
}

/// A DEFAULT clause as an expression, if it is a plain number, text or blob.
pub(crate) fn constant_default(default: &str) -> Option<String> {
    let text = default.trim();
    let number = text.trim_start_matches(['+', '-', ' ']);
    let digits = number.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && number
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
    let quoted = |start: &str| {
        let inner = text.strip_prefix(start)?.strip_suffix('\'')?;
        (!inner.replace("''", "").contains('\'')).then_some(())
    };
    let blob = quoted("x'").or_else(|| quoted("X'"));
    (digits || quoted("'").is_some() || blob.is_some()).then(|| text.to_owned())
}
