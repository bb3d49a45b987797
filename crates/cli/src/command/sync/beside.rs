//! Syncing beside a process that is the engine of the file: it is asked, and waited for.

use crate::Failure;
use crate::cycle::{End, Ended};
use crate::database::{self, Database};
use rusqlite::Connection;
use syncline_store::ask::{self, Within};
use syncline_store::status;

/// An ask under way.
pub(super) struct Beside {
    conn: Connection,
    number: i64,
    asked_at: i64,
}

impl Beside {
    /// Asks the engine's process to sync, within bounds if there are any.
    pub(super) fn ask(database: &Database, within: Option<Within>) -> Result<Self, Failure> {
        let mut conn = database.write()?;
        let now = database::now();
        let number = ask::ask(&mut conn, within, now)?;
        Ok(Self {
            conn,
            number,
            asked_at: now.unix_ms,
        })
    }

    /// How its sync ended, once it did. `run` answers in so many words; an app that embeds the
    /// engine does not, but the file shows when all is pushed and pulled.
    pub(super) fn look(&self) -> Result<Option<Ended>, Failure> {
        if let Some(answer) = ask::answer_to(&self.conn, self.number)? {
            let unreadable = |_| {
                Ended::new(
                    End::Standby,
                    "the other process answered in a way that is not understood",
                )
            };
            return Ok(Some(
                serde_json::from_str(&answer).unwrap_or_else(unreadable),
            ));
        }
        let status = status::read(&self.conn, database::now())?;
        let pulled = status.last_pull_at.is_some_and(|at| at > self.asked_at);
        let unsettled = status.outbox.get("pending").copied().unwrap_or(0)
            + status.outbox.get("in_flight").copied().unwrap_or(0);
        Ok((pulled && unsettled == 0).then(|| Ended::new(End::Complete, "")))
    }

    /// What is known of the other process when the budget has ended.
    pub(super) fn given_up(&self) -> Result<Ended, Failure> {
        let status = status::read(&self.conn, database::now())?;
        let error = status.last_error.map(|error| error.detail);
        let detail = error.unwrap_or_else(|| {
            "another process is syncing this database and has not come to an end in time".to_owned()
        });
        let end = match status.engine.as_str() {
            "blocked_auth" => End::CredentialsNeeded,
            "backoff" => End::Unreachable,
            _ => End::Standby,
        };
        Ok(Ended::new(end, detail))
    }
}
