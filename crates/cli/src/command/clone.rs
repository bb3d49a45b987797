//! `syncline clone`: the same tables and rows on another device.

use super::engine::{Connection, Record};
use super::sync;
use crate::database::Database;
use crate::{Failure, Global, Report, span};
use std::path::PathBuf;
use std::time::Duration;

/// Make a new database with the tables and rows that the server knows
///
/// The tables are made from what the first device told the server. The file appears when they are
/// made and attached; a failure before that leaves nothing behind. If the rows do not come through
/// in time, the file stays, and `syncline sync` goes on. Ends with the exit codes of `sync`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's address
    #[arg(value_name = "URL")]
    url: String,
    /// The file to make; it must not exist
    #[arg(value_name = "NEW_DB")]
    path: PathBuf,
    #[command(flatten)]
    connection: Connection,
    /// The longest to wait for the rows, such as 25s or 5m
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = span::parse)]
    budget: Duration,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<Report, Failure> {
    let url = args.url.trim().trim_end_matches('/');
    let builder = args.connection.builder_with_types(&args.path)?;
    let made = builder.remote(url).clone_database()?;
    for reference in &made.references_left_out {
        tracing::warn!(
            reference,
            "a reference to a table that is not synced was left out"
        );
    }
    let sync = sync::Args {
        max_bytes: None,
        max_requests: None,
        order: Default::default(),
        database: Database { path: args.path },
        connection: args.connection,
        record: Record::default(),
        budget: args.budget,
        dry_run: false,
    };
    sync::run(sync, global)
}
