//! The registered types: what is attached, each with its table as it is now and what is declared for it.

use crate::conflict::Resolvers;
use crate::error::{StoreError, json};
use crate::row;
use crate::table::{Reference, Table, TableError};
use crate::type_options::{IdMode, TypeOptions};
use rusqlite::Connection;
use rusqlite::types::Value as SqlValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use syncline_core::{ConflictRules, EntityRef, Notice};
use syncline_protocol::EntityType;

/// A table that is synced.
#[derive(Debug, Clone)]
pub struct RegisteredType {
    /// The entity type.
    pub name: String,
    /// Its table.
    pub table: Table,
    /// How its conflicts are decided; names in it are those of fields.
    pub rules: ConflictRules,
    /// Counts the changes of the table's schema.
    pub schema_version: u32,
    /// Everything else that was declared for it.
    pub options: TypeOptions,
}

impl RegisteredType {
    /// A table registered under a name, with nothing declared.
    pub fn new(name: impl Into<String>, table: Table) -> Self {
        Self {
            name: name.into(),
            table,
            rules: ConflictRules::default(),
            schema_version: 1,
            options: TypeOptions::default(),
        }
    }

    pub(crate) fn entity_type(&self) -> EntityType {
        EntityType::new(self.name.clone())
    }

    /// Who decides the ids of its entities: as declared, else what suits the key.
    pub fn id_mode(&self) -> IdMode {
        match self.options.id_mode {
            // Another id can only be made for a key of one column.
            Some(mode) if self.table.key.len() == 1 => mode,
            None if self.table.integer_key => IdMode::Provisional,
            _ => IdMode::Client,
        }
    }
}

/// All registered types, by name.
#[derive(Debug, Clone, Default)]
pub struct EntityTypes {
    types: BTreeMap<String, RegisteredType>,
    /// Those whose table is gone or cannot be synced now, with the reason.
    pub(crate) unsyncable: BTreeMap<String, String>,
    /// Those that the app brings along for some of them.
    pub(crate) resolvers: Arc<Resolvers>,
}

impl EntityTypes {
    /// Reads them, each with its table as it is now. A table that is gone is left out.
    pub(crate) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let sql = "SELECT name, table_name, conflict_rules, schema_version, options FROM syncline_entity_type";
        let rows: Vec<(String, String, String, u32, String)> = conn
            .prepare(sql)?
            .query_map([], |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            })?
            .collect::<Result<_, _>>()?;
        let (mut types, mut unsyncable) = (BTreeMap::new(), BTreeMap::new());
        for (name, table, rules, schema_version, options) in rows {
            let options = TypeOptions::from_json(&options)?;
            let rules = json("type's conflict rules", &rules)?;
            match Table::read_with(conn, &table, &options) {
                Ok(table) => {
                    types.insert(
                        name.clone(),
                        RegisteredType {
                            name,
                            table,
                            rules,
                            schema_version,
                            options,
                        },
                    );
                }
                Err(TableError::Storage(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(entity_type = name, %error, "the table cannot be synced now");
                    unsyncable.insert(name, error.to_string());
                }
            }
        }
        Ok(Self {
            types,
            unsyncable,
            resolvers: Arc::default(),
        })
    }

    /// What is to be told of types that cannot be synced, once each as long as it is so.
    pub(crate) fn newly_unsyncable(&self, told: &mut BTreeSet<String>) -> Vec<Notice> {
        told.retain(|name| self.unsyncable.contains_key(name));
        let new = |(name, reason): (&String, &String)| {
            told.insert(name.clone()).then(|| Notice::TypeUnsyncable {
                entity_type: name.clone(),
                reason: reason.clone(),
            })
        };
        self.unsyncable.iter().filter_map(new).collect()
    }

    /// A type by name.
    pub fn get(&self, name: &str) -> Option<&RegisteredType> {
        self.types.get(name)
    }

    /// The type of a table; SQLite's table names do not tell case apart.
    pub fn of_table(&self, table: &str) -> Option<&RegisteredType> {
        self.types
            .values()
            .find(|entity_type| entity_type.table.name.eq_ignore_ascii_case(table))
    }

    /// The row that a reference's values name, where its table is synced and they are the primary key.
    pub(crate) fn parent(&self, reference: &Reference, values: &[SqlValue]) -> Option<EntityRef> {
        let parent = self.of_table(&reference.table)?;
        Some(EntityRef {
            entity_type: parent.entity_type(),
            id: row::parent_id(&parent.table, reference, values)?,
        })
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &RegisteredType> {
        self.types.values()
    }
}
