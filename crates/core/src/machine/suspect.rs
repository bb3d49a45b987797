//! Finding the one mutation that spoils a batch, when the request as a whole has no result.
//!
//! A batch that fails as a whole (a 500, a garbled answer, a time-out or a reset although the
//! server was reached just before) is halved until the culprit stands alone. A failure counts
//! against a mutation only when it failed alone although another push went through since it was
//! first suspected, or when it has failed for an hour while other requests were answered. By that hour
//! alone no more than one mutation an hour is given up, for it may be that the server takes no push at
//! all; an outage of the whole server kills nothing. While it is not known whose fault it is, pushing
//! pauses with growing delays and pulling goes on.

use super::push::{Then, release};
use super::{Booking, Machine};
use crate::{
    Batch, BatchEntry, Counted, MutationError, Now, RemoteError, Verdict, backoff_ms, count_failure,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::MutationId;

/// So many pushes in a row may go unanswered before the batch is suspect.
const BAD_LUCK: u32 = 2;

/// A younger greeting is believed.
const YOUNG_MS: u64 = 60_000;

/// What speaks against whom.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Suspects {
    /// Pushes that the server answered.
    answered: u64,
    /// Other requests that it answered.
    reached: u64,
    /// Entries that were in a failed batch.
    suspects: BTreeMap<MutationId, Suspect>,
    /// Entries that failed alone: they are only sent alone.
    alone: BTreeSet<MutationId>,
    /// Entries that were in no request but such as were turned away unread.
    #[serde(default)]
    unread: BTreeSet<MutationId>,
    /// Failures of entries alone that nobody can be blamed for, since the last answered push.
    unexplained: u32,
    /// When the last one was given up by nothing but patience (monotonic milliseconds).
    #[serde(default)]
    outlasted_ms: u64,
    /// Pushes that were not answered at all since the last that was.
    hung: u32,
    /// No push before this moment (monotonic milliseconds), after an unexplained failure.
    paused_until: Option<u64>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Suspect {
    /// `answered` when it was first part of a failure.
    since: u64,
    /// When that was (monotonic milliseconds).
    since_ms: u64,
    /// `reached` when it last failed.
    reached: u64,
    /// How often it failed alone.
    alone: u32,
}

impl Suspects {
    pub(super) fn is_empty(&self) -> bool {
        self.suspects.is_empty()
    }

    pub(super) fn alone(&self) -> &BTreeSet<MutationId> {
        &self.alone
    }

    pub(super) fn paused_until(&self, now: Now) -> Option<u64> {
        self.paused_until.filter(|until| *until > now.monotonic_ms)
    }

    pub(super) fn end_pause(&mut self) {
        self.paused_until = None;
    }

    pub(super) fn push_answered(&mut self) {
        self.answered += 1;
        self.unexplained = 0;
        self.hung = 0;
        self.paused_until = None;
    }

    /// The server answered something that was no push.
    pub(super) fn reached(&mut self) {
        self.reached += 1;
    }

    pub(super) fn clear(&mut self, mutation: &MutationId) {
        self.suspects.remove(mutation);
        self.alone.remove(mutation);
        self.unread.remove(mutation);
    }

    /// Corrects what the store cannot know: which entries every earlier request was turned away with.
    pub(super) fn note_sent(&mut self, batch: &mut Batch) {
        for entry in &mut batch.entries {
            entry.again &= !self.unread.remove(&entry.mutation);
        }
    }

    /// The request was turned away unread, or never sent: what was in no other has not been done.
    pub(super) fn turned_away(&mut self, batch: &Batch) {
        let first = batch.entries.iter().filter(|entry| !entry.again);
        self.unread
            .extend(first.map(|entry| entry.mutation.clone()));
    }

    fn suspect(&mut self, entry: &BatchEntry, now: Now) -> &mut Suspect {
        let fresh = Suspect {
            since: self.answered,
            since_ms: now.monotonic_ms,
            reached: self.reached,
            alone: 0,
        };
        self.suspects.entry(entry.mutation.clone()).or_insert(fresh)
    }
}

impl Machine {
    /// The request as a whole has no result: everything is kept as it was sent.
    pub(super) fn judge_failure(
        &mut self,
        batch: &Batch,
        error: RemoteError,
        now: Now,
    ) -> Vec<Booking> {
        let suspicious = self.is_batch_suspect(&error);
        let too_large = matches!(error, RemoteError::TooLarge { .. });
        let whole_group = is_one_group(batch);
        if too_large || matches!(error, RemoteError::Auth { .. } | RemoteError::Forked { .. }) {
            self.pusher.suspects.turned_away(batch);
        }
        if too_large {
            // The limits are not what they were said to be.
            self.doubt_greeting(YOUNG_MS, now);
        }
        match batch.entries.as_slice() {
            [_, ..] if too_large && (batch.entries.len() == 1 || whole_group) => {
                self.pusher.then = Then::ClaimMore;
                return self.refuse_size(batch, &error);
            }
            [_, ..] if suspicious && (batch.entries.len() == 1 || whole_group) => {
                return self.judge_alone(batch, &error, now);
            }
            entries if suspicious || too_large => {
                self.pusher.limit = (entries.len() / 2).max(1);
                for entry in entries {
                    self.pusher.suspects.suspect(entry, now);
                }
                self.pusher.then = if too_large {
                    Then::ClaimMore
                } else {
                    Then::Halve(error.clone())
                };
            }
            _ if matches!(error, RemoteError::Forked { .. }) => {
                self.pusher.then = Then::Remint(error.clone());
            }
            _ => {
                if matches!(error, RemoteError::CursorGone { .. }) {
                    // Something of the server's history is gone: it is greeted anew.
                    self.session = None;
                }
                self.pusher.then = Then::Fail(error.clone());
            }
        }
        release(batch, |_| Verdict::Later {
            after_ms: 0,
            counted: Counted::No,
            error: MutationError::new("not-answered", error.to_string()),
        })
    }

    /// What is too large is refused, unless an earlier request may have brought it about (E1): that
    /// keeps its key and its bytes, and a person decides.
    fn refuse_size(&mut self, batch: &Batch, error: &RemoteError) -> Vec<Booking> {
        for entry in &batch.entries {
            self.pusher.suspects.clear(&entry.mutation);
        }
        if batch.entries.iter().any(|entry| entry.again) {
            let why = format!("{error}; an earlier request may have brought it about");
            return release(batch, |_| {
                Verdict::Dead(MutationError::new("too-large", why.clone()))
            });
        }
        release(batch, |_| {
            Verdict::Failed(MutationError::new("too-large", error.to_string()))
        })
    }

    /// Whether the batch may be what is wrong. Pushes that were not answered at all are suspect only
    /// after several, with the server greeted anew before each.
    fn is_batch_suspect(&mut self, error: &RemoteError) -> bool {
        match error {
            RemoteError::Transient { overloaded, .. } => !overloaded,
            RemoteError::Unreachable { .. } => {
                self.session = None;
                let hung = &mut self.pusher.suspects.hung;
                *hung = hung.saturating_add(1);
                *hung > BAD_LUCK
            }
            _ => false,
        }
    }

    /// The failure of a single mutation, or of a group, which cannot be split.
    fn judge_alone(&mut self, batch: &Batch, error: &RemoteError, now: Now) -> Vec<Booking> {
        let patience = self.config.lone_patience_ms;
        let suspects = &mut self.pusher.suspects;
        let (answered, reached) = (suspects.answered, suspects.reached);
        let outlasted_ms = suspects.outlasted_ms;
        let (mut counts, mut others_go, mut times) = (true, true, 0);
        for entry in &batch.entries {
            suspects.alone.insert(entry.mutation.clone());
            let suspect = suspects.suspect(entry, now);
            suspect.alone = suspect.alone.saturating_add(1);
            let waited_from = suspect.since_ms.max(outlasted_ms);
            let outlasts = reached > suspect.reached
                && now.monotonic_ms.saturating_sub(waited_from) >= patience;
            suspect.reached = reached;
            times = times.max(suspect.alone);
            counts &= answered > suspect.since || outlasts;
            others_go &= answered > suspect.since;
        }
        // A server's wish to be left alone holds for whatever comes next.
        let wished = error.retry_after().map(|_| Then::Halve(error.clone()));
        if counts {
            self.pusher.then = wished.unwrap_or(Then::ClaimMore);
            let mut bookings = Vec::with_capacity(batch.entries.len());
            for entry in &batch.entries {
                let error = MutationError::new("request-failed", error.to_string());
                let verdict =
                    count_failure(entry.attempts, error, None, &self.config, &mut self.dice);
                let seq = entry.seq;
                bookings.push(Booking { seq, verdict });
            }
            let is_dead = |booking: &Booking| matches!(booking.verdict, Verdict::Dead(_));
            if !others_go && bookings.iter().any(is_dead) {
                suspects.outlasted_ms = now.monotonic_ms;
            }
            return bookings;
        }
        self.pusher.then = wished.unwrap_or(Then::Leave);
        suspects.unexplained = suspects.unexplained.saturating_add(1);
        let pause = backoff_ms(&self.config, suspects.unexplained, &mut self.dice);
        suspects.paused_until = Some(now.after_ms(pause));
        let delay = backoff_ms(&self.config, times.saturating_add(1), &mut self.dice);
        release(batch, |_| Verdict::Later {
            after_ms: delay.max(pause),
            counted: Counted::No,
            error: MutationError::new("request-failed", error.to_string()),
        })
    }
}

/// Whether the batch is one group, which cannot be halved.
fn is_one_group(batch: &Batch) -> bool {
    match batch.entries.split_first() {
        Some((first, rest)) => {
            first.group.is_some() && rest.iter().all(|entry| entry.group == first.group)
        }
        None => false,
    }
}
