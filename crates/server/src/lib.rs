//! The Syncline server: the native protocol over a [`Storage`], and an adapter to HTTP.
//!
//! ```text
//!  sockets ──> http ──> Service ──> api/* (one file per endpoint) ──> Storage
//!              (async)  (synchronous, deterministic)                  (SQLite, memory, …)
//! ```
//!
//! [`Service`] knows no socket, no clock and no dice: time comes in as [`Now`], so that a simulator
//! runs the very code that serves. The order of checks, what a conflict is and how a cursor is made
//! are decided here; a storage only keeps what it is told. Nothing here panics on outside data.

mod api;
mod auth;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod cursor;
mod declared;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod hub;
mod json_scan;
mod key_time;
mod memory;
mod message;
mod meter;
mod mint;
mod problems;
mod service;
mod storage;
mod upkeep;

pub use auth::{AuthError, Authenticator, Identity, MAX_TOKEN_BYTES, issue_token};
pub use config::{
    CommandConfig, ConfigError, FieldConfig, IdAssignment, ServerConfig, ServerSet, TypeConfig,
};
pub use http::{HttpConfig, serve, serve_with};
pub use memory::MemoryStorage;
pub use message::{Headers, Now, Request, Response};
pub use meter::describe_metrics;
pub use service::Service;
pub use storage::{
    Entity, EntityKey, EntityRef, Exchange, Fingerprint, IndexEntry, KeyRecord, OldKey, ReadTx,
    Storage, StorageError, StoredDefinition, WriteTx,
};
pub use upkeep::{Purged, purge, rotate_epoch};

/// The one scope that every tenant has for now.
pub const DEFAULT_SCOPE: &str = "default";
