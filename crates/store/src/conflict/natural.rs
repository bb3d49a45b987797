//! Natural keys: a row that was created here and one that the server has are the same thing when
//! they agree on the declared fields, whatever their ids. The local row takes the server's id,
//! everything that refers to it follows, and then the two are merged like two creates of one id.

use crate::apply::Applier;
use crate::conflict::Reconciled;
use crate::error::StoreError;
use crate::outbox::{self, Entry, EntryState};
use crate::rekey;
use crate::row;
use crate::state;
use crate::store::RegisteredType;
use syncline_core::{ConflictCause, EntityRef, MutationError};
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
    if entries.iter().any(Entry::is_sent) {
        return Ok(None);
    }
    let first = entries.into_iter().next();
    Ok(first.filter(|entry| entry.op == Operation::Create))
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

/// Whether a create has to wait until the feed was read to its head after it was recorded: the
/// server may have the same thing under another id.
pub(crate) fn waits_for_head(entity_type: &RegisteredType, entry: &Entry, head_seq: i64) -> bool {
    entry.op == Operation::Create
        && entry.state == EntryState::Pending
        && !entity_type.rules.natural_key.is_empty()
        && entry.seq > head_seq
}
