//! A device: an app's database with an ordinary connection, one or two processes with an engine on it,
//! a link, and a clock that may be wrong. Processes die by unwinding at a moment of store work, which
//! rolls the transaction back that is open, as a killed process does.

use super::fault::NetFault;
use crate::rng::Rng;
use rusqlite::Connection;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use syncline::{Checkpoint, Config, Engine, Moment, Now, RequestId, Store, StoreOptions, Watcher};
use syncline_core::RemoteRequest;
use syncline_fault_vfs::Faults;
use syncline_protocol::ClientId;
use syncline_store::{InstallationRecords, StoreError};

/// What a process unwinds with when it dies.
pub(crate) struct Died;

/// What a machine remembers outside of the file, in memory.
#[derive(Default)]
pub(crate) struct Records(Mutex<BTreeMap<String, String>>);

impl InstallationRecords for Records {
    fn load(&self, client: &ClientId) -> io::Result<Option<String>> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.get(client.as_str()).cloned())
    }

    fn save(&self, client: &ClientId, record: &str) -> io::Result<()> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(client.as_str().to_owned(), record.to_owned());
        Ok(())
    }
}

/// One process with an engine.
pub(crate) struct Process {
    pub(crate) engine: Engine,
    /// Names this run of it: answers to an earlier one are nobody's.
    pub(crate) run: u64,
    /// Requests that are not answered yet.
    pub(crate) awaited: BTreeMap<RequestId, RemoteRequest>,
}

/// A peer.
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    /// The app's own connection.
    pub(crate) app: Connection,
    pub(crate) records: Arc<Records>,
    /// What goes wrong with its files.
    pub(crate) disk: Faults,
    pub(crate) processes: [Option<Process>; 2],
    pub(crate) config: Config,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// The moment of store work at which the process dies, counted down; below zero: never.
    pub(crate) dies: Arc<AtomicI64>,
    pub(crate) online: bool,
    pub(crate) faults: VecDeque<NetFault>,
    /// Latencies.
    pub(crate) rng: Rng,
    pub(crate) token: String,
    /// The one of its owner.
    pub(crate) own_token: String,
    pub(crate) backup: Option<PathBuf>,
    /// Whether its app is the newer one.
    pub(crate) upgraded: bool,
    /// How far its clock is off, in milliseconds.
    pub(crate) skew_ms: i64,
    /// It stands still until then.
    pub(crate) asleep_until: u64,
    /// There are no new credentials until then.
    pub(crate) no_token_until: u64,
}

impl Device {
    /// A device on a file that is there and attached; it becomes this client, unless it is a copy.
    pub(crate) fn new(path: &Path, client: Option<&str>, rng: Rng) -> Self {
        let disk = Faults::in_folder(path.parent().unwrap_or(path));
        let app = open_app(path);
        if let Some(client) = client {
            app.execute(
                "UPDATE syncline_meta SET value = ?1 WHERE key = 'client_id'",
                [client],
            )
            .expect("the file is attached");
        }
        Self {
            path: path.to_owned(),
            app,
            records: Arc::default(),
            disk,
            processes: [None, None],
            config: Config::default(),
            checkpoint: None,
            dies: Arc::new(AtomicI64::new(-1)),
            online: true,
            faults: VecDeque::new(),
            rng,
            token: String::new(),
            own_token: String::new(),
            backup: None,
            upgraded: false,
            skew_ms: 0,
            asleep_until: 0,
            no_token_until: 0,
        }
    }

    /// Starts a process; `run` differs from that of every other.
    pub(crate) fn start(&mut self, which: usize, run: u64) -> Result<(), StoreError> {
        let mut options = StoreOptions::new(format!("process {run}"), run);
        options.busy_timeout_ms = 0;
        options.lease_ttl_ms = self.config.lease_ttl_ms;
        options.checkpoint = self.checkpoint;
        options.records = Some(Arc::clone(&self.records) as Arc<dyn InstallationRecords>);
        options.watcher = Some(self.watcher());
        let store = Store::open(&self.path, options)?;
        let engine = Engine::new(store, self.config.clone(), run)?;
        self.processes[which] = Some(Process {
            engine,
            run,
            awaited: BTreeMap::new(),
        });
        Ok(())
    }

    /// Makes a copy of its file as it is now; false when its disk does not let it.
    pub(crate) fn copy_to(&self, path: &Path) -> bool {
        let copied = self
            .app
            .execute("VACUUM INTO ?1", [path.display().to_string()]);
        if copied.is_err() {
            // What there is of it is no database.
            let _ = std::fs::remove_file(path);
        }
        copied.is_ok()
    }

    /// Another state of the file takes its place; no process has it open.
    pub(crate) fn replace_file(&mut self, backup: &Path) {
        self.disk.heal();
        self.app = Connection::open_in_memory().expect("SQLite works");
        for suffix in ["", "-wal", "-shm"] {
            // Only the first is always there.
            let _ = std::fs::remove_file(format!("{}{suffix}", self.path.display()));
        }
        std::fs::copy(backup, &self.path).expect("the backup is there");
        self.app = open_app(&self.path);
        self.app
            .pragma_update(None, "journal_mode", "WAL")
            .expect("a pragma");
    }

    fn watcher(&self) -> Watcher {
        let dies = Arc::clone(&self.dies);
        Arc::new(move |_work: &'static str, _moment: Moment| {
            let left = dies.load(Ordering::Relaxed);
            if left >= 0 {
                dies.store(left - 1, Ordering::Relaxed);
            }
            if left == 0 {
                std::panic::resume_unwind(Box::new(Died));
            }
        })
    }

    /// The time on its clocks; SQLite goes by the same from here on.
    pub(crate) fn now(&self, world_ms: u64) -> Now {
        let unix_ms = super::world::unix_ms(world_ms) + self.skew_ms;
        syncline_fault_vfs::set_clock(Some(unix_ms));
        Now {
            monotonic_ms: world_ms,
            unix_ms,
        }
    }

    /// How long a message takes there and back.
    pub(crate) fn latency(&mut self, longest_ms: u16) -> [u64; 2] {
        let longest = u64::from(longest_ms);
        [1 + self.rng.below(longest), 1 + self.rng.below(longest)]
    }
}

/// An app's connection.
pub(crate) fn open_app(path: &Path) -> Connection {
    let app = Connection::open(path).expect("the file can be opened");
    app.pragma_update(None, "foreign_keys", true)
        .expect("a pragma");
    app.pragma_update(None, "synchronous", "OFF")
        .expect("a pragma");
    app.set_prepared_statement_cache_capacity(64);
    app
}
