//! Notices that somebody wrote to the file, for next to nothing.
//!
//! A thread waits for the system to tell of a write to the database or its write-ahead log; only then
//! the driver asks SQLite what it was. Where no system tells, it looks ten times a second. It never
//! opens the files, and ends when the driver does.

mod looking;
#[cfg(target_os = "linux")]
mod told;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Whatever is told or seen, SQLite is asked this often.
const NET: Duration = Duration::from_secs(10);

/// What SQLite writes to.
struct Files {
    database: PathBuf,
    log: PathBuf,
}

impl Files {
    /// The log stands beside the file itself, not beside a link to it.
    fn of(path: &Path) -> std::io::Result<Self> {
        let database = path.canonicalize()?;
        let mut log = database.clone().into_os_string();
        log.push("-wal");
        Ok(Self {
            database,
            log: log.into(),
        })
    }
}

/// Tells when somebody may have written.
pub(super) struct Watch {
    written: Arc<Notify>,
    /// Wakes the thread when it goes, so that the thread ends.
    #[cfg(target_os = "linux")]
    _bell: Option<told::Bell>,
}

impl Watch {
    pub(super) fn start(path: &Path) -> std::io::Result<Self> {
        let files = Files::of(path)?;
        let written = Arc::new(Notify::new());
        let told = Arc::downgrade(&written);
        #[cfg(target_os = "linux")]
        let (listening, bell) = match told::Listening::to(&files) {
            Ok((listening, bell)) => (Some(listening), Some(bell)),
            Err(error) => {
                tracing::debug!(%error, "the system does not tell of writes: looking for them");
                (None, None)
            }
        };
        std::thread::Builder::new()
            .name("syncline-watch".to_owned())
            .spawn(move || {
                #[cfg(target_os = "linux")]
                if let Some(listening) = listening {
                    listening.listen(&told);
                }
                // Also when the system tells no more.
                looking::look(&told, &files);
            })?;
        Ok(Self {
            written,
            #[cfg(target_os = "linux")]
            _bell: bell,
        })
    }

    /// Waits until somebody may have written.
    pub(super) async fn written(&self) {
        self.written.notified().await;
    }
}
