//! `syncline status`: where everything stands, read from the file alone.

mod watch;

use crate::database::{self, Database};
use crate::{Failure, Global, Report, span, text};
use serde::Serialize;
use std::collections::BTreeMap;
use syncline::{Progress, Status};
use syncline_store::status;

/// Show where everything stands; needs neither token nor network
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: Database,
    /// Show it again whenever it changes, until SIGTERM or SIGINT; with --json one object a line
    #[arg(long)]
    watch: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    database: String,
    #[serde(flatten)]
    status: &'a Status,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<Report, Failure> {
    if args.watch {
        return watch::run(&args.database, global.json);
    }
    let now = database::now();
    let status = status::read(&args.database.read()?, now)?;
    let text = describe(&args.database.shown(), &status, now.unix_ms);
    Report::new(
        text,
        &Shown {
            database: args.database.shown(),
            status: &status,
        },
    )
}

fn describe(database: &str, status: &Status, now: i64) -> String {
    let mut rows = vec![
        row("database", database),
        row("remote", status.remote.as_deref().unwrap_or("none")),
        row("account", account(status)),
        row("engine", engine(&status.engine)),
    ];
    if let Some(blocked) = &status.blocked {
        let until = blocked.until.filter(|until| *until > now);
        let until = until.map(|until| format!(" (for {})", span::human(until - now)));
        let (because, detail) = (&blocked.because, &blocked.detail);
        let told = format!("{because}: {detail}{}", until.unwrap_or_default());
        rows.push(row("blocked", told));
    }
    if let Some(wakeup) = &status.next_wakeup {
        let (span, reason) = (span::human(wakeup.at - now), words(&wakeup.reason));
        rows.push(row("next", format!("in {span}: {reason}")));
    }
    rows.push(row("outbox", outbox(&status.outbox)));
    for (entity_type, states) in &status.outbox_by_type {
        rows.push(row("", format!("{entity_type}: {}", outbox(states))));
    }
    rows.extend(progress(&status.progress));
    if let Some(age) = status.oldest_pending_age_ms {
        rows.push(row("oldest", format!("recorded {} ago", span::human(age))));
    }
    rows.push(row("conflicts", format!("{} open", status.open_conflicts)));
    if status.inbox > 0 {
        let waiting = text::count(status.inbox, "change");
        rows.push(row(
            "inbox",
            format!("{waiting} received that cannot be applied yet"),
        ));
    }
    if status.staged > 0 {
        let staged = text::count(status.staged, "change");
        rows.push(row("staged", format!("{staged} to be applied together")));
    }
    rows.push(row("last push", span::ago(status.last_push_at, now)));
    rows.push(row("last pull", span::ago(status.last_pull_at, now)));
    for scope in &status.scopes {
        let (position, phase) = (scope.position, &scope.phase);
        let told = format!("{}: position {position}, {phase}", scope.scope);
        rows.push(row("scope", told));
    }
    for (entity_type, held) in &status.held_removals {
        let n = text::count(*held, "row");
        let told = format!(
            "{entity_type}: {n} gone on the server, kept here until you say (`syncline sweep`)"
        );
        rows.push(row("held", told));
    }
    if let Some(error) = &status.last_error {
        rows.push(row("last error", last_error(error)));
    }
    text::columns(&rows)
}

fn row(name: &str, told: impl Into<String>) -> Vec<String> {
    vec![name.to_owned(), told.into()]
}

fn account(status: &Status) -> String {
    match &status.account {
        Some((tenant, subject)) => format!("{subject} of tenant {tenant}"),
        None => "not known before the first sync".to_owned(),
    }
}

fn engine(state: &str) -> String {
    match state {
        "stopped" => "stopped: no process is syncing this database".to_owned(),
        state => state.to_owned(),
    }
}

/// What the next wake-up is for.
fn words(reason: &str) -> &str {
    match reason {
        "debounce" => "what was written is sent",
        "poll" => "the server is asked for news",
        "entry_due" => "a mutation that was put off is due",
        "back_off" => "what failed is tried again",
        other => other,
    }
}

fn progress(progress: &Progress) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(push) = &progress.push {
        let (done, all) = (push.mutations, push.mutations + push.mutations_to_go);
        rows.push(row("pushing", format!("{done} of {all} mutations")));
    }
    if let Some(pull) = &progress.pull {
        let rows_of = match pull.rows_to_come {
            Some(to_come) => format!("{} of about {} rows", pull.rows, pull.rows + to_come),
            None => text::count(pull.rows, "row"),
        };
        rows.push(row(
            "pulling",
            format!("{rows_of}, {} KiB", pull.bytes / 1024),
        ));
    }
    rows
}

fn outbox(counts: &BTreeMap<String, u64>) -> String {
    let counts = ["pending", "in_flight", "failed", "dead"]
        .iter()
        .filter_map(|state| {
            let n = counts.get(*state)?;
            Some(format!("{n} {}", state.replace('_', " ")))
        });
    counts.collect::<Vec<_>>().join(", ")
}

fn last_error(error: &syncline::LastError) -> String {
    match (&error.seq, &error.entity_type, &error.entity_id) {
        (Some(seq), Some(entity_type), Some(entity_id)) => {
            let entity = text::entity(entity_type, entity_id);
            format!("{} (entry {seq}, {entity})", error.detail)
        }
        _ => error.detail.clone(),
    }
}
