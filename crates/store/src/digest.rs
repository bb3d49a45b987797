//! What is here, hashed as the server hashes what it has, and how the two are compared.
//!
//! Reads only. A row can be compared when it is "as of the applied position" and nothing else: those
//! with unsettled mutations, with a change in the inbox, an open conflict, a held removal, or an own
//! push ahead of the cursor stand apart. What differs is said; who is right is not decided here.

use crate::captured;
use crate::error::StoreError;
use crate::identity;
use crate::meta;
use crate::row;
use crate::stage;
use crate::state;
use crate::store::{EntityTypes, RegisteredType};
use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Bound;
use syncline_core::EntityRef;
use syncline_protocol::{
    Change, ChangeKind, ClientId, ContentHash, EntityId, EntityType, Epoch, Fields, RangeHasher,
    Scope, Value,
};

/// Everything that can be compared, as of one moment.
#[derive(Debug, Clone)]
pub struct LocalDigest {
    /// The history that the position belongs to.
    pub epoch: Epoch,
    /// The scope that was pulled.
    pub scope: Scope,
    /// The applied position: what the rows reflect.
    pub position: i64,
    /// The synced types, by name.
    pub types: Vec<LocalType>,
}

/// The rows of one type.
#[derive(Debug, Clone)]
pub struct LocalType {
    /// The entity type.
    pub name: EntityType,
    /// The fields that are compared, in order: those of the synced columns.
    pub fields: Vec<String>,
    /// By id as bytes.
    rows: Vec<(EntityId, ContentHash)>,
    apart: BTreeMap<EntityId, Apart>,
    /// Rows with a key that cannot be synced.
    pub unsyncable: u64,
}

/// Why a row cannot be compared now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Apart {
    /// It has mutations that are not settled.
    Pending,
    /// A change of it waits in the inbox, or for a checkpoint.
    Inbox,
    /// A conflict of it is open.
    Conflict,
    /// Its removal is held.
    Held,
    /// It was pushed, and the feed was not read that far.
    Ahead,
}

/// A row that is not what the server has, although it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// Which one.
    pub entity: EntityRef,
    /// How it differs.
    pub kind: DivergenceKind,
    /// The fields that differ, where both sides have the row.
    pub fields: Vec<String>,
    /// The row here as it was compared; `None`: it is not here.
    pub(crate) here: Option<ContentHash>,
    /// What the server has; `None`: it knows nothing of it.
    pub(crate) remote: Option<Change>,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DivergenceKind {
    /// Both have it, with other values.
    Differs,
    /// The server has it, and it is not here.
    MissingHere,
    /// It is here, and the server does not have it.
    MissingOnServer,
}

/// The installation's id.
///
/// # Errors
/// [`StoreError::NotAttached`].
pub fn client_id(conn: &Connection) -> Result<ClientId, StoreError> {
    identity::client_id(conn)
}

/// What is here; `None`: not everything was pulled once, so there is nothing to compare.
pub fn read(conn: &Connection) -> Result<Option<LocalDigest>, StoreError> {
    meta::require_readable(conn)?;
    let tx = conn.unchecked_transaction()?;
    let Some((epoch, scope, position)) = applied(&tx)? else {
        return Ok(None);
    };
    let types = EntityTypes::load(&tx)?;
    let mut apart = apart(&tx)?;
    let mut digest = LocalDigest {
        epoch: Epoch::new(epoch),
        scope: Scope::new(scope),
        position,
        types: Vec::new(),
    };
    for own in types.iter() {
        let apart = apart.remove(&own.name).unwrap_or_default();
        digest.types.push(LocalType::read(&tx, own, apart)?);
    }
    Ok(Some(digest))
}

/// Epoch, scope and position of what is applied.
fn applied(conn: &Connection) -> Result<Option<(String, String, i64)>, StoreError> {
    let sql = "SELECT epoch, scope, position FROM syncline_cursor WHERE phase = 'feed'";
    let found = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    Ok(found.optional()?)
}

/// What stands apart, by type.
fn apart(conn: &Connection) -> Result<BTreeMap<String, BTreeMap<EntityId, Apart>>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT entity_type, entity_id, 4 FROM syncline_entity_state
         UNION ALL SELECT entity_type, entity_id, 3 FROM syncline_held
         UNION ALL SELECT entity_type, entity_id, 0 FROM syncline_outbox
         UNION ALL SELECT entity_type, entity_id, 1 FROM syncline_inbox
         UNION ALL SELECT entity_type, entity_id, 1 FROM syncline_staged WHERE entity_id IS NOT NULL
         UNION ALL SELECT entity_type, entity_id, 2 FROM syncline_conflict WHERE resolved_at IS NULL",
    )?;
    let mut rows = statement.query([])?;
    let mut all: BTreeMap<String, BTreeMap<EntityId, Apart>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        // What is no id is no row that could be compared.
        let Ok(id) = EntityId::parse(captured::recorded_id(row, 1)?) else {
            continue;
        };
        let why = match row.get::<_, i64>(2)? {
            0 => Apart::Pending,
            1 => Apart::Inbox,
            2 => Apart::Conflict,
            3 => Apart::Held,
            _ => Apart::Ahead,
        };
        all.entry(row.get(0)?).or_default().insert(id, why);
    }
    Ok(all)
}

impl LocalType {
    fn read(
        conn: &Connection,
        own: &RegisteredType,
        apart: BTreeMap<EntityId, Apart>,
    ) -> Result<Self, StoreError> {
        let (mut rows, mut unsyncable) = (Vec::new(), 0);
        row::for_each(conn, &own.table, |id, fields| {
            match id {
                Ok(id) if apart.contains_key(&id) => {}
                Ok(id) => rows.push((id, ContentHash::of_compared(&fields, None))),
                Err(_) => unsyncable += 1,
            }
            Ok(())
        })?;
        rows.sort_unstable_by(|one: &(EntityId, ContentHash), other| one.0.cmp(&other.0));
        let mut fields: Vec<String> = (own.table.columns.iter())
            .map(|column| column.field.clone())
            .collect();
        fields.sort_unstable();
        Ok(Self {
            name: own.entity_type(),
            fields,
            rows,
            apart,
            unsyncable,
        })
    }

    /// How many rows can be compared.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row can be compared.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Why rows stand apart, and how many.
    pub fn apart(&self) -> BTreeMap<Apart, u64> {
        let mut counts = BTreeMap::new();
        for why in self.apart.values() {
            *counts.entry(*why).or_default() += 1;
        }
        counts
    }

    /// Whether a row stands apart.
    pub fn is_apart(&self, id: &EntityId) -> bool {
        self.apart.contains_key(id)
    }

    /// The rows from behind `after` to `until` (without: to the last) that can be compared.
    pub fn rows(
        &self,
        after: Option<&EntityId>,
        until: Option<&EntityId>,
    ) -> &[(EntityId, ContentHash)] {
        let up_to = |id: &EntityId| self.rows.partition_point(|(one, _)| one <= id);
        let (from, to) = (after.map_or(0, up_to), until.map_or(self.rows.len(), up_to));
        self.rows.get(from..to).unwrap_or_default()
    }

    /// The hash of those rows; `None`: one that stands apart is among them.
    pub fn hash(&self, after: Option<&EntityId>, until: &EntityId) -> Option<ContentHash> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut apart = (self.apart).range::<EntityId, _>((from, Bound::Included(until)));
        if apart.next().is_some() {
            return None;
        }
        let mut hasher = RangeHasher::default();
        for (id, hash) in self.rows(after, Some(until)) {
            hasher.add(id.as_str(), *hash);
        }
        Some(hasher.finish())
    }
}

/// Looks at one row again, in full: whether it is what the server has, as far as its table can tell.
/// `remote` is what the server has at most at the digest's position; `None`: nothing. What was
/// written meanwhile does not diverge.
pub fn judge(
    conn: &Connection,
    digest: &LocalDigest,
    entity: &EntityRef,
    remote: Option<&Change>,
) -> Result<Option<Divergence>, StoreError> {
    let tx = conn.unchecked_transaction()?;
    let moved = applied(&tx)?.is_none_or(|(_, _, position)| position != digest.position);
    let types = EntityTypes::load(&tx)?;
    let Some(own) = types.get(entity.entity_type.as_str()).filter(|_| !moved) else {
        return Ok(None);
    };
    if !is_clean(&tx, entity)? {
        return Ok(None);
    }
    let here = row::read(&tx, &own.table, &entity.id)?;
    let there = match remote.map(|change| &change.kind) {
        Some(ChangeKind::Upsert(fields)) => Some(fields),
        Some(ChangeKind::Delete) | None => None,
    };
    let (kind, fields) = match (&here, there) {
        (None, None) => return Ok(None),
        (None, Some(_)) => (DivergenceKind::MissingHere, Vec::new()),
        (Some(_), None) => (DivergenceKind::MissingOnServer, Vec::new()),
        (Some(here), Some(there)) => match differing(&tx, own, here, there)? {
            fields if fields.is_empty() => return Ok(None),
            fields => (DivergenceKind::Differs, fields),
        },
    };
    Ok(Some(Divergence {
        entity: entity.clone(),
        kind,
        fields,
        here: here.map(|fields| ContentHash::of_compared(&fields, None)),
        remote: remote.cloned(),
    }))
}

/// Whether the row is "as of the applied position" and nothing of it waits.
pub(crate) fn is_clean(conn: &Connection, entity: &EntityRef) -> Result<bool, StoreError> {
    let view = state::view(conn, entity)?;
    let waits = view.dirty || view.conflict_open || view.held || view.waiting.is_some();
    Ok(!waits && view.reflects.is_none() && !stage::holds(conn, entity)?)
}

/// The synced fields in which a row is not what the server has. What the server does not mention is
/// what a column holds when nobody gave it a value.
fn differing(
    conn: &Connection,
    own: &RegisteredType,
    here: &Fields,
    there: &Fields,
) -> Result<Vec<String>, StoreError> {
    let mut fields = Vec::new();
    for column in &own.table.columns {
        let value = here.get(&column.field).unwrap_or(&Value::Null);
        let same = match there.get(&column.field) {
            Some(other) => is_same(value, other),
            None => value.is_null() || row::is_default(conn, column, value)?,
        };
        if !same {
            fields.push(column.field.clone());
        }
    }
    Ok(fields)
}

/// Whether two values are the same as far as a column can tell: one that takes numbers as text, or
/// text as numbers, turns them into each other.
fn is_same(one: &Value, other: &Value) -> bool {
    let alone = |value| ContentHash::of_fields([("", value)]);
    match (one, other) {
        (Value::Integer(integer), Value::Text(text))
        | (Value::Text(text), Value::Integer(integer)) => *text == integer.to_string(),
        _ => alone(one) == alone(other),
    }
}
