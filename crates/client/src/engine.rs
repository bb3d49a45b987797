//! Machine plus store: synchronous and deterministic. It does store work itself and hands
//! everything else out. The driver and the simulator run this same engine.

use crate::meter::Meter;
use crate::record::{Tape, TraceSink};
use std::collections::VecDeque;
use std::time::Instant;
use syncline_core::trace::Recorder;
use syncline_core::{
    Blocked, Config, CycleEnd, Effect, Input, Machine, Notice, Now, RemoteError, RemoteRequest,
    RequestId, State, WakeReason,
};
use syncline_store::status::{BlockedBy, EngineView, Wakeup};
use syncline_store::{Rest, Store, StoreError, Trouble};

/// What the engine cannot do itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// Send this; feed the answer back as [`Input::Remote`].
    Request(RequestId, RemoteRequest),
    /// Get new credentials; feed the outcome back as [`Input::Credentials`].
    RefreshCredentials,
    /// Tell the app.
    Notice(Notice),
}

/// Where the machine is, in its own words.
type Seen = Option<(State, Option<Blocked>, Option<(u64, WakeReason)>)>;

/// The engine of one database.
pub struct Engine {
    machine: Machine,
    store: Store,
    meter: Meter,
    /// What the machine said of itself last, and that for people.
    seen: Seen,
    view: EngineView,
    /// What was last noted in the store for other processes.
    noted: Option<Rest>,
    trouble: Option<Trouble>,
    /// What follows from the last input and can wait until its requests are on their way.
    rest: VecDeque<Effect>,
    /// Noticed before there was anyone to tell.
    untold: Vec<Notice>,
    /// The flight recorder, when it is on.
    tape: Option<Tape>,
}

impl Engine {
    /// An engine at rest; `seed` should differ from start to start.
    pub fn new(store: Store, config: Config, seed: u64) -> Result<Self, StoreError> {
        let client = store.client_id()?;
        let untold = match store.identity_changed() {
            true => vec![Notice::IdentityChanged],
            false => Vec::new(),
        };
        Ok(Self {
            machine: Machine::new(config, client, seed),
            store,
            meter: Meter::default(),
            seen: None,
            view: EngineView::default(),
            noted: None,
            trouble: None,
            rest: VecDeque::new(),
            untold,
            tape: None,
        })
    }

    /// From here on, keeps a trace of everything that happens to the machine. What cannot be kept ends
    /// the recording and nothing else.
    pub fn record(&mut self, recorder: Recorder, sink: impl TraceSink + 'static) {
        self.tape = Some(Tape::new(recorder, Box::new(sink)));
    }

    /// Takes one input, does the store work that follows from it, and hands out the rest in order.
    ///
    /// It stops after a request: send that, then call [`proceed`](Self::proceed) for the work that
    /// can be done while the answer is awaited. Work that is left over comes before the next input.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Outgoing> {
        let untold = std::mem::take(&mut self.untold).into_iter();
        let mut out: Vec<Outgoing> = untold.map(Outgoing::Notice).collect();
        while !self.rest.is_empty() {
            self.run(VecDeque::new(), now, &mut out);
        }
        self.run(VecDeque::from([input]), now, &mut out);
        out
    }

    /// Whether there is work left over for [`proceed`](Self::proceed).
    pub fn has_more(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Does the next part of what is left over; `None` when nothing is.
    pub fn proceed(&mut self, now: Now) -> Option<Vec<Outgoing>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        self.run(VecDeque::new(), now, &mut out);
        Some(out)
    }

    fn run(&mut self, mut inputs: VecDeque<Input>, now: Now, out: &mut Vec<Outgoing>) {
        loop {
            while let Some(effect) = self.rest.pop_front() {
                match effect {
                    Effect::Store(work) => {
                        let begun = Instant::now();
                        let answer = self.store.perform(&work, now);
                        self.meter.store(&work, &answer, begun.elapsed());
                        inputs.push_back(Input::Store(answer));
                    }
                    Effect::Remote(id, request) => {
                        out.push(Outgoing::Request(id, request));
                        let more_work = self.rest.iter().any(|e| matches!(e, Effect::Store(_)));
                        if more_work && inputs.is_empty() {
                            return;
                        }
                    }
                    Effect::RefreshCredentials => out.push(Outgoing::RefreshCredentials),
                    Effect::Notice(notice) => {
                        self.remember_error(&notice);
                        self.meter.notice(&notice);
                        out.push(Outgoing::Notice(notice));
                    }
                }
            }
            match inputs.pop_front() {
                Some(input) => {
                    let effects = self.decide(input, now);
                    self.rest.extend(effects);
                }
                None => break,
            }
        }
        for notice in self.store.unsyncable() {
            self.meter.notice(&notice);
            out.push(Outgoing::Notice(notice));
        }
        self.look_at_machine(now);
        self.note_state(now);
    }

    fn decide(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let Some(tape) = &mut self.tape else {
            return self.machine.handle(input, now);
        };
        tape.before(&self.machine, &input, now);
        let effects = self.machine.handle(input, now);
        tape.after(&self.machine, &effects);
        effects
    }

    fn remember_error(&mut self, notice: &Notice) {
        let (kind, detail) = match notice {
            Notice::CycleEnded(CycleEnd::Complete) => return self.trouble = None,
            Notice::BackingOff { error, .. } => (error.word(), error.to_string()),
            Notice::StoreTrouble(fault) => (Trouble::STORE, fault.to_string()),
            Notice::CredentialsNeeded { detail } => (RemoteError::AUTH, detail.clone()),
            Notice::OtherAccount { recorded, offered } => {
                let detail = format!(
                    "the database belongs to {}/{}, the token to {}/{}",
                    recorded.tenant, recorded.subject, offered.tenant, offered.subject
                );
                (RemoteError::AUTH, detail)
            }
            _ => return,
        };
        self.trouble = Some(Trouble { kind, detail });
    }

    /// Times are translated once for each change, so that the view is the same until the next.
    fn look_at_machine(&mut self, now: Now) {
        let seen = Some((
            self.machine.state(),
            self.machine.blocked(),
            self.machine.goes_on(),
        ));
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        let at =
            |monotonic_ms: u64| now.unix_after_ms(monotonic_ms.saturating_sub(now.monotonic_ms));
        self.view = EngineView {
            state: self.machine.state().as_str().to_owned(),
            blocked: self.machine.blocked().map(|blocked| BlockedBy {
                because: blocked.because.as_str().to_owned(),
                detail: blocked.detail,
                until: blocked.until_ms.map(at),
            }),
            next_wakeup: self.machine.goes_on().map(|(due, reason)| Wakeup {
                at: at(due),
                reason: reason.as_str().to_owned(),
            }),
        };
    }

    /// Where the machine rests is written down for `status` in other processes; passing states are
    /// not. Nor is a moment that moved on alone, until the one that is written has passed: each
    /// note is a transaction.
    fn note_state(&mut self, now: Now) {
        let state = self.machine.state();
        if matches!(state, State::Connecting | State::Pushing | State::Pulling) {
            return;
        }
        let debounce = matches!(self.machine.goes_on(), Some((_, WakeReason::Debounce)));
        let holds = self.noted.as_ref().is_some_and(|rest| {
            let noted = &rest.engine;
            let passed = |at: Option<i64>| at.is_some_and(|at| at <= now.unix_ms);
            let reason = |view: &EngineView| view.next_wakeup.as_ref().map(|w| w.reason.clone());
            let stale = passed(noted.next_wakeup.as_ref().map(|wakeup| wakeup.at))
                || reason(noted) != reason(&self.view);
            noted.state == self.view.state
                && rest.trouble == self.trouble
                && noted.blocked == self.view.blocked
                && (debounce || !stale)
        });
        if holds {
            return;
        }
        let rest = self.rest();
        if self.store.note_state(&rest).is_ok() {
            self.noted = Some(rest);
        }
    }

    fn rest(&self) -> Rest {
        Rest {
            engine: self.view.clone(),
            trouble: self.trouble.clone(),
        }
    }

    /// Where the engine is, for people.
    pub fn view(&self) -> &EngineView {
        &self.view
    }

    /// The one next moment at which [`Input::Tick`] is wanted (monotonic milliseconds), and why.
    pub fn next_wakeup(&self) -> Option<(u64, WakeReason)> {
        self.machine.next_wakeup()
    }

    /// Where the machine is.
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// The store, to read from and to remedy dead letters.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Ends without a word, and leaves the store.
    pub fn into_store(self) -> Store {
        self.store
    }

    /// Gives the right to be the file's engine back; it is asked for again when there is work.
    pub fn let_go(&mut self) {
        self.meter.let_go();
        if let Err(error) = self.store.release() {
            tracing::debug!(%error, "the lease could not be given back; it ends by itself");
        }
    }

    /// Rests for long: [`Engine::let_go`], and other processes are told where it rests, also when it
    /// has never been the file's engine.
    pub fn stand_aside(&mut self, now: Now) {
        let rest = self.rest();
        match self.store.stand_aside(&rest, now) {
            Ok(()) => self.meter.let_go(),
            Err(error) => {
                tracing::debug!(%error, "where the engine rests could not be written down");
                self.let_go();
            }
        }
    }

    /// Ends: nothing more is asked of the world, and another process may take over at once.
    pub fn stop(&mut self, now: Now) {
        self.handle(Input::Stop, now);
        self.let_go();
    }
}
