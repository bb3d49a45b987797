//! `syncline sweep`: what becomes of rows that the server no longer has and that are held here.

use super::outbox::nudge;
use crate::database::{self, Database};
use crate::{Failure, Global, Report, text};
use serde_json::json;

/// Decide about rows that are gone on the server and kept here until you say so
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Remove the held rows of a type here too
    Confirm(One),
    /// Give the held rows of a type to the server again, as new rows
    Restore(One),
}

#[derive(Debug, clap::Args)]
struct One {
    #[command(flatten)]
    database: Database,
    /// The type, as `status` shows it
    #[arg(value_name = "TYPE")]
    entity_type: String,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    let now = database::now();
    match args.act {
        Act::Confirm(one) => {
            let gone = one.database.store()?.confirm_sweep(&one.entity_type, now)?;
            nudge(&one.database)?;
            let told = format!(
                "removed {} of {}",
                text::count(gone, "row"),
                one.entity_type
            );
            Report::new(
                told,
                &json!({ "removed": gone, "entity_type": one.entity_type }),
            )
        }
        Act::Restore(one) => {
            let offered = one.database.store()?.restore_sweep(&one.entity_type, now)?;
            nudge(&one.database)?;
            let rows = text::count(offered, "row");
            let told = format!(
                "{rows} of {} go to the server with the next sync",
                one.entity_type
            );
            Report::new(
                told,
                &json!({ "offered": offered, "entity_type": one.entity_type }),
            )
        }
    }
}
