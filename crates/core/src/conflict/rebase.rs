//! Rewrites the pending mutations of an entity on a new base.
//!
//! ```text
//!        base ──m1──m2──m3──▶ local
//!         │                     │ resolver
//!     remote change             ▼
//!         └──────▶ remote ─m1'─m3'─▶ row      m2 became empty: superseded
//! ```

use super::PendingMutation;
use super::number::Number;
use crate::Intent;
use std::collections::BTreeMap;
use syncline_protocol::{Fields, Operation, Value};

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
    rebase_with(pending, row, remote, |_| false)
}

/// The same, where some fields are added up: each mutation keeps what it adds to one, since a copy of the file
/// may have it without the later ones.
pub(super) fn rebase_with(
    pending: &[PendingMutation],
    row: Option<&Fields>,
    remote: Option<&Fields>,
    adds_up: impl Fn(&str) -> bool,
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
            let mut rest = distribute(pending, &mut each, &left.fields, adds_up);
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

/// Gives each field of the patch to the last mutation that writes it, and of a sum to the earlier ones what
/// it was after them; what nobody writes is left.
fn distribute(
    pending: &[PendingMutation],
    each: &mut [Rewrite],
    patch: &Fields,
    adds_up: impl Fn(&str) -> bool,
) -> Fields {
    let mut rest = patch.clone();
    let mut sums = BTreeMap::new();
    for (one, slot) in pending.iter().zip(each).rev() {
        let mut fields = Fields::new();
        for (name, value) in &one.fields {
            if let Some(last) = rest.remove(name) {
                if adds_up(name) {
                    sums.insert(name.as_str(), (value, last.clone()));
                }
                fields.insert(name.clone(), last);
            } else if let Some((before, last)) = sums.get(name.as_str())
                && let Some(sum) = moved(value, before, last)
            {
                fields.insert(name.clone(), sum);
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

/// A number that is as far from `last` as `value` was from `before`; `None`: there is none.
pub fn moved(value: &Value, before: &Value, last: &Value) -> Option<Value> {
    let number = |value| Number::of(Some(value));
    let way = number(last)?.minus(number(before)?);
    number(value)?.plus(way).into_value()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(value: i64) -> Fields {
        [("stock", value)].into_iter().collect()
    }

    /// One adds 3, the next 2, and elsewhere 10 came to it.
    #[test]
    fn each_keeps_what_it_adds_to_a_sum() {
        let pending = [3, 5].map(|value| PendingMutation {
            mutation: value.to_string(),
            op: Operation::Update,
            fields: stock(value),
        });
        let (row, remote) = (stock(15), stock(10));
        let update = |value| {
            Rewrite::Write(Intent {
                op: Operation::Update,
                fields: stock(value),
            })
        };
        let summed = rebase_with(&pending, Some(&row), Some(&remote), |name| name == "stock");
        assert_eq!(summed.each, [update(13), update(15)]);
        let plain = rebase(&pending, Some(&row), Some(&remote));
        assert_eq!(plain.each, [Rewrite::Supersede, update(15)]);
    }
}
