//! Times on which a clock that somebody sets has no influence: for waiting, and for forgetting by age.
//!
//! Never for what people read: a label says what the device's clock said.

use syncline_core::Now;

/// A device whose clock is further off than this is not believed when old records are looked for.
const BELIEVABLE_MS: u64 = 24 * 3_600_000;

/// Unix time as the clock said it at the first look, moved on by the monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Steady {
    begun: Option<Now>,
    /// How far the server's clock is ahead of that, since it was greeted.
    server_ahead_ms: Option<i64>,
    /// How far the device's clock was set since the first look, when that was last written down.
    noted_ms: i64,
}

/// One moment, on the clocks that decide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// For waiting.
    pub(crate) due_ms: i64,
    /// For what is judged by the server's clock.
    pub(crate) server_ms: i64,
    /// For forgetting by age what bears the device's time: nothing is old while that clock is not
    /// believed.
    pub(crate) age_ms: i64,
    /// The device's clock was set: so far the server's is ahead of it now.
    pub(crate) set: Option<i64>,
}

impl Times {
    /// What the device's clock says, while it is believed.
    pub(crate) fn believed_ms(self) -> Option<i64> {
        (self.age_ms > i64::MIN).then_some(self.age_ms)
    }
}

/// Whoever sets a clock by less than this corrects it.
const SET_MS: u64 = 1_000;

impl Steady {
    /// This moment.
    pub(crate) fn at(&mut self, now: Now) -> Times {
        let begun = *self.begun.get_or_insert(now);
        let passed = now.monotonic_ms.saturating_sub(begun.monotonic_ms);
        let due_ms = begun.unix_ms.saturating_add_unsigned(passed);
        let server_ms = due_ms.saturating_add(self.server_ahead_ms.unwrap_or(0));
        let near = |other: i64| now.unix_ms.abs_diff(other) <= BELIEVABLE_MS;
        let believed = self.server_ahead_ms.is_some() && near(server_ms);
        Times {
            due_ms,
            server_ms,
            age_ms: if believed { now.unix_ms } else { i64::MIN },
            set: (self.server_ahead_ms.is_some()
                && now.unix_ms.abs_diff(due_ms.saturating_add(self.noted_ms)) > SET_MS)
                .then(|| server_ms.saturating_sub(now.unix_ms)),
        }
    }

    /// How far the server's clock is ahead of the device's is written down as of this moment.
    pub(crate) fn noted(&mut self, now: Now) {
        self.noted_ms = now.unix_ms.saturating_sub(self.at(now).due_ms);
    }

    /// The server has said what time it is.
    pub(crate) fn greeted(&mut self, server_time_ms: i64, now: Now) {
        let due_ms = self.at(now).due_ms;
        self.server_ahead_ms = Some(server_time_ms.saturating_sub(due_ms));
        self.noted(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    const BEGUN: i64 = 1_800_000_000_000;

    fn now(passed: u64, set_by: i64) -> Now {
        Now {
            monotonic_ms: 5_000 + passed,
            unix_ms: BEGUN + i64::try_from(passed).unwrap() + set_by,
        }
    }

    #[test]
    fn a_clock_that_is_set_changes_no_wait_and_makes_nothing_old() {
        for set_by in [10 * YEAR_MS, -10 * YEAR_MS] {
            let mut steady = Steady::default();
            assert_eq!(steady.at(now(0, 0)).due_ms, BEGUN);
            steady.greeted(BEGUN + 7, now(0, 0));
            let before = steady.at(now(60_000, 0));
            assert_eq!(before.age_ms, BEGUN + 60_000);
            let after = steady.at(now(60_000, set_by));
            assert_eq!(
                (after.due_ms, after.server_ms),
                (before.due_ms, before.server_ms)
            );
            assert_eq!(after.server_ms, BEGUN + 60_007);
            assert_eq!(after.age_ms, i64::MIN);
            // What decides by the server's clock adds this to the device's.
            assert_eq!((before.set, after.set), (None, Some(7 - set_by)));
            steady.noted(now(60_000, set_by));
            assert_eq!(steady.at(now(60_000, set_by)).set, None);
        }
    }

    #[test]
    fn a_clock_that_was_wrong_from_the_start_is_known_by_the_servers() {
        let mut steady = Steady::default();
        assert_eq!(
            steady.at(now(0, 0)).age_ms,
            i64::MIN,
            "nobody was asked yet"
        );
        steady.greeted(BEGUN + 10 * YEAR_MS, now(0, 0));
        let times = steady.at(now(1_000, 0));
        assert_eq!(times.server_ms, BEGUN + 10 * YEAR_MS + 1_000);
        assert_eq!(times.age_ms, i64::MIN);
    }
}
