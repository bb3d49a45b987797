//! What keeps the machine from going on, in one word and a sentence. Told, never decided by.

use super::wait::{Backoff, WakeReason};
use super::{Machine, State};
use crate::RemoteError;
use serde::{Deserialize, Serialize};
use syncline_protocol::Principal;

/// Why nothing is asked of the world now, although there may be work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// In one word.
    pub because: BlockedBecause,
    /// For people.
    pub detail: String,
    /// Until when at most, in monotonic milliseconds; `None`: until somebody does something.
    pub until_ms: Option<u64>,
}

/// What the machine can be blocked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BlockedBecause {
    /// Everything left to do waits for a person to decide a conflict.
    Conflict,
    /// Credentials are missing or were refused.
    Credentials,
    /// The credentials are those of another account than the file's.
    OtherAccount,
    /// A request failed, or the server asked for patience.
    BackOff,
    /// The server cannot be reached.
    Offline,
    /// Another process is the engine of the file.
    Lease,
    /// The file cannot be used now.
    Database,
    /// The host wants rest.
    Paused,
    /// The network is to be used sparingly: what is not urgent waits.
    Constraints,
}

impl BlockedBecause {
    /// The word for it in status and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Credentials => "credentials",
            Self::OtherAccount => "other_account",
            Self::BackOff => "back_off",
            Self::Offline => "offline",
            Self::Lease => "lease",
            Self::Database => "database",
            Self::Paused => "paused",
            Self::Constraints => "constraints",
        }
    }
}

/// Why credentials did not do, as it was said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refused {
    Credentials(String),
    Account {
        recorded: Principal,
        offered: Option<Principal>,
    },
}

impl Machine {
    /// What keeps the machine from going on, if anything does.
    pub fn blocked(&self) -> Option<Blocked> {
        let blocked = |because, detail: String, until_ms| {
            Some(Blocked {
                because,
                detail,
                until_ms,
            })
        };
        match self.state {
            State::Connecting | State::Pushing | State::Pulling | State::Stopped => None,
            State::Paused => {
                let detail = "the host paused the engine".to_owned();
                blocked(BlockedBecause::Paused, detail, None)
            }
            State::BlockedAuth => {
                let (because, detail) = self.refusal();
                blocked(because, detail, None)
            }
            State::Backoff => {
                let backoff = self.waiting.backing_off()?;
                let (because, detail) = backing_off(backoff);
                blocked(because, detail, Some(backoff.until))
            }
            State::BlockedConflict => {
                let detail = "everything left to do waits for open conflicts to be decided";
                blocked(BlockedBecause::Conflict, detail.to_owned(), None)
            }
            State::Idle if self.constraints.any() => {
                let detail = match (self.constraints.metered, self.constraints.low_power) {
                    (true, true) => "the network is metered and power is low",
                    (true, false) => "the network is metered",
                    (false, _) => "power is low",
                };
                let detail = format!("{detail}: only urgent mutations are sent");
                blocked(BlockedBecause::Constraints, detail, None)
            }
            State::Idle => None,
        }
    }

    /// When the machine goes on by itself (monotonic milliseconds), and why. As
    /// [`next_wakeup`](Self::next_wakeup), but that renewing the lease does not count.
    pub fn goes_on(&self) -> Option<(u64, WakeReason)> {
        self.deadlines()
            .into_iter()
            .flatten()
            .filter(|(_, reason)| *reason != WakeReason::Lease)
            .min()
    }

    fn refusal(&self) -> (BlockedBecause, String) {
        match &self.refused {
            Some(Refused::Account { recorded, offered }) => {
                let whose = format!("{}/{}", recorded.tenant, recorded.subject);
                let detail = match offered {
                    Some(offered) => format!(
                        "the database belongs to {whose}, the credentials to {}/{}",
                        offered.tenant, offered.subject
                    ),
                    None => format!("the database belongs to {whose}"),
                };
                (BlockedBecause::OtherAccount, detail)
            }
            Some(Refused::Credentials(detail)) => (BlockedBecause::Credentials, detail.clone()),
            None => {
                let detail = "new credentials are being fetched".to_owned();
                (BlockedBecause::Credentials, detail)
            }
        }
    }
}

fn backing_off(backoff: &Backoff) -> (BlockedBecause, String) {
    let Some(error) = &backoff.error else {
        let detail = "another process is the engine of this database".to_owned();
        return (BlockedBecause::Lease, detail);
    };
    match error {
        // What the store said of itself.
        RemoteError::Unreachable { detail } if backoff.fault => {
            (BlockedBecause::Database, detail.clone())
        }
        RemoteError::Unreachable { .. } => (BlockedBecause::Offline, error.to_string()),
        _ => (BlockedBecause::BackOff, error.to_string()),
    }
}
