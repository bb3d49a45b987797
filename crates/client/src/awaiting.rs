//! Waiting until given writes are confirmed by the server.

use rusqlite::Connection;
use std::time::Instant;
use syncline_protocol::MutationId;
use syncline_store::outbox_view::{self, Awaited, Standing};
use tokio::sync::oneshot;

/// Writes to wait for; see [`Syncline::await_synced`](crate::Syncline::await_synced).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    /// Everything that was written before the call, by whatever program.
    SoFar,
    /// These mutations, as [`Recorded`](crate::Recorded) names them.
    These(Vec<MutationId>),
}

/// How such a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncedEnd {
    /// The server has confirmed all of them; or they were superseded, with the reason recorded.
    Confirmed,
    /// What is left of them waits for a person: dead letters, open conflicts, and later writes of
    /// their rows.
    NeedsPerson,
    /// The time is over; they are sent all the same.
    TimedOut,
}

/// Everybody who waits.
#[derive(Default)]
pub(crate) struct Awaiting(Vec<Waiter>);

struct Waiter {
    awaited: Awaited,
    until: Instant,
    done: oneshot::Sender<SyncedEnd>,
}

impl Awaiting {
    pub(crate) fn push(
        &mut self,
        conn: &Connection,
        writes: Writes,
        until: Instant,
        done: oneshot::Sender<SyncedEnd>,
    ) {
        let awaited = match writes {
            // What cannot be read now is taken for everything.
            Writes::SoFar => Awaited::UpTo(outbox_view::newest(conn).unwrap_or(i64::MAX)),
            Writes::These(mutations) => {
                let names = mutations.iter().map(|one| one.as_str().to_owned());
                outbox_view::await_these(conn, names.collect()).unwrap_or(Awaited::UpTo(i64::MAX))
            }
        };
        self.0.push(Waiter {
            awaited,
            until,
            done,
        });
        self.look(conn);
    }

    /// When the first of them gives up.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().map(|waiter| waiter.until).min()
    }

    /// Tells those whose writes are settled, and those whose time is over.
    pub(crate) fn look(&mut self, conn: &Connection) {
        let now = Instant::now();
        for waiter in std::mem::take(&mut self.0) {
            // A file that cannot be read now may be readable later.
            let standing = outbox_view::standing(conn, &waiter.awaited);
            let end = match standing.unwrap_or(Standing::Waiting) {
                Standing::Settled => SyncedEnd::Confirmed,
                Standing::NeedsPerson => SyncedEnd::NeedsPerson,
                Standing::Waiting if waiter.until <= now => SyncedEnd::TimedOut,
                Standing::Waiting => {
                    self.0.push(waiter);
                    continue;
                }
            };
            // Nobody waits for it any more if this fails.
            let _ = waiter.done.send(end);
        }
    }
}
