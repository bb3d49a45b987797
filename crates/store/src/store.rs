//! The store: one SQLite file, seen by the engine. Every unit of work is one transaction that
//! checks the fencing token first (S2) and is rolled back as a whole on any error (A5).

use crate::aged;
use crate::app_triggers::guarded;
use crate::apply::Applier;
use crate::claim::Claimer;
use crate::conflict::{self, Choice, Conflict, ConflictDetails, ConflictFilter, Resolvers};
use crate::connect::{Left, connect};
use crate::count;
use crate::definitions;
pub use crate::entity_types::{EntityTypes, RegisteredType};
use crate::error::{StoreError, to_json};
use crate::follow;
use crate::identity::Identity;
use crate::journal;
use crate::lease::{self, Lease, Seen};
use crate::meta;
use crate::options::{Moment, StoreOptions};
use crate::page::Arrived;
use crate::progress;
use crate::remedy::Discarded;
use crate::rest::Rest;
use crate::steady::{Steady, Times};
use crate::trail::{self, Trail};
use crate::unknown;
use crate::{book, held, identity, page, remedy, row, status, target};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use syncline_core::{
    Dice, FaultKind, Fetched, MeetSummary, Notice, Now, StoreAnswer, StoreWork, Wanted,
};
use syncline_protocol::{ClientId, ExchangeToken, Fields, Hello, Principal};

/// The engine's side of one attached database.
pub struct Store {
    conn: Connection,
    path: PathBuf,
    /// An I/O error has happened on the connection: it is replaced before it is used again (A10).
    spoilt: bool,
    types: EntityTypes,
    /// `PRAGMA schema_version` when the types were loaded.
    schema_cookie: i64,
    pub(crate) token: i64,
    /// The lease of another process, if one was met.
    seen: Option<Seen>,
    steady: Steady,
    /// Who this is; checked in each unit of work.
    pub(crate) client: ClientId,
    /// It turned out to be a copy when it was opened.
    identity_changed: bool,
    dice: Dice,
    options: StoreOptions,
    resolvers: Arc<Resolvers>,
    /// The newest entry of the outbox that the log has told of.
    noticed: i64,
    /// Types of which [`Store::unsyncable`] has told.
    told_unsyncable: BTreeSet<String>,
}

impl Store {
    /// Opens an attached database, takes a new identity if it is a copy or an older state, and renews
    /// its capture triggers where the app changed its schema.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let conn = connect(path, options.busy_timeout_ms, options.synchronous)?;
        Self::open_on(Left::nothing_but(conn), path, options)
    }

    /// As [`open`](Self::open), on what an earlier store of this file left.
    pub fn open_on(left: Left, path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let Left {
            mut conn,
            mut types,
            schema_cookie,
        } = left;
        conn.busy_timeout(Duration::from_millis(options.busy_timeout_ms))?;
        conn.pragma_update(None, "synchronous", options.synchronous.as_str())?;
        if meta::schema_version(&conn)?.is_none() {
            return Err(StoreError::NotAttached);
        }
        meta::migrate(&mut conn)?;
        let mut dice = Dice::seeded(options.seed);
        let identity = match &options.records {
            Some(records) => identity::recognise(&mut conn, path, records.as_ref(), &mut dice)?,
            None => Identity::Same,
        };
        if identity == Identity::Changed {
            tracing::warn!("the database is a copy or an older state: it has a new identity");
        }
        let deadline_ms = options.resolver_deadline_ms;
        let resolvers = Arc::new(Resolvers::new(&options.resolvers, deadline_ms));
        types.resolvers = Arc::clone(&resolvers);
        let mut store = Self {
            client: identity::client_id(&conn)?,
            identity_changed: identity == Identity::Changed,
            conn,
            path: path.to_owned(),
            spoilt: false,
            types,
            schema_cookie,
            token: 0,
            seen: None,
            steady: Steady::default(),
            dice,
            resolvers,
            options,
            noticed: 0,
            told_unsyncable: BTreeSet::new(),
        };
        store.follow_schema()?;
        Ok(store)
    }

    /// Ends, and leaves something for [`open_on`](Self::open_on).
    pub fn leave(self) -> Left {
        Left {
            conn: self.conn,
            types: self.types,
            schema_cookie: self.schema_cookie,
        }
    }

    /// The installation's id.
    pub fn client_id(&self) -> Result<ClientId, StoreError> {
        identity::client_id(&self.conn)
    }

    /// Whether the file turned out to be a copy or an older state when it was opened, and has a new
    /// identity since.
    pub fn identity_changed(&self) -> bool {
        self.identity_changed
    }

    /// The remote's address, as attached.
    pub fn remote(&self) -> Result<String, StoreError> {
        meta::get(&self.conn, meta::key::REMOTE)?.ok_or(StoreError::NotAttached)
    }

    /// The registered types.
    pub fn types(&self) -> &EntityTypes {
        &self.types
    }

    /// Every row of a type: entity id to fields. Rows whose key cannot be synced are left out.
    pub fn entities(
        &self,
        entity_type: &RegisteredType,
    ) -> Result<BTreeMap<String, Fields>, StoreError> {
        let mut entities = BTreeMap::new();
        row::for_each(&self.conn, &entity_type.table, |id, fields| {
            entities.extend(id.ok().map(|id| (id.to_string(), fields)));
            Ok(())
        })?;
        Ok(entities)
    }

    /// A read-only look at everything that the status tells.
    pub fn status(&self, now: Now) -> Result<status::Status, StoreError> {
        status::read(&self.conn, now)
    }

    /// Does one unit of work. An error is an answer too: nothing was changed.
    pub fn perform(&mut self, work: &StoreWork, now: Now) -> StoreAnswer {
        match self.try_perform(work, now) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(work = work.word(), %error, "store work failed and was rolled back");
                let fault = error.to_fault();
                self.spoilt |= fault.kind == FaultKind::Unavailable;
                StoreAnswer::Failed(fault)
            }
        }
    }

    /// What SQLite remembers of a file that could not be read or written need not be what is in it: it
    /// is opened anew.
    fn replace_spoilt(&mut self) -> Result<(), StoreError> {
        if self.spoilt {
            let options = &self.options;
            self.conn = connect(&self.path, options.busy_timeout_ms, options.synchronous)?;
            self.schema_cookie = -1;
            self.spoilt = false;
        }
        Ok(())
    }

    fn try_perform(&mut self, work: &StoreWork, now: Now) -> Result<StoreAnswer, StoreError> {
        self.follow_schema()?;
        let (name, known) = (work.word(), self.schema_cookie);
        self.tell_recorded();
        self.watch(name, Moment::Before);
        let (token, watcher) = (self.token, self.options.watcher.clone());
        let times = self.steady.at(now);
        let (types, dice, options) = (&self.types, &mut self.dice, &self.options);
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if follow::cookie(&tx)? != known {
            // The app was quicker, between looking and beginning.
            drop(tx);
            return self.try_perform(work, now);
        }
        let trail = Trail::begin(&tx);
        let mut session = Session {
            tx: &tx,
            types,
            dice,
            options,
            now,
            times,
            token,
            seen: self.seen,
        };
        let answer = match identity::check(&tx, &self.client).and_then(|()| session.work(work)) {
            Ok(answer) => answer,
            Err(error) => {
                // Rolls back, unless SQLite has done so by itself, as it does when a disk fails; whatever
                // happens here, the error to tell is this one.
                drop(tx);
                return Err(error);
            }
        };
        let (token, seen) = (session.token, session.seen);
        let after = follow::cookie(&tx)?;
        let lines = trail.map(|trail| trail.end(&tx, Some((work, &answer)), self.noticed));
        if let Some(watcher) = &watcher {
            watcher(name, Moment::Written);
        }
        tx.commit()?;
        (self.token, self.seen) = (token, seen);
        if times.set.is_some() && !matches!(work, StoreWork::Acquire) {
            self.steady.noted(now);
        }
        if let (StoreWork::Greet(hello), StoreAnswer::Greeted { .. }) = (work, &answer) {
            self.steady.greeted(hello.server_time_ms, now);
        }
        // Only triggers that were held off and came back as they were.
        self.schema_cookie = after;
        if let StoreAnswer::Reminted { client } = &answer {
            self.client = client.clone();
        }
        self.watch(name, Moment::Committed);
        self.tell(lines);
        if let StoreAnswer::Reminted { .. } = &answer {
            self.write_identity_down();
        }
        Ok(answer)
    }

    /// Keeps the new identity outside of the file, so that a copy that is made from here on is known as one. Should
    /// that fail, whoever opens the file next does it.
    fn write_identity_down(&mut self) {
        let Some(records) = &self.options.records else {
            return;
        };
        let written =
            identity::recognise(&mut self.conn, &self.path, records.as_ref(), &mut self.dice);
        if let Err(error) = written {
            tracing::warn!(%error, "the new identity is not kept outside of the file yet");
        }
    }

    /// Types whose table was lost since this was asked last: it is gone, or cannot be synced any more.
    pub fn unsyncable(&mut self) -> Vec<Notice> {
        self.types.newly_unsyncable(&mut self.told_unsyncable)
    }

    /// Says at level debug which mutations are new in the outbox.
    pub fn tell_recorded(&mut self) {
        trail::tell_recorded(&self.conn, &mut self.noticed);
    }

    fn tell(&mut self, lines: Option<trail::Lines>) {
        if let Some(seq) = lines.and_then(|lines| lines.tell()) {
            self.noticed = seq;
        }
    }

    fn watch(&self, name: &'static str, moment: Moment) {
        if let Some(watcher) = &self.options.watcher {
            watcher(name, moment);
        }
    }

    /// Renews types and capture triggers when the app changed its schema.
    fn follow_schema(&mut self) -> Result<(), StoreError> {
        self.replace_spoilt()?;
        if follow::cookie(&self.conn)? == self.schema_cookie {
            return Ok(());
        }
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut types = follow::follow(&tx)?;
        types.resolvers = Arc::clone(&self.resolvers);
        for entity_type in types.iter() {
            unknown::adopt(&tx, entity_type)?;
        }
        let cookie = follow::cookie(&tx)?;
        tx.commit()?;
        (self.types, self.schema_cookie) = (types, cookie);
        Ok(())
    }

    /// Gives the lease back.
    pub fn release(&mut self) -> Result<(), StoreError> {
        lease::release(&self.conn, &self.options.holder)
    }

    /// Gives the lease back and leaves word where this engine rests, unless another process is the
    /// engine: then that one's word stands.
    pub fn stand_aside(&mut self, rest: &Rest, now: Now) -> Result<(), StoreError> {
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (holder, ttl) = (&self.options.holder, self.options.lease_ttl_ms);
        if let Lease::Ours(token) = lease::acquire(&tx, holder, ttl, now, &mut self.seen)? {
            rest.note(&tx)?;
            lease::release(&tx, holder)?;
            tx.commit()?;
            self.token = token;
        }
        Ok(())
    }

    /// Leaves no statement open and little in the log, for a process that may be stopped at any moment.
    pub fn tidy_up(&mut self) {
        self.conn.flush_prepared_statement_cache();
        // Whoever reads or writes meanwhile is not waited for: the log then stays as it is.
        let done = self
            .conn
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::debug!(%error, "the log could not be moved into the database");
        }
    }

    /// Remembers the engine's state for status readers in other processes.
    pub fn note_state(&mut self, rest: &Rest) -> Result<(), StoreError> {
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        lease::check(&tx, self.token)?;
        rest.note(&tx)?;
        tx.commit()?;
        Ok(())
    }

    /// Lets a dead letter be sent again.
    pub fn retry(&mut self, seq: i64, now: Now) -> Result<(), StoreError> {
        self.remedy(now, |applier| remedy::retry(applier, seq))
    }

    /// Makes a failed or never-sent mutation, and its row, say something else; it gets a new key.
    pub fn edit(&mut self, seq: i64, changes: &Fields, now: Now) -> Result<(), StoreError> {
        self.remedy(now, |applier| remedy::edit(applier, seq, changes))
    }

    /// Gives a mutation up, with everything that depends on it, and takes the rows back to their
    /// base. What may have been sent is cancelled at the server first, with the next sync.
    pub fn discard(&mut self, seq: i64, now: Now) -> Result<Discarded, StoreError> {
        self.remedy(now, |applier| remedy::discard(applier, seq))
    }

    /// What discarding a mutation would take along, itself included; changes nothing.
    pub fn dependents(&mut self, seq: i64, now: Now) -> Result<Vec<i64>, StoreError> {
        self.remedy(now, |applier| {
            Ok(remedy::doomed(applier, seq)?.into_keys().collect())
        })
    }

    /// Removes the rows of a type whose removal is held; how many. What has a change waiting or may
    /// be under way stays.
    pub fn confirm_sweep(&mut self, entity_type: &str, now: Now) -> Result<u64, StoreError> {
        self.remedy(now, |applier| held::confirm(applier, entity_type))
    }

    /// Offers the rows of a type whose removal is held to the server again, each as a create; how
    /// many.
    pub fn restore_sweep(&mut self, entity_type: &str, now: Now) -> Result<u64, StoreError> {
        self.remedy(now, |applier| held::restore(applier, entity_type))
    }

    /// Conflicts, newest first.
    pub fn conflicts(&self, filter: &ConflictFilter) -> Result<Vec<Conflict>, StoreError> {
        conflict::list(&self.conn, filter)
    }

    /// One conflict in full.
    pub fn conflict(&self, id: i64) -> Result<ConflictDetails, StoreError> {
        conflict::show(&self.conn, &self.types, id)
    }

    /// Decides an open conflict as a person chose. What is to be pushed of it flows out as an ordinary
    /// mutation with the next sync.
    pub fn resolve_conflict(
        &mut self,
        id: i64,
        choice: &Choice,
        now: Now,
    ) -> Result<(), StoreError> {
        self.remedy(now, |applier| conflict::resolve(applier, id, choice))
    }

    /// Takes back what a person chose, as long as nothing of it was sent: the conflict is open again,
    /// with row and mutations as they were.
    pub fn undo_resolution(&mut self, id: i64, now: Now) -> Result<(), StoreError> {
        self.remedy(now, |applier| conflict::undo(applier, id))
    }

    /// An act outside of the engine's cycle: guarded like the engine's work, and not fenced unless it
    /// does so itself.
    pub(crate) fn remedy<T>(
        &mut self,
        now: Now,
        act: impl FnOnce(&mut Applier<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.follow_schema()?;
        let times = self.steady.at(now);
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let trail = Trail::begin(&tx);
        let mut applier = Applier::new(&tx, &self.types, (now, times));
        let done = guarded(&tx, &self.types, || act(&mut applier))?;
        let lines = trail.map(|trail| trail.end(&tx, None, self.noticed));
        tx.commit()?;
        self.tell(lines);
        Ok(done)
    }
}

/// One unit of work inside its transaction.
struct Session<'a> {
    tx: &'a Transaction<'a>,
    types: &'a EntityTypes,
    dice: &'a mut Dice,
    options: &'a StoreOptions,
    now: Now,
    times: Times,
    token: i64,
    seen: Option<Seen>,
}

impl Session<'_> {
    fn work(&mut self, work: &StoreWork) -> Result<StoreAnswer, StoreError> {
        if !matches!(work, StoreWork::Acquire) {
            lease::check(self.tx, self.token)?;
            if let Some(ahead_ms) = self.times.set {
                meta::set(self.tx, meta::key::SERVER_CLOCK, ahead_ms)?;
            }
        }
        let (tx, types, now) = (self.tx, self.types, self.now);
        Ok(match work {
            StoreWork::Acquire => self.acquire()?,
            StoreWork::Renew => {
                let ttl = self.options.lease_ttl_ms;
                lease::acquire(tx, &self.options.holder, ttl, now, &mut self.seen)?;
                count::catch_up(tx)?;
                StoreAnswer::Renewed
            }
            StoreWork::Greet(hello) => greet(tx, types, hello, now)?,
            StoreWork::Claim(limits) => {
                let until = now.unix_after_ms(self.options.lease_ttl_ms);
                let (now, token) = ((now, self.times.due_ms), (self.token, until));
                let claimer = Claimer::new(tx, types, limits, self.dice, now, token)?;
                StoreAnswer::Claimed(claimer.claim()?)
            }
            StoreWork::Targets { after, most } => {
                let due_ms = self.times.due_ms;
                StoreAnswer::Targets(target::targets(tx, types, (*after, *most), (now, due_ms))?)
            }
            StoreWork::Meet {
                wanted, fetched, ..
            } => StoreAnswer::Met(self.meet(wanted, fetched)?),
            StoreWork::NoteRegistered => {
                definitions::note_registered(tx)?;
                StoreAnswer::RegisteredNoted
            }
            StoreWork::Remint => StoreAnswer::Reminted {
                client: identity::remint(tx, self.dice)?,
            },
            StoreWork::Book { bookings, token } => {
                let mut applier = self.applier();
                let booked = guarded(tx, types, || book::book(&mut applier, bookings))?;
                if let Some(token) = token {
                    meta::set(tx, meta::key::EXCHANGE_TOKEN, token.as_str())?;
                }
                let times = self.times;
                aged::LOG.trim(tx, self.options.retention, times.age_ms)?;
                aged::JOURNAL.trim(tx, self.options.journal, times.server_ms)?;
                aged::CONFLICTS.trim(tx, self.options.conflicts, times.age_ms)?;
                StoreAnswer::Booked(booked)
            }
            StoreWork::ReadCursor(scope) => StoreAnswer::Cursor(page::cursor(tx, scope)?),
            StoreWork::ApplyPage { scope, from, page } => {
                let arrived = Arrived::new(scope, from.as_ref(), page);
                let at = (now, self.times);
                let take = || page::take(tx, types, &arrived, self.options.checkpoint, at);
                let taken = guarded(tx, types, take)?;
                aged::CONFLICTS.trim(tx, self.options.conflicts, self.times.age_ms)?;
                StoreAnswer::PageApplied(taken)
            }
            StoreWork::ForgetCursor(scope) => {
                page::forget_cursor(tx, scope)?;
                StoreAnswer::CursorForgotten
            }
            StoreWork::Survey => StoreAnswer::Surveyed(status::survey(tx, self.times.due_ms)?),
        })
    }

    /// For what answers to pushes and fetched states bring.
    fn applier(&self) -> Applier<'_> {
        let mut applier = Applier::new(self.tx, self.types, (self.now, self.times));
        applier.holds_back = self.options.checkpoint.is_some();
        applier
    }

    fn meet(&self, wanted: &Wanted, fetched: &Fetched) -> Result<MeetSummary, StoreError> {
        let mut applier = self.applier();
        let meet = || target::meet(&mut applier, wanted, fetched);
        let met = guarded(self.tx, self.types, meet)?;
        aged::CONFLICTS.trim(self.tx, self.options.conflicts, self.times.age_ms)?;
        Ok(met)
    }

    fn acquire(&mut self) -> Result<StoreAnswer, StoreError> {
        let options = self.options;
        Ok(
            match lease::acquire(
                self.tx,
                &options.holder,
                options.lease_ttl_ms,
                self.now,
                &mut self.seen,
            )? {
                Lease::Ours(token) => {
                    self.token = token;
                    count::catch_up(self.tx)?;
                    progress::begin_cycle(self.tx)?;
                    StoreAnswer::Acquired
                }
                Lease::Theirs { remaining_ms } => StoreAnswer::HeldByOther { remaining_ms },
            },
        )
    }
}

fn greet(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    hello: &Hello,
    now: Now,
) -> Result<StoreAnswer, StoreError> {
    let tenant: Option<String> = meta::get(tx, meta::key::TENANT)?;
    let subject: Option<String> = meta::get(tx, meta::key::SUBJECT)?;
    match (tenant, subject) {
        (Some(tenant), Some(subject)) => {
            let recorded = Principal { tenant, subject };
            if recorded != hello.principal {
                return Ok(StoreAnswer::OtherAccount { recorded });
            }
        }
        _ => {
            meta::set(tx, meta::key::TENANT, &hello.principal.tenant)?;
            meta::set(tx, meta::key::SUBJECT, &hello.principal.subject)?;
        }
    }
    meta::set(tx, meta::key::LIMITS, to_json(&hello.limits))?;
    let ahead_ms = hello.server_time_ms.saturating_sub(now.unix_ms);
    meta::set(tx, meta::key::SERVER_CLOCK, ahead_ms)?;
    let epoch: Option<String> = meta::get(tx, meta::key::EPOCH)?;
    let epoch_changed = epoch
        .as_deref()
        .is_some_and(|known| known != hello.epoch.as_str());
    if epoch_changed {
        journal::begin_history(tx, types, hello, now)?;
    }
    if epoch_changed || epoch.is_none() {
        meta::set(tx, meta::key::EPOCH, hello.epoch.as_str())?;
    }
    let token: Option<String> = meta::get(tx, meta::key::EXCHANGE_TOKEN)?;
    Ok(StoreAnswer::Greeted {
        epoch_changed,
        token: token.map(ExchangeToken::new),
        register: definitions::to_register(tx, types)?,
    })
}
