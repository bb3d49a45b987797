//! Mutants that decide well and get wrong what follows.

use super::{Mutant, mutant};
use crate::case::real;
use syncline_core::{ConflictInput, Decision, Intent, Lost, Rewrite, Settled, Took};
use syncline_protocol::{Fields, Operation};

fn after(name: &str, change: impl Fn(&mut Settled, &ConflictInput<'_>) + 'static) -> Mutant {
    mutant(name, move |rules, input| {
        let mut decision = real(rules, input);
        if let Decision::Settled(settled) = &mut decision {
            change(settled, input);
        }
        decision
    })
}

fn both_there(input: &ConflictInput<'_>) -> bool {
    input.local.is_some() && input.remote.is_some()
}

pub(super) fn mutants() -> Vec<Mutant> {
    let mut all = losses();
    all.extend(rewrites());
    all.extend(decisions());
    all
}

fn losses() -> Vec<Mutant> {
    vec![
        after("deletions that lose are not recorded", |settled, _| {
            for lost in [&mut settled.lost_mine, &mut settled.lost_theirs] {
                if *lost == Lost::Deletion {
                    *lost = Lost::Nothing;
                }
            }
        }),
        after(
            "values that lose to a deletion are not recorded",
            |settled, _| {
                if settled.row.is_none() {
                    settled.lost_mine = Lost::Nothing;
                    settled.lost_theirs = Lost::Nothing;
                }
            },
        ),
        after("mine that loses is not recorded", |settled, input| {
            if both_there(input) {
                settled.lost_mine = Lost::Nothing;
            }
        }),
        after(
            "theirs that loses to mine is not recorded",
            |settled, input| {
                if both_there(input) && settled.row.as_ref() == input.local {
                    settled.lost_theirs = Lost::Nothing;
                }
            },
        ),
        after(
            "the side that merged fields came from is not recorded",
            |settled, _| {
                for outcome in settled.fields.values_mut() {
                    if outcome.took == Took::Merged {
                        outcome.took = Took::Theirs;
                    }
                }
            },
        ),
        after("fields are said to be mine", |settled, _| {
            for outcome in settled.fields.values_mut() {
                if outcome.took == Took::Theirs {
                    outcome.took = Took::Mine;
                }
            }
        }),
        after("why a rule did not fit is not said", |settled, _| {
            for outcome in settled.fields.values_mut() {
                let word = outcome.rule.split(':').next().unwrap_or_default();
                outcome.rule = word.to_owned();
            }
        }),
    ]
}

fn rewrites() -> Vec<Mutant> {
    vec![
        after("a mutation that became equal is sent", |settled, input| {
            for (one, old) in settled.pending.each.iter_mut().zip(input.pending) {
                if *one == Rewrite::Supersede && old.op != Operation::Create {
                    let (op, fields) = (old.op, old.fields.clone());
                    *one = Rewrite::Write(Intent { op, fields });
                }
            }
        }),
        after("all is sent with the last mutation", |settled, _| {
            let mut fields = Fields::new();
            let many = settled.pending.each.len() > 1;
            for one in settled.pending.each.iter_mut().filter(|_| many) {
                if let Rewrite::Write(Intent {
                    op: Operation::Update,
                    fields: own,
                }) = one
                {
                    fields.patch(own);
                    *one = Rewrite::Supersede;
                }
            }
            if let Some(last) = settled
                .pending
                .each
                .last_mut()
                .filter(|_| !fields.is_empty())
            {
                let op = Operation::Update;
                *last = Rewrite::Write(Intent { op, fields });
            }
        }),
        after(
            "a row that was deleted there is updated",
            |settled, input| {
                for one in settled
                    .pending
                    .each
                    .iter_mut()
                    .filter(|_| input.base.is_some())
                {
                    if let Rewrite::Write(intent) = one
                        && intent.op == Operation::Create
                    {
                        intent.op = Operation::Update;
                    }
                }
            },
        ),
        after(
            "a create over what is there is a create",
            |settled, input| {
                for (one, old) in settled.pending.each.iter_mut().zip(input.pending) {
                    if let Rewrite::Write(intent) = one {
                        intent.op = if old.op == Operation::Create {
                            old.op
                        } else {
                            intent.op
                        };
                    }
                }
            },
        ),
        after("a delete is not sent", |settled, _| {
            for one in &mut settled.pending.each {
                if matches!(one, Rewrite::Write(intent) if intent.op == Operation::Delete) {
                    *one = Rewrite::Supersede;
                }
            }
        }),
        after("what belongs to no mutation is forgotten", |settled, _| {
            settled.pending.new = None;
        }),
        after(
            "what a mutation did not write is not added to it",
            |settled, input| {
                for (one, old) in settled.pending.each.iter_mut().zip(input.pending) {
                    if let Rewrite::Write(intent) = one
                        && old.op == Operation::Update
                        && intent.op == Operation::Update
                    {
                        let own = intent
                            .fields
                            .iter()
                            .filter(|(name, _)| old.fields.contains(name));
                        intent.fields = own
                            .map(|(name, value)| (name.clone(), value.clone()))
                            .collect();
                    }
                }
            },
        ),
    ]
}

fn decisions() -> Vec<Mutant> {
    vec![
        mutant(
            "whoever needs a person gets the server's row",
            |rules, input| {
                let decision = real(rules, input);
                let server = syncline_core::ConflictRules::from(syncline_core::Policy::ServerWins);
                match decision {
                    Decision::Manual { .. } => real(&server, input),
                    settled @ Decision::Settled(_) => settled,
                }
            },
        ),
        mutant("two deletes are a conflict", |rules, input| {
            match (input.local, input.remote) {
                (None, None) => Decision::Manual {
                    rule: String::new(),
                    reason: String::new(),
                },
                _ => real(rules, input),
            }
        }),
        mutant("two equal rows are a conflict", |rules, input| {
            if input.local.is_some() && input.local == input.remote {
                let (rule, reason) = (String::new(), String::new());
                return Decision::Manual { rule, reason };
            }
            real(rules, input)
        }),
        mutant("creates are merged whatever their keys", |rules, input| {
            let mut rules = rules.clone();
            if let (None, Some(local), Some(remote)) = (input.base, input.local, input.remote) {
                let equal = local
                    .iter()
                    .find(|(name, value)| remote.get(name) == Some(value));
                rules
                    .natural_key
                    .extend(equal.map(|(name, _)| name.clone()));
                rules
                    .natural_key
                    .retain(|name| local.get(name) == remote.get(name));
            }
            real(&rules, input)
        }),
    ]
}
