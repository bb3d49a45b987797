//! Several processes on one file: who is killed is followed at once, who was only stopped is fenced
//! off when it goes on, and each mutation takes effect once.
#![cfg(target_os = "linux")]
// A test that cannot go on has failed; the panic says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rusqlite::Connection;
use std::process::Command;
use std::time::{Duration, Instant};
use syncline_process_tests::{
    Device, PATIENCE, Running, Server, assert_same, assert_settled, listing, number, token,
};
use tempfile::TempDir;

const DEVICE: &str = env!("CARGO_BIN_EXE_syncline-test-device");
const SERVER: &str = env!("CARGO_BIN_EXE_syncline-test-server");

const SCHEMA: &str = "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT)";

fn world(options: &str) -> (TempDir, Server, Device) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::own(SERVER, &folder.path().join("server"), None);
    let device = Device::create(DEVICE, folder.path().join("alice.db"), SCHEMA)
        .remote(&server.url(), &token())
        .options("--set debounce_ms=5 --set poll_interval_ms=200")
        .options(options);
    device.run("--attach upload sync").success();
    (folder, server, device)
}

fn signal(process: &Running, signal: &str) {
    let mut command = Command::new("kill");
    let status = command.arg(signal).arg(process.id().to_string()).status();
    assert!(status.unwrap().success());
}

fn assert_done_once(folder: &TempDir, server: &Server, device: &Device, rows: i64) {
    let on_server = listing(&server.url(), &token());
    assert_same(
        "in the end",
        ("Alice", &device.rows()),
        ("the server", &on_server),
    );
    assert_settled("in the end", &device.path);
    assert_eq!(number(&device.path, "SELECT count(*) FROM task"), rows);
    let database = folder.path().join("server/server.db");
    assert_eq!(
        number(&database, "SELECT sum(head) FROM head"),
        rows,
        "effects"
    );
}

#[test]
fn the_lease_of_a_killed_process_holds_nobody_up() {
    let (folder, server, device) = world("");
    let running = device.start("run");
    running.line_after("running", PATIENCE).unwrap();
    device.sql("INSERT INTO task (title) VALUES ('one')");
    running.line_after("pushed ", PATIENCE).unwrap();
    running.kill();
    let left = "SELECT until > unixepoch() * 1000 + 40000 FROM syncline_lease";
    assert_eq!(number(&device.path, left), 1, "it was not given back");
    device.sql("INSERT INTO task (title) VALUES ('two')");
    let since = Instant::now();
    device.sync();
    assert!(
        since.elapsed() < Duration::from_secs(15),
        "{:?}",
        since.elapsed()
    );
    assert_done_once(&folder, &server, &device, 2);
}

/// Stops it at a moment at which it holds no lock: a process that is stopped within a transaction holds up
/// every writer, as any program would.
fn stop_outside_of_a_transaction(process: &Running, device: &Device) {
    for _ in 0..200 {
        signal(process, "-STOP");
        let app = Connection::open(&device.path).unwrap();
        app.busy_timeout(Duration::from_millis(100)).unwrap();
        if app.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            return;
        }
        signal(process, "-CONT");
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it is always within a transaction");
}

#[test]
fn a_process_that_was_stopped_beyond_its_lease_writes_nothing_when_it_goes_on() {
    let (folder, server, device) = world("--set lease_ttl_ms=1500");
    let first = device.start("run");
    first.line_after("running", PATIENCE).unwrap();
    device.sql("INSERT INTO task (title) VALUES ('one')");
    first.line_after("pushed ", PATIENCE).unwrap();
    stop_outside_of_a_transaction(&first, &device);
    device.sql("INSERT INTO task (title) VALUES ('two')");
    let token = number(&device.path, "SELECT token FROM syncline_lease");
    // It rides out the rest of the lease: a stopped process is not gone.
    device.sync();
    assert!(number(&device.path, "SELECT token FROM syncline_lease") > token);
    device.sql("INSERT INTO task (title) VALUES ('three')");
    signal(&first, "-CONT");
    // The first one stands back and takes its turn again, as the second has ended.
    first.line_after("pushed ", PATIENCE).unwrap();
    first.kill();
    device.sync();
    assert_done_once(&folder, &server, &device, 3);
}
