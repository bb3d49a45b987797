//! Looks at the times and sizes of the files, which is some microseconds of work each time.

use super::{Files, NET};
use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// A write is noticed within this time.
const INTERVAL: Duration = Duration::from_millis(90);

/// On file systems that keep whole seconds a later write within the same two leaves no trace.
const COARSE: Duration = Duration::from_millis(2_500);

/// Until the driver has ended.
pub(super) fn look(told: &Weak<Notify>, files: &Files) {
    let mut sight = Sight::new();
    while let Some(notify) = told.upgrade() {
        let seen = [stamp(&files.database), stamp(&files.log)];
        if sight.differs(seen, Instant::now()) {
            notify.notify_one();
        }
        drop(notify);
        std::thread::sleep(INTERVAL);
    }
}

/// When a file was written and how large it is; `None` if there is none.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// What was seen last.
struct Sight {
    last: Option<[Stamp; 2]>,
    /// The clock of the file system may not have moved on: what is written until here may not show.
    unsure_until: Option<Instant>,
    asked: Option<Instant>,
}

impl Sight {
    fn new() -> Self {
        Self {
            last: None,
            unsure_until: None,
            asked: None,
        }
    }

    /// Whether SQLite is to be asked.
    fn differs(&mut self, seen: [Stamp; 2], now: Instant) -> bool {
        let changed = self.last != Some(seen);
        self.last = Some(seen);
        // Once more after each change: a write can follow within the same tick of that clock.
        let unsure = self.unsure_until.is_some();
        if changed {
            let coarse = seen.iter().flatten().all(|(time, _)| is_whole(*time));
            self.unsure_until = Some(if coarse { now + COARSE } else { now });
        } else if self.unsure_until.is_some_and(|until| until <= now) {
            self.unsure_until = None;
        }
        let overdue = self.asked.is_none_or(|asked| now - asked >= NET);
        let ask = changed || unsure || overdue;
        if ask {
            self.asked = Some(now);
        }
        ask
    }
}

fn is_whole(time: SystemTime) -> bool {
    time.duration_since(UNIX_EPOCH)
        .is_ok_and(|since| since.subsec_nanos() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, size: u64) -> [Stamp; 2] {
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        [Some((time, 4096)), Some((time, size))]
    }

    /// The looks, a tenth of a second apart, at which SQLite is asked.
    fn asked(looks: &[[Stamp; 2]]) -> Vec<usize> {
        let (mut sight, begun) = (Sight::new(), Instant::now());
        let times = (0_u32..).map(|nth| begun + nth * Duration::from_millis(100));
        let asked = looks.iter().zip(times).enumerate();
        asked
            .filter(|(_, (look, now))| sight.differs(**look, *now))
            .map(|(nth, _)| nth)
            .collect()
    }

    #[test]
    fn what_changed_is_asked_about_and_once_more() {
        let (before, after) = (at(1_001, 100), at(2_001, 100));
        let looks = [vec![before; 5], vec![after; 5]].concat();
        assert_eq!(asked(&looks), [0, 1, 5, 6]);
        let gone = [before[0], None];
        assert_eq!(
            asked(&[before, before, before, gone, gone, gone]),
            [0, 1, 3, 4]
        );
    }

    #[test]
    fn where_whole_seconds_are_kept_it_is_asked_for_longer() {
        let asked = asked(&[at(1_000, 100); 60]);
        assert_eq!((asked.len(), asked.last()), (26, Some(&25)));
    }

    #[test]
    fn now_and_then_it_is_asked_whatever_is_seen() {
        assert_eq!(asked(&[at(1_001, 100); 150]), [0, 1, 101]);
    }
}
