//! What keeps the engine from sending anything now: nobody is it, it backs off, it lacks credentials,
//! it is not to push at all.

use super::{Obstacle, obstacle};
use crate::error::StoreError;
use crate::rest::{self, Noted};
use crate::settings::Settings;
use crate::{holder, lease};
use rusqlite::Connection;
use syncline_core::{Now, SyncOrder};

const SYNC: Option<&str> = Some("syncline sync DB");
const RUN: Option<&str> = Some("syncline run DB");

pub(super) fn obstacles(conn: &Connection, now: Now) -> Result<Vec<Obstacle>, StoreError> {
    let mut found = Vec::new();
    if Settings::stored(conn)?.config().order == SyncOrder::PullOnly {
        let detail =
            "this database only pulls (order = \"pull-only\"): local writes stay in the outbox";
        let help = Some("syncline attach DB --config syncline.toml");
        found.push(obstacle("pull-only", detail, help));
    }
    found.push(resting(conn, now)?);
    Ok(found)
}

/// Who is the engine and what it does; or that nobody is.
fn resting(conn: &Connection, now: Now) -> Result<Obstacle, StoreError> {
    let noted = rest::noted(conn)?;
    let held = lease::current(conn)?.filter(|lease| lease.until > now.unix_ms);
    let error = noted.error.as_deref().unwrap_or("no reason was recorded");
    match noted.state.as_deref() {
        Some("blocked_auth") => {
            let help = Some("syncline sync DB --token-file FILE");
            let detail = format!("the server wants other credentials: {}", error.trim_end());
            return Ok(obstacle("credentials", detail, help));
        }
        Some("paused") => {
            let detail = "the engine was paused by its app: it sends nothing until it is resumed";
            return Ok(obstacle("paused", detail, SYNC));
        }
        _ => {}
    }
    let Some(lease) = held else {
        let detail = match noted.error {
            Some(error) => {
                format!("no process is syncing this database; the last one stopped with: {error}")
            }
            None => "no process is syncing this database".to_owned(),
        };
        return Ok(obstacle("no-engine", detail, RUN));
    };
    let who = holder::told(&lease.holder);
    if holder::is_gone(&lease.holder) {
        let detail = format!("{who} was the engine of this database and ended without a word");
        return Ok(obstacle("no-engine", detail, RUN));
    }
    if noted.state.as_deref() == Some("backoff") && noted.error.is_some() {
        return Ok(backing_off(&noted, error, &who, now));
    }
    let seconds = lease.until.saturating_sub(now.unix_ms) / 1000;
    let detail = format!("{who} is the engine of this database; its lease lasts for {seconds} s");
    Ok(Obstacle {
        until: Some(lease.until),
        ..obstacle("engine", detail, None)
    })
}

fn backing_off(noted: &Noted, error: &str, who: &str, now: Now) -> Obstacle {
    let code = match noted.kind.as_deref() {
        Some("unreachable") => "offline",
        _ => "backoff",
    };
    let left = noted.until.map(|until| until.saturating_sub(now.unix_ms));
    let when = match left {
        Some(ms) if ms > 0 => format!("tries again in {} s", ms.saturating_add(999) / 1000),
        _ => "is about to try again".to_owned(),
    };
    Obstacle {
        until: noted.until,
        ..obstacle(code, format!("{error}; {who} {when}"), SYNC)
    }
}
