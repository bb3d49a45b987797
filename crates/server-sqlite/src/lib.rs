//! [`SqliteStorage`]: the Syncline server's data in SQLite, embedded, with nothing to set up.
//!
//! One directory, served by one process at a time: `server.db` (write-ahead log, synchronous FULL),
//! `secret` (authenticates cursors; readable by its owner only), `lock`. One connection writes, a
//! few read; each transaction begins and ends inside one call, and ends by an explicit rollback if
//! anything fails. This crate keeps and finds, it never decides: the contract is
//! [`syncline_server::Storage`].
//!
//! # Schema
//!
//! ```sql
#![doc = include_str!("schema.sql")]
//! ```

mod connection;
mod directory;
mod error;
mod sql;
mod storage;
mod tx;

pub use error::OpenError;
pub use storage::SqliteStorage;
