//! Where the engine rests, written down for `status` and `explain` in other processes.
//!
//! Labels for people: nothing that the engine does depends on them.

use crate::error::StoreError;
use crate::meta::{self, key};
use crate::status::EngineView;
use rusqlite::Connection;
use rusqlite::types::ToSql;

/// Where the engine rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The engine, in its own words.
    pub engine: EngineView,
    /// The newest trouble that still matters.
    pub trouble: Option<Trouble>,
}

/// Why the engine does not get on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A word of [`RemoteError::word`](syncline_core::RemoteError::word), or [`Trouble::STORE`].
    pub kind: &'static str,
    /// What happened, for people.
    pub detail: String,
}

impl Trouble {
    /// The kind of trouble with the file itself.
    pub const STORE: &'static str = "store";
}

/// As it was written down.
pub(crate) struct Noted {
    pub(crate) state: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) error: Option<String>,
    /// When a back-off ends.
    pub(crate) until: Option<i64>,
}

impl Rest {
    pub(crate) fn note(&self, conn: &Connection) -> Result<(), StoreError> {
        let trouble = self.trouble.as_ref();
        let blocked = self.engine.blocked.as_ref();
        let wakeup = self.engine.next_wakeup.as_ref();
        meta::set(conn, key::ENGINE_STATE, &self.engine.state)?;
        put(conn, key::BLOCKED_BECAUSE, blocked.map(|by| &by.because))?;
        put(conn, key::BLOCKED_DETAIL, blocked.map(|by| &by.detail))?;
        put(conn, key::BLOCKED_UNTIL, blocked.and_then(|by| by.until))?;
        put(conn, key::WAKEUP_AT, wakeup.map(|wakeup| wakeup.at))?;
        put(
            conn,
            key::WAKEUP_REASON,
            wakeup.map(|wakeup| &wakeup.reason),
        )?;
        put(
            conn,
            key::LAST_ERROR,
            trouble.map(|one| one.detail.as_str()),
        )?;
        put(conn, key::LAST_ERROR_KIND, trouble.map(|one| one.kind))
    }
}

fn put(conn: &Connection, key: &str, value: Option<impl ToSql>) -> Result<(), StoreError> {
    match value {
        Some(value) => meta::set(conn, key, value)?,
        None => meta::clear(conn, key)?,
    }
    Ok(())
}

pub(crate) fn noted(conn: &Connection) -> Result<Noted, StoreError> {
    Ok(Noted {
        state: meta::get(conn, key::ENGINE_STATE)?,
        kind: meta::get(conn, key::LAST_ERROR_KIND)?,
        error: meta::get(conn, key::LAST_ERROR)?,
        until: meta::get(conn, key::BLOCKED_UNTIL)?,
    })
}
