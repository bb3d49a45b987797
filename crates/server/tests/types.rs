//! Type definitions: kept per tenant, replaced by newer ones only, and never one that could hurt
//! the device that reads it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use serde_json::{Value as Json, json};
use syncline_protocol::{Access, TypeDefinitions};
use syncline_server::{MemoryStorage, Response, ServerConfig, Storage, TypeConfig};

fn task(schema_version: u32) -> Json {
    json!({
        "name": "task", "table": "tasks", "schema_version": schema_version,
        "columns": [
            {"name": "id", "declared": "INTEGER"},
            {"name": "title", "declared": "TEXT", "not_null": true, "default": ""},
            {"name": "project", "field": "project_id", "default": {"$blob": "AA=="}}
        ],
        "key": ["id"], "unique": [["title", "project"]],
        "references": [{"columns": ["project"], "table": "projects", "to_columns": ["id"]}],
        "strict": true
    })
}

fn put<S: Storage>(server: &Server<S>, caller: &Caller, types: &[Json]) -> Response {
    let body = json!({ "types": types }).to_string();
    server.send(&server.request(caller, "PUT", "/v1/types").json(body))
}

fn read<S: Storage>(server: &Server<S>, caller: &Caller) -> TypeDefinitions {
    let response = server.get(caller, "/v1/types");
    assert_eq!(response.status, 200, "{}", text(&response));
    serde_json::from_slice(&response.body).unwrap()
}

fn versions(types: &TypeDefinitions) -> Vec<(&str, u32)> {
    let versions = types.types.iter();
    versions
        .map(|one| (one.name.as_str(), one.schema_version))
        .collect()
}

#[test]
fn what_one_device_attached_another_can_make() {
    let server = server();
    assert_eq!(read(&server, &ann()), TypeDefinitions::default());
    let note = json!({"name": "note", "table": "n", "schema_version": 1,
        "columns": [{"name": "id"}], "key": ["id"]});
    let response = put(&server, &ann(), &[task(2), note.clone()]);
    assert_eq!(response.status, 200, "{}", text(&response));
    let told: TypeDefinitions = serde_json::from_slice(&response.body).unwrap();
    let kept = read(&server, &ann());
    assert_eq!(told, kept);
    assert_eq!(serde_json::to_value(&kept.types[1]).unwrap(), task(2));
    // Only a newer schema replaces a definition.
    for (version, expected) in [(1, 2), (2, 2), (3, 3), (2, 3)] {
        let mut changed = task(version);
        changed["table"] = json!(format!("tasks{version}"));
        assert_eq!(put(&server, &ann(), &[changed]).status, 200);
        let kept = read(&server, &ann());
        assert_eq!(versions(&kept), [("note", 1), ("task", expected)]);
    }
    assert_eq!(read(&server, &ann()).types[1].table, "tasks3");
    let bob = Caller::new("acme", "bob", LAPTOP);
    assert_eq!(versions(&read(&server, &bob)).len(), 2, "the tenant's");
    let other = Caller::new("other", "ann", PHONE);
    assert_eq!(read(&server, &other), TypeDefinitions::default());
}

#[test]
fn a_reader_may_look_only_and_undeclared_types_are_refused() {
    let mut config = ServerConfig::default();
    config
        .types
        .insert("task".to_owned(), TypeConfig::default());
    let server = Server::new(MemoryStorage::new(EPOCH), config);
    let reader = Caller {
        access: Access::Read,
        ..ann()
    };
    expect(&put(&server, &reader, &[task(1)]), 403, "read-only");
    let mut note = task(1);
    note["name"] = json!("note");
    expect(&put(&server, &ann(), &[task(1), note]), 403, "unknown-type");
    assert_eq!(read(&server, &reader), TypeDefinitions::default());
    assert_eq!(put(&server, &ann(), &[task(1)]).status, 200);
    assert_eq!(versions(&read(&server, &reader)), [("task", 1)]);
}

#[test]
fn definitions_that_are_refused() {
    let server = server();
    let long = "x".repeat(129);
    let many: Vec<Json> = (0..501).map(|n| json!({"name": format!("c{n}")})).collect();
    let column = |change: Json| {
        let mut column = json!({"name": "title"});
        for (name, value) in change.as_object().unwrap() {
            column[name] = value.clone();
        }
        json!({"columns": [{"name": "id"}, {"name": "project"}, column]})
    };
    let cases = [
        json!({"name": ""}),
        json!({"name": long}),
        json!({"name": "a\nb"}),
        json!({"name": 7}),
        json!({"table": ""}),
        json!({"table": "a\u{0}b"}),
        json!({"table": "SQLite_master"}),
        json!({"table": "syncline_outbox"}),
        json!({"schema_version": -1}),
        json!({"schema_version": 4_294_967_296_i64}),
        json!({"columns": []}),
        json!({"columns": many}),
        column(json!({"name": ""})),
        column(json!({"name": "ID"})),
        column(json!({"field": "id"})),
        column(json!({"field": ""})),
        column(json!({"declared": long})),
        column(json!({"default": "a\u{0}b"})),
        column(json!({"default": true})),
        json!({"key": []}),
        json!({"key": ["absent"]}),
        json!({"key": ["id", "id"]}),
        json!({"unique": [[]]}),
        json!({"unique": [["absent"]]}),
        json!({"references": [{"columns": ["title"], "table": "", "to_columns": ["id"]}]}),
        json!({"references": [{"columns": ["title"], "table": "p", "to_columns": []}]}),
        json!({"references": [{"columns": ["nope"], "table": "p", "to_columns": ["id"]}]}),
    ];
    for case in cases {
        let mut definition = task(1);
        for (name, value) in case.as_object().unwrap() {
            definition[name] = value.clone();
        }
        let response = put(&server, &ann(), &[definition]);
        assert_eq!(response.status, 400, "{case}: {}", text(&response));
        expect(&response, 400, "malformed");
    }
    expect(&put(&server, &ann(), &[task(1), task(2)]), 400, "malformed");
    let request = server.request(&ann(), "PUT", "/v1/types");
    expect(&server.send(&request), 415, "content-type");
    for body in ["", "[]", "{}", "{\"types\":{}}", "nul"] {
        let request = server.request(&ann(), "PUT", "/v1/types").json(body);
        expect(&server.send(&request), 400, "malformed");
    }
    assert_eq!(read(&server, &ann()), TypeDefinitions::default());
}

#[test]
fn a_tenant_has_a_bounded_number_of_types() {
    let server = server();
    let named = |from: usize, to: usize| -> Vec<Json> {
        let one = |n| {
            json!({"name": format!("t{n}"), "table": "t", "schema_version": 1,
                "columns": [{"name": "id"}], "key": ["id"]})
        };
        (from..to).map(one).collect()
    };
    assert_eq!(put(&server, &ann(), &named(0, 999)).status, 200);
    let response = put(&server, &ann(), &named(990, 1001));
    expect(&response, 400, "malformed");
    assert_eq!(read(&server, &ann()).types.len(), 999, "nothing of it");
    assert_eq!(put(&server, &ann(), &named(999, 1000)).status, 200);
}
