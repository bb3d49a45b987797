//! What a row shows about which nothing is pending.

use super::check::{Checked, is_same, sql};
use super::rows::rows;
use super::schema::{lacking, without};
use super::world::World;
use crate::level::Broken;
use std::collections::BTreeSet;

/// F:S8, D:P1: a row about which nothing is pending is as the server had it at the device's position,
/// or newer.
pub(crate) fn reflects(world: &World, n: usize) -> Checked<()> {
    let device = &world.devices[n];
    let position: Option<(i64, String)> = device
        .files
        .app
        .query_row(
            "SELECT max(position), max(epoch) FROM syncline_cursor WHERE phase = 'feed'
                AND NOT EXISTS (SELECT 1 FROM syncline_seen)",
            [],
            |row| {
                Ok(row
                    .get::<_, Option<i64>>(0)?
                    .zip(row.get::<_, Option<String>>(1)?))
            },
        )
        .map_err(sql)?;
    let Some((position, epoch)) = position else {
        return Ok(());
    };
    if epoch != world.model.epoch() {
        return Ok(());
    }
    let mut open: BTreeSet<(String, String)> = BTreeSet::new();
    let mut statement = (device.files.app)
        .prepare_cached(
            "SELECT entity_type, entity_id FROM syncline_outbox UNION SELECT entity_type, entity_id FROM syncline_inbox
             UNION SELECT entity_type, entity_id FROM syncline_staged WHERE entity_id IS NOT NULL
             UNION SELECT entity_type, entity_id FROM syncline_held UNION SELECT entity_type, entity_id FROM syncline_removed
             UNION SELECT entity_type, entity_id FROM syncline_missing UNION SELECT entity_type, entity_id FROM syncline_conflict WHERE resolved_at IS NULL",
        )
        .map_err(sql)?;
    let names = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    for name in names.map_err(sql)? {
        open.insert(name.map_err(sql)?);
    }
    let lacking = lacking(&device.files.app).map_err(sql)?;
    for table in world.setup.names() {
        let here = rows(&world.setup, &device.files.app, table)?;
        for (name, fields) in world.model.alive().filter(|(name, _)| name.0 == table) {
            let known = world.model.entity(name).map_or(i64::MAX, |e| e.position);
            let shown = without(fields, name, &lacking);
            if known <= position
                && !open.contains(name)
                && !is_same(here.get(&name.1), Some(&shown))
            {
                let detail = format!(
                    "device {n} stands at {position}, where {name:?} was {fields:?} since {known}, and has {:?}",
                    here.get(&name.1)
                );
                return Err(Broken::new("F:S8", detail));
            }
        }
        let closed = (here.keys()).map(|id| (table.to_owned(), id.clone()));
        for name in closed.filter(|name| !open.contains(name)) {
            let gone = (world.model.entity(&name)).filter(|entity| entity.fields.is_none());
            if let Some(gone) = gone.filter(|gone| gone.position <= position) {
                let detail = format!(
                    "device {n} stands at {position}, where {name:?} was deleted since {}, and has it",
                    gone.position
                );
                return Err(Broken::new("F:S8", detail));
            }
        }
    }
    Ok(())
}
