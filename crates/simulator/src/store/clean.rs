//! What a device shows, and which of its rows nothing is pending about.

use super::check::{Checked, is_same, sql};
use super::rows::{Rows, rows};
use super::scenario::Setup;
use super::schema::{lacking, without};
use super::world::World;
use crate::level::Broken;
use crate::reference::server::Name;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What a device shows at one moment.
pub(crate) struct Seen {
    /// Its rows under the names of the wire, table by table.
    pub(super) tables: Vec<(String, Rows)>,
    /// Up to where it follows the server's present history, unless a snapshot is being compared.
    pub(super) position: Option<i64>,
    /// Rows about which something is pending or waits; only where there is a position.
    pub(super) open: BTreeSet<Name>,
    /// Fields that are kept beside their rows.
    lacking: BTreeSet<(Name, String)>,
}

impl Seen {
    /// Whether a row is here as the server has it.
    pub(super) fn is_as(
        &self,
        setup: &Setup,
        name: &Name,
        here: Option<&Map<String, Value>>,
        there: Option<&Map<String, Value>>,
    ) -> bool {
        let shown = there.map(|fields| without(fields, name, &self.lacking));
        here.is_some() == there.is_some()
            && (here == there || is_same((setup, &name.0), here, shown.as_ref()))
    }
}

/// Looks at a device.
pub(crate) fn look(world: &World, n: usize) -> Checked<Seen> {
    let app = &world.devices[n].files.app;
    let mut seen = Seen {
        tables: Vec::new(),
        position: None,
        open: BTreeSet::new(),
        lacking: BTreeSet::new(),
    };
    for table in world.setup.names() {
        let rows = rows(&world.setup, app, table)?;
        seen.tables.push((table.to_owned(), rows));
    }
    let feed: Option<(i64, String)> = app
        .prepare_cached(
            "SELECT max(position), max(epoch) FROM syncline_cursor WHERE phase = 'feed'
                AND NOT EXISTS (SELECT 1 FROM syncline_seen)",
        )
        .and_then(|mut feed| {
            feed.query_row([], |row| {
                let position = row.get::<_, Option<i64>>(0)?;
                Ok(position.zip(row.get::<_, Option<String>>(1)?))
            })
        })
        .map_err(sql)?;
    let here = feed.filter(|(_, epoch)| epoch == world.model.epoch());
    let Some((position, _)) = here else {
        return Ok(seen);
    };
    seen.position = Some(position);
    let mut statement = app
        .prepare_cached(
            "SELECT entity_type, entity_id FROM syncline_outbox UNION SELECT entity_type, entity_id FROM syncline_inbox
             UNION SELECT entity_type, entity_id FROM syncline_staged WHERE entity_id IS NOT NULL
             UNION SELECT entity_type, entity_id FROM syncline_held UNION SELECT entity_type, entity_id FROM syncline_removed
             UNION SELECT entity_type, entity_id FROM syncline_missing UNION SELECT entity_type, entity_id FROM syncline_conflict WHERE resolved_at IS NULL",
        )
        .map_err(sql)?;
    let names = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    for name in names.map_err(sql)? {
        seen.open.insert(name.map_err(sql)?);
    }
    seen.lacking = lacking(app).map_err(sql)?;
    Ok(seen)
}

/// F:S8, D:P1: a row about which nothing is pending is as the server had it at the device's position,
/// or newer.
pub(crate) fn reflects(world: &World, n: usize, seen: &Seen) -> Checked<()> {
    let Some(position) = seen.position else {
        return Ok(());
    };
    for (table, here) in &seen.tables {
        for (name, fields) in world.model.alive().filter(|(name, _)| name.0 == *table) {
            let known = world.model.entity(name).map_or(i64::MAX, |e| e.position);
            if known <= position
                && !seen.open.contains(name)
                && !seen.is_as(&world.setup, name, here.get(&name.1), Some(fields))
            {
                let detail = format!(
                    "device {n} stands at {position}, where {name:?} was {fields:?} since {known}, and has {:?}",
                    here.get(&name.1)
                );
                return Err(Broken::new("F:S8", detail));
            }
        }
        let closed = (here.keys()).map(|id| ((*table).to_owned(), id.clone()));
        for name in closed.filter(|name| !seen.open.contains(name)) {
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
