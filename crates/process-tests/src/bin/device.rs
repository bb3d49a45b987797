//! A device's program for the tests: it embeds Syncline, does what its arguments say, and can be
//! told to die at a named moment of a named unit of store work.
//!
//! ```text
//! syncline-test-device DB [OPTION…] attach|sync|run|append LABEL|insert LABEL|migrate SCRIPT
//!   --remote URL  --token TOKEN     with whom to sync
//!   --attach upload|adopt           attach all tables first
//!   --set NAME=NUMBER               a setting of the engine
//!   --plain                         never compress what is pushed
//!   --crash UNIT:MOMENT:N           die at the Nth such moment, as by SIGKILL
//!   --trace                         print each moment
//! ```
//!
//! `append` is an app without Syncline: it inserts row after row with plain SQLite and prints the
//! key of each once it is committed, until it is killed. `insert` does so with keys that SQLite assigns, and a row
//! that refers to each.

// A tool of tests: what cannot go on panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline::rusqlite::{Connection, Transaction, TransactionBehavior};
use syncline::{
    Config, CycleEnd, Existing, HttpRemote, Moment, Notice, SyncEnd, Syncline, TokenSource, Watcher,
};

/// How long a sync rides out what passes, the lease of a crashed predecessor above all.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Options {
    path: PathBuf,
    remote: String,
    token: String,
    existing: Option<Existing>,
    config: Config,
    plain: bool,
    crash: Option<String>,
    trace: bool,
    command: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::read();
    let command: Vec<&str> = options.command.iter().map(String::as_str).collect();
    match command.as_slice() {
        ["attach"] => {
            options.builder().attach_only().unwrap();
            ExitCode::SUCCESS
        }
        ["sync"] => {
            let sync = options.open();
            let end = sync.sync_blocking(PATIENCE);
            sync.close();
            println!("end {end:?}");
            match end {
                SyncEnd::Cycle(CycleEnd::Complete) => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        ["run"] => run(&options.open()),
        ["append", label] => append(&options.path, label),
        ["insert", label] => insert(&options.path, label),
        ["migrate", script] => {
            let script = std::fs::read_to_string(script).unwrap();
            syncline::migrate(&options.path, &script).unwrap();
            ExitCode::SUCCESS
        }
        other => panic!("what is {other:?}?"),
    }
}

/// Keeps syncing until it is killed, and tells of each push that was booked.
fn run(sync: &Syncline) -> ! {
    let mut notices = sync.notices();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    println!("running");
    loop {
        match runtime.block_on(notices.next()) {
            Some(Notice::Pushed { applied, .. }) => println!("pushed {applied}"),
            Some(_) => {}
            None => panic!("the engine has ended"),
        }
    }
}

impl Options {
    fn read() -> Self {
        let mut arguments = std::env::args().skip(1);
        let mut options = Self {
            path: arguments.next().expect("a database").into(),
            ..Self::default()
        };
        while let Some(argument) = arguments.next() {
            let mut next = || arguments.next().expect("a value");
            match argument.as_str() {
                "--remote" => options.remote = next(),
                "--token" => options.token = next(),
                "--attach" => {
                    options.existing = Some(match next().as_str() {
                        "upload" => Existing::Upload,
                        "adopt" => Existing::Adopt,
                        other => panic!("attach {other:?}?"),
                    });
                }
                "--set" => set(&mut options.config, &next()),
                "--plain" => options.plain = true,
                "--crash" => options.crash = Some(next()),
                "--trace" => options.trace = true,
                _ => options.command.push(argument),
            }
        }
        options
    }

    fn builder(&self) -> syncline::Builder {
        let builder = Syncline::builder(&self.path)
            .remote(&self.remote)
            .config(self.config.clone())
            .watcher(self.watcher());
        match self.existing {
            Some(existing) => builder.attach_all().existing(existing),
            None => builder,
        }
    }

    fn open(&self) -> Syncline {
        let mut remote =
            HttpRemote::builder(&self.remote).token(TokenSource::Static(self.token.clone()));
        if self.plain {
            remote = remote.compress_above(usize::MAX);
        }
        let remote = Arc::new(remote.build().unwrap());
        self.builder().remote_with(remote).open().unwrap()
    }

    fn watcher(&self) -> Watcher {
        let (crash, trace) = (self.crash.clone(), self.trace);
        let counts = Mutex::new(BTreeMap::new());
        Arc::new(move |unit, moment| {
            let moment = match moment {
                Moment::Before => "before",
                Moment::Written => "written",
                Moment::Committed => "committed",
            };
            let mut counts = counts.lock().unwrap();
            let count = counts.entry((unit, moment)).or_insert(0);
            *count += 1;
            let name = format!("{unit}:{moment}:{count}");
            if trace {
                println!("moment {name}");
            }
            if crash.as_deref() == Some(&name) {
                // No destructor runs, no transaction ends, no file is closed by this process.
                std::process::abort();
            }
        })
    }
}

fn set(config: &mut Config, setting: &str) {
    let (name, number) = setting.split_once('=').expect("NAME=NUMBER");
    let number: u64 = number.parse().unwrap();
    let small = || u32::try_from(number).unwrap();
    let size = || usize::try_from(number).unwrap();
    match name {
        "debounce_ms" => config.debounce_ms = number,
        "poll_interval_ms" => config.poll_interval_ms = number,
        "push_mutations" => config.push_mutations = size(),
        "page_changes" => config.page_changes = size(),
        "max_attempts" => config.max_attempts = small(),
        "backoff_base_ms" => config.backoff_base_ms = number,
        "backoff_cap_ms" => config.backoff_cap_ms = number,
        "lease_ttl_ms" => config.lease_ttl_ms = number,
        "rounds" => config.rounds = small(),
        other => panic!("set {other}?"),
    }
}

/// In each transaction one new row, and one more counted in the row of this label.
fn append(path: &PathBuf, label: &str) -> ! {
    write_again_and_again(path, label, |tx, id, number| {
        tx.execute("INSERT INTO entry VALUES (?1, ?2)", (id, number))?;
        tx.execute("UPDATE tally SET entries = entries + 1", [])
    })
}

fn insert(path: &PathBuf, label: &str) -> ! {
    write_again_and_again(path, label, |tx, id, _| {
        tx.execute("INSERT INTO note (label) VALUES (?1)", [id])?;
        let sql = "INSERT INTO remark (note, label) VALUES (last_insert_rowid(), ?1)";
        tx.execute(sql, [id])
    })
}

/// One transaction after the other, each told once it is committed.
fn write_again_and_again(
    path: &PathBuf,
    label: &str,
    write: impl Fn(&Transaction<'_>, &str, i64) -> syncline::rusqlite::Result<usize>,
) -> ! {
    let mut conn = Connection::open(path).unwrap();
    conn.busy_timeout(PATIENCE).unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    for number in 0.. {
        let id = format!("{label}-{number}");
        let tx = conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        write(&tx, &id, number).unwrap();
        tx.commit().unwrap();
        println!("ack {id}");
        std::io::stdout().flush().unwrap();
        // A person writes no faster, and the engine of a test build has to follow.
        std::thread::sleep(Duration::from_millis(2));
    }
    unreachable!("numbers do not end")
}
