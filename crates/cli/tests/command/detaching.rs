//! Detaching: never while work is pending, and without a trace.

use crate::harness::{Home, Server, rows, run, schema, sql, syncline, with_token};

#[test]
fn the_schema_is_as_before() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let db = home.database(
        "a.db",
        "INSERT INTO task VALUES ('t1', 'milk', 0, NULL);
         CREATE TRIGGER own AFTER UPDATE ON task BEGIN SELECT 1; END;",
    );
    let before = (schema(&db), rows(&db));
    run(syncline(&["attach", &db, "--remote", &server.url, "--all"])).expect_code(0);
    assert_ne!(schema(&db), before.0);

    let bytes = std::fs::read(&db).unwrap();
    let ran = run(syncline(&["detach", &db, "--json"])).expect_code(1);
    assert_eq!(ran.json()["error"]["code"], "work-pending");
    assert!(
        ran.stderr.contains("1 mutation") && ran.stderr.contains("--force"),
        "{ran:?}"
    );
    assert_eq!(std::fs::read(&db).unwrap(), bytes);

    with_token(&server, &["sync", &db]).expect_code(0);
    let ran = run(syncline(&["detach", &db, "--json"])).expect_code(0);
    assert_eq!(ran.json()["dropped"], 0);
    assert_eq!((schema(&db), rows(&db)), before);
    run(syncline(&["status", &db])).expect_code(1);
}

#[test]
fn force_drops_what_is_pending() {
    let home = Home::new();
    let db = home.database("a.db", "INSERT INTO task VALUES ('t1', 'milk', 0, NULL)");
    let before = schema(&db);
    run(syncline(&[
        "attach",
        &db,
        "--remote",
        "http://127.0.0.1:1",
        "--all",
    ]))
    .expect_code(0);
    sql(&db, "UPDATE task SET done = 1");
    let ran = run(syncline(&["detach", &db, "--force"])).expect_code(0);
    assert!(ran.stdout.contains("dropped 2 mutations"), "{ran:?}");
    assert_eq!(schema(&db), before);
    assert_eq!(rows(&db).len(), 1);
    // It can be attached anew, elsewhere.
    run(syncline(&[
        "attach",
        &db,
        "--remote",
        "http://127.0.0.1:2",
        "--all",
    ]))
    .expect_code(0);
}
