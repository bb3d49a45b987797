//! The summary of a sync: numbers from its notices, what is left from the file.

use super::super::engine::credentials_needed;
use crate::cycle::{End, Ended, Tally, UNSYNCABLE};
use crate::database::{self, Database};
use crate::exit::{Finding, of_sync};
use crate::{Exit, Failure, Report, size, text};
use serde::Serialize;
use syncline::Status;
use syncline_store::outbox_view::{self, EntryView, Which};
use syncline_store::status;

/// Dead letters that are shown; all are counted.
const SHOWN: usize = 20;

/// Who did the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    /// This process.
    #[serde(rename = "this_process")]
    Us,
    /// The process that is the engine of the file.
    #[serde(rename = "another_process")]
    Another,
}

#[derive(Serialize)]
struct Summary<'a> {
    end: End,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    by: By,
    exit: u8,
    #[serde(flatten)]
    tally: &'a Tally,
    /// About how many bytes are still to be sent.
    bytes_left: u64,
    pending: u64,
    in_flight: u64,
    failed: u64,
    dead: u64,
    open_conflicts: u64,
    inbox: u64,
    held_removals: u64,
    waiting_for_person: Vec<EntryView>,
}

pub(super) fn report(
    database: &Database,
    ended: &Ended,
    by: By,
    tally: &Tally,
) -> Result<Report, Failure> {
    let now = database::now();
    let conn = database.read()?;
    let status = status::read(&conn, now)?;
    let (letters, _) = outbox_view::list(&conn, Which::DeadLetters, SHOWN, now)?;
    let of = |state: &str| status.outbox.get(state).copied().unwrap_or(0);
    let mut summary = Summary {
        end: ended.end,
        detail: &ended.detail,
        by,
        exit: 0,
        tally,
        bytes_left: outbox_view::left(&conn)?.bytes,
        pending: of("pending"),
        in_flight: of("in_flight"),
        failed: of("failed"),
        dead: of("dead"),
        open_conflicts: status.open_conflicts,
        inbox: status.inbox,
        held_removals: status.held_removals.values().sum(),
        waiting_for_person: letters,
    };
    let exit = of_sync(&Finding {
        end: ended.end,
        for_person: summary.failed + summary.dead + summary.open_conflicts + summary.held_removals,
        unsettled: summary.pending + summary.in_flight,
    });
    summary.exit = exit.code();
    let text = describe(database, &summary, &status);
    let trouble = trouble(ended, exit, &status);
    Ok(Report::new(text, &summary)?.exit(exit).trouble(trouble))
}

fn trouble(ended: &Ended, exit: Exit, status: &Status) -> Option<Failure> {
    let remote = status.remote.as_deref().unwrap_or_default();
    match exit {
        Exit::CredentialsNeeded => Some(credentials_needed(&ended.detail)),
        Exit::Unreachable => Some(
            Failure::new("unreachable", ended.detail.clone()).hint(format!(
                "is a server running at {remote}? local work is kept; sync again later"
            )),
        ),
        Exit::Failed if ended.end == End::Refused => Some(
            Failure::new("remote-refuses", ended.detail.clone()).hint(format!(
                "check the address {remote} and the rights of the token; local work is kept"
            )),
        ),
        Exit::Failed => Some(
            Failure::new("store-failed", ended.detail.clone())
                .hint("the database could not be read or written; what was recorded is kept"),
        ),
        _ => None,
    }
}

fn describe(database: &Database, summary: &Summary<'_>, status: &Status) -> String {
    let tally = summary.tally;
    let mut lines = Vec::new();
    if summary.by == By::Another {
        lines.push(match summary.end {
            End::Standby => "another process is syncing this database".to_owned(),
            _ => "another process is syncing this database; it was asked to sync now".to_owned(),
        });
    } else {
        lines.push(format!(
            "pushed {}, pulled {}, removed {}, merged {}",
            tally.pushed, tally.pulled, tally.deleted, tally.merged
        ));
    }
    if tally.epoch_changed {
        lines.push("the server's history is another one: everything was compared anew".to_owned());
    }
    for one in &tally.unsyncable {
        let (entity_type, reason) = (&one.entity_type, &one.reason);
        lines.push(format!(
            "{entity_type} cannot be synced: {reason}; {UNSYNCABLE}"
        ));
    }
    let unsettled = summary.pending + summary.in_flight;
    lines.push(match (summary.end, unsettled) {
        (End::Complete, 0) => "nothing is left to send".to_owned(),
        (_, n) => format!(
            "{} still to be sent (about {})",
            text::count(n, "mutation"),
            size::human(summary.bytes_left)
        ),
    });
    if summary.inbox > 0 {
        let n = text::count(summary.inbox, "change");
        lines.push(format!("{n} received that cannot be applied yet"));
    }
    for_person(database, summary, status, &mut lines);
    if matches!(
        summary.end,
        End::Unfinished | End::Interrupted | End::Standby
    ) {
        lines.push(format!("not finished: {}", summary.detail));
    }
    lines.join("\n")
}

fn for_person(
    database: &Database,
    summary: &Summary<'_>,
    status: &Status,
    lines: &mut Vec<String>,
) {
    let letters = summary.failed + summary.dead;
    if letters > 0 {
        lines.push(format!(
            "{} waiting for you:",
            text::count(letters, "mutation")
        ));
        for entry in &summary.waiting_for_person {
            let entity = text::entity(&entry.entity_type, &entry.entity_id);
            let why = entry
                .last_error
                .as_ref()
                .map(text::error)
                .unwrap_or_default();
            lines.push(format!(
                "  entry {}: {} {entity}: {why}",
                entry.seq, entry.op
            ));
        }
        if letters > summary.waiting_for_person.len() as u64 {
            lines.push("  …".to_owned());
        }
        lines.push(format!(
            "  syncline outbox show|retry|discard {} SEQ",
            database.shown()
        ));
    }
    if summary.open_conflicts > 0 {
        lines.push(format!(
            "{} waiting for you\n  syncline conflicts list|show|resolve {}",
            text::count(summary.open_conflicts, "conflict"),
            database.shown()
        ));
    }
    for (entity_type, rows) in &status.held_removals {
        lines.push(format!(
            "{} of {entity_type} gone on the server, kept here until you confirm",
            text::count(*rows, "row")
        ));
    }
}
