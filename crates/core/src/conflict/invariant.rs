//! Natural keys and invariants: what declared rules say of whole rows.

use super::number::Number;
use super::rules::{Bound, ConflictRules, Invariant};
use syncline_protocol::Fields;

impl ConflictRules {
    /// Whether two rows are the same thing by the declared natural key. NULL equals nothing.
    pub fn same_natural_key(&self, one: &Fields, other: &Fields) -> bool {
        !self.natural_key.is_empty()
            && self.natural_key.iter().all(|name| {
                let value = one.get(name).filter(|value| !value.is_null());
                value.is_some() && value == other.get(name)
            })
    }

    /// Whether a row satisfies every declared invariant; else what it breaks.
    pub fn check_invariants(&self, row: &Fields) -> Result<(), String> {
        self.invariants.iter().try_for_each(|one| one.check(row))
    }
}

impl Invariant {
    fn check(&self, row: &Fields) -> Result<(), String> {
        let broken = |why: &str| Err(format!("{}: {why}", self.name));
        let mut sum = Number::Integer(0);
        for name in &self.sum {
            match Number::of(row.get(name)) {
                Some(number) => sum = sum.plus(number),
                None => return broken(&format!("{name} is no number")),
            }
        }
        let fields = self.sum.join(" + ");
        for (bound, least) in [(&self.min, true), (&self.max, false)] {
            let Some(bound) = bound else { continue };
            let (end, of) = match bound {
                Bound::Number(value) => (Number::of(Some(value)), String::new()),
                Bound::Field(name) => (Number::of(row.get(name)), format!(" of {name}")),
            };
            let Some(end) = end else {
                return broken(&format!("the bound{of} is no number"));
            };
            let holds = if least {
                end.at_most(sum)
            } else {
                sum.at_most(end)
            };
            if !holds {
                let side = if least { "below" } else { "above" };
                return broken(&format!("{fields} is {side} the bound{of}"));
            }
        }
        Ok(())
    }
}
