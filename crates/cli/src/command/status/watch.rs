//! `syncline status --watch`: the status again whenever it changes. Reads only, and never holds a
//! transaction open between two looks.

use super::{Shown, describe};
use crate::database::{self, Database};
use crate::signal::Stop;
use crate::{Failure, Report};
use rusqlite::Connection;
use std::io::Write;
use std::time::Duration;
use syncline::Status;
use syncline_store::status;

/// How often it is asked whether somebody wrote.
const GLANCE: Duration = Duration::from_millis(100);
/// After so many glances it is read whatever they said: time alone ends a lease, say.
const GLANCES: u32 = 10;

pub(super) fn run(database: &Database, as_json: bool) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("runtime", error.to_string()))?;
    runtime.block_on(async {
        let mut stop = Stop::listen().map_err(|e| Failure::new("signals", e.to_string()))?;
        let conn = database.read()?;
        let (mut told, mut seen, mut glances) = (None, None, 0);
        loop {
            let version = data_version(&conn)?;
            glances += 1;
            if seen != Some(version) || glances >= GLANCES {
                (seen, glances) = (Some(version), 0);
                if !tell(database, &conn, &mut told, as_json)? {
                    return Ok(Report::silent());
                }
            }
            tokio::select! {
                () = stop.wait() => return Ok(Report::silent()),
                () = tokio::time::sleep(GLANCE) => {}
            }
        }
    })
}

/// Prints the status if it differs from what was `told` last; false once nobody reads any more.
fn tell(
    database: &Database,
    conn: &Connection,
    told: &mut Option<Status>,
    as_json: bool,
) -> Result<bool, Failure> {
    let now = database::now();
    let status = status::read(conn, now)?;
    let timeless = Status {
        oldest_pending_age_ms: None,
        ..status.clone()
    };
    if told.as_ref() == Some(&timeless) {
        return Ok(true);
    }
    let shown = Shown {
        database: database.shown(),
        status: &status,
    };
    let text = match as_json {
        true => serde_json::to_string(&shown)
            .map_err(|error| Failure::new("internal", error.to_string()))?,
        false => describe(&shown.database, &status, now.unix_ms),
    };
    *told = Some(timeless);
    let mut stdout = std::io::stdout().lock();
    Ok(writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .is_ok())
}

fn data_version(conn: &Connection) -> Result<i64, Failure> {
    Ok(conn.pragma_query_value(None, "data_version", |row| row.get(0))?)
}
