//! Statements that keep the base: the state of an entity before its first unsettled mutation.
//!
//! A base is taken before the app's row is touched. At that moment nobody knows whether the
//! statement will come to anything (OR IGNORE, RAISE(IGNORE)), so a base without an outbox entry
//! means nothing later on and is taken anew, with one exception: while the statement runs, other
//! triggers of the app may already write the same row again. Therefore a base says when it was
//! taken, in a first member `"$at":{"$at":<ms>}`, and counts within that instant, which for SQLite
//! is the whole statement.

use super::sql::{NOW, Row, Subject, concat, field_rows, field_value, literal, member};
use crate::table::quote_ident;

/// Takes the base of OLD's entity, unless there is one that counts.
pub(super) fn take_base_of_old(subject: &Subject<'_>) -> Vec<String> {
    let kind = &subject.kind;
    let id = subject.id(Row::Old);
    let mut statements = forget_meaningless(subject, &format!("= {id}"));
    let reals = subject.real_columns();
    if !reals.is_empty() {
        let values: Vec<String> = (reals.iter())
            .map(|column| {
                let value = subject.column(Row::Old, &column.name);
                // The plus keeps SQLite from calling the second column by the name of OLD's.
                format!("({}, +{value})", literal(&column.field))
            })
            .collect();
        statements.push(format!(
            "INSERT INTO syncline_base_real (entity_type, entity_id, field, value)\n  \
             SELECT {kind}, {id}, column1, column2 FROM (VALUES {})\n  \
             WHERE typeof(column2) = 'real' AND {}",
            values.join(", "),
            none_yet(kind, &id)
        ));
    }
    statements.push(format!(
        "INSERT INTO syncline_base (entity_type, entity_id, fields)\n  \
         SELECT {kind}, id, {} FROM (SELECT {id} AS id)\n  WHERE {}",
        all_fields(subject, Row::Old),
        none_yet(kind, "id")
    ));
    statements
}

/// Takes the base of every stored row that satisfies `condition`, unless there is one that counts.
/// `ids` is a query for the ids of those rows.
pub(super) fn take_base_of_stored(
    subject: &Subject<'_>,
    condition: &str,
    ids: &str,
) -> Vec<String> {
    let kind = &subject.kind;
    let from = subject.from();
    let id = subject.id(Row::Stored);
    let mut statements = forget_meaningless(subject, &format!("IN ({ids})"));
    let reals = subject.real_columns();
    if !reals.is_empty() {
        let columns: String = (reals.iter())
            .map(|column| {
                let stored = subject.column(Row::Stored, &column.name);
                format!(", {stored} AS {}", quote_ident(&column.name))
            })
            .collect();
        let value = field_value(&reals, |column| {
            format!("syncline_old.{}", quote_ident(&column.name))
        });
        statements.push(format!(
            "INSERT INTO syncline_base_real (entity_type, entity_id, field, value)\n  \
             SELECT {kind}, id, field, value FROM (\n    \
             SELECT syncline_old.syncline_id AS id, syncline_field.column2 AS field,\n      \
             {value} AS value\n    \
             FROM (SELECT {id} AS syncline_id{columns} FROM {from} WHERE {condition}) \
             AS syncline_old\n    CROSS JOIN {}\n  )\n  \
             WHERE typeof(value) = 'real' AND {}\n  GROUP BY id, field",
            field_rows(&reals),
            none_yet(kind, "id")
        ));
    }
    statements.push(format!(
        "INSERT INTO syncline_base (entity_type, entity_id, fields)\n  \
         SELECT {kind}, id, fields FROM (\n    \
         SELECT {id} AS id, {} AS fields\n    FROM {from} WHERE {condition}\n  )\n  \
         WHERE {}\n  GROUP BY id",
        all_fields(subject, Row::Stored),
        none_yet(kind, "id")
    ));
    statements
}

/// Says that the entity of `id` did not exist, unless it has outbox entries and a base with them.
/// (REALs that an earlier base has left do no harm; they go when the next one is taken.)
pub(super) fn take_absent_base(subject: &Subject<'_>, id: &str) -> Vec<String> {
    let kind = &subject.kind;
    vec![
        format!(
            "DELETE FROM syncline_base WHERE entity_type = {kind} AND entity_id = {id}\n    AND {}",
            without_entries(kind, "syncline_base")
        ),
        format!(
            "INSERT INTO syncline_base (entity_type, entity_id)\n  \
             SELECT {kind}, id FROM (SELECT {id} AS id) WHERE {}",
            none_yet(kind, "id")
        ),
    ]
}

fn none_yet(kind: &str, id: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM syncline_base WHERE entity_type = {kind} AND entity_id = {id})"
    )
}

fn without_entries(kind: &str, table: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM syncline_outbox WHERE entity_type = {kind} \
         AND syncline_outbox.entity_id = {table}.entity_id)"
    )
}

/// Removes bases that no outbox entry gives a meaning and that were not taken in this statement,
/// and all REALs that belong to no base.
fn forget_meaningless(subject: &Subject<'_>, ids: &str) -> Vec<String> {
    let kind = &subject.kind;
    let mut statements = vec![format!(
        "DELETE FROM syncline_base WHERE entity_type = {kind} AND entity_id {ids}\n    \
         AND coalesce(instr(fields, {}), 0) <> 2\n    AND {}",
        taken_now(),
        without_entries(kind, "syncline_base")
    )];
    if !subject.real_columns().is_empty() {
        statements.push(format!(
            "DELETE FROM syncline_base_real WHERE entity_type = {kind} AND entity_id {ids}\n    \
             AND NOT EXISTS (SELECT 1 FROM syncline_base WHERE entity_type = {kind} \
             AND syncline_base.entity_id = syncline_base_real.entity_id)"
        ));
    }
    statements
}

/// The member that says when a base was taken.
fn taken_now() -> String {
    format!("'\"$at\":{{\"$at\":' || {NOW} || '}}'")
}

fn all_fields(subject: &Subject<'_>, row: Row) -> String {
    let members: Vec<String> = (subject.table.columns.iter())
        .map(|column| {
            let name = member("", &column.field, "");
            format!("{name} || {}", subject.encode(row, column))
        })
        .collect();
    if members.is_empty() {
        return format!("'{{' || {} || '}}'", taken_now());
    }
    format!(
        "'{{' || {} || ',' ||\n    {} || '}}'",
        taken_now(),
        concat(&members, " || ',' ||\n    ")
    )
}
