//! What is known of an entity beyond "as of the applied position", and its conflicts.

use crate::error::{StoreError, json, to_json};
pub(crate) use crate::inbox::{park, unpark, waiting};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use syncline_core::{ConflictCause, ConflictInput, EntityRef, LocalView, Now};
use syncline_protocol::{Fields, RemoteState, ServerVersion};

/// Its version, where that is ahead of the cursor.
pub(crate) fn known_version(
    conn: &Connection,
    entity: &EntityRef,
) -> Result<Option<ServerVersion>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT version FROM syncline_entity_state WHERE entity_type = ?1 AND entity_id = ?2",
        )?
        .query_row([entity.entity_type.as_str(), entity.id.as_str()], |row| {
            Ok(ServerVersion::new(row.get::<_, String>(0)?))
        })
        .optional()?)
}

pub(crate) fn set_known(
    conn: &Connection,
    entity: &EntityRef,
    version: &ServerVersion,
    position: i64,
    deleted: bool,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO syncline_entity_state (entity_type, entity_id, version, position, deleted)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (entity_type, entity_id) DO UPDATE
            SET version = excluded.version, position = excluded.position, deleted = excluded.deleted",
    )?
    .execute(params![
        entity.entity_type.as_str(),
        entity.id.as_str(),
        version.as_str(),
        position,
        deleted
    ])?;
    Ok(())
}

pub(crate) fn forget_known(conn: &Connection, entity: &EntityRef) -> Result<(), StoreError> {
    conn.prepare_cached(
        "DELETE FROM syncline_entity_state WHERE entity_type = ?1 AND entity_id = ?2",
    )?
    .execute([entity.entity_type.as_str(), entity.id.as_str()])?;
    Ok(())
}

/// Everything that decides what happens to a change of the entity.
pub(crate) fn view(conn: &Connection, entity: &EntityRef) -> Result<LocalView, StoreError> {
    let names = [entity.entity_type.as_str(), entity.id.as_str()];
    Ok(conn
        .prepare_cached(
            "SELECT (SELECT count(*) FROM syncline_outbox WHERE entity_type = ?1 AND entity_id = ?2),
                    (SELECT count(*) FROM syncline_outbox
                      WHERE entity_type = ?1 AND entity_id = ?2
                        AND (frozen IS NOT NULL OR origin_client IS NOT NULL)),
                    EXISTS (SELECT 1 FROM syncline_conflict
                             WHERE entity_type = ?1 AND entity_id = ?2 AND resolved_at IS NULL),
                    (SELECT position FROM syncline_entity_state WHERE entity_type = ?1 AND entity_id = ?2),
                    (SELECT position FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2),
                    EXISTS (SELECT 1 FROM syncline_held WHERE entity_type = ?1 AND entity_id = ?2)",
        )?
        .query_row(names, |row| {
            Ok(LocalView {
                dirty: row.get::<_, i64>(0)? > 0,
                sent: row.get::<_, i64>(1)? > 0,
                conflict_open: row.get(2)?,
                reflects: row.get(3)?,
                waiting: row.get(4)?,
                held: row.get(5)?,
            })
        })?)
}

/// Whether anything at all could keep a change from simply being written.
pub(crate) fn anything_special(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM syncline_outbox) OR EXISTS (SELECT 1 FROM syncline_entity_state)
             OR EXISTS (SELECT 1 FROM syncline_inbox) OR EXISTS (SELECT 1 FROM syncline_base)
             OR EXISTS (SELECT 1 FROM syncline_held) OR EXISTS (SELECT 1 FROM syncline_unknown_fields)
             OR EXISTS (SELECT 1 FROM syncline_conflict WHERE resolved_at IS NULL)",
        [],
        |row| row.get(0),
    )?)
}

/// What is remembered of how a conflict showed, and of the remote state it is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ConflictError {
    /// `push` or `pull`.
    pub(crate) side: String,
    /// Why it waits for a person, or what was decided about.
    pub(crate) reason: String,
    /// The server's state; none: it does not know the entity.
    pub(crate) remote: Option<RemoteState>,
}

impl ConflictError {
    pub(crate) fn new(cause: &ConflictCause, reason: &str, remote: Option<&RemoteState>) -> Self {
        let side = match cause {
            ConflictCause::Pull => "pull",
            ConflictCause::Push(_) => "push",
            ConflictCause::Violation { .. } => "violation",
        };
        Self {
            side: side.to_owned(),
            reason: reason.to_owned(),
            remote: remote.cloned(),
        }
    }
}

/// The three states of a conflict.
pub(crate) struct Sides<'a> {
    pub(crate) base: Option<&'a Fields>,
    pub(crate) local: Option<&'a Fields>,
    pub(crate) remote: Option<&'a Fields>,
}

impl<'a> Sides<'a> {
    pub(crate) fn of(input: &ConflictInput<'a>) -> Self {
        Self {
            base: input.base,
            local: input.local,
            remote: input.remote,
        }
    }
}

/// Writes a conflict record; open when there is no resolution yet.
pub(crate) fn record_conflict(
    conn: &Connection,
    entity: &EntityRef,
    mutation: Option<&str>,
    sides: &Sides<'_>,
    error: &ConflictError,
    resolution: Option<&str>,
    now: Now,
) -> Result<(), StoreError> {
    let text = |fields: Option<&Fields>| fields.map(to_json);
    conn.prepare_cached(
        "INSERT INTO syncline_conflict (entity_type, entity_id, mutation, base, local, remote, error, resolution, opened_at, resolved_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        entity.entity_type.as_str(),
        entity.id.as_str(),
        mutation,
        text(sides.base),
        text(sides.local),
        text(sides.remote),
        to_json(error),
        resolution,
        now.unix_ms,
        resolution.map(|_| now.unix_ms)
    ])?;
    Ok(())
}

/// Closes the open conflict of an entity, if there is one, and says which remote state it was about.
pub(crate) fn close_conflict(
    conn: &Connection,
    entity: &EntityRef,
    resolution: &str,
    now: Now,
) -> Result<Option<Option<RemoteState>>, StoreError> {
    let error: Option<String> = conn
        .query_row(
            "UPDATE syncline_conflict SET resolution = ?3, resolved_at = ?4
              WHERE entity_type = ?1 AND entity_id = ?2 AND resolved_at IS NULL RETURNING error",
            params![
                entity.entity_type.as_str(),
                entity.id.as_str(),
                resolution,
                now.unix_ms
            ],
            |row| row.get(0),
        )
        .optional()?;
    error
        .map(|text| json::<ConflictError>("conflict", &text).map(|error| error.remote))
        .transpose()
}
