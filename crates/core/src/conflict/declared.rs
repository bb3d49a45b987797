//! The resolver that declared rules make.

use super::decide::{Decision, decide};
use super::rules::{ConflictRules, DeleteRule, Policy};
use super::{ConflictInput, Resolution, Resolver, manual};
use syncline_protocol::Fields;

impl Resolver for ConflictRules {
    fn name(&self) -> &str {
        self.policy.as_str()
    }

    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution {
        match (input.local, input.remote) {
            (None, None) => Resolution::ServerWins,
            (None, Some(_)) => self.deleted_here(),
            (Some(_), None) => self.deleted_there(input),
            (Some(local), Some(remote)) => self.edited_twice(input, local, remote),
        }
    }
}

impl ConflictRules {
    fn deleted_here(&self) -> Resolution {
        let by_policy = match self.policy {
            Policy::ServerWins => DeleteRule::EditWins,
            Policy::FieldMerge | Policy::ClientWins | Policy::LastWriterWins => {
                DeleteRule::DeleteWins
            }
            Policy::Manual => DeleteRule::Manual,
        };
        match self.deletes.here.unwrap_or(by_policy) {
            DeleteRule::DeleteWins => Resolution::ClientWins,
            DeleteRule::EditWins => Resolution::ServerWins,
            DeleteRule::Manual => manual("deleted here and edited on the server"),
        }
    }

    fn deleted_there(&self, input: &ConflictInput<'_>) -> Resolution {
        let by_policy = match self.policy {
            Policy::ClientWins => DeleteRule::EditWins,
            // Created here while the server remembers a deletion: the create stands.
            Policy::FieldMerge | Policy::LastWriterWins if input.base.is_none() => {
                DeleteRule::EditWins
            }
            Policy::FieldMerge | Policy::LastWriterWins | Policy::ServerWins => {
                DeleteRule::DeleteWins
            }
            Policy::Manual => DeleteRule::Manual,
        };
        match self.deletes.there.unwrap_or(by_policy) {
            DeleteRule::DeleteWins => Resolution::ServerWins,
            DeleteRule::EditWins => Resolution::ClientWins,
            DeleteRule::Manual => manual("edited here and deleted on the server"),
        }
    }

    fn edited_twice(
        &self,
        input: &ConflictInput<'_>,
        local: &Fields,
        remote: &Fields,
    ) -> Resolution {
        match (self.policy, &self.timestamp) {
            (Policy::FieldMerge, _) => self.field_merge(input.base, local, remote),
            (Policy::ServerWins, _) => Resolution::ServerWins,
            (Policy::LastWriterWins, Some(timestamp))
                if !timestamp.mine_is_later(input, local, remote) =>
            {
                Resolution::ServerWins
            }
            // Without a timestamp: its writes reach the server last.
            (Policy::ClientWins | Policy::LastWriterWins, _) => Resolution::ClientWins,
            (Policy::Manual, _) => manual("changed here and on the server"),
        }
    }
}

/// What the declared rules (under the word `declared`) and each policy on its own would make of a
/// conflict, for a person who has to decide it. Of what is declared, a bare policy knows the natural
/// key only.
pub fn what_each_policy_would_do(
    input: &ConflictInput<'_>,
    rules: &ConflictRules,
) -> Vec<(&'static str, Decision)> {
    let bare = Policy::WORDS.iter().map(|(word, policy)| {
        let bare = ConflictRules {
            natural_key: rules.natural_key.clone(),
            ..ConflictRules::from(*policy)
        };
        (*word, decide(&bare, &bare, input))
    });
    let declared = ("declared", decide(rules, rules, input));
    std::iter::once(declared).chain(bare).collect()
}
