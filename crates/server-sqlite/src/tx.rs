//! What the server's transactions read and write, by the statements of `sql`.
//!
//! Every statement names its tenant and binds its values; none is put together from outside text.

use crate::error::storage_error;
use crate::sql;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};
use std::ops::ControlFlow;
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};
use syncline_server::{
    Entity, EntityKey, EntityRef, Exchange, IndexEntry, KeyRecord, OldKey, ReadTx, StorageError,
    StoredDefinition, WriteTx,
};

type Result<T> = std::result::Result<T, StorageError>;
type Visit<'a> = &'a mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>;

/// The statements of one open transaction. SQLite has one writer, so whatever is read here stays
/// as it is until the commit.
#[derive(Debug)]
pub(crate) struct Tx<'a> {
    connection: &'a Connection,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let statement = self.connection.prepare_cached(sql);
        statement
            .and_then(|mut statement| statement.query_row(params, read).optional())
            .map_err(storage_error)
    }

    fn execute(&self, sql: &str, params: impl Params) -> Result<()> {
        let statement = self.connection.prepare_cached(sql);
        statement
            .and_then(|mut statement| statement.execute(params))
            .map(drop)
            .map_err(storage_error)
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let all = || -> rusqlite::Result<Vec<T>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_map(params, read)?.collect()
        };
        all().map_err(storage_error)
    }

    fn visit(&self, sql: &str, params: impl Params, visit: Visit<'_>) -> Result<()> {
        self.try_visit(sql, params, visit).map_err(storage_error)
    }

    /// Hands rows on as they are stepped to, without copying them.
    fn try_visit(&self, sql: &str, params: impl Params, visit: Visit<'_>) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            let shown = EntityRef {
                entity_type: row.get_ref(0)?.as_str()?,
                id: row.get_ref(1)?.as_str()?,
                version: row.get(2)?,
                seq: row.get(3)?,
                fields: row.get_ref(4)?.as_str_or_null()?,
                key: row.get_ref(5)?.as_str_or_null()?,
            };
            if visit(shown).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn sql_limit(limit: usize) -> Value {
    Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX))
}

impl ReadTx for Tx<'_> {
    fn epoch(&self) -> Result<Epoch> {
        let epoch = self.one(sql::READ_EPOCH, [], |row| row.get::<_, String>(0))?;
        epoch
            .map(Epoch::new)
            .ok_or_else(|| StorageError::internal("the database has lost its epoch"))
    }

    fn head(&self, tenant: &str, scope: &Scope) -> Result<i64> {
        let head = self.one(sql::READ_HEAD, [tenant, scope.as_str()], |row| row.get(0))?;
        Ok(head.unwrap_or(0))
    }

    fn horizon(&self, tenant: &str, scope: &Scope) -> Result<i64> {
        let horizon = self.one(sql::READ_HORIZON, [tenant, scope.as_str()], |row| {
            row.get(0)
        })?;
        Ok(horizon.unwrap_or(0))
    }

    fn scope_size(&self, tenant: &str, scope: &Scope) -> Result<u64> {
        let params = [tenant, scope.as_str()];
        Ok(self
            .one(sql::READ_SCOPE_SIZE, params, |row| row.get(0))?
            .unwrap_or(0))
    }

    fn entity(&self, key: EntityKey<'_>) -> Result<Option<Entity>> {
        self.one(
            sql::READ_ENTITY,
            [key.tenant, key.entity_type, key.id],
            |row| {
                Ok(Entity {
                    scope: Scope::new(row.get::<_, String>(0)?),
                    version: row.get(1)?,
                    seq: row.get(2)?,
                    fields: row.get(3)?,
                    key: row.get::<_, Option<String>>(4)?.map(IdempotencyKey::new),
                })
            },
        )
    }

    fn key_record(
        &self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
    ) -> Result<Option<KeyRecord>> {
        let params = [tenant, client.as_str(), key.as_str()];
        self.one(sql::READ_OUTCOME, params, |row| {
            Ok(KeyRecord {
                fingerprint: row.get(0)?,
                outcome: row.get(1)?,
            })
        })
    }

    fn client_subject(&self, tenant: &str, client: &ClientId) -> Result<Option<String>> {
        self.one(sql::READ_CLIENT, [tenant, client.as_str()], |row| {
            row.get(0)
        })
    }

    fn entity_types(&self, tenant: &str) -> Result<Vec<EntityType>> {
        let read = |row: &Row<'_>| row.get(0).map(|name: String| EntityType::new(name));
        self.all(sql::READ_TYPES, [tenant], read)
    }

    fn type_definitions(&self, tenant: &str) -> Result<Vec<StoredDefinition>> {
        self.all(sql::READ_DEFINITIONS, [tenant], |row| {
            Ok(StoredDefinition {
                schema_version: row.get(0)?,
                json: row.get(1)?,
            })
        })
    }

    fn exchange(&self, tenant: &str, client: &ClientId) -> Result<Exchange> {
        let found = self.one(sql::READ_EXCHANGE, [tenant, client.as_str()], |row| {
            Ok(Exchange {
                previous: row.get(0)?,
                current: row.get(1)?,
            })
        })?;
        Ok(found.unwrap_or_default())
    }

    fn key_watermark(&self, tenant: &str, client: &ClientId) -> Result<Option<i64>> {
        let params = [tenant, client.as_str()];
        let found = self.one(sql::READ_WATERMARK, params, |row| row.get(0))?;
        Ok(found.flatten())
    }

    fn old_keys(&self, before_ms: i64, limit: usize) -> Result<Vec<OldKey>> {
        let params = params![before_ms, sql_limit(limit)];
        self.all(sql::READ_OLD_KEYS, params, |row| {
            Ok(OldKey {
                tenant: row.get(0)?,
                client: ClientId::new(row.get::<_, String>(1)?),
                key: IdempotencyKey::new(row.get::<_, String>(2)?),
            })
        })
    }

    fn last_id(&self, tenant: &str, entity_type: &str) -> Result<i64> {
        let found = self.one(sql::READ_LAST_ID, [tenant, entity_type], |row| row.get(0))?;
        Ok(found.unwrap_or(0))
    }

    fn index_rules(&self, tenant: &str, entity_type: &str) -> Result<Option<String>> {
        let params = [tenant, entity_type];
        let found = self.one(sql::READ_INDEX_RULES, params, |row| row.get(0))?;
        Ok(found.flatten())
    }

    fn indexed(
        &self,
        tenant: &str,
        index: &str,
        value: &[u8; 32],
        limit: usize,
    ) -> Result<Vec<(String, String)>> {
        let params = params![tenant, index, value, sql_limit(limit)];
        self.all(sql::READ_INDEXED, params, |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    fn scopes(&self) -> Result<Vec<(String, Scope)>> {
        self.all(sql::READ_SCOPES, [], |row| {
            Ok((row.get(0)?, Scope::new(row.get::<_, String>(1)?)))
        })
    }

    fn marked_head(&self, tenant: &str, scope: &Scope, before_ms: i64) -> Result<Option<i64>> {
        let params = params![tenant, scope.as_str(), before_ms];
        self.one(sql::READ_MARK, params, |row| row.get(0))
    }

    fn feed(
        &self,
        tenant: &str,
        scope: &Scope,
        after: i64,
        limit: usize,
        visit: Visit<'_>,
    ) -> Result<()> {
        let params = params![tenant, scope.as_str(), after, sql_limit(limit)];
        self.visit(sql::READ_FEED, params, visit)
    }

    fn snapshot(
        &self,
        tenant: &str,
        scope: &Scope,
        after: Option<(&str, &str)>,
        limit: usize,
        visit: Visit<'_>,
    ) -> Result<()> {
        let (entity_type, id) = after.unwrap_or(("", ""));
        let params = params![tenant, entity_type, id, scope.as_str(), sql_limit(limit)];
        self.visit(sql::READ_SNAPSHOT, params, visit)
    }
}

impl WriteTx for Tx<'_> {
    fn bind_client(
        &mut self,
        tenant: &str,
        client: &ClientId,
        subject: &str,
        now_ms: i64,
    ) -> Result<String> {
        if let Some(bound) = self.client_subject(tenant, client)? {
            return Ok(bound);
        }
        let params = params![tenant, client.as_str(), subject, now_ms];
        self.execute(sql::BIND_CLIENT, params)?;
        Ok(subject.to_owned())
    }

    /// A look is enough: nobody else can write until this transaction ends.
    fn claim_key(
        &mut self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
    ) -> Result<Option<KeyRecord>> {
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
        let params = params![
            tenant,
            client.as_str(),
            key.as_str(),
            record.fingerprint,
            record.outcome,
            now_ms
        ];
        self.execute(sql::RECORD_OUTCOME, params)
    }

    fn register_entity_type(
        &mut self,
        tenant: &str,
        entity_type: &EntityType,
        now_ms: i64,
    ) -> Result<()> {
        self.execute(
            sql::REGISTER_TYPE,
            params![tenant, entity_type.as_str(), now_ms],
        )
    }

    fn define_type(
        &mut self,
        tenant: &str,
        entity_type: &EntityType,
        definition: &StoredDefinition,
        now_ms: i64,
    ) -> Result<()> {
        let StoredDefinition {
            schema_version,
            json,
        } = definition;
        let params = params![tenant, entity_type.as_str(), now_ms, schema_version, json];
        self.execute(sql::DEFINE_TYPE, params)
    }

    fn put_exchange(&mut self, tenant: &str, client: &ClientId, exchange: Exchange) -> Result<()> {
        let Exchange { previous, current } = exchange;
        let params = params![tenant, client.as_str(), previous, current];
        self.execute(sql::PUT_EXCHANGE, params)
    }

    fn forget_key(&mut self, key: &OldKey, watermark: Option<i64>) -> Result<()> {
        let OldKey {
            tenant,
            client,
            key,
        } = key;
        let params = params![tenant, client.as_str(), key.as_str()];
        self.execute(sql::FORGET_KEY, params)?;
        match watermark {
            None => Ok(()),
            Some(at) => self.execute(sql::RAISE_WATERMARK, params![tenant, client.as_str(), at]),
        }
    }

    fn raise_last_id(&mut self, tenant: &str, entity_type: &str, id: i64) -> Result<()> {
        self.execute(sql::RAISE_LAST_ID, params![tenant, entity_type, id])
    }

    fn set_index_rules(
        &mut self,
        tenant: &str,
        entity_type: &str,
        rules: Option<&str>,
    ) -> Result<()> {
        self.execute(sql::CLEAR_INDEXED, [tenant, entity_type])?;
        self.execute(sql::SET_INDEX_RULES, params![tenant, entity_type, rules])
    }

    fn put_indexed(&mut self, tenant: &str, entry: &IndexEntry) -> Result<()> {
        let IndexEntry {
            index,
            value,
            entity_type,
            id,
        } = entry;
        let params = params![tenant, index, value, entity_type, id];
        self.execute(sql::PUT_INDEXED, params)
    }

    fn remove_indexed(&mut self, tenant: &str, entry: &IndexEntry) -> Result<()> {
        let IndexEntry {
            index,
            value,
            entity_type,
            id,
        } = entry;
        let params = params![tenant, index, value, entity_type, id];
        self.execute(sql::REMOVE_INDEXED, params)
    }

    fn mark_head(&mut self, tenant: &str, scope: &Scope, now_ms: i64) -> Result<()> {
        self.execute(sql::MARK_HEAD, params![tenant, scope.as_str(), now_ms])
    }

    fn forget_marks(&mut self, tenant: &str, scope: &Scope, before_ms: i64) -> Result<()> {
        let params = params![tenant, scope.as_str(), before_ms];
        self.execute(sql::FORGET_MARKS, params)
    }

    fn bump_head(&mut self, tenant: &str, scope: &Scope, count: i64) -> Result<i64> {
        let params = params![tenant, scope.as_str(), count];
        self.one(sql::BUMP_HEAD, params, |row| row.get(0))?
            .ok_or_else(|| StorageError::internal("the head was not returned"))
    }

    fn put_entity(&mut self, key: EntityKey<'_>, entity: &Entity) -> Result<()> {
        let params = params![
            key.tenant,
            key.entity_type,
            key.id,
            entity.scope.as_str(),
            entity.version,
            entity.seq,
            entity.fields,
            entity.key.as_ref().map(IdempotencyKey::as_str)
        ];
        self.execute(sql::PUT_ENTITY, params)
    }

    fn raise_horizon(&mut self, tenant: &str, scope: &Scope, horizon: i64) -> Result<()> {
        let params = params![tenant, scope.as_str(), horizon];
        self.execute(sql::RAISE_HORIZON, params)?;
        self.execute(sql::PURGE_TOMBSTONES, params)
    }

    fn set_epoch(&mut self, epoch: &Epoch) -> Result<()> {
        self.execute(sql::WRITE_EPOCH, [epoch.as_str()])?;
        self.execute(sql::FORGET_EXCHANGES, [])
    }
}
