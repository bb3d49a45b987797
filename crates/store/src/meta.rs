//! The key-value row of settings and facts, and the migrations of the engine's own tables.

use crate::error::StoreError;
use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

/// The migrations of the metadata tables, in order; applied in one transaction.
const MIGRATIONS: [&str; 1] = [include_str!("schema/0001_initial.sql")];

/// Keys of `syncline_meta`.
pub(crate) mod key {
    pub(crate) const SCHEMA_VERSION: &str = "schema_version";
    pub(crate) const CLIENT_ID: &str = "client_id";
    pub(crate) const REMOTE: &str = "remote";
    /// JSON: the numbers that were set when the file was attached.
    pub(crate) const SETTINGS: &str = "settings";
    /// JSON: the sizes that the server named last.
    pub(crate) const LIMITS: &str = "limits";
    /// How many milliseconds the server's clock was ahead of ours when it was asked last.
    pub(crate) const SERVER_CLOCK: &str = "server_clock_ms";
    /// The greatest number that an entry had when the head of the feed was last reached.
    pub(crate) const HEAD_SEQ: &str = "head_seq";
    /// JSON: the definitions that the remote took last, and those that it is being told.
    pub(crate) const REGISTERED: &str = "registered";
    pub(crate) const REGISTERING: &str = "registering";
    pub(crate) const TENANT: &str = "account_tenant";
    pub(crate) const SUBJECT: &str = "account_subject";
    pub(crate) const EPOCH: &str = "epoch";
    /// Also kept outside the file: shows that this is no copy and no older state.
    pub(crate) const INSTALLATION_TOKEN: &str = "installation_token";
    /// The server's token of the last answer that was booked.
    pub(crate) const EXCHANGE_TOKEN: &str = "exchange_token";
    /// The greatest number that a settled outbox entry had; capture triggers read it.
    pub(crate) const LAST_SEQ: &str = "last_seq";
    pub(crate) const LAST_PUSH_AT: &str = "last_push_at";
    pub(crate) const LAST_PULL_AT: &str = "last_pull_at";
    /// The server's history changed: until the next sweep is through, nothing is removed unasked.
    pub(crate) const RESET: &str = "reset";
    /// Writes may have escaped capture: the next snapshot is compared with the tables.
    pub(crate) const RECOVER: &str = "recover";
    /// The position of the feed up to which the rows agreed with the server.
    pub(crate) const RECOVER_FROM: &str = "recover_from";
    /// Prefix: fields of columns that are new since then.
    pub(crate) const RECOVER_NEW: &str = "recover_new:";
    /// Prefix: how many mutations were recorded so far.
    pub(crate) const RECOVERED: &str = "recovered:";
    /// Prefix: the type's table was seen to be gone; a table that comes back is not one whose rows were deleted.
    pub(crate) const TABLE_GONE: &str = "table_gone:";
    pub(crate) const SWEEPING: &str = "sweeping";
    /// Under which circumstances everything in the inbox was tried last.
    pub(crate) const INBOX_TRIED: &str = "inbox_tried";
    /// JSON: up to which record of a conflict the device's clock was not believed, and since when it is.
    pub(crate) const CONFLICTS_UNDATED: &str = "conflicts_undated";
    /// The same for the log.
    pub(crate) const LOG_UNDATED: &str = "log_undated";
    pub(crate) const ENGINE_STATE: &str = "engine_state";
    pub(crate) const LAST_ERROR: &str = "last_error";
    /// Which kind of trouble that was: a word of `RemoteError::word`, or `store`.
    pub(crate) const LAST_ERROR_KIND: &str = "last_error_kind";
    /// What keeps the engine from going on, what that is for people, and until when at most.
    pub(crate) const BLOCKED_BECAUSE: &str = "blocked_because";
    pub(crate) const BLOCKED_DETAIL: &str = "blocked_detail";
    pub(crate) const BLOCKED_UNTIL: &str = "blocked_until";
    /// When it goes on by itself, and why.
    pub(crate) const WAKEUP_AT: &str = "wakeup_at";
    pub(crate) const WAKEUP_REASON: &str = "wakeup_reason";
    /// JSON: what the cycle under way has pushed.
    pub(crate) const PUSHED: &str = "pushed";
    /// Up to which entry `syncline_count` has counted.
    pub(crate) const COUNTED: &str = "counted";
    /// Prefix: types whose existing rows were adopted and are still to be compared.
    pub(crate) const ADOPT: &str = "adopt:";
    /// Prefix: types whose clean rows may hold values that the server was never told.
    pub(crate) const UNTOLD: &str = "untold:";
}

/// Reads a value.
pub(crate) fn get<T: FromSql>(conn: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    conn.prepare_cached("SELECT value FROM syncline_meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
        .map(Option::flatten)
}

/// Writes a value.
pub(crate) fn set(conn: &Connection, key: &str, value: impl ToSql) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO syncline_meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![key, value])?;
    Ok(())
}

/// Raises a number; a smaller one changes nothing.
pub(crate) fn raise(conn: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO syncline_meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE excluded.value > value",
    )?
    .execute(params![key, value])?;
    Ok(())
}

/// Removes a value.
pub(crate) fn clear(conn: &Connection, key: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM syncline_meta WHERE key = ?1")?
        .execute([key])?;
    Ok(())
}

/// The schema version in the file; `None` when there are no metadata tables.
pub(crate) fn schema_version(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    let exists: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'syncline_meta')",
        [],
        |row| row.get(0),
    )?;
    if exists {
        get(conn, key::SCHEMA_VERSION)
    } else {
        Ok(None)
    }
}

/// Fails unless the file is attached and its metadata is of a version that this program reads.
pub(crate) fn require_readable(conn: &Connection) -> Result<(), StoreError> {
    let known = MIGRATIONS.len() as i64;
    match schema_version(conn)? {
        None => Err(StoreError::NotAttached),
        Some(found) if found > known => Err(StoreError::Newer { found, known }),
        Some(_) => Ok(()),
    }
}

/// Brings the metadata tables to the newest version, in one transaction: old or new, never half.
pub(crate) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    migrate_in(&tx)?;
    tx.commit()?;
    Ok(())
}

pub(crate) fn migrate_in(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let found = schema_version(tx)?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute_batch(migration)?;
    }
    if found < known {
        set(tx, key::SCHEMA_VERSION, known)?;
    }
    Ok(())
}
