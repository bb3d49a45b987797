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
//! - a line feed and a list of column numbers between commas: the row with the very key of the
//!   new one, and the columns in which the two differ;
//! - a BLOB: the key of the row, if the key is one column and a BLOB, so that it can be looked up;
//! - otherwise the row's entity id.

use super::base::take_base_of_stored;
use super::conflict::{conflicts, early_value, has_conflict, moves};
use super::sql::{Row, Subject, any_of, concat};
use crate::table::{Column, quote_ident};

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

/// When [`stash_conflicts`] has anything to do.
///
/// An update that moves the row in no unique index can replace nothing. It leaves the stash alone,
/// for it may be one by a trigger of the app, in the midst of the statement that the stash is for.
pub(super) fn may_replace(subject: &Subject<'_>, write: Write) -> String {
    let mut may = vec![is_stashed(subject, write), has_conflict(subject, write)];
    may.extend(
        stale_inserts(subject, write)
            .map(|stale| format!("EXISTS (SELECT 1 FROM syncline_stash WHERE {stale})")),
    );
    let may = format!("({})", any_of(&may));
    match write {
        Write::Insert => may,
        Write::Update => format!("({})\n  AND {may}", moves(subject)),
    }
}

/// Writes down the rows that NEW may replace, and takes their bases.
pub(super) fn stash_conflicts(subject: &Subject<'_>, write: Write) -> Vec<String> {
    let kind = &subject.kind;
    let new_id = early_new_id(subject, write);
    let conflicts = conflicts(subject, write);
    let mut statements = vec![clear_stash(subject, write)];
    statements.extend(
        stale_inserts(subject, write)
            .map(|stale| format!("DELETE FROM syncline_stash WHERE {stale}")),
    );
    statements.extend([format!(
        "INSERT INTO syncline_stash (entity_type, new_id, old_id)\n  \
             SELECT {kind}, {new_id}, {} FROM {}\n  WHERE {conflicts}\n  GROUP BY 3",
        old_id_form(subject, write),
        subject.from()
    )]);
    let ids = format!(
        "SELECT CASE WHEN substr({STASHED}, 1, 1) = char(10) THEN {} ELSE {} END \
         FROM syncline_stash WHERE entity_type = {kind} AND new_id = {new_id}",
        subject.id(Row::New),
        stashed_id(subject)
    );
    statements.extend(take_base_of_stored(subject, &conflicts, &ids));
    statements
}

/// Whether anything is written down for NEW.
pub(super) fn is_stashed(subject: &Subject<'_>, write: Write) -> String {
    format!(
        "EXISTS (SELECT 1 FROM syncline_stash WHERE entity_type = {} AND {})",
        subject.kind,
        holds_for_new(subject, write)
    )
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
    format!("instr({list}, ',{number},') > 0")
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
    (!defaulted.is_empty()).then(|| format!("({})", any_of(&defaulted)))
}

/// What earlier inserts have left in the stash under any id, if NEW's id is not known yet: it may
/// turn out to be one of those.
fn stale_inserts(subject: &Subject<'_>, write: Write) -> Option<String> {
    let unknown = early_unknown(subject, write)?;
    Some(format!(
        "entity_type = {} AND {unknown}\n    AND new_id NOT BETWEEN char(10) AND char(11)",
        subject.kind
    ))
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
                "CASE WHEN {} THEN '{number},' ELSE '' END",
                subject.values_differ(column, &stored, &new)
            )
        })
        .collect();
    let list = match numbers.as_slice() {
        [] => "char(10)".to_owned(),
        _ => format!("char(10) || ',' || {}", concat(&numbers, " || ")),
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
