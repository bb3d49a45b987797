//! `docs/planted-bugs.md`: which bugs are found, within how many seeds, and when that was seen last. A run
//! of some of them leaves what the page says of the others.

use super::Outcome;
use super::patch::{self, Bug};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const NOT_RUN: &str = "not run";

/// What the page says, by the names of the bugs.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Page(BTreeMap<String, Row>);

/// What came of a bug the last time that it was played.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    told: String,
    seconds: String,
    when: String,
}

impl Row {
    pub(super) fn of(outcome: &Outcome, seconds: u64, when: &str) -> Self {
        Self {
            // A bar would be the end of the cell.
            told: outcome.tell().replace('|', "/"),
            seconds: seconds.to_string(),
            when: when.to_owned(),
        }
    }

    /// What is in bold is not as it should be.
    fn is_found(&self) -> bool {
        !self.told.starts_with("**")
    }
}

impl Page {
    pub(super) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [name, _, _, _, told, seconds, when] = cells[..]
                && told != NOT_RUN
            {
                let row = Row {
                    told: told.to_owned(),
                    seconds: seconds.to_owned(),
                    when: when.to_owned(),
                };
                page.take(name, row);
            }
        }
        page
    }

    pub(super) fn take(&mut self, name: &str, row: Row) {
        self.0.insert(name.to_owned(), row);
    }

    pub(super) fn is_found(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(Row::is_found)
    }

    /// How many of these are found.
    pub(super) fn found(&self, bugs: &[Bug]) -> usize {
        bugs.iter().filter(|bug| self.is_found(&bug.name)).count()
    }

    pub(super) fn text(&self, bugs: &[Bug]) -> String {
        let mut text = format!(
            "# Planted bugs\n\n{} of {} are found. Written by `cargo xtask bugs`: each is planted into a copy of the \
             repository ([patches](../{})), and the simulator is played until it breaks an invariant. \"Seeds\" is how many \
             that took, and which invariant showed it; building is most of the seconds. A run of some of them leaves what was \
             said of the others; \"played\" is when, and on which commit.\n\n\
             | bug | what is wrong | breaks | level | seeds | seconds | played |\n|---|---|---|---|---|---|---|\n",
            self.found(bugs),
            bugs.len(),
            patch::FOLDER,
        );
        for bug in bugs {
            let Bug {
                name,
                what,
                breaks,
                level,
                ..
            } = bug;
            let (told, seconds, when) = match self.0.get(name) {
                Some(row) => (&*row.told, &*row.seconds, &*row.when),
                None => (NOT_RUN, "", ""),
            };
            // Writing to a text does not fail.
            let _ = writeln!(
                text,
                "| {name} | {what} | {breaks} | {level} | {told} | {seconds} | {when} |"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    #[test]
    fn the_page_in_the_repository_is_one_that_this_program_writes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = std::fs::read_to_string(root.join("docs/planted-bugs.md")).unwrap();
        let bugs = patch::all(&root).unwrap();
        assert_eq!(text, Page::parse(&text).text(&bugs));
    }

    #[test]
    fn what_came_of_each_is_told_in_a_table_and_stays_when_others_are_played() {
        let bug = |name: &str| Bug {
            name: name.to_owned(),
            what: "wrong".to_owned(),
            breaks: "F:S1".to_owned(),
            level: "core".to_owned(),
            path: PathBuf::new(),
        };
        let bugs = [bug("001-a"), bug("002-b"), bug("003-c")];
        let found = |seeds| Outcome::Found {
            seeds,
            invariant: "F:S1".to_owned(),
        };
        let mut page = Page::default();
        page.take("001-a", Row::of(&found(7), 3, "monday, abc"));
        page.take("002-b", Row::of(&Outcome::Missed { seeds: 9 }, 4, "monday"));
        let first = page.text(&bugs);
        assert!(first.contains("1 of 3 are found"), "{first}");
        for row in [
            "| 001-a | wrong | F:S1 | core | 7 (F:S1) | 3 | monday, abc |",
            "| 002-b | wrong | F:S1 | core | **not found** in 9 | 4 | monday |",
            "| 003-c | wrong | F:S1 | core | not run |  |  |",
        ] {
            assert!(first.contains(row), "{first}");
        }
        let mut later = Page::parse(&first);
        assert!(later.is_found("001-a") && !later.is_found("002-b") && !later.is_found("003-c"));
        later.take("002-b", Row::of(&found(2), 5, "tuesday"));
        let second = later.text(&bugs);
        assert!(second.contains("2 of 3 are found"), "{second}");
        for row in [
            "7 (F:S1) | 3 | monday, abc |",
            "2 (F:S1) | 5 | tuesday |",
            "not run |",
        ] {
            assert!(second.contains(row), "{second}");
        }
    }
}
