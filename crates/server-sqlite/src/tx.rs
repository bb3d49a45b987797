//! The statements: what the server's transactions read and write.
//!
//! Every statement names its tenant and binds its values; none is put together from outside text.

use crate::error::storage_error;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};
use std::ops::ControlFlow;
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};
use syncline_server::{
    Entity, EntityKey, EntityRef, KeyRecord, ReadTx, StorageError, StoredDefinition, WriteTx,
};

type Result<T> = std::result::Result<T, StorageError>;
type Visit<'a> = &'a mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>;

const READ_EPOCH: &str = "SELECT value FROM meta WHERE name = 'epoch'";
const WRITE_EPOCH: &str = "UPDATE meta SET value = ?1 WHERE name = 'epoch'";
const READ_HEAD: &str = "SELECT head FROM head WHERE tenant = ?1 AND scope = ?2";
const READ_HORIZON: &str = "SELECT horizon FROM head WHERE tenant = ?1 AND scope = ?2";
const BUMP_HEAD: &str = "INSERT INTO head (tenant, scope, head) VALUES (?1, ?2, ?3)
    ON CONFLICT (tenant, scope) DO UPDATE SET head = head + excluded.head RETURNING head";
const RAISE_HORIZON: &str = "INSERT INTO head (tenant, scope, horizon) VALUES (?1, ?2, ?3)
    ON CONFLICT (tenant, scope) DO UPDATE SET horizon = max(horizon, excluded.horizon)";
const PURGE_TOMBSTONES: &str = "DELETE FROM entity
    WHERE tenant = ?1 AND scope = ?2 AND seq <= ?3 AND fields IS NULL";
const READ_ENTITY: &str = "SELECT scope, version, seq, fields, key FROM entity
    WHERE tenant = ?1 AND type = ?2 AND id = ?3";
const PUT_ENTITY: &str = "INSERT INTO entity (tenant, type, id, scope, version, seq, fields, key)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (tenant, type, id) DO UPDATE SET scope = excluded.scope,
        version = excluded.version, seq = excluded.seq, fields = excluded.fields,
        key = excluded.key";
const READ_FEED: &str = "SELECT type, id, version, seq, fields, key FROM entity
    WHERE tenant = ?1 AND scope = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4";
const READ_SNAPSHOT: &str = "SELECT type, id, version, seq, fields, key FROM entity
    WHERE tenant = ?1 AND (type, id) > (?2, ?3) AND scope = ?4 AND fields IS NOT NULL
    ORDER BY type, id LIMIT ?5";
const READ_OUTCOME: &str = "SELECT fingerprint, outcome FROM outcome
    WHERE tenant = ?1 AND client = ?2 AND key = ?3";
const RECORD_OUTCOME: &str = "INSERT INTO outcome
    (tenant, client, key, fingerprint, outcome, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const READ_CLIENT: &str = "SELECT subject FROM client WHERE tenant = ?1 AND client = ?2";
const BIND_CLIENT: &str = "INSERT INTO client (tenant, client, subject, created_at)
    VALUES (?1, ?2, ?3, ?4)";
const READ_TYPES: &str = "SELECT type FROM entity_type WHERE tenant = ?1 ORDER BY type";
const REGISTER_TYPE: &str = "INSERT INTO entity_type (tenant, type, created_at)
    VALUES (?1, ?2, ?3) ON CONFLICT (tenant, type) DO NOTHING";

const READ_DEFINITIONS: &str = "SELECT schema_version, definition FROM entity_type
    WHERE tenant = ?1 AND definition IS NOT NULL ORDER BY type";
const DEFINE_TYPE: &str = "INSERT INTO entity_type
    (tenant, type, created_at, schema_version, definition) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (tenant, type) DO UPDATE SET schema_version = excluded.schema_version,
        definition = excluded.definition";

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
        let epoch = self.one(READ_EPOCH, [], |row| row.get::<_, String>(0))?;
        epoch
            .map(Epoch::new)
            .ok_or_else(|| StorageError::internal("the database has lost its epoch"))
    }

    fn head(&self, tenant: &str, scope: &Scope) -> Result<i64> {
        let head = self.one(READ_HEAD, [tenant, scope.as_str()], |row| row.get(0))?;
        Ok(head.unwrap_or(0))
    }

    fn horizon(&self, tenant: &str, scope: &Scope) -> Result<i64> {
        let horizon = self.one(READ_HORIZON, [tenant, scope.as_str()], |row| row.get(0))?;
        Ok(horizon.unwrap_or(0))
    }

    fn entity(&self, key: EntityKey<'_>) -> Result<Option<Entity>> {
        self.one(READ_ENTITY, [key.tenant, key.entity_type, key.id], |row| {
            Ok(Entity {
                scope: Scope::new(row.get::<_, String>(0)?),
                version: row.get(1)?,
                seq: row.get(2)?,
                fields: row.get(3)?,
                key: row.get::<_, Option<String>>(4)?.map(IdempotencyKey::new),
            })
        })
    }

    fn key_record(
        &self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
    ) -> Result<Option<KeyRecord>> {
        let params = [tenant, client.as_str(), key.as_str()];
        self.one(READ_OUTCOME, params, |row| {
            Ok(KeyRecord {
                fingerprint: row.get(0)?,
                outcome: row.get(1)?,
            })
        })
    }

    fn client_subject(&self, tenant: &str, client: &ClientId) -> Result<Option<String>> {
        self.one(READ_CLIENT, [tenant, client.as_str()], |row| row.get(0))
    }

    fn entity_types(&self, tenant: &str) -> Result<Vec<EntityType>> {
        let names = || -> rusqlite::Result<Vec<EntityType>> {
            let mut statement = self.connection.prepare_cached(READ_TYPES)?;
            let rows = statement.query_map([tenant], |row| row.get::<_, String>(0))?;
            rows.map(|name| name.map(EntityType::new)).collect()
        };
        names().map_err(storage_error)
    }

    fn type_definitions(&self, tenant: &str) -> Result<Vec<StoredDefinition>> {
        let definitions = || -> rusqlite::Result<Vec<StoredDefinition>> {
            let mut statement = self.connection.prepare_cached(READ_DEFINITIONS)?;
            let rows = statement.query_map([tenant], |row| {
                Ok(StoredDefinition {
                    schema_version: row.get(0)?,
                    json: row.get(1)?,
                })
            })?;
            rows.collect()
        };
        definitions().map_err(storage_error)
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
        self.visit(READ_FEED, params, visit)
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
        self.visit(READ_SNAPSHOT, params, visit)
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
        self.execute(BIND_CLIENT, params)?;
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
        self.execute(RECORD_OUTCOME, params)
    }

    fn register_entity_type(
        &mut self,
        tenant: &str,
        entity_type: &EntityType,
        now_ms: i64,
    ) -> Result<()> {
        self.execute(REGISTER_TYPE, params![tenant, entity_type.as_str(), now_ms])
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
        self.execute(DEFINE_TYPE, params)
    }

    fn bump_head(&mut self, tenant: &str, scope: &Scope, count: i64) -> Result<i64> {
        let params = params![tenant, scope.as_str(), count];
        self.one(BUMP_HEAD, params, |row| row.get(0))?
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
        self.execute(PUT_ENTITY, params)
    }

    fn raise_horizon(&mut self, tenant: &str, scope: &Scope, horizon: i64) -> Result<()> {
        let params = params![tenant, scope.as_str(), horizon];
        self.execute(RAISE_HORIZON, params)?;
        self.execute(PURGE_TOMBSTONES, params)
    }

    fn set_epoch(&mut self, epoch: &Epoch) -> Result<()> {
        self.execute(WRITE_EPOCH, [epoch.as_str()])
    }
}
