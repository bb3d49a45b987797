//! The app's own triggers on the captured table, made before and after ours.

use crate::support::{
    bases, capture_all, check_tables, count, database, outbox, prepare, run, settle,
};
use rusqlite::Connection;

const TASK: &str =
    "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT, changed INTEGER DEFAULT 0);";

/// The app's trigger once before and once after capture, with recursive triggers off and on.
fn in_every_order(ddl: &str, trigger: &str, check: impl Fn(Connection, &str)) {
    for recursive in ["OFF", "ON"] {
        for newer in [false, true] {
            let mut conn = Connection::open_in_memory().unwrap();
            let (before, after) = if newer { ("", trigger) } else { (trigger, "") };
            prepare(&mut conn, &format!("{ddl}{before}"));
            conn.execute_batch(&format!("PRAGMA recursive_triggers = {recursive}; {after}"))
                .unwrap();
            check(conn, &format!("newer: {newer}, recursive: {recursive}"));
        }
    }
}

/// Touches `changed` whenever the title changes, as apps do with `updated_at`.
const TOUCH: &str = "
    CREATE TRIGGER touch_new AFTER INSERT ON task WHEN NEW.changed = 0 BEGIN
        UPDATE task SET changed = 100 WHERE id = NEW.id; END;
    CREATE TRIGGER touch AFTER UPDATE OF title ON task BEGIN
        UPDATE task SET changed = changed + 1 WHERE id = NEW.id; END;";

#[test]
fn a_create_comes_first_whatever_an_app_trigger_does() {
    in_every_order(TASK, TOUCH, |conn, order| {
        run(&conn, "INSERT INTO task (id, title) VALUES (1, 'x')");
        let lines = outbox(&conn);
        let expected: &[&str] = if order.starts_with("newer: true") {
            &[r#"create task/1 {"changed":100,"title":"x"}"#]
        } else {
            &[
                r#"create task/1 {"changed":0,"title":"x"}"#,
                r#"update task/1 {"changed":100}"#,
            ]
        };
        assert_eq!(lines, expected, "{order}");
        assert_eq!(bases(&conn), ["task/1 absent"], "{order}");
        check_tables(&conn);
    });
}

#[test]
fn an_update_keeps_the_base_from_before_the_statement() {
    in_every_order(TASK, TOUCH, |conn, order| {
        run(&conn, "INSERT INTO task VALUES (1, 'x', 5)");
        settle(&conn);
        run(&conn, "UPDATE task SET title = 'y'");
        let base = [r#"task/1 {"changed":5,"title":"x"}"#];
        assert_eq!(bases(&conn), base, "{order}");
        run(&conn, "REPLACE INTO task VALUES (1, 'z', 0)");
        assert_eq!(bases(&conn), base, "{order}");
        check_tables(&conn);
    });
}

#[test]
fn a_replace_keeps_the_base_from_before_the_statement() {
    in_every_order(TASK, TOUCH, |conn, order| {
        run(&conn, "INSERT INTO task VALUES (1, 'x', 5)");
        settle(&conn);
        run(&conn, "REPLACE INTO task VALUES (1, 'x', 0)");
        assert_eq!(
            bases(&conn),
            [r#"task/1 {"changed":5,"title":"x"}"#],
            "{order}"
        );
        let lines = outbox(&conn);
        assert!(
            lines.iter().all(|line| line.starts_with("update")),
            "{order} {lines:?}"
        );
        assert!(
            lines.last().unwrap().contains("\"changed\":100"),
            "{order} {lines:?}"
        );
    });
}

#[test]
fn a_row_that_an_app_trigger_removes_at_once_never_was() {
    let bounce = "CREATE TRIGGER bounce AFTER INSERT ON task WHEN NEW.title = 'spam' BEGIN
        UPDATE task SET changed = 1 WHERE id = NEW.id; DELETE FROM task WHERE id = NEW.id; END;";
    in_every_order(TASK, bounce, |conn, order| {
        run(&conn, "INSERT INTO task VALUES (2, 'x', 5)");
        settle(&conn);
        run(&conn, "UPDATE task SET title = 'y'; DELETE FROM task");
        run(
            &conn,
            "INSERT INTO task VALUES (1, 'spam', 0), (2, 'spam', 0)",
        );
        let lines = outbox(&conn);
        let expected: &[&str] = if order.starts_with("newer: true") {
            &[r#"update task/2 {"title":"y"}"#, "delete task/2"]
        } else {
            &[
                r#"update task/2 {"title":"y"}"#,
                "delete task/2",
                r#"create task/1 {"changed":0,"title":"spam"}"#,
                r#"update task/1 {"changed":1}"#,
                "delete task/1",
                r#"create task/2 {"changed":0,"title":"spam"}"#,
                r#"update task/2 {"changed":1}"#,
                "delete task/2",
            ]
        };
        assert_eq!(lines, expected, "{order}");
        assert!(bases(&conn).contains(&r#"task/2 {"changed":5,"title":"x"}"#.to_owned()));
    });
}

#[test]
fn a_frozen_mutation_is_never_taken_back() {
    let conn = database(TASK);
    run(
        &conn,
        "INSERT INTO task VALUES (1, 'x', 5); UPDATE task SET title = 'y'",
    );
    run(
        &conn,
        "UPDATE syncline_outbox SET frozen = '{}', state = 'in_flight' WHERE op = 'update'",
    );
    // A row that vanished without a record, say while the triggers were missing.
    run(
        &conn,
        "INSERT INTO syncline_guard VALUES (1); DELETE FROM task; DELETE FROM syncline_guard",
    );
    run(&conn, "INSERT INTO task VALUES (1, 'z', 5)");
    assert_eq!(
        outbox(&conn),
        [
            r#"create task/1 {"changed":5,"title":"x"}"#,
            r#"update task/1 {"title":"y"}"#,
            r#"create task/1 {"changed":5,"title":"z"}"#,
        ]
    );
}

#[test]
fn soft_deletes_and_refusals_of_the_app_hold() {
    let soft = "CREATE TRIGGER soft BEFORE DELETE ON task WHEN OLD.changed >= 0 BEGIN
        UPDATE task SET changed = -1 WHERE id = OLD.id; SELECT RAISE(IGNORE); END;";
    in_every_order(TASK, soft, |conn, order| {
        run(&conn, "INSERT INTO task VALUES (1, 'x', 5)");
        settle(&conn);
        run(&conn, "DELETE FROM task");
        assert_eq!(
            outbox(&conn),
            [r#"update task/1 {"changed":-1}"#],
            "{order}"
        );
        assert_eq!(bases(&conn), [r#"task/1 {"changed":5,"title":"x"}"#]);
        run(&conn, "DELETE FROM task");
        assert_eq!(outbox(&conn).last().unwrap(), "delete task/1");
    });
    let refuse = "CREATE TRIGGER refuse AFTER UPDATE ON task BEGIN SELECT RAISE(ABORT, 'no'); END;";
    in_every_order(TASK, refuse, |conn, order| {
        run(&conn, "INSERT INTO task VALUES (1, 'x', 5)");
        settle(&conn);
        run(&conn, "UPDATE task SET title = 'y'");
        assert_eq!(outbox(&conn), [""; 0], "{order}");
        assert_eq!(count(&conn, "syncline_base"), 0, "{order}");
    });
}

#[test]
fn triggers_that_write_other_captured_tables_are_recorded() {
    let ddl = format!("{TASK} CREATE TABLE history (n INTEGER PRIMARY KEY, task, title);");
    let log = "CREATE TRIGGER log AFTER UPDATE ON task BEGIN
        INSERT INTO history (task, title) VALUES (OLD.id, OLD.title); END;";
    in_every_order(&ddl, log, |conn, order| {
        run(&conn, "INSERT INTO task VALUES (1, 'x', 5)");
        settle(&conn);
        run(&conn, "UPDATE task SET title = 'y'");
        let mut lines = outbox(&conn);
        lines.sort();
        assert_eq!(
            lines,
            [
                r#"create history/1 {"task":1,"title":"x"}"#,
                r#"update task/1 {"title":"y"}"#,
            ],
            "{order}"
        );
    });
}

#[test]
fn installing_again_makes_ours_the_newest() {
    let mut conn = database(TASK);
    conn.execute_batch(TOUCH).unwrap();
    capture_all(&mut conn);
    run(&conn, "INSERT INTO task (id, title) VALUES (1, 'x')");
    assert_eq!(
        outbox(&conn),
        [
            r#"create task/1 {"changed":0,"title":"x"}"#,
            r#"update task/1 {"changed":100}"#,
        ]
    );
}
