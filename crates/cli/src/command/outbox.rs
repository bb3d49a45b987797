//! `syncline outbox`: what waits to be sent, and what to do about what cannot be.

use crate::database::{self, Database};
use crate::{Failure, Global, Report, span, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
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
    Retry(One),
    /// Give an entry up and take its row back, with everything that depends on it
    Discard(One),
}

#[derive(Debug, clap::Args)]
struct One {
    #[command(flatten)]
    database: Database,
    /// The entry's number, as `list` shows it
    #[arg(value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    seq: i64,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    match args.act {
        Act::List {
            database,
            all,
            limit,
        } => list(&database, all, limit),
        Act::Show(one) => show(&one),
        Act::Retry(one) => retry(&one),
        Act::Discard(one) => discard(&one),
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

fn retry(one: &One) -> Result<Report, Failure> {
    one.database.store()?.retry(one.seq, database::now())?;
    nudge(&one.database)?;
    let told = format!("entry {} is sent again with the next sync", one.seq);
    Report::new(told, &json!({ "retried": one.seq }))
}

fn discard(one: &One) -> Result<Report, Failure> {
    let now = database::now();
    let mut store = one.database.store()?;
    // What is discarded is gone from the outbox, so it is looked at before.
    let conn = one.database.read()?;
    let (entries, _) = outbox_view::list(&conn, Which::All, usize::MAX, now)?;
    let known: BTreeMap<i64, &EntryView> = entries.iter().map(|entry| (entry.seq, entry)).collect();
    let before: BTreeMap<i64, Value> = match known.get(&one.seq).map(|entry| entry.op.as_str()) {
        Some("create") => payloads(
            &conn,
            known.keys().copied().filter(|seq| *seq >= one.seq),
            now,
        ),
        _ => payloads(&conn, [one.seq].into_iter(), now),
    };
    let gone = store.discard(one.seq, now)?;
    nudge(&one.database)?;
    let line = |seq: &i64| match known.get(seq) {
        Some(entry) => {
            let entity = text::entity(&entry.entity_type, &entry.entity_id);
            let payload = before.get(seq).map(Value::to_string).unwrap_or_default();
            format!("discarded entry {seq}: {} {entity} {payload}", entry.op)
        }
        None => format!("discarded entry {seq}"),
    };
    let lines: Vec<String> = gone.iter().map(line).collect();
    let object =
        |seq: &i64| json!({ "seq": seq, "entry": known.get(seq), "payload": before.get(seq) });
    let discarded: Vec<Value> = gone.iter().map(object).collect();
    Report::new(lines.join("\n"), &json!({ "discarded": discarded }))
}

/// What entries write, as far as it can be read.
fn payloads(
    conn: &rusqlite::Connection,
    seqs: impl Iterator<Item = i64>,
    now: syncline::Now,
) -> BTreeMap<i64, Value> {
    seqs.filter_map(|seq| {
        let detail = outbox_view::show(conn, seq, now).ok()?;
        Some((seq, json!(detail.payload)))
    })
    .collect()
}

/// A process that syncs this database is told that there is something to do.
fn nudge(database: &Database) -> Result<(), Failure> {
    let mut conn = database.write()?;
    let status = syncline_store::status::read(&conn, database::now())?;
    if status.engine != "stopped" {
        ask::ask(&mut conn, database::now())?;
    }
    Ok(())
}
