//! `syncline outbox discard`: shows what is given up, since it is gone from the outbox afterwards.

use super::Chosen;
use crate::database;
use crate::{Failure, Report, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use syncline::StoreError;
use syncline_store::outbox_view::{self, EntryDetail};

pub(super) fn run(chosen: &Chosen, dry_run: bool) -> Result<Report, Failure> {
    let now = database::now();
    let (seqs, mut store) = (chosen.seqs()?, chosen.database.store()?);
    let conn = chosen.database.read()?;
    let (mut gone, mut cancelling) = (Vec::new(), Vec::new());
    let mut seen: BTreeMap<i64, EntryDetail> = BTreeMap::new();
    for seq in seqs {
        let dependents = match store.dependents(seq, now) {
            // It went along with an earlier one.
            Err(StoreError::NoSuchEntry(_)) if seen.contains_key(&seq) => continue,
            other => other?,
        };
        for one in dependents {
            seen.insert(one, outbox_view::show(&conn, one, now)?);
        }
        if !dry_run {
            let discarded = store.discard(seq, now)?;
            gone.extend(discarded.gone);
            cancelling.extend(discarded.cancelling);
        }
    }
    cancelling.sort_unstable();
    cancelling.dedup();
    if dry_run {
        return would(&seen);
    }
    super::nudge(&chosen.database)?;
    let mut lines: Vec<String> = gone
        .iter()
        .map(|seq| line("discarded", *seq, &seen))
        .collect();
    lines.extend(
        cancelling
            .iter()
            .map(|seq| line("asking the server to cancel", *seq, &seen)),
    );
    let object = |seq: &i64| {
        let detail = seen.get(seq);
        json!({ "seq": seq, "entry": detail.map(|one| &one.entry), "payload": detail.map(|one| &one.payload) })
    };
    let discarded: Vec<Value> = gone.iter().map(object).collect();
    let json = json!({ "discarded": discarded, "cancelling": cancelling });
    Report::new(lines.join("\n"), &json)
}

fn would(seen: &BTreeMap<i64, EntryDetail>) -> Result<Report, Failure> {
    let lines: Vec<String> = seen
        .keys()
        .map(|seq| line("would discard", *seq, seen))
        .collect();
    let entries: Vec<Value> = seen.values().map(|one| json!(one)).collect();
    Report::new(lines.join("\n"), &json!({ "would_discard": entries }))
}

fn line(what: &str, seq: i64, seen: &BTreeMap<i64, EntryDetail>) -> String {
    let Some(detail) = seen.get(&seq) else {
        return format!("{what} entry {seq}");
    };
    let entry = &detail.entry;
    let entity = text::entity(&entry.entity_type, &entry.entity_id);
    let payload = json!(detail.payload);
    format!("{what} entry {seq}: {} {entity} {payload}", entry.op)
}
