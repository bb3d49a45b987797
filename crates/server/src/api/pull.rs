//! `GET /v1/pull`: one page of a scope, as NDJSON.
//!
//! ```text
//!  no cursor ──> snapshot page … ──> snapshot end ──> feed page … ──> at head ──┐
//!                (key order, pinned to the head P        (from P on)  ^─────────┘
//!                 that the first page saw)
//! ```
//!
//! A snapshot page shows each entity as it is when the page is read, which may be later than P; what
//! changed after P comes again in the feed from P. So nothing is missed and nothing has to be kept
//! for a pull that is never finished. Everything of one page is read in one snapshot of the
//! storage. A cursor is refused rather than clamped. Rows are passed on as the text they are kept
//! as, never parsed.

use super::default_scope;
use crate::cursor::Cursor;
use crate::problems::Refusal;
use crate::{EntityRef, Identity, Now, ReadTx, Request, Response, Service, Storage, StorageError};
use serde::Serialize;
use std::io::Write;
use std::ops::ControlFlow;
use syncline_protocol::{CONTENT_TYPE_PAGES, Epoch, PageEnd, PagePhase, PullLine, Scope};

/// A page ends when it has this many bytes, whatever was asked for.
const PAGE_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Query {
    scope: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
    bytes: Option<usize>,
}

pub(crate) fn pull<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    now: Now,
) -> Result<Response, Refusal> {
    let query = parse_query(&request.query)?;
    let scope = default_scope();
    if query.scope.is_some_and(|asked| asked != scope.as_str()) {
        return Err(Refusal::scope_forbidden());
    }
    let max = service.config.limits.page_changes;
    let tenant = identity.principal.tenant.as_str();
    let cursor = match &query.cursor {
        None => None,
        Some(text) => Some(service.seal.open(text).ok_or_else(cursor_invalid)?),
    };
    if let Some(cursor) = &cursor
        && (cursor.tenant != tenant || cursor.scope != scope.as_str())
    {
        return Err(Refusal::new(
            403,
            "cursor-foreign",
            "The cursor belongs to another tenant or scope",
        ));
    }
    let reader = PageReader {
        tenant,
        scope: &scope,
        limit: query.limit.unwrap_or(max).min(max),
        bytes: query.bytes.unwrap_or(PAGE_BYTES).min(PAGE_BYTES),
    };
    let page = service
        .storage
        .read(|tx| reader.read(tx, cursor.as_ref()))?;
    if let (Err(Gone::Rewound), Some(cursor)) = (&page, &cursor) {
        begin_anew(service, &reader, cursor, now)?;
    }
    let page = page.map_err(Gone::refusal)?;
    let phase = match page.phase {
        PagePhase::Feed => "feed",
        PagePhase::Snapshot | PagePhase::SnapshotEnd => "snapshot",
    };
    crate::meter::pulled(phase, page.count);
    let body = page.finish(|cursor| service.seal.seal(cursor))?;
    Ok(Response::new(200, CONTENT_TYPE_PAGES, body))
}

fn parse_query(text: &str) -> Result<Query, Refusal> {
    let mut query = Query::default();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let twice = match name.as_ref() {
            "scope" => query.scope.replace(value.into_owned()).is_some(),
            "cursor" => query.cursor.replace(value.into_owned()).is_some(),
            "limit" => query.limit.replace(size(&name, &value)?).is_some(),
            "bytes" => query.bytes.replace(size(&name, &value)?).is_some(),
            _ => false,
        };
        if twice {
            return Err(Refusal::malformed(format!(
                "{name} stands twice in the query"
            )));
        }
    }
    Ok(query)
}

fn size(name: &str, value: &str) -> Result<usize, Refusal> {
    let size = value.parse().ok().filter(|size| *size > 0);
    size.ok_or_else(|| Refusal::malformed(format!("{name} is a number from 1 on")))
}

fn cursor_invalid() -> Refusal {
    Refusal::new(
        400,
        "cursor-invalid",
        "The cursor is not one of this server",
    )
    .detail("pull without a cursor to start again")
}

/// Why a cursor that this server made means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    Epoch,
    Rewound,
    Expired,
}

impl Gone {
    fn refusal(self) -> Refusal {
        let (word, title) = match self {
            Self::Epoch => ("epoch-changed", "The history has been replaced"),
            Self::Rewound => ("rewound", "The feed ends before the cursor"),
            Self::Expired => ("cursor-expired", "Deletions since the cursor are forgotten"),
        };
        Refusal::new(410, word, title).detail("pull without a cursor to start again")
    }
}

/// The server has made this cursor and does not remember: it was restored from a backup. Whatever
/// clients know of the lost positions must mean nothing, so a new history begins.
fn begin_anew<S: Storage>(
    service: &Service<S>,
    reader: &PageReader<'_>,
    cursor: &Cursor,
    now: Now,
) -> Result<(), StorageError> {
    service.storage.write(|tx| {
        let epoch = tx.epoch()?;
        let head = tx.head(reader.tenant, reader.scope)?;
        if epoch.as_str() == cursor.epoch && head < cursor.position {
            tracing::error!("a cursor lies beyond the head of its feed: a new history begins");
            tx.set_epoch(&service.mint.next_epoch(&epoch, now.unix_ms))?;
        }
        Ok(())
    })
}

struct PageReader<'a> {
    tenant: &'a str,
    scope: &'a Scope,
    limit: usize,
    bytes: usize,
}

/// A page that has been read, its changes already as they are sent.
struct Page {
    body: Vec<u8>,
    count: usize,
    position: i64,
    phase: PagePhase,
    at_head: bool,
    to_come: Option<u64>,
    next: Cursor,
}

impl PageReader<'_> {
    fn read(
        &self,
        tx: &dyn ReadTx,
        cursor: Option<&Cursor>,
    ) -> Result<Result<Page, Gone>, StorageError> {
        let epoch = tx.epoch()?;
        let head = tx.head(self.tenant, self.scope)?;
        if let Some(cursor) = cursor {
            let horizon = tx.horizon(self.tenant, self.scope)?;
            if let Err(gone) = check_cursor(cursor, epoch.as_str(), head, horizon) {
                return Ok(Err(gone));
            }
            crate::meter::behind(head - cursor.position);
        }
        let begin = Cursor {
            epoch: epoch.as_str().to_owned(),
            tenant: self.tenant.to_owned(),
            scope: self.scope.as_str().to_owned(),
            position: head,
            snapshot: None,
            to_come: None,
        };
        let page = match cursor {
            Some(from) if from.snapshot.is_none() => self.feed(tx, from, head),
            Some(from) => self.snapshot(tx, from, head),
            None => self.snapshot(tx, &begin, head),
        };
        page.map(Ok)
    }

    fn feed(&self, tx: &dyn ReadTx, from: &Cursor, head: i64) -> Result<Page, StorageError> {
        let mut lines = Lines::new(self.limit, self.bytes);
        let mut last = from.position;
        tx.feed(
            self.tenant,
            self.scope,
            from.position,
            self.limit.saturating_add(1),
            &mut |row| {
                lines.add(row)?;
                if let Some(key) = row.key {
                    tracing::debug!(key, position = row.seq, "sent");
                }
                last = row.seq;
                ControlFlow::Continue(())
            },
        )?;
        let at_head = !lines.cut;
        let position = if at_head { head } else { last };
        Ok(Page {
            body: lines.body,
            count: lines.count,
            position,
            phase: PagePhase::Feed,
            at_head,
            to_come: between(position, head),
            next: Cursor {
                position,
                ..from.clone()
            },
        })
    }

    fn snapshot(&self, tx: &dyn ReadTx, from: &Cursor, head: i64) -> Result<Page, StorageError> {
        let mut lines = Lines::new(self.limit, self.bytes);
        let mut last = from.snapshot.clone();
        let after = from.snapshot.as_ref();
        let after = after.map(|(entity_type, id)| (entity_type.as_str(), id.as_str()));
        tx.snapshot(
            self.tenant,
            self.scope,
            after,
            self.limit.saturating_add(1),
            &mut |row| {
                if lines.add(row).is_break() {
                    return ControlFlow::Break(());
                }
                if let Some(key) = row.key {
                    tracing::trace!(key, position = row.seq, "sent in a snapshot");
                }
                if lines.full() {
                    // Only the last row's key is needed; nearly all pages end by the count.
                    last = Some((row.entity_type.to_owned(), row.id.to_owned()));
                }
                ControlFlow::Continue(())
            },
        )?;
        let (phase, at_head, last) = if lines.cut {
            (PagePhase::Snapshot, false, last)
        } else {
            (PagePhase::SnapshotEnd, head == from.position, None)
        };
        let to_come = match (lines.cut, &from.snapshot) {
            (false, _) => None,
            (true, Some(_)) => from.to_come,
            (true, None) => Some(tx.scope_size(self.tenant, self.scope)?),
        };
        let to_come = to_come.map(|to_come| to_come.saturating_sub(lines.count as u64));
        let changed_since = between(from.position, head);
        Ok(Page {
            body: lines.body,
            count: lines.count,
            position: from.position,
            phase,
            at_head,
            to_come: match lines.cut {
                true => to_come.map(|rows| rows.saturating_add(changed_since.unwrap_or(0))),
                false => changed_since,
            },
            next: Cursor {
                snapshot: last,
                to_come,
                ..from.clone()
            },
        })
    }
}

/// How many entities of a feed have a position after `after`, at most.
fn between(after: i64, head: i64) -> Option<u64> {
    u64::try_from(head.saturating_sub(after)).ok()
}

fn check_cursor(cursor: &Cursor, epoch: &str, head: i64, horizon: i64) -> Result<(), Gone> {
    if cursor.epoch != epoch {
        return Err(Gone::Epoch);
    }
    if cursor.position > head {
        return Err(Gone::Rewound);
    }
    if cursor.position < horizon {
        return Err(Gone::Expired);
    }
    Ok(())
}

impl Page {
    fn finish(mut self, seal: impl FnOnce(Cursor) -> String) -> Result<Vec<u8>, Refusal> {
        let epoch = Some(Epoch::new(self.next.epoch.clone()));
        let end = PullLine::Page(PageEnd {
            epoch,
            cursor: seal(self.next),
            position: self.position,
            count: self.count,
            phase: self.phase,
            at_head: self.at_head,
            to_come: self.to_come.filter(|_| !self.at_head),
        });
        write_json(&mut self.body, &end);
        self.body.push(b'\n');
        Ok(self.body)
    }
}

/// The changes of a page as they are sent.
struct Lines {
    body: Vec<u8>,
    count: usize,
    limit: usize,
    most_bytes: usize,
    /// A change did not fit any more.
    cut: bool,
}

impl Lines {
    fn new(limit: usize, most_bytes: usize) -> Self {
        Self {
            body: Vec::new(),
            count: 0,
            limit,
            most_bytes,
            cut: false,
        }
    }

    fn full(&self) -> bool {
        self.count >= self.limit || self.body.len() >= self.most_bytes
    }

    /// Adds a change, or breaks when the page is full. The first always fits.
    fn add(&mut self, row: EntityRef<'_>) -> ControlFlow<()> {
        if self.full() {
            self.cut = true;
            return ControlFlow::Break(());
        }
        write_change(&mut self.body, row);
        self.count += 1;
        ControlFlow::Continue(())
    }
}

/// The line of [`PullLine::Change`], with the fields as the text they are kept as.
fn write_change(out: &mut Vec<u8>, row: EntityRef<'_>) {
    out.extend_from_slice(b"{\"change\":{\"type\":");
    write_json(out, row.entity_type);
    out.extend_from_slice(b",\"id\":");
    write_json(out, row.id);
    let op: &[u8] = match row.fields {
        Some(_) => b",\"op\":\"upsert\"",
        None => b",\"op\":\"delete\"",
    };
    out.extend_from_slice(op);
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        ",\"version\":\"{}\",\"position\":{}",
        row.version, row.seq
    );
    if let Some(key) = row.key {
        out.extend_from_slice(b",\"key\":");
        write_json(out, key);
    }
    if let Some(fields) = row.fields {
        out.extend_from_slice(b",\"fields\":");
        out.extend_from_slice(fields.as_bytes());
    }
    out.extend_from_slice(b"}}\n");
}

fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Neither texts nor a page's end can fail to be written to a Vec.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_protocol::{Change, ChangeKind, EntityId, Value};

    #[test]
    fn a_line_written_by_hand_is_the_line_of_the_protocol() {
        for fields in [
            None,
            Some([("ti\"tle", Value::from("milk\n")), ("n", Value::from(0.1))]),
        ] {
            let change = Change {
                entity_type: "ta\"sk".into(),
                id: EntityId::parse("mil\\k\u{e9}").unwrap(),
                kind: fields.clone().map_or(ChangeKind::Delete, |fields| {
                    ChangeKind::Upsert(fields.into_iter().collect())
                }),
                version: "7".into(),
                position: 6,
                key: fields.as_ref().map(|_| "k\"1".into()),
            };
            let text = match &change.kind {
                ChangeKind::Upsert(fields) => Some(serde_json::to_string(fields).unwrap()),
                ChangeKind::Delete => None,
            };
            let mut line = Vec::new();
            write_change(
                &mut line,
                EntityRef {
                    entity_type: change.entity_type.as_str(),
                    id: change.id.as_str(),
                    version: 7,
                    seq: 6,
                    fields: text.as_deref(),
                    key: change.key.as_ref().map(|key| key.as_str()),
                },
            );
            let expected = serde_json::to_string(&PullLine::Change(change)).unwrap() + "\n";
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }
}
