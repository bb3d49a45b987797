//! Mutants that merge a field wrongly: the real resolver, and then another value for the field.

use super::{Mutant, mutant};
use syncline_core::{ConflictInput, ConflictRules, FieldRule, Resolution, Resolver, decide};
use syncline_protocol::Value;

/// What a mutant sees of a field that both sides have.
struct Seen<'a> {
    base: Option<&'a Value>,
    mine: &'a Value,
    theirs: &'a Value,
    /// What it really becomes.
    merged: &'a Value,
}

type Make = fn(&Seen<'_>) -> Value;

struct Wrong<'a>(&'a ConflictRules, FieldRule, Make);

impl Resolver for Wrong<'_> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution {
        let Wrong(rules, rule, make) = self;
        let resolution = rules.resolve(input);
        let (Resolution::Merged { mut fields, how }, Some(local), Some(remote)) =
            (resolution.clone(), input.local, input.remote)
        else {
            return resolution;
        };
        for name in how
            .keys()
            .filter(|name| rules.merge.get(*name) == Some(rule))
        {
            let base = input.base.and_then(|base| base.get(name));
            if let (Some(mine), Some(theirs), Some(merged)) =
                (local.get(name), remote.get(name), fields.get(name).cloned())
            {
                let seen = Seen {
                    base,
                    mine,
                    theirs,
                    merged: &merged,
                };
                fields.insert(name.clone(), make(&seen));
            }
        }
        Resolution::Merged { fields, how }
    }
}

fn merged(name: &str, rule: FieldRule, make: Make) -> Mutant {
    mutant(name, move |rules, input| {
        decide(&Wrong(rules, rule, make), rules, input)
    })
}

fn integer(value: Option<&Value>) -> Option<i64> {
    match value {
        None | Some(Value::Null) => Some(0),
        Some(Value::Integer(integer)) => Some(*integer),
        Some(_) => None,
    }
}

/// The elements of an array as they are written.
fn elements(value: Option<&Value>) -> Vec<String> {
    let Some(Value::Text(text)) = value else {
        return Vec::new();
    };
    let all: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(text).unwrap_or_default();
    all.iter().map(|one| one.get().to_owned()).collect()
}

fn array(elements: impl IntoIterator<Item = String>) -> Value {
    let all: Vec<String> = elements.into_iter().collect();
    Value::Text(format!("[{}]", all.join(",")))
}

fn counters() -> Vec<Mutant> {
    use FieldRule::Counter;
    vec![
        merged("a counter adds both values", Counter, |seen| {
            match (integer(Some(seen.mine)), integer(Some(seen.theirs))) {
                (Some(mine), Some(theirs)) => Value::Integer(mine.wrapping_add(theirs)),
                _ => seen.merged.clone(),
            }
        }),
        merged("a counter takes the base twice", Counter, |seen| {
            match (integer(Some(seen.merged)), integer(seen.base)) {
                (Some(merged), Some(base)) => Value::Integer(merged.wrapping_add(base)),
                _ => seen.merged.clone(),
            }
        }),
        merged("equal counts are one", Counter, |seen| {
            let equal = seen.mine == seen.theirs;
            if equal { seen.mine } else { seen.merged }.clone()
        }),
        merged("a counter is never negative", Counter, |seen| {
            match seen.merged {
                Value::Integer(integer) => Value::Integer((*integer).max(0)),
                other => other.clone(),
            }
        }),
        merged("a counter is always a REAL", Counter, |seen| {
            match seen.merged {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "that is what the mutant gets wrong"
                )]
                Value::Integer(integer) => Value::Real(*integer as f64),
                other => other.clone(),
            }
        }),
        merged(
            "what is no number counts as 0",
            Counter,
            |seen| match seen.merged {
                Value::Text(_) => Value::Integer(0),
                other => other.clone(),
            },
        ),
    ]
}

fn sets() -> Vec<Mutant> {
    use FieldRule::Set;
    vec![
        merged("a set is a union without removals", Set, |seen| {
            let mut all = elements(Some(seen.theirs));
            for one in elements(Some(seen.mine)) {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
            array(all)
        }),
        merged("a set is what both have", Set, |seen| {
            let theirs = elements(Some(seen.theirs));
            let mine = elements(Some(seen.mine)).into_iter();
            array(mine.filter(|one| theirs.contains(one)))
        }),
        merged("a set compares what is written", Set, |seen| {
            let (base, theirs) = (elements(seen.base), elements(Some(seen.theirs)));
            let mine = elements(Some(seen.mine));
            let kept = theirs
                .iter()
                .filter(|one| !base.contains(one) || mine.contains(one));
            let added = mine
                .iter()
                .filter(|one| !base.contains(one) && !theirs.contains(one));
            array(kept.chain(added).cloned())
        }),
        merged("a set is in order", Set, |seen| {
            let mut all = elements(Some(seen.merged));
            all.sort();
            array(all)
        }),
        merged("a set's numbers are doubles", Set, |seen| {
            match seen.merged {
                Value::Text(text) => {
                    let all: Vec<serde_json::Value> =
                        serde_json::from_str(text).unwrap_or_default();
                    array(all.iter().map(|one| match one.as_f64() {
                        Some(real) => format!("{real}"),
                        None => one.to_string(),
                    }))
                }
                other => other.clone(),
            }
        }),
        merged("an empty set is NULL", Set, |seen| {
            let empty = *seen.merged == Value::from("[]");
            if empty {
                Value::Null
            } else {
                seen.merged.clone()
            }
        }),
        merged("a set that is NULL becomes empty", Set, |seen| {
            let null = seen.merged.is_null();
            if null {
                Value::from("[]")
            } else {
                seen.merged.clone()
            }
        }),
    ]
}

fn extremes(rule: FieldRule) -> Vec<Mutant> {
    let prefer_texts: Make = |seen| {
        let text = |value: &Value| serde_json::to_string(value).unwrap_or_default();
        let greater = text(seen.mine) > text(seen.theirs);
        if greater { seen.mine } else { seen.theirs }.clone()
    };
    vec![
        merged(
            &format!("{rule} compares what is written"),
            rule,
            prefer_texts,
        ),
        merged(&format!("NULL wins in {rule}"), rule, |seen| {
            let null = seen.mine.is_null() || seen.theirs.is_null();
            if null {
                Value::Null
            } else {
                seen.merged.clone()
            }
        }),
        merged(&format!("{rule} of two classes is mine"), rule, |seen| {
            let same = std::mem::discriminant(seen.mine) == std::mem::discriminant(seen.theirs);
            if same { seen.merged } else { seen.mine }.clone()
        }),
    ]
}

fn texts(rule: FieldRule) -> Vec<Mutant> {
    vec![
        merged(
            &format!("{rule}: one text after the other"),
            rule,
            |seen| match (seen.theirs, seen.mine) {
                (Value::Text(theirs), Value::Text(mine)) => Value::Text(format!("{theirs}{mine}")),
                _ => seen.merged.clone(),
            },
        ),
        merged(
            &format!("{rule}: white space is made one"),
            rule,
            |seen| match seen.merged {
                Value::Text(text) => {
                    Value::Text(text.split_whitespace().collect::<Vec<_>>().join(" "))
                }
                other => other.clone(),
            },
        ),
        merged(&format!("{rule}: the base stands"), rule, |seen| {
            seen.base.unwrap_or(seen.merged).clone()
        }),
    ]
}

pub(super) fn mutants() -> Vec<Mutant> {
    let groups = [
        counters(),
        sets(),
        extremes(FieldRule::Max),
        extremes(FieldRule::Min),
        texts(FieldRule::Text),
        texts(FieldRule::TextWords),
    ];
    groups.into_iter().flatten().collect()
}
