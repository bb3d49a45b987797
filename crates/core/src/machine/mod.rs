//! The state machine: one `match (state, input)`, drawn in the README beside this crate.
//!
//! It decides what happens next and never does it: inputs come in with the time, effects go out.
//! Its state moves on answers, not on requests (C2). It reads no clock, rolls no dice of its own,
//! does no I/O and names no SQLite (C1).

mod blocked;
mod connect;
mod input;
mod notice;
mod pass;
mod pull;
mod push;
mod schedule;
mod sequence;
mod snapshot;
mod suspect;
mod target;
mod wait;

pub use blocked::{Blocked, BlockedBecause};
pub use input::{
    BookSummary, Booking, Cancel, ClaimLimits, Claimed, Effect, FaultKind, Input, Live,
    MeetSummary, PageSummary, Reason, RequestId, StoreAnswer, StoreFault, StoreWork, Survey,
    Targets,
};
pub use notice::{CycleEnd, Notice};
pub use pass::Allowance;
pub use schedule::{Constraints, SyncOrder};
pub use wait::WakeReason;

use crate::{Config, Dice, Now, RemoteAnswer, RemoteError, RemoteRequest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use syncline_protocol::{ClientId, Hello};

/// Where the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Nothing to do until a trigger or a deadline.
    Idle,
    /// Becoming the engine of the file and greeting the remote.
    Connecting,
    /// Sending mutations.
    Pushing,
    /// Receiving changes.
    Pulling,
    /// Waiting for credentials.
    BlockedAuth,
    /// Everything left to do waits for a person to decide a conflict.
    BlockedConflict,
    /// Waiting before a failed request is repeated.
    Backoff,
    /// Resting until the host says otherwise; triggers are remembered.
    Paused,
    /// Ended.
    Stopped,
}

impl State {
    /// The word for it in status and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Connecting => "connecting",
            State::Pushing => "pushing",
            State::Pulling => "pulling",
            State::BlockedAuth => "blocked_auth",
            State::BlockedConflict => "blocked_conflict",
            State::Backoff => "backoff",
            State::Paused => "paused",
            State::Stopped => "stopped",
        }
    }

    fn is_busy(self) -> bool {
        matches!(self, State::Connecting | State::Pushing | State::Pulling)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The deterministic heart of the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    config: Config,
    dice: Dice,
    client: ClientId,
    state: State,
    /// The request whose answer is awaited; any other answer is ignored.
    under_way: Option<(RequestId, Kind)>,
    last_request: RequestId,
    /// What the remote said of itself; the store has not taken note of it yet.
    #[serde(default)]
    greeting: Option<Hello>,
    /// The same, once the store knows whose the file is and what the remote knows of it.
    session: Option<Hello>,
    /// When that was (monotonic milliseconds).
    #[serde(default)]
    greeted_ms: u64,
    /// Credentials were refreshed since the last request that they were good for.
    refreshed: bool,
    /// Why they did not do, while the machine waits for others.
    #[serde(default)]
    refused: Option<blocked::Refused>,
    wanted: BTreeSet<Reason>,
    /// Why the network is used sparingly, if it is.
    constraints: Constraints,
    /// The host wants rest.
    paused: bool,
    /// The remote does not give single entities.
    #[serde(default)]
    fetches_nothing: bool,
    /// What the bounded pass under way may still use.
    pass: Option<Allowance>,
    cycle: pull::Cycle,
    pusher: push::Pusher,
    waiting: wait::Waiting,
}

/// What is asked of the remote; an answer of another kind answers nothing (F:S25).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Hello,
    Register,
    Push,
    Cancel,
    Fetch,
    Pull,
}

impl Kind {
    fn asked(request: &RemoteRequest) -> Self {
        match request {
            RemoteRequest::Hello { .. } => Kind::Hello,
            RemoteRequest::Register { .. } => Kind::Register,
            RemoteRequest::Push { .. } => Kind::Push,
            RemoteRequest::Cancel { .. } => Kind::Cancel,
            RemoteRequest::Fetch { .. } => Kind::Fetch,
            RemoteRequest::Pull { .. } => Kind::Pull,
        }
    }

    fn of(answer: &RemoteAnswer) -> Self {
        match answer {
            RemoteAnswer::Hello(_) => Kind::Hello,
            RemoteAnswer::Register(_) => Kind::Register,
            RemoteAnswer::Push(_) => Kind::Push,
            RemoteAnswer::Cancel(_) => Kind::Cancel,
            RemoteAnswer::Fetch(_) => Kind::Fetch,
            RemoteAnswer::Pull(_) => Kind::Pull,
        }
    }
}

/// The effects of one input, in order.
#[derive(Debug, Default)]
struct Effects(Vec<Effect>);

impl Effects {
    fn store(&mut self, work: StoreWork) {
        self.0.push(Effect::Store(work));
    }

    fn notice(&mut self, notice: Notice) {
        self.0.push(Effect::Notice(notice));
    }
}

impl Machine {
    /// A machine at rest. `seed` decides every random draw; it should differ from start to start.
    pub fn new(config: Config, client: ClientId, seed: u64) -> Self {
        Self {
            pusher: push::Pusher::new(&config),
            config,
            dice: Dice::seeded(seed),
            client,
            state: State::Idle,
            under_way: None,
            last_request: RequestId::default(),
            greeting: None,
            session: None,
            greeted_ms: 0,
            refreshed: false,
            refused: None,
            wanted: BTreeSet::new(),
            constraints: Constraints::default(),
            paused: false,
            fetches_nothing: false,
            pass: None,
            cycle: pull::Cycle::default(),
            waiting: wait::Waiting::default(),
        }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// The settings it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes one input and says what is to be done, in order. Feed one input, do all effects,
    /// then feed the next.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut out = Effects::default();
        match (self.state, input) {
            (State::Stopped, _) => {}
            (_, Input::Stop) => self.enter(State::Stopped, &mut out),
            (_, Input::Tick) => self.on_tick(now, &mut out),
            (_, Input::Trigger(reason)) => self.on_trigger(reason, now, &mut out),
            (_, Input::NetworkLost) => self.on_network_lost(now, &mut out),
            (_, Input::Constraints(constraints)) => {
                self.on_constraints(constraints, now, &mut out);
            }
            (_, Input::Pause) => self.on_pause(now, &mut out),
            (_, Input::Resume) => self.on_resume(now, &mut out),
            (_, Input::Pass(Some(allowance))) => self.begin_pass(allowance, now, &mut out),
            (_, Input::Pass(None)) => self.end_pass(now, &mut out),
            (_, Input::Live(live)) => self.on_live(live, now),

            (_, Input::Store(StoreAnswer::Renewed)) => {
                self.waiting.lease_renewed(&self.config, now)
            }
            (_, Input::Store(StoreAnswer::Failed(fault))) => self.on_fault(fault, now, &mut out),
            (_, Input::Remote(id, ref answer))
                if self.under_way != Some((id, Kind::of(answer))) => {}

            (State::Connecting, Input::Store(answer)) => {
                self.connecting_store(answer, now, &mut out)
            }
            (State::Connecting, Input::Remote(_, RemoteAnswer::Hello(answer))) => {
                self.connecting_hello(answer, now, &mut out);
            }

            (State::Connecting, Input::Remote(_, RemoteAnswer::Register(answer))) => {
                self.connecting_registered(answer, now, &mut out);
            }

            (State::Pushing, Input::Store(answer)) => self.pushing_store(answer, now, &mut out),
            (State::Pushing, Input::Remote(_, answer)) => {
                self.pushing_remote(answer, now, &mut out);
            }

            (State::Pulling, Input::Store(answer)) => self.pulling_store(answer, now, &mut out),
            (State::Pulling, Input::Remote(_, RemoteAnswer::Pull(answer))) => {
                self.pulling_answer(answer, now, &mut out);
            }

            (State::BlockedAuth, Input::Credentials(refresh)) => {
                self.on_credentials(refresh, now, &mut out);
            }

            // One that nobody waits for any more.
            (State::Connecting | State::Pulling, Input::Remote(..))
            | (_, Input::Credentials(_))
            | (
                State::Idle
                | State::Backoff
                | State::BlockedAuth
                | State::BlockedConflict
                | State::Paused,
                Input::Store(_) | Input::Remote(..),
            ) => {}
        }
        self.pause_if_wanted(&mut out);
        out.0
    }

    fn enter(&mut self, to: State, out: &mut Effects) {
        let from = std::mem::replace(&mut self.state, to);
        if !to.is_busy() {
            self.under_way = None;
        }
        if from != to {
            out.notice(Notice::StateChanged { from, to });
        }
    }

    fn ask(&mut self, request: RemoteRequest, out: &mut Effects) {
        self.spend(&request);
        self.last_request.0 += 1;
        self.under_way = Some((self.last_request, Kind::asked(&request)));
        out.0.push(Effect::Remote(self.last_request, request));
    }

    /// The cycle cannot go on because of the remote: wait, or block, as the error demands.
    fn remote_failed(&mut self, error: RemoteError, now: Now, out: &mut Effects) {
        self.under_way = None;
        if let RemoteError::Auth { detail } = error {
            return self.credentials_refused(detail, out);
        }
        if matches!(
            error,
            RemoteError::Incompatible { .. } | RemoteError::Misconfigured { .. }
        ) {
            self.session = None;
        }
        let delay_ms = self
            .waiting
            .back_off(&self.config, &error, now, &mut self.dice);
        self.enter(State::Backoff, out);
        out.notice(Notice::BackingOff {
            delay_ms,
            error: error.clone(),
        });
        self.end_cycle(CycleEnd::RemoteFailed(error), out);
    }

    fn end_cycle(&mut self, end: CycleEnd, out: &mut Effects) {
        out.notice(Notice::CycleEnded(end));
    }
}
