//! The end of a batch: takes the positions, then writes the rows and the outcomes.
//!
//! Decides nothing any more. The head of the feed is locked from the first line that writes.

use super::batch::{Batch, Caller, Draft, Name, Verdict};
use super::parse::Incoming;
use super::record::{KEY_REUSED, Numbered, applied, conflict, key_reused, write_record};
use crate::{Entity, EntityKey, KeyRecord, StorageError};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{EntityType, Outcome, PushResponse, PushResult};

type Result<T> = std::result::Result<T, StorageError>;

impl<'a> Batch<'a> {
    /// Takes the positions, then writes rows and outcomes.
    pub(super) fn commit(mut self, mutations: &'a [Incoming]) -> Result<Verdict> {
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
            token: None,
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
        let record = KeyRecord {
            fingerprint: Some(incoming.fingerprint),
            outcome: write_record(&incoming.entity_type, &incoming.id, outcome)?,
        };
        let tenant = &self.caller.identity.principal.tenant;
        let Caller { client, now_ms, .. } = self.caller;
        self.tx
            .record_outcome(tenant, client, &incoming.key, &record, *now_ms)
    }
}

fn number(numbers: &[Numbered], effect: usize) -> Result<Numbered> {
    let found = numbers.get(effect).copied();
    found.ok_or_else(|| StorageError::internal("a result refers to an effect that is not there"))
}
