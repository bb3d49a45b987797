//! Who is the engine of this file: a lease with a fencing token.
//!
//! Time decides only when someone may try to take over; whether a write is safe is decided by the
//! token alone, in the same transaction as the write (S2).

use crate::error::StoreError;
use crate::holder;
use rusqlite::{Connection, OptionalExtension, params};
use syncline_core::Now;

/// `until` of a lease that was given back.
const GIVEN_BACK: i64 = 0;

/// What came of asking for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lease {
    /// It is ours, under this token.
    Ours(i64),
    /// Another process has it for at most this much longer.
    Theirs { remaining_ms: u64 },
}

/// The lease as it stands.
pub(crate) struct Held {
    pub(crate) holder: String,
    pub(crate) token: i64,
    /// Milliseconds since 1970; 0 when it was given back.
    pub(crate) until: i64,
}

/// Who had the lease last, and until when.
pub(crate) fn current(conn: &Connection) -> Result<Option<Held>, StoreError> {
    let sql = "SELECT holder, token, until FROM syncline_lease WHERE id = 1";
    let row = conn.query_row(sql, [], |row| {
        Ok(Held {
            holder: row.get(0)?,
            token: row.get(1)?,
            until: row.get(2)?,
        })
    });
    Ok(row.optional()?)
}

/// Another process's lease as it was first seen, and when it ends by this process's own monotonic
/// clock: a wall clock that is set meanwhile makes it neither shorter nor longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    token: i64,
    until: i64,
    ends_ms: u64,
}

/// Takes or prolongs the lease.
pub(crate) fn acquire(
    conn: &Connection,
    holder: &str,
    ttl_ms: u64,
    now: Now,
    seen: &mut Option<Seen>,
) -> Result<Lease, StoreError> {
    let row = current(conn)?.map(|held| (held.holder, held.token, held.until));
    let until = now.unix_after_ms(ttl_ms);
    let token = match row {
        None => {
            conn.execute(
                "INSERT INTO syncline_lease (id, holder, token, until) VALUES (1, ?1, 1, ?2)",
                params![holder, until],
            )?;
            return Ok(Lease::Ours(1));
        }
        Some((current, token, _)) if current == holder => token,
        Some((current, token, theirs)) => {
            let known = seen.filter(|seen| (seen.token, seen.until) == (token, theirs));
            let looked = known.unwrap_or_else(|| Seen {
                token,
                until: theirs,
                ends_ms: now.after_ms(remaining(theirs, until, now)),
            });
            *seen = Some(looked);
            let remaining_ms = looked.ends_ms.saturating_sub(now.monotonic_ms);
            // Given back, or killed without giving it back.
            let free = theirs <= GIVEN_BACK || holder::is_gone(&current);
            if remaining_ms > 0 && !free {
                return Ok(Lease::Theirs { remaining_ms });
            }
            token + 1
        }
    };
    *seen = None;
    conn.execute(
        "UPDATE syncline_lease SET holder = ?1, token = ?2, until = ?3 WHERE id = 1",
        params![holder, token, until],
    )?;
    Ok(Lease::Ours(token))
}

/// For how long a lease that is seen for the first time lasts. One that ends beyond now + TTL was
/// written under another clock: it counts as expired.
fn remaining(theirs: i64, longest: i64, now: Now) -> u64 {
    match theirs {
        theirs if theirs > longest => 0,
        theirs => u64::try_from(theirs.saturating_sub(now.unix_ms)).unwrap_or(0),
    }
}

/// Checks that the token is still the newest.
pub(crate) fn check(conn: &Connection, token: i64) -> Result<(), StoreError> {
    let current: Option<i64> = conn
        .prepare_cached("SELECT token FROM syncline_lease WHERE id = 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if current == Some(token) {
        Ok(())
    } else {
        Err(StoreError::Fenced)
    }
}

/// Gives the lease back, if it is still ours, so that another process need not wait for its end.
pub(crate) fn release(conn: &Connection, holder: &str) -> Result<(), StoreError> {
    conn.execute(
        "UPDATE syncline_lease SET until = ?2 WHERE id = 1 AND holder = ?1",
        params![holder, GIVEN_BACK],
    )?;
    Ok(())
}
