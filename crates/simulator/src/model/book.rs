//! The model store's booking: what became of a batch, and what a person does about what is left.

use super::again::Answer;
use super::file::{Desk, Entry, EntryState, Fact, File, Why, after_mutation, named, told_failed};
use std::collections::BTreeSet;
use syncline_core::{BookSummary, Booking, ConflictCause, Counted, MutationError, Notice, Verdict};
use syncline_protocol::{
    Change, ChangeKind, ConflictReason, EntityId, Fields, IdempotencyKey, Operation, RemoteState,
};

impl File {
    pub(crate) fn book(&mut self, bookings: &[Booking], desk: &mut Desk<'_>) -> BookSummary {
        let mut summary = BookSummary::default();
        let unfrozen = self.unfreeze_skipped(bookings);
        for booking in bookings {
            if let Some(entry) = self.outbox.get(&booking.seq).cloned() {
                self.book_one(&entry, &booking.verdict, &mut summary, desk);
            }
        }
        // A change that waited for their answer waits for nothing any more.
        for entity in unfrozen {
            if !self.of_entity(&entity).any(Entry::is_sent) {
                self.apply_waiting(&entity, i64::MIN, &mut summary.notices, desk);
            }
        }
        summary
    }

    /// What was skipped because another was refused for good is sent anew, on another base.
    fn unfreeze_skipped(&mut self, bookings: &[Booking]) -> BTreeSet<EntityId> {
        let mut unfrozen = BTreeSet::new();
        let mut refused: BTreeSet<IdempotencyKey> = BTreeSet::new();
        for booking in bookings {
            let finally_not = matches!(
                booking.verdict,
                Verdict::Conflict { .. }
                    | Verdict::Failed(_)
                    | Verdict::Cancelled
                    | Verdict::OtherHistory(_)
            );
            if finally_not && let Some(entry) = self.outbox.get(&booking.seq) {
                refused.extend(entry.key.clone());
            }
        }
        for booking in bookings {
            if let Verdict::Skipped { because } = &booking.verdict
                && refused.contains(because)
                && let Some(entry) = self.outbox.get(&booking.seq).cloned()
            {
                self.refused(&entry);
                unfrozen.insert(entry.entity);
            }
        }
        unfrozen
    }

    fn book_one(
        &mut self,
        entry: &Entry,
        verdict: &Verdict,
        summary: &mut BookSummary,
        desk: &mut Desk<'_>,
    ) {
        if entry.cancel && self.book_cancel(entry, verdict, summary, desk) {
            return;
        }
        let cancelled =
            || MutationError::new("cancelled", "it was cancelled and never takes effect");
        match verdict {
            Verdict::Applied {
                version,
                position,
                duplicate,
                unsent,
                ..
            } => {
                summary.applied += 1;
                summary.duplicates += u64::from(*duplicate);
                let of_another_copy = *unsent || *duplicate && entry.origin.is_some();
                let answer = Answer {
                    version,
                    position: *position,
                    duplicate: *duplicate,
                    of_another_copy,
                };
                self.book_applied(entry, &answer, desk);
            }
            Verdict::Conflict {
                remote, replayed, ..
            } if *replayed && self.is_outdated(&entry.entity, remote.as_ref()) => {
                self.refused(entry);
                self.apply_waiting(&entry.entity, i64::MIN, &mut summary.notices, desk);
            }
            Verdict::Conflict { reason, remote, .. } => {
                self.book_conflict(entry, *reason, remote.as_ref(), summary, desk);
            }
            Verdict::Skipped { .. } => {
                self.release_entry(entry, desk.now.monotonic_ms, Counted::No)
            }
            Verdict::Cancelled => self.book_failed(entry, &cancelled(), summary, desk),
            Verdict::Failed(error) => self.book_failed(entry, error, summary, desk),
            Verdict::OtherHistory(_) => {
                self.release_entry(entry, desk.now.monotonic_ms, Counted::No);
                self.refused(entry);
                self.apply_waiting(&entry.entity, i64::MIN, &mut summary.notices, desk);
            }
            Verdict::Later {
                after_ms, counted, ..
            } => self.release_entry(entry, desk.now.after_ms(*after_ms), *counted),
            Verdict::Dead(error) => {
                if let Some(entry) = self.outbox.get_mut(&entry.seq) {
                    entry.state = EntryState::Dead;
                    entry.attempts += 1;
                    entry.cancel = false;
                }
                summary.notices.push(Notice::MutationDead {
                    mutation: entry.mutation.clone(),
                    entity: named(&entry.entity),
                    error: error.clone(),
                });
            }
        }
    }

    /// An entry had no effect and never will under its key: neither had what follows it, whoever may
    /// have sent that.
    fn refused(&mut self, entry: &Entry) {
        for later in self.outbox.values_mut() {
            if later.entity == entry.entity && later.seq >= entry.seq {
                if later.state == EntryState::InFlight {
                    later.state = EntryState::Pending;
                }
                (later.frozen, later.origin) = (None, None);
            }
        }
    }

    /// Whether an answer that is given again is about an older state than the one below what was written.
    fn is_outdated(&self, entity: &EntityId, said: Option<&RemoteState>) -> bool {
        match said {
            Some(said) => self.is_passed(entity, said.position),
            None => {
                let exists = self.base.get(entity).is_some_and(Option::is_some);
                exists && self.is_passed(entity, i64::MIN)
            }
        }
    }

    fn release_entry(&mut self, entry: &Entry, not_before: u64, counted: Counted) {
        if let Some(entry) = self.outbox.get_mut(&entry.seq) {
            entry.state = EntryState::Pending;
            entry.not_before = not_before;
            entry.attempts += u32::from(counted == Counted::Yes);
        }
    }

    fn book_failed(
        &mut self,
        entry: &Entry,
        error: &MutationError,
        summary: &mut BookSummary,
        desk: &mut Desk<'_>,
    ) {
        self.refused(entry);
        self.fail(entry.seq);
        summary.notices.push(told_failed(entry, error));
        self.apply_waiting(&entry.entity, i64::MIN, &mut summary.notices, desk);
    }

    fn fail(&mut self, seq: i64) {
        if let Some(entry) = self.outbox.get_mut(&seq) {
            entry.state = EntryState::Failed;
            (entry.frozen, entry.origin, entry.cancel) = (None, None, false);
        }
    }

    /// An entry that its user gave up. False: it is booked like any other.
    fn book_cancel(
        &mut self,
        entry: &Entry,
        verdict: &Verdict,
        summary: &mut BookSummary,
        desk: &mut Desk<'_>,
    ) -> bool {
        match verdict {
            Verdict::Cancelled | Verdict::Failed(_) => {
                self.refused(entry);
                self.fail(entry.seq);
            }
            Verdict::Conflict { reason, remote, .. } => {
                self.book_conflict(entry, *reason, remote.as_ref(), summary, desk);
            }
            Verdict::Applied { .. } => {
                summary.notices.push(Notice::CancelledTooLate {
                    mutation: entry.mutation.clone(),
                    entity: named(&entry.entity),
                });
                return false;
            }
            Verdict::Later { .. }
            | Verdict::OtherHistory(_)
            | Verdict::Skipped { .. }
            | Verdict::Dead(_) => return false,
        }
        if let Some(entry) = self.outbox.get(&entry.seq).cloned() {
            // What may have been sent itself is asked about; the rest goes.
            let (sent, rest) = self.doomed(entry);
            self.mark_to_cancel(&sent);
            self.give_up(&rest, &mut summary.notices, desk);
        }
        true
    }

    fn book_applied(&mut self, entry: &Entry, answer: &Answer<'_>, desk: &mut Desk<'_>) {
        let entity = &entry.entity;
        self.outbox.remove(&entry.seq);
        self.facts.push(Fact::Applied(entry.mutation.clone()));
        let in_base = answer.of_another_copy && self.is_in_base(entity, answer.position);
        if entry.op == Operation::Delete || !self.has_passed(answer.position) {
            self.held.remove(entity);
        }
        if entry.is_offered_again() {
            return self.book_again(entry, answer, desk);
        }
        if in_base && !self.is_about_no_base(entity) {
            self.take_back(entity);
        } else if answer.of_another_copy {
            self.known.remove(entity);
            if entry.op != Operation::Delete {
                self.mark_pushed(entity, answer.position);
            }
            self.advance_base(entry);
        } else {
            let known = (answer.version.as_str().to_owned(), answer.position);
            self.known.insert(entity.clone(), known);
            self.advance_base(entry);
        }
        // Of another copy's work, what waits for it is what the server made of it.
        let newer_than = answer.position - i64::from(answer.of_another_copy);
        self.apply_waiting(entity, newer_than, &mut Vec::new(), desk);
    }

    /// The state below what is left is the one after this entry.
    pub(crate) fn advance_base(&mut self, entry: &Entry) {
        let base = self.base.get(&entry.entity).cloned().flatten();
        let after = after_mutation(base, entry.op, &entry.fields);
        self.move_base(&entry.entity, after);
    }

    /// What is below what is left, if anything is left.
    pub(crate) fn move_base(&mut self, entity: &EntityId, base: Option<Fields>) {
        self.base.insert(entity.clone(), base);
        self.drop_base_if_clean(entity);
    }

    /// Another copy of the file has done it, and the state below has that already: the row is that state
    /// with what is left laid over it.
    fn take_back(&mut self, entity: &EntityId) {
        let mut row = self.base.get(entity).cloned().flatten();
        for entry in self.of_entity(entity) {
            row = after_mutation(row, entry.op, &entry.fields);
        }
        self.drop_base_if_clean(entity);
        self.put_row(entity, row);
    }

    /// Whether what is left edits or deletes a row that the state below lacks: the server's answer brings the two together.
    fn is_about_no_base(&self, entity: &EntityId) -> bool {
        let gone = self.base.get(entity).is_none_or(Option::is_none);
        let first = self.of_entity(entity).next();
        gone && first.is_some_and(|entry| entry.op != Operation::Create)
    }

    /// Whether the state below what was written has what was applied at this position. Below that of a row
    /// that is held is what the server lacks.
    fn is_in_base(&self, entity: &EntityId, position: i64) -> bool {
        !self.held.contains(entity) && self.is_passed(entity, position)
    }

    /// Whether what is known here of an entity is not older than this position.
    fn is_passed(&self, entity: &EntityId, position: i64) -> bool {
        let known = self.known.get(entity).map(|(_, position)| *position);
        !self.inbox.contains_key(entity)
            && (known.is_some_and(|known| known >= position) || self.has_passed(position))
    }

    /// Whether the cursor is there already, with the snapshot complete.
    pub(crate) fn has_passed(&self, position: i64) -> bool {
        let cursor = self.cursor.as_ref().filter(|cursor| !cursor.in_snapshot);
        cursor.is_some_and(|cursor| cursor.position >= position)
    }

    /// The server has it since the snapshot under way began.
    fn mark_pushed(&mut self, entity: &EntityId, position: i64) {
        let cursor = self.cursor.as_ref().filter(|cursor| cursor.in_snapshot);
        if let (Some(seen), Some(cursor)) = (&mut self.seen, cursor)
            && cursor.position < position
        {
            seen.insert(entity.clone());
        }
    }

    /// What waited for the answer, unless the answer is newer.
    fn apply_waiting(
        &mut self,
        entity: &EntityId,
        newer_than: i64,
        notices: &mut Vec<Notice>,
        desk: &mut Desk<'_>,
    ) {
        if let Some(waiting) = self.inbox.remove(entity)
            && waiting.position > newer_than
        {
            self.change(&waiting, i64::MAX, notices, desk);
        }
    }

    fn book_conflict(
        &mut self,
        entry: &Entry,
        reason: ConflictReason,
        remote: Option<&RemoteState>,
        summary: &mut BookSummary,
        desk: &mut Desk<'_>,
    ) {
        let entity = &entry.entity;
        if remote.is_some_and(|remote| remote.fields.is_some()) {
            // The server has it after all.
            self.held.remove(entity);
        }
        self.refused(entry);
        if reason == ConflictReason::Missing && remote.is_none() && self.hold_missing(entity) {
            return;
        }
        let waiting = self.inbox.remove(entity).map(|change| state_of(&change));
        let newest = match (waiting, remote) {
            (Some(waiting), Some(remote)) if waiting.position > remote.position => Some(waiting),
            (Some(waiting), None) => Some(waiting),
            (_, remote) => remote.cloned(),
        };
        let cause = ConflictCause::Push(reason);
        let settled = self.reconcile(entity, newest.as_ref(), &cause, &mut summary.notices, desk);
        if let (true, Some(state)) = (settled, newest) {
            let known = (state.version.as_str().to_owned(), state.position);
            self.known.insert(entity.clone(), known);
        }
    }

    /// A person gives an entry up, with all that needs a row which is not created now.
    pub(crate) fn discard(&mut self, seq: i64, notices: &mut Vec<Notice>, desk: &mut Desk<'_>) {
        let Some(entry) = self.outbox.get(&seq).cloned() else {
            return;
        };
        match self.doomed(entry) {
            (sent, rest) if sent.is_empty() => self.give_up(&rest, notices, desk),
            (sent, _) => self.mark_to_cancel(&sent),
        }
    }

    fn mark_to_cancel(&mut self, sent: &BTreeSet<i64>) {
        for seq in sent {
            if let Some(entry) = self.outbox.get_mut(seq) {
                entry.cancel = true;
            }
        }
    }

    fn give_up(&mut self, doomed: &BTreeSet<i64>, notices: &mut Vec<Notice>, desk: &mut Desk<'_>) {
        let mut entities: BTreeSet<EntityId> = BTreeSet::new();
        for seq in doomed.iter().rev() {
            let Some(entry) = self.outbox.get(seq).cloned() else {
                continue;
            };
            self.supersede(*seq, Why::Discarded);
            if entry.op == Operation::Delete {
                self.keep_alive(&entry.entity, *seq);
            }
            entities.insert(entry.entity);
        }
        for entity in entities {
            self.roll_back(&entity, notices, desk);
        }
    }

    /// Takes a row back to its base plus what is left of its mutations, or to what the server is known
    /// to have.
    fn roll_back(&mut self, entity: &EntityId, notices: &mut Vec<Notice>, desk: &mut Desk<'_>) {
        let rest: Vec<Entry> = self.of_entity(entity).cloned().collect();
        let mut row = self.base.get(entity).cloned().flatten();
        for entry in &rest {
            row = after_mutation(row, entry.op, &entry.fields);
        }
        self.put_row(entity, row);
        if rest.iter().any(Entry::is_sent) {
            return;
        }
        let waiting = self.inbox.remove(entity).map(|change| state_of(&change));
        let shown = self.conflicts.get(entity).cloned();
        let known = shown.is_some();
        let newest = [shown.flatten(), waiting];
        let newest = newest.into_iter().flatten().max_by_key(|one| one.position);
        if rest.is_empty() {
            self.base.remove(entity);
            self.conflicts.remove(entity);
            if known || newest.is_some() {
                self.put_row(entity, newest.as_ref().and_then(|one| one.fields.clone()));
            }
        } else if newest.is_some() || known {
            let cause = ConflictCause::Pull;
            if !self.reconcile(entity, newest.as_ref(), &cause, notices, desk) {
                return;
            }
        }
        if let Some(newest) = newest {
            let known = (newest.version.as_str().to_owned(), newest.position);
            self.known.insert(entity.clone(), known);
        }
    }

    /// What goes with an entry: its group, and what needs a row that is not created now. First those that
    /// may have been sent.
    fn doomed(&self, entry: Entry) -> (BTreeSet<i64>, BTreeSet<i64>) {
        let (mut doomed, mut next) = (BTreeSet::new(), vec![entry]);
        while let Some(one) = next.pop() {
            if !doomed.insert(one.seq) {
                continue;
            }
            let along = self.outbox.values().filter(|other| {
                let grouped = one.group.is_some() && other.group == one.group;
                let needs = one.op == Operation::Create && other.entity == one.entity;
                grouped || needs && other.seq > one.seq
            });
            next.extend(along.cloned());
        }
        let sent = |seq: &i64| self.outbox.get(seq).is_some_and(|one| one.frozen.is_some());
        doomed.into_iter().partition(sent)
    }

    /// The entity was not deleted after all: what created it again changes it.
    fn keep_alive(&mut self, entity: &EntityId, after: i64) {
        let next = self.outbox.values_mut();
        let next = next
            .filter(|entry| entry.entity == *entity)
            .find(|entry| entry.seq > after);
        if let Some(next) = next.filter(|next| next.op == Operation::Create) {
            next.op = Operation::Update;
        }
    }

    /// A person lets a dead letter be sent again.
    pub(crate) fn retry(&mut self, seq: i64) {
        if let Some(entry) = self.outbox.get_mut(&seq)
            && matches!(entry.state, EntryState::Failed | EntryState::Dead)
        {
            entry.state = EntryState::Pending;
            (entry.attempts, entry.not_before, entry.cancel) = (0, 0, false);
        }
    }
}

/// The state that a change tells.
pub(crate) fn state_of(change: &Change) -> RemoteState {
    RemoteState {
        version: change.version.clone(),
        position: change.position,
        fields: match &change.kind {
            ChangeKind::Upsert(fields) => Some(fields.clone()),
            ChangeKind::Delete => None,
        },
    }
}
