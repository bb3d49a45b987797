//! What the store knows about where everything stands.

use crate::error::{StoreError, json};
use crate::held;
use crate::meta;
use crate::stage;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use std::collections::BTreeMap;
use syncline_core::{Now, Survey};

/// Where everything stands, in one snapshot. Times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// What the engine does: a state's name, or `stopped` when no process is the engine.
    pub engine: String,
    /// The remote's address.
    pub remote: Option<String>,
    /// Whose the file is, once a server named it: tenant and subject.
    pub account: Option<(String, String)>,
    /// Unsettled mutations and dead letters, by state; every state is there.
    pub outbox: BTreeMap<String, u64>,
    /// When the oldest mutation that is still to be sent was recorded.
    pub oldest_pending_at: Option<i64>,
    /// How old it is, in milliseconds.
    pub oldest_pending_age_ms: Option<i64>,
    /// Changes that wait in the inbox.
    pub inbox: u64,
    /// Changes that were pulled and wait for the head, to be applied together.
    pub staged: u64,
    /// Conflicts that wait for a person.
    pub open_conflicts: u64,
    /// The last push of which something took effect.
    pub last_push_at: Option<i64>,
    /// When the head of the feed was last reached.
    pub last_pull_at: Option<i64>,
    /// The newest error that still matters.
    pub last_error: Option<LastError>,
    /// Where each scope stands.
    pub scopes: Vec<ScopeStatus>,
    /// Rows that a snapshot would remove but that wait for confirmation, by entity type.
    pub held_removals: BTreeMap<String, u64>,
}

/// The newest error that still matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// What happened.
    pub detail: String,
    /// The mutation it is about, if it is about one.
    pub mutation: Option<String>,
    /// The outbox entry.
    pub seq: Option<i64>,
    /// The entity's type.
    pub entity_type: Option<String>,
    /// The entity's id.
    pub entity_id: Option<String>,
}

/// Where one scope stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScopeStatus {
    /// The scope.
    pub scope: String,
    /// Its cursor, opaque.
    pub cursor: String,
    /// The applied position.
    pub position: i64,
    /// `snapshot` until the first snapshot is complete, then `feed`.
    pub phase: String,
    /// When the last page was applied.
    pub pulled_at: i64,
    /// When the head was last reached.
    pub head_at: Option<i64>,
}

/// Reads the status; changes nothing. Fails with [`StoreError::NotAttached`] on other files.
pub fn read(conn: &Connection, now: Now) -> Result<Status, StoreError> {
    meta::require_readable(conn)?;
    let mut outbox: BTreeMap<String, u64> = ["pending", "in_flight", "failed", "dead"]
        .map(|state| (state.to_owned(), 0))
        .into();
    let counts: Vec<(String, u64)> = conn
        .prepare_cached("SELECT state, count(*) FROM syncline_outbox GROUP BY state")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    outbox.extend(counts);
    let oldest_pending_at: Option<i64> = conn.query_row(
        "SELECT min(created_at) FROM syncline_outbox WHERE state IN ('pending', 'in_flight')",
        [],
        |row| row.get(0),
    )?;
    let tenant: Option<String> = meta::get(conn, meta::key::TENANT)?;
    Ok(Status {
        engine: engine_state(conn, now)?,
        remote: meta::get(conn, meta::key::REMOTE)?,
        account: tenant.zip(meta::get(conn, meta::key::SUBJECT)?),
        outbox,
        oldest_pending_at,
        oldest_pending_age_ms: oldest_pending_at.map(|at| now.unix_ms.saturating_sub(at).max(0)),
        inbox: conn.query_row("SELECT count(*) FROM syncline_inbox", [], |row| row.get(0))?,
        staged: stage::count(conn)?,
        open_conflicts: open_conflicts(conn)?,
        last_push_at: meta::get(conn, meta::key::LAST_PUSH_AT)?,
        last_pull_at: meta::get(conn, meta::key::LAST_PULL_AT)?,
        last_error: last_error(conn)?,
        scopes: scopes(conn)?,
        held_removals: held::counts(conn)?,
    })
}

fn engine_state(conn: &Connection, now: Now) -> Result<String, StoreError> {
    let alive: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM syncline_lease WHERE until > ?1)",
        [now.unix_ms],
        |row| row.get(0),
    )?;
    let state: Option<String> = meta::get(conn, meta::key::ENGINE_STATE)?;
    Ok(state
        .filter(|_| alive)
        .unwrap_or_else(|| if alive { "running" } else { "stopped" }.to_owned()))
}

fn open_conflicts(conn: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM syncline_conflict WHERE resolved_at IS NULL";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

fn last_error(conn: &Connection) -> Result<Option<LastError>, StoreError> {
    let of_entry = conn
        .prepare_cached(
            "SELECT last_error, mutation, seq, entity_type, entity_id FROM syncline_outbox
              WHERE last_error IS NOT NULL
              ORDER BY state IN ('failed', 'dead') DESC, seq DESC LIMIT 1",
        )?
        .query_row([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })
        .optional()?;
    if let Some((error, mutation, seq, entity_type, entity_id)) = of_entry {
        let error: syncline_core::MutationError = json("mutation error", &error)?;
        let detail = format!("{}: {}", error.code, error.detail);
        return Ok(Some(LastError {
            detail,
            mutation,
            seq,
            entity_type,
            entity_id,
        }));
    }
    let detail: Option<String> = meta::get(conn, meta::key::LAST_ERROR)?;
    Ok(detail.map(|detail| LastError {
        detail,
        mutation: None,
        seq: None,
        entity_type: None,
        entity_id: None,
    }))
}

fn scopes(conn: &Connection) -> Result<Vec<ScopeStatus>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT scope, cursor, position, phase, pulled_at, head_at FROM syncline_cursor",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(ScopeStatus {
            scope: row.get(0)?,
            cursor: row.get(1)?,
            position: row.get(2)?,
            phase: row.get(3)?,
            pulled_at: row.get(4)?,
            head_at: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What is left to do. What waits for a parent, a conflict or an answer is not claimable; the next
/// claim finds that out, so "claimable" here means "worth a claim".
pub(crate) fn survey(conn: &Connection, due_ms: i64) -> Result<Survey, StoreError> {
    let sql = "
        SELECT count(*) FILTER (WHERE cancel = 0),
               min(CASE WHEN not_before > ?1 THEN not_before END),
               coalesce(max(cancel = 1 OR not_before <= ?1
                 AND NOT EXISTS (SELECT 1 FROM syncline_conflict c WHERE c.resolved_at IS NULL
                                  AND c.entity_type = o.entity_type AND c.entity_id = o.entity_id)
                 AND (o.origin_client IS NOT NULL
                  OR NOT EXISTS (SELECT 1 FROM syncline_inbox i
                                  WHERE i.entity_type = o.entity_type AND i.entity_id = o.entity_id))
                 AND NOT EXISTS (SELECT 1 FROM syncline_outbox e
                                  WHERE e.entity_type = o.entity_type AND e.entity_id = o.entity_id
                                    AND e.seq < o.seq)), 0)
          FROM syncline_outbox o WHERE state IN ('pending', 'in_flight') OR cancel = 1";
    let (unsettled, next, claimable): (_, Option<i64>, _) = conn
        .prepare_cached(sql)?
        .query_row(params![due_ms], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    Ok(Survey {
        claimable,
        unsettled,
        due_in_ms: next.map(|next| next.abs_diff(due_ms)),
        open_conflicts: open_conflicts(conn)?,
    })
}
