//! What Syncline keeps in the file: metadata, capture, the queues, who is the engine.

use super::{Checked, Finding, Severity};
use crate::capture::{self, CaptureState};
use crate::follow;
use crate::holder;
use crate::lease;
use crate::meta;
use crate::recover;
use crate::status;
use crate::store::EntityTypes;
use rusqlite::Connection;
use syncline_core::Now;

/// A mutation that was not synced for so long is worth a look.
const OLD_MS: i64 = 24 * 3_600_000;

/// A clock that differs by more is worth a look: tokens are refused from a minute on.
const SKEW_MS: i64 = 60_000;

pub(super) fn metadata(conn: &Connection) -> Checked {
    meta::require_readable(conn)?;
    let version = meta::schema_version(conn)?.unwrap_or_default();
    let mut findings = vec![Finding::ok(
        "metadata",
        format!("the metadata tables have version {version}"),
    )];
    let ahead: Option<i64> = meta::get(conn, meta::key::SERVER_CLOCK)?;
    findings.extend(ahead.map(|ahead| clock(ahead, 0)));
    Ok(findings)
}

/// What there is to say of a clock that is so far from the server's.
pub fn clock(ahead_ms: i64, exactly_ms: i64) -> Finding {
    let seconds = ahead_ms.saturating_abs() / 1000;
    let than = if ahead_ms < 0 { "ahead of" } else { "behind" };
    match ahead_ms.saturating_abs() > SKEW_MS.saturating_add(exactly_ms) {
        false => Finding::ok("clock", "this clock and the server's agree within a minute"),
        true => Finding::new(
            "clock",
            Severity::Warning,
            format!("this clock is {seconds} s {than} the server's: tokens may be refused, and merges by timestamp favour one side"),
        )
        .mend("set the clock of this machine, or of the server"),
    }
}

pub(super) fn capture(conn: &Connection) -> Checked {
    let types = EntityTypes::load(conn)?;
    let mut findings = Vec::new();
    let sync = "syncline doctor DB --repair (or any sync): capture is renewed, and rows are compared with the server";
    for known in follow::known(conn)? {
        let Some(own) = types.get(&known.name) else {
            let detail = format!(
                "the table {} is gone, or cannot be synced any more",
                known.table
            );
            let mend = "bring the table back, or syncline detach DB and attach what is there";
            findings.push(Finding::new("capture", Severity::Failed, detail).mend(mend));
            continue;
        };
        let what = match capture::verify(conn, own)? {
            CaptureState::Current => continue,
            CaptureState::Missing => "has no capture triggers: nothing that is written is recorded",
            CaptureState::Stale => {
                "has capture triggers that do not fit it: writes may not be recorded"
            }
            CaptureState::Outrun => {
                "has newer triggers of the app's than the capture triggers, which then see their changes first"
            }
        };
        let detail = format!("the table {} {what}", own.table.name);
        findings.push(Finding::new("capture", Severity::Failed, detail).mend(sync));
    }
    if findings.is_empty() {
        let count = types.iter().count();
        let detail = format!("the capture triggers of {count} tables are in place");
        findings.push(Finding::ok("capture", detail));
    }
    Ok(findings)
}

/// Rows that hold what no mutation says, as far as that can be told from here.
pub(super) fn escaped(conn: &Connection) -> Checked {
    let mut findings = Vec::new();
    if meta::get::<i64>(conn, meta::key::RECOVER)?.is_some() {
        let detail =
            "writes may have escaped capture; comparing all rows with the server is under way";
        findings.push(Finding::new("escaped", Severity::Warning, detail).mend("syncline sync DB"));
    }
    for own in EntityTypes::load(conn)?.iter() {
        let ids = recover::escaped_ids(conn, own)?;
        let Some(first) = ids.first() else { continue };
        let detail = format!(
            "{} rows of {} hold more than their mutations say, {first} for one: that was written without being recorded",
            ids.len(),
            own.name
        );
        let mend = "syncline doctor DB --repair records it";
        findings.push(Finding::new("escaped", Severity::Failed, detail).mend(mend));
    }
    if findings.is_empty() {
        let detail = "rows with mutations hold what these say";
        findings.push(Finding::ok("escaped", detail));
    }
    Ok(findings)
}

pub(super) fn lease(conn: &Connection, now: Now) -> Checked {
    let held = lease::current(conn)?.filter(|lease| lease.until > now.unix_ms);
    Ok(vec![match held {
        None => Finding::new(
            "lease",
            Severity::Note,
            "no process is syncing this database",
        )
        .mend("syncline run DB"),
        Some(lease) => {
            let who = holder::told(&lease.holder);
            let seconds = lease.until.saturating_sub(now.unix_ms) / 1000;
            match holder::is_gone(&lease.holder) {
                true => Finding::new(
                    "lease",
                    Severity::Note,
                    format!("{who} was the engine and ended without a word; anybody may take over"),
                )
                .mend("syncline run DB"),
                false => Finding::ok(
                    "lease",
                    format!("{who} is the engine; its lease lasts for {seconds} s"),
                ),
            }
        }
    }])
}

pub(super) fn outbox(conn: &Connection, now: Now) -> Checked {
    let status = status::read(conn, now)?;
    let mut findings = Vec::new();
    let count = |state: &str| status.outbox.get(state).copied().unwrap_or_default();
    let letters = count("failed") + count("dead");
    let waiting = count("pending") + count("in_flight");
    if letters > 0 {
        findings.push(
            Finding::new(
                "dead-letters",
                Severity::Person,
                format!("mutations that were refused or given up: {letters}"),
            )
            .mend("syncline outbox list DB, then edit, retry or discard"),
        );
    }
    if status.open_conflicts > 0 {
        findings.push(
            Finding::new(
                "conflicts",
                Severity::Person,
                format!(
                    "conflicts that wait for a person: {}",
                    status.open_conflicts
                ),
            )
            .mend("syncline conflicts list DB"),
        );
    }
    for (name, rows) in &status.held_removals {
        findings.push(
            Finding::new(
                "held",
                Severity::Person,
                format!("rows of {name} that the server does not have and whose removal waits for a person: {rows}"),
            )
            .mend(format!("syncline sweep confirm DB {name}, or syncline sweep restore DB {name}")),
        );
    }
    let age = status.oldest_pending_age_ms.unwrap_or_default();
    findings.push(match age > OLD_MS {
        true => Finding::new(
            "outbox",
            Severity::Warning,
            format!(
                "{waiting} mutations wait, the oldest for {} h",
                age / 3_600_000
            ),
        )
        .mend("syncline sync DB; syncline outbox list DB says what each waits for"),
        false => Finding::ok("outbox", format!("{waiting} mutations wait to be synced")),
    });
    Ok(findings)
}

pub(super) fn inbox(conn: &Connection, now: Now) -> Checked {
    let status = status::read(conn, now)?;
    let mut findings = Vec::new();
    let quarantined: u64 = conn.query_row(
        "SELECT count(*) FROM syncline_inbox WHERE waits_for IN ('constraint', 'type', 'valid')",
        [],
        |row| row.get(0),
    )?;
    if quarantined > 0 {
        let detail = format!(
            "received changes that find no place here or are not understood: {quarantined}"
        );
        let mend =
            "SELECT * FROM syncline_inbox names them and why; mend the schema, or use a newer app";
        findings.push(Finding::new("quarantined", Severity::Warning, detail).mend(mend));
    }
    findings.push(
        match status.last_pull_at.map(|at| now.unix_ms.saturating_sub(at)) {
            None => Finding::new("pull", Severity::Note, "everything was never pulled")
                .mend("syncline sync DB"),
            Some(age) if age > OLD_MS => Finding::new(
                "pull",
                Severity::Note,
                format!("the last pull was {} h ago", age / 3_600_000),
            )
            .mend("syncline sync DB"),
            Some(_) => Finding::ok("pull", "the feed was read to its head within a day"),
        },
    );
    Ok(findings)
}
