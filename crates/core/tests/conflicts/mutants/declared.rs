//! Mutants that follow other rules than the declared ones.

use super::{Mutant, mutant};
use crate::case::real;
use syncline_core::{Bound, ConflictRules, DeleteRule, DeleteRules, FieldRule, Policy, TimeUnit};

fn declared(name: &str, change: impl Fn(&mut ConflictRules) + 'static) -> Mutant {
    mutant(name, move |rules, input| {
        let mut other = rules.clone();
        change(&mut other);
        real(&other, input)
    })
}

/// One policy behaves as another, and still goes by its name.
fn policy(is: Policy, as_if: Policy) -> Mutant {
    mutant(&format!("{is} is {as_if}"), move |rules, input| {
        let mut other = rules.clone();
        if other.policy == is {
            other.policy = as_if;
        }
        struct Named(ConflictRules, Policy);
        impl syncline_core::Resolver for Named {
            fn name(&self) -> &str {
                self.1.as_str()
            }
            fn resolve(
                &self,
                input: &syncline_core::ConflictInput<'_>,
            ) -> syncline_core::Resolution {
                self.0.resolve(input)
            }
        }
        let named = Named(other.clone(), rules.policy);
        syncline_core::decide(&named, &other, input)
    })
}

fn field(is: FieldRule, as_if: FieldRule) -> Mutant {
    declared(&format!("field rule {is} is {as_if}"), move |rules| {
        for rule in rules.merge.values_mut().filter(|rule| **rule == is) {
            *rule = as_if;
        }
    })
}

fn policies() -> impl Iterator<Item = Mutant> {
    use Policy::{ClientWins, FieldMerge, LastWriterWins, Manual, ServerWins};
    let pairs = [
        (FieldMerge, ClientWins),
        (FieldMerge, ServerWins),
        (ServerWins, ClientWins),
        (ServerWins, FieldMerge),
        (ClientWins, ServerWins),
        (ClientWins, FieldMerge),
        (LastWriterWins, ClientWins),
        (LastWriterWins, ServerWins),
        (LastWriterWins, FieldMerge),
        (Manual, FieldMerge),
        (Manual, ServerWins),
    ];
    pairs.into_iter().map(|(is, as_if)| policy(is, as_if))
}

fn fields() -> impl Iterator<Item = Mutant> {
    use FieldRule::{Counter, Manual, Max, Min, Mine, Set, Text, TextWords, Theirs};
    let pairs = [
        (Mine, Theirs),
        (Theirs, Mine),
        (Max, Min),
        (Max, Mine),
        (Max, Theirs),
        (Min, Max),
        (Min, Mine),
        (Min, Theirs),
        (Counter, Mine),
        (Counter, Theirs),
        (Counter, Max),
        (Set, Mine),
        (Set, Theirs),
        (Text, Mine),
        (Text, Theirs),
        (Text, TextWords),
        (TextWords, Text),
        (TextWords, Theirs),
        (Manual, Mine),
    ];
    pairs.into_iter().map(|(is, as_if)| field(is, as_if))
}

pub(super) fn mutants() -> Vec<Mutant> {
    let swapped = |rules: &mut ConflictRules| {
        let DeleteRules { here, there } = rules.deletes;
        rules.deletes = DeleteRules {
            here: there,
            there: here,
        };
    };
    let inverted = |rule: Option<DeleteRule>| match rule {
        Some(DeleteRule::DeleteWins) => Some(DeleteRule::EditWins),
        Some(DeleteRule::EditWins) => Some(DeleteRule::DeleteWins),
        other => other,
    };
    let rest = [
        declared("the default field rule is theirs", |rules| {
            let fields = ["title", "done", "note", "a", "v", "w", "doc", "name"];
            for name in fields {
                rules
                    .merge
                    .entry(name.to_owned())
                    .or_insert(FieldRule::Theirs);
            }
        }),
        declared("delete rules are ignored", |rules| {
            rules.deletes = DeleteRules::default()
        }),
        declared("delete rules are the other way round", swapped),
        declared("delete rules mean the contrary", move |rules| {
            rules.deletes.here = inverted(rules.deletes.here);
            rules.deletes.there = inverted(rules.deletes.there);
        }),
        declared("edits win over deletes there", |rules| {
            rules.deletes.there.get_or_insert(DeleteRule::EditWins);
        }),
        declared("edits win over deletes here", |rules| {
            rules.deletes.here.get_or_insert(DeleteRule::EditWins);
        }),
        declared("deletes there always win", |rules| {
            rules.deletes.there.get_or_insert(DeleteRule::DeleteWins);
        }),
        declared("deletes here always win", |rules| {
            rules.deletes.here.get_or_insert(DeleteRule::DeleteWins);
        }),
        declared("no natural key", |rules| rules.natural_key.clear()),
        declared("the first field of a natural key", |rules| {
            rules.natural_key = rules.natural_key.pop_first().into_iter().collect();
        }),
        declared("the last field of a natural key", |rules| {
            rules.natural_key = rules.natural_key.pop_last().into_iter().collect();
        }),
        declared("no invariants", |rules| rules.invariants.clear()),
        declared("invariants look at the first field", |rules| {
            rules
                .invariants
                .iter_mut()
                .for_each(|one| one.sum.truncate(1));
        }),
        declared("invariants have no upper bound", |rules| {
            rules.invariants.iter_mut().for_each(|one| one.max = None);
        }),
        declared("invariants have no lower bound", |rules| {
            rules.invariants.iter_mut().for_each(|one| one.min = None);
        }),
        declared("bounds that are fields are not looked up", |rules| {
            for one in &mut rules.invariants {
                one.max = one
                    .max
                    .take()
                    .filter(|bound| matches!(bound, Bound::Number(_)));
            }
        }),
        declared("the timestamp is ignored", |rules| rules.timestamp = None),
        declared("the unit of time is the other one", |rules| {
            if let Some(one) = &mut rules.timestamp {
                one.unit = match one.unit {
                    TimeUnit::Milliseconds => TimeUnit::Seconds,
                    TimeUnit::Seconds => TimeUnit::Milliseconds,
                };
            }
        }),
    ];
    policies().chain(fields()).chain(rest).collect()
}
