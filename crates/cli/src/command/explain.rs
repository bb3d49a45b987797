//! `syncline explain`: is this row synced, and if not, why not.

use crate::database::{self, Database};
use crate::{Failure, Global, Report, span, text};
use serde::Serialize;
use syncline_store::explain::{self, Explanation};

/// Say whether a row is synced, what stands in the way if not, and what would help
///
/// Needs neither token nor network: everything is read from the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: Database,
    /// The entity type or its table
    #[arg(value_name = "TYPE")]
    entity_type: String,
    /// The row's primary key; a composite one as a JSON array
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    id: String,
}

#[derive(Serialize)]
struct Shown<'a> {
    database: String,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    let now = database::now();
    let conn = args.database.read()?;
    let explanation = explain::explain(&conn, &args.entity_type, &args.id, now)?;
    report(&args.database.shown(), &explanation, now.unix_ms)
}

fn report(database: &str, explanation: &Explanation, now: i64) -> Result<Report, Failure> {
    let told = describe(database, explanation, now);
    let database = database.to_owned();
    let shown = Shown {
        database,
        explanation,
    };
    Report::new(told, &shown)
}

/// What `syncline explain` prints of an explanation, as text and as JSON: for those who have a clock
/// of their own.
pub fn explained(database: &str, explanation: &Explanation, now: i64) -> (String, String) {
    match report(database, explanation, now) {
        Ok(report) => report.both(),
        // Never: an explanation serialises.
        Err(failure) => (String::new(), failure.json().to_string()),
    }
}

fn describe(database: &str, explained: &Explanation, now: i64) -> String {
    let name = text::entity(&explained.entity_type, &explained.entity_id);
    let mut told = match (explained.synced, explained.here) {
        (true, true) => format!("{name} is synced"),
        (true, false) => format!("{name} is deleted, here and on the server"),
        (false, _) => format!("{name} is not synced"),
    };
    if let Some(old) = &explained.formerly {
        told.push_str(&format!(" (it was {old} before)"));
    }
    let pulled = span::ago(explained.last_pull_at, now);
    told.push_str(&format!("; last pull: {pulled}\n"));
    for obstacle in &explained.obstacles {
        told.push_str(&format!("- {} [{}]\n", obstacle.detail, obstacle.code));
        if let Some(until) = obstacle.until {
            told.push_str(&format!("  until: {}\n", span::utc(until)));
        }
        if let Some(help) = &obstacle.help {
            let help = text::for_database(help, database);
            told.push_str(&format!("  try: {help}\n"));
        }
    }
    if !explained.left_out.is_empty() {
        let columns = explained.left_out.join(", ");
        told.push_str(&format!("columns that stay on this device: {columns}\n"));
    }
    if !(explained.history.is_empty() && explained.mutations.is_empty()) {
        told.push_str("history, newest first:\n");
    }
    for entry in explained.mutations.iter().rev() {
        let at = span::utc(entry.created_at);
        told.push_str(&format!(
            "  {at}  {} {} recorded (mutation {})\n",
            entry.op, entry.seq, entry.mutation
        ));
    }
    for one in &explained.history {
        let at = span::utc(one.at);
        let why = why(&one.detail);
        // What a repair did is no mutation.
        let mutation = match one.mutation.as_str() {
            "" => String::new(),
            mutation => format!(" (mutation {mutation})"),
        };
        told.push_str(&format!(
            "  {at}  {} {}{mutation}{why}\n",
            one.op, one.outcome
        ));
    }
    told
}

/// The circumstances of an outcome, as far as they fit on a line.
fn why(detail: &serde_json::Value) -> String {
    let text = |name: &str| detail.get(name).and_then(serde_json::Value::as_str);
    match (text("reason").or(text("code")), text("detail")) {
        (Some(word), Some(detail)) => format!(": {word}: {detail}"),
        (Some(word), None) => format!(": {word}"),
        (None, _) => String::new(),
    }
}
