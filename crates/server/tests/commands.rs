//! Commands, and fields that the server sets itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use serde_json::{Value as Json, json};
use std::path::Path;
use syncline_protocol::{
    Base, ChangeKind, Command, ConflictReason, FieldError, Fields, Mutation, Operation, Outcome,
    Value,
};
use syncline_server::{Authenticator, MemoryStorage, ServerConfig, Service, Storage, TypeConfig};

const CONFIG: &str = r#"
[types.task]
schema = { required = ["title"], properties = { balance = { minimum = 0 } } }

[types.task.commands.withdraw]
args = { required = ["amount"], properties = { amount = { type = "integer", minimum = 1 } } }
set = { note = "$why", state = "touched", gone = { "$blob" = "AA==" } }
add = { balance = "-$amount", count = 1 }

[types.task.commands.break]
set = { title = "$title" }

[types.task.fields]
changed_at = { set = "now" }
changed = { set = "now-iso" }
changed_by = { set = "subject", read_only = true }
version = { set = "version" }
balance = { read_only = true }

[types.plain]
"#;

fn load(text: &str) -> ServerConfig {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.toml");
    std::fs::write(&path, text).unwrap();
    ServerConfig::load(&path).unwrap()
}

fn server_with_commands() -> Server<MemoryStorage> {
    Server::new(MemoryStorage::new(EPOCH), load(CONFIG))
}

fn command(key: &str, name: &str, base: Option<Base>, args: Json) -> Mutation {
    let fields = json!({"balance": -999, "shown": "meanwhile"});
    Mutation {
        command: Some(Command {
            name: name.to_owned(),
            args: fields_of(args),
        }),
        ..mutation(key, Operation::Update, "a", base, fields)
    }
}

fn told(outcome: &Outcome) -> Json {
    match outcome {
        Outcome::Applied { fields, .. } => serde_json::to_value(fields).unwrap(),
        other => panic!("not applied: {other:?}"),
    }
}

fn errors(outcome: &Outcome) -> Vec<(&str, &str)> {
    let Outcome::Rejected { code, errors, .. } = outcome else {
        panic!("not rejected: {outcome:?}");
    };
    assert_eq!(code, "validation");
    let errors = errors.iter();
    errors
        .map(|one| (one.field.as_str(), one.code.as_str()))
        .collect()
}

fn pulled<S: Storage>(server: &Server<S>) -> Json {
    let page = server.pull(&ann(), None, 10);
    match &page.changes[0].kind {
        ChangeKind::Upsert(fields) => serde_json::to_value(fields).unwrap(),
        ChangeKind::Delete => Json::Null,
    }
}

#[test]
fn what_the_server_sets_is_the_servers_whatever_the_client_sends() {
    let server = server_with_commands();
    let forged =
        json!({"title": "x", "changed_at": 1, "changed_by": "bob", "version": {"$blob": ""}});
    let outcome = server.push_one(
        &ann(),
        &mutation("k1", Operation::Create, "a", None, forged),
    );
    let expected = json!({"title": "x", "changed_at": 1_800_000_000_000_i64,
        "changed": "2027-01-15T08:00:00.000Z", "changed_by": "ann", "version": 1});
    assert_eq!(told(&outcome), expected);
    assert_eq!(pulled(&server), expected);
    server.now_ms.set(1_800_000_001_000);
    let batch = [
        update("k2", "a", after("k1"), "y"),
        update("k3", "a", after("k2"), "z"),
        update("k4", "a", at(1), "late"),
    ];
    let results = server.push(&Caller::new("acme", "ann", PHONE), &batch);
    assert_eq!(told(&results[1].outcome)["version"], json!(3));
    assert_eq!(told(&results[1].outcome), pulled(&server));
    // A conflict with the batch itself tells what will be there, not what stood in for it.
    let Outcome::Conflict { remote, .. } = &results[2].outcome else {
        panic!("{:?}", results[2]);
    };
    let remote = remote.as_ref().unwrap().fields.as_ref().unwrap();
    assert_eq!(remote.get("version"), Some(&Value::Integer(3)));
    let again = server.push(&ann(), &batch);
    assert_eq!(again[1].outcome, results[1].outcome);
    let plain = Mutation {
        entity_type: "plain".into(),
        ..create("p1", "a", "x")
    };
    assert_eq!(server.push_one(&ann(), &plain), applied(4));
}

#[test]
fn a_read_only_field_is_refused_and_null_is_not() {
    let server = server_with_commands();
    let create_with = |key: &str, balance: Json| {
        let fields = json!({"title": "x", "balance": balance});
        server.push_one(&ann(), &mutation(key, Operation::Create, "a", None, fields))
    };
    assert_eq!(
        errors(&create_with("k1", json!(5))),
        [("balance", "read-only")]
    );
    assert_eq!(told(&create_with("k2", Json::Null))["balance"], Json::Null);
    for (key, balance) in [("k3", json!(5)), ("k4", Json::Null)] {
        let fields = json!({"balance": balance});
        let edit = mutation(key, Operation::Update, "a", Some(version(1)), fields);
        let outcome = server.push_one(&ann(), &edit);
        assert_eq!(errors(&outcome), [("balance", "read-only")]);
    }
}

#[test]
fn a_declared_command_is_carried_out_on_what_is_there() {
    let server = server_with_commands();
    server.push(&ann(), &[create("k1", "a", "x")]);
    let pay = |key: &str, amount: i64, base| {
        let args = json!({"amount": amount, "why": "rent"});
        server.push_one(&ann(), &command(key, "withdraw", base, args))
    };
    let refused = pay("k2", 5, None);
    assert_eq!(
        errors(&refused),
        [("balance", "schema")],
        "nothing is there"
    );
    let storage = server.service.storage();
    let rich = "{\"balance\":100,\"title\":\"x\"}".to_owned();
    let key = syncline_server::EntityKey {
        tenant: "acme",
        entity_type: "task",
        id: "a",
    };
    storage
        .write(|tx| {
            let mut entity = tx.entity(key)?.unwrap();
            entity.fields = Some(rich.clone());
            tx.put_entity(key, &entity)
        })
        .unwrap();
    let outcome = pay("k3", 30, None);
    let told = told(&outcome);
    assert_eq!((&told["balance"], &told["count"]), (&json!(70), &json!(1)));
    assert_eq!(
        (&told["note"], &told["state"]),
        (&json!("rent"), &json!("touched"))
    );
    assert_eq!(told["gone"], json!({"$blob": "AA=="}));
    assert_eq!(told.get("shown"), None, "the fields were for show");
    assert_eq!(told, pulled(&server));
    // Again is a replay, not a second withdrawal; a given base must hold.
    assert_eq!(pay("k3", 30, None), outcome);
    let stale = pay("k4", 30, Some(version(1)));
    assert_eq!(conflict_reason(&stale), ConflictReason::Stale);
    assert!(matches!(
        pay("k5", 70, Some(version(2))),
        Outcome::Applied { .. }
    ));
    assert_eq!(errors(&pay("k6", 1, None)), [("balance", "schema")]);
    assert_eq!(pulled(&server)["balance"], json!(0));
}

fn conflict_reason(outcome: &Outcome) -> ConflictReason {
    match outcome {
        Outcome::Conflict { reason, .. } => *reason,
        other => panic!("no conflict: {other:?}"),
    }
}

#[test]
fn commands_that_are_refused() {
    let server = server_with_commands();
    server.push(&ann(), &[create("k1", "a", "x")]);
    let send = |key: &str, name: &str, args: Json| {
        server.push_one(&ann(), &command(key, name, None, args))
    };
    assert_eq!(
        rejected(&send("c1", "unknown", json!({}))),
        "unknown-command"
    );
    let missing = send("c2", "withdraw", json!({"why": "x"}));
    assert!(
        errors(&missing).contains(&("amount", "schema")),
        "{missing:?}"
    );
    let outcome = send("c3", "withdraw", json!({"amount": "canary", "why": "x"}));
    assert!(errors(&outcome).contains(&("amount", "schema")));
    assert!(!format!("{outcome:?}").contains("canary"));
    let largest = json!({"amount": i64::MAX, "why": "x"});
    assert_eq!(
        errors(&send("c4", "withdraw", largest)),
        [("balance", "schema")]
    );
    let nul = send("c5", "break", json!({"title": "a\u{0}b"}));
    assert_eq!(errors(&nul), [("title", "type")]);
    let broken = send("c6", "break", json!({}));
    assert_eq!(errors(&broken), [("title", "required")]);
    let mut delete = command("c7", "break", Some(version(1)), json!({}));
    (delete.op, delete.fields) = (Operation::Delete, Fields::new());
    assert_eq!(rejected(&server.push_one(&ann(), &delete)), "validation");
    let mut absent = command("c8", "break", None, json!({"title": "x"}));
    absent.id = "never".to_owned().try_into().unwrap();
    assert_eq!(
        conflict_reason(&server.push_one(&ann(), &absent)),
        ConflictReason::Missing
    );
    assert_eq!(pulled(&server)["title"], json!("x"));
    let open = common::server();
    open.push(&ann(), &[create("k1", "a", "x")]);
    let outcome = open.push_one(&ann(), &command("c1", "break", None, json!({})));
    assert_eq!(rejected(&outcome), "unknown-command");
}

#[test]
fn a_program_that_embeds_the_server_brings_its_own() {
    let authenticator = Authenticator::hs256(SECRET).unwrap();
    let config = ServerConfig::default();
    let service = Service::new(MemoryStorage::new(EPOCH), authenticator, config)
        .unwrap()
        .command("task", "shout", |fields, args| {
            let mut after = fields.clone();
            match args.get("loud") {
                Some(Value::Text(text)) => after.insert("title", text.to_uppercase().as_str()),
                _ => {
                    return Err(vec![FieldError {
                        field: "loud".to_owned(),
                        code: "required".to_owned(),
                        detail: "what is to be shouted?".to_owned(),
                    }]);
                }
            };
            Ok(after)
        });
    let server = Server {
        service,
        now_ms: std::cell::Cell::new(1_800_000_000_000),
    };
    let mut birth = command("k1", "shout", None, json!({"loud": "hey"}));
    birth.op = Operation::Create;
    assert_eq!(
        told(&server.push_one(&ann(), &birth))["title"],
        json!("HEY")
    );
    assert_eq!(pulled(&server)["shown"], json!("meanwhile"));
    let outcome = server.push_one(&ann(), &command("k2", "shout", None, json!({})));
    assert_eq!(errors(&outcome), [("loud", "required")]);
}

#[test]
fn configurations_that_make_no_sense() {
    for (text, word) in [
        ("[types.t.commands.c]\nset = { a = true }", "set.a"),
        ("[types.t.commands.c]\nset = { a = [1] }", "set.a"),
        ("[types.t.commands.c]\nadd = { a = \"x\" }", "add.a"),
        ("[types.t.commands.c]\nadd = { a = \"-x\" }", "add.a"),
        ("[types.t.commands.c]\nargs = { type = 7 }", "args"),
        ("[types.t]\nunique = [[]]", "unique"),
        ("[types.t]\nreferences = { a = \"absent\" }", "absent"),
    ] {
        let error = ServerConfig::parse(text, Path::new("server.toml")).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    // So is one that was made in code.
    let mut config = ServerConfig::default();
    let keyless = TypeConfig {
        unique: vec![Vec::new()],
        ..TypeConfig::default()
    };
    config.types.insert("t".to_owned(), keyless);
    let authenticator = Authenticator::hs256(SECRET).unwrap();
    let error = Service::new(MemoryStorage::new(EPOCH), authenticator, config).unwrap_err();
    assert!(error.to_string().starts_with("types.t.unique: "), "{error}");
}
