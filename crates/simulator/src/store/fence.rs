//! Who may change a device's file: a process that another one has taken the file from commits nothing
//! more, whatever it still believes (F:S18, D:S2).

use super::device::Device;
use crate::level::Broken;
use rusqlite::Connection;

/// The lease of a file as another process has it, and which state the file is in.
pub(super) struct Theirs {
    holder: String,
    token: i64,
    /// Changes when anybody but the app commits.
    version: i64,
    /// What is written down of the app's schema, how much there is of values without columns, and the file's schema with its
    /// triggers: whoever notices first that the app changed it puts all right.
    schema: (i64, f64, i64),
}

fn look(app: &Connection) -> Option<Theirs> {
    let mut lease = app
        .prepare_cached("SELECT holder, token FROM syncline_lease WHERE id = 1")
        .ok()?;
    let (holder, token) = lease
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .ok()?;
    // Read after the row: a connection notices what others did only when it reads.
    let version = app
        .query_row("PRAGMA data_version", [], |row| row.get(0))
        .ok()?;
    let schema = app
        .prepare_cached(
            "SELECT sum(schema_version), (SELECT total(length(fields)) FROM syncline_unknown_fields),
                    (SELECT schema_version FROM pragma_schema_version)
               FROM syncline_entity_type",
        )
        .and_then(|mut schema| {
            schema.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        })
        .ok()?;
    Some(Theirs {
        holder,
        token,
        version,
        schema,
    })
}

/// The lease, when it is not that of this process.
pub(super) fn of_another(device: &Device, process: usize) -> Option<Theirs> {
    let mine = device.processes[process].as_ref()?.holder();
    let is_shared = device.is_shared && device.files.disk.failed() == 0;
    let found = is_shared.then(|| look(&device.files.app)).flatten()?;
    (found.holder != mine).then_some(found)
}

/// Nothing was committed past it; whoever takes it first may. Whether this process has taken it.
pub(super) fn respected(device: &Device, before: &Theirs, mine: &str) -> Result<bool, Broken> {
    let Some(after) = look(&device.files.app) else {
        return Ok(false);
    };
    let is_same = (&after.holder, after.token) == (&before.holder, before.token);
    match is_same && after.version != before.version && after.schema == before.schema {
        true => Err(Broken::new(
            "F:S18",
            format!(
                "a process changed the file although {} holds it under token {}",
                before.holder, before.token
            ),
        )),
        false => Ok(after.holder == mine),
    }
}
