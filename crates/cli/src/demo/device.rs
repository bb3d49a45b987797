//! A device: an ordinary SQLite file that an app writes with plain SQL, an engine on it, and a
//! link of its own to the server.

use super::link::{Link, Net};
use super::server::Server;
use super::trouble;
use crate::Failure;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use syncline::{
    Choice, Config, ConflictDetails, ConflictFilter, ConflictRules, CycleEnd, FieldRule,
    HttpRemote, Notice, Recording, Status, SyncEnd, Syncline, TokenSource,
};
use syncline_store::{conflict, status};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The app's own tables; nothing in them knows of Syncline.
pub(super) const SCHEMA: &str = "
CREATE TABLE project (
  id   TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL
);
CREATE TABLE task (
  id       TEXT PRIMARY KEY NOT NULL,
  project  TEXT NOT NULL REFERENCES project (id),
  title    TEXT NOT NULL,
  done     INTEGER NOT NULL DEFAULT 0,
  priority INTEGER NOT NULL DEFAULT 3
);";

/// How long the right to be a file's engine outlives a process that died.
pub(super) const LEASE: Duration = Duration::from_millis(1_500);

/// The longest that anything may take before the demo gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// One device.
pub(super) struct Device {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) link: Link,
    app: Connection,
    token: String,
    runtime: Handle,
    engine: Option<Running>,
    notices: Arc<Mutex<Vec<Notice>>>,
}

struct Running {
    sync: Syncline,
    listener: JoinHandle<()>,
}

impl Device {
    /// Makes the app's tables and attaches them. The device is offline and its engine is stopped.
    pub(super) fn new(name: &'static str, folder: &Path, server: &Server) -> Result<Self, Failure> {
        let path = folder.join(format!("{name}.db"));
        let app = Connection::open(&path)?;
        app.execute_batch(SCHEMA)?;
        app.pragma_update(None, "foreign_keys", true)?;
        app.busy_timeout(PATIENCE)?;
        let attaching = Syncline::builder(&path)
            .state_dir(path.with_file_name("state"))
            .remote(server.url())
            .conflict_rules("project", ask_about_names())
            .attach_all();
        attaching.attach_only()?;
        Ok(Self {
            name,
            link: Link::start(server.address()).map_err(|error| trouble("the link", error))?,
            path,
            app,
            token: server.token().to_owned(),
            runtime: server.runtime().clone(),
            engine: None,
            notices: Arc::default(),
        })
    }

    /// The app's plain SQL, in one transaction, on a connection that nothing of Syncline's opened.
    pub(super) fn app_writes(&mut self, sql: &str) -> Result<(), Failure> {
        let tx = self.app.transaction()?;
        tx.execute_batch(sql)?;
        Ok(tx.commit()?)
    }

    /// Starts the engine.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let sync = open_engine(&self.path, &self.link.url(), &self.token)?;
        let mut told = sync.notices();
        let notices = Arc::clone(&self.notices);
        let listener = self.runtime.spawn(async move {
            while let Some(notice) = told.next().await {
                let mut notices = notices.lock().unwrap_or_else(PoisonError::into_inner);
                notices.push(notice);
            }
        });
        self.engine = Some(Running { sync, listener });
        Ok(())
    }

    /// Stops the engine in good order.
    pub(super) fn stop(&mut self) {
        if let Some(Running { sync, listener }) = self.engine.take() {
            sync.close();
            // It ends with the engine; a panic was already reported.
            let _ = self.runtime.block_on(listener);
        }
    }

    pub(super) fn go(&self, net: Net) {
        self.link.set(net);
    }

    /// One cycle, however it ends.
    pub(super) fn sync_once(&self) -> Result<SyncEnd, Failure> {
        match &self.engine {
            Some(running) => Ok(running.sync.sync_blocking(PATIENCE)),
            None => Err(trouble(self.name, "its engine is not running")),
        }
    }

    /// Syncs until nothing is left to send and the feed was read to its head.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let end = self.sync_once()?;
            let status = self.status()?;
            if end == SyncEnd::Cycle(CycleEnd::Complete) && unsettled(&status) == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                let why = format!("it did not come to rest: {end:?}");
                return Err(trouble(self.name, why));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Syncs until one conflict waits for a person; everything else is sent then.
    pub(super) fn settle_but_a_conflict(&self) -> Result<ConflictDetails, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.sync_once()?;
            let open = conflict::list(&self.app, &ConflictFilter::open())?;
            let quiet = self.status()?.outbox.get("in_flight") == Some(&0);
            if let (true, [one]) = (quiet, open.as_slice()) {
                return Ok(conflict::read(&self.app, one.id)?);
            }
            if Instant::now() > until {
                return Err(trouble(self.name, "no conflict was opened"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a person decides about a conflict.
    pub(super) fn decide(&self, id: i64, choice: Choice) -> Result<(), Failure> {
        match &self.engine {
            Some(running) => Ok(running.sync.resolve_conflict_blocking(id, choice)?),
            None => Err(trouble(self.name, "its engine is not running")),
        }
    }

    /// Where everything stands, read from the file.
    pub(super) fn status(&self) -> Result<Status, Failure> {
        Ok(status::read(&self.app, crate::database::now())?)
    }

    /// Mutations that still have to be sent or answered.
    pub(super) fn waiting(&self) -> Result<u64, Failure> {
        Ok(unsettled(&self.status()?))
    }

    /// What the engine told so far.
    pub(super) fn notices(&self) -> Vec<Notice> {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.clone()
    }

    /// The access token, to be handed to a process of the device's own.
    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

/// Two names for one project are a person's business.
fn ask_about_names() -> ConflictRules {
    ConflictRules {
        merge: [("name".to_owned(), FieldRule::Manual)].into(),
        ..ConflictRules::default()
    }
}

/// Mutations that still have to be sent or answered.
pub(super) fn unsettled(status: &Status) -> u64 {
    let count = |state: &str| status.outbox.get(state).copied().unwrap_or(0);
    count("pending") + count("in_flight")
}

/// An engine on an attached file whose way to the server leads over `link`.
pub(super) fn open_engine(path: &Path, link: &str, token: &str) -> Result<Syncline, Failure> {
    let remote = HttpRemote::builder(link)
        .token(TokenSource::Static(token.to_owned()))
        // So that the link can compare what is sent again.
        .compress_above(usize::MAX)
        .build()?;
    let mut config = Config::default();
    config.backoff_base_ms = 100;
    config.backoff_cap_ms = 400;
    config.lease_ttl_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
    let builder = Syncline::builder(path)
        .state_dir(path.with_file_name("state"))
        .remote_with(Arc::new(remote))
        .record(Recording::new(path.with_extension("trace")))
        .config(config);
    Ok(builder.open()?)
}
