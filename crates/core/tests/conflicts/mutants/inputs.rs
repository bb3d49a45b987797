//! Mutants that are asked something else.

use super::{Mutant, mutant};
use crate::case::real;
use syncline_core::{ConflictCause, OwnedConflictInput};
use syncline_protocol::{Fields, Operation, Value};

fn asked(name: &str, change: impl Fn(&mut OwnedConflictInput) + 'static) -> Mutant {
    mutant(name, move |rules, input| {
        let mut question = OwnedConflictInput::from(input);
        change(&mut question);
        real(rules, &question.input())
    })
}

fn map(side: &mut Option<Fields>, change: impl Fn(&Value) -> Option<Value>) {
    if let Some(fields) = side {
        let kept = fields.iter();
        let kept = kept.filter_map(|(name, value)| Some((name.clone(), change(value)?)));
        *fields = kept.collect();
    }
}

fn without_null(value: &Value) -> Option<Value> {
    (!value.is_null()).then(|| value.clone())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "that is what the mutant gets wrong"
)]
fn as_real(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Integer(integer) => Value::Real(*integer as f64),
        other => other.clone(),
    })
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "that is what the mutant gets wrong"
)]
fn rounded(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Integer(integer) => Value::Integer(*integer as f64 as i64),
        other => other.clone(),
    })
}

fn text(change: impl Fn(&str) -> String) -> impl Fn(&Value) -> Option<Value> {
    move |value| {
        Some(match value {
            Value::Text(text) => Value::Text(change(text)),
            other => other.clone(),
        })
    }
}

fn everywhere(name: &str, change: impl Fn(&Value) -> Option<Value> + 'static) -> Mutant {
    asked(name, move |question| {
        for side in [
            &mut question.base,
            &mut question.local,
            &mut question.remote,
        ] {
            map(side, &change);
        }
    })
}

pub(super) fn mutants() -> Vec<Mutant> {
    let mut all = about_the_question();
    all.extend(about_values());
    all
}

fn about_the_question() -> Vec<Mutant> {
    vec![
        asked("mine and theirs swapped", |question| {
            std::mem::swap(&mut question.local, &mut question.remote);
        }),
        asked("no base", |question| question.base = None),
        asked("the local row is the base", |question| {
            question.base.clone_from(&question.local);
        }),
        asked("the remote row is the base", |question| {
            question.base.clone_from(&question.remote);
        }),
        asked("an absent base is an empty row", |question| {
            question.base.get_or_insert_default();
        }),
        asked("an empty base", |question| {
            question.base = question.base.take().map(|_| Fields::new());
        }),
        asked("NULL is absent here", |question| {
            map(&mut question.local, without_null)
        }),
        asked("NULL is absent there", |question| {
            map(&mut question.remote, without_null)
        }),
        asked("a deletion there is an empty row", |question| {
            question.remote.get_or_insert_default();
        }),
        asked("a deletion here is an empty row", |question| {
            question.local.get_or_insert_default();
        }),
        asked("a deletion there is not noticed", |question| {
            question.remote = question.remote.take().or_else(|| question.base.clone());
        }),
        asked("a deletion here is not noticed", |question| {
            question.local = question.local.take().or_else(|| question.base.clone());
        }),
        asked("the server's time is not asked", |question| {
            question.server_time_ms = None
        }),
        asked("every stamp is beyond the server's time", |question| {
            question.server_time_ms = Some(i64::MIN);
        }),
        asked("only the last mutation counts", |question| {
            let all = question.pending.len();
            for one in question.pending.iter_mut().take(all.saturating_sub(1)) {
                one.fields = Fields::new();
            }
        }),
        asked("mutations in reverse", |question| {
            question.pending.reverse()
        }),
        asked("the cause is always a pull", |question| {
            question.cause = ConflictCause::Pull;
        }),
        asked("the cause is always a violation", |question| {
            let constraint = String::new();
            question.cause = ConflictCause::Violation {
                constraint,
                other: None,
            };
        }),
        asked(
            "a field that the server does not mention is NULL",
            |question| {
                let names = question.local.clone().unwrap_or_default();
                if let Some(remote) = &mut question.remote {
                    for name in names.names() {
                        if !remote.contains(name) {
                            remote.insert(name, Value::Null);
                        }
                    }
                }
            },
        ),
        asked(
            "the local row is what the first mutation made of it",
            |question| {
                if let (Some(base), Some(first)) = (&question.base, question.pending.first())
                    && first.op == Operation::Update
                    && question.local.is_some()
                {
                    let mut row = base.clone();
                    row.patch(&first.fields);
                    question.local = Some(row);
                }
            },
        ),
    ]
}

fn about_values() -> Vec<Mutant> {
    vec![
        everywhere("the empty text is NULL", |value| {
            let empty = *value == Value::from("");
            Some(if empty { Value::Null } else { value.clone() })
        }),
        everywhere("NULL is 0", |value| {
            Some(if value.is_null() {
                Value::Integer(0)
            } else {
                value.clone()
            })
        }),
        everywhere("integers are REAL", as_real),
        everywhere("integers have 53 bits", rounded),
        everywhere(
            "line ends are normalised",
            text(|text| text.replace("\r\n", "\n")),
        ),
        everywhere(
            "texts are ASCII",
            text(|text| text.replace(|c: char| !c.is_ascii(), "?")),
        ),
        everywhere("texts are trimmed", text(|text| text.trim_end().to_owned())),
        everywhere(
            "accents are dropped",
            text(|text| text.replace(['\u{301}', '\u{308}'], "")),
        ),
        everywhere("0.0 has no sign", |value| {
            Some(match value {
                Value::Real(real) => Value::Real(real + 0.0),
                other => other.clone(),
            })
        }),
    ]
}
