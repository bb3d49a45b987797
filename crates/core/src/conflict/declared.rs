//! The resolver that declared rules make.

use super::rules::{ConflictRules, DeleteRule, FieldRule, Policy};
use super::{ConflictInput, Resolution, Resolver};
use std::collections::BTreeMap;
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
            (Some(local), Some(remote)) => self.edited_twice(input.base, local, remote),
        }
    }
}

impl ConflictRules {
    fn deleted_here(&self) -> Resolution {
        let by_policy = match self.policy {
            Policy::ServerWins => return Resolution::ServerWins,
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

    fn edited_twice(&self, base: Option<&Fields>, local: &Fields, remote: &Fields) -> Resolution {
        match self.policy {
            Policy::FieldMerge => self.field_merge(base, local, remote),
            Policy::ServerWins => Resolution::ServerWins,
            // Its writes reach the server last.
            Policy::ClientWins | Policy::LastWriterWins => Resolution::ClientWins,
            Policy::Manual => manual("changed here and on the server"),
        }
    }

    fn field_merge(&self, base: Option<&Fields>, local: &Fields, remote: &Fields) -> Resolution {
        let (mut fields, mut how) = (remote.clone(), BTreeMap::new());
        for (name, mine) in local {
            let before = base.and_then(|base| base.get(name));
            if base.is_some() && before == Some(mine) {
                continue;
            }
            if base.is_some_and(|_| before == remote.get(name)) || remote.get(name) == Some(mine) {
                fields.insert(name.clone(), mine.clone());
                continue;
            }
            let rule = self.merge.get(name).copied().unwrap_or_default();
            match rule {
                FieldRule::Theirs => {}
                FieldRule::Manual => return manual(&format!("{name} was changed on both sides")),
                _ => {
                    fields.insert(name.clone(), mine.clone());
                }
            }
            how.insert(name.clone(), rule.as_str().to_owned());
        }
        Resolution::Merged { fields, how }
    }
}

fn manual(reason: &str) -> Resolution {
    Resolution::Manual {
        reason: reason.to_owned(),
    }
}
