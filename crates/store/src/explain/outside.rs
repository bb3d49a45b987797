//! Rows outside of what is synced, and why they are.
//!
//! A reason is one function here that gives an [`Obstacle`] with the code [`CODE`], so that whatever
//! comes to decide what is synced (a row's scope, say) adds a reason and nothing else changes.

use super::{Explanation, Obstacle, obstacle, quoted};
use crate::error::StoreError;
use crate::store::{EntityTypes, RegisteredType};
use crate::table::{Table, TableError, quote_ident};
use crate::{meta, row};
use rusqlite::{Connection, OptionalExtension};

const CODE: &str = "out-of-scope";

/// A row of a table that is no registered type.
pub(super) fn table(
    conn: &Connection,
    types: &EntityTypes,
    name: &str,
    id: &str,
) -> Result<Explanation, StoreError> {
    let (table, obstacle) = match Table::read(conn, name) {
        Ok(table) => {
            let detail = format!(
                "the table {} is not synced: it was not among those that were attached",
                table.name
            );
            let help = format!(
                "syncline attach DB --remote URL --table {}",
                quoted(&table.name)
            );
            (Some(table), obstacle(CODE, detail, Some(&help)))
        }
        Err(TableError::NoSuchTable(_) | TableError::Reserved(_)) => {
            let known: Vec<&str> = types.iter().map(|one| one.name.as_str()).collect();
            return Err(StoreError::Refused(format!(
                "{name} is not synced here; the synced types are: {}",
                known.join(", ")
            )));
        }
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(error) => (None, obstacle(CODE, error.to_string(), None)),
    };
    let mut entity_id = id.to_owned();
    let mut here = false;
    if let Some(table) = &table {
        let own = RegisteredType::new(table.name.clone(), table.clone());
        let id = super::find_id(conn, &own, id)?;
        here = row::read(conn, table, &id)?.is_some();
        entity_id = id.to_string();
    }
    Ok(Explanation {
        entity_type: table.map_or_else(|| name.to_owned(), |table| table.name),
        entity_id,
        formerly: None,
        here,
        synced: false,
        obstacles: vec![obstacle],
        left_out: Vec::new(),
        mutations: Vec::new(),
        history: Vec::new(),
        last_pull_at: meta::get(conn, meta::key::LAST_PULL_AT)?,
    })
}

/// A row whose key is none that can be synced. Looks through the table.
pub(super) fn key(
    conn: &Connection,
    own: &RegisteredType,
    id: &str,
) -> Result<Option<Obstacle>, StoreError> {
    let [key] = own.table.key.as_slice() else {
        return Ok(None);
    };
    let (table, key) = (quote_ident(&own.table.name), quote_ident(&key.name));
    let sql = format!(
        "SELECT typeof({key}) FROM {table}
          WHERE typeof({key}) IN ('real', 'null') AND coalesce(CAST({key} AS TEXT), 'NULL') = ?1 LIMIT 1"
    );
    let class: Option<String> = conn.query_row(&sql, [id], |row| row.get(0)).optional()?;
    Ok(class.map(|class| {
        let detail = format!(
            "the row's key is {}, which is the key of no row that can be synced; give it another one",
            class.to_uppercase()
        );
        obstacle(CODE, detail, None)
    }))
}
