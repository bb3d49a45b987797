//! The file itself: whether SQLite finds it sound, how it is written, who may write it.

use super::{Checked, Finding, Severity};
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// As many faults are told of one kind.
const MOST_TOLD: usize = 5;

/// A log larger than this is not copied back: somebody reads for very long.
const LARGE_WAL_BYTES: u64 = 64 << 20;

/// What to do about a damaged file.
pub(super) const DAMAGED: &str = "the file was left as it is: copy it with its -wal and -shm aside first; then `syncline outbox export DB` saves what was not synced, and `syncline clone URL NEW_DB` brings the rest, or restore a backup";

pub(super) fn integrity(conn: &Connection) -> Checked {
    let mut statement = conn.prepare(&format!("PRAGMA quick_check({MOST_TOLD})"))?;
    let told = statement.query_map([], |row| row.get::<_, String>(0))?;
    let told: Vec<String> = told.collect::<Result<_, _>>()?;
    if told == ["ok"] {
        return Ok(vec![Finding::ok(
            "integrity",
            "SQLite finds the file sound",
        )]);
    }
    let faults = told.into_iter().map(|fault| {
        Finding::new("integrity", Severity::Failed, format!("SQLite: {fault}")).mend(DAMAGED)
    });
    Ok(faults.collect())
}

/// The engine's connection checks references itself, so a dangling one is the app's matter.
pub(super) fn foreign_keys(conn: &Connection) -> Checked {
    let mut statement = conn.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    let mut dangling = Vec::new();
    while let Some(row) = rows.next()? {
        if dangling.len() == MOST_TOLD {
            dangling.push("…".to_owned());
            break;
        }
        let (table, rowid): (String, Option<i64>) = (row.get(0)?, row.get(1)?);
        let parent: String = row.get(2)?;
        let rowid = rowid.map_or("?".to_owned(), |rowid| rowid.to_string());
        dangling.push(format!("{table} (rowid {rowid}) to {parent}"));
    }
    Ok(vec![match dangling.is_empty() {
        true => Finding::ok("foreign-keys", "every reference leads to a row"),
        false => Finding::new(
            "foreign-keys",
            Severity::Warning,
            format!("references that lead nowhere: {}", dangling.join(", ")),
        )
        .mend("PRAGMA foreign_key_check lists them; delete or mend those rows in your app"),
    }])
}

pub(super) fn journal(conn: &Connection) -> Checked {
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    Ok(vec![match mode.as_str() {
        "wal" => Finding::ok(
            "journal",
            "write-ahead log; the engine writes with synchronous = FULL, unless it is set otherwise",
        ),
        other => Finding::new(
            "journal",
            Severity::Warning,
            format!("the journal mode is {other}: the engine and the app wait for each other"),
        )
        .mend("PRAGMA journal_mode = WAL, once, on a connection that is alone"),
    }])
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn wal(path: &Path) -> Vec<Finding> {
    let bytes = std::fs::metadata(beside(path, "-wal")).map_or(0, |found| found.len());
    let mib = bytes >> 20;
    vec![match bytes > LARGE_WAL_BYTES {
        false => Finding::ok("wal", format!("the log beside the file has {mib} MiB")),
        true => Finding::new(
            "wal",
            Severity::Warning,
            format!(
                "the log beside the file has {mib} MiB: a reader keeps it from being copied back"
            ),
        )
        .mend("end what reads for long, then PRAGMA wal_checkpoint(TRUNCATE)"),
    }]
}

/// Files of one database belong to one user: one that a root process made beside it locks others out.
#[cfg(unix)]
pub(super) fn permissions(path: &Path) -> Vec<Finding> {
    use std::os::unix::fs::MetadataExt as _;
    let mut findings = Vec::new();
    let owner = std::fs::metadata(path).map(|found| found.uid());
    for suffix in ["", "-wal", "-shm"] {
        let file = beside(path, suffix);
        let Ok(found) = std::fs::metadata(&file) else {
            continue;
        };
        let shown = file.display();
        if found.permissions().readonly() {
            findings.push(
                Finding::new(
                    "permissions",
                    Severity::Failed,
                    format!("{shown} cannot be written"),
                )
                .mend(format!("chmod u+w {shown}")),
            );
        }
        if found.mode() & 0o002 != 0 {
            findings.push(
                Finding::new(
                    "permissions",
                    Severity::Warning,
                    format!("every user may write {shown}"),
                )
                .mend(format!("chmod o-w {shown}")),
            );
        }
        if let Ok(owner) = owner
            && found.uid() != owner
        {
            let detail = format!("{shown} belongs to another user than the database");
            let mend = format!("chown it to user {owner}");
            findings.push(Finding::new("permissions", Severity::Failed, detail).mend(mend));
        }
    }
    match findings.is_empty() {
        true => vec![Finding::ok(
            "permissions",
            "the files belong to one user and can be written",
        )],
        false => findings,
    }
}

#[cfg(not(unix))]
pub(super) fn permissions(path: &Path) -> Vec<Finding> {
    let writable = std::fs::metadata(path).is_ok_and(|found| !found.permissions().readonly());
    vec![match writable {
        true => Finding::ok("permissions", "the file can be written"),
        false => Finding::new(
            "permissions",
            Severity::Failed,
            "the file cannot be written",
        ),
    }]
}
