//! Rewrites the pending mutations of an entity on a new base.
//!
//! ```text
//!        base ──m1──m2──m3──▶ local
//!         │                     │ resolver
//!     remote change             ▼
//!         └──────▶ remote ─m1'─m3'─▶ row      m2 became empty: superseded
//! ```

use super::PendingMutation;
use crate::Intent;
use syncline_protocol::{Fields, Operation};

/// What becomes of one pending mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// It does this now.
    Write(Intent),
    /// Nothing of it is left to be pushed.
    Supersede,
}

/// What becomes of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebased {
    /// One for each pending mutation, in their order.
    pub each: Vec<Rewrite>,
    /// What is to be pushed and belongs to none of them, since there is none.
    pub new: Option<Intent>,
}

/// Rewrites `pending` so that, on top of the remote state, it leads to the row. Each keeps of its
/// own fields what still differs from the remote state; a field that several write goes with the last
/// of them, and what none of them writes goes with the last mutation.
pub fn rebase(
    pending: &[PendingMutation],
    row: Option<&Fields>,
    remote: Option<&Fields>,
) -> Rebased {
    let mut each = vec![Rewrite::Supersede; pending.len()];
    let Some(left) = remaining(row, remote) else {
        return Rebased { each, new: None };
    };
    let (at, left) = match left.op {
        Operation::Create => {
            // What was made last under this id is what is there.
            let made = pending.iter().rposition(|one| one.op == Operation::Create);
            (made.unwrap_or(0), left)
        }
        Operation::Delete => (pending.len().saturating_sub(1), left),
        Operation::Update => {
            let mut rest = distribute(pending, &mut each, &left.fields);
            if rest.is_empty() {
                return Rebased { each, new: None };
            }
            let last = pending.len().saturating_sub(1);
            if let Some(Rewrite::Write(own)) = each.get(last) {
                rest.patch(&own.fields);
            }
            (
                last,
                Intent {
                    fields: rest,
                    ..left
                },
            )
        }
    };
    match each.get_mut(at) {
        Some(slot) => {
            *slot = Rewrite::Write(left);
            Rebased { each, new: None }
        }
        None => Rebased {
            each,
            new: Some(left),
        },
    }
}

/// Gives each field of the patch to the last mutation that writes it; what nobody writes is left.
fn distribute(pending: &[PendingMutation], each: &mut [Rewrite], patch: &Fields) -> Fields {
    let mut rest = patch.clone();
    for (one, slot) in pending.iter().zip(each).rev() {
        let mut fields = Fields::new();
        for name in one.fields.names() {
            if let Some(value) = rest.remove(name) {
                fields.insert(name, value);
            }
        }
        if !fields.is_empty() {
            *slot = Rewrite::Write(Intent {
                op: Operation::Update,
                fields,
            });
        }
    }
    rest
}

/// The mutation that leads from the remote state to the row.
fn remaining(row: Option<&Fields>, remote: Option<&Fields>) -> Option<Intent> {
    match (row, remote) {
        (None, None) => None,
        (None, Some(_)) => Some(Intent {
            op: Operation::Delete,
            fields: Fields::new(),
        }),
        (Some(row), None) => Some(Intent {
            op: Operation::Create,
            fields: row.clone(),
        }),
        (Some(row), Some(remote)) => {
            let fields = changed(remote, row);
            (!fields.is_empty()).then_some(Intent {
                op: Operation::Update,
                fields,
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
