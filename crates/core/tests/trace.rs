//! Laws of traces: what is recorded of any run replays to the same effects, whether values are shown
//! or hidden and wherever the trace begins; nothing hidden is in it; damage is told, never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods
)] // a test reads files

#[path = "trace/rig.rs"]
mod rig;

use proptest::prelude::*;
use rig::{Rig, SECRET};
use std::path::Path;
use syncline_core::trace::{Recorder, Redactor, RunHash, Step, Trace, TraceError};
use syncline_core::{Config, Dice};

const KEY: [u8; 32] = [7; 32];

fn recorded(seed: u64, inputs: usize) -> String {
    Rig::new(seed).recorded(Recorder::new(Redactor::hiding(KEY)), inputs)
}

/// Replays it all; the first step that differs, if one does.
fn first_difference(trace: Trace<'_>) -> Result<Option<Step>, TraceError> {
    let mut replay = trace.replay();
    while let Some(step) = replay.step()? {
        if !step.is_same() {
            return Ok(Some(step));
        }
    }
    Ok(None)
}

fn differs(text: &str) -> Option<Step> {
    first_difference(Trace::read(text.as_bytes()).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_recorded_replays_to_the_same_effects(seed in any::<u64>(), skipped in 0..60_usize) {
        let mut rig = Rig::new(seed);
        rig.run(skipped);
        let hidden = rig.recorded(Recorder::new(Redactor::hiding(KEY)), 60);
        prop_assert!(!hidden.contains(SECRET), "{}", hidden);
        let difference = differs(&hidden);
        prop_assert!(difference.is_none(), "{:#?}", difference);
        let shown = rig.recorded(Recorder::new(Redactor::hiding(KEY).showing_values()), 60);
        let difference = differs(&shown);
        prop_assert!(difference.is_none(), "{:#?}", difference);
    }

    #[test]
    fn the_same_run_is_the_same_trace(seed in any::<u64>()) {
        prop_assert_eq!(recorded(seed, 40), recorded(seed, 40));
        let hash = |seed| {
            let mut hash = RunHash::default();
            Rig::new(seed).each(40, |input, now, effects| hash.step(input, now, effects));
            hash.value()
        };
        prop_assert_eq!(hash(seed), hash(seed));
        prop_assert_ne!(hash(seed), hash(seed ^ 1));
    }

    #[test]
    fn a_trace_can_be_cut_anywhere(seed in any::<u64>(), part in 0.0..1.0_f64) {
        let text = recorded(seed, 20);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let cut = (text.len() as f64 * part) as usize;
        let header = text.find('\n').unwrap();
        match Trace::read(&text.as_bytes()[..cut]) {
            Ok(trace) => prop_assert!(first_difference(trace).unwrap().is_none()),
            Err(error) => prop_assert!(cut < header, "{}", error),
        }
    }

    #[test]
    fn damage_is_an_error_or_a_difference(seed in any::<u64>(), flips in 1..4_u64) {
        let mut bytes = recorded(seed, 20).into_bytes();
        let mut dice = Dice::seeded(seed);
        for _ in 0..flips {
            let at = usize::try_from(dice.up_to(bytes.len() as u64 - 1)).unwrap();
            bytes[at] ^= u8::try_from(1 + dice.up_to(254)).unwrap();
        }
        // It comes to an end, without a panic.
        let _ = Trace::read(&bytes).and_then(first_difference);
    }

    #[test]
    fn garbage_is_no_trace(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Trace::read(&bytes).is_err());
    }
}

#[test]
fn a_newer_format_is_said_to_be_newer() {
    let error = Trace::read(b"{\"trace\":2,\"anything\":[]}\n").unwrap_err();
    assert_eq!(error, TraceError::Newer(2));
    assert!(error.to_string().contains("use a newer one"), "{error}");
}

#[test]
fn a_line_that_is_missing_is_missed() {
    let text = recorded(3, 5);
    let lines: Vec<&str> = text.lines().collect();
    for missing in 1..lines.len() - 1 {
        let mut left = lines.clone();
        left.remove(missing);
        let left = left.join("\n") + "\n";
        let found = first_difference(Trace::read(left.as_bytes()).unwrap());
        let found = found.unwrap_err().to_string();
        assert!(
            found.contains(&format!("line {}", missing + 1)),
            "{missing}: {found}"
        );
    }
}

/// The machine may panic over what no device could have recorded; whoever replays it does not.
#[test]
fn numbers_beyond_measure_end_in_an_error_or_a_difference() {
    let rig = || Rig::new(5);
    let mut middle = rig();
    middle.run(40);
    let recorder = || Recorder::new(Redactor::hiding(KEY));
    for text in [
        rig().recorded(recorder(), 40),
        middle.recorded(recorder(), 20),
    ] {
        let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        let numbers =
            (1..text.len()).filter(|at| is_digit(*at) && b":[,".contains(&text.as_bytes()[at - 1]));
        for at in numbers {
            let end = (at..).find(|end| !is_digit(*end)).unwrap();
            for number in [u64::MAX, u64::MAX / 2] {
                let beyond = format!("{}{number}{}", &text[..at], &text[end..]);
                let _ = Trace::read(beyond.as_bytes()).and_then(first_difference);
            }
        }
    }
}

/// Every number that decides something is caught when it is another one.
#[test]
fn another_rule_is_a_difference() {
    type Change = fn(&mut Config);
    let rules: [(&str, Change); 6] = [
        ("backoff_base_ms", |config| config.backoff_base_ms += 1),
        ("debounce_ms", |config| config.debounce_ms += 1),
        ("poll_interval_ms", |config| config.poll_interval_ms += 1),
        ("push_mutations", |config| config.push_mutations = 1),
        ("page_changes", |config| config.page_changes -= 1),
        ("max_attempts", |config| config.max_attempts = 1),
    ];
    for (name, change) in rules {
        let caught = (0..20).any(|seed| {
            let text = recorded(seed, 200);
            let mut trace = Trace::read(text.as_bytes()).unwrap();
            change(&mut trace.header.config);
            first_difference(trace).unwrap().is_some()
        });
        assert!(caught, "{name} can be changed unnoticed");
    }
}

#[test]
fn another_seed_is_a_difference() {
    let text = recorded(1, 60);
    let mut trace = Trace::read(text.as_bytes()).unwrap();
    trace.header.seed += 1;
    assert!(first_difference(trace).unwrap().is_some());
}

#[test]
fn a_hash_of_something_else_is_a_difference() {
    let text = recorded(1, 30);
    let line = text.lines().position(|line| line.contains("\"out\":[\""));
    let line = line.expect("something has an effect");
    let out = text.lines().nth(line).unwrap();
    let at = out.find("[\"").unwrap() + 2;
    let planted = if &out[at..=at] == "0" { "1" } else { "0" };
    let changed = format!("{}{planted}{}", &out[..at], &out[at + 1..]);
    let step = differs(&text.replacen(out, &changed, 1)).expect("it differs");
    assert_eq!(step.line, line as u64);
    let (recorded, replayed) = (step.recorded.unwrap(), step.replayed.unwrap());
    assert_eq!(recorded.out[0].summary, replayed.out[0].summary);
    assert_ne!(recorded.out[0].hash, replayed.out[0].hash);
}

/// The traces of `tests/traces` by name. A trace of a device on which something went wrong becomes a
/// regression test by being copied there.
fn kept_traces() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut traces: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    traces.sort();
    traces
}

#[test]
fn every_kept_trace_replays() {
    let traces = kept_traces();
    assert!(traces.len() >= 8, "{}", traces.len());
    for (name, bytes) in traces {
        let trace = Trace::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let difference = first_difference(trace).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            difference.is_none(),
            "{name} differs; if that is wanted, record them anew (docs/trace.md): {difference:#?}"
        );
    }
}

#[test]
fn another_rule_is_seen_in_a_kept_trace() {
    let traces = kept_traces();
    let seen = |name: &str, change: fn(&mut Config)| {
        let (_, bytes) = traces.iter().find(|(kept, _)| kept == name).unwrap();
        let mut trace = Trace::read(bytes).unwrap();
        change(&mut trace.header.config);
        let step = first_difference(trace).unwrap().expect("a difference");
        let (recorded, replayed) = (step.recorded.unwrap(), step.replayed.unwrap());
        (recorded.out, replayed.out, recorded.wake, replayed.wake)
    };
    let (recorded, replayed, ..) = seen("bad-network-1.trace", |config| {
        config.backoff_base_ms += 50;
    });
    let waits = |out: &[syncline_core::trace::EffectMark]| {
        let mut summaries = out.iter().map(|effect| effect.summary.clone());
        summaries.find(|summary| summary.starts_with("tell backing-off"))
    };
    assert_ne!(waits(&recorded).unwrap(), waits(&replayed).unwrap());
    // What is only a deadline is seen as well.
    let (recorded, replayed, before, after) = seen("schedule-1.trace", |config| {
        config.debounce_ms += 1;
    });
    assert_eq!(recorded, replayed);
    assert_ne!(before, after);
}
