//! The configuration file, its JSON Schema and its documentation say the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use serde_json::Value as Json;
use std::collections::BTreeSet;
use syncline_server::{Authenticator, MemoryStorage, ServerConfig, Service};

const SCHEMA: &str = include_str!("../../../docs/schema/server.schema.json");
const HOW_TO: &str = include_str!("../../../docs/howto/server-types.md");
const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

fn load(text: &str) -> Result<ServerConfig, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.toml");
    std::fs::write(directory.path().join("task.schema.json"), "{}").unwrap();
    std::fs::write(&path, text).unwrap();
    ServerConfig::load(&path).map_err(|error| error.to_string())
}

fn schema() -> Json {
    serde_json::from_str(SCHEMA).unwrap()
}

fn is_valid(text: &str) -> bool {
    let Ok(instance) = toml::from_str::<Json>(text) else {
        return false;
    };
    jsonschema::validator_for(&schema())
        .unwrap()
        .is_valid(&instance)
}

/// The blocks of TOML in a document.
fn examples(document: &str) -> Vec<&str> {
    let blocks = document.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_documented_examples_are_taken() {
    let examples = [examples(HOW_TO), examples(PROTOCOL)].concat();
    assert!(examples.len() >= 2);
    for example in examples {
        let config = load(example).unwrap_or_else(|error| panic!("{error}"));
        assert!(is_valid(example), "{example}");
        let secret = Authenticator::hs256(&[7; 32]).unwrap();
        Service::new(MemoryStorage::new("e"), secret, config).unwrap();
    }
}

/// Asks the reader of the file which keys it knows in a table, by giving it one that it does not.
fn known_keys(table: &str) -> BTreeSet<String> {
    let error = load(&format!("{table}\nno_such_key = 1\n")).unwrap_err();
    let (_, expected) = error.split_once("expected").unwrap();
    let keys = expected.split('`').skip(1).step_by(2);
    keys.map(str::to_owned).collect()
}

#[test]
fn the_schema_knows_the_keys_that_the_server_reads() {
    let schema = schema();
    for (table, pointer) in [
        ("", ""),
        ("[limits]", "/properties/limits"),
        ("[types.t]", "/$defs/type"),
        ("[types.t.commands.c]", "/$defs/command"),
        ("[types.t.fields.f]", "/$defs/field"),
    ] {
        let table_schema = schema.pointer(pointer).unwrap();
        assert_eq!(table_schema["additionalProperties"], false, "{table}");
        let keys = table_schema["properties"].as_object().unwrap().keys();
        let described: BTreeSet<String> = keys.cloned().collect();
        assert_eq!(described, known_keys(table), "{table}");
    }
    for (key, pointer) in [
        ("[types.t]\nid", "/$defs/type/properties/id/enum"),
        (
            "[types.t.fields.f]\nset",
            "/$defs/field/properties/set/enum",
        ),
    ] {
        for value in schema.pointer(pointer).unwrap().as_array().unwrap() {
            load(&format!("{key} = {value}")).unwrap();
        }
        let error = load(&format!("{key} = \"no_such_value\"")).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
        let words = error.matches('`').count() / 2 - 1;
        assert_eq!(
            words,
            schema.pointer(pointer).unwrap().as_array().unwrap().len()
        );
    }
}

#[test]
fn the_schema_and_the_server_refuse_the_same() {
    for text in [
        "colour = 1",
        "key_retention_days = -1",
        "key_retention_days = 70000",
        "tombstone_retention_days = \"x\"",
        "[limits]\npage_changes = 0",
        "[types.t]\nid = \"random\"",
        "[types.t]\nschema = 7",
        "[types.t]\nunique = [\"a\"]",
        "[types.t]\nreferences = [\"a\"]",
        "[types.t.fields.f]\nset = \"today\"",
        "[types.t.fields.f]\nread_only = 1",
        "[types.t.commands.c]\nstep = 1",
    ] {
        assert!(load(text).is_err(), "{text}");
        assert!(!is_valid(text), "{text}");
    }
}
