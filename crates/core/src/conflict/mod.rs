//! Conflicts: what a resolver is shown, and what it may decide.
//!
//! | file | what it is |
//! |---|---|
//! | this one | the question ([`ConflictInput`]) and the answer ([`Resolution`]), the same for push and pull |
//! | `rules.rs` | what can be declared for an entity type: [`ConflictRules`], in the words of `syncline.toml` |
//! | `declared.rs` | the resolver that declared rules make: policies and delete rules |
//! | `merge.rs` | field merge: a rule per field |
//! | `set.rs`, `text.rs`, `number.rs` | JSON arrays as sets, three-way merge of texts, exact numbers |
//! | `timestamp.rs` | which of two rows was written later |
//! | `invariant.rs` | natural keys and invariants |
//! | `decide.rs` | asks a resolver, checks its answer, and works out what follows: the row, the record |
//! | `rebase.rs` | rewrites the pending mutations on the new base |
//!
//! The same resolver serves both sides: a push that the server answers with *conflict*, and a
//! pulled change to an entity with unsettled local mutations. A resolver is pure: values in, a
//! decision out. What follows from the decision is worked out by `decide`, never by a resolver.

mod decide;
mod declared;
mod invariant;
mod merge;
mod number;
mod rebase;
mod rules;
mod set;
mod text;
mod timestamp;

pub use decide::{Decision, FieldOutcome, Lost, Settled, Took, decide};
pub use declared::what_each_policy_would_do;
pub use rebase::{Rebased, Rewrite, changed, moved, rebase};
pub use rules::{
    Bound, ConflictRules, DeleteRule, DeleteRules, FieldRule, Invariant, Policy, RuleError,
    TimeUnit, Timestamp, UnknownWord,
};

use crate::EntityRef;
use std::collections::BTreeMap;
use syncline_protocol::{ConflictReason, Fields, Operation};

/// Everything that a resolver may look at. `None` in place of fields: the entity is not there.
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
    /// The unsettled local mutations of the entity, in local order. None of them may have been sent
    /// without a final outcome (E5).
    pub pending: &'a [PendingMutation],
    /// How it showed.
    pub cause: &'a ConflictCause,
    /// The server's time as far as it is known, in milliseconds since 1970: a timestamp beyond it
    /// lies in the future.
    pub server_time_ms: Option<i64>,
}

/// A [`ConflictInput`] that owns its values: for a resolver that runs in a thread of its own.
#[derive(Debug, Clone)]
pub struct OwnedConflictInput {
    /// As in [`ConflictInput`], and so are the others.
    pub entity: EntityRef,
    /// The last agreed state.
    pub base: Option<Fields>,
    /// The local row.
    pub local: Option<Fields>,
    /// The remote state.
    pub remote: Option<Fields>,
    /// The unsettled local mutations.
    pub pending: Vec<PendingMutation>,
    /// How it showed.
    pub cause: ConflictCause,
    /// The server's time, in milliseconds since 1970.
    pub server_time_ms: Option<i64>,
}

impl From<&ConflictInput<'_>> for OwnedConflictInput {
    fn from(input: &ConflictInput<'_>) -> Self {
        Self {
            entity: input.entity.clone(),
            base: input.base.cloned(),
            local: input.local.cloned(),
            remote: input.remote.cloned(),
            pending: input.pending.to_vec(),
            cause: input.cause.clone(),
            server_time_ms: input.server_time_ms,
        }
    }
}

impl OwnedConflictInput {
    /// As a resolver is shown it.
    pub fn input(&self) -> ConflictInput<'_> {
        ConflictInput {
            entity: &self.entity,
            base: self.base.as_ref(),
            local: self.local.as_ref(),
            remote: self.remote.as_ref(),
            pending: &self.pending,
            cause: &self.cause,
            server_time_ms: self.server_time_ms,
        }
    }
}

/// An unsettled local mutation, as a resolver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingMutation {
    /// Its id, for records and logs.
    pub mutation: String,
    /// What it does.
    pub op: Operation,
    /// The fields that it writes: all of a create, the changed ones of an update, none of a delete.
    pub fields: Fields,
}

/// How a conflict showed itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflictCause {
    /// The server refused a pushed mutation for this reason.
    Push(ConflictReason),
    /// A change was pulled for an entity with unsettled mutations.
    Pull,
    /// A row cannot be written here: a constraint of the local schema forbids it.
    Violation {
        /// Which, in the words of the database: `UNIQUE constraint failed: task.title`.
        constraint: String,
        /// The row in the way, where one is known.
        other: Option<EntityRef>,
    },
}

impl ConflictCause {
    /// The HTTP status that the native protocol's refusal stands for: 412 for a stale base, 409 for
    /// an id that is taken, 404 for an entity that is not there.
    pub fn status(&self) -> Option<u16> {
        match self {
            ConflictCause::Push(ConflictReason::Stale) => Some(412),
            ConflictCause::Push(ConflictReason::Exists) => Some(409),
            ConflictCause::Push(ConflictReason::Deleted | ConflictReason::Missing) => Some(404),
            ConflictCause::Pull | ConflictCause::Violation { .. } => None,
        }
    }
}

/// What a resolver decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The entity is to have these fields. What is still to be pushed follows from them; `how` says
    /// of fields which rule made them, for the record.
    Merged {
        /// All fields of the row.
        fields: Fields,
        /// Field to the word of the rule that decided it, where both sides had changed it.
        how: BTreeMap<String, String>,
    },
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

/// Decides conflicts of one entity type. Pure: the same input gives the same resolution. It is given
/// values only; there is nothing in its hands to do I/O with. It is not asked where only one side
/// changed something, or both did the same.
pub trait Resolver: Send + Sync {
    /// The rule's name in records and logs.
    fn name(&self) -> &str;

    /// Decides.
    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution;
}

fn manual(reason: &str) -> Resolution {
    Resolution::Manual {
        reason: reason.to_owned(),
    }
}
