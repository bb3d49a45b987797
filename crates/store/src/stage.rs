//! Pages that wait for a checkpoint: kept as they came, and applied in one transaction when a page
//! has reached the head (`pull = "checkpoint"`).
//!
//! ```text
//!  page, page, page ──stage──▶ syncline_staged ──head reached──▶ applied in order, in one transaction
//!        each with its cursor                    (or a limit)     (the cursor moves along)
//! ```
//!
//! `syncline_cursor` goes on saying what the rows reflect: the *applied* position. How far was read
//! is the end of the newest staged page. Pages are applied exactly as they would have been when they
//! came, so both modes end in the same rows. An entity with a staged change is not claimed (P6): the
//! server would only answer with the conflict that the checkpoint is about to bring.

use crate::error::{StoreError, json, to_json};
use crate::inbox;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use syncline_core::{EntityRef, Now, Page, PageChange, Standing};
use syncline_protocol::{PageEnd, PagePhase, Scope};

/// How much may be staged; what is beyond is applied before the head is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Changes at most.
    pub changes: u64,
    /// Bytes of staged changes at most.
    pub bytes: u64,
}

/// What is staged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) pages: i64,
    pub(crate) changes: i64,
    pub(crate) bytes: i64,
}

impl Size {
    /// Whether a page with so many changes and bytes has no place beside what is staged.
    pub(crate) fn is_full(self, page: &Staging, limit: Checkpoint) -> bool {
        let most = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
        let changes = self.changes.saturating_add(page.count());
        let bytes = self.bytes.saturating_add(page.bytes());
        self.pages > 0 && (changes > most(limit.changes) || bytes > most(limit.bytes))
    }
}

/// A page as it is staged.
pub(crate) struct Staging<'a> {
    end: &'a PageEnd,
    lines: Vec<Line>,
}

/// A change as it is staged.
struct Line {
    /// What it is about, where that can be read.
    entity: Option<EntityRef>,
    text: String,
    /// What is wrong with a change that nobody understands.
    detail: Option<String>,
}

impl<'a> Staging<'a> {
    pub(crate) fn of(page: &'a Page) -> Self {
        let lines = page.changes.iter().map(|change| match change {
            PageChange::Valid(change) => Line {
                entity: Some(EntityRef {
                    entity_type: change.entity_type.clone(),
                    id: change.id.clone(),
                }),
                text: to_json(change),
                detail: None,
            },
            PageChange::Invalid { raw, detail } => Line {
                entity: inbox::name_in(raw),
                text: raw.clone(),
                detail: Some(detail.clone()),
            },
        });
        Self {
            end: &page.end,
            lines: lines.collect(),
        }
    }

    fn count(&self) -> i64 {
        i64::try_from(self.lines.len()).unwrap_or(i64::MAX)
    }

    fn bytes(&self) -> i64 {
        let bytes = self.lines.iter().map(|line| line.text.len()).sum::<usize>();
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// Stages the page behind those that are there.
    pub(crate) fn put(
        &self,
        tx: &Transaction<'_>,
        scope: &Scope,
        from: Option<&str>,
        now: Now,
    ) -> Result<(), StoreError> {
        tx.prepare_cached(
            "INSERT INTO syncline_staged_page (scope, from_cursor, page_end, changes, bytes, received_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            scope.as_str(),
            from,
            to_json(self.end),
            self.count(),
            self.bytes(),
            now.unix_ms
        ])?;
        let page = tx.last_insert_rowid();
        let mut statement = tx.prepare_cached(
            "INSERT INTO syncline_staged (page, place, entity_type, entity_id, change, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for (place, line) in (0_i64..).zip(&self.lines) {
            statement.execute(params![
                page,
                place,
                line.entity
                    .as_ref()
                    .map(|entity| entity.entity_type.as_str()),
                line.entity.as_ref().map(|entity| entity.id.as_str()),
                line.text,
                line.detail
            ])?;
        }
        Ok(())
    }
}

/// What is staged of a scope.
pub(crate) fn size(conn: &Connection, scope: &Scope) -> Result<Size, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT count(*), coalesce(sum(changes), 0), coalesce(sum(bytes), 0)
               FROM syncline_staged_page WHERE scope = ?1",
        )?
        .query_row([scope.as_str()], |row| {
            Ok(Size {
                pages: row.get(0)?,
                changes: row.get(1)?,
                bytes: row.get(2)?,
            })
        })?)
}

/// How many changes are staged, of all scopes.
pub(crate) fn count(conn: &Connection) -> Result<u64, StoreError> {
    Ok(conn
        .prepare_cached("SELECT coalesce(sum(changes), 0) FROM syncline_staged_page")?
        .query_row([], |row| row.get(0))?)
}

/// How many of them nobody understands.
pub(crate) fn count_invalid(conn: &Connection) -> Result<i64, StoreError> {
    Ok(conn
        .prepare_cached("SELECT count(*) FROM syncline_staged WHERE detail IS NOT NULL")?
        .query_row([], |row| row.get(0))?)
}

/// Whether a change of the entity is staged.
pub(crate) fn holds(conn: &Connection, entity: &EntityRef) -> Result<bool, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM syncline_staged WHERE entity_type = ?1 AND entity_id = ?2)",
        )?
        .query_row([entity.entity_type.as_str(), entity.id.as_str()], |row| {
            row.get(0)
        })?)
}

/// The end of the newest staged page; `None` when nothing is staged, or what is staged does not
/// follow the applied cursor `applied` (any more).
pub(crate) fn tail(
    conn: &Connection,
    scope: &Scope,
    applied: Option<&str>,
) -> Result<Option<PageEnd>, StoreError> {
    let Some((_, from)) = first(conn, scope)? else {
        return Ok(None);
    };
    if from.as_deref() != applied {
        return Ok(None);
    }
    let newest: Option<String> = conn
        .prepare_cached(
            "SELECT page_end FROM syncline_staged_page WHERE scope = ?1 ORDER BY page DESC LIMIT 1",
        )?
        .query_row([scope.as_str()], |row| row.get(0))
        .optional()?;
    newest.map(|text| json("staged page", &text)).transpose()
}

/// As what a page has to follow.
pub(crate) fn standing(tail: &PageEnd) -> Standing {
    Standing {
        position: tail.position,
        in_snapshot: tail.phase == PagePhase::Snapshot,
    }
}

fn first(conn: &Connection, scope: &Scope) -> Result<Option<(i64, Option<String>)>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT page, from_cursor FROM syncline_staged_page WHERE scope = ?1 ORDER BY page LIMIT 1",
        )?
        .query_row([scope.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// The oldest staged page, with the cursor that it was asked with; it is staged no longer.
pub(crate) fn take(
    tx: &Transaction<'_>,
    scope: &Scope,
) -> Result<Option<(Option<String>, Page)>, StoreError> {
    let Some((page, from)) = first(tx, scope)? else {
        return Ok(None);
    };
    let mut statement = tx.prepare_cached(
        "SELECT change, detail FROM syncline_staged WHERE page = ?1 ORDER BY place",
    )?;
    let mut rows = statement.query([page])?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        changes.push(match row.get::<_, Option<String>>(1)? {
            Some(detail) => PageChange::Invalid { raw: text, detail },
            None => PageChange::Valid(json("staged change", &text)?),
        });
    }
    let (end, bytes): (String, u64) = tx
        .prepare_cached(
            "DELETE FROM syncline_staged_page WHERE page = ?1 RETURNING page_end, bytes",
        )?
        .query_row([page], |row| Ok((row.get(0)?, row.get(1)?)))?;
    tx.prepare_cached("DELETE FROM syncline_staged WHERE page = ?1")?
        .execute([page])?;
    let end = json("staged page", &end)?;
    let page = Page {
        changes,
        end,
        // As they were staged.
        bytes,
    };
    Ok(Some((from, page)))
}

/// Drops what is staged: the server is asked for it again.
pub(crate) fn drop_all(tx: &Transaction<'_>, scope: &Scope) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM syncline_staged
          WHERE page IN (SELECT page FROM syncline_staged_page WHERE scope = ?1)",
    )?
    .execute([scope.as_str()])?;
    tx.prepare_cached("DELETE FROM syncline_staged_page WHERE scope = ?1")?
        .execute([scope.as_str()])?;
    Ok(())
}
