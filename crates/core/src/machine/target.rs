//! Targeted pull: before a batch is claimed, what it is about is fetched, so that a conflict is decided
//! here and not by a refused push.
//!
//! ```text
//!  Targets ▶ Fetch ▶ Meet, a request at a time ──▶ Claim ▶ push ▶ Book ──▶ Targets …  ──▶ pull
//!     └── not offered, nothing read yet, another history: the feed to its head first, then push
//! ```
//!
//! At most a batch's worth of mutations is looked at before each claim. It is a courtesy and no
//! promise: what changes in between, or was not looked at, meets the server's check as ever.

use super::{Effects, Machine, MeetSummary, Notice, StoreWork, SyncOrder, Targets};
use crate::trace::{Redact, Redactor};
use crate::{Fetched, Now, RemoteError, RemoteRequest, Wanted};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How far a cycle has looked before it sends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Targeting {
    /// Everything in the outbox up to this place was looked at.
    after: i64,
    /// What is still to be fetched before the next claim.
    queue: VecDeque<Wanted>,
    /// What the request under way asks for.
    asked: Option<Wanted>,
    /// The next claim may go.
    looked: bool,
    /// The feed is read to its head before anything is sent, for the rest of this cycle.
    pub(super) pull_first: bool,
}

impl Machine {
    /// Whether what is to be sent is looked at first.
    pub(super) fn targets(&self) -> bool {
        self.config.order == SyncOrder::PullThenPush
            && !self.cycle.sparing
            && !self.cycle.targeting.pull_first
    }

    /// Whether that is still to be done before the next claim.
    pub(super) fn looks_first(&mut self) -> bool {
        self.targets() && !std::mem::take(&mut self.cycle.targeting.looked)
    }

    /// Whether there is nothing that could be fetched. Which of several scopes an entity is in is only
    /// known when the feed has brought it.
    pub(super) fn gives_nothing(&self) -> bool {
        let scopes = self.session.as_ref().map_or(0, |hello| hello.scopes.len());
        self.fetches_nothing || scopes != 1
    }

    pub(super) fn look(&mut self, out: &mut Effects) {
        let (after, most) = (self.cycle.targeting.after, self.batch_size());
        out.store(StoreWork::Targets { after, most });
    }

    fn pull_first(&mut self, now: Now, out: &mut Effects) {
        self.cycle.targeting = Targeting {
            pull_first: true,
            ..Targeting::default()
        };
        self.start_pulling(now, out);
    }

    pub(super) fn on_targets(&mut self, targets: Targets, now: Now, out: &mut Effects) {
        if targets.unread {
            return self.pull_first(now, out);
        }
        let targeting = &mut self.cycle.targeting;
        targeting.after = targeting.after.max(targets.last);
        targeting.queue = targets.wanted.into();
        self.fetch_next(now, out);
    }

    fn fetch_next(&mut self, now: Now, out: &mut Effects) {
        self.cycle.scope = 0;
        let Some(wanted) = self.cycle.targeting.queue.pop_front() else {
            self.cycle.targeting.looked = true;
            return self.claim(now, out);
        };
        let Some(scope) = self.scope().filter(|_| self.may_ask(1)) else {
            return self.used_up(now, out);
        };
        self.cycle.targeting.asked = Some(wanted.clone());
        let client = self.client.clone();
        self.ask(
            RemoteRequest::Fetch {
                client,
                scope,
                wanted,
            },
            out,
        );
    }

    pub(super) fn pushing_fetched(
        &mut self,
        answer: Result<Fetched, RemoteError>,
        now: Now,
        out: &mut Effects,
    ) {
        self.under_way = None;
        let asked = self.cycle.targeting.asked.take();
        match (answer, asked, self.scope()) {
            (Ok(fetched), Some(wanted), Some(scope)) if self.is_ours(&fetched) => {
                self.refreshed = false;
                self.pusher.suspects.reached();
                self.received(fetched.bytes);
                out.store(StoreWork::Meet {
                    scope,
                    wanted,
                    fetched,
                });
            }
            // The feed says what has become of the history.
            (Ok(_), _, _) => self.pull_first(now, out),
            (Err(RemoteError::Misconfigured { .. } | RemoteError::TooLarge { .. }), _, _) => {
                self.fetches_nothing = true;
                self.pull_first(now, out);
            }
            // What else it can do is found out by asking for it.
            (
                Err(RemoteError::Transient {
                    overloaded: false,
                    retry_after: None,
                    ..
                }),
                _,
                _,
            ) => self.pull_first(now, out),
            (Err(error), _, _) => self.remote_failed(error, now, out),
        }
    }

    fn is_ours(&self, fetched: &Fetched) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|hello| hello.epoch == fetched.epoch)
    }

    pub(super) fn on_met(&mut self, summary: MeetSummary, now: Now, out: &mut Effects) {
        let MeetSummary {
            merged,
            parked,
            pull_first,
            notices,
        } = summary;
        self.cycle.progress |= merged > 0;
        if merged + parked > 0 {
            out.notice(Notice::Pulled {
                upserts: 0,
                deletes: 0,
                merged,
                parked,
            });
        }
        notices.into_iter().for_each(|notice| out.notice(notice));
        match pull_first {
            true => self.pull_first(now, out),
            false => self.fetch_next(now, out),
        }
    }
}

impl Redact for Targeting {
    fn redacted(&self, by: &Redactor) -> Self {
        let queue = self.queue.iter().map(|wanted| wanted.redacted(by));
        Self {
            queue: queue.collect(),
            asked: self.asked.redacted(by),
            ..self.clone()
        }
    }
}
