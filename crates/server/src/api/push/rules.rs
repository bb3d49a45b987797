//! Preconditions: what a mutation asks of the state of its entity, and what comes out of it.
//!
//! Pure: the entity as it is and the verdict on the base come in, a decision goes out.
//!
//! | | nothing there | alive | tombstone |
//! |---|---|---|---|
//! | create | apply | conflict `exists` | base holds: apply; else conflict `deleted` |
//! | update | conflict `missing` | base holds: apply; else conflict `stale` | conflict `deleted` |
//! | delete | conflict `missing` | base holds: apply; else conflict `stale` | applied, as it is gone |

use super::parse::Incoming;
use super::validate;
use crate::declared::Declared;
use syncline_protocol::{ConflictReason, Fields, IdempotencyKey, Operation, Outcome};

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
#[derive(Debug)]
pub(super) enum Decision {
    /// Give the entity these fields, or make it a tombstone.
    Apply(Option<Fields>),
    /// It is done already: answer with the place of what is there.
    Done(Place),
    /// Answer with what is there.
    Conflict(ConflictReason),
    /// Answer this; it does not depend on where things end up.
    Answer(Outcome),
}

pub(super) fn decide(
    incoming: &Incoming,
    current: Option<&Current>,
    hold: Hold,
    declared: &Declared,
) -> Decision {
    if let Hold::Skip { because } = hold {
        return Decision::Answer(Outcome::Skipped { because });
    }
    let holds = hold == Hold::Yes;
    let alive = current.map(|current| (current, current.fields.as_ref()));
    match (incoming.op, alive) {
        (Operation::Create, None) => Decision::Apply(Some(incoming.fields.clone())),
        (Operation::Create, Some((_, Some(_)))) => Decision::Conflict(ConflictReason::Exists),
        (Operation::Create, Some((_, None))) if holds => {
            Decision::Apply(Some(incoming.fields.clone()))
        }
        (Operation::Create, Some((_, None))) => Decision::Conflict(ConflictReason::Deleted),

        (Operation::Update | Operation::Delete, None) => {
            Decision::Conflict(ConflictReason::Missing)
        }
        (Operation::Update | Operation::Delete, Some((_, Some(_)))) if !holds => {
            Decision::Conflict(ConflictReason::Stale)
        }
        (Operation::Update, Some((_, Some(fields)))) => update(incoming, fields, declared),
        (Operation::Update, Some((_, None))) => Decision::Conflict(ConflictReason::Deleted),
        (Operation::Delete, Some((_, Some(_)))) => Decision::Apply(None),
        (Operation::Delete, Some((gone, None))) => Decision::Done(gone.place),
    }
}

/// The schema judges the entity as it would be, which is known only now that the base holds.
fn update(incoming: &Incoming, fields: &Fields, declared: &Declared) -> Decision {
    let mut merged = fields.clone();
    merged.patch(&incoming.fields);
    let violations = declared.violations(&incoming.entity_type, &merged);
    match validate::invalid(violations) {
        Some(rejection) => Decision::Answer(rejection),
        None => Decision::Apply(Some(merged)),
    }
}
