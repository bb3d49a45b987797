//! Syncline for apps: keep writing your own SQLite tables with your own SQL, and have them synced.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("app.db");
//! use syncline::{Syncline, TokenSource};
//!
//! // Your tables, made by your own migrations.
//! let app = syncline::rusqlite::Connection::open(&path)?;
//! app.execute_batch("CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER)")?;
//!
//! // Attach once, then run in the background. Nothing here waits for the network.
//! let sync = Syncline::builder(&path)
//!     .remote("http://127.0.0.1:8470")
//!     .token(TokenSource::File("token".into())) // what `syncline token` printed
//!     .attach(["task"])
//!     .open()?;
//!
//! // Plain SQL; the mutation is recorded in the same transaction.
//! sync.write(|tx| {
//!     tx.execute("INSERT INTO task VALUES ('t1', 'milk', 0)", [])?;
//!     Ok::<_, syncline::Error>(())
//! })?;
//! // Any other connection, process or language is captured as well.
//! app.execute("UPDATE task SET title = 'oat milk' WHERE id = 't1'", [])?;
//!
//! let status = sync.status()?;
//! assert_eq!(status.outbox["pending"], 2);
//! sync.close();
//! # Ok(())
//! # }
//! ```
//!
//! [`Engine`] is the synchronous, deterministic heart: state machine plus store. [`Syncline`] runs
//! it on a thread of its own and moves requests and time; its methods may be called from any
//! thread, in async code or not.

mod awaiting;
mod builder;
mod clock;
#[cfg(feature = "http")]
mod clone;
mod config;
#[cfg(feature = "http")]
mod digest;
mod driver;
mod engine;
mod error;
mod handle;
mod live_query;
mod meter;
mod outbox;
mod record;
mod write;

pub use awaiting::{SyncedEnd, Writes};
pub use builder::Builder;
pub use clock::Clock;
pub use config::{ConfigError, ConfigFile, ConfiguredToken, ConfiguredType};
#[cfg(feature = "http")]
pub use digest::{Compared, Comparison, Rows};
pub use driver::pass::{Budget, PassEnd};
pub use engine::{Engine, Outgoing};
pub use error::Error;
pub use handle::{NoticeStream, StatusStream, SyncEnd, Syncline};
pub use live_query::{BlockingLiveQuery, LiveQuery, QueryResult};
pub use meter::describe_metrics;
pub use record::{Recording, TraceSink};
pub use write::{Grouping, Recorded, WriteOptions};

pub use rusqlite;
pub use syncline_core::trace;
pub use syncline_core::{
    Allowance, Blocked, BlockedBecause, Config, Constraints, CycleEnd, Effect, EntityRef, Input,
    Live, MutationError, Notice, Now, Policy, Reason, Remote, RemoteAnswer, RemoteError,
    RemoteRequest, RequestId, State, SyncOrder,
};
pub use syncline_core::{
    Bound, ConflictCause, ConflictInput, ConflictRules, DeleteRule, DeleteRules, FieldRule,
    Invariant, PendingMutation, Resolution, Resolver, TimeUnit, Timestamp,
};
pub use syncline_protocol as protocol;
#[cfg(feature = "http")]
pub use syncline_remote_http::{
    HttpBody, HttpFault, HttpFuture, HttpRemote, HttpRemoteError, HttpRequest, HttpResponse,
    HttpTransport, PlainHttp, TokenCommand, TokenSource,
};
pub use syncline_store::attach::{AttachReport, Existing, Tables, Unsynced, detach};
pub use syncline_store::conflict::{
    ChangedBy, Choice, Conflict, ConflictDetails, ConflictFilter, ConflictState, FieldChoice,
    FieldDetails, FieldRecord, Loss, OtherEntity, Outcome, PolicyOutcome, Showed, Side,
};
pub use syncline_store::definitions::Made;
pub use syncline_store::digest::{Apart, Divergence, DivergenceKind};
pub use syncline_store::migrate::{MigrateReport, MigratedTable, migrate};
pub use syncline_store::outbox_view::{EntryDetail, EntryView, SettledView, WaitsFor, Which};
pub use syncline_store::progress::{Progress, PullProgress, PushProgress};
pub use syncline_store::status::{BlockedBy, EngineView, LastError, ScopeStatus, Status, Wakeup};
pub use syncline_store::{
    Checkpoint, Discarded, EntryState, Lane, LiveUpdates, Moment, PullMode, Repaired, SettingError,
    Settings, Store, StoreError, StoreOptions, Synchronous, Watcher,
};
pub use syncline_store::{InstallationRecords, StateDirectory};
