//! The schedule: in which order a cycle pushes and pulls, sparing a metered network, pausing.

use super::push::Then;
use super::{CycleEnd, Effects, Machine, Notice, Reason, State, StoreWork};
use crate::Now;
use serde::{Deserialize, Serialize};

/// What a cycle does, in which order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum SyncOrder {
    /// Local writes first, then everything new; a second push if that left work. The default.
    #[default]
    PushThenPull,
    /// What is about to be sent is fetched first, so that a mutation meets the newest remote state here
    /// rather than at the server; then local writes, then everything new. From a remote that gives no
    /// single entities, everything new first, then local writes.
    PullThenPush,
    /// Only what is new: local writes are recorded and stay in the outbox.
    PullOnly,
    /// Only local writes.
    PushOnly,
}

impl SyncOrder {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::PushThenPull,
        Self::PullThenPush,
        Self::PullOnly,
        Self::PushOnly,
    ];

    /// The word for it in `syncline.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PushThenPull => "push-then-pull",
            Self::PullThenPush => "pull-then-push",
            Self::PullOnly => "pull-only",
            Self::PushOnly => "push-only",
        }
    }
}

/// Reasons of the host's to use the network sparingly. While any holds, only mutations in the urgent
/// lane are sent, and nothing is pulled unless a person asks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Constraints {
    /// The network costs money.
    pub metered: bool,
    /// The battery is low.
    pub low_power: bool,
}

impl Constraints {
    /// Whether any holds.
    pub fn any(self) -> bool {
        self.metered || self.low_power
    }
}

impl Machine {
    /// A round of push and pull begins.
    pub(super) fn begin_round(&mut self, now: Now, out: &mut Effects) {
        self.cycle.progress = false;
        self.cycle.targeting.pull_first |= self.gives_nothing();
        match self.config.order {
            _ if self.cycle.sparing => self.start_pushing(now, out),
            SyncOrder::PullThenPush if self.cycle.targeting.pull_first => {
                self.start_pulling(now, out);
            }
            SyncOrder::PushThenPull | SyncOrder::PullThenPush | SyncOrder::PushOnly => {
                self.start_pushing(now, out);
            }
            SyncOrder::PullOnly => self.start_pulling(now, out),
        }
    }

    /// Nothing more can be pushed in this round.
    pub(super) fn pushed(&mut self, now: Now, out: &mut Effects) {
        match self.config.order {
            _ if self.cycle.sparing => Self::survey(out),
            SyncOrder::PushThenPull => self.start_pulling(now, out),
            SyncOrder::PullThenPush if !self.cycle.targeting.pull_first => {
                self.start_pulling(now, out);
            }
            _ => Self::survey(out),
        }
    }

    /// Every scope was read to its head.
    pub(super) fn pulled(&mut self, now: Now, out: &mut Effects) {
        match self.config.order {
            SyncOrder::PullThenPush if self.cycle.targeting.pull_first => {
                self.start_pushing(now, out);
            }
            _ => Self::survey(out),
        }
    }

    /// A look at what is left ends the round.
    fn survey(out: &mut Effects) {
        out.store(StoreWork::Survey);
    }

    /// Whether what is left to be pushed is left for another time by the schedule.
    pub(super) fn keeps_the_rest(&self) -> bool {
        self.cycle.sparing || self.config.order == SyncOrder::PullOnly
    }

    /// Whether this reason has to wait until the network may be used freely again.
    pub(super) fn is_put_off(&self, reason: Reason) -> bool {
        self.constraints.any()
            && !matches!(
                reason,
                Reason::UrgentMutation | Reason::UserAsked | Reason::Pass
            )
    }

    pub(super) fn on_constraints(&mut self, constraints: Constraints, now: Now, out: &mut Effects) {
        let before = std::mem::replace(&mut self.constraints, constraints);
        let free_again = before.any() && !constraints.any();
        if free_again && matches!(self.state, State::Idle | State::BlockedConflict) {
            self.start_cycle(now, out);
        }
    }

    /// Nothing more is asked of the world until [`Input::Resume`](super::Input::Resume). What is under way is given up; its
    /// entries keep their keys and bytes.
    pub(super) fn on_pause(&mut self, now: Now, out: &mut Effects) {
        self.paused = true;
        if self.state.is_busy() {
            self.give_up(Then::Rest, now, out);
        }
    }

    pub(super) fn on_resume(&mut self, now: Now, out: &mut Effects) {
        self.paused = false;
        if self.state != State::Paused {
            return;
        }
        match self.waiting.bound(now) {
            // Rest does not shorten a wait that nobody may cut short.
            Some((delay_ms, error)) => {
                self.enter(State::Backoff, out);
                out.notice(match error {
                    Some(error) => Notice::BackingOff { delay_ms, error },
                    None => Notice::Standby,
                });
            }
            None => self.start_cycle(now, out),
        }
    }

    /// Whoever asked now need not wait for an end; the reason is remembered.
    pub(super) fn tell_of_pause(&mut self, out: &mut Effects) {
        let reasons = vec![Reason::UserAsked];
        out.notice(Notice::CycleStarted { reasons });
        self.end_cycle(CycleEnd::Paused, out);
    }

    /// The request under way was given up because of a pause.
    pub(super) fn rest(&mut self, out: &mut Effects) {
        self.enter(State::Paused, out);
        self.end_cycle(CycleEnd::Paused, out);
    }

    /// Wherever the machine comes to rest while it is to pause, it pauses.
    pub(super) fn pause_if_wanted(&mut self, out: &mut Effects) {
        let at_rest = !self.state.is_busy() && self.state != State::Stopped;
        if self.paused && self.pass.is_none() && at_rest {
            self.waiting.let_lease_go();
            self.enter(State::Paused, out);
        }
    }
}
