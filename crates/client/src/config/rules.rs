//! What a type's section says of its conflicts: `policy`, `merge`, `deletes`, `timestamp`,
//! `natural_key`, `invariants`. Fields go by the names of their columns here.

use super::keys;
use super::read::{Fault, Table};
use std::collections::BTreeSet;
use syncline_core::{
    Bound, ConflictRules, DeleteRule, DeleteRules, FieldRule, Invariant, Policy, RuleError,
    TimeUnit, Timestamp,
};

/// Reads the rules and refuses those that could never count.
pub(super) fn conflict_rules(table: &Table<'_>) -> Result<ConflictRules, Fault> {
    let mut rules = ConflictRules {
        policy: table.word("policy", Policy::WORDS)?.unwrap_or_default(),
        deletes: deletes(table)?,
        timestamp: timestamp(table)?,
        natural_key: natural_key(table)?,
        ..ConflictRules::default()
    };
    if let Some(merge) = table.table("merge")? {
        rules.merge = merge.all_words(FieldRule::WORDS)?;
    }
    for one in table.array_of_tables("invariants")? {
        let invariant = invariant(&one)?;
        let mut others = rules.invariants.iter();
        if others.any(|other| other.name == invariant.name) {
            return Err(one.fault("name", "another invariant has this name already"));
        }
        rules.invariants.push(invariant);
    }
    rules
        .validate()
        .map_err(|error| misused(table, &rules, &error))?;
    Ok(rules)
}

/// One word for both directions, or one for each.
fn deletes(table: &Table<'_>) -> Result<DeleteRules, Fault> {
    let Some(each) = table.unless_text("deletes", "a word, or a table of `here` and `there`")?
    else {
        let both = table.word("deletes", DeleteRule::WORDS)?;
        return Ok(DeleteRules {
            here: both,
            there: both,
        });
    };
    each.only(keys::DELETES)?;
    Ok(DeleteRules {
        here: each.word("here", DeleteRule::WORDS)?,
        there: each.word("there", DeleteRule::WORDS)?,
    })
}

/// A column alone, or with the unit of its numbers.
fn timestamp(table: &Table<'_>) -> Result<Option<Timestamp>, Fault> {
    let wanted = "the name of a column, or a table of `field` and `unit`";
    let Some(full) = table.unless_text("timestamp", wanted)? else {
        let field = table.text("timestamp")?;
        return Ok(field.map(|field| Timestamp {
            field,
            unit: TimeUnit::default(),
        }));
    };
    full.only(keys::TIMESTAMP)?;
    Ok(Some(Timestamp {
        field: full.required("field", full.text("field")?)?,
        unit: full.word("unit", TimeUnit::WORDS)?.unwrap_or_default(),
    }))
}

fn natural_key(table: &Table<'_>) -> Result<BTreeSet<String>, Fault> {
    match table.texts("natural_key")? {
        Some(names) if names.is_empty() => Err(table.fault("natural_key", "it names no column")),
        names => Ok(names.map(BTreeSet::from_iter).unwrap_or_default()),
    }
}

fn invariant(table: &Table<'_>) -> Result<Invariant, Fault> {
    table.only(keys::INVARIANT)?;
    let name = table.required("name", table.text("name")?)?;
    let sum = match (table.texts("sum")?, table.text("field")?) {
        (Some(_), Some(_)) => return Err(table.fault("field", "there is a sum as well")),
        (Some(sum), None) => sum,
        (None, field) => vec![table.required("field", field)?],
    };
    Ok(Invariant {
        name,
        sum,
        min: bound(table, "min")?,
        max: bound(table, "max")?,
    })
}

/// A number, or the column that has it.
fn bound(table: &Table<'_>, key: &str) -> Result<Option<Bound>, Fault> {
    let number = table.unless_text_number(key)?.map(Bound::Number);
    match number {
        Some(number) => Ok(Some(number)),
        None => Ok(table.text(key)?.map(Bound::Field)),
    }
}

/// Rules that contradict each other, at the place of the key that is too much.
fn misused(table: &Table<'_>, rules: &ConflictRules, error: &RuleError) -> Fault {
    let (key, below) = error.key.split_once('.').unwrap_or((&error.key, ""));
    let inner = match key {
        "invariants" => {
            let number = rules.invariants.iter().position(|one| one.name == below);
            let all = table.array_of_tables(key).unwrap_or_default();
            number.and_then(|number| all.into_iter().nth(number))
        }
        _ => table.table(key).ok().flatten(),
    };
    let fault = match inner {
        Some(inner) => inner.fault(below, &error.reason),
        None => table.fault(key, &error.reason),
    };
    Fault {
        key: table.path_of(&error.key),
        ..fault
    }
}
