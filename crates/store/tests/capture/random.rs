//! Random SQL: the recorded mutations, applied in order to what was agreed before, give the tables;
//! and every base is the state before the first unsettled mutation.

use crate::constructs::{Setup, met, never_met, run_one};
use crate::support::{check_tables, prepare, run};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use syncline_protocol::{EntityId, Fields, KeyPart, Value};
use syncline_store::captured::{self, BaseState};
use syncline_store::table::{Table, list_tables};

/// Entity type and id to fields: what is agreed, or what the tables hold.
type Rows = BTreeMap<(String, String), Fields>;

pub(crate) const TABLES: &str = "
    CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, touched INTEGER NOT NULL DEFAULT 0, pay REAL);
    CREATE TABLE player (
        nick TEXT, n INTEGER, team INTEGER REFERENCES team ON DELETE CASCADE ON UPDATE CASCADE,
        captain INTEGER REFERENCES team ON DELETE SET NULL ON UPDATE CASCADE, v,
        PRIMARY KEY (n, nick), UNIQUE (team, v)) WITHOUT ROWID;
    CREATE TABLE tag (id BLOB PRIMARY KEY, label TEXT, off INTEGER DEFAULT 0);
    CREATE UNIQUE INDEX tag_label ON tag (lower(label)) WHERE off = 0;
    CREATE TABLE item (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL DEFAULT 'k', size REAL,
        twice REAL AS (size * 2) STORED, UNIQUE (kind, twice)) STRICT;";

/// What apps do: stamp what changed.
pub(crate) const TOUCH: &str = "
    CREATE TRIGGER touch_new AFTER INSERT ON team BEGIN
        UPDATE team SET touched = touched + 1 WHERE id = NEW.id; END;
    CREATE TRIGGER touch AFTER UPDATE OF id, name, pay ON team BEGIN
        UPDATE team SET touched = touched + 1 WHERE id = NEW.id; END;
    CREATE TRIGGER relabel AFTER UPDATE OF label ON tag WHEN NEW.label = 'c' BEGIN
        UPDATE tag SET off = off + 1 WHERE id = NEW.id; END;
    CREATE TABLE audit (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TRIGGER note_item AFTER UPDATE ON item BEGIN
        INSERT INTO audit (what) VALUES (OLD.kind || NEW.kind); END;
    CREATE VIRTUAL TABLE words USING fts5 (label);
    CREATE TRIGGER index_tag AFTER INSERT ON tag BEGIN INSERT INTO words VALUES (NEW.label); END;
    CREATE TRIGGER unindex_tag AFTER DELETE ON tag BEGIN DELETE FROM words WHERE label = OLD.label; END;";

/// What is there at first, so that the first statements meet something.
pub(crate) const ROWS: &str = "
    INSERT INTO team (id, name, pay) VALUES (1, 'a', 0.1), (2, 'b', NULL), (3, 'c', 2);
    INSERT INTO player VALUES ('x', 1, 1, 2, 1), ('y', 2, 2, 1, 2), ('x', 3, 1, 3, 'a');
    INSERT INTO tag VALUES (x'01', 'a', 0), ('t', 'b', 1);
    INSERT INTO item (id, kind, size) VALUES (1, 'k', 1), (2, 'z', 2.5)";

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(choices)
}

fn id() -> impl Strategy<Value = &'static str> {
    one_of(&["1", "2", "3", "4", "-1"])
}

fn value() -> impl Strategy<Value = &'static str> {
    one_of(&[
        "1", "2", "1.0", "0.1", "'a'", "'A'", "NULL", "x'01'", "9e999",
    ])
}

fn name() -> impl Strategy<Value = &'static str> {
    one_of(&["'a'", "'A'", "'b'", "'c'", "NULL"])
}

fn tag() -> impl Strategy<Value = &'static str> {
    one_of(&["x'01'", "x'02'", "x''", "'1'", "1", "'t'", "'[1]'"])
}

fn verb() -> impl Strategy<Value = &'static str> {
    one_of(&[
        "INSERT",
        "REPLACE",
        "INSERT OR IGNORE",
        "INSERT OR REPLACE",
        "INSERT OR FAIL",
    ])
}

fn or() -> impl Strategy<Value = &'static str> {
    one_of(&["", "OR REPLACE", "OR IGNORE", "OR FAIL"])
}

fn filter() -> impl Strategy<Value = &'static str> {
    one_of(&["= 1", "= 2", "= 3", "= 4", "> 1", "IS NOT NULL"])
}

fn on_team() -> BoxedStrategy<String> {
    let row = || (id(), name(), value()).prop_map(|(id, name, v)| format!("({id}, {name}, {v})"));
    let insert = || "INTO team (id, name, pay) VALUES ";
    prop_oneof![
        (verb(), row(), row())
            .prop_map(move |(verb, a, b)| format!("{verb} {} {a}, {b}", insert())),
        (verb(), row()).prop_map(move |(verb, a)| format!("{verb} {} {a}", insert())),
        (verb(), name(), value()).prop_map(|(verb, name, v)| format!(
            "{verb} INTO team (name, pay) VALUES ({name}, {v})"
        )),
        row().prop_map(move |a| format!(
            "INSERT {} {a} ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            insert()
        )),
        row().prop_map(move |a| format!(
            "INSERT {} {a} ON CONFLICT (name) DO UPDATE SET pay = excluded.pay, id = excluded.id",
            insert()
        )),
        row().prop_map(move |a| format!("INSERT {} {a} ON CONFLICT DO NOTHING", insert())),
        (or(), name(), filter())
            .prop_map(|(or, name, f)| format!("UPDATE {or} team SET name = {name} WHERE id {f}")),
        (or(), value(), filter())
            .prop_map(|(or, v, f)| format!("UPDATE {or} team SET pay = {v} WHERE id {f}")),
        (or(), id(), filter())
            .prop_map(|(or, id, f)| format!("UPDATE {or} team SET id = {id} WHERE id {f}")),
        (or(), id(), name(), filter()).prop_map(|(or, id, name, f)| format!(
            "UPDATE {or} team SET rowid = {id}, name = {name} WHERE id {f}"
        )),
        Just("UPDATE team SET id = id + 5".to_owned()),
        filter().prop_map(|f| format!("DELETE FROM team WHERE id {f}")),
    ]
    .boxed()
}

fn on_player() -> BoxedStrategy<String> {
    let row = || {
        (one_of(&["'x'", "'y'"]), id(), id(), id(), value()).prop_map(
            |(nick, n, team, captain, v)| format!("({nick}, {n}, {team}, {captain}, {v})"),
        )
    };
    prop_oneof![
        (verb(), row(), row()).prop_map(|(verb, a, b)| format!("{verb} INTO player VALUES {a}, {b}")),
        row().prop_map(|a| format!("INSERT INTO player VALUES {a} ON CONFLICT (n, nick) DO UPDATE SET v = excluded.v, team = excluded.team")),
        (or(), value(), filter()).prop_map(|(or, v, f)| format!("UPDATE {or} player SET v = {v} WHERE n {f}")),
        (or(), id(), filter()).prop_map(|(or, n, f)| format!("UPDATE {or} player SET n = {n}, v = v || 'q' WHERE n {f}")),
        filter().prop_map(|f| format!("DELETE FROM player WHERE n {f}")),
    ]
    .boxed()
}

fn on_tag() -> BoxedStrategy<String> {
    prop_oneof![
        (verb(), tag(), name(), one_of(&["0", "1"])).prop_map(|(verb, id, label, off)| format!(
            "{verb} INTO tag VALUES ({id}, {label}, {off})"
        )),
        (or(), name(), one_of(&["0", "1"]), tag()).prop_map(|(or, label, off, id)| format!(
            "UPDATE {or} tag SET label = {label}, off = {off} WHERE id = {id}"
        )),
        (or(), tag(), tag())
            .prop_map(|(or, new, old)| format!("UPDATE {or} tag SET id = {new} WHERE id = {old}")),
        tag().prop_map(|id| format!("DELETE FROM tag WHERE id = {id}")),
    ]
    .boxed()
}

fn on_item() -> BoxedStrategy<String> {
    let size = || one_of(&["1", "2.5", "NULL", "0.1"]);
    let kind = || one_of(&["'k'", "'K'", "'z'"]);
    prop_oneof![
        (verb(), id(), kind(), size()).prop_map(|(verb, id, kind, size)| format!(
            "{verb} INTO item (id, kind, size) VALUES ({id}, {kind}, {size})"
        )),
        (verb(), size())
            .prop_map(|(verb, size)| format!("{verb} INTO item (size) VALUES ({size})")),
        (or(), kind(), size(), filter()).prop_map(|(or, kind, size, f)| format!(
            "UPDATE {or} item SET kind = {kind}, size = {size} WHERE id {f}"
        )),
        filter().prop_map(|f| format!("DELETE FROM item WHERE id {f}")),
    ]
    .boxed()
}

#[derive(Debug, Clone)]
enum Step {
    Sql(String),
    /// On another connection.
    Elsewhere(String),
    /// In another process.
    Process(String),
    /// All statements in one savepoint.
    Saved(Vec<String>),
    /// Statements that are rolled back.
    Undone(Vec<String>),
    /// All statements in one transaction.
    Together(Vec<String>),
    /// The engine settles everything.
    SettleAll,
    /// The engine settles one entity.
    SettleOne(prop::sample::Index),
    /// The engine changes rows itself.
    Engine(String),
}

/// A statement on any of the tables.
pub(crate) fn sql() -> impl Strategy<Value = String> {
    prop_oneof![4 => on_team(), 3 => on_player(), 2 => on_tag(), 2 => on_item()]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => sql().prop_map(Step::Sql),
        3 => sql().prop_map(Step::Elsewhere),
        3 => sql().prop_map(Step::Process),
        2 => proptest::collection::vec(sql(), 1..4).prop_map(Step::Saved),
        2 => proptest::collection::vec(sql(), 1..4).prop_map(Step::Undone),
        2 => proptest::collection::vec(sql(), 1..4).prop_map(Step::Together),
        1 => Just(Step::SettleAll),
        2 => any::<prop::sample::Index>().prop_map(Step::SettleOne),
        1 => sql().prop_map(Step::Engine),
    ]
}

fn key_part(value: ValueRef<'_>) -> KeyPart {
    match value {
        ValueRef::Integer(integer) => KeyPart::Integer(integer),
        ValueRef::Text(text) => KeyPart::Text(String::from_utf8(text.to_vec()).unwrap()),
        ValueRef::Blob(bytes) => KeyPart::Blob(bytes.to_vec()),
        other => panic!("{other:?} in a key"),
    }
}

fn field(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).unwrap()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// What the tables hold, read without the triggers' help.
fn stored(conn: &Connection) -> Rows {
    let mut rows = Rows::new();
    for name in list_tables(conn).unwrap() {
        // (The audit table may have come after capture.)
        let trigger = format!("syncline_capture_{name}_after_insert");
        let mut captured = conn
            .prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1")
            .unwrap();
        if !captured.exists([trigger]).unwrap() {
            continue;
        }
        let table = Table::read(conn, &name).unwrap();
        let mut statement = conn.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let get = |name: &str| row.get_ref(name).unwrap();
            let parts: Vec<KeyPart> = (table.key.iter()).map(|c| key_part(get(&c.name))).collect();
            let id = EntityId::from_parts(&parts).unwrap();
            let fields = (table.columns.iter())
                .map(|c| (c.name.clone(), field(get(&c.name))))
                .collect();
            rows.insert((name.clone(), id.to_string()), fields);
        }
    }
    rows
}

fn entries(conn: &Connection) -> Vec<(i64, String, (String, String))> {
    let mut statement = conn
        .prepare("SELECT seq, op, entity_type, entity_id FROM syncline_outbox ORDER BY seq")
        .unwrap();
    let entries = statement
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, (row.get(2)?, row.get(3)?)))
        })
        .unwrap();
    entries.collect::<Result<_, _>>().unwrap()
}

/// Compares tables and bases with what the outbox says, given what was agreed.
fn check(conn: &Connection, agreed: &Rows) -> Result<(), TestCaseError> {
    let mut rows = agreed.clone();
    for (seq, op, entity) in entries(conn) {
        let base = match captured::base_of(conn, &entity.0, &entity.1).unwrap() {
            BaseState::None => return Err(TestCaseError::fail(format!("{entity:?} has no base"))),
            BaseState::Absent => None,
            BaseState::Present(fields) => Some(fields),
        };
        prop_assert_eq!(
            base.as_ref(),
            agreed.get(&entity),
            "the base of {:?}",
            entity
        );
        let fields = captured::fields_of_mutation(conn, seq).unwrap();
        let there = rows.get_mut(&entity);
        match (op.as_str(), fields, there) {
            ("create", Some(fields), None) => {
                rows.insert(entity, fields);
            }
            ("update", Some(fields), Some(row)) => {
                prop_assert!(!fields.is_empty(), "an empty update of {:?}", entity);
                row.patch(&fields);
            }
            ("delete", None, Some(_)) => {
                rows.remove(&entity);
            }
            (op, fields, there) => {
                let message = format!("{op} {entity:?} {fields:?} does not fit {there:?}");
                return Err(TestCaseError::fail(message));
            }
        }
    }
    prop_assert_eq!(rows, stored(conn));
    check_tables(conn);
    Ok(())
}

/// Takes the step, and returns what is agreed after it.
fn take(writers: &mut Writers, setup: Setup, step: &Step, mut agreed: Rows) -> Rows {
    let [conn, other] = &writers.conns;
    match step {
        Step::Sql(sql) => run_one(conn, setup, sql),
        Step::Elsewhere(sql) => {
            run_one(other, setup, sql);
            met("second connection", other.total_changes() > 0);
        }
        Step::Process(sql) => {
            let app = writers.app.get_or_insert_with(|| App::start(conn, setup));
            met("another process", app.run(sql) > 0);
        }
        Step::Undone(sql) => {
            run(conn, "SAVEPOINT s");
            let before = conn.total_changes();
            run(conn, &sql.join("; "));
            met("savepoint rolled back", conn.total_changes() > before);
            run(conn, "ROLLBACK TO s; RELEASE s");
        }
        Step::Saved(sql) => {
            run(conn, "SAVEPOINT s");
            let before = conn.total_changes();
            run(conn, &sql.join("; "));
            met("savepoint released", conn.total_changes() > before);
            run(conn, "RELEASE s");
        }
        Step::Together(sql) => {
            let before = conn.total_changes();
            run(conn, &format!("BEGIN; {}; COMMIT", sql.join("; ")));
            met("transaction", conn.total_changes() > before);
        }
        Step::SettleAll => {
            crate::support::settle(conn);
            return stored(conn);
        }
        Step::SettleOne(index) => {
            let entries = entries(conn);
            if !entries.is_empty() {
                let (_, _, entity) = index.get(&entries).clone();
                settle_one(conn, &entity);
                match stored(conn).remove(&entity) {
                    Some(fields) => agreed.insert(entity, fields),
                    None => agreed.remove(&entity),
                };
            }
        }
        Step::Engine(sql) => {
            // Settled first, so that nothing changes under unsettled mutations.
            crate::support::settle(conn);
            run(conn, "INSERT INTO syncline_guard VALUES (1)");
            run(conn, sql);
            run(conn, "DELETE FROM syncline_guard");
            return stored(conn);
        }
    }
    agreed
}

fn settle_one(conn: &Connection, (kind, id): &(String, String)) {
    for sql in [
        "DELETE FROM syncline_outbox_real WHERE seq IN
           (SELECT seq FROM syncline_outbox WHERE entity_type = ?1 AND entity_id = ?2)",
        "DELETE FROM syncline_outbox WHERE entity_type = ?1 AND entity_id = ?2",
        "DELETE FROM syncline_base WHERE entity_type = ?1 AND entity_id = ?2",
        "DELETE FROM syncline_base_real WHERE entity_type = ?1 AND entity_id = ?2",
    ] {
        conn.execute(sql, params![kind, id]).unwrap();
    }
}

fn connect(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
        .unwrap();
    conn
}

/// What writes the file in a case.
struct Writers {
    conns: [Connection; 2],
    /// Started by the first step that needs it.
    app: Option<App>,
}

/// Another process with the file open: Python, which runs a line of SQL and answers with the number
/// of changed rows, 0 if a constraint refused it.
struct App {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

const APP: &str = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
for sql in sys.stdin:
    before = c.total_changes
    try:
        c.execute(sql).fetchall()
    except sqlite3.IntegrityError:
        pass
    print(c.total_changes - before, flush=True)
";

impl App {
    fn start(conn: &Connection, setup: Setup) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", APP, conn.path().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut app = App { child, answers };
        app.run("PRAGMA synchronous = OFF");
        app.run(&format!("PRAGMA recursive_triggers = {}", setup.recursive));
        app.run(&format!("PRAGMA foreign_keys = {}", setup.foreign_keys));
        app
    }

    fn run(&mut self, sql: &str) -> u64 {
        writeln!(self.child.stdin.as_ref().unwrap(), "{sql}").unwrap();
        let answer = self.answers.next().unwrap().unwrap();
        answer.parse().unwrap()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.wait();
        assert!(std::thread::panicking() || ended.unwrap().success());
    }
}

fn case(setup: Setup, steps: &[Step]) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let conns = [connect(&path), connect(&path)];
    let mut writers = Writers { conns, app: None };
    let conns = &mut writers.conns;
    let (older, newer) = match setup.touch {
        0 => ("", ""),
        1 => (TOUCH, ""),
        _ => ("", TOUCH),
    };
    prepare(&mut conns[0], &format!("{TABLES}{older}"));
    conns[0].execute_batch(newer).unwrap();
    for conn in conns.iter() {
        conn.execute_batch(&format!(
            "PRAGMA recursive_triggers = {}; PRAGMA foreign_keys = {}",
            setup.recursive, setup.foreign_keys
        ))
        .unwrap();
    }
    run(&conns[0], ROWS);
    crate::support::settle(&conns[0]);
    let mut agreed = stored(&conns[0]);
    for step in steps {
        agreed = take(&mut writers, setup, step, agreed);
        check(&writers.conns[0], &agreed)?;
    }
    Ok(())
}

/// As often as it takes to meet every construct: what is drawn may leave one out.
#[test]
fn mutations_reproduce_the_tables() {
    let mut left = Vec::new();
    for _ in 0..8 {
        let mut runner = TestRunner::new(ProptestConfig {
            failure_persistence: None,
            max_shrink_iters: 4000,
            ..ProptestConfig::with_cases(64)
        });
        let setup = (0..3, any::<bool>(), any::<bool>());
        let drawn = (setup, proptest::collection::vec(step(), 1..40));
        let all = |((touch, recursive, foreign_keys), steps): ((i32, bool, bool), Vec<Step>)| {
            #[rustfmt::skip]
            let setup = Setup { touch, recursive, foreign_keys };
            case(setup, &steps)
        };
        runner.run(&drawn, all).unwrap();
        left = never_met();
        if left.is_empty() {
            return;
        }
    }
    panic!("never met: {left:?}");
}
