//! Natural keys and invariants: what declared rules say of whole rows.

use super::rules::{Bound, ConflictRules, Invariant};
use syncline_protocol::{Fields, Value};

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

/// An exact integer, or a REAL once one of the parts is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Integer(i128),
    Real(f64),
}

impl Number {
    fn of(value: Option<&Value>) -> Option<Self> {
        match value {
            None | Some(Value::Null) => Some(Number::Integer(0)),
            Some(Value::Integer(integer)) => Some(Number::Integer(i128::from(*integer))),
            Some(Value::Real(real)) => Some(Number::Real(*real)),
            Some(_) => None,
        }
    }

    fn real(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "compared with a REAL")]
            Number::Integer(integer) => integer as f64,
            Number::Real(real) => real,
        }
    }

    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => Number::Integer(a.saturating_add(b)),
            (a, b) => Number::Real(a.real() + b.real()),
        }
    }

    fn at_most(self, other: Self) -> bool {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => a <= b,
            (a, b) => a.real() <= b.real(),
        }
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
