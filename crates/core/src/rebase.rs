//! What follows from a conflict: the row, what is still to be pushed, and what to remember.
//!
//! ```text
//!        base ──local mutations──▶ local
//!         │                          │ resolver
//!     remote change                  ▼
//!         └────────▶ remote ──patch──▶ row        the patch is the one mutation that remains
//! ```

use crate::{ConflictInput, Resolution, Resolver};
use syncline_protocol::{Fields, Operation};

/// The outcome of a conflict, ready to be written in one transaction. The new base is always the
/// remote state, so it is not repeated here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Decided without a person.
    Settled(Rebased),
    /// The entity waits for a person.
    Manual {
        /// Why.
        reason: String,
    },
}

/// A decided conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebased {
    /// What the local row becomes; `None`: it goes.
    pub row: Option<Fields>,
    /// What is still to be pushed on top of the remote state.
    pub mutation: Option<Rewritten>,
    /// The rule that decided.
    pub rule: String,
    /// A value of one side did not survive, so both sides' values are to be kept in a record.
    pub lossy: Loss,
}

/// The one mutation that replaces all unsettled ones of the entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// What it does.
    pub op: Operation,
    /// Its fields; none for a delete.
    pub fields: Fields,
}

/// Whether a decision dropped a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Every changed value is still there.
    Nothing,
    /// A changed value of one side gave way.
    Values,
}

/// Asks the resolver and works out what follows. Total: every input gives a decision.
///
/// Two different creates of one id are never merged by a policy, since they need not be the same
/// thing: they wait for a person. A panic of a resolver is not caught here.
pub fn decide(resolver: &dyn Resolver, input: &ConflictInput<'_>) -> Decision {
    if let (None, Some(local), Some(remote)) = (input.base, input.local, input.remote) {
        return decide_created_twice(local, remote);
    }
    if input.local == input.remote {
        return Decision::Settled(Rebased {
            row: input.remote.cloned(),
            mutation: None,
            rule: "equal".to_owned(),
            lossy: Loss::Nothing,
        });
    }
    let row = match resolver.resolve(input) {
        Resolution::Manual { reason } => return Decision::Manual { reason },
        Resolution::ServerWins => input.remote.cloned(),
        Resolution::ClientWins => input.local.cloned(),
        Resolution::Merged(fields) => Some(fields),
    };
    Decision::Settled(Rebased {
        mutation: remaining(row.as_ref(), input.remote),
        lossy: loss(row.as_ref(), input),
        rule: resolver.name().to_owned(),
        row,
    })
}

fn decide_created_twice(local: &Fields, remote: &Fields) -> Decision {
    let same = local
        .iter()
        .all(|(name, value)| remote.get(name) == Some(value));
    if same {
        return Decision::Settled(Rebased {
            row: Some(remote.clone()),
            mutation: None,
            rule: "equal".to_owned(),
            lossy: Loss::Nothing,
        });
    }
    Decision::Manual {
        reason: "created here and on the server under the same id with different values".to_owned(),
    }
}

/// The mutation that leads from the remote state to the row.
fn remaining(row: Option<&Fields>, remote: Option<&Fields>) -> Option<Rewritten> {
    match (row, remote) {
        (None, None) => None,
        (None, Some(_)) => Some(Rewritten {
            op: Operation::Delete,
            fields: Fields::new(),
        }),
        (Some(row), None) => Some(Rewritten {
            op: Operation::Create,
            fields: row.clone(),
        }),
        (Some(row), Some(remote)) => {
            let patch = changed(remote, row);
            (!patch.is_empty()).then_some(Rewritten {
                op: Operation::Update,
                fields: patch,
            })
        }
    }
}

/// The fields of `to` that are not the same in `from`.
pub fn changed(from: &Fields, to: &Fields) -> Fields {
    to.iter()
        .filter(|(name, value)| from.get(name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Did a side that changed a value (or deleted) not get its way?
fn loss(row: Option<&Fields>, input: &ConflictInput<'_>) -> Loss {
    let gave_way = |side: Option<&Fields>| match (input.base, side, row) {
        (_, None, None) => false,
        (None, None, Some(_)) => false,
        (Some(_), None, Some(_)) => true,
        (Some(base), Some(side), None) => !changed(base, side).is_empty(),
        (None, Some(_), None) => true,
        (base, Some(side), Some(row)) => {
            let empty = Fields::new();
            let edits = changed(base.unwrap_or(&empty), side);
            edits
                .iter()
                .any(|(name, value)| row.get(name) != Some(value))
        }
    };
    if gave_way(input.local) || gave_way(input.remote) {
        Loss::Values
    } else {
        Loss::Nothing
    }
}

#[cfg(test)]
mod tests;
