//! A table made from a definition has that definition; a definition that no honest device would send
//! makes nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use rusqlite::{Connection, TransactionBehavior};
use std::collections::BTreeMap;
use std::path::Path;
use syncline_core::{Now, Policy};
use syncline_protocol::{ClientId, ColumnDefinition, TypeDefinition, TypeDefinitions, Value};
use syncline_store::attach::{AttachRequest, Existing, Tables, attach};
use syncline_store::{Store, StoreOptions, definitions};

/// Everything that a definition can say, and much that stays at home.
const TABLES: &str = r#"
    CREATE TABLE plain (id INTEGER PRIMARY KEY, title TEXT);
    CREATE TABLE "odd ""name""; --" ("a b" TEXT PRIMARY KEY NOT NULL, "select" ANY, "é" VARCHAR (10) DEFAULT 'it''s');
    CREATE TABLE pair (b BLOB NOT NULL, a INTEGER NOT NULL, n NUMERIC(10, 2) DEFAULT -1.5,
                       PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE strict (k TEXT PRIMARY KEY NOT NULL, i INT NOT NULL DEFAULT 7, r REAL DEFAULT 9e999, b BLOB DEFAULT x'00ff',
                         x ANY DEFAULT TRUE) STRICT;
    CREATE TABLE uniques (id INTEGER PRIMARY KEY, mail TEXT COLLATE NOCASE UNIQUE, a, b, c TEXT, untyped,
                          UNIQUE (b, a), UNIQUE (c COLLATE RTRIM), CHECK (a > 0));
    CREATE UNIQUE INDEX some_of_them ON uniques (c) WHERE a > 1;
    CREATE UNIQUE INDEX expression ON uniques (lower(c));
    CREATE TABLE child (id TEXT PRIMARY KEY NOT NULL, made TEXT DEFAULT CURRENT_TIMESTAMP,
                        plain INTEGER REFERENCES plain, up TEXT REFERENCES child ON DELETE SET NULL,
                        a INTEGER, b BLOB, double AS (a * 2) STORED,
                        FOREIGN KEY (a, b) REFERENCES pair (a, b) ON DELETE CASCADE ON UPDATE RESTRICT);
    CREATE TABLE words (id TEXT PRIMARY KEY NOT NULL, v UNSIGNED BIG INT, d DOUBLE PRECISION, q "my type 1%");
"#;

fn now() -> Now {
    Now {
        monotonic_ms: 0,
        unix_ms: 1_800_000_000_000,
    }
}

fn attach_all(path: &Path) -> TypeDefinitions {
    let mut conn = Connection::open(path).unwrap();
    let request = AttachRequest {
        remote: "http://localhost".to_owned(),
        tables: Tables::All,
        rules: Default::default(),
        existing: Existing::Upload,
        policy: Policy::FieldMerge,
        declared: BTreeMap::new(),
        settings: None,
        client: ClientId::new("c"),
    };
    attach(&mut conn, &request, now()).unwrap();
    described(path)
}

fn described(path: &Path) -> TypeDefinitions {
    let store = Store::open(path, StoreOptions::new("test", 1)).unwrap();
    let conn = Connection::open(path).unwrap();
    definitions::describe(&conn, store.types()).unwrap()
}

#[test]
fn a_table_made_from_a_definition_has_that_definition() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.db"), folder.path().join("b.db"));
    Connection::open(&first)
        .unwrap()
        .execute_batch(TABLES)
        .unwrap();
    let told = attach_all(&first);
    assert_eq!(told.types.len(), 7);
    let of = |name: &str| told.types.iter().find(|one| one.table == name).unwrap();
    assert_eq!(
        of("uniques").unique,
        [
            vec!["b".to_owned(), "a".to_owned()],
            vec!["mail".to_owned()]
        ]
    );
    assert_eq!(
        of("strict").columns[2].default,
        Some(Value::Real(f64::INFINITY))
    );
    assert_eq!(of("words").columns[3].declared, "NUMERIC");
    assert_eq!(of("child").references.len(), 3);
    assert_eq!(
        of("child").columns.len(),
        6,
        "the generated one stays at home"
    );
    // As it travels.
    let told: TypeDefinitions =
        serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
    let mut conn = Connection::open(&second).unwrap();
    let tx = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    assert_eq!(
        definitions::create(&tx, &told).unwrap(),
        Vec::<String>::new()
    );
    tx.commit().unwrap();
    assert_eq!(attach_all(&second), told);
}

fn column(name: &str) -> ColumnDefinition {
    ColumnDefinition {
        name: name.to_owned(),
        field: None,
        declared: "TEXT".to_owned(),
        collation: String::new(),
        not_null: false,
        default: None,
    }
}

fn definition() -> TypeDefinition {
    TypeDefinition {
        name: "task".into(),
        table: "task".to_owned(),
        schema_version: 1,
        columns: vec![column("id"), column("title")],
        key: vec!["id".to_owned()],
        unique: Vec::new(),
        references: Vec::new(),
        without_rowid: false,
        strict: false,
    }
}

#[test]
fn a_dishonest_definition_makes_nothing() {
    type Spoil = fn(&mut TypeDefinition);
    let spoils: [Spoil; 19] = [
        |one| one.table = "syncline_meta".to_owned(),
        |one| one.table = "SQLITE_x".to_owned(),
        |one| one.table = String::new(),
        |one| one.table = "a\nb".to_owned(),
        |one| one.table = "x".repeat(200),
        |one| one.name = "a\u{7f}".into(),
        |one| one.columns.clear(),
        |one| one.columns = (0..1001).map(|n| column(&format!("c{n}"))).collect(),
        |one| one.columns.push(column("TITLE")),
        |one| one.columns[1].declared = "TEXT DEFAULT (5)".to_owned(),
        |one| one.columns[1].declared = "TEXT); DROP TABLE x; --".to_owned(),
        |one| one.columns[1].declared = "INT CHECK(1)".to_owned(),
        |one| one.columns[1].declared = "(1)".to_owned(),
        |one| one.columns[1].collation = "EVIL".to_owned(),
        |one| one.columns[1].default = Some(Value::Text("a\0b".to_owned())),
        |one| one.key.clear(),
        |one| one.key = vec!["nothing".to_owned()],
        |one| one.unique = vec![vec!["nothing".to_owned()]],
        |one| one.columns[1].field = Some(String::new()),
    ];
    for (number, spoil) in spoils.iter().enumerate() {
        let mut one = definition();
        spoil(&mut one);
        let mut conn = Connection::open_in_memory().unwrap();
        let tx = conn.transaction().unwrap();
        let types = vec![definition_named("other"), one];
        let refused = definitions::create(&tx, &TypeDefinitions { types });
        assert!(refused.is_err(), "number {number}");
        let made: i64 = tx
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .unwrap();
        assert_eq!(made, 0, "number {number}");
    }
    let twice = TypeDefinitions {
        types: vec![definition(), definition()],
    };
    assert!(definitions::check(&twice).is_err());
}

fn definition_named(name: &str) -> TypeDefinition {
    TypeDefinition {
        name: name.into(),
        table: name.to_owned(),
        ..definition()
    }
}
