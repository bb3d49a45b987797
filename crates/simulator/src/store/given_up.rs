//! What is given up with a file when a backup takes its place: what had been confirmed to it since, which only it
//! could have offered again to a server that is restored.

use super::check::{Checked, ledger_row, sql};
use super::scenario::Setup;
use crate::reference::ledger::{Ledger, Row};
use crate::reference::values;
use rusqlite::Connection;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// One mutation of a file's journal.
pub(crate) struct Confirmed {
    mutation: String,
    op: String,
    row: Row,
    values: Vec<String>,
}

/// The journal of a file.
pub(crate) fn confirmed(setup: &Setup, app: &Connection) -> Checked<Vec<Confirmed>> {
    let mut journal = app
        .prepare_cached(
            "SELECT mutation, op, entity_type, entity_id, coalesce(fields, before, '{}') FROM syncline_journal",
        )
        .map_err(sql)?;
    let mut rows = journal.query([]).map_err(sql)?;
    let mut all = Vec::new();
    let names = setup.names();
    while let Some(row) = rows.next().map_err(sql)? {
        let text = |column| row.get::<_, String>(column).map_err(sql);
        let (table, id) = (text(2)?, text(3)?);
        let Some(table) = names.iter().find(|name| **name == table) else {
            continue;
        };
        let fields: Map<String, Value> = serde_json::from_str(&text(4)?).unwrap_or_default();
        all.push(Confirmed {
            mutation: text(0)?,
            op: text(1)?,
            row: ledger_row(table, &id, &fields),
            values: fields.values().filter_map(values::text).collect(),
        });
    }
    Ok(all)
}

/// Tells the ledger what the file that takes the place knows nothing of.
pub(crate) fn without(
    confirmed: Vec<Confirmed>,
    backup: &Connection,
    ledger: &mut Ledger,
) -> Checked<()> {
    let mut known = backup
        .prepare_cached(
            "SELECT mutation FROM syncline_journal UNION SELECT mutation FROM syncline_outbox",
        )
        .map_err(sql)?;
    let known = known.query_map([], |row| row.get(0));
    let known: BTreeSet<String> = known.and_then(Iterator::collect).map_err(sql)?;
    for one in confirmed {
        if known.contains(&one.mutation) {
            continue;
        }
        let given_up = &mut ledger.given_up;
        let rows = match one.op.as_str() {
            "create" => &mut given_up.created,
            "update" => &mut given_up.edited,
            _ => &mut given_up.deleted,
        };
        rows.insert(one.row);
        if one.op != "delete" {
            given_up.values.extend(one.values);
        }
    }
    Ok(())
}
