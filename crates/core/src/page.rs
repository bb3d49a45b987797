//! Whether a page can be believed: it is checked before anything of it is applied or kept.
//!
//! A page that contradicts its request, itself or what came before it is refused as a whole, and
//! the cursor stays. A single change that this app cannot keep is set aside instead, since one
//! change must never stop the feed (P4).

use crate::{Page, PageChange};
use syncline_protocol::{Change, ChangeKind, PageEnd, PagePhase};

/// The longest cursor that is kept, in bytes.
pub const MAX_CURSOR_BYTES: usize = 8192;
/// The longest name of an entity type or a field that is kept, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// The most fields of one entity: as many as SQLite takes columns.
pub const MAX_FIELDS: usize = 2000;

/// What is wrong with a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageFault {
    /// More than was asked for.
    #[error("{asked} changes were asked for at most, and {came} came")]
    TooMany {
        /// The limit of the request.
        asked: usize,
        /// What came.
        came: usize,
    },
    /// Cut, or counted wrongly.
    #[error("the page says that it has {said} changes, and {came} came")]
    Count {
        /// What its end says.
        said: usize,
        /// What came.
        came: usize,
    },
    /// Empty, or too long to be kept.
    #[error("the page's cursor has {0} bytes; 1 to {MAX_CURSOR_BYTES} are taken")]
    Cursor(usize),
    /// A snapshot in the middle of a feed, or a feed before the end of the snapshot.
    #[error("the page calls itself {page:?}, which does not follow {stored}")]
    Phase {
        /// What the page says.
        page: PagePhase,
        /// Where the scope stands.
        stored: &'static str,
    },
    /// It ends before the place where it begins.
    #[error("the page ends at position {end}, before the stored position {stored}")]
    Backwards {
        /// Where it ends.
        end: i64,
        /// Where the scope stands.
        stored: i64,
    },
    /// A change of a feed page has a position that the page does not cover, or is out of order.
    #[error("a change has position {position}, which is not after {after} and up to {end}")]
    Outside {
        /// The change's.
        position: i64,
        /// That of the change before it, or the stored one.
        after: i64,
        /// The page's end.
        end: i64,
    },
}

/// Where a scope stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The applied position; within a snapshot the one that it is pinned to.
    pub position: i64,
    /// The snapshot is not complete yet.
    pub in_snapshot: bool,
}

/// Checks a page against the request that it answers.
pub fn check_answer(page: &Page, limit: usize) -> Result<(), PageFault> {
    let (said, came) = (page.end.count, page.changes.len());
    if said != came {
        return Err(PageFault::Count { said, came });
    }
    if came > limit {
        return Err(PageFault::TooMany { asked: limit, came });
    }
    match page.end.cursor.len() {
        1..=MAX_CURSOR_BYTES => Ok(()),
        bytes => Err(PageFault::Cursor(bytes)),
    }
}

/// Checks a page against where its scope stands; `None`: nothing was pulled yet.
pub fn check_order(page: &Page, stored: Option<Standing>) -> Result<(), PageFault> {
    check_phase(&page.end, stored)?;
    let reached = stored.map_or(0, |stored| stored.position);
    if page.end.position < reached {
        let (end, stored) = (page.end.position, reached);
        return Err(PageFault::Backwards { end, stored });
    }
    if page.end.phase != PagePhase::Feed {
        // In the order of keys; each row may be newer than the position that is pinned.
        return Ok(());
    }
    let mut after = reached;
    for change in &page.changes {
        let PageChange::Valid(change) = change else {
            continue;
        };
        let (position, end) = (change.position, page.end.position);
        if position <= after || position > end {
            return Err(PageFault::Outside {
                position,
                after,
                end,
            });
        }
        after = position;
    }
    Ok(())
}

fn check_phase(end: &PageEnd, stored: Option<Standing>) -> Result<(), PageFault> {
    let fault = |stored| {
        let page = end.phase;
        Err(PageFault::Phase { page, stored })
    };
    match (stored, end.phase) {
        (None, PagePhase::Feed) => fault("the beginning"),
        (Some(stored), PagePhase::Feed) if stored.in_snapshot => fault("an unfinished snapshot"),
        (Some(stored), PagePhase::Snapshot | PagePhase::SnapshotEnd) if !stored.in_snapshot => {
            fault("a page of the feed")
        }
        _ => Ok(()),
    }
}

/// Why a change cannot be kept as an entity here, if it cannot.
pub fn unstorable(change: &Change) -> Option<String> {
    let ChangeKind::Upsert(fields) = &change.kind else {
        return None;
    };
    if fields.len() > MAX_FIELDS {
        return Some(format!(
            "it has {} fields, more than the {MAX_FIELDS} that a table can have",
            fields.len()
        ));
    }
    fields.iter().find_map(|(name, value)| {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Some(format!(
                "a field's name has {} bytes; 1 to {MAX_NAME_BYTES} are taken",
                name.len()
            ));
        }
        let wrong = value.validate().err()?;
        Some(format!("{name}: {wrong}"))
    })
}

#[cfg(test)]
mod tests;
