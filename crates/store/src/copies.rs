//! What another copy of this file has done already (I2), under a key that both have: here it is taken back
//! where the server's state below it has it.

use crate::apply::{Applier, after_mutation};
use crate::captured;
use crate::claim::parts;
use crate::error::StoreError;
use crate::outbox::{self, Entry, EntryState};
use crate::page;
use crate::row::Written;
use crate::state;
use crate::sums;
use rusqlite::Transaction;
use syncline_core::{EntityRef, LocalView, Verdict};
use syncline_protocol::{Fields, Operation};

/// A copy has used the key of an entry, with other bytes: what came of that is asked, as the copy would ask. What has
/// become part of it here is none of that. `false`: it was asked as a copy would, and there is nothing to take apart.
pub(crate) fn inherit(applier: &mut Applier<'_>, entry: &Entry) -> Result<bool, StoreError> {
    let apart = take_apart(applier, entry)?;
    let asked_anew = apart || entry.origin_client.is_none();
    if asked_anew {
        outbox::inherit(applier.tx, entry)?;
    }
    Ok(asked_anew)
}

/// What an entry was frozen to was not done and never will be.
pub(crate) fn unfreeze(
    applier: &mut Applier<'_>,
    entry: &Entry,
    state: EntryState,
) -> Result<(), StoreError> {
    outbox::unfreeze(applier.tx, entry, state)?;
    take_edits_apart(applier, entry)
}

/// The key of an entry was answered with its final no. What is to be cancelled is given up as a whole: it was asked by its
/// key alone, and the no may be to what a copy had under that.
pub(crate) fn spend(applier: &mut Applier<'_>, entry: &Entry) -> Result<(), StoreError> {
    outbox::spend(applier.tx, entry)?;
    match entry.cancel {
        true => Ok(()),
        false => take_edits_apart(applier, entry),
    }
}

/// A copy sends the first of them alone, under the key that follows: the two are only one as long as both are the same.
fn take_edits_apart(applier: &mut Applier<'_>, entry: &Entry) -> Result<(), StoreError> {
    match entry.op {
        Operation::Update => take_apart(applier, entry).map(drop),
        Operation::Create | Operation::Delete => Ok(()),
    }
}

fn take_apart(applier: &mut Applier<'_>, entry: &Entry) -> Result<bool, StoreError> {
    let apart = parts::take_apart(applier.tx, entry)?;
    if apart {
        applier.rekeying.outbox_changed();
    }
    Ok(apart)
}

/// Whether the state below an entity's mutations has what was applied at this position. Below those of a row
/// that is held is what the server lacks. If not, nothing is known of what the entity's next ones were applied to.
pub(crate) fn settles(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
    position: i64,
) -> Result<bool, StoreError> {
    let view = state::view(applier.tx, entity)?;
    let settles = !view.held && is_passed(applier, view, position)?;
    if !settles {
        applier.on_copies.insert(entity.clone());
    }
    Ok(settles)
}

/// Whether there is a state below an entity's mutations that has what was applied at this position.
pub(crate) fn is_below(
    applier: &Applier<'_>,
    entity: &EntityRef,
    position: i64,
) -> Result<bool, StoreError> {
    let view = state::view(applier.tx, entity)?;
    let base = captured::base_of(applier.tx, entity.entity_type.as_str(), entity.id.as_str())?;
    Ok(!view.held && base.into_fields().is_some() && is_passed(applier, view, position)?)
}

/// Whether what is known here of the server's state of an entity is not older than this position.
fn is_passed(applier: &Applier<'_>, view: LocalView, position: i64) -> Result<bool, StoreError> {
    let reached = view.reflects.max(page::applied_position(applier.tx)?);
    Ok(view.waiting.is_none() && reached.is_some_and(|reached| reached >= position))
}

/// Whether an answer that is given again is about an older state than the one below an entity's mutations:
/// asked under another key, the server says how it is now.
pub(crate) fn is_outdated(
    applier: &Applier<'_>,
    entity: &EntityRef,
    verdict: &Verdict,
) -> Result<bool, StoreError> {
    let Verdict::Conflict {
        remote: said,
        replayed: true,
        ..
    } = verdict
    else {
        return Ok(false);
    };
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let view = state::view(applier.tx, entity)?;
    match said {
        Some(said) => is_passed(applier, view, said.position),
        None => {
            let base = captured::base_of(applier.tx, names.0, names.1)?;
            Ok(base.into_fields().is_some() && is_passed(applier, view, 0)?)
        }
    }
}

/// Whether what is left edits or deletes a row that the state below lacks: the server's answer brings the two together.
pub(crate) fn is_about_no_base(
    tx: &Transaction<'_>,
    entity: &EntityRef,
) -> Result<bool, StoreError> {
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let gone = captured::base_of(tx, names.0, names.1)?
        .into_fields()
        .is_none();
    let rest = outbox::of_entity(tx, names.0, names.1)?;
    Ok(gone
        && rest
            .first()
            .is_some_and(|entry| entry.op != Operation::Create))
}

/// The row becomes that state with what is left laid over it. To a sum, what is left adds what it did.
pub(crate) fn take_back(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
    done: Option<&Fields>,
) -> Result<(), StoreError> {
    let (tx, types) = (applier.tx, applier.types);
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let Some(entity_type) = types.get(names.0) else {
        return Ok(());
    };
    let base = captured::base_of(tx, names.0, names.1)?.into_fields();
    let rest = outbox::of_entity(tx, names.0, names.1)?;
    sums::shift(tx, entity_type, entity, (done, base.as_ref()))?;
    let mut row = base;
    for entry in &rest {
        let payload = captured::fields_of_mutation(tx, entry.seq)?;
        row = after_mutation(row, entry.op, payload);
    }
    if rest.is_empty() {
        captured::delete_base(tx, names.0, names.1)?;
    }
    if applier.write_row(entity_type, entity, row.as_ref())? != Written::Done {
        // Not reflected, then: the feed brings it again, and it waits in the inbox with its reason.
        state::forget_known(tx, entity)?;
    }
    Ok(())
}
