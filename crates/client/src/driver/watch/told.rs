//! The system tells of writes (inotify(7)): the folder is watched, since the write-ahead log comes and
//! goes. Writes through another system on a shared file system are not told of; SQLite's log does not
//! work there either.

use super::{Files, NET};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io::{Error, ErrorKind};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Writes that follow each other are told of together.
const TOGETHER: Duration = Duration::from_millis(30);

/// A folder that is watched.
pub(super) struct Listening {
    inotify: OwnedFd,
    end: Arc<OwnedFd>,
    names: [OsString; 2],
}

/// Wakes the thread when it is dropped.
pub(super) struct Bell(Arc<OwnedFd>);

impl Drop for Bell {
    fn drop(&mut self) {
        // Otherwise it wakes a little later by itself.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// When to ask without being told. What was written shows only when the writer has flushed the log
/// (fsync) and said so in shared memory, of which the system does not tell: so it is asked again, each
/// time after four times as long.
struct Again {
    wait: Duration,
    due: Instant,
}

impl Again {
    fn soon() -> Self {
        Self {
            wait: TOGETHER,
            due: Instant::now() + TOGETHER,
        }
    }

    fn later(&mut self) {
        self.wait = (self.wait * 4).min(NET);
        self.due = Instant::now() + self.wait;
    }

    fn left(&self) -> Option<Timespec> {
        Timespec::try_from(self.due.saturating_duration_since(Instant::now())).ok()
    }
}

impl Listening {
    pub(super) fn to(files: &Files) -> std::io::Result<(Self, Bell)> {
        let no_file = || Error::new(ErrorKind::InvalidInput, "not a file in a folder");
        let folder = files.database.parent().ok_or_else(no_file)?;
        let name =
            |path: &std::path::Path| path.file_name().map(OsString::from).ok_or_else(no_file);
        let names = [name(&files.database)?, name(&files.log)?];
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let written = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, folder, written | WatchFlags::ONLYDIR)?;
        let end = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let bell = Bell(Arc::clone(&end));
        Ok((
            Self {
                inotify,
                end,
                names,
            },
            bell,
        ))
    }

    /// Until the driver has ended, or the system tells no more.
    pub(super) fn listen(&self, told: &Weak<Notify>) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        // What was written before the first event is found like this.
        let (mut ask, mut again) = (true, Again::soon());
        loop {
            match told.upgrade() {
                None => return,
                Some(notify) if ask => notify.notify_one(),
                Some(_) => {}
            }
            let mut ready = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(&*self.end, PollFlags::IN),
            ];
            ask = match poll(&mut ready, again.left().as_ref()) {
                Ok(0) => {
                    again.later();
                    true
                }
                Ok(_) if !ready[1].revents().is_empty() => return,
                Ok(_) => {
                    std::thread::sleep(TOGETHER);
                    match self.is_about_them(&mut events) {
                        Ok(true) => {
                            again = Again::soon();
                            true
                        }
                        Ok(false) => false,
                        Err(_) => return,
                    }
                }
                Err(Errno::INTR) => false,
                Err(_) => return,
            };
        }
    }

    /// Reads what there is.
    fn is_about_them(&self, events: &mut Reader<'_, &OwnedFd>) -> Result<bool, Errno> {
        let mut about = false;
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes());
                    let known = |known: &OsString| name == Some(known.as_bytes());
                    about |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                        || self.names.iter().any(known);
                    if event.events().contains(ReadFlags::IGNORED) {
                        return Err(Errno::NOENT);
                    }
                }
                Err(Errno::WOULDBLOCK) => return Ok(about),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Watch;
    use std::path::Path;
    use std::time::Duration;

    async fn is_told(watch: &Watch, within_ms: u64) -> bool {
        let within = Duration::from_millis(within_ms);
        tokio::time::timeout(within, watch.written()).await.is_ok()
    }

    /// How often it is told of until it has been quiet for a second.
    async fn times_told(watch: &Watch) -> u32 {
        let mut times = 0;
        while is_told(watch, 1_000).await {
            times += 1;
        }
        times
    }

    #[tokio::test]
    async fn writes_to_the_database_and_its_log_are_told_of_and_to_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        std::fs::write(&path, "").unwrap();
        let watch = Watch::start(&path).unwrap();
        assert!(is_told(&watch, 5_000).await, "once at the start");
        times_told(&watch).await;
        for name in ["app.db-wal", "app.db", "app.db-wal"] {
            std::fs::write(folder.path().join(name), "written").unwrap();
            assert!(is_told(&watch, 5_000).await, "{name}");
            // A writer may need a while until what it wrote shows.
            let times = times_told(&watch).await;
            assert!((2..=10).contains(&times), "{name}: {times}");
            assert!(is_quiet_about_others(&watch, folder.path()).await);
        }
    }

    /// Whether writes to other files are not told of. (On a slow machine the time to ask again may come in
    /// between, but not every time.)
    async fn is_quiet_about_others(watch: &Watch, folder: &Path) -> bool {
        for _ in 0..5 {
            std::fs::write(folder.join("app.db-shm"), "x").unwrap();
            std::fs::write(folder.join("other"), "x").unwrap();
            if !is_told(watch, 500).await {
                return true;
            }
            times_told(watch).await;
        }
        false
    }

    #[tokio::test]
    async fn the_thread_ends_with_the_driver() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        std::fs::write(&path, "").unwrap();
        let watch = Watch::start(&path).unwrap();
        let told = std::sync::Arc::downgrade(&watch.written);
        drop(watch);
        let gone = std::time::Instant::now();
        while told.strong_count() > 0 {
            assert!(gone.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
