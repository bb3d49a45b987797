//! What a part's program said: names and values, and what went wrong.

use crate::json::Json;

/// So many failures are told in words; the rest is counted.
const MOST_TOLD: usize = 20;

/// The figures of one part.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Found {
    /// Name and value, in the order in which they are told.
    pub(super) figures: Vec<(String, String)>,
    /// What went wrong; nothing if all was well.
    pub(super) problems: Vec<String>,
}

impl Found {
    /// One problem and no figures.
    pub(super) fn problem(problem: impl Into<String>) -> Self {
        Self {
            figures: Vec::new(),
            problems: vec![problem.into()],
        }
    }

    pub(super) fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.figures.push((name.into(), value.to_string()));
    }
}

/// Lines `figure: NAME = VALUE` and `FAILED WHAT` in an output.
pub(super) fn in_lines(output: &str) -> Found {
    let mut found = Found::default();
    for line in output.lines() {
        if let Some(figure) = line.strip_prefix("figure: ")
            && let Some((name, value)) = figure.rsplit_once(" = ")
        {
            found.add(name, value);
        } else if let Some(what) = line.strip_prefix("FAILED ") {
            found.problems.push(what.to_owned());
        }
    }
    found
}

/// What the simulator writes as JSON.
pub(super) fn of_simulator(text: &str) -> Found {
    let Some(report) = Json::read(text) else {
        return Found::problem("the simulator's report cannot be read");
    };
    let mut found = Found::default();
    let word = |name: &str| report.word(name).unwrap_or("?").to_owned();
    found.add("seeds", word("seeds"));
    found.add("first seed", word("from"));
    found.add("seeds played twice with the same trace", word("twice"));
    found.add("steps", word("steps"));
    found.add("hours simulated", whole(&word("virtual_hours")));
    found.add("seconds", whole(&word("wall_s")));
    let kinds = report.members("faults");
    found.add("kinds of faults", kinds.len());
    if report.text("level") == Some("store") {
        found.add(
            "kinds of faults that did not strike",
            report.list("missed").len(),
        );
    }
    let cells = report.members("cells").len();
    found.add("cells of the machine's table reached", cells);
    for name in ["faults", "counts"] {
        for (kind, count) in report.members(name) {
            if let Json::Word(count) = count {
                found.add(kind, count);
            }
        }
    }
    let failures = report.list("failures");
    found.add("failures", failures.len());
    for failure in failures.iter().take(MOST_TOLD) {
        let text = |name| failure.text(name).unwrap_or("?").to_owned();
        let seed = failure.word("seed").unwrap_or("?");
        found.problems.push(format!(
            "seed {seed} breaks {}: {}",
            text("invariant"),
            text("detail")
        ));
    }
    if failures.len() > MOST_TOLD {
        let more = failures.len() - MOST_TOLD;
        found.problems.push(format!("and {more} more"));
    }
    found
}

/// What `cargo xtask bugs` prints: figures, and `[1/40] NAME: 12 (E1), 9 s` for each bug, something in bold
/// where it was not found.
pub(super) fn of_bugs(output: &str) -> Found {
    let mut found = in_lines(output);
    for line in output.lines().filter(|line| line.starts_with('[')) {
        if let Some((_, told)) = line.split_once("] ")
            && told.contains("**")
        {
            found.problems.push(told.to_owned());
        }
    }
    found
}

fn whole(number: &str) -> String {
    number.split('.').next().unwrap_or(number).to_owned()
}

/// The value that a line of the fuzzer's final statistics has.
pub(super) fn statistic<'a>(output: &'a str, name: &str) -> Option<&'a str> {
    let line = output.lines().rev().find(|line| line.contains(name))?;
    Some(line.rsplit_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_failures_are_found_in_an_output() {
        let found = in_lines("noise\nfigure: kills of a = b = 7\nFAILED SEED=3\nfigure: odd\n");
        assert_eq!(
            found.figures,
            [("kills of a = b".to_owned(), "7".to_owned())]
        );
        assert_eq!(found.problems, ["SEED=3"]);
        let output = "x\nstat::number_of_executed_units: 123\nstat::new_units_added: 4\n";
        assert_eq!(statistic(output, "number_of_executed_units"), Some("123"));
        assert_eq!(statistic(output, "peak"), None);
    }

    #[test]
    fn planted_bugs_that_are_not_found_are_told() {
        let output = "==> a clean copy\ncore: 3 seeds are clean\n[1/3] a: 12 (E1), 9 s\n\
                      [2/3] b: **not found** in 60, 9 s\n[3/3] c: not run, 0 s\n\
                      figure: planted bugs = 3\nfigure: planted bugs found = 1\n";
        let found = of_bugs(output);
        let figures: Vec<_> = (found.figures.iter())
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(figures, ["3", "1"]);
        assert_eq!(found.problems, ["b: **not found** in 60, 9 s"]);
    }

    #[test]
    fn the_simulators_report_is_read() {
        let text = r#"{"level": "core", "from": 0, "seeds": 12, "twice": 1, "steps": 99,
            "virtual_hours": 3.75, "wall_s": 1.5, "digest": "x",
            "faults": {"lost request": 4, "lost answer": 5}, "cells": {"a × b": 1}, "counts": {"pushes": 6},
            "failures": [{"seed": 7, "invariant": "E1", "detail": "twice", "scenario": null}]}"#;
        let found = of_simulator(text);
        let value = |name: &str| {
            let figure = found.figures.iter().find(|(own, _)| own == name);
            figure.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("seeds"), Some("12"));
        assert_eq!(value("hours simulated"), Some("3"));
        assert_eq!(value("kinds of faults"), Some("2"));
        assert_eq!(value("lost answer"), Some("5"));
        assert_eq!(value("pushes"), Some("6"));
        assert_eq!(value("failures"), Some("1"));
        assert_eq!(found.problems, ["seed 7 breaks E1: twice"]);
        assert_eq!(of_simulator("{").problems.len(), 1);
        let many = vec![r#"{"seed": 7, "invariant": "E1", "detail": "twice"}"#; 30].join(",");
        let found = of_simulator(&format!(r#"{{"failures": [{many}]}}"#));
        assert_eq!(found.problems.len(), MOST_TOLD + 1);
        assert_eq!(found.problems[MOST_TOLD], "and 10 more");
    }
}
