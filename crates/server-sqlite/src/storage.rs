//! [`SqliteStorage`]: one connection that writes, a pool of those that read.

use crate::OpenError;
use crate::connection::{open_in_memory, open_reader, open_writer};
use crate::directory::{Directory, random};
use crate::error::storage_error;
use crate::tx::Tx;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use syncline_server::{ReadTx, Storage, StorageError, WriteTx};

/// Readers kept open; more are opened when needed and closed after use.
const IDLE_READERS: usize = 8;

/// The server's data in SQLite. See the crate's page.
#[derive(Debug)]
pub struct SqliteStorage {
    /// None: a database in memory, which has one connection only. Closed before the writer: the
    /// last connection folds the write-ahead log into the database, and a reader may not.
    readers: Option<Readers>,
    writer: Mutex<Connection>,
    secret: [u8; 32],
    /// Held until the connections above are closed.
    _directory: Option<Directory>,
}

#[derive(Debug)]
struct Readers {
    database: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteStorage {
    /// Opens a data directory, creating it the first time. Fails if another process serves it.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        let directory = Directory::take(directory.as_ref())?;
        let database = directory.database();
        let writer = open_writer(&database)?;
        Ok(Self {
            writer: Mutex::new(writer),
            readers: Some(Readers {
                database,
                idle: Mutex::new(Vec::new()),
            }),
            secret: directory.secret()?,
            _directory: Some(directory),
        })
    }

    /// A storage that is gone with the process, for tests.
    pub fn open_in_memory() -> Result<Self, OpenError> {
        Ok(Self {
            writer: Mutex::new(open_in_memory()?),
            readers: None,
            secret: random()?,
            _directory: None,
        })
    }

    fn with_reader<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let Some(readers) = &self.readers else {
            return work(&lock(&self.writer));
        };
        let idle = lock(&readers.idle).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => open_reader(&readers.database).map_err(storage_error)?,
        };
        let result = work(&reader);
        let mut idle = lock(&readers.idle);
        if idle.len() < IDLE_READERS && reader.is_autocommit() {
            idle.push(reader);
        }
        result
    }
}

impl Storage for SqliteStorage {
    fn write<T>(
        &self,
        mut work: impl FnMut(&mut dyn WriteTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let writer = lock(&self.writer);
        in_transaction(&writer, "BEGIN IMMEDIATE", || work(&mut Tx::new(&writer)))
    }

    fn read<T>(
        &self,
        mut work: impl FnMut(&dyn ReadTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.with_reader(|reader| {
            in_transaction(reader, "BEGIN DEFERRED", || work(&Tx::new(reader)))
        })
    }

    fn cursor_secret(&self) -> [u8; 32] {
        self.secret
    }
}

/// A panic while a connection was locked has rolled its transaction back on the way out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_transaction<T>(
    connection: &Connection,
    begin: &str,
    work: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    execute(connection, begin)?;
    let open = OpenTransaction(connection);
    let value = work()?;
    execute(connection, "COMMIT")?;
    drop(open);
    Ok(value)
}

fn execute(connection: &Connection, sql: &str) -> Result<(), StorageError> {
    let statement = connection.prepare_cached(sql);
    statement
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .map_err(storage_error)
}

/// Rolls back whatever has not been committed: an error, a failed commit, a panic.
struct OpenTransaction<'a>(&'a Connection);

impl Drop for OpenTransaction<'_> {
    fn drop(&mut self) {
        if self.0.is_autocommit() {
            return;
        }
        if let Err(error) = self.0.execute_batch("ROLLBACK") {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_protocol::Scope;

    #[test]
    fn a_full_database_is_told_as_such_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let storage = SqliteStorage::open(directory.path()).unwrap();
        let limit_pages = |pages: i64| {
            let writer = lock(&storage.writer);
            writer.pragma_update(None, "max_page_count", pages).unwrap();
        };
        limit_pages(64);
        let small = Scope::from("default");
        storage.write(|tx| tx.bump_head("acme", &small, 1)).unwrap();
        let full = storage.write(|tx| {
            tx.bump_head("acme", &small, 1)?;
            let large = Scope::new("x".repeat(1 << 20));
            tx.bump_head("acme", &large, 1)
        });
        assert!(matches!(full, Err(StorageError::Full { .. })), "{full:?}");
        let head = storage.read(|tx| tx.head("acme", &small)).unwrap();
        assert_eq!(head, 1, "nothing of it happened");
        limit_pages(10_000);
        let bumped = storage.write(|tx| tx.bump_head("acme", &small, 1));
        assert_eq!(bumped.unwrap(), 2);
    }

    #[test]
    fn a_closed_database_is_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let storage = SqliteStorage::open(directory.path()).unwrap();
        let scope = Scope::from("default");
        storage.write(|tx| tx.bump_head("acme", &scope, 1)).unwrap();
        storage.read(|tx| tx.head("acme", &scope)).unwrap();
        let log = directory.path().join("server.db-wal");
        assert!(log.exists());
        drop(storage);
        assert!(!log.exists());
    }

    #[test]
    fn another_writer_in_the_way_makes_it_busy() {
        let directory = tempfile::tempdir().unwrap();
        let storage = SqliteStorage::open(directory.path()).unwrap();
        let intruder = Connection::open(directory.path().join("server.db")).unwrap();
        intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
        lock(&storage.writer)
            .busy_timeout(std::time::Duration::from_millis(20))
            .unwrap();
        let busy = storage.write(|tx| tx.bump_head("acme", &Scope::from("s"), 1));
        assert!(matches!(busy, Err(StorageError::Busy { .. })), "{busy:?}");
        intruder.execute_batch("ROLLBACK").unwrap();
        let free = storage.write(|tx| tx.bump_head("acme", &Scope::from("s"), 1));
        assert_eq!(free.unwrap(), 1);
    }
}
