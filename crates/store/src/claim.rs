//! Push, first half: choosing what to send, and freezing it.
//!
//! The scan goes through the outbox in local order. An entity that cannot proceed is *held* with
//! everything that depends on it; nothing else is (O4). At most one entry of an entity is in a
//! batch, and it waits for parents that are not created yet and for what still references a row
//! that it deletes (O1, O2, O3). Cost is that of the batch and of what is held before it.

use crate::captured::{self, BaseState, CapturedError};
use crate::error::{StoreError, to_json};
use crate::meta;
use crate::outbox::{self, Entry, EntryState};
use crate::row;
use crate::state;
use crate::store::EntityTypes;
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{
    Batch, BatchEntry, ClaimLimits, Dice, EntityRef, Folded, Intent, MutationError, Notice, Now,
    fold,
};
use syncline_protocol::{
    Base, EntityId, Epoch, Fields, IdempotencyKey, Mutation, Operation, Scope,
};

const CHUNK: usize = 256;
/// How many more entries are looked at once the batch is not empty.
const LOOK_AHEAD: usize = 4096;

/// No delay is longer: a server's wish is taken up to an hour and a tenth.
const LONGEST_WAIT_MS: u64 = 2 * 3_600_000;

/// One claim under way.
pub(crate) struct Claimer<'a> {
    tx: &'a Transaction<'a>,
    types: &'a EntityTypes,
    limits: &'a ClaimLimits,
    dice: &'a mut Dice,
    now: Now,
    token: i64,
    until: i64,
    /// Where the rows of the scope stand; `None` until a first snapshot is complete (P6).
    position: Option<Base>,
    /// Entities that cannot proceed in this batch, by type and recorded id.
    held: BTreeSet<(String, String)>,
    /// Rows that an earlier unsettled entry references: not to be deleted yet.
    referenced: BTreeSet<EntityRef>,
    /// Entities that wait for parents that are not created yet: their entry and those parents.
    waits: BTreeMap<EntityRef, (i64, Vec<EntityRef>)>,
    /// Entries that this claim took out of the outbox.
    gone: BTreeSet<i64>,
    batch: Batch,
    bytes: usize,
    notices: Vec<Notice>,
}

/// What the scan decides about one entry.
enum Step {
    /// Into the batch.
    Send {
        key: String,
        frozen: String,
        op: Operation,
    },
    /// Not now; its entity is held.
    Hold,
    /// It is gone (coalesced away) or has failed for good; its entity is looked at again.
    Gone,
}

impl<'a> Claimer<'a> {
    pub(crate) fn new(
        tx: &'a Transaction<'a>,
        types: &'a EntityTypes,
        limits: &'a ClaimLimits,
        dice: &'a mut Dice,
        now: Now,
        (token, until): (i64, i64),
    ) -> Result<Self, StoreError> {
        Ok(Self {
            position: feed_position(tx)?,
            tx,
            types,
            limits,
            dice,
            now,
            token,
            until,
            held: BTreeSet::new(),
            referenced: BTreeSet::new(),
            waits: BTreeMap::new(),
            gone: BTreeSet::new(),
            batch: Batch::default(),
            bytes: 0,
            notices: Vec::new(),
        })
    }

    /// Fills a batch, in one transaction with marking it in flight.
    pub(crate) fn claim(mut self) -> Result<(Batch, Vec<Notice>), StoreError> {
        self.scan(None)?;
        if let (true, Some(seq)) = (self.batch.entries.is_empty(), self.first_in_a_cycle()) {
            // They wait for each other: one goes without its parents.
            self.held.clear();
            self.referenced.clear();
            self.scan(Some(seq))?;
        }
        Ok((self.batch, self.notices))
    }

    /// The first entry whose parents, every one of them, wait in turn for it.
    fn first_in_a_cycle(&self) -> Option<i64> {
        let waits_for = |from: &EntityRef, to: &EntityRef| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
            while let Some(entity) = next.pop() {
                if entity == to {
                    return true;
                }
                if seen.insert(entity) {
                    next.extend(
                        self.waits
                            .get(entity)
                            .into_iter()
                            .flat_map(|(_, parents)| parents),
                    );
                }
            }
            false
        };
        self.waits
            .iter()
            .filter(|(entity, (_, parents))| parents.iter().all(|parent| waits_for(parent, entity)))
            .map(|(_, (seq, _))| *seq)
            .min()
    }

    fn scan(&mut self, without_parent: Option<i64>) -> Result<(), StoreError> {
        let (mut last, mut looked) = (0, 0);
        loop {
            let chunk = outbox::after(self.tx, last, CHUNK)?;
            for entry in &chunk {
                if self.is_full() || (looked >= LOOK_AHEAD && !self.batch.entries.is_empty()) {
                    return Ok(());
                }
                last = entry.seq;
                looked += 1;
                self.visit(entry, without_parent == Some(entry.seq))?;
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
            || self.batch.entries.len() >= self.limits.mutations
            || self.bytes >= self.limits.bytes
    }

    fn visit(&mut self, entry: &Entry, without_parent: bool) -> Result<(), StoreError> {
        if self.gone.contains(&entry.seq) {
            return Ok(());
        }
        let name = (
            entry.entity_type.as_str().to_owned(),
            entry.entity_id.clone(),
        );
        let step = if self.held.contains(&name) {
            Step::Hold
        } else {
            self.consider(entry, without_parent)?
        };
        match step {
            Step::Gone => return Ok(()),
            Step::Hold => {}
            Step::Send { key, frozen, op } => self.take(entry, key, frozen, op)?,
        }
        self.note_references(entry)?;
        self.held.insert(name);
        Ok(())
    }

    fn consider(&mut self, entry: &Entry, without_parent: bool) -> Result<Step, StoreError> {
        if matches!(entry.state, EntryState::Failed | EntryState::Dead) {
            return Ok(Step::Hold);
        }
        // Longer than anything that can have been meant: the clock has jumped.
        let longest = self.now.unix_after_ms(LONGEST_WAIT_MS);
        if entry.not_before > self.now.unix_ms && entry.not_before <= longest {
            return Ok(Step::Hold);
        }
        if self.limits.alone.contains(&entry.mutation) && !self.batch.entries.is_empty() {
            return Ok(Step::Hold);
        }
        if let (Some(key), Some(frozen)) = (&entry.key, &entry.frozen) {
            // It may have been sent: the same bytes under the same key (E3).
            return Ok(Step::Send {
                key: key.clone(),
                frozen: frozen.clone(),
                op: entry.op,
            });
        }
        let entity = match entry.entity() {
            Ok(entity) => entity,
            Err(why) => return self.fail(entry, None, "invalid-key", why),
        };
        if !self.may_write(entry, &entity)? {
            return Ok(Step::Hold);
        }
        let fields = match captured::fields_of_mutation(self.tx, entry.seq) {
            Ok(fields) => fields.unwrap_or_default(),
            Err(error @ CapturedError::Unsyncable { .. }) => {
                return self.fail(entry, Some(entity), "unsyncable-value", error.to_string());
            }
            Err(error) => return Err(error.into()),
        };
        let Some(intent) = self.coalesce(
            entry,
            &entity,
            Intent {
                op: entry.op,
                fields,
            },
        )?
        else {
            return Ok(Step::Gone);
        };
        if !without_parent && self.waits_for_parent(entry, &entity, &intent.fields)? {
            return Ok(Step::Hold);
        }
        if intent.op == Operation::Delete && self.referenced.contains(&entity) {
            return Ok(Step::Hold);
        }
        self.freeze(entry, entity, intent)
    }

    /// P6: an entity with a waiting change or an open conflict, or (unless it is created here)
    /// before the first snapshot is complete, has no position to base a write on.
    fn may_write(&self, entry: &Entry, entity: &EntityRef) -> Result<bool, StoreError> {
        let view = state::view(self.tx, entity)?;
        let based = entry.op == Operation::Create || self.position.is_some();
        Ok(based && !view.conflict_open && view.waiting.is_none())
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
        let unnamed = || EntityRef {
            entity_type: entry.entity_type.clone(),
            id: EntityId::from(0),
        };
        self.notices.push(Notice::MutationFailed {
            mutation: entry.mutation.clone(),
            entity: entity.unwrap_or_else(unnamed),
            error,
        });
        Ok(Step::Hold)
    }

    /// Folds the entity's further never-sent entries into this one. `None`: nothing is left of it,
    /// or it is part of a later delete now.
    fn coalesce(
        &mut self,
        entry: &Entry,
        entity: &EntityRef,
        first: Intent,
    ) -> Result<Option<Intent>, StoreError> {
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let entries = outbox::of_entity(self.tx, names.0, names.1)?;
        let mut intent = first;
        for later in entries.iter().filter(|later| later.seq > entry.seq) {
            if later.frozen.is_some() || later.state != EntryState::Pending {
                break;
            }
            let Ok(fields) = captured::fields_of_mutation(self.tx, later.seq) else {
                break;
            };
            let second = Intent {
                op: later.op,
                fields: fields.unwrap_or_default(),
            };
            match fold(&intent, &second) {
                Folded::Apart => break,
                Folded::Nothing => {
                    self.supersede(entry, "created and deleted again before it was sent")?;
                    self.supersede(later, "created and deleted again before it was sent")?;
                    self.drop_base_if_clean(entity)?;
                    return Ok(None);
                }
                Folded::One(one) if one.op == Operation::Delete => {
                    // The delete keeps its own, later place: others may still reference the row.
                    self.supersede(entry, "coalesced into a later delete")?;
                    return Ok(None);
                }
                Folded::One(one) => {
                    if !self.uncreated_parents(entity, &second.fields)?.is_empty() {
                        break;
                    }
                    self.supersede(later, "coalesced into an earlier mutation")?;
                    intent = one;
                }
            }
        }
        if intent.op == Operation::Update {
            self.drop_unchanged(entity, &mut intent.fields)?;
            if intent.fields.is_empty() {
                self.supersede(entry, "it changes nothing any more")?;
                self.drop_base_if_clean(entity)?;
                return Ok(None);
            }
        }
        Ok(Some(intent))
    }

    fn supersede(&mut self, entry: &Entry, reason: &str) -> Result<(), StoreError> {
        self.gone.insert(entry.seq);
        let detail = serde_json::json!({ "reason": reason });
        outbox::settle(self.tx, entry, "superseded", &detail, self.now)
    }

    fn drop_base_if_clean(&self, entity: &EntityRef) -> Result<(), StoreError> {
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        if outbox::of_entity(self.tx, names.0, names.1)?.is_empty() {
            captured::delete_base(self.tx, names.0, names.1)?;
        }
        Ok(())
    }

    fn drop_unchanged(&self, entity: &EntityRef, fields: &mut Fields) -> Result<(), StoreError> {
        let base = captured::base_of(self.tx, entity.entity_type.as_str(), entity.id.as_str())?;
        if let BaseState::Present(base) = base {
            let same = |name: &str| base.get(name) == fields.get(name);
            let unchanged: Vec<String> = fields
                .names()
                .filter(|name| same(name))
                .map(str::to_owned)
                .collect();
            unchanged.iter().for_each(|name| {
                fields.remove(name);
            });
        }
        Ok(())
    }

    /// The rows that these fields reference and that are not created on the server yet.
    fn uncreated_parents(
        &self,
        entity: &EntityRef,
        fields: &Fields,
    ) -> Result<Vec<EntityRef>, StoreError> {
        let mut uncreated = Vec::new();
        for parent in self.parents(entity, fields) {
            if parent != *entity && outbox::has_create(self.tx, &parent)? {
                uncreated.push(parent);
            }
        }
        Ok(uncreated)
    }

    fn waits_for_parent(
        &mut self,
        entry: &Entry,
        entity: &EntityRef,
        fields: &Fields,
    ) -> Result<bool, StoreError> {
        if entry.op == Operation::Delete {
            return Ok(false);
        }
        let parents = self.uncreated_parents(entity, fields)?;
        if parents.is_empty() {
            return Ok(false);
        }
        self.waits.insert(entity.clone(), (entry.seq, parents));
        Ok(true)
    }

    fn parents(&self, entity: &EntityRef, fields: &Fields) -> Vec<EntityRef> {
        let Some(own) = self.types.get(entity.entity_type.as_str()) else {
            return Vec::new();
        };
        let parent = |reference: &crate::table::Reference| {
            let values = row::reference_values(&own.table, reference, &entity.id, fields)?;
            let parent = self.types.of_table(&reference.table)?;
            let id = row::parent_id(&parent.table, reference, &values)?;
            Some(EntityRef {
                entity_type: parent.entity_type(),
                id,
            })
        };
        own.table.references.iter().filter_map(parent).collect()
    }

    /// Remembers what an entry that stays unsettled references, before and after it.
    fn note_references(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let Ok(entity) = entry.entity() else {
            return Ok(());
        };
        let has_references = self
            .types
            .get(entity.entity_type.as_str())
            .is_some_and(|t| !t.table.references.is_empty());
        if !has_references {
            return Ok(());
        }
        let fields = captured::fields_of_mutation(self.tx, entry.seq)
            .ok()
            .flatten();
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let base = captured::base_of(self.tx, names.0, names.1);
        let base = base.ok().and_then(BaseState::into_fields);
        for fields in [fields, base].into_iter().flatten() {
            self.referenced.extend(self.parents(&entity, &fields));
        }
        Ok(())
    }

    fn freeze(
        &mut self,
        entry: &Entry,
        entity: EntityRef,
        intent: Intent,
    ) -> Result<Step, StoreError> {
        let known = state::known_version(self.tx, &entity)?;
        let base = match (intent.op, known) {
            (_, Some(version)) => Some(Base::Version {
                epoch: self.epoch()?,
                version,
            }),
            (Operation::Create, None) => None,
            (_, None) => self.position.clone(),
        };
        let op = intent.op;
        let key = self.dice.key(self.now);
        let frozen = to_json(&Mutation {
            key: IdempotencyKey::new(key.clone()),
            mutation: entry.mutation.clone(),
            covers: Vec::new(),
            entity_type: entity.entity_type.clone(),
            id: entity.id.clone(),
            op,
            assign: None,
            base,
            fields: intent.fields.clone(),
            command: None,
        });
        if frozen.len() > self.limits.mutation_bytes {
            let detail = format!(
                "the mutation has {} bytes, the server takes {}; make the row smaller",
                frozen.len(),
                self.limits.mutation_bytes
            );
            return self.fail(entry, Some(entity), "too-large", detail);
        }
        captured::write_payload(
            self.tx,
            entry.seq,
            (op != Operation::Delete).then_some(&intent.fields),
        )?;
        Ok(Step::Send { key, frozen, op })
    }

    /// The history that known versions belong to: they are dropped when it changes.
    fn epoch(&self) -> Result<Epoch, StoreError> {
        let epoch: Option<String> = meta::get(self.tx, meta::key::EPOCH)?;
        Ok(Epoch::new(epoch.unwrap_or_default()))
    }

    fn take(
        &mut self,
        entry: &Entry,
        key: String,
        frozen: String,
        op: Operation,
    ) -> Result<(), StoreError> {
        let Ok(entity) = entry.entity() else {
            return Ok(());
        };
        self.tx
            .prepare_cached(
                "UPDATE syncline_outbox SET state = 'in_flight', idempotency_key = ?2, frozen = ?3,
                        lease_token = ?4, lease_until = ?5 WHERE seq = ?1",
            )?
            .execute(params![entry.seq, key, frozen, self.token, self.until])?;
        self.bytes += frozen.len();
        self.batch.entries.push(BatchEntry {
            seq: entry.seq,
            mutation: entry.mutation.clone(),
            key: IdempotencyKey::new(key),
            entity,
            op,
            attempts: entry.attempts,
            group: None,
            origin: None,
            frozen,
        });
        Ok(())
    }
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
