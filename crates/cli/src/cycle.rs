//! How a sync ended, in one word that can be told to another process, and why.

use serde::{Deserialize, Serialize};
use syncline::{CycleEnd, Notice, RemoteError, SyncEnd};

/// The word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// Everything that could be done was done.
    Complete,
    /// Credentials are needed.
    CredentialsNeeded,
    /// The remote did not answer.
    Unreachable,
    /// The remote answered that it cannot now, for as long as we were patient.
    Transient,
    /// The remote refuses this client as a whole.
    Refused,
    /// The database could not be read or written.
    StoreFailed,
    /// Another process is the engine of the file and did not say how its sync ended.
    Standby,
    /// The budget ended first.
    Unfinished,
    /// A signal ended it.
    Interrupted,
}

/// The word and the reason, which is empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) detail: String,
}

impl Ended {
    pub(crate) fn new(end: End, detail: impl Into<String>) -> Self {
        Self {
            end,
            detail: detail.into(),
        }
    }

    fn of_remote(error: &RemoteError) -> Self {
        let end = match error {
            RemoteError::Unreachable { .. } => End::Unreachable,
            RemoteError::Auth { .. } => End::CredentialsNeeded,
            RemoteError::Incompatible { .. } | RemoteError::Misconfigured { .. } => End::Refused,
            _ => End::Transient,
        };
        Self::new(end, error.to_string())
    }
}

/// What the notices of a sync add up to.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Tally {
    /// Mutations that took effect on the server.
    pub(crate) pushed: u64,
    /// Of those, ones that the server had recorded before.
    pub(crate) duplicates: u64,
    /// Rows written here.
    pub(crate) pulled: u64,
    /// Rows removed here.
    pub(crate) deleted: u64,
    /// Changes merged with local mutations, and conflicts decided by rule.
    pub(crate) merged: u64,
    /// The server's history is another one: everything was compared anew.
    pub(crate) epoch_changed: bool,
    /// Types that cannot be synced, with the reason.
    pub(crate) unsyncable: Vec<Unsyncable>,
    #[serde(skip)]
    heard_from_remote: bool,
    #[serde(skip)]
    credentials: String,
    #[serde(skip)]
    trouble: Option<Ended>,
}

/// What that means for the app.
pub(crate) const UNSYNCABLE: &str =
    "as long as that is so, what is written there is not recorded, and what comes of it waits";

/// A type that cannot be synced now.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Unsyncable {
    pub(crate) entity_type: String,
    pub(crate) reason: String,
}

impl Tally {
    /// Counts a notice.
    pub(crate) fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Pushed {
                applied,
                duplicates,
            } => {
                self.heard_from_remote = true;
                self.pushed += applied;
                self.duplicates += duplicates;
            }
            Notice::Pulled {
                upserts,
                deletes,
                merged,
                ..
            } => {
                self.heard_from_remote = true;
                self.pulled += upserts;
                self.deleted += deletes;
                self.merged += merged;
            }
            Notice::ConflictResolved { .. } => self.merged += 1,
            Notice::EpochChanged => self.epoch_changed = true,
            Notice::TypeUnsyncable {
                entity_type,
                reason,
            } => self.unsyncable.push(Unsyncable {
                entity_type: entity_type.clone(),
                reason: reason.clone(),
            }),
            Notice::CredentialsNeeded { detail } => self.credentials = detail.clone(),
            Notice::OtherAccount { recorded, offered } => {
                self.credentials = other_account(recorded, offered);
            }
            Notice::BackingOff { error, .. } => self.trouble = Some(Ended::of_remote(error)),
            _ => {}
        }
    }

    /// How it ended, all told.
    pub(crate) fn ended(&self, end: &SyncEnd) -> Ended {
        match end {
            SyncEnd::Cycle(CycleEnd::Complete) => Ended::new(End::Complete, ""),
            SyncEnd::Cycle(CycleEnd::RemoteFailed(error)) => Ended::of_remote(error),
            SyncEnd::Cycle(CycleEnd::CredentialsNeeded) => {
                Ended::new(End::CredentialsNeeded, self.credentials.clone())
            }
            SyncEnd::Cycle(CycleEnd::StoreFailed(fault)) => {
                Ended::new(End::StoreFailed, fault.to_string())
            }
            SyncEnd::Cycle(CycleEnd::Standby) => {
                Ended::new(End::Standby, "another process is syncing this database")
            }
            SyncEnd::Cycle(CycleEnd::BudgetUsedUp) => {
                Ended::new(End::Unfinished, "the budget is used up")
            }
            SyncEnd::Cycle(CycleEnd::Paused) => Ended::new(End::Unfinished, "syncing is paused"),
            SyncEnd::Cycle(_) => {
                Ended::new(End::Unfinished, "there is more work than one sync does")
            }
            SyncEnd::TimedOut => self.timed_out(),
        }
    }

    /// The budget ended. A remote from which nothing was heard all the time counts as unreachable.
    fn timed_out(&self) -> Ended {
        match &self.trouble {
            _ if !self.credentials.is_empty() => {
                Ended::new(End::CredentialsNeeded, self.credentials.clone())
            }
            Some(trouble) => trouble.clone(),
            None if self.heard_from_remote => Ended::new(End::Unfinished, "the budget ended"),
            None => Ended::new(
                End::Unreachable,
                "the server did not answer before the budget ended",
            ),
        }
    }
}

/// Says whose the file is and whom the token names.
pub(crate) fn other_account(
    recorded: &syncline::protocol::Principal,
    offered: &syncline::protocol::Principal,
) -> String {
    format!(
        "the database belongs to {} of tenant {}, the token to {} of tenant {}",
        recorded.subject, recorded.tenant, offered.subject, offered.tenant
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_ends_in_silence_means_unreachable() {
        let mut tally = Tally::default();
        assert_eq!(tally.ended(&SyncEnd::TimedOut).end, End::Unreachable);
        tally.take(&Notice::Pushed {
            applied: 1,
            duplicates: 0,
        });
        assert_eq!(tally.ended(&SyncEnd::TimedOut).end, End::Unfinished);
        tally.take(&Notice::BackingOff {
            delay_ms: 1,
            error: RemoteError::TooLarge {
                detail: String::new(),
            },
        });
        assert_eq!(tally.ended(&SyncEnd::TimedOut).end, End::Transient);
    }

    #[test]
    fn an_end_survives_the_way_to_another_process() {
        let ended = Ended::new(End::CredentialsNeeded, "expired");
        let text = serde_json::to_string(&ended).unwrap();
        assert_eq!(serde_json::from_str::<Ended>(&text).unwrap(), ended);
    }
}
