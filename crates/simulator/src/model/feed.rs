//! The reference server's pull: a snapshot in key order pinned to a head, then the feed in order of
//! positions. Imports nothing of core.

use super::server::{Row, Server, version};
use syncline_protocol::{Change, ChangeKind, EntityId, EntityType, PageEnd, PagePhase};

/// The name of the one synced type.
pub(crate) const TYPE: &str = "task";

/// The cursor means nothing (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

enum From {
    Start,
    Snapshot { pin: i64, last: EntityId },
    Feed(i64),
}

impl Server {
    /// One page of at most `limit` changes.
    pub(crate) fn pull(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Change>, PageEnd), Gone> {
        match self.read(cursor)? {
            From::Start => Ok(self.snapshot(self.head, None, limit)),
            From::Snapshot { pin, last } => Ok(self.snapshot(pin, Some(&last), limit)),
            From::Feed(after) => Ok(self.feed(after, limit)),
        }
    }

    fn read(&self, cursor: Option<&str>) -> Result<From, Gone> {
        let Some(cursor) = cursor else {
            return Ok(From::Start);
        };
        let mut parts = cursor.split(':');
        let mut next = || parts.next().ok_or(Gone);
        let (epoch, kind, position) = (next()?, next()?, next()?);
        let position: i64 = position.parse().map_err(|_| Gone)?;
        let in_reach = position >= self.horizon && position <= self.head;
        if epoch != self.epoch_name().as_str() || !in_reach {
            return Err(Gone);
        }
        match kind {
            "s" => Ok(From::Snapshot {
                pin: position,
                last: EntityId::parse(next()?).map_err(|_| Gone)?,
            }),
            _ => Ok(From::Feed(position)),
        }
    }

    fn snapshot(&self, pin: i64, last: Option<&EntityId>, limit: usize) -> (Vec<Change>, PageEnd) {
        let alive = self
            .rows
            .iter()
            .filter(|(id, row)| row.fields.is_some() && last.is_none_or(|last| *id > last));
        let mut changes: Vec<Change> = alive.take(limit + 1).map(change).collect();
        let more = changes.len() > limit;
        changes.truncate(limit);
        let epoch = self.epoch_name();
        let last = changes.last().map(|change| change.id.as_str().to_owned());
        let cursor = match (more, last) {
            (true, Some(last)) => format!("{epoch}:s:{pin}:{last}"),
            _ => format!("{epoch}:f:{pin}"),
        };
        let end = PageEnd {
            cursor,
            position: pin,
            count: changes.len(),
            phase: if more {
                PagePhase::Snapshot
            } else {
                PagePhase::SnapshotEnd
            },
            at_head: !more && pin == self.head,
            to_come: None,
            epoch: Some(self.epoch_name()),
        };
        (changes, end)
    }

    fn feed(&self, after: i64, limit: usize) -> (Vec<Change>, PageEnd) {
        let mut newer: Vec<(&EntityId, &Row)> =
            (self.rows.iter().filter(|(_, row)| row.position > after)).collect();
        newer.sort_by_key(|(_, row)| row.position);
        let at_head = newer.len() <= limit;
        newer.truncate(limit);
        let position = match (at_head, newer.last()) {
            (false, Some((_, row))) => row.position,
            _ => self.head,
        };
        let end = PageEnd {
            cursor: format!("{}:f:{position}", self.epoch_name()),
            position,
            count: newer.len(),
            phase: PagePhase::Feed,
            at_head,
            to_come: None,
            epoch: Some(self.epoch_name()),
        };
        (newer.into_iter().map(change).collect(), end)
    }
}

fn change((id, row): (&EntityId, &Row)) -> Change {
    Change {
        entity_type: EntityType::new(TYPE),
        id: id.clone(),
        kind: row
            .fields
            .clone()
            .map_or(ChangeKind::Delete, ChangeKind::Upsert),
        version: version(row.version),
        position: row.position,
        key: row.key.clone(),
    }
}
