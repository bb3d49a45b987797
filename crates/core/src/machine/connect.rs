//! Connecting: becoming the engine of the file, greeting the remote, credentials.

use super::blocked::Refused;
use super::{CycleEnd, Effect, Effects, Machine, Notice, State, StoreAnswer, StoreWork};
use crate::{Now, RemoteError, RemoteRequest};
use syncline_protocol::Hello;

impl Machine {
    pub(super) fn connecting_store(&mut self, answer: StoreAnswer, now: Now, out: &mut Effects) {
        match answer {
            StoreAnswer::Acquired => {
                self.waiting.lease_renewed(&self.config, now);
                if self.session.is_some() {
                    self.begin_round(now, out);
                } else if !self.may_ask(0) {
                    self.used_up(now, out);
                } else {
                    self.ask(
                        RemoteRequest::Hello {
                            client: self.client.clone(),
                        },
                        out,
                    );
                }
            }
            StoreAnswer::HeldByOther { remaining_ms } => {
                self.waiting.stand_by(&self.config, remaining_ms, now);
                self.enter(State::Backoff, out);
                out.notice(Notice::Standby);
                self.end_cycle(CycleEnd::Standby, out);
            }
            StoreAnswer::Greeted {
                epoch_changed,
                token,
                register,
            } => {
                if epoch_changed {
                    out.notice(Notice::EpochChanged);
                }
                self.pusher.token = token;
                match register {
                    None => self.greeted(now, out),
                    Some(_) if !self.may_ask(0) => self.used_up(now, out),
                    Some(types) => {
                        let client = self.client.clone();
                        self.ask(RemoteRequest::Register { client, types }, out);
                    }
                }
            }
            StoreAnswer::RegisteredNoted => self.greeted(now, out),
            StoreAnswer::OtherAccount { recorded } => {
                let offered = self.greeting.take().map(|hello| hello.principal);
                self.refused = Some(Refused::Account {
                    recorded: recorded.clone(),
                    offered: offered.clone(),
                });
                self.enter(State::BlockedAuth, out);
                if let Some(offered) = offered {
                    out.notice(Notice::OtherAccount { recorded, offered });
                }
                self.end_cycle(CycleEnd::CredentialsNeeded, out);
            }
            _ => {}
        }
    }

    /// Both sides know of each other: the session holds until something says otherwise. Whatever
    /// comes in between, it is greeted again (I1).
    fn greeted(&mut self, now: Now, out: &mut Effects) {
        self.session = self.greeting.take();
        self.greeted_ms = now.monotonic_ms;
        self.fetches_nothing = false;
        self.begin_round(now, out);
    }

    /// What the remote said of itself may be out of date when it is that old: it is greeted again.
    pub(super) fn doubt_greeting(&mut self, age_ms: u64, now: Now) {
        if now.monotonic_ms.saturating_sub(self.greeted_ms) >= age_ms {
            self.session = None;
        }
    }

    pub(super) fn connecting_hello(
        &mut self,
        answer: Result<Hello, RemoteError>,
        now: Now,
        out: &mut Effects,
    ) {
        self.under_way = None;
        match answer {
            Ok(hello) => {
                self.pusher.suspects.reached();
                self.greeting = Some(hello.clone());
                out.store(StoreWork::Greet(hello));
            }
            Err(error) => self.remote_failed(error, now, out),
        }
    }

    /// The remote was told what the tables look like. One that does not want to know can be synced
    /// with all the same.
    pub(super) fn connecting_registered(
        &mut self,
        answer: Result<(), RemoteError>,
        now: Now,
        out: &mut Effects,
    ) {
        self.under_way = None;
        match answer {
            Ok(()) => out.store(StoreWork::NoteRegistered),
            Err(RemoteError::Misconfigured { .. } | RemoteError::TooLarge { .. }) => {
                self.greeted(now, out);
            }
            Err(error) => self.remote_failed(error, now, out),
        }
    }

    /// The remote refused the credentials: ask for new ones once, then wait for them.
    pub(super) fn credentials_refused(&mut self, detail: String, out: &mut Effects) {
        self.session = None;
        self.refused = Some(Refused::Credentials(detail.clone()));
        self.enter(State::BlockedAuth, out);
        if self.refreshed {
            self.refreshed = false;
            out.notice(Notice::CredentialsNeeded { detail });
            self.end_cycle(CycleEnd::CredentialsNeeded, out);
        } else {
            out.0.push(Effect::RefreshCredentials);
        }
    }

    pub(super) fn on_credentials(
        &mut self,
        refresh: Result<(), String>,
        now: Now,
        out: &mut Effects,
    ) {
        match refresh {
            Ok(()) => {
                self.refreshed = true;
                self.resume_cycle(now, out);
            }
            Err(detail) => {
                self.refused = Some(Refused::Credentials(detail.clone()));
                out.notice(Notice::CredentialsNeeded { detail });
                self.end_cycle(CycleEnd::CredentialsNeeded, out);
            }
        }
    }
}
