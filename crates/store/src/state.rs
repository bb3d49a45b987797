//! What is known of an entity beyond "as of the applied position".

use crate::error::StoreError;
pub(crate) use crate::inbox::{park, unpark, waiting};
use rusqlite::{Connection, OptionalExtension, params};
use syncline_core::{EntityRef, LocalView};
use syncline_protocol::ServerVersion;

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

/// Its version and position, where they are ahead of the cursor.
pub(crate) fn known(
    conn: &Connection,
    entity: &EntityRef,
) -> Result<Option<(ServerVersion, i64)>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT version, position FROM syncline_entity_state
              WHERE entity_type = ?1 AND entity_id = ?2",
        )?
        .query_row([entity.entity_type.as_str(), entity.id.as_str()], |row| {
            Ok((ServerVersion::new(row.get::<_, String>(0)?), row.get(1)?))
        })
        .optional()?)
}

/// The version of a deletion that is only known by the entity's absence from a snapshot.
pub(crate) fn nameless() -> ServerVersion {
    ServerVersion::new("")
}

pub(crate) fn set_known(
    conn: &Connection,
    entity: &EntityRef,
    version: &ServerVersion,
    position: i64,
    deleted: bool,
) -> Result<(), StoreError> {
    if *version == nameless() {
        // Nothing to base a write on.
        return forget_known(conn, entity);
    }
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
