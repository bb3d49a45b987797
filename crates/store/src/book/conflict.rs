//! The answer that an entity is not as the mutation expects: it is decided with what is known of the server's state.

use super::refused::spend;
use super::tell_failed;
use crate::apply::Applier;
use crate::captured::CapturedError;
use crate::conflict::{Reconciled, violation};
use crate::error::StoreError;
use crate::held;
use crate::inbox::{self, Waiting};
use crate::outbox::{self, Entry};
use crate::rekey::{self, Room, Taken};
use crate::retry::{apply_waiting, hold_back};
use crate::row;
use crate::state;
use crate::store::RegisteredType;
use rusqlite::params;
use syncline_core::{ConflictCause, EntityRef, MutationError, WaitsFor};
use syncline_protocol::{ConflictReason, Operation, RemoteState};

/// Brings the entity and the server's state together, unless that has to wait. The key is spent.
pub(super) fn book_conflict(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    reason: ConflictReason,
    remote: Option<&RemoteState>,
) -> Result<(), StoreError> {
    let (tx, types) = (applier.tx, applier.types);
    let Some(entity_type) = types.get(entity.entity_type.as_str()) else {
        return Ok(());
    };
    spend(applier, entry)?;
    if remote.is_some_and(|remote| remote.fields.is_some()) {
        // The server has it after all (I3).
        held::release(tx, entity)?;
    }
    if entry.op == Operation::Create && reason == ConflictReason::Exists {
        let theirs = remote.and_then(|remote| remote.fields.as_ref());
        match rekey::taken(applier, entry, entity, theirs)? {
            Taken::Rekeyed => return Ok(()),
            Taken::Conflict => {}
            Taken::Stuck(why) => {
                let error = MutationError::new("id-taken", why);
                outbox::fail(tx, entry, &error, applier.now)?;
                tell_failed(applier, entry, entity, &error);
                return apply_waiting(applier, entity);
            }
        }
    }
    let waiting = inbox::waiting(tx, entity)?;
    let newest = newest(waiting.as_ref(), remote);
    if held::hold_missing(applier, entity, reason, remote)? || hold_back(applier, entity, newest)? {
        return Ok(());
    }
    inbox::unpark(tx, entity)?;
    if !make_room(applier, entity_type, entry, entity, newest)? {
        return Ok(());
    }
    let cause = ConflictCause::Push(reason);
    let reconciled = match applier.reconcile(entity_type, entity, newest, &cause) {
        Err(StoreError::Captured(error @ CapturedError::Unsyncable { .. })) => {
            Reconciled::NoPlace(row::Written::Refused(error.to_string()))
        }
        reconciled => reconciled?,
    };
    match (&reconciled, newest) {
        (Reconciled::Waits, _) | (_, None) => {}
        // The feed may bring the parent yet.
        (Reconciled::NoPlace(row::Written::NoParent(parent)), Some(state)) => {
            let waits_for = WaitsFor::Parent;
            inbox::park_answered(tx, entity, state, waits_for, parent, applier.now)?;
            if entry.origin_client.is_some() {
                ask_later(applier, entry)?;
            }
        }
        (_, Some(state)) => {
            let gone = state.fields.is_none();
            state::set_known(tx, entity, &state.version, state.position, gone)?;
        }
    }
    if let (Reconciled::NoPlace(written), Some(state)) = (&reconciled, newest) {
        violation::open_pushed(applier, entity_type, entity, state, written)?;
    }
    Ok(())
}

/// What is known of the server's state: as the answer says, unless something newer waits.
fn newest<'r>(
    waiting: Option<&'r Waiting>,
    answered: Option<&'r RemoteState>,
) -> Option<&'r RemoteState> {
    match (waiting, answered) {
        (Some(waiting), Some(answered)) if waiting.remote.position > answered.position => {
            Some(&waiting.remote)
        }
        (Some(waiting), None) => Some(&waiting.remote),
        _ => answered,
    }
}

/// What another copy of the file may have sent is asked again, and the answer finds no place before the parent is there.
fn ask_later(applier: &Applier<'_>, entry: &Entry) -> Result<(), StoreError> {
    let not_before = applier.times.due_ms.saturating_add(60_000);
    applier
        .tx
        .prepare_cached("UPDATE syncline_outbox SET not_before = ?2 WHERE seq = ?1")?
        .execute(params![entry.seq, not_before])?;
    Ok(())
}

/// A row that was created here under the id since is another one than the server's. Where it cannot
/// have an id of its own yet, the server's state waits (`false`).
fn make_room(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entry: &Entry,
    entity: &EntityRef,
    remote: Option<&RemoteState>,
) -> Result<bool, StoreError> {
    let Some((remote, fields)) = remote.and_then(|remote| Some((remote, remote.fields.as_ref()?)))
    else {
        return Ok(true);
    };
    if entry.op == Operation::Create {
        // What follows for it is decided where the id was found taken.
        return Ok(true);
    }
    let room = rekey::make_room(applier, entity_type, entity, Some(fields))?;
    let (waits_for, detail) = match room {
        Room::NotNeeded | Room::Made => return Ok(true),
        Room::Refused(why) => (WaitsFor::Constraint, why),
        Room::Waits(parent) => (WaitsFor::Parent, parent.to_string()),
    };
    inbox::park_answered(applier.tx, entity, remote, waits_for, &detail, applier.now)?;
    Ok(false)
}
