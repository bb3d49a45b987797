//! What a person does about a dead letter: retry it, or discard it and take the row back.

use crate::apply::{Applier, after_mutation};
use crate::captured;
use crate::error::StoreError;
use crate::outbox::{self, Entry, EntryState};
use crate::row::{self, Written};
use crate::state;
use rusqlite::params;
use std::collections::BTreeMap;
use syncline_core::EntityRef;
use syncline_protocol::{Operation, RemoteState};

/// Lets an entry be sent again: a failed one under a new key, a dead one under its old key and
/// with its old bytes, since its outcome is not known.
pub(crate) fn retry(applier: &Applier<'_>, seq: i64) -> Result<(), StoreError> {
    let entry = outbox::get(applier.tx, seq)?.ok_or(StoreError::NoSuchEntry(seq))?;
    if !matches!(entry.state, EntryState::Failed | EntryState::Dead) {
        return Err(StoreError::Refused(format!(
            "entry {seq} is {}: only failed and dead entries are retried by hand",
            entry.state.as_str()
        )));
    }
    applier.tx.execute(
        "UPDATE syncline_outbox SET state = 'pending', attempts = 0, not_before = 0
          WHERE seq = ?1",
        params![seq],
    )?;
    outbox::log(applier.tx, &entry, "retried", "{}", applier.now)
}

/// Gives entries up and makes their rows what they are without them. Discarding a create takes
/// along everything that depends on it; what was discarded is returned, in local order.
pub(crate) fn discard(applier: &mut Applier<'_>, seq: i64) -> Result<Vec<i64>, StoreError> {
    let entry = outbox::get(applier.tx, seq)?.ok_or(StoreError::NoSuchEntry(seq))?;
    let mut doomed = BTreeMap::from([(seq, entry.clone())]);
    if entry.op == Operation::Create {
        add_dependents(applier, &entry, &mut doomed)?;
    }
    for entry in doomed.values() {
        refuse_if_sent(entry)?;
    }
    let entities: BTreeMap<EntityRef, ()> = doomed
        .values()
        .filter_map(|entry| Some((entry.entity().ok()?, ())))
        .collect();
    let detail = serde_json::json!({ "reason": "discarded by hand", "with": seq });
    // Children first, so that no row is left without its parent.
    for entry in doomed.values().rev() {
        outbox::settle(applier.tx, entry, "superseded", &detail, applier.now)?;
    }
    for entity in entities.keys().rev() {
        roll_back(applier, entity)?;
    }
    Ok(doomed.into_keys().collect())
}

fn refuse_if_sent(entry: &Entry) -> Result<(), StoreError> {
    if entry.frozen.is_none() {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "entry {} may have been sent and its outcome is not known yet, so it cannot be discarded; \
         retry or sync it first",
        entry.seq
    )))
}

fn add_dependents(
    applier: &Applier<'_>,
    create: &Entry,
    doomed: &mut BTreeMap<i64, Entry>,
) -> Result<(), StoreError> {
    let Ok(entity) = create.entity() else {
        return Ok(());
    };
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    for later in outbox::of_entity(applier.tx, names.0, names.1)? {
        if later.seq > create.seq {
            doomed.insert(later.seq, later);
        }
    }
    for other in outbox::after(applier.tx, 0, usize::MAX)? {
        if doomed.contains_key(&other.seq)
            || other.op == Operation::Delete
            || !references(applier, &other, &entity)?
        {
            continue;
        }
        doomed.insert(other.seq, other.clone());
        if other.op == Operation::Create {
            add_dependents(applier, &other, doomed)?;
        }
    }
    Ok(())
}

fn references(
    applier: &Applier<'_>,
    entry: &Entry,
    parent: &EntityRef,
) -> Result<bool, StoreError> {
    let Ok(entity) = entry.entity() else {
        return Ok(false);
    };
    let Some(own) = applier.types.get(entity.entity_type.as_str()) else {
        return Ok(false);
    };
    let fields = captured::fields_of_mutation(applier.tx, entry.seq)?.unwrap_or_default();
    Ok(own.table.references.iter().any(|reference| {
        let target = applier.types.of_table(&reference.table);
        target.is_some_and(|target| {
            target.name == parent.entity_type.as_str()
                && row::reference_values(&own.table, reference, &entity.id, &fields)
                    .and_then(|values| row::parent_id(&target.table, reference, &values))
                    .is_some_and(|id| id == parent.id)
        })
    }))
}

/// The row becomes its base, or the newest remote state known, with what is left laid over it.
fn roll_back(applier: &mut Applier<'_>, entity: &EntityRef) -> Result<(), StoreError> {
    let (tx, names) = (
        applier.tx,
        (entity.entity_type.as_str(), entity.id.as_str()),
    );
    let Some(entity_type) = applier.types.get(names.0) else {
        return Ok(());
    };
    let rest = outbox::of_entity(tx, names.0, names.1)?;
    if let Some(sent) = rest.iter().find(|entry| entry.frozen.is_some()) {
        return refuse_if_sent(sent);
    }
    let newest = newest_remote(applier, entity)?;
    let base = match &newest {
        Some(remote) => remote.fields.clone(),
        None => captured::base_of(tx, names.0, names.1)?.into_fields(),
    };
    let mut wanted = base.clone();
    for entry in &rest {
        let payload = captured::fields_of_mutation(tx, entry.seq)?;
        wanted = after_mutation(wanted, entry.op, payload);
    }
    if rest.is_empty() {
        captured::delete_base(tx, names.0, names.1)?;
    } else {
        captured::write_base(tx, names.0, names.1, base.as_ref())?;
    }
    if let Some(remote) = newest {
        state::set_known(
            tx,
            entity,
            &remote.version,
            remote.position,
            remote.fields.is_none(),
        )?;
    }
    match applier.write_row(entity_type, entity, wanted.as_ref())? {
        Written::Done => Ok(()),
        Written::NoParent(parent) => Err(StoreError::Refused(format!(
            "{entity} cannot be taken back: it references {parent}, which is not there"
        ))),
        Written::Refused(why) => Err(StoreError::Refused(format!(
            "{entity} cannot be taken back: {why}"
        ))),
    }
}

/// The newest remote state that waits for a decision about the entity; its conflict is closed.
fn newest_remote(
    applier: &Applier<'_>,
    entity: &EntityRef,
) -> Result<Option<RemoteState>, StoreError> {
    let known = state::close_conflict(applier.tx, entity, "discarded", applier.now)?.flatten();
    let waiting = state::unpark(applier.tx, entity)?.map(|waiting| waiting.remote);
    Ok([known, waiting]
        .into_iter()
        .flatten()
        .max_by_key(|remote| remote.position))
}
