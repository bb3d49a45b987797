//! The statements. Every one of a tenant's data names the tenant; none is put together from outside
//! text.

pub(crate) const READ_EPOCH: &str = "SELECT value FROM meta WHERE name = 'epoch'";
pub(crate) const WRITE_EPOCH: &str = "UPDATE meta SET value = ?1 WHERE name = 'epoch'";
pub(crate) const READ_HEAD: &str = "SELECT head FROM head WHERE tenant = ?1 AND scope = ?2";
pub(crate) const READ_HORIZON: &str = "SELECT horizon FROM head WHERE tenant = ?1 AND scope = ?2";
pub(crate) const BUMP_HEAD: &str = "INSERT INTO head (tenant, scope, head) VALUES (?1, ?2, ?3)
    ON CONFLICT (tenant, scope) DO UPDATE SET head = head + excluded.head RETURNING head";
pub(crate) const RAISE_HORIZON: &str =
    "INSERT INTO head (tenant, scope, horizon) VALUES (?1, ?2, ?3)
    ON CONFLICT (tenant, scope) DO UPDATE SET horizon = max(horizon, excluded.horizon)";
pub(crate) const PURGE_TOMBSTONES: &str = "DELETE FROM entity
    WHERE tenant = ?1 AND scope = ?2 AND seq <= ?3 AND fields IS NULL";
pub(crate) const READ_ENTITY: &str = "SELECT scope, version, seq, fields, key FROM entity
    WHERE tenant = ?1 AND type = ?2 AND id = ?3";
pub(crate) const PUT_ENTITY: &str =
    "INSERT INTO entity (tenant, type, id, scope, version, seq, fields, key)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (tenant, type, id) DO UPDATE SET scope = excluded.scope,
        version = excluded.version, seq = excluded.seq, fields = excluded.fields,
        key = excluded.key";
pub(crate) const READ_FEED: &str = "SELECT type, id, version, seq, fields, key FROM entity
    WHERE tenant = ?1 AND scope = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4";
// From the index alone: the entities themselves are not touched.
pub(crate) const READ_SCOPE_SIZE: &str =
    "SELECT count(*) FROM entity INDEXED BY entity_feed WHERE tenant = ?1 AND scope = ?2";
pub(crate) const READ_SNAPSHOT: &str = "SELECT type, id, version, seq, fields, key FROM entity
    WHERE tenant = ?1 AND (type, id) > (?2, ?3) AND scope = ?4 AND fields IS NOT NULL
    ORDER BY type, id LIMIT ?5";
pub(crate) const READ_OUTCOME: &str = "SELECT fingerprint, outcome FROM outcome
    WHERE tenant = ?1 AND client = ?2 AND key = ?3";
pub(crate) const RECORD_OUTCOME: &str = "INSERT INTO outcome
    (tenant, client, key, fingerprint, outcome, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
pub(crate) const READ_CLIENT: &str = "SELECT subject FROM client WHERE tenant = ?1 AND client = ?2";
pub(crate) const BIND_CLIENT: &str = "INSERT INTO client (tenant, client, subject, created_at)
    VALUES (?1, ?2, ?3, ?4)";
pub(crate) const READ_TYPES: &str = "SELECT type FROM entity_type WHERE tenant = ?1 ORDER BY type";
pub(crate) const REGISTER_TYPE: &str = "INSERT INTO entity_type (tenant, type, created_at)
    VALUES (?1, ?2, ?3) ON CONFLICT (tenant, type) DO NOTHING";

pub(crate) const READ_DEFINITIONS: &str = "SELECT schema_version, definition FROM entity_type
    WHERE tenant = ?1 AND definition IS NOT NULL ORDER BY type";
pub(crate) const DEFINE_TYPE: &str = "INSERT INTO entity_type
    (tenant, type, created_at, schema_version, definition) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (tenant, type) DO UPDATE SET schema_version = excluded.schema_version,
        definition = excluded.definition";

pub(crate) const READ_EXCHANGE: &str = "SELECT previous, current FROM client
    WHERE tenant = ?1 AND client = ?2";
pub(crate) const PUT_EXCHANGE: &str = "UPDATE client SET previous = ?3, current = ?4
    WHERE tenant = ?1 AND client = ?2";
pub(crate) const FORGET_EXCHANGES: &str =
    "UPDATE client SET previous = 0, current = 0 WHERE current <> 0";
pub(crate) const READ_WATERMARK: &str = "SELECT key_watermark FROM client
    WHERE tenant = ?1 AND client = ?2";
pub(crate) const RAISE_WATERMARK: &str = "UPDATE client
    SET key_watermark = max(coalesce(key_watermark, ?3), ?3) WHERE tenant = ?1 AND client = ?2";
pub(crate) const READ_OLD_KEYS: &str = "SELECT tenant, client, key FROM outcome
    WHERE created_at < ?1 ORDER BY created_at LIMIT ?2";
pub(crate) const FORGET_KEY: &str = "DELETE FROM outcome
    WHERE tenant = ?1 AND client = ?2 AND key = ?3";
pub(crate) const READ_LAST_ID: &str = "SELECT last_id FROM entity_type
    WHERE tenant = ?1 AND type = ?2";
pub(crate) const RAISE_LAST_ID: &str = "UPDATE entity_type SET last_id = ?3
    WHERE tenant = ?1 AND type = ?2 AND last_id < ?3";
pub(crate) const READ_INDEX_RULES: &str = "SELECT index_rules FROM entity_type
    WHERE tenant = ?1 AND type = ?2";
pub(crate) const SET_INDEX_RULES: &str = "UPDATE entity_type SET index_rules = ?3
    WHERE tenant = ?1 AND type = ?2";
pub(crate) const CLEAR_INDEXED: &str = "DELETE FROM indexed WHERE tenant = ?1 AND type = ?2";
pub(crate) const READ_INDEXED: &str = "SELECT type, id FROM indexed
    WHERE tenant = ?1 AND name = ?2 AND value = ?3 ORDER BY type, id LIMIT ?4";
pub(crate) const PUT_INDEXED: &str = "INSERT INTO indexed (tenant, name, value, type, id)
    VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
pub(crate) const REMOVE_INDEXED: &str = "DELETE FROM indexed
    WHERE tenant = ?1 AND name = ?2 AND value = ?3 AND type = ?4 AND id = ?5";
pub(crate) const READ_SCOPES: &str = "SELECT tenant, scope FROM head ORDER BY tenant, scope";
pub(crate) const READ_MARK: &str = "SELECT head FROM head_mark
    WHERE tenant = ?1 AND scope = ?2 AND at < ?3 ORDER BY at DESC LIMIT 1";
pub(crate) const MARK_HEAD: &str = "INSERT INTO head_mark (tenant, scope, at, head)
    SELECT tenant, scope, ?3, head FROM head WHERE tenant = ?1 AND scope = ?2
    ON CONFLICT (tenant, scope, at) DO UPDATE SET head = excluded.head";
pub(crate) const FORGET_MARKS: &str = "DELETE FROM head_mark
    WHERE tenant = ?1 AND scope = ?2 AND at < ?3";
