//! A device: an app's database with an ordinary connection, one or two processes with an engine on it,
//! a link, and a clock that may be wrong. Processes die by unwinding at a moment of store work, which
//! rolls the transaction back that is open, as a killed process does.

use super::fault::NetFault;
use super::files::Files;
use super::upgrade;
use crate::rng::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use syncline::{Checkpoint, Config, Engine, Moment, Now, RequestId, Store, StoreOptions, Watcher};
use syncline_core::RemoteRequest;
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
    /// It stands still until then, and the device does not.
    pub(crate) stalled_until: u64,
}

impl Process {
    /// The name under which it holds the file.
    pub(crate) fn holder(&self) -> String {
        holder(self.run)
    }
}

pub(crate) fn holder(run: u64) -> String {
    format!("process {run}")
}

/// A peer.
pub(crate) struct Device {
    pub(crate) files: Files,
    pub(crate) records: Arc<Records>,
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
    /// One of its owner that lets it read, and nothing else.
    pub(crate) read_token: String,
    pub(crate) backup: Option<PathBuf>,
    /// How many changes its schema has had.
    pub(crate) version: usize,
    /// How far its clock is off, in milliseconds.
    pub(crate) skew_ms: i64,
    /// It stands still until then.
    pub(crate) asleep_until: u64,
    /// Whether a second process ever had its file.
    pub(crate) is_shared: bool,
    /// How its disk fails soon, until it has.
    pub(crate) disk_fails: Option<&'static str>,
    /// There are no new credentials until then.
    pub(crate) no_token_until: u64,
}

impl Device {
    /// A device on an attached file; it becomes this client, unless it is a copy.
    pub(crate) fn new(files: Files, client: Option<&str>, rng: Rng) -> Self {
        if let Some(client) = client {
            files
                .app
                .prepare_cached("UPDATE syncline_meta SET value = ?1 WHERE key = 'client_id'")
                .and_then(|mut statement| statement.execute([client]))
                .expect("the file is attached");
        }
        let version = upgrade::version(&files.app);
        Self {
            files,
            records: Arc::default(),
            processes: [None, None],
            config: Config::default(),
            checkpoint: None,
            dies: Arc::new(AtomicI64::new(-1)),
            online: true,
            faults: VecDeque::new(),
            rng,
            token: String::new(),
            own_token: String::new(),
            read_token: String::new(),
            backup: None,
            version,
            skew_ms: 0,
            asleep_until: 0,
            is_shared: false,
            disk_fails: None,
            no_token_until: 0,
        }
    }

    /// Until when nothing reaches a process: the device sleeps, or the process alone stands still.
    pub(crate) fn deaf_until(&self, process: usize) -> u64 {
        let stalled = self.processes[process].as_ref();
        stalled
            .map_or(0, |stalled| stalled.stalled_until)
            .max(self.asleep_until)
    }

    /// Starts a process; `run` differs from that of every other.
    pub(crate) fn start(&mut self, which: usize, run: u64) -> Result<(), StoreError> {
        let mut options = StoreOptions::new(holder(run), run);
        options.busy_timeout_ms = 0;
        options.lease_ttl_ms = self.config.lease_ttl_ms;
        options.checkpoint = self.checkpoint;
        options.records = Some(Arc::clone(&self.records) as Arc<dyn InstallationRecords>);
        options.watcher = Some(self.watcher());
        let path = &self.files.path;
        let store = match self.files.spare.pop() {
            Some(left) => Store::open_on(left, path, options)?,
            None => Store::open(path, options)?,
        };
        let engine = Engine::new(store, self.config.clone(), run)?;
        self.processes[which] = Some(Process {
            engine,
            run,
            awaited: BTreeMap::new(),
            stalled_until: 0,
        });
        self.is_shared |= which > 0;
        Ok(())
    }

    /// A process is no more, in whatever state it was.
    pub(crate) fn gone(&mut self, which: usize) {
        if let Some(process) = self.processes[which].take()
            && self.files.disk.failed() == 0
        {
            self.files.spare.push(process.engine.into_store().leave());
        }
    }

    /// Makes a copy of its file as it is now; false when its disk does not let it.
    pub(crate) fn copy_to(&self, path: &Path) -> bool {
        let copied = (self.files.app).execute("VACUUM INTO ?1", [path.display().to_string()]);
        if copied.is_err() {
            // What there is of it is no database.
            let _ = std::fs::remove_file(path);
        }
        copied.is_ok()
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
