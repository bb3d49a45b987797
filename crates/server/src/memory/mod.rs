//! A storage in memory, for tests and the simulator: it forgets everything with the process.
//!
//! One lock over everything makes each transaction run alone. A transaction that fails is undone
//! from a list of what it replaced, so nothing is copied up front. Never used to serve people.

mod state;

use state::{RecordKey, RowKey, ScopeKey, State, record_key, row_key, scope_key};

use crate::{
    Entity, EntityKey, EntityRef, KeyRecord, ReadTx, Storage, StorageError, StoredDefinition,
    WriteTx,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};

type Result<T> = std::result::Result<T, StorageError>;
/// See the module.
#[derive(Debug)]
pub struct MemoryStorage {
    state: Mutex<State>,
}

enum Undo {
    Entity(RowKey, Option<Entity>),
    Head(ScopeKey, Option<i64>),
    Horizon(ScopeKey, Option<i64>),
    Record(RecordKey),
    Client((String, String)),
    Type((String, String), Option<Option<StoredDefinition>>),
    Epoch(String),
}

impl MemoryStorage {
    /// An empty storage whose history has this identity.
    pub fn new(epoch: &str) -> Self {
        let mut state = State::default();
        epoch.clone_into(&mut state.epoch);
        Self {
            state: Mutex::new(state),
        }
    }

    /// Lets the write operation after the next `operations` ones fail, once, with `error`: the
    /// transaction it belongs to is undone.
    pub fn fail_after(&self, operations: usize, error: StorageError) {
        self.lock().failure = Some((operations, error));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside a transaction undoes it on the way out, so the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn write<T>(&self, mut work: impl FnMut(&mut dyn WriteTx) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        let mut tx = MemoryWrite {
            state: &mut state,
            undo: Vec::new(),
        };
        let value = work(&mut tx)?;
        tx.undo.clear(); // committed: dropping it undoes nothing
        Ok(value)
    }

    fn read<T>(&self, mut work: impl FnMut(&dyn ReadTx) -> Result<T>) -> Result<T> {
        work(&*self.lock())
    }

    fn cursor_secret(&self) -> [u8; 32] {
        [7; 32]
    }
}

struct MemoryWrite<'a> {
    state: &'a mut State,
    undo: Vec<Undo>,
}

impl Drop for MemoryWrite<'_> {
    fn drop(&mut self) {
        for step in self.undo.drain(..).rev() {
            match step {
                Undo::Entity(key, previous) => {
                    self.state.put(&key, previous);
                }
                Undo::Head(key, previous) => restore(&mut self.state.heads, key, previous),
                Undo::Horizon(key, previous) => restore(&mut self.state.horizons, key, previous),
                Undo::Record(key) => restore(&mut self.state.records, key, None),
                Undo::Client(key) => restore(&mut self.state.clients, key, None),
                Undo::Type(key, previous) => restore(&mut self.state.types, key, previous),
                Undo::Epoch(previous) => self.state.epoch = previous,
            }
        }
    }
}

fn restore<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, previous: Option<V>) {
    match previous {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl MemoryWrite<'_> {
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
}

impl ReadTx for MemoryWrite<'_> {
    fn epoch(&self) -> Result<Epoch> {
        self.state.epoch()
    }

    fn head(&self, tenant: &str, scope: &Scope) -> Result<i64> {
        self.state.head(tenant, scope)
    }

    fn horizon(&self, tenant: &str, scope: &Scope) -> Result<i64> {
        self.state.horizon(tenant, scope)
    }

    fn entity(&self, key: EntityKey<'_>) -> Result<Option<Entity>> {
        self.state.entity(key)
    }

    fn key_record(
        &self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
    ) -> Result<Option<KeyRecord>> {
        self.state.key_record(tenant, client, key)
    }

    fn client_subject(&self, tenant: &str, client: &ClientId) -> Result<Option<String>> {
        self.state.client_subject(tenant, client)
    }

    fn entity_types(&self, tenant: &str) -> Result<Vec<EntityType>> {
        self.state.entity_types(tenant)
    }

    fn type_definitions(&self, tenant: &str) -> Result<Vec<StoredDefinition>> {
        self.state.type_definitions(tenant)
    }

    fn feed(
        &self,
        tenant: &str,
        scope: &Scope,
        after: i64,
        limit: usize,
        visit: &mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.state.feed(tenant, scope, after, limit, visit)
    }

    fn snapshot(
        &self,
        tenant: &str,
        scope: &Scope,
        after: Option<(&str, &str)>,
        limit: usize,
        visit: &mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.state.snapshot(tenant, scope, after, limit, visit)
    }
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
        let key = (tenant.to_owned(), client.as_str().to_owned());
        if let Some(bound) = self.state.clients.get(&key) {
            return Ok(bound.clone());
        }
        self.state.clients.insert(key.clone(), subject.to_owned());
        self.undo.push(Undo::Client(key));
        Ok(subject.to_owned())
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
        _now_ms: i64,
    ) -> Result<()> {
        self.count_operation()?;
        let key = record_key(tenant, client, key);
        if self.state.records.contains_key(&key) {
            return Err(StorageError::internal("an outcome was recorded twice"));
        }
        self.state.records.insert(key.clone(), record.clone());
        self.undo.push(Undo::Record(key));
        Ok(())
    }

    fn register_entity_type(
        &mut self,
        tenant: &str,
        entity_type: &EntityType,
        _now_ms: i64,
    ) -> Result<()> {
        self.count_operation()?;
        let key = (tenant.to_owned(), entity_type.as_str().to_owned());
        if !self.state.types.contains_key(&key) {
            self.state.types.insert(key.clone(), None);
            self.undo.push(Undo::Type(key, None));
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
        let key = (tenant.to_owned(), entity_type.as_str().to_owned());
        let kept = Some(definition.clone());
        let previous = self.state.types.insert(key.clone(), kept);
        self.undo.push(Undo::Type(key, previous));
        Ok(())
    }

    fn bump_head(&mut self, tenant: &str, scope: &Scope, count: i64) -> Result<i64> {
        self.count_operation()?;
        let key = scope_key(tenant, scope);
        let previous = self.state.heads.get(&key).copied();
        let head = previous.unwrap_or(0) + count;
        self.state.heads.insert(key.clone(), head);
        self.undo.push(Undo::Head(key, previous));
        Ok(head)
    }

    fn put_entity(&mut self, key: EntityKey<'_>, entity: &Entity) -> Result<()> {
        self.count_operation()?;
        let key = row_key(key);
        let previous = self.state.put(&key, Some(entity.clone()));
        self.undo.push(Undo::Entity(key, previous));
        Ok(())
    }

    fn raise_horizon(&mut self, tenant: &str, scope: &Scope, horizon: i64) -> Result<()> {
        self.count_operation()?;
        let key = scope_key(tenant, scope);
        let previous = self.state.horizons.get(&key).copied();
        if previous.unwrap_or(0) >= horizon {
            return Ok(());
        }
        self.state.horizons.insert(key.clone(), horizon);
        self.undo.push(Undo::Horizon(key, previous));
        let buried: Vec<RowKey> = self
            .state
            .entities
            .iter()
            .filter(|((owner, _, _), entity)| owner == tenant && &entity.scope == scope)
            .filter(|(_, entity)| entity.fields.is_none() && entity.seq <= horizon)
            .map(|(key, _)| key.clone())
            .collect();
        for key in buried {
            let previous = self.state.put(&key, None);
            self.undo.push(Undo::Entity(key, previous));
        }
        Ok(())
    }

    fn set_epoch(&mut self, epoch: &Epoch) -> Result<()> {
        self.count_operation()?;
        let previous = std::mem::replace(&mut self.state.epoch, epoch.as_str().to_owned());
        self.undo.push(Undo::Epoch(previous));
        Ok(())
    }
}
