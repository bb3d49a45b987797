//! What can be declared about conflicts of an entity type, in the words of `syncline.toml` (and of the
//! fixtures in `fixtures/conflicts`): the policy, a rule per field, delete rules, the natural key,
//! invariants. Only data: `declared.rs` makes a resolver of it.

use super::set;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use syncline_protocol::Value;

/// How conflicts of an entity type are decided. The default is what suits most tables: field by
/// field, the local value where both sides changed a field, a delete before an edit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictRules {
    /// The rule for the row as a whole.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy: Policy,
    /// Under `field-merge`: the rule for a field that both sides changed, `mine` where none is given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub merge: BTreeMap<String, FieldRule>,
    /// What counts when one side deleted what the other edited; what the policy says where nothing is
    /// declared.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deletes: DeleteRules,
    /// Under `last-writer-wins`: the field that says when a row was written. Without it the order in
    /// which writes reach the server counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The fields by which two rows are the same thing, whatever their ids.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub natural_key: BTreeSet<String>,
    /// What every outcome has to satisfy; one that does not waits for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invariants: Vec<Invariant>,
}

/// The policies that can be declared for an entity type.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Field by field: what only one side changed stands; what both changed is decided by the
    /// field's rule. The default.
    #[default]
    FieldMerge,
    /// The remote state stands.
    ServerWins,
    /// The local state stands.
    ClientWins,
    /// The row that was written later stands as a whole.
    LastWriterWins,
    /// A person decides.
    Manual,
}

/// The rule for a field that both sides changed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum FieldRule {
    /// The local value: it is the one that reaches the server last.
    #[default]
    Mine,
    /// The remote value.
    Theirs,
    /// The greater value.
    Max,
    /// The smaller value.
    Min,
    /// A number of which both sides' differences to the base add up.
    Counter,
    /// A JSON array as a set: both sides' additions and removals.
    Set,
    /// A text, merged line by line.
    Text,
    /// A text, merged word by word.
    TextWords,
    /// A person decides.
    Manual,
}

/// What counts when one side deleted the entity and the other edited it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeleteRule {
    /// It is deleted.
    DeleteWins,
    /// It lives, as edited.
    EditWins,
    /// A person decides.
    Manual,
}

/// A delete rule for each direction; `None`: what the policy says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRules {
    /// Deleted here, edited on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<DeleteRule>,
    /// Deleted on the server, edited here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub there: Option<DeleteRule>,
}

/// The field that says when a row was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// The field.
    pub field: String,
    /// What its numbers count. A text is read as RFC 3339 or as SQLite's `YYYY-MM-DD HH:MM:SS[.fff]`
    /// in UTC, whatever the unit.
    #[serde(default)]
    pub unit: TimeUnit,
}

/// What the numbers in a timestamp field count since 1970.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum TimeUnit {
    /// Milliseconds.
    #[default]
    #[serde(rename = "ms")]
    Milliseconds,
    /// Seconds, also with a fraction.
    #[serde(rename = "s")]
    Seconds,
}

/// Something that is to hold for every row: the sum of these fields lies between two bounds.
/// NULL and absent count as 0; what is no number breaks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invariant {
    /// Its name in records and messages: "stock is never negative".
    pub name: String,
    /// The fields that are added up; one field alone is a sum too.
    pub sum: Vec<String>,
    /// Not less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Bound>,
    /// Not more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Bound>,
}

/// One end of an invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bound {
    /// The value of another field of the row: its name as a string.
    Field(String),
    /// A number.
    Number(Value),
}

/// A word that means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no {what}; use one of: {known}")]
pub struct UnknownWord {
    word: String,
    what: &'static str,
    known: String,
}

/// Why declared rules cannot be used; it names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct RuleError {
    /// The key, as in `syncline.toml`: `merge.title`.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

macro_rules! words {
    ($type:ty, $what:literal: $($variant:ident = $word:literal),+ $(,)?) => {
        impl $type {
            /// Every word for it with its meaning, as in `syncline.toml`.
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];

            /// The word for it in configuration and records.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                let found = Self::WORDS.iter().find(|(known, _)| *known == word);
                found.map(|(_, meaning)| *meaning).ok_or_else(|| {
                    let known: Vec<&str> = Self::WORDS.iter().map(|(known, _)| *known).collect();
                    UnknownWord { word: word.to_owned(), what: $what, known: known.join(", ") }
                })
            }
        }
    };
}

words!(Policy, "conflict policy":
    FieldMerge = "field-merge", ServerWins = "server-wins", ClientWins = "client-wins",
    LastWriterWins = "last-writer-wins", Manual = "manual");
words!(FieldRule, "field rule":
    Mine = "mine", Theirs = "theirs", Max = "max", Min = "min", Counter = "counter", Set = "set",
    Text = "text", TextWords = "text-words", Manual = "manual");
words!(DeleteRule, "delete rule":
    DeleteWins = "delete-wins", EditWins = "edit-wins", Manual = "manual");
words!(TimeUnit, "unit of time": Milliseconds = "ms", Seconds = "s");

impl From<Policy> for ConflictRules {
    fn from(policy: Policy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }
}

impl ConflictRules {
    /// Whether changes of the field are added up.
    pub fn adds_up(&self, field: &str) -> bool {
        self.policy == Policy::FieldMerge && self.merge.get(field) == Some(&FieldRule::Counter)
    }

    /// Whether a field that is `now` still has what a write made of it: all of a set's elements that were
    /// added, and none that was removed; of any other field the value.
    pub fn still_has(
        &self,
        field: &str,
        before: Option<&Value>,
        wrote: &Value,
        now: &Value,
    ) -> bool {
        let is_set =
            self.policy == Policy::FieldMerge && self.merge.get(field) == Some(&FieldRule::Set);
        wrote == now || is_set && set::merge(before, wrote, now).as_ref() == Some(now)
    }

    /// Every field that the rules name, with the key that names it: for whoever knows the table.
    pub fn named_fields(&self) -> Vec<(String, &str)> {
        let merge = self
            .merge
            .keys()
            .map(|name| (format!("merge.{name}"), name.as_str()));
        let timestamp = self
            .timestamp
            .iter()
            .map(|one| ("timestamp".to_owned(), one.field.as_str()));
        let natural = self
            .natural_key
            .iter()
            .map(|name| ("natural_key".to_owned(), name.as_str()));
        let invariants = self.invariants.iter().flat_map(|one| {
            let key = format!("invariants.{}", one.name);
            let bounds = [&one.min, &one.max].into_iter().flatten();
            let fields = bounds.filter_map(|bound| match bound {
                Bound::Field(name) => Some(name.as_str()),
                Bound::Number(_) => None,
            });
            let all: Vec<_> = (one.sum.iter().map(String::as_str)).chain(fields).collect();
            all.into_iter().map(move |name| (key.clone(), name))
        });
        merge
            .chain(timestamp)
            .chain(natural)
            .chain(invariants)
            .collect()
    }

    /// What is wrong with them whatever the table: rules that the policy never asks, an invariant
    /// without bounds.
    pub fn validate(&self) -> Result<(), RuleError> {
        let fault = |key: String, reason: &str| {
            Err(RuleError {
                key,
                reason: reason.to_owned(),
            })
        };
        if let Some(field) = self.merge.keys().next()
            && self.policy != Policy::FieldMerge
        {
            let reason = format!("the policy is {}, which asks no field rules", self.policy);
            return fault(format!("merge.{field}"), &reason);
        }
        if self.timestamp.is_some() && self.policy != Policy::LastWriterWins {
            let reason = format!("the policy is {}, which looks at no timestamp", self.policy);
            return fault("timestamp".to_owned(), &reason);
        }
        for one in &self.invariants {
            let key = format!("invariants.{}", one.name);
            if one.sum.is_empty() {
                return fault(key, "it names no field");
            }
            if one.min.is_none() && one.max.is_none() {
                return fault(key, "it has neither min nor max");
            }
            for bound in [&one.min, &one.max].into_iter().flatten() {
                if let Bound::Number(value) = bound
                    && !matches!(value, Value::Integer(_) | Value::Real(_))
                {
                    return fault(key, "a bound is a number or the name of a field");
                }
            }
        }
        Ok(())
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
