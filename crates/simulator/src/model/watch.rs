//! What every machine is held to, input by input, whatever happens around it. Looks only at what goes in
//! and what comes out.

use crate::level::Broken;
use std::collections::BTreeMap;
use syncline_core::{
    BatchEntry, Config, Counted, Effect, Input, Machine, Notice, Now, Reason, RemoteAnswer,
    RemoteError, RemoteRequest, RequestId, State, StoreAnswer, StoreWork, Verdict, WakeReason,
};
use syncline_protocol::{ClientId, IdempotencyKey};

/// Bytes seen under each key (E3).
pub(crate) type Keys = BTreeMap<(ClientId, IdempotencyKey), String>;

/// What is known of a machine before it takes an input.
pub(crate) struct Before {
    state: State,
    wakeup: Option<(u64, WakeReason)>,
    /// Nothing may come of the input.
    inert: bool,
    /// It is a local write or a timer: no wait gets shorter (O5).
    patient: bool,
    /// A push as a whole has no result.
    push_failed: bool,
    /// A bounded pass begins with so many requests, or ends.
    pass: Option<Option<u64>>,
    /// What the input says of the server.
    heard: Heard,
}

impl Before {
    /// Whether nothing may come of the input.
    pub(crate) fn is_inert(&self) -> bool {
        self.inert
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// A push was answered or the store surveyed: the retry budget gets one back.
    Success,
    /// The server wants to be left alone for at least so long.
    LeaveAlone(u64),
    /// The server named somebody; whether the file is theirs is not known yet.
    Offered,
    /// It is ours.
    Greeted,
}

/// One machine's watcher.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    /// The state as notices told it.
    told: Option<State>,
    /// Nothing may be sent before this moment.
    quiet_until: u64,
    /// What is left of the retry budget.
    budget: u32,
    /// Whether the file belongs to whom the server named is not known, or it does not.
    stranger: bool,
    /// What is left of a bounded pass.
    pass: Option<u64>,
    /// The newest push is one group, which stands alone as a whole.
    one_group: bool,
    /// It has ever been asked to do something.
    moved: bool,
    /// Since it blocked for credentials: somebody was told, or asked.
    auth_told: bool,
}

/// A server may ask for at least and at most so much, in milliseconds.
const LEAST_WAIT: u64 = 1_000;
const MOST_WAIT: u64 = 3_600_000;

impl Watch {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            told: Some(State::Idle),
            budget: config.retry_budget,
            ..Self::default()
        }
    }

    /// Before an input. `asked`: the request under way, as far as the world knows.
    pub(crate) fn before(
        machine: &Machine,
        input: &Input,
        asked: Option<(RequestId, &RemoteRequest)>,
        now: Now,
    ) -> Before {
        let inert = match input {
            Input::Remote(id, answer) => {
                asked.is_none_or(|(waited, request)| waited != *id || !fits(request, answer))
            }
            Input::Tick => {
                let due = machine.next_wakeup();
                due.is_none_or(|(due, _)| due > now.monotonic_ms)
            }
            _ => false,
        };
        let patient = matches!(
            input,
            Input::Trigger(
                Reason::MutationEnqueued
                    | Reason::UrgentMutation
                    | Reason::BackgroundMutation
                    | Reason::Timer
            )
        );
        Before {
            state: machine.state(),
            wakeup: machine.next_wakeup(),
            inert,
            patient,
            push_failed: matches!(input, Input::Remote(_, RemoteAnswer::Push(Err(_)))),
            pass: match input {
                Input::Pass(pass) => Some(pass.map(|pass| pass.requests)),
                _ => None,
            },
            heard: if inert { Heard::Nothing } else { heard(input) },
        }
    }

    /// After it.
    pub(crate) fn after(
        &mut self,
        before: &Before,
        machine: &Machine,
        effects: &[Effect],
        now: Now,
        keys: &mut Keys,
    ) -> Result<(), Broken> {
        bounded(effects)?;
        self.states(machine, effects)?;
        if before.inert {
            let same = machine.state() == before.state && machine.next_wakeup() == before.wakeup;
            if !same || !effects.is_empty() {
                return broken("F:S25", format!("what nobody waits for did {effects:?}"));
            }
        }
        if before.patient && before.state == State::Backoff {
            let same = machine.state() == before.state && machine.next_wakeup() == before.wakeup;
            if !same {
                return broken("D:O5", format!("a write changed a wait: {effects:?}"));
            }
        }
        match before.heard {
            Heard::Success => self.budget = (self.budget + 1).min(machine.config().retry_budget),
            Heard::LeaveAlone(ms) => self.quiet_until = now.after_ms(ms),
            Heard::Offered => self.stranger = true,
            Heard::Greeted => self.stranger = false,
            Heard::Nothing => {}
        }
        if let Some(pass) = before.pass {
            self.pass = pass;
        }
        if before.push_failed {
            self.blames(effects)?;
        }
        for effect in effects {
            self.effect(effect, machine, now, keys)?;
        }
        self.blocked(machine, effects)
    }

    fn states(&mut self, machine: &Machine, effects: &[Effect]) -> Result<(), Broken> {
        let mut asked = false;
        for effect in effects {
            match effect {
                Effect::Notice(Notice::StateChanged { from, to }) => {
                    if self.told != Some(*from) {
                        return broken("D:C4", format!("{from} was left, {:?} told", self.told));
                    }
                    if asked {
                        return broken("D:C2", format!("{to} was entered on a request"));
                    }
                    (self.told, self.moved) = (Some(*to), true);
                    if *to != State::BlockedAuth {
                        self.auth_told = false;
                    }
                }
                Effect::Remote(..) | Effect::Store(_) => asked = true,
                Effect::RefreshCredentials
                | Effect::Notice(Notice::CredentialsNeeded { .. } | Notice::OtherAccount { .. }) => {
                    self.auth_told = true
                }
                Effect::Notice(_) => {}
            }
        }
        match self.told == Some(machine.state()) {
            true => Ok(()),
            false => broken("D:C4", format!("{} was entered untold", machine.state())),
        }
    }

    fn effect(
        &mut self,
        effect: &Effect,
        machine: &Machine,
        now: Now,
        keys: &mut Keys,
    ) -> Result<(), Broken> {
        match effect {
            Effect::Remote(_, request) => {
                if now.monotonic_ms < self.quiet_until {
                    let left = self.quiet_until - now.monotonic_ms;
                    let detail = format!("asked {left} ms before the server wants to hear of us");
                    return broken("F:B14", detail);
                }
                let wanted = match request {
                    RemoteRequest::Hello { .. } | RemoteRequest::Register { .. } => {
                        State::Connecting
                    }
                    RemoteRequest::Push { .. }
                    | RemoteRequest::Cancel { .. }
                    | RemoteRequest::Fetch { .. } => State::Pushing,
                    RemoteRequest::Pull { .. } => State::Pulling,
                };
                if machine.state() != wanted {
                    return broken(
                        "D:C2",
                        format!("asked for {request:?} in {}", machine.state()),
                    );
                }
                self.request(request, keys)
            }
            Effect::Notice(Notice::BackingOff { delay_ms, error }) => {
                let config = machine.config();
                let free = matches!(
                    error,
                    RemoteError::Incompatible { .. } | RemoteError::Misconfigured { .. }
                ) || matches!(
                    error,
                    RemoteError::Transient {
                        retry_after: Some(_),
                        ..
                    }
                ) || *delay_ms >= config.backoff_cap_ms;
                if !free && self.budget < 5 {
                    return broken("F:L5", format!("retries in {delay_ms} ms without a budget"));
                }
                if !free {
                    self.budget -= 5;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn request(&mut self, request: &RemoteRequest, keys: &mut Keys) -> Result<(), Broken> {
        if let Some(left) = &mut self.pass {
            if *left == 0 {
                return broken("F:S21", "a bounded pass asks more than it may".to_owned());
            }
            *left -= 1;
        }
        let RemoteRequest::Push { client, batch, .. } = request else {
            return Ok(());
        };
        if self.stranger {
            return broken("D:I1", "pushes, and nobody knows for whom".to_owned());
        }
        let group = batch.entries.first().and_then(|first| first.group.as_ref());
        let along = |entry: &BatchEntry| entry.group.as_ref() == group;
        self.one_group = group.is_some() && batch.entries.iter().all(along);
        for entry in &batch.entries {
            if entry.origin.is_some() {
                continue;
            }
            let name = (client.clone(), entry.key.clone());
            let first = keys.entry(name).or_insert_with(|| entry.frozen.clone());
            if *first != entry.frozen {
                return broken("D:E3", format!("{first} became {}", entry.frozen));
            }
        }
        Ok(())
    }

    /// Where a push as a whole has no result, nobody can be blamed who did not stand alone (F:B29).
    fn blames(&self, effects: &[Effect]) -> Result<(), Broken> {
        for effect in effects {
            let Effect::Store(StoreWork::Book { bookings, .. }) = effect else {
                continue;
            };
            let blamed = |verdict: &Verdict| match verdict {
                Verdict::Later { counted, .. } => *counted == Counted::Yes,
                Verdict::Dead(_) => true,
                _ => false,
            };
            let blamed = bookings.iter().filter(|one| blamed(&one.verdict)).count();
            if blamed > 0 && bookings.len() > 1 && !self.one_group {
                return broken(
                    "F:B29",
                    format!("a failed push is counted against {blamed}"),
                );
            }
        }
        Ok(())
    }

    /// C4: whoever waits has said so, and a machine at rest can be woken.
    fn blocked(&self, machine: &Machine, effects: &[Effect]) -> Result<(), Broken> {
        let state = machine.state();
        if state == State::BlockedAuth && !self.auth_told {
            return broken("D:C4", "waits for credentials and nobody knows".to_owned());
        }
        let into_backoff = effects.iter().any(|effect| {
            matches!(effect, Effect::Notice(Notice::StateChanged { to, .. }) if *to == State::Backoff)
        });
        let why = effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Notice(
                    Notice::BackingOff { .. } | Notice::StoreTrouble(_) | Notice::Standby
                )
            )
        });
        if into_backoff && !why {
            return broken("D:C4", "waits and does not say why".to_owned());
        }
        let woken = matches!(state, State::Idle | State::Backoff | State::BlockedConflict);
        if woken && self.moved && machine.next_wakeup().is_none() {
            return broken("F:L1", format!("{state} for ever"));
        }
        Ok(())
    }
}

/// At most one unit of store work, one request, one refresh, and few words.
fn bounded(effects: &[Effect]) -> Result<(), Broken> {
    let count = |which: fn(&Effect) -> bool| effects.iter().filter(|one| which(one)).count();
    let stores = count(|one| matches!(one, Effect::Store(_)));
    let requests = count(|one| matches!(one, Effect::Remote(..)));
    let refreshes = count(|one| matches!(one, Effect::RefreshCredentials));
    let told = effects.len() - stores - requests - refreshes;
    let acquires = effects
        .iter()
        .any(|one| matches!(one, Effect::Store(StoreWork::Acquire)));
    if stores > 1 || requests > 1 || refreshes > 1 || told > 40 || (acquires && requests > 0) {
        return broken("F:S21", format!("one input had the effects {effects:?}"));
    }
    Ok(())
}

fn broken(invariant: &'static str, detail: String) -> Result<(), Broken> {
    Err(Broken::new(invariant, detail))
}

fn heard(input: &Input) -> Heard {
    let error = match input {
        Input::Store(StoreAnswer::Surveyed(_)) => return Heard::Success,
        Input::Store(StoreAnswer::Greeted { .. }) => return Heard::Greeted,
        Input::Remote(_, RemoteAnswer::Push(Ok(_))) => return Heard::Success,
        Input::Remote(_, RemoteAnswer::Hello(Ok(_))) => return Heard::Offered,
        Input::Remote(_, RemoteAnswer::Hello(Err(error))) => error,
        Input::Remote(_, RemoteAnswer::Register(Err(error))) => error,
        Input::Remote(_, RemoteAnswer::Push(Err(error))) => error,
        Input::Remote(_, RemoteAnswer::Cancel(Err(error))) => error,
        Input::Remote(_, RemoteAnswer::Fetch(Err(error))) => error,
        Input::Remote(_, RemoteAnswer::Pull(Err(error))) => error,
        _ => return Heard::Nothing,
    };
    match error {
        RemoteError::Transient {
            retry_after: Some(asked),
            ..
        } => {
            let asked = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX);
            Heard::LeaveAlone(asked.clamp(LEAST_WAIT, MOST_WAIT))
        }
        _ => Heard::Nothing,
    }
}

/// Whether an answer is of the kind of a request.
pub(crate) fn fits(request: &RemoteRequest, answer: &RemoteAnswer) -> bool {
    matches!(
        (request, answer),
        (RemoteRequest::Hello { .. }, RemoteAnswer::Hello(_))
            | (RemoteRequest::Register { .. }, RemoteAnswer::Register(_))
            | (RemoteRequest::Push { .. }, RemoteAnswer::Push(_))
            | (RemoteRequest::Cancel { .. }, RemoteAnswer::Cancel(_))
            | (RemoteRequest::Fetch { .. }, RemoteAnswer::Fetch(_))
            | (RemoteRequest::Pull { .. }, RemoteAnswer::Pull(_))
    )
}
