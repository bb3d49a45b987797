//! A share of the matrix: each script with faults spread evenly over what its work calls, and with
//! power losses. The command of this package plays all of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use syncline_fault_tests::{Figures, all_cases, play_share, power_cases, script};

/// Single faults of one script.
const FAULTS: usize = 30;
/// Power losses of one script.
const LOSSES: usize = 12;

#[track_caller]
fn assert_none_fails(name: &str, figures: &Figures) {
    let first: Vec<_> = figures.failures.iter().take(5).cloned().collect();
    assert!(
        first.is_empty(),
        "{name}: {} of {} cases fail:\n{}",
        figures.failures.len(),
        figures.cases,
        first.join("\n")
    );
    assert!(figures.cases > 0, "{name}: no fault ever struck");
}

#[track_caller]
fn faults(name: &str) {
    let script = script(name);
    let cases = all_cases(script);
    let figures = play_share(script, &cases, FAULTS, None);
    println!(
        "{name}: {} of {} cases: {:?}",
        figures.cases,
        cases.len(),
        figures.kinds
    );
    assert_none_fails(name, &figures);
}

#[track_caller]
fn losses(names: &[&str]) {
    for name in names {
        let script = script(name);
        let cases = power_cases(script);
        let figures = play_share(script, &cases, LOSSES, None);
        println!("{name}: {} of {} power losses", figures.cases, cases.len());
        assert_none_fails(name, &figures);
    }
}

#[test]
fn f_a9_a10_a11_a_device_writes_and_pushes_on_a_file_that_fails() {
    faults("write-and-push");
}

#[test]
fn f_a5_a9_a10_a_device_pulls_and_resolves_on_a_file_that_fails() {
    faults("pull-and-resolve");
}

#[test]
fn f_a6_a9_a10_a_device_sweeps_on_a_file_that_fails() {
    faults("snapshot-and-sweep");
}

#[test]
fn f_a9_a10_a_device_begins_a_new_history_on_a_file_that_fails() {
    faults("new-history");
}

#[test]
fn f_a15_a_device_is_opened_on_a_file_that_fails() {
    faults("open-and-sync");
}

#[test]
fn f_a7_a9_a_file_that_fails_is_attached_as_a_whole_or_not_at_all() {
    faults("attach");
}

#[test]
fn f_a7_a9_a_file_that_fails_is_migrated_as_a_whole_or_not_at_all() {
    faults("migrate");
}

#[test]
fn f_a9_a10_a_server_takes_a_push_on_a_file_that_fails() {
    faults("server-push");
}

#[test]
fn f_a9_a15_a_server_on_a_file_that_fails_serves_reads_and_upkeep() {
    for name in [
        "server-pull",
        "server-purge",
        "server-new-history",
        "server-restart",
    ] {
        faults(name);
    }
}

#[test]
fn f_a3_a5_a_device_loses_power() {
    losses(&[
        "write-and-push",
        "pull-and-resolve",
        "snapshot-and-sweep",
        "open-and-sync",
    ]);
}

#[test]
fn f_a3_a7_files_and_servers_lose_power() {
    losses(&[
        "attach",
        "migrate",
        "server-push",
        "server-purge",
        "server-new-history",
    ]);
}
