//! Asks a resolver, checks its answer, and works out what follows. Total: every input gives a decision.

use super::rebase::{Rebased, changed, rebase};
use super::rules::ConflictRules;
use super::{ConflictInput, Resolution, Resolver};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::Fields;

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
    /// The fields that both sides had changed, each to another value, and what became of them.
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

/// Asks the resolver and works out what follows. A remote state that is still the base (a snapshot says
/// it again) contradicts nothing: nobody is asked, the local state stands.
///
/// Two different creates of one id are never merged unless `rules` declare a natural key on which they
/// agree, since they need not be the same thing: they wait for a person. An answer that leaves
/// fields out, invents some, holds a value that cannot be synced or breaks an invariant of `rules`
/// waits for a person as well. A panic of a resolver is not caught here.
pub fn decide(
    resolver: &dyn Resolver,
    rules: &ConflictRules,
    input: &ConflictInput<'_>,
) -> Decision {
    let manual = |rule: &str, reason: String| Decision::Manual {
        rule: rule.to_owned(),
        reason,
    };
    if let (None, Some(local), Some(remote)) = (input.base, input.local, input.remote) {
        if changed(remote, local).is_empty() {
            return settled(input, Some(remote.clone()), "equal", &BTreeMap::new());
        }
        if !rules.same_natural_key(local, remote) {
            let reason = "created here and on the server under the same id with different values";
            return manual("created-twice", reason.to_owned());
        }
    }
    if input.local == input.remote {
        return settled(input, input.remote.cloned(), "equal", &BTreeMap::new());
    }
    if input.base.is_some() && input.base == input.remote {
        return settled(input, input.local.cloned(), "unchanged", &BTreeMap::new());
    }
    let (row, how) = match resolver.resolve(input) {
        Resolution::Manual { reason } => return manual(resolver.name(), reason),
        Resolution::ServerWins => (input.remote.cloned(), BTreeMap::new()),
        Resolution::ClientWins => (input.local.cloned(), BTreeMap::new()),
        Resolution::Merged { fields, how } => {
            if let Err(reason) = check(&fields, input) {
                return manual("invalid-result", format!("{}: {reason}", resolver.name()));
            }
            (Some(fields), how)
        }
    };
    if row.as_ref() != input.remote
        && let Some(row) = &row
        && let Err(broken) = rules.check_invariants(row)
    {
        return manual("invariant", broken);
    }
    settled(input, row, resolver.name(), &how)
}

fn settled(
    input: &ConflictInput<'_>,
    row: Option<Fields>,
    rule: &str,
    how: &BTreeMap<String, String>,
) -> Decision {
    Decision::Settled(Settled {
        pending: rebase(input.pending, row.as_ref(), input.remote),
        fields: outcomes(input, row.as_ref(), rule, how),
        lost_mine: lost(input.base, input.local, row.as_ref()),
        lost_theirs: lost(input.base, input.remote, row.as_ref()),
        rule: rule.to_owned(),
        row,
    })
}

/// Every field of either side is there, no other, and each can be synced.
fn check(fields: &Fields, input: &ConflictInput<'_>) -> Result<(), String> {
    let sides = [input.local, input.remote];
    let known: BTreeSet<&str> = sides
        .into_iter()
        .flatten()
        .flat_map(Fields::names)
        .collect();
    if let Some(missing) = known.iter().find(|name| !fields.contains(name)) {
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
    let empty = Fields::new();
    let base = input.base.unwrap_or(&empty);
    let (mine, theirs) = (changed(base, local), changed(base, remote));
    let both = mine
        .iter()
        .filter(|(name, value)| theirs.get(name).is_some_and(|theirs| theirs != *value));
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
    let empty = Fields::new();
    let values = match (base, side, row) {
        (_, None, None) | (None, None, Some(_)) => return Lost::Nothing,
        (Some(_), None, Some(_)) => return Lost::Deletion,
        (base, Some(side), None) => changed(base.unwrap_or(&empty), side),
        (base, Some(side), Some(row)) => changed(base.unwrap_or(&empty), side)
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
