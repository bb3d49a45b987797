//! A write transaction in memory: every change leaves behind how to undo it.

use super::Result;
use super::state::{RowKey, State, client_key, record_key, row_key, scope_key, type_key};
use crate::{
    Entity, EntityKey, EntityRef, Exchange, IndexEntry, KeyRecord, OldKey, ReadTx, StorageError,
    StoredDefinition, WriteTx,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};

type Undo = Box<dyn FnOnce(&mut State)>;
type Table<K, V> = fn(&mut State) -> &mut BTreeMap<K, V>;

pub(super) struct MemoryWrite<'a> {
    state: &'a mut State,
    undo: Vec<Undo>,
}

impl Drop for MemoryWrite<'_> {
    fn drop(&mut self) {
        for step in self.undo.drain(..).rev() {
            step(self.state);
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

impl<'a> MemoryWrite<'a> {
    pub(super) fn new(state: &'a mut State) -> Self {
        Self {
            state,
            undo: Vec::new(),
        }
    }

    /// Dropping it undoes nothing any more.
    pub(super) fn commit(mut self) {
        self.undo.clear();
    }

    fn count_operation(&mut self) -> Result<()> {
        match self.state.failure.take() {
            Some((0, error)) => Err(error),
            Some((left, error)) => {
                self.state.failure = Some((left - 1, error));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn set<K, V>(&mut self, table: Table<K, V>, key: K, value: Option<V>)
    where
        K: Ord + Clone + 'static,
        V: 'static,
    {
        let previous = put(table(self.state), key.clone(), value);
        let undo = move |state: &mut State| {
            put(table(state), key, previous);
        };
        self.undo.push(Box::new(undo));
    }

    fn set_entity(&mut self, key: RowKey, entity: Option<Entity>) {
        let previous = self.state.put(&key, entity);
        let undo = move |state: &mut State| {
            state.put(&key, previous);
        };
        self.undo.push(Box::new(undo));
    }
}

macro_rules! forward {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $result:ty;)*) => {
        impl ReadTx for MemoryWrite<'_> {
            $(fn $name(&self $(, $arg: $type)*) -> Result<$result> {
                self.state.$name($($arg),*)
            })*
        }
    };
}

forward! {
    fn epoch(&self) -> Epoch;
    fn head(&self, tenant: &str, scope: &Scope) -> i64;
    fn horizon(&self, tenant: &str, scope: &Scope) -> i64;
    fn scope_size(&self, tenant: &str, scope: &Scope) -> u64;
    fn entity(&self, key: EntityKey<'_>) -> Option<Entity>;
    fn key_record(&self, tenant: &str, client: &ClientId, key: &IdempotencyKey) -> Option<KeyRecord>;
    fn client_subject(&self, tenant: &str, client: &ClientId) -> Option<String>;
    fn exchange(&self, tenant: &str, client: &ClientId) -> Exchange;
    fn key_watermark(&self, tenant: &str, client: &ClientId) -> Option<i64>;
    fn old_keys(&self, before_ms: i64, limit: usize) -> Vec<OldKey>;
    fn entity_types(&self, tenant: &str) -> Vec<EntityType>;
    fn type_definitions(&self, tenant: &str) -> Vec<StoredDefinition>;
    fn last_id(&self, tenant: &str, entity_type: &str) -> i64;
    fn index_rules(&self, tenant: &str, entity_type: &str) -> Option<String>;
    fn indexed(&self, tenant: &str, index: &str, value: &[u8; 32], limit: usize) -> Vec<(String, String)>;
    fn scopes(&self) -> Vec<(String, Scope)>;
    fn marked_head(&self, tenant: &str, scope: &Scope, before_ms: i64) -> Option<i64>;
    fn feed(
        &self,
        tenant: &str,
        scope: &Scope,
        after: i64,
        limit: usize,
        visit: &mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>
    ) -> ();
    fn snapshot(
        &self,
        tenant: &str,
        scope: &Scope,
        after: Option<(&str, &str)>,
        limit: usize,
        visit: &mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>
    ) -> ();
}

impl WriteTx for MemoryWrite<'_> {
    fn bind_client(
        &mut self,
        tenant: &str,
        client: &ClientId,
        subject: &str,
        _now_ms: i64,
    ) -> Result<String> {
        self.count_operation()?;
        let key = client_key(tenant, client);
        if let Some(bound) = self.state.clients.get(&key) {
            return Ok(bound.clone());
        }
        self.set(|state| &mut state.clients, key, Some(subject.to_owned()));
        Ok(subject.to_owned())
    }

    fn put_exchange(&mut self, tenant: &str, client: &ClientId, exchange: Exchange) -> Result<()> {
        self.count_operation()?;
        let key = client_key(tenant, client);
        self.set(|state| &mut state.exchanges, key, Some(exchange));
        Ok(())
    }

    fn claim_key(
        &mut self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
    ) -> Result<Option<KeyRecord>> {
        self.count_operation()?;
        self.key_record(tenant, client, key)
    }

    fn record_outcome(
        &mut self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
        record: &KeyRecord,
        now_ms: i64,
    ) -> Result<()> {
        self.count_operation()?;
        let key = record_key(tenant, client, key);
        if self.state.records.contains_key(&key) {
            return Err(StorageError::internal("an outcome was recorded twice"));
        }
        let kept = (now_ms, record.clone());
        self.set(|state| &mut state.records, key, Some(kept));
        Ok(())
    }

    fn forget_key(&mut self, key: &OldKey, watermark: Option<i64>) -> Result<()> {
        self.count_operation()?;
        let OldKey {
            tenant,
            client,
            key,
        } = key;
        self.set(
            |state| &mut state.records,
            record_key(tenant, client, key),
            None,
        );
        let place = client_key(tenant, client);
        let known = self.state.watermarks.get(&place).copied();
        if watermark > known {
            self.set(|state| &mut state.watermarks, place, watermark);
        }
        Ok(())
    }

    fn register_entity_type(
        &mut self,
        tenant: &str,
        entity_type: &EntityType,
        _now_ms: i64,
    ) -> Result<()> {
        self.count_operation()?;
        let key = type_key(tenant, entity_type.as_str());
        if !self.state.types.contains_key(&key) {
            self.set(|state| &mut state.types, key, Some(None));
        }
        Ok(())
    }

    fn define_type(
        &mut self,
        tenant: &str,
        entity_type: &EntityType,
        definition: &StoredDefinition,
        _now_ms: i64,
    ) -> Result<()> {
        self.count_operation()?;
        let key = type_key(tenant, entity_type.as_str());
        let kept = Some(definition.clone());
        self.set(|state| &mut state.types, key, Some(kept));
        Ok(())
    }

    fn raise_last_id(&mut self, tenant: &str, entity_type: &str, id: i64) -> Result<()> {
        self.count_operation()?;
        if self.last_id(tenant, entity_type)? < id {
            let key = type_key(tenant, entity_type);
            self.set(|state| &mut state.last_ids, key, Some(id));
        }
        Ok(())
    }

    fn set_index_rules(
        &mut self,
        tenant: &str,
        entity_type: &str,
        rules: Option<&str>,
    ) -> Result<()> {
        self.count_operation()?;
        let key = type_key(tenant, entity_type);
        let rules = rules.map(str::to_owned);
        self.set(|state| &mut state.index_rules, key, rules);
        let old = self
            .state
            .index
            .keys()
            .filter(|(owner, _, _, name, _)| owner == tenant && name == entity_type);
        for key in old.cloned().collect::<Vec<_>>() {
            self.set(|state| &mut state.index, key, None);
        }
        Ok(())
    }

    fn put_indexed(&mut self, tenant: &str, entry: &IndexEntry) -> Result<()> {
        self.count_operation()?;
        let key = state_index_key(tenant, entry);
        self.set(|state| &mut state.index, key, Some(()));
        Ok(())
    }

    fn remove_indexed(&mut self, tenant: &str, entry: &IndexEntry) -> Result<()> {
        self.count_operation()?;
        let key = state_index_key(tenant, entry);
        self.set(|state| &mut state.index, key, None);
        Ok(())
    }

    fn bump_head(&mut self, tenant: &str, scope: &Scope, count: i64) -> Result<i64> {
        self.count_operation()?;
        let head = self.head(tenant, scope)? + count;
        self.set(
            |state| &mut state.heads,
            scope_key(tenant, scope),
            Some(head),
        );
        Ok(head)
    }

    fn put_entity(&mut self, key: EntityKey<'_>, entity: &Entity) -> Result<()> {
        self.count_operation()?;
        self.set_entity(row_key(key), Some(entity.clone()));
        Ok(())
    }

    fn raise_horizon(&mut self, tenant: &str, scope: &Scope, horizon: i64) -> Result<()> {
        self.count_operation()?;
        if self.horizon(tenant, scope)? >= horizon {
            return Ok(());
        }
        self.set(
            |state| &mut state.horizons,
            scope_key(tenant, scope),
            Some(horizon),
        );
        let buried: Vec<RowKey> = self
            .state
            .entities
            .iter()
            .filter(|((owner, _, _), entity)| owner == tenant && &entity.scope == scope)
            .filter(|(_, entity)| entity.fields.is_none() && entity.seq <= horizon)
            .map(|(key, _)| key.clone())
            .collect();
        for key in buried {
            self.set_entity(key, None);
        }
        Ok(())
    }

    fn mark_head(&mut self, tenant: &str, scope: &Scope, now_ms: i64) -> Result<()> {
        self.count_operation()?;
        let head = self.head(tenant, scope)?;
        let (tenant, scope) = scope_key(tenant, scope);
        let key = (tenant, scope, now_ms);
        self.set(|state| &mut state.marks, key, Some(head));
        Ok(())
    }

    fn forget_marks(&mut self, tenant: &str, scope: &Scope, before_ms: i64) -> Result<()> {
        self.count_operation()?;
        let (tenant, scope) = scope_key(tenant, scope);
        let range = (tenant.clone(), scope.clone(), i64::MIN)..(tenant, scope, before_ms);
        let old = self.state.marks.range(range).map(|(key, _)| key.clone());
        for key in old.collect::<Vec<_>>() {
            self.set(|state| &mut state.marks, key, None);
        }
        Ok(())
    }

    fn set_epoch(&mut self, epoch: &Epoch) -> Result<()> {
        self.count_operation()?;
        let previous = std::mem::replace(&mut self.state.epoch, epoch.as_str().to_owned());
        self.undo.push(Box::new(|state| state.epoch = previous));
        let clients: Vec<_> = self.state.exchanges.keys().cloned().collect();
        for client in clients {
            self.set(|state| &mut state.exchanges, client, None);
        }
        Ok(())
    }
}

fn state_index_key(tenant: &str, entry: &IndexEntry) -> super::state::IndexKey {
    (
        tenant.to_owned(),
        entry.index.clone(),
        entry.value,
        entry.entity_type.clone(),
        entry.id.clone(),
    )
}
