//! The capture triggers, one function each.
//!
//! | trigger | does |
//! |---|---|
//! | `before_insert` | writes down what a REPLACE may remove |
//! | `before_update` | takes the base; writes down what a REPLACE may remove |
//! | `before_delete` | takes the base |
//! | `after_insert` | records a create, or an update when a REPLACE met the same key; deletes for what it removed |
//! | `after_update` | records the changed columns; deletes for what a REPLACE removed |
//! | `after_rekey` | the key changed: records a delete of the old id, then as `after_insert` |
//! | `after_delete` | records a delete |
//!
//! The triggers carry no conflict clause, because SQLite would replace it by that of the app's
//! statement; they never insert what exists instead. They record what the row holds when they
//! fire, not what the statement wrote: triggers of the app may have fired earlier.

use super::base::{take_absent_base, take_base_of_old};
use super::sql::{MUTATION_ID, NOW, Row, Subject, UNGUARDED, any_of, concat, literal, member};
use super::stash::{
    Write, clear_stash, clear_stash_of_others, lists, replaced_ids, replaced_itself, replaced_list,
    stash_conflicts,
};
use crate::table::quote_ident;

/// How many terms one compound SELECT gets; SQLite's bound is 500.
const ARMS: usize = 100;

/// Which trigger, as the end of its name.
pub(super) const EVENTS: [&str; 7] = [
    "before_insert",
    "before_update",
    "before_delete",
    "after_insert",
    "after_update",
    "after_rekey",
    "after_delete",
];

/// The name of a capture trigger.
pub(super) fn name(entity_type: &str, event: &str) -> String {
    format!("syncline_capture_{entity_type}_{event}")
}

/// The CREATE TRIGGER statements, in the order of [`EVENTS`].
pub(super) fn all(subject: &Subject<'_>, entity_type: &str) -> Vec<String> {
    let bodies = [
        before_insert(subject),
        before_update(subject),
        before_delete(subject),
        after_insert(subject),
        after_update(subject),
        after_rekey(subject),
        after_delete(subject),
    ];
    EVENTS
        .iter()
        .zip(bodies)
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
    on: &'static str,
    /// A condition beside the guard.
    when: Option<String>,
    statements: Vec<String>,
}

fn before_insert(subject: &Subject<'_>) -> Trigger {
    Trigger {
        on: "BEFORE INSERT",
        when: None,
        statements: stash_conflicts(subject, Write::Insert),
    }
}

fn before_update(subject: &Subject<'_>) -> Trigger {
    let changed = [
        subject.fields_differ(),
        format!("NOT ({})", subject.same_key()),
    ];
    let mut statements = take_base_of_old(subject);
    statements.extend(stash_conflicts(subject, Write::Update));
    Trigger {
        on: "BEFORE UPDATE",
        when: Some(format!("({})", any_of(&changed))),
        statements,
    }
}

fn before_delete(subject: &Subject<'_>) -> Trigger {
    Trigger {
        on: "BEFORE DELETE",
        when: None,
        statements: take_base_of_old(subject),
    }
}

fn after_insert(subject: &Subject<'_>) -> Trigger {
    let mut statements = vec![record_replaced(subject, Write::Insert)];
    statements.extend(record_arrival(subject, Write::Insert));
    Trigger {
        on: "AFTER INSERT",
        when: None,
        statements,
    }
}

fn after_update(subject: &Subject<'_>) -> Trigger {
    let members: Vec<String> = (subject.table.columns.iter())
        .map(|column| {
            let differs = subject.differs(column, Row::Old, Row::New);
            optional_member(subject, &column.name, &differs)
        })
        .collect();
    let mut statements = vec![record_replaced(subject, Write::Update)];
    statements.push(forget_stray_reals());
    statements.push(format!(
        "INSERT INTO syncline_outbox (mutation, entity_type, entity_id, op, payload, created_at)\n  \
         SELECT {MUTATION_ID}, {}, {}, 'update', {}, {NOW}\n  FROM {} WHERE {}",
        subject.kind,
        subject.id(Row::New),
        object(&members),
        subject.from(),
        subject.is_new_row()
    ));
    statements.extend(record_reals(subject));
    statements.push(clear_stash_of_others(subject));
    Trigger {
        on: "AFTER UPDATE",
        when: Some(format!(
            "{} AND ({})",
            subject.same_key(),
            subject.fields_differ()
        )),
        statements,
    }
}

fn after_rekey(subject: &Subject<'_>) -> Trigger {
    let mut statements = vec![
        record_replaced(subject, Write::Update),
        record_delete_of_old(subject),
    ];
    statements.extend(record_arrival(subject, Write::Update));
    Trigger {
        on: "AFTER UPDATE",
        when: Some(format!("NOT ({})", subject.same_key())),
        statements,
    }
}

fn after_delete(subject: &Subject<'_>) -> Trigger {
    Trigger {
        on: "AFTER DELETE",
        when: None,
        statements: vec![record_delete_of_old(subject)],
    }
}

fn record_delete_of_old(subject: &Subject<'_>) -> String {
    format!(
        "INSERT INTO syncline_outbox (mutation, entity_type, entity_id, op, created_at)\n  \
         SELECT {MUTATION_ID}, {}, {}, 'delete', {NOW}",
        subject.kind,
        subject.id(Row::Old)
    )
}

/// Deletes of the rows under other keys that a REPLACE removed.
fn record_replaced(subject: &Subject<'_>, write: Write) -> String {
    format!(
        "INSERT INTO syncline_outbox (mutation, entity_type, entity_id, op, created_at)\n  \
         SELECT {MUTATION_ID}, {}, id, 'delete', {NOW} FROM (\n  {}\n  )",
        subject.kind,
        replaced_ids(subject, write)
    )
}

/// NEW has come to stand under its key: a create, or an update if it replaced a row with that key.
fn record_arrival(subject: &Subject<'_>, write: Write) -> Vec<String> {
    let id = subject.id(Row::New);
    let itself = replaced_itself(subject, write);
    let mut statements = forget_premature(subject, &id, &itself);
    statements.extend(take_absent_base(subject, &id, &itself));

    let members: Vec<String> = (subject.table.columns.iter().enumerate())
        .map(|(number, column)| {
            let condition = format!(
                "syncline_replaced.list IS NULL OR substr(syncline_replaced.list, 1, 1) <> char(10) \
                 OR {} OR {}",
                lists("syncline_replaced.list", number),
                subject.differs(column, Row::New, Row::Stored)
            );
            optional_member(subject, &column.name, &condition)
        })
        .collect();
    statements.push(forget_stray_reals());
    statements.push(format!(
        "INSERT INTO syncline_outbox (mutation, entity_type, entity_id, op, payload, created_at)\n  \
         SELECT {MUTATION_ID}, {}, {id}, CASE WHEN replaced IS NULL THEN 'create' ELSE 'update' END, \
         payload, {NOW} FROM (\n    \
         SELECT syncline_replaced.list AS replaced, {} AS payload\n    \
         FROM (SELECT {} AS list) AS syncline_replaced CROSS JOIN {} WHERE {}\n  )\n  \
         WHERE replaced IS NULL OR payload <> '{{}}'",
        subject.kind,
        object(&members),
        replaced_list(subject, write),
        subject.from(),
        subject.is_new_row()
    ));
    statements.extend(record_reals(subject));
    statements.push(clear_stash(subject, write));
    statements
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

/// Numbers are given out again when the outbox was empty: what stands under numbers to come is
/// nobody's.
fn forget_stray_reals() -> String {
    "DELETE FROM syncline_outbox_real \
     WHERE seq > (SELECT coalesce(max(seq), 0) FROM syncline_outbox)"
        .to_owned()
}

/// The REALs of the entry just recorded for NEW's entity, natively.
fn record_reals(subject: &Subject<'_>) -> Vec<String> {
    let from = subject.from();
    let is_new_row = subject.is_new_row();
    let id = subject.id(Row::New);
    subject
        .real_columns()
        .chunks(ARMS)
        .map(|columns| {
            let arms: Vec<String> = columns
                .iter()
                .map(|column| {
                    format!(
                        "SELECT {} AS field, {} AS mark, {} AS value FROM {from} WHERE {is_new_row}",
                        literal(&column.name),
                        member(&column.name, "{\"$real\":\"row\"}"),
                        subject.column(Row::Stored, &column.name)
                    )
                })
                .collect();
            format!(
                "INSERT INTO syncline_outbox_real (seq, field, value)\n  \
                 SELECT entry.seq, found.field, found.value\n  \
                 FROM syncline_outbox AS entry CROSS JOIN (\n    {}\n  ) AS found\n  \
                 WHERE entry.seq = (SELECT max(seq) FROM syncline_outbox)\n    \
                 AND entry.entity_type = {} AND entry.entity_id = {id}\n    \
                 AND instr(entry.payload, '{{\"$real\":\"row\"}}') > 0\n    \
                 AND typeof(found.value) = 'real' AND instr(entry.payload, found.mark) > 0\n    \
                 AND NOT EXISTS (SELECT 1 FROM syncline_outbox_real AS known \
                 WHERE known.seq = entry.seq AND known.field = found.field)",
                arms.join("\n    UNION ALL "),
                subject.kind
            )
        })
        .collect()
}

/// `,"name":value` of the stored row if the condition holds, else nothing.
fn optional_member(subject: &Subject<'_>, name: &str, condition: &str) -> String {
    let column = subject
        .table
        .columns
        .iter()
        .find(|column| column.name == name);
    let value = column.map_or_else(String::new, |column| subject.encode(Row::Stored, column));
    let member = literal(&format!(",{}:", serde_json::Value::from(name)));
    format!("CASE WHEN {condition} THEN {member} || {value} ELSE '' END")
}

/// A JSON object of optional members.
fn object(members: &[String]) -> String {
    match members {
        [] => "'{}'".to_owned(),
        _ => format!(
            "'{{' || substr(\n    {}, 2) || '}}'",
            concat(members, " ||\n    ")
        ),
    }
}
