//! `syncline admin`: what the operator of a server has done, beside the server.

use super::serve::storage_failure;
use crate::{Failure, Global, Report, database};
use serde_json::json;
use std::path::PathBuf;
use syncline_server::{Now, StorageError, purge, rotate_epoch};
use syncline_server_sqlite::SqliteStorage;

/// Look after a server's data; no server may be serving it meanwhile
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Start a new history: do this after restoring a backup, before serving it
    ///
    /// Devices pull from the start and keep what they have not sent yet.
    RotateEpoch(Data),
    /// Forget idempotency keys and deletions that are past their retention
    ///
    /// A running server does this by itself, every hour.
    Purge {
        #[command(flatten)]
        data: Data,
        /// Where the retention is set
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Data {
    /// The server's data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    let now = Now::from_unix_ms(database::now().unix_ms);
    match args.action {
        Action::RotateEpoch(data) => {
            let epoch = rotate_epoch(&open(&data)?, now).map_err(failed)?;
            let json = json!({ "epoch": epoch });
            Report::new(format!("a new history begins: {epoch}"), &json)
        }
        Action::Purge { data, config } => {
            let config = super::serve::load_config(config.as_deref())?;
            let purged = purge(&open(&data)?, &config, now).map_err(failed)?;
            let text = format!(
                "forgot {} keys; the horizon of {} scopes moved",
                purged.keys, purged.scopes
            );
            let json = json!({ "keys": purged.keys, "scopes": purged.scopes });
            Report::new(text, &json)
        }
    }
}

/// Never makes a directory: there would be nothing in it to look after.
fn open(data: &Data) -> Result<SqliteStorage, Failure> {
    if !data.data.join("server.db").is_file() {
        let message = format!("{} has no server's data", data.data.display());
        return Err(Failure::new("data-directory", message)
            .hint("--data names the directory that syncline serve was given"));
    }
    SqliteStorage::open(&data.data).map_err(storage_failure)
}

fn failed(error: StorageError) -> Failure {
    Failure::new("storage", error.to_string()).hint("nothing is half done; it can be run again")
}
