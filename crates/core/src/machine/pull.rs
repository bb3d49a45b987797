//! Pulling: page by page and scope by scope to the head, then a look at what is left.

use super::target::Targeting;
use super::{
    CycleEnd, Effects, Machine, Notice, PageSummary, State, StoreAnswer, StoreWork, Survey,
};
use crate::{Now, Page, RemoteError, RemoteRequest, check_answer};
use serde::{Deserialize, Serialize};
use syncline_protocol::Scope;

/// The course of one cycle.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Cycle {
    /// Rounds of push and pull so far.
    rounds: u32,
    /// Which of the granted scopes is being read.
    pub(super) scope: usize,
    /// The cursor that the page under way was asked with.
    pub(super) from: Option<String>,
    /// The page that is being applied reached the head.
    at_head: bool,
    /// Something was sent or received in this round; without that, another one changes nothing.
    pub(super) progress: bool,
    /// The network is used sparingly: only urgent mutations, nothing is pulled.
    pub(super) sparing: bool,
    /// The cursor was already dropped once in this cycle.
    forgotten: bool,
    #[serde(default)]
    pub(super) targeting: Targeting,
    /// How many changes the page under way may have.
    limit: usize,
    pub(super) guard: Guard,
}

impl Cycle {
    pub(super) fn new(sparing: bool) -> Self {
        Self {
            sparing,
            ..Self::default()
        }
    }
}

/// Pages without a change that may follow each other before the head.
const EMPTY_PAGES: u32 = 100;

/// Notices a server whose pages lead nowhere: an endless row of empty ones, or cursors in a circle.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Guard {
    empty: u32,
    pages: u64,
    /// The cursor after the last page whose number is a power of two (Brent's way to find a
    /// circle with the memory of one cursor).
    pub(super) remembered: Option<String>,
}

impl Guard {
    fn leads_nowhere(&mut self, page: &Page) -> bool {
        if page.end.at_head {
            *self = Self::default();
            return false;
        }
        self.empty = if page.changes.is_empty() {
            self.empty + 1
        } else {
            0
        };
        let circle = self.remembered.as_ref() == Some(&page.end.cursor);
        self.pages += 1;
        if self.pages.is_power_of_two() {
            self.remembered = Some(page.end.cursor.clone());
        }
        circle || self.empty > EMPTY_PAGES
    }
}

impl Machine {
    pub(super) fn start_pulling(&mut self, now: Now, out: &mut Effects) {
        self.enter(State::Pulling, out);
        self.cycle.scope = 0;
        self.read_scope(now, out);
    }

    pub(super) fn scope(&self) -> Option<Scope> {
        let hello = self.session.as_ref()?;
        hello
            .scopes
            .get(self.cycle.scope)
            .map(|grant| grant.scope.clone())
    }

    fn read_scope(&mut self, now: Now, out: &mut Effects) {
        match self.scope() {
            Some(scope) => out.store(StoreWork::ReadCursor(scope)),
            None => self.pulled(now, out),
        }
    }

    fn ask_page(&mut self, cursor: Option<String>, out: &mut Effects) {
        let Some(scope) = self.scope() else { return };
        let server = self
            .session
            .as_ref()
            .map(|hello| hello.limits)
            .unwrap_or_default();
        self.cycle.from.clone_from(&cursor);
        let limit = self.config.page_changes.min(server.page_changes).max(1);
        self.cycle.limit = limit;
        self.ask(
            RemoteRequest::Pull {
                client: self.client.clone(),
                scope,
                cursor,
                limit,
                bytes: self.bytes_left(),
            },
            out,
        );
    }

    pub(super) fn pulling_store(&mut self, answer: StoreAnswer, now: Now, out: &mut Effects) {
        match answer {
            StoreAnswer::Cursor(_) if !self.may_ask(1) => self.used_up(now, out),
            StoreAnswer::Cursor(cursor) => self.ask_page(cursor, out),
            StoreAnswer::PageApplied(summary) => {
                let again = summary.again;
                let moved = summary.upserts + summary.deletes + summary.merged + summary.released;
                self.cycle.progress |= again || moved > 0;
                tell(summary, out);
                if self.cycle.at_head && !again {
                    self.cycle.scope += 1;
                }
                self.read_scope(now, out);
            }
            StoreAnswer::CursorForgotten => {
                // The history may be another one: greet again before anything else.
                self.session = None;
                self.enter(State::Connecting, out);
                out.store(StoreWork::Acquire);
            }
            StoreAnswer::Surveyed(survey) => self.after_survey(survey, now, out),
            _ => {}
        }
    }

    pub(super) fn after_survey(&mut self, survey: Survey, now: Now, out: &mut Effects) {
        self.waiting.succeeded();
        self.cycle.rounds += 1;
        let paused = self.pusher.paused_until(now).is_some();
        let more = survey.claimable && self.cycle.progress && !paused && !self.keeps_the_rest();
        if more && self.cycle.rounds < self.config.rounds {
            return self.begin_round(now, out);
        }
        let end = if more {
            CycleEnd::RoundsUsedUp
        } else {
            CycleEnd::Complete
        };
        let survey = Survey {
            claimable: more,
            ..survey
        };
        self.finish(survey, end, now, out);
    }

    pub(super) fn pulling_answer(
        &mut self,
        answer: Result<Page, RemoteError>,
        now: Now,
        out: &mut Effects,
    ) {
        self.under_way = None;
        let from = self.cycle.from.take();
        match (answer, self.scope()) {
            (Ok(page), Some(scope)) => {
                self.refreshed = false;
                self.pusher.suspects.reached();
                if self.is_of_other_history(&page) {
                    return self.other_history(scope, now, out);
                }
                let stuck = !page.end.at_head && from.as_ref() == Some(&page.end.cursor);
                let wrong = if stuck || self.cycle.guard.leads_nowhere(&page) {
                    Some("the server's cursor leads nowhere".to_owned())
                } else {
                    let fault = check_answer(&page, self.cycle.limit).err();
                    fault.map(|fault| fault.to_string())
                };
                if let Some(detail) = wrong {
                    let error = RemoteError::Misconfigured {
                        status: 200,
                        detail,
                    };
                    return self.remote_failed(error, now, out);
                }
                self.received(page.bytes);
                self.cycle.at_head = page.end.at_head;
                out.store(StoreWork::ApplyPage { scope, from, page });
            }
            (Err(RemoteError::CursorGone { .. }), Some(scope)) if !self.cycle.forgotten => {
                self.cycle.forgotten = true;
                out.store(StoreWork::ForgetCursor(scope));
            }
            (Err(error), _) => self.remote_failed(error, now, out),
            (Ok(_), None) => self.pulled(now, out),
        }
    }
}

impl Machine {
    fn is_of_other_history(&self, page: &Page) -> bool {
        let greeted = self.session.as_ref().map(|hello| &hello.epoch);
        page.end.epoch.is_some() && page.end.epoch.as_ref() != greeted
    }

    /// The history has changed since the greeting: the page is dropped, and the server greeted anew.
    fn other_history(&mut self, scope: Scope, now: Now, out: &mut Effects) {
        if !std::mem::replace(&mut self.cycle.forgotten, true) {
            return out.store(StoreWork::ForgetCursor(scope));
        }
        self.session = None;
        let detail = "the server names one history when greeted and another when pulled from";
        let error = RemoteError::Transient {
            status: 200,
            detail: detail.to_owned(),
            retry_after: None,
            overloaded: false,
        };
        self.remote_failed(error, now, out);
    }
}

fn tell(summary: PageSummary, out: &mut Effects) {
    let PageSummary {
        upserts,
        deletes,
        merged,
        parked,
        skipped: _,
        released: _,
        again: _,
        notices,
    } = summary;
    if upserts + deletes + merged + parked > 0 {
        out.notice(Notice::Pulled {
            upserts,
            deletes,
            merged,
            parked,
        });
    }
    notices.into_iter().for_each(|notice| out.notice(notice));
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_protocol::{PageEnd, PagePhase};

    fn empty(cursor: String) -> Page {
        Page {
            changes: Vec::new(),
            bytes: 0,
            end: PageEnd {
                cursor,
                position: 1,
                count: 0,
                phase: PagePhase::Feed,
                at_head: false,
                to_come: None,
                epoch: None,
            },
        }
    }

    #[test]
    fn empty_pages_with_ever_new_cursors_come_to_an_end() {
        let mut guard = Guard::default();
        let taken = (0..).take_while(|n| !guard.leads_nowhere(&empty(n.to_string())));
        assert_eq!(taken.count(), EMPTY_PAGES as usize);
    }

    #[test]
    fn cursors_in_a_circle_come_to_an_end_however_long_it_is() {
        for length in [2, 3, 7, 50] {
            let mut guard = Guard::default();
            let page = |n: u64| {
                let mut page = empty((n % length).to_string());
                let odd = crate::PageChange::Invalid {
                    raw: String::new(),
                    detail: String::new(),
                };
                page.changes.push(odd);
                page
            };
            let taken = (0..).take_while(|n| !guard.leads_nowhere(&page(*n)));
            assert!(taken.count() as u64 <= 3 * length, "{length}");
        }
    }
}
