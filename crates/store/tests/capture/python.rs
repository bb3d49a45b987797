//! The app in another language: Python's own sqlite3 module, another library and an older one,
//! writes the file in its own process, without any of Syncline's code.

use crate::support::{bases, check_tables, outbox, prepare};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use rusqlite::Connection;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use syncline_protocol::Value;
use syncline_store::captured::{self, BaseState};

/// Runs a Python script with the connection `c` in autocommit mode; false if there is no Python.
fn python(file: &Path, script: &str) -> bool {
    let child = Command::new("python3")
        .args(["-c", "import sys; exec(sys.stdin.read())"])
        .arg(file)
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("no python3 here: nothing was tested");
        return false;
    };
    let head = "import sqlite3, struct\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n";
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(head.as_bytes()).unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{script}");
    true
}

fn file(ddl: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    prepare(&mut Connection::open(&path).unwrap(), ddl);
    (folder, path)
}

const TASK: &str = "
    CREATE TABLE task (id TEXT PRIMARY KEY, title TEXT UNIQUE, price REAL, extra);
    CREATE TABLE step (id INTEGER PRIMARY KEY, task TEXT REFERENCES task ON DELETE CASCADE);";

#[test]
fn every_kind_of_statement_is_captured() {
    let (_folder, path) = file(TASK);
    let script = r#"
for sql in [
    "PRAGMA foreign_keys = ON",
    "INSERT INTO task VALUES ('a', 'größe', 0.1, x'00ff'), ('12', 'b', 1e300, NULL)",
    "INSERT INTO step (task) VALUES ('a')",
    "UPDATE task SET title = title || '!', price = price WHERE id = 'a'",
    "REPLACE INTO task VALUES ('12', 'b', 1e300, 1.0)",
    "REPLACE INTO task VALUES ('n', 'b', -9e999, 9223372036854775807)",
    "INSERT OR IGNORE INTO task VALUES ('n', 'z', 1, 1)",
    "INSERT INTO task VALUES ('n', 'z', 1, 1) ON CONFLICT (id) DO UPDATE SET price = 2.5",
    "UPDATE task SET id = 'm' WHERE id = 'n'",
    "BEGIN", "INSERT INTO step (task) VALUES ('m')", "ROLLBACK",
    "DELETE FROM task WHERE id = 'a'",
]:
    c.execute(sql)
"#;
    if !python(&path, script) {
        return;
    }
    let conn = Connection::open(&path).unwrap();
    assert_eq!(
        outbox(&conn),
        [
            r#"create task/a {"extra":{"$blob":"AP8="},"price":0.1,"title":"größe"}"#,
            r#"create task/"12" {"extra":null,"price":1e+300,"title":"b"}"#,
            r#"create step/1 {"task":"a"}"#,
            r#"update task/a {"title":"größe!"}"#,
            r#"update task/"12" {"extra":1.0}"#,
            r#"delete task/"12""#,
            r#"create task/n {"extra":9223372036854775807,"price":{"$real":"-inf"},"title":"b"}"#,
            r#"update task/n {"price":2.5}"#,
            "delete task/n",
            r#"create task/m {"extra":9223372036854775807,"price":2.5,"title":"b"}"#,
            "delete step/1",
            "delete task/a",
        ]
    );
    assert!(bases(&conn).iter().all(|base| base.ends_with(" absent")));
    check_tables(&conn);
}

#[test]
fn reals_are_exact_to_the_bit() {
    let (_folder, path) = file("CREATE TABLE cell (id INTEGER PRIMARY KEY, v, r REAL);");
    let mut runner = TestRunner::deterministic();
    let strategy = any::<u64>().prop_map(f64::from_bits);
    let usual = -1e6_f64..1e6;
    let reals: Vec<f64> = (0..2000)
        .map(|n| match n % 2 {
            0 => strategy.new_tree(&mut runner).unwrap().current(),
            _ => usual.new_tree(&mut runner).unwrap().current(),
        })
        .filter(|real| !real.is_nan() && *real != 0.0)
        .collect();
    let bits: Vec<String> = reals
        .iter()
        .map(|real| real.to_bits().to_string())
        .collect();
    let script = format!(
        "c.execute('BEGIN')
for n, bits in enumerate([{}]):
    real = struct.unpack('d', struct.pack('Q', bits))[0]
    c.execute('INSERT INTO cell VALUES (?, ?, ?)', (n, real, real))
    c.execute('UPDATE cell SET v = NULL WHERE id = ?', (n,))
    c.execute('DELETE FROM syncline_outbox WHERE entity_id = ? AND op = ?', (str(n), 'update'))
c.execute('COMMIT')
",
        bits.join(", ")
    );
    if !python(&path, &script) {
        return;
    }
    let conn = Connection::open(&path).unwrap();
    for (seq, real) in (1..).zip(&reals) {
        let fields = captured::fields_of_mutation(&conn, seq).unwrap().unwrap();
        for name in ["v", "r"] {
            assert_eq!(fields.get(name), Some(&Value::Real(*real)), "{real:e}");
        }
    }
    // The same for bases: forget the creates, then let Python delete the rows.
    crate::support::settle(&conn);
    conn.execute_batch("UPDATE cell SET v = r").unwrap();
    crate::support::settle(&conn);
    drop(conn);
    python(&path, "c.execute('DELETE FROM cell')\n");
    let conn = Connection::open(&path).unwrap();
    for (id, real) in reals.iter().enumerate() {
        let base = captured::base_of(&conn, "cell", &id.to_string()).unwrap();
        let BaseState::Present(fields) = base else {
            panic!("no base of {id}");
        };
        assert_eq!(fields.get("v"), Some(&Value::Real(*real)), "{real:e}");
    }
}

#[test]
fn views_and_the_recipe_for_groups_work_from_another_language() {
    let (_folder, path) = file(TASK);
    let script = r#"
c.execute("BEGIN IMMEDIATE")
c.execute("CREATE TEMP TABLE IF NOT EXISTS before AS SELECT 0 AS seq")
c.execute("UPDATE before SET seq = (SELECT coalesce(max(seq), 0) FROM syncline_outbox)")
c.execute("INSERT INTO task (id, title) VALUES ('t1', 'milk'), ('t2', 'bread')")
c.execute("UPDATE syncline_outbox SET group_id = 'g1', lane = 0 WHERE seq > (SELECT seq FROM before)")
c.execute("COMMIT")
c.execute("INSERT INTO task (id, title) VALUES ('t3', 'tea')")
c.execute("UPDATE task SET title = 'green tea' WHERE id = 't3'")
grouped = c.execute("SELECT group_id, lane FROM syncline_outbox ORDER BY seq").fetchall()
assert grouped == [('g1', 0), ('g1', 0), (None, None), (None, None)], grouped
error = '{"code":"validation","detail":"no","errors":[{"field":"title","code":"a","detail":"x"},{"field":"price","code":"b","detail":"y"}]}'
c.execute("UPDATE syncline_outbox SET state = 'failed', last_error = ? WHERE entity_id = 't1'", (error,))
c.execute("UPDATE syncline_outbox SET state = 'dead', last_error = '{\"code\":\"hung\",\"detail\":\"z\"}' WHERE entity_id = 't2'")
letters = c.execute("SELECT entity_id, state, code, field, field_detail FROM syncline_dead_letter ORDER BY seq, field").fetchall()
assert letters == [('t1', 'failed', 'validation', 'price', 'y'), ('t1', 'failed', 'validation', 'title', 'x'),
                   ('t2', 'dead', 'hung', None, None)], letters
pending = c.execute("SELECT entity_id, op, waits_for, may_have_been_sent FROM syncline_pending ORDER BY seq").fetchall()
assert pending == [('t3', 'create', None, 0), ('t3', 'update', 'earlier', 0)], pending
c.execute("UPDATE syncline_outbox SET state = 'pending' WHERE entity_id = 't2'")
c.execute("UPDATE syncline_outbox SET depends_on = json_array((SELECT mutation FROM syncline_outbox WHERE entity_id = 't1')) WHERE entity_id = 't3'")
waits = "SELECT entity_id, waits_for FROM syncline_pending ORDER BY seq"
assert c.execute(waits).fetchall() == [('t2', 'group'), ('t3', 'named'), ('t3', 'earlier')], c.execute(waits).fetchall()
# What names itself, something settled, or nothing that can be read waits for nobody.
c.execute("UPDATE syncline_outbox SET depends_on = json_array(mutation, 'settled') WHERE op = 'create' AND entity_id = 't3'")
c.execute("UPDATE syncline_outbox SET depends_on = 'no json' WHERE entity_id = 't2'")
c.execute("UPDATE syncline_outbox SET state = 'pending' WHERE entity_id = 't1'")
assert c.execute(waits).fetchall() == [('t1', None), ('t2', None), ('t3', None), ('t3', 'earlier')], c.execute(waits).fetchall()
c.execute("UPDATE syncline_outbox SET state = 'failed' WHERE entity_id = 't1'")
c.execute("UPDATE syncline_outbox SET state = 'dead' WHERE entity_id = 't2'")
status = c.execute("SELECT pending, failed, dead, open_conflicts FROM syncline_status").fetchone()
assert status == (2, 1, 1, 0), status
states = dict(c.execute("SELECT entity_id, state FROM syncline_row_state"))
assert states == {'t1': 'failed', 't2': 'dead', 't3': 'pending'}, states
"#;
    python(&path, script);
}
