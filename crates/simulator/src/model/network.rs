//! The network of the core level: serves requests, and bends, loses, doubles and delays what comes back.

use super::plan::Fate;
use super::server::{Push, Refused, Sent};
use super::world::{Asked, World, remember};
use crate::level::Broken;
use std::time::Duration;
use syncline_core::{
    Batch, Fetched, Input, Page, PageChange, RemoteAnswer, RemoteError, RemoteRequest,
};
use syncline_protocol::{
    Access, Epoch, Grant, Hello, IdempotencyKey, KeyOutcome, Limits, Outcome, PagePhase, Principal,
    PushResponse, PushResult, Scope,
};

impl World {
    /// The request under way of a process comes to its end.
    pub(crate) fn deliver(&mut self, at: usize, fate: Fate) -> Result<(), Broken> {
        let Some(process) = self.processes.get(at).filter(|process| process.alive) else {
            return Ok(());
        };
        let (file, Some(asked)) = (process.file, process.asked.clone()) else {
            return Ok(());
        };
        let (id, request) = (asked.id, &asked.request);
        if fate != Fate::Answered {
            self.played.fault(name(fate));
        }
        let answer = match fate {
            Fate::Answered => self.serve(file, &asked)?,
            Fate::AnswerLost => {
                self.serve(file, &asked)?;
                refuse(request, unreachable())
            }
            Fate::Doubled => {
                self.serve(file, &asked)?;
                self.serve(file, &asked)?
            }
            Fate::BrokenAfter => {
                self.serve(file, &asked)?;
                refuse(request, transient(500, None))
            }
            Fate::Garbled => {
                self.serve(file, &asked)?;
                refuse(request, transient(200, None))
            }
            Fate::WrongKind => other_kind(request),
            Fate::Bent(how) => {
                let answer = self.serve(file, &asked)?;
                bend(request, answer, how)
            }
            refused => refuse(request, refusal(refused)),
        };
        if let Some(process) = self.processes.get_mut(at) {
            remember(process, id, &answer);
        }
        self.feed(at, Input::Remote(id, answer))
    }

    /// A request that was given up arrives after all; its answer is heard when nobody waits for it.
    pub(crate) fn ghost(&mut self, at: usize) -> Result<(), Broken> {
        let Some(process) = self.processes.get_mut(at) else {
            return Ok(());
        };
        let (file, Some(asked)) = (process.file, process.ghosts.pop()) else {
            return Ok(());
        };
        self.played.fault("late request");
        let answer = self.serve(file, &asked)?;
        self.feed(at, Input::Remote(asked.id, answer))
    }

    /// An answer is heard once more.
    pub(crate) fn echo(&mut self, at: usize) -> Result<(), Broken> {
        let Some(process) = self.processes.get_mut(at) else {
            return Ok(());
        };
        let Some((id, answer)) = process.echoes.pop() else {
            return Ok(());
        };
        // Otherwise it is an answer like any other.
        if process.asked.as_ref().is_some_and(|asked| asked.id == id) {
            return Ok(());
        }
        self.played.fault("doubled answer");
        self.feed(at, Input::Remote(id, answer))
    }

    fn serve(&mut self, file: usize, asked: &Asked) -> Result<RemoteAnswer, Broken> {
        let (request, subject) = (&asked.request, asked.subject);
        if self.accounts.get(file) != Some(&subject) {
            let detail = String::new();
            return Ok(refuse(request, RemoteError::Auth { detail }));
        }
        Ok(match request {
            RemoteRequest::Hello { .. } => RemoteAnswer::Hello(Ok(self.hello(subject))),
            RemoteRequest::Register { .. } => RemoteAnswer::Register(Ok(())),
            RemoteRequest::Fetch { wanted, .. } => {
                RemoteAnswer::Fetch(Ok(self.server.fetch(&wanted.ids)))
            }
            RemoteRequest::Push {
                client,
                batch,
                token,
            } => {
                let mutations = sent(batch);
                let push = Push {
                    client,
                    subject,
                    token: token.as_ref(),
                    mutations: &mutations,
                };
                let answer = self.server.push(&push);
                for effect in std::mem::take(&mut self.server.effects) {
                    self.played.count("effects", 1);
                    self.ledger.effect(&effect)?;
                }
                RemoteAnswer::Push(answer.map_err(refused_push))
            }
            RemoteRequest::Cancel { client, key } => {
                let result = self.server.cancel(client, key);
                RemoteAnswer::Cancel(Ok(KeyOutcome::Final { result }))
            }
            RemoteRequest::Pull { cursor, limit, .. } => {
                let answer = self.server.pull(cursor.as_deref(), *limit);
                let gone = |_| RemoteError::CursorGone {
                    detail: String::new(),
                };
                RemoteAnswer::Pull(answer.map_err(gone).map(|(changes, end)| Page {
                    bytes: 100 * changes.len() as u64,
                    changes: changes.into_iter().map(PageChange::Valid).collect(),
                    end,
                }))
            }
        })
    }

    fn hello(&self, subject: u8) -> Hello {
        Hello {
            protocol_versions: Vec::new(),
            server: String::new(),
            epoch: self.server.epoch_name(),
            server_time_ms: 0,
            principal: Principal {
                tenant: "t".to_owned(),
                subject: format!("s{subject}"),
            },
            scopes: vec![Grant {
                scope: Scope::new("s"),
                access: Access::Write,
                horizon: self.server.horizon,
            }],
            limits: Limits::default(),
            key_retention_ms: 0,
        }
    }
}

fn sent(batch: &Batch) -> Vec<Sent<'_>> {
    let entries = batch.entries.iter();
    entries
        .map(|entry| Sent {
            bytes: &entry.frozen,
            origin: entry.origin.as_ref(),
            group: entry.group.as_deref(),
        })
        .collect()
}

fn refused_push(refused: Refused) -> RemoteError {
    let detail = String::new();
    match refused {
        Refused::Mismatch => RemoteError::Misconfigured {
            status: 403,
            detail,
        },
        Refused::Forked => RemoteError::Forked { detail },
        Refused::Malformed => RemoteError::Misconfigured {
            status: 400,
            detail,
        },
        Refused::Broken => transient(500, None),
    }
}

fn unreachable() -> RemoteError {
    RemoteError::Unreachable {
        detail: String::new(),
    }
}

fn transient(status: u16, retry_after_s: Option<u32>) -> RemoteError {
    RemoteError::Transient {
        status,
        detail: String::new(),
        retry_after: retry_after_s.map(|s| match s {
            u32::MAX => Duration::MAX,
            s => Duration::from_secs(u64::from(s)),
        }),
        overloaded: matches!(status, 429 | 503),
    }
}

fn refusal(fate: Fate) -> RemoteError {
    let detail = String::new();
    match fate {
        Fate::Overloaded(0) => transient(503, None),
        Fate::Overloaded(seconds) => transient(429, Some(seconds)),
        Fate::Broken(0) => transient(502, None),
        Fate::Broken(seconds) => transient(500, Some(seconds)),
        Fate::Unauthorized => RemoteError::Auth { detail },
        Fate::Forked => RemoteError::Forked { detail },
        Fate::TooLarge => RemoteError::TooLarge { detail },
        Fate::CursorGone => RemoteError::CursorGone { detail },
        Fate::Incompatible => RemoteError::Incompatible { detail },
        Fate::Misconfigured => RemoteError::Misconfigured {
            status: 404,
            detail,
        },
        _ => unreachable(),
    }
}

fn refuse(request: &RemoteRequest, error: RemoteError) -> RemoteAnswer {
    match request {
        RemoteRequest::Hello { .. } => RemoteAnswer::Hello(Err(error)),
        RemoteRequest::Register { .. } => RemoteAnswer::Register(Err(error)),
        RemoteRequest::Fetch { .. } => RemoteAnswer::Fetch(Err(error)),
        RemoteRequest::Push { .. } => RemoteAnswer::Push(Err(error)),
        RemoteRequest::Cancel { .. } => RemoteAnswer::Cancel(Err(error)),
        RemoteRequest::Pull { .. } => RemoteAnswer::Pull(Err(error)),
    }
}

fn other_kind(request: &RemoteRequest) -> RemoteAnswer {
    match request {
        RemoteRequest::Hello { .. } => RemoteAnswer::Register(Ok(())),
        RemoteRequest::Push { .. } => RemoteAnswer::Pull(Err(unreachable())),
        RemoteRequest::Pull { .. } => RemoteAnswer::Push(Err(unreachable())),
        RemoteRequest::Register { .. }
        | RemoteRequest::Cancel { .. }
        | RemoteRequest::Fetch { .. } => RemoteAnswer::Hello(Err(unreachable())),
    }
}

/// What a server that is broken or hostile makes of an answer. Only what can be noticed: a lie that
/// looks like the truth cannot be told from it.
fn bend(request: &RemoteRequest, answer: RemoteAnswer, how: u8) -> RemoteAnswer {
    match answer {
        RemoteAnswer::Hello(Ok(mut hello)) => {
            bend_hello(&mut hello, how);
            RemoteAnswer::Hello(Ok(hello))
        }
        RemoteAnswer::Push(Ok(mut response)) => {
            bend_push(&mut response, how);
            RemoteAnswer::Push(Ok(response))
        }
        RemoteAnswer::Pull(Ok(mut page)) => {
            if let RemoteRequest::Pull { cursor, limit, .. } = request {
                bend_page(&mut page, cursor.as_deref(), *limit, how);
            }
            RemoteAnswer::Pull(Ok(page))
        }
        RemoteAnswer::Fetch(Ok(mut fetched)) => {
            bend_fetched(&mut fetched, how);
            RemoteAnswer::Fetch(Ok(fetched))
        }
        RemoteAnswer::Cancel(Ok(_)) => RemoteAnswer::Cancel(Ok(KeyOutcome::Unknown)),
        other => other,
    }
}

fn bend_hello(hello: &mut Hello, how: u8) {
    let most = if how.is_multiple_of(2) { 0 } else { usize::MAX };
    hello.limits = Limits {
        push_mutations: most,
        push_bytes: most,
        mutation_bytes: most,
        page_changes: most,
    };
}

fn bend_push(response: &mut PushResponse, how: u8) {
    let results = &mut response.results;
    match how % 7 {
        0 if how % 2 == 1 && !results.is_empty() => drop(results.remove(0)),
        0 => drop(results.pop()),
        1 => results.clear(),
        2 => results.reverse(),
        3 => results.push(PushResult {
            key: IdempotencyKey::new("nobody's"),
            outcome: Outcome::Expired,
            duplicate: false,
        }),
        4 => response.epoch = Epoch::new("another"),
        5 => response.token = None,
        _ => {
            let last = results.last().cloned();
            results.extend(last);
        }
    }
}

fn bend_fetched(fetched: &mut Fetched, how: u8) {
    match how % 4 {
        0 => fetched.epoch = Epoch::new("another"),
        1 => fetched.position = -1,
        2 => fetched.changes.clear(),
        _ => fetched.changes.push(PageChange::Invalid {
            raw: "{".to_owned(),
            detail: String::new(),
        }),
    }
}

fn bend_page(page: &mut Page, from: Option<&str>, limit: usize, how: u8) {
    let invalid = || PageChange::Invalid {
        raw: "{".to_owned(),
        detail: String::new(),
    };
    match how % 10 {
        0 => page.end.count += 1,
        1 => {
            page.changes.extend((0..=limit).map(|_| invalid()));
            page.end.count = page.changes.len();
        }
        2 => page.end.cursor.clear(),
        3 => page.end.cursor = "x".repeat(9_000),
        4 => {
            page.end.cursor = from.unwrap_or("x").to_owned();
            page.end.at_head = false;
        }
        5 => page.end.position = -1,
        6 => {
            page.end.phase = match page.end.phase {
                PagePhase::Feed => PagePhase::Snapshot,
                PagePhase::Snapshot | PagePhase::SnapshotEnd => PagePhase::Feed,
            }
        }
        7 => {
            page.changes.push(invalid());
            page.end.count += 1;
        }
        8 => page.end.at_head = true,
        _ => {
            page.changes.reverse();
            page.end.count += usize::from(page.changes.len() < 2);
        }
    }
}

fn name(fate: Fate) -> &'static str {
    match fate {
        Fate::Answered => "none",
        Fate::Lost => "request lost",
        Fate::AnswerLost => "answer lost",
        Fate::Doubled => "request doubled",
        Fate::Overloaded(0) => "overloaded",
        Fate::Overloaded(_) => "overloaded with retry-after",
        Fate::Broken(0) => "server error",
        Fate::Broken(_) => "server error with retry-after",
        Fate::BrokenAfter => "server error after the effect",
        Fate::Garbled => "garbled answer",
        Fate::Unauthorized => "unauthorized",
        Fate::Forked => "forked",
        Fate::TooLarge => "too large",
        Fate::CursorGone => "cursor gone",
        Fate::Incompatible => "incompatible",
        Fate::Misconfigured => "misconfigured",
        Fate::WrongKind => "answer of another kind",
        Fate::Bent(_) => "bent answer",
    }
}
