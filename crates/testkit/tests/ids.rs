//! Stories of ids: two devices choose the same one, or the server chooses.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline::Notice;
use syncline_testkit::{Fault, World};

/// Keys as SQLite assigns them. `remark` refers to a task without saying so in the schema.
const SCHEMA: &str = "
    CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE task (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT,
                       project INTEGER NOT NULL REFERENCES project(id),
                       parent INTEGER REFERENCES task(id));
    CREATE TABLE step (task INTEGER NOT NULL REFERENCES task(id), number INTEGER NOT NULL, what TEXT,
                       PRIMARY KEY (task, number)) WITHOUT ROWID;
    CREATE TABLE remark (id TEXT PRIMARY KEY NOT NULL, about INTEGER, body TEXT);";

const REFERENCES: &str = r#"{"references":[{"columns":["about"],"table":"task"}]}"#;

fn world(devices: &[&str]) -> World {
    let mut world = World::new(SCHEMA);
    for name in devices {
        let options = serde_json::from_str(REFERENCES).unwrap();
        let declared = [("remark".to_owned(), options)].into();
        world.device_declared(name, SCHEMA, declared);
    }
    world
}

/// A project with two tasks, one under the other, with a step and a remark each: what an app writes
/// in one transaction, with the ids that SQLite gives it.
fn project(what: &str) -> String {
    format!(
        "BEGIN IMMEDIATE;
         INSERT INTO project (name) VALUES ('{what}');
         INSERT INTO task (title, project) VALUES ('{what} one', last_insert_rowid());
         INSERT INTO step SELECT id, 1, '{what} step' FROM task WHERE title = '{what} one';
         INSERT INTO remark SELECT '{what}', id, '{what} remark' FROM task WHERE title = '{what} one';
         INSERT INTO task (title, project, parent) SELECT '{what} two', project, id FROM task WHERE title = '{what} one';
         COMMIT;"
    )
}

fn write_project(world: &mut World, name: &str, what: &str) {
    world.sql(name, &project(what));
}

/// Everything, by names instead of ids.
const TREE: &str = "
    SELECT p.name || ': ' || t.title || ' < ' || coalesce((SELECT title FROM task WHERE id = t.parent), '-')
           || ', ' || coalesce((SELECT group_concat(what) FROM step WHERE task = t.id), '-')
           || ', ' || coalesce((SELECT group_concat(body) FROM remark WHERE about = t.id), '-')
      FROM task t JOIN project p ON p.id = t.project ORDER BY 1";

fn tree_of(what: &str) -> [String; 2] {
    [
        format!("{what}: {what} one < -, {what} step, {what} remark"),
        format!("{what}: {what} two < {what} one, -, -"),
    ]
}

fn assert_trees(world: &mut World, devices: &[&str], whats: &[&str]) {
    world.assert_converged();
    let mut expected: Vec<String> = whats.iter().flat_map(|what| tree_of(what)).collect();
    expected.sort();
    for name in devices {
        assert_eq!(world.rows(name, TREE), expected, "{name}");
        world.assert_equals_server(name);
    }
}

#[test]
fn two_devices_that_choose_the_same_ids_offline_end_with_both_rows_everywhere() {
    let mut world = world(&["Alice", "Bob"]);
    write_project(&mut world, "Alice", "house");
    write_project(&mut world, "Bob", "garden");
    let before = world.rows("Bob", "SELECT id FROM project");
    assert_eq!(before, world.rows("Alice", "SELECT id FROM project"));
    world.run_until_quiet();
    assert_trees(&mut world, &["Alice", "Bob"], &["house", "garden"]);

    let changed = |n: &Notice| matches!(n, Notice::IdChanged { entity_type, .. } if entity_type.as_str() == "project");
    let told = |world: &mut World, name| {
        world
            .get(name)
            .notices
            .iter()
            .filter(|n| changed(n))
            .count()
    };
    assert_eq!((told(&mut world, "Alice"), told(&mut world, "Bob")), (0, 1));
    let now = world.rows("Bob", "SELECT id FROM project WHERE name = 'garden'");
    let found = world.current_id("Bob", "project", &before[0]);
    assert_eq!(now, [found], "the old id can be looked up");
    let rows = world.rows(
        "Bob",
        "SELECT new_id FROM syncline_id_map WHERE entity_type = 'project'",
    );
    assert_eq!(rows, now);
}

#[test]
fn ids_that_change_again_and_again_are_still_found_by_the_first_one() {
    let mut world = world(&["Alice", "Bob"]);
    write_project(&mut world, "Bob", "garden");
    // Alice is ahead each time by as many ids as Bob's row jumps; he pulls, but cannot push.
    for what in ["house", "car", "boat"] {
        write_project(&mut world, "Alice", what);
        world.sync("Alice");
        world.pull_only("Bob");
    }
    world.online("Bob");
    world.run_until_quiet();
    assert_trees(
        &mut world,
        &["Alice", "Bob"],
        &["house", "car", "boat", "garden"],
    );
    let now = world.rows("Bob", "SELECT id FROM project WHERE name = 'garden'");
    assert_eq!(now, [world.current_id("Bob", "project", "1")]);
}

#[test]
fn edits_children_and_deletes_made_before_the_answer_arrive_under_the_new_id() {
    let mut world = world(&["Alice", "Bob"]);
    world.run_until_quiet();
    write_project(&mut world, "Alice", "house");
    world.sync("Alice");
    world.sql(
        "Bob",
        "INSERT INTO project (name) VALUES ('garden'), ('pond')",
    );
    // The push is held on its way: what is written now meets rows that may have been sent.
    world.hold_push("Bob");
    world.sql(
        "Bob",
        "UPDATE project SET name = 'kitchen garden' WHERE name = 'garden';
         INSERT INTO task (title, project) SELECT 'dig', id FROM project WHERE name = 'kitchen garden';
         INSERT INTO remark SELECT 'r', id, 'deep' FROM task WHERE title = 'dig';
         DELETE FROM project WHERE name = 'pond'",
    );
    world.release("Bob");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(
        world.rows("Alice", "SELECT name FROM project ORDER BY name"),
        ["house", "kitchen garden"]
    );
    let dig = "SELECT p.name || ' ' || r.body FROM task t JOIN project p ON p.id = t.project
                 JOIN remark r ON r.about = t.id WHERE t.title = 'dig'";
    assert_eq!(world.rows("Alice", dig), ["kitchen garden deep"]);
}

#[test]
fn a_lost_answer_changes_nothing_about_it() {
    for fault in [Fault::LoseAnswer, Fault::LoseRequest, Fault::Repeat] {
        let mut world = world(&["Alice", "Bob"]);
        world.run_until_quiet();
        write_project(&mut world, "Alice", "house");
        world.sync("Alice");
        write_project(&mut world, "Bob", "garden");
        world.fault("Bob", fault);
        world.run_until_quiet();
        assert_trees(&mut world, &["Alice", "Bob"], &["house", "garden"]);
    }
}

/// The feed brings the row under the id that the server chose, before the answer is there that says so.
#[test]
fn a_row_that_the_feed_brings_before_its_answer_stands_once() {
    let mut world = world(&["Alice", "Bob"]);
    world.run_until_quiet();
    write_project(&mut world, "Alice", "house");
    world.sync("Alice");
    write_project(&mut world, "Bob", "garden");
    world.fault("Bob", Fault::LoseAnswer);
    world.sync("Bob");
    world.pull_only("Bob");
    let names = "SELECT name FROM project ORDER BY name";
    assert_eq!(world.rows("Bob", names), ["garden", "house"]);
    let all = [tree_of("garden"), tree_of("house")].concat();
    assert_eq!(world.rows("Bob", TREE), all);
    let edit = "UPDATE project SET name = 'yard' WHERE name = 'garden';
                UPDATE task SET title = replace(title, 'garden', 'yard')";
    world.sql("Bob", edit);
    world.run_until_quiet();
    for name in ["Alice", "Bob"] {
        assert_eq!(world.rows(name, names), ["house", "yard"]);
    }
    world.assert_converged();
}

#[test]
fn a_deleted_rows_id_that_sqlite_gives_again_is_another_row() {
    let mut world = world(&["Alice", "Bob"]);
    world.sql("Alice", "INSERT INTO project (name) VALUES ('house')");
    world.run_until_quiet();
    world.sql("Bob", "UPDATE project SET name = 'big house'");
    world.sql(
        "Alice",
        "DELETE FROM project; INSERT INTO project (name) VALUES ('garden')",
    );
    let ids = world.rows("Alice", "SELECT id FROM project");
    assert_eq!(ids, ["1"], "SQLite gives the id again");
    world.sync("Bob");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT name FROM project"), ["garden"]);
}

/// Found by the simulator (seed 13 of its first day): the new row took the deleted one's place on the
/// server, and went with it when the other device's deletion arrived.
#[test]
fn a_row_under_the_id_of_one_that_both_deleted_is_another_row() {
    for together in [true, false] {
        for offline in ["Alice", "Bob"] {
            let mut world = world(&["Alice", "Bob"]);
            world.sql("Alice", "INSERT INTO project (name) VALUES ('house')");
            world.run_until_quiet();
            world.sql("Bob", "DELETE FROM project");
            world.sql("Alice", "DELETE FROM project");
            if !together {
                world.offline("Bob");
                world.sync("Alice");
                world.online("Bob");
            }
            world.sql("Alice", "INSERT INTO project (name) VALUES ('garden')");
            let other = if offline == "Alice" { "Bob" } else { "Alice" };
            world.sync(other);
            world.run_until_quiet();
            world.assert_converged();
            for name in ["Alice", "Bob"] {
                let names = world.rows(name, "SELECT name FROM project");
                assert_eq!(names, ["garden"], "{name}: {together}, {offline}");
            }
        }
    }
}

#[test]
fn rows_uploaded_when_attached_are_the_same_if_equal_and_others_if_not() {
    let mut world = World::new("CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT)");
    let both = "INSERT INTO project VALUES (1, 'house')";
    world.device_existing("Alice", both, syncline::Existing::Upload);
    let more = format!("{both}, (2, 'garden')");
    world.device_existing("Bob", &more, syncline::Existing::Upload);
    world.sql("Alice", "INSERT INTO project VALUES (2, 'pond')");
    world.run_until_quiet();
    world.assert_converged();
    let names = world.rows("Alice", "SELECT name FROM project ORDER BY name");
    assert_eq!(names, ["garden", "house", "pond"]);
}

#[test]
fn autoincrement_does_not_choose_an_id_again_that_a_row_got_otherwise() {
    let mut world = world(&["Alice", "Bob"]);
    write_project(&mut world, "Alice", "house");
    world.sync("Alice");
    write_project(&mut world, "Bob", "garden");
    world.run_until_quiet();
    let greatest = world.rows("Bob", "SELECT max(id) FROM task");
    world.sql(
        "Bob",
        "DELETE FROM step; DELETE FROM task WHERE id = (SELECT max(id) FROM task)",
    );
    write_project(&mut world, "Bob", "pond");
    let next = world.rows("Bob", "SELECT min(id) FROM task WHERE title LIKE 'pond%'");
    let number = |rows: &[String]| rows[0].parse::<i64>().unwrap();
    assert!(number(&next) > number(&greatest), "{next:?} {greatest:?}");
}

#[test]
fn another_connection_goes_on_writing_while_ids_change() {
    let mut world = world(&["Alice", "Bob"]);
    let path = world.path("Bob");
    let writer = std::thread::spawn(move || {
        let conn = syncline::rusqlite::Connection::open(path).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(20))
            .unwrap();
        conn.pragma_update(None, "synchronous", "OFF").unwrap();
        for n in 0..30 {
            conn.execute_batch(&project(&format!("b{n}"))).unwrap();
        }
    });
    for n in 0..15 {
        write_project(&mut world, "Alice", &format!("a{n}"));
        world.sync("Alice");
        world.sync("Bob");
    }
    writer.join().unwrap();
    world.run_until_quiet();
    let names = |prefix: &str, count: usize| (0..count).map(|n| format!("{prefix}{n}")).collect();
    let all: [Vec<String>; 2] = [names("a", 15), names("b", 30)];
    let all = all.concat();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_trees(&mut world, &["Alice", "Bob"], &all);
}

#[test]
fn ids_that_the_server_assigns_reach_the_rows_and_their_children() {
    let schema = "
        CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE page (id TEXT PRIMARY KEY NOT NULL, body TEXT,
                           project INTEGER REFERENCES project(id), above TEXT REFERENCES page(id));";
    for fault in [None, Some(Fault::LoseAnswer), Some(Fault::LoseRequest)] {
        let mut world = World::new(schema);
        for name in ["Alice", "Bob"] {
            let server = || serde_json::from_str(r#"{"id_mode":"server"}"#).unwrap();
            let options = ["project", "page"].map(|table| (table.to_owned(), server()));
            world.device_declared(name, schema, options.into());
        }
        world.run_until_quiet();
        for name in ["Alice", "Bob"] {
            world.sql(
                name,
                &format!(
                    "INSERT INTO project VALUES (7, '{name}');
                     INSERT INTO page VALUES ('top', '{name} top', 7, NULL), ('sub', '{name} sub', 7, 'top');
                     UPDATE page SET body = body || '!' WHERE id = 'sub'"
                ),
            );
            if let Some(fault) = &fault {
                world.fault(name, fault.clone());
            }
        }
        world.run_until_quiet();
        world.assert_converged();
        let tree = "SELECT p.name || ': ' || g.body || ' < ' || coalesce((SELECT body FROM page WHERE id = g.above), '-')
                      FROM page g JOIN project p ON p.id = g.project ORDER BY 1";
        let expected = [
            "Alice: Alice sub! < Alice top",
            "Alice: Alice top < -",
            "Bob: Bob sub! < Bob top",
            "Bob: Bob top < -",
        ];
        for name in ["Alice", "Bob"] {
            assert_eq!(world.rows(name, tree), expected, "{name} {fault:?}");
            world.assert_equals_server(name);
            let kept = "SELECT count(*) FROM page WHERE id IN ('top', 'sub')";
            assert_eq!(world.rows(name, kept), ["0"], "they were temporary names");
            let own = format!("SELECT id FROM page WHERE body = '{name} top'");
            let own = world.rows(name, &own);
            assert_eq!(own, [world.current_id(name, "page", "top")]);
        }
    }
}

#[test]
fn an_edit_of_a_child_that_waits_for_its_parent_is_not_lost() {
    let mut world = World::new(
        "CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL);
         CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT,
                            project TEXT REFERENCES project(id));",
    );
    world.device("Alice");
    world.sql(
        "Alice",
        "INSERT INTO project VALUES ('p');
         INSERT INTO task VALUES ('t', 'milk', 'p');
         UPDATE task SET title = 'oat milk'",
    );
    world.run_until_quiet();
    world.assert_converged();
    world.assert_equals_server("Alice");
}

#[test]
fn of_two_references_to_a_row_with_another_id_the_one_that_is_left_follows() {
    let schema = "
        CREATE TABLE place (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE way (id TEXT PRIMARY KEY NOT NULL, start INTEGER REFERENCES place(id),
                          finish INTEGER REFERENCES place(id));";
    let mut world = World::new(schema);
    for name in ["Alice", "Bob"] {
        world.device(name);
    }
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO place VALUES (1, 'square')");
    world.sync("Alice");
    world.sql(
        "Bob",
        "INSERT INTO place VALUES (1, 'station'), (2, 'school');
         INSERT INTO way VALUES ('w', 1, 1);
         UPDATE way SET start = 2",
    );
    world.run_until_quiet();
    world.assert_converged();
    let ways = "SELECT (SELECT name FROM place WHERE id = start) || ' to ' || (SELECT name FROM place WHERE id = finish) FROM way";
    for name in ["Alice", "Bob"] {
        assert_eq!(world.rows(name, ways), ["school to station"], "{name}");
        world.assert_equals_server(name);
    }
}

/// The create may have been sent with the reference to the row itself, and the edit that empties it came after.
#[test]
fn a_reference_to_the_row_itself_stays_empty_when_the_row_gets_another_id() {
    let mut world = World::new(
        "CREATE TABLE place (id INTEGER PRIMARY KEY, within INTEGER REFERENCES place(id));",
    );
    for name in ["Alice", "Bob"] {
        world.device(name);
    }
    world.run_until_quiet();
    world.sql("Alice", "INSERT INTO place VALUES (1, NULL)");
    world.sync("Alice");
    world.sql("Bob", "INSERT INTO place VALUES (1, 1)");
    world.fault("Bob", Fault::LoseAnswer);
    world.sync("Bob");
    world.sql("Bob", "UPDATE place SET within = NULL");
    world.run_until_quiet();
    world.assert_converged();
    world.assert_equals_server("Bob");
    let within = "SELECT count(*) || ' ' || count(within) FROM place";
    assert_eq!(world.rows("Alice", within), ["2 0"]);
}
