//! Making a failing scenario small: steps are left out as long as the same invariant breaks, and what is
//! left is printed as a test.

use super::plan::{Setup, Step};
use super::run;
use std::fmt::Write;

/// Scenarios that are tried at most.
const MOST_TRIES: u32 = 4_000;

/// The smallest scenario found that breaks the invariant.
pub(crate) fn shrink(
    mut setup: Setup,
    mut steps: Vec<Step>,
    invariant: &str,
) -> (Setup, Vec<Step>) {
    let mut tries = 0;
    let mut breaks = |setup: &Setup, steps: &[Step]| {
        tries += 1;
        let broken = run(*setup, steps).broken;
        tries <= MOST_TRIES && broken.is_some_and(|broken| broken.invariant == invariant)
    };
    loop {
        let before = steps.len();
        let mut size = (steps.len() / 2).max(1);
        loop {
            let mut at = 0;
            while at < steps.len() {
                let end = (at + size).min(steps.len());
                let fewer: Vec<Step> = steps
                    .iter()
                    .take(at)
                    .chain(steps.iter().skip(end))
                    .copied()
                    .collect();
                if breaks(&setup, &fewer) {
                    steps = fewer;
                } else {
                    at = end;
                }
            }
            if size == 1 {
                break;
            }
            size /= 2;
        }
        for plainer in plainer(&setup) {
            if breaks(&plainer, &steps) {
                setup = plainer;
            }
        }
        if steps.len() == before {
            return (setup, steps);
        }
    }
}

fn plainer(setup: &Setup) -> [Setup; 6] {
    [
        Setup {
            second: false,
            ..*setup
        },
        Setup { files: 1, ..*setup },
        Setup {
            orders: 0,
            ..*setup
        },
        Setup {
            policy: 0,
            ..*setup
        },
        Setup {
            push: 5,
            page: 5,
            ..*setup
        },
        Setup { dice: 1, ..*setup },
    ]
}

/// The scenario as a test.
pub(crate) fn print(seed: u64, invariant: &str, setup: &Setup, steps: &[Step]) -> String {
    let mut text = format!("/// Seed {seed} of the core level: {invariant}.\n#[test]\n");
    let _ = writeln!(text, "fn seed_{seed}() {{\n    let setup = {setup:?};");
    let _ = writeln!(text, "    let steps = [");
    for step in steps {
        let _ = writeln!(text, "        {step:?},");
    }
    text.push_str("    ];\n    assert_eq!(play(setup, &steps), None);\n}");
    text
}
