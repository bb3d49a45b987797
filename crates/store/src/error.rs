//! What can go wrong in the store, and whether trying again helps.

use crate::captured::CapturedError;
use crate::table::TableError;
use rusqlite::ErrorCode;
use syncline_core::{FaultKind, PageFault, StoreFault};

/// An error of the store. The transaction it happened in was rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite refused or failed.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A table cannot be synced.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A table cannot be made from what another device said of it.
    #[error(transparent)]
    Definition(#[from] crate::definitions::DefinitionError),
    /// What a capture trigger recorded cannot be read.
    #[error(transparent)]
    Captured(#[from] CapturedError),
    /// Stored JSON cannot be read.
    #[error("a stored {what} cannot be read: {source}; the file may be damaged")]
    Json {
        /// What was read.
        what: &'static str,
        /// Why it failed.
        source: serde_json::Error,
    },
    /// Another process is the engine now (S2).
    #[error("another process became the engine of this database")]
    Fenced,
    /// The file was taken for a copy while it was open, and has a new identity.
    #[error(
        "the database has a new identity, which another process gave it: it was taken for a copy; start again"
    )]
    OtherIdentity,
    /// A page does not follow the stored cursor.
    #[error("the page does not follow the stored cursor; it will be asked for again")]
    OutOfOrder,
    /// A page contradicts itself or what is stored.
    #[error(
        "the server's page cannot be taken: {0}; nothing of it was applied, it is asked for again"
    )]
    BadPage(#[from] PageFault),
    /// More changes that nobody understands than are kept.
    #[error(
        "{0} changes that this program does not understand are waiting already, so no page that brings more is taken; use a newer Syncline, or look at the server"
    )]
    QuarantineFull(i64),
    /// The metadata was written by a newer Syncline.
    #[error(
        "the database's sync metadata has version {found}, this program knows up to {known}; use a newer Syncline"
    )]
    Newer {
        /// Version in the file.
        found: i64,
        /// Newest version known here.
        known: i64,
    },
    /// The database was never attached.
    #[error("the database is not attached; run `syncline attach` first")]
    NotAttached,
    /// The database is already attached to something else.
    #[error("the database is attached to {0}; detach it first")]
    AttachedElsewhere(String),
    /// There is still work that was not synced.
    #[error("{0} mutations are not synced yet; sync first, or use --force to drop them")]
    WorkPending(i64),
    /// There is no such outbox entry.
    #[error("the outbox has no entry {0}")]
    NoSuchEntry(i64),
    /// There is no such conflict.
    #[error("there is no conflict {0}; those that were decided long ago are forgotten")]
    NoSuchConflict(i64),
    /// The entry is not in a state in which this can be done.
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    /// The kind of trouble, by what helps.
    pub fn kind(&self) -> FaultKind {
        match self {
            StoreError::Sqlite(error)
            | StoreError::Captured(CapturedError::Storage(error))
            | StoreError::Table(TableError::Storage(error)) => error
                .sqlite_error_code()
                .map_or(FaultKind::Other, fault_kind),
            StoreError::Fenced => FaultKind::Fenced,
            StoreError::OutOfOrder => FaultKind::OutOfOrder,
            StoreError::BadPage(_) | StoreError::QuarantineFull(_) => FaultKind::BadPage,
            _ => FaultKind::Other,
        }
    }

    /// As the state machine is told.
    pub fn to_fault(&self) -> StoreFault {
        StoreFault {
            kind: self.kind(),
            detail: self.to_string(),
        }
    }
}

fn fault_kind(code: ErrorCode) -> FaultKind {
    match code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        // A reader that did not get its lock for ten seconds.
        | ErrorCode::FileLockingProtocolFailed => FaultKind::Busy,
        ErrorCode::DiskFull => FaultKind::Full,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => FaultKind::Corrupt,
        ErrorCode::CannotOpen
        | ErrorCode::ReadOnly
        | ErrorCode::SystemIoFailure
        | ErrorCode::PermissionDenied
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted => FaultKind::Unavailable,
        _ => FaultKind::Other,
    }
}

/// Whether a failed row write is the row's own fault (a constraint, a value of the wrong class, an
/// app trigger that refuses it) rather than the store's.
pub(crate) fn is_rows_fault(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_none_or(|code| {
        fault_kind(code) == FaultKind::Other
            && !matches!(code, ErrorCode::SchemaChanged | ErrorCode::ApiMisuse)
    })
}

pub(crate) fn json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Json { what, source })
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> String {
    // Types of ours with text keys always serialise.
    serde_json::to_string(value)
        .unwrap_or_else(|error| format!("{{\"unserialisable\":\"{error}\"}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    /// What helps against it, and whether a row may be blamed for it.
    #[test]
    fn sqlite_codes_become_kinds_and_only_the_rows_own_faults_are_its() {
        for (code, kind, rows_fault) in [
            (ffi::SQLITE_BUSY, FaultKind::Busy, false),
            (ffi::SQLITE_BUSY_SNAPSHOT, FaultKind::Busy, false),
            (ffi::SQLITE_PROTOCOL, FaultKind::Busy, false),
            (ffi::SQLITE_FULL, FaultKind::Full, false),
            (ffi::SQLITE_IOERR_FSYNC, FaultKind::Unavailable, false),
            (ffi::SQLITE_CANTOPEN, FaultKind::Unavailable, false),
            (ffi::SQLITE_NOMEM, FaultKind::Unavailable, false),
            (ffi::SQLITE_CORRUPT, FaultKind::Corrupt, false),
            (ffi::SQLITE_CONSTRAINT_UNIQUE, FaultKind::Other, true),
        ] {
            let error = || rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(StoreError::from(error()).kind(), kind, "code {code}");
            assert_eq!(is_rows_fault(&error()), rows_fault, "code {code}");
        }
    }
}
