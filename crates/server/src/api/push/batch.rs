//! One batch in one transaction: decides every mutation in order, then writes what was decided.
//!
//! Effects are planned in memory. They are numbered only when all is decided, because taking the
//! positions locks the head of the feed; until then a state that the batch itself has made is known
//! by the number of its effect.

use super::parse::Incoming;
use super::record::{Numbered, applied, conflict, read_record};
use super::rules::{self, Current, Decision, Hold, Place};
use crate::schema::Schemas;
use crate::{Entity, EntityKey, Identity, KeyRecord, StorageError, WriteTx};
use std::collections::BTreeMap;
use syncline_protocol::{
    Access, Base, ClientId, ConflictReason, Epoch, Fields, IdempotencyKey, Outcome, PushResponse,
    Scope,
};

type Result<T> = std::result::Result<T, StorageError>;
/// (type, id)
pub(super) type Name<'a> = (&'a str, &'a str);

/// On whose behalf a batch runs, and when.
pub(super) struct Caller<'a> {
    pub(super) identity: &'a Identity,
    pub(super) client: &'a ClientId,
    pub(super) scope: Scope,
    pub(super) now_ms: i64,
}

/// What became of a batch.
pub(super) enum Verdict {
    /// The client id is someone else's; nothing was done.
    ClientMismatch,
    /// Every mutation has its result.
    Decided(PushResponse),
}

/// A result whose positions may not be known yet.
pub(super) enum Draft {
    /// As it will be sent; recorded if it is final.
    Fresh(Outcome),
    /// Recorded by an earlier request.
    Replay(Outcome),
    /// The same key once more in this batch, with the same content.
    SameAs(usize),
    /// Applied, as the state that this effect leaves.
    Applied(usize),
    /// In conflict with the state that this effect leaves.
    Conflict {
        reason: ConflictReason,
        with: usize,
        fields: Option<Fields>,
    },
    /// The key was used for something else, whose record stays as it is.
    KeyReused,
}

/// An effect on one entity.
pub(super) struct Effect<'a> {
    pub(super) name: Name<'a>,
    pub(super) key: &'a IdempotencyKey,
    pub(super) fields: Option<Fields>,
    /// The stored version that it follows, if it is the entity's first effect in the batch.
    pub(super) follows: i64,
}

/// See the module.
pub(super) struct Batch<'a> {
    pub(super) tx: &'a mut dyn WriteTx,
    pub(super) caller: &'a Caller<'a>,
    schemas: &'a Schemas,
    pub(super) epoch: Epoch,
    head: i64,
    /// Entities as the batch sees them.
    seen: BTreeMap<Name<'a>, Option<Current>>,
    /// Entities that wait because this mutation was not applied.
    blocked: BTreeMap<Name<'a>, IdempotencyKey>,
    /// Where a key stands first in the batch.
    keys: BTreeMap<&'a IdempotencyKey, usize>,
    pub(super) drafts: Vec<Draft>,
    pub(super) effects: Vec<Effect<'a>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        tx: &'a mut dyn WriteTx,
        caller: &'a Caller<'a>,
        schemas: &'a Schemas,
    ) -> Self {
        Self {
            tx,
            caller,
            schemas,
            epoch: Epoch::new(String::new()),
            head: 0,
            seen: BTreeMap::new(),
            blocked: BTreeMap::new(),
            keys: BTreeMap::new(),
            drafts: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub(super) fn run(mut self, mutations: &'a [Incoming]) -> Result<Verdict> {
        let Caller {
            identity,
            client,
            scope,
            now_ms,
        } = self.caller;
        let principal = &identity.principal;
        let bound = self
            .tx
            .bind_client(&principal.tenant, client, &principal.subject, *now_ms)?;
        if bound != principal.subject {
            return Ok(Verdict::ClientMismatch);
        }
        self.epoch = self.tx.epoch()?;
        self.head = self.tx.head(&principal.tenant, scope)?;
        for (index, incoming) in mutations.iter().enumerate() {
            let draft = self.judge(mutations, incoming)?;
            if !self.is_applied(&draft) {
                let because = match &draft {
                    Draft::Fresh(Outcome::Skipped { because }) => because.clone(),
                    _ => incoming.key.clone(),
                };
                self.blocked.entry(name(incoming)).or_insert(because);
            }
            self.keys.entry(&incoming.key).or_insert(index);
            self.drafts.push(draft);
        }
        self.commit(mutations)
    }

    fn is_applied(&self, draft: &Draft) -> bool {
        match draft {
            Draft::Applied(_) => true,
            Draft::Fresh(outcome) | Draft::Replay(outcome) => {
                matches!(outcome, Outcome::Applied { .. })
            }
            Draft::SameAs(index) => self
                .drafts
                .get(*index)
                .is_some_and(|draft| self.is_applied(draft)),
            Draft::Conflict { .. } | Draft::KeyReused => false,
        }
    }

    /// The order of the checks.
    fn judge(&mut self, mutations: &'a [Incoming], incoming: &'a Incoming) -> Result<Draft> {
        if let Some(draft) = self.earlier(mutations, incoming)? {
            return Ok(draft);
        }
        if let Some(because) = self.blocked.get(&name(incoming)) {
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
        let current = self.current(name(incoming))?;
        let hold = self.hold(mutations, incoming, current.as_ref())?;
        let decision = rules::decide(incoming, current.as_ref(), hold, self.schemas);
        Ok(self.plan(incoming, current, decision))
    }

    /// What became of the key before, in this batch or in an earlier request.
    fn earlier(&mut self, mutations: &[Incoming], incoming: &Incoming) -> Result<Option<Draft>> {
        if let Some(index) = self.keys.get(&incoming.key) {
            let same = mutations
                .get(*index)
                .is_some_and(|first| first.fingerprint == incoming.fingerprint);
            return Ok(Some(if same {
                Draft::SameAs(*index)
            } else {
                Draft::KeyReused
            }));
        }
        let tenant = &self.caller.identity.principal.tenant;
        let record = self
            .tx
            .claim_key(tenant, self.caller.client, &incoming.key)?;
        Ok(match record {
            None => None,
            Some(KeyRecord {
                fingerprint: Some(used),
                ..
            }) if used != incoming.fingerprint => Some(Draft::KeyReused),
            Some(record) => Some(Draft::Replay(read_record(&record)?.outcome)),
        })
    }

    fn current(&mut self, name: Name<'a>) -> Result<Option<Current>> {
        if let Some(current) = self.seen.get(&name) {
            return Ok(current.clone());
        }
        let stored = self.tx.entity(self.entity_key(name))?;
        let current = stored.map(read_entity).transpose()?;
        self.seen.insert(name, current.clone());
        Ok(current)
    }

    fn hold(
        &self,
        mutations: &[Incoming],
        incoming: &Incoming,
        current: Option<&Current>,
    ) -> Result<Hold> {
        let stored = match current.map(|current| current.place) {
            Some(Place::Stored { version, seq }) => Some((version, seq)),
            _ => None,
        };
        let holds = match &incoming.base {
            None => false,
            Some(Base::Position {
                epoch,
                scope,
                position,
            }) => {
                let known =
                    *epoch == self.epoch && *scope == self.caller.scope && *position <= self.head;
                known && stored.is_some_and(|(_, seq)| seq <= *position)
            }
            Some(Base::Version { epoch, version }) => {
                *epoch == self.epoch
                    && stored.is_some_and(|(now, _)| now.to_string() == version.as_str())
            }
            Some(Base::After(key)) => match self.keys.get(key) {
                Some(index) => return Ok(self.holds_after(mutations, *index, incoming, current)),
                None => self.holds_after_record(key, incoming, stored)?,
            },
        };
        Ok(if holds { Hold::Yes } else { Hold::No })
    }

    /// `after` a mutation of this batch.
    fn holds_after(
        &self,
        mutations: &[Incoming],
        mut index: usize,
        incoming: &Incoming,
        current: Option<&Current>,
    ) -> Hold {
        let place = current.map(|current| current.place);
        if let Some(Draft::SameAs(first)) = self.drafts.get(index) {
            index = *first;
        }
        let (Some(earlier), Some(draft)) = (mutations.get(index), self.drafts.get(index)) else {
            return Hold::No;
        };
        if !self.is_applied(draft) {
            return Hold::Skip {
                because: earlier.key.clone(),
            };
        }
        let left_by_it = match draft {
            Draft::Applied(effect) => place == Some(Place::Planned(*effect)),
            Draft::Replay(outcome) | Draft::Fresh(outcome) => is_place_of(outcome, place),
            _ => false,
        };
        if left_by_it && name(earlier) == name(incoming) {
            Hold::Yes
        } else {
            Hold::No
        }
    }

    /// `after` a mutation of an earlier request.
    fn holds_after_record(
        &self,
        key: &IdempotencyKey,
        incoming: &Incoming,
        stored: Option<(i64, i64)>,
    ) -> Result<bool> {
        let tenant = &self.caller.identity.principal.tenant;
        let Some(record) = self.tx.key_record(tenant, self.caller.client, key)? else {
            return Ok(false);
        };
        let record = read_record(&record)?;
        let place = stored.map(|(version, seq)| Place::Stored { version, seq });
        let same = (record.entity_type.as_str(), record.id.as_str()) == name(incoming);
        Ok(same && is_place_of(&record.outcome, place))
    }

    fn plan(
        &mut self,
        incoming: &'a Incoming,
        current: Option<Current>,
        decision: Decision,
    ) -> Draft {
        match decision {
            Decision::Answer(outcome) => Draft::Fresh(outcome),
            Decision::Done(Place::Planned(effect)) => Draft::Applied(effect),
            Decision::Done(Place::Stored { version, seq }) => {
                Draft::Fresh(applied(Numbered { version, seq }))
            }
            Decision::Conflict(reason) => match current {
                None => Draft::Fresh(Outcome::Conflict {
                    reason,
                    remote: None,
                }),
                Some(Current { place, fields }) => match place {
                    Place::Planned(with) => Draft::Conflict {
                        reason,
                        with,
                        fields,
                    },
                    Place::Stored { version, seq } => {
                        Draft::Fresh(conflict(reason, Numbered { version, seq }, fields))
                    }
                },
            },
            Decision::Apply(fields) => {
                let follows = match current.map(|current| current.place) {
                    Some(Place::Stored { version, .. }) => version,
                    _ => 0,
                };
                let effect = self.effects.len();
                let place = Place::Planned(effect);
                self.seen.insert(
                    name(incoming),
                    Some(Current {
                        place,
                        fields: fields.clone(),
                    }),
                );
                self.effects.push(Effect {
                    name: name(incoming),
                    key: &incoming.key,
                    fields,
                    follows,
                });
                Draft::Applied(effect)
            }
        }
    }

    fn entity_key(&self, (entity_type, id): Name<'a>) -> EntityKey<'a> {
        EntityKey {
            tenant: &self.caller.identity.principal.tenant,
            entity_type,
            id,
        }
    }
}

fn name(incoming: &Incoming) -> Name<'_> {
    (&incoming.entity_type, &incoming.id)
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

fn is_place_of(outcome: &Outcome, place: Option<Place>) -> bool {
    match (outcome, place) {
        (Outcome::Applied { version, .. }, Some(Place::Stored { version: now, .. })) => {
            version.as_str() == now.to_string()
        }
        _ => false,
    }
}
