//! Opening the user's database: only files that are there, with errors that say what would help.

use crate::Failure;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use syncline::{Clock, Store, StoreOptions};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The database of a subcommand.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Database {
    /// The SQLite database; it must exist
    #[arg(value_name = "DB")]
    pub(crate) path: PathBuf,
}

impl Database {
    /// Checks that there is a file. It is never opened but by SQLite: closing a descriptor of one's
    /// own would drop the locks of every connection of this process to the same file.
    fn check(&self) -> Result<(), Failure> {
        let path = &self.path;
        let shown = path.display();
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if metadata.is_dir() {
            let message = format!("{shown} is a directory");
            return Err(
                Failure::new("is-a-directory", message).hint("name the database file inside it")
            );
        }
        if !metadata.is_file() {
            let message = format!("{shown} is not an ordinary file");
            return Err(Failure::new("not-a-file", message).hint("name an SQLite database file"));
        }
        Ok(())
    }

    /// Opens it to read; nothing in the file is changed.
    pub(crate) fn read(&self) -> Result<Connection, Failure> {
        self.check()?;
        let conn = open(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        match conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
            Ok(()) => Ok(conn),
            Err(error) if needs_no_log(&error, &self.path) => Ok(immutable(&self.path)?),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                Err(not_a_database(&self.path))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens it to write; [`Database::read`] has shown before that it is a database.
    pub(crate) fn write(&self) -> Result<Connection, Failure> {
        self.check()?;
        Ok(open(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?)
    }

    /// Opens the store of an attached database, without being its engine.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        // The store renews capture triggers at open; a file of a newer version is refused before.
        syncline_store::status::read(&self.read()?, now())?;
        let random = |error: getrandom::Error| Failure::new("random", error.to_string());
        let holder = format!("{:016x}", getrandom::u64().map_err(random)?);
        let seed = getrandom::u64().map_err(random)?;
        Ok(Store::open(&self.path, StoreOptions::new(holder, seed))?)
    }

    /// The path for messages.
    pub(crate) fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// This moment.
pub(crate) fn now() -> syncline::Now {
    Clock::start().now()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        ErrorKind::NotFound => Failure::new("no-database", format!("there is no file {shown}"))
            .hint("check the path; Syncline never creates a database, your app does"),
        _ => Failure::new("cannot-open", format!("{shown} cannot be read: {error}"))
            .hint("check the rights on the file and on its folder"),
    }
}

fn not_a_database(path: &Path) -> Failure {
    let message = format!(
        "{} is not an SQLite database, or it is encrypted",
        path.display()
    );
    Failure::new("not-a-database", message)
        .hint("name the file that your app opens with SQLite; it was left as it is")
}

fn open(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// A database with a write-ahead log cannot be opened on read-only media, unless there is nothing
/// in its log: then nobody writes either.
fn needs_no_log(error: &rusqlite::Error, path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let empty = std::fs::metadata(log).map_or(true, |metadata| metadata.len() == 0);
    empty
        && matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
        )
}

fn immutable(path: &Path) -> Result<Connection, Failure> {
    let mut uri = String::from("file:");
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Ok(open(Path::new(&uri), flags)?)
}
