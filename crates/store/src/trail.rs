//! What the log says of each mutation at level debug, so that one can be followed by its id:
//! recorded, claimed, resolved, booked, echoed.
//!
//! Reads what a unit of work has written before it is committed, and tells it after: a line is only
//! written when what it says is true for good. Costs nothing unless the level is listened to, never
//! makes a unit of work fail, and never shows a row's value.

use crate::captured;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{Page, PageChange, StoreAnswer, StoreWork, Verdict};
use syncline_protocol::{MutationId, PagePhase};
use tracing::Level;

type Result<T> = rusqlite::Result<T>;

/// Whether anybody listens.
pub(crate) fn is_wanted() -> bool {
    tracing::enabled!(Level::DEBUG)
}

/// Says of mutations that are new in the outbox that they were recorded. `noticed` is the newest
/// entry of which it was said.
pub(crate) fn tell_recorded(conn: &Connection, noticed: &mut i64) {
    if !is_wanted() {
        return;
    }
    match recorded(conn, *noticed) {
        Ok(lines) => {
            *noticed = lines.last().map_or(*noticed, |line| line.seq);
            lines.iter().for_each(Recorded::tell);
        }
        Err(error) => unreadable(&error),
    }
}

struct Recorded {
    seq: i64,
    mutation: String,
    entity: String,
    op: String,
    origin: String,
    at: i64,
}

impl Recorded {
    fn tell(&self) {
        tracing::debug!(
            mutation = self.mutation,
            entity = self.entity,
            op = self.op,
            origin = self.origin,
            at = self.at,
            "recorded"
        );
    }
}

fn recorded(conn: &Connection, after: i64) -> Result<Vec<Recorded>> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, mutation, entity_type, entity_id, op, coalesce(origin, 'captured'), created_at
           FROM syncline_outbox WHERE seq > ?1 ORDER BY seq",
    )?;
    let rows = statement.query_map([after], |row| {
        let (entity_type, id): (String, _) = (row.get(2)?, captured::recorded_id(row, 3)?);
        Ok(Recorded {
            seq: row.get(0)?,
            mutation: row.get(1)?,
            entity: format!("{entity_type}/{id}"),
            op: row.get(4)?,
            origin: row.get(5)?,
            at: row.get(6)?,
        })
    })?;
    rows.collect()
}

/// Where the records of a unit of work begin.
pub(crate) struct Trail {
    log: i64,
    conflicts: i64,
    /// Conflicts that were open before.
    open: BTreeSet<i64>,
}

impl Trail {
    /// At the start of a transaction; `None` when nobody listens.
    pub(crate) fn begin(conn: &Connection) -> Option<Self> {
        if !is_wanted() {
            return None;
        }
        let newest = |table: &str| {
            let sql = format!("SELECT coalesce(max(id), 0) FROM {table}");
            conn.query_row(&sql, [], |row| row.get(0))
        };
        let begin = || -> Result<Self> {
            let mut statement =
                conn.prepare_cached("SELECT id FROM syncline_conflict WHERE resolved_at IS NULL")?;
            let open = statement.query_map([], |row| row.get(0))?;
            Ok(Self {
                log: newest("syncline_log")?,
                conflicts: newest("syncline_conflict")?,
                open: open.collect::<Result<_>>()?,
            })
        };
        begin().map_err(|error| unreadable(&error)).ok()
    }

    /// Before the commit: what there will be to tell after it.
    pub(crate) fn end(
        self,
        conn: &Connection,
        done: Option<(&StoreWork, &StoreAnswer)>,
        noticed: i64,
    ) -> Lines {
        let read = || -> Result<Lines> {
            let mut lines = Lines {
                // What was recorded by this very unit, or since the last look.
                recorded: recorded(conn, noticed)?,
                ..Lines::default()
            };
            match done {
                Some((_, StoreAnswer::Claimed(claimed))) => lines.claimed(conn, claimed)?,
                Some((StoreWork::ApplyPage { page, .. }, StoreAnswer::PageApplied(_))) => {
                    lines.echoed(conn, page)?;
                }
                Some((StoreWork::Book { bookings, .. }, StoreAnswer::Booked(_))) => {
                    lines.put_off(conn, bookings)?;
                }
                _ => {}
            }
            lines.conflicts(conn, &self)?;
            lines.settled(conn, self.log)?;
            Ok(lines)
        };
        read().unwrap_or_else(|error| {
            unreadable(&error);
            Lines::default()
        })
    }
}

/// What is told once it is committed.
#[derive(Default)]
pub(crate) struct Lines {
    recorded: Vec<Recorded>,
    lines: Vec<Line>,
}

enum Line {
    Claimed {
        mutation: MutationId,
        key: String,
        entity: String,
        attempts: u32,
    },
    Merged {
        mutation: String,
        into: MutationId,
    },
    Resolved {
        mutation: String,
        entity: String,
        conflict: i64,
        rule: Option<String>,
    },
    Booked {
        mutation: String,
        key: Option<String>,
        entity: String,
        outcome: String,
    },
    PutOff {
        mutation: String,
        code: String,
        not_before: i64,
    },
    Echoed {
        mutation: String,
        key: String,
        position: i64,
    },
}

impl Lines {
    /// Tells everything; the newest entry that was told of as recorded.
    pub(crate) fn tell(&self) -> Option<i64> {
        self.recorded.iter().for_each(Recorded::tell);
        self.lines.iter().for_each(Line::tell);
        self.recorded.last().map(|line| line.seq)
    }

    fn claimed(&mut self, conn: &Connection, claimed: &syncline_core::Claimed) -> Result<()> {
        let mut covers = conn.prepare_cached(
            "SELECT value FROM syncline_outbox, json_each(covers) WHERE seq = ?1 AND value <> mutation",
        )?;
        for entry in &claimed.batch.entries {
            for covered in covers.query_map([entry.seq], |row| row.get(0))? {
                self.lines.push(Line::Merged {
                    mutation: covered?,
                    into: entry.mutation.clone(),
                });
            }
            self.lines.push(Line::Claimed {
                mutation: entry.mutation.clone(),
                key: entry.key.to_string(),
                entity: entry.entity.to_string(),
                attempts: entry.attempts,
            });
        }
        Ok(())
    }

    /// Conflicts that were opened or decided.
    fn conflicts(&mut self, conn: &Connection, before: &Trail) -> Result<()> {
        let mut statement = conn.prepare_cached(
            "SELECT c.id, c.entity_type || '/' || c.entity_id, c.resolution, named.value
               FROM syncline_conflict AS c, json_each(c.mutations) AS named
              WHERE c.id > ?1 OR (c.id >= ?2 AND c.resolved_at IS NOT NULL)
              ORDER BY c.id",
        )?;
        let first = before.open.first().copied().unwrap_or(i64::MAX);
        let mut rows = statement.query(params![before.conflicts, first])?;
        while let Some(row) = rows.next()? {
            let conflict: i64 = row.get(0)?;
            if conflict > before.conflicts || before.open.contains(&conflict) {
                self.lines.push(Line::Resolved {
                    mutation: row.get(3)?,
                    entity: row.get(1)?,
                    conflict,
                    rule: row.get(2)?,
                });
            }
        }
        Ok(())
    }

    /// What left the outbox, or became a dead letter.
    fn settled(&mut self, conn: &Connection, after: i64) -> Result<()> {
        let mut statement = conn.prepare_cached(
            "SELECT mutation, idempotency_key, entity_type || '/' || entity_id, kind
               FROM syncline_log WHERE id > ?1 AND mutation IS NOT NULL ORDER BY id",
        )?;
        let rows = statement.query_map([after], |row| {
            Ok(Line::Booked {
                mutation: row.get(0)?,
                key: row.get(1)?,
                entity: row.get(2)?,
                outcome: row.get(3)?,
            })
        })?;
        for line in rows {
            self.lines.push(line?);
        }
        Ok(())
    }

    fn put_off(&mut self, conn: &Connection, bookings: &[syncline_core::Booking]) -> Result<()> {
        let mut statement = conn.prepare_cached(
            "SELECT mutation, coalesce(json_extract(last_error, '$.code'), ''), not_before
               FROM syncline_outbox WHERE seq = ?1 AND state = 'pending'",
        )?;
        for booking in bookings {
            let waits = matches!(
                booking.verdict,
                Verdict::Later { .. } | Verdict::Skipped { .. } | Verdict::OtherHistory(_)
            );
            if !waits {
                continue;
            }
            let line = |row: &Row<'_>| {
                Ok(Line::PutOff {
                    mutation: row.get(0)?,
                    code: row.get(1)?,
                    not_before: row.get(2)?,
                })
            };
            self.lines
                .extend(statement.query_row([booking.seq], line).optional()?);
        }
        Ok(())
    }

    /// Own mutations that the feed brings back.
    fn echoed(&mut self, conn: &Connection, page: &Page) -> Result<()> {
        let feed = page.end.phase == PagePhase::Feed;
        let valid = page.changes.iter().filter_map(|change| match change {
            PageChange::Valid(change) => Some((change.key.as_ref()?.as_str(), change.position)),
            PageChange::Invalid { .. } => None,
        });
        let positions: BTreeMap<&str, i64> = valid.filter(|_| feed).collect();
        if positions.is_empty() {
            return Ok(());
        }
        let mut statement = conn.prepare_cached(
            "SELECT idempotency_key, mutation FROM syncline_log WHERE kind = 'applied'
             UNION SELECT idempotency_key, mutation FROM syncline_outbox WHERE frozen IS NOT NULL",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(key) = row.get::<_, Option<String>>(0)? else {
                continue;
            };
            if let Some(position) = positions.get(key.as_str()).copied() {
                let mutation = row.get(1)?;
                self.lines.push(Line::Echoed {
                    mutation,
                    key,
                    position,
                });
            }
        }
        Ok(())
    }
}

impl Line {
    fn tell(&self) {
        match self {
            Line::Claimed {
                mutation,
                key,
                entity,
                attempts,
            } => {
                tracing::debug!(%mutation, key, entity, attempts, "claimed");
            }
            Line::Merged { mutation, into } => tracing::debug!(mutation, %into, "merged"),
            Line::Resolved {
                mutation,
                entity,
                conflict,
                rule: Some(rule),
            } => {
                tracing::debug!(mutation, entity, conflict, rule, "resolved");
            }
            Line::Resolved {
                mutation,
                entity,
                conflict,
                rule: None,
            } => {
                tracing::debug!(mutation, entity, conflict, "in conflict");
            }
            Line::Booked {
                mutation,
                key,
                entity,
                outcome,
            } => {
                tracing::debug!(mutation, key, entity, outcome, "booked");
            }
            Line::PutOff {
                mutation,
                code,
                not_before,
            } => {
                tracing::debug!(mutation, code, not_before, "put off");
            }
            Line::Echoed {
                mutation,
                key,
                position,
            } => {
                tracing::debug!(mutation, key, position, "echoed");
            }
        }
    }
}

fn unreadable(error: &rusqlite::Error) {
    tracing::debug!(%error, "the way of the mutations cannot be told");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_not_utf8_does_not_silence_what_else_was_recorded() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("schema/0001_initial.sql"))
            .unwrap();
        conn.execute_batch(
            "INSERT INTO syncline_outbox (mutation, entity_type, entity_id, op, created_at)
             VALUES ('m1', 'task', CAST(x'61FF' AS TEXT), 'delete', 0), ('m2', 'task', 'b', 'delete', 0)",
        )
        .unwrap();
        let lines = recorded(&conn, 0).unwrap();
        let entities: Vec<&str> = lines.iter().map(|line| line.entity.as_str()).collect();
        assert_eq!(entities, [r#"task/{"$text":"61FF"}"#, "task/b"]);
    }
}
