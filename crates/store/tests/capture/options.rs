//! What is declared for a table: columns left out, fields with other names, references, lanes; and
//! the numbers of entries.

use crate::support::{bases, check_tables, outbox, read_with, run, settle};
use rusqlite::Connection;
use syncline_store::table::{Reference, Table, TableError};
use syncline_store::{DeclaredReference, Lane, RegisteredType, TypeOptions, capture};

const TASK: &str = "
    CREATE TABLE list (id TEXT PRIMARY KEY);
    CREATE TABLE task (
        id TEXT PRIMARY KEY, title TEXT, price REAL, list TEXT,
        draft TEXT DEFAULT 'none', place INTEGER UNIQUE REFERENCES list);";

fn options() -> TypeOptions {
    TypeOptions {
        lane: Lane::Background,
        leave_out: ["DRAFT".to_owned(), "place".to_owned()].into(),
        fields: [
            ("title".to_owned(), "it's \"a\" name".to_owned()),
            ("Price".to_owned(), "cost".to_owned()),
        ]
        .into(),
        references: vec![DeclaredReference {
            columns: vec!["list".to_owned()],
            table: "list".to_owned(),
        }],
        ..TypeOptions::default()
    }
}

fn captured(options: TypeOptions, schema_version: u32) -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(crate::support::SCHEMA).unwrap();
    conn.execute_batch(TASK).unwrap();
    conn.pragma_update(None, "foreign_keys", false).unwrap();
    let table = Table::read_with(&conn, "task", &options).unwrap();
    let tx = conn.transaction().unwrap();
    let entity_type = RegisteredType {
        options,
        schema_version,
        ..RegisteredType::new("task", table)
    };
    capture::install(&tx, &entity_type).unwrap();
    tx.commit().unwrap();
    conn
}

#[test]
fn fields_have_their_declared_names_and_left_out_columns_stay_here() {
    let conn = captured(options(), 1);
    run(
        &conn,
        "INSERT INTO task VALUES ('a', 'milk', 0.1, 'l', 'secret', 1)",
    );
    let name = r#""it's \"a\" name""#;
    assert_eq!(
        outbox(&conn),
        [format!(
            r#"create task/a {{"cost":0.1,{name}:"milk","list":"l"}}"#
        )]
    );
    settle(&conn);
    run(&conn, "UPDATE task SET draft = 'x', place = 2");
    assert_eq!(outbox(&conn), [""; 0], "nothing that others know changed");
    run(
        &conn,
        "UPDATE task SET draft = 'y', price = 0.2, title = 'oat'",
    );
    assert_eq!(
        outbox(&conn),
        [format!(r#"update task/a {{"cost":0.2,{name}:"oat"}}"#)]
    );
    assert_eq!(
        bases(&conn),
        [format!(r#"task/a {{"cost":0.1,{name}:"milk","list":"l"}}"#)]
    );
    check_tables(&conn);
}

#[test]
fn a_row_replaced_by_way_of_a_left_out_column_is_deleted_all_the_same() {
    for recursive in ["ON", "OFF"] {
        let conn = captured(options(), 1);
        run(
            &conn,
            &format!(
                "PRAGMA recursive_triggers = {recursive};
                 INSERT INTO task (id, place) VALUES ('a', 1), ('b', 2), ('c', 3)"
            ),
        );
        settle(&conn);
        run(&conn, "UPDATE OR REPLACE task SET place = 2 WHERE id = 'a'");
        assert_eq!(outbox(&conn), ["delete task/b"]);
        run(
            &conn,
            "REPLACE INTO task (id, place, draft) VALUES ('a', 3, 'z')",
        );
        assert_eq!(outbox(&conn), ["delete task/b", "delete task/c"]);
        check_tables(&conn);
    }
}

#[test]
fn entries_tell_their_lane_and_schema_version() {
    let notes = |lane, version| {
        let conn = captured(TypeOptions { lane, ..options() }, version);
        run(
            &conn,
            "INSERT INTO task (id, place) VALUES ('a', 1); UPDATE task SET title = 'x';
             REPLACE INTO task (id, place) VALUES ('b', 1); UPDATE task SET id = 'c'; DELETE FROM task",
        );
        let mut statement = conn
            .prepare("SELECT DISTINCT lane, schema_version FROM syncline_outbox")
            .unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let rows: Result<Vec<(Option<i64>, i64)>, _> = rows.unwrap().collect();
        rows.unwrap()
    };
    assert_eq!(notes(Lane::Urgent, 1), [(Some(0), 1)]);
    assert_eq!(notes(Lane::Normal, 7), [(None, 7)]);
    assert_eq!(notes(Lane::Background, 1), [(Some(2), 1)]);
}

/// The triggers made anew for the table as it is.
fn renewed(mut conn: Connection) -> Connection {
    crate::support::capture_all(&mut conn);
    conn
}

#[test]
fn a_number_never_comes_to_mean_another_mutation() {
    let conn = captured(TypeOptions::default(), 1);
    let numbers = || {
        let mut statement = conn.prepare("SELECT seq FROM syncline_outbox ORDER BY seq");
        let rows = statement.as_mut().unwrap().query_map([], |row| row.get(0));
        rows.unwrap().collect::<Result<Vec<i64>, _>>().unwrap()
    };
    run(
        &conn,
        "INSERT INTO task (id, place) VALUES ('a', 1), ('b', 2)",
    );
    assert_eq!(numbers(), [1, 2]);
    settle(&conn);
    // As the engine leaves it when it settles them.
    run(&conn, "INSERT INTO syncline_meta VALUES ('last_seq', 2)");
    run(
        &conn,
        "INSERT INTO task (id) VALUES ('c'); UPDATE task SET title = 'x'",
    );
    assert_eq!(numbers(), [3, 4, 5, 6]);
    settle(&conn);
    run(&conn, "UPDATE syncline_meta SET value = 6");
    // Several in one statement: deletes of what is replaced, and the new row.
    run(
        &conn,
        "CREATE UNIQUE INDEX one ON task (title) WHERE id <> 'z'",
    );
    let conn = renewed(conn);
    run(
        &conn,
        "REPLACE INTO task (id, place, title) VALUES ('b', 1, 'y'); DELETE FROM task",
    );
    let lines: Vec<(i64, String)> = conn
        .prepare("SELECT seq, op || ' ' || entity_id FROM syncline_outbox ORDER BY seq")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let expected = ["delete a", "update b", "delete b", "delete c"];
    let mut ops: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
    ops[2..].sort_unstable();
    assert_eq!(ops, expected);
    assert_eq!(lines[0].0, 7);
    assert_eq!(lines[3].0, 10);
}

#[test]
fn declared_references_join_those_of_the_schema() {
    let conn = captured(options(), 1);
    let table = Table::read_with(&conn, "task", &options()).unwrap();
    assert_eq!(
        table.references,
        [Reference {
            columns: vec!["list".to_owned()],
            table: "list".to_owned(),
            to_columns: vec!["id".to_owned()],
            on_delete: Default::default(),
        }],
        "and that of a column left out goes with it"
    );
}

#[test]
fn nonsense_is_refused() {
    let ddl = "CREATE TABLE list (id TEXT PRIMARY KEY, v);
        CREATE TABLE task (id TEXT PRIMARY KEY, title, must TEXT NOT NULL, g AS (title || 'x'));";
    let left_out = |name: &str| TypeOptions {
        leave_out: [name.to_owned()].into(),
        ..TypeOptions::default()
    };
    let field = |column: &str, field: &str| TypeOptions {
        fields: [(column.to_owned(), field.to_owned())].into(),
        ..TypeOptions::default()
    };
    let reference = |columns: &[&str], table: &str| TypeOptions {
        references: vec![DeclaredReference {
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            table: table.to_owned(),
        }],
        ..TypeOptions::default()
    };
    for (options, said) in [
        (left_out("id"), "cannot be left out: other devices know"),
        (left_out("MUST"), "give it a DEFAULT"),
        (left_out("nothing"), "has no column \"nothing\""),
        (left_out("g"), "is generated"),
        (field("titel", "t"), "has no column \"titel\""),
        (field("id", "key"), "keys travel in the entity's id"),
        (field("title", "MUST"), "two columns of table \"task\""),
        (field("title", ""), "1 to 128 bytes"),
        (field("title", "a\nb"), "1 to 128 bytes"),
        (field("title", &"x".repeat(129)), "1 to 128 bytes"),
        (reference(&["title"], "nowhere"), "does not fit"),
        (reference(&["title", "must"], "list"), "does not fit"),
        (reference(&["no"], "list"), "has no column \"no\""),
    ] {
        let error = read_with(ddl, "task", &options).unwrap_err();
        assert!(error.to_string().contains(said), "{options:?}: {error}");
    }
    assert!(matches!(
        read_with(ddl, "no", &TypeOptions::default()),
        Err(TableError::NoSuchTable(_))
    ));
}
