//! Waiting: triggers, debounce, polling, back-off, and the one next deadline.

use super::push::Then;
use super::{
    CycleEnd, Effects, FaultKind, Live, Machine, Notice, Reason, State, StoreFault, StoreWork,
    Survey,
};
use crate::retry::least_retry_after_ms;
use crate::{Config, Dice, Now, RemoteError, backoff_ms, retry_after_ms};
use serde::{Deserialize, Serialize};

/// Deadlines on the monotonic clock, in milliseconds, and what they were computed from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The first write of the burst, and when the debounce ends.
    debounce: Option<(u64, u64)>,
    poll: Option<u64>,
    /// Hints are heard: polling is only for those that were missed.
    live: bool,
    /// They are not any more, and no cycle was complete since: others may have lost theirs as well.
    #[serde(default)]
    lost: bool,
    entry_due: Option<u64>,
    pub(super) backoff: Option<Backoff>,
    renew: Option<u64>,
    failures: u32,
    /// What retries have drawn from the budget and successes have not given back.
    spent: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Backoff {
    pub(super) until: u64,
    /// The server asked for so long, or another process is the engine: nobody may cut it short before.
    #[serde(default)]
    bound: u64,
    pub(super) error: Option<RemoteError>,
    /// It was the store that failed; the error says how.
    #[serde(default)]
    pub(super) fault: bool,
}

/// What the next wake-up is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WakeReason {
    /// Local writes are to be pushed.
    Debounce,
    /// The poll interval ends.
    Poll,
    /// A mutation that was put off is due.
    EntryDue,
    /// The back-off ends.
    Backoff,
    /// The lease is to be renewed.
    Lease,
}

impl WakeReason {
    /// The word for it in status and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debounce => "debounce",
            Self::Poll => "poll",
            Self::EntryDue => "entry_due",
            Self::Backoff => "back_off",
            Self::Lease => "lease",
        }
    }
}

/// Where hints were lost, the server is likely to be away for everybody at once: the first back-off is drawn
/// like the one after so many failures.
const AFTER_LOSS: u32 = 6;

impl Waiting {
    pub(super) fn lease_renewed(&mut self, config: &Config, now: Now) {
        self.renew = Some(now.after_ms(config.lease_ttl_ms / 3));
    }

    /// Starts a back-off for this error and says how long it is.
    pub(super) fn back_off(
        &mut self,
        config: &Config,
        error: &RemoteError,
        now: Now,
        dice: &mut Dice,
    ) -> u64 {
        self.failures = self.failures.saturating_add(1);
        let exhausted = !self.draw(config, error);
        let (delay, binding) = match (error.retry_after(), error) {
            (Some(asked), _) => (retry_after_ms(asked, dice), true),
            (_, RemoteError::Incompatible { .. } | RemoteError::Misconfigured { .. }) => {
                (config.misconfigured_backoff_ms, false)
            }
            _ if exhausted => (config.backoff_cap_ms, false),
            _ if self.lost => (
                backoff_ms(config, self.failures.max(AFTER_LOSS), dice),
                false,
            ),
            _ => (backoff_ms(config, self.failures, dice), false),
        };
        self.wait_until(now.after_ms(delay), binding, Some(error.clone()));
        delay
    }

    /// Sets when the back-off ends. What binds goes on binding, whatever else comes to be waited for.
    fn wait_until(&mut self, until: u64, binding: bool, error: Option<RemoteError>) {
        let before = self.backoff.take();
        let bound = before.as_ref().map_or(0, |before| before.bound);
        let error = match before {
            Some(before) if bound > until => before.error,
            _ => error,
        };
        let bound = if binding { bound.max(until) } else { bound };
        self.backoff = Some(Backoff {
            until: until.max(bound),
            bound,
            error,
            fault: false,
        });
    }

    /// A server's wish holds from the moment it is heard, whatever happens before the wait begins.
    pub(super) fn hear_wish(&mut self, error: &RemoteError, now: Now) {
        if let Some(asked) = error.retry_after() {
            let until = now.after_ms(least_retry_after_ms(asked));
            self.wait_until(until, true, Some(error.clone()));
        }
    }

    /// The wait that nobody may cut short, if one is under way: how much longer, and what for.
    pub(super) fn bound(&self, now: Now) -> Option<(u64, Option<RemoteError>)> {
        let backoff = self.backoff.as_ref()?;
        let left = backoff.bound.checked_sub(now.monotonic_ms);
        let left = left.filter(|left| *left > 0)?;
        Some((left, backoff.error.clone()))
    }

    /// A short wait between two halves of a suspect batch: bounded, since halving is. A server's wish
    /// is obeyed here too.
    pub(super) fn short_wait(
        &mut self,
        config: &Config,
        error: &RemoteError,
        now: Now,
        dice: &mut Dice,
    ) -> u64 {
        let (enough, asked) = (self.draw(config, error), error.retry_after());
        let delay = match (asked, enough) {
            (Some(asked), _) => retry_after_ms(asked, dice),
            (None, true) => dice.up_to(config.backoff_base_ms),
            (None, false) => config.backoff_cap_ms,
        };
        self.wait_until(now.after_ms(delay), asked.is_some(), Some(error.clone()));
        delay
    }

    pub(super) fn stand_by(&mut self, config: &Config, remaining_ms: u64, now: Now) {
        self.renew = None;
        let delay = remaining_ms.min(config.lease_ttl_ms) + 1;
        self.wait_until(now.after_ms(delay), true, None);
    }

    /// What the machine backs off from, if it does.
    pub(super) fn backing_off(&self) -> Option<&Backoff> {
        self.backoff.as_ref()
    }

    /// The back-off began because the store failed.
    fn blame_store(&mut self, error: &RemoteError) {
        if let Some(backoff) = &mut self.backoff {
            backoff.fault = backoff.error.as_ref() == Some(error);
        }
    }

    /// The lease is not renewed any more.
    pub(super) fn let_lease_go(&mut self) {
        self.renew = None;
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.spent = self.spent.saturating_sub(1);
    }

    /// Takes from the retry budget what a retry after this error costs; false when there is not
    /// enough left, and nothing is taken.
    fn draw(&mut self, config: &Config, error: &RemoteError) -> bool {
        let cost = match error {
            RemoteError::Unreachable { .. } => 10,
            _ => 5,
        };
        let enough = self.spent.saturating_add(cost) <= config.retry_budget;
        if enough {
            self.spent += cost;
        }
        enough
    }

    fn enqueue(&mut self, config: &Config, now: Now) {
        let first = self.debounce.map_or(now.monotonic_ms, |(first, _)| first);
        let due = now
            .after_ms(config.debounce_ms)
            .min(first.saturating_add(config.debounce_longest_ms));
        self.debounce = Some((first, due));
    }

    pub(super) fn plan_poll(&mut self, config: &Config, now: Now, dice: &mut Dice) {
        let interval = match self.live {
            true => config.live_poll_interval_ms.max(config.poll_interval_ms),
            false => config.poll_interval_ms,
        };
        let fifth = interval / 5;
        self.poll = Some(now.after_ms(interval - fifth + dice.up_to(fifth * 2)));
    }

    /// Everyone may have lost their hints at this moment, and most hear them again soon: the first poll is
    /// spread over several intervals.
    fn plan_poll_after_loss(&mut self, config: &Config, now: Now, dice: &mut Dice) {
        let interval = config.poll_interval_ms;
        let spread = dice.up_to(interval.saturating_mul(3));
        self.poll = Some(now.after_ms(interval.saturating_add(spread)));
    }

    /// Sets the deadlines of rest; pushing may pause until a given moment.
    fn rest(
        &mut self,
        config: &Config,
        survey: Survey,
        paused: Option<u64>,
        now: Now,
        dice: &mut Dice,
    ) {
        self.lost = false;
        self.plan_poll(config, now, dice);
        let due = survey.due_in_ms;
        self.entry_due = due.map(|delay| now.after_ms(delay.min(config.backoff_cap_ms)));
        if let Some(until) = paused {
            self.entry_due = Some(self.entry_due.map_or(until, |due| due.max(until)));
        }
    }
}

impl Machine {
    /// The one next moment at which [`Input::Tick`](super::Input::Tick) is wanted (monotonic milliseconds), and why.
    pub fn next_wakeup(&self) -> Option<(u64, WakeReason)> {
        self.deadlines().into_iter().flatten().min()
    }

    pub(super) fn deadlines(&self) -> [Option<(u64, WakeReason)>; 4] {
        let waiting = &self.waiting;
        let at = |due: Option<u64>, reason| due.map(|due| (due, reason));
        // Where the engine stays its file's, the lease is renewed, however long it waits.
        let lease = at(waiting.renew, WakeReason::Lease);
        let backoff = waiting.backoff.as_ref().map(|backoff| backoff.until);
        match self.state {
            State::Stopped | State::Paused => [None; 4],
            State::Connecting | State::Pushing | State::Pulling | State::BlockedAuth => {
                [lease, None, None, None]
            }
            State::Backoff => [lease, at(backoff, WakeReason::Backoff), None, None],
            State::Idle | State::BlockedConflict if self.constraints.any() => [
                lease,
                at(waiting.entry_due, WakeReason::EntryDue),
                None,
                None,
            ],
            State::Idle | State::BlockedConflict => [
                lease,
                at(waiting.debounce.map(|(_, due)| due), WakeReason::Debounce),
                at(waiting.entry_due, WakeReason::EntryDue),
                at(waiting.poll, WakeReason::Poll),
            ],
        }
    }

    pub(super) fn on_tick(&mut self, now: Now, out: &mut Effects) {
        let Some((due, reason)) = self.next_wakeup() else {
            return;
        };
        if due > now.monotonic_ms {
            return;
        }
        match reason {
            WakeReason::Lease => {
                self.waiting.lease_renewed(&self.config, now);
                out.store(StoreWork::Renew);
            }
            WakeReason::Debounce => self.start_cycle(now, out),
            WakeReason::Backoff | WakeReason::Poll | WakeReason::EntryDue => {
                self.wanted.insert(Reason::Timer);
                self.start_cycle(now, out);
            }
        }
    }

    pub(super) fn on_trigger(&mut self, reason: Reason, now: Now, out: &mut Effects) {
        self.wanted.insert(reason);
        let patient = matches!(
            reason,
            Reason::MutationEnqueued
                | Reason::UrgentMutation
                | Reason::BackgroundMutation
                | Reason::Timer
        );
        if matches!(
            reason,
            Reason::UserAsked | Reason::Pass | Reason::NetworkAvailable | Reason::Remediated
        ) {
            self.pusher.end_pause();
        }
        match self.state {
            // A new write never shortens or resets a back-off (O5); what runs will see it.
            _ if patient && self.state.is_busy() => {}
            State::Backoff | State::BlockedAuth if patient => {}
            State::Paused if self.pass.is_some() => self.cut_short(reason, now, out),
            State::Paused if reason == Reason::UserAsked => self.tell_of_pause(out),
            State::Paused => {}
            _ if self.is_put_off(reason) => {}
            State::Idle | State::BlockedConflict if reason == Reason::BackgroundMutation => {}
            State::Idle | State::BlockedConflict if reason == Reason::MutationEnqueued => {
                self.waiting.enqueue(&self.config, now);
            }
            State::Idle | State::BlockedConflict | State::BlockedAuth => self.start_cycle(now, out),
            State::Backoff => self.cut_short(reason, now, out),
            State::Connecting | State::Pushing | State::Pulling | State::Stopped => {}
        }
    }

    /// Someone does not want to wait for the end of a back-off. A server's wish holds all the same.
    fn cut_short(&mut self, reason: Reason, now: Now, out: &mut Effects) {
        let Some(backoff) = self.waiting.backoff.clone() else {
            return self.start_cycle(now, out);
        };
        let elapsed = backoff.until <= now.monotonic_ms;
        let binding = backoff.bound > now.monotonic_ms;
        if elapsed || (!binding && reason != Reason::RemoteHint) {
            return self.start_cycle(now, out);
        }
        if matches!(reason, Reason::UserAsked | Reason::Pass) {
            self.heed_credentials();
            let reasons = std::mem::take(&mut self.wanted).into_iter().collect();
            out.notice(Notice::CycleStarted { reasons });
            let end = backoff
                .error
                .map_or(CycleEnd::Standby, CycleEnd::RemoteFailed);
            self.end_cycle(end, out);
        }
    }

    /// While hints are heard, polling is rare; when they are not any more, it is as often as ever.
    pub(super) fn on_live(&mut self, live: Live, now: Now) {
        let heard = live == Live::Heard;
        let changed = std::mem::replace(&mut self.waiting.live, heard) != heard;
        if changed {
            self.waiting.lost = !heard;
        }
        if changed && self.waiting.poll.is_some() {
            match heard {
                true => (self.waiting).plan_poll(&self.config, now, &mut self.dice),
                false => (self.waiting).plan_poll_after_loss(&self.config, now, &mut self.dice),
            }
        }
    }

    pub(super) fn on_network_lost(&mut self, now: Now, out: &mut Effects) {
        if self.state.is_busy() {
            let detail = "the network was lost".to_owned();
            // The answer, should it still come, is ignored; the entries keep their keys and bytes.
            let error = RemoteError::Unreachable { detail };
            self.give_up(Then::Fail(error), now, out);
        }
    }

    pub(super) fn on_fault(&mut self, fault: StoreFault, now: Now, out: &mut Effects) {
        let error = RemoteError::Unreachable {
            detail: fault.to_string(),
        };
        // Whether the lease still holds is found out by asking for it again.
        self.waiting.renew = None;
        if fault.kind == FaultKind::Fenced {
            self.waiting
                .stand_by(&self.config, self.config.lease_ttl_ms, now);
        } else {
            self.waiting
                .back_off(&self.config, &error, now, &mut self.dice);
            self.waiting.blame_store(&error);
        }
        self.pusher.forget_batch();
        if self.state == State::Connecting {
            // The store may not know whose session it is, and of which history.
            self.session = None;
        }
        self.enter(State::Backoff, out);
        out.notice(Notice::StoreTrouble(fault.clone()));
        self.end_cycle(CycleEnd::StoreFailed(fault), out);
    }

    /// New credentials may be somebody else's: the remote is greeted before anything is sent under them (I1),
    /// also when the cycle that they are the reason of ends before its first request.
    fn heed_credentials(&mut self) {
        if self.wanted.contains(&Reason::AuthRefreshed) {
            self.session = None;
        }
    }

    pub(super) fn start_cycle(&mut self, now: Now, out: &mut Effects) {
        let asked = self.wanted.contains(&Reason::UserAsked);
        self.heed_credentials();
        // Nothing is asked for the sake of the time alone.
        if self.wanted.iter().any(|reason| *reason != Reason::Timer) {
            self.doubt_greeting(self.config.greet_after_ms, now);
        }
        let reasons = std::mem::take(&mut self.wanted).into_iter().collect();
        out.notice(Notice::CycleStarted { reasons });
        self.cycle.sparing = self.constraints.any() && !asked;
        self.resume_cycle(now, out);
    }

    /// Goes through the cycle from its start, without calling it a new one.
    pub(super) fn resume_cycle(&mut self, _now: Now, out: &mut Effects) {
        self.waiting.debounce = None;
        self.waiting.backoff = None;
        self.waiting.entry_due = None;
        self.refused = None;
        self.cycle = super::pull::Cycle::new(self.cycle.sparing);
        self.enter(State::Connecting, out);
        out.store(StoreWork::Acquire);
    }

    /// The cycle is through.
    pub(super) fn finish(&mut self, survey: Survey, end: CycleEnd, now: Now, out: &mut Effects) {
        let paused = self.pusher.paused_until(now);
        self.waiting
            .rest(&self.config, survey, paused, now, &mut self.dice);
        let waits_for_person = survey.open_conflicts > 0
            && survey.unsettled > 0
            && !survey.claimable
            && survey.due_in_ms.is_none();
        self.enter(
            if waits_for_person {
                State::BlockedConflict
            } else {
                State::Idle
            },
            out,
        );
        self.end_cycle(end, out);
        let wanted = &self.wanted;
        let hurry = wanted.iter().any(|reason| match reason {
            Reason::MutationEnqueued | Reason::BackgroundMutation | Reason::Timer => false,
            reason => !self.is_put_off(*reason),
        });
        if hurry {
            self.start_cycle(now, out);
        } else if survey.claimable || wanted.iter().any(|one| *one != Reason::BackgroundMutation) {
            self.waiting.enqueue(&self.config, now);
        }
    }
}
