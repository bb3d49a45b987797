//! Live queries: news from this program, from another process and from the remote; what they refuse.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used)] // helpers of tests

use rusqlite::Connection;
use rusqlite::types::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline::{Error, LiveQuery, QueryResult, Syncline, TokenSource};

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for what is not to happen to show.
const QUIET: Duration = Duration::from_millis(400);

struct Home {
    _folder: tempfile::TempDir,
    path: PathBuf,
    /// As another process would have it.
    other: Connection,
    sync: Syncline,
}

/// An engine whose server is never there.
fn home() -> Home {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    let schema = "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT, project INTEGER);
        CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE unsynced (x);
        CREATE VIEW named AS SELECT title, (SELECT name FROM project AS p WHERE p.id = t.project) AS name FROM task AS t";
    other.execute_batch(schema).unwrap();
    let sync = Syncline::builder(&path)
        .remote("http://127.0.0.1:9")
        .token(TokenSource::Static("token".into()))
        .state_dir(folder.path().join("state"))
        .attach(["task", "project"])
        .open()
        .unwrap();
    Home {
        _folder: folder,
        path,
        other,
        sync,
    }
}

type Told = Option<Result<Arc<QueryResult>, Error>>;

async fn next(query: &mut LiveQuery) -> Told {
    tokio::time::timeout(PATIENCE, query.next()).await.unwrap()
}

/// The rows of the next result, each as its first value.
async fn column(query: &mut LiveQuery) -> Vec<Value> {
    let result = next(query).await.unwrap().unwrap();
    result.rows.iter().map(|row| row[0].clone()).collect()
}

async fn is_quiet(query: &mut LiveQuery) -> bool {
    tokio::time::timeout(QUIET, query.next()).await.is_err()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[tokio::test]
async fn a_result_comes_now_and_again_whoever_wrote() {
    let home = home();
    let sql = "SELECT title FROM task WHERE project = ?1 ORDER BY id";
    let mut titles = home.sync.live_query(sql, vec![7.into()]).unwrap();
    assert_eq!(column(&mut titles).await, []);
    home.sync
        .write(|tx| {
            tx.execute("INSERT INTO task VALUES (1, 'milk', 7)", [])?;
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(column(&mut titles).await, [text("milk")]);
    let insert = "INSERT INTO task VALUES (2, 'tea', 7)";
    home.other.execute(insert, []).unwrap();
    assert_eq!(column(&mut titles).await, [text("milk"), text("tea")]);
    // What leaves the result as it is is not told, also not what the engine does meanwhile.
    home.other
        .execute("INSERT INTO task VALUES (3, 'bread', 8)", [])
        .unwrap();
    assert!(is_quiet(&mut titles).await);
    // A table that is not synced is as good as any.
    let mut others = home
        .sync
        .live_query("SELECT x FROM unsynced", vec![])
        .unwrap();
    assert_eq!(column(&mut others).await, []);
    home.other
        .execute("INSERT INTO unsynced VALUES (1)", [])
        .unwrap();
    assert_eq!(column(&mut others).await, [Value::Integer(1)]);
    home.sync.close();
    assert!(next(&mut titles).await.is_none(), "the engine has ended");
}

#[tokio::test]
async fn of_a_burst_the_last_state_is_told_and_few_between() {
    let home = home();
    let mut count = home
        .sync
        .live_query("SELECT count(*) FROM task", vec![])
        .unwrap();
    assert_eq!(column(&mut count).await, [Value::Integer(0)]);
    let path = home.path.clone();
    let writer = std::thread::spawn(move || {
        let conn = Connection::open(path).unwrap();
        conn.busy_timeout(PATIENCE).unwrap();
        conn.pragma_update(None, "synchronous", "OFF").unwrap();
        for n in 0..500 {
            conn.execute("INSERT INTO task (title) VALUES (?1)", [n])
                .unwrap();
        }
    });
    let mut told = 0;
    while column(&mut count).await != [Value::Integer(500)] {
        told += 1;
    }
    writer.join().unwrap();
    assert!(told < 400, "{told} results for 500 writes");
    assert!(is_quiet(&mut count).await);
}

#[tokio::test]
async fn the_tables_are_known_through_views_subqueries_and_expressions() {
    let home = home();
    for (sql, tables) in [
        ("SELECT 1", vec![]),
        ("SELECT count(*) FROM task", vec!["task"]),
        ("SELECT name FROM named", vec!["project", "task"]),
        (
            "WITH unsynced AS (SELECT id FROM project) SELECT * FROM unsynced",
            vec!["project"],
        ),
        (
            "SELECT title FROM task WHERE project IN (SELECT id FROM project)
                AND EXISTS (SELECT 1 FROM unsynced)",
            vec!["project", "task", "unsynced"],
        ),
        (
            "SELECT pending FROM syncline_status LIMIT 0",
            vec!["syncline_count"],
        ),
    ] {
        let mut query = home.sync.live_query(sql, vec![]).unwrap();
        let result = next(&mut query).await.unwrap().unwrap();
        let tables: BTreeSet<String> = tables.into_iter().map(str::to_owned).collect();
        match sql.contains("syncline") {
            true => assert!(result.tables.is_superset(&tables), "{:?}", result.tables),
            false => assert_eq!(result.tables, tables, "{sql}"),
        }
    }
}

#[tokio::test]
async fn what_would_do_more_than_read_is_refused_and_changes_nothing() {
    let home = home();
    for sql in [
        "INSERT INTO task (title) VALUES ('x')",
        "INSERT INTO task (title) VALUES ('x') RETURNING id",
        "DELETE FROM task",
        "BEGIN",
        "ATTACH 'elsewhere.db' AS e",
        "PRAGMA query_only = 0",
        "CREATE TEMP TABLE t (x)",
        "SELEKT",
        "SELECT * FROM nowhere",
        "SELECT title FROM task WHERE id = ?7 AND id = ?8",
    ] {
        let mut query = home.sync.live_query(sql, vec![]).unwrap();
        let told = next(&mut query).await.unwrap();
        assert!(matches!(told, Err(Error::LiveQuery(_))), "{sql}: {told:?}");
    }
    let rows: i64 = home
        .other
        .query_row("SELECT count(*) FROM task", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_table_that_goes_and_comes_back_is_told() {
    let home = home();
    let mut query = home
        .sync
        .live_query("SELECT x FROM unsynced", vec![])
        .unwrap();
    assert_eq!(column(&mut query).await, []);
    home.other.execute_batch("DROP TABLE unsynced").unwrap();
    assert!(
        matches!(next(&mut query).await, Some(Err(Error::LiveQuery(why))) if why.contains("no such table"))
    );
    home.other
        .execute_batch("INSERT INTO project VALUES (1, 'p')")
        .unwrap();
    assert!(is_quiet(&mut query).await, "the same is not told twice");
    let again = "CREATE TABLE unsynced (x); INSERT INTO unsynced VALUES (5)";
    home.other.execute_batch(again).unwrap();
    let mut last = Vec::new();
    while last != [Value::Integer(5)] {
        last = column(&mut query).await;
    }
}

#[tokio::test]
async fn many_queries_hold_up_neither_each_other_nor_the_app() {
    let home = home();
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO task SELECT i, 'title', i % 97 FROM n";
    home.other.execute_batch(rows).unwrap();
    let sql = "SELECT count(*) FROM task WHERE project = ?1";
    let subscribe = |n: i64| home.sync.live_query(sql, vec![n.into()]).unwrap();
    let mut queries: Vec<LiveQuery> = (0..97).map(subscribe).collect();
    for query in &mut queries {
        assert_ne!(column(query).await, [Value::Integer(0)]);
    }
    queries.truncate(50);
    let begun = Instant::now();
    for n in 0..20 {
        let insert =
            "INSERT INTO task (title, project) SELECT 'more', id - 1 FROM task WHERE id <= 50";
        home.other.execute(insert, []).unwrap();
        let state = home.sync.status().unwrap().engine;
        assert!(!state.is_empty(), "{n}");
    }
    assert!(begun.elapsed() < PATIENCE);
    for (n, query) in (0..).zip(&mut queries) {
        let there = "SELECT count(*) FROM task WHERE project = ?1";
        let there: Value = home.other.query_row(there, [n], |row| row.get(0)).unwrap();
        while column(query).await != [there.clone()] {}
    }
}
