//! What the store knows about where everything stands.
//!
//! Read on every change, so nothing here goes through the outbox: its counts are kept
//! (`count.rs`), everything else is found by an index.

use crate::captured;
use crate::count;
use crate::error::{StoreError, json};
use crate::held;
use crate::holder;
use crate::meta;
use crate::outbox::CAN_BE_CANCELLED;
use crate::progress::{self, Progress};
use crate::stage;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use std::collections::BTreeMap;
use syncline_core::{MutationError, Now, Survey};

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
    /// The same by entity type; only what is there.
    pub outbox_by_type: BTreeMap<String, BTreeMap<String, u64>>,
    /// Bytes of payload that are still to be sent.
    pub backlog_bytes: u64,
    /// When the first mutation, in local order, that is still to be sent was recorded.
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
    /// How far a push or a pull that takes several requests has come.
    pub progress: Progress,
    /// The newest error that still matters.
    pub last_error: Option<LastError>,
    /// What keeps the engine from going on.
    pub blocked: Option<BlockedBy>,
    /// When it goes on by itself, and why.
    pub next_wakeup: Option<Wakeup>,
    /// Where each scope stands.
    pub scopes: Vec<ScopeStatus>,
    /// Rows that a snapshot would remove but that wait for confirmation, by entity type.
    pub held_removals: BTreeMap<String, u64>,
}

/// What keeps the engine from going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockedBy {
    /// In one word: `conflict`, `credentials`, `other_account`, `back_off`, `offline`, `lease`,
    /// `database`, `paused` or `constraints`.
    pub because: String,
    /// For people.
    pub detail: String,
    /// Until when at most; `None`: until somebody does something.
    pub until: Option<i64>,
}

/// When the engine goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wakeup {
    /// When.
    pub at: i64,
    /// Why: `debounce`, `poll`, `entry_due` or `back_off`.
    pub reason: String,
}

/// What the engine itself knows of where it is. Of another process it is known as it was noted
/// last, in a [`Rest`](crate::Rest).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineView {
    /// Its state's name.
    pub state: String,
    /// What keeps it from going on.
    pub blocked: Option<BlockedBy>,
    /// When it goes on by itself.
    pub next_wakeup: Option<Wakeup>,
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

/// Reads the status; changes nothing. Of the engine it tells what was noted last. Fails with
/// [`StoreError::NotAttached`] on other files.
pub fn read(conn: &Connection, now: Now) -> Result<Status, StoreError> {
    read_with(conn, None, now)
}

/// As [`read`]; `engine` is what the engine of this process says of itself, if there is one.
pub fn read_with(
    conn: &Connection,
    engine: Option<EngineView>,
    now: Now,
) -> Result<Status, StoreError> {
    meta::require_readable(conn)?;
    // Everything as of one moment, whatever is written meanwhile.
    let tx = conn.unchecked_transaction()?;
    let status = read_in(&tx, engine, now)?;
    tx.commit()?;
    Ok(status)
}

fn read_in(conn: &Connection, engine: Option<EngineView>, now: Now) -> Result<Status, StoreError> {
    let engine = match engine {
        Some(engine) => engine,
        None => noted(conn, now)?,
    };
    let backlog = count::backlog(conn)?;
    let mut outbox: BTreeMap<String, u64> = ["pending", "in_flight", "failed", "dead"]
        .map(|state| (state.to_owned(), 0))
        .into();
    for (state, entries) in backlog.entries.values().flatten() {
        *outbox.entry(state.clone()).or_default() += entries;
    }
    let oldest_pending_at = oldest_pending_at(conn)?;
    let tenant: Option<String> = meta::get(conn, meta::key::TENANT)?;
    Ok(Status {
        engine: engine.state,
        remote: meta::get(conn, meta::key::REMOTE)?,
        account: tenant.zip(meta::get(conn, meta::key::SUBJECT)?),
        progress: progress::read(conn, &outbox, backlog.bytes)?,
        outbox,
        outbox_by_type: backlog.entries,
        backlog_bytes: backlog.bytes,
        oldest_pending_at,
        oldest_pending_age_ms: oldest_pending_at.map(|at| now.unix_ms.saturating_sub(at).max(0)),
        inbox: conn.query_row("SELECT count(*) FROM syncline_inbox", [], |row| row.get(0))?,
        staged: stage::count(conn)?,
        open_conflicts: open_conflicts(conn)?,
        last_push_at: meta::get(conn, meta::key::LAST_PUSH_AT)?,
        last_pull_at: meta::get(conn, meta::key::LAST_PULL_AT)?,
        last_error: last_error(conn)?,
        blocked: engine.blocked,
        next_wakeup: engine.next_wakeup,
        scopes: scopes(conn)?,
        held_removals: held::counts(conn)?,
    })
}

fn oldest_pending_at(conn: &Connection) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT created_at FROM syncline_outbox
                WHERE state IN ('pending', 'in_flight') ORDER BY seq LIMIT 1";
    Ok(conn
        .prepare_cached(sql)?
        .query_row([], |row| row.get(0))
        .optional()?)
}

/// What was noted last, as far as it still holds.
fn noted(conn: &Connection, now: Now) -> Result<EngineView, StoreError> {
    let lease: Option<(String, bool)> = conn
        .prepare_cached("SELECT holder, until > ?1 FROM syncline_lease WHERE id = 1")?
        .query_row([now.unix_ms], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let state: Option<String> = meta::get(conn, meta::key::ENGINE_STATE)?;
    let here = match (&lease, state.as_deref()) {
        (Some((_, true)), _) => true,
        // It has given the lease back, so that another process may be the engine meanwhile.
        (Some((holder, false)), Some("paused")) => !holder::is_gone(holder),
        _ => false,
    };
    if !here {
        return Ok(EngineView {
            state: "stopped".to_owned(),
            ..EngineView::default()
        });
    }
    let because: Option<String> = meta::get(conn, meta::key::BLOCKED_BECAUSE)?;
    let detail: Option<String> = meta::get(conn, meta::key::BLOCKED_DETAIL)?;
    let until = meta::get(conn, meta::key::BLOCKED_UNTIL)?;
    let at: Option<i64> = meta::get(conn, meta::key::WAKEUP_AT)?;
    let reason: Option<String> = meta::get(conn, meta::key::WAKEUP_REASON)?;
    Ok(EngineView {
        state: state.unwrap_or_else(|| "running".to_owned()),
        blocked: because.map(|because| BlockedBy {
            because,
            detail: detail.unwrap_or_default(),
            until,
        }),
        // What has passed has happened, or is happening.
        next_wakeup: (at.filter(|at| *at > now.unix_ms).zip(reason))
            .map(|(at, reason)| Wakeup { at, reason }),
    })
}

fn open_conflicts(conn: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM syncline_conflict WHERE resolved_at IS NULL";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

fn last_error(conn: &Connection) -> Result<Option<LastError>, StoreError> {
    // Each of the two is found by an index of its own.
    let of_entry = match newest_error(conn, "dead WHERE state IN ('failed', 'dead')")? {
        None => newest_error(conn, "error WHERE last_error IS NOT NULL")?,
        dead => dead,
    };
    if of_entry.is_some() {
        return Ok(of_entry);
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

/// The newest error of an entry.
fn newest_error(conn: &Connection, index: &str) -> Result<Option<LastError>, StoreError> {
    let sql = format!(
        "SELECT last_error, mutation, seq, entity_type, entity_id
           FROM syncline_outbox INDEXED BY syncline_outbox_{index} AND last_error IS NOT NULL ORDER BY seq DESC LIMIT 1"
    );
    let read = |row: &Row<'_>| {
        let error = LastError {
            detail: row.get(0)?,
            mutation: row.get(1)?,
            seq: row.get(2)?,
            entity_type: row.get(3)?,
            entity_id: Some(captured::recorded_id(row, 4)?),
        };
        Ok(error)
    };
    let Some(mut found) = conn.prepare_cached(&sql)?.query_row([], read).optional()? else {
        return Ok(None);
    };
    let error: MutationError = json("mutation error", &found.detail)?;
    found.detail = format!("{}: {}", error.code, error.detail);
    Ok(Some(found))
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
    let sql = format!(
        "SELECT count(*) FILTER (WHERE cancel = 0),
               min(CASE WHEN not_before > ?1 THEN not_before END),
               coalesce(max(cancel = 1 AND {CAN_BE_CANCELLED} OR cancel = 0 AND not_before <= ?1
                 AND NOT EXISTS (SELECT 1 FROM syncline_conflict c WHERE c.resolved_at IS NULL
                                  AND c.entity_type = o.entity_type AND c.entity_id = o.entity_id)
                 AND (o.frozen IS NOT NULL OR o.origin_client IS NOT NULL
                  OR NOT EXISTS (SELECT 1 FROM syncline_inbox i
                                  WHERE i.entity_type = o.entity_type AND i.entity_id = o.entity_id))
                 AND NOT EXISTS (SELECT 1 FROM syncline_outbox e
                                  WHERE e.entity_type = o.entity_type AND e.entity_id = o.entity_id
                                    AND e.seq < o.seq)), 0)
          FROM syncline_outbox o WHERE state IN ('pending', 'in_flight') OR cancel = 1"
    );
    let (unsettled, next, claimable): (_, Option<i64>, _) = conn
        .prepare_cached(&sql)?
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
