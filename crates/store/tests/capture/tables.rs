//! Tables of every legal shape and name, and those that are refused.

use crate::support::{Case, bases, check_tables, database, outbox, read, run, settle};
use syncline_store::table::{Affinity, Table, TableError, list_tables, topological_order};

#[test]
fn any_legal_name_works() {
    for name in [
        "order", "we\"ird", "a  b", "größe", "new", "OLD", "it's", "x]y", "select",
    ] {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let ddl = format!(
            "CREATE TABLE {quoted} (\"k \"\"1\" TEXT PRIMARY KEY, {} REAL, \"it's\" REAL, \"a b\" TEXT UNIQUE, old_id, replaced, fields, column1 UNIQUE, entity_id, seq, [$at]);",
            quoted.replace("it's", "it''s")
        );
        let conn = database(&ddl);
        let json = serde_json::Value::from(name.replace("it's", "it''s")).to_string();
        run(
            &conn,
            &format!(
                "INSERT INTO {quoted} VALUES ('k', 0.1, 1.5, 'a', 'o', 'r', 'f', 'c', 'e', 's', 't')"
            ),
        );
        let create = outbox(&conn);
        assert_eq!(create.len(), 1, "{name}");
        assert!(create[0].contains(&format!("{json}:0.1")), "{create:?}");
        settle(&conn);
        run(&conn, &format!(
            "UPDATE {quoted} SET \"it's\" = 2.5; REPLACE INTO {quoted} (\"k \"\"1\", \"a b\") VALUES ('l', 'a');
             UPDATE {quoted} SET \"k \"\"1\" = 'm'; DELETE FROM {quoted}"
        ));
        let lines = outbox(&conn);
        let ops: Vec<&str> = lines
            .iter()
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert_eq!(
            ops,
            ["update", "delete", "create", "delete", "create", "delete"],
            "{name}"
        );
        assert!(
            bases(&conn)[0].contains("\"$at\":\"t\""),
            "{:?}",
            bases(&conn)
        );
        check_tables(&conn);
    }
}

#[test]
fn kinds_of_keys() {
    let case = |ddl, when, then| Case {
        ddl,
        when,
        then,
        ..Case::default()
    };
    for case in [
        case(
            "CREATE TABLE item (a TEXT, v, b INTEGER, PRIMARY KEY (b, a)) WITHOUT ROWID;",
            "INSERT INTO item VALUES ('x', 1, 2); UPDATE item SET v = 2; UPDATE item SET a = 'y'; DELETE FROM item",
            &[
                r#"create item/[2,"x"] {"v":1}"#,
                r#"update item/[2,"x"] {"v":2}"#,
                r#"delete item/[2,"x"]"#,
                r#"create item/[2,"y"] {"v":2}"#,
                r#"delete item/[2,"y"]"#,
            ],
        ),
        case(
            "CREATE TABLE item (id ANY PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;",
            "INSERT INTO item VALUES ('7', 1, 1, '1', x'01', 1.0); UPDATE item SET a = 1, i = 2; REPLACE INTO item VALUES ('7', 2, 2, '1', x'01', 1)",
            &[
                r#"create item/"7" {"a":1.0,"b":{"$blob":"AQ=="},"i":1,"r":1.0,"t":"1"}"#,
                r#"update item/"7" {"a":1,"i":2}"#,
                r#"update item/"7" {"r":2.0}"#,
            ],
        ),
        case(
            "CREATE TABLE item (rowid TEXT PRIMARY KEY, _rowid_, v);",
            "INSERT INTO item VALUES ('x', 1, 2); UPDATE item SET v = 3; UPDATE item SET rowid = 'y'; DELETE FROM item",
            &[
                r#"create item/x {"_rowid_":1,"v":2}"#,
                r#"update item/x {"v":3}"#,
                "delete item/x",
                r#"create item/y {"_rowid_":1,"v":3}"#,
                "delete item/y",
            ],
        ),
    ] {
        case.check();
    }
}

#[test]
fn kinds_of_columns_and_references() {
    let case = |ddl, when, then| Case {
        ddl,
        when,
        then,
        ..Case::default()
    };
    for case in [
        case(
            "CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, v, g AS (v + 1));",
            "INSERT INTO item (v) VALUES (1), (2); DELETE FROM item WHERE id = 2; INSERT INTO item (v) VALUES (3); UPDATE item SET v = 4 WHERE g = 4",
            &[
                r#"create item/1 {"v":1}"#,
                r#"create item/2 {"v":2}"#,
                "delete item/2",
                r#"create item/3 {"v":3}"#,
                r#"update item/3 {"v":4}"#,
            ],
        ),
        case(
            "CREATE TABLE item (id INTEGER PRIMARY KEY DESC, v);",
            "INSERT INTO item VALUES (5, 1); REPLACE INTO item VALUES (5, 2)",
            &[r#"create item/5 {"v":1}"#, r#"update item/5 {"v":2}"#],
        ),
        case(
            "CREATE TABLE item (a, b, PRIMARY KEY (a, b));",
            "INSERT INTO item VALUES (1, 2); UPDATE item SET b = 3; REPLACE INTO item VALUES (1, 3); DELETE FROM item",
            &[
                "create item/[1,2] {}",
                "delete item/[1,2]",
                "create item/[1,3] {}",
                "delete item/[1,3]",
            ],
        ),
        case(
            "CREATE TABLE item (id TEXT PRIMARY KEY, parent REFERENCES item ON DELETE CASCADE, v);",
            "INSERT INTO item VALUES ('a', NULL, 1), ('b', 'a', 1); PRAGMA foreign_keys = ON; DELETE FROM item WHERE id = 'a'",
            &[
                r#"create item/a {"parent":null,"v":1}"#,
                r#"create item/b {"parent":"a","v":1}"#,
                "delete item/b",
                "delete item/a",
            ],
        ),
    ] {
        case.check();
    }
}

#[test]
fn two_hundred_columns_work() {
    for declared in ["", "REAL", "INTEGER", "TEXT"] {
        let columns: Vec<String> = (0..200).map(|n| format!("c{n} {declared}")).collect();
        let conn = database(&format!(
            "CREATE TABLE wide (id INTEGER PRIMARY KEY, {});",
            columns.join(", ")
        ));
        run(
            &conn,
            "INSERT INTO wide (c0, c1, c199) VALUES (0.25, 1.5, 2.5); UPDATE wide SET c0 = 3.5, c199 = 4.5, c7 = 5.5; REPLACE INTO wide (id, c0) VALUES (1, 9.5)",
        );
        let lines = outbox(&conn);
        assert_eq!(lines.len(), 3);
        let seven = serde_json::from_str::<serde_json::Value>(
            lines[1]
                .split_once(' ')
                .unwrap()
                .1
                .split_once(' ')
                .unwrap()
                .1,
        )
        .unwrap();
        assert_eq!(seven.as_object().unwrap().len(), 3);
        check_tables(&conn);
    }
}

#[test]
fn a_utf16_database_works() {
    let mut conn = rusqlite::Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA encoding = 'UTF-16le'").unwrap();
    crate::support::prepare(
        &mut conn,
        "CREATE TABLE item (id TEXT PRIMARY KEY, v UNIQUE, w);",
    );
    run(
        &conn,
        "INSERT INTO item VALUES ('ä', 'größe', x'00ff'), ('12', char(0), 0.1); REPLACE INTO item VALUES ('n', 'größe', 1)",
    );
    let lines = outbox(&conn);
    assert_eq!(
        lines[0],
        r#"create item/ä {"v":"größe","w":{"$blob":"AP8="}}"#
    );
    assert!(lines[1].starts_with(r#"create item/"12" !v: text contains U+0000"#));
    assert_eq!(lines[2], "delete item/ä");
}

#[test]
fn shapes_are_read() {
    let ddl = "CREATE TABLE parent (a TEXT, b INT, PRIMARY KEY (b, a));
        CREATE TABLE Child (id INTEGER PRIMARY KEY, x VARCHAR(9) NOT NULL DEFAULT 'q', pa, pb,
            g AS (x || 1), up REFERENCES child, nowhere REFERENCES missing (z),
            FOREIGN KEY (pb, pa) REFERENCES parent, UNIQUE (pa, x));
        CREATE UNIQUE INDEX partial ON child (x) WHERE pa > 0;";
    let table = read(ddl, "child").unwrap();
    assert_eq!(table.name, "Child");
    assert!(table.integer_key && !table.strict && !table.without_rowid);
    let names: Vec<&str> = table
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(names, ["x", "pa", "pb", "up", "nowhere"]);
    assert_eq!(table.columns[0].affinity, Affinity::Text);
    assert_eq!(table.columns[0].default.as_deref(), Some("'q'"));
    assert_eq!(table.generated, ["g"]);
    assert_eq!(table.unique, [vec!["id"], vec!["x"], vec!["pa", "x"]]);
    assert_eq!(table.unique_indexes[1].filter.as_deref(), Some("pa > 0"));
    let references: Vec<_> = (table.references.iter())
        .map(|r| {
            (
                r.columns.join(","),
                r.table.as_str(),
                r.to_columns.join(","),
            )
        })
        .collect();
    assert_eq!(
        references,
        [
            ("up".to_owned(), "child", "id".to_owned()),
            ("nowhere".to_owned(), "missing", "z".to_owned()),
            ("pb,pa".to_owned(), "parent", "b,a".to_owned()),
        ]
    );
    let key: Vec<String> = read(ddl, "parent")
        .unwrap()
        .key
        .into_iter()
        .map(|c| c.name)
        .collect();
    assert_eq!(key, ["b", "a"]);
}

#[test]
fn what_cannot_be_synced_is_refused_with_its_mend() {
    let ddl = "CREATE TABLE plain (a); CREATE VIEW seen AS SELECT 1 AS a;
        CREATE VIRTUAL TABLE words USING fts5(t); CREATE TABLE r (id DOUBLE PRIMARY KEY);
        CREATE TABLE \"a\nb\" (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY, \"x\ty\");
        CREATE TABLE hidden (oid PRIMARY KEY, rowid, _rowid_); CREATE TABLE syncline_x (id INTEGER PRIMARY KEY);
        CREATE TABLE Ok (id INTEGER PRIMARY KEY AUTOINCREMENT);
        CREATE TABLE odd (id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX odd_a ON odd (lower(a));
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX odd_a ON odd (lower(a' WHERE name = 'odd_a';";
    for (name, mend) in [
        ("missing", "check the spelling"),
        ("plain", "make a table with one"),
        ("seen", "sync the tables that it reads"),
        ("words", "virtual table"),
        ("words_data", "virtual table"),
        ("r", "use INTEGER, TEXT or BLOB"),
        ("a\nb", "rename it"),
        ("c", "rename it"),
        ("hidden", "rename one of them"),
        ("odd", "drop it and make it again"),
        ("syncline_x", "not one of the app's tables"),
        ("sqlite_sequence", "not one of the app's tables"),
    ] {
        let error = read(ddl, name).unwrap_err();
        assert!(!matches!(error, TableError::Storage(_)), "{name}: {error}");
        assert!(error.to_string().contains(mend), "{name}: {error}");
    }
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    conn.execute_batch(ddl).unwrap();
    assert_eq!(
        list_tables(&conn).unwrap(),
        ["Ok", "a\nb", "c", "hidden", "odd", "plain", "r"]
    );
    // A generated key needs no refusal of ours.
    let generated = "CREATE TABLE g (a TEXT, b TEXT AS (a) STORED PRIMARY KEY)";
    assert!(conn.execute_batch(generated).is_err());
}

#[test]
fn parents_come_first() {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    conn.execute_batch(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, c REFERENCES C, a REFERENCES a);
         CREATE TABLE b (id INTEGER PRIMARY KEY);
         CREATE TABLE c (id INTEGER PRIMARY KEY, d REFERENCES d);
         CREATE TABLE d (id INTEGER PRIMARY KEY, e REFERENCES e, b REFERENCES b);
         CREATE TABLE e (id INTEGER PRIMARY KEY, d REFERENCES d, x REFERENCES missing);",
    )
    .unwrap();
    let tables: Vec<Table> = (list_tables(&conn).unwrap().iter())
        .map(|name| Table::read(&conn, name).unwrap())
        .collect();
    let order: Vec<&str> = topological_order(&tables)
        .iter()
        .map(|table| table.name.as_str())
        .collect();
    assert_eq!(order, ["e", "b", "d", "c", "a"]);
}
