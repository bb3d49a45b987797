//! Resolvers of an app's own: what they are asked, and what becomes of answers that are no answers.

use crate::case::{derived, entity};
use syncline_core::{
    ConflictCause, ConflictInput, ConflictRules, Decision, FieldRule, Invariant,
    OwnedConflictInput, Resolution, Resolver, decide, what_each_policy_would_do,
};
use syncline_protocol::{Fields, Value};

struct Own(fn(&ConflictInput<'_>) -> Resolution);

impl Resolver for Own {
    fn name(&self) -> &str {
        "own"
    }

    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution {
        (self.0)(input)
    }
}

fn row(title: &str, done: i64) -> Fields {
    [("title", Value::from(title)), ("done", Value::from(done))]
        .into_iter()
        .collect()
}

fn contested() -> OwnedConflictInput {
    let (base, local) = (Some(row("milk", 0)), Some(row("oat milk", 0)));
    OwnedConflictInput {
        entity: entity(1),
        pending: derived(base.as_ref(), local.as_ref()),
        base,
        local,
        remote: Some(row("tea", 0)),
        cause: ConflictCause::Pull,
        server_time_ms: None,
    }
}

fn merged(fields: Fields) -> Resolution {
    let how = [("title".to_owned(), "longest".to_owned())]
        .into_iter()
        .collect();
    Resolution::Merged { fields, how }
}

#[test]
fn an_answer_of_its_own_is_recorded_with_its_rule() {
    let own = Own(|_| merged(row("oat milk and tea", 0)));
    let decision = decide(&own, &ConflictRules::default(), &contested().input());
    let Decision::Settled(settled) = decision else {
        panic!("{decision:?}")
    };
    assert_eq!(settled.row, Some(row("oat milk and tea", 0)));
    assert_eq!(settled.rule, "own");
    assert_eq!(settled.fields["title"].rule, "longest");
    assert_eq!(settled.fields["title"].took.as_str(), "merged");
    assert!(settled.loses_something());
}

#[test]
fn an_answer_that_is_none_waits_for_a_person() {
    let stock = Invariant {
        name: "done or not".to_owned(),
        sum: vec!["done".to_owned()],
        min: None,
        max: Some(syncline_core::Bound::Number(Value::Integer(1))),
    };
    let rules = ConflictRules {
        invariants: vec![stock],
        ..ConflictRules::default()
    };
    let answers: [(Own, &str, &str); 6] = [
        (
            Own(|_| merged([("title", "x")].into_iter().collect())),
            "invalid-result",
            "own: its result has no field done",
        ),
        (
            Own(|_| {
                let mut fields = row("x", 0);
                fields.insert("colour", 1);
                merged(fields)
            }),
            "invalid-result",
            "own: its result has a field colour, which the row has not",
        ),
        (
            Own(|_| merged(row("a\0b", 0))),
            "invalid-result",
            "own: title: text contains U+0000, which cannot be synced; remove that character",
        ),
        (
            Own(|_| {
                let mut fields = row("x", 0);
                fields.insert("done", f64::NAN);
                merged(fields)
            }),
            "invalid-result",
            "own: done: NaN is not a value that can be synced; store NULL instead",
        ),
        (
            Own(|_| merged(row("x", 2))),
            "invariant",
            "done or not: done is above the bound",
        ),
        (
            Own(|_| Resolution::Manual {
                reason: "ask Ann".to_owned(),
            }),
            "own",
            "ask Ann",
        ),
    ];
    for (own, rule, reason) in answers {
        let expected = Decision::Manual {
            rule: rule.to_owned(),
            reason: reason.to_owned(),
        };
        assert_eq!(decide(&own, &rules, &contested().input()), expected);
    }
}

#[test]
fn it_is_not_asked_where_only_one_side_changed() {
    let own = Own(|_| panic!("asked"));
    let mut question = contested();
    question.remote.clone_from(&question.base);
    let decision = decide(&own, &ConflictRules::default(), &question.input());
    assert!(matches!(decision, Decision::Settled(settled) if settled.row == question.local));
}

#[test]
fn people_are_shown_what_each_policy_would_do() {
    let question = contested();
    let rules = ConflictRules {
        merge: [("title".to_owned(), FieldRule::Theirs)]
            .into_iter()
            .collect(),
        ..ConflictRules::default()
    };
    let shown = what_each_policy_would_do(&question.input(), &rules);
    let rows: Vec<(&str, Option<Fields>)> = shown
        .into_iter()
        .map(|(word, decision)| match decision {
            Decision::Settled(settled) => (word, settled.row),
            Decision::Manual { .. } => (word, None),
        })
        .collect();
    let (mine, theirs) = (question.local, question.remote);
    let expected = [
        ("declared", theirs.clone()),
        ("field-merge", mine.clone()),
        ("server-wins", theirs),
        ("client-wins", mine.clone()),
        ("last-writer-wins", mine),
        ("manual", None),
    ];
    assert_eq!(rows, expected);
}
