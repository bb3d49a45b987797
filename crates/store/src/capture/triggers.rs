//! The capture triggers, one function each.
//!
//! | trigger | does |
//! |---|---|
//! | `before_insert` | writes down what a REPLACE may remove |
//! | `before_update`, `before_delete` | take the base |
//! | `before_move` | an update of unique columns: writes down what a REPLACE may remove |
//! | `after_insert` | records a create |
//! | `after_reinsert` | the same where there is a history: rows that a REPLACE removed, earlier entries |
//! | `after_update` | records the changed columns |
//! | `after_move` | records as deleted what a REPLACE removed |
//! | `after_rekey` | the key changed: records a delete of the old id, then as `after_reinsert` |
//! | `after_delete` | records a delete |
//!
//! SQLite compiles all triggers of an event into every statement that fires it, hence the small
//! common ones, and the column lists (`UPDATE OF`) of those that only few updates need.
//!
//! The triggers carry no conflict clause, because SQLite would replace it by that of the app's
//! statement; they never insert what exists instead. They record what the row holds when they
//! fire, not what the statement wrote: triggers of the app may have fired earlier.

use super::base::{take_absent_base, take_base_of_old};
use super::conflict::{key_columns, moves, moving_columns};
use super::sql::{
    MUTATION_ID, NOW, Row, Subject, UNGUARDED, any_of, concat, field_rows, field_value, member,
};
use super::stash::{
    Write, clear_stash, clear_stash_of_others, is_stashed, lists, may_replace, replaced_ids,
    replaced_itself, replaced_list, stash_conflicts,
};
use crate::table::{Column, quote_ident};

/// Which trigger, as the end of its name, in the order of creation. SQLite fires the newest first:
/// `after_insert` before `after_reinsert`, which leaves alone what the other has recorded, and
/// `after_move` before `after_update`, so that rows go before another takes their place.
pub(super) const EVENTS: [&str; 10] = [
    "before_insert",
    "before_update",
    "before_move",
    "before_delete",
    "after_reinsert",
    "after_insert",
    "after_update",
    "after_move",
    "after_rekey",
    "after_delete",
];

/// The next number: greater than all that are in use or ever were (`last_seq` remembers those of
/// settled entries), so that a number never comes to mean another mutation.
const NEXT_SEQ: &str = "1 + max(coalesce((SELECT max(seq) FROM syncline_outbox), 0), \
                        coalesce((SELECT value FROM syncline_meta WHERE key = 'last_seq'), 0))";

/// The name of a capture trigger.
pub(super) fn name(entity_type: &str, event: &str) -> String {
    format!("syncline_capture_{entity_type}_{event}")
}

/// The CREATE TRIGGER statements, in the order of [`EVENTS`].
pub(super) fn all(subject: &Subject<'_>, entity_type: &str) -> Vec<String> {
    let triggers = [
        before_insert(subject),
        before_update(subject),
        before_move(subject),
        before_delete(subject),
        after_reinsert(subject),
        after_insert(subject),
        after_update(subject),
        after_move(subject),
        after_rekey(subject),
        after_delete(subject),
    ];
    (EVENTS.iter().zip(triggers))
        .map(|(event, trigger)| {
            let mut when = vec![UNGUARDED.to_owned()];
            when.extend(trigger.when);
            format!(
                "CREATE TRIGGER {} {} ON {}\nWHEN {}\nBEGIN\n  {};\nEND",
                quote_ident(&name(entity_type, event)),
                trigger.on,
                quote_ident(&subject.table.name),
                when.join("\n  AND "),
                trigger.statements.join(";\n  ")
            )
        })
        .collect()
}

struct Trigger {
    on: String,
    /// Conditions beside the guard.
    when: Vec<String>,
    statements: Vec<String>,
}

fn trigger(on: impl Into<String>, when: Vec<String>, statements: Vec<String>) -> Trigger {
    Trigger {
        on: on.into(),
        when,
        statements,
    }
}

fn before_insert(subject: &Subject<'_>) -> Trigger {
    trigger(
        "BEFORE INSERT",
        vec![may_replace(subject, Write::Insert)],
        stash_conflicts(subject, Write::Insert),
    )
}

fn before_update(subject: &Subject<'_>) -> Trigger {
    let changed = [
        subject.fields_differ(),
        format!("NOT ({})", subject.same_key()),
    ];
    trigger(
        "BEFORE UPDATE",
        vec![format!("({})", any_of(&changed))],
        take_base_of_old(subject),
    )
}

fn before_move(subject: &Subject<'_>) -> Trigger {
    trigger(
        update_of("BEFORE", moving_columns(subject)),
        vec![may_replace(subject, Write::Update)],
        stash_conflicts(subject, Write::Update),
    )
}

fn before_delete(subject: &Subject<'_>) -> Trigger {
    trigger("BEFORE DELETE", Vec::new(), take_base_of_old(subject))
}

fn after_insert(subject: &Subject<'_>) -> Trigger {
    let id = subject.id(Row::New);
    let members: Vec<String> = (subject.table.columns.iter())
        .map(|column| {
            let name = member(",", &column.field, "");
            format!("{name} || {}", subject.encode(Row::Stored, column))
        })
        .collect();
    let mut statements = take_absent_base(subject, &id);
    statements.extend(record_entry(subject, "'create'", &object(&members)));
    trigger(
        "AFTER INSERT",
        vec![
            format!("NOT {}", is_stashed(subject, Write::Insert)),
            format!("coalesce({}, 'create') = 'create'", last_op(subject, &id)),
        ],
        statements,
    )
}

fn after_reinsert(subject: &Subject<'_>) -> Trigger {
    let mut statements = vec![record_replaced(subject, Write::Insert)];
    statements.extend(record_arrival(subject, Write::Insert));
    let has_history = format!(
        "({} OR {} <> 'create')",
        is_stashed(subject, Write::Insert),
        last_op(subject, &subject.id(Row::New))
    );
    trigger("AFTER INSERT", vec![has_history], statements)
}

fn after_update(subject: &Subject<'_>) -> Trigger {
    let members: Vec<String> = (subject.table.columns.iter())
        .map(|column| {
            let differs = subject.differs(column, Row::Old, Row::New);
            optional_member(subject, column, &differs)
        })
        .collect();
    trigger(
        "AFTER UPDATE",
        vec![subject.same_key(), format!("({})", subject.fields_differ())],
        record_entry(subject, "'update'", &object(&members)),
    )
}

fn after_move(subject: &Subject<'_>) -> Trigger {
    trigger(
        update_of("AFTER", moving_columns(subject)),
        // (Any other update of the row may find what an ignored one has left in the stash.)
        vec![
            subject.same_key(),
            format!("({})", moves(subject)),
            is_stashed(subject, Write::Update),
        ],
        vec![
            record_replaced(subject, Write::Update),
            clear_stash_of_others(subject),
        ],
    )
}

fn after_rekey(subject: &Subject<'_>) -> Trigger {
    let mut statements = vec![
        record_replaced(subject, Write::Update),
        record_delete_of_old(subject),
    ];
    statements.extend(record_arrival(subject, Write::Update));
    trigger(
        update_of("AFTER", Some(key_columns(subject))),
        vec![format!("NOT ({})", subject.same_key())],
        statements,
    )
}

fn after_delete(subject: &Subject<'_>) -> Trigger {
    trigger(
        "AFTER DELETE",
        Vec::new(),
        vec![record_delete_of_old(subject)],
    )
}

fn update_of(when: &str, columns: Option<Vec<String>>) -> String {
    match columns {
        None => format!("{when} UPDATE"),
        Some(names) => {
            let names: Vec<String> = names.iter().map(|name| quote_ident(name)).collect();
            format!("{when} UPDATE OF {}", names.join(", "))
        }
    }
}

/// `INSERT INTO syncline_outbox … SELECT …` of one entry, or of one for each row of what follows.
fn insert_entry(subject: &Subject<'_>, seq: &str, id: &str, op: &str, payload: &str) -> String {
    let (kind, version) = (&subject.kind, subject.schema_version);
    let (lane, lane_value) = match subject.lane {
        None => ("", String::new()),
        Some(lane) => (", lane", format!(", {lane}")),
    };
    format!(
        "INSERT INTO syncline_outbox (seq, mutation, entity_type, entity_id, op, payload, \
         created_at, schema_version{lane})\n  \
         SELECT {seq}, {MUTATION_ID}, {kind}, {id}, {op}, {payload}, {NOW}, {version}{lane_value}"
    )
}

fn record_delete_of_old(subject: &Subject<'_>) -> String {
    insert_entry(subject, NEXT_SEQ, &subject.id(Row::Old), "'delete'", "NULL")
}

/// Deletes of the rows under other keys that a REPLACE removed.
fn record_replaced(subject: &Subject<'_>, write: Write) -> String {
    // SQLite evaluates what depends on no row only once: the rows are counted on top of it.
    let seq = format!("{NEXT_SEQ} + row_number() OVER () - 1");
    let insert = insert_entry(subject, &seq, "id", "'delete'", "NULL");
    format!("{insert} FROM (\n  {}\n  )", replaced_ids(subject, write))
}

/// NEW has come to stand under its key: a create, or an update if it replaced a row with that key.
fn record_arrival(subject: &Subject<'_>, write: Write) -> Vec<String> {
    let id = subject.id(Row::New);
    let itself = replaced_itself(subject, write);
    let mut statements = forget_premature(subject, &id, &itself);
    statements.extend(
        (take_absent_base(subject, &id).into_iter())
            .map(|statement| format!("{statement}\n    AND NOT {itself}")),
    );
    let members: Vec<String> = (subject.table.columns.iter().enumerate())
        .map(|(number, column)| {
            let listed = lists("syncline_replaced.list", number);
            let condition = format!("syncline_replaced.everything OR {listed}");
            optional_member(subject, column, &condition)
        })
        .collect();
    statements.extend(forget_stray_reals(subject));
    let insert = insert_entry(subject, NEXT_SEQ, &id, "op", "payload");
    statements.push(format!(
        "{insert} FROM (\n    \
         SELECT CASE WHEN syncline_replaced.list IS NULL THEN 'create' ELSE 'update' END AS op,\n      \
         {} AS payload\n    \
         FROM (SELECT list, coalesce(substr(list, 1, 1) <> char(10), 1) AS everything \
         FROM (SELECT {} AS list)) AS syncline_replaced\n    CROSS JOIN {} WHERE {}\n  )\n  \
         WHERE op = 'create' OR payload <> '{{}}'",
        object(&members),
        replaced_list(subject, write),
        subject.from(),
        subject.is_new_row()
    ));
    statements.extend(record_reals(subject));
    statements.push(clear_stash(subject, write));
    statements
}

/// An entry of NEW's entity, with the REALs of its payload. Nothing if the row is gone again.
fn record_entry(subject: &Subject<'_>, op: &str, payload: &str) -> Vec<String> {
    let mut statements = Vec::new();
    statements.extend(forget_stray_reals(subject));
    statements.push(format!(
        "{}\n  FROM {} WHERE {}",
        insert_entry(subject, NEXT_SEQ, &subject.id(Row::New), op, payload),
        subject.from(),
        subject.is_new_row()
    ));
    statements.extend(record_reals(subject));
    statements
}

fn last_op(subject: &Subject<'_>, id: &str) -> String {
    format!(
        "(SELECT op FROM syncline_outbox WHERE entity_type = {} AND entity_id = {id} \
         ORDER BY seq DESC LIMIT 1)",
        subject.kind
    )
}

/// Removes what other triggers of the same statement recorded too early about NEW's entity.
///
/// - NEW replaced a row with its key, and (with `recursive_triggers` on) the removal of that row
///   was recorded as a delete: in truth the entity was updated.
/// - NEW is new, and a trigger of the app that fires before ours updated it already: a create says
///   it all, and must come first. If that trigger even deleted the row, nothing has happened.
fn forget_premature(subject: &Subject<'_>, id: &str, itself: &str) -> Vec<String> {
    let kind = &subject.kind;
    let entity = format!("entity_type = {kind} AND entity_id = {id}");
    let unsent = "state = 'pending' AND frozen IS NULL";
    let last_delete =
        format!("(SELECT max(seq) FROM syncline_outbox WHERE {entity} AND op = 'delete')");
    let early_updates = format!(
        "{entity} AND op = 'update' AND {unsent} AND NOT {itself}\n    \
         AND seq > coalesce({last_delete}, 0)"
    );
    vec![
        format!(
            "DELETE FROM syncline_outbox WHERE {entity} AND op = 'delete' AND {unsent} AND {itself}\n    \
             AND seq = {last_delete}\n    \
             AND seq > coalesce((SELECT max(seq) FROM syncline_outbox \
             WHERE {entity} AND op = 'create'), 0)"
        ),
        format!(
            "DELETE FROM syncline_outbox WHERE {entity} AND op = 'delete' AND {unsent} AND NOT {itself}\n    \
             AND seq = (SELECT max(seq) FROM syncline_outbox WHERE {entity})\n    \
             AND NOT EXISTS (SELECT 1 FROM {} WHERE {})",
            subject.from(),
            subject.is_new_row()
        ),
        format!(
            "DELETE FROM syncline_outbox_real WHERE seq IN (\n    \
             SELECT seq FROM syncline_outbox WHERE {early_updates}\n  )"
        ),
        format!("DELETE FROM syncline_outbox WHERE {early_updates}"),
    ]
}

/// What stands under numbers to come is nobody's.
fn forget_stray_reals(subject: &Subject<'_>) -> Option<String> {
    let sql = "DELETE FROM syncline_outbox_real \
               WHERE seq > (SELECT coalesce(max(seq), 0) FROM syncline_outbox)";
    (!subject.real_columns().is_empty()).then(|| sql.to_owned())
}

/// The REALs of the entry just recorded for NEW's entity, natively.
fn record_reals(subject: &Subject<'_>) -> Option<String> {
    let reals = subject.real_columns();
    if reals.is_empty() {
        return None;
    }
    let value = field_value(&reals, |column| subject.column(Row::Stored, &column.name));
    Some(format!(
        "INSERT INTO syncline_outbox_real (seq, field, value)\n  \
         SELECT found.seq, found.field, found.value FROM (\n    \
         SELECT syncline_outbox.seq AS seq, syncline_outbox.payload AS payload,\n      \
         syncline_field.column2 AS field, syncline_field.column3 AS mark, {value} AS value\n    \
         FROM syncline_outbox CROSS JOIN {} CROSS JOIN {}\n    \
         WHERE syncline_outbox.seq = (SELECT max(seq) FROM syncline_outbox)\n      \
         AND syncline_outbox.entity_type = {} AND syncline_outbox.entity_id = {}\n      \
         AND instr(syncline_outbox.payload, '{{\"$real\":\"row\"}}') > 0\n      \
         AND {}\n  ) AS found\n  \
         WHERE CASE WHEN typeof(found.value) = 'real' \
         THEN instr(found.payload, found.mark) > 0 END\n    \
         AND NOT EXISTS (SELECT 1 FROM syncline_outbox_real AS known \
         WHERE known.seq = found.seq AND known.field = found.field)",
        subject.from(),
        field_rows(&reals),
        subject.kind,
        subject.id(Row::New),
        subject.is_new_row()
    ))
}

/// `,"name":value` of the stored row if the condition holds, else nothing.
fn optional_member(subject: &Subject<'_>, column: &Column, condition: &str) -> String {
    let name = member(",", &column.field, "");
    let value = subject.encode(Row::Stored, column);
    format!("CASE WHEN {condition} THEN {name} || {value} ELSE '' END")
}

/// A JSON object of members that bring their comma along.
fn object(members: &[String]) -> String {
    match members {
        [] => "'{}'".to_owned(),
        _ => format!(
            "'{{' || substr(\n    {}, 2) || '}}'",
            concat(members, " ||\n    ")
        ),
    }
}
