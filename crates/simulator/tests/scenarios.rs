//! A bounded share of the simulation: seeds that are played with every change, and scenarios that broke
//! something once and are kept in `seeds`. Paste what a failing seed prints at the end of this file.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;
use syncline_simulator::level::Level;
use syncline_simulator::runner::{Run, run};
use syncline_simulator::store::{Scenario, StoreLevel};

fn holds(scenario: &Scenario) {
    assert_eq!(StoreLevel::new().play_scenario(scenario).broken, None);
}

fn read(text: &str) -> Scenario {
    serde_json::from_str(text).unwrap()
}

/// Seeds of every change; `cargo xtask torture` plays many more.
const SHARE: u64 = 100;

/// Every invariant that the level of the store checks: F:S1–S9, S11–S14, S16–S18, S21–S27, L1–L4, L6, D:A1, D:E2, D:E3,
/// D:P1, D:P5, D:P6; a sixteenth of the seeds twice (F:S24).
#[test]
fn every_seed_of_the_share_is_clean() {
    let share = Run::of_every_change(SHARE);
    let report = run(&StoreLevel::new(), share);
    assert!(report.is_clean(), "{report}");
    assert!(report.twice > 0 && report.seeds == SHARE);
    assert!(report.faults.len() >= 60, "{:?}", report.faults);
    let listed = StoreLevel::new().faults();
    let unlisted = report.faults.keys().find(|kind| !listed.contains(kind));
    assert_eq!(
        unlisted, None,
        "it would not be missed where it does not strike"
    );
}

#[test]
fn kept_scenarios_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut kept = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            println!("{}", path.display());
            holds(&read(&text));
            kept += 1;
        }
    }
    assert!(kept > 0, "the folder is empty");
}
