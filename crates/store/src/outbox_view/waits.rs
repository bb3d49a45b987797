//! What an entry of the outbox waits for: worked out as the claim would, in the order in which it
//! helps to know.
//!
//! Reads only. A rule that the claim gains belongs here too, or `explain` says "goes with the next
//! sync" of what does not go.

use super::{EntryView, WaitsFor};
use crate::captured::{self, BaseState};
use crate::claim::{LONGEST_WAIT_MS, doomed_parents};
use crate::conflict::natural;
use crate::error::StoreError;
use crate::inbox;
use crate::outbox::{self, Entry, EntryState};
use crate::page;
use crate::row;
use crate::stage;
use crate::state;
use crate::store::EntityTypes;
use crate::table::Reference;
use rusqlite::{Connection, OptionalExtension, params};
use syncline_core::{EntityRef, Now};
use syncline_protocol::Operation;

/// How many entries are looked at for what still references a row.
const MOST_REFERRING: i64 = 4096;

/// What an entry waits for; `None`: for the next sync.
pub(super) fn of(
    conn: &Connection,
    types: &EntityTypes,
    view: &EntryView,
    now: Now,
) -> Result<Option<WaitsFor>, StoreError> {
    let Some(entry) = outbox::get(conn, view.seq)? else {
        return Ok(None);
    };
    match entry.state {
        _ if entry.cancel => return Ok(Some(before_cancel(conn, &entry)?)),
        EntryState::Failed | EntryState::Dead => return Ok(Some(WaitsFor::Person)),
        EntryState::InFlight => return Ok(Some(WaitsFor::Answer)),
        EntryState::Pending => {}
    }
    let time = put_off(&entry, now).then_some(WaitsFor::Time {
        until: entry.not_before,
    });
    // What may have been sent is sent again as it is; what cannot be an entity fails when it is claimed.
    let (None, Ok(entity)) = (&entry.frozen, entry.entity()) else {
        return Ok(time);
    };
    Ok(match own_row(conn, types, &entry, &entity, now)? {
        Some(waits) => Some(waits),
        None => match others(conn, types, &entry, &entity, now)? {
            Some(waits) => Some(waits),
            None => time,
        },
    })
}

/// What may have been sent before it is answered first.
fn before_cancel(conn: &Connection, entry: &Entry) -> Result<WaitsFor, StoreError> {
    let all = outbox::of_entity(conn, entry.entity_type.as_str(), &entry.entity_id)?;
    let earlier = (all.iter())
        .take_while(|one| one.seq < entry.seq)
        .find(|one| one.is_sent() && !one.cancel);
    Ok(earlier.map_or(WaitsFor::Cancel, |one| WaitsFor::Earlier { seq: one.seq }))
}

/// Whether an entry was put off. Longer than anything that can have been meant does not count: the
/// clock has jumped.
fn put_off(entry: &Entry, now: Now) -> bool {
    entry.not_before > now.unix_ms && entry.not_before <= now.unix_after_ms(LONGEST_WAIT_MS)
}

/// What stands against it in its own row.
fn own_row(
    conn: &Connection,
    types: &EntityTypes,
    entry: &Entry,
    entity: &EntityRef,
    now: Now,
) -> Result<Option<WaitsFor>, StoreError> {
    let view = state::view(conn, entity)?;
    if view.conflict_open {
        return Ok(Some(WaitsFor::Conflict));
    }
    if !entry.is_sent() {
        if view.waiting.is_some() {
            let because = inbox::reason(conn, entity)?.unwrap_or_default();
            return Ok(Some(WaitsFor::Inbox { because }));
        }
        if stage::holds(conn, entity)? {
            let because = "checkpoint".to_owned();
            return Ok(Some(WaitsFor::Inbox { because }));
        }
    }
    let earlier: Option<i64> = conn
        .prepare_cached(
            "SELECT max(seq) FROM syncline_outbox
              WHERE entity_type = ?1 AND entity_id = ?2 AND seq < ?3",
        )?
        .query_row(
            params![entity.entity_type.as_str(), entity.id.as_str(), entry.seq],
            |row| row.get(0),
        )?;
    if let Some(seq) = earlier {
        return Ok(Some(WaitsFor::Earlier { seq }));
    }
    if view.held && entry.op == Operation::Update && !entry.is_under_way() {
        return Ok(Some(WaitsFor::Held));
    }
    if entry.op != Operation::Create && page::applied_position(conn)?.is_none() {
        return Ok(Some(WaitsFor::Snapshot));
    }
    let own = types.get(entity.entity_type.as_str());
    let head = natural::Head::read(conn, now)?;
    Ok(own
        .is_some_and(|own| head.holds(own, entry))
        .then_some(WaitsFor::Head))
}

/// What stands against it elsewhere.
fn others(
    conn: &Connection,
    types: &EntityTypes,
    entry: &Entry,
    entity: &EntityRef,
    now: Now,
) -> Result<Option<WaitsFor>, StoreError> {
    if let Some(named) = named(conn, entry, entity)? {
        return Ok(Some(named));
    }
    if let Some(parent) = uncreated_parent(conn, types, entry, entity)? {
        return Ok(Some(parent));
    }
    blocked_in_group(conn, entry, now)
}

/// An unsettled mutation that the entry names.
fn named(
    conn: &Connection,
    entry: &Entry,
    entity: &EntityRef,
) -> Result<Option<WaitsFor>, StoreError> {
    let Some(named) = &entry.depends_on else {
        return Ok(None);
    };
    let found = conn
        .prepare_cached(
            "SELECT seq, mutation, entity_type, entity_id FROM syncline_outbox
              WHERE mutation IN (SELECT value FROM json_each(CASE WHEN json_valid(?1) THEN ?1 ELSE '[]' END))
                AND (entity_type, entity_id) <> (?2, ?3)
                AND (?4 IS NULL OR group_id IS NOT ?4)
              ORDER BY seq LIMIT 1",
        )?
        .query_row(
            params![
                named,
                entity.entity_type.as_str(),
                entity.id.as_str(),
                entry.group
            ],
            |row| {
                Ok(WaitsFor::Mutation {
                    seq: row.get(0)?,
                    mutation: row.get(1)?,
                    entity_type: row.get(2)?,
                    entity_id: captured::recorded_id(row, 3)?,
                })
            },
        );
    Ok(found.optional()?)
}

/// The unsettled create of an entity that this one references (O3).
fn uncreated_parent(
    conn: &Connection,
    types: &EntityTypes,
    entry: &Entry,
    entity: &EntityRef,
) -> Result<Option<WaitsFor>, StoreError> {
    let Some(own) = types.get(entity.entity_type.as_str()) else {
        return Ok(None);
    };
    if own.table.references.is_empty() || entry.op == Operation::Delete {
        return Ok(None);
    }
    // What cannot be read can never be sent either, and says so in `show`.
    let Ok(Some(fields)) = captured::fields_of_mutation(conn, entry.seq) else {
        return Ok(None);
    };
    for reference in &own.table.references {
        let values = row::reference_values(&own.table, reference, &entity.id, &fields);
        let parent = values.and_then(|values| types.parent(reference, &values));
        let Some(parent) = parent else { continue };
        let create = outbox::create_before(conn, (entry.seq, entry.group.as_deref()), &parent)?;
        if let Some(seq) = create.filter(|seq| *seq != entry.seq) {
            return Ok(Some(WaitsFor::Parent {
                seq,
                entity_type: parent.entity_type.to_string(),
                entity_id: parent.id.to_string(),
            }));
        }
    }
    Ok(None)
}

/// Another member of its group that cannot go: a group goes as a whole.
fn blocked_in_group(
    conn: &Connection,
    entry: &Entry,
    now: Now,
) -> Result<Option<WaitsFor>, StoreError> {
    let Some(group) = &entry.group else {
        return Ok(None);
    };
    let longest = now.unix_after_ms(LONGEST_WAIT_MS);
    let blocked = conn
        .prepare_cached(
            "SELECT seq FROM syncline_outbox AS o
              WHERE group_id = ?1 AND seq <> ?2
                AND (state IN ('failed', 'dead') OR (not_before > ?3 AND not_before <= ?4)
                  OR EXISTS (SELECT 1 FROM syncline_conflict AS c WHERE c.resolved_at IS NULL
                              AND c.entity_type = o.entity_type AND c.entity_id = o.entity_id))
              ORDER BY seq LIMIT 1",
        )?
        .query_row(params![group, entry.seq, now.unix_ms, longest], |row| {
            Ok(WaitsFor::Group { seq: row.get(0)? })
        });
    Ok(blocked.optional()?)
}

/// An earlier entry that still references the row which this one deletes. Not part of [`of`]: it
/// looks at many entries, so it is asked for one row only.
pub(crate) fn still_referenced(
    conn: &Connection,
    types: &EntityTypes,
    view: &EntryView,
    now: Now,
) -> Result<Option<WaitsFor>, StoreError> {
    let entry = outbox::get(conn, view.seq)?;
    let Some(entry) = entry.filter(|entry| entry.op == Operation::Delete) else {
        return Ok(None);
    };
    let Ok(entity) = entry.entity() else {
        return Ok(None);
    };
    let Some(own) = types.get(entity.entity_type.as_str()) else {
        return Ok(None);
    };
    let points_here = |one: &&Reference| one.table.eq_ignore_ascii_case(&own.table.name);
    for child in types.iter() {
        let references: Vec<&Reference> = (child.table.references.iter())
            .filter(points_here)
            .collect();
        if references.is_empty() {
            continue;
        }
        let mut statement = conn.prepare_cached(
            "SELECT seq FROM syncline_outbox WHERE entity_type = ?1 AND seq < ?2 ORDER BY seq LIMIT ?3 + 0",
        )?;
        let seqs = statement.query_map(params![child.name, entry.seq, MOST_REFERRING], |row| {
            row.get::<_, i64>(0)
        })?;
        for seq in seqs {
            let Some(other) = outbox::get(conn, seq?)? else {
                continue;
            };
            let Ok(referring) = other.entity() else {
                continue;
            };
            // A group goes together.
            if entry.group.is_some() && other.group == entry.group {
                continue;
            }
            let names = (referring.entity_type.as_str(), referring.id.as_str());
            let payload = captured::fields_of_mutation(conn, other.seq).ok().flatten();
            let base = captured::base_of(conn, names.0, names.1).ok();
            let base = base.and_then(BaseState::into_fields);
            let refers = payload.into_iter().chain(base).any(|fields| {
                references.iter().any(|reference| {
                    let values =
                        row::reference_values(&child.table, reference, &referring.id, &fields);
                    values.and_then(|values| row::parent_id(&own.table, reference, &values))
                        == Some(entity.id.clone())
                })
            });
            if refers && !doomed_parents((conn, types), now.unix_ms, &referring)?.contains(&entity)
            {
                return Ok(Some(WaitsFor::Reference {
                    seq: other.seq,
                    entity_type: names.0.to_owned(),
                    entity_id: names.1.to_owned(),
                }));
            }
        }
    }
    Ok(None)
}
