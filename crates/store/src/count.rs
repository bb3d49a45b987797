//! How many entries the outbox has and how many bytes they are, without going through them.
//!
//! `syncline_count` has the sums of the entries up to the number `counted`; triggers on the outbox
//! keep them. Newer entries are counted here, in a transaction that writes anyway: counting them in
//! the app's transactions would dirty one more page in each. Nothing else may write `syncline_count`.

use crate::error::StoreError;
use crate::meta;
use rusqlite::Connection;
use std::collections::BTreeMap;

/// What is in the outbox.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Entries, by entity type and state.
    pub(crate) entries: BTreeMap<String, BTreeMap<String, u64>>,
    /// Bytes of payload that are still to be sent.
    pub(crate) bytes: u64,
}

/// Counts what was recorded since this was done last. For a transaction that writes.
pub(crate) fn catch_up(conn: &Connection) -> Result<(), StoreError> {
    let counted: i64 = meta::get(conn, meta::key::COUNTED)?.unwrap_or(0);
    let newest: i64 = conn
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM syncline_outbox")?
        .query_row([], |row| row.get(0))?;
    if newest <= counted {
        return Ok(());
    }
    conn.prepare_cached(
        "INSERT INTO syncline_count (entity_type, state, entries, bytes)
         SELECT entity_type, state, count(*), sum(coalesce(length(CAST(payload AS BLOB)), 0))
           FROM syncline_outbox NOT INDEXED WHERE seq > ?1 GROUP BY entity_type, state
         ON CONFLICT (entity_type, state) DO UPDATE
            SET entries = entries + excluded.entries, bytes = bytes + excluded.bytes",
    )?
    .execute([counted])?;
    conn.prepare_cached(
        "INSERT OR IGNORE INTO syncline_count (entity_type, state, entries, bytes)
         SELECT DISTINCT entity_type, s.column1, 0, 0 FROM syncline_count,
                (VALUES ('pending'), ('in_flight'), ('failed'), ('dead')) AS s",
    )?
    .execute([])?;
    Ok(meta::set(conn, meta::key::COUNTED, newest)?)
}

/// What is in the outbox now.
pub(crate) fn backlog(conn: &Connection) -> Result<Backlog, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT entity_type, state, entries, bytes FROM syncline_backlog")?;
    let mut rows = statement.query([])?;
    let mut backlog = Backlog::default();
    while let Some(row) = rows.next()? {
        let (state, entries, bytes): (String, u64, u64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        if state == "pending" || state == "in_flight" {
            backlog.bytes += bytes;
        }
        let of_type = backlog.entries.entry(row.get(0)?).or_default();
        of_type.insert(state, entries);
    }
    Ok(backlog)
}
