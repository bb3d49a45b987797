//! `cargo xtask idle`: what an engine costs while nothing happens, in CPU time and requests.
//!
//! A server and a sidecar, both real processes on loopback, are left alone for a while; then the
//! system's own count of their CPU time is read (so: Linux), and the requests in the server's log.
//! A figure to write down, not a test: it depends on the machine.

use crate::Failure;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Until everything has settled, and then the time that is measured, in seconds.
const SETTLING_S: u64 = 10;
const DEFAULT_S: u64 = 120;

/// Ends with the task, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(root: &Path, seconds: Option<&str>) -> Result<(), Failure> {
    let seconds = seconds.map_or(Ok(DEFAULT_S), str::parse);
    let seconds = seconds.map_err(|_| Failure::Usage("idle: give a number of seconds".into()))?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root);
    finish(cargo.args(["build", "--release", "--locked", "-p", "syncline-cli"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let folder = std::env::temp_dir().join(format!("syncline-idle-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| Failure::Read(folder.clone(), error))?;
    let measured = measure(&target.join("release/syncline"), &folder, seconds);
    // What is left behind is a folder among temporary ones.
    let _ = fs::remove_dir_all(&folder);
    measured
}

fn measure(program: &Path, folder: &Path, seconds: u64) -> Result<(), Failure> {
    let command = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.current_dir(folder).args(arguments);
        command.env("SYNCLINE_STATE_DIR", folder.join("state"));
        command
    };
    let sql = "import sqlite3; c = sqlite3.connect('app.db'); \
               c.execute('CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)')";
    let mut python = Command::new("python3");
    finish(python.current_dir(folder).args(["-c", sql]))?;
    let log = folder.join("server.log");
    let mut serve = command(&["serve", "--data", "server", "--listen", "127.0.0.1:0", "-v"]);
    let stderr = File::create(&log).map_err(|error| Failure::Read(log.clone(), error))?;
    let mut server = start(serve.stdout(Stdio::piped()).stderr(stderr))?;
    let mut line = String::new();
    if let Some(stdout) = server.0.stdout.take() {
        let read = BufReader::new(stdout).read_line(&mut line);
        read.map_err(|error| Failure::Read(log.clone(), error))?;
    }
    let url = line.trim().trim_start_matches("listening on ").to_owned();
    let token = finish(&mut command(&[
        "token",
        "--data",
        "server",
        "--subject",
        "idle",
    ]))?;
    finish(&mut command(&[
        "attach", "app.db", "--remote", &url, "--all",
    ]))?;
    let mut run = command(&["run", "app.db"]);
    let engine = start(run.env("SYNCLINE_TOKEN", token.trim()))?;
    sleep(Duration::from_secs(SETTLING_S));
    let before = (cpu_ns(&engine)?, cpu_ns(&server)?, requests(&log)?);
    sleep(Duration::from_secs(seconds));
    let after = (cpu_ns(&engine)?, cpu_ns(&server)?, requests(&log)?);
    let an_hour = |ns: u64| ns as f64 / 1e9 / seconds as f64 * 3600.0;
    println!("measured for {seconds} s, live updates on");
    println!(
        "engine: {:.2} s of CPU an hour",
        an_hour(after.0 - before.0)
    );
    println!(
        "server: {:.2} s of CPU an hour",
        an_hour(after.1 - before.1)
    );
    println!("requests: {}", after.2 - before.2);
    Ok(())
}

fn start(command: &mut Command) -> Result<Process, Failure> {
    let child = command.stdin(Stdio::null()).spawn();
    child.map(Process).map_err(|error| failed(command, error))
}

/// What it prints, once it has ended well.
fn finish(command: &mut Command) -> Result<String, Failure> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| failed(command, error))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(command, output.status)),
    }
}

fn failed(command: &Command, why: impl std::fmt::Display) -> Failure {
    Failure::Step {
        name: "idle",
        why: format!("{}: {why}", command.get_program().to_string_lossy()),
    }
}

/// The CPU time of all threads of a process so far.
fn cpu_ns(process: &Process) -> Result<u64, Failure> {
    let threads = PathBuf::from(format!("/proc/{}/task", process.0.id()));
    let fault = |error| Failure::Read(threads.clone(), error);
    let mut sum = 0;
    for thread in fs::read_dir(&threads).map_err(fault)? {
        let stat = thread.map_err(fault)?.path().join("schedstat");
        let text = fs::read_to_string(stat).map_err(fault)?;
        let ns = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        sum += ns.unwrap_or(0);
    }
    Ok(sum)
}

/// How many requests the server has answered.
fn requests(log: &Path) -> Result<usize, Failure> {
    let text = fs::read_to_string(log).map_err(|error| Failure::Read(log.to_owned(), error))?;
    Ok(text
        .lines()
        .filter(|line| line.contains("answered"))
        .count())
}
