//! What an answer to a push says of one entity's mutations, taken in their order (O1). An honest server says nothing
//! that is out of order of what one file alone has sent; another copy of the file, under the same keys, can be further.
//!
//! Decides about verdicts only: never books, and never looks at the store.

use crate::verdict::KEY_REUSED;
use crate::{Counted, MutationError, Verdict};
use syncline_protocol::IdempotencyKey;

/// What an answer says of an entity's mutations, up to one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum SoFar {
    /// All of them took effect, or were refused for good.
    #[default]
    Decided,
    /// The one with this key had no effect and is sent anew.
    Anew(IdempotencyKey),
    /// Another copy of the file used this key: what came of that is asked.
    Reused(IdempotencyKey),
    /// One of them has no result.
    Untold,
}

impl SoFar {
    pub(super) fn after(told: bool, key: &IdempotencyKey, verdict: &Verdict) -> Self {
        match verdict {
            _ if !told => Self::Untold,
            Verdict::Failed(error) if error.code == KEY_REUSED => Self::Reused(key.clone()),
            Verdict::Conflict { .. } | Verdict::Skipped { .. } | Verdict::Later { .. } => {
                Self::Anew(key.clone())
            }
            _ => Self::Decided,
        }
    }
}

/// An entity's mutations are settled in their order (O1). What another copy of the file has done of the later ones,
/// where one before them is still open, is taken note of after that one.
pub(super) fn in_order(so_far: &SoFar, verdict: Verdict) -> Verdict {
    match (so_far, &verdict) {
        (SoFar::Decided, _) => verdict,
        (SoFar::Untold, _)
        | (SoFar::Reused(_), Verdict::Applied { .. })
        | (
            SoFar::Anew(_),
            Verdict::Applied {
                duplicate: true, ..
            },
        ) => asked_again(),
        (SoFar::Reused(because), Verdict::Conflict { .. }) => Verdict::Skipped {
            because: because.clone(),
        },
        (SoFar::Anew(because) | SoFar::Reused(because), Verdict::Failed(error))
            if error.code == KEY_REUSED =>
        {
            Verdict::Skipped {
                because: because.clone(),
            }
        }
        _ => verdict,
    }
}

/// It is asked for again together with the one before it.
fn asked_again() -> Verdict {
    Verdict::Later {
        after_ms: 0,
        counted: Counted::No,
        error: MutationError::new(
            "no-result",
            "the server's answer does not settle one before it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_protocol::{ConflictReason, ServerVersion};

    fn applied(duplicate: bool) -> Verdict {
        Verdict::Applied {
            version: ServerVersion::new("3"),
            position: 3,
            fields: None,
            id: None,
            duplicate,
            unsent: false,
        }
    }

    fn conflict() -> Verdict {
        Verdict::Conflict {
            reason: ConflictReason::Stale,
            remote: None,
            replayed: true,
        }
    }

    fn reused() -> Verdict {
        Verdict::Failed(MutationError::new(KEY_REUSED, "a copy used it"))
    }

    #[test]
    fn what_a_copy_has_done_of_the_later_ones_waits_for_the_earlier_one() {
        let key = IdempotencyKey::new("k1");
        let skipped = Verdict::Skipped {
            because: key.clone(),
        };
        let after = |told, verdict: &Verdict| SoFar::after(told, &key, verdict);
        let decided = after(true, &applied(false));
        let anew = after(true, &conflict());
        let taken = after(true, &reused());
        let untold = after(false, &applied(false));
        for (so_far, verdict, expected) in [
            (&decided, applied(true), applied(true)),
            (&decided, reused(), reused()),
            (&anew, applied(true), asked_again()),
            (&anew, applied(false), applied(false)),
            (&anew, conflict(), conflict()),
            (&anew, reused(), skipped.clone()),
            (&taken, applied(false), asked_again()),
            (&taken, conflict(), skipped.clone()),
            (&taken, reused(), skipped.clone()),
            (&taken, skipped.clone(), skipped.clone()),
            (&untold, conflict(), asked_again()),
        ] {
            let told = in_order(so_far, verdict.clone());
            assert_eq!(told, expected, "{verdict:?} after {so_far:?}");
        }
    }
}
