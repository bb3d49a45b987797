//! Attaching a database: metadata, capture triggers, and what to do with the rows it already has.
//!
//! Works without a network, and leaves the app's own schema as it is.

use crate::app_triggers;
use crate::capture;
use crate::conflict;
use crate::error::{StoreError, to_json};
use crate::follow;
use crate::meta;
use crate::row;
use crate::settings::Settings;
use crate::store::{EntityTypes, RegisteredType};
use crate::sweep;
use crate::table::{self, Table};
use crate::type_options::{TypeOptions, WhileApplying};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::collections::BTreeMap;
use syncline_core::{ConflictRules, Now, Policy};
use syncline_protocol::ClientId;

/// What is attached, and to what.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// The remote's address.
    pub remote: String,
    /// Which tables.
    pub tables: Tables,
    /// What to do with the rows that are there.
    pub existing: Existing,
    /// How conflicts are decided in tables of which nothing else is declared.
    pub policy: Policy,
    /// How conflicts are decided in single tables, by the table's name, where nothing else of them is
    /// declared anew; it goes before `declared`. Names in it are those of columns.
    pub rules: BTreeMap<String, ConflictRules>,
    /// What is declared of single tables, by the table's name: also of ones attached before, which
    /// take it over.
    pub declared: BTreeMap<String, Declaration>,
    /// The numbers that every process on the file goes by; `None` leaves them as they are.
    pub settings: Option<Settings>,
    /// The id of this installation, used if the file has none yet.
    pub client: ClientId,
}

/// What is declared of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The name of its entity type, the same on every device.
    pub name: String,
    /// How its conflicts are decided. Names in it are those of columns.
    pub rules: ConflictRules,
    /// Everything else.
    pub options: TypeOptions,
}

/// Which tables are attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tables {
    /// Every ordinary table.
    All,
    /// These.
    Named(Vec<String>),
}

/// What happens with rows that a table has when it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They are new to the server: each becomes a create, parents first.
    Upload,
    /// The server has them already: its state is taken over; rows that it lacks are uploaded after
    /// the first complete pull.
    Adopt,
}

/// What attaching did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct AttachReport {
    /// The tables attached now, parents first.
    pub tables: Vec<String>,
    /// Tables attached before of which something else is declared now.
    pub updated: Vec<String>,
    /// Rows recorded as creates.
    pub uploads: u64,
    /// Rows that can never be synced as they are (a NULL or REAL key, for example), with the reason.
    pub unsyncable: Vec<String>,
    /// Tables that are referenced but not attached: their rows will not follow.
    pub references_outside: Vec<String>,
    /// The app's own triggers on synced tables that are held off while the engine applies, oldest first.
    pub triggers_held: Vec<String>,
    /// Those that fire then.
    pub triggers_firing: Vec<String>,
}

/// Attaches tables of the database, all or none.
pub fn attach(
    conn: &mut Connection,
    request: &AttachRequest,
    now: Now,
) -> Result<AttachReport, StoreError> {
    check(conn, request)?;
    // Not possible inside a transaction, hence the check before: a refusal leaves the file alone.
    conn.pragma_update(None, "journal_mode", "WAL")?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    meta::migrate_in(&tx)?;
    let report = attach_in(&tx, request, now)?;
    tx.commit()?;
    Ok(report)
}

/// Refuses what can be seen to be impossible before anything is written.
fn check(conn: &Connection, request: &AttachRequest) -> Result<(), StoreError> {
    match meta::require_readable(conn) {
        Ok(()) => refuse_other_remote(conn, request)?,
        Err(StoreError::NotAttached) => {}
        Err(error) => return Err(error),
    }
    for (name, declared) in &request.declared {
        Table::check_options(conn, name, &declared.options)?;
        let table = Table::read_with(conn, name, &declared.options)?;
        conflict::rules_of_fields(&declared.rules, &table)?;
    }
    for (name, rules) in &request.rules {
        let table = Table::read_with(conn, name, &options_of(request, name))?;
        conflict::rules_of_fields(rules, &table)?;
    }
    tables(conn, request).map(drop)
}

fn refuse_other_remote(conn: &Connection, request: &AttachRequest) -> Result<(), StoreError> {
    match meta::get::<String>(conn, meta::key::REMOTE)? {
        Some(other) if other != request.remote => Err(StoreError::AttachedElsewhere(other)),
        _ => Ok(()),
    }
}

/// The tables asked for, each once.
fn tables(conn: &Connection, request: &AttachRequest) -> Result<Vec<Table>, StoreError> {
    let names = match &request.tables {
        Tables::All => table::list_tables(conn)?,
        Tables::Named(names) => names.clone(),
    };
    let mut tables: Vec<Table> = Vec::new();
    for name in &names {
        let table = Table::read_with(conn, name, &options_of(request, name))?;
        if tables.iter().all(|other| other.name != table.name) {
            tables.push(table);
        }
    }
    if tables.is_empty() {
        return Err(StoreError::Refused(
            "the database has no table that could be synced".to_owned(),
        ));
    }
    Ok(tables)
}

fn options_of(request: &AttachRequest, table: &str) -> TypeOptions {
    declared(request, table).map_or_else(TypeOptions::default, |one| one.options.clone())
}

fn attach_in(
    tx: &Transaction<'_>,
    request: &AttachRequest,
    now: Now,
) -> Result<AttachReport, StoreError> {
    refuse_other_remote(tx, request)?;
    meta::set(tx, meta::key::REMOTE, &request.remote)?;
    if meta::get::<String>(tx, meta::key::CLIENT_ID)?.is_none() {
        meta::set(tx, meta::key::CLIENT_ID, request.client.as_str())?;
    }
    let tables = tables(tx, request)?;
    if let Some(settings) = &request.settings {
        settings.store(tx)?;
    }
    let known = EntityTypes::load(tx)?;
    let mut report = AttachReport::default();
    for table in table::topological_order(&tables) {
        match known.of_table(&table.name) {
            None => attach_table(tx, table, request, now, &mut report)?,
            Some(attached) => update(tx, attached, request, &mut report)?,
        }
    }
    let types = EntityTypes::load(tx)?;
    report.references_outside = references_outside(&types);
    for trigger in app_triggers::list(tx, &types)? {
        match trigger.applying {
            WhileApplying::Held => report.triggers_held.push(trigger.name),
            WhileApplying::Fires => report.triggers_firing.push(trigger.name),
        }
    }
    Ok(report)
}

fn declared<'a>(request: &'a AttachRequest, table: &str) -> Option<&'a Declaration> {
    let mut all = request.declared.iter();
    all.find(|(name, _)| name.eq_ignore_ascii_case(table))
        .map(|(_, declaration)| declaration)
}

fn rules_alone<'a>(request: &'a AttachRequest, table: &str) -> Option<&'a ConflictRules> {
    let mut all = request.rules.iter();
    all.find(|(name, _)| name.eq_ignore_ascii_case(table))
        .map(|(_, rules)| rules)
}

/// What is declared now of a table that was attached before.
fn declared_anew(request: &AttachRequest, attached: &RegisteredType) -> Option<Declaration> {
    let table = &attached.table.name;
    let (full, rules) = (declared(request, table), rules_alone(request, table));
    let mut declaration = match (full, rules) {
        (None, None) => return None,
        (Some(full), _) => full.clone(),
        (None, Some(_)) => Declaration {
            name: attached.name.clone(),
            rules: ConflictRules::default(),
            options: attached.options.clone(),
        },
    };
    if let Some(rules) = rules {
        declaration.rules = rules.clone();
    }
    Some(declaration)
}

/// Takes over what is declared now of a table that was attached before.
fn update(
    tx: &Transaction<'_>,
    attached: &RegisteredType,
    request: &AttachRequest,
    report: &mut AttachReport,
) -> Result<(), StoreError> {
    let table = &attached.table.name;
    let Some(now) = declared_anew(request, attached) else {
        return Ok(());
    };
    let refuse = |why: String| Err(StoreError::Refused(format!("table {table:?}: {why}")));
    if now.name != attached.name {
        let (old, new) = (&attached.name, &now.name);
        return refuse(format!(
            "it is attached as type {old:?} and cannot become {new:?}; detach the database first"
        ));
    }
    let before = &attached.options;
    let options = with_kept_fields(attached, &now.options);
    let renewed_table = Table::read_with(tx, table, &options)?;
    let rules = conflict::rules_of_fields(&now.rules, &renewed_table)?;
    if options == *before && rules == attached.rules {
        return Ok(());
    }
    let fields_change = options.leave_out != before.leave_out || options.fields != before.fields;
    if fields_change {
        let sql = "SELECT count(*) FROM syncline_outbox WHERE entity_type = ?1";
        let unsynced: i64 = tx.query_row(sql, [&attached.name], |row| row.get(0))?;
        if unsynced > 0 {
            return refuse(format!(
                "columns left out or renamed cannot change while {unsynced} of its mutations are not synced; sync first"
            ));
        }
        // The rows come again, with the fields as they are called now.
        tx.execute("DELETE FROM syncline_cursor", [])?;
        meta::set(tx, &format!("{}{}", meta::key::UNTOLD, attached.name), 1)?;
    }
    tx.execute(
        "UPDATE syncline_entity_type SET conflict_rules = ?2, options = ?3 WHERE name = ?1",
        params![attached.name, to_json(&rules), to_json(&options)],
    )?;
    let renewed = RegisteredType {
        table: renewed_table,
        rules,
        options,
        ..attached.clone()
    };
    capture::install(tx, &renewed)?;
    report.updated.push(table.clone());
    Ok(())
}

/// What is declared, and the names that fields have on the wire already: other devices know them, and
/// a column that was renamed since is not in the declaration. To give one up, declare another name.
fn with_kept_fields(attached: &RegisteredType, declared: &TypeOptions) -> TypeOptions {
    let mut options = declared.clone();
    for (column, field) in &attached.options.fields {
        let same = |name: &String| name.eq_ignore_ascii_case(column);
        let is_spoken_of = declared.fields.keys().any(same)
            || declared.leave_out.iter().any(same)
            || declared.fields.values().any(|taken| taken == field);
        if !is_spoken_of && attached.table.has_column(column) {
            options.fields.insert(column.clone(), field.clone());
        }
    }
    options
}

fn attach_table(
    tx: &Transaction<'_>,
    table: &Table,
    request: &AttachRequest,
    now: Now,
    report: &mut AttachReport,
) -> Result<(), StoreError> {
    let mut entity_type = RegisteredType {
        rules: ConflictRules::from(request.policy),
        ..RegisteredType::new(&table.name, table.clone())
    };
    if let Some(declared) = declared(request, &table.name) {
        entity_type.name.clone_from(&declared.name);
        entity_type.rules = conflict::rules_of_fields(&declared.rules, table)?;
        entity_type.options.clone_from(&declared.options);
    }
    if let Some(rules) = rules_alone(request, &table.name) {
        entity_type.rules = conflict::rules_of_fields(rules, table)?;
    }
    let name = &entity_type.name;
    if EntityTypes::load(tx)?.get(name).is_some() {
        return Err(StoreError::Refused(format!(
            "another table is attached as type {name:?} already; name the types of both differently"
        )));
    }
    tx.execute(
        "INSERT INTO syncline_entity_type (name, table_name, conflict_rules, options) VALUES (?1, ?2, ?3, ?4)",
        params![
            name,
            table.name,
            to_json(&entity_type.rules),
            to_json(&entity_type.options)
        ],
    )?;
    follow::remember(tx, name, table)?;
    capture::install(tx, &entity_type)?;
    match request.existing {
        Existing::Adopt => {
            meta::set(tx, &format!("{}{name}", meta::key::ADOPT), 1)?;
            meta::set(tx, &format!("{}{name}", meta::key::UNTOLD), 1)?;
            // Comparing needs a snapshot: one that is under way or complete does not know the table.
            tx.execute("DELETE FROM syncline_cursor", [])?;
        }
        Existing::Upload => row::for_each(tx, table, |id, fields| {
            match id {
                Ok(id) => {
                    sweep::record_create(tx, &entity_type, &id, &fields, "attach", now)?;
                    report.uploads += 1;
                }
                Err(why) => report.unsyncable.push(format!("{name}: {why}")),
            }
            Ok(())
        })?,
    }
    report.tables.push(table.name.clone());
    Ok(())
}

fn references_outside(types: &EntityTypes) -> Vec<String> {
    let mut outside: Vec<String> = types
        .iter()
        .flat_map(|entity_type| &entity_type.table.references)
        .filter(|reference| types.of_table(&reference.table).is_none())
        .map(|reference| reference.table.clone())
        .collect();
    outside.sort();
    outside.dedup();
    outside
}

/// What happens to work that was not synced when a database is detached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// Detaching is refused while there is some.
    Refuse,
    /// It is dropped.
    Drop,
}

/// Removes every trigger, view and table of the engine. The app's rows stay as they are.
pub fn detach(conn: &mut Connection, unsynced: Unsynced) -> Result<(), StoreError> {
    meta::require_readable(conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pending: i64 = tx.query_row(
        "SELECT (SELECT count(*) FROM syncline_outbox)
              + (SELECT count(*) FROM syncline_conflict WHERE resolved_at IS NULL)",
        [],
        |row| row.get(0),
    )?;
    if pending > 0 && unsynced == Unsynced::Refuse {
        return Err(StoreError::WorkPending(pending));
    }
    for RegisteredType { name, .. } in EntityTypes::load(&tx)?.iter() {
        capture::remove(&tx, name)?;
    }
    let objects: Vec<(String, String)> = tx
        .prepare(
            "SELECT type, name FROM sqlite_schema
              WHERE type IN ('trigger', 'view', 'table') AND name LIKE 'syncline\\_%' ESCAPE '\\'
              ORDER BY CASE type WHEN 'trigger' THEN 0 WHEN 'view' THEN 1 ELSE 2 END",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (kind, name) in objects {
        tx.execute_batch(&format!(
            "DROP {kind} IF EXISTS {}",
            table::quote_ident(&name)
        ))?;
    }
    tx.commit()?;
    Ok(())
}
