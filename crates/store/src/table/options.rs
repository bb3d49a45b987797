//! What was declared for a table beside its schema: columns left out, fields with other names,
//! references that only the app knows.

use super::{Column, OnDelete, Reference, Table, TableError};
use crate::type_options::{IdMode, TypeOptions};
use rusqlite::Connection;
use std::collections::BTreeSet;

/// The longest name of a field on the wire, in bytes.
const MAX_FIELD_BYTES: usize = 128;

impl Table {
    /// Reads a table with what was declared for it. What names a column or table that is not
    /// there (any more) is passed over: [`Table::check_options`] refuses it when it is declared.
    pub fn read_with(
        conn: &Connection,
        name: &str,
        options: &TypeOptions,
    ) -> Result<Table, TableError> {
        let mut table = Table::read(conn, name)?;
        table.leave_out(&options.leave_out)?;
        let (references, left_out) = (&mut table.references, &table.left_out);
        references.retain(|one| !one.columns.iter().any(|name| is_among(name, left_out)));
        for column in &mut table.columns {
            let declared = options.fields.iter();
            let mut same = declared.filter(|(name, _)| name.eq_ignore_ascii_case(&column.name));
            if let Some((_, field)) = same.next() {
                column.field.clone_from(field);
            }
        }
        table.check_fields()?;
        for declared in &options.references {
            let to_columns = super::read::key_names(conn, &declared.table)?;
            let known =
                |name: &String| is_among(name, &table.key) || is_among(name, &table.columns);
            if to_columns.len() == declared.columns.len() && declared.columns.iter().all(known) {
                table.references.push(Reference {
                    columns: declared.columns.clone(),
                    table: declared.table.clone(),
                    to_columns,
                    on_delete: OnDelete::NoAction,
                });
            }
        }
        Ok(table)
    }

    /// Refuses options that name what is not there, with the reason and the mend.
    pub fn check_options(
        conn: &Connection,
        name: &str,
        options: &TypeOptions,
    ) -> Result<(), TableError> {
        let table = Table::read(conn, name)?;
        let assigned = !matches!(options.id_mode, None | Some(IdMode::Client));
        if assigned && table.key.len() > 1 {
            return Err(TableError::UnfitIdMode(table.name));
        }
        let (leave_out, fields) = (options.leave_out.iter(), options.fields.keys());
        let referring = options.references.iter().flat_map(|one| &one.columns);
        for column in leave_out.chain(fields).chain(referring) {
            if !table.has_column(column) {
                return Err(TableError::UnknownColumn {
                    table: table.name,
                    column: column.clone(),
                });
            }
            if table
                .generated
                .iter()
                .any(|name| name.eq_ignore_ascii_case(column))
            {
                return Err(TableError::GeneratedOption {
                    table: table.name,
                    column: column.clone(),
                });
            }
        }
        for column in options.fields.keys() {
            if is_among(column, &table.key) {
                return Err(TableError::KeyField {
                    table: table.name,
                    column: column.clone(),
                });
            }
        }
        for trigger in options.triggers.keys() {
            if !has_trigger(conn, &table.name, trigger)? {
                return Err(TableError::UnknownTrigger {
                    table: table.name,
                    trigger: trigger.clone(),
                });
            }
        }
        for declared in &options.references {
            let to_columns = super::read::key_names(conn, &declared.table)?;
            if to_columns.is_empty() || to_columns.len() != declared.columns.len() {
                return Err(TableError::UnfitReference {
                    table: table.name,
                    to: declared.table.clone(),
                    columns: declared.columns.join(", "),
                    key: to_columns.join(", "),
                });
            }
        }
        Table::read_with(conn, name, options).map(drop)
    }

    /// Whether the table has a column of that name, synced or not.
    pub(crate) fn has_column(&self, name: &str) -> bool {
        (self.layout.iter()).any(|column| column.name.eq_ignore_ascii_case(name))
    }

    fn leave_out(&mut self, names: &BTreeSet<String>) -> Result<(), TableError> {
        for name in names {
            if is_among(name, &self.key) {
                return Err(TableError::KeyLeftOut {
                    table: self.name.clone(),
                    column: name.clone(),
                });
            }
        }
        let is_left_out =
            |column: &Column| (names.iter()).any(|name| name.eq_ignore_ascii_case(&column.name));
        let columns = std::mem::take(&mut self.columns);
        let (left_out, columns) = columns.into_iter().partition(is_left_out);
        (self.left_out, self.columns) = (left_out, columns);
        let required = |column: &&Column| column.not_null && column.default.is_none();
        match self.left_out.iter().find(required) {
            None => Ok(()),
            Some(column) => Err(TableError::RequiredLeftOut {
                table: self.name.clone(),
                column: column.name.clone(),
            }),
        }
    }

    fn check_fields(&self) -> Result<(), TableError> {
        let mut fields = BTreeSet::new();
        for column in &self.columns {
            let field = &column.field;
            if field.is_empty()
                || field.len() > MAX_FIELD_BYTES
                || field.chars().any(char::is_control)
            {
                return Err(TableError::UnfitField {
                    table: self.name.clone(),
                    column: column.name.clone(),
                });
            }
            if !fields.insert(field.to_ascii_lowercase()) {
                return Err(TableError::SameField {
                    table: self.name.clone(),
                    field: field.clone(),
                });
            }
        }
        Ok(())
    }
}

fn has_trigger(conn: &Connection, table: &str, name: &str) -> Result<bool, TableError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger'
                               AND tbl_name = ?1 COLLATE NOCASE AND name = ?2 COLLATE NOCASE)";
    Ok(conn.query_row(sql, [table, name], |row| row.get(0))?)
}

fn is_among(name: &str, columns: &[Column]) -> bool {
    (columns.iter()).any(|column| column.name.eq_ignore_ascii_case(name))
}
