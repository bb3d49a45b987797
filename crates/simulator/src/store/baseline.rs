//! F:L6, F:S21: what a device's file keeps beside the rows of its app stays within bounds, and comes back to what it was when
//! everything is settled.
//!
//! SQLite moves its log into the file once it has a thousand pages, and begins it anew with the next write after that, unless
//! somebody still reads from it: so a log that grows beyond that and one transaction means that something was left open.

use super::check::{Checked, sql};
use super::world::World;
use crate::level::Broken;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages after which SQLite moves the log by itself (`wal_autocheckpoint`, which nobody sets).
const MOVED_AFTER: u64 = 1_000;
/// Pages that one transaction of a history writes at most.
const LARGEST: u64 = 500;
/// Bytes of a page in the log, with what stands before it.
const FRAME: u64 = 4_096 + 24;

/// What is empty when everything is settled. Rows that left are looked after at the next head of the feed, and types that are
/// to be told to the server with the next greeting: notes of these may be there.
const LEFT: &str = "
    SELECT 'numbers of no entry', count(*) FROM syncline_outbox_real
     WHERE seq NOT IN (SELECT seq FROM syncline_outbox)
    UNION ALL SELECT 'counts of what is settled', count(*) FROM syncline_count
     WHERE (entries <> 0 OR bytes <> 0) AND NOT EXISTS (SELECT 1 FROM syncline_outbox)
    UNION ALL SELECT 'versions behind the cursor', count(*) FROM syncline_entity_state
     WHERE position <= (SELECT position FROM syncline_cursor)
       AND NOT EXISTS (SELECT 1 FROM syncline_outbox)
    UNION ALL SELECT 'staged changes', count(*) FROM syncline_staged
    UNION ALL SELECT 'staged pages', count(*) FROM syncline_staged_page
    UNION ALL SELECT 'held rows', count(*) FROM syncline_held
    UNION ALL SELECT 'rows met by a snapshot', count(*) FROM syncline_seen
    UNION ALL SELECT 'rows missed by a snapshot', count(*) FROM syncline_missing
    UNION ALL SELECT 'rows to be replaced', count(*) FROM syncline_stash
    UNION ALL SELECT 'guards', count(*) FROM syncline_guard
    UNION ALL SELECT 'bases of settled rows', count(*) FROM syncline_base AS b
     WHERE NOT EXISTS (SELECT 1 FROM syncline_outbox AS o
                        WHERE o.entity_type = b.entity_type AND o.entity_id = b.entity_id)
    UNION ALL SELECT 'numbers of bases that are gone', count(*) FROM syncline_base_real AS r
     WHERE NOT EXISTS (SELECT 1 FROM syncline_base AS b
                        WHERE b.entity_type = r.entity_type AND b.entity_id = r.entity_id)
    UNION ALL SELECT 'scopes', count(*) - 1 FROM syncline_cursor
    UNION ALL SELECT 'leases', count(*) - 1 FROM syncline_lease
    UNION ALL SELECT 'note of what is under way: ' || key, 1 FROM syncline_meta
     WHERE key IN ('sweeping', 'reset', 'recover', 'recover_from')
        OR key LIKE 'recover\\_new:%' ESCAPE '\\' OR key LIKE 'adopt:%'";

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

/// F:S21: the log of a device's file has no more than SQLite leaves there and one transaction.
pub(super) fn log_within(world: &World, n: usize) -> Checked<()> {
    let bytes = size(&beside(&world.devices[n].files.path, "-wal"));
    match bytes <= (MOVED_AFTER + LARGEST) * FRAME {
        true => Ok(()),
        false => Err(Broken::new(
            "F:S21",
            format!("device {n}: the log has {bytes} bytes"),
        )),
    }
}

/// F:L6: nothing of what was under way is left, and the log can be emptied.
pub(super) fn returns(world: &mut World) -> Checked<()> {
    for n in 0..world.devices.len() {
        nothing_left(n, &world.devices[n].files.app)?;
        log_is_emptied(world, n)?;
    }
    Ok(())
}

fn nothing_left(n: usize, app: &Connection) -> Checked<()> {
    let mut statement = app.prepare_cached(LEFT).map_err(sql)?;
    let mut rows = statement.query([]).map_err(sql)?;
    while let Some(row) = rows.next().map_err(sql)? {
        let (what, count): (String, i64) = (row.get(0).map_err(sql)?, row.get(1).map_err(sql)?);
        if count > 0 {
            let detail = format!("device {n} has {count} {what}, though everything is settled");
            return Err(Broken::new("F:L6", detail));
        }
    }
    Ok(())
}

/// As a host does before it may be stopped: each process tidies up, and then all of the log stands in the file and nobody
/// reads from it.
fn log_is_emptied(world: &mut World, n: usize) -> Checked<()> {
    let device = &mut world.devices[n];
    for process in device.processes.iter_mut().flatten() {
        process.engine.store().tidy_up();
    }
    let (written, moved) = log_of(&device.files.path);
    if written != moved && device.processes.iter().any(Option::is_some) {
        let detail =
            format!("device {n} tidied up: of {written} pages in the log {moved} were moved");
        return Err(Broken::new("F:L6", detail));
    }
    match emptied(&device.files.app, &device.files.path).map_err(sql)? {
        true => Ok(()),
        false => Err(Broken::new(
            "F:L6",
            format!("device {n}: somebody holds the log"),
        )),
    }
}

/// Whether the log is empty, after nobody was waited for.
fn emptied(app: &Connection, path: &Path) -> rusqlite::Result<bool> {
    app.busy_timeout(Duration::ZERO)?;
    let busy = app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, bool>(0)
    });
    app.busy_timeout(Duration::from_secs(5))?;
    Ok(!busy? && size(&beside(path, "-wal")) == 0)
}

/// Pages of the log, and how many of them stand in the file: what the log's index says.
fn log_of(path: &Path) -> (u32, u32) {
    let index = std::fs::read(beside(path, "-shm")).unwrap_or_default();
    let number = |at: usize| {
        let bytes = index
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    (number(16), number(96))
}

#[cfg(test)]
mod tests {
    use super::super::scenario::{OnDelete, Rules, Tables};
    use super::super::schema::attached;
    use super::*;

    fn file(folder: &Path) -> (PathBuf, Connection) {
        let kind = (Tables::Notes, Rules::Default, OnDelete::Cascade, Vec::new());
        let path = folder.join("app.db");
        std::fs::write(&path, attached(&kind, folder)).unwrap();
        let app = Connection::open(&path).unwrap();
        (path, app)
    }

    #[test]
    fn what_is_left_of_what_was_settled_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (_, app) = file(folder.path());
        app.execute_batch("INSERT INTO syncline_cursor (scope, epoch, phase, position, cursor, pulled_at) VALUES ('s', 'e', 'feed', 7, 'c', 0)")
            .unwrap();
        nothing_left(0, &app).unwrap();
        for (write, what) in [
            (
                "INSERT INTO syncline_outbox_real VALUES (1, 'weight', 0.1)",
                "numbers of no entry",
            ),
            (
                "INSERT INTO syncline_count (entity_type, state, entries, bytes) VALUES ('note', 'pending', 1, 9)",
                "counts",
            ),
            (
                "INSERT INTO syncline_base VALUES ('note', 'n', '{}')",
                "bases of settled rows",
            ),
            (
                "INSERT INTO syncline_held VALUES ('note', 'n')",
                "held rows",
            ),
            (
                "INSERT INTO syncline_meta VALUES ('adopt:note', 1)",
                "adopt:note",
            ),
        ] {
            app.execute_batch(&format!("SAVEPOINT one; {write}"))
                .unwrap();
            let found = nothing_left(0, &app).expect_err(what);
            assert!(
                found.invariant == "F:L6" && found.detail.contains(what),
                "{found:?}"
            );
            app.execute_batch("ROLLBACK TO one; RELEASE one").unwrap();
        }
    }

    #[test]
    fn a_log_that_somebody_reads_is_not_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let (path, app) = file(folder.path());
        let note = "INSERT INTO note (id, stock, tags) VALUES (?1, 0, '[]')";
        app.execute(note, ["a"]).unwrap();
        let (written, moved) = log_of(&path);
        assert!(written > 0 && moved == 0);
        let reader = Connection::open(&path).unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM note")
            .unwrap();
        app.execute(note, ["b"]).unwrap();
        assert!(!emptied(&app, &path).unwrap());
        reader.execute_batch("ROLLBACK").unwrap();
        assert!(emptied(&app, &path).unwrap());
    }
}
