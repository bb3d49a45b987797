//! Cells of the machine's table (state × input) that this level does not reach, and why. The core level
//! visits them all, or lists why that cannot be.

use crate::level::Cell;
use crate::model::cover::STATES;

const INPUTS: [&str; 25] = [
    "trigger",
    "network lost",
    "constraints",
    "pause",
    "resume",
    "pass",
    "pass ends",
    "live",
    "tick",
    "store",
    "credentials",
    "no credentials",
    "stop",
    "hello",
    "hello failed",
    "pushed",
    "push failed",
    "cancelled",
    "cancel failed",
    "registered",
    "register failed",
    "fetched",
    "fetch failed",
    "page",
    "pull failed",
];

/// Every cell, and why it is not among those that were visited, should it not be.
pub(super) fn table() -> Vec<(Cell, &'static str)> {
    let cells = STATES
        .iter()
        .flat_map(|state| INPUTS.iter().map(move |input| (*state, *input)));
    cells.map(|cell| (cell, why_not(cell))).collect()
}

fn why_not((state, input): Cell) -> &'static str {
    match (state, input) {
        (_, "store") => {
            "never: the engine does its store work itself, and nobody else answers for the store"
        }
        (_, "live") => "never: hints are triggers here; the stream of them is the driver's",
        ("stopped", _) | (_, "stop") => {
            "never: a process is gone with the input that stops its engine"
        }
        ("paused", "tick") => "never: there is no deadline",
        (_, "cancelled" | "cancel failed") => {
            "rare: only a poison mutation is given up that may have been sent"
        }
        ("blocked_conflict", _) => {
            "rare: only a row that two devices made waits for a person, and not for long"
        }
        (_, "credentials" | "no credentials") => {
            "rare: new credentials are asked for in blocked_auth, and come soon"
        }
        _ if is_answer(input) => "rare: an answer that comes after its request was given up",
        _ => "rare: not in these seeds",
    }
}

fn is_answer(input: &str) -> bool {
    let first = INPUTS.iter().position(|known| *known == "hello");
    let at = INPUTS.iter().position(|known| *known == input);
    at >= first
}

/// Cells that no seed can reach.
#[cfg(test)]
pub(super) fn is_never(cell: Cell) -> bool {
    why_not(cell).starts_with("never: ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::store::StoreLevel;

    #[test]
    fn what_is_said_never_to_be_reached_is_not_and_all_that_is_stands_in_the_table() {
        let level = StoreLevel::new();
        let all: Vec<Cell> = table().into_iter().map(|(cell, _)| cell).collect();
        for seed in 0..6 {
            for cell in level.play(seed).cells.into_keys() {
                assert!(all.contains(&cell) && !is_never(cell), "{cell:?}");
            }
        }
    }
}
