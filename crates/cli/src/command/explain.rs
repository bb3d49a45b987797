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
    let database = args.database.shown();
    let told = describe(&database, &explanation, now.unix_ms);
    Report::new(
        told,
        &Shown {
            database,
            explanation: &explanation,
        },
    )
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
        if let Some(help) = &obstacle.help {
            told.push_str(&format!(
                "  try: {}\n",
                help.replace(" DB", &format!(" {database}"))
            ));
        }
    }
    if !explained.history.is_empty() {
        told.push_str("history, newest first:\n");
    }
    for one in &explained.history {
        let at = span::utc(one.at);
        told.push_str(&format!(
            "  {at}  {} {} (mutation {})\n",
            one.op, one.outcome, one.mutation
        ));
    }
    told
}
