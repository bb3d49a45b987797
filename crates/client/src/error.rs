//! What can go wrong when embedding.

use std::path::PathBuf;
use syncline_protocol::ValueError;
use syncline_store::StoreError;

/// An error of the embedding API. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQLite refused or failed.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The remote cannot be set up like this.
    #[cfg(feature = "http")]
    #[error(transparent)]
    Remote(#[from] syncline_remote_http::HttpRemoteError),
    /// The configuration file is refused.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// No remote was named, neither to the builder nor when the database was attached.
    #[error("no remote: name one with Builder::remote, or attach the database first")]
    NoRemote,
    /// The file does not exist; Syncline never creates an app's database.
    #[error("there is no database at {}; create your tables first", .0.display())]
    NoDatabase(PathBuf),
    /// A database is only cloned into a new file.
    #[error("{} exists already, and was left as it is; name a new file", .0.display())]
    Exists(PathBuf),
    /// The file could not be made.
    #[error("{} cannot be created: {}", .0.display(), .1)]
    CannotCreate(PathBuf, String),
    /// The server knows of no tables.
    #[error(
        "no device has told {0} what its tables look like; sync the first device, then try again"
    )]
    NothingToClone(String),
    /// The server did not answer as it should have.
    #[error(transparent)]
    Answer(#[from] syncline_core::RemoteError),
    /// A written value can never be synced; the write was rolled back.
    #[error("a written value cannot be synced: {0}; the write was rolled back")]
    Unsyncable(String),
    /// What was written is more than the server takes at once; the write was rolled back.
    #[error("{0}; the write was rolled back")]
    TooLarge(String),
    /// The outbox is full; the write was rolled back. Try again once something is synced.
    #[error(
        "{rows} mutations wait to be synced, which is the limit set by outbox_rows; the write was rolled back: sync, then try again"
    )]
    OutboxFull {
        /// Unsettled mutations.
        rows: u64,
    },
    /// A command stands for one write to one entity; the write was rolled back.
    #[error(
        "a command belongs to a write of exactly one entity, this one recorded {0}; the write was rolled back"
    )]
    NotOneEntity(usize),
    /// A live query cannot be run; it is tried again when the file has changed.
    #[error("the live query cannot be run: {0}")]
    LiveQuery(String),
    /// A value can never be synced.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A recording never takes the place of something else.
    #[error("{} is there and is no trace; record into another file", .0.display())]
    NotATrace(PathBuf),
    /// The machine gives no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The engine's thread could not be started or has ended.
    #[error("the engine is not running{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NotRunning(Option<String>),
}
