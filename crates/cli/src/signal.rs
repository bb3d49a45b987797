//! Signals: the request to stop (SIGTERM, SIGINT), to sync now (SIGUSR1), to rest and to go on (SIGUSR2).

use std::io;

/// Listens from the moment it is made, so that no signal is missed.
pub(crate) struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    /// To be called inside a runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Ready once the process is to stop.
    pub(crate) async fn wait(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a signal asks a running engine for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Sync now (SIGUSR1).
    Sync,
    /// Rest, or go on (SIGUSR2).
    Toggle,
}

/// Listens for wishes from the moment it is made. Where there are no such signals, none come.
pub(crate) struct Wishes {
    #[cfg(unix)]
    sync: tokio::signal::unix::Signal,
    #[cfg(unix)]
    toggle: tokio::signal::unix::Signal,
}

impl Wishes {
    /// To be called inside a runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                sync: signal(SignalKind::user_defined1())?,
                toggle: signal(SignalKind::user_defined2())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next wish.
    pub(crate) async fn next(&mut self) -> Wish {
        #[cfg(unix)]
        tokio::select! {
            Some(()) = self.sync.recv() => Wish::Sync,
            Some(()) = self.toggle.recv() => Wish::Toggle,
            else => std::future::pending().await,
        }
        #[cfg(not(unix))]
        std::future::pending().await
    }
}
