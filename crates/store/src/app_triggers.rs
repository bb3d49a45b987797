//! The app's own triggers while the engine applies.
//!
//! A trigger of the app's that writes synced tables (an `updated_at`, an audit row that is synced)
//! ran where the change was made, and its effect arrives as data. Run again here it would change
//! rows behind capture's back, so it is held off: dropped and created again within the same
//! transaction. Triggers that write other tables (a search index) fire as always. Only what stands
//! directly in a trigger is seen, not what its writes set off in turn. What was declared for a trigger goes before
//! either. [`guarded`] is the one way to write rows.

use crate::capture;
use crate::error::StoreError;
use crate::store::EntityTypes;
use crate::table::quote_ident;
use crate::type_options::WhileApplying;
use rusqlite::{Connection, Transaction};
use std::collections::BTreeSet;

/// A trigger of the app's on a synced table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppTrigger {
    pub(crate) name: String,
    table: String,
    sql: String,
    /// What it does while the engine applies.
    pub(crate) applying: WhileApplying,
}

/// The app's triggers on synced tables, oldest first.
pub(crate) fn list(conn: &Connection, types: &EntityTypes) -> Result<Vec<AppTrigger>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT name, tbl_name, sql FROM sqlite_schema
          WHERE type = 'trigger' AND substr(name, 1, 9) <> 'syncline_' ORDER BY rowid",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
        ))
    })?;
    let mut triggers = Vec::new();
    for row in rows {
        let (name, table, sql) = row?;
        if let Some(entity_type) = types.of_table(&table) {
            let mut declared = entity_type.options.triggers.iter();
            let declared = declared.find(|(of, _)| of.eq_ignore_ascii_case(&name));
            let mut written = written_tables(&sql).into_iter();
            let applying = match declared {
                Some((_, applying)) => *applying,
                None if written.any(|table| types.of_table(&table).is_some()) => {
                    WhileApplying::Held
                }
                None => WhileApplying::Fires,
            };
            triggers.push(AppTrigger {
                name,
                table,
                sql,
                applying,
            });
        }
    }
    Ok(triggers)
}

/// Takes away the triggers that would repeat what arrives as data.
pub(crate) fn hold(
    tx: &Transaction<'_>,
    types: &EntityTypes,
) -> Result<Vec<AppTrigger>, StoreError> {
    let mut held = list(tx, types)?;
    held.retain(|trigger| trigger.applying == WhileApplying::Held);
    for trigger in &held {
        tx.execute_batch(&format!("DROP TRIGGER main.{}", quote_ident(&trigger.name)))?;
    }
    Ok(held)
}

/// Puts them back in their order, and the capture triggers of their tables after them.
pub(crate) fn restore(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    held: &[AppTrigger],
) -> Result<(), StoreError> {
    for trigger in held {
        tx.execute_batch(&trigger.sql)?;
    }
    let tables: BTreeSet<&str> = held.iter().map(|trigger| trigger.table.as_str()).collect();
    for entity_type in tables.into_iter().filter_map(|table| types.of_table(table)) {
        capture::install(tx, entity_type)?;
    }
    Ok(())
}

/// The tables that the statements of a trigger name as their target.
fn written_tables(sql: &str) -> Vec<String> {
    let words = words(sql);
    let body = words
        .iter()
        .position(|word| word.eq_ignore_ascii_case("begin"))
        .unwrap_or(0);
    let mut tables = Vec::new();
    for index in body..words.len() {
        let next = |offset: usize| words.get(index + offset).cloned();
        let is = |offset: usize, keyword: &str| {
            index
                .checked_sub(offset)
                .is_some_and(|at| words[at].eq_ignore_ascii_case(keyword))
        };
        let target = if is(0, "into") || (is(0, "from") && is(1, "delete")) {
            next(1)
        } else if is(0, "update") {
            // UPDATE OR IGNORE t: the clause stands between.
            let clause = next(1).is_some_and(|word| word.eq_ignore_ascii_case("or"));
            next(if clause { 3 } else { 1 })
        } else {
            None
        };
        tables.extend(target);
    }
    tables
}

/// The names and keywords of a statement, without quotes; strings and comments are left out.
fn words(sql: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = sql.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            '-' if rest.peek() == Some(&'-') => while rest.next_if(|c| *c != '\n').is_some() {},
            '/' if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                for c in rest.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            '"' | '`' | '[' | '\'' => {
                let close = if first == '[' { ']' } else { first };
                let mut word = String::new();
                while let Some(c) = rest.next() {
                    if c != close {
                        word.push(c);
                    } else if first != '[' && rest.next_if_eq(&close).is_some() {
                        word.push(close);
                    } else {
                        break;
                    }
                }
                words.push(word);
            }
            c if c.is_alphanumeric() || c == '_' || !c.is_ascii() => {
                let mut word = String::from(c);
                while let Some(c) =
                    rest.next_if(|c| c.is_alphanumeric() || *c == '_' || *c == '$' || !c.is_ascii())
                {
                    word.push(c);
                }
                words.push(word);
            }
            _ => {}
        }
    }
    words
}

/// Whether such work is under way.
pub(crate) fn is_guarded(tx: &Transaction<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM syncline_guard)";
    Ok(tx.query_row(sql, [], |row| row.get(0))?)
}

/// Runs work during which the capture triggers record nothing (P3) and the app's triggers do not
/// repeat what arrives as data.
pub(crate) fn guarded<T>(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let held = hold(tx, types)?;
    tx.execute("INSERT INTO syncline_guard (held) VALUES (1)", [])?;
    let done = work()?;
    tx.execute("DELETE FROM syncline_guard", [])?;
    restore(tx, types, &held)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_whatever_their_spelling() {
        let sql = "CREATE TRIGGER t AFTER UPDATE ON a BEGIN -- update c
            UPDATE OR IGNORE \"we\"\"ird\" SET x = 'insert into d';
            INSERT INTO [b c] SELECT * FROM e; /* delete from f */
            DELETE FROM `g`; REPLACE INTO main_table VALUES (1);
        END";
        assert_eq!(written_tables(sql), ["we\"ird", "b c", "g", "main_table"]);
    }
}
