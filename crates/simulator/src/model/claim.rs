//! The model store's claim: choosing a batch in local order (or by lane), coalescing what was never
//! sent, freezing bytes under a key.

use super::feed::TYPE;
use super::file::{Desk, Entry, EntryState, File, Why, named};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{Batch, BatchEntry, Cancel, ClaimLimits, Claimed, Folded, Intent, fold};
use syncline_protocol::{
    Base, EntityId, EntityType, Epoch, IdempotencyKey, Mutation, MutationId, Operation, Scope,
    ServerVersion,
};

struct Send {
    seq: i64,
    key: IdempotencyKey,
    frozen: String,
    covers: Vec<MutationId>,
    intent: Option<Intent>,
}

struct Claimer<'a, 'b> {
    file: &'a mut File,
    limits: &'a ClaimLimits,
    desk: &'a mut Desk<'b>,
    batch: Batch,
    bytes: usize,
    taken: BTreeSet<i64>,
    seen: BTreeSet<i64>,
    chain: BTreeMap<EntityId, IdempotencyKey>,
    /// Those that may only go alone are left out.
    spares: bool,
}

impl File {
    pub(crate) fn claim(&mut self, limits: &ClaimLimits, desk: &mut Desk<'_>) -> Claimed {
        let mut order: Vec<(i8, i64)> = self
            .outbox
            .values()
            .map(|entry| (-entry.lane, entry.seq))
            .collect();
        if limits.urgent_only {
            order.retain(|(lane, _)| *lane < 0);
        } else if limits.in_order {
            order.iter_mut().for_each(|(lane, _)| *lane = 0);
        }
        order.sort_unstable();
        let cancel = match limits.urgent_only {
            true => None,
            false => self.first_to_cancel(limits),
        };
        let mut claimer = Claimer {
            file: self,
            limits,
            desk,
            batch: Batch::default(),
            bytes: 0,
            taken: BTreeSet::new(),
            seen: BTreeSet::new(),
            chain: BTreeMap::new(),
            spares: true,
        };
        for (_, seq) in &order {
            claimer.promote(*seq);
        }
        let nothing = claimer.batch.entries.is_empty() && cancel.is_none();
        if nothing && !limits.alone.is_empty() {
            // Those that fail alone go when there is nothing else: they must not keep the others.
            claimer.seen.clear();
            claimer.spares = false;
            for (_, seq) in &order {
                claimer.promote(*seq);
            }
        }
        claimer.batch.bytes = claimer.bytes as u64;
        Claimed {
            more: claimer.is_full(),
            batch: claimer.batch,
            cancel,
            notices: Vec::new(),
        }
    }

    /// What may have been sent before it is answered first (O1).
    pub(crate) fn can_be_cancelled(&self, entry: &Entry) -> bool {
        let mut earlier = self
            .of_entity(&entry.entity)
            .take_while(|one| one.seq < entry.seq);
        entry.cancel && earlier.all(|one| one.cancel || !one.is_sent())
    }

    fn first_to_cancel(&self, limits: &ClaimLimits) -> Option<Cancel> {
        let entry = self
            .outbox
            .values()
            .find(|entry| self.can_be_cancelled(entry))?;
        let under_way = limits.under_way.contains(&entry.seq);
        let entry = (!under_way).then_some(entry)?;
        Some(Cancel {
            seq: entry.seq,
            mutation: entry.mutation.clone(),
            client: entry.origin.clone().unwrap_or_else(|| self.client.clone()),
            key: entry.key.clone()?,
        })
    }
}

impl Claimer<'_, '_> {
    /// Looks at an entry after everything of its entity that goes before it.
    fn promote(&mut self, seq: i64) {
        let Some(entity) = self.file.outbox.get(&seq).map(|entry| entry.entity.clone()) else {
            return;
        };
        let until: Vec<i64> = (self.file.of_entity(&entity).map(|entry| entry.seq))
            .take_while(|other| *other <= seq)
            .collect();
        for seq in until {
            self.visit(seq);
        }
    }

    fn is_full(&self) -> bool {
        let first = self.batch.entries.first();
        first.is_some_and(|entry| self.limits.alone.contains(&entry.mutation))
            || self.batch.entries.len() >= self.limits.mutations
            || self.bytes >= self.limits.bytes
    }

    fn visit(&mut self, seq: i64) {
        if self.is_full() || !self.seen.insert(seq) {
            return;
        }
        let Some(entry) = self.file.outbox.get(&seq).cloned() else {
            return;
        };
        let Some(group) = &entry.group else {
            if let Some(send) = self.consider(&entry) {
                self.take(send);
            }
            return;
        };
        let members: Vec<Entry> = (self.file.outbox.values())
            .filter(|other| other.group.as_ref() == Some(group))
            .cloned()
            .collect();
        self.seen.extend(members.iter().map(|member| member.seq));
        let room = self
            .limits
            .mutations
            .saturating_sub(self.batch.entries.len());
        if members.len() > room && !self.batch.entries.is_empty() {
            return;
        }
        let sends: Option<Vec<Send>> = members.iter().map(|member| self.consider(member)).collect();
        for send in sends.into_iter().flatten() {
            self.take(send);
        }
    }

    /// What is sent of an entry; `None`: not now, or nothing is left of it.
    fn consider(&mut self, entry: &Entry) -> Option<Send> {
        let given_up = matches!(entry.state, EntryState::Failed | EntryState::Dead);
        let now = self.desk.now;
        let waits = entry.not_before > now.monotonic_ms;
        let alone = self.limits.alone.contains(&entry.mutation);
        if entry.cancel
            || given_up
            || waits
            || self.limits.under_way.contains(&entry.seq)
            || (alone && (self.spares || !self.batch.entries.is_empty()))
            || !self.follows(entry)
        {
            return None;
        }
        if let (Some(key), Some(frozen)) = (&entry.key, &entry.frozen) {
            return Some(Send {
                seq: entry.seq,
                key: key.clone(),
                frozen: frozen.clone(),
                covers: entry.covers.clone(),
                intent: None,
            });
        }
        if !self.may_write(entry) {
            return None;
        }
        let first = Intent {
            op: entry.op,
            fields: entry.fields.clone(),
        };
        let mut covers = entry.covers.clone();
        let intent = self.coalesce(entry, first, &mut covers)?;
        Some(self.freeze(entry, intent, covers))
    }

    /// Everything earlier of the entity is in the batch or settled (O1).
    fn follows(&self, entry: &Entry) -> bool {
        let mut earlier = self
            .file
            .of_entity(&entry.entity)
            .take_while(|one| one.seq < entry.seq);
        earlier.all(|one| self.taken.contains(&one.seq))
    }

    /// P6: what has a change waiting, an open conflict or no position is not written.
    fn may_write(&self, entry: &Entry) -> bool {
        let based = entry.op == Operation::Create || self.position().is_some();
        let behind = self.file.inbox.contains_key(&entry.entity) && !entry.is_sent();
        let held = self.file.held.contains(&entry.entity)
            && entry.op == Operation::Update
            && !entry.is_under_way();
        based && !behind && !held && !self.file.conflicts.contains_key(&entry.entity)
    }

    fn position(&self) -> Option<i64> {
        let cursor = self
            .file
            .cursor
            .as_ref()
            .filter(|cursor| !cursor.in_snapshot);
        cursor.map(|cursor| cursor.position)
    }

    fn coalesce(
        &mut self,
        entry: &Entry,
        first: Intent,
        covers: &mut Vec<MutationId>,
    ) -> Option<Intent> {
        let mut intent = first;
        if stands_alone(entry) {
            return Some(intent);
        }
        let later: Vec<Entry> = self.file.of_entity(&entry.entity).cloned().collect();
        for later in later.iter().filter(|later| later.seq > entry.seq) {
            let sent = later.frozen.is_some() || later.state != EntryState::Pending;
            if sent || later.lane != entry.lane || stands_alone(later) {
                break;
            }
            let second = Intent {
                op: later.op,
                fields: later.fields.clone(),
            };
            match fold(&intent, &second) {
                Folded::Apart => break,
                Folded::Nothing => {
                    self.file.supersede(entry.seq, Why::Coalesced);
                    self.file.supersede(later.seq, Why::Coalesced);
                    self.file.drop_base_if_clean(&entry.entity);
                    return None;
                }
                Folded::One(one) if one.op == Operation::Delete => {
                    self.file.supersede(entry.seq, Why::Coalesced);
                    let covered = with_own(entry, std::mem::take(covers));
                    if let Some(later) = self.file.outbox.get_mut(&later.seq) {
                        later
                            .carries
                            .extend(covered.iter().chain(&entry.carries).cloned());
                        later.covers.extend(covered);
                    }
                    return None;
                }
                Folded::One(one) => {
                    self.file.supersede(later.seq, Why::Coalesced);
                    covers.extend(with_own(later, later.covers.clone()));
                    if let Some(kept) = self.file.outbox.get_mut(&entry.seq) {
                        kept.carries.extend(later.carries.iter().cloned());
                    }
                    intent = one;
                }
            }
        }
        if !self.drop_unchanged(entry, &mut intent) {
            return None;
        }
        if let Some(kept) = self.file.outbox.get_mut(&entry.seq) {
            kept.fields = intent.fields.clone();
            kept.covers.clone_from(covers);
            kept.carries.extend(covers.iter().cloned());
        }
        Some(intent)
    }

    /// Leaves out what the base has already; false: nothing is left.
    fn drop_unchanged(&mut self, entry: &Entry, intent: &mut Intent) -> bool {
        if intent.op != Operation::Update || self.chain.contains_key(&entry.entity) {
            return true;
        }
        if let Some(Some(base)) = self.file.base.get(&entry.entity) {
            let fields = std::mem::take(&mut intent.fields).into_iter();
            let changed = fields.filter(|(name, value)| base.get(name) != Some(value));
            intent.fields = changed.collect();
        }
        if intent.fields.is_empty() {
            self.file.supersede(entry.seq, Why::Coalesced);
            self.file.drop_base_if_clean(&entry.entity);
        }
        !intent.fields.is_empty()
    }

    fn freeze(&mut self, entry: &Entry, intent: Intent, covers: Vec<MutationId>) -> Send {
        let covers = match covers.is_empty() {
            true => covers,
            false => with_own(entry, covers),
        };
        let key = match (&entry.key, &entry.origin) {
            (Some(key), Some(_)) => key.clone(),
            (None, Some(_)) => IdempotencyKey::new(entry.mutation.as_str()),
            (None, None) if covers.is_empty() => IdempotencyKey::new(entry.mutation.as_str()),
            _ => IdempotencyKey::new(format!("k{}", self.desk.number())),
        };
        let mutation = Mutation {
            key: key.clone(),
            mutation: entry.mutation.clone(),
            covers: covers.clone(),
            entity_type: EntityType::new(TYPE),
            id: entry.entity.clone(),
            op: intent.op,
            assign: None,
            base: self.base(entry, &intent),
            fields: intent.fields.clone(),
            command: None,
        };
        Send {
            seq: entry.seq,
            key,
            // Texts and numbers: this cannot fail.
            frozen: serde_json::to_string(&mutation).unwrap_or_default(),
            covers,
            intent: Some(intent),
        }
    }

    fn base(&self, entry: &Entry, intent: &Intent) -> Option<Base> {
        if let Some(before) = self.chain.get(&entry.entity) {
            return Some(Base::After(before.clone()));
        }
        let epoch = self.file.epoch.clone().unwrap_or_else(|| Epoch::new(""));
        if let Some((version, _)) = self.file.known.get(&entry.entity) {
            let version = ServerVersion::new(version.clone());
            return Some(Base::Version { epoch, version });
        }
        if intent.op == Operation::Create {
            return None;
        }
        // The row is older than a change of it that waits: based on nothing that can hold.
        let behind = entry.is_sent() && self.file.inbox.contains_key(&entry.entity);
        let position = self.position()?;
        Some(Base::Position {
            epoch,
            scope: Scope::new("s"),
            position: if behind { 0 } else { position },
        })
    }

    fn take(&mut self, send: Send) {
        let Some(entry) = self.file.outbox.get_mut(&send.seq) else {
            return;
        };
        let again = entry.is_sent();
        if let Some(intent) = send.intent {
            entry.fields = intent.fields;
        }
        entry.state = EntryState::InFlight;
        entry.key = Some(send.key.clone());
        entry.frozen = Some(send.frozen.clone());
        entry.covers = send.covers;
        self.bytes += send.frozen.len();
        self.taken.insert(send.seq);
        self.chain.insert(entry.entity.clone(), send.key.clone());
        self.batch.entries.push(BatchEntry {
            seq: send.seq,
            mutation: entry.mutation.clone(),
            key: send.key,
            entity: named(&entry.entity),
            op: entry.op,
            attempts: entry.attempts,
            group: entry.group.clone(),
            origin: entry.origin.clone(),
            again,
            frozen: send.frozen,
        });
    }
}

/// Not to be coalesced: it goes with others, or counts as sent.
fn stands_alone(entry: &Entry) -> bool {
    entry.group.is_some() || entry.origin.is_some() || entry.cancel
}

fn with_own(entry: &Entry, mut covers: Vec<MutationId>) -> Vec<MutationId> {
    if !covers.contains(&entry.mutation) {
        covers.insert(0, entry.mutation.clone());
    }
    covers
}
