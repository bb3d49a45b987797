//! Small things that several subcommands say in the same words.

use crate::span;
use syncline::MutationError;
use syncline_store::outbox_view::{EntryView, WaitsFor};

/// `1 row`, `2 rows`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

/// An entity by type and id.
pub(crate) fn entity(entity_type: &str, entity_id: &str) -> String {
    format!("{entity_type} {entity_id}")
}

/// A command, or several, with the database's name in place of `DB`.
pub(crate) fn for_database(command: &str, database: &str) -> String {
    let words = command.split(' ').map(|word| {
        let name = word.trim_end_matches([',', ';']);
        match name {
            "DB" => word.replacen("DB", database, 1),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// An error of a mutation on one line, with its field errors.
pub(crate) fn error(error: &MutationError) -> String {
    let mut text = format!("{}: {}", error.code, error.detail);
    for field in &error.errors {
        text.push_str("; ");
        text.push_str(&field_error(field));
    }
    text
}

/// One field error.
pub(crate) fn field_error(error: &syncline_protocol::FieldError) -> String {
    let field = if error.field.is_empty() {
        "(row)"
    } else {
        &error.field
    };
    format!("{field}: {} [{}]", error.detail, error.code)
}

/// What an entry waits for, and its last error.
pub(crate) fn waits_for(entry: &EntryView, now_ms: i64) -> String {
    let waits = match &entry.waits_for {
        None => "the next sync".to_owned(),
        Some(WaitsFor::Person) => "you".to_owned(),
        Some(WaitsFor::Answer) => "the server's answer".to_owned(),
        Some(WaitsFor::Conflict) => "you, to decide a conflict".to_owned(),
        Some(WaitsFor::Inbox { because }) => format!("a change in the inbox ({because})"),
        Some(WaitsFor::Earlier { seq }) => format!("entry {seq} of the same row"),
        Some(WaitsFor::Parent {
            seq,
            entity_type,
            entity_id,
        }) => format!("{} (entry {seq})", entity(entity_type, entity_id)),
        Some(WaitsFor::Mutation {
            seq,
            entity_type,
            entity_id,
            ..
        }) => format!("{} (entry {seq}, named)", entity(entity_type, entity_id)),
        Some(WaitsFor::Reference {
            seq,
            entity_type,
            entity_id,
        }) => format!("{} (entry {seq})", entity(entity_type, entity_id)),
        Some(WaitsFor::Group { seq }) => format!("entry {seq} of its group"),
        Some(WaitsFor::Held) => "you, to say whether its row goes".to_owned(),
        Some(WaitsFor::Snapshot) => "the first pull".to_owned(),
        Some(WaitsFor::Head) => "a look at what the server has".to_owned(),
        Some(WaitsFor::Cancel) => "the server, to cancel it".to_owned(),
        Some(WaitsFor::Time { until }) => format!("{} to pass", span::human(until - now_ms)),
        Some(_) => "something else".to_owned(),
    };
    match &entry.last_error {
        Some(last) => format!("{waits} · {}", error(last)),
        None => waits,
    }
}

/// Lines up columns, two blanks apart; the last one is left as it is.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
