//! A row whose new id has a row already: both are one.

use crate::apply::{Applier, after_mutation};
use crate::captured::{self, BaseState};
use crate::conflict::Loss;
use crate::conflict::record::{self, BySchema};
use crate::error::StoreError;
use crate::orphans;
use crate::outbox;
use crate::row::{self, Written};
use syncline_core::EntityRef;
use syncline_protocol::{Fields, Operation};

/// The row becomes what the server has of it, with the local edits laid over; a create that is not
/// settled makes it a row of its own.
pub(super) fn rebuild(
    applier: &Applier<'_>,
    entity: &EntityRef,
    settling: Option<i64>,
    met: Option<Fields>,
) -> Result<(), StoreError> {
    let (tx, name) = (applier.tx, entity.entity_type.as_str());
    let Some(entity_type) = applier.types.get(name) else {
        return Ok(());
    };
    let mut entries = outbox::of_entity(tx, name, entity.id.as_str())?;
    entries.retain(|entry| Some(entry.seq) != settling);
    if entries.iter().any(|entry| entry.op == Operation::Create) {
        if entries.last().map(|entry| entry.op) == Some(Operation::Delete) {
            row::remove(tx, &entity_type.table, &entity.id)?;
        }
        return Ok(captured::write_base(tx, name, entity.id.as_str(), None)?);
    }
    let base = match captured::base_of(tx, name, entity.id.as_str())? {
        BaseState::Present(base) if met.is_some() => Some(base),
        _ => met.clone(),
    };
    if !entries.is_empty() {
        captured::write_base(tx, name, entity.id.as_str(), base.as_ref())?;
    }
    let mut wanted = base;
    for entry in &entries {
        let payload = captured::fields_of_mutation(tx, entry.seq)?;
        wanted = after_mutation(wanted, entry.op, payload);
    }
    if let (Some(create), Some(met)) = (settling, &met) {
        let entries: Vec<&str> = entries.iter().map(|one| one.mutation.as_str()).collect();
        record_lost(applier, (entity, create), met, wanted.as_ref(), entries)?;
    }
    let written = match &wanted {
        Some(fields) => row::write(tx, &entity_type.table, &entity.id, fields)?,
        None => {
            orphans::note_standing(tx, applier.types, entity_type, &entity.id)?;
            row::remove(tx, &entity_type.table, &entity.id)?
        }
    };
    if let Written::Refused(why) = written {
        tracing::warn!(%entity, why, "what the server has cannot be written here yet");
    }
    Ok(())
}

/// What others wrote into a row before its create was answered here, and what edits of that time stand over: they were
/// made without seeing it, so it is kept in a record.
fn record_lost(
    applier: &Applier<'_>,
    (entity, create): (&EntityRef, i64),
    met: &Fields,
    wanted: Option<&Fields>,
    mutations: Vec<&str>,
) -> Result<(), StoreError> {
    let created = captured::fields_of_mutation(applier.tx, create)?;
    let is_lost = |name: &str, value| {
        let made = created.as_ref().and_then(|made| made.get(name));
        made != Some(value) && wanted.is_none_or(|wanted| wanted.get(name) != Some(value))
    };
    let lost = met.iter().filter(|(name, value)| is_lost(name, value));
    let lost: Fields = lost
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if mutations.is_empty() || lost.is_empty() {
        return Ok(());
    }
    let decision = BySchema {
        entity,
        mutations,
        base: created.as_ref(),
        local: wanted,
        result: wanted,
        rule: "replay",
        reason: "edited here before the answer to its create, and by others as well".to_owned(),
        lost_mine: Loss::Nothing,
        lost_theirs: Loss::Values(lost),
    };
    record::by_schema(applier.tx, decision, applier.now)
}
