//! What can go wrong: opening a directory, and SQLite's errors as the kinds the server acts upon.

use rusqlite::ErrorCode;
use std::path::PathBuf;
use syncline_server::StorageError;

/// Why a directory cannot be served. Nothing in it was changed, unless the message says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process serves it. Stop that one first.
    #[error("{path} is being served by another process", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file or the directory cannot be used; the cause says why.
    #[error("{path} cannot be used: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The secret is damaged. Restore it, or remove it to have all clients pull from the start.
    #[error("{path} is not a secret of 32 bytes; restore it from a backup, or remove it to have every client pull from the start", path = path.display())]
    Secret {
        /// The secret's file.
        path: PathBuf,
    },
    /// The database was written by a newer Syncline. Update this one.
    #[error(
        "the database has schema version {found}, this program knows {known}; update the program"
    )]
    Newer {
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The file is a database of something else.
    #[error("server.db is a database, but not one of a Syncline server")]
    Foreign,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// SQLite refused; the file was left as it is.
    #[error("SQLite refused: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// SQLite's error as one of the kinds that the server acts upon.
pub(crate) fn storage_error(error: rusqlite::Error) -> StorageError {
    let source = Box::new(error);
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StorageError::Busy { source },
        Some(ErrorCode::DiskFull) => StorageError::Full { source },
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OutOfMemory,
        ) => StorageError::Unavailable { source },
        // Corruption above all: no retry mends it, and nothing here tries to.
        _ => StorageError::Internal { source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_codes_become_kinds() {
        let kind = |code| {
            let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            match storage_error(failure) {
                StorageError::Busy { .. } => "busy",
                StorageError::Full { .. } => "full",
                StorageError::Unavailable { .. } => "unavailable",
                _ => "internal",
            }
        };
        for (code, expected) in [
            (rusqlite::ffi::SQLITE_BUSY, "busy"),
            (rusqlite::ffi::SQLITE_BUSY_SNAPSHOT, "busy"),
            (rusqlite::ffi::SQLITE_FULL, "full"),
            (rusqlite::ffi::SQLITE_IOERR_WRITE, "unavailable"),
            (rusqlite::ffi::SQLITE_READONLY, "unavailable"),
            (rusqlite::ffi::SQLITE_CORRUPT, "internal"),
            (rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE, "internal"),
        ] {
            assert_eq!(kind(code), expected, "code {code}");
        }
    }
}
