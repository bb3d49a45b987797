//! Gives a local row another id: the row, what refers to it, its outbox entries, base, conflicts
//! and the id map, all in the transaction under way, with the guard held.
//!
//! An id in a row that was created here and is not on the server yet is a proposal. It changes when
//! the server assigns another one, or when a remote row needs the place. Bytes that may have been
//! sent are never changed: an edit that follows them says what is different (E3).

mod rebuild;
mod recognise;
mod references;
mod undone;

pub(crate) use recognise::recognise;
pub(crate) use references::parent_to_come;

use crate::apply::Applier;
use crate::captured;
use crate::claim;
use crate::error::StoreError;
use crate::orphans;
use crate::outbox::{self, Entry};
use crate::retry::apply_waiting;
use crate::row::{self, Written};
use crate::state;
use crate::store::RegisteredType;
use crate::type_options::IdMode;
use crate::{ids, journal};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use syncline_core::{EntityRef, Notice, WaitsFor};
use syncline_protocol::{
    Change, ChangeKind, EntityId, Fields, Mutation, Operation, Scope, ServerVersion,
};

/// What is kept while one transaction gives rows other ids.
#[derive(Debug, Default)]
pub(crate) struct Rekeying {
    pub(crate) ids: ids::FreshIds,
    references: references::Index,
    trimmed: bool,
}

impl Rekeying {
    /// Outbox entries were written in another way: what they refer to is to be read again.
    pub(crate) fn outbox_changed(&mut self) {
        self.references = references::Index::default();
    }
}

/// Why a row gets another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The server chose it.
    Assigned,
    /// Another row needs the old one.
    Collision,
    /// It is the same thing as another row.
    Natural,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Reason::Assigned => "assigned",
            Reason::Collision => "collision",
            Reason::Natural => "natural-key",
        }
    }
}

/// One row on its way to another id.
struct Move {
    entity: EntityRef,
    /// The first entry that means this row. Entries before it mean a row that had the id earlier.
    from: i64,
    to: EntityRef,
    reason: Reason,
    /// The create that the server has just answered.
    settling: Option<i64>,
}

/// What was found at the new id.
#[derive(Debug, PartialEq, Eq)]
enum Moved {
    /// Nothing.
    Free,
    /// A row that the server's feed had brought: both are one now.
    Met,
    /// A constraint or a trigger of the app's does not let the row have that id.
    Refused(String),
}

/// What came of making room for a remote row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing stands in its way that could have another id.
    NotNeeded,
    /// The local row has another id now.
    Made,
    /// It cannot have another one.
    Refused(String),
    /// It belongs to this row, whose own id is still to be decided.
    Waits(EntityRef),
}

/// Before a remote state of `entity` is applied: a row that was created here under the same id,
/// and that no server can have seen, gets another one.
pub(crate) fn make_room(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    remote: Option<&Fields>,
) -> Result<Room, StoreError> {
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let entries = outbox::of_entity(applier.tx, names.0, names.1)?;
    let first = entries
        .iter()
        .position(|entry| entry.op == Operation::Create);
    let Some(create) = first.and_then(|first| entries.get(first)) else {
        return Ok(Room::NotNeeded);
    };
    // What only another copy of this file may have done leads here as well, by the id in the answer.
    if entries.iter().any(|entry| entry.frozen.is_some()) || applier.vacated.contains_key(entity) {
        return Ok(Room::NotNeeded);
    }
    if entity_type.id_mode() == IdMode::Client {
        return move_parent(applier, entity_type, entity);
    }
    if orphans::is_only_restored(&entries) {
        return Ok(Room::NotNeeded);
    }
    if first == Some(0) && entity_type.is_known_by_id(create) {
        let local = row::read(applier.tx, &entity_type.table, &entity.id)?;
        if remote.is_none() || has_all(remote, local.as_ref()) {
            return Ok(Room::NotNeeded);
        }
    }
    match to_fresh_id(applier, entity_type, entity, create.seq)? {
        Moved::Refused(why) => Ok(Room::Refused(why)),
        Moved::Free | Moved::Met => Ok(Room::Made),
    }
}

/// The key contains that of a row which was created here: the remote row belongs to another row of
/// that id, so this one's parent needs another id, and this one follows.
fn move_parent(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
) -> Result<Room, StoreError> {
    for parent in claim::parents(applier.types, entity_type, entity, &Fields::new()) {
        let Some(parent_type) = applier.types.get(parent.entity_type.as_str()) else {
            continue;
        };
        let names = (parent.entity_type.as_str(), parent.id.as_str());
        let entries = outbox::of_entity(applier.tx, names.0, names.1)?;
        let is_create = |entry: &&Entry| entry.op == Operation::Create;
        let Some(create) = entries.iter().find(is_create) else {
            continue;
        };
        let room = if entries.iter().any(Entry::is_sent) {
            Room::Waits(parent)
        } else if parent_type.id_mode() == IdMode::Client {
            move_parent(applier, parent_type, &parent)?
        } else if parent_type.is_known_by_id(create) {
            Room::Waits(parent)
        } else {
            match to_fresh_id(applier, parent_type, &parent, create.seq)? {
                Moved::Refused(why) => Room::Refused(why),
                Moved::Free | Moved::Met => Room::Made,
            }
        };
        if room != Room::NotNeeded {
            return Ok(room);
        }
    }
    Ok(Room::NotNeeded)
}

impl RegisteredType {
    /// Whether the entity goes by its id already: an equal row of that id is the same thing.
    fn is_known_by_id(&self, create: &Entry) -> bool {
        ids::assign_for(create, self).is_none()
    }
}

/// Whether the remote row says everything that the local one says.
fn has_all(remote: Option<&Fields>, local: Option<&Fields>) -> bool {
    match (remote, local) {
        (Some(remote), Some(local)) => local
            .iter()
            .all(|(name, value)| remote.get(name) == Some(value)),
        _ => false,
    }
}

fn to_fresh_id(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    from: i64,
) -> Result<Moved, StoreError> {
    let id = applier
        .rekeying
        .ids
        .fresh(applier.tx, entity_type, &entity.id)?;
    let way = Move {
        entity: entity.clone(),
        from,
        to: with_id(entity, id),
        reason: Reason::Collision,
        settling: None,
    };
    relocate(applier, &way)
}

fn with_id(entity: &EntityRef, id: EntityId) -> EntityRef {
    EntityRef {
        entity_type: entity.entity_type.clone(),
        id,
    }
}

/// What became of a row whose create the server has answered with an id of its own choice.
pub(crate) struct Assigned {
    /// The entity under its new id.
    pub(crate) entity: EntityRef,
    /// The feed has brought the row, or its end, under the new id before the answer came: what is
    /// known of it is newer than the answer.
    pub(crate) met: bool,
}

impl Assigned {
    /// The entity keeps its id.
    pub(crate) fn same(entity: &EntityRef) -> Self {
        Self {
            entity: entity.clone(),
            met: false,
        }
    }
}

/// The server's answer as far as it matters here.
pub(crate) struct Answer<'a> {
    pub(crate) id: &'a EntityId,
    pub(crate) version: &'a ServerVersion,
    pub(crate) position: i64,
    /// The row as it is on the server.
    pub(crate) fields: Option<&'a Fields>,
}

/// The server has assigned an id. To be called while the create is still in the outbox.
pub(crate) fn assigned(
    applier: &mut Applier<'_>,
    create: &Entry,
    entity: &EntityRef,
    answer: &Answer<'_>,
) -> Result<Assigned, StoreError> {
    let to = with_id(entity, answer.id.clone());
    let way = Move {
        entity: entity.clone(),
        from: create.seq,
        to: to.clone(),
        reason: Reason::Assigned,
        settling: Some(create.seq),
    };
    let met = match relocate(applier, &way)? {
        Moved::Met => true,
        Moved::Free => {
            let passed = feed_passed(applier.tx, answer.position)?;
            if passed {
                // The feed has been there and left no row: it was deleted meanwhile.
                rebuild::rebuild(applier, &to, way.settling, None)?;
            }
            passed
        }
        Moved::Refused(why) => {
            wait_for_place(applier, &way, answer, &why)?;
            true
        }
    };
    Ok(Assigned { entity: to, met })
}

/// Whether everything up to this position has been received.
fn feed_passed(conn: &Connection, position: i64) -> Result<bool, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM syncline_cursor WHERE phase = 'feed' AND position >= ?1)",
        )?
        .query_row([position], |row| row.get(0))?)
}

/// The row cannot have the id that the server gave it: it waits in the inbox like any remote row
/// that finds no place.
fn wait_for_place(
    applier: &mut Applier<'_>,
    way: &Move,
    answer: &Answer<'_>,
    why: &str,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    if let Some(entity_type) = applier.types.get(way.entity.entity_type.as_str()) {
        row::remove(tx, &entity_type.table, &way.entity.id)?;
    }
    let had_before = last_earlier_entry(tx, way)? > 0;
    move_entries(tx, way)?;
    move_base(tx, way, &Moved::Free, had_before)?;
    let scope: Option<String> = tx
        .query_row("SELECT scope FROM syncline_cursor LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    let change = Change {
        entity_type: way.to.entity_type.clone(),
        id: way.to.id.clone(),
        kind: answer
            .fields
            .cloned()
            .map_or(ChangeKind::Delete, ChangeKind::Upsert),
        version: answer.version.clone(),
        position: answer.position,
        key: None,
    };
    let scope = Scope::new(scope.unwrap_or_else(|| "default".to_owned()));
    state::park(tx, &scope, &change, WaitsFor::Constraint, why, applier.now)
}

/// A row that was created here takes the id of a remote row that is the same thing. To be merged
/// with it then. The reason, if it cannot have that id.
pub(crate) fn unite(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
    create: i64,
    to: &EntityRef,
) -> Result<Result<(), String>, StoreError> {
    let way = Move {
        entity: entity.clone(),
        from: create,
        to: to.clone(),
        reason: Reason::Natural,
        settling: None,
    };
    Ok(match relocate(applier, &way)? {
        Moved::Free | Moved::Met => Ok(()),
        Moved::Refused(why) => Err(why),
    })
}

/// What to do about a create that was refused because its id is taken.
pub(crate) enum Taken {
    /// It is sent again under another id.
    Rekeyed,
    /// It is a conflict like any other.
    Conflict,
    /// There is no other id that it could have.
    Stuck(String),
}

/// A create found its id taken, and no other was assigned. Its key is spent.
pub(crate) fn taken(
    applier: &mut Applier<'_>,
    create: &Entry,
    entity: &EntityRef,
    remote: Option<&Fields>,
) -> Result<Taken, StoreError> {
    let Some(entity_type) = applier.types.get(entity.entity_type.as_str()) else {
        return Ok(Taken::Conflict);
    };
    if entity_type.id_mode() == IdMode::Client {
        return Ok(Taken::Conflict);
    }
    // It was sent under an id that the row has left since: the answer is about another row.
    let sent: Option<Mutation> = create
        .frozen
        .as_deref()
        .and_then(|frozen| serde_json::from_str(frozen).ok());
    if sent.is_some_and(|sent| sent.id != entity.id) {
        return Ok(Taken::Rekeyed);
    }
    let local = row::read(applier.tx, &entity_type.table, &entity.id)?;
    let same = entity_type.is_known_by_id(create) && has_all(remote, local.as_ref());
    if same || orphans::is_restored(create) {
        return Ok(Taken::Conflict);
    }
    match to_fresh_id(applier, entity_type, entity, create.seq)? {
        Moved::Refused(why) => return Ok(Taken::Stuck(why)),
        Moved::Free | Moved::Met => {}
    }
    // The row of that id, if it has come already; else the feed brings it.
    apply_waiting(applier, entity)?;
    Ok(Taken::Rekeyed)
}

/// Moves everything of a row to its new id.
fn relocate(applier: &mut Applier<'_>, way: &Move) -> Result<Moved, StoreError> {
    let (tx, types) = (applier.tx, applier.types);
    let Some(entity_type) = types.get(way.entity.entity_type.as_str()) else {
        return Ok(Moved::Refused("its table is gone".to_owned()));
    };
    if let Moved::Refused(why) = step_aside(applier, entity_type, way)? {
        return Ok(Moved::Refused(why));
    }
    tx.execute_batch("SAVEPOINT rekey")?;
    let (moved, met) = move_row(tx, entity_type, way)?;
    if let Moved::Refused(_) = moved {
        tx.execute_batch("ROLLBACK TO rekey; RELEASE rekey")?;
        return Ok(moved);
    }
    tx.execute_batch("RELEASE rekey")?;
    let boundary = last_earlier_entry(tx, way)?;
    let own = outbox::get(tx, way.from)?;
    let is_new = own.is_some_and(|own| own.origin.as_deref() != Some(journal::ORIGIN));
    move_entries(tx, way)?;
    move_base(tx, way, &moved, boundary > 0)?;
    if moved == Moved::Met {
        rebuild::rebuild(applier, &way.to, way.settling, met)?;
    }
    move_conflicts(tx, way)?;
    references::follow(applier, way, (boundary, is_new))?;
    if !std::mem::replace(&mut applier.rekeying.trimmed, true) {
        ids::forget_old(tx, applier.times)?;
    }
    let (reason, at) = (way.reason.as_str(), (applier.now, applier.times));
    ids::remember(tx, &way.entity, &way.to.id, reason, at)?;
    ids::raise_sequence(tx, entity_type, &way.to.id)?;
    applier.rekeying.ids.in_use(&way.to);
    applier.notices.push(Notice::IdChanged {
        entity_type: way.entity.entity_type.clone(),
        old: way.entity.id.clone(),
        new: way.to.id.clone(),
    });
    Ok(moved)
}

/// Another row that was created here stands at the new id: it gets yet another one. If it was
/// sent, its answer will say which: the server has given this id away.
fn step_aside(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    way: &Move,
) -> Result<Moved, StoreError> {
    let to = &way.to;
    let entries = outbox::of_entity(applier.tx, to.entity_type.as_str(), to.id.as_str())?;
    let is_create = |entry: &&Entry| entry.op == Operation::Create;
    match entries.iter().find(is_create) {
        None if matches!(way.reason, Reason::Assigned) => {
            undone::forget_lost(applier, entity_type, to, &entries)
        }
        None => Ok(Moved::Free),
        Some(_) if entity_type.id_mode() == IdMode::Client => {
            match undone::is_undone(applier.tx, entity_type, to, &entries)? {
                true => undone::forget(applier, to, &entries),
                false => Ok(Moved::Refused(format!("{to} was created here as well"))),
            }
        }
        Some(create) => to_fresh_id(applier, entity_type, to, create.seq),
    }
}

fn move_row(
    conn: &Connection,
    entity_type: &RegisteredType,
    way: &Move,
) -> Result<(Moved, Option<Fields>), StoreError> {
    let table = &entity_type.table;
    let met = row::read(conn, table, &way.to.id)?;
    if row::read(conn, table, &way.entity.id)?.is_none() {
        // Deleted here meanwhile: only entries are left of it, and they mean what the feed has brought.
        let moved = met.as_ref().map_or(Moved::Free, |_| Moved::Met);
        return Ok((moved, met));
    }
    if met.is_some()
        && let Written::Refused(why) = row::remove(conn, table, &way.to.id)?
    {
        return Ok((Moved::Refused(why), None));
    }
    Ok(
        match row::rename(conn, table, &way.entity.id, &way.to.id)? {
            Written::Refused(why) => (Moved::Refused(why), None),
            Written::NoParent(_) | Written::Done if met.is_some() => (Moved::Met, met),
            Written::NoParent(_) | Written::Done => (Moved::Free, None),
        },
    )
}

/// The last entry of the old id that does not mean this row; 0: there is none.
fn last_earlier_entry(conn: &Connection, way: &Move) -> Result<i64, StoreError> {
    let entries = outbox::of_entity(
        conn,
        way.entity.entity_type.as_str(),
        way.entity.id.as_str(),
    )?;
    let earlier = entries.iter().map(|entry| entry.seq);
    Ok(earlier.filter(|seq| *seq < way.from).max().unwrap_or(0))
}

fn move_entries(conn: &Connection, way: &Move) -> Result<(), StoreError> {
    // Under its new id the row is known to nobody.
    conn.prepare_cached(
        "UPDATE syncline_outbox
            SET entity_id = ?4,
                origin = CASE WHEN op = 'create' AND origin IN ('attach', 'journal') THEN NULL ELSE origin END
          WHERE entity_type = ?1 AND entity_id = ?2 AND seq >= ?3",
    )?
    .execute(params![
        way.entity.entity_type.as_str(),
        way.entity.id.as_str(),
        way.from,
        way.to.id.as_str()
    ])?;
    Ok(())
}

/// The base goes along, unless it is that of a row that had the old id before.
fn move_base(
    tx: &Transaction<'_>,
    way: &Move,
    moved: &Moved,
    had_before: bool,
) -> Result<(), StoreError> {
    let name = way.entity.entity_type.as_str();
    let (old, new) = (way.entity.id.as_str(), way.to.id.as_str());
    match (had_before, moved) {
        (true, Moved::Met) => {}
        (true, _) => captured::write_base(tx, name, new, None)?,
        (false, Moved::Met) => captured::delete_base(tx, name, old)?,
        (false, _) => {
            captured::delete_base(tx, name, new)?;
            for table in ["syncline_base", "syncline_base_real"] {
                tx.prepare_cached(&format!(
                    "UPDATE {table} SET entity_id = ?3 WHERE entity_type = ?1 AND entity_id = ?2"
                ))?
                .execute([name, old, new])?;
            }
        }
    }
    Ok(())
}

/// An open conflict about one of the moved entries goes along.
fn move_conflicts(conn: &Connection, way: &Move) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE syncline_conflict SET entity_id = ?3
          WHERE resolved_at IS NULL AND entity_type = ?1 AND entity_id = ?2
            AND EXISTS (SELECT 1 FROM json_each(mutations) AS m JOIN syncline_outbox AS o
                            ON o.mutation = m.value
                         WHERE o.entity_type = ?1 AND o.entity_id = ?3)",
    )?
    .execute([
        way.entity.entity_type.as_str(),
        way.entity.id.as_str(),
        way.to.id.as_str(),
    ])?;
    Ok(())
}
