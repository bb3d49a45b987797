//! The write API: plain SQL in one transaction, in which the capture triggers record.

use crate::Error;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::Path;
use std::time::Duration;
use syncline_store::Settings;
use syncline_store::captured::{CapturedError, entity_id_of_mutation, fields_of_mutation};

/// The app's own connection for writes through the handle: foreign keys on, never a network.
pub(crate) fn connect(path: &Path, settings: &Settings) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_millis(settings.busy_timeout_ms()))?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    Ok(conn)
}

/// Runs `write` in one transaction. Whatever it returns as an error, and whatever it wrote that
/// could never be synced, rolls everything back (A1).
pub(crate) fn write<T, E: From<Error> + From<rusqlite::Error>>(
    conn: &mut Connection,
    write: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = newest(&tx)?;
    let done = write(&tx)?;
    refuse_unsyncable(&tx, before).map_err(E::from)?;
    tx.commit()?;
    Ok(done)
}

fn newest(tx: &Transaction<'_>) -> Result<i64, rusqlite::Error> {
    tx.query_row(
        "SELECT coalesce(max(seq), 0) FROM syncline_outbox",
        [],
        |row| row.get(0),
    )
}

fn refuse_unsyncable(tx: &Transaction<'_>, before: i64) -> Result<(), Error> {
    let mut statement = tx.prepare_cached("SELECT seq FROM syncline_outbox WHERE seq > ?1")?;
    let recorded: Vec<i64> = statement
        .query_map([before], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for seq in recorded {
        let readable = entity_id_of_mutation(tx, seq).and_then(|_| fields_of_mutation(tx, seq));
        match readable {
            Ok(_) => {}
            Err(error @ CapturedError::Unsyncable { .. }) => {
                return Err(Error::Unsyncable(error.to_string()));
            }
            Err(error) => return Err(syncline_store::StoreError::from(error).into()),
        }
    }
    Ok(())
}
