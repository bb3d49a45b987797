//! Reads and runs the fixtures, and counts what they cover.

use crate::case::{Case, Decider, Expected, real};
use crate::stories::Story;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syncline_core::{FieldRule, Policy};
use syncline_protocol::Fields;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What its cases have in common, for people.
    #[serde(rename = "about")]
    _about: String,
    #[serde(default)]
    cases: Vec<Case>,
    #[serde(default)]
    stories: Vec<Story>,
}

/// One fixture, whatever its form.
pub(crate) enum Fixture {
    Case(Box<Case>),
    Story(Box<Story>),
}

impl Fixture {
    pub(crate) fn name(&self) -> &str {
        match self {
            Fixture::Case(case) => &case.name,
            Fixture::Story(story) => &story.name,
        }
    }

    pub(crate) fn check(&self, decider: Decider<'_>) -> Result<(), String> {
        match self {
            Fixture::Case(case) => case.check(decider),
            Fixture::Story(story) => story.check(decider),
        }
    }
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/conflicts")
}

pub(crate) fn read(folder: &Path) -> Vec<Fixture> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let file: File = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        all.extend(
            file.cases
                .into_iter()
                .map(|one| Fixture::Case(Box::new(one))),
        );
        all.extend(
            file.stories
                .into_iter()
                .map(|one| Fixture::Story(Box::new(one))),
        );
    }
    all
}

pub(crate) fn shipped() -> Vec<Fixture> {
    read(&folder())
}

fn cases(fixtures: &[Fixture]) -> impl Iterator<Item = &Case> {
    fixtures.iter().filter_map(|one| match one {
        Fixture::Case(case) => Some(&**case),
        Fixture::Story(_) => None,
    })
}

#[test]
fn every_fixture_is_decided_as_it_says() {
    let mut fixtures = shipped();
    if let Some(own) = std::env::var_os("SYNCLINE_CONFLICT_FIXTURES") {
        fixtures.extend(read(Path::new(&own)));
    }
    let failed = fixtures.iter().filter_map(|one| {
        let error = one.check(&real).err()?;
        Some(format!("{}: {error}", one.name()))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(fixtures.len() >= 120, "only {} fixtures", fixtures.len());
}

#[test]
fn names_are_unique_and_rules_valid() {
    let fixtures = shipped();
    let names: BTreeSet<&str> = fixtures.iter().map(Fixture::name).collect();
    assert_eq!(names.len(), fixtures.len());
    for one in &fixtures {
        let rules = match one {
            Fixture::Case(case) => &case.rules,
            Fixture::Story(story) => &story.rules,
        };
        assert_eq!(rules.validate(), Ok(()), "{}", one.name());
    }
}

#[test]
fn an_unknown_key_is_refused() {
    let good = r#"{"name": "n", "rules": {}, "base": {}, "local": {}, "remote": {},
        "expect": {"settled": {"rule": "equal", "row": {}, "pending": [null]}}}"#;
    assert!(serde_json::from_str::<Case>(good).is_ok());
    for (from, to) in [
        (r#""base": {},"#, ""),
        (r#""base": {},"#, r#""base": {}, "bass": {},"#),
        (r#""rules": {}"#, r#""rules": {"polite": "manual"}"#),
        (r#""row": {}"#, r#""row": {}, "lost": {}"#),
        (r#""settled""#, r#""decided""#),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert!(serde_json::from_str::<Case>(&bad).is_err(), "{bad}");
    }
}

/// What happened on both sides.
fn situation(case: &Case) -> &'static str {
    let touched = |side: &Option<Fields>| -> BTreeSet<String> {
        let empty = Fields::new();
        let (base, side) = (case.base.as_ref().unwrap_or(&empty), side.as_ref().unwrap());
        let fields = syncline_core::changed(base, side);
        fields.names().map(str::to_owned).collect()
    };
    match (&case.base, &case.local, &case.remote) {
        (None, Some(_), Some(_)) => "create/create",
        (Some(_), None, None) => "delete/delete",
        (Some(_), Some(_), None) => "edit/delete",
        (Some(_), None, Some(_)) => "delete/edit",
        (Some(_), Some(_), Some(_)) => {
            let (mine, theirs) = (touched(&case.local), touched(&case.remote));
            if mine.is_empty() || theirs.is_empty() {
                "one side only"
            } else if mine.is_disjoint(&theirs) {
                "edit/edit other field"
            } else {
                "edit/edit same field"
            }
        }
        _ => "other",
    }
}

#[test]
fn every_cell_of_policy_and_situation_is_there() {
    let fixtures = shipped();
    let mut cells: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for case in cases(&fixtures) {
        *cells
            .entry((case.rules.policy.as_str(), situation(case)))
            .or_default() += 1;
    }
    for (policy, _) in Policy::WORDS {
        for situation in [
            "edit/edit same field",
            "edit/edit other field",
            "edit/delete",
            "delete/edit",
            "delete/delete",
            "create/create",
        ] {
            assert!(
                cells.contains_key(&(*policy, situation)),
                "no {policy}, {situation}"
            );
        }
    }
}

#[test]
fn every_rule_and_both_ends_are_there() {
    let fixtures = shipped();
    for (word, rule) in FieldRule::WORDS {
        let used = cases(&fixtures).filter(|case| case.rules.merge.values().any(|r| r == rule));
        assert!(used.count() >= 2, "fewer than two cases with {word}");
    }
    for word in ["created-twice", "invariant", "field-merge", "manual"] {
        let manual =
            |case: &Case| matches!(&case.expect, Expected::Manual { rule, .. } if rule == word);
        assert!(cases(&fixtures).any(manual), "no manual conflict by {word}");
    }
    let stories = fixtures
        .iter()
        .filter(|one| matches!(one, Fixture::Story(_)));
    assert!(stories.count() >= 8);
}
