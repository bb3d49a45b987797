//! `syncline outbox`: what waits to be sent, and what to do about what cannot be.

mod discard;

use crate::database::{self, Database};
use crate::{Failure, Global, Report, report, span, text};
use serde_json::json;
use syncline_store::ask;
use syncline_store::outbox_view::{self, EntryDetail, EntryView, SettledView, Which};

/// Settled mutations that `--all` shows at most.
const SETTLED_SHOWN: usize = 50;

/// Look at the outbox, and mend what is in it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List entries, what each waits for, and the last error
    List {
        #[command(flatten)]
        database: Database,
        /// Also list what was settled recently
        #[arg(long)]
        all: bool,
        /// The most entries to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Show one entry in full: what it writes, what it was made on, what the server said
    Show(One),
    /// Send a failed or dead entry again
    Retry(Chosen),
    /// Change what a failed or never-sent entry writes, and its row; it is sent under a new key
    Edit {
        #[command(flatten)]
        one: One,
        /// A field's new value as JSON, such as title='"milk"' or done=1; may be given several times
        #[arg(long = "set", value_name = "FIELD=JSON", required = true, value_parser = assignment)]
        sets: Vec<(String, syncline_protocol::Value)>,
    },
    /// Give an entry up and take its row back, with everything that depends on it; what may have been
    /// sent is cancelled at the server first
    Discard {
        #[command(flatten)]
        chosen: Chosen,
        /// Only say what would be given up
        #[arg(long)]
        dry_run: bool,
    },
    /// Print entries in full, one JSON object a line
    Export {
        #[command(flatten)]
        database: Database,
        /// Only failed and dead ones
        #[arg(long)]
        dead_letters: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Chosen {
    #[command(flatten)]
    database: Database,
    /// The entry's number, as `list` shows it
    #[arg(value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..), required_unless_present = "all_failed")]
    seq: Option<i64>,
    /// Every failed and dead entry
    #[arg(long, conflicts_with = "seq")]
    all_failed: bool,
}

impl Chosen {
    fn seqs(&self) -> Result<Vec<i64>, Failure> {
        match self.seq {
            Some(seq) => Ok(vec![seq]),
            None => {
                let conn = self.database.read()?;
                let letters =
                    outbox_view::list(&conn, Which::DeadLetters, usize::MAX, database::now())?;
                Ok(letters.0.iter().map(|entry| entry.seq).collect())
            }
        }
    }
}

fn assignment(text: &str) -> Result<(String, syncline_protocol::Value), String> {
    let (field, value) = text.split_once('=').ok_or("it has no =")?;
    let value = serde_json::from_str(value).map_err(|error| {
        format!(
            "{value} is no JSON value of a field ({error}); texts need quotes, as in '\"milk\"'"
        )
    })?;
    Ok((field.to_owned(), value))
}

#[derive(Debug, clap::Args)]
struct One {
    #[command(flatten)]
    database: Database,
    /// The entry's number, as `list` shows it
    #[arg(value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    seq: i64,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<Report, Failure> {
    match args.act {
        Act::List {
            database,
            all,
            limit,
        } => list(&database, all, limit),
        Act::Show(one) => show(&one),
        Act::Retry(chosen) => retry(&chosen),
        Act::Edit { one, sets } => edit(&one, sets),
        Act::Discard { chosen, dry_run } => discard::run(&chosen, dry_run),
        Act::Export {
            database,
            dead_letters,
        } => export(&database, dead_letters, global.json),
    }
}

fn list(database: &Database, all: bool, limit: usize) -> Result<Report, Failure> {
    let now = database::now();
    let conn = database.read()?;
    let (entries, total) = outbox_view::list(&conn, Which::All, limit, now)?;
    let settled = match all {
        true => outbox_view::settled(&conn, SETTLED_SHOWN)?,
        false => Vec::new(),
    };
    let mut lines = match entries.is_empty() {
        true => "the outbox is empty: everything is synced\n".to_owned(),
        false => table(&entries, now.unix_ms),
    };
    let more = total.saturating_sub(entries.len() as u64);
    if more > 0 && !entries.is_empty() {
        lines.push_str(&format!("… and {more} more (--limit)\n"));
    }
    if all {
        lines.push_str(&settled_table(&settled, now.unix_ms));
    }
    let mut json = json!({ "entries": entries, "total": total });
    if all {
        json["settled"] = json!(settled);
    }
    Report::new(lines, &json)
}

fn table(entries: &[EntryView], now: i64) -> String {
    let head = [
        "SEQ",
        "STATE",
        "OP",
        "ENTITY",
        "ATTEMPTS",
        "AGE",
        "WAITS FOR",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        vec![
            entry.seq.to_string(),
            entry.state.as_str().to_owned(),
            entry.op.clone(),
            text::entity(&entry.entity_type, &entry.entity_id),
            entry.attempts.to_string(),
            span::human(now - entry.created_at),
            text::waits_for(entry, now),
        ]
    }));
    text::columns(&rows)
}

fn settled_table(settled: &[SettledView], now: i64) -> String {
    if settled.is_empty() {
        return "nothing was settled recently\n".to_owned();
    }
    let head = ["SETTLED", "OUTCOME", "OP", "ENTITY", "DETAIL"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(settled.iter().map(|one| {
        vec![
            span::ago(Some(one.at), now),
            one.outcome.clone(),
            one.op.clone(),
            text::entity(&one.entity_type, &one.entity_id),
            one.detail.to_string(),
        ]
    }));
    format!("\n{}", text::columns(&rows))
}

fn show(one: &One) -> Result<Report, Failure> {
    let now = database::now();
    let detail = outbox_view::show(&one.database.read()?, one.seq, now)?;
    Report::new(describe(&detail, now.unix_ms), &detail)
}

fn describe(detail: &EntryDetail, now: i64) -> String {
    let entry = &detail.entry;
    let recorded = format!(
        "{} ({} ago)",
        span::utc(entry.created_at),
        span::human(now - entry.created_at)
    );
    let sent = match entry.may_have_been_sent {
        true => "may have been sent, no final answer yet",
        false => "not sent as it is now",
    };
    let pairs = [
        ("entry", entry.seq.to_string()),
        ("state", entry.state.as_str().to_owned()),
        ("op", entry.op.clone()),
        ("entity", text::entity(&entry.entity_type, &entry.entity_id)),
        ("mutation", entry.mutation.clone()),
        ("recorded", recorded),
        ("sent", sent.to_owned()),
        ("attempts", entry.attempts.to_string()),
    ];
    let row = |(name, told): (&str, String)| vec![name.to_owned(), told];
    let mut rows: Vec<Vec<String>> = pairs.into_iter().map(row).collect();
    let mut bare = entry.clone();
    bare.last_error = None;
    rows.push(row(("waits for", text::waits_for(&bare, now))));
    if let Some(key) = &detail.idempotency_key {
        rows.push(row(("key", key.clone())));
    }
    if let Some(error) = &entry.last_error {
        rows.push(row(("error", format!("{}: {}", error.code, error.detail))));
        let fields = error.errors.iter().map(text::field_error);
        rows.extend(fields.map(|told| row(("", told))));
    }
    let mut lines = text::columns(&rows);
    lines.push_str(&section("payload", &payload(detail)));
    lines.push_str(&section(
        "base",
        &fields(detail.base.as_ref(), "the row did not exist"),
    ));
    lines
}

fn payload(detail: &EntryDetail) -> String {
    match &detail.unsyncable {
        Some(why) => format!("cannot be synced: {why}"),
        None => fields(detail.payload.as_ref(), "nothing: the row is deleted"),
    }
}

fn fields(fields: Option<&syncline_protocol::Fields>, without: &str) -> String {
    match fields {
        None => without.to_owned(),
        Some(fields) => serde_json::to_string_pretty(fields).unwrap_or_default(),
    }
}

fn section(name: &str, told: &str) -> String {
    format!("\n{name}\n  {}\n", told.replace('\n', "\n  "))
}

fn retry(chosen: &Chosen) -> Result<Report, Failure> {
    let (seqs, mut store) = (chosen.seqs()?, chosen.database.store()?);
    for seq in &seqs {
        store.retry(*seq, database::now())?;
    }
    nudge(&chosen.database)?;
    let lines = seqs
        .iter()
        .map(|seq| format!("entry {seq} is sent again with the next sync"));
    Report::new(
        lines.collect::<Vec<_>>().join("\n"),
        &json!({ "retried": seqs }),
    )
}

fn edit(one: &One, sets: Vec<(String, syncline_protocol::Value)>) -> Result<Report, Failure> {
    let mut changes = syncline_protocol::Fields::new();
    for (field, value) in sets {
        changes.insert(field, value);
    }
    let mut store = one.database.store()?;
    store.edit(one.seq, &changes, database::now())?;
    nudge(&one.database)?;
    let told = format!("entry {} is changed, and sent with the next sync", one.seq);
    Report::new(told, &json!({ "edited": one.seq, "set": changes }))
}

fn export(database: &Database, dead_letters: bool, as_json: bool) -> Result<Report, Failure> {
    let which = match dead_letters {
        true => Which::DeadLetters,
        false => Which::All,
    };
    let mut entries = Vec::new();
    outbox_view::export(&database.read()?, which, database::now(), |entry| {
        match as_json {
            true => entries.push(json!(entry)),
            false => report::line(&json!(entry).to_string()),
        }
        Ok::<_, Failure>(())
    })?;
    match as_json {
        true => Report::new("", &json!({ "entries": entries })),
        false => Ok(Report::silent()),
    }
}

/// A process that syncs this database is told that there is something to do.
/// Has the process that is the engine, if there is one, look at what changed.
pub(super) fn nudge(database: &Database) -> Result<(), Failure> {
    let mut conn = database.write()?;
    let status = syncline_store::status::read(&conn, database::now())?;
    if status.engine != "stopped" {
        ask::ask(&mut conn, None, database::now())?;
    }
    Ok(())
}
