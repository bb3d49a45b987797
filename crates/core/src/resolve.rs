//! Conflicts: what a resolver is shown, what it may decide, and the policies that come with Syncline.
//!
//! The same resolver serves both sides: a push that the server answers with *conflict*, and a
//! pulled change to an entity with unsettled local mutations. A resolver is pure: values in, a
//! decision out. What follows from the decision is worked out in `rebase.rs`, never by a resolver.

use crate::EntityRef;
use std::fmt;
use std::str::FromStr;
use syncline_protocol::{ConflictReason, Fields};

/// Everything a resolver may look at. `None` in place of fields: the entity is not there.
#[derive(Debug, Clone, Copy)]
pub struct ConflictInput<'a> {
    /// The entity.
    pub entity: &'a EntityRef,
    /// The last state on which both sides agreed.
    pub base: Option<&'a Fields>,
    /// The local row, with every unsettled mutation in it.
    pub local: Option<&'a Fields>,
    /// The remote state.
    pub remote: Option<&'a Fields>,
    /// How it showed.
    pub cause: ConflictCause,
}

/// How a conflict showed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictCause {
    /// The server refused a pushed mutation for this reason.
    Push(ConflictReason),
    /// A change was pulled for an entity with unsettled mutations.
    Pull,
}

/// What a resolver decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The entity is to have these fields.
    Merged(Fields),
    /// The remote state stands; unsettled local mutations are given up.
    ServerWins,
    /// The local state stands and is pushed on top of the remote one.
    ClientWins,
    /// A person has to look at it; the entity waits.
    Manual {
        /// Why, for that person.
        reason: String,
    },
}

/// Decides conflicts of one entity type. Pure: the same input gives the same resolution.
pub trait Resolver: Send + Sync {
    /// The rule's name in records and logs.
    fn name(&self) -> &str;

    /// Decides.
    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution;
}

/// The policies that can be declared for an entity type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Policy {
    /// Field by field: what only one side changed stands; what both changed takes the local value
    /// (it reaches the server last); a delete wins over an edit. The default.
    #[default]
    FieldMerge,
    /// The remote state stands.
    ServerWins,
    /// The local state stands.
    ClientWins,
}

impl Policy {
    /// The word for it in configuration and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::FieldMerge => "field-merge",
            Policy::ServerWins => "server-wins",
            Policy::ClientWins => "client-wins",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no conflict policy; use field-merge, server-wins or client-wins")]
pub struct UnknownPolicy(String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Policy::FieldMerge, Policy::ServerWins, Policy::ClientWins]
            .into_iter()
            .find(|policy| policy.as_str() == word)
            .ok_or_else(|| UnknownPolicy(word.to_owned()))
    }
}

impl Resolver for Policy {
    fn name(&self) -> &str {
        self.as_str()
    }

    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution {
        match self {
            Policy::FieldMerge => field_merge(input),
            Policy::ServerWins => Resolution::ServerWins,
            Policy::ClientWins => Resolution::ClientWins,
        }
    }
}

fn field_merge(input: &ConflictInput<'_>) -> Resolution {
    match (input.base, input.local, input.remote) {
        // Created here while the server remembers a deletion: the create stands.
        (None, Some(_), None) => Resolution::ClientWins,
        // Deleted on one side: the delete wins.
        (_, _, None) => Resolution::ServerWins,
        (_, None, Some(_)) => Resolution::ClientWins,
        (None, Some(local), Some(remote)) => {
            let mut merged = remote.clone();
            merged.patch(local);
            Resolution::Merged(merged)
        }
        (Some(base), Some(local), Some(remote)) => {
            let mut merged = remote.clone();
            for (name, mine) in local {
                if base.get(name) != Some(mine) {
                    merged.insert(name.clone(), mine.clone());
                }
            }
            Resolution::Merged(merged)
        }
    }
}
