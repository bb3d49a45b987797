//! F:S14: what a device shows of a row is what both sides agreed on with the mutations laid over it that are not
//! settled, made anew from what the file says of them. Commands that are offered again to a restored server are left
//! out: what they come to is the server's to say, and until it does the row stays. A create that is offered again lies
//! below what both sides agreed on since, and so do elements of a set, beside which there may be others'. What two devices made
//! under one id is a person's to decide, and left out until then.

use super::check::{Checked, sql};
use super::clean::Seen;
use super::world::World;
use crate::level::Broken;
use crate::reference::values;
use rusqlite::Connection;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

type Fields = Map<String, Value>;

/// Each row of the device with unsettled mutations.
pub(super) fn shows_no_more(world: &World, n: usize, seen: &Seen) -> Checked<()> {
    let app = &world.devices[n].files.app;
    for (table, here) in &seen.tables {
        for (id, made) in made_anew(app, table)? {
            let here = here.get(&id);
            if !is_shown(here, made.as_ref()) {
                let detail = format!(
                    "device {n} shows {table}/{id} as {here:?}; what it has of it comes to {made:?}"
                );
                return Err(Broken::new("F:S14", detail));
            }
        }
    }
    Ok(())
}

/// The rows of a table that have unsettled mutations, as these make them. What both sides agreed on is not there for
/// a row that was made here, and not known for one that was attached.
fn made_anew(app: &Connection, table: &str) -> Checked<BTreeMap<String, Option<Fields>>> {
    let read = || -> rusqlite::Result<_> {
        let mut made: BTreeMap<String, Option<Fields>> = BTreeMap::new();
        let mut statement = app.prepare_cached(
            "SELECT entity_id, op, payload,
                    coalesce(origin, '') = 'journal',
                    (SELECT fields FROM syncline_base AS b
                      WHERE b.entity_type = o.entity_type AND b.entity_id = o.entity_id)
               FROM syncline_outbox AS o WHERE entity_type = ?1
                AND NOT EXISTS (SELECT 1 FROM syncline_outbox AS c
                                 WHERE c.entity_type = o.entity_type AND c.entity_id = o.entity_id
                                   AND c.command IS NOT NULL AND c.origin = 'journal')
                AND NOT EXISTS (SELECT 1 FROM syncline_conflict AS c
                                 WHERE c.entity_type = o.entity_type AND c.entity_id = o.entity_id
                                   AND c.resolved_at IS NULL AND c.base IS NULL)
              ORDER BY seq",
        )?;
        let mut entries = statement.query([table])?;
        while let Some(entry) = entries.next()? {
            let fields = |at| -> rusqlite::Result<Option<Fields>> {
                let text: Option<String> = entry.get(at)?;
                Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
            };
            let (op, payload, again): (String, _, bool) =
                (entry.get(1)?, fields(2)?, entry.get(3)?);
            let state = match made.remove(&entry.get::<_, String>(0)?) {
                Some(state) => state,
                None => fields(4)?,
            };
            let state = match (op.as_str(), state) {
                ("delete", _) => None,
                ("create", Some(agreed)) if again => Some(agreed),
                ("create", _) => payload,
                (_, Some(mut state)) => {
                    state.extend(payload.unwrap_or_default());
                    if again {
                        state.remove("tags");
                    }
                    Some(state)
                }
                (_, None) => None,
            };
            made.insert(entry.get(0)?, state);
        }
        Ok(made)
    };
    read().map_err(sql)
}

/// Weights stand beside the payload, since JSON does not keep them; what the table has no column for, elsewhere. A column
/// of which nothing is said is as the app's schema makes it.
fn is_shown(here: Option<&Fields>, made: Option<&Fields>) -> bool {
    let (here, made) = match (here, made) {
        (None, None) => return true,
        (Some(here), Some(made)) => (here, made),
        _ => return false,
    };
    here.iter()
        .filter(|(name, _)| *name != "weight")
        .all(|(name, value)| {
            let made = made.get(name).and_then(values::captured);
            made.is_none_or(|made| made == *value)
        })
}
