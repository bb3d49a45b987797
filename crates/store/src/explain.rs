//! Why is this row not synced? Everything that stands between a row and the server, with what would
//! help, and what happened to it so far.
//!
//! Reads only. It answers from the file alone, so it works beside a running engine, without one, and
//! without a network.

use crate::capture::{self, CaptureState};
use crate::error::StoreError;
use crate::outbox_view::{self, EntryView, SettledView, WaitsFor};
use crate::store::{EntityTypes, RegisteredType};
use crate::table::quote_ident;
use crate::{ids, meta, row};
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
}

fn obstacle(code: &'static str, detail: impl Into<String>, help: Option<&str>) -> Obstacle {
    Obstacle {
        code,
        detail: detail.into(),
        help: help.map(str::to_owned),
    }
}

/// Explains one row. The type may be named by its table as well; a text key that looks like a number
/// may be given plain.
///
/// # Errors
/// [`StoreError::NotAttached`]; [`StoreError::Refused`] when there is no such type or the id cannot be
/// one.
pub fn explain(
    conn: &Connection,
    entity_type: &str,
    id: &str,
    now: Now,
) -> Result<Explanation, StoreError> {
    meta::require_readable(conn)?;
    let types = EntityTypes::load(conn)?;
    let own = find_type(&types, entity_type)?;
    let asked = find_id(conn, own, id)?;
    let current = ids::current_id(conn, &own.name, &asked)?;
    let entity = EntityRef {
        entity_type: EntityType::new(own.name.clone()),
        id: current.clone(),
    };
    let here = row::read(conn, &own.table, &current)?.is_some();
    let mutations = outbox_view::of_entity(conn, &types, &entity, now)?;
    let mut obstacles = Vec::new();
    obstacles.extend(escaped(conn, own)?);
    obstacles.extend(conflict(conn, &entity)?);
    obstacles.extend(mutations.iter().map(|entry| of_entry(entry, now)));
    obstacles.extend(inbox(conn, &entity)?);
    obstacles.extend(held(conn, &entity)?);
    if mutations
        .iter()
        .any(|one| one.waits_for != Some(WaitsFor::Person))
    {
        obstacles.extend(engine(conn, now)?);
    }
    let history = outbox_view::settled_of(conn, &entity, HISTORY)?;
    let last_pull_at: Option<i64> = meta::get(conn, meta::key::LAST_PULL_AT)?;
    if obstacles.is_empty() && !here && history.is_empty() {
        let detail = "there is no such row here, and nothing of it waits";
        obstacles.push(obstacle("no-such-row", detail, None));
    } else if obstacles.is_empty() && last_pull_at.is_none() {
        let detail = "the first pull is not complete, so nobody knows what the server has";
        obstacles.push(obstacle("never-pulled", detail, Some("syncline sync DB")));
    }
    Ok(Explanation {
        entity_type: own.name.clone(),
        entity_id: current.to_string(),
        formerly: (current != asked).then(|| asked.to_string()),
        here,
        synced: obstacles.is_empty(),
        obstacles,
        mutations,
        history,
        last_pull_at,
    })
}

fn find_type<'t>(types: &'t EntityTypes, name: &str) -> Result<&'t RegisteredType, StoreError> {
    types
        .get(name)
        .or_else(|| types.of_table(name))
        .ok_or_else(|| {
            let known: Vec<&str> = types.iter().map(|one| one.name.as_str()).collect();
            StoreError::Refused(format!(
                "{name} is not synced here; the synced types are: {}",
                known.join(", ")
            ))
        })
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
    let what = match capture::verify(conn, own)? {
        CaptureState::Current => return Ok(None),
        CaptureState::Missing => "are missing",
        CaptureState::Stale => "are not those of the table as it is now",
        CaptureState::Outrun => "stand before a newer trigger of the app's",
    };
    let detail = format!(
        "the capture triggers of {} {what}: writes since then may not be recorded",
        own.table.name
    );
    Ok(Some(obstacle(
        "escaped-capture",
        detail,
        Some("syncline sync DB"),
    )))
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

fn of_entry(entry: &EntryView, now: Now) -> Obstacle {
    let name = format!("{} {} (mutation {})", entry.op, entry.seq, entry.mutation);
    let last = entry.last_error.as_ref();
    let because = last.map_or(String::new(), |last| {
        format!("; last: {}: {}", last.code, last.detail)
    });
    let remedy = format!("syncline outbox show DB {}", entry.seq);
    let (code, detail, help) = match &entry.waits_for {
        Some(WaitsFor::Person) => {
            let code = if entry.state == crate::EntryState::Dead {
                "dead"
            } else {
                "failed"
            };
            let detail = format!("{name} was given up or refused{because}");
            return obstacle(
                code,
                detail,
                Some(&format!("syncline outbox retry DB {}", entry.seq)),
            );
        }
        Some(WaitsFor::Answer) => (
            "in-flight",
            format!("{name} was sent and waits for the server's answer"),
            None,
        ),
        Some(WaitsFor::Conflict) => (
            "waits-for-conflict",
            format!("{name} waits for the conflict"),
            None,
        ),
        Some(WaitsFor::Inbox { because }) => (
            "waits-for-inbox",
            format!("{name} waits for a received change ({because})"),
            None,
        ),
        Some(WaitsFor::Earlier { seq }) => (
            "waits-for-earlier",
            format!("{name} waits for entry {seq} of this row"),
            None,
        ),
        Some(WaitsFor::Parent {
            seq,
            entity_type,
            entity_id,
        }) => (
            "waits-for-parent",
            format!("{name} waits for {entity_type} {entity_id}, which entry {seq} creates"),
            Some(format!("syncline explain DB {entity_type} {entity_id}")),
        ),
        Some(WaitsFor::Time { until }) => {
            let seconds = until.saturating_sub(now.unix_ms).max(0) / 1000;
            (
                "put-off",
                format!("{name} is tried again in {seconds} s{because}"),
                Some(remedy),
            )
        }
        None => (
            "pending",
            format!("{name} goes with the next sync{because}"),
            None,
        ),
    };
    obstacle(code, detail, help.as_deref())
}

fn inbox(conn: &Connection, entity: &EntityRef) -> Result<Option<Obstacle>, StoreError> {
    let found: Option<(String, Option<String>)> = conn
        .query_row(
            "SELECT waits_for, detail FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2",
            [entity.entity_type.as_str(), entity.id.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(found.map(|(waits_for, detail)| {
        let detail = detail.unwrap_or_default();
        let (code, told) = match waits_for.as_str() {
            "parent" => ("inbox-parent", format!("a change was received and waits for the row that it references: {detail}")),
            "constraint" => ("quarantined", format!("a change was received and finds no place: {detail}")),
            "answer" => ("inbox-answer", "a change was received and waits for the outcome of a mutation that may have been sent".to_owned()),
            "type" | "valid" => ("quarantined", format!("a change was received that is not understood: {detail}")),
            other => ("inbox", format!("a change was received and waits ({other}) {detail}")),
        };
        obstacle(code, told.trim_end(), None)
    }))
}

fn held(conn: &Connection, entity: &EntityRef) -> Result<Option<Obstacle>, StoreError> {
    let held: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM syncline_held WHERE entity_type = ?1 AND entity_id = ?2)",
        [entity.entity_type.as_str(), entity.id.as_str()],
        |row| row.get(0),
    )?;
    Ok(held.then(|| {
        let help = format!(
            "syncline sweep confirm DB {}, or restore",
            entity.entity_type
        );
        obstacle(
            "held",
            "the server does not have it; whether it goes here too waits for you",
            Some(&help),
        )
    }))
}

/// What keeps the engine from sending anything now.
fn engine(conn: &Connection, now: Now) -> Result<Option<Obstacle>, StoreError> {
    let state: Option<String> = meta::get(conn, meta::key::ENGINE_STATE)?;
    let error: Option<String> = meta::get(conn, meta::key::LAST_ERROR)?;
    let error = error.unwrap_or_else(|| "no reason was recorded".to_owned());
    let lease: Option<(String, i64)> = conn
        .query_row(
            "SELECT holder, until FROM syncline_lease WHERE until > ?1",
            [now.unix_ms],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let credentials = obstacle(
        "credentials",
        format!("the server wants other credentials: {error}"),
        Some("syncline sync DB --token-file FILE"),
    );
    Ok(match (state.as_deref(), lease) {
        (Some("blocked_auth"), _) => Some(credentials),
        (Some("paused"), _) => Some(obstacle("paused", "the engine pauses", None)),
        (Some("backoff"), Some(_)) => {
            let detail = format!("the engine waits before it tries again: {error}");
            Some(obstacle("backoff", detail, Some("syncline sync DB")))
        }
        (_, None) => {
            let detail = match state.as_deref() {
                Some("backoff") => format!(
                    "no process is syncing this database; the last one stopped with: {error}"
                ),
                _ => "no process is syncing this database".to_owned(),
            };
            Some(obstacle("no-engine", detail, Some("syncline run DB")))
        }
        (_, Some((holder, until))) => {
            let seconds = until.saturating_sub(now.unix_ms) / 1000;
            let detail =
                format!("{holder} is the engine of this database, for {seconds} s at least");
            Some(obstacle("engine", detail, None))
        }
    })
}
