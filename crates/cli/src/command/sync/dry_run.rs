//! `syncline sync --dry-run`: what would be sent. Needs neither token nor network.

use crate::command::engine::Connection;
use crate::database::{self, Database};
use crate::{Failure, Report, text};
use serde_json::{Value, json};
use syncline::Settings;

pub(super) fn run(database: &Database, connection: &Connection) -> Result<Report, Failure> {
    let settings = match connection.config()? {
        Some(config) => config.settings,
        None => Settings::stored(&database.read()?)?,
    };
    drop(database.read()?);
    let preview = syncline_store::preview(&mut database.write()?, &settings, database::now())?;
    let mut lines = Vec::new();
    let mut told: Vec<Vec<Value>> = Vec::new();
    for (number, batch) in preview.batches.iter().enumerate() {
        let count = text::count(batch.len() as u64, "mutation");
        lines.push(format!("batch {}: {count}", number + 1));
        let mut mutations = Vec::new();
        for frozen in batch {
            let mutation: Value = serde_json::from_str(frozen)
                .map_err(|error| Failure::new("internal", error.to_string()))?;
            lines.push(format!("  {frozen}"));
            mutations.push(mutation);
        }
        told.push(mutations);
    }
    if preview.batches.is_empty() {
        lines.push("nothing would be sent now".to_owned());
    }
    if !preview.made_up_keys.is_empty() {
        let keys = preview.made_up_keys.join(", ");
        lines.push(format!(
            "made up for this look, the sync will use other keys: {keys}"
        ));
    }
    Report::new(
        lines.join("\n"),
        &json!({ "dry_run": true, "batches": told, "made_up_keys": preview.made_up_keys }),
    )
}
