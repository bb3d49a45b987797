//! Push, second half: writing down what became of a batch, with everything that follows (A3).

mod conflict;
mod refused;

use crate::apply::{Applier, after_mutation};
use crate::captured;
use crate::conflict::natural;
use crate::copies;
use crate::error::{StoreError, to_json};
use crate::held;
use crate::journal::{self, Confirmed};
use crate::meta;
use crate::outbox::{self, Entry};
use crate::progress;
use crate::rekey::{self, Answer, Assigned};
use crate::remedy;
use crate::retry::{
    Occasion, apply_newer, apply_waiting, hold_answer, retry_waiting, wait_for_head,
};
use crate::row;
use crate::state;
use crate::store::RegisteredType;
use crate::sweep;
use crate::unknown;
use conflict::book_conflict;
use refused::{refused, spend, unfreeze_skipped};
use rusqlite::params;
use syncline_core::{
    BookSummary, Booking, Counted, EntityRef, KEY_REUSED, MutationError, Notice, PageSummary,
    Verdict,
};
use syncline_protocol::{
    ConflictReason, EntityId, Fields, IdempotencyKey, Operation, RemoteState, ServerVersion,
};

/// Books a whole batch.
pub(crate) fn book(
    applier: &mut Applier<'_>,
    bookings: &[Booking],
) -> Result<BookSummary, StoreError> {
    let mut summary = BookSummary::default();
    unfreeze_skipped(applier, bookings)?;
    let is_elsewhere = (bookings.iter()).any(|one| matches!(one.verdict, Verdict::OtherHistory(_)));
    let mut sent = 0;
    for booking in bookings {
        // An entry that is not there any more was booked before: nothing to do twice.
        if let Some(entry) = outbox::get(applier.tx, booking.seq)? {
            if matches!(booking.verdict, Verdict::Applied { .. }) {
                sent += entry.frozen.as_ref().map_or(0, String::len) as u64;
            }
            book_one(
                applier,
                &entry,
                (&booking.verdict, is_elsewhere),
                &mut summary,
            )?;
        }
    }
    let mut pulled = PageSummary::default();
    retry_waiting(applier, Occasion::Changed, &mut pulled)?;
    if summary.applied > 0 {
        meta::set(applier.tx, meta::key::LAST_PUSH_AT, applier.now.unix_ms)?;
        progress::pushed(applier.tx, summary.applied, sent)?;
    }
    summary.notices.append(&mut applier.notices);
    Ok(summary)
}

/// `is_elsewhere`: a server of another history gave the answer.
fn book_one(
    applier: &mut Applier<'_>,
    entry: &Entry,
    (verdict, is_elsewhere): (&Verdict, bool),
    summary: &mut BookSummary,
) -> Result<(), StoreError> {
    let Ok(entity) = entry.entity() else {
        return Ok(());
    };
    if entry.cancel && book_cancel(applier, entry, &entity, verdict)? {
        return Ok(());
    }
    match verdict {
        Verdict::Applied {
            version,
            position,
            fields,
            id,
            duplicate,
            unsent,
        } => {
            summary.applied += 1;
            summary.duplicates += u64::from(*duplicate);
            let applied = Applied {
                version,
                position: *position,
                fields: fields.as_ref(),
                id: id.as_ref().filter(|id| **id != entity.id),
                duplicate: *duplicate,
                // Asked for by its key alone, nobody compares what it says here.
                unsent: *unsent || entry.cancel || applier.on_copies.contains(&entity),
            };
            book_applied(applier, entry, &entity, &applied)
        }
        Verdict::Conflict { reason, remote, .. } => {
            let answer = (verdict, *reason, remote.as_ref());
            book_conflict_unless_outdated(applier, entry, &entity, answer)
        }
        Verdict::Skipped { because } => {
            skip(applier, entry, because)?;
            // Nothing of it counts as sent any more, perhaps: then nothing waits for its answer.
            match is_elsewhere {
                true => wait_for_head(applier, &entity),
                false => apply_waiting(applier, &entity),
            }
        }
        Verdict::Cancelled => {
            let error = MutationError::new("cancelled", "it was cancelled and never takes effect");
            book_failed(applier, entry, &entity, &error)
        }
        Verdict::Failed(error) if error.code == KEY_REUSED => {
            inherit(applier, entry, &entity, error)
        }
        Verdict::Failed(error) => book_failed(applier, entry, &entity, error),
        Verdict::OtherHistory(error) => {
            send_anew(applier, entry, error)?;
            wait_for_head(applier, &entity)
        }
        Verdict::Later {
            after_ms,
            counted,
            error,
        } => {
            let not_before = applier.times.due_ms.saturating_add_unsigned(*after_ms);
            release(applier, entry, not_before, *counted, error)
        }
        Verdict::Dead(error) => book_dead(applier, entry, entity, error),
    }
}

/// A conflict, which decides nothing where it is with an earlier state than is known here.
fn book_conflict_unless_outdated(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    (verdict, reason, remote): (&Verdict, ConflictReason, Option<&RemoteState>),
) -> Result<(), StoreError> {
    if copies::is_outdated(applier, entity, verdict)? {
        spend(applier, entry)?;
        return apply_waiting(applier, entity);
    }
    book_conflict(applier, entry, entity, reason, remote)
}

fn book_dead(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: EntityRef,
    error: &MutationError,
) -> Result<(), StoreError> {
    let detail = to_json(error);
    applier
        .tx
        .prepare_cached(
            "UPDATE syncline_outbox SET state = 'dead', attempts = attempts + 1, cancel = 0, last_error = ?2,
                    lease_token = NULL, lease_until = NULL WHERE seq = ?1",
        )?
        .execute(params![entry.seq, detail])?;
    outbox::log(applier.tx, entry, "dead", &detail, applier.now)?;
    let (mutation, error) = (entry.mutation.clone(), error.clone());
    applier.notices.push(Notice::MutationDead {
        mutation,
        entity,
        error,
    });
    Ok(())
}

fn skip(applier: &Applier<'_>, entry: &Entry, because: &IdempotencyKey) -> Result<(), StoreError> {
    let detail = format!("it goes with {because}, which did not go through");
    let error = MutationError::new("skipped", detail);
    release(applier, entry, applier.times.due_ms, Counted::No, &error)
}

fn book_failed(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    error: &MutationError,
) -> Result<(), StoreError> {
    if is_certain(entry, error) {
        refused(applier, entry)?;
    }
    if error.code == "too-large" {
        // No key of the request was looked at.
        outbox::unfreeze(applier.tx, entry, entry.state)?;
    }
    outbox::fail(applier.tx, entry, error, applier.now)?;
    if natural::join_refused(applier, entry, entity, error)? {
        return Ok(());
    }
    tell_failed(applier, entry, entity, error);
    apply_waiting(applier, entity)
}

/// Whether a failure says that the key had no effect. Too large is only what this file never sent before.
fn is_certain(entry: &Entry, error: &MutationError) -> bool {
    match error.code.as_str() {
        "expired" => false,
        "too-large" => entry.origin_client.is_none(),
        _ => true,
    }
}

/// A copy of the file has used the key for something else: what was sent here behind it had no effect.
fn inherit(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    error: &MutationError,
) -> Result<(), StoreError> {
    refused(applier, entry)?;
    match copies::inherit(applier, entry)? {
        true => Ok(()),
        false => book_failed(applier, entry, entity, error),
    }
}

/// An entry that was to be cancelled: given up if it had no effect, which is all that there is to
/// book then (`true`).
fn book_cancel(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    verdict: &Verdict,
) -> Result<bool, StoreError> {
    match verdict {
        // What a copy has done under the key is asked with the cancellation.
        Verdict::Failed(error) if error.code == KEY_REUSED => {
            release(applier, entry, applier.times.due_ms, Counted::No, error)?;
            return Ok(true);
        }
        Verdict::Cancelled | Verdict::Failed(_) => {
            let error = MutationError::new("cancelled", "it was cancelled in time");
            if !matches!(verdict, Verdict::Failed(why) if !is_certain(entry, why)) {
                refused(applier, entry)?;
            }
            outbox::fail(applier.tx, entry, &error, applier.now)?;
        }
        Verdict::Conflict { reason, remote, .. } => {
            let answer = (verdict, *reason, remote.as_ref());
            book_conflict_unless_outdated(applier, entry, entity, answer)?;
        }
        Verdict::Applied { .. } => {
            applier.notices.push(Notice::CancelledTooLate {
                mutation: entry.mutation.clone(),
                entity: entity.clone(),
            });
            return Ok(false);
        }
        Verdict::Later { .. }
        | Verdict::OtherHistory(_)
        | Verdict::Skipped { .. }
        | Verdict::Dead(_) => return Ok(false),
    }
    if outbox::get(applier.tx, entry.seq)?.is_some() {
        remedy::cancelled(applier, entry.seq)?;
    }
    Ok(true)
}

fn tell_failed(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    error: &MutationError,
) {
    applier.notices.push(Notice::MutationFailed {
        mutation: entry.mutation.clone(),
        entity: Some(entity.clone()),
        error: error.clone(),
    });
}

fn release(
    applier: &Applier<'_>,
    entry: &Entry,
    not_before: i64,
    counted: Counted,
    error: &MutationError,
) -> Result<(), StoreError> {
    applier
        .tx
        .prepare_cached(
            "UPDATE syncline_outbox SET state = 'pending', not_before = ?2, attempts = attempts + ?3,
                    last_error = ?4, lease_token = NULL, lease_until = NULL WHERE seq = ?1",
        )?
        .execute(params![entry.seq, not_before, counted == Counted::Yes, to_json(error)])?;
    Ok(())
}

/// Its key is spent, without effect.
fn send_anew(
    applier: &mut Applier<'_>,
    entry: &Entry,
    error: &MutationError,
) -> Result<(), StoreError> {
    release(applier, entry, applier.times.due_ms, Counted::No, error)?;
    spend(applier, entry)
}

struct Applied<'a> {
    version: &'a ServerVersion,
    position: i64,
    fields: Option<&'a Fields>,
    /// The id that the server chose, where it is another one.
    id: Option<&'a EntityId>,
    duplicate: bool,
    /// This file had not sent it before, or not before it knew what came of it.
    unsent: bool,
}

impl<'a> Applied<'a> {
    fn confirmed(&self) -> Confirmed<'a> {
        Confirmed {
            version: self.version,
            position: self.position,
            fields: self.fields,
            duplicate: self.duplicate,
        }
    }
}

fn book_applied(
    applier: &mut Applier<'_>,
    entry: &Entry,
    sent_as: &EntityRef,
    applied: &Applied<'_>,
) -> Result<(), StoreError> {
    let payload = captured::fields_of_mutation(applier.tx, entry.seq)?;
    let assigned = match applied.id {
        None => Assigned::same(sent_as),
        Some(id) => {
            let answer = Answer {
                id,
                version: applied.version,
                position: applied.position,
                fields: applied.fields.or(payload.as_ref()),
            };
            rekey::assigned(applier, entry, sent_as, &answer)?
        }
    };
    let entity = &assigned.entity;
    let (tx, names) = (
        applier.tx,
        (entity.entity_type.as_str(), entity.id.as_str()),
    );
    let detail = serde_json::json!({
        "version": applied.version, "position": applied.position, "duplicate": applied.duplicate,
    });
    let entry = &Entry {
        entity_id: names.1.to_owned(),
        ..entry.clone()
    };
    let unsent = applied.unsent || was_known(applier, entry, entity, applied)?;
    let applied = &Applied { unsent, ..*applied };
    let of_another_copy = is_of_another_copy(entry, applied);
    let in_base = of_another_copy && copies::settles(applier, entity, applied.position)?;
    held::answered(tx, entity, entry.op, applied.position)?;
    let base = captured::base_of(tx, names.0, names.1)?;
    journal::note(tx, entry, payload.as_ref(), &base, applier.times)?;
    outbox::settle(tx, entry, "applied", &detail, applier.now)?;
    let offered_again = entry.is_offered_again() && !assigned.met;
    let confirmed = applied.confirmed();
    let mut held_back = false;
    if offered_again {
        journal::book(applier, entry, entity, &confirmed, payload)?;
    } else if !assigned.met && in_base && !copies::is_about_no_base(tx, entity)? {
        copies::take_back(applier, entity, payload.as_ref())?;
    } else if !assigned.met {
        // Of another copy's work, what waits already is not what this was done on.
        held_back = (entry.command.is_some() || !of_another_copy)
            && hold_answer(applier, entry, entity, &confirmed, payload.as_ref())?;
        let fields = applied.fields.filter(|_| !held_back);
        let shown = Applied { fields, ..*applied };
        book_row(applier, entry, entity, (&shown, held_back), payload)?;
    } else if outbox::of_entity(tx, names.0, names.1)?.is_empty() {
        captured::delete_base(tx, names.0, names.1)?;
    }
    if entity != sent_as {
        // What waited for this answer under the old id is about another row.
        apply_waiting(applier, sent_as)?;
    }
    if offered_again {
        // What waits now is what it made.
        return Ok(());
    }
    // Of another copy's work, what waits for it is what the server made of it; so is what is held back.
    let reflected = applied.position - i64::from(of_another_copy || held_back);
    apply_newer(applier, entity, reflected)
}

/// Whether the state below an edit has it already, which was pulled before this file sent it: a copy did it.
fn was_known(
    applier: &Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    applied: &Applied<'_>,
) -> Result<bool, StoreError> {
    let edited_before = applied.duplicate && entry.op == Operation::Update;
    Ok(edited_before && copies::is_below(applier, entity, applied.position)?)
}

/// Whether the answer is about what a copy of this file has sent before it, or an earlier state of it.
fn is_of_another_copy(entry: &Entry, applied: &Applied<'_>) -> bool {
    applied.unsent || applied.duplicate && entry.origin_client.is_some()
}

/// The row is as the server has it now, with what was edited since laid over; or, where the answer is held
/// back, stays as it is.
fn book_row(
    applier: &Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    (applied, held_back): (&Applied<'_>, bool),
    payload: Option<Fields>,
) -> Result<(), StoreError> {
    let (tx, names) = (
        applier.tx,
        (entity.entity_type.as_str(), entity.id.as_str()),
    );
    // What another copy of this file sent under the key need not be what this one has: the feed
    // brings what the server made of it, and until then no more is known than before.
    if is_of_another_copy(entry, applied) {
        if entry.op != Operation::Delete {
            sweep::mark_pushed(tx, entity, applied.position)?;
        }
    } else if !held_back {
        state::set_known(
            tx,
            entity,
            applied.version,
            applied.position,
            entry.op == Operation::Delete,
        )?;
    }
    let rest = outbox::of_entity(tx, names.0, names.1)?;
    if rest.is_empty() {
        captured::delete_base(tx, names.0, names.1)?;
    } else {
        // An edit made while this one was in flight survives, on the new base (E4).
        let base = captured::base_of(tx, names.0, names.1)?.into_fields();
        let after = applied
            .fields
            .cloned()
            .or_else(|| after_mutation(base, entry.op, payload));
        captured::write_base(tx, names.0, names.1, after.as_ref())?;
    }
    let entity_type = applier.types.get(names.0);
    if !held_back {
        unknown::after_push(tx, entity_type, entity, entry.op, applied.fields)?;
    }
    if let (Some(fields), Some(entity_type)) = (applied.fields, entity_type) {
        write_server_fields(applier, entity_type, entity, fields, &rest)?;
    }
    Ok(())
}

/// What the server made of the entity is written back, but never over what was edited since.
fn write_server_fields(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    fields: &Fields,
    rest: &[Entry],
) -> Result<(), StoreError> {
    let mut wanted = fields.clone();
    for entry in rest {
        if entry.op == Operation::Delete {
            return Ok(());
        }
        let newer = captured::fields_of_mutation(applier.tx, entry.seq)?.unwrap_or_default();
        newer.names().for_each(|name| {
            wanted.remove(name);
        });
    }
    if row::set(applier.tx, &entity_type.table, &entity.id, &wanted)? != row::Written::Done {
        // Not reflected, then: the feed brings it again, and it waits in the inbox with its reason.
        state::forget_known(applier.tx, entity)?;
    }
    Ok(())
}
