//! The model store's targeted pull: what is looked at before it is sent, and meets what waits here.

use super::book::state_of;
use super::feed::TYPE;
use super::file::{Desk, Entry, EntryState, File};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{ConflictCause, Fetched, MeetSummary, Now, PageChange, Targets, Wanted};
use syncline_protocol::{Change, ChangeKind, EntityId, EntityType, Operation};

/// Entities that one request asks for.
const TOGETHER: usize = 2;

impl File {
    /// What up to `most` mutations behind a place in the outbox are about.
    pub(crate) fn targets(&self, after: i64, most: usize, now: Now) -> Targets {
        let mut targets = Targets {
            last: after,
            ..Targets::default()
        };
        if self.applied().is_none() {
            targets.unread = true;
            return targets;
        }
        let (mut found, mut count) = (BTreeSet::new(), 0);
        for (seq, entry) in self.outbox.range(after.saturating_add(1)..) {
            if count >= most {
                break;
            }
            targets.last = *seq;
            let pending =
                entry.state == EntryState::Pending && entry.not_before <= now.monotonic_ms;
            if pending && !entry.cancel && self.is_open(&entry.entity) {
                found.insert(entry.entity.clone());
                count += 1;
            }
        }
        let ids: Vec<EntityId> = found.into_iter().collect();
        let wanted = ids.chunks(TOGETHER).map(|ids| Wanted {
            entity_type: EntityType::new(TYPE),
            ids: ids.to_vec(),
        });
        targets.wanted = wanted.collect();
        targets
    }

    fn applied(&self) -> Option<i64> {
        let cursor = self.cursor.as_ref();
        cursor.and_then(|cursor| (!cursor.in_snapshot).then_some(cursor.position))
    }

    /// Nothing of it may have been sent (E5), and nothing of it waits.
    fn is_open(&self, entity: &EntityId) -> bool {
        !self.of_entity(entity).any(Entry::is_sent)
            && !self.inbox.contains_key(entity)
            && !self.conflicts.contains_key(entity)
            && !self.held.contains(entity)
    }

    /// What was fetched meets what waits.
    pub(crate) fn meet(
        &mut self,
        wanted: &Wanted,
        fetched: &Fetched,
        desk: &mut Desk<'_>,
    ) -> MeetSummary {
        let mut summary = MeetSummary::default();
        let valid: BTreeMap<&EntityId, &Change> = (fetched.changes.iter())
            .filter_map(|change| match change {
                PageChange::Valid(change) => Some((&change.id, change)),
                PageChange::Invalid { .. } => None,
            })
            .collect();
        let beyond = valid
            .values()
            .any(|change| change.position > fetched.position);
        let Some(applied) = self
            .applied()
            .filter(|at| !beyond && *at <= fetched.position)
        else {
            summary.pull_first = true;
            return summary;
        };
        let complete = valid.len() == fetched.changes.len();
        for entity in &wanted.ids {
            let pending = |entry: &&Entry| entry.state == EntryState::Pending;
            let first = self.of_entity(entity).find(pending).map(|entry| entry.op);
            let (Some(first), true) = (first, self.is_open(entity)) else {
                continue;
            };
            let known = self.known.get(entity).map(|known| known.1);
            let Some(change) = valid.get(entity) else {
                let odd = complete && first != Operation::Create && known.is_none();
                summary.pull_first |= odd;
                continue;
            };
            if change.position <= known.unwrap_or(applied).max(applied) {
                continue;
            }
            let (remote, cause) = (state_of(change), ConflictCause::Pull);
            let notices = &mut summary.notices;
            if self.reconcile(entity, Some(&remote), &cause, notices, desk) {
                let known = (remote.version.as_str().to_owned(), remote.position);
                self.known.insert(entity.clone(), known);
            }
            summary.merged += 1;
        }
        summary
    }
}

impl super::server::Server {
    /// These entities as they are, tombstones included.
    pub(crate) fn fetch(&self, ids: &[EntityId]) -> Fetched {
        let change = |id: &EntityId| {
            let row = self.rows.get(id)?;
            let kind = match &row.fields {
                Some(fields) => ChangeKind::Upsert(fields.clone()),
                None => ChangeKind::Delete,
            };
            Some(PageChange::Valid(Change {
                entity_type: EntityType::new(TYPE),
                id: id.clone(),
                kind,
                version: super::server::version(row.version),
                position: row.position,
                key: row.key.clone(),
            }))
        };
        Fetched {
            epoch: self.epoch_name(),
            position: self.head,
            changes: ids.iter().filter_map(change).collect(),
            bytes: 100 * ids.len() as u64,
        }
    }
}
