//! The engine's connections to the app's file. Never makes a file: what is not there is an error.

use crate::entity_types::EntityTypes;
use crate::error::StoreError;
use crate::settings::Synchronous;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// The log is cut to this when it begins anew, however long it had become meanwhile: twice what SQLite lets it grow to by itself.
const LOG_BYTES: u64 = 8 << 20;

/// Opens the engine's connection to an existing file. References are checked by the engine itself:
/// a cascade under the guard would delete rows that a user created offline.
pub(crate) fn connect(
    path: &Path,
    busy_timeout_ms: u64,
    synchronous: Synchronous,
) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_millis(busy_timeout_ms))?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "synchronous", synchronous.as_str())?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.execute_batch(&format!("PRAGMA journal_size_limit = {LOG_BYTES}"))?;
    conn.set_prepared_statement_cache_capacity(256);
    Ok(conn)
}

/// What a store leaves for the next one of the same file: a new connection has to read the whole schema,
/// most of which are capture triggers, and to compare these with what they should be.
pub struct Left {
    pub(crate) conn: Connection,
    pub(crate) types: EntityTypes,
    /// `PRAGMA schema_version` when the types were loaded.
    pub(crate) schema_cookie: i64,
}

impl Left {
    /// A connection that is new.
    pub(crate) fn nothing_but(conn: Connection) -> Self {
        Self {
            conn,
            types: EntityTypes::default(),
            schema_cookie: -1,
        }
    }

    /// Whether no transaction is open on it.
    pub fn rests(&self) -> bool {
        self.conn.is_autocommit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_became_long_does_not_stay_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        let script =
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE note (text);";
        app.execute_batch(script).unwrap();
        let log = || std::fs::metadata(folder.path().join("app.db-wal")).map(|log| log.len());
        let write = |conn: &Connection, bytes: u64| {
            conn.execute("INSERT INTO note VALUES (zeroblob(?1))", [bytes])
                .unwrap();
        };
        write(&app, 2 * LOG_BYTES);
        assert!(log().unwrap() > LOG_BYTES);
        let engine = connect(&path, 100, Synchronous::Normal).unwrap();
        engine
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .unwrap();
        write(&engine, 1);
        assert!(log().unwrap() <= LOG_BYTES);
    }

    #[test]
    fn a_commit_waits_for_what_was_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        Connection::open(&path).unwrap();
        for (synchronous, number) in [(Synchronous::Full, 2), (Synchronous::Normal, 1)] {
            let conn = connect(&path, 0, synchronous).unwrap();
            let set = conn.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0));
            assert_eq!(set.unwrap(), number);
        }
    }
}
