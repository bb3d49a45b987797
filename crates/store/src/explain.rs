//! Why is this row not synced? Everything that stands between a row and the server, with what would
//! help, and what happened to it so far.
//!
//! Reads only. It answers from the file alone, so it works beside a running engine, without one, and
//! without a network.

mod engine;
mod entry;
mod outside;

use crate::capture::{self, CaptureState};
use crate::error::StoreError;
use crate::outbox_view::{self, EntryView, SettledView, WaitsFor, waits};
use crate::store::{EntityTypes, RegisteredType};
use crate::table::quote_ident;
use crate::{ids, meta, page, row};
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use serde::Serialize;
use syncline_core::{EntityRef, Now};
use syncline_protocol::{EntityId, EntityType, KeyPart};

/// How much of a row's history is told.
const HISTORY: usize = 20;

/// What is known of one row. Times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The entity's type.
    pub entity_type: String,
    /// Its id.
    pub entity_id: String,
    /// The id that was asked for, if the entity goes by another one now.
    pub formerly: Option<String>,
    /// Whether the row is there.
    pub here: bool,
    /// Whether the row is what the server has, as far as the feed was read.
    pub synced: bool,
    /// Everything that keeps it from being synced, the weightiest first; empty when it is synced.
    pub obstacles: Vec<Obstacle>,
    /// Columns of its table that stay on this device, as declared.
    pub left_out: Vec<String>,
    /// Its mutations in the outbox, in local order.
    pub mutations: Vec<EntryView>,
    /// What became of earlier ones, newest first, with their correlation ids.
    pub history: Vec<SettledView>,
    /// When the head of the feed was last reached.
    pub last_pull_at: Option<i64>,
}

/// One thing that stands between a row and the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// A word for programs, see `docs/howto/explain.md`.
    pub code: &'static str,
    /// What it is, for people.
    pub detail: String,
    /// The command that would help, with `DB` for the database.
    pub help: Option<String>,
    /// Until when it lasts, where that is known, in milliseconds since 1970.
    pub until: Option<i64>,
}

fn obstacle(code: &'static str, detail: impl Into<String>, help: Option<&str>) -> Obstacle {
    Obstacle {
        code,
        detail: detail.into(),
        help: help.map(str::to_owned),
        until: None,
    }
}

/// An entity as an argument of a command.
fn argument(entity_type: &str, entity_id: &str) -> String {
    format!("{} {}", quoted(entity_type), quoted(entity_id))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Explains one row. The type may be named by its table as well; a text key that looks like a number
/// may be given plain. A row of a table that is not synced is explained as well.
///
/// # Errors
/// [`StoreError::NotAttached`]; [`StoreError::Refused`] when there is neither such a type nor such a
/// table, or the id cannot be one.
pub fn explain(
    conn: &Connection,
    entity_type: &str,
    id: &str,
    now: Now,
) -> Result<Explanation, StoreError> {
    meta::require_readable(conn)?;
    let types = EntityTypes::load(conn)?;
    let found = types.get(entity_type);
    let Some(own) = found.or_else(|| types.of_table(entity_type)) else {
        return outside::table(conn, &types, entity_type, id);
    };
    let asked = find_id(conn, own, id)?;
    let current = ids::current_id(conn, &own.name, &asked)?;
    let entity = EntityRef {
        entity_type: EntityType::new(own.name.clone()),
        id: current.clone(),
    };
    let here = row::read(conn, &own.table, &current)?.is_some();
    let mut mutations = outbox_view::of_entity(conn, &types, &entity, now)?;
    for entry in &mut mutations {
        if matches!(entry.waits_for, None | Some(WaitsFor::Time { .. })) {
            let referenced = waits::still_referenced(conn, &types, entry, now)?;
            entry.waits_for = referenced.or(entry.waits_for.take());
        }
    }
    let mut obstacles = Vec::new();
    obstacles.extend(escaped(conn, own)?);
    obstacles.extend(conflict(conn, &entity)?);
    for one in &mutations {
        obstacles.push(entry::tell(conn, one, now)?);
    }
    obstacles.extend(inbox(conn, &entity)?);
    obstacles.extend(held(conn, &entity)?);
    let sends = |one: &EntryView| {
        use WaitsFor::{Conflict, Earlier, Held, Person};
        !matches!(
            &one.waits_for,
            Some(Person | Held | Conflict | Earlier { .. })
        )
    };
    if mutations.iter().any(sends) {
        obstacles.extend(engine::obstacles(conn, now)?);
    }
    let history = outbox_view::settled_of(conn, &entity, HISTORY)?;
    let last_pull_at: Option<i64> = meta::get(conn, meta::key::LAST_PULL_AT)?;
    if obstacles.is_empty() {
        let gone = !here && history.is_empty();
        obstacles.extend(match outside::key(conn, own, id)?.filter(|_| gone) {
            Some(outside) => Some(outside),
            None => unknown(conn, gone)?,
        });
    }
    Ok(Explanation {
        entity_type: own.name.clone(),
        entity_id: current.to_string(),
        formerly: (current != asked).then(|| asked.to_string()),
        here,
        synced: obstacles.is_empty(),
        obstacles,
        left_out: (own.table.left_out.iter())
            .map(|column| column.name.clone())
            .collect(),
        mutations,
        history,
        last_pull_at,
    })
}

/// Why it cannot be said that the row is what the server has, although nothing of it waits.
fn unknown(conn: &Connection, gone: bool) -> Result<Option<Obstacle>, StoreError> {
    if gone {
        let detail = "there is no such row here, and nothing of it waits";
        return Ok(Some(obstacle("no-such-row", detail, None)));
    }
    let complete = page::applied_position(conn)?.is_some();
    let pulled: Option<i64> = meta::get(conn, meta::key::LAST_PULL_AT)?;
    let detail = match (complete, pulled) {
        (true, Some(_)) => return Ok(None),
        (_, None) => "the first pull is not complete, so nobody knows what the server has",
        (false, Some(_)) => {
            "everything is being compared with the server anew, and that is not complete"
        }
    };
    Ok(Some(obstacle(
        "never-pulled",
        detail,
        Some("syncline sync DB"),
    )))
}

/// The id as it is meant: in its canonical form, or as the plain text of a text key. SQLite finds the
/// row of either where the column converts, so the row says what its key is.
fn find_id(conn: &Connection, own: &RegisteredType, id: &str) -> Result<EntityId, StoreError> {
    let canonical = EntityId::parse(id);
    let plain = EntityId::from_parts(&[KeyPart::Text(id.to_owned())]);
    for candidate in [&plain, &canonical].into_iter().flatten() {
        let [key] = own.table.key.as_slice() else {
            break;
        };
        let sql = format!(
            "SELECT typeof({}) FROM {} WHERE {}",
            quote_ident(&key.name),
            quote_ident(&own.table.name),
            row::where_key(&own.table)
        );
        let stored: Option<String> = conn
            .query_row(&sql, params_from_iter(row::key_values(candidate)), |row| {
                row.get(0)
            })
            .optional()?;
        if stored.is_some_and(|class| (class == "text") == (Ok(candidate) == plain.as_ref())) {
            return Ok(candidate.clone());
        }
    }
    let recorded: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM syncline_outbox WHERE entity_type = ?1 AND entity_id = ?2)",
        [
            own.name.as_str(),
            plain.as_ref().map_or("", EntityId::as_str),
        ],
        |row| row.get(0),
    )?;
    match (plain, canonical) {
        (Ok(plain), _) if recorded => Ok(plain),
        (Ok(plain), Err(_)) => Ok(plain),
        (_, canonical) => canonical.map_err(|error| StoreError::Refused(error.to_string())),
    }
}

/// Writes that no capture trigger has seen.
fn escaped(conn: &Connection, own: &RegisteredType) -> Result<Option<Obstacle>, StoreError> {
    let help = Some("syncline sync DB");
    let what = match capture::verify(conn, own)? {
        CaptureState::Missing => "are missing",
        CaptureState::Stale => "are not those of the table as it is now",
        CaptureState::Outrun => "stand before a newer trigger of the app's",
        CaptureState::Current if meta::get::<i64>(conn, meta::key::RECOVER)?.is_none() => {
            return Ok(None);
        }
        CaptureState::Current => {
            let detail = "writes may not have been recorded; that is found out by comparing all rows with the server, which is not done yet";
            return Ok(Some(obstacle("escaped-capture", detail, help)));
        }
    };
    let detail = format!(
        "the capture triggers of {} {what}: writes since then may not be recorded; the next sync renews them and compares",
        own.table.name
    );
    Ok(Some(obstacle("escaped-capture", detail, help)))
}

fn conflict(conn: &Connection, entity: &EntityRef) -> Result<Option<Obstacle>, StoreError> {
    let found: Option<(i64, Option<String>)> = conn
        .query_row(
            "SELECT id, json_extract(error, '$.reason') FROM syncline_conflict
              WHERE entity_type = ?1 AND entity_id = ?2 AND resolved_at IS NULL",
            [entity.entity_type.as_str(), entity.id.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(found.map(|(id, reason)| {
        let detail = format!(
            "a conflict waits for a person: {}",
            reason.unwrap_or_else(|| "no reason was recorded".to_owned())
        );
        obstacle(
            "conflict",
            detail,
            Some(&format!("syncline conflicts show DB {id}")),
        )
    }))
}

/// A change that was received and is not applied.
fn inbox(conn: &Connection, entity: &EntityRef) -> Result<Option<Obstacle>, StoreError> {
    let found: Option<(String, Option<String>)> = conn
        .query_row(
            "SELECT waits_for, detail FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2
             UNION ALL
             SELECT 'checkpoint', NULL FROM syncline_staged WHERE entity_type = ?1 AND entity_id = ?2
              LIMIT 1",
            [entity.entity_type.as_str(), entity.id.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((waits_for, detail)) = found else {
        return Ok(None);
    };
    let detail = detail.unwrap_or_default();
    let (code, told, help) = match waits_for.as_str() {
        "parent" => (
            "inbox-parent",
            format!("a change was received and waits for the row that it references: {detail}"),
            // As `Applier::write_row` names it.
            (detail.split_once('/'))
                .map(|(table, id)| format!("syncline explain DB {}", argument(table, id))),
        ),
        "constraint" => (
            "quarantined",
            format!("a change was received and finds no place here: {detail}"),
            Some("syncline conflicts list DB".to_owned()),
        ),
        "answer" => (
            "inbox-answer",
            "a change was received and waits for the outcome of a mutation that may have been sent".to_owned(),
            Some("syncline sync DB".to_owned()),
        ),
        "checkpoint" => (
            "inbox-checkpoint",
            "a change was received and is applied together with all others when the head of the feed is reached".to_owned(),
            Some("syncline sync DB".to_owned()),
        ),
        "type" | "valid" => (
            "quarantined",
            format!("a change was received that this program does not understand: {detail}; a newer version of the app may"),
            None,
        ),
        other => (
            "inbox",
            format!("a change was received and waits ({other}) {detail}"),
            None,
        ),
    };
    Ok(Some(obstacle(code, told.trim_end(), help.as_deref())))
}

fn held(conn: &Connection, entity: &EntityRef) -> Result<Option<Obstacle>, StoreError> {
    let held: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM syncline_held WHERE entity_type = ?1 AND entity_id = ?2)",
        [entity.entity_type.as_str(), entity.id.as_str()],
        |row| row.get(0),
    )?;
    Ok(held.then(|| {
        let help = format!(
            "syncline sweep confirm DB {0}, or syncline sweep restore DB {0}",
            quoted(entity.entity_type.as_str())
        );
        obstacle(
            "held",
            "the server does not have it; whether it goes here too waits for you",
            Some(&help),
        )
    }))
}
