//! A storage in memory, for tests and the simulator: it forgets everything with the process.
//!
//! One lock over everything makes each transaction run alone. A transaction that fails is undone
//! from a list of what it replaced, so nothing is copied up front. Never used to serve people.

use crate::{Entity, EntityKey, EntityRef, KeyRecord, ReadTx, Storage, StorageError, WriteTx};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::{Mutex, MutexGuard, PoisonError};
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};

type Result<T> = std::result::Result<T, StorageError>;
/// (tenant, type, id)
type RowKey = (String, String, String);
/// (tenant, scope, seq)
type FeedKey = (String, String, i64);
/// (tenant, scope)
type ScopeKey = (String, String);
/// (tenant, client, key)
type RecordKey = (String, String, String);

/// See the module.
#[derive(Debug)]
pub struct MemoryStorage {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    epoch: String,
    entities: BTreeMap<RowKey, Entity>,
    feed: BTreeMap<FeedKey, (String, String)>,
    heads: BTreeMap<ScopeKey, i64>,
    horizons: BTreeMap<ScopeKey, i64>,
    records: BTreeMap<RecordKey, KeyRecord>,
    clients: BTreeMap<(String, String), String>,
    types: BTreeSet<(String, String)>,
    /// Write operations that still succeed before the planned failure.
    failure: Option<(usize, StorageError)>,
}

enum Undo {
    Entity(RowKey, Option<Entity>),
    Head(ScopeKey, Option<i64>),
    Horizon(ScopeKey, Option<i64>),
    Record(RecordKey),
    Client((String, String)),
    Type((String, String)),
    Epoch(String),
}

impl MemoryStorage {
    /// An empty storage whose history has this identity.
    pub fn new(epoch: &str) -> Self {
        let state = State {
            epoch: epoch.to_owned(),
            ..State::default()
        };
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

fn row_key(key: EntityKey<'_>) -> RowKey {
    (
        key.tenant.to_owned(),
        key.entity_type.to_owned(),
        key.id.to_owned(),
    )
}

fn scope_key(tenant: &str, scope: &Scope) -> ScopeKey {
    (tenant.to_owned(), scope.as_str().to_owned())
}

fn record_key(tenant: &str, client: &ClientId, key: &IdempotencyKey) -> RecordKey {
    (
        tenant.to_owned(),
        client.as_str().to_owned(),
        key.as_str().to_owned(),
    )
}

impl State {
    fn put(&mut self, key: &RowKey, entity: Option<Entity>) -> Option<Entity> {
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
        let own = self.types.iter().filter(|(owner, _)| owner == tenant);
        Ok(own.map(|(_, name)| EntityType::new(name.clone())).collect())
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
                Undo::Type(key) => {
                    self.state.types.remove(&key);
                }
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
        if self.state.types.insert(key.clone()) {
            self.undo.push(Undo::Type(key));
        }
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
