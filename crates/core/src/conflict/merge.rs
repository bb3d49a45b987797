//! Field merge: a rule per field for what both sides changed.

use super::number::Number;
use super::rules::{ConflictRules, FieldRule};
use super::text::{self, MergedText, Pieces};
use super::{Resolution, manual, set};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use syncline_protocol::{Fields, Value};

/// What a rule makes of a field that both sides changed.
enum Merged {
    /// This value.
    Made(Value),
    /// This value, and more is to be said of it.
    But(Value, &'static str),
    /// The rule does not fit, for this reason: the local value.
    Mine(&'static str),
    /// A person has to look at it, for this reason.
    Person(&'static str),
}

impl ConflictRules {
    /// Takes from each side what only it changed and asks a field's rule where both did. A field that
    /// a state does not mention was not changed by that side; where the base does not mention it
    /// either, a NULL says nothing.
    pub(super) fn field_merge(
        &self,
        base: Option<&Fields>,
        local: &Fields,
        remote: &Fields,
    ) -> Resolution {
        let (mut fields, mut how) = (remote.clone(), BTreeMap::new());
        for (name, mine) in local {
            let before = base.and_then(|base| base.get(name));
            if !changes(before, mine) {
                continue;
            }
            let rule = self.merge.get(name).copied().unwrap_or_default();
            match remote.get(name) {
                Some(theirs) if changes(before, theirs) => {
                    if mine == theirs && rule != FieldRule::Counter {
                        continue;
                    }
                    let (value, note) = match merge_field(rule, before, mine, theirs) {
                        Merged::Made(value) => (value, String::new()),
                        Merged::But(value, why) => (value, format!(": {why}")),
                        Merged::Mine(why) => (mine.clone(), format!(": {why}, mine")),
                        Merged::Person(why) => return manual(&format!("{name}: {why}")),
                    };
                    fields.insert(name.clone(), value);
                    how.insert(name.clone(), format!("{rule}{note}"));
                }
                _ => {
                    fields.insert(name.clone(), mine.clone());
                }
            }
        }
        Resolution::Merged { fields, how }
    }
}

/// Whether a side that has this value changed the field.
pub(super) fn changes(before: Option<&Value>, now: &Value) -> bool {
    match before {
        Some(before) => before != now,
        None => !now.is_null(),
    }
}

/// What a side changed since the base.
pub(super) fn edits(base: Option<&Fields>, side: &Fields) -> Fields {
    side.iter()
        .filter(|(name, value)| changes(base.and_then(|base| base.get(name)), value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn merge_field(rule: FieldRule, before: Option<&Value>, mine: &Value, theirs: &Value) -> Merged {
    match rule {
        FieldRule::Mine => Merged::Made(mine.clone()),
        FieldRule::Theirs => Merged::Made(theirs.clone()),
        FieldRule::Max => Merged::Made(extreme(mine, theirs, Ordering::Greater)),
        FieldRule::Min => Merged::Made(extreme(mine, theirs, Ordering::Less)),
        FieldRule::Counter => counter(before, mine, theirs),
        FieldRule::Set => {
            set::merge(before, mine, theirs).map_or(Merged::Mine("not a JSON array"), Merged::Made)
        }
        FieldRule::Text => merge_text(Pieces::Lines, before, mine, theirs),
        FieldRule::TextWords => merge_text(Pieces::Words, before, mine, theirs),
        FieldRule::Manual => Merged::Person("changed on both sides"),
    }
}

/// Mine if it compares like this with theirs. NULL is never taken, nor is mine for a tie.
fn extreme(mine: &Value, theirs: &Value, wanted: Ordering) -> Value {
    let take_mine = match (class(mine), class(theirs)) {
        (0, _) => false,
        (_, 0) => true,
        (here, there) => {
            here.cmp(&there).then_with(|| match (mine, theirs) {
                (Value::Text(a), Value::Text(b)) => a.cmp(b),
                (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
                (a, b) => match (Number::of(Some(a)), Number::of(Some(b))) {
                    (Some(a), Some(b)) => a.compare(b),
                    _ => Ordering::Equal,
                },
            }) == wanted
        }
    };
    if take_mine { mine } else { theirs }.clone()
}

/// The order of storage classes in SQLite. NaN is NULL there.
fn class(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Real(real) if real.is_nan() => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    }
}

/// Theirs, and what was added here.
fn counter(before: Option<&Value>, mine: &Value, theirs: &Value) -> Merged {
    let numbers = (
        Number::of(before),
        Number::of(Some(mine)),
        Number::of(Some(theirs)),
    );
    let (Some(before), Some(here), Some(there)) = numbers else {
        return Merged::Mine("not a number");
    };
    match there.plus(here.minus(before)).into_value() {
        Some(sum) => Merged::Made(sum),
        None => Merged::Person("the counter is beyond the range of numbers"),
    }
}

fn merge_text(pieces: Pieces, before: Option<&Value>, mine: &Value, theirs: &Value) -> Merged {
    let (Value::Text(here), Value::Text(there)) = (mine, theirs) else {
        return Merged::Mine("not a text");
    };
    let before = match before {
        None | Some(Value::Null) => return Merged::Mine("no base"),
        Some(Value::Text(before)) => before,
        Some(_) => return Merged::Mine("not a text"),
    };
    match text::merge(before, here, there, pieces) {
        MergedText::Clean(text) => Merged::Made(Value::Text(text)),
        MergedText::Overlapping(text) => Merged::But(Value::Text(text), "overlapping, mine"),
        MergedText::TooLong => Merged::Mine("too long"),
        MergedText::TooDifferent => Merged::Mine("too many differences"),
    }
}
