//! An effect in a few words, to stand beside its hash: kinds and numbers, never a value.

use crate::{
    Booking, Counted, CycleEnd, Effect, Notice, RemoteError, RemoteRequest, StoreWork, Verdict,
};
use std::collections::BTreeMap;

/// The effect in a few words.
pub fn summary(effect: &Effect) -> String {
    match effect {
        Effect::Store(work) => format!("store {}", of_work(work)),
        Effect::Remote(id, request) => format!("ask#{} {}", id.0, of_request(request)),
        Effect::RefreshCredentials => "refresh credentials".to_owned(),
        Effect::Notice(notice) => format!("tell {}", of_notice(notice)),
    }
}

fn of_work(work: &StoreWork) -> String {
    match work {
        StoreWork::Acquire => "acquire".to_owned(),
        StoreWork::Renew => "renew".to_owned(),
        StoreWork::Greet(_) => "greet".to_owned(),
        StoreWork::Claim(limits) => {
            let urgent = if limits.urgent_only { " urgent" } else { "" };
            let order = if limits.in_order { " in-order" } else { "" };
            let (most, alone) = (limits.mutations, limits.alone.len());
            format!("claim {most}{urgent}{order} alone={alone}")
        }
        StoreWork::Targets { most, .. } => format!("targets {most}"),
        StoreWork::Meet {
            wanted, fetched, ..
        } => format!("meet {} of {}", fetched.changes.len(), wanted.ids.len()),
        StoreWork::NoteRegistered => "note-registered".to_owned(),
        StoreWork::Remint => "remint".to_owned(),
        StoreWork::Book { bookings, token: _ } => format!("book {}", of_bookings(bookings)),
        StoreWork::ReadCursor(_) => "read-cursor".to_owned(),
        StoreWork::ApplyPage { page, from, .. } => {
            let from = if from.is_none() { " first" } else { "" };
            let head = if page.end.at_head { " at-head" } else { "" };
            format!("apply-page {}{from}{head}", page.changes.len())
        }
        StoreWork::ForgetCursor(_) => "forget-cursor".to_owned(),
        StoreWork::Survey => "survey".to_owned(),
    }
}

fn of_bookings(bookings: &[Booking]) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for booking in bookings {
        *counts.entry(of_verdict(&booking.verdict)).or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(word, n)| format!("{word}={n}"))
        .collect();
    match counts.is_empty() {
        true => "nothing".to_owned(),
        false => counts.join(" "),
    }
}

fn of_verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Applied { .. } => "applied",
        Verdict::Conflict { .. } => "conflict",
        Verdict::Failed(_) => "failed",
        Verdict::Later {
            counted: Counted::Yes,
            ..
        } => "later-counted",
        Verdict::Later { .. } => "later",
        Verdict::Skipped { .. } => "skipped",
        Verdict::OtherHistory(_) => "other-history",
        Verdict::Cancelled => "cancelled",
        Verdict::Dead(_) => "dead",
    }
}

fn of_request(request: &RemoteRequest) -> String {
    match request {
        RemoteRequest::Hello { .. } => "hello".to_owned(),
        RemoteRequest::Push { batch, .. } => format!("push {}", batch.entries.len()),
        RemoteRequest::Cancel { .. } => "cancel".to_owned(),
        RemoteRequest::Register { types, .. } => format!("register {}", types.types.len()),
        RemoteRequest::Fetch { wanted, .. } => format!("fetch {}", wanted.ids.len()),
        RemoteRequest::Pull { cursor, limit, .. } => match cursor {
            Some(_) => format!("pull {limit}"),
            None => format!("pull {limit} first"),
        },
    }
}

fn of_error(error: &RemoteError) -> String {
    match error {
        RemoteError::Unreachable { .. } => "unreachable".to_owned(),
        RemoteError::Transient { status, .. } => format!("transient {status}"),
        RemoteError::Auth { .. } => "auth".to_owned(),
        RemoteError::Forked { .. } => "forked".to_owned(),
        RemoteError::TooLarge { .. } => "too-large".to_owned(),
        RemoteError::CursorGone { .. } => "cursor-gone".to_owned(),
        RemoteError::Incompatible { .. } => "incompatible".to_owned(),
        RemoteError::Misconfigured { status, .. } => format!("misconfigured {status}"),
    }
}

fn of_end(end: &CycleEnd) -> String {
    match end {
        CycleEnd::Complete => "complete".to_owned(),
        CycleEnd::RemoteFailed(error) => format!("remote-failed {}", of_error(error)),
        CycleEnd::CredentialsNeeded => "credentials-needed".to_owned(),
        CycleEnd::StoreFailed(fault) => format!("store-failed {:?}", fault.kind),
        CycleEnd::Standby => "standby".to_owned(),
        CycleEnd::Paused => "paused".to_owned(),
        CycleEnd::RoundsUsedUp => "rounds-used-up".to_owned(),
        CycleEnd::BudgetUsedUp => "budget-used-up".to_owned(),
    }
}

fn of_notice(notice: &Notice) -> String {
    match notice {
        Notice::StateChanged { from, to } => format!("state {from} -> {to}"),
        Notice::CycleStarted { reasons } => format!("cycle-started {reasons:?}"),
        Notice::CycleEnded(end) => format!("cycle-ended {}", of_end(end)),
        Notice::Pushed {
            applied,
            duplicates,
        } => format!("pushed {applied} duplicates={duplicates}"),
        Notice::Pulled {
            upserts,
            deletes,
            merged,
            parked,
        } => format!("pulled +{upserts} -{deletes} merged={merged} parked={parked}"),
        Notice::CheckpointSplit { changes } => format!("checkpoint-split {changes}"),
        Notice::OrphansMended {
            deleted, changed, ..
        } => format!("orphans-mended deleted={deleted} changed={changed}"),
        Notice::DeletionUndone { .. } => "deletion-undone".to_owned(),
        Notice::MutationFailed { .. } => "mutation-failed".to_owned(),
        Notice::MutationDead { .. } => "mutation-dead".to_owned(),
        Notice::CancelledTooLate { .. } => "cancelled-too-late".to_owned(),
        Notice::ConflictResolved { .. } => "conflict-resolved".to_owned(),
        Notice::ConflictOpened { .. } => "conflict-opened".to_owned(),
        Notice::ResolverDisabled { .. } => "resolver-disabled".to_owned(),
        Notice::IdChanged { .. } => "id-changed".to_owned(),
        Notice::BackingOff { delay_ms, error } => {
            format!("backing-off {delay_ms}ms {}", of_error(error))
        }
        Notice::CredentialsNeeded { .. } => "credentials-needed".to_owned(),
        Notice::OtherAccount { .. } => "other-account".to_owned(),
        Notice::EpochChanged => "epoch-changed".to_owned(),
        Notice::IdentityChanged => "identity-changed".to_owned(),
        Notice::SweepHeld { rows, .. } => format!("sweep-held {rows}"),
        Notice::Recovered { rows, .. } => format!("recovered {rows}"),
        Notice::RecoveryHeld { rows, .. } => format!("recovery-held {rows}"),
        Notice::TypeUnsyncable { .. } => "type-unsyncable".to_owned(),
        Notice::StoreTrouble(fault) => format!("store-trouble {:?}", fault.kind),
        Notice::Standby => "standby".to_owned(),
    }
}
