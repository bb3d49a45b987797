//! What the storage in memory holds, and how it is read.

use crate::{Entity, EntityKey, EntityRef, KeyRecord, ReadTx, StorageError, StoredDefinition};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};

type Result<T> = std::result::Result<T, StorageError>;
/// (tenant, type, id)
pub(super) type RowKey = (String, String, String);
/// (tenant, scope, seq)
type FeedKey = (String, String, i64);
/// (tenant, scope)
pub(super) type ScopeKey = (String, String);
/// (tenant, client, key)
pub(super) type RecordKey = (String, String, String);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) epoch: String,
    pub(super) entities: BTreeMap<RowKey, Entity>,
    feed: BTreeMap<FeedKey, (String, String)>,
    pub(super) heads: BTreeMap<ScopeKey, i64>,
    pub(super) horizons: BTreeMap<ScopeKey, i64>,
    pub(super) records: BTreeMap<RecordKey, KeyRecord>,
    pub(super) clients: BTreeMap<(String, String), String>,
    pub(super) types: BTreeMap<(String, String), Option<StoredDefinition>>,
    /// Write operations that still succeed before the planned failure.
    pub(super) failure: Option<(usize, StorageError)>,
}

pub(super) fn row_key(key: EntityKey<'_>) -> RowKey {
    (
        key.tenant.to_owned(),
        key.entity_type.to_owned(),
        key.id.to_owned(),
    )
}

pub(super) fn scope_key(tenant: &str, scope: &Scope) -> ScopeKey {
    (tenant.to_owned(), scope.as_str().to_owned())
}

pub(super) fn record_key(tenant: &str, client: &ClientId, key: &IdempotencyKey) -> RecordKey {
    (
        tenant.to_owned(),
        client.as_str().to_owned(),
        key.as_str().to_owned(),
    )
}

impl State {
    pub(super) fn put(&mut self, key: &RowKey, entity: Option<Entity>) -> Option<Entity> {
        match entity {
            Some(entity) => {
                let place = (key.0.clone(), entity.scope.as_str().to_owned(), entity.seq);
                let previous = self.entities.insert(key.clone(), entity);
                self.forget_place(&key.0, previous.as_ref());
                self.feed.insert(place, (key.1.clone(), key.2.clone()));
                previous
            }
            None => {
                let previous = self.entities.remove(key);
                self.forget_place(&key.0, previous.as_ref());
                previous
            }
        }
    }

    fn forget_place(&mut self, tenant: &str, entity: Option<&Entity>) {
        if let Some(entity) = entity {
            let place = (
                tenant.to_owned(),
                entity.scope.as_str().to_owned(),
                entity.seq,
            );
            self.feed.remove(&place);
        }
    }
}

fn show<'a>(entity_type: &'a str, id: &'a str, entity: &'a Entity) -> EntityRef<'a> {
    EntityRef {
        entity_type,
        id,
        version: entity.version,
        seq: entity.seq,
        fields: entity.fields.as_deref(),
        key: entity.key.as_ref().map(IdempotencyKey::as_str),
    }
}

impl ReadTx for State {
    fn epoch(&self) -> Result<Epoch> {
        Ok(Epoch::new(self.epoch.clone()))
    }

    fn head(&self, tenant: &str, scope: &Scope) -> Result<i64> {
        Ok(self
            .heads
            .get(&scope_key(tenant, scope))
            .copied()
            .unwrap_or(0))
    }

    fn horizon(&self, tenant: &str, scope: &Scope) -> Result<i64> {
        Ok(self
            .horizons
            .get(&scope_key(tenant, scope))
            .copied()
            .unwrap_or(0))
    }

    fn entity(&self, key: EntityKey<'_>) -> Result<Option<Entity>> {
        Ok(self.entities.get(&row_key(key)).cloned())
    }

    fn key_record(
        &self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
    ) -> Result<Option<KeyRecord>> {
        Ok(self.records.get(&record_key(tenant, client, key)).cloned())
    }

    fn client_subject(&self, tenant: &str, client: &ClientId) -> Result<Option<String>> {
        let client = (tenant.to_owned(), client.as_str().to_owned());
        Ok(self.clients.get(&client).cloned())
    }

    fn entity_types(&self, tenant: &str) -> Result<Vec<EntityType>> {
        let own = self.types.keys().filter(|(owner, _)| owner == tenant);
        Ok(own.map(|(_, name)| EntityType::new(name.clone())).collect())
    }

    fn type_definitions(&self, tenant: &str) -> Result<Vec<StoredDefinition>> {
        let own = self.types.iter().filter(|((owner, _), _)| owner == tenant);
        Ok(own
            .filter_map(|(_, definition)| definition.clone())
            .collect())
    }

    fn feed(
        &self,
        tenant: &str,
        scope: &Scope,
        after: i64,
        limit: usize,
        visit: &mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (tenant, scope) = scope_key(tenant, scope);
        let from = Bound::Excluded((tenant.clone(), scope.clone(), after));
        let to = Bound::Included((tenant.clone(), scope, i64::MAX));
        if after == i64::MAX {
            return Ok(());
        }
        for (_, (entity_type, id)) in self.feed.range((from, to)).take(limit) {
            let key = (tenant.clone(), entity_type.clone(), id.clone());
            let Some(entity) = self.entities.get(&key) else {
                continue;
            };
            if visit(show(entity_type, id, entity)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn snapshot(
        &self,
        tenant: &str,
        scope: &Scope,
        after: Option<(&str, &str)>,
        limit: usize,
        visit: &mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (entity_type, id) = after.unwrap_or(("", ""));
        let from = Bound::Excluded((tenant.to_owned(), entity_type.to_owned(), id.to_owned()));
        let own = self
            .entities
            .range((from, Bound::Unbounded))
            .take_while(|((owner, _, _), _)| owner == tenant)
            .filter(|(_, entity)| &entity.scope == scope && entity.fields.is_some());
        for ((_, entity_type, id), entity) in own.take(limit) {
            if visit(show(entity_type, id, entity)).is_break() {
                break;
            }
        }
        Ok(())
    }
}
