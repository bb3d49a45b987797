//! Rows for which a constraint of the local schema leaves no place, once everything was tried again
//! at the head of the feed. They are conflicts, not failures of the page:
//!
//! | in the way | what happens |
//! |---|---|
//! | a dirty row | a conflict of that row: the app's resolver is asked, else a person. What is decided lets the waiting row in |
//! | a clean row, or none (CHECK, NOT NULL, a trigger of the app's) | a conflict of the waiting row, which stays in the inbox. It closes itself when the row lands |

use super::reconcile::{Here, Reconciled, Way, split_remote};
use super::record::{self, Showed, Side};
use crate::apply::Applier;
use crate::captured::CapturedError;
use crate::error::StoreError;
use crate::inbox::{self, Waiting};
use crate::outbox::{self, Entry};
use crate::retry::{Occasion, retry_waiting};
use crate::row::{self, Written};
use crate::state;
use crate::store::RegisteredType;
use crate::table::{TermKind, UniqueIndex, quote_ident};
use rusqlite::types::Value as SqlValue;
use syncline_core::{ConflictCause, Decision, EntityRef, PageSummary};
use syncline_protocol::{EntityId, Fields, RemoteState};

/// Waiting rows that are looked at in one go; the others have their turn when these are through.
const MOST: usize = 1_000;
/// Rows in the way of one row that are looked at.
const MOST_IN_THE_WAY: usize = 8;

/// Looks after everything that still waits for a place.
pub(crate) fn settle(
    applier: &mut Applier<'_>,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    let mut moved = false;
    for waiting in inbox::without_place(applier.tx, MOST)? {
        match examine(applier, &waiting) {
            Ok(settled) => moved |= settled,
            // What was recorded of it can never sync as it is; it says so in the outbox.
            Err(StoreError::Captured(CapturedError::Unsyncable { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    match moved {
        true => retry_waiting(applier, Occasion::Changed, summary),
        false => Ok(()),
    }
}

/// Whether a row that was in the way has gone out of it.
fn examine(applier: &mut Applier<'_>, waiting: &Waiting) -> Result<bool, StoreError> {
    let types = applier.types;
    let Some(entity_type) = types.get(waiting.entity.entity_type.as_str()) else {
        return Ok(false);
    };
    if state::view(applier.tx, &waiting.entity)?.sent {
        return Ok(false);
    }
    let constraint = inbox::detail(applier.tx, &waiting.entity)?;
    let others = match &waiting.remote.fields {
        Some(fields) => in_the_way(applier, entity_type, &waiting.entity.id, fields)?,
        None => Vec::new(),
    };
    let is_told = record::open_of(applier.tx, &waiting.entity)?.is_some();
    for other in others.iter().filter(|_| !is_told) {
        let names = (other.entity_type.as_str(), other.id.as_str());
        let entries = outbox::of_entity(applier.tx, names.0, names.1)?;
        if entries.iter().any(Entry::is_sent) {
            // Its answer may change everything.
            return Ok(false);
        }
        if !entries.is_empty() {
            return dirty_in_the_way(applier, entity_type, other, waiting, constraint);
        }
    }
    let cause = ConflictCause::Violation {
        constraint,
        other: others.into_iter().next(),
    };
    tell(
        applier,
        entity_type,
        &waiting.entity,
        &waiting.remote,
        &cause,
    )?;
    Ok(false)
}

/// A conflict of the entity that finds no place. One of another kind that is open stays as it is.
fn tell(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    remote: &RemoteState,
    cause: &ConflictCause,
) -> Result<(), StoreError> {
    let known = record::open_of(applier.tx, entity)?;
    if (known.iter()).any(|record| record.showed.side != Side::Violation) {
        return Ok(());
    }
    let here = Here::read(applier, entity_type, entity)?;
    let (theirs, unknown) = split_remote(entity_type, Some(remote));
    let way = Way {
        entity_type,
        entity,
        theirs: theirs.as_ref(),
        unknown: &unknown,
        here: &here,
        open: known.map(|record| record.id),
    };
    let reason = reason(cause);
    applier.open_conflict(&way, Showed::new(cause, Some(remote)), reason)?;
    Ok(())
}

fn reason(cause: &ConflictCause) -> String {
    match cause {
        ConflictCause::Violation { constraint, other } => match other {
            Some(other) => format!("{constraint} ({other})"),
            None => constraint.clone(),
        },
        ConflictCause::Push(_) | ConflictCause::Pull => String::new(),
    }
}

fn dirty_in_the_way(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    other: &EntityRef,
    waiting: &Waiting,
    constraint: String,
) -> Result<bool, StoreError> {
    let cause = ConflictCause::Violation {
        constraint,
        other: Some(waiting.entity.clone()),
    };
    let known = record::open_of(applier.tx, other)?;
    if (known.iter()).any(|record| record.showed.side != Side::Violation) {
        return Ok(false);
    }
    let here = Here::read(applier, entity_type, other)?;
    let unknown = crate::unknown::of(applier.tx, other)?;
    let way = Way {
        entity_type,
        entity: other,
        theirs: here.base.as_ref(),
        unknown: &unknown,
        here: &here,
        open: known.as_ref().map(|record| record.id),
    };
    let showed = Showed::new(&cause, None);
    let mut why = reason(&cause);
    if known.is_none() {
        match applier.decide(&way, &cause)? {
            Decision::Settled(settled) if settled.row != here.local => {
                match applier.settle(&way, &settled, showed.clone())? {
                    Reconciled::Settled | Reconciled::Waits => return Ok(true),
                    Reconciled::NoPlace(Written::Refused(refused)) => why = refused,
                    Reconciled::NoPlace(_) => {}
                }
            }
            Decision::Settled(_) => {}
            Decision::Manual { reason, rule } if rule != "violation" => {
                why = format!("{why}: {reason}");
            }
            Decision::Manual { .. } => {}
        }
    }
    applier.open_conflict(&way, showed, why)?;
    Ok(false)
}

/// The row that was decided after a refused push cannot be written: a person has to look at it.
pub(crate) fn open_pushed(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    remote: &RemoteState,
    written: &Written,
) -> Result<(), StoreError> {
    let Written::Refused(why) = written else {
        return Ok(());
    };
    let constraint = format!("the merged row cannot be stored: {why}");
    let other = match &remote.fields {
        Some(fields) => in_the_way(applier, entity_type, &entity.id, fields)?,
        None => Vec::new(),
    };
    let cause = ConflictCause::Violation {
        constraint,
        other: other.into_iter().next(),
    };
    tell(applier, entity_type, entity, remote, &cause)
}

/// Stored rows that hold a place of a unique index that a row with these fields would need.
fn in_the_way(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    id: &EntityId,
    fields: &Fields,
) -> Result<Vec<EntityRef>, StoreError> {
    let table = &entity_type.table;
    // Every column by its name, with the value that it would have.
    let keys = table.key.iter().zip(row::key_values(id));
    let keys = keys.map(|(column, value)| (column.name.as_str(), value));
    let given = table.columns.iter().map(|column| {
        let value = fields
            .get(&column.field)
            .map_or(SqlValue::Null, row::to_sql);
        (column.name.as_str(), value)
    });
    let row: Vec<(&str, SqlValue)> = keys.chain(given).collect();
    let mut found: Vec<EntityRef> = Vec::new();
    for index in &table.unique_indexes {
        let Some(condition) = collides(&table.name, &row, index) else {
            continue;
        };
        let values = row.iter().map(|(_, value)| value.clone());
        let ids = row::ids_where(applier.tx, table, &condition, values, MOST_IN_THE_WAY);
        // An expression over a column that is not synced cannot be looked up.
        for other in ids.unwrap_or_default() {
            let other = EntityRef {
                entity_type: entity_type.entity_type(),
                id: other,
            };
            if other.id != *id && !found.contains(&other) {
                found.push(other);
            }
        }
    }
    Ok(found)
}

/// Whether a stored row equals the given one in all terms of an index; `None`: it cannot be said.
fn collides(table: &str, row: &[(&str, SqlValue)], index: &UniqueIndex) -> Option<String> {
    let columns: Vec<String> = row
        .iter()
        .enumerate()
        .map(|(at, (name, _))| format!("?{} AS {}", at + 1, quote_ident(name)))
        .collect();
    let given = format!("(SELECT {}) AS {}", columns.join(", "), quote_ident(table));
    let mut conditions = Vec::new();
    for term in &index.terms {
        let collation = quote_ident(&term.collation);
        conditions.push(match &term.kind {
            TermKind::Column(name) => {
                let same = |(column, _): &(&str, SqlValue)| column.eq_ignore_ascii_case(name);
                let at = row.iter().position(same)?;
                format!("{} COLLATE {collation} = ?{}", quote_ident(name), at + 1)
            }
            TermKind::Expression(expression) => format!(
                "({expression}\n) COLLATE {collation} = (SELECT {expression}\n FROM {given})"
            ),
        });
    }
    // A line feed ends a comment that the app may have put there.
    conditions.extend(index.filter.as_ref().map(|filter| format!("({filter}\n)")));
    // Every value is bound, whether a term needs it or not.
    conditions.push(format!("?{0} IS ?{0}", row.len()));
    Some(conditions.join(" AND "))
}
