//! The reference server: what the protocol promises, as plainly as it can be said. Imports nothing of
//! core, so that a mistake there cannot be made here as well.
//!
//! Keys are recorded with their bytes and outcomes for ever, versions and positions never fall within
//! an epoch, a batch goes in order, a group goes all or none. Every effect is noted for the ledger.

use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{
    Base, ClientId, ConflictReason, EntityId, Epoch, ExchangeToken, Fields, IdempotencyKey,
    Mutation, MutationId, Operation, Outcome, PushResponse, PushResult, RemoteState, ServerVersion,
    Value,
};

/// An entity as it is, deleted ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) version: i64,
    pub(crate) position: i64,
    /// `None`: a tombstone.
    pub(crate) fields: Option<Fields>,
    pub(crate) key: Option<IdempotencyKey>,
}

/// One mutation that took effect.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) mutation: MutationId,
    pub(crate) covers: Vec<MutationId>,
    pub(crate) entity: EntityId,
    pub(crate) op: Operation,
    pub(crate) fields: Fields,
    /// Who it was done for.
    pub(crate) subject: u8,
}

/// A mutation as it arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) bytes: &'a str,
    pub(crate) origin: Option<&'a ClientId>,
    pub(crate) group: Option<&'a str>,
}

/// A push as it arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Push<'a> {
    pub(crate) client: &'a ClientId,
    pub(crate) subject: u8,
    pub(crate) token: Option<&'a ExchangeToken>,
    pub(crate) mutations: &'a [Sent<'a>],
}

/// Why a push as a whole is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A client id is someone else's.
    Mismatch,
    /// Two files call themselves the same installation.
    Forked,
    /// Not a mutation.
    Malformed,
    /// Handling this batch breaks the server, every time.
    Broken,
}

#[derive(Debug, Clone)]
struct Recorded {
    bytes: String,
    outcome: Outcome,
}

#[derive(Debug, Clone, Default)]
struct Bound {
    subject: u8,
    current: Option<u64>,
    before: Option<u64>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    pub(crate) epoch: u32,
    pub(crate) rows: BTreeMap<EntityId, Row>,
    pub(crate) head: i64,
    pub(crate) horizon: i64,
    /// Numbers given out: versions and tokens are never given twice, whatever is restored.
    numbers: i64,
    keys: BTreeMap<(ClientId, IdempotencyKey), Recorded>,
    covered: BTreeMap<(ClientId, MutationId), IdempotencyKey>,
    clients: BTreeMap<ClientId, Bound>,
    /// Entities whose mutations break the request that carries them.
    pub(crate) poison: BTreeSet<EntityId>,
    /// Entities that are busy just now: `retry`.
    pub(crate) busy: BTreeSet<EntityId>,
    /// Effects that the ledger has not seen yet.
    pub(crate) effects: Vec<Effect>,
}

/// A field's value that the server never accepts, and one that this principal may not write.
const REJECTED: i64 = 7;
const FORBIDDEN: i64 = 8;
/// Of so many values, one each.
const OF: i64 = 41;

impl Server {
    pub(crate) fn epoch_name(&self) -> Epoch {
        Epoch::new(format!("e{}", self.epoch))
    }

    /// The entities that it has.
    pub(crate) fn alive(&self) -> BTreeSet<EntityId> {
        let alive = self.rows.iter().filter(|(_, row)| row.fields.is_some());
        alive.map(|(id, _)| id.clone()).collect()
    }

    /// Puts an older state in place of this one; its history is another one from here on.
    pub(crate) fn restore(&mut self, backup: Server) {
        let (epoch, numbers) = (self.epoch + 1, self.numbers);
        *self = Server {
            epoch,
            numbers,
            effects: Vec::new(),
            ..backup
        };
        for bound in self.clients.values_mut() {
            (bound.current, bound.before) = (None, None);
        }
    }

    /// Forgets deletions, together with a move of the horizon.
    pub(crate) fn purge(&mut self) {
        let tombs = self.rows.values().filter(|row| row.fields.is_none());
        let newest = tombs.map(|row| row.position).max();
        self.rows.retain(|_, row| row.fields.is_some());
        self.horizon = self.horizon.max(newest.unwrap_or(0));
    }

    /// What a server does that does not remember whom it has answered.
    #[cfg(test)]
    pub(crate) fn forget_keys(&mut self) {
        self.keys.clear();
        self.covered.clear();
    }

    /// A write of somebody else's, past all devices.
    pub(crate) fn write(&mut self, entity: &EntityId, fields: Option<Fields>) {
        self.put(entity, fields, None);
    }

    fn put(&mut self, entity: &EntityId, fields: Option<Fields>, key: Option<IdempotencyKey>) {
        self.head += 1;
        self.numbers += 1;
        let row = Row {
            version: self.numbers,
            position: self.head,
            fields,
            key,
        };
        self.rows.insert(entity.clone(), row);
    }

    /// A push in one transaction.
    pub(crate) fn push(&mut self, push: &Push<'_>) -> Result<PushResponse, Refused> {
        let mut mutations = Vec::with_capacity(push.mutations.len());
        for sent in push.mutations {
            let mutation: Mutation =
                serde_json::from_str(sent.bytes).map_err(|_| Refused::Malformed)?;
            if self.poison.contains(&mutation.id) {
                return Err(Refused::Broken);
            }
            mutations.push(mutation);
        }
        self.bind(push)?;
        let token = self.exchange(push)?;
        let grouped = push.mutations.iter().any(|sent| sent.group.is_some());
        let mut failed: BTreeMap<&str, IdempotencyKey> = BTreeMap::new();
        let results = loop {
            let before = grouped.then(|| self.clone());
            let results = self.pass(push, &mutations, &failed);
            let broken = results
                .iter()
                .zip(push.mutations)
                .find_map(|(result, sent)| {
                    let group = sent.group.filter(|group| !failed.contains_key(group))?;
                    let applied = matches!(result.outcome, Outcome::Applied { .. });
                    (!applied).then(|| (group, result.key.clone()))
                });
            match (broken, before) {
                (Some((group, key)), Some(before)) => {
                    *self = before;
                    failed.insert(group, key);
                }
                _ => break results,
            }
        };
        Ok(PushResponse {
            epoch: self.epoch_name(),
            results,
            token: Some(token),
        })
    }

    fn bind(&mut self, push: &Push<'_>) -> Result<(), Refused> {
        let origins = push.mutations.iter().filter_map(|sent| sent.origin);
        for client in origins.chain([push.client]) {
            let bound = self.clients.entry(client.clone()).or_insert_with(|| Bound {
                subject: push.subject,
                ..Bound::default()
            });
            if bound.subject != push.subject {
                return Err(Refused::Mismatch);
            }
        }
        Ok(())
    }

    fn exchange(&mut self, push: &Push<'_>) -> Result<ExchangeToken, Refused> {
        self.numbers += 1;
        let next = self.numbers.unsigned_abs();
        let bound = self.clients.entry(push.client.clone()).or_default();
        let presented = push.token.and_then(|token| token.as_str().parse().ok());
        let known = presented == bound.current || presented == bound.before;
        if bound.current.is_some() && !known {
            return Err(Refused::Forked);
        }
        (bound.before, bound.current) = (presented, Some(next));
        Ok(ExchangeToken::new(next.to_string()))
    }

    fn pass(
        &mut self,
        push: &Push<'_>,
        mutations: &[Mutation],
        failed: &BTreeMap<&str, IdempotencyKey>,
    ) -> Vec<PushResult> {
        let mut blocked: BTreeMap<EntityId, IdempotencyKey> = BTreeMap::new();
        let mut results = Vec::with_capacity(mutations.len());
        for (sent, mutation) in push.mutations.iter().zip(mutations) {
            let owner = sent.origin.unwrap_or(push.client);
            let because = blocked.get(&mutation.id).cloned();
            let left_out = sent.group.and_then(|group| failed.get(group));
            let left_out = left_out
                .filter(|culprit| **culprit != mutation.key)
                .cloned();
            let (outcome, duplicate) = match self.known(owner, sent, mutation) {
                Some(outcome) => outcome,
                None => match because.or(left_out) {
                    Some(because) => (Outcome::Skipped { because }, false),
                    None => (self.decide(push, mutation, sent), false),
                },
            };
            if !matches!(outcome, Outcome::Applied { .. }) {
                let because = match &outcome {
                    Outcome::Skipped { because } => because.clone(),
                    _ => mutation.key.clone(),
                };
                blocked.entry(mutation.id.clone()).or_insert(because);
            }
            results.push(PushResult {
                key: mutation.key.clone(),
                outcome,
                duplicate,
            });
        }
        results
    }

    /// What was recorded for the key, or for one that covers the mutation.
    fn known(
        &self,
        owner: &ClientId,
        sent: &Sent<'_>,
        mutation: &Mutation,
    ) -> Option<(Outcome, bool)> {
        if let Some(recorded) = self.keys.get(&(owner.clone(), mutation.key.clone())) {
            let other = recorded.bytes != sent.bytes && sent.origin.is_none();
            // A key that was cancelled before it arrived has no bytes.
            return Some(match other && !recorded.bytes.is_empty() {
                true => (rejected("key-reused"), false),
                false => (recorded.outcome.clone(), true),
            });
        }
        let by = self
            .covered
            .get(&(owner.clone(), mutation.mutation.clone()))?;
        let recorded = self.keys.get(&(owner.clone(), by.clone()))?;
        (sent.origin.is_some()).then(|| (recorded.outcome.clone(), true))
    }

    fn decide(&mut self, push: &Push<'_>, mutation: &Mutation, sent: &Sent<'_>) -> Outcome {
        let (owner, subject) = (sent.origin.unwrap_or(push.client), push.subject);
        // What a mutation follows is its owner's, or in the same push.
        let along = push
            .mutations
            .iter()
            .map(|other| other.origin.unwrap_or(push.client));
        let owners: Vec<&ClientId> = [owner].into_iter().chain(along).collect();
        let owners = owners.as_slice();
        let outcome = self.judge(owners, mutation);
        if let Outcome::Applied { .. } = outcome {
            self.effects.push(Effect {
                mutation: mutation.mutation.clone(),
                covers: mutation.covers.clone(),
                entity: mutation.id.clone(),
                op: mutation.op,
                fields: mutation.fields.clone(),
                subject,
            });
        }
        if outcome.is_final() {
            for covered in &mutation.covers {
                let name = (owner.clone(), covered.clone());
                self.covered.insert(name, mutation.key.clone());
            }
            let recorded = Recorded {
                bytes: sent.bytes.to_owned(),
                outcome: outcome.clone(),
            };
            self.keys
                .insert((owner.clone(), mutation.key.clone()), recorded);
        }
        outcome
    }

    fn judge(&mut self, owners: &[&ClientId], mutation: &Mutation) -> Outcome {
        if self.busy.contains(&mutation.id) {
            return Outcome::Retry {
                detail: "busy".to_owned(),
                retry_after_ms: Some(2_000),
            };
        }
        let marked = |mark| {
            mutation
                .fields
                .iter()
                .any(|(_, value)| matches!(value, Value::Integer(n) if n % OF == mark))
        };
        if marked(REJECTED) {
            return rejected("validation");
        }
        if marked(FORBIDDEN) {
            return Outcome::Forbidden {
                detail: "not yours".to_owned(),
            };
        }
        let current = self.rows.get(&mutation.id).cloned();
        let holds = self.holds(owners, mutation.base.as_ref(), current.as_ref());
        let conflict = |reason| Outcome::Conflict {
            reason,
            remote: current.as_ref().map(state_of),
        };
        let alive = current.as_ref().map(|row| row.fields.as_ref());
        let after = match (mutation.op, alive) {
            (Operation::Create, None) => Some(mutation.fields.clone()),
            (Operation::Create, Some(Some(_))) => return conflict(ConflictReason::Exists),
            (Operation::Create, Some(None)) if holds => Some(mutation.fields.clone()),
            (Operation::Create, Some(None)) => return conflict(ConflictReason::Deleted),
            (_, None) => return conflict(ConflictReason::Missing),
            (Operation::Update | Operation::Delete, Some(Some(_))) if !holds => {
                return conflict(ConflictReason::Stale);
            }
            (Operation::Update, Some(Some(fields))) => {
                let mut fields = fields.clone();
                fields.patch(&mutation.fields);
                Some(fields)
            }
            (Operation::Update, Some(None)) => return conflict(ConflictReason::Deleted),
            (Operation::Delete, Some(Some(_))) => None,
            (Operation::Delete, Some(None)) => return self.applied(&mutation.id),
        };
        self.put(&mutation.id, after, Some(mutation.key.clone()));
        self.applied(&mutation.id)
    }

    fn applied(&self, entity: &EntityId) -> Outcome {
        let row = self.rows.get(entity);
        Outcome::Applied {
            version: version(row.map_or(0, |row| row.version)),
            position: row.map_or(0, |row| row.position),
            fields: None,
            id: None,
        }
    }

    fn holds(&self, owners: &[&ClientId], base: Option<&Base>, current: Option<&Row>) -> bool {
        let Some(row) = current else { return false };
        match base {
            None => false,
            Some(Base::Position {
                epoch, position, ..
            }) => *epoch == self.epoch_name() && row.position <= *position,
            Some(Base::Version {
                epoch,
                version: seen,
            }) => *epoch == self.epoch_name() && *seen == version(row.version),
            Some(Base::After(key)) => {
                owners.iter().any(|owner| {
                    let recorded = self.keys.get(&((*owner).clone(), key.clone()));
                    let applied = recorded.map(|recorded| &recorded.outcome);
                    matches!(applied, Some(Outcome::Applied { version: left, .. }) if *left == version(row.version))
                })
            }
        }
    }

    /// Makes a key never take effect, or says what became of it.
    pub(crate) fn cancel(&mut self, client: &ClientId, key: &IdempotencyKey) -> PushResult {
        let name = (client.clone(), key.clone());
        let duplicate = self.keys.contains_key(&name);
        let recorded = self.keys.entry(name).or_insert_with(|| Recorded {
            bytes: String::new(),
            outcome: Outcome::Cancelled,
        });
        PushResult {
            key: key.clone(),
            outcome: recorded.outcome.clone(),
            duplicate,
        }
    }
}

fn rejected(code: &str) -> Outcome {
    Outcome::Rejected {
        code: code.to_owned(),
        detail: String::new(),
        errors: Vec::new(),
    }
}

/// A version as it is written.
pub(crate) fn version(version: i64) -> ServerVersion {
    ServerVersion::new(version.to_string())
}

fn state_of(row: &Row) -> RemoteState {
    RemoteState {
        version: version(row.version),
        position: row.position,
        fields: row.fields.clone(),
    }
}
