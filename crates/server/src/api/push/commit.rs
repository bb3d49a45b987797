//! The end of a batch: takes the positions, then writes the rows and the outcomes.
//!
//! Decides nothing any more. The head of the feed is locked from the first line that writes.

use super::batch::{Batch, Draft, Effect, Name, Result, Told, contradiction};
use super::parse::Incoming;
use super::record::{KEY_REUSED, Numbered, applied, conflict, key_reused, write_record};
use crate::{Entity, EntityKey, KeyRecord, StorageError};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{
    EntityType, ExchangeToken, IdempotencyKey, Outcome, PushResponse, PushResult,
};

/// The effects with what they got, by mutation.
type Effects = BTreeMap<usize, (Effect, Numbered)>;

impl Batch<'_> {
    /// Takes the positions, then writes rows and outcomes.
    pub(super) fn commit(mut self, token: Option<ExchangeToken>) -> Result<PushResponse> {
        let effects = self.write_effects()?;
        let drafts = std::mem::take(&mut self.plan.drafts);
        let mut results: Vec<PushResult> = Vec::with_capacity(drafts.len());
        for (incoming, draft) in self.push.mutations.iter().zip(drafts) {
            let (outcome, duplicate) = settle(draft, &effects, &results)?;
            let reused = matches!(&outcome, Outcome::Rejected { code, .. } if code == KEY_REUSED);
            let forgotten = outcome == Outcome::Expired;
            if outcome.is_final() && !duplicate && !reused && !forgotten && incoming.keyed {
                self.record(incoming, &outcome)?;
            }
            results.push(PushResult {
                key: incoming.key.clone(),
                outcome,
                duplicate,
            });
        }
        Ok(PushResponse {
            epoch: self.epoch,
            results,
            token,
        })
    }

    fn write_effects(&mut self) -> Result<Effects> {
        let effects = std::mem::take(&mut self.plan.effects);
        if effects.is_empty() {
            return Ok(Effects::new());
        }
        let tenant = self.caller.tenant();
        let types: BTreeSet<&str> = effects.values().map(|one| one.name.0.as_str()).collect();
        for entity_type in types {
            let name = EntityType::from(entity_type);
            self.tx
                .register_entity_type(tenant, &name, self.caller.now_ms)?;
            self.drop_stale_index(entity_type)?;
        }
        for (entity_type, last) in &self.plan.last_ids {
            self.tx.raise_last_id(tenant, entity_type, *last)?;
        }
        self.write_index()?;
        let count = i64::try_from(effects.len()).map_err(StorageError::internal)?;
        let first = self.tx.bump_head(tenant, &self.caller.scope, count)? - count + 1;
        let (effects, last) = number(effects, first);
        for (index, (effect, number)) in &effects {
            // A later effect of the batch on the same entity replaces it; no reader ever sees it.
            if last.get(&effect.name) == Some(index) {
                self.write_row(effect, *number)?;
            }
        }
        Ok(effects)
    }

    fn write_row(&mut self, effect: &Effect, number: Numbered) -> Result<()> {
        let fields = effect.fields.as_ref().map(serde_json::to_string);
        let entity = Entity {
            scope: self.caller.scope.clone(),
            version: number.version,
            seq: number.seq,
            fields: fields.transpose().map_err(StorageError::internal)?,
            key: effect.key.clone(),
        };
        let key = EntityKey {
            tenant: self.caller.tenant(),
            entity_type: &effect.name.0,
            id: &effect.name.1,
        };
        self.tx.put_entity(key, &entity)
    }

    /// Under the key, and under those of the mutations that were coalesced into this one.
    fn record(&mut self, incoming: &Incoming, outcome: &Outcome) -> Result<()> {
        let mut record = KeyRecord {
            fingerprint: Some(incoming.fingerprint),
            outcome: write_record(&incoming.entity_type, &incoming.id, outcome)?,
        };
        let (tenant, now_ms) = (self.caller.tenant(), self.caller.now_ms);
        let space = self.space(&incoming.key);
        self.tx
            .record_outcome(tenant, space, &incoming.key, &record, now_ms)?;
        record.fingerprint = None;
        for covered in &incoming.covers {
            let key = IdempotencyKey::new(covered.as_str());
            let own = self.plan.keys.contains_key(&key);
            if !own && self.tx.claim_key(tenant, space, &key)?.is_none() {
                self.tx
                    .record_outcome(tenant, space, &key, &record, now_ms)?;
            }
        }
        Ok(())
    }
}

/// Gives each effect its version and position, and finds each entity's last effect.
fn number(planned: BTreeMap<usize, Effect>, first: i64) -> (Effects, BTreeMap<Name, usize>) {
    let mut versions: BTreeMap<Name, i64> = BTreeMap::new();
    let mut last = BTreeMap::new();
    let mut effects = Effects::new();
    for (seq, (index, mut effect)) in (first..).zip(planned) {
        let before = versions.get(&effect.name).unwrap_or(&effect.follows);
        let version = seq.max(before + 1);
        versions.insert(effect.name.clone(), version);
        last.insert(effect.name.clone(), index);
        if let Some(fields) = &mut effect.fields {
            for field in &effect.version_fields {
                fields.insert(field.as_str(), version);
            }
        }
        effects.insert(index, (effect, Numbered { version, seq }));
    }
    (effects, last)
}

/// The outcome, and whether it was recorded before.
fn settle(draft: Draft, effects: &Effects, results: &[PushResult]) -> Result<(Outcome, bool)> {
    Ok(match draft {
        Draft::Fresh(outcome) => (outcome, false),
        Draft::Replay(outcome) => (outcome, true),
        Draft::KeyReused => (key_reused(), false),
        Draft::SameAs(index) => match results.get(index) {
            Some(first) => (first.outcome.clone(), first.outcome.is_final()),
            None => return Err(StorageError::internal("a result refers to a later one")),
        },
        Draft::Applied { by, id, told } => match effects.get(&by) {
            Some((effect, number)) => {
                let fields = effect.fields.as_ref().filter(|_| told == Told::Fields);
                (applied(*number, fields.cloned(), id), false)
            }
            None => return Err(StorageError::internal("a result refers to no effect")),
        },
        Draft::Conflict { reason, with } => match effects.get(&with) {
            Some((effect, number)) => (conflict(reason, *number, effect.fields.clone()), false),
            // It was judged beside another group, which was left out later.
            None => (contradiction(), false),
        },
    })
}
