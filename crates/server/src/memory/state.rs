//! What the storage in memory holds, and how it is read.

use super::Result;
use crate::{
    Entity, EntityKey, EntityRef, Exchange, KeyRecord, OldKey, ReadTx, StorageError,
    StoredDefinition,
};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};

/// (tenant, type, id)
pub(super) type RowKey = (String, String, String);
/// (tenant, scope, seq)
type FeedKey = (String, String, i64);
/// (tenant, scope)
pub(super) type ScopeKey = (String, String);
/// (tenant, client, key)
pub(super) type RecordKey = (String, String, String);
/// (tenant, index, value, type, id)
pub(super) type IndexKey = (String, String, [u8; 32], String, String);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) epoch: String,
    pub(super) entities: BTreeMap<RowKey, Entity>,
    feed: BTreeMap<FeedKey, (String, String)>,
    pub(super) heads: BTreeMap<ScopeKey, i64>,
    pub(super) horizons: BTreeMap<ScopeKey, i64>,
    pub(super) records: BTreeMap<RecordKey, (i64, KeyRecord)>,
    pub(super) clients: BTreeMap<(String, String), String>,
    pub(super) types: BTreeMap<(String, String), Option<StoredDefinition>>,
    pub(super) exchanges: BTreeMap<(String, String), Exchange>,
    pub(super) watermarks: BTreeMap<(String, String), i64>,
    pub(super) last_ids: BTreeMap<(String, String), i64>,
    pub(super) index_rules: BTreeMap<(String, String), String>,
    pub(super) index: BTreeMap<IndexKey, ()>,
    pub(super) marks: BTreeMap<(String, String, i64), i64>,
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

pub(super) fn client_key(tenant: &str, client: &ClientId) -> (String, String) {
    (tenant.to_owned(), client.as_str().to_owned())
}

pub(super) fn type_key(tenant: &str, entity_type: &str) -> (String, String) {
    (tenant.to_owned(), entity_type.to_owned())
}

impl State {
    /// Everything, but for a failure that is planned.
    pub(super) fn copy(&self) -> Self {
        Self {
            epoch: self.epoch.clone(),
            entities: self.entities.clone(),
            feed: self.feed.clone(),
            heads: self.heads.clone(),
            horizons: self.horizons.clone(),
            records: self.records.clone(),
            clients: self.clients.clone(),
            types: self.types.clone(),
            exchanges: self.exchanges.clone(),
            watermarks: self.watermarks.clone(),
            last_ids: self.last_ids.clone(),
            index_rules: self.index_rules.clone(),
            index: self.index.clone(),
            marks: self.marks.clone(),
            failure: None,
        }
    }

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

    fn scope_size(&self, tenant: &str, scope: &Scope) -> Result<u64> {
        let own = self.entities.iter();
        let own = own.filter(|((owner, _, _), entity)| owner == tenant && &entity.scope == scope);
        Ok(own.count() as u64)
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
        let found = self.records.get(&record_key(tenant, client, key));
        Ok(found.map(|(_, record)| record.clone()))
    }

    fn client_subject(&self, tenant: &str, client: &ClientId) -> Result<Option<String>> {
        Ok(self.clients.get(&client_key(tenant, client)).cloned())
    }

    fn exchange(&self, tenant: &str, client: &ClientId) -> Result<Exchange> {
        let found = self.exchanges.get(&client_key(tenant, client));
        Ok(found.copied().unwrap_or_default())
    }

    fn key_watermark(&self, tenant: &str, client: &ClientId) -> Result<Option<i64>> {
        Ok(self.watermarks.get(&client_key(tenant, client)).copied())
    }

    fn old_keys(&self, before_ms: i64, limit: usize) -> Result<Vec<OldKey>> {
        let old = self.records.iter().filter(|(_, (at, _))| *at < before_ms);
        let old = old.map(|((tenant, client, key), _)| OldKey {
            tenant: tenant.clone(),
            client: ClientId::new(client.clone()),
            key: IdempotencyKey::new(key.clone()),
        });
        Ok(old.take(limit).collect())
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

    fn last_id(&self, tenant: &str, entity_type: &str) -> Result<i64> {
        let found = self.last_ids.get(&type_key(tenant, entity_type));
        Ok(found.copied().unwrap_or(0))
    }

    fn index_rules(&self, tenant: &str, entity_type: &str) -> Result<Option<String>> {
        Ok(self
            .index_rules
            .get(&type_key(tenant, entity_type))
            .cloned())
    }

    fn indexed(
        &self,
        tenant: &str,
        index: &str,
        value: &[u8; 32],
        limit: usize,
    ) -> Result<Vec<(String, String)>> {
        let from = (
            tenant.to_owned(),
            index.to_owned(),
            *value,
            String::new(),
            String::new(),
        );
        let found = self.index.range(from..).map(|(key, ())| key);
        let found = found.take_while(|(owner, name, hash, _, _)| {
            owner == tenant && name == index && hash == value
        });
        let names = found.map(|(_, _, _, entity_type, id)| (entity_type.clone(), id.clone()));
        Ok(names.take(limit).collect())
    }

    fn scopes(&self) -> Result<Vec<(String, Scope)>> {
        let all = self.heads.keys();
        Ok(all
            .map(|(tenant, scope)| (tenant.clone(), Scope::new(scope.clone())))
            .collect())
    }

    fn marked_head(&self, tenant: &str, scope: &Scope, before_ms: i64) -> Result<Option<i64>> {
        let (tenant, scope) = scope_key(tenant, scope);
        let range = (tenant.clone(), scope.clone(), i64::MIN)..(tenant, scope, before_ms);
        Ok(self.marks.range(range).next_back().map(|(_, head)| *head))
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
