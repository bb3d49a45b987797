//! Pull: one page and its cursor in one transaction (A2), applied at once or staged for a
//! checkpoint.

use crate::apply::{Applier, Landed, Parents};
use crate::conflict::{natural, record, violation};
use crate::error::StoreError;
use crate::inbox;
use crate::meta;
use crate::orphans;
use crate::progress;
use crate::recover;
use crate::retry::{Occasion, retry_held_back, retry_waiting};
use crate::stage::{self, Checkpoint, Staging};
use crate::state;
use crate::steady::Times;
use crate::store::EntityTypes;
use crate::sweep;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use syncline_core::{Notice, Now, Page, PageChange, PageSummary, Standing, check_order};
use syncline_protocol::{Change, PageEnd, PagePhase, Scope};

/// Where the next page of a scope starts: behind what is staged, else where the rows stand.
pub(crate) fn cursor(tx: &Connection, scope: &Scope) -> Result<Option<String>, StoreError> {
    let applied = applied_cursor(tx, scope)?;
    let tail = stage::tail(tx, scope, applied.as_deref())?;
    Ok(tail.map(|end| end.cursor).or(applied))
}

/// What the rows of a scope reflect.
fn applied_cursor(tx: &Connection, scope: &Scope) -> Result<Option<String>, StoreError> {
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

/// The position that the rows reflect; `None` until a first snapshot is complete.
pub(crate) fn applied_position(conn: &Connection) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT position FROM syncline_cursor WHERE phase = 'feed'";
    Ok(conn
        .prepare_cached(sql)?
        .query_row([], |row| row.get(0))
        .optional()?)
}

/// Forgets where a scope stands: the next pull compares everything anew.
pub(crate) fn forget_cursor(tx: &Transaction<'_>, scope: &Scope) -> Result<(), StoreError> {
    recover::keep_position(tx, scope)?;
    stage::drop_all(tx, scope)?;
    tx.execute(
        "DELETE FROM syncline_cursor WHERE scope = ?1",
        [scope.as_str()],
    )?;
    Ok(())
}

/// Takes a page in: applies it, or stages it for a checkpoint. Either way the page and the cursor
/// after it commit together (A2).
pub(crate) fn take(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    arrived: &Arrived<'_>,
    checkpoint: Option<Checkpoint>,
    at: (Now, Times),
) -> Result<PageSummary, StoreError> {
    let Arrived { scope, from, page } = *arrived;
    let applied = applied_cursor(tx, scope)?;
    let tail = stage::tail(tx, scope, applied.as_deref())?;
    if tail.as_ref().map(|end| &end.cursor).or(applied.as_ref()) != from {
        return Err(StoreError::OutOfOrder);
    }
    if tail.is_none() {
        // What does not follow the applied cursor any more.
        stage::drop_all(tx, scope)?;
    }
    let from = from.map(String::as_str);
    let mut summary = PageSummary::default();
    match checkpoint {
        Some(limit) if !page.end.at_head => {
            let before = match &tail {
                Some(end) => Some(stage::standing(end)),
                None => standing(tx, scope)?,
            };
            check_order(page, before)?;
            check_quarantine(tx, page)?;
            let staging = Staging::of(page);
            let size = stage::size(tx, scope)?;
            if size.is_full(&staging, limit) {
                apply_staged(tx, types, scope, at, &mut summary)?;
                let changes = u64::try_from(size.changes).unwrap_or_default();
                summary.notices.push(Notice::CheckpointSplit { changes });
            }
            staging.put(tx, scope, from, at.0)?;
        }
        _ => {
            apply_staged(tx, types, scope, at, &mut summary)?;
            merge(&mut summary, apply(tx, types, arrived, at)?);
        }
    }
    Ok(summary)
}

/// A page that follows the stored cursor.
#[derive(Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) scope: &'a Scope,
    /// The cursor that it was asked with.
    pub(crate) from: Option<&'a String>,
    pub(crate) page: &'a Page,
}

impl<'a> Arrived<'a> {
    pub(crate) fn new(scope: &'a Scope, from: Option<&'a String>, page: &'a Page) -> Self {
        Self { scope, from, page }
    }
}

/// Applies everything that is staged, as if each page came now.
fn apply_staged(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    scope: &Scope,
    at: (Now, Times),
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    while let Some((from, page)) = stage::take(tx, scope)? {
        let arrived = Arrived::new(scope, from.as_ref(), &page);
        merge(summary, apply(tx, types, &arrived, at)?);
    }
    Ok(())
}

fn merge(summary: &mut PageSummary, more: PageSummary) {
    summary.upserts += more.upserts;
    summary.deletes += more.deletes;
    summary.merged += more.merged;
    summary.parked += more.parked;
    summary.skipped += more.skipped;
    summary.released += more.released;
    summary.again |= more.again;
    summary.notices.extend(more.notices);
}

/// A staged page must not bring more that nobody understands than could be kept in the end.
fn check_quarantine(tx: &Transaction<'_>, page: &Page) -> Result<(), StoreError> {
    let invalid = |change: &&PageChange| matches!(change, PageChange::Invalid { .. });
    let more = page.changes.iter().filter(invalid).count();
    if more == 0 {
        return Ok(());
    }
    let kept = inbox::count_invalid(tx)? + stage::count_invalid(tx)?;
    match kept.saturating_add(i64::try_from(more).unwrap_or(i64::MAX)) > inbox::MOST_INVALID {
        true => Err(StoreError::QuarantineFull(kept)),
        false => Ok(()),
    }
}

/// Applies a page.
fn apply(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    arrived: &Arrived<'_>,
    (now, times): (Now, Times),
) -> Result<PageSummary, StoreError> {
    let Arrived { scope, from, page } = *arrived;
    check_order(page, standing(tx, scope)?)?;
    let snapshot = page.end.phase != PagePhase::Feed;
    if from.is_none() {
        sweep::begin(tx, types, scope)?;
    }
    let sweeping = snapshot && sweep::is_under_way(tx)?;
    let comparison = recover::under_way(tx)?.filter(|_| snapshot);
    let mut applier = Applier::new(tx, types, (now, times));
    applier.plain = comparison.is_none() && !state::anything_special(tx)?;
    applier.cursor_at = Some(page.end.position);
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
    try_again(&mut applier, &page.end, &mut summary)?;
    if page.end.at_head {
        summary.released = natural::release(tx, types, now)?;
    }
    move_cursor(tx, scope, page, now)?;
    if page.end.at_head {
        mend(&mut applier, &mut summary)?;
    }
    // (Of a snapshot that was compared, nothing is due any more.)
    summary.again = page.end.at_head && recover::begin_after_feed(tx, scope)?;
    summary.notices.append(&mut applier.notices);
    Ok(summary)
}

/// Rows whose parent went are looked after, and what waited for that finds its place.
fn mend(applier: &mut Applier<'_>, summary: &mut PageSummary) -> Result<(), StoreError> {
    match orphans::mend(applier)? {
        true => retry_waiting(applier, Occasion::Changed, summary),
        false => Ok(()),
    }
}

/// What waits is tried again; at the head, what still finds no place becomes a conflict.
fn try_again(
    applier: &mut Applier<'_>,
    end: &PageEnd,
    summary: &mut PageSummary,
) -> Result<(), StoreError> {
    if end.at_head {
        retry_held_back(applier, summary)?;
    }
    let occasion = match record::any_violation(applier.tx)? {
        // Local edits may have made room.
        true => Occasion::Changed,
        false => occasion(summary),
    };
    retry_waiting(applier, occasion, summary)?;
    match end.at_head {
        true => violation::settle(applier, summary),
        false => Ok(()),
    }
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
    page: &Page,
    now: Now,
) -> Result<(), StoreError> {
    let end = &page.end;
    let phase = if end.phase == PagePhase::Snapshot {
        "snapshot"
    } else {
        "feed"
    };
    let head_at = end.at_head.then_some(now.unix_ms);
    let epoch: Option<String> = meta::get(tx, meta::key::EPOCH)?;
    tx.execute(
        "INSERT INTO syncline_cursor (scope, epoch, cursor, position, phase, pulled_at, head_at,
                                      received, received_bytes, to_come)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (scope) DO UPDATE
            SET epoch = excluded.epoch, cursor = excluded.cursor, position = excluded.position,
                phase = excluded.phase, pulled_at = excluded.pulled_at,
                head_at = coalesce(excluded.head_at, head_at),
                received = excluded.received + CASE WHEN to_come = 0 THEN 0 ELSE received END,
                received_bytes = excluded.received_bytes
                               + CASE WHEN to_come = 0 THEN 0 ELSE received_bytes END,
                to_come = excluded.to_come",
        params![
            scope.as_str(),
            epoch.unwrap_or_default(),
            end.cursor,
            end.position,
            phase,
            now.unix_ms,
            head_at,
            page.changes.len(),
            page.bytes,
            progress::to_come(end)
        ],
    )?;
    if phase == "feed" {
        // From here on "as of the applied position" says the same; but a create says no position, and one
        // that is to take a deletion's place has to name that.
        tx.execute(
            "DELETE FROM syncline_entity_state
              WHERE position <= ?1
                AND NOT (deleted = 1 AND EXISTS (
                      SELECT 1 FROM syncline_outbox AS o
                       WHERE o.entity_type = syncline_entity_state.entity_type
                         AND o.entity_id = syncline_entity_state.entity_id AND o.op = 'create'))",
            [end.position],
        )?;
    }
    if end.at_head {
        meta::set(tx, meta::key::LAST_PULL_AT, now.unix_ms)?;
    }
    Ok(())
}
