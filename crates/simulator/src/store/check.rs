//! What is checked about devices, on the way and at the end, against the reference model.

use super::baseline;
use super::histories;
use super::poison::{self, Stage};
use super::rows::rows;
use super::scenario::{Rules, Setup};
use super::world::World;
use crate::level::Broken;
use crate::reference::values;
use rusqlite::Connection;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Checked<T> = Result<T, Broken>;

pub(super) fn sql(error: rusqlite::Error) -> Broken {
    Broken::new("F:A8", format!("a device's file cannot be read: {error}"))
}

/// The mutations in a device's outbox.
pub(crate) fn outbox(world: &World, device: usize) -> Checked<BTreeSet<String>> {
    let mut statement = (world.devices[device].files.app)
        .prepare_cached("SELECT mutation FROM syncline_outbox")
        .map_err(sql)?;
    let mutations = statement.query_map([], |row| row.get(0));
    mutations.and_then(Iterator::collect).map_err(sql)
}

/// How many mutations were recorded since that look (F:S1, D:A1); they are acknowledged now.
pub(crate) fn recorded(
    world: &mut World,
    device: usize,
    before: &BTreeSet<String>,
) -> Checked<usize> {
    let after = outbox(world, device)?;
    let new = after.difference(before).map(|new| (device, new.clone()));
    let known = world.acknowledged.len();
    world.acknowledged.extend(new);
    Ok(world.acknowledged.len() - known)
}

/// Every mutation that a commit on a device acknowledged is in the outbox or has its outcome in the log:
/// at the end (F:S3, D:E2), and whenever a process is started on what another one left (F:S2).
pub(crate) fn accounted(world: &World, n: usize, invariant: &'static str) -> Checked<()> {
    let mut statement = (world.devices[n].files.app)
        .prepare_cached(
            "SELECT mutation FROM syncline_outbox
             UNION ALL SELECT value FROM syncline_outbox, json_each(covers)
             UNION ALL SELECT mutation FROM syncline_log WHERE kind IN ('applied', 'superseded', 'discarded', 'merged')",
        )
        .map_err(sql)?;
    let known = statement.query_map([], |row| row.get::<_, Option<String>>(0));
    let known: BTreeSet<Option<String>> = known.and_then(Iterator::collect).map_err(sql)?;
    for (_, mutation) in world.acknowledged.iter().filter(|(device, _)| *device == n) {
        if !known.contains(&Some(mutation.clone())) {
            let detail = format!("device {n} acknowledged {mutation} and knows nothing of it");
            return Err(Broken::new(invariant, detail));
        }
    }
    Ok(())
}

/// Whether a device's file belongs to an account already.
pub(crate) fn has_account(world: &World, device: usize) -> bool {
    let query = "SELECT 1 FROM syncline_meta WHERE key = 'account_subject'";
    world.devices[device]
        .files
        .app
        .query_row(query, [], |_| Ok(()))
        .is_ok()
}

/// Rows of a file whose create has no answer yet, under the names that they have for ever.
pub(crate) fn unanswered_creates(
    world: &World,
    app: &Connection,
) -> Checked<Vec<(&'static str, String)>> {
    let mut made = Vec::new();
    for table in world.setup.names() {
        let mut creates = app
            .prepare_cached(
                "SELECT entity_id FROM syncline_outbox WHERE op = 'create' AND entity_type = ?1",
            )
            .map_err(sql)?;
        let creates = creates.query_map([table], |row| row.get(0));
        let creates: BTreeSet<String> = creates.and_then(Iterator::collect).map_err(sql)?;
        let rows = rows(&world.setup, app, table)?;
        let rows = rows.iter().filter(|(id, _)| creates.contains(*id));
        made.extend(rows.map(|(id, fields)| ledger_row(table, id, fields)));
    }
    Ok(made)
}

/// Notes of a file with edits that have no answer yet.
pub(crate) fn unanswered_edits(app: &Connection) -> Checked<Vec<(&'static str, String)>> {
    let query = "SELECT DISTINCT entity_id FROM syncline_outbox WHERE op = 'update' AND entity_type = 'note'";
    let notes = texts(app, query)?;
    Ok(notes.into_iter().map(|id| ("note", id)).collect())
}

/// Whether a mutation was refused with the request that it was in, of which the server looked at no key.
pub(crate) fn was_too_large(world: &World, device: usize, mutation: &str) -> bool {
    let query = "SELECT 1 FROM syncline_log WHERE kind = 'failed' AND mutation = ?1
                    AND json_extract(detail, '$.code') = 'too-large'";
    let app = &world.devices[device].files.app;
    app.query_row(query, [mutation], |_| Ok(())).is_ok()
}

/// What stands in a device's records of conflicts.
pub(crate) fn recorded_values(world: &World, device: usize) -> Checked<Vec<String>> {
    let query = "SELECT json_array(json(base), json(local), json(remote), json(outcome)) FROM syncline_conflict";
    let mut found = Vec::new();
    for record in texts(&world.devices[device].files.app, query)? {
        let mut next: Vec<Value> = vec![serde_json::from_str(&record).unwrap_or_default()];
        while let Some(one) = next.pop() {
            found.extend(values::text(&one));
            match one {
                Value::Array(more) => next.extend(more),
                Value::Object(more) => next.extend(more.into_iter().map(|(_, value)| value)),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// What only an answer that is believed may change (F:S25): how far the feed was read, and which
/// mutations count as applied. (Rows may change: what was prepared and never sent is free again, and what had waited
/// for it is applied.)
pub(crate) fn durable(world: &World, device: usize) -> Checked<Vec<String>> {
    let app = &world.devices[device].files.app;
    let mut all = Vec::new();
    for query in [
        "SELECT cursor || position || phase FROM syncline_cursor",
        "SELECT mutation FROM syncline_log WHERE kind = 'applied' ORDER BY id",
    ] {
        let mut statement = app.prepare_cached(query).map_err(sql)?;
        let texts = statement.query_map([], |row| row.get::<_, Option<String>>(0));
        let texts: Vec<Option<String>> = texts.and_then(Iterator::collect).map_err(sql)?;
        all.extend(texts.into_iter().flatten());
    }
    Ok(all)
}

/// Rows that wait on a device for a parent that the server does not have any more. Where a deletion may have
/// been forgotten nobody has seen that the parent went, and so nobody has deleted its children: they
/// wait, and the status says so.
fn waiting(world: &World, device: usize) -> Checked<BTreeSet<(String, String)>> {
    if !world.model.forgets() {
        return Ok(BTreeSet::new());
    }
    let mut statement = (world.devices[device].files.app)
        .prepare_cached(
            "SELECT entity_type, entity_id FROM syncline_inbox WHERE waits_for = 'parent'",
        )
        .map_err(sql)?;
    let names = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let names: Vec<(String, String)> = names.and_then(Iterator::collect).map_err(sql)?;
    Ok((names.into_iter())
        .filter(|name| is_orphan(world, name, &mut BTreeSet::new()))
        .collect())
}

/// Whether the server has a row, and not what it is part of. Rows can refer to each other in a circle.
fn is_orphan(
    world: &World,
    name: &(String, String),
    seen: &mut BTreeSet<(String, String)>,
) -> bool {
    if !seen.insert(name.clone()) {
        return false;
    }
    let Some(fields) = world.model.entity(name).and_then(|e| e.fields.as_ref()) else {
        return false;
    };
    let key = world.setup.key(&name.0).into_iter();
    let mut cells: BTreeMap<String, Value> = key.zip(values::key(&name.1)).collect();
    for (field, value) in fields {
        cells.insert(field.clone(), values::part(value));
    }
    let references = world.setup.references(&name.0);
    let parents = references.into_iter().filter_map(|(table, columns)| {
        let parts = columns.iter().map(|column| cells.get(column).cloned());
        let parts: Vec<Value> = parts.collect::<Option<_>>()?;
        let is_one = parts.iter().all(|part| !part.is_null());
        is_one.then(|| (table.to_owned(), values::id(&parts)))
    });
    parents.into_iter().any(|parent| {
        let gone = (world.model.entity(&parent)).is_none_or(|parent| parent.fields.is_none());
        gone || is_orphan(world, &parent, seen)
    })
}

/// What is left to do; `None` when everything is done.
pub(crate) fn unfinished(world: &World) -> Checked<Option<String>> {
    for (n, device) in world.devices.iter().enumerate() {
        if !world.rests(n) {
            return Ok(Some(format!("device {n} is at work")));
        }
        let for_ever = waiting(world, n)?.len() as i64;
        // What waits for a person, and all of the same row.
        let mut stuck = (0, 0);
        for (entity_type, id) in poison::poisoned(world, n)? {
            let of_it = |table: &str| {
                let query = format!(
                    "SELECT count(*) FROM {table} WHERE entity_type = ?1 AND entity_id = ?2"
                );
                let count = device
                    .files
                    .app
                    .query_row(&query, [&entity_type, &id], |row| row.get(0));
                count.map_err(sql)
            };
            let one: (i64, i64) = match world.poison == Stage::Waits {
                true => (of_it("syncline_outbox")?, of_it("syncline_inbox")?),
                false => (0, 0),
            };
            stuck = (stuck.0 + one.0, stuck.1 + one.1);
        }
        let left: (i64, i64, i64, Option<i64>) = (device.files.app)
            .query_row(
                "SELECT (SELECT count(*) FROM syncline_outbox) - ?2,
                        (SELECT count(*) FROM syncline_inbox WHERE entity_type <> 'martian') - ?1,
                        (SELECT count(*) FROM syncline_staged_page) + (SELECT count(*) FROM syncline_held),
                        (SELECT position FROM syncline_cursor WHERE phase = 'feed')",
                [for_ever + stuck.1, stuck.0],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .map_err(sql)?;
        if left != (0, 0, 0, Some(world.model.head())) {
            let (outbox, inbox, staged, position) = left;
            let what = "SELECT entity_type || '/' || entity_id || ' ' || waits_for FROM syncline_inbox
                        UNION ALL SELECT entity_type || '/' || entity_id || ' ' || op || iif(state = 'pending', '', ' ' || state)
                               || iif(cancel, ' to be cancelled', '') || iif(origin_client IS NULL, '', ' of a copy')
                          FROM syncline_outbox";
            return Ok(Some(format!(
                "device {n} has {outbox} mutations, {inbox} waiting changes, {staged} staged pages or held rows, and stands at {position:?} of {}: {:?}",
                world.model.head(),
                texts(&world.devices[n].files.app, what)?
            )));
        }
    }
    Ok(None)
}

/// Whether two states of a row are the same, but for what apps of different versions have in it.
pub(super) fn is_same(
    (setup, table): (&Setup, &str),
    here: Option<&Map<String, Value>>,
    there: Option<&Map<String, Value>>,
) -> bool {
    let (Some(here), Some(there)) = (here, there) else {
        return here == there;
    };
    let (mut one, mut other) = (here.clone(), there.clone());
    here == there || {
        setup.comparable(table, &mut one, &mut other);
        one == other
    }
}

/// At rest: everybody has the same, it is what the model says, and nothing is lost.
pub(crate) fn judge(world: &mut World) -> Checked<()> {
    for n in 0..world.devices.len() {
        accounted(world, n, "F:S3")?;
    }
    told_without_secrets(world)?;
    let dead: i64 = count(world, "SELECT count(*) FROM syncline_outbox")?;
    if dead > 0 {
        let listed = texts_of_all(
            world,
            "SELECT op || ' ' || entity_type || '/' || entity_id || ' ' || state || ' ' || coalesce(last_error, '') FROM syncline_outbox",
        )?;
        return Err(Broken::new(
            "D:E2",
            format!("{dead} mutations failed: {listed:?}"),
        ));
    }
    let open = texts_of_all(
        world,
        "SELECT entity_type || '/' || entity_id || ' ' || error FROM syncline_conflict WHERE resolved_at IS NULL",
    )?;
    if !open.is_empty() {
        return Err(Broken::new(
            "F:S12 conflicts",
            format!("conflicts wait that nobody declared: {open:?}"),
        ));
    }
    converged(world)?;
    if world.model.restored {
        world.ledger.lose_given_up();
    }
    for table in world.setup.names() {
        let rows = |name: &(String, String)| (name.0 == table).then(|| (table, name.1.clone()));
        let mistaken = world.model.mistaken().filter_map(rows);
        world.ledger.mistaken.extend(mistaken);
        let ambiguous = world.model.ambiguous().filter_map(rows);
        world.ledger.ambiguous.extend(ambiguous);
    }
    rows_kept(world)?;
    values_kept(world)?;
    sums_kept(world)?;
    histories::nothing_lost(world)?;
    baseline::returns(world)
}

fn texts_of_all(world: &World, query: &str) -> Checked<Vec<String>> {
    let each = (world.devices.iter()).map(|device| texts(&device.files.app, query));
    Ok(each.collect::<Checked<Vec<_>>>()?.concat())
}

fn texts(app: &Connection, query: &str) -> Checked<Vec<String>> {
    let mut statement = app.prepare_cached(query).map_err(sql)?;
    let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0));
    let texts: Vec<Option<String>> = rows.and_then(Iterator::collect).map_err(sql)?;
    Ok(texts.into_iter().flatten().collect())
}

/// F:S23: what is kept to be told to people has nothing secret. (What is waiting to be sent or decided is no
/// message: it has to have the values.)
fn told_without_secrets(world: &World) -> Checked<()> {
    let query = "SELECT last_error FROM syncline_outbox UNION ALL SELECT detail FROM syncline_inbox
                 UNION ALL SELECT json_remove(error, '$.remote') FROM syncline_conflict UNION ALL SELECT detail FROM syncline_log
                 UNION ALL SELECT value FROM syncline_meta WHERE key = 'last_error'";
    for told in texts_of_all(world, query)? {
        world.secrets.keeps("a device's file", &told)?;
    }
    Ok(())
}

fn count(world: &World, query: &str) -> Checked<i64> {
    let mut all = 0;
    for device in &world.devices {
        all += device
            .files
            .app
            .query_row(query, [], |row| row.get::<_, i64>(0))
            .map_err(sql)?;
    }
    Ok(all)
}

/// F:S11, D:P5: every device has what the server must have, field by field.
fn converged(world: &mut World) -> Checked<()> {
    for n in 0..world.devices.len() {
        let waiting = waiting(world, n)?;
        for table in world.setup.names() {
            let here = rows(&world.setup, &world.devices[n].files.app, table)?;
            let there: BTreeMap<String, Map<String, Value>> = (world.model.alive())
                .filter(|(name, _)| name.0 == table && !waiting.contains(*name))
                .map(|(name, fields)| (name.1.clone(), fields.clone()))
                .collect();
            for (id, fields) in &here {
                let text = format!("{n} {table} {id} {fields:?}");
                world.noted.trace.add(text.as_bytes());
            }
            let different = (here.keys().chain(there.keys()))
                .find(|id| !is_same((&world.setup, table), here.get(*id), there.get(*id)));
            if let Some(id) = different {
                let detail = format!(
                    "{table}/{id} is {:?} on device {n}, and {:?} on the server",
                    here.get(id),
                    there.get(id)
                );
                return Err(Broken::new("F:S11", detail));
            }
        }
    }
    Ok(())
}

/// Where a row of the server stands in the ledger.
pub(super) fn ledger_row(
    table: &'static str,
    id: &str,
    fields: &Map<String, Value>,
) -> (&'static str, String) {
    match fields.get("made").and_then(Value::as_str) {
        Some(made) => (table, made.to_owned()),
        None => (table, id.to_owned()),
    }
}

/// F:S12, F:S13: what was made and not deleted is there, once; what is there was made; what was deleted
/// is gone, unless an edit may win.
fn rows_kept(world: &World) -> Checked<()> {
    let (mut there, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for table in world.setup.names() {
        for (name, fields) in world.model.alive().filter(|(name, _)| name.0 == table) {
            let row = ledger_row(table, &name.1, fields);
            if !world.ledger.created.contains_key(&row) {
                return Err(Broken::new("F:S12 rows", format!("nobody made {row:?}")));
            }
            let for_ever = (table.to_owned(), row.1.clone());
            if world.model.did_not_know(name) || world.model.did_not_know(&for_ever) {
                unknown.insert(row.clone());
            }
            if !there.insert(row.clone()) {
                return Err(Broken::new("F:S4", format!("{row:?} is there twice")));
            }
        }
    }
    let may_come_back = world.ledger.may_come_back();
    for row in world.ledger.created.keys() {
        let deleted = world.ledger.may_be_gone(row);
        if !deleted && !there.contains(row) {
            return Err(Broken::new("F:S12 rows", format!("{row:?} is lost")));
        }
        let edits_win = !matches!(world.setup.rules, Rules::Default | Rules::Fields);
        let offered = world.ledger.copied.contains(row) || unknown.contains(row);
        let wins = row.0 == "note" && edits_win || may_come_back.contains(row);
        let may_live = offered || world.ledger.let_go.contains(row) || wins;
        if world.ledger.deleted.contains(row) && there.contains(row) && !may_live {
            return Err(Broken::new(
                "F:S13",
                format!("{row:?} was deleted, and is there"),
            ));
        }
    }
    Ok(())
}

/// F:S12: every value stands, or was overwritten by somebody who saw it, or is in a conflict record.
fn values_kept(world: &World) -> Checked<()> {
    let mut standing = BTreeSet::new();
    for (_, fields) in world.model.alive() {
        standing.extend(fields.values().filter_map(values::text));
    }
    let mut recorded = BTreeSet::new();
    for device in 0..world.devices.len() {
        recorded.extend(recorded_values(world, device)?);
    }
    let lost = world
        .ledger
        .lost(&standing, |value| recorded.contains(value));
    match lost.is_empty() {
        true => Ok(()),
        false => Err(Broken::new(
            "F:S12",
            format!("values are nowhere: {lost:?}"),
        )),
    }
}

/// F:S4, F:S12: numbers are what was added to them, once each.
fn sums_kept(world: &World) -> Checked<()> {
    let counts = matches!(world.setup.rules, Rules::Fields);
    for (name, fields) in world.model.alive() {
        let (table, column) = match name.0.as_str() {
            "account" => ("account", "balance"),
            "note" if counts => ("note", "stock"),
            _ => continue,
        };
        let row = (table, name.1.clone());
        let may_be_older =
            world.ledger.copied.contains(&row) && world.ledger.deleted.contains(&row);
        let unsure = [&world.ledger.unsure, &world.ledger.let_go];
        if may_be_older || unsure.iter().any(|rows| rows.contains(&row)) {
            continue;
        }
        let expected = world.ledger.sums.get(&row).copied().unwrap_or(0);
        if fields.get(column).and_then(Value::as_i64) != Some(expected) {
            let detail = format!(
                "{row:?} has {:?} {column}, and should have {expected}",
                fields.get(column)
            );
            return Err(Broken::new("F:S4", detail));
        }
        if table == "note" {
            tags_kept(world, &row, fields)?;
        }
    }
    Ok(())
}

/// Under the rule for sets both sides' additions and removals stand. An element that a restored server lacks cannot be
/// taken out of it there before the one who put it in offers it again.
fn tags_kept(
    world: &World,
    row: &(&'static str, String),
    fields: &Map<String, Value>,
) -> Checked<()> {
    let text = fields.get("tags").and_then(Value::as_str).unwrap_or("[]");
    let tags: BTreeSet<String> = serde_json::from_str(text).unwrap_or_default();
    let none = BTreeSet::new();
    let tagged = world.ledger.tagged.get(row).unwrap_or(&none);
    let untagged = world.ledger.untagged.get(row).unwrap_or(&none);
    let expected: BTreeSet<String> = tagged.difference(untagged).cloned().collect();
    let taken_back = world.ledger.edited_twice.contains(row) || world.model.histories() > 1;
    let may_be = taken_back && tags.is_superset(&expected) && tags.is_subset(tagged);
    match tags == expected || may_be {
        true => Ok(()),
        false => Err(Broken::new(
            "F:S12 tags",
            format!("{row:?} has tags {tags:?}, and should have {expected:?}"),
        )),
    }
}
