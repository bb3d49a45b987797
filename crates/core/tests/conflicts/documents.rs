//! The examples in `docs/conflicts.md` are fixtures, word for word, and there is one for every policy
//! and rule.

use crate::fixtures::folder;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syncline_core::{ConflictRules, DeleteRule, FieldRule, Policy};

fn fixtures() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in file["cases"].as_array().into_iter().flatten() {
            all.insert(case["name"].as_str().unwrap().to_owned(), case.clone());
        }
    }
    all
}

/// The JSON blocks of a document.
fn examples(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let blocks = text.split("```json\n").skip(1);
    blocks
        .map(|block| {
            let json = block.split("```").next().unwrap();
            serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
        })
        .collect()
}

#[test]
fn every_example_is_a_fixture() {
    let fixtures = fixtures();
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["../../docs/conflicts.md", "fixtures/conflicts/README.md"] {
        for example in examples(&core.join(file)) {
            let name = example["name"].as_str().unwrap();
            assert_eq!(Some(&example), fixtures.get(name), "{name} in {file}");
        }
    }
}

#[test]
fn every_policy_and_rule_has_an_example() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shown = examples(&core.join("../../docs/conflicts.md"));
    let rules = shown
        .into_iter()
        .map(|example| serde_json::from_value::<ConflictRules>(example["rules"].clone()).unwrap());
    let rules: Vec<ConflictRules> = rules.collect();
    let policies: BTreeSet<Policy> = rules.iter().map(|one| one.policy).collect();
    let fields = rules.iter().flat_map(|one| one.merge.values());
    let fields: BTreeSet<FieldRule> = fields.copied().chain([FieldRule::default()]).collect();
    let deletes = rules
        .iter()
        .flat_map(|one| [one.deletes.here, one.deletes.there]);
    let deletes: BTreeSet<DeleteRule> = deletes.flatten().collect();
    assert_eq!(policies.len(), Policy::WORDS.len());
    assert_eq!(fields.len(), FieldRule::WORDS.len());
    assert!(deletes.contains(&DeleteRule::EditWins) && deletes.contains(&DeleteRule::Manual));
    assert!(rules.iter().any(|one| one.timestamp.is_some()));
    assert!(rules.iter().any(|one| !one.natural_key.is_empty()));
    assert!(rules.iter().any(|one| !one.invariants.is_empty()));
}
