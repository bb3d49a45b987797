//! What is remembered for so many rows and so long. Rows stand in the order in which they were written, or nearly,
//! so a search for old ones ends at the first that is young enough.
//!
//! Times are those of the device's clock. What was written while that was not believed is as old as the time since
//! when it is believed again.

use crate::error::{StoreError, json, to_json};
use crate::meta;
use crate::settings::Retention;
use rusqlite::Connection;

/// A table that is kept within bounds.
#[derive(Debug)]
pub(crate) struct Aged {
    table: &'static str,
    /// When a row was written.
    written: &'static str,
    /// Since when it may be forgotten; NULL: not yet.
    ended: &'static str,
    /// Where it is noted which rows bear a time that says nothing; `None`: times are the server's.
    undated: Option<&'static str>,
}

/// Outcomes.
pub(crate) const LOG: Aged = Aged {
    table: "syncline_log",
    written: "at",
    ended: "at",
    undated: Some(meta::key::LOG_UNDATED),
};

/// Confirmed mutations.
pub(crate) const JOURNAL: Aged = Aged {
    table: "syncline_journal",
    written: "applied_at",
    ended: "applied_at",
    undated: None,
};

/// Conflicts; open ones stay.
pub(crate) const CONFLICTS: Aged = Aged {
    table: "syncline_conflict",
    written: "opened_at",
    ended: "resolved_at",
    undated: Some(meta::key::CONFLICTS_UNDATED),
};

impl Aged {
    /// Forgets what is too much or too old. `now_ms` is the least that there is while the clock is not believed.
    pub(crate) fn trim(
        &self,
        conn: &Connection,
        retention: Retention,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let Aged {
            table,
            written,
            ended,
            ..
        } = self;
        let rows = i64::try_from(retention.rows).unwrap_or(i64::MAX);
        let age = i64::try_from(retention.age_ms).unwrap_or(i64::MAX);
        let oldest = now_ms.saturating_sub(age);
        let undated = self.undated(conn, now_ms, oldest)?;
        conn.prepare_cached(&format!(
            "DELETE FROM {table}
              WHERE {ended} IS NOT NULL AND id <= (SELECT max(id) - ?1 FROM {table})"
        ))?
        .execute([rows])?;
        conn.prepare_cached(&format!(
            "DELETE FROM {table}
              WHERE {ended} < ?1 AND id > ?2 AND id <= coalesce(
                    (SELECT id FROM {table} WHERE {written} >= ?1 AND id > ?2 ORDER BY id LIMIT 1),
                    (SELECT max(id) FROM {table}))"
        ))?
        .execute([oldest, undated])?;
        Ok(())
    }

    /// Up to which number rows bear a time that says nothing of their age.
    fn undated(&self, conn: &Connection, now_ms: i64, oldest: i64) -> Result<i64, StoreError> {
        let Some(key) = self.undated else {
            return Ok(0);
        };
        let Aged { table, ended, .. } = self;
        let noted: Option<String> = meta::get(conn, key)?;
        let noted: Option<(i64, Option<i64>)> = noted.map(|text| json(key, &text)).transpose()?;
        let (undated, since) = if now_ms == i64::MIN {
            let last: Option<i64> = conn
                .prepare_cached(&format!("SELECT max(id) FROM {table}"))?
                .query_row([], |row| row.get(0))?;
            (last.unwrap_or(0), None)
        } else {
            match noted {
                None => return Ok(0),
                Some((undated, Some(since))) if since < oldest => {
                    // The clock may have been ahead as well.
                    let sql = format!(
                        "DELETE FROM {table} WHERE id <= ?1 AND ({ended} < ?2 OR {ended} > ?3)"
                    );
                    conn.execute(&sql, [undated, oldest, now_ms])?;
                    meta::clear(conn, key)?;
                    return Ok(0);
                }
                Some((undated, since)) => (undated, Some(since.unwrap_or(now_ms))),
            }
        };
        if undated > 0 && noted != Some((undated, since)) {
            meta::set(conn, key, to_json(&(undated, since)))?;
        }
        Ok(undated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("schema/0001_initial.sql"))
            .unwrap();
        conn
    }

    /// A row of a table at the time that the device's clock said.
    type Write = fn(&Connection, i64);

    const TABLES: [(&Aged, Write); 2] = [
        (&CONFLICTS, |conn, at| {
            let sql = "INSERT INTO syncline_conflict (entity_type, entity_id, mutations, error, resolution, opened_at, resolved_at)
                       VALUES ('task', ?1, '[]', '{}', 'field-merge', ?1, ?1)";
            conn.execute(sql, [at]).unwrap();
        }),
        (&LOG, |conn, at| {
            let sql = "INSERT INTO syncline_log (at, kind, mutation) VALUES (?1, 'applied', 'm')";
            conn.execute(sql, [at]).unwrap();
        }),
    ];

    #[test]
    fn what_was_written_under_a_wrong_clock_is_as_old_as_the_right_one() {
        for (aged, write) in TABLES {
            let conn = fresh();
            let retention = Retention {
                rows: 10,
                age_ms: 1_000,
            };
            let left = |now_ms: i64| -> Vec<i64> {
                aged.trim(&conn, retention, now_ms).unwrap();
                let sql = format!("SELECT {} FROM {} ORDER BY id", aged.written, aged.table);
                let mut rows = conn.prepare(&sql).unwrap();
                let rows = rows.query_map([], |row| row.get(0)).unwrap();
                rows.collect::<Result<_, _>>().unwrap()
            };
            write(&conn, 9_000);
            write(&conn, 7);
            write(&conn, 99_000);
            let wrong = [9_000, 7, 99_000];
            assert_eq!(left(i64::MIN), wrong, "nothing is old now");
            assert_eq!(left(10_000), wrong, "the clock is right again");
            write(&conn, 10_500);
            assert_eq!(left(11_000), [9_000, 7, 99_000, 10_500]);
            assert_eq!(left(11_001), [10_500], "for as long as rows are kept");
            assert_eq!(left(11_501), Vec::<i64>::new());
            let noted: Option<String> = meta::get(&conn, aged.undated.unwrap()).unwrap();
            assert_eq!(noted, None);
        }
    }

    #[test]
    fn as_many_rows_stay_and_for_so_long() {
        let conn = fresh();
        let left = |rows: u64, age_ms: u64| -> Vec<i64> {
            conn.execute_batch(
                "DELETE FROM syncline_journal;
                 WITH RECURSIVE n (at) AS (SELECT 100 UNION ALL SELECT at + 100 FROM n WHERE at < 1000)
                 INSERT INTO syncline_journal (seq, mutation, idempotency_key, client, entity_type, entity_id, op, applied_at)
                 SELECT at, at, at, 'c', 'task', at, 'delete', at FROM n",
            )
            .unwrap();
            let retention = Retention { rows, age_ms };
            JOURNAL.trim(&conn, retention, 1_000).unwrap();
            let mut statement = conn
                .prepare("SELECT applied_at FROM syncline_journal ORDER BY id")
                .unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.collect::<Result<_, _>>().unwrap()
        };
        assert_eq!(left(10, 900).len(), 10);
        assert_eq!(left(3, 900), [800, 900, 1000], "the newest");
        assert_eq!(left(10, 200), [800, 900, 1000], "the youngest");
        assert_eq!(left(10, 0), [1000]);
        assert!(left(0, 900).is_empty());
    }
}
