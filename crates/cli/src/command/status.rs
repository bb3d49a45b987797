//! `syncline status`: where everything stands, read from the file alone.

use crate::database::{self, Database};
use crate::{Failure, Global, Report, span, text};
use serde::Serialize;
use syncline::Status;
use syncline_store::status;

/// Show where everything stands; needs neither token nor network
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Shown<'a> {
    database: String,
    #[serde(flatten)]
    status: &'a Status,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
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
        row("outbox", outbox(status)),
    ];
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

fn outbox(status: &Status) -> String {
    let counts: Vec<String> = ["pending", "in_flight", "failed", "dead"]
        .iter()
        .map(|state| {
            let n = status.outbox.get(*state).copied().unwrap_or(0);
            format!("{n} {}", state.replace('_', " "))
        })
        .collect();
    counts.join(", ")
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
