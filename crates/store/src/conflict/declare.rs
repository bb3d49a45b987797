//! Declared rules name columns, as everything in `syncline.toml` does; decisions are made about
//! fields. What names a column that is not synced is refused.

use crate::error::StoreError;
use crate::table::Table;
use syncline_core::{Bound, ConflictRules, Invariant, Timestamp};

/// The rules with the names of fields in place of those of columns.
pub(crate) fn rules_of_fields(
    rules: &ConflictRules,
    table: &Table,
) -> Result<ConflictRules, StoreError> {
    let refuse = |key: &str, reason: &str| {
        Err(StoreError::Refused(format!(
            "table {:?}: {key}: {reason}",
            table.name
        )))
    };
    if let Err(error) = rules.validate() {
        return refuse(&error.key, &error.reason);
    }
    for (key, name) in rules.named_fields() {
        if field(table, name).is_none() {
            let is_key = (table.key.iter()).any(|column| column.name.eq_ignore_ascii_case(name));
            let known: Vec<&str> = table.columns.iter().map(|one| one.name.as_str()).collect();
            let reason = match is_key {
                true => format!("{name:?} is part of the primary key, which never changes"),
                false => format!(
                    "no synced column is called {name:?}; there are: {}",
                    known.join(", ")
                ),
            };
            return refuse(&key, &reason);
        }
    }
    let named = |name: &String| field(table, name).unwrap_or(name).to_owned();
    let bound = |bound: &Option<Bound>| {
        bound.as_ref().map(|bound| match bound {
            Bound::Field(name) => Bound::Field(named(name)),
            Bound::Number(number) => Bound::Number(number.clone()),
        })
    };
    let merge = rules.merge.iter();
    Ok(ConflictRules {
        merge: merge.map(|(name, rule)| (named(name), *rule)).collect(),
        timestamp: rules.timestamp.as_ref().map(|one| Timestamp {
            field: named(&one.field),
            ..one.clone()
        }),
        natural_key: rules.natural_key.iter().map(named).collect(),
        invariants: (rules.invariants.iter())
            .map(|one| Invariant {
                sum: one.sum.iter().map(named).collect(),
                min: bound(&one.min),
                max: bound(&one.max),
                ..one.clone()
            })
            .collect(),
        ..rules.clone()
    })
}

/// The field of a column; a field that is named itself stands for itself.
fn field<'t>(table: &'t Table, name: &str) -> Option<&'t str> {
    let mut columns = table.columns.iter();
    let by_column = columns.find(|column| column.name.eq_ignore_ascii_case(name));
    let found = by_column.or_else(|| table.columns.iter().find(|column| column.field == name));
    found.map(|column| column.field.as_str())
}
