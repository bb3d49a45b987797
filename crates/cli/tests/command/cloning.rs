//! `clone`: the same tables and rows on another device, from nothing but an address and a token.

use crate::harness::{Home, Server, rows, run, sql, syncline, with_token};

#[test]
fn a_second_device_gets_tables_and_rows_and_can_write() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached(
        "a.db",
        "INSERT INTO project VALUES ('p1', 'home');
         INSERT INTO task VALUES ('t1', 'milk', 0, 'p1');
         INSERT INTO member VALUES ('p1', 9007199254740993, 0.1);",
        &server.url,
    );
    with_token(&server, &["sync", &a]).expect_code(0);
    let path = home.path("b.db");
    let b = path.to_str().unwrap();
    let cloned = with_token(&server, &["clone", &server.url, b, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(cloned["pulled"], 3);
    assert_eq!(rows(&a), rows(b));
    sql(
        b,
        "UPDATE task SET done = 1; INSERT INTO task (id, project) VALUES ('t2', 'p1')",
    );
    with_token(&server, &["sync", b]).expect_code(0);
    with_token(&server, &["sync", &a]).expect_code(0);
    assert_eq!(rows(&a), rows(b));
    // Its foreign keys and defaults came along.
    let conn = rusqlite::Connection::open(b).unwrap();
    conn.pragma_update(None, "foreign_keys", true).unwrap();
    assert!(
        conn.execute("INSERT INTO task VALUES ('x', '', 0, 'nothing')", [])
            .is_err()
    );
    // An existing file is never touched.
    let before = std::fs::read(b).unwrap();
    let again = with_token(&server, &["clone", &server.url, b, "--json"]).expect_code(1);
    assert_eq!(again.json()["error"]["code"], "exists");
    assert_eq!(std::fs::read(b).unwrap(), before);
}

#[test]
fn a_failed_clone_leaves_nothing_behind() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let inside = |folder: &std::path::Path| std::fs::read_dir(folder).unwrap().count();
    let target = home.path("new");
    std::fs::create_dir(&target).unwrap();
    let path = target.join("b.db");
    let b = path.to_str().unwrap();
    let nothing = with_token(&server, &["clone", &server.url, b, "--json"]).expect_code(1);
    assert_eq!(nothing.json()["error"]["code"], "nothing-to-clone");
    with_token(&server, &["clone", "http://127.0.0.1:1", b]).expect_code(11);
    run(syncline(&["clone", &server.url, b])).expect_code(12);
    assert_eq!(inside(&target), 0);
}
