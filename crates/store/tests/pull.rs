//! Pull: what pages do to rows, inbox and cursor.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

#[path = "pull/checkpoint.rs"]
mod checkpoint;
#[path = "pull/columns.rs"]
mod columns;
#[path = "pull/inbox.rs"]
mod inbox;
#[path = "pull/pages.rs"]
mod pages;
#[path = "pull/sent.rs"]
mod sent;
#[path = "pull/snapshot.rs"]
mod snapshot;
#[path = "pull/support.rs"]
mod support;
#[path = "pull/triggers.rs"]
mod triggers;
#[path = "pull/unique.rs"]
mod unique;
#[path = "pull/unknown.rs"]
mod unknown;
