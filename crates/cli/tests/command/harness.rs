//! What the tests share: the command, servers, databases. Children die with their handles, also
//! when a test panics.

use rusqlite::Connection;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No single command of these tests takes longer.
const LONGEST: Duration = Duration::from_secs(30);

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_syncline");

/// A command line, without anything inherited that could change its meaning.
pub(crate) fn syncline(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(args)
        .env_remove("SYNCLINE_TOKEN")
        .env("SYNCLINE_STATE_DIR", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null());
    command
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Stdout as the one JSON object that it is.
    pub(crate) fn json(&self) -> Value {
        let json: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {self:?}"));
        assert!(json.is_object(), "{self:?}");
        json
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Ran {
    Running::start(command).end()
}

/// Runs the command line with the token of `server`.
pub(crate) fn with_token(server: &Server, args: &[&str]) -> Ran {
    let mut command = syncline(args);
    command.env("SYNCLINE_TOKEN", &server.token);
    run(command)
}

/// A child process; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().map(read_all);
        let stderr = child.stderr.take().map(read_all);
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// The same, with its stdout left to be read line by line.
    pub(crate) fn start_reading(mut command: Command) -> (Self, BufReader<ChildStdout>) {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().map(read_all);
        let running = Self {
            child,
            stdout: None,
            stderr,
        };
        (running, stdout)
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; a child that takes too long is killed and fails the test.
    pub(crate) fn end(mut self) -> Ran {
        let deadline = Instant::now() + LONGEST;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |handle: Option<JoinHandle<String>>| {
            handle
                .map(|handle| handle.join().unwrap())
                .unwrap_or_default()
        };
        let ran = Ran {
            code: status.and_then(|status| status.code()).unwrap_or(-1),
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
        };
        assert!(status.is_some(), "it did not end in time: {ran:?}");
        ran
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = from.read_to_string(&mut text);
        text
    })
}

/// `syncline serve` on a free port; killed when dropped.
pub(crate) struct Server {
    running: Running,
    stdout: BufReader<ChildStdout>,
    pub(crate) url: String,
    pub(crate) data: PathBuf,
    /// A token for joe.
    pub(crate) token: String,
}

impl Server {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, "127.0.0.1:0", &[])
    }

    pub(crate) fn start_with(folder: &Path, listen: &str, more: &[&str]) -> Self {
        let data = folder.join("server");
        let mut command = syncline(&["serve", "--listen", listen, "--data"]);
        command.arg(&data).args(more);
        let (running, mut stdout) = Running::start_reading(command);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(url) = line.trim_end().strip_prefix("listening on ") else {
            panic!("{line:?}: {:?}", running.end());
        };
        let url = url.to_owned();
        let token = token(&data, &["--subject", "joe"]);
        Self {
            running,
            stdout,
            url,
            data,
            token,
        }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Where it tells its metrics, with `--metrics`.
    pub(crate) fn metrics(&mut self) -> String {
        metrics_address(&mut self.stdout)
    }

    /// Stops it as an operator does.
    pub(crate) fn stop(self, signal: &str) -> Ran {
        self.running.signal(signal);
        self.running.end()
    }
}

/// The address in `metrics on http://ADDRESS/metrics`, which is the next line.
pub(crate) fn metrics_address(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("metrics on http://");
    let address = address.and_then(|rest| rest.strip_suffix("/metrics"));
    address.unwrap_or_else(|| panic!("{line:?}")).to_owned()
}

/// The answer to a GET, head and body.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A token of this data directory.
pub(crate) fn token(data: &Path, args: &[&str]) -> String {
    let mut command = syncline(&["token", "--data"]);
    command.arg(data).args(args);
    let ran = run(command).expect_code(0);
    ran.stdout.trim_end().to_owned()
}

/// A folder with a database of projects and tasks.
pub(crate) struct Home {
    pub(crate) folder: TempDir,
}

pub(crate) const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER NOT NULL DEFAULT 0,
                       project TEXT REFERENCES project (id));
    CREATE TABLE member (project TEXT NOT NULL, person INTEGER NOT NULL, share REAL,
                         PRIMARY KEY (project, person)) WITHOUT ROWID;
    CREATE INDEX task_project ON task (project);
    CREATE VIEW open_task AS SELECT * FROM task WHERE NOT done;";

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A database with the schema and these statements run.
    pub(crate) fn database(&self, name: &str, sql: &str) -> String {
        let path = self.path(name);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(SCHEMA).unwrap();
        conn.execute_batch(sql).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The same, attached.
    pub(crate) fn attached(&self, name: &str, sql: &str, url: &str) -> String {
        let db = self.database(name, sql);
        run(syncline(&["attach", &db, "--remote", url, "--all"])).expect_code(0);
        db
    }
}

/// Plain SQL by a program that knows nothing of Syncline.
pub(crate) fn sql(db: &str, statements: &str) {
    let conn = Connection::open(db).unwrap();
    conn.busy_timeout(Duration::from_secs(5)).unwrap();
    conn.execute_batch(statements).unwrap();
}

/// One value.
pub(crate) fn value(db: &str, query: &str) -> String {
    let conn = Connection::open(db).unwrap();
    conn.busy_timeout(Duration::from_secs(5)).unwrap();
    conn.query_row(query, [], |row| row.get::<_, rusqlite::types::Value>(0))
        .map(|value| match value {
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        })
        .unwrap()
}

/// All rows of the app's tables, as text.
pub(crate) fn rows(db: &str) -> Vec<String> {
    let conn = Connection::open(db).unwrap();
    let mut all = Vec::new();
    for table in ["project", "task", "member"] {
        let mut statement = conn
            .prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))
            .unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<_> = (0..columns).map(|i| row.get_ref(i).unwrap()).collect();
            all.push(format!("{table} {cells:?}"));
        }
    }
    all
}

/// Everything in `sqlite_schema`.
pub(crate) fn schema(db: &str) -> Vec<String> {
    let conn = Connection::open(db).unwrap();
    let sql = "SELECT type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '')
                 FROM sqlite_schema ORDER BY 1";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(what: &str, longest: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + longest;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
