//! One batch in one transaction: decides every mutation in order, then writes what was decided.
//!
//! Effects are planned in memory. They are numbered only when all is decided, because taking the
//! positions locks the head of the feed; until then a state that the batch itself has made is known
//! by the mutation that made it. When a member of a group is not applied, the batch is planned once
//! more without that group, so that nothing rests on what will not happen.

use super::evolve::{self, ServerValues};
use super::exchange;
use super::keys::Known;
use super::parse::{Incoming, Incomings};
use super::record::{Numbered, applied, conflict};
use super::rules::{self, Current, Decision, Place};
use super::validate::rejected;
use crate::declared::Declared;
use crate::mint::Mint;
use crate::{Entity, EntityKey, Identity, IndexEntry, StorageError, WriteTx};
use std::collections::BTreeMap;
use syncline_protocol::{
    Access, ClientId, ConflictReason, EntityId, Epoch, Fields, IdempotencyKey, Outcome,
    PushResponse, Scope,
};

pub(super) type Result<T> = std::result::Result<T, StorageError>;
/// (type, id)
pub(super) type Name = (String, String);

/// On whose behalf a batch runs, and when.
pub(super) struct Caller<'a> {
    pub(super) identity: &'a Identity,
    pub(super) scope: Scope,
    pub(super) now_ms: i64,
    pub(super) declared: &'a Declared,
    pub(super) mint: &'a Mint,
}

impl Caller<'_> {
    pub(super) fn tenant(&self) -> &str {
        &self.identity.principal.tenant
    }
}

/// What became of a batch.
pub(super) enum Verdict {
    /// A client id is someone else's; nothing was done.
    ClientMismatch,
    /// Another file answers to the same client id; nothing was done.
    Forked,
    /// Every mutation has its result.
    Decided(PushResponse),
}

/// A result whose positions may not be known yet. Mutations are named by their index.
#[derive(Debug, Clone)]
pub(super) enum Draft {
    /// As it will be sent; recorded if it is final.
    Fresh(Outcome),
    /// Recorded by an earlier request.
    Replay(Outcome),
    /// The same key once more in this batch, with the same content.
    SameAs(usize),
    /// Applied, as the state that the effect of this mutation leaves.
    Applied {
        by: usize,
        id: Option<EntityId>,
        told: Told,
    },
    /// In conflict with the state that the effect of this mutation leaves.
    Conflict { reason: ConflictReason, with: usize },
    /// The key was used for something else, whose record stays as it is.
    KeyReused,
}

/// Whether `applied` tells the entity's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The client knows them.
    Nothing,
    /// All of them.
    Fields,
}

/// An effect on one entity.
pub(super) struct Effect {
    pub(super) name: Name,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) fields: Option<Fields>,
    /// Fields that are to show the version.
    pub(super) version_fields: Vec<String>,
    /// The stored version that it follows, if it is the entity's first effect in the batch.
    pub(super) follows: i64,
}

/// What has been decided so far.
#[derive(Default)]
pub(super) struct Plan {
    /// Entities that the batch has changed.
    seen: BTreeMap<Name, Current>,
    /// Entities that wait because this mutation was not applied.
    blocked: BTreeMap<Name, IdempotencyKey>,
    /// Where a key stands first in the batch.
    pub(super) keys: BTreeMap<IdempotencyKey, usize>,
    /// The entity that each mutation is about; not always the one that it names.
    pub(super) targets: Vec<Name>,
    pub(super) drafts: Vec<Draft>,
    pub(super) effects: BTreeMap<usize, Effect>,
    /// The greatest integer ids that the batch has made, by type.
    pub(super) last_ids: BTreeMap<String, i64>,
    /// What is put into the indexes and taken out of them.
    pub(super) index: BTreeMap<IndexEntry, bool>,
}

/// The member of a group that was not applied.
struct Failure {
    member: usize,
    draft: Draft,
}

/// See the module.
pub(super) struct Batch<'a> {
    pub(super) tx: &'a mut dyn WriteTx,
    pub(super) caller: &'a Caller<'a>,
    pub(super) push: &'a Incomings,
    pub(super) epoch: Epoch,
    pub(super) head: i64,
    /// Entities as they are stored.
    stored: BTreeMap<Name, Option<Current>>,
    /// What was recorded for the keys before, by mutation.
    pub(super) known: BTreeMap<usize, Known>,
    failed: BTreeMap<usize, Failure>,
    pub(super) plan: Plan,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        tx: &'a mut dyn WriteTx,
        caller: &'a Caller<'a>,
        push: &'a Incomings,
    ) -> Self {
        Self {
            tx,
            caller,
            push,
            epoch: Epoch::new(String::new()),
            head: 0,
            stored: BTreeMap::new(),
            known: BTreeMap::new(),
            failed: BTreeMap::new(),
            plan: Plan::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<Verdict> {
        if !self.bind_clients()? {
            return Ok(Verdict::ClientMismatch);
        }
        self.epoch = self.tx.epoch()?;
        let mut token = None;
        if self.push.exchanges {
            token = match exchange::exchange(self.tx, self.caller, self.push, &mut self.epoch)? {
                exchange::Exchanged::Forked => return Ok(Verdict::Forked),
                exchange::Exchanged::Token(token) => Some(token),
            };
        }
        self.head = self.tx.head(self.caller.tenant(), &self.caller.scope)?;
        if !self.push.mutations.is_empty() {
            self.renew_indexes()?;
        }
        while let Some((group, failure)) = self.pass()? {
            self.failed.insert(group, failure);
            self.plan = Plan::default();
        }
        let response = self.commit(token)?;
        Ok(Verdict::Decided(response))
    }

    /// Whether all client ids that the push speaks for are the caller's own.
    fn bind_clients(&mut self) -> Result<bool> {
        let principal = &self.caller.identity.principal;
        let mut clients: Vec<&ClientId> = self.push.inherited.values().collect();
        clients.push(&self.push.client);
        clients.sort();
        clients.dedup();
        for client in clients {
            let now_ms = self.caller.now_ms;
            let subject = &principal.subject;
            let bound = self
                .tx
                .bind_client(&principal.tenant, client, subject, now_ms)?;
            if bound != *subject {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Plans all mutations, or says which group cannot be part of the plan.
    fn pass(&mut self) -> Result<Option<(usize, Failure)>> {
        for (index, incoming) in self.push.mutations.iter().enumerate() {
            let target = self.target(incoming)?;
            self.plan.targets.push(target);
            let draft = self.judge(index)?;
            if !self.is_applied(&draft) {
                if let Some(group) = incoming.group
                    && !self.failed.contains_key(&group)
                {
                    let draft = self.outside_of(group, draft);
                    let member = index;
                    return Ok(Some((group, Failure { member, draft })));
                }
                let because = match &draft {
                    Draft::Fresh(Outcome::Skipped { because }) => because.clone(),
                    _ => incoming.key.clone(),
                };
                for name in [incoming.name(), self.plan.targets[index].clone()] {
                    let blocked = &mut self.plan.blocked;
                    blocked.entry(name).or_insert_with(|| because.clone());
                }
            }
            let keys = &mut self.plan.keys;
            keys.entry(incoming.key.clone()).or_insert(index);
            self.plan.drafts.push(draft);
        }
        Ok(None)
    }

    /// What is to be told of a member once the effects of its group are gone.
    fn outside_of(&self, group: usize, draft: Draft) -> Draft {
        let inside = |with: usize| {
            let member = self.push.mutations.get(with);
            member.is_some_and(|member| member.group == Some(group))
        };
        match draft {
            Draft::Conflict { with, .. } if inside(with) => Draft::Fresh(contradiction()),
            other => other,
        }
    }

    pub(super) fn is_applied(&self, draft: &Draft) -> bool {
        match draft {
            Draft::Applied { .. } => true,
            Draft::Fresh(outcome) | Draft::Replay(outcome) => {
                matches!(outcome, Outcome::Applied { .. })
            }
            Draft::SameAs(index) => {
                let first = self.plan.drafts.get(*index);
                first.is_some_and(|draft| self.is_applied(draft))
            }
            Draft::Conflict { .. } | Draft::KeyReused => false,
        }
    }

    /// The order of the checks.
    fn judge(&mut self, index: usize) -> Result<Draft> {
        let incoming = &self.push.mutations[index];
        if let Some(draft) = self.earlier(index)? {
            return Ok(draft);
        }
        if let Some(failure) = incoming.group.and_then(|group| self.failed.get(&group)) {
            return Ok(self.left_out(index, failure));
        }
        let blocked = &self.plan.blocked;
        let waits_for = blocked.get(&incoming.name());
        let waits_for = waits_for.or_else(|| blocked.get(&self.plan.targets[index]));
        if let Some(because) = waits_for {
            let because = because.clone();
            return Ok(Draft::Fresh(Outcome::Skipped { because }));
        }
        if self.caller.identity.access != Access::Write {
            return Ok(Draft::Fresh(Outcome::Forbidden {
                detail: "the token grants reading only".to_owned(),
            }));
        }
        if let Some(flaw) = &incoming.flaw {
            return Ok(Draft::Fresh(flaw.clone()));
        }
        if let Some(refused) = self.assign(index)? {
            return Ok(Draft::Fresh(refused));
        }
        let target = self.plan.targets[index].clone();
        let current = self.current(&target)?;
        let hold = self.hold(index, current.as_ref())?;
        let decision = rules::decide(incoming, current.as_ref(), hold);
        self.draft(index, target, current, decision)
    }

    /// A member of a group that is not applied.
    fn left_out(&self, index: usize, failure: &Failure) -> Draft {
        if index == failure.member {
            return failure.draft.clone();
        }
        let because = match &failure.draft {
            Draft::Fresh(Outcome::Skipped { because }) => because.clone(),
            _ => self.push.mutations[failure.member].key.clone(),
        };
        Draft::Fresh(Outcome::Skipped { because })
    }

    pub(super) fn current(&mut self, name: &Name) -> Result<Option<Current>> {
        if let Some(current) = self.plan.seen.get(name) {
            return Ok(Some(current.clone()));
        }
        if let Some(stored) = self.stored.get(name) {
            return Ok(stored.clone());
        }
        let stored = self.tx.entity(EntityKey {
            tenant: self.caller.tenant(),
            entity_type: &name.0,
            id: &name.1,
        })?;
        let stored = stored.map(read_entity).transpose()?;
        self.stored.insert(name.clone(), stored.clone());
        Ok(stored)
    }

    fn draft(
        &mut self,
        index: usize,
        target: Name,
        current: Option<Current>,
        decision: Decision,
    ) -> Result<Draft> {
        let incoming = &self.push.mutations[index];
        let id = told_id(incoming, &target)?;
        let fields = match decision {
            Decision::Skip { because } => return Ok(Draft::Fresh(Outcome::Skipped { because })),
            Decision::Done(Place::Planned(by)) => {
                let told = Told::Nothing;
                return Ok(Draft::Applied { by, id, told });
            }
            Decision::Done(Place::Stored { version, seq }) => {
                let outcome = applied(Numbered { version, seq }, None, id);
                return Ok(Draft::Fresh(outcome));
            }
            Decision::Conflict(reason) => return Ok(in_conflict(reason, current)),
            Decision::Bury => None,
            Decision::Write => match self.evolve(incoming, current.as_ref()) {
                Ok(fields) => Some(fields),
                Err(refused) => return Ok(Draft::Fresh(refused)),
            },
        };
        let before = current.as_ref().and_then(|current| current.fields.as_ref());
        if let Some(refused) = self.constrain(&target, before, fields.as_ref())? {
            return Ok(Draft::Fresh(refused));
        }
        let told = match fields.is_some() && evolve::is_told(incoming, self.caller.declared) {
            true => Told::Fields,
            false => Told::Nothing,
        };
        self.note_id(&target)?;
        self.plan_effect(index, target, current, fields);
        Ok(Draft::Applied {
            by: index,
            id,
            told,
        })
    }

    fn evolve(
        &self,
        incoming: &Incoming,
        current: Option<&Current>,
    ) -> std::result::Result<Fields, Outcome> {
        let values = ServerValues {
            now_ms: self.caller.now_ms,
            subject: &self.caller.identity.principal.subject,
        };
        let before = current.and_then(|current| current.fields.as_ref());
        evolve::evolve(incoming, before, self.caller.declared, &values)
    }

    fn plan_effect(
        &mut self,
        index: usize,
        target: Name,
        current: Option<Current>,
        fields: Option<Fields>,
    ) {
        let follows = match current.map(|current| current.place) {
            Some(Place::Stored { version, .. }) => version,
            _ => 0,
        };
        let left = Current {
            place: Place::Planned(index),
            fields: fields.clone(),
        };
        self.plan.seen.insert(target.clone(), left);
        let incoming = &self.push.mutations[index];
        let version_fields = evolve::version_fields(&target.0, self.caller.declared);
        let effect = Effect {
            name: target,
            key: incoming.keyed.then(|| incoming.key.clone()),
            fields,
            version_fields,
            follows,
        };
        self.plan.effects.insert(index, effect);
    }
}

fn in_conflict(reason: ConflictReason, current: Option<Current>) -> Draft {
    let Some(Current { place, fields }) = current else {
        let remote = None;
        return Draft::Fresh(Outcome::Conflict { reason, remote });
    };
    match place {
        Place::Planned(with) => Draft::Conflict { reason, with },
        Place::Stored { version, seq } => {
            Draft::Fresh(conflict(reason, Numbered { version, seq }, fields))
        }
    }
}

/// The id to tell, when it is not the one that was sent.
fn told_id(incoming: &Incoming, target: &Name) -> Result<Option<EntityId>> {
    if incoming.id == target.1 {
        return Ok(None);
    }
    let id = EntityId::parse(target.1.as_str()).map_err(StorageError::internal)?;
    Ok(Some(id))
}

pub(super) fn contradiction() -> Outcome {
    rejected(
        "group",
        "it is in conflict with another mutation of its own group, so the group can never apply",
    )
}

fn read_entity(entity: Entity) -> Result<Current> {
    let fields = entity.fields.as_deref().map(serde_json::from_str);
    Ok(Current {
        place: Place::Stored {
            version: entity.version,
            seq: entity.seq,
        },
        fields: fields.transpose().map_err(StorageError::internal)?,
    })
}
