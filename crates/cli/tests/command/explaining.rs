//! `explain`: from the file alone, as text and as JSON.

use crate::harness::{Home, Ran, run, sql, syncline};

fn explain(args: &[&str]) -> Ran {
    run(syncline(&[&["explain"], args].concat()))
}

#[test]
fn a_row_tells_what_it_waits_for_and_what_would_help() {
    let home = Home::new();
    let family = "INSERT INTO project VALUES ('p1', 'home');
                  INSERT INTO task VALUES ('t1', 'milk', 0, 'p1');";
    let db = home.attached("a.db", family, "http://127.0.0.1:1");
    let told = explain(&[&db, "task", "t1"]).expect_code(0).stdout;
    for part in [
        "task t1 is not synced",
        "waits for project p1",
        &format!("try: syncline explain {db} project p1"),
        "no process is syncing this database",
        &format!("try: syncline run {db}"),
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    sql(&db, "DROP TRIGGER syncline_capture_task_after_update");
    let json = explain(&[&db, "task", "t1", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(json["synced"], false);
    assert_eq!(json["obstacles"][0]["code"], "escaped-capture");
    assert_eq!(json["mutations"][0]["op"], "create");
}

#[test]
fn what_is_not_synced_at_all_is_an_error_that_names_the_types() {
    let home = Home::new();
    let db = home.attached("a.db", "", "http://127.0.0.1:1");
    let ran = explain(&[&db, "tusk", "t1"]).expect_code(1);
    assert!(
        ran.stderr.contains("member, project, task"),
        "{}",
        ran.stderr
    );
}
