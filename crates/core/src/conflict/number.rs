//! Numbers of fields: integers exact, REAL once a part is REAL, compared by value.

use std::cmp::Ordering;
use syncline_protocol::Value;

/// An exact integer, or a REAL once one of the parts is. Never NaN when it comes from a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Integer(i128),
    Real(f64),
}

impl Number {
    /// The number in a field; NULL and absent count as 0.
    pub(super) fn of(value: Option<&Value>) -> Option<Self> {
        match value {
            None | Some(Value::Null) => Some(Number::Integer(0)),
            Some(Value::Integer(integer)) => Some(Number::Integer(i128::from(*integer))),
            Some(Value::Real(real)) if !real.is_nan() => Some(Number::Real(*real)),
            Some(_) => None,
        }
    }

    fn real(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "added to a REAL")]
            Number::Integer(integer) => integer as f64,
            Number::Real(real) => real,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => Number::Integer(a.saturating_add(b)),
            (a, b) => Number::Real(a.real() + b.real()),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => Number::Integer(a.saturating_sub(b)),
            (a, b) => Number::Real(a.real() - b.real()),
        }
    }

    /// By value, exact also between an integer and a REAL.
    pub(super) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => a.cmp(&b),
            (Number::Real(a), Number::Real(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Number::Integer(a), Number::Real(b)) => integer_with_real(a, b),
            (Number::Real(a), Number::Integer(b)) => integer_with_real(b, a).reverse(),
        }
    }

    pub(super) fn at_most(self, other: Self) -> bool {
        self.compare(other) != Ordering::Greater
    }

    /// As a value of a field, if there is one for it: 64 bits, a finite REAL.
    pub(super) fn into_value(self) -> Option<Value> {
        match self {
            Number::Integer(integer) => i64::try_from(integer).ok().map(Value::Integer),
            Number::Real(real) => real.is_finite().then_some(Value::Real(real)),
        }
    }
}

fn integer_with_real(integer: i128, real: f64) -> Ordering {
    const BEYOND: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0; // 2^127
    if real >= BEYOND {
        return Ordering::Less;
    }
    if real < -BEYOND {
        return Ordering::Greater;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cut on purpose, and in range"
    )]
    let whole = real.trunc() as i128;
    let fraction = 0.0_f64.partial_cmp(&real.fract());
    integer
        .cmp(&whole)
        .then(fraction.unwrap_or(Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_reals_compare_without_rounding() {
        let big = (1i128 << 53) + 1;
        for (integer, real, expected) in [
            (big, 9_007_199_254_740_992.0, Ordering::Greater),
            (1, 1.0, Ordering::Equal),
            (1, 1.5, Ordering::Less),
            (-1, -1.5, Ordering::Greater),
            (0, -0.0, Ordering::Equal),
            (i128::from(i64::MAX), 9.3e18, Ordering::Less),
            (i128::MAX, f64::INFINITY, Ordering::Less),
            (i128::MIN, f64::NEG_INFINITY, Ordering::Greater),
        ] {
            let (a, b) = (Number::Integer(integer), Number::Real(real));
            assert_eq!(a.compare(b), expected, "{integer} and {real}");
            assert_eq!(b.compare(a), expected.reverse(), "{real} and {integer}");
        }
    }
}
