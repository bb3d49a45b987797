//! F:S27: what apps write and read and what the server does is told to the checker of histories, with what it
//! has to forgive.

use super::check::{Checked, recorded_values, sql};
use super::clean::Seen;
use super::scenario::{Rules, Setup};
use super::world::{Place, World};
use crate::level::Broken;
use crate::reference::history::{Declared, Shown, follows};
use crate::reference::server::Name;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::RemoteAnswer;

/// What the checker has to know of the rules.
pub(super) fn declared(setup: &Setup) -> Declared {
    Declared {
        sets: matches!(setup.rules, Rules::Fields | Rules::EditWins),
        documents: setup.rules == Rules::ClientWins,
    }
}

/// A row's name as the ledger has it.
fn note(row: &Name) -> (&'static str, String) {
    ("note", row.1.clone())
}

impl World {
    /// The server did something for a device.
    pub(super) fn effects_follow(&mut self, device: usize, sent: &Value) -> Checked<()> {
        let sent = sent["mutations"].as_array();
        let sent_as = |name: &Name, key: &str| {
            let is_it = |one: &Value| one["key"] == *key && one["id"] == *name.1;
            sent.is_some_and(|all| all.iter().any(is_it))
        };
        for (name, entity) in self.model.take_effects() {
            let twice = |row: &Name| {
                let row = note(row);
                self.ledger.edited_twice.contains(&row) || self.ledger.copied.contains(&row)
            };
            let state = (entity.position, entity.fields.as_ref());
            let named = (&name, sent_as(&name, &entity.key));
            self.history.effect(device, named, state, twice)?;
        }
        Ok(())
    }

    /// The server has answered what a device asked as a copy of its file would ask.
    pub(super) fn done_before(&mut self, device: usize, sent: &Value, answer: &Value) {
        for result in answer["results"].as_array().into_iter().flatten() {
            let again = result["outcome"] == "applied" && result["duplicate"] == true;
            let (Some(key), Some(at)) = (result["key"].as_str(), result["position"].as_i64())
            else {
                continue;
            };
            let mut all = sent["mutations"].as_array().into_iter().flatten();
            let Some(one) = all.find(|one| one["key"] == *key) else {
                continue;
            };
            let id = result["id"].as_str().or(one["id"].as_str());
            if let (true, Some(table), Some(id)) = (again, one["type"].as_str(), id)
                && sent["inherited"].get(key).is_some()
            {
                let name = (table.to_owned(), id.to_owned());
                self.history.done_before(device, name, at);
            }
        }
    }

    /// Another history of the server begins with what is there.
    pub(super) fn history_begins(&mut self) {
        let rows = self.model.entities();
        let rows = rows.map(|(name, entity)| (name, entity.position, entity.fields.as_ref()));
        self.history.begins(rows);
    }

    /// Where a page that is waited for says that it is the end of the feed.
    pub(super) fn head_of(answer: &RemoteAnswer) -> Option<i64> {
        match answer {
            RemoteAnswer::Pull(Ok(page)) if page.end.at_head => Some(page.end.position),
            _ => None,
        }
    }

    /// A device has taken a page that said so, if it stands there now.
    pub(super) fn may_be_at_head(&mut self, place: Place, position: i64) {
        let query =
            "SELECT 1 FROM syncline_cursor WHERE phase = 'feed' AND position = ?1 AND epoch = ?2
                        AND NOT EXISTS (SELECT 1 FROM syncline_seen)";
        let app = &self.devices[place.device].files.app;
        let stands = app.prepare_cached(query).and_then(|mut statement| {
            statement.exists(rusqlite::params![position, self.model.epoch()])
        });
        match stands {
            Ok(true) => self.history.told_head(place.device, position),
            Ok(false) => {}
            Err(error) => self.breaks(sql(error)),
        }
    }
}

/// F:S27: what a device shows can be, after all that was written, done and shown.
pub(crate) fn can_be(world: &mut World, n: usize, seen: &Seen) -> Checked<()> {
    let tables = (seen.tables.iter()).filter(|(table, _)| follows(table));
    let rows: BTreeMap<Name, _> = tables
        .flat_map(|(table, rows)| {
            (rows.iter()).map(move |(id, fields)| (((*table).to_owned(), id.clone()), fields))
        })
        .collect();
    let (ledger, setup) = (&world.ledger, &world.setup);
    let open = seen.position.map(|position| {
        // What another copy of the file did under the same key shows once the feed brings it.
        let is_to_come = |name: &&Name| {
            let (known, row) = (world.model.entity(name), note(name));
            known.is_none_or(|entity| entity.position > position)
                && (ledger.copied.contains(&row)
                    || ledger.edited_twice.contains(&row)
                    || world.history.is_to_come(n, name, position))
        };
        let to_come = rows.keys().filter(is_to_come).cloned();
        seen.open
            .iter()
            .cloned()
            .chain(to_come)
            .collect::<BTreeSet<Name>>()
    });
    let shown = Shown {
        rows,
        open: open.as_ref(),
        same: &|name, here, there| seen.is_as(setup, name, here, there),
        may_lack: &|row| {
            let row = note(row);
            ledger.deleted.contains(&row) || ledger.let_go.contains(&row)
        },
    };
    let gone = world.history.look(n, &shown)?;
    if gone.is_empty() {
        return Ok(());
    }
    let recorded: BTreeSet<String> = recorded_values(world, n)?.into_iter().collect();
    let let_go = |row: &Name| world.ledger.let_go.contains(&note(row));
    match (gone.iter()).find(|(row, value)| !recorded.contains(value) && !let_go(row)) {
        None => Ok(()),
        Some((row, value)) => {
            let detail = format!(
                "device {n} wrote {value} into {row:?} and does not show it, though it never reached the server and no record has it"
            );
            Err(Broken::new("F:S27", detail))
        }
    }
}

/// F:S27: in the end, no element of a set is lost.
pub(crate) fn nothing_lost(world: &World) -> Checked<()> {
    let may_lack = |row: &Name| {
        let row = note(row);
        let ledger = &world.ledger;
        let sets = [&ledger.deleted, &ledger.unsure, &ledger.let_go];
        sets.iter().any(|rows| rows.contains(&row))
    };
    let waits = |element: &str| {
        let query = "SELECT 1 FROM syncline_outbox WHERE payload LIKE '%' || ?1 || '%'";
        (world.devices.iter()).position(|device| {
            let app = &device.files.app;
            app.query_row(query, [element], |_| Ok(())).is_ok()
        })
    };
    (world.history).nothing_lost(world.model.alive(), may_lack, waits)
}
