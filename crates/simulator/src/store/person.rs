//! What waits on a device for a person, who decides in the calm phase.

use super::check::{Checked, ledger_row, sql};
use super::rows::rows;
use super::world::World;
use crate::reference::values;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What waits for a person on a device: dead letters in local order, and types with rows that are held.
pub(crate) fn for_a_person(world: &World, device: usize) -> Checked<(Vec<i64>, Vec<String>)> {
    let app = &world.devices[device].files.app;
    let mut letters = app
        .prepare_cached(
            "SELECT seq FROM syncline_outbox WHERE state IN ('failed', 'dead') ORDER BY seq",
        )
        .map_err(sql)?;
    let letters = letters.query_map([], |row| row.get(0));
    let mut held = app
        .prepare_cached("SELECT DISTINCT entity_type FROM syncline_held")
        .map_err(sql)?;
    let held = held.query_map([], |row| row.get(0));
    Ok((
        letters.and_then(Iterator::collect).map_err(sql)?,
        held.and_then(Iterator::collect).map_err(sql)?,
    ))
}

/// An open conflict about a row that was made under one id on two devices.
pub(crate) struct MadeTwice {
    pub(crate) id: i64,
    /// The server's row of it.
    pub(crate) theirs: Option<(&'static str, String)>,
    /// What waits for the decision.
    pub(crate) mutations: Vec<String>,
}

/// Those of a device: which row it is, only a person knows.
pub(crate) fn made_twice(world: &World, device: usize) -> Checked<Vec<MadeTwice>> {
    let app = &world.devices[device].files.app;
    let mut open = app
        .prepare_cached(
            "SELECT id, entity_type, entity_id, remote,
                    (SELECT json_group_array(mutation) FROM syncline_outbox AS o
                      WHERE o.entity_type = c.entity_type AND o.entity_id = c.entity_id)
               FROM syncline_conflict AS c
              WHERE resolved_at IS NULL AND base IS NULL AND local IS NOT NULL AND remote IS NOT NULL",
        )
        .map_err(sql)?;
    let names = world.setup.names();
    let open = open.query_map([], |row| {
        let (table, id, remote): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let fields: Map<String, Value> = serde_json::from_str(&remote).unwrap_or_default();
        let named = names.iter().find(|name| **name == table);
        let theirs = named.map(|name| ledger_row(name, &id, &fields));
        let mutations: String = row.get(4)?;
        Ok(MadeTwice {
            id: row.get(0)?,
            theirs,
            mutations: serde_json::from_str(&mutations).unwrap_or_default(),
        })
    });
    open.and_then(Iterator::collect).map_err(sql)
}

/// What stands in the rows of a device that are held.
pub(crate) fn held_values(world: &World, device: usize) -> Checked<Vec<String>> {
    let app = &world.devices[device].files.app;
    let mut texts = Vec::new();
    for table in world.setup.names() {
        let mut held = app
            .prepare_cached("SELECT entity_id FROM syncline_held WHERE entity_type = ?1")
            .map_err(sql)?;
        let held = held.query_map([table], |row| row.get(0));
        let held: BTreeSet<String> = held.and_then(Iterator::collect).map_err(sql)?;
        if held.is_empty() {
            continue;
        }
        let rows = rows(&world.setup, app, table)?;
        let rows = rows.into_iter().filter(|(id, _)| held.contains(id));
        for (_, fields) in rows {
            texts.extend(fields.values().filter_map(values::text));
        }
    }
    Ok(texts)
}
