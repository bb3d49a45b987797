//! An outage does not become a stampede: a thousand machines in virtual time, with the smallest store and
//! server that serve.
//!
//! The rate of requests that reach the server is counted over five seconds. After an outage of an hour it must not
//! go beyond twice the steady load, and everyone must be through in a stated time; nor after a restart of a few
//! seconds, which cuts all streams at once and finds a sixth of the devices in the middle of a sync.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;
use syncline_core::{
    Batch, BatchEntry, Claimed, Config, CycleEnd, Dice, Effect, EntityRef, Input, ListenEnd, Live,
    Machine, Notice, Now, Page, Reason, Reconnect, RemoteAnswer, RemoteError, RemoteRequest, State,
    StoreAnswer, StoreWork, Survey, Verdict,
};
use syncline_protocol::{
    Access, ClientId, EntityId, EntityType, Epoch, Grant, Hello, IdempotencyKey, Limits,
    MutationId, Operation, Outcome, PageEnd, PagePhase, Principal, PushResponse, PushResult, Scope,
    ServerVersion,
};

const CLIENTS: usize = 1_000;
const SECOND: u64 = 1_000;

/// When everything has settled, and how long is watched then.
const WARM_UP: u64 = 90 * SECOND;
const STEADY: u64 = 90 * SECOND;

/// How many times the steady load the peak may be.
const MOST: f64 = 2.0;

/// Over so long a rate is measured.
const WINDOW: usize = 5;

/// What the server does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Up,
    Down,
    /// It answers 503 with this `Retry-After`, in seconds.
    Busy(u64),
}

/// An outage, and what comes after it.
#[derive(Debug, Clone, Copy)]
struct Story {
    /// Streams are held open, and each client writes so often, in milliseconds; else all poll.
    writes: Option<u64>,
    outage: u64,
    /// After it the server is busy for so long, and asks for so many seconds.
    busy: Option<(u64, u64)>,
    /// By when everyone is through after the server's return.
    through: u64,
}

impl Story {
    fn down(self) -> u64 {
        WARM_UP + STEADY
    }

    fn back(self) -> u64 {
        self.down() + self.outage
    }

    fn mood(self, now: u64) -> Mood {
        let free = self.back() + self.busy.map_or(0, |(ms, _)| ms);
        match self.busy {
            _ if now < self.down() || now >= free => Mood::Up,
            _ if now < self.back() => Mood::Down,
            Some((_, seconds)) => Mood::Busy(seconds),
            None => Mood::Up,
        }
    }
}

fn refused(mood: Mood) -> Option<RemoteError> {
    match mood {
        Mood::Up => None,
        Mood::Down => Some(RemoteError::Unreachable {
            detail: "connection refused".to_owned(),
        }),
        Mood::Busy(seconds) => Some(RemoteError::Transient {
            status: 503,
            detail: "busy".to_owned(),
            retry_after: Some(Duration::from_secs(seconds)),
            overloaded: true,
        }),
    }
}

/// Where its stream is.
enum Stream {
    None,
    /// To be opened then.
    Waiting(u64),
    Open(u64),
}

struct Client {
    machine: Machine,
    config: Config,
    pending: i64,
    writes: Option<u64>,
    next_write: u64,
    live: bool,
    stream: Stream,
    reconnect: Reconnect,
    dice: Dice,
    /// When a cycle was complete for the first time since the server's return.
    through: Option<u64>,
}

impl Client {
    fn new(nth: usize, story: Story) -> Self {
        let mut config = Config::default();
        // Renewing a lease that nobody else wants would only cost the test time.
        config.lease_ttl_ms = 36_000_000;
        let mut dice = Dice::seeded(nth as u64);
        let client = ClientId::new(nth.to_string());
        Self {
            machine: Machine::new(config.clone(), client, 1_000_000 + nth as u64),
            config,
            pending: 0,
            writes: story.writes,
            // They are started one by one.
            next_write: dice.up_to(60 * SECOND),
            live: story.writes.is_some(),
            stream: Stream::None,
            reconnect: Reconnect::default(),
            dice,
            through: None,
        }
    }

    /// Its next moment.
    fn next(&self) -> u64 {
        let wake = self.machine.next_wakeup().map_or(u64::MAX, |(at, _)| at);
        let open = match self.stream {
            Stream::Waiting(at) => at,
            _ => u64::MAX,
        };
        wake.min(open).min(self.next_write)
    }

    fn act(&mut self, now: u64, server: &mut Server) {
        if self.next_write <= now {
            let every = self.writes.unwrap_or(u64::MAX / 4);
            self.next_write = now + every / 2 + self.dice.up_to(every);
            self.pending += i64::from(self.writes.is_some());
            let reason = match self.writes {
                Some(_) => Reason::MutationEnqueued,
                None => Reason::AppStart,
            };
            self.feed(Input::Trigger(reason), now, server);
        }
        if matches!(self.stream, Stream::Waiting(at) if at <= now) {
            self.open(now, server);
        }
        self.feed(Input::Tick, now, server);
    }

    fn open(&mut self, now: u64, server: &mut Server) {
        if !matches!(self.machine.state(), State::Idle | State::BlockedConflict) {
            // The end of the next cycle opens it.
            self.stream = Stream::None;
            return;
        }
        match server.asked(now) {
            None => {
                self.stream = Stream::Open(now);
                self.feed(Input::Live(Live::Heard), now, server);
            }
            Some(error) => self.ended(&ListenEnd::Failed(error), None, now),
        }
    }

    fn ended(&mut self, end: &ListenEnd, heard: Option<u64>, now: u64) {
        let wait = (self.reconnect).ended(end, heard, &self.config, &mut self.dice);
        self.stream = wait.map_or(Stream::None, |wait| Stream::Waiting(now + wait));
    }

    /// The server went away.
    fn cut(&mut self, now: u64, server: &mut Server) {
        if let Stream::Open(since) = self.stream {
            self.ended(&ListenEnd::Closed, Some(now - since), now);
            self.feed(Input::Live(Live::Lost), now, server);
        }
    }

    fn feed(&mut self, input: Input, now: u64, server: &mut Server) {
        let mut inputs = VecDeque::from([input]);
        let at = Now {
            monotonic_ms: now,
            unix_ms: 1_800_000_000_000,
        };
        while let Some(input) = inputs.pop_front() {
            for effect in self.machine.handle(input, at) {
                match effect {
                    Effect::Store(work) => inputs.push_back(Input::Store(self.store(work))),
                    Effect::Remote(id, request) => {
                        inputs.push_back(Input::Remote(id, server.answer(request, now)));
                    }
                    Effect::RefreshCredentials => {}
                    Effect::Notice(Notice::CycleEnded(end)) => self.cycle_ended(&end, now, server),
                    Effect::Notice(_) => {}
                }
            }
        }
    }

    fn cycle_ended(&mut self, end: &CycleEnd, now: u64, server: &Server) {
        if *end == CycleEnd::Complete && now >= server.story.back() {
            self.through.get_or_insert(now - server.story.back());
        }
        let planned = matches!(self.stream, Stream::Waiting(_));
        if !self.live || matches!(self.stream, Stream::Open(_)) {
            return;
        }
        let wait = (self.reconnect).cycle_ended(end, planned, &self.config, &mut self.dice);
        if let Some(latest) = wait.map(|wait| now + wait) {
            self.stream = Stream::Waiting(match self.stream {
                Stream::Waiting(at) => at.min(latest),
                _ => latest,
            });
        }
    }

    fn store(&mut self, work: StoreWork) -> StoreAnswer {
        match work {
            StoreWork::Acquire => StoreAnswer::Acquired,
            StoreWork::Renew => StoreAnswer::Renewed,
            StoreWork::Greet(_) => StoreAnswer::Greeted {
                epoch_changed: false,
                token: None,
                register: None,
            },
            StoreWork::Claim(limits) => {
                let most = i64::try_from(limits.mutations).unwrap();
                let entries = (0..self.pending.min(most)).map(entry).collect();
                StoreAnswer::Claimed(Claimed {
                    batch: Batch { entries, bytes: 0 },
                    ..Claimed::default()
                })
            }
            StoreWork::Book { bookings, .. } => {
                let applied = |verdict: &Verdict| matches!(verdict, Verdict::Applied { .. });
                let applied = bookings.iter().filter(|one| applied(&one.verdict));
                self.pending -= i64::try_from(applied.count()).unwrap();
                StoreAnswer::Booked(Default::default())
            }
            StoreWork::ReadCursor(_) => StoreAnswer::Cursor(Some("c".to_owned())),
            StoreWork::ApplyPage { .. } => StoreAnswer::PageApplied(Default::default()),
            StoreWork::Survey => StoreAnswer::Surveyed(Survey {
                claimable: self.pending > 0,
                unsettled: u64::try_from(self.pending).unwrap(),
                ..Survey::default()
            }),
            other => panic!("nobody asks for {other:?} here"),
        }
    }
}

fn entry(nth: i64) -> BatchEntry {
    BatchEntry {
        seq: nth,
        mutation: MutationId::new(nth.to_string()),
        key: IdempotencyKey::new(nth.to_string()),
        entity: EntityRef {
            entity_type: EntityType::new("task"),
            id: EntityId::from(nth),
        },
        op: Operation::Create,
        attempts: 0,
        group: None,
        origin: None,
        again: false,
        frozen: String::new(),
    }
}

struct Server {
    story: Story,
    /// Requests in each second.
    counts: Vec<u32>,
}

impl Server {
    /// Counts a request that reaches it; why it is not answered, if it is not.
    fn asked(&mut self, now: u64) -> Option<RemoteError> {
        let mood = self.story.mood(now);
        if mood != Mood::Down {
            let second = usize::try_from(now / SECOND).unwrap();
            self.counts.resize(self.counts.len().max(second + 1), 0);
            self.counts[second] += 1;
        }
        refused(mood)
    }

    fn answer(&mut self, request: RemoteRequest, now: u64) -> RemoteAnswer {
        let refused = self.asked(now);
        match (request, refused) {
            (RemoteRequest::Hello { .. }, Some(error)) => RemoteAnswer::Hello(Err(error)),
            (RemoteRequest::Hello { .. }, None) => RemoteAnswer::Hello(Ok(hello())),
            (RemoteRequest::Push { .. }, Some(error)) => RemoteAnswer::Push(Err(error)),
            (RemoteRequest::Push { batch, .. }, None) => RemoteAnswer::Push(Ok(applied(&batch))),
            (RemoteRequest::Pull { .. }, Some(error)) => RemoteAnswer::Pull(Err(error)),
            (RemoteRequest::Pull { .. }, None) => RemoteAnswer::Pull(Ok(nothing_new())),
            (other, _) => panic!("nobody asks for {other:?} here"),
        }
    }

    /// The highest rate in this time, per second.
    fn peak(&self, from: u64, to: u64) -> f64 {
        let second = |ms: u64| usize::try_from(ms / SECOND).unwrap().min(self.counts.len());
        let seconds = &self.counts[second(from)..second(to)];
        let windows = seconds.windows(WINDOW);
        let most = windows.map(|window| window.iter().sum::<u32>()).max();
        f64::from(most.unwrap()) / WINDOW as f64
    }

    fn mean(&self, from: u64, to: u64) -> f64 {
        let second = |ms: u64| usize::try_from(ms / SECOND).unwrap();
        let seconds = &self.counts[second(from)..second(to)];
        f64::from(seconds.iter().sum::<u32>()) / seconds.len() as f64
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

fn applied(batch: &Batch) -> PushResponse {
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

fn nothing_new() -> Page {
    Page {
        changes: Vec::new(),
        bytes: 0,
        end: PageEnd {
            cursor: "c".to_owned(),
            position: 1,
            count: 0,
            phase: PagePhase::Feed,
            at_head: true,
            to_come: None,
            epoch: None,
        },
    }
}

/// Plays the story to its end and checks it.
fn play(story: Story) {
    let mut server = Server {
        story,
        counts: Vec::new(),
    };
    let mut clients: Vec<Client> = (0..CLIENTS).map(|nth| Client::new(nth, story)).collect();
    let mut moments: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    moments.extend(
        clients
            .iter()
            .enumerate()
            .map(|(nth, one)| Reverse((one.next(), nth))),
    );
    let end = story.back() + story.through + 60 * SECOND;
    let mut is_cut = false;
    while let Some(Reverse((now, nth))) = moments.pop() {
        if now >= end {
            break;
        }
        if now >= story.down() && !std::mem::replace(&mut is_cut, true) {
            for (nth, client) in clients.iter_mut().enumerate() {
                client.cut(story.down(), &mut server);
                moments.push(Reverse((client.next(), nth)));
            }
        }
        // An earlier moment may have come in between.
        if clients[nth].next() <= now {
            clients[nth].act(now, &mut server);
            moments.push(Reverse((clients[nth].next(), nth)));
        }
    }
    let steady = server.mean(WARM_UP, story.down());
    let peak = server.peak(story.back(), end);
    let through = clients
        .iter()
        .map(|one| one.through.expect("through at all"));
    let through = through.max().unwrap();
    println!("{story:?}: steady {steady:.0}/s, peak {peak:.0}/s, all through after {through} ms");
    assert!(peak <= MOST * steady, "{story:?}: {peak} beside {steady}");
    assert!(through <= story.through, "{story:?}: {through} ms");
    let left = clients.iter().filter(|one| one.pending > 20).count();
    assert_eq!(left, 0, "{story:?}: backlogs are gone");
    if story.writes.is_some() {
        let open = clients
            .iter()
            .filter(|one| matches!(one.stream, Stream::Open(_)));
        assert!(
            open.count() > CLIENTS * 9 / 10,
            "{story:?}: streams are open again"
        );
    }
}

const HOUR: u64 = 3_600 * SECOND;

#[test]
fn a_thousand_that_poll_come_back_quietly() {
    for (outage, through) in [(5 * SECOND, 60 * SECOND), (HOUR, 330 * SECOND)] {
        play(Story {
            writes: None,
            outage,
            busy: None,
            through,
        });
    }
}

#[test]
fn a_thousand_that_listen_and_write_come_back_quietly() {
    for (outage, through) in [(5 * SECOND, 60 * SECOND), (HOUR, 330 * SECOND)] {
        play(Story {
            writes: Some(30 * SECOND),
            outage,
            busy: None,
            through,
        });
    }
}

#[test]
fn a_server_that_asks_for_patience_is_left_alone_and_then_not_overrun() {
    for writes in [None, Some(30 * SECOND)] {
        play(Story {
            writes,
            outage: HOUR,
            busy: Some((60 * SECOND, 30)),
            through: 420 * SECOND,
        });
    }
}
