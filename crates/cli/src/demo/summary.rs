//! The end of the demo for people: a table of every row, what was merged, what was refused and
//! why, and what to type next.

use super::outcome::{DeviceEnd, Outcome};
use super::rows::{Difference, Name, Refused};
use super::server::SUBJECT;
use crate::text;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use syncline_protocol::{Fields, Value};

/// The whole of it. `kept`: the folder, if it stays, and the address that the server had.
pub(super) fn write(outcome: &Outcome, wall: Duration, kept: Option<(&Path, &str)>) -> String {
    let mut out = text::columns(&table(outcome));
    out.push('\n');
    out.push_str(&counts(outcome));
    for refused in outcome.refused() {
        out.push_str(&refusal(outcome, refused));
    }
    out.push('\n');
    for promise in &outcome.promises {
        let mark = if promise.kept { "ok  " } else { "NOT " };
        out.push_str(&format!("{mark} {}\n", promise.promise));
    }
    let verdict = match (outcome.converged, outcome.all_kept()) {
        (true, true) => "Converged: everything promised happened",
        (true, false) => "Converged, but not everything promised happened",
        (false, _) => "NOT converged: a device and the server differ",
    };
    out.push_str(&format!("\n{verdict} ({:.1} s).\n", wall.as_secs_f64()));
    out.push_str(&next(outcome, kept));
    out
}

/// A line for the counts of rows, then one for each row with its values on the server and what each
/// place has.
fn table(outcome: &Outcome) -> Vec<Vec<String>> {
    let mut lines = vec![line(["", "as the server has it", "laptop", "phone"])];
    let [laptop, phone] = &outcome.devices;
    lines.push(line([
        "rows",
        &outcome.server.len().to_string(),
        &laptop.rows.len().to_string(),
        &phone.rows.len().to_string(),
    ]));
    let places = [&outcome.server, &laptop.rows, &phone.rows];
    let names: BTreeSet<&Name> = places.iter().flat_map(|rows| rows.keys()).collect();
    for name in names {
        lines.push(line([
            &format!("{} {}", name.entity_type, name.entity_id),
            &outcome.server.get(name).map_or("-".to_owned(), describe),
            &place(laptop, name),
            &place(phone, name),
        ]));
    }
    lines
}

fn line<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A row's values on one line, without its key.
fn describe(row: &Fields) -> String {
    let shown = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    let mut parts = Vec::new();
    for name in ["name", "title"] {
        parts.extend(row.get(name).map(shown));
    }
    for name in ["done", "priority"] {
        parts.extend(
            row.get(name)
                .map(|value| format!("{name} {}", shown(value))),
        );
    }
    parts.join(", ")
}

fn place(device: &DeviceEnd, name: &Name) -> String {
    let found = device.differences.iter().find(|found| found.name == *name);
    match found {
        None => "same".to_owned(),
        Some(found) => {
            let mark = if found.refused { "refused" } else { "DIFFERS" };
            format!("{} ({mark})", deviation(found))
        }
    }
}

/// In which fields a device's row is another one.
fn deviation(found: &Difference) -> String {
    match (&found.device, &found.server) {
        (None, _) => "missing".to_owned(),
        (Some(_), None) => "only here".to_owned(),
        (Some(here), Some(there)) => {
            let changed = here
                .iter()
                .filter(|(name, value)| there.get(name) != Some(value));
            let shown = changed.map(|(name, value)| {
                format!(
                    "{name} {}",
                    serde_json::to_string(value).unwrap_or_default()
                )
            });
            shown.collect::<Vec<_>>().join(", ")
        }
    }
}

fn counts(outcome: &Outcome) -> String {
    format!(
        "merged: {} row whose two edits both stand; {} decided by rule, the losing value on record;\n\
         \x20       {} decided by a person\n\
         repeated: {} pushes were sent again; the server recognised {} mutations it already had\n",
        outcome.merges, outcome.lossy, outcome.by_person, outcome.retries, outcome.duplicates,
    )
}

fn refusal(outcome: &Outcome, refused: &Refused) -> String {
    let device = outcome
        .devices
        .iter()
        .find(|device| device.refused.iter().any(|own| own.name == refused.name));
    let device = device.map_or("a device", |device| device.name);
    let name = text::entity(&refused.name.entity_type, &refused.name.entity_id);
    let error = &refused.error;
    let mut out = format!(
        "refused: {name} on the {device} waits for a person (entry {} of its outbox)\n\
         \x20        {}: {}\n",
        refused.seq, error.code, error.detail
    );
    for field in &error.errors {
        out.push_str(&format!("         {}\n", text::field_error(field)));
    }
    out
}

fn next(outcome: &Outcome, kept: Option<(&Path, &str)>) -> String {
    let Some((folder, address)) = kept else {
        return "The files are gone again; `syncline demo --keep DIR` leaves them to look at.\n"
            .to_owned();
    };
    let shown = folder.display();
    let seq = outcome.refused().next().map_or(1, |refused| refused.seq);
    format!(
        "\nKept in {shown}. Look inside:\n\
         \x20 syncline status {shown}/laptop.db\n\
         \x20 syncline outbox show {shown}/laptop.db {seq}\n\
         \x20 syncline outbox discard {shown}/laptop.db {seq}    # take the server's row back\n\
         Go on with the same server, from another terminal:\n\
         \x20 syncline serve --data {shown}/server --config {shown}/server.toml --listen {address}\n\
         \x20 export SYNCLINE_TOKEN=$(syncline token --data {shown}/server --subject {SUBJECT})\n\
         \x20 syncline sync {shown}/phone.db\n"
    )
}
