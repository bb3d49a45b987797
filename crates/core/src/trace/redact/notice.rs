//! What is hidden of notices: the ids of rows, the names of people, and texts for people.

use super::{Redact, Redactor};
use crate::{CycleEnd, Notice};

impl Redact for CycleEnd {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            CycleEnd::RemoteFailed(error) => CycleEnd::RemoteFailed(error.redacted(by)),
            CycleEnd::StoreFailed(fault) => CycleEnd::StoreFailed(fault.redacted(by)),
            CycleEnd::Complete
            | CycleEnd::CredentialsNeeded
            | CycleEnd::Standby
            | CycleEnd::Paused
            | CycleEnd::RoundsUsedUp
            | CycleEnd::BudgetUsedUp => self.clone(),
        }
    }
}

impl Redact for Notice {
    fn redacted(&self, by: &Redactor) -> Self {
        let mut notice = self.clone();
        match &mut notice {
            Notice::CycleEnded(end) => *end = end.redacted(by),
            Notice::OrphansMended {
                parent: entity,
                deleted: _,
                changed: _,
            }
            | Notice::DeletionUndone { entity }
            | Notice::CancelledTooLate { entity, .. } => *entity = entity.redacted(by),
            Notice::MutationFailed { entity, error, .. } => {
                *entity = entity.as_ref().map(|entity| entity.redacted(by));
                *error = error.redacted(by);
            }
            Notice::MutationDead {
                mutation: _,
                entity,
                error,
            } => {
                *entity = entity.redacted(by);
                *error = error.redacted(by);
            }
            Notice::ConflictResolved { entity, rule } => {
                *entity = entity.redacted(by);
                *rule = by.text(rule);
            }
            Notice::ConflictOpened { entity, reason } => {
                *entity = entity.redacted(by);
                *reason = by.detail(reason);
            }
            Notice::ResolverDisabled {
                entity_type: _,
                resolver,
                deadline_ms: _,
            } => *resolver = by.text(resolver),
            Notice::IdChanged {
                entity_type: _,
                old,
                new,
            } => {
                *old = old.redacted(by);
                *new = new.redacted(by);
            }
            Notice::BackingOff { delay_ms: _, error } => *error = error.redacted(by),
            Notice::CredentialsNeeded { detail } => *detail = by.detail(detail),
            Notice::OtherAccount { recorded, offered } => {
                *recorded = recorded.redacted(by);
                *offered = offered.redacted(by);
            }
            Notice::StoreTrouble(fault) => *fault = fault.redacted(by),
            // Numbers, and names of tables.
            Notice::StateChanged { .. }
            | Notice::CycleStarted { .. }
            | Notice::Pushed { .. }
            | Notice::Pulled { .. }
            | Notice::CheckpointSplit { .. }
            | Notice::EpochChanged
            | Notice::IdentityChanged
            | Notice::SweepHeld { .. }
            | Notice::Recovered { .. }
            | Notice::RecoveryHeld { .. }
            | Notice::TypeUnsyncable { .. }
            | Notice::Standby => {}
        }
        notice
    }
}
