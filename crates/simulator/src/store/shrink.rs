//! Makes a scenario that breaks an invariant smaller as long as it breaks the same one, and prints it as
//! a test.

use super::StoreLevel;
use super::drawn::{Drawn, Rule};
use super::scenario::{Scenario, Step};
use crate::level::Broken;
use crate::runner::told;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The most scenarios that are tried.
const MOST_TRIES: u32 = 1_500;

struct Shrinking<'a> {
    level: &'a StoreLevel,
    invariant: &'static str,
    tries: u32,
}

fn broken(level: &StoreLevel, scenario: &Scenario) -> Option<Broken> {
    catch_unwind(AssertUnwindSafe(|| level.play_scenario(scenario).broken))
        .unwrap_or_else(|panic| Some(Broken::new("F:S22", told(&*panic))))
}

/// The smallest scenario that was found, and what it breaks; `None` when the given one breaks nothing.
pub(crate) fn shrink(level: &StoreLevel, scenario: &Scenario) -> Option<(Scenario, Broken)> {
    let first = broken(level, scenario)?;
    let mut shrinking = Shrinking {
        level,
        invariant: first.invariant,
        tries: 0,
    };
    let mut small = scenario.clone();
    loop {
        let before = small.clone();
        shrinking.drop_steps(&mut small);
        shrinking.simplify(&mut small);
        if small == before || shrinking.tries >= MOST_TRIES {
            break;
        }
    }
    let last = broken(level, &small)?;
    Some((small, last))
}

impl Shrinking<'_> {
    fn still_breaks(&mut self, scenario: &Scenario) -> bool {
        self.tries += 1;
        self.tries < MOST_TRIES
            && broken(self.level, scenario).is_some_and(|b| b.invariant == self.invariant)
    }

    /// Leaves steps out, large parts first.
    fn drop_steps(&mut self, scenario: &mut Scenario) {
        let mut size = scenario.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < scenario.steps.len() {
                let mut tried = scenario.clone();
                let end = (at + size).min(tried.steps.len());
                tried.steps.drain(at..end);
                if self.still_breaks(&tried) {
                    *scenario = tried;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    /// Makes the setup plainer, and transactions smaller.
    fn simplify(&mut self, scenario: &mut Scenario) {
        let plainer: [fn(&mut Scenario); 7] = [
            |s| s.setup.checkpoint = 0,
            |s| s.setup.pull_first = 0,
            |s| s.setup.on_delete = super::OnDelete::Cascade,
            |s| s.setup.storage = super::StorageKind::Memory,
            |s| s.setup.devices = 2.max(s.setup.devices - 1),
            |s| s.setup.push_mutations = 100,
            |s| s.setup.page_changes = 100,
        ];
        for change in plainer {
            let mut tried = scenario.clone();
            change(&mut tried);
            if tried != *scenario && self.still_breaks(&tried) {
                *scenario = tried;
            }
        }
        self.simplify_drawn(scenario);
        for at in 0..scenario.steps.len() {
            while let Step::Together { writes, .. } = &scenario.steps[at]
                && !writes.is_empty()
            {
                let smaller = (0..writes.len()).find_map(|gone| {
                    let mut tried = scenario.clone();
                    if let Step::Together { writes, .. } = &mut tried.steps[at] {
                        writes.remove(gone);
                    }
                    self.still_breaks(&tried).then_some(tried)
                });
                match smaller {
                    Some(tried) => *scenario = tried,
                    None => break,
                }
            }
        }
    }

    /// Makes drawn tables plainer.
    fn simplify_drawn(&mut self, scenario: &mut Scenario) {
        let plainer: [fn(&mut Drawn); 7] = [
            |one| one.columns.truncate(one.columns.len().saturating_sub(1)),
            |one| {
                one.references
                    .truncate(one.references.len().saturating_sub(1))
            },
            |one| one.without_rowid = false,
            |one| one.strict = false,
            |one| one.name = 0,
            |one| {
                one.columns
                    .iter_mut()
                    .for_each(|one| one.rule = Rule::Plain)
            },
            |one| {
                one.references
                    .iter_mut()
                    .for_each(|one| one.deferred = false)
            },
        ];
        let mut tried = scenario.clone();
        while tried.setup.upgrades.pop().is_some() && self.still_breaks(&tried) {
            *scenario = tried.clone();
        }
        let mut tried = scenario.clone();
        while tried.setup.drawn.pop().is_some() && self.still_breaks(&tried) {
            *scenario = tried.clone();
        }
        for n in 0..scenario.setup.drawn.len() {
            for change in plainer {
                let mut tried = scenario.clone();
                change(&mut tried.setup.drawn[n]);
                if tried != *scenario && self.still_breaks(&tried) {
                    *scenario = tried;
                }
            }
        }
    }
}

/// The scenario as a test to paste into `tests/scenarios.rs`, and as a file to keep in `seeds`.
pub(crate) fn print(scenario: &Scenario, broken: &Broken) -> String {
    let (invariant, seed) = (broken.invariant, scenario.setup.seed);
    let detail = broken.detail.replace('\n', " ");
    let file = serde_json::to_string(scenario).unwrap_or_default();
    format!(
        "/// {invariant}: {detail}\n#[test]\nfn seed_{seed}() {{\n    holds(&read(r#\"{file}\"#));\n}}\n{file}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_as_the_scenario_again() {
        let level = StoreLevel::new();
        let scenario = level.scenario(7);
        let printed = print(&scenario, &Broken::new("F:S12", "two\nlines"));
        let pasted = printed
            .split("r#\"")
            .nth(1)
            .and_then(|rest| rest.split("\"#").next());
        let last = printed.lines().last();
        for text in [pasted, last] {
            let read: Scenario = serde_json::from_str(text.unwrap()).unwrap();
            assert_eq!(read, scenario);
        }
    }
}
