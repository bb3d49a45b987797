//! Back-off: exponential with full jitter, and a server's own wish obeyed.
//!
//! Full jitter (a delay drawn evenly between zero and the exponential bound) is what keeps many
//! clients from coming back together; see "Exponential Backoff And Jitter", AWS Architecture
//! Blog, 2015.

use crate::{Config, Now};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A server may ask for at least and at most this much (RFC 9110 10.2.3 sets no bounds).
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// Seeded randomness: the same seed gives the same draws.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Dice(fastrand::Rng);

impl From<u64> for Dice {
    fn from(seed: u64) -> Self {
        Self::seeded(seed)
    }
}

impl From<Dice> for u64 {
    /// The seed of dice that go on as these do.
    fn from(dice: Dice) -> Self {
        dice.0.get_seed()
    }
}

impl Dice {
    /// Dice that fall as the seed decides.
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Evenly between zero and `most`, both included.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.0.u64(0..=most)
    }

    /// An idempotency key in the layout of a UUIDv7 (RFC 9562 5.7): time-ordered, so that the
    /// server's index of keys grows at its end.
    pub fn key(&mut self, now: Now) -> String {
        let time = u64::try_from(now.unix_ms).unwrap_or(0) & 0xffff_ffff_ffff;
        let a = self.0.u64(..) & 0x0fff | 0x7000;
        let b = self.0.u64(..) >> 2 | 1 << 63;
        format!(
            "{:08x}-{:04x}-{a:04x}-{:04x}-{:012x}",
            time >> 16,
            time & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }
}

/// The delay before try number `failures + 1`, in milliseconds.
pub fn backoff_ms(config: &Config, failures: u32, dice: &mut Dice) -> u64 {
    let doublings = failures.saturating_sub(1).min(32);
    let bound = config.backoff_base_ms.saturating_mul(1 << doublings);
    dice.up_to(bound.min(config.backoff_cap_ms)).max(1)
}

/// What a server asked for, within bounds, with up to a tenth on top so that clients spread.
pub fn retry_after_ms(asked: Duration, dice: &mut Dice) -> u64 {
    let asked = least_retry_after_ms(asked);
    asked + dice.up_to(asked / 10)
}

/// What a server asked for, within bounds.
pub(crate) fn least_retry_after_ms(asked: Duration) -> u64 {
    let asked = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX);
    asked.clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_stays_below_the_cap() {
        let config = Config::default();
        let mut dice = Dice::seeded(7);
        let worst = |failures, dice: &mut Dice| {
            (0..200)
                .map(|_| backoff_ms(&config, failures, dice))
                .max()
                .unwrap()
        };
        let (first, fifth) = (worst(1, &mut dice), worst(5, &mut dice));
        assert!(
            first <= 500 && fifth > 2_000 && fifth <= 8_000,
            "{first} {fifth}"
        );
        assert!(worst(u32::MAX, &mut dice) <= config.backoff_cap_ms);
    }

    #[test]
    fn a_servers_wish_is_obeyed_within_bounds() {
        let mut dice = Dice::seeded(7);
        assert!((1_000..=1_100).contains(&retry_after_ms(Duration::ZERO, &mut dice)));
        assert!((30_000..=33_000).contains(&retry_after_ms(Duration::from_secs(30), &mut dice)));
        assert!(retry_after_ms(Duration::MAX, &mut dice) <= 3_960_000);
    }

    #[test]
    fn keys_have_the_form_of_a_uuid_v7() {
        let now = Now {
            monotonic_ms: 0,
            unix_ms: 0x0193_4567_89ab,
        };
        let key = Dice::seeded(1).key(now);
        assert!(key.starts_with("01934567-89ab-7"), "{key}");
        assert_eq!(key.len(), 36);
        assert!(
            matches!(key.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
            "{key}"
        );
    }
}
