//! Two devices and a server: what plain SQL writes on one arrives on the other.

use crate::harness::{Home, Server, rows, run, sql, syncline, value, with_token};

#[test]
fn two_devices_agree_after_offline_edits() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached(
        "a.db",
        "INSERT INTO project VALUES ('p1', 'home'), ('p2', 'work');
         INSERT INTO task VALUES ('t1', 'milk', 0, 'p1'), ('t2', 'bread', 0, 'p1');
         INSERT INTO member VALUES ('p1', 9007199254740993, 0.1), ('p1', 2, 1e300);",
        &server.url,
    );
    let b = home.attached("b.db", "", &server.url);

    let first = with_token(&server, &["sync", &a, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(first["pushed"], 6);
    let second = with_token(&server, &["sync", &b, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(second["pulled"], 6);
    assert_eq!(rows(&a), rows(&b));

    // Both are offline; nobody here has Syncline loaded.
    sql(
        &a,
        "UPDATE task SET title = 'oat milk' WHERE id = 't1';
             INSERT INTO project VALUES ('p3', 'new'); INSERT INTO task VALUES ('t3', 'x', 0, 'p3');
             UPDATE member SET share = 0.25 WHERE person = 2;",
    );
    sql(
        &b,
        "UPDATE task SET done = 1 WHERE id = 't1'; DELETE FROM task WHERE id = 't2';
             INSERT INTO member VALUES ('p2', -1, NULL);",
    );
    for db in [&a, &b, &a, &b] {
        with_token(&server, &["sync", db]).expect_code(0);
    }
    assert_eq!(rows(&a), rows(&b));
    let merged = value(&a, "SELECT title || done FROM task WHERE id = 't1'");
    assert_eq!(merged, "oat milk1");
}

#[test]
fn existing_rows_can_be_adopted() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)",
        &server.url,
    );
    with_token(&server, &["sync", &a]).expect_code(0);
    let b = home.database(
        "b.db",
        "INSERT INTO task VALUES ('t1', 'old', 0, NULL), ('mine', 'only here', 0, NULL)",
    );
    let attach = [
        "attach",
        &b,
        "--remote",
        &server.url,
        "--all",
        "--existing",
        "adopt",
        "--json",
    ];
    let attached = run(syncline(&attach)).expect_code(0).json();
    assert_eq!(attached["uploads"], 0);
    with_token(&server, &["sync", &b]).expect_code(0);
    with_token(&server, &["sync", &a]).expect_code(0);
    assert_eq!(rows(&a), rows(&b));
    assert_eq!(rows(&a).len(), 2);
}

#[test]
fn attach_tells_what_it_did() {
    let home = Home::new();
    let db = home.database("a.db", "INSERT INTO task VALUES ('t1', 'milk', 0, NULL);");
    sql(
        &db,
        "CREATE TABLE loose (id TEXT PRIMARY KEY, x); INSERT INTO loose VALUES (NULL, 1), ('ok', 2);
         CREATE TRIGGER again AFTER UPDATE ON loose BEGIN UPDATE loose SET x = 0; END;",
    );
    let url = "http://127.0.0.1:1";
    let attach = [
        "attach", &db, "--remote", url, "--table", "task", "--table", "TASK", "--table", "loose",
    ];
    let ran = run(syncline(&attach)).expect_code(0);
    assert!(
        ran.stdout.contains("2 rows recorded to be uploaded"),
        "{ran:?}"
    );
    assert!(
        ran.stdout.contains("cannot be synced") && ran.stdout.contains("loose"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("will not follow: project"), "{ran:?}");
    assert!(
        ran.stdout
            .contains("that are held off while the engine applies: again"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr, "");
    // Again, and more of it: only what is new is done. A slash at the end is the same address.
    let slash = format!("{url}/");
    let again = run(syncline(&[
        "attach", &db, "--remote", &slash, "--all", "--json",
    ]))
    .expect_code(0);
    assert_eq!(
        again.json()["tables"],
        serde_json::json!(["member", "project"])
    );
    assert_eq!(again.json()["uploads"], 0);
}

#[test]
fn a_policy_decides_conflicts() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)",
        &server.url,
    );
    with_token(&server, &["sync", &a]).expect_code(0);
    let b = home.database("b.db", "");
    let attach = [
        "attach",
        &b,
        "--remote",
        &server.url,
        "--all",
        "--policy",
        "server-wins",
    ];
    run(syncline(&attach)).expect_code(0);
    with_token(&server, &["sync", &b]).expect_code(0);
    sql(&a, "UPDATE task SET title = 'theirs'");
    sql(&b, "UPDATE task SET title = 'mine'");
    with_token(&server, &["sync", &a]).expect_code(0);
    with_token(&server, &["sync", &b]).expect_code(0);
    with_token(&server, &["sync", &a]).expect_code(0);
    assert_eq!(rows(&a), rows(&b));
    assert_eq!(value(&b, "SELECT title FROM task"), "theirs");
}
