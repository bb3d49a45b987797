//! A shim between SQLite and the system's files, for tests only: it is never linked into the product.
//!
//! - [`Faults`] fails the n-th call of a kind, once or from then on, in one folder.
//! - It loses power at a chosen call: what was not synced by then is lost, torn or reordered in the
//!   copy of the folder that [`Faults::survivors`] makes.
//! - [`seed_randomness`] and [`set_clock`] give SQLite's `randomblob()` and `julianday('now')` dice and
//!   a clock of the test's own; under such a clock SQLite's waiting for locks takes no time.
//!
//! The shim becomes SQLite's default file system of this process when it is first used; files that
//! nobody watches pass through it untouched. It is no judge: it does what it is told and counts.
//!
//! ```
//! use syncline_fault_vfs::{Call, Failure, Fault, Faults};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let faults = Faults::in_folder(folder.path());
//! let app = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
//! app.execute_batch("CREATE TABLE task (id)").unwrap();
//!
//! faults.fail(Fault::once(Call::Write, 1, Failure::Full));
//! assert!(app.execute("INSERT INTO task VALUES (1)", []).is_err());
//! app.execute("INSERT INTO task VALUES (2)", []).unwrap();
//! ```

// A tool of tests: what cannot go on panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ambient;
mod fault;
mod plan;
mod power;
mod shim;

pub use ambient::{seed_randomness, set_clock};
pub use fault::{Call, Failure, Fault};
pub use plan::Faults;
pub use power::Damage;

/// Makes the shim SQLite's file system in this process; again does nothing. [`Faults::in_folder`],
/// [`seed_randomness`] and [`set_clock`] do it themselves.
pub fn install() {
    shim::install();
}
