//! The demo keeps what it promises, says so in both forms, and leaves files that can be used.

#![allow(clippy::expect_used)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn syncline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syncline"))
        .args(arguments)
        .env_remove("SYNCLINE_TOKEN")
        .output()
        .expect("the command starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is text")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON object")
}

#[test]
fn told_aloud_it_explains_every_step_and_ends_with_0() {
    let output = syncline(&["demo"]);
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{text}");
    assert!(
        output.stderr.is_empty(),
        "{:?}",
        String::from_utf8_lossy(&output.stderr)
    );
    for mention in [
        "1. A server and two devices",
        "7. A conflict that only a person can decide",
        "8. Everyone syncs once more",
        "503",
        "Retry-After",
        "the answer is lost",
        "kill -9",
        "merged",
        "refused: task shed on the laptop waits for a person",
        "maximum of 5",
        "ok   a delete went everywhere",
        "ok   both devices and the server are equal",
        "Converged: everything promised happened",
    ] {
        assert!(text.contains(mention), "{mention:?} is missing in:\n{text}");
    }
    assert!(!text.contains("NOT "), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
    assert!(
        text.lines().all(|line| line.chars().count() <= 110),
        "{text}"
    );
    let folder = text
        .lines()
        .find_map(|line| line.strip_prefix("Everything happens in "));
    assert!(!Path::new(folder.expect("the folder is named")).exists());
}

#[test]
fn quiet_prints_the_result_only() {
    let output = syncline(&["demo", "--quiet"]);
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{text}");
    assert!(
        text.contains("Converged") && !text.contains("1. A server"),
        "{text}"
    );
}

#[test]
fn as_json_it_is_one_object_with_everything_promised() {
    let output = syncline(&["demo", "--json"]);
    let json = json(&output);
    assert_eq!(code(&output), 0, "{json:#}");
    assert_eq!(json["converged"], true);
    assert_eq!(json["server"]["rows"], 8);
    assert_eq!(json["devices"][0]["name"], "laptop");
    assert_eq!(json["devices"][1]["name"], "phone");
    for (device, failed) in [(&json["devices"][0], 1), (&json["devices"][1], 0)] {
        assert_eq!(device["rows"], 8);
        assert_eq!(device["outbox"]["pending"], 0);
        assert_eq!(device["outbox"]["in_flight"], 0);
        assert_eq!(device["outbox"]["failed"], failed);
        assert_eq!(device["outbox"]["dead"], 0);
        assert_eq!(device.get("path"), None);
    }
    let mutations = &json["mutations"];
    assert_eq!(mutations["failed"], 1);
    assert_eq!(mutations["dead"], 0);
    assert_eq!(mutations["pending"], 0);
    // 6 creates, 4 of the laptop's edits, 3 of the phone's, 3 around the kill, 3 for the person.
    assert_eq!(mutations["applied"], 19);
    assert!(mutations["superseded"].is_u64());
    assert_eq!(json["merges"], 1);
    assert_eq!(json["conflicts_resolved"], 2);
    assert_eq!(json["conflicts_decided_by_person"], 1);
    assert_eq!(json["retries"], 3);
    assert_eq!(json["duplicates_suppressed"], 7);
    let refused = json["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["entity_type"], "task");
    assert_eq!(refused[0]["entity_id"], "shed");
    assert_eq!(refused[0]["code"], "validation");
    assert_eq!(refused[0]["errors"][0]["field"], "priority");
    let difference = &json["devices"][0]["differences"];
    assert_eq!(difference.as_array().unwrap().len(), 1);
    assert_eq!(difference[0]["refused"], true);
    assert_eq!(difference[0]["device"]["priority"], 9);
    assert_eq!(difference[0]["server"]["priority"], 3);
    let promises = json["promises"].as_array().unwrap();
    assert!(promises.len() >= 10 && promises.iter().all(|promise| promise["kept"] == true));
    assert!(json["wall_ms"].as_u64().unwrap() > 0);
    assert_eq!(json.get("kept"), None);
}

#[test]
fn kept_files_can_be_used() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("kept");
    let shown = folder.to_str().unwrap();
    let output = syncline(&["demo", "--json", "--keep", shown]);
    let told = json(&output);
    assert_eq!(code(&output), 0, "{told:#}");
    assert_eq!(told["kept"], shown);
    for device in told["devices"].as_array().unwrap() {
        let path = device["path"].as_str().unwrap();
        let status = syncline(&["status", path, "--json"]);
        assert_eq!(
            code(&status),
            0,
            "{}",
            String::from_utf8_lossy(&status.stderr)
        );
        let status = json(&status);
        assert_eq!(status["outbox"]["failed"], device["outbox"]["failed"]);
        assert_eq!(status["outbox"]["pending"], 0);
    }
    let laptop = folder.join("laptop.db");
    let listed = syncline(&["outbox", "list", laptop.to_str().unwrap()]);
    let listed = stdout(&listed);
    assert!(
        listed.contains("shed") && listed.contains("maximum of 5"),
        "{listed}"
    );

    // A second demo does not write over the first one's files.
    let again = syncline(&["demo", "--keep", shown]);
    assert_eq!(code(&again), 2);
    let message = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(message.contains("not empty"), "{message}");
    assert!(again.stdout.is_empty());
    let status = syncline(&["status", laptop.to_str().unwrap()]);
    assert_eq!(code(&status), 0);
}

#[test]
fn a_file_is_no_folder_to_keep() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let output = syncline(&["demo", "--json", "--keep", file.to_str().unwrap()]);
    assert_eq!(code(&output), 2);
    assert_eq!(json(&output)["error"]["code"], "keep-folder");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

/// Every file of a folder that is a trace.
fn traces(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).expect("the folder is kept");
    let paths = files.map(|file| file.expect("it can be read").path());
    let mut traces: Vec<PathBuf> = paths
        .filter(|path| path.to_string_lossy().contains(".trace"))
        .collect();
    traces.sort();
    traces
}

/// With `UPDATE_TRACES=1` they become regression tests of the state machine.
#[test]
fn what_its_devices_recorded_replays_and_shows_no_values() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("kept");
    let demo = syncline(&["demo", "--quiet", "--keep", &folder.to_string_lossy()]);
    assert_eq!(code(&demo), 0, "{}", stdout(&demo));
    let recorded = traces(&folder);
    assert!(
        recorded.len() >= 3,
        "the laptop starts more than once: {recorded:?}"
    );
    for path in recorded {
        let shown = path.to_string_lossy().into_owned();
        let replayed = syncline(&["replay", &shown, "--json"]);
        let told = json(&replayed);
        assert_eq!(code(&replayed), 0, "{shown}: {told:#}");
        assert_eq!(told["same"], true, "{told:#}");
        assert!(told["inputs"].as_u64() > Some(3), "{told:#}");
        let text = std::fs::read_to_string(&path).expect("a trace is text");
        for value in [
            "seeds",
            "tomatoes",
            "Garden",
            "kitchen",
            "Boil",
            "maximum of 5",
            "eyJ",
        ] {
            assert!(!text.contains(value), "{value} is in {shown}");
        }
        if std::env::var_os("UPDATE_TRACES").is_some() {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .replace(".trace.1", "-before.trace");
            let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/traces");
            std::fs::write(kept.join(format!("demo-{name}")), text).expect("it is written");
        }
    }
}
