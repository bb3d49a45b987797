//! The inbox: changes received that cannot be applied yet, the newest one of each entity.
//!
//! A change that nobody understands waits here too, as the text it came as: under the entity that
//! it names where it names one, else under a name that no entity can have.

use crate::error::{StoreError, json, to_json};
use crate::page;
use rusqlite::{Connection, OptionalExtension, params};
use std::hash::{DefaultHasher, Hash, Hasher};
use syncline_core::{EntityRef, MAX_NAME_BYTES, Now, WaitsFor};
use syncline_protocol::{
    Change, ChangeKind, EntityId, EntityType, Fields, PullLine, RemoteState, Scope, ServerVersion,
};

/// Changes that nobody understands, at most: a page that brings more is refused.
pub(crate) const MOST_INVALID: i64 = 10_000;

/// A change that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// Under which names and position it is stored.
    pub(crate) stored: Place,
    pub(crate) entity: EntityRef,
    pub(crate) scope: Scope,
    pub(crate) remote: RemoteState,
}

impl Waiting {
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
    let row = Row {
        entity_type: change.entity_type.as_str(),
        entity_id: change.id.as_str(),
        scope,
        fields,
        version: change.version.as_str(),
        position: change.position,
        waits_for,
        detail,
    };
    row.put(conn, now)
}

/// The position of what was pulled before it had to wait.
const PULLED: i64 = 0;

/// Parks what is known of an entity already and finds no place now: whatever the feed brings of it
/// is newer.
pub(crate) fn park_pulled(
    conn: &Connection,
    entity: &EntityRef,
    kind: ChangeKind,
    waits_for: WaitsFor,
    detail: &str,
    now: Now,
) -> Result<(), StoreError> {
    let change = Change {
        entity_type: entity.entity_type.clone(),
        id: entity.id.clone(),
        kind,
        version: ServerVersion::new("0"),
        position: PULLED,
        key: None,
    };
    park(conn, &last_pull(conn)?.0, &change, waits_for, detail, now)
}

/// As of which position a waiting state is known: what was pulled is as of the cursor.
pub(crate) fn position(conn: &Connection, remote: &RemoteState) -> Result<i64, StoreError> {
    match remote.position {
        PULLED => Ok(page::applied_position(conn)?.unwrap_or(PULLED)),
        position => Ok(position),
    }
}

/// Parks what the answer to a push says of an entity.
pub(crate) fn park_answered(
    conn: &Connection,
    entity: &EntityRef,
    remote: &RemoteState,
    waits_for: WaitsFor,
    detail: &str,
    now: Now,
) -> Result<(), StoreError> {
    let fields = remote.fields.clone();
    let change = Change {
        entity_type: entity.entity_type.clone(),
        id: entity.id.clone(),
        kind: fields.map_or(ChangeKind::Delete, ChangeKind::Upsert),
        version: remote.version.clone(),
        position: remote.position,
        key: None,
    };
    park(conn, &last_pull(conn)?.0, &change, waits_for, detail, now)
}

/// The scope that is pulled, and when it last was.
pub(crate) fn last_pull(conn: &Connection) -> Result<(Scope, Now), StoreError> {
    let found: Option<(String, i64)> = conn
        .query_row("SELECT scope, pulled_at FROM syncline_cursor", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let (scope, unix_ms) = found.unwrap_or_default();
    let now = Now {
        monotonic_ms: 0,
        unix_ms,
    };
    Ok((Scope::new(scope), now))
}

struct Row<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    scope: &'a Scope,
    fields: Option<String>,
    version: &'a str,
    position: i64,
    waits_for: WaitsFor,
    detail: &'a str,
}

impl Row<'_> {
    fn put(&self, conn: &Connection, now: Now) -> Result<(), StoreError> {
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
            self.entity_type,
            self.entity_id,
            self.scope.as_str(),
            self.fields,
            self.version,
            self.position,
            now.unix_ms,
            self.waits_for.as_str(),
            self.detail
        ])?;
        Ok(())
    }
}

/// How many changes wait that nobody understands.
pub(crate) fn count_invalid(conn: &Connection) -> Result<i64, StoreError> {
    Ok(conn
        .prepare_cached("SELECT count(*) FROM syncline_inbox WHERE waits_for = 'valid'")?
        .query_row([], |row| row.get(0))?)
}

/// Keeps a change that nobody understands. `position`: the end of the page that it came with.
pub(crate) fn park_invalid(
    conn: &Connection,
    scope: &Scope,
    raw: &str,
    detail: &str,
    position: i64,
    now: Now,
) -> Result<(), StoreError> {
    let named = name_in(raw);
    let (entity_type, entity_id) = match &named {
        Some(entity) => (entity.entity_type.as_str(), entity.id.as_str()),
        // The same text again is the same change.
        None => ("", &*format!("{scope}#{:016x}", hash(raw))),
    };
    let row = Row {
        entity_type,
        entity_id,
        scope,
        fields: Some(to_json(&raw)),
        version: "",
        position,
        waits_for: WaitsFor::Valid,
        detail,
    };
    row.put(conn, now)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The entity that a line speaks of, if that much of it can be read.
pub(crate) fn name_in(raw: &str) -> Option<EntityRef> {
    let line: serde_json::Value = serde_json::from_str(raw).ok()?;
    let change = line.get("change")?;
    let entity_type = change.get("type")?.as_str()?;
    let named = !entity_type.is_empty() && entity_type.len() <= MAX_NAME_BYTES;
    named.then_some(EntityRef {
        entity_type: EntityType::new(entity_type),
        id: EntityId::parse(change.get("id")?.as_str()?.to_owned()).ok()?,
    })
}

/// Takes the waiting change of an entity out of the inbox. What nobody understands is only dropped.
pub(crate) fn unpark(conn: &Connection, entity: &EntityRef) -> Result<Option<Waiting>, StoreError> {
    let found = conn
        .prepare_cached(
            "DELETE FROM syncline_inbox
              WHERE entity_type = ?1 AND entity_id = ?2
             RETURNING entity_type, entity_id, scope, fields, version, position",
        )?
        .query_row(
            [entity.entity_type.as_str(), entity.id.as_str()],
            stored_row,
        )
        .optional()?;
    Ok(found.map(read).transpose()?.flatten())
}

/// The waiting change of an entity, where it is understood; it stays in the inbox.
pub(crate) fn waiting(
    conn: &Connection,
    entity: &EntityRef,
) -> Result<Option<Waiting>, StoreError> {
    let found = conn
        .prepare_cached(
            "SELECT entity_type, entity_id, scope, fields, version, position FROM syncline_inbox
              WHERE entity_type = ?1 AND entity_id = ?2",
        )?
        .query_row(
            [entity.entity_type.as_str(), entity.id.as_str()],
            stored_row,
        )
        .optional()?;
    Ok(found.map(read).transpose()?.flatten())
}

/// Forgets what waits of a scope: a snapshot begins that will show it again.
pub(crate) fn forget_all(conn: &Connection, scope: &Scope) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM syncline_inbox WHERE scope = ?1")?
        .execute([scope.as_str()])?;
    Ok(())
}

/// Takes one out.
pub(crate) fn take(conn: &Connection, one: &Waiting) -> Result<(), StoreError> {
    let (_, entity_type, id) = &one.stored;
    conn.prepare_cached("DELETE FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2")?
        .execute([entity_type, id])?;
    Ok(())
}

/// Position and names: the order of a walk through the inbox.
pub(crate) type Place = (i64, String, String);

/// The next changes after a place that may find theirs now, oldest first.
pub(crate) fn retryable(
    conn: &Connection,
    after: &Place,
    limit: usize,
) -> Result<Vec<Waiting>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT entity_type, entity_id, scope, fields, version, position FROM syncline_inbox AS i
          WHERE (waits_for IN ('parent', 'constraint')
             OR waits_for IN ('type', 'valid')
                AND (entity_type = ''
                  OR EXISTS (SELECT 1 FROM syncline_entity_type WHERE name = i.entity_type)))
            AND (position, entity_type, entity_id) > (?1, ?2, ?3)
          ORDER BY position, entity_type, entity_id LIMIT ?4 + 0",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![after.0, after.1, after.2, limit], stored_row)?;
    let mut found = Vec::new();
    for row in rows {
        found.extend(read(row?)?);
    }
    Ok(found)
}

/// Changes that wait for a place that something else holds, oldest first.
pub(crate) fn without_place(conn: &Connection, limit: usize) -> Result<Vec<Waiting>, StoreError> {
    waiting_for(conn, WaitsFor::Constraint, limit)
}

/// What answers to pushes brought before the checkpoint, oldest first.
pub(crate) fn held_back(conn: &Connection) -> Result<Vec<Waiting>, StoreError> {
    waiting_for(conn, WaitsFor::Checkpoint, usize::MAX)
}

/// What waits for one thing, oldest first.
pub(crate) fn waiting_for(
    conn: &Connection,
    waits_for: WaitsFor,
    limit: usize,
) -> Result<Vec<Waiting>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT entity_type, entity_id, scope, fields, version, position FROM syncline_inbox
          WHERE waits_for = ?1 ORDER BY position, entity_type, entity_id LIMIT ?2 + 0",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![waits_for.as_str(), limit], stored_row)?;
    let mut found = Vec::new();
    for row in rows {
        found.extend(read(row?)?);
    }
    Ok(found)
}

/// For what the change of an entity waits: a word of [`WaitsFor`].
pub(crate) fn reason(conn: &Connection, entity: &EntityRef) -> Result<Option<String>, StoreError> {
    let sql = "SELECT waits_for FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2";
    Ok(conn
        .prepare_cached(sql)?
        .query_row([entity.entity_type.as_str(), entity.id.as_str()], |row| {
            row.get(0)
        })
        .optional()?)
}

/// Why the change of an entity waits.
pub(crate) fn detail(conn: &Connection, entity: &EntityRef) -> Result<String, StoreError> {
    let sql = "SELECT detail FROM syncline_inbox WHERE entity_type = ?1 AND entity_id = ?2";
    let detail: Option<Option<String>> = conn
        .prepare_cached(sql)?
        .query_row([entity.entity_type.as_str(), entity.id.as_str()], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(detail.flatten().unwrap_or_default())
}

/// Whether anything waits that could be tried again.
pub(crate) fn anything_retryable(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM syncline_inbox
                             WHERE waits_for IN ('parent', 'constraint', 'type', 'valid'))",
        )?
        .query_row([], |row| row.get(0))?)
}

type Stored = (String, String, String, Option<String>, String, i64);

fn stored_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
    ))
}

/// `None` for a change that still nobody understands.
fn read(
    (entity_type, id, scope, fields, version, position): Stored,
) -> Result<Option<Waiting>, StoreError> {
    let scope = Scope::new(scope);
    let stored = (position, entity_type.clone(), id.clone());
    if let Some(text) = &fields
        && let Ok(raw) = serde_json::from_str::<String>(text)
    {
        return Ok(match serde_json::from_str(&raw) {
            Ok(PullLine::Change(change)) => Some(understood(stored, change, scope)),
            _ => None,
        });
    }
    let id = EntityId::parse(id).map_err(|error| StoreError::Refused(error.to_string()))?;
    let fields = fields
        .map(|text| json::<Fields>("inbox row", &text))
        .transpose()?;
    Ok(Some(Waiting {
        stored,
        entity: EntityRef {
            entity_type: EntityType::new(entity_type),
            id,
        },
        scope,
        remote: RemoteState {
            version: ServerVersion::new(version),
            position,
            fields,
        },
    }))
}

fn understood(stored: Place, change: Change, scope: Scope) -> Waiting {
    let fields = match change.kind {
        ChangeKind::Upsert(fields) => Some(fields),
        ChangeKind::Delete => None,
    };
    Waiting {
        stored,
        entity: EntityRef {
            entity_type: change.entity_type,
            id: change.id,
        },
        scope,
        remote: RemoteState {
            version: change.version,
            position: change.position,
            fields,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_protocol::EntityType;

    #[test]
    fn what_is_older_does_not_take_the_place_of_what_waits() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("schema/0001_initial.sql"))
            .unwrap();
        let now = Now {
            monotonic_ms: 0,
            unix_ms: 0,
        };
        let entity = EntityRef {
            entity_type: EntityType::new("task"),
            id: EntityId::from(1),
        };
        for (position, left) in [(3, 3), (2, 3), (3, 3), (4, 4), (1, 4)] {
            let remote = RemoteState {
                version: ServerVersion::new(position.to_string()),
                position,
                fields: None,
            };
            park_answered(&conn, &entity, &remote, WaitsFor::Answer, "", now).unwrap();
            let waiting = waiting(&conn, &entity).unwrap().unwrap();
            assert_eq!(waiting.remote.position, left, "after {position}");
        }
    }
}
