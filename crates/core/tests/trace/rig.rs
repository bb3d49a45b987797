//! A machine in a world of dice: every effect is answered somehow, with values that must not be seen.

use std::collections::VecDeque;
use syncline_core::trace::Recorder;
use syncline_core::{
    Allowance, Batch, BatchEntry, BookSummary, Cancel, Claimed, Config, Constraints, Dice, Effect,
    EntityRef, FaultKind, Fetched, Input, Live, Machine, MeetSummary, MutationError, Notice, Now,
    Page, PageChange, PageSummary, Reason, RemoteAnswer, RemoteError, RemoteRequest, StoreAnswer,
    StoreFault, StoreWork, Survey, SyncOrder, Targets, Wanted,
};
use syncline_protocol::{
    Access, Change, ChangeKind, ClientId, ColumnDefinition, ConflictReason, EntityId, EntityType,
    Epoch, ExchangeToken, FieldError, Fields, Grant, Hello, IdempotencyKey, KeyOutcome, Limits,
    MutationId, Operation, Outcome, PageEnd, PagePhase, Principal, PushResponse, PushResult,
    RemoteState, Scope, ServerVersion, TypeDefinition, TypeDefinitions, Value,
};

/// Is in everything that is to be hidden.
pub(crate) const SECRET: &str = "s3cret";

pub(crate) struct Rig {
    machine: Machine,
    now: Now,
    dice: Dice,
    inputs: VecDeque<Input>,
    seqs: i64,
}

impl Rig {
    pub(crate) fn new(seed: u64) -> Self {
        let mut config = Config::default();
        config.push_mutations = 4;
        config.max_attempts = 3;
        if seed.is_multiple_of(2) {
            config.order = SyncOrder::PullThenPush;
        }
        Self {
            machine: Machine::new(config, ClientId::new("client"), seed),
            now: Now {
                monotonic_ms: 1_000,
                unix_ms: 1_800_000_000_000,
            },
            dice: Dice::seeded(!seed),
            inputs: VecDeque::new(),
            seqs: 0,
        }
    }

    /// So many inputs, unrecorded.
    pub(crate) fn run(&mut self, inputs: usize) {
        self.each(inputs, |_, _, _| {});
    }

    pub(crate) fn each(&mut self, inputs: usize, mut seen: impl FnMut(&Input, Now, &[Effect])) {
        for _ in 0..inputs {
            let (input, now) = self.next();
            let effects = self.machine.handle(input.clone(), now);
            seen(&input, now, &effects);
            self.answer(effects);
        }
    }

    /// So many inputs, recorded from here on.
    pub(crate) fn recorded(&mut self, mut recorder: Recorder, inputs: usize) -> String {
        let mut text = recorder.header(&self.machine);
        for _ in 0..inputs {
            let (input, now) = self.next();
            text += &recorder.before(&input, now);
            let effects = self.machine.handle(input, now);
            text += &recorder.after(&self.machine, &effects);
            self.answer(effects);
        }
        text
    }

    fn one_of(&mut self, most: u64) -> u64 {
        self.dice.up_to(most - 1)
    }

    fn next(&mut self) -> (Input, Now) {
        let unexpected = self.inputs.is_empty() || self.one_of(8) == 0;
        let input = match self.inputs.pop_front() {
            Some(input) if !unexpected => input,
            waiting => {
                self.inputs.extend(waiting);
                self.something()
            }
        };
        (input, self.now)
    }

    fn something(&mut self) -> Input {
        let passed = self.dice.up_to(400);
        self.now.monotonic_ms += passed;
        self.now.unix_ms += i64::try_from(passed).unwrap();
        match self.one_of(16) {
            0 => Input::NetworkLost,
            1 => Input::Pause,
            2 => Input::Resume,
            3 => Input::Live(if self.one_of(2) == 0 {
                Live::Heard
            } else {
                Live::Lost
            }),
            4 => Input::Constraints(Constraints {
                metered: self.one_of(3) == 0,
                low_power: false,
            }),
            5 => Input::Trigger(Reason::UserAsked),
            6 => Input::Trigger(Reason::MutationEnqueued),
            7 => Input::Trigger(Reason::AuthRefreshed),
            8 => Input::Pass(Some(Allowance {
                requests: self.one_of(9),
                bytes: self.one_of(400),
            })),
            9 => Input::Pass(None),
            _ => {
                if let Some((at, _)) = self.machine.next_wakeup() {
                    let ahead = at.saturating_sub(self.now.monotonic_ms);
                    self.now.monotonic_ms += ahead;
                    self.now.unix_ms += i64::try_from(ahead).unwrap();
                }
                Input::Tick
            }
        }
    }

    fn answer(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let input = match effect {
                Effect::Store(work) => Input::Store(self.store(&work)),
                Effect::Remote(id, request) => Input::Remote(id, self.remote(&request)),
                Effect::RefreshCredentials => Input::Credentials(match self.one_of(2) {
                    0 => Ok(()),
                    _ => Err(text("no token")),
                }),
                Effect::Notice(_) => continue,
            };
            self.inputs.push_back(input);
        }
    }

    fn store(&mut self, work: &StoreWork) -> StoreAnswer {
        if self.one_of(30) == 0 {
            return StoreAnswer::Failed(StoreFault {
                kind: FaultKind::Busy,
                detail: text("locked"),
            });
        }
        match work {
            StoreWork::Acquire if self.one_of(20) == 0 => {
                StoreAnswer::HeldByOther { remaining_ms: 9 }
            }
            StoreWork::Acquire => StoreAnswer::Acquired,
            StoreWork::Renew => StoreAnswer::Renewed,
            StoreWork::Greet(_) if self.one_of(20) == 0 => StoreAnswer::OtherAccount {
                recorded: principal(),
            },
            StoreWork::Greet(_) => StoreAnswer::Greeted {
                epoch_changed: self.one_of(5) == 0,
                token: Some(ExchangeToken::new(text("token"))),
                register: (self.one_of(3) == 0).then(types),
            },
            StoreWork::NoteRegistered => StoreAnswer::RegisteredNoted,
            StoreWork::Remint => StoreAnswer::Reminted {
                client: ClientId::new("another"),
            },
            StoreWork::Claim(limits) => StoreAnswer::Claimed(self.claimed(limits.mutations)),
            StoreWork::Book { .. } => StoreAnswer::Booked(BookSummary {
                applied: self.one_of(3),
                duplicates: 0,
                notices: notices(),
            }),
            StoreWork::ReadCursor(_) => {
                let cursor = self.cursor();
                StoreAnswer::Cursor((self.one_of(4) > 0).then_some(cursor))
            }
            StoreWork::ApplyPage { .. } => StoreAnswer::PageApplied(PageSummary {
                upserts: self.one_of(5),
                again: self.one_of(9) == 0,
                notices: notices(),
                ..PageSummary::default()
            }),
            StoreWork::ForgetCursor(_) => StoreAnswer::CursorForgotten,
            StoreWork::Targets { .. } => StoreAnswer::Targets(Targets {
                wanted: (0..self.one_of(3)).map(|_| wanted()).collect(),
                last: self.seqs,
                unread: self.one_of(9) == 0,
            }),
            StoreWork::Meet { .. } => StoreAnswer::Met(MeetSummary {
                merged: self.one_of(3),
                parked: self.one_of(2),
                pull_first: self.one_of(9) == 0,
                notices: notices(),
            }),
            StoreWork::Survey => StoreAnswer::Surveyed(Survey {
                claimable: self.one_of(2) == 0,
                unsettled: self.one_of(3),
                due_in_ms: (self.one_of(2) == 0).then_some(700),
                open_conflicts: self.one_of(2),
            }),
        }
    }

    fn claimed(&mut self, most: usize) -> Claimed {
        let entries = self.one_of(4).min(most as u64);
        let entries: Vec<BatchEntry> = (0..entries).map(|_| self.entry()).collect();
        Claimed {
            more: self.one_of(3) == 0,
            cancel: (self.one_of(4) == 0).then(|| Cancel {
                seq: self.seqs,
                mutation: MutationId::new("m"),
                client: ClientId::new("client"),
                key: IdempotencyKey::new("k"),
            }),
            batch: Batch {
                bytes: 40 * entries.len() as u64,
                entries,
            },
            notices: notices(),
        }
    }

    fn entry(&mut self) -> BatchEntry {
        self.seqs += 1;
        let seq = self.seqs;
        BatchEntry {
            seq,
            mutation: MutationId::new(format!("m{seq}")),
            key: IdempotencyKey::new(format!("k{seq}")),
            entity: entity(),
            op: Operation::Update,
            attempts: u32::try_from(self.one_of(3)).unwrap(),
            group: (self.one_of(5) == 0).then(|| text("group")),
            origin: (self.one_of(5) == 0).then(|| ClientId::new("origin")),
            again: seq % 2 == 0,
            frozen: format!("{{\"title\":\"{SECRET} {seq}\"}}"),
        }
    }

    /// One of few, so that they repeat, of lengths at the edge.
    fn cursor(&mut self) -> String {
        match self.one_of(12) {
            0 => String::new(),
            1 => text(&"x".repeat(9_000)),
            n => text(&n.to_string()),
        }
    }

    fn remote(&mut self, request: &RemoteRequest) -> RemoteAnswer {
        let error = match self.one_of(8) {
            0 => Some(self.error()),
            _ => None,
        };
        match (request, error) {
            (RemoteRequest::Hello { .. }, None) => RemoteAnswer::Hello(Ok(hello())),
            (RemoteRequest::Hello { .. }, Some(error)) => RemoteAnswer::Hello(Err(error)),
            (RemoteRequest::Push { batch, .. }, None) => {
                let results = batch.entries.iter().map(|entry| self.result(&entry.key));
                RemoteAnswer::Push(Ok(PushResponse {
                    results: results.collect(),
                    epoch: Epoch::new(if self.one_of(9) == 0 {
                        "other"
                    } else {
                        "epoch"
                    }),
                    token: Some(ExchangeToken::new(text("next"))),
                }))
            }
            (RemoteRequest::Push { .. }, Some(error)) => RemoteAnswer::Push(Err(error)),
            (RemoteRequest::Cancel { key, .. }, None) => {
                let result = self.result(key);
                RemoteAnswer::Cancel(Ok(KeyOutcome::Final { result }))
            }
            (RemoteRequest::Cancel { .. }, Some(error)) => RemoteAnswer::Cancel(Err(error)),
            (RemoteRequest::Register { .. }, None) => RemoteAnswer::Register(Ok(())),
            (RemoteRequest::Register { .. }, Some(error)) => RemoteAnswer::Register(Err(error)),
            (RemoteRequest::Fetch { .. }, None) => RemoteAnswer::Fetch(Ok(Fetched {
                epoch: Epoch::new(if self.one_of(9) == 0 {
                    "other"
                } else {
                    "epoch"
                }),
                position: 9,
                changes: self.page(4).changes,
                bytes: 40,
            })),
            (RemoteRequest::Fetch { .. }, Some(error)) => RemoteAnswer::Fetch(Err(error)),
            (RemoteRequest::Pull { limit, .. }, None) => RemoteAnswer::Pull(Ok(self.page(*limit))),
            (RemoteRequest::Pull { .. }, Some(error)) => RemoteAnswer::Pull(Err(error)),
        }
    }

    fn error(&mut self) -> RemoteError {
        let detail = text("detail");
        match self.one_of(8) {
            0 => RemoteError::Unreachable { detail },
            1 => RemoteError::Transient {
                status: 500,
                detail,
                retry_after: None,
                overloaded: false,
            },
            2 => RemoteError::Transient {
                status: 503,
                detail,
                retry_after: Some(std::time::Duration::from_secs(2)),
                overloaded: true,
            },
            3 => RemoteError::Auth { detail },
            4 => RemoteError::Forked { detail },
            5 => RemoteError::TooLarge { detail },
            6 => RemoteError::CursorGone { detail },
            _ => RemoteError::Misconfigured {
                status: 404,
                detail,
            },
        }
    }

    fn result(&mut self, key: &IdempotencyKey) -> PushResult {
        let detail = text("detail");
        let outcome = match self.one_of(6) {
            0 => Outcome::Conflict {
                reason: ConflictReason::Stale,
                remote: Some(RemoteState {
                    version: ServerVersion::new(text("v")),
                    position: 4,
                    fields: Some(fields()),
                }),
            },
            1 => Outcome::Rejected {
                code: text("Not a word"),
                detail: detail.clone(),
                errors: vec![FieldError {
                    field: "title".to_owned(),
                    code: "unique".to_owned(),
                    detail,
                }],
            },
            2 => Outcome::Retry {
                detail,
                retry_after_ms: Some(1_500),
            },
            3 => Outcome::Forbidden { detail },
            4 => Outcome::Expired,
            _ => Outcome::Applied {
                version: ServerVersion::new(text("v")),
                position: 4,
                fields: Some(fields()),
                id: Some(entity().id),
            },
        };
        PushResult {
            key: key.clone(),
            outcome,
            duplicate: self.one_of(3) == 0,
        }
    }

    fn page(&mut self, limit: usize) -> Page {
        let count = usize::try_from(self.one_of(4)).unwrap();
        let change = |n: usize| match n {
            2 => PageChange::Invalid {
                raw: text("raw"),
                detail: text("detail"),
            },
            _ => PageChange::Valid(Change {
                entity_type: EntityType::new("task"),
                id: entity().id,
                kind: ChangeKind::Upsert(fields()),
                version: ServerVersion::new(text("v")),
                position: 4,
                key: None,
            }),
        };
        Page {
            bytes: 50 * count as u64,
            changes: (0..count).map(change).collect(),
            end: PageEnd {
                cursor: self.cursor(),
                position: 5,
                // Sometimes the server counts wrongly.
                count: if self.one_of(9) == 0 { limit } else { count },
                phase: PagePhase::Feed,
                at_head: self.one_of(3) == 0,
                to_come: None,
                epoch: None,
            },
        }
    }
}

fn text(what: &str) -> String {
    format!("{SECRET} {what}")
}

fn principal() -> Principal {
    Principal {
        tenant: text("tenant"),
        subject: text("subject"),
    }
}

fn wanted() -> Wanted {
    Wanted {
        entity_type: EntityType::new("task"),
        ids: vec![entity().id],
    }
}

fn entity() -> EntityRef {
    EntityRef {
        entity_type: EntityType::new("task"),
        id: EntityId::parse(text("id")).unwrap(),
    }
}

fn fields() -> Fields {
    [
        ("title", Value::Text(text("title"))),
        ("blob", Value::Blob(SECRET.as_bytes().to_vec())),
        ("real", Value::Real(f64::NEG_INFINITY)),
        ("number", Value::Integer(-5)),
        ("nothing", Value::Null),
    ]
    .into_iter()
    .collect()
}

fn notices() -> Vec<Notice> {
    vec![
        Notice::ConflictOpened {
            entity: entity(),
            reason: text("reason"),
        },
        Notice::MutationFailed {
            mutation: MutationId::new("m"),
            entity: Some(entity()),
            error: MutationError::new("validation", text("detail")),
        },
    ]
}

fn types() -> TypeDefinitions {
    let column = ColumnDefinition {
        name: "title".to_owned(),
        field: None,
        declared: "TEXT".to_owned(),
        collation: String::new(),
        not_null: false,
        default: Some(Value::Text(text("default"))),
    };
    TypeDefinitions {
        types: vec![TypeDefinition {
            name: EntityType::new("task"),
            table: "task".to_owned(),
            schema_version: 1,
            columns: vec![column],
            key: vec!["id".to_owned()],
            unique: Vec::new(),
            references: Vec::new(),
            without_rowid: false,
            strict: false,
        }],
    }
}

fn hello() -> Hello {
    Hello {
        protocol_versions: vec!["2026-11-01".to_owned()],
        server: "rig".to_owned(),
        epoch: Epoch::new("epoch"),
        server_time_ms: 0,
        principal: principal(),
        scopes: vec![Grant {
            scope: Scope::new(text("scope")),
            access: Access::Write,
            horizon: 0,
        }],
        limits: Limits::default(),
        key_retention_ms: 1,
    }
}
