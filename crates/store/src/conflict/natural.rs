//! Natural keys: a row that was created here and one that the server has are the same thing when
//! they agree on the declared fields, whatever their ids. The local row takes the server's id,
//! everything that refers to it follows, and then the two are merged like two creates of one id.

use crate::apply::Applier;
use crate::conflict::Reconciled;
use crate::error::StoreError;
use crate::meta;
use crate::outbox::{self, Entry};
use crate::rekey;
use crate::row;
use crate::state;
use crate::store::{EntityTypes, RegisteredType};
use rusqlite::{Connection, Transaction, params};
use syncline_core::{ConflictCause, EntityRef, MutationError, Now};
use syncline_protocol::{EntityId, Fields, Operation, RemoteState, ServerVersion};

/// Rows that share a natural key at most: more cannot be the same thing.
const MOST_TWINS: usize = 16;

/// A row that was created here, was never sent or was refused, and is the same thing as a remote row.
#[derive(Debug, Clone)]
pub(crate) struct Twin {
    pub(crate) entity: EntityRef,
    /// Its create.
    pub(crate) seq: i64,
}

/// The local twin of a remote row.
pub(crate) fn twin(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    remote: &Fields,
) -> Result<Option<Twin>, StoreError> {
    if entity_type.rules.natural_key.is_empty() {
        return Ok(None);
    }
    for other in same_key(applier, entity_type, remote)? {
        if other == *entity {
            // It is known by its id here.
            return Ok(None);
        }
        if let Some(create) = own_create(applier, &other)? {
            return Ok(Some(Twin {
                entity: other,
                seq: create.seq,
            }));
        }
    }
    Ok(None)
}

/// Local rows with the natural key of these fields.
fn same_key(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    fields: &Fields,
) -> Result<Vec<EntityRef>, StoreError> {
    let (table, rules) = (&entity_type.table, &entity_type.rules);
    let mut conditions = Vec::new();
    for name in &rules.natural_key {
        let column = table.columns.iter().find(|column| column.field == *name);
        let (Some(column), Some(value)) = (column, fields.get(name)) else {
            return Ok(Vec::new());
        };
        conditions.push((column.name.as_str(), row::to_sql(value)));
    }
    let mut found = Vec::new();
    for id in row::with_values(applier.tx, table, &conditions, MOST_TWINS)? {
        let here = row::read(applier.tx, table, &id)?;
        if here.is_some_and(|here| rules.same_natural_key(&here, fields)) {
            found.push(with_id(entity_type, id));
        }
    }
    Ok(found)
}

fn with_id(entity_type: &RegisteredType, id: EntityId) -> EntityRef {
    EntityRef {
        entity_type: entity_type.entity_type(),
        id,
    }
}

/// The create of an entity that no server knows.
fn own_create(applier: &Applier<'_>, entity: &EntityRef) -> Result<Option<Entry>, StoreError> {
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let entries = outbox::of_entity(applier.tx, names.0, names.1)?;
    if entries.iter().any(|entry| entry.frozen.is_some()) {
        return Ok(None);
    }
    let first = entries.into_iter().next();
    Ok(first.filter(|entry| entry.op == Operation::Create && !entry.is_sent()))
}

/// The local row goes by the server's id from here on, and both are merged with an absent base.
/// `None`: it cannot have that id, for this reason.
pub(crate) fn join(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    twin: &Twin,
    remote: (&EntityId, &RemoteState),
) -> Result<Result<Reconciled, String>, StoreError> {
    let entity = with_id(entity_type, remote.0.clone());
    if let Err(why) = rekey::unite(applier, &twin.entity, twin.seq, &entity)? {
        return Ok(Err(why));
    }
    // What the server had against it was that the other row is there.
    applier.tx.execute(
        "UPDATE syncline_outbox SET state = 'pending', last_error = NULL, attempts = 0, not_before = 0
          WHERE entity_type = ?1 AND entity_id = ?2 AND state = 'failed'",
        [entity.entity_type.as_str(), entity.id.as_str()],
    )?;
    let cause = ConflictCause::Violation {
        constraint: format!("natural key: {}", natural_key(entity_type)),
        other: Some(twin.entity.clone()),
    };
    let reconciled = applier.reconcile(entity_type, &entity, Some(remote.1), &cause)?;
    applier.rekeying.outbox_changed();
    Ok(Ok(reconciled))
}

fn natural_key(entity_type: &RegisteredType) -> String {
    let fields: Vec<&str> = entity_type
        .rules
        .natural_key
        .iter()
        .map(String::as_str)
        .collect();
    fields.join(", ")
}

/// The server refused a create because of a unique field: if the row that has the value is here, and
/// is the same thing, they become one. Whether they did.
pub(crate) fn join_refused(
    applier: &mut Applier<'_>,
    refused: &Entry,
    entity: &EntityRef,
    error: &MutationError,
) -> Result<bool, StoreError> {
    let unique = error.code == "unique" || error.errors.iter().any(|one| one.code == "unique");
    let Some(entity_type) = applier.types.get(entity.entity_type.as_str()) else {
        return Ok(false);
    };
    if !unique || refused.op != Operation::Create || entity_type.rules.natural_key.is_empty() {
        return Ok(false);
    }
    let Some(local) = row::read(applier.tx, &entity_type.table, &entity.id)? else {
        return Ok(false);
    };
    for other in same_key(applier, entity_type, &local)? {
        let clean = state::view(applier.tx, &other).map(|view| !view.dirty)?;
        let fields = row::read(applier.tx, &entity_type.table, &other.id)?;
        if other == *entity || !clean || fields.is_none() {
            continue;
        }
        let known = state::known(applier.tx, &other)?;
        let (version, position) = known.unwrap_or_else(|| (ServerVersion::new("0"), 0));
        let remote = RemoteState {
            version,
            position,
            fields,
        };
        let twin = Twin {
            entity: entity.clone(),
            seq: refused.seq,
        };
        let joined = join(applier, entity_type, &twin, (&other.id, &remote))?;
        return Ok(joined.is_ok());
    }
    Ok(false)
}

/// How long a look at the head of the feed counts, in milliseconds.
const FRESH_MS: i64 = 60_000;

/// Up to where creates are known not to be on the server under another id. Those of a type with a
/// natural key wait until the feed was read to its head, lately and after they were recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    seq: i64,
}

impl Head {
    pub(crate) fn read(conn: &Connection, now: Now) -> Result<Self, StoreError> {
        let at: Option<i64> = conn
            .prepare_cached("SELECT max(head_at) FROM syncline_cursor")?
            .query_row([], |row| row.get(0))?;
        let age = at.map(|at| now.unix_ms.saturating_sub(at));
        let seq = match age {
            Some(0..=FRESH_MS) => meta::get(conn, meta::key::HEAD_SEQ)?.unwrap_or(0),
            _ => 0,
        };
        Ok(Self { seq })
    }

    pub(crate) fn holds(self, entity_type: &RegisteredType, entry: &Entry) -> bool {
        entry.op == Operation::Create
            && !entity_type.rules.natural_key.is_empty()
            && entry.seq > self.seq
    }
}

/// The head is reached: how many creates may be sent that had to wait for it. To be called before the
/// cursor moves.
pub(crate) fn release(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    now: Now,
) -> Result<u64, StoreError> {
    let before = Head::read(tx, now)?.seq;
    let (mut released, mut any) = (0, false);
    for entity_type in types.iter() {
        if entity_type.rules.natural_key.is_empty() {
            continue;
        }
        any = true;
        let sql = "SELECT count(*) FROM syncline_outbox WHERE entity_type = ?1 AND op = 'create'
                      AND state = 'pending' AND frozen IS NULL AND seq > ?2";
        let waited: u64 = tx
            .prepare_cached(sql)?
            .query_row(params![entity_type.name, before], |row| row.get(0))?;
        released += waited;
    }
    if any {
        let sql = "SELECT coalesce(max(seq), 0) FROM syncline_outbox";
        let greatest: i64 = tx.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        meta::set(tx, meta::key::HEAD_SEQ, greatest)?;
    }
    Ok(released)
}
