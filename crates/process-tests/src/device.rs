//! A device: a database file, and the program of this crate that syncs it.

use crate::process::{Ended, Running};
use crate::{PATIENCE, rows};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies a database that nobody has open, with what is still in its log.
pub fn copy_database(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        if with(from).exists() {
            std::fs::copy(with(from), with(to)).unwrap();
        }
    }
}

/// Copies what is remembered of the databases of a folder, as if the copy of the folder were another
/// machine: the files keep their identity.
pub fn copy_state(from: &Path, to: &Path) {
    std::fs::create_dir(to.join("state")).unwrap();
    for record in std::fs::read_dir(from.join("state")).unwrap() {
        let record = record.unwrap();
        let text = std::fs::read_to_string(record.path()).unwrap();
        let here = |folder: &Path| folder.canonicalize().unwrap().display().to_string();
        let text = text.replace(&here(from), &here(to));
        std::fs::write(to.join("state").join(record.file_name()), text).unwrap();
    }
}

/// A named device.
#[derive(Debug, Clone)]
pub struct Device {
    program: String,
    /// Its file.
    pub path: PathBuf,
    url: String,
    token: String,
    options: Vec<String>,
}

impl Device {
    /// A device whose file is made with this schema.
    pub fn create(program: &str, path: PathBuf, schema: &str) -> Self {
        let app = Connection::open(&path).unwrap();
        app.execute_batch(schema).unwrap();
        Self::existing(program, path)
    }

    /// A device whose file is there.
    pub fn existing(program: &str, path: PathBuf) -> Self {
        Self {
            program: program.to_owned(),
            path,
            url: String::new(),
            token: String::new(),
            options: Vec::new(),
        }
    }

    /// With whom it syncs.
    #[must_use]
    pub fn remote(mut self, url: &str, token: &str) -> Self {
        url.clone_into(&mut self.url);
        token.clone_into(&mut self.token);
        self
    }

    /// With these options in every call, `--set lease_ttl_ms=300` for example.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        self.options
            .extend(options.split_whitespace().map(str::to_owned));
        self
    }

    /// The app writes with a plain connection: no Syncline in this process has the file open.
    pub fn sql(&self, sql: &str) {
        let app = Connection::open(&self.path).unwrap();
        app.busy_timeout(PATIENCE).unwrap();
        app.pragma_update(None, "foreign_keys", true).unwrap();
        app.execute_batch(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Starts the device's program.
    pub fn start(&self, arguments: &str) -> Running {
        let mut command = Command::new(&self.program);
        // Beside the file, so that a test that copies a folder copies a whole machine.
        let state = self.path.with_file_name("state");
        command.env("SYNCLINE_STATE_DIR", state);
        command.arg(&self.path).args(["--remote", &self.url]);
        command.args(["--token", &self.token]).args(&self.options);
        command.args(arguments.split_whitespace());
        Running::start(&mut command)
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &str) -> Ended {
        self.start(arguments).wait(PATIENCE)
    }

    /// One sync that has to come to its end.
    #[track_caller]
    pub fn sync(&self) -> Ended {
        self.run("sync").success()
    }

    /// Its rows.
    pub fn rows(&self) -> rows::Rows {
        rows::rows(&self.path)
    }
}
