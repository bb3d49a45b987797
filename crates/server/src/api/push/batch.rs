//! One batch in one transaction: decides every mutation in order, then writes what was decided.
//!
//! Effects are planned in memory. They are numbered only when all is decided, because taking the
//! positions locks the head of the feed; until then a state that the batch itself has made is known
//! by the number of its effect.

use super::parse::Incoming;
use super::rules::{self, Current, Decision, Hold, Place};
use super::validate::rejected;
use crate::schema::Schemas;
use crate::{Entity, EntityKey, Identity, KeyRecord, StorageError, WriteTx};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{
    Access, Base, ClientId, ConflictReason, EntityType, Epoch, Fields, IdempotencyKey, Outcome,
    PushResponse, PushResult, RemoteState, Scope, ServerVersion,
};

type Result<T> = std::result::Result<T, StorageError>;
/// (type, id)
type Name<'a> = (&'a str, &'a str);

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

/// What is recorded for a key.
#[derive(Serialize, Deserialize)]
pub(crate) struct Recorded {
    #[serde(rename = "type")]
    entity_type: String,
    id: String,
    pub(crate) outcome: Outcome,
}

/// A result whose positions may not be known yet.
enum Draft {
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
struct Effect<'a> {
    name: Name<'a>,
    key: &'a IdempotencyKey,
    fields: Option<Fields>,
    /// The stored version that it follows, if it is the entity's first effect in the batch.
    follows: i64,
}

/// Version and position of an effect.
#[derive(Clone, Copy)]
struct Numbered {
    version: i64,
    seq: i64,
}

/// See the module.
pub(super) struct Batch<'a> {
    tx: &'a mut dyn WriteTx,
    caller: &'a Caller<'a>,
    schemas: &'a Schemas,
    epoch: Epoch,
    head: i64,
    /// Entities as the batch sees them.
    seen: BTreeMap<Name<'a>, Option<Current>>,
    /// Entities that wait because this mutation was not applied.
    blocked: BTreeMap<Name<'a>, IdempotencyKey>,
    /// Where a key stands first in the batch.
    keys: BTreeMap<&'a IdempotencyKey, usize>,
    drafts: Vec<Draft>,
    effects: Vec<Effect<'a>>,
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
            Some(record) if record.fingerprint != incoming.fingerprint => Some(Draft::KeyReused),
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
            Some(Base::Version(base)) => {
                stored.is_some_and(|(version, _)| version.to_string() == base.as_str())
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

    /// Takes the positions, then writes rows and outcomes.
    fn commit(mut self, mutations: &'a [Incoming]) -> Result<Verdict> {
        let numbers = self.write_effects()?;
        let drafts = std::mem::take(&mut self.drafts);
        let mut results: Vec<PushResult> = Vec::with_capacity(drafts.len());
        for (incoming, draft) in mutations.iter().zip(drafts) {
            let (outcome, duplicate) = match draft {
                Draft::Fresh(outcome) => (outcome, false),
                Draft::Replay(outcome) => (outcome, true),
                Draft::KeyReused => (key_reused(), false),
                Draft::SameAs(index) => match results.get(index) {
                    Some(first) => (first.outcome.clone(), first.outcome.is_final()),
                    None => return Err(StorageError::internal("a result refers to a later one")),
                },
                Draft::Applied(effect) => (applied(number(&numbers, effect)?), false),
                Draft::Conflict {
                    reason,
                    with,
                    fields,
                } => (conflict(reason, number(&numbers, with)?, fields), false),
            };
            let reused = matches!(&outcome, Outcome::Rejected { code, .. } if code == KEY_REUSED);
            if outcome.is_final() && !duplicate && !reused {
                self.record(incoming, &outcome)?;
            }
            results.push(PushResult {
                key: incoming.key.clone(),
                outcome,
                duplicate,
            });
        }
        Ok(Verdict::Decided(PushResponse {
            epoch: self.epoch,
            results,
        }))
    }

    fn write_effects(&mut self) -> Result<Vec<Numbered>> {
        if self.effects.is_empty() {
            return Ok(Vec::new());
        }
        let tenant = &self.caller.identity.principal.tenant;
        let types: BTreeSet<&str> = self.effects.iter().map(|effect| effect.name.0).collect();
        for entity_type in types {
            let entity_type = EntityType::from(entity_type);
            self.tx
                .register_entity_type(tenant, &entity_type, self.caller.now_ms)?;
        }
        let count = i64::try_from(self.effects.len()).map_err(StorageError::internal)?;
        let mut seq = self.tx.bump_head(tenant, &self.caller.scope, count)? - count;
        let mut versions: BTreeMap<Name<'a>, i64> = BTreeMap::new();
        let mut last: BTreeMap<Name<'a>, usize> = BTreeMap::new();
        let mut numbers = Vec::with_capacity(self.effects.len());
        for (index, effect) in self.effects.iter().enumerate() {
            seq += 1;
            let before = versions.get(&effect.name).unwrap_or(&effect.follows);
            let version = seq.max(before + 1);
            versions.insert(effect.name, version);
            last.insert(effect.name, index);
            numbers.push(Numbered { version, seq });
        }
        for (index, (effect, number)) in self.effects.iter().zip(&numbers).enumerate() {
            if last.get(&effect.name) != Some(&index) {
                continue; // a later effect of the batch replaces it; no reader ever sees it
            }
            let fields = effect.fields.as_ref().map(serde_json::to_string);
            let entity = Entity {
                scope: self.caller.scope.clone(),
                version: number.version,
                seq: number.seq,
                fields: fields.transpose().map_err(StorageError::internal)?,
                key: Some(effect.key.clone()),
            };
            let key = EntityKey {
                tenant,
                entity_type: effect.name.0,
                id: effect.name.1,
            };
            self.tx.put_entity(key, &entity)?;
        }
        Ok(numbers)
    }

    fn record(&mut self, incoming: &Incoming, outcome: &Outcome) -> Result<()> {
        let recorded = Recorded {
            entity_type: incoming.entity_type.clone(),
            id: incoming.id.clone(),
            outcome: outcome.clone(),
        };
        let record = KeyRecord {
            fingerprint: incoming.fingerprint,
            outcome: serde_json::to_string(&recorded).map_err(StorageError::internal)?,
        };
        let tenant = &self.caller.identity.principal.tenant;
        let Caller { client, now_ms, .. } = self.caller;
        self.tx
            .record_outcome(tenant, client, &incoming.key, &record, *now_ms)
    }

    fn entity_key(&self, (entity_type, id): Name<'a>) -> EntityKey<'a> {
        EntityKey {
            tenant: &self.caller.identity.principal.tenant,
            entity_type,
            id,
        }
    }
}

const KEY_REUSED: &str = "key-reused";

fn key_reused() -> Outcome {
    rejected(
        KEY_REUSED,
        "the key was used before for a mutation with other content",
    )
}

fn name(incoming: &Incoming) -> Name<'_> {
    (&incoming.entity_type, &incoming.id)
}

pub(crate) fn read_record(record: &KeyRecord) -> Result<Recorded> {
    serde_json::from_str(&record.outcome).map_err(StorageError::internal)
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

fn number(numbers: &[Numbered], effect: usize) -> Result<Numbered> {
    let found = numbers.get(effect).copied();
    found.ok_or_else(|| StorageError::internal("a result refers to an effect that is not there"))
}

fn applied(Numbered { version, seq }: Numbered) -> Outcome {
    Outcome::Applied {
        version: ServerVersion::new(version.to_string()),
        position: seq,
        fields: None,
    }
}

fn conflict(reason: ConflictReason, number: Numbered, fields: Option<Fields>) -> Outcome {
    Outcome::Conflict {
        reason,
        remote: Some(RemoteState {
            version: ServerVersion::new(number.version.to_string()),
            position: number.seq,
            fields,
        }),
    }
}
