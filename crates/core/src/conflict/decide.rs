//! Asks a resolver, checks its answer, and works out what follows. Total: every input gives a decision.

use super::merge::{changes, edits};
use super::rebase::{Rebased, changed, rebase_with};
use super::rules::{ConflictRules, FieldRule, Policy};
use super::{ConflictCause, ConflictInput, PendingMutation, Resolution, Resolver};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{Fields, Operation};

/// The outcome of a conflict, ready to be written in one transaction. The new base is always the
/// remote state, so it is not repeated here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Decided without a person.
    Settled(Settled),
    /// The entity waits for a person.
    Manual {
        /// The rule that wants a person.
        rule: String,
        /// Why.
        reason: String,
    },
}

/// A decided conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What the local row becomes; `None`: it goes.
    pub row: Option<Fields>,
    /// What is still to be pushed on top of the remote state.
    pub pending: Rebased,
    /// The rule that decided.
    pub rule: String,
    /// The fields that both sides had changed, each to another value, and what became of them. (A
    /// counter is among them also when both values are equal.)
    pub fields: BTreeMap<String, FieldOutcome>,
    /// What was changed here and gave way.
    pub lost_mine: Lost,
    /// What was changed on the server and gives way with the next push.
    pub lost_theirs: Lost,
}

/// What became of a field that both sides had changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldOutcome {
    /// Whose value it is now.
    pub took: Took,
    /// The rule that decided the field.
    pub rule: String,
}

/// Whose value a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// The local one.
    Mine,
    /// The remote one.
    Theirs,
    /// One made of both.
    Merged,
}

impl Took {
    /// The word for it in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Took::Mine => "mine",
            Took::Theirs => "theirs",
            Took::Merged => "merged",
        }
    }
}

/// What one side had done and the outcome does not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// Everything that it did is there.
    Nothing,
    /// Values that it had given to fields.
    Values(Fields),
    /// It had deleted the entity.
    Deletion,
}

impl Settled {
    /// Whether anything that one side did is not in the outcome.
    pub fn loses_something(&self) -> bool {
        self.lost_mine != Lost::Nothing || self.lost_theirs != Lost::Nothing
    }
}

/// Asks the resolver and works out what follows.
///
/// It is not asked where there is nothing to decide: both states are equal, or only one side changed
/// something since the base (a snapshot says again what is known, say), unless a constraint is
/// violated. Equal changes of a field that is declared a counter are two changes, and are added up.
///
/// Two different creates of one id are never merged unless `rules` declare a natural key on which they
/// agree, since they need not be the same thing: they wait for a person. An answer that leaves
/// fields out, invents some, holds a value that cannot be synced or breaks an invariant of `rules`
/// waits for a person as well. Where the server's state is still the base, the resolver is not asked:
/// the local edits stand. A panic of a resolver is not caught here.
pub fn decide(
    resolver: &dyn Resolver,
    rules: &ConflictRules,
    input: &ConflictInput<'_>,
) -> Decision {
    let manual = |rule: &str, reason: String| Decision::Manual {
        rule: rule.to_owned(),
        reason,
    };
    if let Some((row, rule)) = undisputed(rules, input) {
        return settled(rules, input, row, (rule, &BTreeMap::new()));
    }
    if let (None, Some(local), Some(remote)) = (input.base, input.local, input.remote)
        && !rules.same_natural_key(local, remote)
    {
        let reason = "created here and on the server under the same id with different values";
        return manual("created-twice", reason.to_owned());
    }
    let rule = resolver.name();
    let (row, how) = match resolver.resolve(input) {
        Resolution::Manual { reason } => return manual(rule, reason),
        Resolution::ServerWins => (input.remote.cloned(), BTreeMap::new()),
        Resolution::ClientWins => (input.local.cloned(), BTreeMap::new()),
        Resolution::Merged { fields, how } => match check(&fields, input) {
            Err(reason) => return manual("invalid-result", format!("{rule}: {reason}")),
            Ok(()) => (Some(fields), how),
        },
    };
    if row.as_ref() != input.remote
        && let Some(row) = &row
        && let Err(broken) = rules.check_invariants(row)
    {
        return manual("invariant", broken);
    }
    settled(rules, input, row, (rule, &how))
}

/// Whether the last thing that was made under this id was made after a deletion.
fn is_made_anew(pending: &[PendingMutation]) -> bool {
    let made = pending.iter().rposition(|one| one.op == Operation::Create);
    let gone = pending.iter().position(|one| one.op == Operation::Delete);
    made.zip(gone).is_some_and(|(made, gone)| gone < made)
}

/// The row and the word for why, where no resolver is needed.
fn undisputed(
    rules: &ConflictRules,
    input: &ConflictInput<'_>,
) -> Option<(Option<Fields>, &'static str)> {
    let counted = counted_twice(rules, input);
    let same = match (input.base, input.local, input.remote) {
        (None, Some(local), Some(remote)) => changed(remote, local).is_empty(),
        (_, local, remote) => local == remote,
    };
    if same && !counted {
        return Some((input.remote.cloned(), "equal"));
    }
    if matches!(input.cause, ConflictCause::Violation { .. }) {
        return None;
    }
    if input.remote.is_none() && input.local.is_some() && is_made_anew(input.pending) {
        // Both sides deleted it; what stands here is another row, which has its id since.
        return Some((input.local.cloned(), "unchanged"));
    }
    let untouched = |side: Option<&Fields>| match (input.base, side) {
        (Some(base), Some(side)) => edits(Some(base), side).is_empty(),
        (base, side) => base.is_none() && side.is_none(),
    };
    if untouched(input.local) {
        return Some((input.remote.cloned(), "unchanged"));
    }
    // Without a base, a remote deletion is one that the server remembers: not nothing.
    let (Some(base), Some(remote)) = (input.base, input.remote) else {
        return None;
    };
    if !untouched(Some(remote)) {
        return None;
    }
    let row = input.local.map(|local| {
        let mut row = remote.clone();
        row.patch(&edits(Some(base), local));
        row
    });
    Some((row, "unchanged"))
}

/// Whether both sides gave a counter the same new value: two additions, not one. Two equal creates of
/// one id are one thing; two equal rows under two ids are not.
fn counted_twice(rules: &ConflictRules, input: &ConflictInput<'_>) -> bool {
    let (Some(local), Some(remote)) = (input.local, input.remote) else {
        return false;
    };
    let two_ids = matches!(
        input.cause,
        ConflictCause::Violation { other: Some(other), .. } if other != input.entity
    );
    let counters = rules
        .merge
        .iter()
        .filter(|(_, rule)| **rule == FieldRule::Counter);
    let mut counters = counters.map(|(name, _)| name.as_str());
    rules.policy == Policy::FieldMerge
        && (input.base.is_some() || two_ids)
        && counters.any(|name| {
            let before = input.base.and_then(|base| base.get(name));
            let value = local.get(name).filter(|value| changes(before, value));
            value.is_some() && value == remote.get(name)
        })
}

fn settled(
    rules: &ConflictRules,
    input: &ConflictInput<'_>,
    row: Option<Fields>,
    (rule, how): (&str, &BTreeMap<String, String>),
) -> Decision {
    let adds_up = |field: &str| rules.adds_up(field);
    Decision::Settled(Settled {
        pending: rebase_with(input.pending, row.as_ref(), input.remote, adds_up),
        fields: outcomes(input, row.as_ref(), rule, how),
        lost_mine: lost(input.base, input.local, row.as_ref()),
        lost_theirs: lost(input.base, input.remote, row.as_ref()),
        rule: rule.to_owned(),
        row,
    })
}

/// Every field of the remote state and every one changed here is there, none that neither side has,
/// and each can be synced.
fn check(fields: &Fields, input: &ConflictInput<'_>) -> Result<(), String> {
    let sides = [input.local, input.remote];
    let known: BTreeSet<&str> = sides
        .into_iter()
        .flatten()
        .flat_map(Fields::names)
        .collect();
    let edited = input.local.map(|local| edits(input.base, local));
    let needed = [input.remote, edited.as_ref()];
    let mut needed = needed.into_iter().flatten().flat_map(Fields::names);
    if let Some(missing) = needed.find(|name| !fields.contains(name)) {
        return Err(format!("its result has no field {missing}"));
    }
    for (name, value) in fields {
        if !known.contains(name.as_str()) {
            return Err(format!(
                "its result has a field {name}, which the row has not"
            ));
        }
        value
            .validate()
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn outcomes(
    input: &ConflictInput<'_>,
    row: Option<&Fields>,
    rule: &str,
    how: &BTreeMap<String, String>,
) -> BTreeMap<String, FieldOutcome> {
    let (Some(local), Some(remote), Some(row)) = (input.local, input.remote, row) else {
        return BTreeMap::new();
    };
    let (mine, theirs) = (edits(input.base, local), edits(input.base, remote));
    let both = mine.iter().filter(|(name, value)| {
        let theirs = theirs.get(name);
        theirs.is_some_and(|theirs| theirs != *value || how.contains_key(*name))
    });
    both.map(|(name, value)| {
        let took = match row.get(name) {
            now if now == Some(value) => Took::Mine,
            now if now == theirs.get(name) => Took::Theirs,
            _ => Took::Merged,
        };
        let rule = how.get(name).map_or(rule, String::as_str).to_owned();
        (name.clone(), FieldOutcome { took, rule })
    })
    .collect()
}

/// Did a side that changed a value (or deleted) not get its way?
fn lost(base: Option<&Fields>, side: Option<&Fields>, row: Option<&Fields>) -> Lost {
    let values = match (base, side, row) {
        (_, None, None) | (None, None, Some(_)) => return Lost::Nothing,
        (Some(_), None, Some(_)) => return Lost::Deletion,
        (base, Some(side), None) => edits(base, side),
        (base, Some(side), Some(row)) => edits(base, side)
            .into_iter()
            .filter(|(name, value)| row.get(name) != Some(value))
            .collect(),
    };
    if values.is_empty() {
        Lost::Nothing
    } else {
        Lost::Values(values)
    }
}
