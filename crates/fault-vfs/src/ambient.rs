//! The clock and the dice that SQLite has of its own, when a test gives it some.

use crate::shim;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

/// The beginning of SQLite's time, the noon of 24 November 4714 BC, before 1970, in milliseconds.
const JULIAN_EPOCH_MS: i64 = 210_866_760_000_000;

thread_local! {
    /// Milliseconds since 1970, and microseconds of waiting not yet counted in them.
    static CLOCK: Cell<Option<(i64, i64)>> = const { Cell::new(None) };
}

static DICE: Mutex<Option<fastrand::Rng>> = Mutex::new(None);

/// From now on SQLite's randomness follows from this seed; `None` gives it back to the system. SQLite
/// has one generator for the whole process, so only a process with one such user is deterministic.
pub fn seed_randomness(seed: Option<u64>) {
    shim::install();
    *lock() = seed.map(fastrand::Rng::with_seed);
    shim::reset_randomness();
}

/// What SQLite takes for the time in this thread, in milliseconds since 1970; `None` gives it the
/// system's clock back. While it is set, SQLite's waiting moves it and takes no time.
pub fn set_clock(unix_ms: Option<i64>) {
    shim::install();
    CLOCK.set(unix_ms.map(|unix_ms| (unix_ms, 0)));
}

/// The time in SQLite's own count, if the test gave one.
pub(crate) fn julian_ms() -> Option<i64> {
    CLOCK
        .get()
        .map(|(unix_ms, _)| unix_ms.saturating_add(JULIAN_EPOCH_MS))
}

/// Waits by moving the clock; whether there is one to move.
pub(crate) fn wait(microseconds: i64) -> bool {
    let Some((unix_ms, rest)) = CLOCK.get() else {
        return false;
    };
    let rest = rest + microseconds;
    CLOCK.set(Some((unix_ms.saturating_add(rest / 1000), rest % 1000)));
    true
}

/// Fills the buffer, if the test gave dice.
pub(crate) fn fill(buffer: &mut [u8]) -> bool {
    match lock().as_mut() {
        Some(dice) => {
            dice.fill(buffer);
            true
        }
        None => false,
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<fastrand::Rng>> {
    DICE.lock().unwrap_or_else(PoisonError::into_inner)
}
