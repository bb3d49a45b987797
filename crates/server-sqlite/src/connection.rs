//! Opening connections and bringing the schema up to date.
//!
//! A database that is newer than this program, or not ours, is refused and left as it is.

use crate::OpenError;
use crate::directory::random;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_VERSION: i64 = 1;
/// "SyLs", so that `file` and we know whose database it is.
const APPLICATION_ID: i64 = 0x5379_4c73;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const CACHED_STATEMENTS: usize = 64;

pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = Connection::open(path)?;
    tune(&connection)?;
    migrate(&mut connection)?;
    // After the check of whose file it is: this writes to it.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

pub(crate) fn open_in_memory() -> Result<Connection, OpenError> {
    let mut connection = Connection::open_in_memory()?;
    tune(&connection)?;
    migrate(&mut connection)?;
    Ok(connection)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    tune(&connection)?;
    Ok(connection)
}

fn tune(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "foreign_keys", "ON")
}

/// All or nothing: the schema, its version and the epoch come in one transaction.
fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let owner: i64 = tx.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let result = match version {
        0 if owner == 0 && tables == 0 => create(&tx),
        _ if owner != APPLICATION_ID => Err(OpenError::Foreign),
        SCHEMA_VERSION => Ok(()),
        newer if newer > SCHEMA_VERSION => Err(OpenError::Newer {
            found: newer,
            known: SCHEMA_VERSION,
        }),
        _ => Err(OpenError::Foreign),
    };
    match result {
        Ok(()) => Ok(tx.commit()?),
        // Rolled back when it goes; the error to tell is this one.
        Err(error) => Err(error),
    }
}

fn create(tx: &Transaction<'_>) -> Result<(), OpenError> {
    tx.execute_batch(SCHEMA)?;
    let epoch: String = random::<16>()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    tx.execute(
        "INSERT INTO meta (name, value) VALUES ('epoch', ?1)",
        [epoch],
    )?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(())
}
