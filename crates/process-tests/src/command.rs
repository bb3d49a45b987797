//! The `syncline` command and `python3`, as the tests find them.

use crate::PATIENCE;
use crate::process::{Ended, Running};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The `syncline` command: what `SYNCLINE_BIN` names, else the one built beside this test. Without
/// one the test fails: it would show nothing.
pub fn syncline_command() -> PathBuf {
    if let Some(path) = std::env::var_os("SYNCLINE_BIN") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "SYNCLINE_BIN is {}: no file",
            path.display()
        );
        return path;
    }
    let this = std::env::current_exe().unwrap();
    let folder = this.ancestors().nth(2).unwrap();
    let path = folder.join(format!("syncline{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "this test runs the `syncline` command and finds none at {}; build it with \
         `cargo build -p syncline-cli`, or name it in SYNCLINE_BIN",
        path.display()
    );
    path
}

/// The `syncline` command with a token in its environment.
#[derive(Debug, Clone)]
pub struct Tool {
    program: PathBuf,
    token: Option<String>,
}

impl Tool {
    /// Finds the command.
    pub fn find() -> Self {
        Self {
            program: syncline_command(),
            token: None,
        }
    }

    /// With this token from here on.
    pub fn set_token(&mut self, token: &str) {
        self.token = Some(token.trim().to_owned());
    }

    /// A call of the command.
    pub fn command(&self, path: Option<&Path>, subcommand: &str, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_remove("SYNCLINE_TOKEN")
            .args(subcommand.split_whitespace());
        if let Some(path) = path {
            command.env("SYNCLINE_STATE_DIR", path.with_file_name("state"));
        }
        command.args(path).args(arguments.split_whitespace());
        if let Some(token) = &self.token {
            command.env("SYNCLINE_TOKEN", token);
        }
        command
    }

    /// Runs it to its end.
    pub fn run(&self, path: &Path, subcommand: &str, arguments: &str) -> Ended {
        Running::start(&mut self.command(Some(path), subcommand, arguments)).wait(PATIENCE * 2)
    }
}

/// Runs SQL in one transaction through the `sqlite3` module of `python3`: a program in another
/// language, with its own build of SQLite, that has never heard of Syncline.
pub fn python(path: &Path, sql: &str) {
    let program = "import sqlite3, sys\n\
         conn = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)\n\
         conn.execute('PRAGMA foreign_keys = ON')\n\
         conn.executescript('BEGIN IMMEDIATE;' + sys.stdin.read() + ';COMMIT;')\n\
         conn.close()\n\
         print('done')\n";
    let mut command = Command::new("python3");
    command.args(["-c", program]).arg(path);
    let ended = Running::start_with_input(&mut command, sql).wait(PATIENCE);
    assert_eq!(ended.output(), "done", "{ended:?}");
}
