//! The handle that apps hold.

use crate::awaiting::{SyncedEnd, Writes};
use crate::driver::pass::{Budget, PassEnd};
use crate::driver::{Command, Driver};
use crate::live_query::LiveQueries;
use crate::write::{Recorded, WriteOptions};
use crate::{Builder, Clock, Error, meter, write};
use rusqlite::{Connection, Transaction};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use syncline_core::{Constraints, CycleEnd, Input, Notice, Reason, State};
use syncline_protocol::{EntityId, Fields};
use syncline_store::conflict::{self, Choice, Conflict, ConflictDetails, ConflictFilter};
use syncline_store::ids;
use syncline_store::status::{self, EngineView, Status};
use syncline_store::{Discarded, Settings};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Notices kept for a subscriber that is slow; older ones are dropped for it.
const NOTICES_KEPT: usize = 1024;

/// A running engine and the way to write. May be shared between threads.
///
/// Dropping it stops the engine, as [`Syncline::close`] does, without waiting for its end.
pub struct Syncline {
    commands: mpsc::UnboundedSender<Command>,
    notices: broadcast::Sender<Notice>,
    /// Subscribed before the engine starts; whoever asks first gets it.
    from_start: Mutex<Option<broadcast::Receiver<Notice>>>,
    changes: watch::Receiver<Seen>,
    pub(crate) queries: LiveQueries,
    writer: Mutex<Connection>,
    /// Unsettled mutations at which a write is refused.
    outbox_rows: u64,
    pub(crate) path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// How a sync that was asked for ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncEnd {
    /// A cycle ended like this.
    Cycle(CycleEnd),
    /// No cycle ended in time; it goes on.
    TimedOut,
}

/// What the driver tells the handle's holders.
pub(crate) struct Told {
    notices: broadcast::Sender<Notice>,
    changes: watch::Sender<Seen>,
}

/// Where the engine is, and how often something changed.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    state: State,
    /// `None` before it has said anything.
    engine: Option<EngineView>,
    changes: u64,
}

impl Told {
    pub(crate) fn notice(&self, notice: Notice) {
        // Without a subscriber nobody is told; that is no error.
        let _ = self.notices.send(notice);
        self.changed();
    }

    pub(crate) fn engine(&self, state: State, view: &EngineView) {
        self.changes.send_if_modified(|seen| {
            let differs = seen.engine.as_ref() != Some(view);
            if differs {
                seen.engine = Some(view.clone());
                seen.state = state;
            }
            differs
        });
    }

    pub(crate) fn changed(&self) {
        self.changes
            .send_modify(|seen| seen.changes = seen.changes.wrapping_add(1));
    }
}

impl Syncline {
    /// Starts describing an engine for the database at `path`, which must exist.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }

    pub(crate) fn start(
        driver: Driver,
        writer: Connection,
        outbox_rows: u64,
        path: &Path,
        start: Vec<Input>,
    ) -> Result<Self, Error> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (notices, from_start) = broadcast::channel(NOTICES_KEPT);
        let (sender, changes) = watch::channel(Seen {
            state: State::Idle,
            engine: None,
            changes: 0,
        });
        let told = Told {
            notices: notices.clone(),
            changes: sender,
        };
        let not_running = |error: std::io::Error| Error::NotRunning(Some(error.to_string()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(not_running)?;
        let thread = std::thread::Builder::new()
            .name("syncline".to_owned())
            .spawn(move || runtime.block_on(driver.run(receiver, told)))
            .map_err(not_running)?;
        let handle = Self {
            commands,
            notices,
            from_start: Mutex::new(Some(from_start)),
            queries: LiveQueries::new(path, changes.clone()),
            changes,
            writer: Mutex::new(writer),
            outbox_rows,
            path: path.to_owned(),
            thread: Some(thread),
        };
        start.into_iter().for_each(|input| handle.input(input));
        handle.trigger_sync(Reason::AppStart);
        Ok(handle)
    }

    /// Writes in one transaction of plain SQL, recorded with it; then asks for a sync. Never waits
    /// for the network.
    ///
    /// # Errors
    /// Whatever `write` returns; SQLite's errors; [`Error::Unsyncable`] when something was written
    /// that no server could take. In each case everything is rolled back.
    pub fn write<T, E: From<Error> + From<rusqlite::Error>>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_with(&WriteOptions::default(), write)
            .map(|recorded| recorded.value)
    }

    /// As [`Syncline::write`], saying in which lane its mutations travel, whether they take effect
    /// all or none, what they wait for, and which command they are.
    pub fn write_with<T, E: From<Error> + From<rusqlite::Error>>(
        &self,
        options: &WriteOptions,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<Recorded<T>, E> {
        // A panic in an earlier write rolled its transaction back; the connection is as good as new.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let done = write::write(&mut writer, options, self.outbox_rows, write)?;
        drop(writer);
        self.trigger_sync(Reason::MutationEnqueued);
        Ok(done)
    }

    /// Asks for a sync and returns at once.
    pub fn trigger_sync(&self, reason: Reason) {
        self.input(Input::Trigger(reason));
    }

    /// Tells the engine that the network went away, so that it does not wait for an answer.
    pub fn network_lost(&self) {
        self.input(Input::NetworkLost);
    }

    /// Stops asking anything of the world until [`Syncline::resume`]: what is under way is given up (it
    /// is settled later, under the same keys), and another process may be the engine meanwhile. For
    /// hosts that are about to be suspended, and for users who want rest. Writes are recorded as ever.
    pub fn pause(&self) {
        self.input(Input::Pause);
    }

    /// As [`Syncline::pause`], and waits until nothing is open any more: no transaction, no lock, no
    /// statement, no request, no lease. To be called when the system announces that it will stop the
    /// process; what takes longest is the transaction under way, at most one page. [`Syncline::resume`]
    /// goes on from here, [`Syncline::run_for`] for one bounded pass.
    pub async fn suspend(&self) {
        let (done, suspended) = oneshot::channel();
        if self.commands.send(Command::Suspend { done }).is_ok() {
            // An engine that has ended has nothing open either.
            let _ = suspended.await;
        }
    }

    /// As [`Syncline::suspend`], blocking the calling thread. Not to be called in async code.
    pub fn suspend_blocking(&self) {
        let (done, suspended) = oneshot::channel();
        if self.commands.send(Command::Suspend { done }).is_ok() {
            let _ = suspended.blocking_recv();
        }
    }

    /// One bounded pass, for background tasks that get little time and network: syncs until everything
    /// is done or the budget has ended, and says what is left. It ends on time, but for a transaction
    /// under way; what was sent and not answered is settled by the next sync under the same keys.
    ///
    /// A paused or suspended engine is paused again afterwards, with nothing open. In another the pass is one
    /// more cycle, and the engine goes on as before. Several passes go one after the other.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use syncline::{Budget, Syncline};
    ///
    /// /// What an iOS `BGAppRefreshTask` or an Android `Worker` calls.
    /// async fn refresh(sync: &Syncline) -> bool {
    ///     let budget = Budget::time(Duration::from_secs(25)).bytes(2_000_000);
    ///     let pass = sync.run_for(budget).await;
    ///     pass.left.mutations == 0 && !pass.more_to_pull
    /// }
    /// ```
    pub async fn run_for(&self, budget: Budget) -> PassEnd {
        match self.ask_pass(budget) {
            Some(done) => done.await.unwrap_or_else(|_| PassEnd::not_running()),
            None => PassEnd::not_running(),
        }
    }

    /// As [`Syncline::run_for`], blocking the calling thread. Not to be called in async code.
    pub fn run_for_blocking(&self, budget: Budget) -> PassEnd {
        match self.ask_pass(budget) {
            Some(done) => done
                .blocking_recv()
                .unwrap_or_else(|_| PassEnd::not_running()),
            None => PassEnd::not_running(),
        }
    }

    fn ask_pass(&self, budget: Budget) -> Option<oneshot::Receiver<PassEnd>> {
        let (done, receiver) = oneshot::channel();
        let command = Command::RunFor {
            until: Instant::now() + budget.time,
            allowance: budget.network,
            done,
        };
        self.commands.send(command).ok()?;
        Some(receiver)
    }

    /// Ends a pause with a sync.
    pub fn resume(&self) {
        self.input(Input::Resume);
    }

    /// Tells whether the network is to be used sparingly: while any of the constraints holds, only
    /// mutations in the urgent lane are sent, and nothing is pulled unless a person asks
    /// ([`Syncline::sync`]). When none holds any more, a sync follows.
    pub fn set_constraints(&self, constraints: Constraints) {
        self.input(Input::Constraints(constraints));
    }

    fn input(&self, input: Input) {
        // After close() there is nobody to tell.
        let _ = self.commands.send(Command::Input(input));
    }

    /// One full cycle: everything that can be pushed is pushed, everything there is is pulled.
    /// Transient failures are ridden out for as long as `patience`; an unreachable server or
    /// refused credentials end it at once.
    pub async fn sync(&self, patience: Duration) -> SyncEnd {
        match self.ask_sync(patience) {
            Some(done) => done.await.unwrap_or(SyncEnd::TimedOut),
            None => SyncEnd::TimedOut,
        }
    }

    /// As [`Syncline::sync`], blocking the calling thread. Not to be called in async code.
    pub fn sync_blocking(&self, patience: Duration) -> SyncEnd {
        match self.ask_sync(patience) {
            Some(done) => done.blocking_recv().unwrap_or(SyncEnd::TimedOut),
            None => SyncEnd::TimedOut,
        }
    }

    /// Waits until the server has confirmed given writes, without holding up anything else.
    pub async fn await_synced(&self, writes: Writes, patience: Duration) -> SyncedEnd {
        match self.ask_synced(writes, patience) {
            Some(done) => done.await.unwrap_or(SyncedEnd::TimedOut),
            None => SyncedEnd::TimedOut,
        }
    }

    /// As [`Syncline::await_synced`], blocking the calling thread. Not to be called in async code.
    pub fn await_synced_blocking(&self, writes: Writes, patience: Duration) -> SyncedEnd {
        match self.ask_synced(writes, patience) {
            Some(done) => done.blocking_recv().unwrap_or(SyncedEnd::TimedOut),
            None => SyncedEnd::TimedOut,
        }
    }

    fn ask_synced(
        &self,
        writes: Writes,
        patience: Duration,
    ) -> Option<oneshot::Receiver<SyncedEnd>> {
        let (done, receiver) = oneshot::channel();
        let until = Instant::now() + patience;
        let command = Command::AwaitSynced {
            writes,
            until,
            done,
        };
        self.commands.send(command).ok()?;
        Some(receiver)
    }

    fn ask_sync(&self, patience: Duration) -> Option<oneshot::Receiver<SyncEnd>> {
        let (done, receiver) = oneshot::channel();
        let until = Instant::now() + patience;
        self.commands.send(Command::Sync { until, done }).ok()?;
        Some(receiver)
    }

    /// Where everything stands, read from the file and from the engine now. Cheap: nothing in it goes
    /// through the outbox, however much waits there.
    pub fn status(&self) -> Result<Status, Error> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.changes.borrow().engine.clone();
        Ok(status::read_with(&writer, engine, Clock::start().now())?)
    }

    /// Sets the metrics that are looked up rather than counted: entries in the outbox, ages, sizes. To
    /// be called before the process's metrics are read; it costs what a status costs.
    pub fn measure(&self) -> Result<(), Error> {
        meter::look(&self.status()?, self.state(), &self.path);
        Ok(())
    }

    /// The id by which an entity goes now, given one that it had: see [`Notice::IdChanged`]. Ids are
    /// used again, so ask only for one that was read before the change.
    pub fn current_id(&self, entity_type: &str, id: &EntityId) -> Result<EntityId, Error> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ids::current_id(&writer, entity_type, id)?)
    }

    /// The machine's state at this moment.
    pub fn state(&self) -> State {
        self.changes.borrow().state
    }

    /// The status now, and again after every change of the engine's state and of the file.
    pub fn status_stream(&self) -> Result<StatusStream, Error> {
        let mut changes = self.changes.clone();
        changes.mark_changed();
        Ok(StatusStream {
            conn: write::connect(&self.path, &Settings::default())?,
            changes,
        })
    }

    /// Everything that the engine tells: for the first caller since its start, then from now on.
    pub fn notices(&self) -> NoticeStream {
        let mut from_start = self
            .from_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        NoticeStream(
            from_start
                .take()
                .unwrap_or_else(|| self.notices.subscribe()),
        )
    }

    /// Lets a failed or dead mutation be sent again.
    pub async fn retry(&self, seq: i64) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::Retry { seq, done }, answer)
            .await?
            .map_err(Error::from)
    }

    /// Makes a failed or never-sent mutation, and its row, say something else; it is sent under a
    /// new key.
    pub async fn edit(&self, seq: i64, changes: Fields) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::Edit { seq, changes, done }, answer)
            .await?
            .map_err(Error::from)
    }

    /// Gives a mutation up, with everything that depends on it, and takes the rows back. What may
    /// have been sent is cancelled at the server first.
    pub async fn discard(&self, seq: i64) -> Result<Discarded, Error> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::Discard { seq, done }, answer)
            .await?
            .map_err(Error::from)
    }

    /// Removes the rows of a type that the server no longer has and whose removal is held (see
    /// [`Status::held_removals`]); how many.
    pub async fn confirm_sweep(&self, entity_type: &str) -> Result<u64, Error> {
        let (done, answer) = oneshot::channel();
        let entity_type = entity_type.to_owned();
        self.ask(Command::ConfirmSweep { entity_type, done }, answer)
            .await?
            .map_err(Error::from)
    }

    /// Offers those rows to the server again, each as a create; how many.
    pub async fn restore_sweep(&self, entity_type: &str) -> Result<u64, Error> {
        let (done, answer) = oneshot::channel();
        let entity_type = entity_type.to_owned();
        self.ask(Command::RestoreSweep { entity_type, done }, answer)
            .await?
            .map_err(Error::from)
    }

    /// Conflicts, newest first: those that wait for a person ([`ConflictFilter::open`]), and records of
    /// those that were decided. [`Notice::ConflictOpened`] tells when there is a new one.
    ///
    /// ```no_run
    /// use syncline::{ChangedBy, Choice, ConflictFilter, Error, FieldChoice, Syncline};
    ///
    /// /// Takes the server's value wherever both sides changed a field.
    /// async fn give_way(sync: &Syncline) -> Result<(), Error> {
    ///     for open in sync.conflicts(&ConflictFilter::open())? {
    ///         let detail = sync.conflict(open.id)?;
    ///         let both = detail.fields.iter().filter(|field| field.changed_by == ChangedBy::Both);
    ///         let choices = both.map(|field| (field.name.clone(), FieldChoice::Theirs));
    ///         sync.resolve_conflict(open.id, Choice::Fields(choices.collect())).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn conflicts(&self, filter: &ConflictFilter) -> Result<Vec<Conflict>, Error> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(conflict::list(&writer, filter)?)
    }

    /// One conflict in full: base, mine and theirs field by field, and what each policy would do.
    pub fn conflict(&self, id: i64) -> Result<ConflictDetails, Error> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(conflict::read(&writer, id)?)
    }

    /// Decides an open conflict. The row is what was chosen at once; what is to be pushed of it goes
    /// out as an ordinary mutation. Fails, and changes nothing, if it is decided already, or if the row
    /// cannot be like that.
    pub async fn resolve_conflict(&self, id: i64, choice: Choice) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::ResolveConflict { id, choice, done }, answer)
            .await?
            .map_err(Error::from)
    }

    /// As [`Syncline::resolve_conflict`], blocking the calling thread. Not to be called in async code.
    pub fn resolve_conflict_blocking(&self, id: i64, choice: Choice) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.ask_blocking(Command::ResolveConflict { id, choice, done }, answer)?
            .map_err(Error::from)
    }

    /// Takes a decision of [`Syncline::resolve_conflict`] back, as long as nothing of it was sent: the
    /// conflict is open again.
    pub async fn undo_resolution(&self, id: i64) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::UndoResolution { id, done }, answer)
            .await?
            .map_err(Error::from)
    }

    /// As [`Syncline::undo_resolution`], blocking the calling thread. Not to be called in async code.
    pub fn undo_resolution_blocking(&self, id: i64) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.ask_blocking(Command::UndoResolution { id, done }, answer)?
            .map_err(Error::from)
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Error> {
        self.commands
            .send(command)
            .map_err(|_| Error::NotRunning(None))?;
        answer.await.map_err(|_| Error::NotRunning(None))
    }

    fn ask_blocking<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Error> {
        self.commands
            .send(command)
            .map_err(|_| Error::NotRunning(None))?;
        answer.blocking_recv().map_err(|_| Error::NotRunning(None))
    }

    /// Stops the engine and waits until it has given the file back. What was sent and not answered
    /// is settled at the next start.
    pub fn close(mut self) {
        let (done, _) = oneshot::channel();
        let _ = self.commands.send(Command::Stop { done });
        if let Some(thread) = self.thread.take() {
            // A panic on the engine's thread was already reported there.
            let _ = thread.join();
        }
    }
}

impl Drop for Syncline {
    fn drop(&mut self) {
        let (done, _) = oneshot::channel();
        let _ = self.commands.send(Command::Stop { done });
    }
}

/// The status after every change; see [`Syncline::status_stream`].
pub struct StatusStream {
    conn: Connection,
    changes: watch::Receiver<Seen>,
}

impl StatusStream {
    /// The status: at once the first time, then after a change. Changes in between are seen as one,
    /// and the last one is always seen. `None` once the engine has ended.
    pub async fn next(&mut self) -> Option<Result<Status, Error>> {
        self.changes.changed().await.ok()?;
        let engine = self.changes.borrow_and_update().engine.clone();
        let status = status::read_with(&self.conn, engine, Clock::start().now());
        Some(status.map_err(Error::from))
    }
}

/// Notices in order; see [`Syncline::notices`].
pub struct NoticeStream(broadcast::Receiver<Notice>);

impl NoticeStream {
    /// The next notice; `None` once the engine has ended. A reader that fell far behind misses the
    /// oldest ones.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            match self.0.recv().await {
                Ok(notice) => return Some(notice),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
