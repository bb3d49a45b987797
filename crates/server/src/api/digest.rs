//! `GET /v1/digest`: what the server has of a type, in hashes, for a client that looks for where it
//! differs.
//!
//! ```text
//!  type=T [after=ID]          the hash of each range of neighbours, many ranges at once
//!  type=T after=ID until=ID   id, position and hash of each entity of one range
//!  type=T ids=[ID,…]          these entities in full, as a pull would bring them
//! ```
//!
//! A range is a run of ids in the order of bytes, which is the order in which the storage has them: so
//! an answer costs what is in it, nothing is kept for a digest, and writes pay nothing for it. All of
//! an answer is read in one snapshot of the storage, whose head it names. Decides nothing about who
//! is right.

use super::{default_scope, json};
use crate::problems::Refusal;
use crate::{
    EntityKey, EntityRef, Identity, ReadTx, Request, Response, Service, Storage, StorageError,
};
use std::ops::ControlFlow;
use syncline_protocol::{
    Change, ChangeKind, ContentHash, DIGEST_IDS, DigestChanges, DigestEntities, DigestEntity,
    DigestRange, DigestRanges, EntityId, EntityType, Fields, RangeHasher, Scope, ServerVersion,
};

/// Entities of a range.
const RANGE: usize = 64;
/// Entities that one answer is made from at most.
const MOST_ENTITIES: usize = 8_192;
/// Bytes of content that one answer is made from, by at most one entity more.
const MOST_BYTES: usize = 8 << 20;

#[derive(Default)]
struct Query {
    scope: Option<String>,
    entity_type: Option<String>,
    after: Option<EntityId>,
    until: Option<EntityId>,
    ids: Option<Vec<EntityId>>,
    /// In order.
    fields: Option<Vec<String>>,
}

pub(crate) fn digest<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
) -> Result<Response, Refusal> {
    let query = parse(&request.query)?;
    let scope = default_scope();
    if query.scope.is_some_and(|asked| asked != scope.as_str()) {
        return Err(Refusal::scope_forbidden());
    }
    let Some(entity_type) = query.entity_type else {
        return Err(Refusal::malformed("type names the entity type"));
    };
    let reader = Reader {
        tenant: &identity.principal.tenant,
        scope: &scope,
        entity_type: &entity_type,
        fields: query.fields.as_deref(),
    };
    let after = query.after.as_ref().map_or("", EntityId::as_str);
    let storage = &service.storage;
    match (query.ids, query.until) {
        (Some(ids), None) if query.after.is_none() => {
            json(&storage.read(|tx| reader.changes(tx, &ids))?)
        }
        (None, Some(until)) => json(&storage.read(|tx| reader.entities(tx, after, &until))?),
        (None, None) => json(&storage.read(|tx| reader.ranges(tx, after))?),
        (Some(_), _) => Err(Refusal::malformed(
            "ids stands alone, without after and until",
        )),
    }
}

fn parse(text: &str) -> Result<Query, Refusal> {
    let mut query = Query::default();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let twice = match name.as_ref() {
            "scope" => query.scope.replace(value.into_owned()).is_some(),
            "type" => query.entity_type.replace(value.into_owned()).is_some(),
            "after" => query.after.replace(id(&value)?).is_some(),
            "until" => query.until.replace(id(&value)?).is_some(),
            "ids" => {
                let ids: Vec<EntityId> = serde_json::from_str(&value)
                    .map_err(|_| Refusal::malformed("ids is a JSON array of entity ids"))?;
                if ids.len() > DIGEST_IDS {
                    let most = format!("ids names at most {DIGEST_IDS} entities");
                    return Err(Refusal::malformed(most));
                }
                query.ids.replace(ids).is_some()
            }
            "fields" => {
                let mut fields: Vec<String> = serde_json::from_str(&value)
                    .map_err(|_| Refusal::malformed("fields is a JSON array of names"))?;
                fields.sort_unstable();
                query.fields.replace(fields).is_some()
            }
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

fn id(text: &str) -> Result<EntityId, Refusal> {
    EntityId::parse(text)
        .map_err(|error| Refusal::malformed(format!("after and until are ids: {error}")))
}

struct Reader<'a> {
    tenant: &'a str,
    scope: &'a Scope,
    entity_type: &'a str,
    fields: Option<&'a [String]>,
}

/// A live entity, hashed.
struct Hashed {
    id: EntityId,
    position: i64,
    hash: ContentHash,
}

impl Reader<'_> {
    fn ranges(&self, tx: &dyn ReadTx, after: &str) -> Result<DigestRanges, StorageError> {
        let (mut ranges, mut current) = (Vec::new(), RangeHasher::default());
        let mut last = None;
        let close = |hasher: &mut RangeHasher, until: EntityId| {
            let hasher = std::mem::take(hasher);
            DigestRange {
                until,
                count: hasher.count(),
                hash: hasher.finish(),
            }
        };
        let more = self.walk(tx, after, None, MOST_ENTITIES, |entity| {
            current.add(entity.id.as_str(), entity.hash);
            last = Some(entity.id);
            if current.count() == RANGE {
                ranges.extend(last.take().map(|until| close(&mut current, until)));
            }
        })?;
        ranges.extend(last.take().map(|until| close(&mut current, until)));
        Ok(DigestRanges {
            epoch: tx.epoch()?,
            position: tx.head(self.tenant, self.scope)?,
            ranges,
            more,
        })
    }

    fn entities(
        &self,
        tx: &dyn ReadTx,
        after: &str,
        until: &EntityId,
    ) -> Result<DigestEntities, StorageError> {
        let mut entities = Vec::new();
        let more = self.walk(tx, after, Some(until.as_str()), MOST_ENTITIES, |entity| {
            entities.push(DigestEntity {
                id: entity.id,
                position: entity.position,
                hash: entity.hash,
            });
        })?;
        Ok(DigestEntities {
            epoch: tx.epoch()?,
            position: tx.head(self.tenant, self.scope)?,
            entities,
            more,
        })
    }

    /// Visits the type's live entities from behind `after` to `until`; whether there are more than
    /// one answer is made from.
    fn walk(
        &self,
        tx: &dyn ReadTx,
        after: &str,
        until: Option<&str>,
        most: usize,
        mut visit: impl FnMut(Hashed),
    ) -> Result<bool, StorageError> {
        let (mut count, mut bytes, mut more, mut unreadable) = (0, 0, false, None);
        let from = Some((self.entity_type, after));
        tx.snapshot(
            self.tenant,
            self.scope,
            from,
            most.saturating_add(1),
            &mut |row| {
                let beyond = until.is_some_and(|until| row.id > until);
                if row.entity_type != self.entity_type || beyond {
                    return ControlFlow::Break(());
                }
                if count >= most || bytes >= MOST_BYTES {
                    more = true;
                    return ControlFlow::Break(());
                }
                count += 1;
                bytes += row.fields.map_or(0, str::len);
                match self.hashed(row) {
                    Ok(entity) => {
                        visit(entity);
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        unreadable = Some(error);
                        ControlFlow::Break(())
                    }
                }
            },
        )?;
        match unreadable {
            Some(error) => Err(error),
            None => Ok(more),
        }
    }

    fn hashed(&self, row: EntityRef<'_>) -> Result<Hashed, StorageError> {
        let fields = read_fields(row.fields.unwrap_or("{}"))?;
        Ok(Hashed {
            id: EntityId::parse(row.id).map_err(StorageError::internal)?,
            position: row.seq,
            hash: ContentHash::of_compared(&fields, self.fields),
        })
    }

    fn changes(&self, tx: &dyn ReadTx, ids: &[EntityId]) -> Result<DigestChanges, StorageError> {
        let mut changes = Vec::new();
        for id in ids {
            let key = EntityKey {
                tenant: self.tenant,
                entity_type: self.entity_type,
                id: id.as_str(),
            };
            let Some(entity) = tx.entity(key)?.filter(|one| one.scope == *self.scope) else {
                continue;
            };
            let kind = match &entity.fields {
                Some(fields) => ChangeKind::Upsert(read_fields(fields)?),
                None => ChangeKind::Delete,
            };
            changes.push(Change {
                entity_type: EntityType::new(self.entity_type),
                id: id.clone(),
                kind,
                version: ServerVersion::new(entity.version.to_string()),
                position: entity.seq,
                key: entity.key,
            });
        }
        Ok(DigestChanges {
            epoch: tx.epoch()?,
            position: tx.head(self.tenant, self.scope)?,
            changes,
        })
    }
}

/// What was kept was read before it was.
fn read_fields(text: &str) -> Result<Fields, StorageError> {
    serde_json::from_str(text).map_err(StorageError::internal)
}
