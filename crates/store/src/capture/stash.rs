//! Statements for rows that a REPLACE removes.
//!
//! With `recursive_triggers` off, which is the default, SQLite removes the rows that stand in the
//! way of an OR REPLACE without firing their delete triggers. So the rows that could stand in the
//! way are written down beforehand in `syncline_stash`, and looked for afterwards.
//!
//! `new_id` is the id of the row being written, after a line feed if it is written by an update;
//! or empty when it is not known yet (a rowid still to be assigned, a key still to get its
//! default). `old_id` says which row may go:
//!
//! - a line feed and a list of column numbers, each followed by a line feed: the row with the very
//!   key of the new one, and the columns in which the two differ;
//! - a BLOB: the key of the row, if the key is one column and a BLOB, so that it can be looked up;
//! - otherwise the row's entity id.

use super::base::take_base_of_stored;
use super::sql::{Row, Subject, any_of, concat};
use crate::table::{Column, TermKind, UniqueIndex, quote_ident};

/// A column of the stash, by its full name: it also stands in queries over the app's table, which
/// may have a column of that name.
const STASHED: &str = "syncline_stash.old_id";

/// Which row is about to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// A new one, whose key may still be unknown.
    Insert,
    /// OLD, becoming NEW.
    Update,
}

/// Writes down the rows that NEW may replace, and takes their bases.
///
/// An update that moves the row in no unique index can replace nothing. It leaves the stash alone,
/// for it may be one by a trigger of the app, in the midst of the statement that the stash is for.
pub(super) fn stash_conflicts(subject: &Subject<'_>, write: Write) -> Vec<String> {
    let kind = &subject.kind;
    let from = subject.from();
    let new_id = early_new_id(subject, write);
    let held = format!("entity_type = {kind} AND {}", holds_for_new(subject, write));
    let moves = may_move(subject, write);
    let conflict = conflict(subject, write);

    let mut statements = vec![
        format!("DELETE FROM syncline_stash WHERE {held}\n    AND {moves}"),
        format!(
            "INSERT INTO syncline_stash (entity_type, new_id, old_id)\n  \
             SELECT {kind}, {new_id}, {} FROM {from}\n  WHERE {moves}\n    AND {conflict}\n  GROUP BY 3",
            old_id_form(subject, write)
        ),
    ];
    let stashed = format!("FROM syncline_stash WHERE entity_type = {kind} AND new_id = {new_id}");
    let ids = format!(
        "SELECT CASE WHEN substr({STASHED}, 1, 1) = char(10) THEN {} ELSE {} END {stashed}",
        subject.id(Row::New),
        stashed_id(subject)
    );
    statements.extend(take_base_of_stored(
        subject,
        &format!("EXISTS (SELECT 1 {stashed}) AND {conflict}"),
        &ids,
    ));
    statements
}

/// Forgets what was written down for NEW.
pub(super) fn clear_stash(subject: &Subject<'_>, write: Write) -> String {
    format!(
        "DELETE FROM syncline_stash WHERE entity_type = {} AND {}",
        subject.kind,
        holds_for_new(subject, write)
    )
}

/// Forgets the rows under other keys that were written down for NEW. (A row with NEW's own key is
/// for the statement that gave it that key, which may still be under way.)
pub(super) fn clear_stash_of_others(subject: &Subject<'_>) -> String {
    format!(
        "{} AND NOT {}",
        clear_stash(subject, Write::Update),
        is_same_row(subject)
    )
}

/// A query for the ids (as `id`) of the rows under other keys that were written down for NEW and
/// are gone, unless their removal has been recorded already.
pub(super) fn replaced_ids(subject: &Subject<'_>, write: Write) -> String {
    let kind = &subject.kind;
    let id = stashed_id(subject);
    format!(
        "SELECT {id} AS id FROM syncline_stash\n  WHERE entity_type = {kind} AND {}\n    \
         AND NOT {}\n    \
         AND (SELECT op FROM syncline_outbox WHERE entity_type = {kind} AND entity_id = {id} \
         ORDER BY seq DESC LIMIT 1) IS NOT 'delete'\n    AND {}\n  GROUP BY 1",
        holds_for_new(subject, write),
        is_same_row(subject),
        is_gone(subject, &id),
    )
}

/// Whether NEW replaced a row with the very same key.
pub(super) fn replaced_itself(subject: &Subject<'_>, write: Write) -> String {
    format!(
        "EXISTS (SELECT 1 FROM syncline_stash WHERE entity_type = {} AND {} AND {})",
        subject.kind,
        holds_for_new(subject, write),
        is_same_row(subject)
    )
}

/// The list of columns (see the top of this file) in which NEW differs from the row with the same
/// key that it replaced; without a list if that is not known; NULL if it replaced none.
pub(super) fn replaced_list(subject: &Subject<'_>, write: Write) -> String {
    format!(
        "(SELECT old_id FROM syncline_stash WHERE entity_type = {} AND {} AND {} LIMIT 1)",
        subject.kind,
        holds_for_new(subject, write),
        is_same_row(subject)
    )
}

/// Whether a list made by [`old_id_form`] names the column with that number.
pub(super) fn lists(list: &str, number: usize) -> String {
    format!("instr({list}, char(10) || '{number}' || char(10)) > 0")
}

fn holds_for_new(subject: &Subject<'_>, write: Write) -> String {
    let new_id = late_new_id(subject, write);
    match early_unknown(subject, write) {
        None => format!("syncline_stash.new_id = {new_id}"),
        Some(_) => format!("syncline_stash.new_id IN ({new_id}, '')"),
    }
}

/// What stands in `new_id` for NEW once its key is known.
fn late_new_id(subject: &Subject<'_>, write: Write) -> String {
    match write {
        Write::Insert => subject.id(Row::New),
        Write::Update => format!("char(10) || {}", subject.id(Row::New)),
    }
}

/// What stands in `new_id` for NEW before the row is written: empty if its key is not known yet.
fn early_new_id(subject: &Subject<'_>, write: Write) -> String {
    let new_id = late_new_id(subject, write);
    match early_unknown(subject, write) {
        None => new_id,
        Some(unknown) => format!("CASE WHEN {unknown} THEN '' ELSE {new_id} END"),
    }
}

/// When NEW's key is not known yet; `None` if it always is.
fn early_unknown(subject: &Subject<'_>, write: Write) -> Option<String> {
    if write == Write::Update {
        return None;
    }
    if subject.table.integer_key {
        // What SQLite shows in place of a rowid still to be assigned.
        let name = &subject.table.key.first()?.name;
        return Some(format!("{} = -1", subject.column(Row::New, name)));
    }
    let defaulted: Vec<String> = (subject.table.key.iter())
        .filter(|column| column.not_null && column.default.is_some())
        .map(|column| format!("{} IS NULL", subject.column(Row::New, &column.name)))
        .collect();
    (!defaulted.is_empty()).then(|| any_of(&defaulted))
}

/// What stands in `old_id` for a stored row.
fn old_id_form(subject: &Subject<'_>, write: Write) -> String {
    let id = subject.id(Row::Stored);
    let mut same = format!("{id} = {}", subject.id(Row::New));
    if let Some(unknown) = early_unknown(subject, write) {
        same += &format!(" AND NOT ({unknown})");
    }
    let numbers: Vec<String> = (subject.table.columns.iter().enumerate())
        .map(|(number, column)| {
            let stored = subject.column(Row::Stored, &column.name);
            let new = early_value(subject, column);
            format!(
                "CASE WHEN {} THEN '{number}' || char(10) ELSE '' END",
                subject.values_differ(column, &stored, &new)
            )
        })
        .collect();
    let list = match numbers.as_slice() {
        [] => "char(10)".to_owned(),
        _ => format!("char(10) || {}", concat(&numbers, " || ")),
    };
    let mut form = format!("CASE WHEN {same} THEN {list}");
    if let Some(key) = single_blob_key(subject) {
        let key = subject.column(Row::Stored, &key.name);
        form += &format!(" WHEN typeof({key}) = 'blob' THEN {key}");
    }
    form + &format!(" ELSE {id} END")
}

fn single_blob_key<'a>(subject: &Subject<'a>) -> Option<&'a Column> {
    match subject.table.key.as_slice() {
        [single] if !subject.table.integer_key && subject.classes(single).blob => Some(single),
        _ => None,
    }
}

/// The entity id of a row of the stash that names another row than NEW's.
fn stashed_id(subject: &Subject<'_>) -> String {
    match single_blob_key(subject) {
        None => STASHED.to_owned(),
        Some(_) => format!(
            "CASE typeof({STASHED}) WHEN 'blob' THEN '{{\"$hex\":\"' || hex({STASHED}) || '\"}}' \
             ELSE {STASHED} END"
        ),
    }
}

fn is_same_row(subject: &Subject<'_>) -> String {
    // (For an empty BLOB, substr is NULL.)
    format!(
        "(typeof({STASHED}) = 'text' AND substr({STASHED}, 1, 1) = char(10) OR {} = {})",
        stashed_id(subject),
        subject.id(Row::New)
    )
}

/// Whether the row that a row of the stash names is no longer in the table. It is looked up by its
/// key; only keys that cannot be made from their text again cost a search of the table.
fn is_gone(subject: &Subject<'_>, id: &str) -> String {
    let from = subject.from();
    let stored_id = subject.id(Row::Stored);
    let single = subject.table.key.len() == 1;
    let keys: Vec<String> = (subject.table.key.iter().enumerate())
        .map(|(at, column)| {
            let stored = subject.column(Row::Stored, &column.name);
            if subject.table.integer_key {
                return format!("{stored} = CAST({STASHED} AS INTEGER)");
            }
            let collation = quote_ident(subject.key_collation(at));
            let key = match single {
                true => format!(
                    "CASE WHEN typeof({STASHED}) = 'blob' THEN {STASHED} \
                     WHEN substr({STASHED}, 1, 1) = '\"' THEN json_extract({STASHED}, '$') \
                     WHEN ltrim({STASHED}, '0123456789-') = '' THEN CAST({STASHED} AS INTEGER) \
                     ELSE {STASHED} END"
                ),
                false => format!("json_extract({STASHED}, '$[{at}]')"),
            };
            format!("{stored} COLLATE {collation} = {key}")
        })
        .collect();
    let found = format!(
        "NOT EXISTS (SELECT 1 FROM {from} WHERE {} AND {stored_id} = {id})",
        keys.join(" AND ")
    );
    if subject.table.integer_key {
        return found;
    }
    let unmakeable = match single {
        true => format!("typeof({STASHED}) = 'text' AND substr({STASHED}, 1, 3) = '{{\"$'"),
        false => format!("instr({STASHED}, '{{\"$') > 0"),
    };
    format!(
        "{found}\n    AND NOT ({unmakeable} AND EXISTS (SELECT 1 FROM {from} WHERE {stored_id} = {id}))"
    )
}

/// Whether a stored row stands in the way of NEW, or could.
fn conflict(subject: &Subject<'_>, write: Write) -> String {
    let indexes = &subject.table.unique_indexes;
    let arms: Vec<String> = (indexes.iter())
        .map(|index| format!("({})", collides(subject, index)))
        .collect();
    let arms = any_of(&arms);
    match write {
        Write::Insert => format!("({arms})"),
        Write::Update => {
            let (id, old_id) = (subject.id(Row::Stored), subject.id(Row::Old));
            format!("({arms}) AND {id} <> {old_id}")
        }
    }
}

/// Whether the row gets another place in a unique index. This does not depend on stored rows, so
/// SQLite asks it once.
fn may_move(subject: &Subject<'_>, write: Write) -> String {
    let on_both = |expression: &str| {
        let (old, new) = (
            on_row(subject, Row::Old, expression),
            on_row(subject, Row::New, expression),
        );
        format!("{old} COLLATE BINARY IS NOT {new}")
    };
    let moves = |index: &UniqueIndex| {
        let mut moves: Vec<String> = (index.terms.iter())
            .map(|term| match &term.kind {
                TermKind::Column(name) => {
                    let old = subject.column(Row::Old, name);
                    let new = subject.column(Row::New, name);
                    format!("{old} COLLATE BINARY IS NOT {new}")
                }
                TermKind::Expression(expression) => on_both(expression),
            })
            .collect();
        moves.extend(index.filter.as_ref().map(|filter| on_both(filter)));
        any_of(&moves)
    };
    match write {
        Write::Insert => "1".to_owned(),
        Write::Update => {
            let moves: Vec<String> = subject.table.unique_indexes.iter().map(moves).collect();
            format!("({})", any_of(&moves))
        }
    }
}

/// Whether a stored row equals NEW in all terms of a unique index.
fn collides(subject: &Subject<'_>, index: &UniqueIndex) -> String {
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
    conditions.join(" AND ")
}

/// An expression over the table's columns, evaluated for NEW or OLD.
fn on_row(subject: &Subject<'_>, row: Row, expression: &str) -> String {
    let table = subject.table;
    let names = (table.key.iter().chain(&table.columns))
        .map(|column| column.name.as_str())
        .chain(table.generated.iter().map(String::as_str));
    let columns: Vec<String> = names
        .map(|name| {
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
    let mut columns = subject.table.key.iter().chain(&subject.table.columns);
    match columns.find(|column| column.name == name) {
        Some(column) => early_value(subject, column),
        None => subject.column(Row::New, name),
    }
}

/// What a column of NEW will hold: OR REPLACE puts the default in place of a NULL that is not
/// allowed, but shows the NULL beforehand.
fn early_value(subject: &Subject<'_>, column: &Column) -> String {
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
fn constant_default(default: &str) -> Option<String> {
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
