//! `syncline run`: keeps a database in sync until it is told to stop.
//!
//! Decides nothing: it starts the engine, logs what the engine tells, passes on the asks of other
//! processes and of signals, and tells the engine what it notices: a network that comes and goes, that the
//! machine slept, that the token's file was replaced.

use super::engine::{Connection, Record, credentials_needed};
use super::schedule::Schedule;
use super::serve::address;
use crate::cycle::{self, Tally};
use crate::database::Database;
use crate::exposition::{Exposition, Look};
use crate::logging::private;
use crate::signal::{Stop, Wish, Wishes};
use crate::surroundings::{Noticed, Surroundings};
use crate::{Failure, Global, Report};
use serde_json::json;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use syncline::{Budget, Notice, Reason, State, SyncEnd, Syncline};
use syncline_store::ask::{self, Ask, Within};

/// How long a sync that another process asked for may ride out failures.
const ASKED_PATIENCE: Duration = Duration::from_secs(20);

/// How often the token's file is looked at while credentials are needed.
const TOKEN_LOOK: Duration = Duration::from_secs(1);

/// Keep a database in sync, until SIGTERM or SIGINT
///
/// Whatever any program writes is pushed within a moment. Says what happens on stderr: warnings,
/// and with -v every change. SIGUSR1: sync now. SIGUSR2: rest, and with the next one go on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    schedule: Schedule,
    #[command(flatten)]
    record: Record,
    /// Tell Prometheus at http://ADDRESS/metrics how the engine does; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    metrics: Option<String>,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("runtime", error.to_string()))?;
    let engine = runtime.block_on(async {
        let mut stop = Stop::listen().map_err(|e| Failure::new("signals", e.to_string()))?;
        let wishes = Wishes::listen().map_err(|e| Failure::new("signals", e.to_string()))?;
        let exposition = match &args.metrics {
            Some(address) => Some(Exposition::listen(address).await?),
            None => None,
        };
        let schedule = &args.schedule;
        let engine = (args.connection).start(&args.database, |builder| {
            args.record.apply(schedule.apply(builder))
        })?;
        let engine = Arc::new(engine);
        if let Some(exposition) = exposition {
            exposition.tell(global.json);
            tokio::spawn(exposition.serve(measuring(&engine)));
        }
        tracing::info!(database = %args.database.path.display(), "syncing");
        let nudges = Nudges::new(wishes, engine.status()?.remote, args.schedule.paused());
        keep_syncing(&engine, &args, &mut stop, nudges).await?;
        Ok::<_, Failure>(engine)
    })?;
    // Nobody measures it any more: that is done on this very thread.
    if let Some(engine) = Arc::into_inner(engine) {
        engine.close();
    }
    tracing::info!("stopped");
    Report::new(
        "",
        &json!({ "database": args.database.shown(), "stopped": true }),
    )
}

fn measuring(engine: &Arc<Syncline>) -> Look {
    let engine = Arc::downgrade(engine);
    Box::new(move || {
        let measured = engine.upgrade().map(|engine| engine.measure());
        if let Some(Err(error)) = measured {
            tracing::warn!(%error, "the database cannot be measured");
        }
    })
}

async fn keep_syncing(
    engine: &Syncline,
    args: &Args,
    stop: &mut Stop,
    mut nudges: Nudges,
) -> Result<(), Failure> {
    let mut notices = engine.notices();
    let mut changes = engine.status_stream()?;
    let mut asks = Asks::new(args)?;
    let mut token = TokenFile::new(args.connection.token_path()?);
    let mut told = Told::default();
    loop {
        tokio::select! {
            () = stop.wait() => return Ok(()),
            notice = notices.next() => if let Some(notice) = notice {
                told.log(&notice);
                asks.tally.take(&notice);
            },
            changed = changes.next() => if changed.is_none() {
                return Err(Failure::new("engine", "the engine has ended unexpectedly")
                    .hint("what was recorded is kept; start it again"));
            } else {
                asks.look(engine);
            },
            end = asks.done() => asks.answer(&end),
            nudge = nudges.next() => nudges.pass_on(nudge, engine),
            () = token.replaced(), if engine.state() == State::BlockedAuth => {
                tracing::info!("the token's file was replaced");
                engine.trigger_sync(Reason::AuthRefreshed);
            },
        }
    }
}

/// What comes from outside of the file and of the engine.
struct Nudges {
    wishes: Wishes,
    surroundings: Surroundings,
    rests: bool,
}

enum Nudge {
    Wish(Wish),
    Noticed(Noticed),
}

impl Nudges {
    fn new(wishes: Wishes, remote: Option<String>, rests: bool) -> Self {
        Self {
            wishes,
            surroundings: Surroundings::watch(&remote.unwrap_or_default()),
            rests,
        }
    }

    async fn next(&mut self) -> Nudge {
        tokio::select! {
            wish = self.wishes.next() => Nudge::Wish(wish),
            noticed = self.surroundings.next() => Nudge::Noticed(noticed),
        }
    }

    fn pass_on(&mut self, nudge: Nudge, engine: &Syncline) {
        match nudge {
            Nudge::Wish(Wish::Sync) => {
                tracing::info!("a signal asks for a sync");
                engine.trigger_sync(Reason::UserAsked);
            }
            Nudge::Wish(Wish::Toggle) => {
                self.rests = !self.rests;
                tracing::info!(rests = self.rests, "a signal asks for rest, or to go on");
                match self.rests {
                    true => engine.pause(),
                    false => engine.resume(),
                }
            }
            Nudge::Noticed(noticed) => {
                tracing::info!(?noticed, "noticed");
                match noticed {
                    Noticed::NetworkAvailable => engine.trigger_sync(Reason::NetworkAvailable),
                    Noticed::NetworkLost => engine.network_lost(),
                    Noticed::Woken => engine.trigger_sync(Reason::Foreground),
                }
            }
        }
    }
}

type Sync<'a> = Pin<Box<dyn Future<Output = SyncEnd> + 'a>>;

/// Asks of other processes, answered one sync at a time.
struct Asks<'a> {
    conn: rusqlite::Connection,
    tally: Tally,
    under_way: Option<(i64, Sync<'a>)>,
}

impl<'a> Asks<'a> {
    fn new(args: &Args) -> Result<Self, Failure> {
        Ok(Self {
            conn: args.database.write()?,
            tally: Tally::default(),
            under_way: None,
        })
    }

    /// Starts the sync that was asked for, if none is under way.
    fn look(&mut self, engine: &'a Syncline) {
        if self.under_way.is_some() {
            return;
        }
        match ask::unanswered(&self.conn) {
            Ok(None) => {}
            Ok(Some(Ask { number, within })) => {
                tracing::info!(?within, "another process asks for a sync");
                let sync: Sync<'a> = match within {
                    None => Box::pin(engine.sync(ASKED_PATIENCE)),
                    Some(within) => {
                        Box::pin(async move { engine.run_for(budget(within)).await.end })
                    }
                };
                self.under_way = Some((number, sync));
            }
            // Whatever is wrong with the file, the engine says so; asks are not worth an end.
            Err(error) => tracing::debug!(%error, "asks cannot be read"),
        }
    }

    async fn done(&mut self) -> SyncEnd {
        match &mut self.under_way {
            Some((_, sync)) => sync.await,
            None => std::future::pending().await,
        }
    }

    fn answer(&mut self, end: &SyncEnd) {
        let Some((number, _)) = self.under_way.take() else {
            return;
        };
        let answer = match serde_json::to_string(&self.tally.ended(end)) {
            Ok(answer) => answer,
            Err(error) => return tracing::warn!(%error, "the answer cannot be written"),
        };
        if let Err(error) = ask::answer(&mut self.conn, number, &answer) {
            tracing::warn!(%error, "a process that asked for a sync gets no answer");
        }
    }
}

fn budget(within: Within) -> Budget {
    let mut budget = Budget::time(Duration::from_millis(within.time_ms));
    if let Some(requests) = within.requests {
        budget = budget.requests(requests);
    }
    if let Some(bytes) = within.bytes {
        budget = budget.bytes(bytes);
    }
    budget
}

/// The file that the token comes from, and what it was when last seen.
struct TokenFile {
    path: Option<PathBuf>,
    seen: Option<(SystemTime, u64)>,
}

impl TokenFile {
    fn new(path: Option<PathBuf>) -> Self {
        let mut file = Self { path, seen: None };
        file.seen = file.state();
        file
    }

    fn state(&self) -> Option<(SystemTime, u64)> {
        let metadata = std::fs::metadata(self.path.as_ref()?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    /// Waits until it is another one; dropping the future loses nothing.
    async fn replaced(&mut self) {
        loop {
            let state = self.state();
            if state.is_some() && state != self.seen {
                self.seen = state;
                return;
            }
            tokio::time::sleep(TOKEN_LOOK).await;
        }
    }
}

const GONE_THERE: &str = "rows are gone on the server and kept here until you confirm";
const ESCAPED: &str = "writes had escaped capture: recorded now";
const GONE_HERE: &str =
    "rows had disappeared without a record, too many to delete everywhere: they came back";

const SPLIT: &str =
    "more was pulled than may be staged for a checkpoint: it is applied in several transactions";

fn log_rows(entity_type: &str, rows: u64, what: &str) {
    tracing::warn!(entity_type, rows, "{what}");
}

/// What the server said of it may quote the row.
fn log_dead_letter(notice: &Notice) {
    let (what, mutation, entity, error) = match notice {
        Notice::MutationFailed {
            mutation,
            entity,
            error,
        } => (
            "a mutation was refused and waits for you",
            mutation,
            entity.as_ref(),
            error,
        ),
        Notice::MutationDead {
            mutation,
            entity,
            error,
        } => (
            "a mutation was given up and waits for you",
            mutation,
            Some(entity),
            error,
        ),
        _ => return,
    };
    let detail = private(&error.detail);
    let entity = entity.map(tracing::field::display);
    tracing::warn!(%mutation, entity, code = error.code, detail, "{what}");
}

fn log_conflict(notice: &Notice) {
    match notice {
        Notice::ConflictOpened { entity, reason } => {
            tracing::warn!(%entity, reason, "a conflict waits for you");
        }
        Notice::ResolverDisabled {
            entity_type,
            resolver,
            deadline_ms,
        } => {
            tracing::warn!(%entity_type, resolver, deadline_ms, "a resolver did not answer in time and is not asked any more");
        }
        Notice::ConflictResolved { entity, rule } => {
            tracing::info!(%entity, rule, "a conflict was decided");
        }
        _ => {}
    }
}

/// Logs notices; a failure that repeats itself warns once.
#[derive(Default)]
struct Told {
    last_trouble: String,
}

impl Told {
    fn log(&mut self, notice: &Notice) {
        match notice {
            Notice::StateChanged { from, to } => tracing::info!(%from, %to, "state"),
            Notice::Pushed {
                applied,
                duplicates,
            } => {
                tracing::info!(applied, duplicates, "pushed");
            }
            Notice::Pulled {
                upserts,
                deletes,
                merged,
                parked,
            } => {
                tracing::info!(upserts, deletes, merged, parked, "pulled");
            }
            Notice::MutationFailed { .. } | Notice::MutationDead { .. } => log_dead_letter(notice),
            Notice::CancelledTooLate { mutation, entity } => {
                tracing::warn!(%mutation, %entity, "a mutation that was to be discarded had taken effect before: it stays");
            }
            Notice::ConflictOpened { .. }
            | Notice::ResolverDisabled { .. }
            | Notice::ConflictResolved { .. } => log_conflict(notice),
            Notice::IdChanged { old, new, .. } => {
                tracing::info!(%old, %new, "a row has another id");
            }
            Notice::BackingOff { delay_ms, error } => self.trouble(error.to_string(), *delay_ms),
            Notice::StoreTrouble(fault) => self.trouble(fault.to_string(), 0),
            Notice::CredentialsNeeded { detail } => {
                let failure = credentials_needed(detail);
                tracing::warn!(error = %failure.json(), "credentials are needed; work is kept");
            }
            Notice::OtherAccount { recorded, offered } => {
                tracing::warn!(
                    "{}; nothing is sent",
                    cycle::other_account(recorded, offered)
                );
            }
            Notice::SweepHeld { entity_type, rows } => log_rows(entity_type, *rows, GONE_THERE),
            Notice::Recovered { entity_type, rows } => log_rows(entity_type, *rows, ESCAPED),
            Notice::RecoveryHeld { entity_type, rows } => log_rows(entity_type, *rows, GONE_HERE),
            Notice::TypeUnsyncable {
                entity_type,
                reason,
            } => tracing::warn!(entity_type, "{reason}; {}", cycle::UNSYNCABLE),
            Notice::CheckpointSplit { changes } => tracing::warn!(changes, "{SPLIT}"),
            Notice::EpochChanged => {
                tracing::warn!("the server's history is another one: everything is compared anew")
            }
            Notice::IdentityChanged => {
                tracing::warn!(
                    "the database is a copy or an older state: it has a new identity, and nothing takes effect twice"
                )
            }
            Notice::Standby => {
                self.trouble("another process is syncing this database".to_owned(), 0)
            }
            Notice::CycleEnded(syncline::CycleEnd::Complete) => {
                self.last_trouble.clear();
                tracing::info!("in sync");
            }
            other => tracing::debug!(?other, "notice"),
        }
    }

    fn trouble(&mut self, what: String, delay_ms: u64) {
        if what == self.last_trouble {
            tracing::info!(delay_ms, "{what}");
        } else {
            tracing::warn!(delay_ms, "{what}");
            self.last_trouble = what;
        }
    }
}
