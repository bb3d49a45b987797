//! The model store: one database in memory, with the contract of every [`StoreWork`] kept as simply as
//! can be. The pure rules are core's own; only the bookkeeping around them is modelled here.
//!
//! Each unit of work is one transaction: what can be refused is refused before anything is changed.

use super::feed::TYPE;
use crate::level::Broken;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use syncline_core::{
    ConflictRules, EntityRef, FaultKind, Lost, Notice, Now, StoreAnswer, StoreFault, StoreWork,
    Survey,
};
use syncline_protocol::{
    Change, ClientId, EntityId, EntityType, Epoch, ExchangeToken, Fields, Hello, IdempotencyKey,
    MutationId, Operation, Principal, RemoteState, TypeDefinitions,
};

/// The states of an entry that is still in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryState {
    Pending,
    InFlight,
    Failed,
    Dead,
}

/// One outbox entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: i64,
    pub(crate) mutation: MutationId,
    pub(crate) entity: EntityId,
    pub(crate) op: Operation,
    pub(crate) fields: Fields,
    pub(crate) state: EntryState,
    /// On the monotonic clock.
    pub(crate) not_before: u64,
    pub(crate) attempts: u32,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) frozen: Option<String>,
    pub(crate) origin: Option<ClientId>,
    /// The server's history changed while it had no answer.
    pub(crate) unbound: bool,
    pub(crate) covers: Vec<MutationId>,
    /// All that was ever coalesced into it: for the ledger only.
    pub(crate) carries: BTreeSet<MutationId>,
    pub(crate) cancel: bool,
    /// 1 urgent, 0 normal, -1 background.
    pub(crate) lane: i8,
    pub(crate) group: Option<String>,
}

impl Entry {
    /// It waits for a person.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.state, EntryState::Failed | EntryState::Dead)
    }

    /// It may have been sent and has no final outcome yet (E5).
    pub(crate) fn is_sent(&self) -> bool {
        self.frozen.is_some() || self.origin.is_some()
    }

    /// It is offered to another history under the key that the one before knows.
    pub(crate) fn is_offered_again(&self) -> bool {
        self.origin.is_some() && self.unbound
    }

    /// It may have reached the server in its present history.
    pub(crate) fn is_under_way(&self) -> bool {
        self.frozen.is_some() || self.origin.is_some() && !self.unbound
    }
}

/// What became of a mutation, or what was kept of it: told to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// It is out of the outbox because it took effect.
    Applied(MutationId),
    /// It is out of the outbox for a recorded reason.
    Superseded(MutationId, Why),
    /// A conflict was decided, and this of our side gave way.
    Record(EntityId, Lost),
}

/// Why a mutation left the outbox without an effect of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is part of another one.
    Coalesced,
    /// Nothing is left of it, since a conflict was decided.
    Resolved,
    /// A person gave it up.
    Discarded,
}

/// Where a scope stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) text: String,
    pub(crate) position: i64,
    pub(crate) in_snapshot: bool,
}

/// The lease row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lease {
    pub(crate) holder: u32,
    pub(crate) token: i64,
    pub(crate) until: i64,
}

/// A process with the file open: its name and the fencing token that it believes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Holder {
    pub(crate) name: u32,
    pub(crate) token: i64,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) client: ClientId,
    pub(crate) account: Option<Principal>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) token: Option<ExchangeToken>,
    pub(crate) lease: Lease,
    pub(crate) rows: BTreeMap<EntityId, Fields>,
    /// `Some(None)`: absent on the server.
    pub(crate) base: BTreeMap<EntityId, Option<Fields>>,
    pub(crate) outbox: BTreeMap<i64, Entry>,
    pub(crate) last_seq: i64,
    /// Version and position, where they are ahead of the cursor.
    pub(crate) known: BTreeMap<EntityId, (String, i64)>,
    pub(crate) inbox: BTreeMap<EntityId, Change>,
    /// Changes that nobody understands.
    pub(crate) quarantine: u64,
    /// Open conflicts, with the remote state that they are about.
    pub(crate) conflicts: BTreeMap<EntityId, Option<RemoteState>>,
    /// Rows that the server lacks and that wait for a person (I3).
    pub(crate) held: BTreeSet<EntityId>,
    pub(crate) cursor: Option<Cursor>,
    /// Met by the snapshot under way, if there is something to sweep.
    pub(crate) seen: Option<BTreeSet<EntityId>>,
    pub(crate) reset: bool,
    pub(crate) registered: bool,
    pub(crate) facts: Vec<Fact>,
}

/// What a unit of work may use.
pub(crate) struct Desk<'a> {
    pub(crate) now: Now,
    pub(crate) rules: &'a ConflictRules,
    pub(crate) ttl_ms: u64,
    /// Keys and identities given out so far in the world.
    pub(crate) fresh: &'a mut u64,
    /// Invariants found broken inside the work.
    pub(crate) broken: &'a mut VecDeque<Broken>,
}

impl Desk<'_> {
    pub(crate) fn number(&mut self) -> u64 {
        *self.fresh += 1;
        *self.fresh
    }

    pub(crate) fn check(&mut self, holds: bool, invariant: &'static str, why: impl Fn() -> String) {
        if !holds {
            self.broken.push_back(Broken::new(invariant, why()));
        }
    }
}

/// The entity's full name.
pub(crate) fn named(id: &EntityId) -> EntityRef {
    EntityRef {
        entity_type: EntityType::new(TYPE),
        id: id.clone(),
    }
}

/// A fault of this kind.
pub(crate) fn fault(kind: FaultKind) -> StoreAnswer {
    StoreAnswer::Failed(StoreFault {
        kind,
        detail: "simulated".to_owned(),
    })
}

impl File {
    pub(crate) fn new(client: ClientId) -> Self {
        Self {
            client,
            account: None,
            epoch: None,
            token: None,
            lease: Lease::default(),
            rows: BTreeMap::new(),
            base: BTreeMap::new(),
            outbox: BTreeMap::new(),
            last_seq: 0,
            known: BTreeMap::new(),
            inbox: BTreeMap::new(),
            quarantine: 0,
            conflicts: BTreeMap::new(),
            held: BTreeSet::new(),
            cursor: None,
            seen: None,
            reset: false,
            registered: false,
            facts: Vec::new(),
        }
    }

    /// One unit of work of this process.
    pub(crate) fn perform(
        &mut self,
        holder: &mut Holder,
        work: &StoreWork,
        desk: &mut Desk<'_>,
    ) -> StoreAnswer {
        let fenced = holder.name != self.lease.holder || holder.token != self.lease.token;
        match work {
            StoreWork::Acquire => self.acquire(holder, desk),
            _ if fenced => fault(FaultKind::Fenced),
            StoreWork::Renew => {
                self.lease.until = desk.now.unix_after_ms(desk.ttl_ms);
                StoreAnswer::Renewed
            }
            StoreWork::Greet(hello) => self.greet(hello),
            StoreWork::Claim(limits) => StoreAnswer::Claimed(self.claim(limits, desk)),
            StoreWork::Targets { after, most } => {
                StoreAnswer::Targets(self.targets(*after, *most, desk.now))
            }
            StoreWork::Meet {
                wanted, fetched, ..
            } => StoreAnswer::Met(self.meet(wanted, fetched, desk)),
            StoreWork::NoteRegistered => {
                self.registered = true;
                StoreAnswer::RegisteredNoted
            }
            StoreWork::Remint => self.remint(desk),
            StoreWork::Book { bookings, token } => {
                let summary = self.book(bookings, desk);
                if token.is_some() {
                    self.token.clone_from(token);
                }
                StoreAnswer::Booked(summary)
            }
            StoreWork::ReadCursor(_) => {
                StoreAnswer::Cursor(self.cursor.as_ref().map(|cursor| cursor.text.clone()))
            }
            StoreWork::ApplyPage { from, page, .. } => self.take_page(from.as_ref(), page, desk),
            StoreWork::ForgetCursor(_) => {
                self.cursor = None;
                StoreAnswer::CursorForgotten
            }
            StoreWork::Survey => StoreAnswer::Surveyed(self.survey(desk.now)),
        }
    }

    fn acquire(&mut self, holder: &mut Holder, desk: &Desk<'_>) -> StoreAnswer {
        let until = desk.now.unix_after_ms(desk.ttl_ms);
        let lease = self.lease;
        if lease.holder != holder.name {
            let free = lease.holder == 0 || lease.until <= desk.now.unix_ms || lease.until > until;
            if !free {
                let left = lease.until.saturating_sub(desk.now.unix_ms);
                return StoreAnswer::HeldByOther {
                    remaining_ms: u64::try_from(left).unwrap_or(0),
                };
            }
            self.lease.token += 1;
        }
        self.lease.holder = holder.name;
        self.lease.until = until;
        holder.token = self.lease.token;
        StoreAnswer::Acquired
    }

    /// Gives the lease back.
    pub(crate) fn release(&mut self, holder: &Holder) {
        if self.lease.holder == holder.name {
            self.lease.holder = 0;
        }
    }

    fn greet(&mut self, hello: &Hello) -> StoreAnswer {
        match &self.account {
            Some(recorded) if *recorded != hello.principal => {
                return StoreAnswer::OtherAccount {
                    recorded: recorded.clone(),
                };
            }
            _ => self.account = Some(hello.principal.clone()),
        }
        let epoch_changed = self
            .epoch
            .as_ref()
            .is_some_and(|known| *known != hello.epoch);
        if epoch_changed {
            self.begin_history();
        }
        self.epoch = Some(hello.epoch.clone());
        StoreAnswer::Greeted {
            epoch_changed,
            token: self.token.clone(),
            register: (!self.registered).then(TypeDefinitions::default),
        }
    }

    /// Positions, cursors and versions of the old history mean nothing (S16); work is kept. What has
    /// no answer yet keeps its key and is based on a state of the new one.
    fn begin_history(&mut self) {
        self.reset = true;
        self.cursor = None;
        self.known.clear();
        self.inbox.clear();
        self.held.clear();
        for remote in self.conflicts.values_mut().flatten() {
            remote.position = 0;
            remote.version = super::server::version(0);
        }
        let client = &self.client;
        let waits = |state| matches!(state, EntryState::Pending | EntryState::InFlight);
        for entry in self.outbox.values_mut() {
            let bound = entry.frozen.is_some() && entry.op != Operation::Create;
            if bound && !entry.cancel && waits(entry.state) {
                entry.frozen = None;
                entry.unbound = true;
                entry.state = EntryState::Pending;
                entry.origin.get_or_insert_with(|| client.clone());
            }
        }
    }

    fn remint(&mut self, desk: &mut Desk<'_>) -> StoreAnswer {
        // What waits for a person is not sent by anybody, nor is what follows it.
        let mut waits: BTreeSet<EntityId> = self.conflicts.keys().cloned().collect();
        for entry in self.outbox.values_mut() {
            if entry.state == EntryState::Failed {
                waits.insert(entry.entity.clone());
            }
            if !waits.contains(&entry.entity) {
                entry.origin.get_or_insert_with(|| self.client.clone());
            }
        }
        self.client = ClientId::new(format!("c{}", desk.number()));
        self.token = None;
        StoreAnswer::Reminted {
            client: self.client.clone(),
        }
    }

    fn survey(&self, now: Now) -> Survey {
        let mut survey = Survey {
            open_conflicts: self.conflicts.len() as u64,
            ..Survey::default()
        };
        for entry in self.outbox.values() {
            let waits = matches!(entry.state, EntryState::Pending | EntryState::InFlight);
            if !waits && !entry.cancel {
                continue;
            }
            let due = entry.not_before > now.monotonic_ms;
            survey.unsettled += u64::from(!entry.cancel);
            if due {
                let earliest = survey.due_in_ms.unwrap_or(u64::MAX);
                let due_in_ms = entry.not_before - now.monotonic_ms;
                survey.due_in_ms = Some(earliest.min(due_in_ms));
            }
            survey.claimable |= self.can_be_cancelled(entry)
                || !due
                    && !entry.cancel
                    && !self.conflicts.contains_key(&entry.entity)
                    && (entry.origin.is_some() || !self.inbox.contains_key(&entry.entity))
                    && self.is_first(entry);
        }
        survey
    }

    fn is_first(&self, entry: &Entry) -> bool {
        self.of_entity(&entry.entity)
            .next()
            .is_some_and(|first| first.seq == entry.seq)
    }

    pub(crate) fn of_entity<'a>(
        &'a self,
        entity: &'a EntityId,
    ) -> impl Iterator<Item = &'a Entry> + 'a {
        self.outbox
            .values()
            .filter(move |entry| entry.entity == *entity)
    }

    /// Takes an entry out of the outbox for a recorded reason.
    pub(crate) fn supersede(&mut self, seq: i64, why: Why) {
        if let Some(entry) = self.outbox.remove(&seq) {
            if why == Why::Discarded {
                let own = entry.mutation.clone();
                let carried = entry.carries.into_iter().filter(|one| *one != own);
                self.facts
                    .extend(carried.map(|one| Fact::Superseded(one, why)));
            }
            self.facts.push(Fact::Superseded(entry.mutation, why));
        }
    }

    pub(crate) fn drop_base_if_clean(&mut self, entity: &EntityId) {
        if self.of_entity(entity).next().is_none() {
            self.base.remove(entity);
        }
    }

    /// The app writes: the row and its entry in one go (A1). `fields`: those that are written; a
    /// delete has none.
    pub(crate) fn write(&mut self, write: Write) {
        let Write { entity, op, .. } = write;
        let before = self.rows.get(&entity).cloned();
        if self.of_entity(&entity).next().is_none() {
            self.base.insert(entity.clone(), before.clone());
        }
        match op {
            Operation::Delete => {
                self.rows.remove(&entity);
            }
            Operation::Create | Operation::Update => {
                let mut row = before.unwrap_or_default();
                row.patch(&write.fields);
                self.rows.insert(entity.clone(), row);
            }
        }
        self.record(
            entity,
            op,
            write.fields,
            write.mutation,
            write.lane,
            write.group,
        );
    }

    /// Records a mutation.
    pub(crate) fn record(
        &mut self,
        entity: EntityId,
        op: Operation,
        fields: Fields,
        mutation: MutationId,
        lane: i8,
        group: Option<String>,
    ) {
        self.last_seq += 1;
        let seq = self.last_seq;
        let entry = Entry {
            seq,
            mutation,
            entity,
            op,
            fields,
            state: EntryState::Pending,
            not_before: 0,
            attempts: 0,
            key: None,
            frozen: None,
            origin: None,
            unbound: false,
            covers: Vec::new(),
            carries: BTreeSet::new(),
            cancel: false,
            lane,
            group,
        };
        self.outbox.insert(seq, entry);
    }

    pub(crate) fn put_row(&mut self, entity: &EntityId, row: Option<Fields>) {
        match row {
            Some(row) => self.rows.insert(entity.clone(), row),
            None => self.rows.remove(entity),
        };
    }
}

/// What an app writes.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) mutation: MutationId,
    pub(crate) entity: EntityId,
    pub(crate) op: Operation,
    pub(crate) fields: Fields,
    pub(crate) lane: i8,
    pub(crate) group: Option<String>,
}

/// The state that a mutation leads to.
pub(crate) fn after_mutation(
    base: Option<Fields>,
    op: Operation,
    payload: &Fields,
) -> Option<Fields> {
    match op {
        Operation::Create => Some(payload.clone()),
        Operation::Delete => None,
        Operation::Update => base.map(|mut fields| {
            fields.patch(payload);
            fields
        }),
    }
}

/// The app is told of a failure.
pub(crate) fn told_failed(entry: &Entry, error: &syncline_core::MutationError) -> Notice {
    Notice::MutationFailed {
        mutation: entry.mutation.clone(),
        entity: Some(named(&entry.entity)),
        error: error.clone(),
    }
}
