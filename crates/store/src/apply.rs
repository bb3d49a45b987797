//! Applying one remote state to one entity: the same way for a pulled change, for a change that
//! waited in the inbox, and for the remote state that comes with a refused push.

use crate::captured::{self, CapturedError};
use crate::conflict::record::{self, Reset};
use crate::conflict::{Reconciled, natural};
use crate::error::StoreError;
use crate::held;
use crate::meta;
use crate::orphans;
use crate::page;
use crate::rekey::{self, Rekeying, Room};
use crate::row::{self, Written};
use crate::state;
use crate::steady::Times;
use crate::store::{EntityTypes, RegisteredType};
use crate::sweep;
use crate::unknown;
use crate::vacate::{self, Vacated};
use rusqlite::Transaction;
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{
    ChangePlan, ConflictCause, EntityRef, Notice, Now, PageSummary, WaitsFor, plan_change,
    unstorable,
};
use syncline_protocol::{Change, ChangeKind, Fields, Operation, RemoteState, Scope};

/// One transaction in which remote states are applied.
pub(crate) struct Applier<'a> {
    pub(crate) tx: &'a Transaction<'a>,
    pub(crate) types: &'a EntityTypes,
    pub(crate) now: Now,
    pub(crate) times: Times,
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
    /// Where the cursor stands when this is committed, if it moves.
    pub(crate) cursor_at: Option<i64>,
    pub(crate) notices: Vec<Notice>,
    /// Rows that are out of their tables for a moment.
    pub(crate) vacated: BTreeMap<EntityRef, Vacated>,
    /// Rows that are being written together: each may refer to one that is still to come.
    pub(crate) together: BTreeSet<EntityRef>,
    /// Entities of which this transaction has booked what another copy of the file did.
    pub(crate) on_copies: BTreeSet<EntityRef>,
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
    pub(crate) fn new(
        tx: &'a Transaction<'a>,
        types: &'a EntityTypes,
        (now, times): (Now, Times),
    ) -> Self {
        Self {
            tx,
            types,
            now,
            times,
            plain: false,
            parents: Parents::Checked,
            newest: i64::MAX,
            rekeying: Rekeying::default(),
            holds_back: false,
            cursor_at: None,
            notices: Vec::new(),
            vacated: BTreeMap::new(),
            together: BTreeSet::new(),
            on_copies: BTreeSet::new(),
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
        let entity = entity_of(change);
        let mut plan = if self.plain {
            ChangePlan::Write
        } else {
            rekey::recognise(self, &entity, change)?;
            plan_change(state::view(self.tx, &entity)?, change.position)
        };
        if let Some(why) = unstorable(change) {
            return self.park(scope, change, WaitsFor::Valid, &why);
        }
        if plan == ChangePlan::Resolve && sweep::is_about_nothing(self.tx, &entity, change)? {
            plan = ChangePlan::Skip;
        }
        if plan == ChangePlan::Resolve {
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
        if matches!(plan, ChangePlan::Write | ChangePlan::Resolve)
            && let Some(parent) = rekey::parent_to_come(self, entity_type, &entity, change)?
        {
            return self.park(scope, change, WaitsFor::Parent, &parent);
        }
        let landed = match plan {
            ChangePlan::Skip => Ok(Landed::Skipped),
            ChangePlan::Park(waits_for) => {
                // The server speaks of it after all.
                held::release(self.tx, &entity)?;
                self.park(scope, change, waits_for, "")
            }
            ChangePlan::Write => match self.meet_twin(scope, change, entity_type, &entity)? {
                Some(landed) => Ok(landed),
                None => self.write(scope, change, entity_type, &entity),
            },
            ChangePlan::Resolve => {
                let remote = remote_of(change);
                let cause = ConflictCause::Pull;
                let reconciled = self.reconcile(entity_type, &entity, Some(&remote), &cause);
                reconciled
                    .and_then(|reconciled| self.reconciled(scope, change, &entity, reconciled))
            }
        };
        match landed {
            // A base that no server could hold: the row needs a person, the feed goes on (P4).
            Err(StoreError::Captured(error @ CapturedError::Unsyncable { .. })) => {
                self.park(scope, change, WaitsFor::Constraint, &error.to_string())
            }
            landed => landed,
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
        let gone = match fields {
            None => self.referenced_row(entity_type, entity)?,
            Some(_) => None,
        };
        let (completed, reset) = match fields {
            Some(fields) => self.completed(entity_type, entity, fields)?,
            None => (None, None),
        };
        let fields = completed.as_ref().or(fields);
        match self.write_row(entity_type, entity, fields)? {
            Written::Done => {}
            Written::NoParent(parent) => {
                return self.park(scope, change, WaitsFor::Parent, &parent);
            }
            Written::Refused(why) => return self.park(scope, change, WaitsFor::Constraint, &why),
        }
        if let Some(gone) = gone {
            let deletion = Some((&change.version, change.position));
            let (tx, types) = (self.tx, self.types);
            orphans::note(tx, types, entity_type, &entity.id, &gone, deletion)?;
        }
        if let Some(reset) = &reset {
            record::reset(self.tx, entity, reset, self.now)?;
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
            self.reflects(entity, change)?;
            record::landed(self.tx, entity, self.now)?;
            captured::delete_base(self.tx, entity.entity_type.as_str(), entity.id.as_str())?;
        }
        Ok(if fields.is_some() {
            Landed::Upserted
        } else {
            Landed::Deleted
        })
    }

    /// The entity is as of the change, which an answer may have brought before the feed does. Of a row of a snapshot
    /// that is newer than the snapshot nothing is noted: the feed says it again.
    fn reflects(&self, entity: &EntityRef, change: &Change) -> Result<(), StoreError> {
        let cursor_at = match self.cursor_at {
            Some(position) => position,
            // What was pulled before it had to wait has the position 0, which is never ahead.
            None => page::applied_position(self.tx)?.unwrap_or(0),
        };
        if change.position <= cursor_at || self.parents == Parents::Later {
            return state::forget_known(self.tx, entity);
        }
        let gone = upserted(change).is_none();
        state::set_known(self.tx, entity, &change.version, change.position, gone)
    }

    /// A state of the server with what a column holds when nobody gave it a value, for each of which it says nothing and
    /// that holds something here; and the row as it was. Most states say all, or nothing stands there.
    fn completed(
        &self,
        entity_type: &RegisteredType,
        entity: &EntityRef,
        fields: &Fields,
    ) -> Result<(Option<Fields>, Option<Reset>), StoreError> {
        let table = &entity_type.table;
        if table.columns.iter().all(|one| fields.contains(&one.field)) {
            return Ok((None, None));
        }
        let Some(before) = self.local_row(entity_type, entity)? else {
            return Ok((None, None));
        };
        let mut told = fields.clone();
        row::complete(self.tx, table, &before, &mut told)?;
        let lost: Fields = (before.iter())
            .filter(|(name, value)| {
                !fields.contains(name) && told.get(name).is_some_and(|now| now != *value)
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if lost.is_empty() || !self.is_all_told(entity_type)? {
            return Ok((None, None));
        }
        let reset = Reset {
            before,
            after: told.clone(),
            lost,
        };
        Ok((Some(told), Some(reset)))
    }

    /// Whether clean rows of a type hold nothing that the server was not told. They may where it was attached to rows that
    /// the server had already, with columns that were left out before, or where writes may have escaped capture.
    pub(crate) fn is_all_told(&self, entity_type: &RegisteredType) -> Result<bool, StoreError> {
        let key = format!("{}{}", meta::key::UNTOLD, entity_type.name);
        Ok(meta::get::<i64>(self.tx, &key)?.is_none())
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
                let parent = self.types.parent(reference, &values);
                let comes = (parent.as_ref())
                    .is_some_and(|parent| parent == entity || self.together.contains(parent));
                if !comes && !row::parent_exists(self.tx, reference, &values)? {
                    let id = parent.map_or_else(|| format!("{values:?}"), |one| one.id.into());
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

    /// The local row, where others may reference it.
    fn referenced_row(
        &self,
        entity_type: &RegisteredType,
        entity: &EntityRef,
    ) -> Result<Option<Fields>, StoreError> {
        match orphans::is_referenced(self.types, entity_type) {
            true => self.local_row(entity_type, entity),
            false => Ok(None),
        }
    }

    /// The local row, also when it is out of its table for a moment.
    pub(crate) fn local_row(
        &self,
        entity_type: &RegisteredType,
        entity: &EntityRef,
    ) -> Result<Option<Fields>, StoreError> {
        match self.vacated.get(entity) {
            Some(row) => Ok(Some(row.fields.clone())),
            None => row::read(self.tx, &entity_type.table, &entity.id),
        }
    }

    /// A row that was created here may be the same thing as the remote one under another id.
    fn meet_twin(
        &mut self,
        scope: &Scope,
        change: &Change,
        entity_type: &RegisteredType,
        entity: &EntityRef,
    ) -> Result<Option<Landed>, StoreError> {
        let Some(fields) = upserted(change).filter(|_| !self.plain && self.vacated.is_empty())
        else {
            return Ok(None);
        };
        let Some(twin) = natural::twin(self, entity_type, entity, fields)? else {
            return Ok(None);
        };
        let remote = remote_of(change);
        match natural::join(self, entity_type, &twin, (&entity.id, &remote))? {
            Ok(reconciled) => (self.reconciled(scope, change, entity, reconciled)).map(Some),
            Err(why) => {
                tracing::warn!(%entity, why, "its local twin cannot have its id");
                Ok(None)
            }
        }
    }

    /// What follows for the pulled change from bringing it together with a dirty entity.
    fn reconciled(
        &mut self,
        scope: &Scope,
        change: &Change,
        entity: &EntityRef,
        reconciled: Reconciled,
    ) -> Result<Landed, StoreError> {
        match reconciled {
            Reconciled::Settled | Reconciled::Waits => {
                held::release(self.tx, entity)?;
                state::unpark(self.tx, entity)?;
                if reconciled == Reconciled::Settled {
                    self.reflects(entity, change)?;
                    record::landed(self.tx, entity, self.now)?;
                } else {
                    state::forget_known(self.tx, entity)?;
                }
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
}

fn entity_of(change: &Change) -> EntityRef {
    EntityRef {
        entity_type: change.entity_type.clone(),
        id: change.id.clone(),
    }
}

fn remote_of(change: &Change) -> RemoteState {
    RemoteState {
        version: change.version.clone(),
        position: change.position,
        fields: upserted(change).cloned(),
    }
}

fn upserted(change: &Change) -> Option<&Fields> {
    match &change.kind {
        ChangeKind::Upsert(fields) => Some(fields),
        ChangeKind::Delete => None,
    }
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
