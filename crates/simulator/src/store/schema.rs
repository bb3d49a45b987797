//! The tables that devices have, what is declared about them, and what the server knows of them.

use super::drawn::{self, Drawn};
use super::files::Kind;
use super::poison;
use super::scenario::{OnDelete, Poison, Rules, Setup};
use crate::reference::server::Name;
use rusqlite::Connection;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syncline_core::{ConflictRules, DeleteRule, DeleteRules, FieldRule, Now, Policy};
use syncline_protocol::ClientId;
use syncline_server::{CommandConfig, ServerConfig, TypeConfig};
use syncline_store::attach::{AttachRequest, Existing, attach};

const NOTES: &str = "
    CREATE TABLE note (id TEXT PRIMARY KEY NOT NULL, title TEXT, body TEXT, stock INTEGER NOT NULL,
                       tags TEXT NOT NULL, weight REAL);";
/// `made` names a row for ever: ids change, names do not. `of` is its parent's.
const TREE: &str = "
    CREATE TABLE project (id INTEGER PRIMARY KEY, made TEXT NOT NULL, name TEXT);
    CREATE TABLE task (id INTEGER PRIMARY KEY, made TEXT NOT NULL, name TEXT,
                       project INTEGER REFERENCES project(id) ON DELETE {action}, of TEXT);
    CREATE INDEX task_project ON task (project);
    CREATE TABLE step (task INTEGER NOT NULL REFERENCES task(id) ON DELETE CASCADE,
                       number INTEGER NOT NULL, made TEXT NOT NULL, name TEXT, of TEXT,
                       PRIMARY KEY (task, number)) WITHOUT ROWID;";
const BANK: &str = "CREATE TABLE account (id TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL);";

/// Every type that there may be, beside those that are drawn.
const TYPES: [&str; 5] = ["note", "project", "task", "step", "account"];

/// The bytes of an attached database with these tables and rules.
pub(crate) fn attached((tables, rules, on_delete, drawn): &Kind, folder: &Path) -> Vec<u8> {
    let path = folder.join("template.db");
    let mut conn = Connection::open(&path).expect("a database can be made");
    let action = match on_delete {
        OnDelete::Cascade => "CASCADE",
        OnDelete::SetNull => "SET NULL",
        OnDelete::Restrict => "RESTRICT",
    };
    let tree = TREE.replace("{action}", action);
    let parts = [
        (tables.notes(), NOTES),
        (tables.tree(), tree.as_str()),
        (tables.bank(), BANK),
    ];
    for (_, sql) in parts.iter().filter(|(wanted, _)| *wanted) {
        conn.execute_batch(sql).expect("the schema is one");
    }
    for n in 0..drawn.len() {
        let sql = drawn::create(drawn, n);
        (conn.execute_batch(&sql)).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
    let mut by_table = BTreeMap::new();
    if tables.notes() {
        by_table.insert("note".to_owned(), conflict_rules(*rules));
    }
    let request = AttachRequest {
        rules: by_table,
        ..request()
    };
    attach(&mut conn, &request, Now::default()).expect("the tables can be attached");
    conn.pragma_update(None, "wal_checkpoint", "TRUNCATE")
        .expect("a checkpoint");
    drop(conn);
    std::fs::read(&path).expect("the template can be read")
}

/// All tables are attached, those that are not yet.
pub(crate) fn request() -> AttachRequest {
    AttachRequest {
        remote: "sim:".to_owned(),
        tables: syncline_store::attach::Tables::All,
        existing: Existing::Upload,
        policy: Policy::default(),
        rules: BTreeMap::new(),
        declared: BTreeMap::new(),
        settings: None,
        client: ClientId::new("0".repeat(32)),
    }
}

fn conflict_rules(rules: Rules) -> ConflictRules {
    let fields = ConflictRules {
        merge: BTreeMap::from([
            ("stock".to_owned(), FieldRule::Counter),
            ("tags".to_owned(), FieldRule::Set),
            ("body".to_owned(), FieldRule::Theirs),
        ]),
        ..ConflictRules::default()
    };
    match rules {
        Rules::Default => ConflictRules::default(),
        Rules::Fields => fields,
        Rules::EditWins => ConflictRules {
            deletes: DeleteRules {
                here: Some(DeleteRule::EditWins),
                there: Some(DeleteRule::EditWins),
            },
            ..fields
        },
        Rules::ServerWins => Policy::ServerWins.into(),
        Rules::ClientWins => Policy::ClientWins.into(),
    }
}

/// What the server is told about the types: with accounts, all of them, since a server that declares
/// one type takes no others.
pub(crate) fn declare(setup: &Setup, config: &mut ServerConfig) {
    let types = TYPES.into_iter().chain(setup.drawn.iter().map(Drawn::name));
    if setup.poison != Poison::None {
        for entity_type in types.clone() {
            config
                .types
                .insert(entity_type.to_owned(), TypeConfig::default());
        }
        let note = config.types.entry("note".to_owned()).or_default();
        note.schema = Some(poison::schema());
    }
    if !setup.tables.bank() {
        return;
    }
    let deposit = CommandConfig {
        add: BTreeMap::from([("balance".to_owned(), "$amount".into())]),
        ..CommandConfig::default()
    };
    let withdraw = CommandConfig {
        add: BTreeMap::from([("balance".to_owned(), "-$amount".into())]),
        ..CommandConfig::default()
    };
    let account = TypeConfig {
        commands: BTreeMap::from([
            ("deposit".to_owned(), deposit),
            ("withdraw".to_owned(), withdraw),
        ]),
        ..TypeConfig::default()
    };
    config.types.insert("account".to_owned(), account);
    for other in types {
        config.types.entry(other.to_owned()).or_default();
    }
}

/// The server takes everything from here on.
pub(crate) fn declare_mended(config: &mut ServerConfig) {
    for declared in config.types.values_mut() {
        declared.schema = None;
    }
}

/// The fields of rows that are kept beside them, since the table lacks the column or did until just now.
pub(crate) fn lacking(app: &Connection) -> rusqlite::Result<BTreeSet<(Name, String)>> {
    let mut statement = app.prepare_cached(
        "SELECT u.entity_type, u.entity_id, f.key
           FROM syncline_unknown_fields AS u, json_each(u.fields) AS f",
    )?;
    let kept = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    kept.collect()
}

/// The fields of a row that its table has.
pub(crate) fn without(
    fields: &Map<String, Value>,
    row: &Name,
    lacking: &BTreeSet<(Name, String)>,
) -> Map<String, Value> {
    let mut shown = fields.clone();
    shown.retain(|field, _| !lacking.contains(&(row.clone(), field.clone())));
    shown
}
