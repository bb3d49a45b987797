//! Push, first half: choosing what to send, and freezing it.
//!
//! The scan goes through the outbox in local order. An entity that cannot proceed is *held* with
//! everything that depends on it; nothing else is (O4). Several entries of one entity are in a
//! batch only as a chain, each based on the one before (O1); an entry waits for parents that are
//! not created yet and for what still references a row that it deletes (O2, O3). Cost is that of
//! the batch and of what is held before it.

mod depend;
mod freeze;
mod lanes;
pub(crate) mod parts;

use crate::captured::{self, CapturedError};
use crate::conflict::natural;
use crate::error::{StoreError, to_json};
use crate::inbox;
use crate::meta;
use crate::outbox::{self, Entry, EntryState};
use crate::stage;
use crate::state;
use crate::store::EntityTypes;
use crate::type_options::IdMode;
pub(crate) use depend::{doomed_parents, parents};
use parts::Parts;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{
    Batch, BatchEntry, Cancel, ClaimLimits, Claimed, Dice, EntityRef, Intent, MutationError,
    Notice, Now, WaitsFor,
};
use syncline_protocol::{
    Base, ClientId, Epoch, Fields, IdempotencyKey, MutationId, Operation, Scope,
};

const CHUNK: usize = 256;
/// How many more entries are looked at once the batch is not empty.
const LOOK_AHEAD: usize = 4096;

/// No delay is longer: a server's wish is taken up to an hour and a tenth.
pub(crate) const LONGEST_WAIT_MS: u64 = 2 * 3_600_000;

/// An entity by type and recorded id.
type Name = (String, String);

/// One claim under way.
pub(crate) struct Claimer<'a> {
    tx: &'a Transaction<'a>,
    types: &'a EntityTypes,
    limits: &'a ClaimLimits,
    dice: &'a mut Dice,
    now: Now,
    /// For waiting.
    due_ms: i64,
    token: i64,
    until: i64,
    /// Where the rows of the scope stand; `None` until a first snapshot is complete (P6).
    position: Option<Base>,
    /// Creates up to which are known not to be on the server under another id.
    head: natural::Head,
    /// The history that known versions belong to: they are dropped when it changes.
    epoch: Epoch,
    /// This installation.
    client: Option<String>,
    /// Entities that cannot proceed any further in this batch.
    held: BTreeSet<Name>,
    /// Entities with something in the batch that more can follow: the key of the last.
    chain: BTreeMap<Name, IdempotencyKey>,
    /// Those of them with something that another copy of the file may have sent.
    of_copies: BTreeSet<Name>,
    /// Rows that an earlier unsettled entry references: not to be deleted yet.
    referenced: BTreeSet<EntityRef>,
    /// Entities that wait for others: their entry and those others.
    waits: BTreeMap<EntityRef, (i64, Vec<EntityRef>)>,
    /// Entities that the group under consideration creates.
    together: BTreeSet<EntityRef>,
    /// The scan goes lane by lane, not in local order.
    by_lane: bool,
    /// Entities that are left to the pass in local order.
    deferred: BTreeSet<Name>,
    /// Every unsettled mutation and its entity, once somebody asked.
    unsettled: Option<BTreeMap<String, Name>>,
    /// What may only be sent alone is left out for now.
    spares_alone: bool,
    /// Entries that were looked at.
    seen: BTreeSet<i64>,
    /// Entries that this claim took out of the outbox.
    gone: BTreeSet<i64>,
    /// What this claim made part of later entries, which may have been read before.
    handed_over: BTreeMap<i64, Vec<MutationId>>,
    batch: Batch,
    bytes: usize,
    /// Something was left out because the batch would have become too large.
    filled: bool,
    notices: Vec<Notice>,
}

/// What the scan decides about one entry.
enum Step {
    /// Into the batch.
    Send(Send),
    /// Not now; its entity is held.
    Hold,
    /// It is gone (coalesced away); its entity is looked at again.
    Gone,
}

/// What is sent of an entry.
#[derive(Clone)]
struct Send {
    key: String,
    frozen: String,
    entity: EntityRef,
    /// Mutations that were coalesced into it.
    covers: Vec<MutationId>,
    /// Their entries, as far as they are still in the outbox.
    folded: Vec<Entry>,
    /// The payload as it was frozen now, and what it was made of; `None` when it was frozen before.
    fresh: Option<Box<(Option<Fields>, Option<Parts>)>>,
}

impl<'a> Claimer<'a> {
    pub(crate) fn new(
        tx: &'a Transaction<'a>,
        types: &'a EntityTypes,
        limits: &'a ClaimLimits,
        dice: &'a mut Dice,
        (now, due_ms): (Now, i64),
        (token, until): (i64, i64),
    ) -> Result<Self, StoreError> {
        let epoch: Option<String> = meta::get(tx, meta::key::EPOCH)?;
        Ok(Self {
            client: meta::get(tx, meta::key::CLIENT_ID)?,
            position: feed_position(tx)?,
            head: natural::Head::read(tx, now)?,
            epoch: Epoch::new(epoch.unwrap_or_default()),
            tx,
            types,
            limits,
            dice,
            now,
            due_ms,
            token,
            until,
            held: BTreeSet::new(),
            chain: BTreeMap::new(),
            of_copies: BTreeSet::new(),
            referenced: BTreeSet::new(),
            waits: BTreeMap::new(),
            together: BTreeSet::new(),
            by_lane: false,
            deferred: BTreeSet::new(),
            unsettled: None,
            spares_alone: true,
            seen: BTreeSet::new(),
            gone: BTreeSet::new(),
            handed_over: BTreeMap::new(),
            batch: Batch::default(),
            bytes: 0,
            filled: false,
            notices: Vec::new(),
        })
    }

    /// Fills a batch, in one transaction with marking it in flight.
    pub(crate) fn claim(mut self) -> Result<Claimed, StoreError> {
        if self.limits.urgent_only {
            self.scan_urgent()?;
            if self.goes_on_with_alone() {
                self.scan_urgent()?;
            }
            return Ok(self.into_claimed(None));
        }
        let cancel = self.cancel()?;
        let in_order = self.limits.in_order || !outbox::has_lanes(self.tx)?;
        self.scan_all(in_order)?;
        if cancel.is_none() && self.goes_on_with_alone() {
            self.scan_all(in_order)?;
        }
        if let (true, Some(seq)) = (self.batch.entries.is_empty(), self.first_in_a_cycle()) {
            // They wait for each other: one goes without those that it waits for.
            self.held.clear();
            self.seen.clear();
            self.referenced.clear();
            self.scan(Some(seq))?;
        }
        Ok(self.into_claimed(cancel))
    }

    /// The first key that is to be cancelled: one that may have been sent and is not under way. (What an
    /// engine had under way when it died is still marked in flight.)
    fn cancel(&self) -> Result<Option<Cancel>, StoreError> {
        let is_under_way = |entry: &Entry| self.limits.under_way.contains(&entry.seq);
        let entry = outbox::to_cancel(self.tx)?.filter(|entry| !is_under_way(entry));
        Ok(entry.and_then(|entry| {
            Some(Cancel {
                seq: entry.seq,
                mutation: entry.mutation,
                client: ClientId::new(entry.origin_client.or_else(|| self.client.clone())?),
                key: IdempotencyKey::new(entry.key?),
            })
        }))
    }

    fn scan_all(&mut self, in_order: bool) -> Result<(), StoreError> {
        match in_order {
            true => self.scan(None),
            false => self.scan_by_lane(),
        }
    }

    /// What fails alone goes when there is nothing else to send or to cancel: it must not keep the
    /// others from it, by whose success its failure is known to be its own (O4).
    fn goes_on_with_alone(&mut self) -> bool {
        let goes_on = self.batch.entries.is_empty() && !self.limits.alone.is_empty();
        if goes_on {
            self.spares_alone = false;
            self.held.clear();
            self.seen.clear();
            self.referenced.clear();
        }
        goes_on
    }

    fn into_claimed(mut self, cancel: Option<Cancel>) -> Claimed {
        self.batch.bytes = self.bytes as u64;
        Claimed {
            more: self.is_full(),
            batch: self.batch,
            cancel,
            notices: self.notices,
        }
    }

    fn scan(&mut self, unbound: Option<i64>) -> Result<(), StoreError> {
        self.scan_with(outbox::after, |claimer, entry| {
            claimer.visit(entry, unbound == Some(entry.seq))
        })
    }

    fn scan_with(
        &mut self,
        read: impl Fn(&Connection, i64, usize) -> Result<Vec<Entry>, StoreError>,
        mut visit: impl FnMut(&mut Self, &Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (mut last, mut looked) = (0, 0);
        loop {
            let chunk = read(self.tx, last, CHUNK)?;
            for entry in &chunk {
                if self.is_full() || (looked >= LOOK_AHEAD && !self.batch.entries.is_empty()) {
                    return Ok(());
                }
                last = entry.seq;
                looked += 1;
                visit(self, entry)?;
            }
            if chunk.len() < CHUNK {
                return Ok(());
            }
        }
    }

    fn is_full(&self) -> bool {
        let alone = self
            .batch
            .entries
            .first()
            .is_some_and(|e| self.limits.alone.contains(&e.mutation));
        alone
            || self.filled
            || self.batch.entries.len() >= self.limits.mutations
            || self.bytes >= self.limits.bytes
    }

    /// Looks at one entry. An `unbound` one goes without what it waits for.
    fn visit(&mut self, entry: &Entry, unbound: bool) -> Result<(), StoreError> {
        let name = name(entry);
        if self.gone.contains(&entry.seq)
            || self.seen.contains(&entry.seq)
            || self.is_deferred(entry, &name)
        {
            return Ok(());
        }
        if let Some(group) = &entry.group {
            return self.visit_group(group);
        }
        self.seen.insert(entry.seq);
        let step = if self.held.contains(&name) || self.limits.under_way.contains(&entry.seq) {
            Step::Hold
        } else {
            self.consider(entry, unbound)?
        };
        match step {
            Step::Gone => Ok(()),
            Step::Hold => self.hold(entry),
            Step::Send(send) if !self.has_room(send.frozen.len()) => self.hold(entry),
            Step::Send(send) => self.take(entry, send),
        }
    }

    /// Whether so many bytes more keep the batch within its size. One that is alone always may go.
    fn has_room(&mut self, bytes: usize) -> bool {
        let room = self.batch.entries.is_empty() || self.bytes + bytes <= self.limits.bytes;
        self.filled |= !room;
        room
    }

    fn hold(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.note_references(entry)?;
        self.held.insert(name(entry));
        Ok(())
    }

    fn consider(&mut self, entry: &Entry, unbound: bool) -> Result<Step, StoreError> {
        if entry.cancel || matches!(entry.state, EntryState::Failed | EntryState::Dead) {
            return Ok(Step::Hold);
        }
        // Longer than anything that can have been meant: the clock has jumped.
        let longest = self.due_ms.saturating_add_unsigned(LONGEST_WAIT_MS);
        if entry.not_before > self.due_ms && entry.not_before <= longest {
            return Ok(Step::Hold);
        }
        let alone = self.limits.alone.contains(&entry.mutation);
        if alone && (self.spares_alone || !self.batch.entries.is_empty()) {
            return Ok(Step::Hold);
        }
        let entity = match entry.entity() {
            Ok(entity) => entity,
            Err(why) => return self.fail(entry, None, "invalid-key", why),
        };
        if let (Some(key), Some(frozen)) = (&entry.key, &entry.frozen) {
            // It may have been sent: the same bytes under the same key (E3).
            return Ok(Step::Send(Send {
                key: key.clone(),
                frozen: frozen.clone(),
                entity,
                covers: freeze::covered_by(entry),
                folded: Vec::new(),
                fresh: None,
            }));
        }
        if !self.may_write(entry, &entity)? {
            return Ok(Step::Hold);
        }
        if !unbound && let Some(step) = self.waits_for_mutation(entry, &entity)? {
            return Ok(step);
        }
        let fields = match captured::fields_of_mutation(self.tx, entry.seq) {
            Ok(fields) => fields.unwrap_or_default(),
            Err(error @ CapturedError::Unsyncable { .. }) => {
                return self.fail(entry, Some(entity), "unsyncable-value", error.to_string());
            }
            Err(error) => return Err(error.into()),
        };
        let first = Intent {
            op: entry.op,
            fields,
        };
        let handed_over = self.handed_over.get(&entry.seq).cloned();
        let mut covers = handed_over.unwrap_or_else(|| freeze::covered_by(entry));
        let Some((intent, folded)) = self.coalesce(entry, &entity, first, &mut covers)? else {
            return Ok(Step::Gone);
        };
        if !unbound && self.waits_for_parent(entry, &entity, &intent.fields)? {
            return Ok(Step::Hold);
        }
        let waits = intent.op == Operation::Delete && self.referenced.contains(&entity);
        if waits || self.is_unseen(entry, &entity, &intent)? {
            return Ok(Step::Hold);
        }
        self.freeze(entry, entity, (intent, folded), covers)
    }

    /// P6: an entity with a waiting or staged change or an open conflict, or (unless it is created here)
    /// before the first snapshot is complete, has no position to base a write on.
    fn may_write(&self, entry: &Entry, entity: &EntityRef) -> Result<bool, StoreError> {
        let view = state::view(self.tx, entity)?;
        let based = entry.op == Operation::Create || self.position.is_some();
        // What another copy may have sent goes first, since a change of its entity waits for the outcome; unless that
        // waits for a checkpoint anyway, before which each answer would only spend one more key.
        let behind = view.waiting.is_some() || stage::holds(self.tx, entity)?;
        let reflects = !behind || entry.is_sent() && !self.waits_for_checkpoint(entity)?;
        let held = view.held && entry.op == Operation::Update && !entry.is_under_way();
        let entity_type = self.types.get(entry.entity_type.as_str());
        let alone = entity_type.is_none_or(|entity_type| !self.head.holds(entity_type, entry));
        Ok(based && alone && !held && !view.conflict_open && reflects)
    }

    fn waits_for_checkpoint(&self, entity: &EntityRef) -> Result<bool, StoreError> {
        let reason = inbox::reason(self.tx, entity)?;
        Ok(reason.as_deref() == Some(WaitsFor::Checkpoint.as_str()))
    }

    /// Whether more of its entity may go in the same batch: not before a new entity's id is known, nor what
    /// another copy of the file may have done under its key, of which edits that were made there may have become part.
    fn can_be_followed(&self, entry: &Entry) -> bool {
        let entity_type = self.types.get(entry.entity_type.as_str());
        let is_id_known = entry.op != Operation::Create
            || entity_type.is_some_and(|entity_type| entity_type.id_mode() == IdMode::Client);
        let is_inherited = entry.origin_client.is_some() && !entry.is_offered_again();
        is_id_known && (!is_inherited || entry.group.is_some())
    }

    fn fail(
        &mut self,
        entry: &Entry,
        entity: Option<EntityRef>,
        code: &str,
        detail: String,
    ) -> Result<Step, StoreError> {
        let error = MutationError::new(code, detail);
        outbox::fail(self.tx, entry, &error, self.now)?;
        self.notices.push(Notice::MutationFailed {
            mutation: entry.mutation.clone(),
            entity,
            error,
        });
        Ok(Step::Hold)
    }

    fn take(&mut self, entry: &Entry, send: Send) -> Result<(), StoreError> {
        self.supersede_folded(&send.folded)?;
        if let Some((payload, parts)) = send.fresh.as_deref() {
            captured::write_payload(self.tx, entry.seq, payload.as_ref())?;
            if !send.covers.is_empty() {
                parts::write(self.tx, entry, parts.as_ref())?;
            }
        }
        let covers = (!send.covers.is_empty()).then(|| to_json(&send.covers));
        self.tx
            .prepare_cached(
                "UPDATE syncline_outbox SET state = 'in_flight', idempotency_key = ?2, frozen = ?3,
                        lease_token = ?4, lease_until = ?5, covers = ?6 WHERE seq = ?1",
            )?
            .execute(params![
                entry.seq,
                send.key,
                send.frozen,
                self.token,
                self.until,
                covers
            ])?;
        self.note_references(entry)?;
        if entry.origin_client.is_some() {
            self.of_copies.insert(name(entry));
        }
        self.bytes += send.frozen.len();
        let key = IdempotencyKey::new(send.key);
        if self.can_be_followed(entry) {
            self.chain.insert(name(entry), key.clone());
        } else {
            self.held.insert(name(entry));
        }
        self.batch.entries.push(BatchEntry {
            seq: entry.seq,
            mutation: entry.mutation.clone(),
            key,
            entity: send.entity,
            op: entry.op,
            attempts: entry.attempts,
            group: entry.group.clone(),
            origin: entry.origin_client.clone().map(ClientId::new),
            again: entry.is_sent(),
            frozen: send.frozen,
        });
        Ok(())
    }
}

fn name(entry: &Entry) -> Name {
    (
        entry.entity_type.as_str().to_owned(),
        entry.entity_id.clone(),
    )
}

/// "As of the applied position", once a snapshot is complete and nothing is being swept.
fn feed_position(tx: &Transaction<'_>) -> Result<Option<Base>, StoreError> {
    Ok(tx
        .query_row(
            "SELECT epoch, scope, position FROM syncline_cursor WHERE phase = 'feed'",
            [],
            |row| {
                Ok(Base::Position {
                    epoch: Epoch::new(row.get::<_, String>(0)?),
                    scope: Scope::new(row.get::<_, String>(1)?),
                    position: row.get(2)?,
                })
            },
        )
        .optional()?)
}
