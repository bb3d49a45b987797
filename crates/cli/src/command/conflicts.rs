//! `syncline conflicts`: what two sides wrote differently, and a person's decision about it.

mod choose;
mod describe;

use crate::database::{self, Database};
use crate::{Failure, Global, Report};
use serde_json::json;
use syncline_store::conflict::{self, ConflictFilter, ConflictState};

/// Look at conflicts, and decide those that wait for you
///
/// A conflict pauses its own row and what depends on it; everything else goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List conflicts that wait for you, newest first
    List {
        #[command(flatten)]
        database: Database,
        /// Also list those that are decided, by rule or by you
        #[arg(long)]
        all: bool,
        /// Only those of this type
        #[arg(long = "type", value_name = "TYPE")]
        entity_type: Option<String>,
        /// The most conflicts to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// Show one field by field: base, mine, theirs, and what each policy would do
    Show(One),
    /// Decide one; what is to be pushed of it goes with the next sync
    Resolve(choose::Args),
    /// Take your decision back, as long as nothing of it was sent
    Undo(One),
}

#[derive(Debug, clap::Args)]
struct One {
    #[command(flatten)]
    database: Database,
    /// The conflict's number, as `list` shows it
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    match args.act {
        Act::List {
            database,
            all,
            entity_type,
            limit,
        } => {
            let filter = ConflictFilter {
                state: (!all).then_some(ConflictState::Open),
                entity_type,
                limit: Some(limit),
                ..ConflictFilter::default()
            };
            list(&database, &filter)
        }
        Act::Show(one) => {
            let detail = conflict::read(&one.database.read()?, one.id)?;
            let text = describe::detail(&detail, database::now().unix_ms);
            Report::new(text, &detail)
        }
        Act::Resolve(args) => choose::resolve(&args),
        Act::Undo(one) => choose::undo(&one),
    }
}

fn list(database: &Database, filter: &ConflictFilter) -> Result<Report, Failure> {
    let conn = database.read()?;
    let conflicts = conflict::list(&conn, filter)?;
    let now = database::now();
    let open = syncline_store::status::read(&conn, now)?.open_conflicts;
    let text = match (conflicts.is_empty(), filter.state) {
        (true, Some(_)) => "no conflict waits for you\n".to_owned(),
        (true, None) => "no conflict is remembered\n".to_owned(),
        (false, _) => describe::table(&conflicts, now.unix_ms),
    };
    Report::new(text, &json!({ "conflicts": conflicts, "open": open }))
}
