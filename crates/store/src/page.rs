//! Pull: one page and its cursor in one transaction (A2).

use crate::apply::{Applier, Landed, Parents};
use crate::error::{StoreError, to_json};
use crate::meta;
use crate::state;
use crate::store::EntityTypes;
use crate::sweep;
use rusqlite::{OptionalExtension, Transaction, params};
use syncline_core::{Now, Page, PageChange, PageSummary, WaitsFor};
use syncline_protocol::{PageEnd, PagePhase, Scope};

/// Where a scope stands.
pub(crate) fn cursor(
    tx: &rusqlite::Connection,
    scope: &Scope,
) -> Result<Option<String>, StoreError> {
    Ok(tx
        .prepare_cached("SELECT cursor FROM syncline_cursor WHERE scope = ?1")?
        .query_row([scope.as_str()], |row| row.get(0))
        .optional()?)
}

/// Forgets where a scope stands: the next pull compares everything anew.
pub(crate) fn forget_cursor(tx: &Transaction<'_>, scope: &Scope) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM syncline_cursor WHERE scope = ?1",
        [scope.as_str()],
    )?;
    Ok(())
}

/// Applies a page.
pub(crate) fn apply(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    scope: &Scope,
    from: Option<&str>,
    page: &Page,
    now: Now,
) -> Result<PageSummary, StoreError> {
    if cursor(tx, scope)?.as_deref() != from {
        return Err(StoreError::OutOfOrder);
    }
    let snapshot = page.end.phase != PagePhase::Feed;
    if from.is_none() {
        sweep::begin(tx, types)?;
    }
    let sweeping = snapshot && sweep::is_under_way(tx)?;
    let mut applier = Applier {
        tx,
        types,
        now,
        plain: !state::anything_special(tx)?,
        parents: if snapshot {
            Parents::Later
        } else {
            Parents::Checked
        },
        notices: Vec::new(),
    };
    let mut summary = PageSummary::default();
    for change in &page.changes {
        match change {
            PageChange::Valid(change) => {
                if sweeping {
                    sweep::mark(tx, change)?;
                }
                let landed = applier.change(scope, change)?;
                // What is parked makes later changes of the page special.
                applier.plain &= landed != Landed::Parked;
                count(&mut summary, landed);
            }
            PageChange::Invalid { raw, detail } => {
                park_invalid(tx, scope, raw, detail, page.end.position, now)?;
                summary.parked += 1;
            }
        }
    }
    if page.end.phase == PagePhase::SnapshotEnd {
        sweep::finish(&mut applier, scope, sweeping, &mut summary)?;
    }
    applier.parents = Parents::Checked;
    applier.plain = false;
    retry_waiting(&mut applier, &mut summary)?;
    move_cursor(tx, scope, &page.end, now)?;
    summary.notices.append(&mut applier.notices);
    Ok(summary)
}

fn count(summary: &mut PageSummary, landed: Landed) {
    match landed {
        Landed::Upserted => summary.upserts += 1,
        Landed::Deleted => summary.deletes += 1,
        Landed::Merged => summary.merged += 1,
        Landed::Skipped => summary.skipped += 1,
        Landed::Parked => summary.parked += 1,
    }
}

/// Changes that waited for a parent or a free place are tried again, as long as one finds it.
pub(crate) fn retry_waiting(
    applier: &mut Applier<'_>,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    loop {
        let waiting = state::retryable(applier.tx)?;
        let mut found_place = 0;
        for one in &waiting {
            // It is its own predecessor: without it in the inbox the plan is made afresh.
            state::unpark(applier.tx, &one.entity)?;
            let landed = applier.change(&one.scope, &one.change())?;
            if landed != Landed::Parked {
                summary.parked = summary.parked.saturating_sub(1);
                count(summary, landed);
                found_place += 1;
            }
        }
        if found_place == 0 || found_place == waiting.len() {
            return Ok(());
        }
    }
}

/// Keeps a change that nobody understands, under a name that no entity can have.
fn park_invalid(
    tx: &Transaction<'_>,
    scope: &Scope,
    raw: &str,
    detail: &str,
    position: i64,
    now: Now,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO syncline_inbox (entity_type, entity_id, scope, fields, version, position, received_at, waits_for, detail)
         SELECT '', ?1 || '#' || (SELECT count(*) FROM syncline_inbox WHERE waits_for = 'valid'), ?1, ?2, '', ?3, ?4, ?5, ?6
          WHERE (SELECT count(*) FROM syncline_inbox WHERE waits_for = 'valid') < 1000",
        params![
            scope.as_str(),
            to_json(&raw),
            position,
            now.unix_ms,
            WaitsFor::Valid.as_str(),
            detail
        ],
    )?;
    Ok(())
}

fn move_cursor(
    tx: &Transaction<'_>,
    scope: &Scope,
    end: &PageEnd,
    now: Now,
) -> Result<(), StoreError> {
    let phase = if end.phase == PagePhase::Snapshot {
        "snapshot"
    } else {
        "feed"
    };
    let head_at = end.at_head.then_some(now.unix_ms);
    let epoch: Option<String> = meta::get(tx, meta::key::EPOCH)?;
    tx.execute(
        "INSERT INTO syncline_cursor (scope, epoch, cursor, position, phase, pulled_at, head_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (scope) DO UPDATE
            SET epoch = excluded.epoch, cursor = excluded.cursor, position = excluded.position,
                phase = excluded.phase, pulled_at = excluded.pulled_at,
                head_at = coalesce(excluded.head_at, head_at)",
        params![
            scope.as_str(),
            epoch.unwrap_or_default(),
            end.cursor,
            end.position,
            phase,
            now.unix_ms,
            head_at
        ],
    )?;
    if phase == "feed" {
        // From here on "as of the applied position" says the same.
        tx.execute(
            "DELETE FROM syncline_entity_state WHERE position <= ?1",
            [end.position],
        )?;
    }
    if end.at_head {
        meta::set(tx, meta::key::LAST_PULL_AT, now.unix_ms)?;
    }
    Ok(())
}
