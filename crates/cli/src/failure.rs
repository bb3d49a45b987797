//! Why a command could not do what it was asked: a code for programs, a message and a mend for people.

use crate::{Exit, report};
use serde_json::{Value, json};
use std::io::Write;
use syncline::{Error, HttpRemoteError, RemoteError, StoreError};
use syncline_store::table::TableError;

/// A refusal or an error. What was asked for was not done, in whole or from here on.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    exit: Exit,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// An error with a stable code and a message; exit code 1.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The command line itself is wrong; exit code 2.
    pub(crate) fn usage(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(code, message)
        }
    }

    /// What would mend it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub(crate) fn print(&self, as_json: bool) -> Exit {
        self.print_text();
        if as_json {
            self.print_json();
        }
        self.exit
    }

    pub(crate) fn print_text(&self) {
        let mut stderr = std::io::stderr().lock();
        // Nothing is left to tell it to if stderr is closed.
        let _ = writeln!(stderr, "error: {}", self.message);
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
    }

    pub(crate) fn print_json(&self) {
        report::line(&json!({ "error": self.json() }).to_string());
    }

    pub(crate) fn json(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(hint) = &self.hint {
            error["hint"] = json!(hint);
        }
        error
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match &error {
            StoreError::NotAttached => Failure::new("not-attached", "the database is not attached")
                .hint("attach it first: syncline attach DB --remote URL --all"),
            StoreError::Newer { .. } => Failure::new("newer-metadata", message)
                .hint("update this program, or use the one that attached the database"),
            StoreError::AttachedElsewhere(_) => Failure::new("attached-elsewhere", message)
                .hint("one file syncs with one remote: syncline detach DB, then attach it anew"),
            StoreError::WorkPending(_) => Failure::new("work-pending", message).hint(
                "syncline sync DB sends it, syncline outbox list DB shows it, --force drops it",
            ),
            StoreError::NoSuchEntry(_) => Failure::new("no-such-entry", message)
                .hint("syncline outbox list DB shows the entries; settled ones are gone from it"),
            StoreError::NoSuchConflict(_) => Failure::new("no-such-conflict", message)
                .hint("syncline conflicts list DB --all shows those that are remembered"),
            StoreError::Refused(_) => Failure::new("refused", message),
            StoreError::Table(error) => table(error, message),
            StoreError::Fenced => Failure::new("busy", message)
                .hint("another process is syncing this database; stop it, or try again"),
            _ => database(&error, message),
        }
    }
}

fn table(error: &TableError, message: String) -> Failure {
    let code = match error {
        TableError::NoSuchTable(_) => "no-such-table",
        TableError::View(_) => "is-a-view",
        TableError::NoPrimaryKey(_) => "no-primary-key",
        TableError::Storage(_) => return database(&StoreError::Refused(String::new()), message),
        _ => "table-cannot-sync",
    };
    Failure::new(code, message)
        .hint("nothing was changed; name the tables that are to be synced with --table, each once")
}

fn database(error: &StoreError, message: String) -> Failure {
    use rusqlite::ErrorCode as Code;
    let code = match error {
        StoreError::Sqlite(error) => error.sqlite_error_code(),
        _ => None,
    };
    match code {
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => Failure::new("busy", message)
            .hint("another program holds the database for long; close it, or try again"),
        Some(Code::ReadOnly) => Failure::new("read-only", message)
            .hint("the file and its folder must be writable for this user: check owner and mode"),
        Some(Code::CannotOpen | Code::PermissionDenied) => Failure::new("cannot-open", message)
            .hint("check the rights on the file and on its folder, where SQLite keeps its -wal and -shm files"),
        Some(Code::DiskFull) => Failure::new("disk-full", message).hint("make room and try again"),
        Some(Code::NotADatabase | Code::DatabaseCorrupt) => Failure::new("damaged", message).hint(
            "the file was left as it is; check it with PRAGMA integrity_check, or restore a backup",
        ),
        _ => Failure::new("database", message),
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<HttpRemoteError> for Failure {
    fn from(error: HttpRemoteError) -> Self {
        let message = error.to_string();
        match error {
            HttpRemoteError::PlainHttp { host } => {
                let message = format!(
                    "plain http to {host} is refused: token and data would travel unprotected"
                );
                Failure::usage("plain-http", message)
                    .hint("use https, or --allow-plain-http on a network that you trust")
            }
            HttpRemoteError::BadUrl { .. } | HttpRemoteError::UrlWithCredentials => {
                Failure::usage("bad-url", message)
                    .hint("give the address as https://host[:port][/path]")
            }
            HttpRemoteError::BadToken { .. } => Failure::new("credentials-needed", message)
                .exit(Exit::CredentialsNeeded)
                .hint("set SYNCLINE_TOKEN to what `syncline token` printed, or use --token-file"),
            _ => Failure::new("http-client", message),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Sqlite(error) => error.into(),
            Error::Remote(error) => error.into(),
            Error::Answer(RemoteError::Auth { detail }) => {
                Failure::new("credentials-needed", detail)
                    .exit(Exit::CredentialsNeeded)
                    .hint(
                        "set SYNCLINE_TOKEN to what `syncline token` printed, or use --token-file",
                    )
            }
            Error::Answer(
                error @ (RemoteError::Unreachable { .. } | RemoteError::Transient { .. }),
            ) => Failure::new("unreachable", error.to_string())
                .exit(Exit::Unreachable)
                .hint("is a server running there? nothing was created; try again later"),
            Error::Answer(error) => Failure::new("remote-refuses", error.to_string()),
            Error::NotATrace(_) => Failure::usage("not-a-trace", error.to_string()),
            Error::Exists(_) => Failure::new("exists", error.to_string()),
            Error::NothingToClone(_) => Failure::new("nothing-to-clone", error.to_string()),
            Error::Config(error) => Failure::usage("bad-config", error.to_string())
                .hint("docs/howto/configure.md shows every key; nothing was changed"),
            other => Failure::new("engine", other.to_string()),
        }
    }
}
