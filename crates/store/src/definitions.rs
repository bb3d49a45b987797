//! What the synced tables look like, in parts that another device can make its own tables from.
//!
//! A definition says what matters for syncing: columns, key, unique lists, foreign keys, defaults
//! that are literals. CHECK constraints, generated columns, expressions, triggers, and indexes that
//! are not unique stay on the device that has them. [`describe`] and [`create`] are inverse: a table
//! made from a definition has that definition, and one that would not is refused.

mod ddl;
mod literal;

use crate::attach::{AttachRequest, Declaration, Tables, attach};
use crate::error::{StoreError, to_json};
use crate::meta;
use crate::store::{EntityTypes, RegisteredType};
use crate::table::TermKind;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::Now;
use syncline_protocol::{
    ColumnDefinition, EntityType, ReferenceAction, ReferenceDefinition, TypeDefinition,
    TypeDefinitions,
};

/// Beyond this, a definition is no honest one.
const MAX_TYPES: usize = 1_000;
/// Columns of one table; SQLite's own default limit is 2000.
const MAX_COLUMNS: usize = 1_000;

/// Why a definition is refused. Nothing was created.
#[derive(Debug, thiserror::Error)]
#[error("the definition of type {entity_type:?} cannot be used here: {reason}")]
pub struct DefinitionError {
    /// The type.
    pub entity_type: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The definitions of all registered types.
pub fn describe(conn: &Connection, types: &EntityTypes) -> Result<TypeDefinitions, StoreError> {
    let types = types.iter().map(|one| define(conn, one));
    Ok(TypeDefinitions {
        types: types.collect::<Result<_, _>>()?,
    })
}

/// The definitions, if they are others than the remote was told last.
pub(crate) fn to_register(
    tx: &Transaction<'_>,
    types: &EntityTypes,
) -> Result<Option<TypeDefinitions>, StoreError> {
    let definitions = describe(tx, types)?;
    let text = to_json(&definitions);
    let told: Option<String> = meta::get(tx, meta::key::REGISTERED)?;
    if definitions.types.is_empty() || told.as_deref() == Some(text.as_str()) {
        return Ok(None);
    }
    meta::set(tx, meta::key::REGISTERING, text)?;
    Ok(Some(definitions))
}

/// The remote has taken what it was told.
pub(crate) fn note_registered(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let told: Option<String> = meta::get(tx, meta::key::REGISTERING)?;
    if let Some(told) = told {
        meta::set(tx, meta::key::REGISTERED, told)?;
    }
    Ok(meta::clear(tx, meta::key::REGISTERING)?)
}

fn define(conn: &Connection, registered: &RegisteredType) -> Result<TypeDefinition, StoreError> {
    let (table, options) = (&registered.table, &registered.options);
    let names: Vec<String> = conn
        .prepare_cached("SELECT name FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")?
        .query_map([&table.name], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut columns = Vec::new();
    for name in &names {
        let known = table
            .columns
            .iter()
            .chain(&table.key)
            .find(|one| one.name == *name);
        let stays = (options.leave_out.iter()).any(|other| other.eq_ignore_ascii_case(name));
        let Some(column) = known.filter(|_| !stays) else {
            continue; // generated, or left out
        };
        let renamed = (options.fields.iter()).find(|(other, _)| other.eq_ignore_ascii_case(name));
        let (_, collation, ..) =
            conn.column_metadata(Some("main"), table.name.as_str(), name.as_str())?;
        let collation = collation
            .and_then(|name| name.to_str().ok())
            .unwrap_or_default();
        columns.push(ColumnDefinition {
            name: name.clone(),
            field: renamed.map(|(_, field)| field.clone()),
            declared: ddl::portable_type(&column.declared, column.affinity, table.strict),
            collation: ddl::known_collation(collation),
            not_null: column.not_null,
            default: column.default.as_deref().and_then(literal::parse),
        });
    }
    let key: Vec<String> = table.key.iter().map(|column| column.name.clone()).collect();
    let unique = unique_lists(registered, &key, &columns);
    Ok(TypeDefinition {
        name: EntityType::new(registered.name.clone()),
        table: table.name.clone(),
        schema_version: registered.schema_version,
        references: references(conn, &table.name, &columns)?,
        columns,
        key,
        unique,
        without_rowid: table.without_rowid,
        strict: table.strict,
    })
}

/// Unique lists of synced columns under the columns' own collations, apart from the key itself.
fn unique_lists(
    registered: &RegisteredType,
    key: &[String],
    columns: &[ColumnDefinition],
) -> Vec<Vec<String>> {
    let collation = |name: &String| {
        let column = columns.iter().find(|column| column.name == *name)?;
        Some(match column.collation.as_str() {
            "" => "BINARY",
            other => other,
        })
    };
    let mut lists = BTreeSet::new();
    for index in &registered.table.unique_indexes {
        let plain = index.filter.is_none()
            && index.terms.iter().all(|term| match &term.kind {
                TermKind::Column(name) => {
                    collation(name).is_some_and(|own| own.eq_ignore_ascii_case(&term.collation))
                }
                TermKind::Expression(_) => false,
            });
        lists.extend(index.columns().filter(|list| plain && list != key));
    }
    lists.into_iter().collect()
}

fn references(
    conn: &Connection,
    table: &str,
    columns: &[ColumnDefinition],
) -> Result<Vec<ReferenceDefinition>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, \"table\", \"from\", \"to\", on_delete, on_update
           FROM pragma_foreign_key_list(?1, 'main') ORDER BY id, seq",
    )?;
    let mut rows = statement.query([table])?;
    let mut found: BTreeMap<i64, ReferenceDefinition> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let action = |at: usize| row.get(at).map(|word: String| ddl::action(&word));
        let (on_delete, on_update) = (action(4)?, action(5)?);
        let entry = found.entry(row.get(0)?).or_insert(ReferenceDefinition {
            columns: Vec::new(),
            table: row.get(1)?,
            to_columns: Vec::new(),
            on_delete,
            on_update,
        });
        entry.columns.push(row.get(2)?);
        entry.to_columns.extend(row.get::<_, Option<String>>(3)?);
    }
    drop(rows);
    let has = |name: &String| {
        columns
            .iter()
            .any(|one| one.name.eq_ignore_ascii_case(name))
    };
    let mut references: Vec<ReferenceDefinition> = found.into_values().collect();
    references.retain(|reference| reference.columns.iter().all(has));
    for reference in &mut references {
        if reference.to_columns.is_empty() {
            reference.to_columns = conn
                .prepare_cached(
                    "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE pk > 0 ORDER BY pk",
                )?
                .query_map([&reference.table], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
        }
    }
    references.sort_by(|a, b| (&a.columns, &a.table).cmp(&(&b.columns, &b.table)));
    Ok(references)
}

/// Refuses definitions that no table should be made from, whoever sent them.
pub fn check(definitions: &TypeDefinitions) -> Result<(), DefinitionError> {
    let mut tables = BTreeSet::new();
    let mut names = BTreeSet::new();
    for definition in &definitions.types {
        let refuse = |reason: String| DefinitionError {
            entity_type: definition.name.as_str().to_owned(),
            reason,
        };
        ddl::check(definition).map_err(refuse)?;
        if !tables.insert(definition.table.to_ascii_lowercase()) {
            return Err(refuse(format!(
                "a second type has the table {:?}",
                definition.table
            )));
        }
        if !names.insert(definition.name.as_str()) || names.len() > MAX_TYPES {
            return Err(refuse(
                "it stands twice, or there are too many types".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Makes the tables in a database that has none of them. A reference to a table that is not among
/// them is left out, since SQLite would refuse every write; which ones, is returned.
pub fn create(
    tx: &Transaction<'_>,
    definitions: &TypeDefinitions,
) -> Result<Vec<String>, StoreError> {
    check(definitions)?;
    let known = |reference: &ReferenceDefinition| {
        let target =
            (definitions.types.iter()).find(|one| one.table.eq_ignore_ascii_case(&reference.table));
        target.is_some_and(|target| {
            let has = |name: &String| {
                (target.columns.iter()).any(|column| column.name.eq_ignore_ascii_case(name))
            };
            reference.to_columns.iter().all(has)
        })
    };
    let mut left_out = Vec::new();
    for definition in &definitions.types {
        let mut made = definition.clone();
        made.references.retain(known);
        for reference in definition.references.iter().filter(|one| !known(one)) {
            left_out.push(format!("{} → {}", definition.table, reference.table));
        }
        let refuse = |reason: String| DefinitionError {
            entity_type: definition.name.as_str().to_owned(),
            reason,
        };
        tx.execute_batch(&ddl::create_table(&made))
            .map_err(|error| refuse(error.to_string()))?;
    }
    Ok(left_out)
}

/// What was made from definitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Made {
    /// The tables.
    pub tables: Vec<String>,
    /// References that were left out, because the table they lead to is not synced.
    pub references_left_out: Vec<String>,
}

/// Makes the tables in a new file and attaches them. What the request declares of a table is added
/// to what the definition says. On an error the file is of no use.
pub fn make(
    conn: &mut Connection,
    definitions: &TypeDefinitions,
    mut request: AttachRequest,
    now: Now,
) -> Result<Made, StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let references_left_out = create(&tx, definitions)?;
    tx.commit()?;
    let tables: Vec<String> = (definitions.types.iter())
        .map(|one| one.table.clone())
        .collect();
    for definition in &definitions.types {
        let name = definition.name.as_str().to_owned();
        let found = (request.declared.keys())
            .find(|table| table.eq_ignore_ascii_case(&definition.table))
            .cloned();
        let mut declared = match found.and_then(|table| request.declared.remove(&table)) {
            Some(declared) => Declaration { name, ..declared },
            None => Declaration {
                name,
                rules: request.policy.into(),
                options: Default::default(),
            },
        };
        // Fields have the same names everywhere; what stays on a device was not told.
        declared.options.leave_out.clear();
        declared.options.fields = (definition.columns.iter())
            .filter_map(|column| Some((column.name.clone(), column.field.clone()?)))
            .collect();
        request.declared.insert(definition.table.clone(), declared);
    }
    request.declared.retain(|table, _| tables.contains(table));
    request.tables = Tables::Named(tables.clone());
    attach(conn, &request, now)?;
    verify(conn, &EntityTypes::load(conn)?, definitions)?;
    for definition in &definitions.types {
        conn.execute(
            "UPDATE syncline_entity_type SET schema_version = ?2 WHERE name = ?1",
            rusqlite::params![definition.name.as_str(), definition.schema_version],
        )?;
    }
    Ok(Made {
        tables,
        references_left_out,
    })
}

/// Whether the tables that were made are what was asked for: a definition that smuggles something
/// in reads back as another one.
fn verify(
    conn: &Connection,
    types: &EntityTypes,
    definitions: &TypeDefinitions,
) -> Result<(), StoreError> {
    let made = describe(conn, types)?;
    for wanted in &definitions.types {
        let found = made.types.iter().find(|one| one.name == wanted.name);
        let same = found.is_some_and(|found| {
            let mut wanted = wanted.clone();
            wanted.schema_version = found.schema_version;
            // References to tables outside are left out, and say so.
            wanted
                .references
                .retain(|reference| found.references.contains(reference));
            wanted == *found
        });
        if !same {
            return Err(StoreError::from(DefinitionError {
                entity_type: wanted.name.as_str().to_owned(),
                reason: "the table made from it is another one than it describes".to_owned(),
            }));
        }
    }
    Ok(())
}

/// The words of SQLite for what a foreign key does.
pub(crate) const ACTIONS: [(&str, ReferenceAction); 5] = [
    ("NO ACTION", ReferenceAction::NoAction),
    ("RESTRICT", ReferenceAction::Restrict),
    ("SET NULL", ReferenceAction::SetNull),
    ("SET DEFAULT", ReferenceAction::SetDefault),
    ("CASCADE", ReferenceAction::Cascade),
];
