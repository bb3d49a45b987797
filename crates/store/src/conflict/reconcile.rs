//! Bringing a dirty entity and a remote state together: the resolver is asked, and row, base, outbox
//! and record are written in one go (P2). The same for a pulled change and for a refused push.

use super::person::loss;
use super::record::{self, About, Decided, Showed};
use super::references::{Keeping, last_plain};
use crate::apply::{Applier, after_mutation};
use crate::captured;
use crate::error::StoreError;
use crate::meta;
use crate::orphans;
use crate::outbox::{self, Entry};
use crate::row::{self, Written};
use crate::store::RegisteredType;
use crate::unknown;
use rusqlite::Transaction;
use syncline_core::{
    ConflictCause, ConflictInput, Decision, EntityRef, Notice, PendingMutation, Settled, decide,
};
use syncline_protocol::{Fields, Operation, RemoteState, Value};

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

/// What there is of an entity on this side.
pub(super) struct Here {
    pub(super) base: Option<Fields>,
    pub(super) local: Option<Fields>,
    pub(super) entries: Vec<Entry>,
    pub(super) pending: Vec<PendingMutation>,
}

impl Here {
    pub(super) fn read(
        applier: &Applier<'_>,
        entity_type: &RegisteredType,
        entity: &EntityRef,
    ) -> Result<Self, StoreError> {
        let (tx, names) = (
            applier.tx,
            (entity.entity_type.as_str(), entity.id.as_str()),
        );
        let entries = outbox::of_entity(tx, names.0, names.1)?;
        let base = captured::base_of(tx, names.0, names.1)?.into_fields();
        let local = match applier.local_row(entity_type, entity)? {
            Some(row) => Some(with_dropped(tx, entity_type, base.as_ref(), &entries, row)?),
            None => None,
        };
        Ok(Self {
            pending: pending(tx, &entries)?,
            base,
            local,
            entries,
        })
    }

    /// A row that was deleted on the server and is created again here, since an edit won: where somebody else
    /// did the same first, both are that row, and what it was before the deletion is between them.
    fn recall_base(&mut self, tx: &Transaction<'_>, entity: &EntityRef) -> Result<(), StoreError> {
        // In a later history of the server it may be the deletion that is lost.
        let made = self.entries.first();
        let is_create = |entry: &&Entry| entry.op == Operation::Create;
        if let (None, Some(again)) = (&self.base, made.filter(is_create)) {
            self.base = record::before_deletion(tx, entity, again.mutation.as_str())?;
        }
        Ok(())
    }

    pub(super) fn mutations(&self) -> Vec<&str> {
        self.pending
            .iter()
            .map(|one| one.mutation.as_str())
            .collect()
    }
}

/// The row as it can be stored here.
fn without_unknown(way: &Way<'_>, decision: Decision) -> Decision {
    match decision {
        Decision::Settled(settled) => Decision::Settled(Settled {
            row: (settled.row).map(|row| unknown::split(&way.entity_type.table, row).0),
            ..settled
        }),
        manual @ Decision::Manual { .. } => manual,
    }
}

impl Applier<'_> {
    /// Brings a dirty entity and a remote state together. None of its entries may have been sent
    /// without a final outcome (E5).
    pub(crate) fn reconcile(
        &mut self,
        entity_type: &RegisteredType,
        entity: &EntityRef,
        remote: Option<&RemoteState>,
        cause: &ConflictCause,
    ) -> Result<Reconciled, StoreError> {
        let (mut theirs, unknown) = split_remote(entity_type, remote);
        let mut here = Here::read(self, entity_type, entity)?;
        if theirs.is_some() {
            here.recall_base(self.tx, entity)?;
        }
        if let (Some(theirs), Some(local)) = (&mut theirs, &here.local) {
            // An edit of a column that was dropped here since is decided about like any other.
            let both = unknown.iter().filter(|(name, _)| local.contains(name));
            both.for_each(|(name, value)| drop(theirs.insert(name.clone(), value.clone())));
        }
        if let (Some(theirs), Some(base)) = (&mut theirs, &here.base)
            && self.is_all_told(entity_type)?
        {
            row::complete(self.tx, &entity_type.table, base, theirs)?;
        }
        let showed = Showed::new(cause, remote);
        let way = Way {
            entity_type,
            entity,
            theirs: theirs.as_ref(),
            unknown: &unknown,
            here: &here,
            open: record::open_of(self.tx, entity)?.map(|record| record.id),
        };
        if let Some(theirs) = way.theirs
            && must_stay_apart(&here.entries)
            && !is_created_here(&here.entries)
        {
            return self.replay(&way, theirs, showed);
        }
        if let Some(theirs) = way.theirs
            && orphans::is_only_restored(&here.entries)
        {
            return self.yield_to(&way, theirs);
        }
        match self.decide(&way, cause)? {
            Decision::Manual { reason, .. } => {
                self.open_conflict(&way, showed, reason)?;
                Ok(Reconciled::Waits)
            }
            Decision::Settled(settled) => {
                let done = self.settle(&way, &settled, showed.clone())?;
                if !matches!(done, Reconciled::NoPlace(Written::NoParent(_))) {
                    return Ok(done);
                }
                let kept = self.own_references(&way, settled.row.as_ref())?;
                if kept.is_empty() {
                    return Ok(done);
                }
                match self.decide_keeping(&way, cause, &kept)? {
                    Decision::Settled(settled) => self.settle(&way, &settled, showed),
                    Decision::Manual { .. } => Ok(done),
                }
            }
        }
    }

    /// A conflict waits for a person from here on; one that is open is brought up to date.
    pub(super) fn open_conflict(
        &mut self,
        way: &Way<'_>,
        mut showed: Showed,
        reason: String,
    ) -> Result<i64, StoreError> {
        showed.reason = Some(reason.clone());
        let (id, new) = record::open(self.tx, &way.about(showed), way.open, self.now)?;
        if new {
            self.notices.push(Notice::ConflictOpened {
                entity: way.entity.clone(),
                reason,
            });
        }
        Ok(id)
    }

    /// Asks the app's resolver, where there is one, else the declared rules.
    pub(super) fn decide(
        &mut self,
        way: &Way<'_>,
        cause: &ConflictCause,
    ) -> Result<Decision, StoreError> {
        self.decide_keeping(way, cause, &Fields::new())
    }

    /// The same, where these fields are to stay as they are here.
    fn decide_keeping(
        &mut self,
        way: &Way<'_>,
        cause: &ConflictCause,
        kept: &Fields,
    ) -> Result<Decision, StoreError> {
        let ahead_ms: Option<i64> = meta::get(self.tx, meta::key::SERVER_CLOCK)?;
        let unseen = self.unseen(way)?;
        let (base, remote) = match &unseen {
            Some((base, remote)) => (Some(base), Some(remote)),
            None => (way.here.base.as_ref(), way.theirs),
        };
        let input = ConflictInput {
            entity: way.entity,
            base,
            local: way.here.local.as_ref(),
            remote,
            pending: &way.here.pending,
            cause,
            server_time_ms: ahead_ms.map(|ahead| self.now.unix_ms.saturating_add(ahead)),
        };
        let rules = &way.entity_type.rules;
        let joined = match (&way.here.base, &way.here.local, way.theirs) {
            (None, Some(local), Some(theirs)) => rules.same_natural_key(local, theirs),
            _ => false,
        };
        let Some(own) = self.types.resolvers.of(&way.entity_type.name) else {
            if let (ConflictCause::Violation { constraint, .. }, false) = (cause, joined) {
                return Ok(Decision::Manual {
                    rule: "violation".to_owned(),
                    reason: constraint.clone(),
                });
            }
            let resolver = Keeping { inner: rules, kept };
            return Ok(without_unknown(way, decide(&resolver, rules, &input)));
        };
        let decision = without_unknown(way, decide(&Keeping { inner: &own, kept }, rules, &input));
        if let Some(deadline_ms) = own.was_late() {
            self.notices.push(Notice::ResolverDisabled {
                entity_type: way.entity.entity_type.clone(),
                resolver: syncline_core::Resolver::name(&own).to_owned(),
                deadline_ms,
            });
        }
        Ok(decision)
    }

    /// The row was deleted here, and what another app wrote into a field for which there is no column here
    /// has not been seen: base and remote state with such fields, for that is a change to decide about.
    fn unseen(&self, way: &Way<'_>) -> Result<Option<(Fields, Fields)>, StoreError> {
        let (Some(base), None, Some(theirs)) = (&way.here.base, &way.here.local, way.theirs) else {
            return Ok(None);
        };
        let seen = unknown::of(self.tx, way.entity)?;
        Ok((seen != *way.unknown).then(|| {
            let (mut base, mut theirs) = (base.clone(), theirs.clone());
            base.patch(&seen);
            theirs.patch(way.unknown);
            (base, theirs)
        }))
    }

    /// Writes what was decided: row, record, base and outbox.
    pub(super) fn settle(
        &mut self,
        way: &Way<'_>,
        settled: &Settled,
        showed: Showed,
    ) -> Result<Reconciled, StoreError> {
        if settled.row != way.here.local || self.vacated.contains_key(way.entity) {
            let row = settled.row.clone().map(|row| way.with_given_up(row));
            match self.write_row(way.entity_type, way.entity, row.as_ref())? {
                Written::Done => {}
                refused => return Ok(Reconciled::NoPlace(refused)),
            }
        }
        // As its children here refer to it.
        let gone = way.here.local.as_ref().or(way.here.base.as_ref());
        if let (None, None, Some(gone)) = (way.theirs, &settled.row, gone) {
            let (tx, types, id) = (self.tx, self.types, &way.entity.id);
            let deletion = orphans::deletion(showed.remote.as_ref());
            orphans::note(tx, types, way.entity_type, id, gone, deletion)?;
        }
        let told = settled.rule != "unchanged";
        // Where both sides say the same there was nothing to decide.
        let record = match told && settled.rule != "equal" || way.open.is_some() {
            true => {
                let decided = Decided {
                    resolution: &settled.rule,
                    result: settled.row.as_ref(),
                    outcome: Some(settled.into()),
                    undo: None,
                };
                let (id, _) = record::open(self.tx, &way.about(showed), way.open, self.now)?;
                record::decide(self.tx, id, &decided, self.now)?;
                Some(id)
            }
            false => None,
        };
        if way.theirs.is_some() || settled.row.is_none() {
            unknown::keep(self.tx, way.entity, way.unknown)?;
        }
        self.rewrite_outbox(way, &settled.pending, &settled.rule, record)?;
        if told {
            self.notices.push(Notice::ConflictResolved {
                entity: way.entity.clone(),
                rule: settled.rule.clone(),
            });
        }
        Ok(Reconciled::Settled)
    }

    /// A row that was to be created again for its children's sake is there again: it is taken as it is.
    fn yield_to(&mut self, way: &Way<'_>, theirs: &Fields) -> Result<Reconciled, StoreError> {
        match self.write_row(way.entity_type, way.entity, Some(theirs))? {
            Written::Done => {}
            refused => return Ok(Reconciled::NoPlace(refused)),
        }
        self.rekeying.outbox_changed();
        let detail = serde_json::json!({ "reason": "resolved", "rule": "restored elsewhere" });
        for entry in &way.here.entries {
            outbox::settle(self.tx, entry, "superseded", &detail, self.now)?;
        }
        let names = (way.entity.entity_type.as_str(), way.entity.id.as_str());
        captured::delete_base(self.tx, names.0, names.1)?;
        unknown::keep(self.tx, way.entity, way.unknown)?;
        Ok(Reconciled::Settled)
    }

    /// Lays mutations that cannot become one over a remote state, in order: each stays as it is,
    /// and the server decides it on whatever it finds.
    fn replay(
        &mut self,
        way: &Way<'_>,
        theirs: &Fields,
        showed: Showed,
    ) -> Result<Reconciled, StoreError> {
        let mut row = Some(theirs.clone());
        for (entry, shown) in way.here.entries.iter().zip(&way.here.pending) {
            row = after_mutation(row, entry.op, Some(shown.fields.clone()));
        }
        match self.write_row(way.entity_type, way.entity, row.as_ref())? {
            Written::Done => {}
            Written::NoParent(parent) => {
                let kept = self.own_references(way, row.as_ref())?;
                let (Some(plain), Some(row)) = (last_plain(&way.here.entries), row.as_mut()) else {
                    return Ok(Reconciled::NoPlace(Written::NoParent(parent)));
                };
                row.patch(&kept);
                if kept.is_empty()
                    || self.write_row(way.entity_type, way.entity, Some(row))? != Written::Done
                {
                    return Ok(Reconciled::NoPlace(Written::NoParent(parent)));
                }
                self.write_along(plain, &kept)?;
            }
            refused => return Ok(Reconciled::NoPlace(refused)),
        }
        let names = (way.entity.entity_type.as_str(), way.entity.id.as_str());
        captured::write_base(self.tx, names.0, names.1, Some(theirs))?;
        unknown::keep(self.tx, way.entity, way.unknown)?;
        if way.here.base.as_ref() != Some(theirs) {
            let outcome = super::Outcome {
                lost_theirs: loss(way.here.base.as_ref(), Some(theirs), row.as_ref()),
                ..super::Outcome::default()
            };
            let decided = Decided {
                resolution: "replay",
                result: row.as_ref(),
                outcome: Some(outcome),
                undo: None,
            };
            let (id, _) = record::open(self.tx, &way.about(showed), way.open, self.now)?;
            record::decide(self.tx, id, &decided, self.now)?;
        }
        Ok(Reconciled::Settled)
    }
}

/// What is known of a conflict while it is decided.
pub(super) struct Way<'a> {
    pub(super) entity_type: &'a RegisteredType,
    pub(super) entity: &'a EntityRef,
    /// The server's fields that the table has.
    pub(super) theirs: Option<&'a Fields>,
    /// And those that it lacks.
    pub(super) unknown: &'a Fields,
    pub(super) here: &'a Here,
    /// The record of the conflict, if it is open already.
    pub(super) open: Option<i64>,
}

impl Way<'_> {
    /// A row that was decided, and below it what a field was that only this side has and that gave way: the
    /// server's row may not mention a column that is new.
    fn with_given_up(&self, mut row: Fields) -> Fields {
        for column in &self.entity_type.table.columns {
            let name = column.field.as_str();
            let base = self.here.base.as_ref();
            let edited = self
                .here
                .pending
                .iter()
                .any(|one| one.fields.contains(name));
            let before = match base.and_then(|base| base.get(name)) {
                Some(before) => Some(before.clone()),
                None => (!column.not_null).then_some(Value::Null),
            };
            if edited
                && !row.contains(name)
                && let Some(before) = before
            {
                row.insert(name, before);
            }
        }
        row
    }

    pub(super) fn about(&self, showed: Showed) -> About<'_> {
        About {
            entity: self.entity,
            mutations: self.here.mutations(),
            base: self.here.base.as_ref(),
            local: self.here.local.as_ref(),
            remote: self.theirs,
            showed,
        }
    }
}

/// The row, and what was recorded of fields that have no column any more: the app has dropped
/// it since, but not what it wrote.
fn with_dropped(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    base: Option<&Fields>,
    entries: &[Entry],
    mut row: Fields,
) -> Result<Fields, StoreError> {
    let mut recorded = base.cloned();
    for entry in entries {
        let payload = captured::fields_of_mutation(tx, entry.seq)?;
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
pub(super) fn split_remote(
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

/// What was created on both sides is never laid over the other: the server would refuse the create for
/// ever.
fn is_created_here(entries: &[Entry]) -> bool {
    (entries.first()).is_some_and(|entry| entry.op == Operation::Create)
}

/// Commands mean more than their fields, and a mutation of a group cannot become part of another.
fn must_stay_apart(entries: &[Entry]) -> bool {
    let grouped = entries.iter().any(|entry| entry.group.is_some());
    entries.iter().any(|entry| entry.command.is_some()) || (grouped && entries.len() > 1)
}
