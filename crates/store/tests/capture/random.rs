//! Random SQL: the recorded mutations, applied in order to what was agreed before, give the tables;
//! and every base is the state before the first unsettled mutation.

use crate::support::{check_tables, prepare, run};
use proptest::prelude::*;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use syncline_protocol::{EntityId, Fields, KeyPart, Value};
use syncline_store::captured::{self, BaseState};
use syncline_store::table::{Table, list_tables};

/// Entity type and id to fields: what is agreed, or what the tables hold.
type Rows = BTreeMap<(String, String), Fields>;

const TABLES: &str = "
    CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, touched INTEGER NOT NULL DEFAULT 0, pay REAL);
    CREATE TABLE player (
        nick TEXT, n INTEGER, team INTEGER REFERENCES team ON DELETE CASCADE ON UPDATE CASCADE,
        captain INTEGER REFERENCES team ON DELETE SET NULL ON UPDATE CASCADE, v,
        PRIMARY KEY (n, nick), UNIQUE (team, v)) WITHOUT ROWID;
    CREATE TABLE tag (id BLOB PRIMARY KEY, label TEXT, off INTEGER DEFAULT 0);
    CREATE UNIQUE INDEX tag_label ON tag (lower(label)) WHERE off = 0;";

/// What apps do: stamp what changed.
const TOUCH: &str = "
    CREATE TRIGGER touch_new AFTER INSERT ON team BEGIN
        UPDATE team SET touched = touched + 1 WHERE id = NEW.id; END;
    CREATE TRIGGER touch AFTER UPDATE OF id, name, pay ON team BEGIN
        UPDATE team SET touched = touched + 1 WHERE id = NEW.id; END;
    CREATE TRIGGER relabel AFTER UPDATE OF label ON tag WHEN NEW.label = 'c' BEGIN
        UPDATE tag SET off = off + 1 WHERE id = NEW.id; END;";

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

#[derive(Debug, Clone)]
enum Step {
    Sql(String),
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

fn step() -> impl Strategy<Value = Step> {
    let sql = || prop_oneof![4 => on_team(), 3 => on_player(), 2 => on_tag()];
    prop_oneof![
        12 => sql().prop_map(Step::Sql),
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
fn take(conn: &Connection, step: &Step, mut agreed: Rows) -> Rows {
    match step {
        Step::Sql(sql) => run(conn, sql),
        Step::Undone(sql) => run(
            conn,
            &format!("SAVEPOINT s; {}; ROLLBACK TO s; RELEASE s", sql.join("; ")),
        ),
        Step::Together(sql) => run(conn, &format!("BEGIN; {}; COMMIT", sql.join("; "))),
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn mutations_reproduce_the_tables(
        steps in proptest::collection::vec(step(), 1..40),
        touch in 0..3,
        recursive in any::<bool>(),
        foreign_keys in any::<bool>(),
    ) {
        let mut conn = Connection::open_in_memory().unwrap();
        let (older, newer) = match touch {
            0 => ("", ""),
            1 => (TOUCH, ""),
            _ => ("", TOUCH),
        };
        prepare(&mut conn, &format!("{TABLES}{older}"));
        conn.execute_batch(newer).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA recursive_triggers = {recursive}; PRAGMA foreign_keys = {foreign_keys}"
        )).unwrap();
        let mut agreed = Rows::new();
        for step in &steps {
            agreed = take(&conn, step, agreed);
            check(&conn, &agreed)?;
        }
    }
}
