//! `GET /v1/pull`: pages of changes as NDJSON, one [`PullLine`] a line.

use crate::{EntityId, EntityType, Epoch, Fields, IdempotencyKey, ServerVersion};
use serde::{Deserialize, Serialize, Serializer};

/// Content type of a pull's answer.
pub const CONTENT_TYPE_PAGES: &str = "application/x-ndjson";

/// One line: the changes of a page, then its end. An answer that is cut before a page's end
/// line has no page: what came of it is thrown away and asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullLine {
    /// One change.
    Change(Change),
    /// The end of the page.
    Page(PageEnd),
}

/// The state of one entity as it is after its last change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ReadChange")]
pub struct Change {
    /// The entity's registered type.
    pub entity_type: EntityType,
    /// The entity.
    pub id: EntityId,
    /// Alive or gone.
    pub kind: ChangeKind,
    /// Its version.
    pub version: ServerVersion,
    /// Its position in the scope's feed.
    pub position: i64,
    /// The key of the mutation that wrote it last, when that was a mutation.
    pub key: Option<IdempotencyKey>,
}

/// Whether the entity is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is (`"op":"upsert"`), with these fields: all of them.
    Upsert(Fields),
    /// It is not (`"op":"delete"`).
    Delete,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChangeOp {
    Upsert,
    Delete,
}

/// The wire's shape of a change. Not `flatten`: that would build a tree of every row first.
#[derive(Deserialize)]
struct ReadChange {
    #[serde(rename = "type")]
    entity_type: EntityType,
    id: EntityId,
    op: ChangeOp,
    version: ServerVersion,
    position: i64,
    #[serde(default)]
    key: Option<IdempotencyKey>,
    #[serde(default)]
    fields: Option<Fields>,
}

#[derive(Serialize)]
struct WriteChange<'a> {
    #[serde(rename = "type")]
    entity_type: &'a EntityType,
    id: &'a EntityId,
    op: ChangeOp,
    version: &'a ServerVersion,
    position: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a IdempotencyKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a Fields>,
}

impl TryFrom<ReadChange> for Change {
    type Error = &'static str;

    fn try_from(read: ReadChange) -> Result<Self, Self::Error> {
        let kind = match (read.op, read.fields) {
            (ChangeOp::Upsert, Some(fields)) => ChangeKind::Upsert(fields),
            (ChangeOp::Delete, None) => ChangeKind::Delete,
            (ChangeOp::Upsert, None) => return Err("an upsert needs its fields"),
            (ChangeOp::Delete, Some(_)) => return Err("a delete has no fields"),
        };
        Ok(Self {
            entity_type: read.entity_type,
            id: read.id,
            kind,
            version: read.version,
            position: read.position,
            key: read.key,
        })
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (op, fields) = match &self.kind {
            ChangeKind::Upsert(fields) => (ChangeOp::Upsert, Some(fields)),
            ChangeKind::Delete => (ChangeOp::Delete, None),
        };
        WriteChange {
            entity_type: &self.entity_type,
            id: &self.id,
            op,
            version: &self.version,
            position: self.position,
            key: self.key.as_ref(),
            fields,
        }
        .serialize(serializer)
    }
}

/// The end of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageEnd {
    /// Where to go on; opaque.
    pub cursor: String,
    /// The position that every row of the scope reflects once this page is applied. In the middle
    /// of a snapshot that is not yet true: it holds from the snapshot's last page on.
    pub position: i64,
    /// How many changes the page has, so that a cut is noticed.
    pub count: usize,
    /// The part of the pull that the page belongs to.
    pub phase: PagePhase,
    /// The page reached the head of the feed as the server read it.
    pub at_head: bool,
    /// About how many changes are still to come after this page, at most; `None`: the server does
    /// not say. For people only: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_come: Option<u64>,
    /// The history that the page is of; `None`: the server does not say. A page without a cursor before
    /// it follows nothing, so nothing else shows that the history is another one than was greeted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// A pull without a cursor starts with a snapshot and goes on with the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PagePhase {
    /// Live entities in key order, pinned to a head position; more pages of it follow.
    Snapshot,
    /// The last page of the snapshot; from here on the feed.
    SnapshotEnd,
    /// Changes in feed order.
    Feed,
}
