//! Drives a machine by hand and writes down what it is told and what it asks for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods
)] // a test tool

use std::fmt::Write;
use std::path::Path;
use syncline_core::{
    Allowance, Batch, BatchEntry, BookSummary, Cancel, Claimed, Config, Constraints, CycleEnd,
    Effect, EntityRef, Fetched, Input, Machine, MeetSummary, Notice, Now, Page, PageSummary,
    Reason, RemoteAnswer, RemoteError, RemoteRequest, RequestId, StoreAnswer, StoreFault,
    StoreWork, Survey, SyncOrder, Targets, Wanted,
};
use syncline_protocol::{
    Access, ClientId, ConflictReason, EntityId, EntityType, Epoch, Grant, Hello, IdempotencyKey,
    KeyOutcome, Limits, MutationId, Operation, Outcome, PageEnd, PagePhase, Principal,
    PushResponse, PushResult, Scope, ServerVersion, TypeDefinitions,
};

/// A machine, the time, and the transcript so far.
pub(crate) struct Script {
    machine: Machine,
    now: Now,
    text: String,
    asked: Option<(RequestId, RemoteRequest)>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::with(SyncOrder::default())
    }

    pub(crate) fn with(policy: SyncOrder) -> Self {
        let mut config = Config::default();
        config.order = policy;
        Self {
            machine: Machine::new(config, ClientId::new("client"), 7),
            now: Now {
                monotonic_ms: 0,
                unix_ms: 1_800_000_000_000,
            },
            text: String::new(),
            asked: None,
        }
    }

    fn feed(&mut self, label: &str, input: Input) {
        writeln!(self.text, "{:>6} > {label}", self.now.monotonic_ms).unwrap();
        for effect in self.machine.handle(input, self.now) {
            writeln!(self.text, "         {}", say(&effect)).unwrap();
            if let Effect::Remote(id, request) = effect {
                self.asked = Some((id, request));
            }
        }
    }

    pub(crate) fn trigger(&mut self, reason: Reason) {
        self.feed(&format!("trigger {reason:?}"), Input::Trigger(reason));
    }

    pub(crate) fn pause(&mut self) {
        self.feed("pause", Input::Pause);
    }

    pub(crate) fn resume(&mut self) {
        self.feed("resume", Input::Resume);
    }

    pub(crate) fn pass_of(&mut self, requests: u64, bytes: u64) {
        let allowance = Allowance { requests, bytes };
        let label = format!("pass of {requests} requests, {bytes} bytes");
        self.feed(&label, Input::Pass(Some(allowance)));
    }

    pub(crate) fn end_pass(&mut self) {
        self.feed("end of the pass", Input::Pass(None));
    }

    pub(crate) fn constrain(&mut self, metered: bool) {
        let constraints = Constraints {
            metered,
            low_power: false,
        };
        let label = if metered { "metered" } else { "free again" };
        self.feed(label, Input::Constraints(constraints));
    }

    pub(crate) fn answer(&mut self, answer: StoreAnswer) {
        let label = format!("store {answer:?}");
        let label: String = label
            .chars()
            .take_while(|c| *c != '{' && *c != '(')
            .collect();
        self.feed(label.trim(), Input::Store(answer));
    }

    fn remote(&mut self, label: &str, answer: impl FnOnce(&RemoteRequest) -> RemoteAnswer) {
        let (id, request) = self.asked.clone().expect("a request is under way");
        self.feed(
            &format!("remote {label}"),
            Input::Remote(id, answer(&request)),
        );
    }

    /// Acquires the lease, says hello, greets.
    pub(crate) fn connect(&mut self) {
        self.answer(StoreAnswer::Acquired);
        self.remote("hello", |_| RemoteAnswer::Hello(Ok(hello())));
        self.answer(StoreAnswer::Greeted {
            epoch_changed: false,
            token: None,
            register: None,
        });
    }

    /// Acquires the lease in a session that goes on.
    pub(crate) fn acquired(&mut self) {
        self.answer(StoreAnswer::Acquired);
    }

    /// The remote's greeting arrives, and the store cannot take it in.
    pub(crate) fn greet_in_vain(&mut self, fault: StoreFault) {
        self.answer(StoreAnswer::Acquired);
        self.remote("hello", |_| RemoteAnswer::Hello(Ok(hello())));
        self.answer(StoreAnswer::Failed(fault));
    }

    pub(crate) fn claim(&mut self, seqs: &[i64]) {
        self.claimed(seqs, false);
    }

    /// A claim after which there is more to claim.
    pub(crate) fn claim_of_many(&mut self, seqs: &[i64]) {
        self.claimed(seqs, true);
    }

    fn claimed(&mut self, seqs: &[i64], more: bool) {
        let entries = seqs.iter().map(|seq| entry(*seq)).collect();
        self.answer(StoreAnswer::Claimed(Claimed {
            batch: Batch {
                entries,
                bytes: 2 * seqs.len() as u64,
            },
            more,
            ..Claimed::default()
        }));
    }

    /// A claim that found nothing to send but a key to cancel.
    pub(crate) fn claim_cancel(&mut self, seq: i64) {
        let BatchEntry { key, mutation, .. } = entry(seq);
        let client = ClientId::new("c");
        self.answer(StoreAnswer::Claimed(Claimed {
            cancel: Some(Cancel {
                seq,
                mutation,
                client,
                key,
            }),
            ..Claimed::default()
        }));
    }

    pub(crate) fn cancelled(&mut self) {
        self.remote("cancelled", |request| {
            let RemoteRequest::Cancel { key, .. } = request else {
                panic!("not a cancel")
            };
            let result = PushResult {
                key: key.clone(),
                outcome: Outcome::Cancelled,
                duplicate: false,
            };
            RemoteAnswer::Cancel(Ok(KeyOutcome::Final { result }))
        });
    }

    pub(crate) fn greeted_with_types(&mut self) {
        self.remote("hello", |_| RemoteAnswer::Hello(Ok(hello())));
        self.answer(StoreAnswer::Greeted {
            epoch_changed: false,
            token: None,
            register: Some(TypeDefinitions::default()),
        });
    }

    pub(crate) fn registered(&mut self) {
        self.remote("registered", |_| RemoteAnswer::Register(Ok(())));
    }

    pub(crate) fn push_applied(&mut self) {
        self.remote("push applied", |request| {
            RemoteAnswer::Push(Ok(applied(request)))
        });
    }

    /// The server refuses each mutation as made on an old state.
    pub(crate) fn push_stale(&mut self) {
        self.remote("push stale", |request| {
            let mut response = applied(request);
            for result in &mut response.results {
                result.outcome = Outcome::Conflict {
                    reason: ConflictReason::Stale,
                    remote: None,
                };
            }
            RemoteAnswer::Push(Ok(response))
        });
    }

    /// The same answer once more, when nobody waits for it.
    pub(crate) fn push_applied_late(&mut self) {
        self.push_applied();
    }

    pub(crate) fn fail(&mut self, error: RemoteError) {
        let label = format!("failed: {error}");
        self.remote(&label, |request| match request {
            RemoteRequest::Hello { .. } => RemoteAnswer::Hello(Err(error)),
            RemoteRequest::Push { .. } => RemoteAnswer::Push(Err(error)),
            RemoteRequest::Cancel { .. } => RemoteAnswer::Cancel(Err(error)),
            RemoteRequest::Register { .. } => RemoteAnswer::Register(Err(error)),
            RemoteRequest::Fetch { .. } => RemoteAnswer::Fetch(Err(error)),
            RemoteRequest::Pull { .. } => RemoteAnswer::Pull(Err(error)),
        });
    }

    /// These entities are to be looked at before anything is claimed.
    pub(crate) fn targets(&mut self, ids: &[&str], last: i64) {
        let id = |id: &&str| EntityId::parse((*id).to_owned()).unwrap();
        let wanted = ids.chunks(2).map(|ids| Wanted {
            entity_type: EntityType::new("task"),
            ids: ids.iter().map(id).collect(),
        });
        self.answer(StoreAnswer::Targets(Targets {
            wanted: wanted.collect(),
            last,
            unread: false,
        }));
    }

    /// Nothing was pulled yet.
    pub(crate) fn unread(&mut self) {
        self.answer(StoreAnswer::Targets(Targets {
            unread: true,
            ..Targets::default()
        }));
    }

    pub(crate) fn fetched(&mut self, epoch: &str) {
        let epoch = Epoch::new(epoch);
        self.remote("fetched", |_| {
            RemoteAnswer::Fetch(Ok(Fetched {
                epoch,
                position: 9,
                changes: Vec::new(),
                bytes: 0,
            }))
        });
    }

    pub(crate) fn met(&mut self, merged: u64, pull_first: bool) {
        self.answer(StoreAnswer::Met(MeetSummary {
            merged,
            pull_first,
            ..MeetSummary::default()
        }));
    }

    pub(crate) fn booked(&mut self) {
        self.answer(StoreAnswer::Booked(BookSummary::default()));
    }

    /// The lease is renewed, if that was asked for.
    pub(crate) fn renewed(&mut self) {
        if self.text.ends_with("store Renew\n") {
            self.answer(StoreAnswer::Renewed);
        }
    }

    pub(crate) fn cursor(&mut self, cursor: Option<&str>) {
        self.answer(StoreAnswer::Cursor(cursor.map(str::to_owned)));
    }

    pub(crate) fn page(&mut self, cursor: &str, at_head: bool) {
        let end = PageEnd {
            cursor: cursor.to_owned(),
            position: 1,
            count: 0,
            phase: PagePhase::Feed,
            at_head,
            to_come: None,
            epoch: None,
        };
        let page = Page {
            changes: Vec::new(),
            end,
            bytes: 0,
        };
        self.remote("page", |_| RemoteAnswer::Pull(Ok(page)));
    }

    pub(crate) fn applied(&mut self) {
        let summary = PageSummary {
            upserts: 1,
            ..PageSummary::default()
        };
        self.answer(StoreAnswer::PageApplied(summary));
    }

    pub(crate) fn survey(&mut self, survey: Survey) {
        self.answer(StoreAnswer::Surveyed(survey));
    }

    pub(crate) fn credentials(&mut self, refresh: Result<(), String>) {
        self.feed("credentials", Input::Credentials(refresh));
    }

    pub(crate) fn tick(&mut self) {
        self.feed("tick", Input::Tick);
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.unix_ms += i64::try_from(ms).unwrap();
    }

    pub(crate) fn pass_to_wakeup(&mut self) {
        let (at, why) = self.machine.next_wakeup().expect("a deadline");
        writeln!(self.text, "         (until {why:?})").unwrap();
        self.pass(at - self.now.monotonic_ms);
        self.tick();
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// Compares with the golden file of this name.
    pub(crate) fn matches(mut self, name: &str) {
        let wakeup = self.machine.next_wakeup();
        let (state, wakeup) = (
            self.machine.state(),
            wakeup.map(|(at, why)| format!("{why:?} at {at}")),
        );
        writeln!(self.text, "rests in {state}, wakes: {wakeup:?}").unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
        let path = folder.join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            std::fs::write(&path, &self.text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(self.text, golden, "the transcript {name} has changed");
    }
}

fn say(effect: &Effect) -> String {
    match effect {
        Effect::Store(work) => match work {
            StoreWork::Claim(limits) if limits.urgent_only => "store claim urgent".to_owned(),
            StoreWork::Claim(limits) if limits.bytes < 1_000 => {
                format!("store claim up to {} bytes", limits.bytes)
            }
            StoreWork::Claim(limits) => format!("store claim up to {}", limits.mutations),
            StoreWork::Book { bookings, .. } => {
                let verdict = |b: &syncline_core::Booking| {
                    let verdict = format!("{:?}", b.verdict);
                    let word: String = verdict.chars().take_while(|c| c.is_alphabetic()).collect();
                    format!("{}:{word}", b.seq)
                };
                let verdicts: Vec<String> = bookings.iter().map(verdict).collect();
                format!("store book {}", verdicts.join(" "))
            }
            StoreWork::ApplyPage { from, .. } => format!("store apply page after {from:?}"),
            StoreWork::Greet(_) => "store greet".to_owned(),
            StoreWork::Meet { wanted, .. } => format!("store meet {}", wanted.ids.len()),
            other => format!("store {other:?}"),
        },
        Effect::Remote(id, request) => match request {
            RemoteRequest::Hello { .. } => format!("remote #{} hello", id.0),
            RemoteRequest::Push { batch, .. } => {
                let seqs: Vec<i64> = batch.entries.iter().map(|entry| entry.seq).collect();
                format!("remote #{} push {seqs:?}", id.0)
            }
            RemoteRequest::Cancel { key, .. } => format!("remote #{} cancel {key}", id.0),
            RemoteRequest::Register { .. } => format!("remote #{} register types", id.0),
            RemoteRequest::Fetch { wanted, .. } => {
                let ids: Vec<&str> = wanted.ids.iter().map(EntityId::as_str).collect();
                format!("remote #{} fetch {} {ids:?}", id.0, wanted.entity_type)
            }
            RemoteRequest::Pull { cursor, .. } => format!("remote #{} pull after {cursor:?}", id.0),
        },
        Effect::RefreshCredentials => "refresh credentials".to_owned(),
        Effect::Notice(notice) => match notice {
            Notice::StateChanged { from, to } => format!("{from} -> {to}"),
            Notice::BackingOff { delay_ms, .. } => format!("notice: backing off for {delay_ms} ms"),
            Notice::CycleEnded(CycleEnd::RemoteFailed(error)) => {
                format!("notice: cycle ended, {error}")
            }
            other => format!("notice: {other:?}"),
        },
    }
}

fn hello() -> Hello {
    Hello {
        protocol_versions: vec!["2026-11-01".to_owned()],
        server: "test".to_owned(),
        epoch: Epoch::new("e"),
        server_time_ms: 0,
        principal: Principal {
            tenant: "t".to_owned(),
            subject: "s".to_owned(),
        },
        scopes: vec![Grant {
            scope: Scope::new("default"),
            access: Access::Write,
            horizon: 0,
        }],
        limits: Limits::default(),
        key_retention_ms: 0,
    }
}

fn entry(seq: i64) -> BatchEntry {
    BatchEntry {
        seq,
        mutation: MutationId::new(format!("m{seq}")),
        key: IdempotencyKey::new(format!("k{seq}")),
        entity: EntityRef {
            entity_type: EntityType::new("task"),
            id: EntityId::from(seq),
        },
        op: Operation::Create,
        attempts: 0,
        group: None,
        origin: None,
        again: false,
        frozen: "{}".to_owned(),
    }
}

fn applied(request: &RemoteRequest) -> PushResponse {
    let RemoteRequest::Push { batch, .. } = request else {
        panic!("not a push")
    };
    let result = |entry: &BatchEntry| PushResult {
        key: entry.key.clone(),
        outcome: Outcome::Applied {
            version: ServerVersion::new("1"),
            position: 1,
            fields: None,
            id: None,
        },
        duplicate: false,
    };
    PushResponse {
        epoch: Epoch::new("e"),
        results: batch.entries.iter().map(result).collect(),
        token: None,
    }
}
