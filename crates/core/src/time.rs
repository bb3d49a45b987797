//! Time as the core sees it: handed in with every input, never read.

use serde::{Deserialize, Serialize};

/// One moment on two clocks.
///
/// Deadlines within a run are kept on the monotonic clock; what must outlive a restart (the
/// `not before` of an outbox entry) is kept in Unix time and never trusted beyond the longest
/// back-off, so that a clock that jumped cannot hold anything for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; its zero is arbitrary.
    pub monotonic_ms: u64,
    /// Milliseconds since the Unix epoch, as far as the machine knows.
    pub unix_ms: i64,
}

impl Now {
    /// The monotonic moment `delay_ms` from here.
    pub fn after_ms(self, delay_ms: u64) -> u64 {
        self.monotonic_ms.saturating_add(delay_ms)
    }

    /// The Unix time `delay_ms` from here.
    pub fn unix_after_ms(self, delay_ms: u64) -> i64 {
        self.unix_ms.saturating_add_unsigned(delay_ms)
    }
}
