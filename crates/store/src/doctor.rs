//! Is this file sound, and is what Syncline keeps in it? Everything that can be told without a
//! server, with what would mend it.
//!
//! Reads only, and never fails as a whole: a check that cannot be made is a finding itself, so that a
//! damaged file is told of and left as it is (S1).

mod file;
mod syncing;

pub use syncing::clock;

use crate::error::StoreError;
use crate::meta;
use rusqlite::Connection;
use serde::Serialize;
use std::path::Path;
use syncline_core::Now;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A word for programs, see `docs/howto/doctor.md`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, for people.
    pub detail: String,
    /// What would mend it; commands name the database `DB`.
    pub mend: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The check was made, and all is well.
    Ok,
    /// Good to know.
    Note,
    /// Worth a look; nothing is wrong yet.
    Warning,
    /// Something waits for a person.
    Person,
    /// The check failed.
    Failed,
}

impl Finding {
    /// A finding with nothing to mend.
    pub fn new(code: &'static str, severity: Severity, detail: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            detail: detail.into(),
            mend: None,
        }
    }

    /// All is well.
    pub fn ok(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(code, Severity::Ok, detail)
    }

    /// What would mend it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// What a check gives: at least one finding.
type Checked = Result<Vec<Finding>, StoreError>;

/// Looks at everything.
///
/// # Errors
/// [`StoreError::NotAttached`] and [`StoreError::Newer`]; everything else that goes wrong is a finding.
pub fn examine(conn: &Connection, path: &Path, now: Now) -> Result<Vec<Finding>, StoreError> {
    let checks: [(&'static str, &dyn Fn() -> Checked); 11] = [
        ("integrity", &|| file::integrity(conn)),
        ("foreign-keys", &|| file::foreign_keys(conn)),
        ("journal", &|| file::journal(conn)),
        ("wal", &|| Ok(file::wal(path))),
        ("permissions", &|| Ok(file::permissions(path))),
        ("metadata", &|| syncing::metadata(conn)),
        ("capture", &|| syncing::capture(conn)),
        ("escaped", &|| syncing::escaped(conn)),
        ("lease", &|| syncing::lease(conn, now)),
        ("outbox", &|| syncing::outbox(conn, now)),
        ("inbox", &|| syncing::inbox(conn, now)),
    ];
    if let Err(error @ (StoreError::NotAttached | StoreError::Newer { .. })) =
        meta::require_readable(conn)
    {
        return Err(error);
    }
    let mut findings = Vec::new();
    for (code, check) in checks {
        match check() {
            Ok(found) => findings.extend(found),
            Err(error) => {
                let detail = format!("the check could not be made: {error}");
                findings.push(Finding::new(code, Severity::Failed, detail).mend(file::DAMAGED));
            }
        }
    }
    Ok(findings)
}
