//! One bounded pass, for hosts that get little of the network: what it may use, and its end.
//!
//! Requests and bytes are counted here, so that the same inputs end at the same place; time is the
//! driver's, which ends the pass with an input. A pass runs also while the engine is paused, and
//! leaves it paused.

use super::push::Then;
use super::{CycleEnd, Effects, Machine, Reason, State};
use crate::{Now, RemoteRequest};
use serde::{Deserialize, Serialize};

/// What one pass may use of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Requests at most.
    pub requests: u64,
    /// Bytes of mutations sent and of changes received at most, as JSON before compression. A page may
    /// have one change more.
    pub bytes: u64,
}

impl Default for Allowance {
    /// Without bounds.
    fn default() -> Self {
        Self {
            requests: u64::MAX,
            bytes: u64::MAX,
        }
    }
}

impl Machine {
    pub(super) fn begin_pass(&mut self, allowance: Allowance, now: Now, out: &mut Effects) {
        self.pass = Some(allowance);
        self.on_trigger(Reason::Pass, now, out);
    }

    /// The pass is over: by its deadline, or because what it was for has ended.
    pub(super) fn end_pass(&mut self, now: Now, out: &mut Effects) {
        if self.pass.is_some() && self.state.is_busy() {
            self.give_up(Then::UsedUp, now, out);
        }
        self.pass = None;
    }

    /// Whether the pass, if one is under way, leaves room for one more request of so many bytes.
    pub(super) fn may_ask(&self, bytes: u64) -> bool {
        self.pass
            .is_none_or(|left| left.requests > 0 && left.bytes > 0 && bytes <= left.bytes)
    }

    /// The size, or what is left of the allowance if that is smaller.
    pub(super) fn fitting(&self, bytes: usize) -> usize {
        let left = self
            .bytes_left()
            .and_then(|left| usize::try_from(left).ok());
        left.map_or(bytes, |left| left.min(bytes))
    }

    /// How many bytes may still be used, where they are counted.
    pub(super) fn bytes_left(&self) -> Option<u64> {
        let left = self.pass?.bytes;
        (left < u64::MAX).then_some(left)
    }

    /// A request is sent.
    pub(super) fn spend(&mut self, request: &RemoteRequest) {
        if let Some(left) = &mut self.pass {
            left.requests = left.requests.saturating_sub(1);
            if let RemoteRequest::Push { batch, .. } = request {
                left.bytes = left.bytes.saturating_sub(batch.bytes);
            }
        }
    }

    /// So many bytes of changes have come.
    pub(super) fn received(&mut self, bytes: u64) {
        if let Some(left) = &mut self.pass {
            left.bytes = left.bytes.saturating_sub(bytes);
        }
    }

    /// The pass has used up what it was allowed, or its time: nothing more is asked, everything that
    /// was sent and received is booked, and the next sync goes on from here.
    pub(super) fn used_up(&mut self, now: Now, out: &mut Effects) {
        self.waiting.plan_poll(&self.config, now, &mut self.dice);
        self.enter(State::Idle, out);
        self.end_cycle(CycleEnd::BudgetUsedUp, out);
    }
}
