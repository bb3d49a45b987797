//! When a live stream is opened again after it has ended: the policy alone, without stream and clock.
//!
//! Whoever loses a stream polls anyway, and thousands may lose theirs at the same moment. So the first wait
//! is long and drawn at random, and what has the remote back waits no longer than that.

use crate::{Config, CycleEnd, Dice, ListenEnd, RemoteError, backoff_ms, retry_after_ms};

/// A stream that lasted so long was a good one: the next failure is the first.
const GOOD_MS: u64 = 60_000;

/// The first wait is drawn from below so many doublings of the first back-off.
const DOUBLINGS: u32 = 7;

/// What reconnecting remembers.
#[derive(Debug, Default)]
pub struct Reconnect {
    failures: u32,
    /// A cycle has failed since: the remote may have been away.
    away: bool,
}

impl Reconnect {
    /// The stream has ended, or could not be opened. After how many milliseconds it is opened again;
    /// `None`: not before the remote was asked anything else. `heard_ms` is for how long hints were
    /// heard, if they were.
    pub fn ended(
        &mut self,
        end: &ListenEnd,
        heard_ms: Option<u64>,
        config: &Config,
        dice: &mut Dice,
    ) -> Option<u64> {
        if heard_ms.is_some_and(|ms| ms >= GOOD_MS) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match end {
            ListenEnd::NotOffered | ListenEnd::Failed(RemoteError::Auth { .. }) => None,
            ListenEnd::Failed(RemoteError::Transient {
                retry_after: Some(asked),
                ..
            }) => Some(retry_after_ms(*asked, dice)),
            ListenEnd::Closed | ListenEnd::Failed(_) => {
                let failures = self.failures.saturating_add(DOUBLINGS);
                Some(backoff_ms(config, failures, dice))
            }
        }
    }

    /// A cycle has ended while no stream is open: after how many milliseconds one is opened at the latest;
    /// `None`: as it was `planned` before.
    pub fn cycle_ended(
        &mut self,
        end: &CycleEnd,
        planned: bool,
        config: &Config,
        dice: &mut Dice,
    ) -> Option<u64> {
        match end {
            CycleEnd::RemoteFailed(_) => {
                self.away = true;
                None
            }
            CycleEnd::Complete | CycleEnd::RoundsUsedUp => {
                if std::mem::take(&mut self.away) {
                    // It may be back for all: the waits begin anew.
                    self.failures = 0;
                    return Some(backoff_ms(config, 1 + DOUBLINGS, dice));
                }
                // A moment later: an engine that was started for one sync ends before.
                let half = config.backoff_base_ms / 2;
                (!planned).then(|| half + dice.up_to(half))
            }
            _ => None,
        }
    }
}
