//! What waits in the inbox is tried again when something changed that it may have waited for: rows
//! were written or left, a mutation was settled, a table was attached or changed, or this is a
//! newer program.
//!
//! Changes that want places which hold each other (unique values swapped between rows) fit in no
//! order one by one. They are tried as a set: every row of the set leaves its place, then each is
//! written where it belongs. What does not fit even then keeps its old row and stays in the inbox;
//! the others are tried again without it. Rows that refer to each other in a circle are tried together as well
//! ([`crate::circle`]).

use crate::apply::{Applier, Landed, after_mutation};
use crate::circle;
use crate::error::StoreError;
use crate::inbox::{self, Waiting};
use crate::journal::Confirmed;
use crate::meta;
use crate::outbox::Entry;
use crate::page;
use crate::row::Written;
use crate::vacate;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use syncline_core::{EntityRef, PageSummary, WaitsFor};
use syncline_protocol::{Fields, RemoteState};

const CHUNK: usize = 256;
/// Changes in one set at most; the oldest go first.
pub(crate) const MOST_IN_SET: usize = 20_000;
/// Rows written for one set at most, over all attempts: a bound on time, not on what is right.
const MOST_SET_WRITES: usize = 200_000;

/// Whether something happened for which a change may have waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Rows or mutations changed.
    Changed,
    /// Nothing that is known of; the schema may have changed.
    Nothing,
}

/// Tries again what waits, as long as something finds its place.
pub(crate) fn retry_waiting(
    applier: &mut Applier<'_>,
    occasion: Occasion,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    if !inbox::anything_retryable(applier.tx)? {
        return Ok(());
    }
    let circumstances = circumstances(applier.tx)?;
    let tried = meta::get(applier.tx, meta::key::INBOX_TRIED)?;
    if occasion == Occasion::Nothing && tried == Some(circumstances) {
        return Ok(());
    }
    loop {
        let mut found = one_by_one(applier, summary)? + as_a_set(applier, summary)?;
        if found == 0 {
            let circle = circle::land(applier)?.into_iter();
            found = circle.filter(|landed| count(summary, *landed)).count();
        }
        if found == 0 {
            break;
        }
    }
    Ok(meta::set(
        applier.tx,
        meta::key::INBOX_TRIED,
        circumstances,
    )?)
}

/// The head is reached: what a push brought before that is applied, unless the feed has it already.
pub(crate) fn retry_held_back(
    applier: &mut Applier<'_>,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    for one in inbox::held_back(applier.tx)? {
        if let Some(landed) = lands(applier, &one)? {
            landed.count(summary);
        }
    }
    Ok(())
}

/// An answer was final: what waited for it can be looked at.
pub(crate) fn apply_waiting(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
) -> Result<(), StoreError> {
    apply_newer(applier, entity, i64::MIN)
}

/// An answer was final, and the row is as of this position: what waited and is newer can be looked
/// at, what is not is known already.
pub(crate) fn apply_newer(
    applier: &mut Applier<'_>,
    entity: &EntityRef,
    reflected: i64,
) -> Result<(), StoreError> {
    let Some(waiting) = inbox::waiting(applier.tx, entity)? else {
        return inbox::unpark(applier.tx, entity).map(|_| ());
    };
    let position = inbox::position(applier.tx, &waiting.remote)?;
    let is_newer = position > reflected;
    if is_newer && applier.holds_back && is_ahead(applier, position)? {
        let (tx, now) = (applier.tx, applier.now);
        let waits_for = WaitsFor::Checkpoint;
        return inbox::park(tx, &waiting.scope, &waiting.change(), waits_for, "", now);
    }
    inbox::unpark(applier.tx, entity)?;
    if is_newer {
        applier.change(&waiting.scope, &waiting.change())?;
    }
    Ok(())
}

/// In checkpoint mode what others wrote shows with everything that belongs to it: a state beyond the
/// applied position waits in the inbox for the head, where the resolver meets it.
pub(crate) fn hold_back(
    applier: &Applier<'_>,
    entity: &EntityRef,
    remote: Option<&RemoteState>,
) -> Result<bool, StoreError> {
    let Some(remote) = remote.filter(|_| applier.holds_back) else {
        return Ok(false);
    };
    let ahead = is_ahead(applier, remote.position)?;
    if ahead {
        let (tx, now) = (applier.tx, applier.now);
        inbox::park_answered(tx, entity, remote, WaitsFor::Checkpoint, "", now)?;
    }
    Ok(ahead)
}

/// A server of another history answered: what it has of this file's work may be lost there, and what waits is of the history that was
/// greeted. That decides nothing before the next greeting, which drops it, or else the next head.
pub(crate) fn wait_for_head(applier: &Applier<'_>, entity: &EntityRef) -> Result<(), StoreError> {
    let (tx, now) = (applier.tx, applier.now);
    let waits_for_answer = inbox::reason(tx, entity)?.as_deref() == Some(WaitsFor::Answer.as_str());
    match inbox::waiting(tx, entity)?.filter(|_| waits_for_answer) {
        None => Ok(()),
        Some(waiting) => {
            let (scope, change) = (&waiting.scope, waiting.change());
            inbox::park(tx, scope, &change, WaitsFor::Checkpoint, "", now)
        }
    }
}

/// What a command came to shows what others wrote to its row, and in checkpoint mode that waits for the head like
/// all that they wrote. So does, laid over it, what was sent behind it: the row reflects neither (`true`).
pub(crate) fn hold_answer(
    applier: &Applier<'_>,
    entry: &Entry,
    entity: &EntityRef,
    answer: &Confirmed<'_>,
    payload: Option<&Fields>,
) -> Result<bool, StoreError> {
    if !applier.holds_back {
        return Ok(false);
    }
    let remote = |fields: Option<Fields>| RemoteState {
        version: answer.version.clone(),
        position: answer.position,
        fields,
    };
    if let (Some(_), Some(fields)) = (&entry.command, answer.fields) {
        return hold_back(applier, entity, Some(&remote(Some(fields.clone()))));
    }
    let waiting = inbox::waiting(applier.tx, entity)?;
    let is_below = |one: &Waiting| one.remote.position <= answer.position;
    let Some(below) = waiting.filter(is_below) else {
        return Ok(false);
    };
    let made = match below.remote.position == answer.position {
        true => below.remote.fields,
        false => {
            let payload = payload.cloned();
            let laid_over = after_mutation(below.remote.fields, entry.op, payload);
            answer.fields.cloned().or(laid_over)
        }
    };
    let (tx, now, waits_for) = (applier.tx, applier.now, WaitsFor::Checkpoint);
    inbox::park_answered(tx, entity, &remote(made), waits_for, "", now)?;
    Ok(true)
}

fn is_ahead(applier: &Applier<'_>, position: i64) -> Result<bool, StoreError> {
    let applied = page::applied_position(applier.tx)?;
    Ok(applied.is_none_or(|applied| position > applied))
}

/// Everything about the app's tables, and the program's version, as one number.
fn circumstances(conn: &Connection) -> Result<i64, StoreError> {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    let mut statement = conn.prepare_cached(
        "SELECT coalesce(sql, '') FROM sqlite_schema
          WHERE substr(name, 1, 9) <> 'syncline_' ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        row.get::<_, String>(0)?.hash(&mut hasher);
    }
    let mut statement = conn.prepare_cached(
        "SELECT name || options || conflict_rules FROM syncline_entity_type ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        row.get::<_, String>(0)?.hash(&mut hasher);
    }
    Ok(i64::from_ne_bytes(hasher.finish().to_ne_bytes()))
}

/// Each on its own, oldest first; how many found their place.
fn one_by_one(applier: &mut Applier<'_>, summary: &mut PageSummary) -> Result<usize, StoreError> {
    let (mut found, mut after) = (0, (i64::MIN, String::new(), String::new()));
    loop {
        let chunk = inbox::retryable(applier.tx, &after, CHUNK)?;
        for one in &chunk {
            after = one.stored.clone();
            if lands(applier, one)?.is_some_and(|landed| count(summary, landed)) {
                found += 1;
            }
        }
        if chunk.len() < CHUNK {
            return Ok(found);
        }
    }
}

/// Tries one; `None` when it waits on.
pub(crate) fn lands(
    applier: &mut Applier<'_>,
    one: &Waiting,
) -> Result<Option<Landed>, StoreError> {
    // It is its own predecessor: without it in the inbox the plan is made afresh.
    inbox::take(applier.tx, one)?;
    let landed = applier.change(&one.scope, &one.change())?;
    Ok((landed != Landed::Parked).then_some(landed))
}

fn count(summary: &mut PageSummary, landed: Landed) -> bool {
    summary.parked = summary.parked.saturating_sub(1);
    landed.count(summary);
    true
}

/// What waits for a place, all at once; how many found theirs.
fn as_a_set(applier: &mut Applier<'_>, summary: &mut PageSummary) -> Result<usize, StoreError> {
    let mut set = inbox::without_place(applier.tx, MOST_IN_SET)?;
    let mut writes = 0;
    while set.len() > 1 && writes < MOST_SET_WRITES {
        writes += set.len();
        let told = applier.notices.len();
        applier.tx.execute_batch("SAVEPOINT syncline_set")?;
        let (landed, homeless) = attempt(applier, &set)?;
        if homeless.is_empty() {
            applier.tx.execute_batch("RELEASE syncline_set")?;
            let found = landed.len();
            for landed in landed {
                count(summary, landed);
            }
            return Ok(found);
        }
        applier
            .tx
            .execute_batch("ROLLBACK TO syncline_set; RELEASE syncline_set")?;
        applier.notices.truncate(told);
        set.retain(|one| !homeless.contains(&one.entity));
    }
    Ok(0)
}

/// One attempt: what became of each, and which fit nowhere.
fn attempt(
    applier: &mut Applier<'_>,
    set: &[Waiting],
) -> Result<(Vec<Landed>, BTreeSet<EntityRef>), StoreError> {
    let types = applier.types;
    for one in set {
        if let Some(entity_type) = types.get(one.entity.entity_type.as_str())
            && let Some(row) = vacate::vacate(applier.tx, &entity_type.table, &one.entity.id)?
        {
            applier.vacated.insert(one.entity.clone(), row);
        }
    }
    // New rows last: SQLite would give them the rowids of those that are out.
    let (old, new): (Vec<_>, Vec<_>) = set
        .iter()
        .partition(|one| applier.vacated.contains_key(&one.entity));
    let (mut landed, mut homeless) = (Vec::new(), BTreeSet::new());
    for one in old.into_iter().chain(new) {
        match lands(applier, one)? {
            Some(place) if comes_back(applier, &one.entity)? => landed.push(place),
            _ => {
                homeless.insert(one.entity.clone());
            }
        }
    }
    applier.vacated.clear();
    Ok((landed, homeless))
}

/// A row for which nothing was decided (a conflict was opened, the change was known already) goes
/// back to where it was.
fn comes_back(applier: &mut Applier<'_>, entity: &EntityRef) -> Result<bool, StoreError> {
    let Some(row) = applier.vacated.remove(entity) else {
        return Ok(true);
    };
    let Some(entity_type) = applier.types.get(entity.entity_type.as_str()) else {
        return Ok(true);
    };
    let back = vacate::put_back(applier.tx, &entity_type.table, &row, &row.fields)?;
    Ok(back == Written::Done)
}
