//! A bounded share of the simulation: seeds that are played with every change, and scenarios that broke
//! something once and are kept in `seeds`. Paste what a failing seed prints at the end of this file.

use std::path::Path;
use syncline_simulator::level::Level;
use syncline_simulator::store::{Scenario, StoreLevel};

fn holds(scenario: &Scenario) {
    assert_eq!(StoreLevel::new().play_scenario(scenario).broken, None);
}

/// Every invariant that the level of the store checks: F:S1–S9, S11–S13, S16–S18, S21–S23, S25, S26, L1–L4,
/// D:A1, D:E2, D:E3, D:P1, D:P5, D:P6.
#[test]
fn seeds_hold() {
    let level = StoreLevel::new();
    for seed in 0..12 {
        let broken = level.play(seed).broken;
        assert_eq!(broken, None, "{}", level.shrink(seed).unwrap_or_default());
    }
}

/// F:S24.
#[test]
fn s24_a_seed_played_twice_gives_the_same_trace() {
    let level = StoreLevel::new();
    for seed in 100..102 {
        assert_eq!(level.play(seed), level.play(seed), "seed {seed}");
    }
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
            let scenario: Scenario = serde_json::from_str(&text).unwrap();
            println!("{}", path.display());
            holds(&scenario);
            kept += 1;
        }
    }
    assert!(kept > 0, "the folder is empty");
}
