//! The journal: mutations that the server confirmed lately. When its history turns out to be an
//! older one (it was restored from a backup), they are offered again under their own keys: what the
//! backup has is answered with its recorded outcome, what it lost is done again (I2, E1).
//!
//! An entry that is offered again counts as sent, under the installation that sent it: nothing of its
//! entity is resolved, coalesced or overwritten before the server has said what became of its key
//! (E5). Only what the local row still shows of a mutation is offered: what other devices have
//! written since is theirs to offer, and must not be undone.

use crate::apply::{Applier, after_mutation};
use crate::captured::{self, BaseState};
use crate::claim::parts;
use crate::error::{StoreError, json, to_json};
use crate::held;
use crate::inbox::{self, Waiting};
use crate::meta;
use crate::outbox::{self, Entry};
use crate::retry::{apply_waiting, hold_back};
use crate::row::{self, Written};
use crate::state;
use crate::steady::Times;
use crate::store::{EntityTypes, RegisteredType};
use crate::sums;
use crate::unknown;
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{ConflictRules, EntityRef, Now, WaitsFor, moved};
use syncline_protocol::{EntityId, Fields, Hello, Operation, RemoteState, ServerVersion, Value};

/// `origin` of an outbox entry that is offered again.
pub(crate) const ORIGIN: &str = "journal";

/// Writes down what was confirmed, before it is settled: `base` is the state that it was made on.
pub(crate) fn note(
    tx: &Transaction<'_>,
    entry: &Entry,
    payload: Option<&Fields>,
    base: &BaseState,
    times: Times,
) -> Result<(), StoreError> {
    let before = match (entry.op, base) {
        (Operation::Create, _) | (_, BaseState::None | BaseState::Absent) => None,
        (Operation::Delete, BaseState::Present(base)) => match entry.entity() {
            Ok(entity) => Some(to_json(&unknown::with_kept(tx, &entity, base)?)),
            Err(_) => Some(to_json(base)),
        },
        (Operation::Update, BaseState::Present(base)) => {
            let written = |name: &str| payload.is_some_and(|payload| payload.get(name).is_some());
            let before = base.iter().filter(|(name, _)| written(name));
            let before = before.map(|(name, value)| (name.clone(), value.clone()));
            Some(to_json(&before.collect::<Fields>()))
        }
    };
    tx.prepare_cached(
        "INSERT INTO syncline_journal (seq, mutation, idempotency_key, client, entity_type, entity_id, op,
                                       fields, before, command, group_id, depends_on, covers, applied_at, parts)
         SELECT ?1, ?2, ?3, coalesce(?4, value), ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
                (SELECT parts FROM syncline_outbox WHERE seq = ?1)
           FROM syncline_meta WHERE key = ?15 AND ?3 IS NOT NULL",
    )?
    .execute(params![
        entry.seq,
        entry.mutation.as_str(),
        entry.key,
        entry.origin_client,
        entry.entity_type.as_str(),
        entry.entity_id,
        outbox::op_word(entry.op),
        payload.map(to_json),
        before,
        entry.command,
        entry.group,
        entry.depends_on,
        entry.covers,
        times.server_ms,
        meta::key::CLIENT_ID,
    ])?;
    Ok(())
}

/// What the journal says of one mutation, as far as it decides whether it is offered.
#[derive(Debug, Clone)]
struct Noted {
    id: i64,
    op: Operation,
    fields: Option<Fields>,
    before: Option<Fields>,
    is_command: bool,
    /// What it was before edits became part of it.
    parts: Option<String>,
}

/// The server's history is another one. Positions, cursors and versions of the old one mean nothing
/// (S16); work is kept, and what the old one confirmed lately is offered again.
pub(crate) fn begin_history(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    hello: &Hello,
    now: Now,
) -> Result<(), StoreError> {
    meta::set(tx, meta::key::RESET, 1)?;
    offer_again(tx, types, hello, now)?;
    // What waits in the inbox will come again; a version "" is no version the server can have.
    tx.execute_batch(
        "DELETE FROM syncline_cursor;
         DELETE FROM syncline_entity_state;
         DELETE FROM syncline_inbox;
         DELETE FROM syncline_staged; DELETE FROM syncline_staged_page;
         DELETE FROM syncline_held; UPDATE syncline_removed SET version = NULL, position = NULL;
         UPDATE syncline_conflict
            SET error = json_set(error, '$.remote.position', 0, '$.remote.version', '')
          WHERE resolved_at IS NULL AND json_type(error, '$.remote') = 'object';",
    )?;
    Ok(())
}

/// Puts back into the outbox what was confirmed in the old one and
/// may be lost, at its old place in the local order. What is older than the server remembers keys is
/// left alone: it could not tell whether it did it.
fn offer_again(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    hello: &Hello,
    now: Now,
) -> Result<(), StoreError> {
    let youngest = hello.server_time_ms.saturating_sub(hello.key_retention_ms);
    let mut offered = 0;
    for (entity, noted) in read(tx, youngest)? {
        let Some(entity_type) = types.get(entity.entity_type.as_str()) else {
            continue;
        };
        let agreed = agreed(tx, entity_type, &entity)?;
        let again = still_there(agreed.as_ref(), &entity_type.rules, noted);
        if again.is_empty() {
            continue;
        }
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let mut base = before_all(agreed, &again);
        if let Some(whole) = base.take_if(|_| again[0].op == Operation::Delete) {
            // As beside a row whose deletion is not sent yet.
            let (known, kept) = unknown::split(&entity_type.table, whole);
            unknown::keep(tx, &entity, &kept)?;
            base = Some(known);
        }
        captured::write_base(tx, names.0, names.1, base.as_ref())?;
        for one in &again {
            put_back(tx, entity_type, one, now)?;
        }
        offered += again.len();
    }
    tx.execute("DELETE FROM syncline_journal", [])?;
    tracing::warn!(offered, "the server's history is another one");
    unbind_sent(tx)
}

/// An update or delete that has no answer yet was based on a state of the old history. Under its key
/// it may be based on one of the new history: a server that has done it answers all the same. A command has no
/// base, but its place behind what is offered again.
fn unbind_sent(tx: &Transaction<'_>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE syncline_outbox
            SET frozen = NULL, state = 'pending', origin = ?1, lease_token = NULL, lease_until = NULL,
                origin_client = coalesce(origin_client, (SELECT value FROM syncline_meta WHERE key = ?2))
          WHERE frozen IS NOT NULL AND op <> 'create' AND cancel = 0
            AND state IN ('pending', 'in_flight')",
        [ORIGIN, meta::key::CLIENT_ID],
    )?;
    Ok(())
}

/// The journal by entity, each in local order.
fn read(
    tx: &Transaction<'_>,
    youngest: i64,
) -> Result<BTreeMap<EntityRef, Vec<Noted>>, StoreError> {
    let mut statement = tx.prepare(
        "SELECT id, entity_type, entity_id, op, fields, before, command IS NOT NULL, parts
           FROM syncline_journal WHERE applied_at >= ?1 ORDER BY seq, id",
    )?;
    let mut rows = statement.query([youngest])?;
    let mut by_entity: BTreeMap<EntityRef, Vec<Noted>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let Ok(id) = EntityId::parse(row.get::<_, String>(2)?) else {
            continue;
        };
        let entity = EntityRef {
            entity_type: row.get::<_, String>(1)?.as_str().into(),
            id,
        };
        let fields = |text: Option<String>| {
            let read = |text: String| json::<Fields>("journal row", &text);
            text.map(read).transpose()
        };
        let noted = Noted {
            id: row.get(0)?,
            op: outbox::op_of(&row.get::<_, String>(3)?),
            fields: fields(row.get(4)?)?,
            before: fields(row.get(5)?)?,
            is_command: row.get(6)?,
            parts: row.get(7)?,
        };
        by_entity.entry(entity).or_default().push(noted);
    }
    Ok(by_entity)
}

/// The newest state of an entity that both sides agreed on in the old history.
fn agreed(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
) -> Result<Option<Fields>, StoreError> {
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    if !outbox::of_entity(tx, names.0, names.1)?.is_empty() {
        match captured::base_of(tx, names.0, names.1)? {
            BaseState::None => {}
            base => return Ok(base.into_fields()),
        }
    }
    if let Some(row) = row::read(tx, &entity_type.table, &entity.id)? {
        return Ok(Some(row));
    }
    // It may have found no place in its table.
    let waiting = state::waiting(tx, entity)?;
    Ok(waiting.and_then(|waiting| waiting.remote.fields))
}

/// The mutations of one entity whose work is still there, oldest first, with the fields that are.
fn still_there(agreed: Option<&Fields>, rules: &ConflictRules, noted: Vec<Noted>) -> Vec<Noted> {
    let (mut again, mut written) = (Vec::new(), BTreeSet::new());
    // Going back in time: whether the entity was there.
    let mut there = agreed.is_some();
    for mut one in noted.into_iter().rev() {
        match (one.op, there) {
            (Operation::Create, true) => there = false,
            (Operation::Delete, false) => {
                again.push(one);
                break;
            }
            (Operation::Update, true) if one.is_command => {}
            (Operation::Update, true) => {
                let mine = one.fields.unwrap_or_default();
                let before = one.before.as_ref();
                let shown = |name: &String, value| {
                    let before = before.and_then(|before| before.get(name));
                    let now = agreed.and_then(|row| row.get(name));
                    written.contains(name)
                        || addition(rules, name, value, before).is_some()
                        || now.is_some_and(|now| rules.still_has(name, before, value, now))
                };
                let kept = mine.iter().filter(|(name, value)| shown(name, value));
                let kept: Fields = kept.map(|(n, v)| (n.clone(), v.clone())).collect();
                let nothing = kept.is_empty();
                one.fields = Some(kept);
                if nothing {
                    continue;
                }
            }
            // Somebody else has deleted it since, or made it anew.
            (Operation::Create | Operation::Update, false) | (Operation::Delete, true) => break,
        }
        written.extend(one.fields.iter().flat_map(Fields::names).map(str::to_owned));
        again.push(one);
    }
    again.reverse();
    line_up(agreed, rules, &mut again);
    again
}

/// What was below an addition to a sum, if it is one: it is there whatever others have added since.
fn addition<'f>(
    rules: &ConflictRules,
    name: &str,
    wrote: &Value,
    before: Option<&'f Value>,
) -> Option<&'f Value> {
    before.filter(|below| rules.adds_up(name) && moved(wrote, wrote, below).is_some())
}

/// Additions to sums as if they had been the last ones before the row became what it is.
fn line_up(agreed: Option<&Fields>, rules: &ConflictRules, again: &mut [Noted]) {
    let mut sums = agreed.cloned().unwrap_or_default();
    for one in again.iter_mut().rev() {
        let (Operation::Update, Some(fields), Some(before)) =
            (one.op, &mut one.fields, &mut one.before)
        else {
            continue;
        };
        let names: Vec<String> = fields.names().map(str::to_owned).collect();
        for name in names {
            let known = (fields.get(&name), sums.get(&name));
            let (Some(wrote), Some(sum)) = known else {
                continue;
            };
            let below = addition(rules, &name, wrote, before.get(&name));
            let Some(below) = below.and_then(|below| moved(sum, wrote, below)) else {
                continue;
            };
            fields.insert(name.clone(), sum.clone());
            before.insert(name.clone(), below.clone());
            sums.insert(name, below);
        }
    }
}

/// The agreed state without the work of these mutations: what they are, and nothing that others
/// did, is the difference between it and the row. Under a create that is the agreed row itself: what others
/// did after it is no work of this device.
fn before_all(agreed: Option<Fields>, again: &[Noted]) -> Option<Fields> {
    let oldest = again.first()?;
    if oldest.op == Operation::Delete {
        return oldest.before.clone();
    }
    let mut base = agreed?;
    for one in again.iter().rev() {
        let Some(before) = &one.before else { continue };
        for name in one.fields.iter().flat_map(Fields::names) {
            match before.get(name) {
                Some(value) => drop(base.insert(name.to_owned(), value.clone())),
                None => drop(base.remove(name)),
            }
        }
    }
    Some(base)
}

fn put_back(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    noted: &Noted,
    now: Now,
) -> Result<(), StoreError> {
    let parts = match (&noted.parts, &noted.fields) {
        (Some(parts), Some(fields)) => parts::narrowed(parts, fields)?,
        _ => None,
    };
    // Numbers are never given twice, so the old one is free; should it not be, the end is.
    tx.prepare_cached(
        "INSERT INTO syncline_outbox (seq, mutation, entity_type, entity_id, op, payload, created_at,
                                      schema_version, group_id, command, depends_on, covers, origin,
                                      origin_client, idempotency_key, parts)
         SELECT CASE WHEN EXISTS (SELECT 1 FROM syncline_outbox AS o WHERE o.seq = j.seq)
                     THEN 1 + max((SELECT max(seq) FROM syncline_outbox), (SELECT max(seq) FROM syncline_journal))
                     ELSE seq END,
                mutation, entity_type, entity_id, op, ?2, ?3, ?4, group_id, command, depends_on, covers, ?5,
                client, idempotency_key, ?6
           FROM syncline_journal AS j WHERE id = ?1",
    )?
    .execute(params![
        noted.id,
        noted.fields.as_ref().map(to_json),
        now.unix_ms,
        entity_type.schema_version,
        ORIGIN,
        parts
    ])?;
    Ok(())
}

/// What a mutation that is offered again can be based on: the server's state that waits for its
/// outcome, if that is still as it was under what the mutation writes.
pub(crate) fn base_in(
    tx: &Transaction<'_>,
    entry: &Entry,
    entity: &EntityRef,
    fields: &Fields,
) -> Result<Option<ServerVersion>, StoreError> {
    if entry.origin.as_deref() != Some(ORIGIN) {
        return Ok(None);
    }
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let waiting = state::waiting(tx, entity)?.map(|waiting| waiting.remote);
    let base = captured::base_of(tx, names.0, names.1)?.into_fields();
    let (Some(remote), Some(base)) = (waiting, base) else {
        return Ok(None);
    };
    let Some(theirs) = &remote.fields else {
        return Ok(None);
    };
    // With what this device knows and has no column for.
    let base = match entry.op {
        Operation::Delete => unknown::with_kept(tx, entity, &base)?,
        _ => base,
    };
    let same = |name: &str| theirs.get(name) == base.get(name);
    // A column that is new says NULL where nobody wrote it.
    let is_said = |name: &&str| theirs.get(name) != Some(&Value::Null);
    let undisturbed = match entry.op {
        Operation::Delete => base.names().chain(theirs.names().filter(is_said)).all(same),
        _ => fields.names().all(same),
    };
    Ok(undisturbed.then_some(remote.version))
}

/// The answer to a mutation that was offered again.
pub(crate) struct Confirmed<'a> {
    pub(crate) version: &'a ServerVersion,
    pub(crate) position: i64,
    pub(crate) fields: Option<&'a Fields>,
    pub(crate) duplicate: bool,
}

impl Confirmed<'_> {
    /// What the server has of the entity then: as it says, else as it is worked out here.
    fn made(&self, worked_out: Option<Fields>) -> RemoteState {
        RemoteState {
            version: self.version.clone(),
            position: self.position,
            fields: self.fields.cloned().or(worked_out),
        }
    }
}

/// Books what was confirmed once more and has left the outbox: the row becomes what the server has,
/// with what is left to be sent laid over it.
pub(crate) fn book(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    confirmed: &Confirmed<'_>,
    payload: Option<Fields>,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    let waiting = inbox::waiting(tx, entity)?;
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let base = captured::base_of(tx, names.0, names.1)?.into_fields();
    match waiting {
        // What came has it already, with whatever was done after it.
        Some(waiting) if waiting.remote.position >= confirmed.position => {
            state::forget_known(tx, entity)?;
            move_base(tx, entity, after_answer(base, entry.op, payload))?;
            apply_waiting(applier, entity)
        }
        // Done before, perhaps by a copy of this file that had more to say: the feed brings what came of it.
        _ if confirmed.duplicate => {
            inbox::unpark(tx, entity)?;
            if entry.op == Operation::Delete {
                unknown::forget(tx, entity)?;
            }
            state::forget_known(tx, entity)?;
            move_base(tx, entity, after_answer(base, entry.op, payload))?;
            hold_if_gone(applier, entry, entity, confirmed)
        }
        // It was done on what came, of which what is left to be sent knows nothing: the two meet.
        Some(waiting) if !outbox::of_entity(tx, names.0, names.1)?.is_empty() => {
            let made = after_mutation(waiting.remote.fields.clone(), entry.op, payload.clone());
            move_base(tx, entity, after_answer(base, entry.op, payload))?;
            let made = Waiting {
                remote: confirmed.made(made),
                ..waiting
            };
            let (waits_for, now) = (WaitsFor::Answer, applier.now);
            inbox::park(tx, &made.scope, &made.change(), waits_for, "", now)?;
            apply_waiting(applier, entity)
        }
        // It was done on what came.
        waiting => {
            let on = waiting.map(|waiting| waiting.remote.fields);
            let shows_others = on.is_some() || confirmed.fields.is_some();
            let below = after_answer(base.clone(), entry.op, payload.clone());
            let made = after_mutation(on.unwrap_or(base), entry.op, payload);
            let made = confirmed.made(made);
            if shows_others && hold_back(applier, entity, Some(&made))? {
                state::forget_known(tx, entity)?;
                return move_base(tx, entity, below).map(drop);
            }
            inbox::unpark(tx, entity)?;
            let made = made.fields;
            if let Some((entity_type, from)) = applier.types.get(names.0).zip(below) {
                sums::shift(tx, entity_type, entity, (Some(&from), made.as_ref()))?;
            }
            write_made(applier, entry, entity, confirmed, made)
        }
    }
}

/// What both sides agreed on, with a mutation that the server had done before.
fn after_answer(base: Option<Fields>, op: Operation, payload: Option<Fields>) -> Option<Fields> {
    match (op, base) {
        (Operation::Create, Some(agreed)) => Some(agreed),
        (_, base) => after_mutation(base, op, payload),
    }
}

/// A create that was offered again had no effect: it is one like any other, with nothing below it.
pub(crate) fn forget_agreed(tx: &Transaction<'_>, entry: &Entry) -> Result<(), StoreError> {
    if entry.op == Operation::Create && entry.is_offered_again() {
        captured::write_base(tx, entry.entity_type.as_str(), &entry.entity_id, None)?;
    }
    Ok(())
}

/// The state below what is left to be sent.
fn move_base(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    base: Option<Fields>,
) -> Result<Vec<Entry>, StoreError> {
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let rest = outbox::of_entity(tx, names.0, names.1)?;
    match rest.is_empty() {
        true => captured::delete_base(tx, names.0, names.1)?,
        false => captured::write_base(tx, names.0, names.1, base.as_ref())?,
    }
    Ok(rest)
}

/// The server has done it, and what was pulled since does not have the row: somebody has deleted it.
/// As with every removal after a change of history, the app is asked (I3).
fn hold_if_gone(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    confirmed: &Confirmed<'_>,
) -> Result<(), StoreError> {
    let passed: Option<bool> = applier
        .tx
        .prepare_cached("SELECT position >= ?1 FROM syncline_cursor WHERE phase = 'feed'")?
        .query_row([confirmed.position], |row| row.get(0))
        .optional()?;
    if entry.op != Operation::Delete && passed == Some(true) {
        held::hold_one(applier, entity)?;
    }
    Ok(())
}

/// The server's state is known to the field.
fn write_made(
    applier: &mut Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    confirmed: &Confirmed<'_>,
    made: Option<Fields>,
) -> Result<(), StoreError> {
    let tx = applier.tx;
    let Some(entity_type) = applier.types.get(entity.entity_type.as_str()) else {
        return Ok(());
    };
    let deleted = entry.op == Operation::Delete;
    state::set_known(tx, entity, confirmed.version, confirmed.position, deleted)?;
    let (mut wanted, unknown) = match made {
        Some(made) => {
            let (known, unknown) = unknown::split(&entity_type.table, made);
            (Some(known), unknown)
        }
        None => (None, Fields::new()),
    };
    unknown::keep(tx, entity, &unknown)?;
    for later in move_base(tx, entity, wanted.clone())? {
        let payload = captured::fields_of_mutation(tx, later.seq)?;
        wanted = after_mutation(wanted, later.op, payload);
    }
    match applier.write_row(entity_type, entity, wanted.as_ref())? {
        Written::Done => Ok(()),
        // Not reflected, then: the feed brings it again, and it waits in the inbox with its reason.
        Written::NoParent(_) | Written::Refused(_) => state::forget_known(tx, entity),
    }
}

#[cfg(test)]
mod tests;
