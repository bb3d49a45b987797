//! What becomes of each outbox entry after an answer, or after the lack of one.

use crate::{Config, Dice, backoff_ms, retry_after_ms};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use syncline_protocol::{
    ConflictReason, EntityId, FieldError, Fields, IdempotencyKey, Outcome, PushResult, RemoteState,
    ServerVersion,
};

/// The code of a refusal: the key was used for something else.
pub const KEY_REUSED: &str = "key-reused";

/// What became of one entry; booked together with everything that follows from it (A3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It took effect.
    Applied {
        /// The entity's version now.
        version: ServerVersion,
        /// The entity's position in its feed now.
        position: i64,
        /// The whole entity, where the server made more of it than was sent.
        fields: Option<Fields>,
        /// The entity's id, where the server chose another than the one that was sent.
        id: Option<EntityId>,
        /// The server had already recorded it: an earlier answer was lost.
        duplicate: bool,
        /// It was recorded before this file had ever sent it: a copy of the file did, or the file itself before
        /// an older state was put back, and perhaps as a part of something else.
        #[serde(skip_serializing_if = "crate::trace::is_default")]
        unsent: bool,
    },
    /// Its base did not hold; the resolver decides.
    Conflict {
        /// What about the base.
        reason: ConflictReason,
        /// The server's state.
        remote: Option<RemoteState>,
        /// The server said so before: that is how it was then.
        #[serde(skip_serializing_if = "crate::trace::is_default")]
        replayed: bool,
    },
    /// The server's final no.
    Failed(MutationError),
    /// Again later, the same bytes under the same key.
    Later {
        /// Not before so many milliseconds have passed.
        after_ms: u64,
        /// Whether the failure counts against the mutation.
        counted: Counted,
        /// What happened.
        error: MutationError,
    },
    /// Not tried, because another mutation of the batch that it follows, or of its group, did not
    /// go through.
    Skipped {
        /// The key of that other mutation.
        because: IdempotencyKey,
    },
    /// A server whose history is another one than the mutation was made on said no: nothing
    /// happened, and it is to be sent anew, under another key, once that history is known.
    OtherHistory(MutationError),
    /// It was cancelled in time and never takes effect.
    Cancelled,
    /// Given up after too many attributable failures.
    Dead(MutationError),
}

impl Verdict {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Applied { .. } => "applied",
            Verdict::Conflict { .. } => "conflict",
            Verdict::Failed(_) => "failed",
            Verdict::Later { .. } => "later",
            Verdict::Skipped { .. } => "skipped",
            Verdict::OtherHistory(_) => "other-history",
            Verdict::Cancelled => "cancelled",
            Verdict::Dead(_) => "dead",
        }
    }
}

/// Whether a failure is the mutation's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// It is: the server said so of this mutation, or it failed alone while others went through.
    Yes,
    /// It is not known to be.
    No,
}

/// Why a mutation is not through: a remediation record for the person who has to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MutationError {
    /// A stable word.
    pub code: String,
    /// What happened, for people.
    pub detail: String,
    /// Field by field, where the server said so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl MutationError {
    /// An error without field details.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }
}

/// Judges an entry with so many attributable failures by the result that the server gave for its key; `None`: it gave none.
pub fn judge(
    attempts: u32,
    result: Option<PushResult>,
    config: &Config,
    dice: &mut Dice,
) -> Verdict {
    let Some(result) = result else {
        let error = MutationError::new("no-result", "the server's answer has no result for it");
        return count_failure(attempts, error, None, config, dice);
    };
    match result.outcome {
        Outcome::Applied {
            version,
            position,
            fields,
            id,
        } => Verdict::Applied {
            version,
            position,
            fields,
            id,
            duplicate: result.duplicate,
            unsent: false,
        },
        Outcome::Conflict { reason, remote } => Verdict::Conflict {
            reason,
            remote,
            replayed: result.duplicate,
        },
        Outcome::Rejected {
            code,
            detail,
            errors,
        } => Verdict::Failed(MutationError {
            code,
            detail,
            errors,
        }),
        Outcome::Forbidden { detail } => Verdict::Failed(MutationError::new("forbidden", detail)),
        Outcome::Retry {
            detail,
            retry_after_ms,
        } => {
            let asked = retry_after_ms
                .and_then(|ms| u64::try_from(ms).ok())
                .map(Duration::from_millis);
            count_failure(
                attempts,
                MutationError::new("retry", detail),
                asked,
                config,
                dice,
            )
        }
        Outcome::Skipped { because } => Verdict::Skipped { because },
        Outcome::Cancelled => Verdict::Cancelled,
        Outcome::Expired => Verdict::Failed(MutationError::new(
            "expired",
            "the server has forgotten whether it took effect; compare the row with the server's, then retry or discard",
        )),
    }
}

impl Verdict {
    /// The verdict when the answer comes from another history than the mutation was made on: what
    /// had no effect is not decided by that. What took effect is asked again once that history is known: its position
    /// is none of this one's, and an id that was chosen there may be another row's here.
    #[must_use]
    pub(crate) fn of_other_history(self) -> Self {
        let error = |why| MutationError::new("epoch-changed", why);
        match self {
            // A copy of the file that knows that history has used the key there, whatever this one knows.
            Verdict::Failed(error) if error.code == KEY_REUSED => Verdict::Failed(error),
            Verdict::Conflict { .. } | Verdict::Failed(_) => {
                let why = "the server's history is another one; it is sent anew";
                Verdict::OtherHistory(error(why))
            }
            Verdict::Applied { .. } => Verdict::Later {
                after_ms: 0,
                counted: Counted::No,
                error: error("the server's history is another one; it is asked again"),
            },
            other => other,
        }
    }
}

/// One more failure that is the mutation's own: later, or dead after too many.
pub fn count_failure(
    attempts: u32,
    error: MutationError,
    asked: Option<Duration>,
    config: &Config,
    dice: &mut Dice,
) -> Verdict {
    let attempts = attempts.saturating_add(1);
    if attempts >= config.max_attempts {
        return Verdict::Dead(error);
    }
    let delay = match asked {
        Some(asked) => retry_after_ms(asked, dice),
        None => backoff_ms(config, attempts, dice),
    };
    Verdict::Later {
        after_ms: delay,
        counted: Counted::Yes,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a mutation with so many failures of its own, as one word and whether it counts.
    fn word(attempts: u32, outcome: Option<Outcome>) -> &'static str {
        let result = outcome.map(|outcome| PushResult {
            key: IdempotencyKey::new("k"),
            outcome,
            duplicate: false,
        });
        match judge(attempts, result, &Config::default(), &mut Dice::seeded(1)) {
            Verdict::Applied { .. } => "applied",
            Verdict::Conflict { .. } => "conflict",
            Verdict::Failed(_) => "failed",
            Verdict::OtherHistory(_) => "other-history",
            Verdict::Skipped { .. } => "skipped",
            Verdict::Cancelled => "cancelled",
            Verdict::Dead(_) => "dead",
            Verdict::Later {
                counted: Counted::No,
                ..
            } => "later",
            Verdict::Later { after_ms, .. } => {
                assert!(after_ms > 0, "a counted failure is put off");
                "counted"
            }
        }
    }

    #[test]
    fn every_outcome_has_its_verdict() {
        let applied = Outcome::Applied {
            version: ServerVersion::new("1"),
            position: 1,
            fields: None,
            id: None,
        };
        let rejected = Outcome::Rejected {
            code: "validation".to_owned(),
            detail: String::new(),
            errors: Vec::new(),
        };
        let forbidden = Outcome::Forbidden {
            detail: String::new(),
        };
        let retry = Outcome::Retry {
            detail: String::new(),
            retry_after_ms: None,
        };
        let skipped = Outcome::Skipped {
            because: IdempotencyKey::new("other"),
        };
        for reason in [
            ConflictReason::Stale,
            ConflictReason::Exists,
            ConflictReason::Deleted,
            ConflictReason::Missing,
        ] {
            let conflict = Outcome::Conflict {
                reason,
                remote: None,
            };
            assert_eq!(word(7, Some(conflict)), "conflict");
        }
        assert_eq!(word(7, Some(applied)), "applied");
        assert_eq!(word(0, Some(rejected)), "failed");
        assert_eq!(word(0, Some(forbidden)), "failed");
        assert_eq!(word(0, Some(Outcome::Expired)), "failed");
        assert_eq!(word(0, Some(Outcome::Cancelled)), "cancelled");
        assert_eq!(word(7, Some(skipped)), "skipped");
        assert_eq!(word(6, Some(retry.clone())), "counted");
        assert_eq!(word(7, Some(retry)), "dead", "the eighth of its own");
        assert_eq!(word(0, None), "counted", "no result for it in an answer");
    }
}
