//! CREATE TABLE from parts. Every name is quoted, every word is one of a few; a declared type is
//! made of plain words and numbers.

use super::{ACTIONS, MAX_COLUMNS, literal};
use crate::table::{Affinity, quote_ident};
use std::collections::BTreeSet;
use syncline_protocol::{ReferenceAction, TypeDefinition};

const MAX_NAME_BYTES: usize = 128;
const COLLATIONS: [&str; 2] = ["NOCASE", "RTRIM"];

pub(super) fn action(word: &str) -> ReferenceAction {
    let known = ACTIONS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    known.map_or(ReferenceAction::NoAction, |(_, action)| *action)
}

/// A collation that every SQLite has; empty for BINARY, and for one that only the app defines.
pub(super) fn known_collation(name: &str) -> String {
    let known = COLLATIONS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name));
    known.map_or_else(String::new, |known| (*known).to_owned())
}

/// The declared type, or its affinity's plain name if it is written in a way that could not be
/// written again.
pub(super) fn portable_type(declared: &str, affinity: Affinity, strict: bool) -> String {
    if is_plain_type(declared) {
        return declared.to_owned();
    }
    let plain = match affinity {
        Affinity::Integer => "INTEGER",
        Affinity::Text => "TEXT",
        Affinity::Blob if strict => "ANY",
        Affinity::Blob => "BLOB",
        Affinity::Real => "REAL",
        Affinity::Numeric => "NUMERIC",
    };
    plain.to_owned()
}

/// Words that end a column's type and begin something else.
const NOT_IN_TYPES: [&str; 12] = [
    "CONSTRAINT",
    "PRIMARY",
    "NOT",
    "NULL",
    "UNIQUE",
    "CHECK",
    "DEFAULT",
    "COLLATE",
    "REFERENCES",
    "GENERATED",
    "AS",
    "KEY",
];

/// `WORD WORD…`, then perhaps one or two numbers in parentheses.
fn is_plain_type(declared: &str) -> bool {
    let (words, numbers) = match declared.split_once('(') {
        Some((words, rest)) => match rest.strip_suffix(')') {
            Some(numbers) => (words, Some(numbers)),
            None => return false,
        },
        None => (declared, None),
    };
    let is_word = |word: &str| {
        let mut letters = word.chars();
        let first = letters
            .next()
            .is_some_and(|c| c.is_alphabetic() || c == '_');
        first
            && letters.all(|c| c.is_alphanumeric() || c == '_')
            && !NOT_IN_TYPES
                .iter()
                .any(|other| other.eq_ignore_ascii_case(word))
    };
    let is_number = |number: &str| {
        let digits = number.trim().trim_start_matches(['+', '-']);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    declared.len() <= MAX_NAME_BYTES
        && words
            .split(' ')
            .filter(|word| !word.is_empty())
            .all(is_word)
        && (numbers.is_none() || !words.trim().is_empty())
        && numbers.is_none_or(|list| list.split(',').count() <= 2 && list.split(',').all(is_number))
}

/// What is wrong with a definition, before any SQL is made of it.
pub(super) fn check(definition: &TypeDefinition) -> Result<(), String> {
    check_name("type", definition.name.as_str())?;
    check_name("table", &definition.table)?;
    let lower = definition.table.to_ascii_lowercase();
    if lower.starts_with("sqlite_") || lower.starts_with("syncline_") {
        return Err(format!("the table name {:?} is reserved", definition.table));
    }
    if definition.columns.is_empty() || definition.columns.len() > MAX_COLUMNS {
        return Err(format!("it has no columns or more than {MAX_COLUMNS}"));
    }
    let mut columns = BTreeSet::new();
    for column in &definition.columns {
        check_name("column", &column.name)?;
        if !columns.insert(column.name.to_ascii_lowercase()) {
            return Err(format!("the column {:?} stands twice", column.name));
        }
        if let Some(field) = &column.field {
            check_name("field", field)?;
        }
        if !is_plain_type(&column.declared) {
            return Err(format!("{:?} is no type of a column", column.declared));
        }
        if !column.collation.is_empty() && !COLLATIONS.contains(&column.collation.as_str()) {
            return Err(format!("there is no collation {:?}", column.collation));
        }
        if let Some(default) = &column.default {
            default.validate().map_err(|error| error.to_string())?;
        }
    }
    let lists = definition.unique.iter().chain([&definition.key]);
    let referring = definition
        .references
        .iter()
        .map(|reference| &reference.columns);
    for list in lists.chain(referring) {
        let known = |name: &String| columns.contains(&name.to_ascii_lowercase());
        if list.is_empty() || list.len() > MAX_COLUMNS || !list.iter().all(known) {
            return Err(
                "a key, unique list or reference names columns that are not there".to_owned(),
            );
        }
    }
    for reference in &definition.references {
        check_name("table", &reference.table)?;
        reference
            .to_columns
            .iter()
            .try_for_each(|name| check_name("column", name))?;
        if reference.columns.len() != reference.to_columns.len() {
            return Err(format!(
                "the reference to {:?} does not fit",
                reference.table
            ));
        }
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let fits = !name.is_empty() && name.len() <= MAX_NAME_BYTES;
    match fits && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(format!(
            "a {what} needs a name of 1 to {MAX_NAME_BYTES} bytes without control characters"
        )),
    }
}

/// The statement. [`check`] has found nothing wrong.
pub(super) fn create_table(definition: &TypeDefinition) -> String {
    let list = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| quote_ident(name)).collect();
        names.join(", ")
    };
    let mut parts = Vec::new();
    for column in &definition.columns {
        let mut part = quote_ident(&column.name);
        for word in [&column.declared, "NOT NULL"] {
            let wanted = word != "NOT NULL" || column.not_null;
            if wanted && !word.is_empty() {
                part.push(' ');
                part.push_str(word);
            }
        }
        if let Some(default) = &column.default {
            part.push_str(&format!(" DEFAULT {}", literal::write(default)));
        }
        if !column.collation.is_empty() {
            part.push_str(&format!(" COLLATE {}", column.collation));
        }
        parts.push(part);
    }
    parts.push(format!("PRIMARY KEY ({})", list(&definition.key)));
    parts.extend(
        definition
            .unique
            .iter()
            .map(|names| format!("UNIQUE ({})", list(names))),
    );
    for reference in &definition.references {
        let word = |action: ReferenceAction| {
            let known = ACTIONS.iter().find(|(_, one)| *one == action);
            known.map_or("NO ACTION", |(word, _)| *word)
        };
        parts.push(format!(
            "FOREIGN KEY ({}) REFERENCES {} ({}) ON DELETE {} ON UPDATE {}",
            list(&reference.columns),
            quote_ident(&reference.table),
            list(&reference.to_columns),
            word(reference.on_delete),
            word(reference.on_update)
        ));
    }
    let options = match (definition.without_rowid, definition.strict) {
        (true, true) => " WITHOUT ROWID, STRICT",
        (true, false) => " WITHOUT ROWID",
        (false, true) => " STRICT",
        (false, false) => "",
    };
    let body = parts.join(",\n  ");
    format!(
        "CREATE TABLE {} (\n  {body}\n){options};",
        quote_ident(&definition.table)
    )
}
