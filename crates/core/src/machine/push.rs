//! Pushing: claim, send, judge, book; and finding the one mutation that spoils a batch.
//!
//! A batch that fails as a whole (a 500, a garbled answer) is halved until the culprit stands
//! alone. A failure counts against a mutation only when it failed alone although another push
//! went through since it was first suspected; so an outage kills nothing, however long it lasts.
//! While it is not known whose fault it is, pushing pauses with growing delays and pulling goes on.

use super::{Booking, ClaimLimits, Effects, Machine, Notice, State, StoreAnswer, StoreWork};
use crate::{
    Batch, Config, Counted, MutationError, Now, RemoteError, RemoteRequest, Verdict, backoff_ms,
    count_failure, judge,
};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{IdempotencyKey, MutationId, PushResponse, PushResult};

/// What pushing remembers between batches; nothing of it needs to survive a restart.
#[derive(Debug)]
pub(super) struct Pusher {
    /// The batch under way.
    batch: Batch,
    /// Entries in a batch at most, for now.
    limit: usize,
    /// Pushes that the server answered.
    answered: u64,
    /// Entries that were in a failed batch.
    suspects: BTreeMap<MutationId, Suspect>,
    /// Entries that failed alone: they are only sent alone.
    alone: BTreeSet<MutationId>,
    /// Failures of entries alone that nobody can be blamed for, since the last answered push.
    unexplained: u32,
    /// No push before this moment (monotonic milliseconds), after an unexplained failure.
    paused_until: Option<u64>,
    /// What happens once the booking is through.
    then: Then,
}

/// What speaks against an entry.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// `answered` when it was first part of a failure.
    since: u64,
    /// How often it failed alone.
    alone: u32,
}

#[derive(Debug, Clone)]
enum Then {
    ClaimMore,
    /// Wait briefly, then go on with a smaller batch.
    Halve(RemoteError),
    Fail(RemoteError),
    /// Pushing pauses; changes are received all the same (O4).
    Pull,
    /// The server's history is another one: greet it anew.
    Reconnect,
}

impl Pusher {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            batch: Batch::default(),
            limit: config.push_mutations,
            answered: 0,
            suspects: BTreeMap::new(),
            alone: BTreeSet::new(),
            unexplained: 0,
            paused_until: None,
            then: Then::ClaimMore,
        }
    }

    pub(super) fn forget_batch(&mut self) {
        self.batch = Batch::default();
    }

    /// When pushing may go on, if it pauses now.
    pub(super) fn paused_until(&self, now: Now) -> Option<u64> {
        self.paused_until.filter(|until| *until > now.monotonic_ms)
    }

    /// Somebody does not want to wait.
    pub(super) fn end_pause(&mut self) {
        self.paused_until = None;
    }
}

impl Machine {
    pub(super) fn start_pushing(&mut self, now: Now, out: &mut Effects) {
        self.cycle.progress = false;
        if self.pusher.paused_until(now).is_some() {
            return self.start_pulling(out);
        }
        self.enter(State::Pushing, out);
        self.claim(out);
    }

    fn claim(&mut self, out: &mut Effects) {
        let server = self
            .session
            .as_ref()
            .map(|hello| hello.limits)
            .unwrap_or_default();
        let mutations = self.pusher.limit.min(server.push_mutations).max(1);
        out.store(StoreWork::Claim(ClaimLimits {
            mutations,
            bytes: self.config.push_bytes.min(server.push_bytes / 2),
            mutation_bytes: server.mutation_bytes,
            alone: self.pusher.alone.clone(),
        }));
    }

    pub(super) fn pushing_store(&mut self, answer: StoreAnswer, now: Now, out: &mut Effects) {
        match answer {
            StoreAnswer::Claimed { batch, notices } => {
                notices.into_iter().for_each(|notice| out.notice(notice));
                if batch.entries.is_empty() {
                    return self.start_pulling(out);
                }
                self.cycle.progress = true;
                self.pusher.batch = batch.clone();
                self.ask(
                    RemoteRequest::Push {
                        client: self.client.clone(),
                        batch,
                        token: None,
                    },
                    out,
                );
            }
            StoreAnswer::Booked(summary) => {
                if summary.applied > 0 {
                    let (applied, duplicates) = (summary.applied, summary.duplicates);
                    out.notice(Notice::Pushed {
                        applied,
                        duplicates,
                    });
                }
                summary
                    .notices
                    .into_iter()
                    .for_each(|notice| out.notice(notice));
                self.after_booking(now, out);
            }
            _ => {}
        }
    }

    fn after_booking(&mut self, now: Now, out: &mut Effects) {
        match std::mem::replace(&mut self.pusher.then, Then::ClaimMore) {
            Then::ClaimMore => self.claim(out),
            Then::Reconnect => {
                self.session = None;
                self.resume_cycle(now, out);
            }
            Then::Pull => self.start_pulling(out),
            Then::Fail(error) => self.remote_failed(error, now, out),
            Then::Halve(error) => {
                let delay_ms = self
                    .waiting
                    .short_wait(&self.config, &error, now, &mut self.dice);
                self.enter(State::Backoff, out);
                out.notice(Notice::BackingOff { delay_ms, error });
            }
        }
    }

    pub(super) fn pushing_answer(
        &mut self,
        answer: Result<PushResponse, RemoteError>,
        now: Now,
        out: &mut Effects,
    ) {
        self.under_way = None;
        let batch = std::mem::take(&mut self.pusher.batch);
        let bookings = match answer {
            Ok(response) => self.judge_response(&batch, response, now),
            Err(error) => self.judge_failure(&batch, error, now),
        };
        out.store(StoreWork::Book(bookings));
    }

    fn judge_response(&mut self, batch: &Batch, response: PushResponse, now: Now) -> Vec<Booking> {
        self.waiting.succeeded();
        self.refreshed = false;
        self.pusher.answered += 1;
        self.pusher.unexplained = 0;
        self.pusher.paused_until = None;
        self.pusher.limit = (self.pusher.limit * 2).min(self.config.push_mutations);
        let same_epoch = self
            .session
            .as_ref()
            .is_some_and(|hello| hello.epoch == response.epoch);
        self.pusher.then = if same_epoch {
            Then::ClaimMore
        } else {
            Then::Reconnect
        };
        let mut results: BTreeMap<IdempotencyKey, PushResult> = response
            .results
            .into_iter()
            .map(|result| (result.key.clone(), result))
            .collect();
        let mut bookings = Vec::with_capacity(batch.entries.len());
        for entry in &batch.entries {
            self.pusher.suspects.remove(&entry.mutation);
            self.pusher.alone.remove(&entry.mutation);
            let result = results.remove(&entry.key);
            let verdict = judge(entry, result, &self.config, now, &mut self.dice);
            bookings.push(Booking {
                seq: entry.seq,
                verdict,
            });
        }
        bookings
    }

    /// The request as a whole has no result: everything is kept as it was sent.
    fn judge_failure(&mut self, batch: &Batch, error: RemoteError, now: Now) -> Vec<Booking> {
        let suspicious = matches!(
            error,
            RemoteError::Transient {
                overloaded: false,
                ..
            }
        );
        let too_large = matches!(error, RemoteError::TooLarge { .. });
        match batch.entries.as_slice() {
            [_] if too_large => {
                self.pusher.then = Then::ClaimMore;
                return release(batch, |_| {
                    Verdict::Failed(MutationError::new("too-large", error.to_string()))
                });
            }
            [entry] if suspicious => return self.judge_alone(entry, &error, now),
            _ if suspicious || too_large => {
                self.pusher.limit = (batch.entries.len() / 2).max(1);
                for entry in &batch.entries {
                    let since = self.pusher.answered;
                    let fresh = Suspect { since, alone: 0 };
                    self.pusher
                        .suspects
                        .entry(entry.mutation.clone())
                        .or_insert(fresh);
                }
                self.pusher.then = if too_large {
                    Then::ClaimMore
                } else {
                    Then::Halve(error.clone())
                };
            }
            _ => self.pusher.then = Then::Fail(error.clone()),
        }
        release(batch, |_| Verdict::Later {
            not_before_unix_ms: now.unix_ms,
            counted: Counted::No,
            error: MutationError::new("not-answered", error.to_string()),
        })
    }

    fn judge_alone(
        &mut self,
        entry: &crate::BatchEntry,
        error: &RemoteError,
        now: Now,
    ) -> Vec<Booking> {
        let why = MutationError::new("request-failed", error.to_string());
        let answered = self.pusher.answered;
        self.pusher.alone.insert(entry.mutation.clone());
        let fresh = Suspect {
            since: answered,
            alone: 0,
        };
        let suspect = self
            .pusher
            .suspects
            .entry(entry.mutation.clone())
            .or_insert(fresh);
        suspect.alone = suspect.alone.saturating_add(1);
        let Suspect { since, alone } = *suspect;
        let verdict = if answered > since {
            self.pusher.then = Then::ClaimMore;
            count_failure(entry, why, None, &self.config, now, &mut self.dice)
        } else {
            self.pusher.then = Then::Pull;
            self.pusher.unexplained = self.pusher.unexplained.saturating_add(1);
            let pause = backoff_ms(&self.config, self.pusher.unexplained, &mut self.dice);
            self.pusher.paused_until = Some(now.after_ms(pause));
            let delay = backoff_ms(&self.config, alone.saturating_add(1), &mut self.dice);
            Verdict::Later {
                not_before_unix_ms: now.unix_after_ms(delay.max(pause)),
                counted: Counted::No,
                error: why,
            }
        };
        vec![Booking {
            seq: entry.seq,
            verdict,
        }]
    }

    /// Gives up on what is under way; a batch is released first.
    pub(super) fn abandon(&mut self, error: RemoteError, now: Now, out: &mut Effects) {
        let batch = std::mem::take(&mut self.pusher.batch);
        if self.state == State::Pushing && self.under_way.is_some() {
            self.under_way = None;
            let bookings = self.judge_failure(&batch, error, now);
            out.store(StoreWork::Book(bookings));
        } else if self.under_way.is_some() {
            self.remote_failed(error, now, out);
        }
    }
}

fn release(batch: &Batch, verdict: impl Fn(&crate::BatchEntry) -> Verdict) -> Vec<Booking> {
    let book = |entry: &crate::BatchEntry| Booking {
        seq: entry.seq,
        verdict: verdict(entry),
    };
    batch.entries.iter().map(book).collect()
}
