//! Statements that keep the base: the state of an entity before its first unsettled mutation.
//!
//! A base is taken before the app's row is touched. At that moment nobody knows whether the
//! statement will come to anything (OR IGNORE, RAISE(IGNORE)), so a base without an outbox entry
//! means nothing later on and is taken anew, with one exception: while the statement runs, other
//! triggers of the app may already write the same row again. Therefore a base says when it was
//! taken, in a first member `"$at":{"$at":<ms>}`, and counts within that instant, which for SQLite
//! is the whole statement.

use super::sql::{NOW, Row, Subject, concat, literal, member};

/// How many terms one compound SELECT gets; SQLite's bound is 500.
const ARMS: usize = 100;

/// Takes the base of OLD's entity, unless there is one that counts.
pub(super) fn take_base_of_old(subject: &Subject<'_>) -> Vec<String> {
    let kind = &subject.kind;
    let id = subject.id(Row::Old);
    let mut statements = forget_meaningless(subject, &format!("= {id}"));
    let none_yet = format!(
        "NOT EXISTS (SELECT 1 FROM syncline_base WHERE entity_type = {kind} AND entity_id = {id})"
    );
    for columns in subject.real_columns().chunks(ARMS) {
        let arms: Vec<String> = columns
            .iter()
            .map(|column| {
                let value = subject.column(Row::Old, &column.name);
                format!(
                    "SELECT {} AS field, {value} AS value",
                    literal(&column.name)
                )
            })
            .collect();
        statements.push(format!(
            "INSERT INTO syncline_base_real (entity_type, entity_id, field, value)\n\
             SELECT {kind}, {id}, field, value FROM (\n    {}\n  )\n  \
             WHERE typeof(value) = 'real' AND {none_yet}",
            arms.join("\n    UNION ALL ")
        ));
    }
    statements.push(format!(
        "INSERT INTO syncline_base (entity_type, entity_id, fields)\n  \
         SELECT {kind}, {id}, {}\n  WHERE {none_yet}",
        all_fields(subject, Row::Old)
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
    let none_yet = |id: &str| {
        format!(
            "NOT EXISTS (SELECT 1 FROM syncline_base \
             WHERE entity_type = {kind} AND entity_id = {id})"
        )
    };
    for columns in subject.real_columns().chunks(ARMS) {
        let names: Vec<String> = (columns.iter())
            .map(|column| format!("SELECT {} AS syncline_field", literal(&column.name)))
            .collect();
        let values: String = (columns.iter())
            .map(|column| {
                let value = subject.column(Row::Stored, &column.name);
                format!(" WHEN {} THEN {value}", literal(&column.name))
            })
            .collect();
        statements.push(format!(
            "INSERT INTO syncline_base_real (entity_type, entity_id, field, value)\n\
             SELECT {kind}, id, field, value FROM (\n    \
             SELECT {id} AS id, syncline_field AS field,\n      \
             CASE syncline_field{values} END AS value\n    \
             FROM {from} CROSS JOIN ({})\n    WHERE {condition}\n  )\n  \
             WHERE typeof(value) = 'real' AND {}\n  GROUP BY id, field",
            names.join(" UNION ALL "),
            none_yet("id")
        ));
    }
    statements.push(format!(
        "INSERT INTO syncline_base (entity_type, entity_id, fields)\n\
         SELECT {kind}, id, fields FROM (\n    \
         SELECT {id} AS id, {} AS fields\n    FROM {from} WHERE {condition}\n  )\n  \
         WHERE {}\n  GROUP BY id",
        all_fields(subject, Row::Stored),
        none_yet("id")
    ));
    statements
}

/// Says that the entity of `id` did not exist, unless there is a base with outbox entries or the
/// statement made something else of it (`unless`), or NEW's row is gone again.
pub(super) fn take_absent_base(subject: &Subject<'_>, id: &str, unless: &str) -> Vec<String> {
    let kind = &subject.kind;
    let key = format!("entity_type = {kind} AND entity_id = {id}");
    vec![
        format!(
            "DELETE FROM syncline_base WHERE {key} AND NOT {unless}\n    \
             AND NOT EXISTS (SELECT 1 FROM syncline_outbox WHERE {key})"
        ),
        drop_orphaned_reals(kind, &format!("= {id}")),
        format!(
            "INSERT INTO syncline_base (entity_type, entity_id, fields)\n  \
             SELECT {kind}, {id}, NULL FROM {} WHERE {} AND NOT {unless}\n    \
             AND NOT EXISTS (SELECT 1 FROM syncline_base WHERE {key})",
            subject.from(),
            subject.is_new_row()
        ),
    ]
}

/// Removes bases that no outbox entry gives a meaning and that were not taken in this statement.
fn forget_meaningless(subject: &Subject<'_>, ids: &str) -> Vec<String> {
    let kind = &subject.kind;
    vec![
        format!(
            "DELETE FROM syncline_base WHERE entity_type = {kind} AND entity_id {ids}\n    \
             AND coalesce(instr(fields, {}), 0) <> 2\n    \
             AND NOT EXISTS (SELECT 1 FROM syncline_outbox WHERE entity_type = {kind} \
             AND syncline_outbox.entity_id = syncline_base.entity_id)",
            taken_now()
        ),
        drop_orphaned_reals(kind, ids),
    ]
}

fn drop_orphaned_reals(kind: &str, ids: &str) -> String {
    format!(
        "DELETE FROM syncline_base_real WHERE entity_type = {kind} AND entity_id {ids}\n    \
         AND NOT EXISTS (SELECT 1 FROM syncline_base WHERE entity_type = {kind} \
         AND syncline_base.entity_id = syncline_base_real.entity_id)"
    )
}

/// The member that says when a base was taken.
fn taken_now() -> String {
    format!("'\"$at\":{{\"$at\":' || {NOW} || '}}'")
}

fn all_fields(subject: &Subject<'_>, row: Row) -> String {
    let members: Vec<String> = (subject.table.columns.iter())
        .map(|column| {
            let name = member(&column.name, "");
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
