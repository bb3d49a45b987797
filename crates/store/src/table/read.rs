//! Reads a table's shape from the schema.

use super::index_sql;
use super::{
    Affinity, Column, OnDelete, Place, Reference, Table, TableError, TermKind, UniqueIndex,
    UniqueTerm,
};
use rusqlite::{Connection, OptionalExtension, Row};
use std::collections::BTreeMap;

/// The app's ordinary tables in name order: no virtual or shadow tables, none of SQLite's or the
/// engine's own.
pub fn list_tables(conn: &Connection) -> Result<Vec<String>, TableError> {
    let mut statement = conn.prepare_cached(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    Ok(names
        .into_iter()
        .filter(|name| !is_reserved(name))
        .collect())
}

fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("sqlite_") || name.starts_with("syncline_")
}

impl Table {
    /// Reads the table of that name (in any ASCII case) in the main schema.
    pub fn read(conn: &Connection, name: &str) -> Result<Table, TableError> {
        let head = read_head(conn, name)?;
        let raw = read_columns(conn, &head.name, head.strict)?;
        for name in raw.iter().map(|raw| &raw.column.name).chain([&head.name]) {
            if name.chars().any(char::is_control) {
                return Err(TableError::ControlCharacter(name.clone()));
            }
        }
        let key = read_key(&head.name, &raw)?;
        let (integer_key, unique_indexes) = read_unique(conn, &head, &key)?;
        let rowid_name = match head.without_rowid {
            true => None,
            false => Some(free_rowid_name(&head.name, &raw)?),
        };
        let generated = |raw: &&RawColumn| raw.generated;
        Ok(Table {
            references: read_references(conn, &head.name)?,
            unique: unique_indexes
                .iter()
                .filter_map(UniqueIndex::columns)
                .collect(),
            unique_indexes,
            integer_key,
            generated: (raw.iter().filter(generated))
                .map(|raw| raw.column.name.clone())
                .collect(),
            columns: (raw.iter())
                .filter(|raw| raw.key_position == 0 && !raw.generated)
                .map(|raw| raw.column.clone())
                .collect(),
            left_out: Vec::new(),
            layout: (raw.iter())
                .map(|raw| Place {
                    name: raw.column.name.clone(),
                    declared: raw.column.declared.clone(),
                })
                .collect(),
            key,
            rowid_name,
            name: head.name,
            without_rowid: head.without_rowid,
            strict: head.strict,
        })
    }
}

struct Head {
    name: String,
    without_rowid: bool,
    strict: bool,
}

fn read_head(conn: &Connection, name: &str) -> Result<Head, TableError> {
    let found = conn
        .prepare_cached(
            "SELECT name, type, wr, strict FROM pragma_table_list
             WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
        )?
        .query_row([name], |row| {
            let head = Head {
                name: row.get(0)?,
                without_rowid: row.get(2)?,
                strict: row.get(3)?,
            };
            Ok((head, row.get::<_, String>(1)?))
        })
        .optional()?;
    let (head, kind) = found.ok_or_else(|| TableError::NoSuchTable(name.to_owned()))?;
    match kind.as_str() {
        _ if is_reserved(&head.name) => Err(TableError::Reserved(head.name)),
        "view" => Err(TableError::View(head.name)),
        "table" => Ok(head),
        _ => Err(TableError::Virtual(head.name)),
    }
}

struct RawColumn {
    column: Column,
    /// From 1; 0 outside the key.
    key_position: i64,
    generated: bool,
}

fn read_columns(
    conn: &Connection,
    table: &str,
    strict: bool,
) -> Result<Vec<RawColumn>, TableError> {
    let raw_column = |row: &Row<'_>| {
        let (name, declared): (String, String) = (row.get(0)?, row.get(1)?);
        let any = strict && declared.eq_ignore_ascii_case("any");
        Ok(RawColumn {
            column: Column {
                field: name.clone(),
                name,
                affinity: if any {
                    Affinity::Blob
                } else {
                    Affinity::of(&declared)
                },
                declared,
                not_null: row.get(2)?,
                default: row.get(3)?,
            },
            key_position: row.get(4)?,
            generated: row.get::<_, i64>(5)? >= 2,
        })
    };
    let mut statement = conn.prepare_cached(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden
         FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid",
    )?;
    let columns = statement.query_map([table], raw_column)?;
    Ok(columns.collect::<Result<_, _>>()?)
}

fn read_key(table: &str, raw: &[RawColumn]) -> Result<Vec<Column>, TableError> {
    let mut key: Vec<&RawColumn> = raw.iter().filter(|raw| raw.key_position > 0).collect();
    key.sort_by_key(|raw| raw.key_position);
    if key.is_empty() {
        return Err(TableError::NoPrimaryKey(table.to_owned()));
    }
    for raw in &key {
        let (table, column) = (table.to_owned(), raw.column.name.clone());
        if raw.column.affinity == Affinity::Real {
            let declared = raw.column.declared.clone();
            return Err(TableError::RealKey {
                table,
                column,
                declared,
            });
        }
    }
    Ok(key.into_iter().map(|raw| raw.column.clone()).collect())
}

fn free_rowid_name(table: &str, raw: &[RawColumn]) -> Result<&'static str, TableError> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| {
            raw.iter()
                .all(|raw| !raw.column.name.eq_ignore_ascii_case(name))
        })
        .ok_or_else(|| TableError::HiddenRowid(table.to_owned()))
}

/// Whether the key is the rowid, and all unique indexes, the primary key's first.
fn read_unique(
    conn: &Connection,
    head: &Head,
    key: &[Column],
) -> Result<(bool, Vec<UniqueIndex>), TableError> {
    let mut statement = conn.prepare_cached(
        "SELECT name, origin = 'pk', partial FROM pragma_index_list(?1, 'main')
         WHERE \"unique\" ORDER BY origin = 'pk' DESC, name",
    )?;
    let listed = statement.query_map([&head.name], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    let listed: Vec<(String, bool, bool)> = listed.collect::<Result<_, _>>()?;

    // Every primary key has an index of its own, unless it is the rowid.
    let integer_key = !listed.iter().any(|(_, primary, _)| *primary);
    let mut indexes = Vec::new();
    if integer_key {
        indexes.push(UniqueIndex {
            name: None,
            terms: (key.iter())
                .map(|column| UniqueTerm {
                    kind: TermKind::Column(column.name.clone()),
                    collation: "BINARY".to_owned(),
                })
                .collect(),
            filter: None,
        });
    }
    for (name, _, partial) in listed {
        indexes.push(read_index(conn, &head.name, name, partial)?);
    }
    Ok((integer_key, indexes))
}

fn read_index(
    conn: &Connection,
    table: &str,
    name: String,
    partial: bool,
) -> Result<UniqueIndex, TableError> {
    let mut statement = conn.prepare_cached(
        "SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno",
    )?;
    let terms = statement.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let terms: Vec<(Option<String>, String)> = terms.collect::<Result<_, _>>()?;

    let by_columns = terms.iter().all(|(column, _)| column.is_some());
    let text = match by_columns && !partial {
        true => None,
        false => Some(read_index_sql(conn, table, &name, terms.len())?),
    };
    let expression = |at: usize| {
        let text = text.as_ref().and_then(|text| text.terms.get(at));
        text.cloned().unwrap_or_default()
    };
    let terms = terms
        .into_iter()
        .enumerate()
        .map(|(at, (column, collation))| UniqueTerm {
            kind: column.map_or_else(|| TermKind::Expression(expression(at)), TermKind::Column),
            collation,
        })
        .collect();
    Ok(UniqueIndex {
        name: Some(name),
        terms,
        filter: text.and_then(|text| text.filter),
    })
}

fn read_index_sql(
    conn: &Connection,
    table: &str,
    index: &str,
    terms: usize,
) -> Result<index_sql::IndexSql, TableError> {
    let sql: Option<String> = conn
        .prepare_cached("SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1")?
        .query_row([index], |row| row.get(0))
        .optional()?
        .flatten();
    sql.as_deref()
        .and_then(index_sql::parse)
        .filter(|parsed| parsed.terms.len() == terms)
        .ok_or_else(|| TableError::UnreadableIndex {
            table: table.to_owned(),
            index: index.to_owned(),
        })
}

fn read_references(conn: &Connection, table: &str) -> Result<Vec<Reference>, TableError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, \"table\", \"from\", \"to\", on_delete FROM pragma_foreign_key_list(?1, 'main')
         ORDER BY id DESC, seq",
    )?;
    let mut rows = statement.query([table])?;
    // SQLite numbers the keys backwards: the highest id was written first.
    let mut references: BTreeMap<std::cmp::Reverse<i64>, Reference> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let entry = references.entry(std::cmp::Reverse(row.get(0)?));
        let reference = entry.or_insert(Reference {
            columns: Vec::new(),
            table: row.get(1)?,
            to_columns: Vec::new(),
            on_delete: on_delete(&row.get::<_, String>(4)?),
        });
        reference.columns.push(row.get(2)?);
        reference
            .to_columns
            .extend(row.get::<_, Option<String>>(3)?);
    }
    drop(rows);
    let mut references: Vec<Reference> = references.into_values().collect();
    for reference in &mut references {
        // A key that names no columns means the other table's primary key.
        if reference.to_columns.is_empty() {
            reference.to_columns = key_names(conn, &reference.table)?;
        }
    }
    Ok(references)
}

fn on_delete(clause: &str) -> OnDelete {
    match clause {
        "CASCADE" => OnDelete::Cascade,
        "SET NULL" => OnDelete::SetNull,
        "SET DEFAULT" => OnDelete::SetDefault,
        _ => OnDelete::NoAction,
    }
}

/// The primary key's columns of a table; empty if it has none, or is not there.
pub(super) fn key_names(conn: &Connection, table: &str) -> Result<Vec<String>, TableError> {
    let mut statement = conn.prepare_cached(
        "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE pk > 0 ORDER BY pk",
    )?;
    let names = statement.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}
