//! Listening: keeps a live stream open while there is an engine to wake, and wakes it.
//!
//! A hint becomes a trigger only if it says more than was applied. It decides nothing else: when to
//! poll while hints are heard, and what a hint may cut short, is the machine's business. A stream
//! that ends is opened again after a back-off of its own; one that cannot be opened for good is not
//! asked for again before the remote was greeted anew.

use super::Driver;
use crate::Error;
use crate::driver::random_seed;
use crate::handle::Told;
use rusqlite::OptionalExtension;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline_core::{
    Config, CycleEnd, Dice, Input, ListenEnd, Live, Notice, Reason, Reconnect, Remote, RemoteError,
    State, SyncOrder,
};
use syncline_protocol::{ClientId, Head, Scope};
use syncline_store::LiveUpdates;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// More scopes than anybody is granted.
const MOST_SCOPES: usize = 1_000;

type Heads = BTreeMap<Scope, Head>;

pub(super) struct Listener {
    wanted: LiveUpdates,
    remote: Arc<dyn Remote>,
    config: Config,
    dice: Dice,
    stage: Stage,
    reconnect: Reconnect,
    /// The remote was greeted since it said that it gives no hints.
    greeted: bool,
    /// Hints were heard and are not any more, which the machine does not know yet.
    lost: bool,
    /// What was heard and not compared with what was applied.
    heads: Heads,
}

enum Stage {
    /// Nothing is heard, and nothing is done about it.
    Quiet,
    /// Until the stream is opened again.
    Waiting(Instant),
    Listening {
        task: JoinSet<ListenEnd>,
        heads: watch::Receiver<Heads>,
        since: Instant,
        heard: bool,
    },
}

/// What happens while listening.
pub(super) enum Event {
    Heard,
    Ended(Result<ListenEnd, JoinError>),
    Due,
}

impl Listener {
    pub(super) fn new(
        remote: Arc<dyn Remote>,
        config: Config,
        wanted: LiveUpdates,
    ) -> Result<Self, Error> {
        Ok(Self {
            wanted,
            remote,
            config,
            dice: Dice::seeded(random_seed()?),
            stage: Stage::Quiet,
            reconnect: Reconnect::default(),
            greeted: true,
            lost: false,
            heads: Heads::new(),
        })
    }

    /// Waits for the next event; dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Event {
        match &mut self.stage {
            Stage::Quiet => std::future::pending().await,
            Stage::Waiting(until) => {
                tokio::time::sleep_until((*until).into()).await;
                Event::Due
            }
            Stage::Listening { task, heads, .. } => tokio::select! {
                biased; // what was heard before the end counts
                Ok(()) = heads.changed() => Event::Heard,
                Some(end) = task.join_next() => Event::Ended(end),
            },
        }
    }

    /// The remote is being greeted.
    pub(super) fn greeting(&mut self) {
        self.greeted = true;
    }

    /// A cycle has ended: opens a stream in a moment, where that is wanted.
    fn cycle_ended(&mut self, end: &CycleEnd) {
        let wanted = self.wanted == LiveUpdates::On && self.config.order != SyncOrder::PushOnly;
        if !wanted || !self.greeted || matches!(self.stage, Stage::Listening { .. }) {
            return;
        }
        let planned = matches!(self.stage, Stage::Waiting(_));
        let (reconnect, dice) = (&mut self.reconnect, &mut self.dice);
        if let Some(wait) = reconnect.cycle_ended(end, planned, &self.config, dice) {
            let latest = Instant::now() + Duration::from_millis(wait);
            self.stage = Stage::Waiting(match self.stage {
                Stage::Waiting(at) => at.min(latest),
                _ => latest,
            });
        }
    }

    fn start(&mut self, client: ClientId) {
        let (sender, heads) = watch::channel(Heads::new());
        let mut task = JoinSet::new();
        task.spawn(listen(Arc::clone(&self.remote), client, sender));
        self.stage = Stage::Listening {
            task,
            heads,
            since: Instant::now(),
            heard: false,
        };
    }

    /// Takes over what was heard; true when it is the first of this stream.
    fn take(&mut self) -> bool {
        let Stage::Listening { heads, heard, .. } = &mut self.stage else {
            return false;
        };
        self.heads.extend(heads.borrow_and_update().clone());
        !std::mem::replace(heard, true)
    }

    /// Stops listening.
    pub(super) fn hush(&mut self) {
        self.heads.clear();
        self.leave(Stage::Quiet);
    }

    fn leave(&mut self, stage: Stage) {
        let left = std::mem::replace(&mut self.stage, stage);
        self.lost |= matches!(left, Stage::Listening { heard: true, .. });
    }

    /// After the stream's end: waits, or falls quiet.
    fn ended(&mut self, end: Result<ListenEnd, JoinError>) {
        let end = end.unwrap_or_else(|error| {
            let detail = error.to_string();
            ListenEnd::Failed(RemoteError::Unreachable { detail })
        });
        let heard_ms = match &self.stage {
            Stage::Listening {
                since, heard: true, ..
            } => Some(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)),
            _ => None,
        };
        if end == ListenEnd::NotOffered {
            self.greeted = false;
        }
        let (reconnect, dice) = (&mut self.reconnect, &mut self.dice);
        let wait = reconnect.ended(&end, heard_ms, &self.config, dice);
        self.leave(match wait {
            Some(wait) => Stage::Waiting(Instant::now() + Duration::from_millis(wait)),
            None => Stage::Quiet,
        });
    }
}

/// One stream, opened once more with other credentials if the first are refused.
async fn listen(
    remote: Arc<dyn Remote>,
    client: ClientId,
    heads: watch::Sender<Heads>,
) -> ListenEnd {
    let heads = Arc::new(heads);
    let hear = || {
        let heads = Arc::clone(&heads);
        Box::new(move |head: Head| {
            heads.send_modify(|all| {
                if all.len() < MOST_SCOPES || all.contains_key(&head.scope) {
                    all.insert(head.scope.clone(), head);
                }
            });
        })
    };
    let end = remote.listen(client.clone(), hear()).await;
    if let ListenEnd::Failed(RemoteError::Auth { .. }) = end
        && remote.refresh_credentials().await.is_ok()
    {
        return remote.listen(client, hear()).await;
    }
    end
}

impl Driver {
    pub(super) fn on_live(&mut self, event: Event, told: &Told) {
        match event {
            Event::Heard => {
                if self.listener.take() {
                    tracing::debug!("hints are heard");
                    self.feed(Input::Live(Live::Heard), told);
                }
            }
            Event::Due => self.listen(),
            Event::Ended(end) => {
                tracing::debug!(?end, "no more hints are heard");
                let refused = matches!(&end, Ok(ListenEnd::Failed(RemoteError::Auth { .. })));
                self.listener.ended(end);
                if refused {
                    // The engine asks for credentials as it does for every request, and tells.
                    self.feed(Input::Trigger(Reason::Timer), told);
                }
            }
        }
    }

    /// Opens a stream unless the engine has reasons to leave the remote alone: then the end of its
    /// next cycle opens it.
    fn listen(&mut self) {
        let busy = matches!(
            self.engine.state(),
            State::Connecting | State::Pushing | State::Pulling
        );
        let client = self.engine.store().client_id();
        match client {
            Ok(client) if !self.passes.is_under_way() && (busy || self.rests()) => {
                self.listener.start(client)
            }
            _ => self.listener.hush(),
        }
    }

    /// Listening follows the engine: it begins when a cycle has come to its end, and ends when the
    /// engine may not ask anything of the remote.
    pub(super) fn follow(&mut self, notice: &Notice) {
        match notice {
            Notice::CycleEnded(CycleEnd::Standby | CycleEnd::CredentialsNeeded)
            | Notice::IdentityChanged => self.listener.hush(),
            Notice::CycleEnded(end) => self.listener.cycle_ended(end),
            Notice::StateChanged { to, .. } if !is_awake(*to) => self.listener.hush(),
            _ => {}
        }
    }

    fn rests(&self) -> bool {
        matches!(self.engine.state(), State::Idle | State::BlockedConflict)
    }

    /// Asks for a sync if something was heard that the last cycle did not bring.
    pub(super) fn consider_hints(&mut self, told: &Told) {
        if std::mem::take(&mut self.listener.lost) {
            self.feed(Input::Live(Live::Lost), told);
        }
        if self.listener.heads.is_empty() || !self.rests() {
            return;
        }
        let heads = std::mem::take(&mut self.listener.heads);
        if heads.values().any(|head| self.is_news(head)) {
            self.feed(Input::Trigger(Reason::RemoteHint), told);
        }
    }

    fn is_news(&self, head: &Head) -> bool {
        let applied = self
            .watch
            .prepare_cached(
                "SELECT epoch, position FROM syncline_cursor WHERE scope = ?1 AND phase = 'feed'",
            )
            .and_then(|mut statement| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                statement.query_row([head.scope.as_str()], read).optional()
            });
        let applied: Option<(String, i64)> = applied.unwrap_or_default();
        applied.is_none_or(|(epoch, position)| {
            epoch != head.epoch.as_str() || position < head.position
        })
    }
}

/// Whether an engine in this state may have a stream open.
fn is_awake(state: State) -> bool {
    matches!(
        state,
        State::Idle
            | State::Connecting
            | State::Pushing
            | State::Pulling
            | State::BlockedConflict
            | State::Backoff
    )
}
