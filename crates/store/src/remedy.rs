//! What a person does about an entry: retry it, edit it, or discard it and take the row back.

use crate::apply::{Applier, after_mutation};
use crate::captured::{self, CapturedError};
use crate::conflict::{Reconciled, record, violation};
use crate::error::{StoreError, to_json};
use crate::outbox::{self, Entry, EntryState};
use crate::retry::{Occasion, retry_waiting};
use crate::row::{self, Written};
use crate::state;
use crate::store::RegisteredType;
use crate::unknown;
use rusqlite::params;
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{ConflictCause, EntityRef, MutationError, Notice, PageSummary};
use syncline_protocol::{Fields, Operation, RemoteState};

/// Lets an entry be sent again: a failed one under a new key, a dead one under its old key and
/// with its old bytes, since its outcome is not known.
pub(crate) fn retry(applier: &Applier<'_>, seq: i64) -> Result<(), StoreError> {
    let entry = outbox::get(applier.tx, seq)?.ok_or(StoreError::NoSuchEntry(seq))?;
    if !matches!(entry.state, EntryState::Failed | EntryState::Dead) {
        return Err(StoreError::Refused(format!(
            "entry {seq} is {}: only failed and dead entries are retried by hand",
            entry.state.as_str()
        )));
    }
    applier.tx.execute(
        "UPDATE syncline_outbox SET state = 'pending', attempts = 0, not_before = 0, cancel = 0
          WHERE seq = ?1",
        params![seq],
    )?;
    share(applier, &entry)?;
    outbox::log(applier.tx, &entry, "retried", "{}", applier.now)
}

/// What a copy of the file has as well, and somebody may send again there: with what follows it, it goes under the
/// keys that both have, as if it had been sent (I2).
fn share(applier: &Applier<'_>, entry: &Entry) -> Result<(), StoreError> {
    applier.tx.execute(
        "UPDATE syncline_outbox SET origin_client = shared_with, shared_with = NULL
          WHERE entity_type = ?1 AND entity_id = ?2 AND seq >= ?3 AND state = 'pending'
            AND shared_with IS NOT NULL AND origin_client IS NULL",
        params![entry.entity_type.as_str(), entry.entity_id, entry.seq],
    )?;
    Ok(())
}

/// What came of discarding an entry. Entries by number, in local order.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Discarded {
    /// Given up, and their rows taken back.
    pub gone: Vec<i64>,
    /// May have been sent: the server is asked to cancel them with the next sync. Those that it
    /// cancels are given up then, with what depends on them; those that it has applied stay.
    pub cancelling: Vec<i64>,
}

/// Gives entries up and makes their rows what they are without them. What depends on them goes
/// along: everything that needs a row that is not created now, what names them as a dependency, and
/// their whole group. While any of them may have been sent, the server is asked first (E5).
pub(crate) fn discard(applier: &mut Applier<'_>, seq: i64) -> Result<Discarded, StoreError> {
    let doomed = doomed(applier, seq)?;
    let sent: Vec<i64> = doomed
        .values()
        .filter(|one| is_to_be_asked(one))
        .map(|one| one.seq)
        .collect();
    if sent.is_empty() {
        let gone = give_up(applier, seq, &doomed)?;
        return Ok(Discarded {
            gone,
            cancelling: Vec::new(),
        });
    }
    for seq in &sent {
        applier
            .tx
            .prepare_cached("UPDATE syncline_outbox SET cancel = 1 WHERE seq = ?1")?
            .execute([seq])?;
    }
    Ok(Discarded {
        gone: Vec::new(),
        cancelling: sent,
    })
}

/// The key of an entry that was to be cancelled is final, and it had no effect: it is given up with
/// everything that depends on it, apart from what may have been sent itself: that is asked about. Where a row cannot be
/// taken back, since its old place is gone, it is a dead letter, and nothing else of the answer waits for that.
pub(crate) fn cancelled(applier: &mut Applier<'_>, seq: i64) -> Result<(), StoreError> {
    let (tx, told) = (applier.tx, applier.notices.len());
    tx.execute_batch("SAVEPOINT syncline_cancelled")?;
    let why = match give_up_with_dependents(applier, seq) {
        Err(StoreError::Refused(why)) => why,
        done => {
            tx.execute_batch("RELEASE syncline_cancelled")?;
            return done;
        }
    };
    tx.execute_batch("ROLLBACK TO syncline_cancelled; RELEASE syncline_cancelled")?;
    applier.notices.truncate(told);
    let Some(entry) = outbox::get(tx, seq)? else {
        return Ok(());
    };
    let error = MutationError::new("cancelled", format!("it had no effect, but {why}"));
    outbox::fail(tx, &entry, &error, applier.now)?;
    applier.notices.push(Notice::MutationFailed {
        mutation: entry.mutation.clone(),
        entity: entry.entity().ok(),
        error,
    });
    Ok(())
}

fn give_up_with_dependents(applier: &mut Applier<'_>, seq: i64) -> Result<(), StoreError> {
    let mut doomed = doomed(applier, seq)?;
    for other in doomed.values().filter(|one| is_to_be_asked(one)) {
        applier
            .tx
            .prepare_cached("UPDATE syncline_outbox SET cancel = 1 WHERE seq = ?1")?
            .execute([other.seq])?;
    }
    doomed.retain(|_, one| !is_to_be_asked(one));
    give_up(applier, seq, &doomed).map(drop)
}

/// Gives an entry up that was to be cancelled, if nothing of it can have been sent any more: then there is
/// nothing to ask the server about, and nobody would.
pub(crate) fn give_up_unsent(applier: &mut Applier<'_>, seq: i64) -> Result<(), StoreError> {
    let entry = outbox::get(applier.tx, seq)?;
    match entry.filter(|entry| entry.cancel && !is_to_be_asked(entry)) {
        Some(_) => {
            applier.rekeying.outbox_changed();
            cancelled(applier, seq)
        }
        None => Ok(()),
    }
}

/// Whether the server may know its key.
fn is_to_be_asked(entry: &Entry) -> bool {
    entry.frozen.is_some() || (entry.is_offered_again() && entry.key.is_some())
}

/// What discarding an entry takes along, itself included.
pub(crate) fn doomed(applier: &Applier<'_>, seq: i64) -> Result<BTreeMap<i64, Entry>, StoreError> {
    let entry = outbox::get(applier.tx, seq)?.ok_or(StoreError::NoSuchEntry(seq))?;
    let mut doomed = BTreeMap::new();
    let mut next = vec![entry];
    while let Some(entry) = next.pop() {
        if doomed.contains_key(&entry.seq) {
            continue;
        }
        if let Some(group) = &entry.group {
            next.extend(outbox::of_group(applier.tx, group)?);
        }
        next.extend(named_dependents(applier, &entry)?);
        if entry.op == Operation::Create {
            let mut dependents = BTreeMap::new();
            add_dependents(applier, &entry, &mut dependents)?;
            next.extend(dependents.into_values());
        }
        doomed.insert(entry.seq, entry);
    }
    Ok(doomed)
}

/// Entries that name this one's mutation in `depends_on`.
fn named_dependents(applier: &Applier<'_>, entry: &Entry) -> Result<Vec<Entry>, StoreError> {
    let mut statement = applier.tx.prepare_cached(
        "SELECT seq FROM syncline_outbox o
          WHERE depends_on IS NOT NULL AND json_valid(depends_on) AND EXISTS (
            SELECT 1 FROM json_each(o.depends_on) WHERE value = ?1)",
    )?;
    let found = statement.query_map([entry.mutation.as_str()], |row| row.get(0))?;
    let found: Vec<i64> = found.collect::<Result<_, _>>()?;
    let entries = found.into_iter().map(|seq| outbox::get(applier.tx, seq));
    Ok(entries
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn give_up(
    applier: &mut Applier<'_>,
    seq: i64,
    doomed: &BTreeMap<i64, Entry>,
) -> Result<Vec<i64>, StoreError> {
    let mut entities: BTreeMap<EntityRef, BTreeSet<String>> = BTreeMap::new();
    for entry in doomed.values() {
        let Ok(entity) = entry.entity() else {
            captured::delete_base_below(applier.tx, entry.seq)?;
            continue;
        };
        let written = entities.entry(entity).or_default();
        // What can never be sent can be discarded all the same.
        if let Ok(Some(fields)) = captured::fields_of_mutation(applier.tx, entry.seq) {
            written.extend(fields.names().map(str::to_owned));
        }
    }
    let detail = serde_json::json!({ "reason": "discarded by hand", "with": seq });
    for entry in doomed.values().rev() {
        outbox::settle(applier.tx, entry, "superseded", &detail, applier.now)?;
    }
    // What was recorded last goes first: children before the parents that they reference.
    let mut order = Vec::new();
    for (entity, written) in &entities {
        let of = |entry: &&Entry| entry.entity().is_ok_and(|one| one == *entity);
        let last = doomed.values().filter(of).map(|entry| entry.seq).max();
        order.push((last.unwrap_or(seq), entity, written));
    }
    order.sort_by_key(|(last, ..)| std::cmp::Reverse(*last));
    for (_, entity, written) in &order {
        roll_back(applier, entity, written)?;
    }
    retry_waiting(applier, Occasion::Changed, &mut PageSummary::default())?;
    Ok(doomed.keys().copied().collect())
}

/// Makes an entry write something else, and its row show that: for one that the server refused, or
/// that was never sent. It is sent under a new key.
pub(crate) fn edit(
    applier: &mut Applier<'_>,
    seq: i64,
    changes: &Fields,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    let entry = outbox::get(tx, seq)?.ok_or(StoreError::NoSuchEntry(seq))?;
    let refuse = |why: String| Err(StoreError::Refused(format!("entry {seq}: {why}")));
    match entry.state {
        _ if entry.frozen.is_some() => {
            return refuse("it may have been sent and its outcome is not known, so it cannot be edited; sync or retry it first".to_owned());
        }
        EntryState::Failed | EntryState::Pending => {}
        other => {
            return refuse(format!(
                "it is {}; only failed and pending entries can be edited",
                other.as_str()
            ));
        }
    }
    if entry.op == Operation::Delete {
        return refuse("a delete writes no fields; discard it to keep the row".to_owned());
    }
    let entity = entry.entity().map_err(StoreError::Refused)?;
    let Some(entity_type) = applier.types.get(entity.entity_type.as_str()) else {
        return refuse("its table is not there".to_owned());
    };
    let known: Vec<&str> = entity_type
        .table
        .columns
        .iter()
        .map(|one| one.field.as_str())
        .collect();
    for (name, value) in changes {
        if !known.contains(&name.as_str()) {
            return refuse(format!(
                "there is no field {name:?}; the fields are: {}",
                known.join(", ")
            ));
        }
        value
            .validate()
            .map_err(|error| StoreError::Refused(format!("{name}: {error}")))?;
    }
    let mut payload = payload(applier, entity_type, &entity, seq, changes)?;
    payload.patch(changes);
    outbox::rewrite(tx, seq, entry.op, &payload)?;
    outbox::log(tx, &entry, "edited", &to_json(changes), applier.now)?;
    show(applier, entity_type, &entity, seq, changes)
}

/// What the entry writes now. Where that cannot be read because of a field that is being changed,
/// the row has the rest.
fn payload(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    seq: i64,
    changes: &Fields,
) -> Result<Fields, StoreError> {
    match captured::fields_of_mutation(applier.tx, seq) {
        Ok(payload) => Ok(payload.unwrap_or_default()),
        Err(CapturedError::Unsyncable {
            field: Some(field), ..
        }) if changes.get(&field).is_some() => {
            let names: Vec<String> = applier
                .tx
                .prepare_cached(
                    "SELECT key FROM syncline_outbox, json_each(payload) WHERE seq = ?1",
                )?
                .query_map([seq], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let row = row::read(applier.tx, &entity_type.table, &entity.id)?.unwrap_or_default();
            let kept = row.iter().filter(|(name, _)| names.contains(name));
            Ok(kept
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect())
        }
        Err(error) => Err(error.into()),
    }
}

/// The row shows the changes, but for fields that a later mutation writes.
fn show(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    seq: i64,
    changes: &Fields,
) -> Result<(), StoreError> {
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let mut shown = changes.clone();
    for later in outbox::of_entity(applier.tx, names.0, names.1)? {
        if later.seq <= seq {
            continue;
        }
        if later.op != Operation::Update {
            return Ok(());
        }
        let newer = captured::fields_of_mutation(applier.tx, later.seq)?.unwrap_or_default();
        newer.names().for_each(|name| {
            shown.remove(name);
        });
    }
    let Some(mut row) = row::read(applier.tx, &entity_type.table, &entity.id)? else {
        return Ok(());
    };
    row.patch(&shown);
    match applier.write_row(entity_type, entity, Some(&row))? {
        Written::Done => Ok(()),
        Written::NoParent(parent) => Err(StoreError::Refused(format!(
            "{entity} would reference {parent}, which is not there"
        ))),
        Written::Refused(why) => Err(StoreError::Refused(format!(
            "{entity} cannot be stored like that: {why}"
        ))),
    }
}

fn add_dependents(
    applier: &Applier<'_>,
    create: &Entry,
    doomed: &mut BTreeMap<i64, Entry>,
) -> Result<(), StoreError> {
    let Ok(entity) = create.entity() else {
        return Ok(());
    };
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    for later in outbox::of_entity(applier.tx, names.0, names.1)? {
        if later.seq > create.seq {
            doomed.insert(later.seq, later);
        }
    }
    for other in outbox::after(applier.tx, 0, usize::MAX)? {
        if doomed.contains_key(&other.seq)
            || other.op == Operation::Delete
            || !references(applier, &other, &entity)?
        {
            continue;
        }
        doomed.insert(other.seq, other.clone());
        if other.op == Operation::Create {
            add_dependents(applier, &other, doomed)?;
        }
    }
    Ok(())
}

fn references(
    applier: &Applier<'_>,
    entry: &Entry,
    parent: &EntityRef,
) -> Result<bool, StoreError> {
    let Ok(entity) = entry.entity() else {
        return Ok(false);
    };
    let Some(own) = applier.types.get(entity.entity_type.as_str()) else {
        return Ok(false);
    };
    // What cannot be read can never be sent either: it references nothing.
    let fields = captured::fields_of_mutation(applier.tx, entry.seq)
        .ok()
        .flatten();
    let fields = fields.unwrap_or_default();
    Ok(own.table.references.iter().any(|reference| {
        row::reference_values(&own.table, reference, &entity.id, &fields)
            .and_then(|values| applier.types.parent(reference, &values))
            .is_some_and(|one| one == *parent)
    }))
}

/// The row becomes its base with what is left laid over it, or what the newest remote state that
/// waits for a decision makes of it: an open conflict is closed, or decided afresh about what is left.
fn roll_back(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
    written: &BTreeSet<String>,
) -> Result<(), StoreError> {
    let (tx, names) = (
        applier.tx,
        (entity.entity_type.as_str(), entity.id.as_str()),
    );
    let Some(entity_type) = applier.types.get(names.0) else {
        return Ok(());
    };
    let rest = outbox::of_entity(tx, names.0, names.1)?;
    let mut wanted = captured::base_of(tx, names.0, names.1)?.into_fields();
    for entry in &rest {
        let payload = captured::fields_of_mutation(tx, entry.seq)?;
        if entry.op == Operation::Create && wanted.is_some() {
            edit_instead(applier, entry)?;
        }
        wanted = after_mutation(wanted, entry.op, payload);
    }
    // Until the outcome of what may have been sent is known, remote changes wait (E5).
    let newest = match rest.iter().any(Entry::is_sent) {
        true => None,
        false => newest_remote(applier, entity, rest.is_empty())?,
    };
    match &newest {
        Some(newest) if rest.is_empty() => wanted = newest.state.fields.clone(),
        _ => {}
    }
    if rest.is_empty() {
        captured::delete_base(tx, names.0, names.1)?;
    }
    if let Some(wanted) = &mut wanted {
        empty_new_columns(applier, entity_type, entity, (written, wanted))?;
    }
    write_back(applier, entity_type, entity, wanted.as_ref())?;
    let Some(newest) = newest else { return Ok(()) };
    let reconciled = match rest.is_empty() {
        true => Reconciled::Settled,
        false => applier.reconcile(entity_type, entity, Some(&newest.state), &newest.cause)?,
    };
    match reconciled {
        Reconciled::Settled => state::set_known(
            tx,
            entity,
            &newest.state.version,
            newest.state.position,
            newest.state.fields.is_none(),
        ),
        Reconciled::Waits => Ok(()),
        Reconciled::NoPlace(written) => {
            violation::open_pushed(applier, entity_type, entity, &newest.state, &written)
        }
    }
}

/// What the delete before it is discarded of creates nothing: it writes what is there.
fn edit_instead(applier: &Applier<'_>, entry: &Entry) -> Result<(), StoreError> {
    if entry.is_sent() || entry.command.is_some() {
        return Ok(());
    }
    applier
        .tx
        .prepare_cached("UPDATE syncline_outbox SET op = 'update' WHERE seq = ?1")?
        .execute([entry.seq])?;
    Ok(())
}

/// A column that the table has got since the base was taken is in none of the agreed states: without what was written
/// into it, it holds what the server has, or what nobody gave it.
fn empty_new_columns(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    (written, wanted): (&BTreeSet<String>, &mut Fields),
) -> Result<(), StoreError> {
    let columns = entity_type.table.columns.iter();
    let new = |field: &str| written.contains(field) && !wanted.contains(field);
    let new: Vec<_> = columns.filter(|column| new(&column.field)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let kept = unknown::of(applier.tx, entity)?;
    for column in new {
        let value = match kept.get(&column.field) {
            Some(value) => Some(value.clone()),
            None => row::default_value(applier.tx, column)?,
        };
        if let Some(value) = value {
            wanted.insert(column.field.clone(), value);
        }
    }
    Ok(())
}

fn write_back(
    applier: &mut Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    wanted: Option<&Fields>,
) -> Result<(), StoreError> {
    match applier.write_row(entity_type, entity, wanted)? {
        Written::Done => Ok(()),
        Written::NoParent(parent) => Err(StoreError::Refused(format!(
            "{entity} cannot be taken back: it references {parent}, which is not there"
        ))),
        Written::Refused(why) => Err(StoreError::Refused(format!(
            "{entity} cannot be taken back: {why}"
        ))),
    }
}

/// A remote state that waits for a decision about an entity.
struct Newest {
    state: RemoteState,
    cause: ConflictCause,
}

/// The newest one. With nothing left of the entity its open conflict is closed.
fn newest_remote(
    applier: &Applier<'_>,
    entity: &EntityRef,
    close: bool,
) -> Result<Option<Newest>, StoreError> {
    let open = record::open_of(applier.tx, entity)?;
    if let (Some(open), true) = (&open, close) {
        record::close(applier.tx, open.id, "discarded", applier.now)?;
    }
    let known = open.and_then(|open| {
        let cause = open.showed.cause();
        open.showed.remote.map(|state| Newest { state, cause })
    });
    let waiting = state::unpark(applier.tx, entity)?.map(|waiting| Newest {
        state: waiting.remote,
        cause: ConflictCause::Pull,
    });
    Ok([known, waiting]
        .into_iter()
        .flatten()
        .max_by_key(|newest| newest.state.position))
}
