//! The local store: everything Syncline keeps in the app's own SQLite file.
//!
//! The app's tables are untouched; the engine's are named `syncline_*` and described in
//! `docs/metadata.md`. What the app writes is recorded by capture triggers ([`capture`]) in the
//! same transaction as the write; everything the engine does is a unit of work of [`Store`], one
//! transaction each. Decisions are made by `syncline-core`; this crate reads, asks it, and writes.

mod aged;
mod app_triggers;
mod apply;
pub mod ask;
pub mod attach;
mod book;
pub mod capture;
pub mod captured;
mod circle;
mod claim;
pub mod conflict;
mod connect;
mod copies;
mod count;
pub mod definitions;
pub mod digest;
pub mod doctor;
mod entity_types;
mod error;
pub mod explain;
mod follow;
mod held;
pub mod holder;
mod identity;
pub mod ids;
mod inbox;
mod journal;
mod keys;
mod lease;
mod meta;
pub mod migrate;
mod options;
mod orphans;
mod outbox;
pub mod outbox_view;
mod page;
mod preview;
pub mod progress;
mod recover;
mod rekey;
mod remedy;
mod repair;
mod rest;
mod retry;
mod row;
mod settings;
mod stage;
mod state;
pub mod status;
mod steady;
mod store;
mod sums;
mod sweep;
pub mod table;
mod target;
mod trail;
mod type_options;
mod unknown;
mod vacate;

pub use connect::Left;
pub use error::StoreError;
pub use identity::{InstallationRecords, StateDirectory, enrol};
pub use options::{Moment, StoreOptions, Watcher};
pub use outbox::EntryState;
pub use preview::{Preview, preview};
pub use remedy::Discarded;
pub use repair::Repaired;
pub use rest::{Rest, Trouble};
pub use settings::{
    LiveUpdates, PullMode, Retention, SETTINGS, Section, Setting, SettingError, Settings,
    Synchronous, server_limits,
};
pub use stage::Checkpoint;
pub use store::{EntityTypes, RegisteredType, Store};
pub use type_options::{DeclaredReference, IdMode, Lane, TypeOptions, WhileApplying};
