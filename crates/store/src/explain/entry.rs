//! What stands between one outbox entry and the server, in words.

use super::{Obstacle, argument, obstacle};
use crate::error::StoreError;
use crate::outbox_view::{EntryView, WaitsFor};
use crate::{EntryState, holder, lease};
use rusqlite::{Connection, params};
use syncline_core::{MutationError, Now};

fn dead_letter(entry: &EntryView, name: &str) -> Obstacle {
    let because = because(entry.last_error.as_ref());
    let show = format!("syncline outbox show DB {}", entry.seq);
    match entry.state {
        EntryState::Dead => obstacle(
            "dead",
            format!(
                "{name} was given up after {} failures{because}",
                entry.attempts
            ),
            Some(&format!("syncline outbox retry DB {}", entry.seq)),
        ),
        _ => obstacle(
            "failed",
            format!("{name} was refused for good{because}; edit it, or discard it"),
            Some(&show),
        ),
    }
}

/// The last failure of an entry, with what the server had against single fields.
fn because(last: Option<&MutationError>) -> String {
    let Some(last) = last else {
        return String::new();
    };
    let mut text = format!("; last: {}: {}", last.code, last.detail.trim_end());
    for error in &last.errors {
        text.push_str(&format!(
            "; {}: {} [{}]",
            error.field, error.detail, error.code
        ));
    }
    text
}

/// What stands in the way, in words: a code, a detail, a command.
type Told = (&'static str, String, Option<String>);

pub(super) fn tell(conn: &Connection, entry: &EntryView, now: Now) -> Result<Obstacle, StoreError> {
    let name = format!("{} {} (mutation {})", entry.op, entry.seq, entry.mutation);
    let because = because(entry.last_error.as_ref());
    let mut until = None;
    let (code, detail, help) = match &entry.waits_for {
        Some(WaitsFor::Person) => return Ok(dead_letter(entry, &name)),
        Some(WaitsFor::Answer) => return in_flight(conn, entry, &name, now),
        Some(WaitsFor::Time { until: at }) => {
            until = Some(*at);
            let seconds = at.saturating_sub(now.unix_ms).max(0) / 1000;
            let detail = format!("{name} is tried again in {seconds} s{because}");
            let show = format!("syncline outbox show DB {}", entry.seq);
            ("put-off", detail, Some(show))
        }
        Some(waits_for) => match elsewhere(&name, waits_for) {
            Some(told) => told,
            None => in_its_row(&name, waits_for),
        },
        None => {
            let when = match entry.may_have_been_sent {
                true => {
                    "was sent and has no final answer: it goes again with the next sync, under the same key"
                }
                false => "goes with the next sync",
            };
            ("pending", format!("{name} {when}{because}"), None)
        }
    };
    Ok(Obstacle {
        until,
        ..obstacle(code, detail, help.as_deref())
    })
}

/// What it waits for is another row's.
fn elsewhere(name: &str, waits_for: &WaitsFor) -> Option<Told> {
    let explain = |entity_type: &str, entity_id: &str| {
        Some(format!(
            "syncline explain DB {}",
            argument(entity_type, entity_id)
        ))
    };
    Some(match waits_for {
        WaitsFor::Parent {
            seq,
            entity_type,
            entity_id,
        } => (
            "waits-for-parent",
            format!("{name} waits for {entity_type} {entity_id}, which entry {seq} creates"),
            explain(entity_type, entity_id),
        ),
        WaitsFor::Mutation {
            seq,
            mutation,
            entity_type,
            entity_id,
        } => (
            "waits-for-mutation",
            format!(
                "{name} names mutation {mutation} as one that goes before it: entry {seq}, of {entity_type} {entity_id}"
            ),
            explain(entity_type, entity_id),
        ),
        WaitsFor::Reference {
            seq,
            entity_type,
            entity_id,
        } => (
            "waits-for-reference",
            format!("{name} waits for entry {seq}: {entity_type} {entity_id} referenced the row"),
            explain(entity_type, entity_id),
        ),
        WaitsFor::Group { seq } => (
            "waits-for-group",
            format!("{name} goes together with entry {seq}, which cannot go"),
            Some(format!("syncline outbox show DB {seq}")),
        ),
        _ => return None,
    })
}

/// What it waits for is its own row's, or the whole database's.
fn in_its_row(name: &str, waits_for: &WaitsFor) -> Told {
    let sync = || Some("syncline sync DB".to_owned());
    let (code, what, help) = match waits_for {
        WaitsFor::Conflict => (
            "waits-for-conflict",
            "waits for the conflict to be decided".to_owned(),
            None,
        ),
        WaitsFor::Inbox { because } => (
            "waits-for-inbox",
            format!("waits for a received change of its row ({because})"),
            None,
        ),
        WaitsFor::Earlier { seq } => (
            "waits-for-earlier",
            format!("waits for entry {seq} of this row, which goes before"),
            None,
        ),
        WaitsFor::Held => (
            "waits-for-held",
            "waits until you say whether its row is to go".to_owned(),
            None,
        ),
        WaitsFor::Snapshot => (
            "waits-for-snapshot",
            "waits until everything was pulled once".to_owned(),
            sync(),
        ),
        WaitsFor::Head => (
            "waits-for-head",
            "waits for a pull: the server may have the same thing under another id".to_owned(),
            sync(),
        ),
        WaitsFor::Cancel => (
            "cancelling",
            "is to be discarded once the server has said what became of it".to_owned(),
            sync(),
        ),
        // Told before.
        _ => ("pending", "goes with the next sync".to_owned(), sync()),
    };
    (code, format!("{name} {what}"), help)
}

/// What is under way, and who has it.
fn in_flight(
    conn: &Connection,
    entry: &EntryView,
    name: &str,
    now: Now,
) -> Result<Obstacle, StoreError> {
    let (token, until): (Option<i64>, Option<i64>) = conn.query_row(
        "SELECT lease_token, lease_until FROM syncline_outbox WHERE seq = ?1",
        params![entry.seq],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let lease = lease::current(conn)?.filter(|lease| {
        let current = Some(lease.token) == token && lease.until > now.unix_ms;
        current && !holder::is_gone(&lease.holder)
    });
    Ok(match lease {
        Some(lease) => Obstacle {
            until,
            ..obstacle(
                "in-flight",
                format!(
                    "{name} was sent by {} and waits for the server's answer",
                    holder::told(&lease.holder)
                ),
                None,
            )
        },
        None => obstacle(
            "in-flight",
            format!(
                "{name} was sent by a process that is the engine no more; the next one sends it again, under the same key"
            ),
            Some("syncline sync DB"),
        ),
    })
}
