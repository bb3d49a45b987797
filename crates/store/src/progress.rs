//! How far a long push or pull has come, as the file tells it.
//!
//! It is noted in transactions that write anyway: a page notes what was received with its cursor, a
//! booking what was pushed. Nothing is decided by it.

use crate::error::{StoreError, json, to_json};
use crate::meta;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use syncline_protocol::PageEnd;

/// How far a push or a pull that takes several requests has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// The pull that has not reached the head yet, also if it was interrupted.
    pub pull: Option<PullProgress>,
    /// The push that has not sent everything yet.
    pub push: Option<PushProgress>,
}

/// How far a pull has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PullProgress {
    /// Changes received so far.
    pub rows: u64,
    /// Their bytes, as they were read.
    pub bytes: u64,
    /// About how many changes are still to come, at most; `None`: the server does not say.
    pub rows_to_come: Option<u64>,
}

/// How far a push has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PushProgress {
    /// Mutations that took effect in this cycle.
    pub mutations: u64,
    /// Their bytes, as they were sent.
    pub bytes: u64,
    /// Mutations that are still to be sent or answered.
    pub mutations_to_go: u64,
    /// Their bytes of payload.
    pub bytes_to_go: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Pushed {
    mutations: u64,
    bytes: u64,
}

/// A cycle begins: it has pushed nothing yet.
pub(crate) fn begin_cycle(conn: &Connection) -> Result<(), StoreError> {
    Ok(meta::clear(conn, meta::key::PUSHED)?)
}

/// So much more was pushed.
pub(crate) fn pushed(conn: &Connection, mutations: u64, bytes: u64) -> Result<(), StoreError> {
    let before = so_far(conn)?.unwrap_or_default();
    let pushed = Pushed {
        mutations: before.mutations + mutations,
        bytes: before.bytes + bytes,
    };
    Ok(meta::set(conn, meta::key::PUSHED, to_json(&pushed))?)
}

fn so_far(conn: &Connection) -> Result<Option<Pushed>, StoreError> {
    let noted: Option<String> = meta::get(conn, meta::key::PUSHED)?;
    noted.map(|text| json("pushed", &text)).transpose()
}

/// How many changes are still to come after a page: none at the head, whatever the server says.
pub(crate) fn to_come(end: &PageEnd) -> Option<u64> {
    match end.at_head {
        true => Some(0),
        false => end.to_come.filter(|to_come| *to_come > 0),
    }
}

/// Reads it, given what is in the outbox.
pub(crate) fn read(
    conn: &Connection,
    outbox: &BTreeMap<String, u64>,
    backlog_bytes: u64,
) -> Result<Progress, StoreError> {
    let entries = |state: &str| outbox.get(state).copied().unwrap_or(0);
    let to_go = entries("pending") + entries("in_flight");
    let so_far = so_far(conn)?;
    let under_way = to_go > 0 && (so_far.is_some() || entries("in_flight") > 0);
    let so_far = so_far.unwrap_or_default();
    Ok(Progress {
        pull: pull(conn)?,
        push: under_way.then_some(PushProgress {
            mutations: so_far.mutations,
            bytes: so_far.bytes,
            mutations_to_go: to_go,
            bytes_to_go: backlog_bytes,
        }),
    })
}

fn pull(conn: &Connection) -> Result<Option<PullProgress>, StoreError> {
    let (scopes, mut rows, mut bytes, mut rows_to_come): (u64, u64, u64, Option<u64>) = conn
        .prepare_cached(
            "SELECT count(*), coalesce(sum(received), 0), coalesce(sum(received_bytes), 0), sum(to_come)
               FROM syncline_cursor WHERE to_come IS NOT 0",
        )?
        .query_row([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    // What waits for a checkpoint was received as well, and knows better what is to come.
    let mut statement = conn.prepare_cached(
        "SELECT sum(changes), sum(bytes),
                (SELECT page_end FROM syncline_staged_page AS newest
                  WHERE newest.scope = s.scope ORDER BY page DESC LIMIT 1)
           FROM syncline_staged_page AS s GROUP BY scope",
    )?;
    let staged = statement.query_map(params![], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
    })?;
    let mut any = scopes > 0;
    for staged in staged {
        let (more_rows, more_bytes, end): (u64, u64, String) = staged?;
        let end: PageEnd = json("staged page", &end)?;
        (rows, bytes, rows_to_come) = (rows + more_rows, bytes + more_bytes, to_come(&end));
        any = true;
    }
    Ok(any.then_some(PullProgress {
        rows,
        bytes,
        rows_to_come,
    }))
}
