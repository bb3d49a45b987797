//! The real server over either storage, with faults at the border of its transactions. Its process can
//! die, its data can be backed up and restored; time is told to it with each request.

use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use syncline_protocol::{Access, Epoch, Principal};
use syncline_server::{
    Authenticator, Identity, MemoryStorage, Now, ReadTx, Request, Response, ServerConfig, Service,
    Storage, StorageError, WriteTx, issue_token,
};
use syncline_server_sqlite::SqliteStorage;

const SECRET: &[u8] = b"a secret of exactly enough bytes";
const HOUR_MS: i64 = 3_600_000;

/// How a write of the storage fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StorageFault {
    /// Refused before it began: busy.
    Busy,
    /// Refused before it began: full.
    Full,
    /// The process dies: what was done is rolled back, and nobody answers.
    DieBeforeCommit,
    /// The process dies after the commit, and nobody answers.
    DieAfterCommit,
    /// Committed, and told to have failed.
    CommitUnknown,
}

/// Where the data is.
enum Data {
    Memory(MemoryStorage),
    Sqlite(SqliteStorage),
}

/// A storage whose writes fail when they are told to.
struct Faulty {
    data: Data,
    /// The write that fails, counted down, and how.
    plan: Mutex<Option<(u8, StorageFault)>>,
    /// What happened last, until it is asked for.
    happened: Mutex<Option<StorageFault>>,
}

/// Two data directories never share a name within a process.
static DIRECTORIES: AtomicU64 = AtomicU64::new(0);

/// A backup.
pub(crate) enum Backup {
    Memory(Box<MemoryStorage>),
    Sqlite(PathBuf),
}

/// The server.
pub(crate) struct Server {
    /// None only while its storage changes hands.
    service: Option<Service<Faulty>>,
    config: ServerConfig,
    folder: PathBuf,
    directory: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn injected() -> StorageError {
    StorageError::Unavailable {
        source: "a fault of the simulation".into(),
    }
}

impl Faulty {
    fn due(&self) -> Option<StorageFault> {
        let mut plan = lock(&self.plan);
        match plan.as_mut() {
            Some((0, fault)) => {
                let fault = *fault;
                *plan = None;
                *lock(&self.happened) = Some(fault);
                Some(fault)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }
}

impl Storage for Faulty {
    fn write<T>(
        &self,
        mut work: impl FnMut(&mut dyn WriteTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let due = self.due();
        match due {
            Some(StorageFault::Busy) => {
                return Err(StorageError::Busy {
                    source: "a fault of the simulation".into(),
                });
            }
            Some(StorageFault::Full) => {
                return Err(StorageError::Full {
                    source: "a fault of the simulation".into(),
                });
            }
            _ => {}
        }
        let mut run = |tx: &mut dyn WriteTx| {
            let done = work(tx)?;
            match due {
                Some(StorageFault::DieBeforeCommit) => Err(injected()),
                _ => Ok(done),
            }
        };
        let done = match &self.data {
            Data::Memory(storage) => storage.write(&mut run),
            Data::Sqlite(storage) => storage.write(&mut run),
        };
        match due {
            Some(StorageFault::CommitUnknown | StorageFault::DieAfterCommit) => {
                done.and_then(|_| Err(injected()))
            }
            _ => done,
        }
    }

    fn read<T>(
        &self,
        work: impl FnMut(&dyn ReadTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match &self.data {
            Data::Memory(storage) => storage.read(work),
            Data::Sqlite(storage) => storage.read(work),
        }
    }

    /// The same in every run, so that cursors are.
    fn cursor_secret(&self) -> [u8; 32] {
        [7; 32]
    }
}

impl Server {
    /// A server with nothing on it.
    pub(crate) fn new(sqlite: bool, config: ServerConfig, folder: &Path) -> Self {
        let directory = folder.to_owned();
        let mut server = Self {
            service: None,
            config,
            folder: folder.to_owned(),
            directory,
        };
        let data = match sqlite {
            true => server.fresh_directory(),
            false => Data::Memory(MemoryStorage::new("e0")),
        };
        server.serve(data);
        let first = Epoch::new("e0");
        let set = server.storage().write(|tx| tx.set_epoch(&first));
        set.expect("a fresh storage takes an epoch");
        server
    }

    fn fresh_directory(&mut self) -> Data {
        self.directory = self.fresh_name();
        let storage = SqliteStorage::open(&self.directory);
        Data::Sqlite(storage.expect("a fresh directory can be served"))
    }

    fn fresh_name(&self) -> PathBuf {
        let n = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("server-{n}"))
    }

    fn serve(&mut self, data: Data) {
        let storage = Faulty {
            data,
            plan: Mutex::new(None),
            happened: Mutex::new(None),
        };
        let authenticator = Authenticator::hs256(SECRET).expect("the secret is long enough");
        let service = Service::new(storage, authenticator, self.config.clone());
        self.service = Some(service.expect("the configuration is one"));
    }

    fn service(&self) -> &Service<Faulty> {
        self.service.as_ref().expect("the server runs")
    }

    fn storage(&self) -> &Faulty {
        self.service().storage()
    }

    /// Answers a request; and what went wrong at the storage meanwhile.
    pub(crate) fn handle(
        &self,
        request: &Request,
        unix_ms: i64,
    ) -> (Response, Option<StorageFault>) {
        // What an operator's work met is not about this request.
        lock(&self.storage().happened).take();
        let answer = self.service().handle(request, Now::from_unix_ms(unix_ms));
        (answer, lock(&self.storage().happened).take())
    }

    /// The n-th write from here goes wrong.
    pub(crate) fn fail_write(&self, n: u8, fault: StorageFault) {
        *lock(&self.storage().plan) = Some((n, fault));
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        *lock(&self.storage().plan) = None;
    }

    /// The process dies and starts again on what was committed.
    pub(crate) fn restart(&mut self) {
        let data = match self.service.take().map(Service::into_storage) {
            Some(Faulty {
                data: Data::Memory(storage),
                ..
            }) => Data::Memory(storage),
            closed => {
                drop(closed);
                self.open_directory()
            }
        };
        self.serve(data);
    }

    fn open_directory(&self) -> Data {
        let storage = SqliteStorage::open(&self.directory);
        Data::Sqlite(storage.expect("the directory can be served again"))
    }

    /// The process is started again with another configuration.
    pub(crate) fn mend(&mut self, change: impl FnOnce(&mut ServerConfig)) {
        change(&mut self.config);
        self.restart();
    }

    /// A backup of what is there now.
    pub(crate) fn back_up(&self) -> Backup {
        match &self.storage().data {
            Data::Memory(storage) => Backup::Memory(Box::new(storage.copy())),
            Data::Sqlite(_) => {
                let path = self.fresh_name();
                copy_database(&self.directory.join("server.db"), &path);
                Backup::Sqlite(path)
            }
        }
    }

    /// Goes on from a backup.
    pub(crate) fn restore(&mut self, backup: &Backup) {
        drop(self.service.take());
        let data = match backup {
            Backup::Memory(storage) => Data::Memory(storage.copy()),
            Backup::Sqlite(path) => {
                self.directory = self.fresh_name();
                std::fs::create_dir_all(&self.directory).expect("a directory can be made");
                copy_database(path, &self.directory.join("server.db"));
                self.open_directory()
            }
        };
        self.serve(data);
    }

    /// The identity of its history.
    pub(crate) fn epoch(&self) -> String {
        let epoch = self.storage().read(|tx| tx.epoch());
        epoch.expect("a healthy storage tells").to_string()
    }

    /// A new history begins.
    pub(crate) fn rotate_epoch(&self, unix_ms: i64) {
        let now = Now::from_unix_ms(unix_ms);
        let before = self.epoch();
        // An operator tries again when it fails and nothing happened.
        let done = (0..3).any(|_| {
            syncline_server::rotate_epoch(self.storage(), now).is_ok() || self.epoch() != before
        });
        assert!(done, "a healthy storage takes an epoch");
    }

    /// Old keys and deletions are forgotten.
    pub(crate) fn purge(&self, unix_ms: i64) {
        let now = Now::from_unix_ms(unix_ms);
        // An operator tries again when it fails.
        let done =
            (0..3).any(|_| syncline_server::purge(self.storage(), &self.config, now).is_ok());
        assert!(done, "a healthy storage can be purged");
    }
}

fn copy_database(from: &Path, to: &Path) {
    let source = Connection::open(from).expect("the server's database can be read");
    source
        .execute("VACUUM INTO ?1", [to.display().to_string()])
        .expect("a database can be copied");
}

/// How long deletions are remembered. Keys are for longer than any history: an outcome that the server has
/// forgotten is a person's to find out.
pub(crate) const RETENTION_HOURS: i64 = 48;

/// A configuration with this retention of deletions.
pub(crate) fn config() -> ServerConfig {
    ServerConfig {
        tombstone_retention_ms: RETENTION_HOURS * HOUR_MS,
        ..ServerConfig::default()
    }
}

/// A token of the one tenant, valid for a year from the beginning.
pub(crate) fn token(subject: &str, access: Access, unix_ms: i64) -> String {
    let identity = Identity {
        principal: Principal {
            tenant: "default".to_owned(),
            subject: subject.to_owned(),
        },
        access,
    };
    issue_token(SECRET, &identity, Now::from_unix_ms(unix_ms), 31_000_000)
        .expect("a token can be made")
}
