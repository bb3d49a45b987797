//! The async driver: it moves requests and time, and decides nothing.
//!
//! One thread, one single-threaded runtime, one loop: a command, an answer, a deadline or a write
//! by somebody else becomes an input; what comes out is sent, told or waited for.

mod live;
pub(crate) mod pass;
mod watch;

use crate::awaiting::{Awaiting, SyncedEnd, Writes};
use crate::handle::{SyncEnd, Told};
use crate::record::TraceFile;
use crate::{Clock, Engine, Error, Outgoing, meter};
use live::Listener;
use pass::{PassEnd, Passes};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline_core::trace::Recorder;
use syncline_core::{
    Allowance, Config, CycleEnd, Input, Notice, Reason, Remote, RemoteError, RemoteRequest, State,
};
use syncline_protocol::Fields;
use syncline_store::conflict::Choice;
use syncline_store::{Discarded, LiveUpdates, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use watch::Watch;

/// How long a request gets to reach the wire before the thread turns to the file again.
const HEAD_START: Duration = Duration::from_millis(1);

/// What the handle asks of the driver.
pub(crate) enum Command {
    Input(Input),
    /// One full cycle; transient failures are ridden out until the moment given.
    Sync {
        until: Instant,
        done: oneshot::Sender<SyncEnd>,
    },
    AwaitSynced {
        writes: Writes,
        until: Instant,
        done: oneshot::Sender<SyncedEnd>,
    },
    Retry {
        seq: i64,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Edit {
        seq: i64,
        changes: Fields,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Discard {
        seq: i64,
        done: oneshot::Sender<Result<Discarded, StoreError>>,
    },
    ConfirmSweep {
        entity_type: String,
        done: oneshot::Sender<Result<u64, StoreError>>,
    },
    RestoreSweep {
        entity_type: String,
        done: oneshot::Sender<Result<u64, StoreError>>,
    },
    ResolveConflict {
        id: i64,
        choice: Choice,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    UndoResolution {
        id: i64,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// One bounded pass.
    RunFor {
        until: Instant,
        allowance: Allowance,
        done: oneshot::Sender<PassEnd>,
    },
    Suspend {
        done: oneshot::Sender<()>,
    },
    Stop {
        done: oneshot::Sender<()>,
    },
}

struct Waiter {
    until: Instant,
    done: oneshot::Sender<SyncEnd>,
    started: bool,
    last: Option<CycleEnd>,
}

pub(crate) struct Driver {
    engine: Engine,
    remote: Arc<dyn Remote>,
    clock: Clock,
    tasks: JoinSet<Input>,
    listener: Listener,
    waiters: Vec<Waiter>,
    passes: Passes,
    writes: Watch,
    awaiting: Awaiting,
    watch: Connection,
    /// `PRAGMA data_version` and the newest entry of the outbox, when last looked at.
    seen: (i64, i64),
}

impl Driver {
    pub(crate) fn new(
        store: Store,
        remote: Arc<dyn Remote>,
        config: Config,
        live: LiveUpdates,
        recording: Option<(Recorder, TraceFile)>,
        path: &Path,
    ) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let watch = Connection::open_with_flags(path, flags)?;
        watch.busy_timeout(Duration::from_secs(1))?;
        let no_watch = |error: std::io::Error| Error::NotRunning(Some(error.to_string()));
        let writes = Watch::start(path).map_err(no_watch)?;
        let listener = Listener::new(Arc::clone(&remote), config.clone(), live)?;
        let mut engine = Engine::new(store, config, random_seed()?)?;
        if let Some((recorder, file)) = recording {
            engine.record(recorder, file);
        }
        Ok(Self {
            listener,
            engine,
            remote,
            clock: Clock::start(),
            tasks: JoinSet::new(),
            waiters: Vec::new(),
            passes: Passes::default(),
            writes,
            awaiting: Awaiting::default(),
            watch,
            seen: (-1, 0),
        })
    }

    /// Runs until told to stop or until nobody holds the handle any more.
    pub(crate) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, told: Told) {
        loop {
            self.catch_up(&told).await;
            self.attend_passes(&told);
            self.consider_hints(&told);
            let wake = self.next_wake();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop { done }) => {
                        self.stop(&told);
                        // Nobody waits for it any more if this fails.
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.command(command, &told),
                    None => return self.stop(&told),
                },
                Some(answer) = self.tasks.join_next() => {
                    match answer {
                        Ok(input) => self.feed(input, &told),
                        Err(error) if error.is_cancelled() => {}
                        Err(error) => self.task_died(&error, &told),
                    }
                }
                event = self.listener.next() => self.on_live(event, &told),
                () = tokio::time::sleep_until(wake.into()) => {
                    self.feed(Input::Tick, &told);
                    self.expire_waiters();
                }
                () = self.writes.written() => self.look_for_writes(&told),
            }
        }
    }

    /// A remote that panicked has no answer: its request counts as lost, as any may.
    fn task_died(&mut self, error: &tokio::task::JoinError, told: &Told) {
        tracing::error!(%error, "the remote failed in a way it never should");
        self.feed(Input::NetworkLost, told);
        let detail = "the remote failed while it asked for credentials".to_owned();
        self.feed(Input::Credentials(Err(detail)), told);
    }

    fn next_wake(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let machine = self
            .engine
            .next_wakeup()
            .map_or(far, |(at, _)| self.clock.instant(at));
        self.waiters
            .iter()
            .map(|waiter| waiter.until)
            .chain(self.awaiting.next_deadline())
            .chain(self.passes.next_deadline())
            .fold(machine, Instant::min)
    }

    fn stop(&mut self, told: &Told) {
        self.tasks.abort_all();
        self.listener.hush();
        self.engine.stop(self.clock.now());
        told.engine(self.engine.state(), self.engine.view());
    }

    fn command(&mut self, command: Command, told: &Told) {
        let now = self.clock.now();
        match command {
            Command::Input(Input::Trigger(Reason::MutationEnqueued)) => self.look_for_writes(told),
            Command::Input(input) => {
                let pause = input == Input::Pause;
                self.feed(input, told);
                if pause && self.engine.state() == State::Paused {
                    self.engine.stand_aside(self.clock.now());
                }
            }
            Command::Sync { until, done } => {
                self.waiters.push(Waiter {
                    until,
                    done,
                    started: false,
                    last: None,
                });
                self.feed(Input::Trigger(Reason::UserAsked), told);
            }
            Command::AwaitSynced {
                writes,
                until,
                done,
            } => self.awaiting.push(&self.watch, writes, until, done),
            Command::Retry { seq, done } => {
                let _ = done.send(self.engine.store().retry(seq, now));
                self.feed(Input::Trigger(Reason::Remediated), told);
            }
            Command::Edit { seq, changes, done } => {
                let _ = done.send(self.engine.store().edit(seq, &changes, now));
                self.feed(Input::Trigger(Reason::Remediated), told);
            }
            Command::Discard { seq, done } => {
                let _ = done.send(self.engine.store().discard(seq, now));
                self.feed(Input::Trigger(Reason::Remediated), told);
            }
            Command::ConfirmSweep { entity_type, done } => {
                let _ = done.send(self.engine.store().confirm_sweep(&entity_type, now));
                self.feed(Input::Trigger(Reason::Remediated), told);
            }
            Command::RestoreSweep { entity_type, done } => {
                let _ = done.send(self.engine.store().restore_sweep(&entity_type, now));
                self.feed(Input::Trigger(Reason::Remediated), told);
            }
            Command::ResolveConflict { id, choice, done } => {
                let _ = done.send(self.engine.store().resolve_conflict(id, &choice, now));
                self.feed(Input::Trigger(Reason::Remediated), told);
            }
            Command::UndoResolution { id, done } => {
                let _ = done.send(self.engine.store().undo_resolution(id, now));
                self.feed(Input::Trigger(Reason::Remediated), told);
            }
            Command::RunFor {
                until,
                allowance,
                done,
            } => self.passes.push(until, allowance, done),
            Command::Suspend { done } => {
                self.suspend(told);
                // Nobody waits for it any more if this fails.
                let _ = done.send(());
            }
            Command::Stop { .. } => {}
        }
    }

    /// Does the work that was left until requests are on their way.
    async fn catch_up(&mut self, told: &Told) {
        while self.engine.has_more() {
            tokio::time::sleep(HEAD_START).await;
            let outgoing = self.engine.proceed(self.clock.now());
            self.dispatch(outgoing.unwrap_or_default(), told);
        }
    }

    fn feed(&mut self, input: Input, told: &Told) {
        let outgoing = self.engine.handle(input, self.clock.now());
        self.dispatch(outgoing, told);
    }

    fn dispatch(&mut self, outgoing: Vec<Outgoing>, told: &Told) {
        for outgoing in outgoing {
            match outgoing {
                Outgoing::Request(id, request) => {
                    if matches!(request, RemoteRequest::Hello { .. }) {
                        self.listener.greeting();
                    }
                    let remote = Arc::clone(&self.remote);
                    self.tasks.spawn(async move {
                        let (kind, begun) = (request.word(), Instant::now());
                        let answer = remote.send(request).await;
                        meter::answered(kind, &answer, begun.elapsed());
                        Input::Remote(id, answer)
                    });
                }
                Outgoing::RefreshCredentials => {
                    let remote = Arc::clone(&self.remote);
                    self.tasks.spawn(async move {
                        Input::Credentials(remote.refresh_credentials().await)
                    });
                }
                Outgoing::Notice(notice) => {
                    self.tell_waiters(&notice);
                    self.passes.follow(&notice);
                    self.follow(&notice);
                    told.notice(notice);
                }
            }
        }
        self.awaiting.look(&self.watch);
        told.engine(self.engine.state(), self.engine.view());
    }

    fn tell_waiters(&mut self, notice: &Notice) {
        match notice {
            Notice::CycleStarted { reasons } if reasons.contains(&Reason::UserAsked) => {
                self.waiters
                    .iter_mut()
                    .for_each(|waiter| waiter.started = true);
            }
            Notice::CycleEnded(end) => {
                let now = Instant::now();
                let passing = matches!(
                    end,
                    CycleEnd::RemoteFailed(RemoteError::Transient { .. })
                        | CycleEnd::RoundsUsedUp
                        | CycleEnd::StoreFailed(_)
                        | CycleEnd::Standby
                );
                // What keeps this cycle from going on keeps the one that was asked for from it too;
                // a machine that waits for credentials would not even start that.
                let final_for_all =
                    matches!(end, CycleEnd::CredentialsNeeded | CycleEnd::RemoteFailed(_));
                for waiter in std::mem::take(&mut self.waiters) {
                    let answered = waiter.started || final_for_all;
                    if !answered || (passing && now < waiter.until) {
                        let last = answered.then(|| end.clone());
                        self.waiters.push(Waiter {
                            last: last.or(waiter.last.clone()),
                            ..waiter
                        });
                    } else {
                        // Nobody waits for it any more if this fails.
                        let _ = waiter.done.send(SyncEnd::Cycle(end.clone()));
                    }
                }
            }
            _ => {}
        }
    }

    fn expire_waiters(&mut self) {
        let now = Instant::now();
        for waiter in std::mem::take(&mut self.waiters) {
            if now < waiter.until {
                self.waiters.push(waiter);
            } else {
                let end = waiter.last.map_or(SyncEnd::TimedOut, SyncEnd::Cycle);
                let _ = waiter.done.send(end);
            }
        }
        self.awaiting.look(&self.watch);
    }

    /// Writes by the app, also in other connections and processes: asks for a sync when the outbox
    /// has something new, as urgently as the most urgent of it.
    fn look_for_writes(&mut self, told: &Told) {
        let version = self
            .watch
            .pragma_query_value(None, "data_version", |row| row.get(0));
        let Ok(version) = version else { return };
        if version == self.seen.0 {
            return;
        }
        let newest = self
            .watch
            .prepare_cached(
                "SELECT max(seq), min(coalesce(lane, 1)) FROM syncline_outbox
                  WHERE state = 'pending' AND seq > ?1",
            )
            .and_then(|mut statement| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                statement.query_row([self.seen.1], read)
            });
        let Ok((newest, lane)) = newest else { return };
        let newest: Option<i64> = newest;
        self.seen = (version, newest.unwrap_or(self.seen.1));
        told.changed();
        if newest.is_some() {
            self.engine.store().tell_recorded();
            let reason = match lane {
                Some(0) => Reason::UrgentMutation,
                Some(2) => Reason::BackgroundMutation,
                _ => Reason::MutationEnqueued,
            };
            self.feed(Input::Trigger(reason), told);
        }
    }
}

/// A random seed.
pub(crate) fn random_seed() -> Result<u64, Error> {
    getrandom::u64().map_err(Error::Random)
}

/// 32 random hexadecimal digits.
pub(crate) fn random_name() -> Result<String, Error> {
    Ok(format!("{:016x}{:016x}", random_seed()?, random_seed()?))
}
