//! Applying one remote state to one entity: the same way for a pulled change, for a change that
//! waited in the inbox, and for the remote state that comes with a refused push.

use crate::captured::{self, CapturedError};
use crate::error::StoreError;
use crate::held;
use crate::outbox::{self, Entry, EntryState};
use crate::rekey::{self, Rekeying, Room};
use crate::row::{self, Written};
use crate::state::{self, ConflictError, Sides};
use crate::store::{EntityTypes, RegisteredType};
use crate::unknown;
use crate::vacate::{self, Vacated};
use rusqlite::Transaction;
use std::collections::BTreeMap;
use syncline_core::{
    ChangePlan, ConflictCause, ConflictInput, ConflictRules, Decision, EntityRef, Notice, Now,
    PageSummary, PendingMutation, Rewrite, Settled, WaitsFor, decide, plan_change, unstorable,
};
use syncline_protocol::{Change, ChangeKind, Fields, Operation, RemoteState, Scope};

/// One transaction in which remote states are applied.
pub(crate) struct Applier<'a> {
    pub(crate) tx: &'a Transaction<'a>,
    pub(crate) types: &'a EntityTypes,
    pub(crate) now: Now,
    /// Nothing is dirty, known or waiting: every change can simply be written.
    pub(crate) plain: bool,
    /// Are references checked row by row (not within a snapshot, whose order is that of keys)?
    pub(crate) parents: Parents,
    /// A row of a snapshot may be newer than the position that the snapshot is pinned to; what the
    /// feed brings from there on is newer than what waits from the snapshot, whatever it claims.
    pub(crate) newest: i64,
    pub(crate) rekeying: Rekeying,
    /// What answers to pushes say of other devices' writes is kept for the checkpoint.
    pub(crate) holds_back: bool,
    pub(crate) notices: Vec<Notice>,
    /// Rows that are out of their tables for a moment.
    pub(crate) vacated: BTreeMap<EntityRef, Vacated>,
}

/// When missing parents are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parents {
    /// At each row.
    Checked,
    /// Not yet: the snapshot's end looks after them.
    Later,
}

/// What became of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landed {
    Upserted,
    Deleted,
    Merged,
    Skipped,
    Parked,
}

impl Landed {
    pub(crate) fn count(self, summary: &mut PageSummary) {
        match self {
            Landed::Upserted => summary.upserts += 1,
            Landed::Deleted => summary.deletes += 1,
            Landed::Merged => summary.merged += 1,
            Landed::Skipped => summary.skipped += 1,
            Landed::Parked => summary.parked += 1,
        }
    }
}

impl<'a> Applier<'a> {
    /// For work that looks at each entity and at its references.
    pub(crate) fn new(tx: &'a Transaction<'a>, types: &'a EntityTypes, now: Now) -> Self {
        Self {
            tx,
            types,
            now,
            plain: false,
            parents: Parents::Checked,
            newest: i64::MAX,
            rekeying: Rekeying::default(),
            holds_back: false,
            notices: Vec::new(),
            vacated: BTreeMap::new(),
        }
    }
}

impl Applier<'_> {
    /// Applies one change, or finds out why not.
    pub(crate) fn change(&mut self, scope: &Scope, change: &Change) -> Result<Landed, StoreError> {
        let types = self.types;
        let Some(entity_type) = types.get(change.entity_type.as_str()) else {
            return self.park(
                scope,
                change,
                WaitsFor::Type,
                "this app does not sync that type",
            );
        };
        let entity = EntityRef {
            entity_type: change.entity_type.clone(),
            id: change.id.clone(),
        };
        let mut plan = if self.plain {
            ChangePlan::Write
        } else {
            plan_change(state::view(self.tx, &entity)?, change.position)
        };
        if let Some(why) = unstorable(change) {
            return self.park(scope, change, WaitsFor::Valid, &why);
        }
        if matches!(
            plan,
            ChangePlan::Resolve | ChangePlan::Park(WaitsFor::Conflict)
        ) {
            match rekey::make_room(self, entity_type, &entity, upserted(change))? {
                Room::NotNeeded => {}
                Room::Made => plan = plan_change(state::view(self.tx, &entity)?, change.position),
                Room::Refused(why) => {
                    return self.park(scope, change, WaitsFor::Constraint, &why);
                }
                Room::Waits(parent) => {
                    let parent = parent.to_string();
                    return self.park(scope, change, WaitsFor::Parent, &parent);
                }
            }
        }
        match plan {
            ChangePlan::Skip => Ok(Landed::Skipped),
            ChangePlan::Park(waits_for) => {
                // The server speaks of it after all.
                held::release(self.tx, &entity)?;
                self.park(scope, change, waits_for, "")
            }
            ChangePlan::Write => self.write(scope, change, entity_type, &entity),
            ChangePlan::Resolve => match self.resolve(scope, change, entity_type, &entity) {
                // A base that no server could hold: the row needs a person, the feed goes on (P4).
                Err(StoreError::Captured(error @ CapturedError::Unsyncable { .. })) => {
                    self.park(scope, change, WaitsFor::Constraint, &error.to_string())
                }
                landed => landed,
            },
        }
    }

    fn park(
        &mut self,
        scope: &Scope,
        change: &Change,
        waits_for: WaitsFor,
        detail: &str,
    ) -> Result<Landed, StoreError> {
        let position = change.position.min(self.newest);
        let waiting = Change {
            position,
            ..change.clone()
        };
        state::park(self.tx, scope, &waiting, waits_for, detail, self.now)?;
        Ok(Landed::Parked)
    }

    fn write(
        &mut self,
        scope: &Scope,
        change: &Change,
        entity_type: &RegisteredType,
        entity: &EntityRef,
    ) -> Result<Landed, StoreError> {
        let fields = upserted(change);
        match self.write_row(entity_type, entity, fields)? {
            Written::Done => {}
            Written::NoParent(parent) => {
                return self.park(scope, change, WaitsFor::Parent, &parent);
            }
            Written::Refused(why) => return self.park(scope, change, WaitsFor::Constraint, &why),
        }
        let unknown = match fields {
            Some(fields) => unknown::split(&entity_type.table, fields.clone()).1,
            None => Fields::new(),
        };
        if !unknown.is_empty() {
            unknown::keep(self.tx, entity, &unknown)?;
        } else if !self.plain {
            unknown::forget(self.tx, entity)?;
        }
        if !self.plain {
            held::release(self.tx, entity)?;
            state::unpark(self.tx, entity)?;
            state::forget_known(self.tx, entity)?;
            captured::delete_base(self.tx, entity.entity_type.as_str(), entity.id.as_str())?;
        }
        Ok(if fields.is_some() {
            Landed::Upserted
        } else {
            Landed::Deleted
        })
    }

    /// Makes the local row what it should be; `None` removes it.
    pub(crate) fn write_row(
        &mut self,
        entity_type: &RegisteredType,
        entity: &EntityRef,
        fields: Option<&Fields>,
    ) -> Result<Written, StoreError> {
        let table = &entity_type.table;
        let Some(fields) = fields else {
            self.vacated.remove(entity);
            return row::remove(self.tx, table, &entity.id);
        };
        if self.parents == Parents::Checked {
            for reference in &table.references {
                let Some(values) = row::reference_values(table, reference, &entity.id, fields)
                else {
                    continue;
                };
                let parent = self.types.of_table(&reference.table);
                let id =
                    parent.and_then(|parent| row::parent_id(&parent.table, reference, &values));
                let itself = parent.is_some_and(|parent| parent.name == entity_type.name)
                    && id.as_ref() == Some(&entity.id);
                if !itself && !row::parent_exists(self.tx, reference, &values)? {
                    let id = id.map_or_else(|| format!("{values:?}"), String::from);
                    return Ok(Written::NoParent(format!("{}/{id}", reference.table)));
                }
            }
        }
        match self.vacated.get(entity) {
            None => row::write(self.tx, table, &entity.id, fields),
            Some(row) => {
                let written = vacate::put_back(self.tx, table, row, fields)?;
                if written == Written::Done {
                    self.vacated.remove(entity);
                }
                Ok(written)
            }
        }
    }

    /// The local row, also when it is out of its table for a moment.
    fn local_row(
        &self,
        entity_type: &RegisteredType,
        entity: &EntityRef,
    ) -> Result<Option<Fields>, StoreError> {
        match self.vacated.get(entity) {
            Some(row) => Ok(Some(row.fields.clone())),
            None => row::read(self.tx, &entity_type.table, &entity.id),
        }
    }

    fn resolve(
        &mut self,
        scope: &Scope,
        change: &Change,
        entity_type: &RegisteredType,
        entity: &EntityRef,
    ) -> Result<Landed, StoreError> {
        let fields = upserted(change).cloned();
        let remote = RemoteState {
            version: change.version.clone(),
            position: change.position,
            fields,
        };
        let entries = outbox::of_entity(self.tx, entity.entity_type.as_str(), entity.id.as_str())?;
        match self.reconcile(
            entity_type,
            entity,
            &entries,
            Some(&remote),
            ConflictCause::Pull,
        )? {
            Reconciled::Settled | Reconciled::Waits => {
                held::release(self.tx, entity)?;
                state::unpark(self.tx, entity)?;
                state::forget_known(self.tx, entity)?;
                Ok(Landed::Merged)
            }
            Reconciled::NoPlace(Written::NoParent(parent)) => {
                self.park(scope, change, WaitsFor::Parent, &parent)
            }
            Reconciled::NoPlace(Written::Refused(why)) => {
                self.park(scope, change, WaitsFor::Constraint, &why)
            }
            Reconciled::NoPlace(Written::Done) => Ok(Landed::Skipped),
        }
    }

    /// The row, and what was recorded of fields that have no column any more: the app has dropped
    /// it since, but not what it wrote.
    fn with_dropped(
        &self,
        entity_type: &RegisteredType,
        base: Option<&Fields>,
        entries: &[Entry],
        mut row: Fields,
    ) -> Result<Fields, StoreError> {
        let mut recorded = base.cloned();
        for entry in entries {
            let payload = captured::fields_of_mutation(self.tx, entry.seq)?;
            recorded = after_mutation(recorded, entry.op, payload);
        }
        let columns = &entity_type.table.columns;
        for (field, value) in &recorded.unwrap_or_default() {
            if columns.iter().all(|column| column.field != *field) {
                row.insert(field.clone(), value.clone());
            }
        }
        Ok(row)
    }

    /// Brings a dirty entity and a remote state together: row, base and outbox in one go. None of
    /// `entries` may have been sent without a final outcome (E5).
    pub(crate) fn reconcile(
        &mut self,
        entity_type: &RegisteredType,
        entity: &EntityRef,
        entries: &[Entry],
        remote: Option<&RemoteState>,
        cause: ConflictCause,
    ) -> Result<Reconciled, StoreError> {
        let (theirs, unknown) = split_remote(entity_type, remote);
        let theirs = theirs.as_ref();
        if let Some(theirs) = theirs
            && must_stay_apart(entries)
        {
            return self.replay(entity_type, entity, entries, (theirs, &unknown));
        }
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let base = captured::base_of(self.tx, names.0, names.1)?.into_fields();
        let local = match self.local_row(entity_type, entity)? {
            Some(row) => Some(self.with_dropped(entity_type, base.as_ref(), entries, row)?),
            None => None,
        };
        let pending = pending(self.tx, entries)?;
        let input = ConflictInput {
            entity,
            base: base.as_ref(),
            local: local.as_ref(),
            remote: theirs,
            pending: &pending,
            cause: &cause,
            server_time_ms: None,
        };
        let sides = Sides::of(&input);
        let error = |reason: &str| ConflictError::new(&cause, reason, remote);
        let mutation = entries.first().map(|entry| entry.mutation.as_str());
        let rules = ConflictRules::from(entity_type.policy);
        match decide(&rules, &rules, &input) {
            Decision::Manual { reason, .. } => {
                let record = error(&reason);
                state::record_conflict(self.tx, entity, mutation, &sides, &record, None, self.now)?;
                self.notices.push(Notice::ConflictOpened {
                    entity: entity.clone(),
                    reason,
                });
                Ok(Reconciled::Waits)
            }
            Decision::Settled(rebased) => {
                if rebased.row != local || self.vacated.contains_key(entity) {
                    match self.write_row(entity_type, entity, rebased.row.as_ref())? {
                        Written::Done => {}
                        refused => return Ok(Reconciled::NoPlace(refused)),
                    }
                }
                if rebased.loses_something() {
                    let record = error("decided by rule");
                    let rule = Some(rebased.rule.as_str());
                    state::record_conflict(
                        self.tx, entity, mutation, &sides, &record, rule, self.now,
                    )?;
                }
                unknown::keep(self.tx, entity, &unknown)?;
                self.rewrite_outbox(entity, entries, &rebased, theirs)?;
                let rule = rebased.rule;
                self.notices.push(Notice::ConflictResolved {
                    entity: entity.clone(),
                    rule,
                });
                Ok(Reconciled::Settled)
            }
        }
    }

    /// Lays mutations that cannot become one over a remote state, in order: each stays as it is,
    /// and the server decides it on whatever it finds.
    fn replay(
        &mut self,
        entity_type: &RegisteredType,
        entity: &EntityRef,
        entries: &[Entry],
        (theirs, unknown): (&Fields, &Fields),
    ) -> Result<Reconciled, StoreError> {
        let mut row = Some(theirs.clone());
        for entry in entries {
            let payload = captured::fields_of_mutation(self.tx, entry.seq)?;
            row = after_mutation(row, entry.op, payload);
        }
        match self.write_row(entity_type, entity, row.as_ref())? {
            Written::Done => {}
            refused => return Ok(Reconciled::NoPlace(refused)),
        }
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        captured::write_base(self.tx, names.0, names.1, Some(theirs))?;
        unknown::keep(self.tx, entity, unknown)?;
        Ok(Reconciled::Settled)
    }

    /// The entries are rewritten on the remote state as base; those of which nothing is left are
    /// closed.
    fn rewrite_outbox(
        &mut self,
        entity: &EntityRef,
        entries: &[Entry],
        settled: &Settled,
        theirs: Option<&Fields>,
    ) -> Result<(), StoreError> {
        self.rekeying.outbox_changed();
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let rewrites = &settled.pending.each;
        let anything_left = rewrites.iter().any(|one| matches!(one, Rewrite::Write(_)));
        if anything_left {
            captured::write_base(self.tx, names.0, names.1, theirs)?;
        } else {
            captured::delete_base(self.tx, names.0, names.1)?;
        }
        // What a person has to mend stays as it is; only its base moves.
        if anything_left
            && entries
                .iter()
                .any(|entry| entry.state == EntryState::Failed)
        {
            return Ok(());
        }
        let detail = serde_json::json!({ "reason": "resolved", "rule": settled.rule });
        for (entry, rewrite) in entries.iter().zip(rewrites) {
            match rewrite {
                Rewrite::Write(intent) => {
                    outbox::rewrite(self.tx, entry.seq, intent.op, &intent.fields)?;
                }
                Rewrite::Supersede => {
                    outbox::settle(self.tx, entry, "superseded", &detail, self.now)?;
                }
            }
        }
        Ok(())
    }
}

/// What a resolver is shown of the entries.
fn pending(tx: &Transaction<'_>, entries: &[Entry]) -> Result<Vec<PendingMutation>, StoreError> {
    let shown = entries.iter().map(|entry| {
        Ok(PendingMutation {
            mutation: entry.mutation.as_str().to_owned(),
            op: entry.op,
            fields: captured::fields_of_mutation(tx, entry.seq)?.unwrap_or_default(),
        })
    });
    shown.collect()
}

/// The fields of a remote state that the table has, and those that it lacks.
fn split_remote(
    entity_type: &RegisteredType,
    remote: Option<&RemoteState>,
) -> (Option<Fields>, Fields) {
    match remote.and_then(|remote| remote.fields.clone()) {
        Some(fields) => {
            let (known, unknown) = unknown::split(&entity_type.table, fields);
            (Some(known), unknown)
        }
        None => (None, Fields::new()),
    }
}

/// Commands mean more than their fields, and a mutation of a group cannot become part of another.
fn must_stay_apart(entries: &[Entry]) -> bool {
    let grouped = entries.iter().any(|entry| entry.group.is_some());
    entries.iter().any(|entry| entry.command.is_some()) || (grouped && entries.len() > 1)
}

fn upserted(change: &Change) -> Option<&Fields> {
    match &change.kind {
        ChangeKind::Upsert(fields) => Some(fields),
        ChangeKind::Delete => None,
    }
}

/// What came of bringing a dirty entity and a remote state together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reconciled {
    /// Decided and written.
    Settled,
    /// A conflict is open.
    Waits,
    /// The decided row cannot be written; nothing was changed.
    NoPlace(Written),
}

/// The state of an entity after a mutation, as far as it is known without asking the server.
pub(crate) fn after_mutation(
    base: Option<Fields>,
    op: Operation,
    payload: Option<Fields>,
) -> Option<Fields> {
    match op {
        Operation::Create => Some(payload.unwrap_or_default()),
        Operation::Delete => None,
        Operation::Update => base.map(|mut fields| {
            fields.patch(&payload.unwrap_or_default());
            fields
        }),
    }
}
