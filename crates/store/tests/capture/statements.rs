//! INSERT, UPDATE, DELETE, conflict clauses that keep rows, UPSERT, foreign keys, savepoints.

use crate::support::Case;

const TASK: &str = "CREATE TABLE task (id TEXT PRIMARY KEY, title TEXT, done INTEGER);";

/// For the statements that meet what is there.
const GIVEN: &str = "INSERT INTO task VALUES ('a', 'x', 0), ('b', 'y', 0)";

fn task(given: &'static str, when: &'static str, then: &'static [&'static str]) -> Case {
    Case {
        ddl: TASK,
        given,
        when,
        then,
        ..Case::default()
    }
}

#[test]
fn plain_statements() {
    for case in [
        Case {
            bases: &["task/a absent"],
            ..task(
                "",
                "INSERT INTO task VALUES ('a', 'milk', 0)",
                &[r#"create task/a {"done":0,"title":"milk"}"#],
            )
        },
        Case {
            bases: &[r#"task/a {"done":0,"title":"milk"}"#],
            ..task(
                "INSERT INTO task VALUES ('a', 'milk', 0)",
                "UPDATE task SET title = 'oat milk', done = 0",
                &[r#"update task/a {"title":"oat milk"}"#],
            )
        },
        Case {
            bases: &[r#"task/a {"done":null,"title":"milk"}"#],
            ..task(
                "INSERT INTO task VALUES ('a', 'milk', NULL)",
                "DELETE FROM task",
                &["delete task/a"],
            )
        },
        task(
            "INSERT INTO task VALUES ('a', 'milk', 0)",
            "UPDATE task SET title = title, done = 0, id = id",
            &[],
        ),
        task(
            "",
            "INSERT INTO task SELECT 'x' || value, 'n', value FROM json_each('[1,2]')",
            &[
                r#"create task/x1 {"done":1,"title":"n"}"#,
                r#"create task/x2 {"done":2,"title":"n"}"#,
            ],
        ),
        task(
            "INSERT INTO task VALUES ('a', 'x', 0), ('b', 'y', 0), ('c', 'z', 1)",
            "UPDATE task SET done = 1 WHERE done < 2",
            &[r#"update task/a {"done":1}"#, r#"update task/b {"done":1}"#],
        ),
        task(
            "INSERT INTO task VALUES ('a', 'x', 0)",
            "INSERT INTO task VALUES ('b', 'y', 0), ('a', 'x', 0)",
            &[],
        ),
        task(
            "INSERT INTO task VALUES ('a', 'x', 0)",
            "UPDATE task SET title = 'y' WHERE id = 'a' RETURNING title",
            &[r#"update task/a {"title":"y"}"#],
        ),
    ] {
        case.check();
    }
}

#[test]
fn a_changed_key_is_delete_and_create() {
    for case in [
        Case {
            bases: &[r#"task/a {"done":0,"title":"x"}"#, "task/b absent"],
            ..task(
                "INSERT INTO task VALUES ('a', 'x', 0)",
                "UPDATE task SET id = 'b', done = 1",
                &["delete task/a", r#"create task/b {"done":1,"title":"x"}"#],
            )
        },
        task(
            "INSERT INTO task VALUES ('a', 'x', 0)",
            "UPDATE task SET id = 'b'; UPDATE task SET id = 'a'",
            &[
                "delete task/a",
                r#"create task/b {"done":0,"title":"x"}"#,
                "delete task/b",
                r#"create task/a {"done":0,"title":"x"}"#,
            ],
        ),
        Case {
            ddl: "CREATE TABLE task (id INTEGER PRIMARY KEY, title);",
            given: "INSERT INTO task VALUES (1, 'x'), (2, 'y')",
            when: "UPDATE task SET id = id + 10",
            then: &[
                "delete task/1",
                r#"create task/11 {"title":"x"}"#,
                "delete task/2",
                r#"create task/12 {"title":"y"}"#,
            ],
            ..Case::default()
        },
        Case {
            ddl: "CREATE TABLE task (id INTEGER PRIMARY KEY, title);",
            given: "INSERT INTO task VALUES (1, 'x')",
            when: "UPDATE task SET rowid = 7, title = 'y'",
            then: &["delete task/1", r#"create task/7 {"title":"y"}"#],
            ..Case::default()
        },
    ] {
        case.check();
    }
}

#[test]
fn the_base_is_the_state_before_the_first_unsettled_mutation() {
    for case in [
        Case {
            pending: "UPDATE task SET title = 'y'",
            bases: &[r#"task/a {"done":0,"title":"x"}"#],
            ..task(
                "INSERT INTO task VALUES ('a', 'x', 0)",
                "UPDATE task SET title = 'x'",
                &[r#"update task/a {"title":"x"}"#],
            )
        },
        Case {
            pending: "DELETE FROM task",
            bases: &[r#"task/a {"done":0,"title":"x"}"#],
            ..task(
                "INSERT INTO task VALUES ('a', 'x', 0)",
                "INSERT INTO task VALUES ('a', 'new', 5)",
                &[r#"create task/a {"done":5,"title":"new"}"#],
            )
        },
        Case {
            pending: "INSERT INTO task VALUES ('a', 'x', 0)",
            bases: &["task/a absent"],
            ..task("", "DELETE FROM task", &["delete task/a"])
        },
        Case {
            pending: "INSERT INTO task VALUES ('a', 'x', 0); DELETE FROM task",
            bases: &["task/a absent"],
            ..task(
                "",
                "INSERT INTO task VALUES ('a', 'y', 0)",
                &[r#"create task/a {"done":0,"title":"y"}"#],
            )
        },
    ] {
        case.check();
    }
}

#[test]
fn a_base_without_mutations_is_taken_anew() {
    let ddl = "CREATE TABLE task (id INTEGER PRIMARY KEY, title UNIQUE, price REAL);";
    let conn = crate::support::database(ddl);
    conn.execute_batch("INSERT INTO task VALUES (1, 'x', 1.5), (2, 'y', 2.5)")
        .unwrap();
    crate::support::settle(&conn);
    // Comes to nothing, but has taken the base of 1.
    conn.execute_batch("UPDATE OR IGNORE task SET title = 'y' WHERE id = 1")
        .unwrap();
    assert_eq!(crate::support::outbox(&conn), [""; 0]);
    assert_eq!(crate::support::count(&conn, "syncline_base"), 2);
    // The engine changes the row, in its own time.
    std::thread::sleep(std::time::Duration::from_millis(5));
    conn.execute_batch(
        "INSERT INTO syncline_guard VALUES (1); UPDATE task SET price = 7.5 WHERE id = 1;
         DELETE FROM syncline_guard;",
    )
    .unwrap();
    conn.execute_batch("UPDATE task SET title = 'z' WHERE id = 1")
        .unwrap();
    assert_eq!(
        crate::support::bases(&conn),
        [r#"task/1 {"price":7.5,"title":"x"}"#]
    );
    conn.execute_batch("DELETE FROM syncline_outbox").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    conn.execute_batch("DELETE FROM task; INSERT INTO task VALUES (1, 'n', 1.0)")
        .unwrap();
    assert_eq!(
        crate::support::bases(&conn)[0],
        r#"task/1 {"price":7.5,"title":"z"}"#
    );
    crate::support::check_tables(&conn);
}

#[test]
fn conflict_clauses_that_keep_rows_leave_no_false_records() {
    for case in [
        task(
            GIVEN,
            "INSERT OR IGNORE INTO task VALUES ('a', 'z', 9)",
            &[],
        ),
        task(
            GIVEN,
            "INSERT OR IGNORE INTO task VALUES ('a', 'z', 9), ('c', 'z', 9)",
            &[r#"create task/c {"done":9,"title":"z"}"#],
        ),
        task(
            GIVEN,
            "INSERT OR FAIL INTO task VALUES ('c', 'z', 9), ('a', 'z', 9), ('d', 'z', 9)",
            &[r#"create task/c {"done":9,"title":"z"}"#],
        ),
        task(
            GIVEN,
            "INSERT OR ABORT INTO task VALUES ('c', 'z', 9), ('a', 'z', 9)",
            &[],
        ),
        task(
            GIVEN,
            "BEGIN; INSERT INTO task VALUES ('d', 'z', 9); \
             INSERT OR ROLLBACK INTO task VALUES ('c', 'z', 9), ('a', 'z', 9)",
            &[],
        ),
        task(
            GIVEN,
            "UPDATE OR IGNORE task SET id = 'a' WHERE id = 'b'",
            &[],
        ),
        task(
            GIVEN,
            "UPDATE OR IGNORE task SET id = 'a' WHERE id = 'b'; DELETE FROM task WHERE id = 'a'; \
             UPDATE task SET done = 1 WHERE id = 'b'",
            &["delete task/a", r#"update task/b {"done":1}"#],
        ),
    ] {
        case.check();
    }
}

#[test]
fn upserts_leave_no_false_records() {
    for case in [
        task(
            GIVEN,
            "INSERT INTO task VALUES ('a', 'z', 9) ON CONFLICT DO NOTHING",
            &[],
        ),
        task(
            GIVEN,
            "INSERT INTO task VALUES ('a', 'z', 9), ('c', 'n', 1) \
             ON CONFLICT (id) DO UPDATE SET title = excluded.title",
            &[
                r#"update task/a {"title":"z"}"#,
                r#"create task/c {"done":1,"title":"n"}"#,
            ],
        ),
        task(
            GIVEN,
            "INSERT INTO task VALUES ('a', 'z', 9) ON CONFLICT DO UPDATE SET title = title",
            &[],
        ),
        task(
            GIVEN,
            "INSERT INTO task VALUES ('a', 'z', 9) ON CONFLICT DO UPDATE SET id = 'n'",
            &["delete task/a", r#"create task/n {"done":0,"title":"x"}"#],
        ),
        task(
            GIVEN,
            "INSERT OR IGNORE INTO task VALUES ('a', 'z', 9); DELETE FROM task WHERE id = 'a'; \
             INSERT INTO task VALUES ('a', 'q', 2)",
            &["delete task/a", r#"create task/a {"done":2,"title":"q"}"#],
        ),
    ] {
        case.check();
    }
}

#[test]
fn savepoints_take_the_records_along() {
    for case in [
        task(
            "",
            "SAVEPOINT s; INSERT INTO task VALUES ('a', 'x', 0); ROLLBACK TO s; RELEASE s; \
             INSERT INTO task VALUES ('b', 'x', 0)",
            &[r#"create task/b {"done":0,"title":"x"}"#],
        ),
        Case {
            bases: &[r#"task/a {"done":0,"title":"x"}"#],
            ..task(
                "INSERT INTO task VALUES ('a', 'x', 0)",
                "BEGIN; UPDATE task SET done = 1; SAVEPOINT s; UPDATE task SET done = 2; \
                 DELETE FROM task; ROLLBACK TO s; COMMIT",
                &[r#"update task/a {"done":1}"#],
            )
        },
    ] {
        case.check();
    }
}

#[test]
fn foreign_key_actions_are_recorded_by_the_child() {
    const DDL: &str = "PRAGMA foreign_keys = ON;
        CREATE TABLE list (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE entry (id INTEGER PRIMARY KEY, list INTEGER REFERENCES list ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE TABLE note (id INTEGER PRIMARY KEY, list INTEGER REFERENCES list ON DELETE SET NULL);";
    const GIVEN: &str =
        "INSERT INTO list VALUES (1, 'a'), (2, 'b'); INSERT INTO entry VALUES (5, 1), (6, 2);
        INSERT INTO note VALUES (8, 1)";
    let case = |when, then, bases| Case {
        ddl: DDL,
        given: GIVEN,
        when,
        then,
        bases,
        ..Case::default()
    };
    case(
        "DELETE FROM list WHERE id = 1",
        &[
            "update note/8 {\"list\":null}",
            "delete entry/5",
            "delete list/1",
        ],
        &[
            "entry/5 {\"list\":1}",
            "list/1 {\"name\":\"a\"}",
            "note/8 {\"list\":1}",
        ],
    )
    .check();
    case(
        "UPDATE list SET id = 4 WHERE id = 2",
        &[
            "update entry/6 {\"list\":4}",
            "delete list/2",
            "create list/4 {\"name\":\"b\"}",
        ],
        &[],
    )
    .check();
    case(
        "REPLACE INTO list VALUES (1, 'z')",
        &[
            "update note/8 {\"list\":null}",
            "delete entry/5",
            "update list/1 {\"name\":\"z\"}",
        ],
        &[
            "entry/5 {\"list\":1}",
            "list/1 {\"name\":\"a\"}",
            "note/8 {\"list\":1}",
        ],
    )
    .check();
}

#[test]
fn nothing_is_recorded_while_the_guard_is_held() {
    task(
        "INSERT INTO task VALUES ('a', 'x', 0)",
        "INSERT INTO syncline_guard VALUES (1); UPDATE task SET done = 3; REPLACE INTO task VALUES ('a', 'y', 1); \
         UPDATE task SET id = 'z'; DELETE FROM task; INSERT INTO task VALUES ('q', 'y', 1); DELETE FROM syncline_guard",
        &[],
    )
    .check();
}
