//! What follows a mutation that had no effect and never will have one under its key: it was not done
//! either (O1), and does not count as sent any more.
//!
//! Never decides about the mutation itself.

use crate::apply::Applier;
use crate::copies;
use crate::error::StoreError;
use crate::journal;
use crate::outbox::{self, Entry, EntryState};
use crate::remedy;
use std::collections::BTreeSet;
use syncline_core::{Booking, Verdict};

/// An entry that was skipped because of one that will never be applied has not been and will not
/// be executed either, whatever request still carries it: it does not count as sent any more. This
/// comes before the other one is resolved, since that may rewrite this one (E5).
pub(super) fn unfreeze_skipped(
    applier: &mut Applier<'_>,
    bookings: &[Booking],
) -> Result<(), StoreError> {
    let mut spent = BTreeSet::new();
    for booking in bookings {
        let finally_not = matches!(
            booking.verdict,
            Verdict::Conflict { .. }
                | Verdict::Failed(_)
                | Verdict::Cancelled
                | Verdict::OtherHistory(_)
        );
        if finally_not && let Some(entry) = outbox::get(applier.tx, booking.seq)? {
            spent.extend(entry.key);
        }
    }
    for booking in bookings {
        if let Verdict::Skipped { because } = &booking.verdict
            && spent.contains(because.as_str())
        {
            if let Some(entry) = outbox::get(applier.tx, booking.seq)? {
                journal::forget_agreed(applier.tx, &entry)?;
                unfreeze(applier, &entry, entry.state)?;
            }
            // What follows it may have been sent with it before, and had no effect either.
            if let Some(entry) = outbox::get(applier.tx, booking.seq)? {
                refused(applier, &entry)?;
                remedy::give_up_unsent(applier, entry.seq)?;
            }
        }
    }
    Ok(())
}

/// The final answer of this key is "no effect": nothing of the entry counts as sent any more. What follows
/// comes first, so that what is given up of it is gone before anything is decided about the entry.
pub(super) fn spend(applier: &mut Applier<'_>, entry: &Entry) -> Result<(), StoreError> {
    refused(applier, entry)?;
    copies::spend(applier, entry)?;
    journal::forget_agreed(applier.tx, entry)
}

/// A mutation had no effect and never will have one under its key: neither had what follows it, whoever
/// may have sent that (O1). It is sent anew, on another base, and what another copy of the file has as
/// well under the same key as there (I2). What was to be cancelled is given up: there is no key to cancel.
pub(super) fn refused(applier: &mut Applier<'_>, entry: &Entry) -> Result<(), StoreError> {
    let names = (entry.entity_type.as_str(), entry.entity_id.as_str());
    let mut unwanted = Vec::new();
    for later in outbox::of_entity(applier.tx, names.0, names.1)? {
        let open = matches!(later.state, EntryState::Pending | EntryState::InFlight);
        if later.seq > entry.seq && open {
            unfreeze(applier, &later, EntryState::Pending)?;
            unwanted.extend(later.cancel.then_some(later.seq));
        }
    }
    for seq in unwanted {
        remedy::give_up_unsent(applier, seq)?;
    }
    Ok(())
}

/// What is to be cancelled goes as a whole, with the edits that became part of it.
fn unfreeze(applier: &mut Applier<'_>, entry: &Entry, state: EntryState) -> Result<(), StoreError> {
    match entry.cancel {
        true => outbox::unfreeze(applier.tx, entry, state),
        false => copies::unfreeze(applier, entry, state),
    }
}
