//! The oldest SQLite that may write attached tables, in a process of its own: it leaves the same
//! mutations and bases as the engine's own SQLite.

use crate::random::{ROWS, TABLES, TOUCH, sql};
use crate::support::{bases, check_tables, outbox, prepare, run, settle};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use rusqlite::Connection;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// What `cargo xtask test` built; built here if that did not run.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(built) = std::env::var_os("SYNCLINE_OLD_SQLITE") {
        return built.into();
    }
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old-sqlite/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path", package])
        .arg("--target-dir")
        .arg(target)
        .status();
    assert!(built.unwrap().success(), "{package} does not build");
    let name = format!("old-sqlite{}", std::env::consts::EXE_SUFFIX);
    target.join("debug").join(name)
});

fn run_old(file: &Path, sql: &str) {
    let mut child = Command::new(&*PROGRAM)
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(sql.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{sql}");
}

/// All rows of the app's tables, with the type of each value.
fn rows(conn: &Connection, tables: &[&str]) -> Vec<String> {
    let mut rows = Vec::new();
    for table in tables {
        let select = format!("SELECT * FROM {table} ORDER BY 1, 2");
        let mut statement = conn.prepare(&select).unwrap();
        let columns = statement.column_count();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let values: Vec<_> = (0..columns).map(|n| row.get_ref(n).unwrap()).collect();
            rows.push(format!("{table} {values:?}"));
        }
    }
    rows
}

/// Lets both libraries run the script on copies of one file, and compares what they leave.
fn same(ddl: &str, given: &str, script: &str, tables: &[&str]) -> Vec<String> {
    let script = &format!("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY; {script}");
    let folder = tempfile::tempdir().unwrap();
    let (new, old) = (folder.path().join("new.db"), folder.path().join("old.db"));
    let mut conn = Connection::open(&new).unwrap();
    prepare(&mut conn, ddl);
    run(&conn, given);
    settle(&conn);
    conn.close().unwrap();
    std::fs::copy(&new, &old).unwrap();
    run(&Connection::open(&new).unwrap(), script);
    run_old(&old, script);
    let [new, old] = [&new, &old].map(|file| {
        let conn = Connection::open(file).unwrap();
        check_tables(&conn);
        (outbox(&conn), bases(&conn), rows(&conn, tables))
    });
    for (new, old) in new.0.iter().zip(&old.0) {
        assert_eq!(old, new);
    }
    assert_eq!(old, new);
    old.0
}

#[test]
fn it_is_the_stated_minimum() {
    let output = Command::new(&*PROGRAM).arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    assert!(version.starts_with("3.38."), "{version}");
}

const DDL: &str = "
    CREATE TABLE task (
        id TEXT PRIMARY KEY, title TEXT UNIQUE, price REAL, extra,
        loud TEXT AS (upper(title)), twice AS (price * 2) STORED);
    CREATE TABLE step (
        id INTEGER PRIMARY KEY, n ANY, task TEXT REFERENCES task ON DELETE CASCADE ON UPDATE CASCADE
    ) STRICT;
    CREATE TABLE pair (a BLOB, b INTEGER, v, PRIMARY KEY (b, a)) WITHOUT ROWID;
    CREATE TABLE cell (id INTEGER PRIMARY KEY, v, r REAL);";

const GIVEN: &str = "
    INSERT INTO task (id, title, price, extra) VALUES ('g', 'given', 0.1, x'00'), ('h', 'here', 1e22, 'x');
    INSERT INTO step VALUES (1, 1.0, 'g'), (2, 'text', 'g'), (3, x'ff', 'h');
    INSERT INTO pair VALUES (x'01', 1, 0.3), (x'', -1, 'v');";

const SCRIPT: &str = r#"
    PRAGMA foreign_keys = ON;
    INSERT INTO task (id, title, price, extra)
        VALUES ('a', 'größe "quoted" \ 😀', 0.1, x'00ff'), ('12', 'b', 1e300, NULL), ('[1]', '', -0.0, '');
    INSERT INTO step (n, task) VALUES (9007199254740993, 'a'), (0.1 + 0.2, 'a'), (NULL, NULL);
    UPDATE task SET title = title || '!', price = price WHERE id = 'a';
    UPDATE task SET extra = char(1, 9, 10, 13, 127, 8232) WHERE id = 'a';
    REPLACE INTO task (id, title, price, extra) VALUES ('12', 'b', 1e300, 1.0);
    REPLACE INTO task (id, title, price, extra) VALUES ('n', 'b', -9e999, 9223372036854775807);
    INSERT OR IGNORE INTO task (id, title) VALUES ('n', 'z'), ('o', 'o');
    INSERT INTO task (id, title) VALUES ('n', 'refused');
    INSERT OR FAIL INTO task (id, title) VALUES ('p', 'p'), ('n', 'z'), ('q', 'q');
    INSERT INTO task (id, title, price) VALUES ('n', 'z', 1)
        ON CONFLICT (id) DO UPDATE SET price = excluded.price + 1.5, extra = -9223372036854775808;
    INSERT INTO task (id, title) VALUES ('u', 'o') ON CONFLICT (title) DO UPDATE SET id = 'moved';
    INSERT INTO task (id, title) VALUES ('u', 'p') ON CONFLICT DO NOTHING;
    UPDATE OR REPLACE task SET title = 'p' WHERE id = 'n';
    UPDATE task SET id = 'm' WHERE id = 'n';
    UPDATE task SET id = 'hh' WHERE id = 'h';
    UPDATE task SET price = price + 1 FROM step WHERE step.task = task.id AND step.id = 3;
    INSERT INTO step (task) VALUES ('nobody');
    INSERT INTO step (n, task) VALUES (1, x'00');
    UPDATE step SET id = id + 100;
    UPDATE step SET rowid = 7 WHERE id = 101;
    INSERT INTO pair VALUES (x'02', 9223372036854775807, 4.9e-324), (x'02', -9223372036854775808, 5);
    REPLACE INTO pair VALUES (x'01', 1, 1e-5), (x'03', 3, 3) RETURNING v;
    UPDATE pair SET b = b + 1, a = a || x'00' WHERE b IN (1, -1);
    DELETE FROM pair WHERE b = 3;
    INSERT INTO pair VALUES (x'02', 9223372036854775807, 6) ON CONFLICT (b, a) DO UPDATE SET v = excluded.v;
    BEGIN; INSERT INTO cell VALUES (1, 1.0, 1); SAVEPOINT s; INSERT INTO cell VALUES (2, 2, 2);
    ROLLBACK TO s; UPDATE cell SET v = 1 WHERE id = 1; RELEASE s; COMMIT;
    BEGIN; DELETE FROM task; ROLLBACK;
    SAVEPOINT t; INSERT INTO cell (v, r) VALUES (9e999, 1e23), (123456789012345678, 2.5e-308); RELEASE t;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
        INSERT INTO cell (v, r) SELECT 1.0 / i, i * 0.1 FROM n;
    UPDATE cell SET v = v / 3, r = -r WHERE id % 3 = 0;
    DELETE FROM cell WHERE id % 5 = 0;
    DELETE FROM task WHERE id IN ('a', 'g');
    PRAGMA recursive_triggers = ON;
    REPLACE INTO task (id, title) VALUES ('w', 'p');
    DELETE FROM task;
"#;

#[test]
fn a_wide_script_leaves_the_same() {
    let entries = same(DDL, GIVEN, SCRIPT, &["task", "step", "pair", "cell"]);
    let starting = |start: &str| entries.iter().filter(|e| e.starts_with(start)).count();
    for kind in ["task", "step", "pair", "cell"] {
        for op in ["create", "update", "delete"] {
            assert!(starting(&format!("{op} {kind}/")) > 0, "{op} {kind}");
        }
    }
    assert!(starting("create cell/") > 300);
}

#[test]
fn random_scripts_leave_the_same() {
    let mut runner = TestRunner::deterministic();
    let ddl = format!("{TABLES}{TOUCH}");
    for recursive in ["OFF", "ON"] {
        let mut script =
            format!("PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = {recursive}");
        for _ in 0..600 {
            script += ";\n";
            script += &sql().new_tree(&mut runner).unwrap().current();
        }
        let entries = same(
            &ddl,
            ROWS,
            &script,
            &["team", "player", "tag", "item", "audit"],
        );
        assert!(entries.len() > 300, "{}", entries.len());
    }
}
