//! Bounded passes and suspending: what a host of little time and network asks for.
//!
//! The machine counts requests and bytes; here is only the time, and the way back to the caller.

use super::Driver;
use crate::handle::{SyncEnd, Told};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use syncline_core::{Allowance, CycleEnd, Input, Notice, Reason, RemoteError, State};
use syncline_store::outbox_view::{self, Left};
use tokio::sync::oneshot;

/// What one bounded pass may use; see [`Syncline::run_for`](crate::Syncline::run_for).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// By when it is over.
    pub time: Duration,
    /// What it may use of the network.
    pub network: Allowance,
}

impl Budget {
    /// So much time, and as much of the network as that allows.
    pub fn time(time: Duration) -> Self {
        Self {
            time,
            network: Allowance::default(),
        }
    }

    /// So many requests at most.
    #[must_use]
    pub fn requests(mut self, requests: u64) -> Self {
        self.network.requests = requests;
        self
    }

    /// So many bytes of mutations sent and of changes received at most; see [`Allowance`].
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.network.bytes = bytes;
        self
    }
}

/// How a bounded pass ended, and what it has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassEnd {
    /// How it ended: [`CycleEnd::Complete`] when nothing is left that could be done now.
    pub end: SyncEnd,
    /// Local writes that are still to be sent, or whose outcome is not known.
    pub left: Left,
    /// The server may have changes that were not pulled.
    pub more_to_pull: bool,
}

impl PassEnd {
    /// The engine has ended: nothing was done.
    pub(crate) fn not_running() -> Self {
        Self {
            end: SyncEnd::TimedOut,
            left: Left::default(),
            more_to_pull: true,
        }
    }
}

struct Pass {
    until: Instant,
    allowance: Allowance,
    done: oneshot::Sender<PassEnd>,
    stage: Stage,
}

enum Stage {
    Waiting,
    Begun,
    /// Its cycle began.
    Started,
    Ended(SyncEnd),
}

/// Passes, one at a time.
#[derive(Default)]
pub(super) struct Passes {
    queue: VecDeque<Pass>,
    /// How the last cycle of the pass under way ended, if that decided nothing.
    last: Option<CycleEnd>,
}

impl Passes {
    pub(super) fn push(
        &mut self,
        until: Instant,
        allowance: Allowance,
        done: oneshot::Sender<PassEnd>,
    ) {
        self.queue.push_back(Pass {
            until,
            allowance,
            done,
            stage: Stage::Waiting,
        });
    }

    /// When the pass under way has to be over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|pass| pass.until)
    }

    /// Whether a pass is under way: no stream is opened then.
    pub(super) fn is_under_way(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Notes what a notice means for the pass under way.
    pub(super) fn follow(&mut self, notice: &Notice) {
        let Some(pass) = self.queue.front_mut() else {
            return;
        };
        match (&pass.stage, notice) {
            (Stage::Begun, Notice::CycleStarted { reasons }) if reasons.contains(&Reason::Pass) => {
                pass.stage = Stage::Started;
            }
            (Stage::Started, Notice::CycleEnded(end)) if is_passing(end) => {
                self.last = Some(end.clone());
            }
            (Stage::Started, Notice::CycleEnded(end)) => {
                pass.stage = Stage::Ended(SyncEnd::Cycle(end.clone()));
            }
            // Whoever waits for credentials does not even begin.
            (Stage::Begun, Notice::CycleEnded(CycleEnd::CredentialsNeeded)) => {
                pass.stage = Stage::Ended(SyncEnd::Cycle(CycleEnd::CredentialsNeeded));
            }
            _ => {}
        }
    }
}

/// Whether it may be otherwise in a moment, within the same pass.
fn is_passing(end: &CycleEnd) -> bool {
    matches!(
        end,
        CycleEnd::RemoteFailed(RemoteError::Transient { .. })
            | CycleEnd::RoundsUsedUp
            | CycleEnd::StoreFailed(_)
    )
}

impl Driver {
    /// Ends the pass under way if it is over, and begins the next.
    pub(super) fn attend_passes(&mut self, told: &Told) {
        loop {
            let Some(pass) = self.passes.queue.front_mut() else {
                return;
            };
            match &pass.stage {
                Stage::Waiting => {
                    pass.stage = Stage::Begun;
                    let allowance = pass.allowance;
                    self.feed(Input::Pass(Some(allowance)), told);
                }
                Stage::Ended(_) => self.end_pass(told),
                _ if Instant::now() >= pass.until => self.end_pass(told),
                _ => return,
            }
        }
    }

    /// Whatever is under way is given up; what was sent is settled with the next sync.
    pub(super) fn end_pass(&mut self, told: &Told) {
        // Ends the cycle, if there is one, and so says how the pass ended.
        self.feed(Input::Pass(None), told);
        let last = self.passes.last.take().map(SyncEnd::Cycle);
        let Some(pass) = self.passes.queue.pop_front() else {
            return;
        };
        if self.engine.state() == State::Paused {
            self.leave_nothing_open();
        }
        let end = match pass.stage {
            Stage::Ended(SyncEnd::Cycle(CycleEnd::BudgetUsedUp)) => {
                last.unwrap_or(SyncEnd::Cycle(CycleEnd::BudgetUsedUp))
            }
            Stage::Ended(end) => end,
            _ => last.unwrap_or(SyncEnd::TimedOut),
        };
        let left = outbox_view::left(&self.watch).unwrap_or_else(|error| {
            tracing::warn!(%error, "what a pass has left cannot be counted");
            Left::default()
        });
        // Nobody waits for it any more if this fails.
        let _ = pass.done.send(PassEnd {
            more_to_pull: end != SyncEnd::Cycle(CycleEnd::Complete),
            end,
            left,
        });
    }

    /// Rests, and lets go of everything that another process or the system could miss.
    pub(super) fn suspend(&mut self, told: &Told) {
        while self.passes.is_under_way() {
            self.end_pass(told);
        }
        self.feed(Input::Pause, told);
        self.leave_nothing_open();
    }

    fn leave_nothing_open(&mut self) {
        self.tasks.abort_all();
        self.engine.stand_aside(self.clock.now());
        self.engine.store().tidy_up();
        self.watch.flush_prepared_statement_cache();
    }
}
