//! Who chooses the id of a new entity, fresh local ids, and which ids were replaced by others.
//!
//! Whether a row needs another id is decided in `rekey.rs`; nothing here changes a row.

use crate::conflict;
use crate::error::StoreError;
use crate::journal;
use crate::orphans;
use crate::outbox::Entry;
use crate::steady::Times;
use crate::store::RegisteredType;
use crate::table::quote_ident;
use crate::type_options::IdMode;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use syncline_core::{EntityRef, Now};
use syncline_protocol::{Assign, Change, EntityId, KeyPart, Operation};

/// How long a replaced id can be looked up.
const REMEMBERED_MS: i64 = 30 * 24 * 3_600_000;

/// When the server is to choose the id of what this entry creates. A row that was there before the
/// table was attached, or that the server confirmed before, is offered under its own id: if the
/// server has the same row, it is the same thing.
pub(crate) fn assign_for(entry: &Entry, entity_type: &RegisteredType) -> Option<Assign> {
    let origin = entry.origin.as_deref();
    let confirmed =
        matches!(origin, Some(journal::ORIGIN | conflict::ORIGIN)) || orphans::is_restored(entry);
    let known_by_id = confirmed || origin == Some("attach");
    match (entry.op, entity_type.id_mode()) {
        (Operation::Create, IdMode::Provisional) if !known_by_id => Some(Assign::IfTaken),
        (Operation::Create, IdMode::Server) if !confirmed => Some(Assign::Always),
        _ => None,
    }
}

/// The next free integer of each type, within one transaction.
#[derive(Debug, Default)]
pub(crate) struct FreshIds {
    next: BTreeMap<String, i64>,
    /// Ids that the remote is about to bring: not to be taken.
    coming: BTreeMap<String, i64>,
}

impl FreshIds {
    /// The ids of these changes are out of reach.
    pub(crate) fn expect<'c>(&mut self, changes: impl Iterator<Item = &'c Change>) {
        for change in changes {
            if let [KeyPart::Integer(integer)] = change.id.parts().as_slice() {
                let name = change.entity_type.as_str();
                match self.coming.get_mut(name) {
                    Some(greatest) => *greatest = (*greatest).max(*integer),
                    None => drop(self.coming.insert(name.to_owned(), *integer)),
                }
            }
        }
    }

    /// An id that nothing has or had, of the same storage class as `old`.
    pub(crate) fn fresh(
        &mut self,
        conn: &Connection,
        entity_type: &RegisteredType,
        old: &EntityId,
    ) -> Result<EntityId, StoreError> {
        let part = match old.parts().as_slice() {
            [KeyPart::Integer(_)] => KeyPart::Integer(self.fresh_integer(conn, entity_type)?),
            [KeyPart::Text(_)] => {
                let sql = "SELECT lower(hex(randomblob(16)))";
                KeyPart::Text(conn.query_row(sql, [], |row| row.get(0))?)
            }
            [KeyPart::Blob(_)] => {
                KeyPart::Blob(conn.query_row("SELECT randomblob(16)", [], |row| row.get(0))?)
            }
            _ => {
                let why = format!(
                    "{} has a composite key, for which no other id can be made",
                    entity_type.name
                );
                return Err(StoreError::Refused(why));
            }
        };
        EntityId::from_parts(&[part]).map_err(|error| StoreError::Refused(error.to_string()))
    }

    fn fresh_integer(
        &mut self,
        conn: &Connection,
        entity_type: &RegisteredType,
    ) -> Result<i64, StoreError> {
        let name = &entity_type.name;
        let next = match self.next.get(name) {
            Some(next) => *next,
            None => greatest(conn, entity_type)?.saturating_add(1),
        };
        let coming = self.coming.get(name).copied().unwrap_or(0);
        let mut integer = next.max(coming.saturating_add(1)).max(1);
        if integer == i64::MAX {
            integer = unused(conn, entity_type)?;
        } else {
            self.next.insert(name.clone(), integer + 1);
        }
        Ok(integer)
    }

    /// An id came into use that was not made here.
    pub(crate) fn in_use(&mut self, entity: &EntityRef) {
        if let (Some(next), [KeyPart::Integer(integer)]) = (
            self.next.get_mut(entity.entity_type.as_str()),
            entity.id.parts().as_slice(),
        ) {
            *next = (*next).max(integer.saturating_add(1));
        }
    }
}

/// The greatest integer that is or was a key of the type, as far as anything here remembers.
fn greatest(conn: &Connection, entity_type: &RegisteredType) -> Result<i64, StoreError> {
    let key: Vec<String> = (entity_type.table.key.iter())
        .map(|column| quote_ident(&column.name))
        .collect();
    let sql = format!(
        "SELECT max(coalesce((SELECT max({key}) FROM {table}), 0),
                    coalesce((SELECT max(CAST(entity_id AS INTEGER)) FROM syncline_outbox WHERE entity_type = ?1), 0),
                    coalesce((SELECT max(CAST(entity_id AS INTEGER)) FROM syncline_inbox WHERE entity_type = ?1), 0),
                    coalesce((SELECT max(CAST(entity_id AS INTEGER)) FROM syncline_entity_state WHERE entity_type = ?1), 0),
                    coalesce((SELECT max(max(CAST(old_id AS INTEGER), CAST(new_id AS INTEGER)))
                                FROM syncline_id_map WHERE entity_type = ?1), 0))",
        key = key.join(", "),
        table = quote_ident(&entity_type.table.name),
    );
    let greatest: i64 = conn
        .prepare_cached(&sql)?
        .query_row([&entity_type.name], |row| row.get(0))?;
    Ok(greatest.max(sequence(conn, &entity_type.table.name)?.unwrap_or(0)))
}

/// What AUTOINCREMENT remembers of a table, where it has it.
fn sequence(conn: &Connection, table: &str) -> Result<Option<i64>, StoreError> {
    let kept: bool = conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')",
        )?
        .query_row([], |row| row.get(0))?;
    if !kept {
        return Ok(None);
    }
    Ok(conn
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1 COLLATE NOCASE")?
        .query_row([table], |row| row.get(0))
        .optional()?)
}

/// A key was given that SQLite did not choose: AUTOINCREMENT must not choose it again.
pub(crate) fn raise_sequence(
    conn: &Connection,
    entity_type: &RegisteredType,
    id: &EntityId,
) -> Result<(), StoreError> {
    let table = &entity_type.table.name;
    if let ([KeyPart::Integer(integer)], Some(reached)) =
        (id.parts().as_slice(), sequence(conn, table)?)
        && *integer > reached
    {
        conn.prepare_cached("UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1 COLLATE NOCASE")?
            .execute(params![table, integer])?;
    }
    Ok(())
}

/// The integers are used up at the top: one from anywhere.
fn unused(conn: &Connection, entity_type: &RegisteredType) -> Result<i64, StoreError> {
    for _ in 0..100 {
        let integer: i64 = conn.query_row(
            "SELECT 1 + abs(random() % 4611686018427387904)",
            [],
            |row| row.get(0),
        )?;
        let taken = crate::row::read(conn, &entity_type.table, &EntityId::from(integer))?;
        if taken.is_none() {
            return Ok(integer);
        }
    }
    let why = format!("{} has no free integer keys", entity_type.name);
    Err(StoreError::Refused(why))
}

/// Remembers that an entity goes by another id now. What led to the old id leads to the new one. How old that is
/// counts from the first moment at which the clock is believed.
pub(crate) fn remember(
    conn: &Connection,
    entity: &EntityRef,
    to: &EntityId,
    reason: &str,
    (now, times): (Now, Times),
) -> Result<(), StoreError> {
    let name = entity.entity_type.as_str();
    let aged_from = times.believed_ms();
    conn.prepare_cached(
        "UPDATE syncline_id_map SET new_id = ?3, mapped_at = ?4, aged_from = ?5
          WHERE entity_type = ?1 AND new_id = ?2",
    )?
    .execute(params![
        name,
        entity.id.as_str(),
        to.as_str(),
        now.unix_ms,
        aged_from
    ])?;
    conn.prepare_cached(
        "INSERT INTO syncline_id_map (entity_type, old_id, new_id, reason, mapped_at, aged_from)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (entity_type, old_id) DO UPDATE
            SET new_id = excluded.new_id, reason = excluded.reason, mapped_at = excluded.mapped_at,
                aged_from = excluded.aged_from",
    )?
    .execute(params![
        name,
        entity.id.as_str(),
        to.as_str(),
        reason,
        now.unix_ms,
        aged_from
    ])?;
    conn.prepare_cached(
        "DELETE FROM syncline_id_map WHERE entity_type = ?1 AND old_id = ?2 AND new_id = ?2",
    )?
    .execute([name, to.as_str()])?;
    Ok(())
}

/// Forgets replacements of long ago, once the clock is believed: what bears no time of such a clock, or one that is
/// still to come, is as old as this moment.
pub(crate) fn forget_old(conn: &Connection, times: Times) -> Result<(), StoreError> {
    let Some(now_ms) = times.believed_ms() else {
        return Ok(());
    };
    conn.execute(
        "UPDATE syncline_id_map SET aged_from = ?1 WHERE aged_from IS NULL OR aged_from > ?1",
        [now_ms],
    )?;
    conn.execute(
        "DELETE FROM syncline_id_map WHERE aged_from < ?1",
        [now_ms.saturating_sub(REMEMBERED_MS)],
    )?;
    Ok(())
}

/// The id by which an entity goes now, given one that it had.
pub fn current_id(
    conn: &Connection,
    entity_type: &str,
    id: &EntityId,
) -> Result<EntityId, StoreError> {
    let newer: Option<String> = conn
        .prepare_cached(
            "SELECT new_id FROM syncline_id_map WHERE entity_type = ?1 AND old_id = ?2",
        )?
        .query_row([entity_type, id.as_str()], |row| row.get(0))
        .optional()?;
    match newer {
        None => Ok(id.clone()),
        Some(newer) => {
            EntityId::parse(newer).map_err(|error| StoreError::Refused(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_protocol::EntityType;

    fn at(age_ms: i64) -> Times {
        Times {
            due_ms: 0,
            server_ms: 0,
            age_ms,
            set: None,
        }
    }

    #[test]
    fn a_replaced_id_is_never_older_than_the_time_since_a_believed_clock_saw_it() {
        for noted in [i64::MIN, 900 * REMEMBERED_MS] {
            let conn = Connection::open_in_memory().unwrap();
            conn.execute_batch(include_str!("schema/0001_initial.sql"))
                .unwrap();
            let (entity_type, old) = (EntityType::new("task"), EntityId::from(1));
            let entity = EntityRef {
                entity_type,
                id: old.clone(),
            };
            let now = Now {
                monotonic_ms: 0,
                unix_ms: 7,
            };
            let to = EntityId::from(2);
            remember(&conn, &entity, &to, "collision", (now, at(noted))).unwrap();
            for (age_ms, leads_to) in [
                (i64::MIN, &to),
                (100, &to),
                (i64::MIN, &to),
                (100 + REMEMBERED_MS, &to),
                (101 + REMEMBERED_MS, &old),
            ] {
                forget_old(&conn, at(age_ms)).unwrap();
                let current = current_id(&conn, "task", &old).unwrap();
                assert_eq!(current, *leads_to, "noted {noted}, now {age_ms}");
            }
        }
    }
}
