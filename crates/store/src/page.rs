//! Pull: one page and its cursor in one transaction (A2).

use crate::apply::{Applier, Landed, Parents};
use crate::error::StoreError;
use crate::inbox;
use crate::meta;
use crate::recover;
use crate::retry::{Occasion, retry_waiting};
use crate::state;
use crate::store::EntityTypes;
use crate::sweep;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use syncline_core::{Now, Page, PageChange, PageSummary, Standing, check_order};
use syncline_protocol::{Change, PageEnd, PagePhase, Scope};

/// Where a scope stands.
pub(crate) fn cursor(tx: &Connection, scope: &Scope) -> Result<Option<String>, StoreError> {
    Ok(tx
        .prepare_cached("SELECT cursor FROM syncline_cursor WHERE scope = ?1")?
        .query_row([scope.as_str()], |row| row.get(0))
        .optional()?)
}

/// Where a scope stands, as a page has to continue it.
fn standing(conn: &Connection, scope: &Scope) -> Result<Option<Standing>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT position, phase = 'snapshot' FROM syncline_cursor WHERE scope = ?1",
        )?
        .query_row([scope.as_str()], |row| {
            Ok(Standing {
                position: row.get(0)?,
                in_snapshot: row.get(1)?,
            })
        })
        .optional()?)
}

/// Forgets where a scope stands: the next pull compares everything anew.
pub(crate) fn forget_cursor(tx: &Transaction<'_>, scope: &Scope) -> Result<(), StoreError> {
    recover::keep_position(tx, scope)?;
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
    check_order(page, standing(tx, scope)?)?;
    let snapshot = page.end.phase != PagePhase::Feed;
    if from.is_none() {
        sweep::begin(tx, types)?;
    }
    let sweeping = snapshot && sweep::is_under_way(tx)?;
    let comparison = recover::under_way(tx)?.filter(|_| snapshot);
    let mut applier = Applier::new(tx, types, now);
    applier.plain = comparison.is_none() && !state::anything_special(tx)?;
    if snapshot {
        applier.parents = Parents::Later;
        applier.newest = page.end.position;
    }
    if !applier.plain {
        applier.rekeying.ids.expect(valid(page));
    }
    let (mut summary, mut invalid) = (PageSummary::default(), None);
    for change in &page.changes {
        match change {
            PageChange::Valid(change) => {
                if sweeping {
                    sweep::mark(tx, change)?;
                }
                let landed = land(&mut applier, comparison.as_ref(), scope, change)?;
                // What is parked makes later changes of the page special.
                applier.plain &= landed != Landed::Parked;
                landed.count(&mut summary);
            }
            PageChange::Invalid { raw, detail } => {
                let kept = match invalid {
                    Some(kept) => kept,
                    None => inbox::count_invalid(tx)?,
                };
                if kept >= inbox::MOST_INVALID {
                    return Err(StoreError::QuarantineFull(kept));
                }
                invalid = Some(kept + 1);
                inbox::park_invalid(tx, scope, raw, detail, page.end.position, now)?;
                applier.plain = false;
                summary.parked += 1;
            }
        }
    }
    if page.end.phase == PagePhase::SnapshotEnd {
        sweep::finish(&mut applier, scope, sweeping, &mut summary)?;
    }
    applier.parents = Parents::Checked;
    applier.plain = false;
    retry_waiting(&mut applier, occasion(&summary), &mut summary)?;
    move_cursor(tx, scope, &page.end, now)?;
    // (Of a snapshot that was compared, nothing is due any more.)
    summary.again = page.end.at_head && recover::begin_after_feed(tx, scope)?;
    summary.notices.append(&mut applier.notices);
    Ok(summary)
}

/// Whether what waits may find its place now.
fn occasion(summary: &PageSummary) -> Occasion {
    match summary.upserts + summary.deletes + summary.merged + summary.parked {
        0 => Occasion::Nothing,
        _ => Occasion::Changed,
    }
}

fn valid(page: &Page) -> impl Iterator<Item = &Change> {
    page.changes.iter().filter_map(|change| match change {
        PageChange::Valid(change) => Some(change),
        PageChange::Invalid { .. } => None,
    })
}

/// Applies a change, or compares its row with what is here.
fn land(
    applier: &mut Applier<'_>,
    comparison: Option<&recover::Comparison>,
    scope: &Scope,
    change: &Change,
) -> Result<Landed, StoreError> {
    let met = match comparison {
        Some(comparison) => comparison.meet(applier, scope, change)?,
        None => None,
    };
    match met {
        Some(landed) => Ok(landed),
        None => applier.change(scope, change),
    }
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
