//! REPLACE in all its forms: what it removes is recorded, with and without delete triggers.

use crate::support::{Case, database, outbox, run, settle};

const ITEM: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, price REAL);";
const GIVEN: &str = "INSERT INTO item VALUES (1, 'a', 1.5), (2, 'b', 2.5), (3, NULL, 0.1)";

fn item(when: &'static str, then: &'static [&'static str]) -> Case {
    Case {
        ddl: ITEM,
        given: GIVEN,
        when,
        then,
        ..Case::default()
    }
}

#[test]
fn same_key_is_an_update_of_what_differs() {
    for case in [
        Case {
            bases: &[r#"item/1 {"name":"a","price":1.5}"#],
            ..item(
                "REPLACE INTO item VALUES (1, 'a', 9.5)",
                &[r#"update item/1 {"price":9.5}"#],
            )
        },
        item("REPLACE INTO item VALUES (1, 'a', 1.5)", &[]),
        item(
            "REPLACE INTO item (id, name) VALUES (1, 'a')",
            &[r#"update item/1 {"price":null}"#],
        ),
        item(
            "REPLACE INTO item VALUES (1, 'A', 1.5), (1, 'a', 1.5)",
            &[
                r#"update item/1 {"name":"A"}"#,
                r#"update item/1 {"name":"a"}"#,
            ],
        ),
        Case {
            pending: "UPDATE item SET price = 7.5 WHERE id = 1",
            bases: &[r#"item/1 {"name":"a","price":1.5}"#],
            ..item(
                "REPLACE INTO item VALUES (1, 'a', 1.5)",
                &[r#"update item/1 {"price":1.5}"#],
            )
        },
        Case {
            pending: "UPDATE item SET price = 7.5 WHERE id = 1",
            ..item("REPLACE INTO item VALUES (1, 'a', 7.5)", &[])
        },
        Case {
            pending: "DELETE FROM item WHERE id = 1; INSERT INTO item VALUES (1, 'n', 0.5)",
            bases: &[r#"item/1 {"name":"a","price":1.5}"#],
            ..item(
                "REPLACE INTO item VALUES (1, 'n', 1.5)",
                &[r#"update item/1 {"price":1.5}"#],
            )
        },
        // Ignored first: nothing of that attempt is left over.
        item(
            "INSERT OR IGNORE INTO item VALUES (1, 'zz', 9.5); DELETE FROM item WHERE id = 1; \
             INSERT INTO item VALUES (1, 'q', 4.5)",
            &["delete item/1", r#"create item/1 {"name":"q","price":4.5}"#],
        ),
    ] {
        case.check();
    }
}

#[test]
fn rows_under_other_keys_are_deleted() {
    for case in [
        Case {
            bases: &[r#"item/2 {"name":"b","price":2.5}"#, "item/9 absent"],
            ..item(
                "REPLACE INTO item VALUES (9, 'b', 9.5)",
                &["delete item/2", r#"create item/9 {"name":"b","price":9.5}"#],
            )
        },
        Case {
            bases: &[
                r#"item/1 {"name":"a","price":1.5}"#,
                r#"item/2 {"name":"b","price":2.5}"#,
            ],
            ..item(
                "REPLACE INTO item VALUES (1, 'b', 9.5)",
                &["delete item/2", r#"update item/1 {"name":"b","price":9.5}"#],
            )
        },
        // The key is assigned by SQLite, after the rows in the way have been looked for.
        item(
            "INSERT OR REPLACE INTO item (name, price) VALUES ('b', 9.5)",
            &["delete item/2", r#"create item/4 {"name":"b","price":9.5}"#],
        ),
        item(
            "INSERT OR IGNORE INTO item (name, price) VALUES ('a', 9.5); \
             INSERT OR REPLACE INTO item (name, price) VALUES ('b', 9.5)",
            &["delete item/2", r#"create item/4 {"name":"b","price":9.5}"#],
        ),
        item(
            "INSERT OR IGNORE INTO item (name, price) VALUES ('a', 9.5); DELETE FROM item; \
             INSERT INTO item VALUES (5, 'n', 0.5)",
            &[
                "delete item/1",
                "delete item/2",
                "delete item/3",
                r#"create item/5 {"name":"n","price":0.5}"#,
            ],
        ),
        item(
            "REPLACE INTO item VALUES (9, 'b', 9.5), (2, 'b', 2.5)",
            &[
                "delete item/2",
                r#"create item/9 {"name":"b","price":9.5}"#,
                "delete item/9",
                r#"create item/2 {"name":"b","price":2.5}"#,
            ],
        ),
    ] {
        case.check();
    }
}

#[test]
fn rows_that_an_update_replaces_are_deleted() {
    for case in [
        item(
            "UPDATE OR REPLACE item SET name = 'b' WHERE id = 1",
            &["delete item/2", r#"update item/1 {"name":"b"}"#],
        ),
        item(
            "UPDATE OR REPLACE item SET name = 'x'",
            &[
                r#"update item/1 {"name":"x"}"#,
                "delete item/1",
                r#"update item/2 {"name":"x"}"#,
                "delete item/2",
                r#"update item/3 {"name":"x"}"#,
            ],
        ),
        item(
            "UPDATE OR REPLACE item SET id = 2 WHERE id = 1",
            &["delete item/1", r#"update item/2 {"name":"a","price":1.5}"#],
        ),
        item(
            "UPDATE OR REPLACE item SET id = 2, name = 'b', price = 2.5 WHERE id = 1",
            &["delete item/1"],
        ),
        item(
            "UPDATE OR REPLACE item SET id = 3, name = 'b' WHERE id = 1",
            &[
                "delete item/2",
                "delete item/1",
                r#"update item/3 {"name":"b","price":1.5}"#,
            ],
        ),
        // An ignored insert of 4 leaves nothing for a later row that happens to get that key.
        item(
            "INSERT INTO item VALUES (4, 'm', 0.5); INSERT OR IGNORE INTO item VALUES (4, 'x', 9.5); \
             DELETE FROM item WHERE id = 4; INSERT INTO item (name) VALUES ('n')",
            &[
                r#"create item/4 {"name":"m","price":0.5}"#,
                "delete item/4",
                r#"create item/4 {"name":"n","price":null}"#,
            ],
        ),
        // -1 is what a key still to be assigned looks like.
        item(
            "INSERT INTO item VALUES (-1, 'm', 0.5); REPLACE INTO item (name) VALUES ('n')",
            &[
                r#"create item/-1 {"name":"m","price":0.5}"#,
                r#"create item/4 {"name":"n","price":null}"#,
            ],
        ),
        item(
            "INSERT INTO item VALUES (1, 'x', 1.5) ON CONFLICT (id) DO UPDATE SET name = 'n'; \
             REPLACE INTO item VALUES (-1, 'm', 0.5); REPLACE INTO item VALUES (-1, 'm', 1.5)",
            &[
                r#"update item/1 {"name":"n"}"#,
                r#"create item/-1 {"name":"m","price":0.5}"#,
                r#"update item/-1 {"name":"m","price":1.5}"#,
            ],
        ),
    ] {
        case.check();
    }
}

#[test]
fn conflict_clauses_of_the_table_count() {
    const DDL: &str = "CREATE TABLE item (
        id TEXT PRIMARY KEY ON CONFLICT REPLACE NOT NULL ON CONFLICT REPLACE DEFAULT 'dflt',
        name TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'n''n' UNIQUE ON CONFLICT REPLACE,
        note DEFAULT 5);";
    let case = |given, when, then| Case {
        ddl: DDL,
        given,
        when,
        then,
        ..Case::default()
    };
    for case in [
        case(
            "INSERT INTO item VALUES ('a', 'x', 1)",
            "INSERT INTO item VALUES ('a', 'x', 2)",
            &[r#"update item/a {"note":2}"#],
        ),
        case(
            "INSERT INTO item VALUES ('a', 'x', 1)",
            "INSERT INTO item VALUES ('b', 'x', 2)",
            &["delete item/a", r#"create item/b {"name":"x","note":2}"#],
        ),
        case(
            "INSERT INTO item VALUES ('a', 'n''n', 1)",
            "INSERT INTO item VALUES ('b', NULL, 2)",
            &["delete item/a", r#"create item/b {"name":"n'n","note":2}"#],
        ),
        case(
            "INSERT INTO item VALUES ('dflt', 'x', 1)",
            "INSERT INTO item VALUES (NULL, 'x', 2)",
            &[r#"update item/dflt {"name":"x","note":2}"#],
        ),
        case(
            "INSERT INTO item VALUES ('dflt', 'x', 1), ('c', 'y', 1)",
            "INSERT INTO item VALUES (NULL, 'y', 2)",
            &["delete item/c", r#"update item/dflt {"name":"y","note":2}"#],
        ),
        case(
            "INSERT INTO item VALUES ('a', 'x', 1), ('b', 'y', 1)",
            "UPDATE item SET name = 'y' WHERE id = 'a'",
            &["delete item/b", r#"update item/a {"name":"y"}"#],
        ),
    ] {
        case.check();
    }
}

#[test]
fn every_kind_of_unique_index_counts() {
    let case = |ddl, given, when, then| Case {
        ddl,
        given,
        when,
        then,
        ..Case::default()
    };
    for case in [
        case(
            "CREATE TABLE item (id TEXT PRIMARY KEY, a TEXT COLLATE NOCASE, b, UNIQUE (a, b));",
            "INSERT INTO item VALUES ('1', 'x', 1), ('2', 'x', 2)",
            "REPLACE INTO item VALUES ('3', 'X', 2)",
            &[r#"delete item/"2""#, r#"create item/"3" {"a":"X","b":2}"#],
        ),
        case(
            "CREATE TABLE item (id TEXT PRIMARY KEY, mail TEXT);
             CREATE UNIQUE INDEX item_mail ON item (lower(mail) DESC);",
            "INSERT INTO item VALUES ('a', 'Bob@x'), ('b', 'Eve@x')",
            "REPLACE INTO item VALUES ('c', 'BOB@X')",
            &["delete item/a", r#"create item/c {"mail":"BOB@X"}"#],
        ),
        case(
            "CREATE TABLE item (id TEXT PRIMARY KEY, name, gone INTEGER);
             CREATE UNIQUE INDEX item_name ON item (name) WHERE gone = 0 -- only those;
             ;",
            "INSERT INTO item VALUES ('a', 'x', 0), ('b', 'x', 1)",
            "REPLACE INTO item VALUES ('c', 'x', 1); REPLACE INTO item VALUES ('d', 'x', 0)",
            &[
                r#"create item/c {"gone":1,"name":"x"}"#,
                "delete item/a",
                r#"create item/d {"gone":0,"name":"x"}"#,
            ],
        ),
        case(
            "CREATE TABLE item (id TEXT PRIMARY KEY, a INTEGER, b INTEGER AS (a * 2) UNIQUE, c AS (-a) STORED UNIQUE);",
            "INSERT INTO item VALUES ('x', 1), ('y', 2)",
            "REPLACE INTO item VALUES ('z', 2); UPDATE OR REPLACE item SET a = 1 WHERE id = 'z'",
            &[
                "delete item/y",
                r#"create item/z {"a":2}"#,
                "delete item/x",
                r#"update item/z {"a":1}"#,
            ],
        ),
    ] {
        case.check();
    }
}

#[test]
fn every_kind_of_key_counts() {
    let case = |ddl, given, when, then| Case {
        ddl,
        given,
        when,
        then,
        ..Case::default()
    };
    for case in [
        case(
            "CREATE TABLE item (a TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID;",
            "INSERT INTO item VALUES ('bob', 1)",
            "REPLACE INTO item VALUES ('Bob', 1); UPDATE item SET a = 'BOB'; UPDATE item SET a = 'BOB', v = 2",
            &[
                "delete item/bob",
                r#"create item/Bob {"v":1}"#,
                "delete item/Bob",
                r#"create item/BOB {"v":1}"#,
                r#"update item/BOB {"v":2}"#,
            ],
        ),
        case(
            "CREATE TABLE item (a TEXT, b INTEGER, c BLOB, v UNIQUE, PRIMARY KEY (b, a, c)) WITHOUT ROWID;",
            "INSERT INTO item VALUES ('x', 1, x'0a', 7), ('y', 2, 't', 8)",
            "REPLACE INTO item VALUES ('x', 1, x'0a', 8); REPLACE INTO item VALUES ('q', 1, x'0a', 8)",
            &[
                r#"delete item/[2,"y","t"]"#,
                r#"update item/[1,"x",{"$hex":"0A"}] {"v":8}"#,
                r#"delete item/[1,"x",{"$hex":"0A"}]"#,
                r#"create item/[1,"q",{"$hex":"0A"}] {"v":8}"#,
            ],
        ),
        case(
            "CREATE TABLE item (id BLOB PRIMARY KEY, v UNIQUE);",
            "INSERT INTO item VALUES (x'3132', 1), (x'FF', 2), ('12', 3), (12, 4), ('{x', 5), (NULL, 6), (1.5, 7)",
            "REPLACE INTO item SELECT 'n' || value, value FROM json_each('[1,2,3,4,5,6,7]')",
            &[
                r#"delete item/{"$hex":"3132"}"#,
                r#"create item/n1 {"v":1}"#,
                r#"delete item/{"$hex":"FF"}"#,
                r#"create item/n2 {"v":2}"#,
                r#"delete item/"12""#,
                r#"create item/n3 {"v":3}"#,
                r#"delete item/12"#,
                r#"create item/n4 {"v":4}"#,
                r#"delete item/"{x""#,
                r#"create item/n5 {"v":5}"#,
                r#"delete item/{"$null":1}"#,
                r#"create item/n6 {"v":6}"#,
                r#"delete item/{"$real":"1.5"}"#,
                r#"create item/n7 {"v":7}"#,
            ],
        ),
        case(
            "CREATE TABLE item (a INTEGER, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;",
            "INSERT INTO item VALUES (1, 'x')",
            "REPLACE INTO item VALUES (1, 'x'), (2, 'x')",
            &[r#"create item/[2,"x"] {}"#],
        ),
    ] {
        case.check();
    }
}

#[test]
fn rows_in_the_way_that_an_app_trigger_moves_are_not_deleted() {
    // Both orders: capture before and after the app's trigger.
    const SHIFT: &str = "CREATE TRIGGER shift BEFORE INSERT ON item BEGIN
        UPDATE item SET place = place + 1000 WHERE place = NEW.place; END;";
    let ddl = "CREATE TABLE item (id BLOB PRIMARY KEY, place INTEGER UNIQUE);";
    for (first, second) in [(SHIFT, ""), ("", SHIFT)] {
        for key in ["x'01'", "'a'", "5"] {
            let conn = database(&format!("{ddl}{first}"));
            conn.execute_batch(second).unwrap();
            conn.execute_batch(&format!("INSERT INTO item VALUES ({key}, 1)"))
                .unwrap();
            settle(&conn);
            run(&conn, "REPLACE INTO item VALUES ('new', 1)");
            let lines = outbox(&conn);
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(lines[0].starts_with("update") && lines[0].ends_with("{\"place\":1001}"));
            assert_eq!(lines[1], r#"create item/new {"place":1}"#);
        }
    }
}

/// What an ignored update had looked up is not for the next update of its row.
#[test]
fn a_row_in_the_way_of_an_ignored_update_is_deleted_once() {
    let conn =
        database("CREATE TABLE item (id INTEGER PRIMARY KEY, place TEXT UNIQUE, n INTEGER);");
    conn.execute_batch("INSERT INTO item VALUES (2, 'b', 0), (3, 'c', 0)")
        .unwrap();
    run(&conn, "UPDATE OR IGNORE item SET place = 'c' WHERE id = 2");
    run(&conn, "DELETE FROM item WHERE id = 3");
    settle(&conn);
    run(&conn, "UPDATE item SET place = 'b', n = 1 WHERE id = 2");
    assert_eq!(outbox(&conn), [r#"update item/2 {"n":1}"#]);
}
