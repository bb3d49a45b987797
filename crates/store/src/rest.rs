//! Where the engine rests, written down for `status` and `explain` in other processes.
//!
//! Labels for people: nothing that the engine does depends on them.

use crate::error::StoreError;
use crate::meta::{self, key};
use rusqlite::Connection;
use rusqlite::types::ToSql;

/// Where the engine rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The state's name.
    pub state: &'static str,
    /// The newest trouble that still matters.
    pub trouble: Option<Trouble>,
    /// When a back-off ends, in milliseconds since 1970.
    pub until: Option<i64>,
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
    pub(crate) until: Option<i64>,
}

impl Rest {
    pub(crate) fn note(&self, conn: &Connection) -> Result<(), StoreError> {
        let trouble = self.trouble.as_ref();
        meta::set(conn, key::ENGINE_STATE, self.state)?;
        put(conn, key::ENGINE_UNTIL, self.until)?;
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
        until: meta::get(conn, key::ENGINE_UNTIL)?,
    })
}
