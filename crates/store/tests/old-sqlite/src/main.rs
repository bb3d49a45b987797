//! An app with an old SQLite: `old-sqlite DB` runs the SQL of its input on a database,
//! `old-sqlite --version` prints the version of SQLite.
//!
//! Statements that the app's own constraints refuse are passed over; anything else ends the run.

use rusqlite::{Batch, Connection, ErrorCode};
use std::error::Error;
use std::io::Read as _;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        None => Err("usage: old-sqlite DB <SQL, or old-sqlite --version".into()),
        Some("--version") => {
            println!("{}", rusqlite::version());
            Ok(())
        }
        Some(file) => {
            let mut sql = String::new();
            std::io::stdin().read_to_string(&mut sql)?;
            run(&Connection::open(file)?, &sql)
        }
    }
}

fn run(conn: &Connection, sql: &str) -> Result<(), Box<dyn Error>> {
    let mut batch = Batch::new(conn, sql);
    while let Some(mut statement) = batch.next()? {
        let text = statement.expanded_sql().unwrap_or_default();
        let ended = statement
            .query([])
            .and_then(|mut rows| step_through(&mut rows));
        match ended {
            Err(rusqlite::Error::SqliteFailure(code, _))
                if code.code == ErrorCode::ConstraintViolation => {}
            Err(error) => return Err(format!("{text}: {error}").into()),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn step_through(rows: &mut rusqlite::Rows<'_>) -> rusqlite::Result<()> {
    while rows.next()?.is_some() {}
    Ok(())
}
