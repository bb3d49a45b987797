//! What is known of an entity beyond "as of the applied position", and the inbox and conflicts of it.

use crate::error::{StoreError, json, to_json};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use syncline_core::{ConflictCause, EntityRef, LocalView, Now, WaitsFor};
use syncline_protocol::{
    Change, ChangeKind, EntityId, EntityType, Fields, RemoteState, Scope, ServerVersion,
};

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
                    (SELECT count(frozen) FROM syncline_outbox WHERE entity_type = ?1 AND entity_id = ?2),
                    EXISTS (SELECT 1 FROM syncline_conflict
                             WHERE entity_type = ?1 AND entity_id = ?2 AND resolved_at IS NULL),
                    (SELECT position FROM syncline_entity_state WHERE entity_type = ?1 AND entity_id = ?2),
                    (SELECT position FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2)",
        )?
        .query_row(names, |row| {
            Ok(LocalView {
                dirty: row.get::<_, i64>(0)? > 0,
                sent: row.get::<_, i64>(1)? > 0,
                conflict_open: row.get(2)?,
                reflects: row.get(3)?,
                waiting: row.get(4)?,
            })
        })?)
}

/// Whether anything at all could keep a change from simply being written.
pub(crate) fn anything_special(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM syncline_outbox) OR EXISTS (SELECT 1 FROM syncline_entity_state)
             OR EXISTS (SELECT 1 FROM syncline_inbox) OR EXISTS (SELECT 1 FROM syncline_base)
             OR EXISTS (SELECT 1 FROM syncline_conflict WHERE resolved_at IS NULL)",
        [],
        |row| row.get(0),
    )?)
}

/// A change that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) entity: EntityRef,
    pub(crate) scope: Scope,
    pub(crate) remote: RemoteState,
}

/// Puts a change into the inbox, in place of an older one of the entity.
pub(crate) fn park(
    conn: &Connection,
    scope: &Scope,
    change: &Change,
    waits_for: WaitsFor,
    detail: &str,
    now: Now,
) -> Result<(), StoreError> {
    let fields = match &change.kind {
        ChangeKind::Upsert(fields) => Some(to_json(fields)),
        ChangeKind::Delete => None,
    };
    conn.prepare_cached(
        "INSERT INTO syncline_inbox (entity_type, entity_id, scope, fields, version, position, received_at, waits_for, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (entity_type, entity_id) DO UPDATE
            SET scope = excluded.scope, fields = excluded.fields, version = excluded.version,
                position = excluded.position, received_at = excluded.received_at,
                waits_for = excluded.waits_for, detail = excluded.detail
          WHERE excluded.position >= position",
    )?
    .execute(params![
        change.entity_type.as_str(),
        change.id.as_str(),
        scope.as_str(),
        fields,
        change.version.as_str(),
        change.position,
        now.unix_ms,
        waits_for.as_str(),
        detail
    ])?;
    Ok(())
}

/// Takes the waiting change of an entity out of the inbox.
pub(crate) fn unpark(conn: &Connection, entity: &EntityRef) -> Result<Option<Waiting>, StoreError> {
    let found = conn
        .prepare_cached(
            "DELETE FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2
             RETURNING entity_type, entity_id, scope, fields, version, position",
        )?
        .query_row(
            [entity.entity_type.as_str(), entity.id.as_str()],
            waiting_row,
        )
        .optional()?;
    found.map(Waiting::read).transpose()
}

/// Changes that may find their place now that something else was written, oldest first.
pub(crate) fn retryable(conn: &Connection) -> Result<Vec<Waiting>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT entity_type, entity_id, scope, fields, version, position FROM syncline_inbox
          WHERE waits_for IN ('parent', 'constraint', 'type') ORDER BY position",
    )?;
    let rows = statement.query_map([], waiting_row)?;
    rows.map(|row| Waiting::read(row?)).collect()
}

type WaitingRow = (String, String, String, Option<String>, String, i64);

fn waiting_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<WaitingRow> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
    ))
}

impl Waiting {
    fn read(
        (entity_type, id, scope, fields, version, position): WaitingRow,
    ) -> Result<Self, StoreError> {
        let id = EntityId::parse(id).map_err(|error| StoreError::Refused(error.to_string()))?;
        let fields = fields
            .map(|text| json::<Fields>("inbox row", &text))
            .transpose()?;
        Ok(Self {
            entity: EntityRef {
                entity_type: EntityType::new(entity_type),
                id,
            },
            scope: Scope::new(scope),
            remote: RemoteState {
                version: ServerVersion::new(version),
                position,
                fields,
            },
        })
    }

    pub(crate) fn change(&self) -> Change {
        Change {
            entity_type: self.entity.entity_type.clone(),
            id: self.entity.id.clone(),
            kind: self
                .remote
                .fields
                .clone()
                .map_or(ChangeKind::Delete, ChangeKind::Upsert),
            version: self.remote.version.clone(),
            position: self.remote.position,
            key: None,
        }
    }
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
    pub(crate) fn new(cause: ConflictCause, reason: &str, remote: Option<&RemoteState>) -> Self {
        let side = match cause {
            ConflictCause::Pull => "pull",
            ConflictCause::Push(_) => "push",
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
