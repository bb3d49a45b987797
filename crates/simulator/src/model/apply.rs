//! The model store's pull: pages, single changes, the sweep after a snapshot, conflicts and what a
//! person decides about them. What to do with a change, a page or a conflict is asked of core.

use super::book::state_of;
use super::feed::TYPE;
use super::file::{Cursor, Desk, Entry, EntryState, Fact, File, Why, after_mutation, fault, named};
use std::collections::BTreeSet;
use syncline_core::{
    ChangePlan, ConflictCause, ConflictInput, Decision, FaultKind, Intent, LocalView, Notice, Page,
    PageChange, PageSummary, PendingMutation, Rebased, Rewrite, Settled, Standing, StoreAnswer,
    check_order, decide, plan_change, rebase,
};
use syncline_protocol::{
    Change, ChangeKind, EntityId, EntityType, Fields, MutationId, Operation, PagePhase, RemoteState,
};

impl File {
    pub(crate) fn take_page(
        &mut self,
        from: Option<&String>,
        page: &Page,
        desk: &mut Desk<'_>,
    ) -> StoreAnswer {
        if self.cursor.as_ref().map(|cursor| &cursor.text) != from {
            return fault(FaultKind::OutOfOrder);
        }
        let standing = self.cursor.as_ref().map(|cursor| Standing {
            position: cursor.position,
            in_snapshot: cursor.in_snapshot,
        });
        if check_order(page, standing).is_err() {
            return fault(FaultKind::BadPage);
        }
        let mut summary = PageSummary::default();
        let snapshot = page.end.phase != PagePhase::Feed;
        if from.is_none() {
            let below = self.base.values().any(Option::is_some);
            let compare = below || !self.rows.is_empty() || !self.conflicts.is_empty();
            self.seen = compare.then(BTreeSet::new);
        }
        let newest = if snapshot {
            page.end.position
        } else {
            i64::MAX
        };
        for change in &page.changes {
            let PageChange::Valid(change) = change else {
                self.quarantine += 1;
                summary.parked += 1;
                continue;
            };
            if let (true, Some(seen)) = (snapshot, &mut self.seen) {
                seen.insert(change.id.clone());
            }
            match self.change(change, newest, &mut summary.notices, desk) {
                Landed::Upserted => summary.upserts += 1,
                Landed::Deleted => summary.deletes += 1,
                Landed::Merged => summary.merged += 1,
                Landed::Skipped => summary.skipped += 1,
                Landed::Parked => summary.parked += 1,
            }
        }
        if page.end.phase == PagePhase::SnapshotEnd {
            self.sweep(newest, &mut summary, desk);
        }
        self.cursor = Some(Cursor {
            text: page.end.cursor.clone(),
            position: page.end.position,
            in_snapshot: page.end.phase == PagePhase::Snapshot,
        });
        if page.end.phase != PagePhase::Snapshot {
            self.forget_known(page.end.position);
        }
        StoreAnswer::PageApplied(summary)
    }

    /// What is known beyond the cursor is that no more; what a deleted entity is created again on stays.
    fn forget_known(&mut self, position: i64) {
        let created: BTreeSet<EntityId> = (self.outbox.values())
            .filter(|entry| entry.op == Operation::Create)
            .map(|entry| entry.entity.clone())
            .collect();
        self.known
            .retain(|id, (_, known)| *known > position || created.contains(id));
    }

    fn view(&self, entity: &EntityId) -> LocalView {
        LocalView {
            dirty: self.of_entity(entity).next().is_some(),
            sent: self.of_entity(entity).any(Entry::is_sent),
            conflict_open: self.conflicts.contains_key(entity),
            reflects: self.known.get(entity).map(|(_, position)| *position),
            waiting: self.inbox.get(entity).map(|change| change.position),
            held: self.held.contains(entity),
        }
    }

    /// One change; `newest`: no position of it counts beyond this.
    pub(crate) fn change(
        &mut self,
        change: &Change,
        newest: i64,
        notices: &mut Vec<Notice>,
        desk: &mut Desk<'_>,
    ) -> Landed {
        if change.entity_type.as_str() != TYPE {
            self.quarantine += 1;
            return Landed::Parked;
        }
        let entity = &change.id;
        let plan = plan_change(self.view(entity), change.position);
        if plan == ChangePlan::Resolve && self.is_about_nothing(change) {
            return Landed::Skipped;
        }
        let sent = self.of_entity(entity).any(Entry::is_sent);
        let dirty = self.of_entity(entity).next().is_some();
        let told = || format!("a change of {entity} is planned as {plan:?}");
        match plan {
            ChangePlan::Skip => {
                let reflected = self.known.get(entity).map_or(i64::MIN, |(_, at)| *at);
                let waiting = self.inbox.get(entity).map_or(i64::MIN, |one| one.position);
                desk.check(reflected.max(waiting) >= change.position, "F:S8", told);
                Landed::Skipped
            }
            ChangePlan::Park(_) => {
                self.held.remove(entity);
                let mut waiting = change.clone();
                waiting.position = waiting.position.min(newest);
                let older = self.inbox.get(entity).map_or(i64::MIN, |one| one.position);
                if waiting.position >= older {
                    self.inbox.insert(entity.clone(), waiting);
                }
                Landed::Parked
            }
            ChangePlan::Write => {
                desk.check(!dirty, "D:P2", told);
                let fields = state_of(change).fields;
                let landed = match fields {
                    Some(_) => Landed::Upserted,
                    None => Landed::Deleted,
                };
                self.put_row(entity, fields);
                self.settle_clean(entity);
                self.base.remove(entity);
                self.conflicts.remove(entity);
                landed
            }
            ChangePlan::Resolve => {
                desk.check(!sent, "D:E5", told);
                let remote = state_of(change);
                self.reconcile(entity, Some(&remote), &ConflictCause::Pull, notices, desk);
                self.settle_clean(entity);
                Landed::Merged
            }
        }
    }

    fn settle_clean(&mut self, entity: &EntityId) {
        self.held.remove(entity);
        self.inbox.remove(entity);
        self.known.remove(entity);
    }

    /// Rows that the snapshot did not have are gone on the server; in doubt a person says so (I3).
    fn sweep(&mut self, pin: i64, summary: &mut PageSummary, desk: &mut Desk<'_>) {
        let Some(seen) = self.seen.take() else {
            self.reset = false;
            return;
        };
        let reset = std::mem::replace(&mut self.reset, false);
        // What a person is shown of another history is not there.
        for (_, remote) in self
            .conflicts
            .iter_mut()
            .filter(|(id, _)| reset && !seen.contains(*id))
        {
            *remote = None;
        }
        let absent = self.edited_and_absent(&seen, pin);
        let (mut gone, mut edited, mut left) = (BTreeSet::new(), BTreeSet::new(), 0);
        for id in self.rows.keys() {
            let ahead = self
                .known
                .get(id)
                .is_some_and(|(_, position)| *position > pin);
            let mut entries = self.of_entity(id);
            let spared = ahead || self.inbox.contains_key(id) || entries.next().is_some();
            match seen.contains(id) {
                true => left += usize::from(!spared),
                false if !spared => drop(gone.insert(id.clone())),
                // Edits of a row that the server lost mean nothing without the row.
                false if self.is_only_updated(id, pin) => drop(edited.insert(id.clone())),
                false => {}
            }
        }
        if !(gone.is_empty() && edited.is_empty()) && (reset || left == 0) {
            gone.append(&mut edited);
            return self.hold(&gone, absent, pin, summary, desk);
        }
        self.held.clear();
        summary.deletes += gone.len() as u64;
        for id in gone {
            self.rows.remove(&id);
        }
        // What was edited here and is not there any more was deleted there.
        for id in absent {
            self.change(&deletion(&id, pin), pin, &mut summary.notices, desk);
        }
    }

    /// Rows that would go wait for a person; what is under way at the server waits for its answer
    /// first, and what is deleted here as well is that.
    fn hold(
        &mut self,
        ids: &BTreeSet<EntityId>,
        absent: BTreeSet<EntityId>,
        pin: i64,
        summary: &mut PageSummary,
        desk: &mut Desk<'_>,
    ) {
        summary.notices.push(Notice::SweepHeld {
            entity_type: TYPE.to_owned(),
            rows: ids.len() as u64,
        });
        self.held = ids.clone();
        for id in absent {
            if let Some(remote) = self.conflicts.get_mut(&id) {
                *remote = None;
            }
            let sent = self.of_entity(&id).any(Entry::is_sent);
            // Deleted here as well; another row may have its id since.
            let deleted = self.of_entity(&id).any(|one| one.op == Operation::Delete);
            if !ids.contains(&id) && (sent || deleted || !self.rows.contains_key(&id)) {
                self.change(&deletion(&id, pin), pin, &mut summary.notices, desk);
            }
        }
    }

    /// What the server had once, is edited here, and was not met by a snapshot.
    fn edited_and_absent(&self, seen: &BTreeSet<EntityId>, pin: i64) -> BTreeSet<EntityId> {
        let edited = self.outbox.values().map(|entry| entry.entity.clone());
        let absent = |id: &EntityId| {
            // What was pushed since the snapshot began is not in it, and is there.
            let ahead = self.known.get(id).is_some_and(|known| known.1 > pin);
            !seen.contains(id) && !ahead && self.was_there(id)
        };
        edited.filter(absent).collect()
    }

    /// Whether the server is known to have had it, or may have it by now.
    fn was_there(&self, id: &EntityId) -> bool {
        let shown = self.conflicts.get(id).cloned().flatten();
        matches!(self.base.get(id), Some(Some(_)))
            || self.inbox.contains_key(id)
            || self.of_entity(id).any(Entry::is_sent)
            || shown.is_some_and(|one| one.fields.is_some())
    }

    /// Whether a deletion that was only inferred is about what the server never had: its create was under
    /// way then, and refused since.
    fn is_about_nothing(&self, change: &Change) -> bool {
        change.version == super::server::version(0) && !self.was_there(&change.id)
    }

    /// Brings a dirty entity and a remote state together; false: a person has to decide.
    pub(crate) fn reconcile(
        &mut self,
        entity: &EntityId,
        remote: Option<&RemoteState>,
        cause: &ConflictCause,
        notices: &mut Vec<Notice>,
        desk: &mut Desk<'_>,
    ) -> bool {
        let entries: Vec<Entry> = self.of_entity(entity).cloned().collect();
        let frozen = entries.iter().any(|entry| entry.frozen.is_some());
        desk.check(!frozen, "D:E5", || {
            format!("{entity} is resolved while it is under way")
        });
        let theirs = remote.and_then(|remote| remote.fields.clone());
        let grouped = entries.iter().any(|entry| entry.group.is_some()) && entries.len() > 1;
        // What is created on both sides is never laid over the other.
        let created = entries
            .first()
            .is_some_and(|entry| entry.op == Operation::Create);
        if let (true, Some(theirs)) = (grouped && !created, &theirs) {
            self.replay(entity, &entries, theirs);
            return true;
        }
        let base = self.base.get(entity).cloned().flatten();
        let local = self.rows.get(entity).cloned();
        let pending: Vec<PendingMutation> = entries.iter().map(pending).collect();
        let named = named(entity);
        let input = ConflictInput {
            entity: &named,
            base: base.as_ref(),
            local: local.as_ref(),
            remote: theirs.as_ref(),
            pending: &pending,
            cause,
            server_time_ms: Some(desk.now.unix_ms),
        };
        match decide(desk.rules, desk.rules, &input) {
            Decision::Manual { reason, .. } => {
                let new = self
                    .conflicts
                    .insert(entity.clone(), remote.cloned())
                    .is_none();
                if new {
                    let entity = named;
                    notices.push(Notice::ConflictOpened { entity, reason });
                }
                false
            }
            Decision::Settled(settled) => {
                self.settle(entity, &entries, theirs.as_ref(), settled);
                true
            }
        }
    }

    fn settle(
        &mut self,
        entity: &EntityId,
        entries: &[Entry],
        theirs: Option<&Fields>,
        settled: Settled,
    ) {
        let open = self.conflicts.remove(entity).is_some();
        if settled.rule != "unchanged" && settled.rule != "equal" || open {
            self.facts
                .push(Fact::Record(entity.clone(), settled.lost_mine));
        }
        self.put_row(entity, settled.row);
        self.rewrite(entity, entries, theirs, &settled.pending);
    }

    fn rewrite(
        &mut self,
        entity: &EntityId,
        entries: &[Entry],
        theirs: Option<&Fields>,
        rebased: &Rebased,
    ) {
        let left = |one: &Rewrite| matches!(one, Rewrite::Write(_));
        if rebased.each.iter().any(left) {
            self.base.insert(entity.clone(), theirs.cloned());
        } else {
            self.base.remove(entity);
        }
        let gone = entries
            .iter()
            .zip(&rebased.each)
            .filter(|(_, rewrite)| !left(rewrite));
        let gone: BTreeSet<MutationId> = gone
            .flat_map(|(entry, _)| entry.carries.iter().chain([&entry.mutation]))
            .cloned()
            .collect();
        for (entry, rewrite) in entries.iter().zip(&rebased.each) {
            let Rewrite::Write(Intent { op, fields }) = rewrite else {
                self.supersede(entry.seq, Why::Resolved);
                continue;
            };
            if let Some(entry) = self.outbox.get_mut(&entry.seq) {
                entry.op = *op;
                entry.fields = fields.clone();
                (entry.frozen, entry.origin) = (None, None);
                entry.covers.clear();
                entry.carries.extend(gone.iter().cloned());
                if entry.state != EntryState::Failed {
                    entry.state = EntryState::Pending;
                    (entry.attempts, entry.not_before) = (0, 0);
                }
            }
        }
    }

    /// Lays mutations that cannot become one over a remote state, in order.
    fn replay(&mut self, entity: &EntityId, entries: &[Entry], theirs: &Fields) {
        let mut row = Some(theirs.clone());
        for entry in entries {
            row = after_mutation(row, entry.op, &entry.fields);
        }
        self.put_row(entity, row);
        self.base.insert(entity.clone(), Some(theirs.clone()));
        self.conflicts.remove(entity);
    }

    /// A person decides an open conflict: `mine` or the server's. The mutation is for what has to be
    /// recorded when nothing is pending any more.
    pub(crate) fn resolve_by_hand(&mut self, entity: &EntityId, mine: bool, new: MutationId) {
        if self.of_entity(entity).any(Entry::is_sent) {
            return;
        }
        let Some(shown) = self.conflicts.remove(entity) else {
            return;
        };
        let entries: Vec<Entry> = self.of_entity(entity).cloned().collect();
        let waiting = self.inbox.remove(entity).map(|change| state_of(&change));
        let remote = [shown, waiting]
            .into_iter()
            .flatten()
            .max_by_key(|one| one.position);
        let theirs = remote.as_ref().and_then(|remote| remote.fields.clone());
        let local = self.rows.get(entity).cloned();
        let row = if mine { local.clone() } else { theirs.clone() };
        let pending: Vec<PendingMutation> = entries.iter().map(pending).collect();
        let rebased = rebase(&pending, row.as_ref(), theirs.as_ref());
        if !mine {
            let lost = match local {
                Some(local) => syncline_core::Lost::Values(local),
                None => syncline_core::Lost::Deletion,
            };
            self.facts.push(Fact::Record(entity.clone(), lost));
        }
        self.put_row(entity, row);
        self.rewrite(entity, &entries, theirs.as_ref(), &rebased);
        // What the server had refused says now what a person wants.
        for entry in self
            .outbox
            .values_mut()
            .filter(|entry| entry.entity == *entity)
        {
            if entry.state == EntryState::Failed {
                entry.state = EntryState::Pending;
            }
        }
        if let Some(Intent { op, fields }) = rebased.new {
            self.base.insert(entity.clone(), theirs);
            self.record(entity.clone(), op, fields, new, 0, None);
        }
        // A resolution carries the version that it saw; the next change decides afresh.
        if let Some(remote) = remote.filter(|remote| remote.position > 0) {
            let known = (remote.version.as_str().to_owned(), remote.position);
            self.known.insert(entity.clone(), known);
        }
    }

    /// A person confirms that rows which the server lacks may go.
    pub(crate) fn confirm_sweep(&mut self) {
        for id in self.held.clone() {
            // What the server is asked about stays held until it has answered.
            if self.is_under_way(&id) {
                continue;
            }
            self.held.remove(&id);
            if self.inbox.contains_key(&id) || self.conflicts.contains_key(&id) {
                continue;
            }
            let entries: Vec<Entry> = self.of_entity(&id).cloned().collect();
            let deleted = entries.iter().rposition(|one| one.op == Operation::Delete);
            // The app may have deleted the row itself and made another one under its id.
            let anew = deleted.filter(|deleted| deleted + 1 < entries.len());
            for entry in entries.iter().take(anew.map_or(usize::MAX, |at| at + 1)) {
                self.supersede(entry.seq, Why::Discarded);
            }
            if anew.is_some() {
                self.base.insert(id, None);
            } else {
                self.rows.remove(&id);
                self.base.remove(&id);
            }
        }
    }
}

fn deletion(id: &EntityId, position: i64) -> Change {
    Change {
        entity_type: EntityType::new(TYPE),
        id: id.clone(),
        kind: ChangeKind::Delete,
        version: super::server::version(0),
        position,
        key: None,
    }
}

/// What came of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landed {
    Upserted,
    Deleted,
    Merged,
    Skipped,
    Parked,
}

fn pending(entry: &Entry) -> PendingMutation {
    PendingMutation {
        mutation: entry.mutation.as_str().to_owned(),
        op: entry.op,
        fields: entry.fields.clone(),
    }
}
