//! What a person chooses about an open conflict. The choice becomes ordinary mutations on the newest
//! state of the server that is known; nothing of it is special once it is written.

use super::reconcile::{Here, Way, split_remote};
use super::record::{self, Decided, FieldRecord, Loss, Outcome, Record, Showed, Side};
use super::undo::Undo;
use crate::apply::Applier;
use crate::error::StoreError;
use crate::inbox::Waiting;
use crate::retry::{Occasion, retry_waiting};
use crate::row::Written;
use crate::state;
use crate::store::RegisteredType;
use crate::unknown;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{PageSummary, changed, rebase};
use syncline_protocol::{Fields, RemoteState, Value};

/// What a person chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The local row, as it is when it is chosen.
    Mine,
    /// The server's state.
    Theirs,
    /// Field by field. A field that is not named takes the value of the side that alone changed it;
    /// one that both changed has to be named.
    Fields(BTreeMap<String, FieldChoice>),
    /// This row: every field of the table.
    Document(Fields),
    /// No row.
    Delete,
}

/// What a person chooses for one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldChoice {
    /// The local value.
    Mine,
    /// The server's.
    Theirs,
    /// This one.
    Value(Value),
}

impl Choice {
    /// The word for it in records.
    pub fn as_str(&self) -> &'static str {
        match self {
            Choice::Mine => "mine",
            Choice::Theirs => "theirs",
            Choice::Fields(_) => "fields",
            Choice::Document(_) => "document",
            Choice::Delete => "delete",
        }
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::Refused(why.into()))
}

/// Decides an open conflict as chosen.
pub(crate) fn resolve(
    applier: &mut Applier<'_>,
    id: i64,
    choice: &Choice,
) -> Result<(), StoreError> {
    let record = record::get(applier.tx, id)?;
    if let Some(resolution) = &record.resolution {
        return refuse(format!("conflict {id} was decided already: {resolution}"));
    }
    let entity = record.entity()?;
    let types = applier.types;
    let Some(entity_type) = types.get(entity.entity_type.as_str()) else {
        return refuse(format!("the table of {entity} is not there"));
    };
    let here = Here::read(applier, entity_type, &entity)?;
    if here.entries.iter().any(|entry| entry.frozen.is_some()) {
        return refuse(format!(
            "a mutation of {entity} may have been sent and its outcome is not known; sync first"
        ));
    }
    let waiting = state::unpark(applier.tx, &entity)?;
    let kept = unknown::of(applier.tx, &entity)?;
    let theirs = Theirs::of(&record, entity_type, (&here, kept), waiting.as_ref());
    let way = Way {
        entity_type,
        entity: &entity,
        theirs: theirs.fields.as_ref(),
        unknown: &theirs.unknown,
        here: &here,
        open: Some(id),
    };
    let row = chosen(&way, choice)?;
    if row.as_ref() != way.theirs
        && let Some(row) = &row
        && let Err(broken) = entity_type.rules.check_invariants(row)
    {
        return refuse(format!("that cannot be: {broken}"));
    }
    let undo = Undo::of(applier, &way, waiting.as_ref())?;
    let showed = record.showed.clone();
    apply(
        applier,
        &way,
        choice,
        row,
        undo,
        (theirs.remote.as_ref(), showed),
    )?;
    retry_waiting(applier, Occasion::Changed, &mut PageSummary::default())?;
    still_waits(applier, &record)
}

/// The server's side of a conflict.
struct Theirs {
    fields: Option<Fields>,
    unknown: Fields,
    /// With its version, where that is known.
    remote: Option<RemoteState>,
}

impl Theirs {
    fn of(
        record: &Record,
        entity_type: &RegisteredType,
        (here, kept): (&Here, Fields),
        waiting: Option<&Waiting>,
    ) -> Self {
        let known = [
            record.showed.remote.as_ref(),
            waiting.map(|one| &one.remote),
        ];
        let newest = known.into_iter().flatten().max_by_key(|one| one.position);
        let (fields, unknown) = match (newest, record.showed.side) {
            // The entity is in the way of another; the server's state of it is the base.
            (None, Side::Violation) => (here.base.clone(), kept),
            (newest, _) => split_remote(entity_type, newest),
        };
        Self {
            fields,
            unknown,
            remote: newest.cloned(),
        }
    }
}

fn apply(
    applier: &mut Applier<'_>,
    way: &Way<'_>,
    choice: &Choice,
    row: Option<Fields>,
    mut undo: Undo,
    (remote, showed): (Option<&RemoteState>, Showed),
) -> Result<(), StoreError> {
    let (tx, entity) = (applier.tx, way.entity);
    if row != way.here.local {
        match applier.write_row(way.entity_type, entity, row.as_ref())? {
            Written::Done => {}
            Written::NoParent(parent) => {
                return refuse(format!(
                    "{entity} would reference {parent}, which is not here"
                ));
            }
            Written::Refused(why) => {
                return refuse(format!("{entity} cannot be stored like that: {why}"));
            }
        }
    }
    if way.theirs.is_some() || row.is_none() {
        unknown::keep(tx, entity, way.unknown)?;
    }
    let rebased = rebase(&way.here.pending, row.as_ref(), way.theirs);
    applier.rewrite_outbox(way, &rebased, choice.as_str(), way.open)?;
    // What the server had refused says now what a person wants: it is sent again.
    tx.prepare_cached(
        "UPDATE syncline_outbox SET state = 'pending', last_error = NULL
          WHERE entity_type = ?1 AND entity_id = ?2 AND state = 'failed'",
    )?
    .execute([entity.entity_type.as_str(), entity.id.as_str()])?;
    if let Some(remote) = remote {
        let deleted = remote.fields.is_none();
        state::set_known(tx, entity, &remote.version, remote.position, deleted)?;
    }
    undo.note_result(applier, entity, row.as_ref(), way.theirs)?;
    let Some(id) = way.open else { return Ok(()) };
    let decided = Decided {
        resolution: choice.as_str(),
        result: row.as_ref(),
        outcome: Some(outcome(way, row.as_ref())),
        undo: Some(&undo),
    };
    // Local edits may have come since it was opened.
    record::open(tx, &way.about(showed), way.open, applier.now)?;
    record::decide(tx, id, &decided, applier.now)
}

/// The choice has to let in what waits for the place.
fn still_waits(applier: &Applier<'_>, record: &Record) -> Result<(), StoreError> {
    let (Some(other), None) = (&record.showed.other, &record.showed.remote) else {
        return Ok(());
    };
    let waits: bool = applier.tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM syncline_inbox
                         WHERE entity_type = ?1 AND entity_id = ?2 AND waits_for = 'constraint')",
        [&other.entity_type, &other.entity_id],
        |row| row.get(0),
    )?;
    if waits {
        let constraint = record.showed.constraint.as_deref().unwrap_or_default();
        return refuse(format!(
            "{} {} would still find no place ({constraint}); choose other values",
            other.entity_type, other.entity_id
        ));
    }
    Ok(())
}

/// The row that the choice means.
fn chosen(way: &Way<'_>, choice: &Choice) -> Result<Option<Fields>, StoreError> {
    match choice {
        Choice::Mine if way.here.local.is_none() && way.here.entries.is_empty() => refuse(format!(
            "there is no row of {} here; choose theirs, give a document, or delete it",
            way.entity
        )),
        Choice::Mine => Ok(way.here.local.clone()),
        Choice::Theirs => Ok(way.theirs.cloned()),
        Choice::Delete => Ok(None),
        Choice::Document(document) => {
            let columns = &way.entity_type.table.columns;
            let missing: Vec<&str> = (columns.iter())
                .map(|column| column.field.as_str())
                .filter(|field| !document.contains(field))
                .collect();
            if !missing.is_empty() {
                let missing = missing.join(", ");
                return refuse(format!("the document lacks these fields: {missing}"));
            }
            check(way, document)?;
            Ok(Some(document.clone()))
        }
        Choice::Fields(choices) => by_field(way, choices).map(Some),
    }
}

fn by_field(way: &Way<'_>, choices: &BTreeMap<String, FieldChoice>) -> Result<Fields, StoreError> {
    let (mine, theirs) = (way.here.local.as_ref(), way.theirs);
    let names: BTreeSet<&str> = [mine, theirs]
        .into_iter()
        .flatten()
        .flat_map(Fields::names)
        .collect();
    if names.is_empty() {
        return refuse("there is no row on either side; give a document, or delete it");
    }
    if let Some(unknown) = choices.keys().find(|name| !names.contains(name.as_str())) {
        let known: Vec<&str> = names.iter().copied().collect();
        return refuse(format!(
            "there is no field {unknown:?}; the fields are: {}",
            known.join(", ")
        ));
    }
    let (mut row, mut open) = (Fields::new(), Vec::new());
    for name in names {
        let value = |side: Option<&Fields>| side.and_then(|side| side.get(name)).cloned();
        let taken = match choices.get(name) {
            Some(FieldChoice::Value(given)) => Some(given.clone()),
            Some(FieldChoice::Mine) => value(mine),
            Some(FieldChoice::Theirs) => value(theirs),
            None => match unchosen(way, name) {
                Some(value) => Some(value),
                None => {
                    open.push(name);
                    continue;
                }
            },
        };
        match taken {
            Some(value) => drop(row.insert(name, value)),
            None => {
                return refuse(format!(
                    "{name} has no value on that side: the row is deleted there"
                ));
            }
        }
    }
    if !open.is_empty() {
        let open = open.join(", ");
        return refuse(format!(
            "both sides changed {open}: say which value to take"
        ));
    }
    check(way, &row)?;
    Ok(row)
}

/// The value of a field about which nothing was said: that of the side that alone changed it.
fn unchosen(way: &Way<'_>, name: &str) -> Option<Value> {
    let (Some(mine), Some(theirs)) = (&way.here.local, way.theirs) else {
        let side = way.here.local.as_ref().or(way.theirs);
        return side.and_then(|side| side.get(name)).cloned();
    };
    let base = way.here.base.as_ref().map(|base| base.get(name));
    let (mine, theirs) = (mine.get(name), theirs.get(name));
    match base {
        _ if mine == theirs => mine.cloned(),
        Some(base) if base == mine => theirs.cloned(),
        Some(base) if base == theirs => mine.cloned(),
        _ => None,
    }
}

fn check(way: &Way<'_>, row: &Fields) -> Result<(), StoreError> {
    let columns = &way.entity_type.table.columns;
    for (name, value) in row {
        if columns.iter().all(|column| column.field != *name) {
            let known: Vec<&str> = columns.iter().map(|one| one.field.as_str()).collect();
            let known = known.join(", ");
            return refuse(format!(
                "there is no field {name:?}; the fields are: {known}"
            ));
        }
        if let Err(error) = value.validate() {
            return refuse(format!("{name}: {error}"));
        }
    }
    Ok(())
}

/// What either side lost by a person's choice.
fn outcome(way: &Way<'_>, row: Option<&Fields>) -> Outcome {
    let (base, mine, theirs) = (way.here.base.as_ref(), way.here.local.as_ref(), way.theirs);
    let (Some(local), Some(remote), Some(row)) = (mine, theirs, row) else {
        return Outcome {
            fields: BTreeMap::new(),
            lost_mine: loss(base, mine, row),
            lost_theirs: loss(base, theirs, row),
        };
    };
    let empty = Fields::new();
    let before = base.unwrap_or(&empty);
    let both = changed(before, local).into_iter().filter(|(name, value)| {
        remote.get(name) != Some(value) && remote.get(name) != before.get(name)
    });
    let fields = both.map(|(name, value)| {
        let took = match row.get(&name) {
            now if now == Some(&value) => "mine",
            now if now == remote.get(&name) => "theirs",
            _ => "merged",
        };
        let (took, rule) = (took.to_owned(), "person".to_owned());
        (name, FieldRecord { took, rule })
    });
    Outcome {
        fields: fields.collect(),
        lost_mine: loss(base, mine, Some(row)),
        lost_theirs: loss(base, theirs, Some(row)),
    }
}

/// What a side had changed and the row does not show.
pub(super) fn loss(base: Option<&Fields>, side: Option<&Fields>, row: Option<&Fields>) -> Loss {
    let empty = Fields::new();
    let lost: Fields = match (base, side, row) {
        (Some(_), None, Some(_)) => return Loss::Deletion,
        (_, None, _) => return Loss::Nothing,
        (base, Some(side), row) => changed(base.unwrap_or(&empty), side)
            .into_iter()
            .filter(|(name, value)| row.is_none_or(|row| row.get(name) != Some(value)))
            .collect(),
    };
    match lost.is_empty() {
        true => Loss::Nothing,
        false => Loss::Values(lost),
    }
}
