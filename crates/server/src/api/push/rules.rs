//! Preconditions: what a mutation asks of the state of its entity, and what comes out of it.
//!
//! Pure: the entity as it is and the verdict on the base come in, a decision goes out.
//!
//! | | nothing there | alive | tombstone |
//! |---|---|---|---|
//! | create | apply | conflict `exists` | base holds: apply; else conflict `deleted` |
//! | update | conflict `missing` | base holds, or a command without one: apply; else conflict `stale` | conflict `deleted` |
//! | delete | conflict `missing` | base holds: apply; else conflict `stale` | applied, as it is gone |

use super::parse::Incoming;
use syncline_protocol::{ConflictReason, Fields, IdempotencyKey, Operation};

/// An entity as the batch sees it: as stored, or as an earlier mutation of the batch leaves it.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) place: Place,
    /// None: a tombstone.
    pub(super) fields: Option<Fields>,
}

/// Where version and position of a [`Current`] are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// As stored.
    Stored { version: i64, seq: i64 },
    /// Those that the effect of this mutation of the batch will get.
    Planned(usize),
}

/// Whether a mutation's base is the current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// There is none.
    NoBase,
    /// The mutation it rests on was not applied.
    Skip { because: IdempotencyKey },
}

/// What is to be done about a mutation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Give the entity the fields that follow from the mutation.
    Write,
    /// Make it a tombstone.
    Bury,
    /// It is done already: answer with the place of what is there.
    Done(Place),
    /// Answer with what is there.
    Conflict(ConflictReason),
    /// Not tried.
    Skip { because: IdempotencyKey },
}

pub(super) fn decide(incoming: &Incoming, current: Option<&Current>, hold: Hold) -> Decision {
    let holds = match hold {
        Hold::Skip { because } => return Decision::Skip { because },
        Hold::Yes => true,
        Hold::No => false,
        // A command is applied to whatever is there.
        Hold::NoBase => incoming.op == Operation::Update && incoming.command.is_some(),
    };
    let alive = current.map(|current| (current.place, current.fields.is_some()));
    match (incoming.op, alive) {
        (Operation::Create, None) => Decision::Write,
        (Operation::Create, Some((_, true))) => Decision::Conflict(ConflictReason::Exists),
        (Operation::Create, Some((_, false))) if holds => Decision::Write,
        (Operation::Create, Some((_, false))) => Decision::Conflict(ConflictReason::Deleted),

        (Operation::Update | Operation::Delete, None) => {
            Decision::Conflict(ConflictReason::Missing)
        }
        (Operation::Update | Operation::Delete, Some((_, true))) if !holds => {
            Decision::Conflict(ConflictReason::Stale)
        }
        (Operation::Update, Some((_, true))) => Decision::Write,
        (Operation::Update, Some((_, false))) => Decision::Conflict(ConflictReason::Deleted),
        (Operation::Delete, Some((_, true))) => Decision::Bury,
        (Operation::Delete, Some((gone, false))) => Decision::Done(gone),
    }
}
