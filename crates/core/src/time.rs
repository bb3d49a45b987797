//! Time as the core sees it: handed in with every input, never read.

use serde::{Deserialize, Serialize};

/// One moment on two clocks.
///
/// Whatever waits within a run waits on the monotonic clock, and asks for a wait by its length. Unix
/// time only names moments for people, makes keys sort, and carries waits over a restart, where it is
/// never trusted beyond the longest of them.
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
