//! What random statements have to meet, and the count of it.

use crate::support::run;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What a run must have met, each in a statement that changed rows.
const CONSTRUCTS: [&str; 23] = [
    "REPLACE, recursive_triggers on",
    "REPLACE, recursive_triggers off",
    "UPDATE OR REPLACE",
    "OR IGNORE",
    "OR FAIL",
    "UPSERT",
    "NOCASE column, another case only",
    "UPDATE of a key",
    "UPDATE of a composite key",
    "ON DELETE CASCADE",
    "ON DELETE SET NULL",
    "ON UPDATE CASCADE",
    "WITHOUT ROWID",
    "STRICT and generated",
    "the app's triggers before capture",
    "the app's triggers after capture",
    "audit table",
    "FTS5",
    "savepoint rolled back",
    "savepoint released",
    "transaction",
    "second connection",
    "another process",
];

static MET: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

pub(crate) fn met(construct: &'static str, is: bool) {
    assert!(CONSTRUCTS.contains(&construct), "{construct}");
    if is {
        *MET.lock().unwrap().entry(construct).or_default() += 1;
    }
}

pub(crate) fn never_met() -> Vec<&'static str> {
    let met = MET.lock().unwrap();
    let left = CONSTRUCTS.into_iter().filter(|one| !met.contains_key(one));
    left.collect()
}

/// How a case is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// The app's triggers: 0 none, 1 before capture, 2 after.
    pub(crate) touch: i32,
    pub(crate) recursive: bool,
    pub(crate) foreign_keys: bool,
}

/// Entries by what they say: all; players that are deleted, lose their captain or change otherwise; names of which
/// the letters are the same.
fn recorded(conn: &Connection) -> [i64; 5] {
    let player = "syncline_outbox WHERE entity_type = 'player' AND";
    let no_captain = "coalesce(json_type(payload, '$.captain') = 'null', 0)";
    let same = "syncline_outbox AS o JOIN syncline_base AS b USING (entity_type, entity_id)
                 WHERE o.entity_type = 'team' AND o.op = 'update'
                   AND lower(o.payload ->> 'name') = lower(b.fields ->> 'name') AND o.payload ->> 'name' <> b.fields ->> 'name'";
    [
        "syncline_outbox".to_owned(),
        format!("{player} op = 'delete'"),
        format!("{player} op = 'update' AND {no_captain}"),
        format!("{player} op <> 'delete' AND NOT {no_captain}"),
        same.to_owned(),
    ]
    .map(|of| crate::support::count(conn, &of))
}

/// Runs one statement and counts what it was, if it changed anything.
pub(crate) fn run_one(conn: &Connection, setup: Setup, sql: &str) {
    let before = recorded(conn);
    run(conn, sql);
    let after = recorded(conn);
    let [any, deleted, without_captain, moved, recased] =
        std::array::from_fn(|nth| after[nth] > before[nth]);
    if !any {
        return;
    }
    let on = |table: &str| sql.contains(&format!(" {table} "));
    let replace = sql.contains("REPLACE") && !sql.starts_with("UPDATE");
    met("REPLACE, recursive_triggers on", replace && setup.recursive);
    met(
        "REPLACE, recursive_triggers off",
        replace && !setup.recursive,
    );
    met("UPDATE OR REPLACE", sql.starts_with("UPDATE OR REPLACE"));
    met("OR IGNORE", sql.contains("OR IGNORE"));
    met("OR FAIL", sql.contains("OR FAIL"));
    met("UPSERT", sql.contains("ON CONFLICT"));
    met(
        "NOCASE column, another case only",
        sql.contains("team SET name") && recased,
    );
    let key = sql.contains(" SET id =") || sql.contains(" SET rowid =");
    met("UPDATE of a key", key);
    met("UPDATE of a composite key", sql.contains("player SET n ="));
    let team = on("team");
    met("ON DELETE CASCADE", team && deleted);
    met("ON DELETE SET NULL", team && without_captain);
    met("ON UPDATE CASCADE", team && key && moved);
    met("WITHOUT ROWID", on("player"));
    met("STRICT and generated", on("item"));
    met(
        "the app's triggers before capture",
        setup.touch == 1 && team,
    );
    met("the app's triggers after capture", setup.touch == 2 && team);
    met(
        "audit table",
        setup.touch > 0 && sql.starts_with("UPDATE") && on("item"),
    );
    met("FTS5", setup.touch > 0 && on("tag"));
}
