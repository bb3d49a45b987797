//! `syncline detach`: the database is as it was before it was attached, with the rows of today.

use crate::database::{self, Database};
use crate::{Failure, Global, Report, text};
use serde_json::json;
use syncline::{Unsynced, detach};
use syncline_store::status;

/// Remove every trigger and table of Syncline; rows stay as they are
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: Database,
    /// Detach although mutations are not synced, and drop these; or while another process syncs
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    let before = status::read(&args.database.read()?, database::now())?;
    if before.engine != "stopped" && !args.force {
        let message = format!(
            "another process is syncing this database ({})",
            before.engine
        );
        return Err(Failure::new("engine-running", message).hint(
            "stop `syncline run` or the app first; one that was killed is forgotten after a minute, or with --force",
        ));
    }
    let unsynced = match args.force {
        true => Unsynced::Drop,
        false => Unsynced::Refuse,
    };
    detach(&mut args.database.write()?, unsynced)?;
    let dropped: u64 = before.outbox.values().sum();
    let shown = args.database.shown();
    let text = match dropped {
        0 => format!("detached {shown}; its rows stay as they are"),
        n => format!(
            "detached {shown}; its rows stay as they are\ndropped {} that were not synced",
            text::count(n, "mutation")
        ),
    };
    Report::new(
        text,
        &json!({ "database": shown, "detached": true, "dropped": dropped }),
    )
}
