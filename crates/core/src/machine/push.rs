//! Pushing: claim, send, judge, book. While a batch is under way the next one is prepared.
//!
//! What a request without a result means for its mutations is decided in `suspect`.

use super::sequence::{SoFar, in_order};
use super::suspect::Suspects;
use super::{
    Booking, Cancel, ClaimLimits, Claimed, Effects, Machine, Notice, State, StoreAnswer, StoreWork,
};
use crate::{
    Batch, Config, Counted, MutationError, Now, RemoteAnswer, RemoteError, RemoteRequest, Verdict,
    judge,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use syncline_protocol::{ExchangeToken, IdempotencyKey, KeyOutcome, PushResponse, PushResult};

/// Every so many claims go in local order, so that no lane starves another.
const IN_ORDER_EVERY: u64 = 8;

/// New identities without a push that the server answered; more of them would not help.
const MOST_REMINTS: u32 = 3;

/// Answers in a row that settled nothing, after which a cycle stops asking for more of them.
const MOST_FRUITLESS: u32 = 8;

/// What pushing remembers between batches; nothing of it needs to survive a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pusher {
    /// What is under way.
    pub(super) batch: Batch,
    /// There is more than what is under way.
    more: bool,
    /// What is prepared to follow it: frozen, not sent.
    pub(super) next: Option<(Batch, bool)>,
    /// What is being cancelled.
    pub(super) cancel: Option<Cancel>,
    /// Entries in a batch at most, for now.
    pub(super) limit: usize,
    /// Claims so far.
    claims: u64,
    pub(super) suspects: Suspects,
    /// The token of the last answer.
    pub(super) token: Option<ExchangeToken>,
    /// New identities since the last push that the server answered.
    remints: u32,
    /// Answers in a row that refused everything as conflicts or as of another history: a server that
    /// never does anything else must not keep the engine busy (F:L4).
    #[serde(default)]
    fruitless: u32,
    /// What happens once the booking is through.
    pub(super) then: Then,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Then {
    ClaimMore,
    /// Wait briefly, then go on with a smaller batch.
    Halve(RemoteError),
    Fail(RemoteError),
    /// Pushing pauses; changes are received all the same (O4).
    Leave,
    /// The server's history is another one: greet it anew.
    Reconnect,
    /// This file is a copy of another.
    Remint(RemoteError),
    /// The host wants rest.
    Rest,
    /// A bounded pass ends here.
    UsedUp,
}

impl Pusher {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            batch: Batch::default(),
            more: false,
            next: None,
            cancel: None,
            limit: config.push_mutations,
            claims: 0,
            suspects: Suspects::default(),
            token: None,
            remints: 0,
            fruitless: 0,
            then: Then::ClaimMore,
        }
    }

    pub(super) fn forget_batch(&mut self) {
        self.batch = Batch::default();
        self.next = None;
        self.cancel = None;
    }

    /// When pushing may go on, if it pauses now.
    pub(super) fn paused_until(&self, now: Now) -> Option<u64> {
        self.suspects.paused_until(now)
    }

    /// Somebody does not want to wait.
    pub(super) fn end_pause(&mut self) {
        self.suspects.end_pause();
    }
}

impl Machine {
    pub(super) fn start_pushing(&mut self, now: Now, out: &mut Effects) {
        self.enter(State::Pushing, out);
        if self.pusher.paused_until(now).is_some() {
            return self.pushed(now, out);
        }
        self.claim(now, out);
    }

    /// How many mutations a batch may have, for now.
    pub(super) fn batch_size(&self) -> usize {
        let server = self.session.as_ref().map(|hello| hello.limits);
        let most = server.unwrap_or_default().push_mutations;
        self.pusher.limit.min(most).max(1)
    }

    pub(super) fn claim(&mut self, now: Now, out: &mut Effects) {
        if !self.may_ask(0) {
            return self.used_up(now, out);
        }
        if self.looks_first() {
            return self.look(out);
        }
        let server = self
            .session
            .as_ref()
            .map(|hello| hello.limits)
            .unwrap_or_default();
        let mutations = self.batch_size();
        self.pusher.claims += 1;
        out.store(StoreWork::Claim(ClaimLimits {
            mutations,
            // Whatever a server says of itself, one goes.
            bytes: self.fitting(self.config.push_bytes.min(server.push_bytes / 2).max(1)),
            mutation_bytes: server.mutation_bytes,
            alone: self.pusher.suspects.alone().clone(),
            most_mutations: server.push_mutations,
            most_bytes: server.push_bytes / 2,
            under_way: self
                .pusher
                .batch
                .entries
                .iter()
                .map(|entry| entry.seq)
                .collect(),
            urgent_only: self.cycle.sparing,
            in_order: self.pusher.claims.is_multiple_of(IN_ORDER_EVERY),
        }));
    }

    pub(super) fn pushing_store(&mut self, answer: StoreAnswer, now: Now, out: &mut Effects) {
        match answer {
            StoreAnswer::Claimed(claimed) => self.on_claimed(claimed, now, out),
            StoreAnswer::Targets(targets) => self.on_targets(targets, now, out),
            StoreAnswer::Met(summary) => self.on_met(summary, now, out),
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
                if self.under_way.is_some() {
                    self.prepare(now, out);
                } else {
                    self.after_booking(now, out);
                }
            }
            StoreAnswer::Surveyed(survey) => self.after_survey(survey, now, out),
            StoreAnswer::Reminted { client } => {
                self.client = client;
                self.pusher.token = None;
                self.session = None;
                out.notice(Notice::IdentityChanged);
                self.resume_cycle(now, out);
            }
            _ => {}
        }
    }

    fn on_claimed(&mut self, claimed: Claimed, now: Now, out: &mut Effects) {
        let Claimed {
            batch,
            more,
            cancel,
            notices,
        } = claimed;
        notices.into_iter().for_each(|notice| out.notice(notice));
        if self.under_way.is_some() {
            if !batch.entries.is_empty() {
                self.pusher.next = Some((batch, more));
            }
        } else if !self.may_ask(batch.bytes) {
            self.pusher.then = Then::UsedUp;
            self.pusher.suspects.turned_away(&batch);
            let bookings = not_sent(&batch);
            let token = None;
            out.store(StoreWork::Book { bookings, token });
        } else if !batch.entries.is_empty() {
            self.send(batch, more, out);
            self.prepare(now, out);
        } else if let Some(cancel) = cancel {
            let (client, key) = (cancel.client.clone(), cancel.key.clone());
            self.pusher.cancel = Some(cancel);
            self.ask(RemoteRequest::Cancel { client, key }, out);
        } else {
            self.pushed(now, out);
        }
    }

    fn send(&mut self, mut batch: Batch, more: bool, out: &mut Effects) {
        self.cycle.progress = true;
        self.pusher.suspects.note_sent(&mut batch);
        self.pusher.batch = batch.clone();
        self.pusher.more = more;
        self.ask(
            RemoteRequest::Push {
                client: self.client.clone(),
                batch,
                token: self.pusher.token.clone(),
            },
            out,
        );
    }

    /// Prepares what follows the batch under way, unless it is being found out what spoils one.
    fn prepare(&mut self, now: Now, out: &mut Effects) {
        let calm = self.pusher.limit == self.config.push_mutations
            && self.pusher.suspects.is_empty()
            && !self.targets();
        if calm && self.pusher.more && self.may_ask(0) {
            self.claim(now, out);
        }
    }

    fn after_booking(&mut self, now: Now, out: &mut Effects) {
        match std::mem::replace(&mut self.pusher.then, Then::ClaimMore) {
            // The server was not heard of: it is greeted before anything else is asked of it.
            Then::ClaimMore | Then::Leave if self.session.is_none() => self.resume_cycle(now, out),
            Then::ClaimMore => self.claim(now, out),
            Then::Reconnect => {
                self.session = None;
                self.resume_cycle(now, out);
            }
            Then::Leave => self.pushed(now, out),
            Then::Rest => self.rest(out),
            Then::UsedUp => self.used_up(now, out),
            Then::Fail(error) => self.remote_failed(error, now, out),
            Then::Remint(error) if self.pusher.remints >= MOST_REMINTS => {
                self.remote_failed(error, now, out);
            }
            Then::Remint(_) => {
                self.pusher.remints += 1;
                out.store(StoreWork::Remint);
            }
            Then::Halve(error) => {
                let delay_ms = self
                    .waiting
                    .short_wait(&self.config, &error, now, &mut self.dice);
                self.enter(State::Backoff, out);
                out.notice(Notice::BackingOff { delay_ms, error });
            }
        }
    }

    pub(super) fn pushing_remote(&mut self, answer: RemoteAnswer, now: Now, out: &mut Effects) {
        match answer {
            RemoteAnswer::Push(answer) => self.pushing_answer(answer, now, out),
            RemoteAnswer::Cancel(answer) => self.pushing_cancelled(answer, now, out),
            RemoteAnswer::Fetch(answer) => self.pushing_fetched(answer, now, out),
            // Nothing else is asked for.
            RemoteAnswer::Hello(_) | RemoteAnswer::Register(_) | RemoteAnswer::Pull(_) => {}
        }
    }

    fn pushing_answer(
        &mut self,
        answer: Result<PushResponse, RemoteError>,
        now: Now,
        out: &mut Effects,
    ) {
        self.under_way = None;
        let batch = std::mem::take(&mut self.pusher.batch);
        let mut token = None;
        let mut bookings = match answer {
            Ok(mut response) => {
                token = response.token.take();
                self.judge_response(&batch, response)
            }
            Err(error) => {
                self.waiting.hear_wish(&error, now);
                self.judge_failure(&batch, error, now)
            }
        };
        if token.is_some() {
            self.pusher.token.clone_from(&token);
        }
        match self.pusher.next.take() {
            Some((next, more))
                if self.pusher.then == Then::ClaimMore && self.may_ask(next.bytes) =>
            {
                self.send(next, more, out);
            }
            Some((next, _)) => {
                self.pusher.suspects.turned_away(&next);
                bookings.extend(not_sent(&next));
            }
            None => {}
        }
        out.store(StoreWork::Book { bookings, token });
    }

    fn pushing_cancelled(
        &mut self,
        answer: Result<KeyOutcome, RemoteError>,
        now: Now,
        out: &mut Effects,
    ) {
        self.under_way = None;
        let Some(cancel) = self.pusher.cancel.take() else {
            return;
        };
        let verdict = match answer {
            Ok(KeyOutcome::Final { result }) => {
                judge(0, Some(result), &self.config, &mut self.dice)
            }
            Ok(KeyOutcome::Unknown) => {
                give_up_cancelling("the server did not say what became of it")
            }
            Err(RemoteError::Misconfigured { detail, .. }) => give_up_cancelling(&detail),
            Err(error) => return self.remote_failed(error, now, out),
        };
        self.pusher.then = Then::ClaimMore;
        let seq = cancel.seq;
        out.store(StoreWork::Book {
            bookings: vec![Booking { seq, verdict }],
            token: None,
        });
    }

    fn judge_response(&mut self, batch: &Batch, response: PushResponse) -> Vec<Booking> {
        self.refreshed = false;
        self.pusher.remints = 0;
        self.pusher.suspects.push_answered();
        self.pusher.limit = (self.pusher.limit * 2).min(self.config.push_mutations);
        let same_epoch = self
            .session
            .as_ref()
            .is_some_and(|hello| hello.epoch == response.epoch);
        let mut results: BTreeMap<IdempotencyKey, PushResult> = response
            .results
            .into_iter()
            .map(|result| (result.key.clone(), result))
            .collect();
        let mut bookings = Vec::with_capacity(batch.entries.len());
        let mut before = BTreeMap::new();
        for entry in &batch.entries {
            self.pusher.suspects.clear(&entry.mutation);
            let result = results.remove(&entry.key);
            let told = result.is_some();
            let verdict = judge(entry.attempts, result, &self.config, &mut self.dice);
            let so_far = before.entry(&entry.entity).or_default();
            let mut verdict = in_order(so_far, verdict);
            if *so_far == SoFar::Decided {
                *so_far = SoFar::after(told, &entry.key, &verdict);
            }
            if let Verdict::Applied {
                duplicate, unsent, ..
            } = &mut verdict
            {
                *unsent = same_epoch && *duplicate && !entry.again;
            }
            if !same_epoch {
                verdict = verdict.of_other_history();
            }
            bookings.push(Booking {
                seq: entry.seq,
                verdict,
            });
        }
        self.pusher.fruitless = match bookings.iter().all(is_fruitless) {
            true => self.pusher.fruitless.saturating_add(1),
            false => 0,
        };
        let goes_on = self.pusher.fruitless < MOST_FRUITLESS;
        if goes_on {
            self.waiting.succeeded();
        }
        self.pusher.then = match (same_epoch, goes_on) {
            (true, true) => Then::ClaimMore,
            (true, false) => Then::Leave,
            (false, true) => Then::Reconnect,
            (false, false) => Then::Fail(RemoteError::Transient {
                status: 200,
                detail: "the server names one history when greeted and another when pushed to"
                    .to_owned(),
                retry_after: None,
                overloaded: false,
            }),
        };
        bookings
    }

    /// Gives up on what is under way, a batch being released first, and goes on as `then` says.
    pub(super) fn give_up(&mut self, then: Then, now: Now, out: &mut Effects) {
        if self.under_way.take().is_none() {
            return;
        }
        let batch = std::mem::take(&mut self.pusher.batch);
        let next = self.pusher.next.take();
        self.pusher.cancel = None;
        self.pusher.then = then;
        if batch.entries.is_empty() {
            return self.after_booking(now, out);
        }
        let detail = "the request was given up before it was answered";
        let mut bookings = release(&batch, |_| Verdict::Later {
            after_ms: 0,
            counted: Counted::No,
            error: MutationError::new("not-answered", detail),
        });
        if let Some((next, _)) = next {
            self.pusher.suspects.turned_away(&next);
            bookings.extend(not_sent(&next));
        }
        out.store(StoreWork::Book {
            bookings,
            token: None,
        });
    }
}

/// The user gave it up, but nobody can say whether it took effect.
fn give_up_cancelling(detail: &str) -> Verdict {
    let why = format!("it could not be cancelled: {detail}; retry it, or look at the server");
    Verdict::Dead(MutationError::new("not-cancelled", why))
}

/// A prepared batch whose turn did not come.
fn not_sent(batch: &Batch) -> Vec<Booking> {
    release(batch, |_| Verdict::Later {
        after_ms: 0,
        counted: Counted::No,
        error: MutationError::new("not-sent", "the batch before it did not go through"),
    })
}

pub(super) fn release(
    batch: &Batch,
    verdict: impl Fn(&crate::BatchEntry) -> Verdict,
) -> Vec<Booking> {
    let book = |entry: &crate::BatchEntry| Booking {
        seq: entry.seq,
        verdict: verdict(entry),
    };
    batch.entries.iter().map(book).collect()
}

/// Whether an entry is where it was before it was sent.
fn is_fruitless(booking: &Booking) -> bool {
    matches!(
        booking.verdict,
        Verdict::Conflict { .. }
            | Verdict::OtherHistory(_)
            | Verdict::Skipped { .. }
            | Verdict::Later {
                counted: Counted::No,
                ..
            }
    )
}
