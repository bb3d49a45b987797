-- The server's data in SQLite. Every table begins with the tenant: nothing is ever looked up
-- without one. Texts are compared as bytes (BINARY is SQLite's default). Times are milliseconds
-- since the Unix epoch and only for people and for clearing up.

-- Facts about the whole database. `epoch` is the identity of the history behind all positions,
-- versions and cursors; a restore from a backup must change it.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The feed's head of each scope: the last position that was taken. Written last in a transaction.
-- `horizon` is the lowest position from which the feed is complete; below it tombstones are gone.
CREATE TABLE head (
    tenant  TEXT NOT NULL,
    scope   TEXT NOT NULL,
    head    INTEGER NOT NULL DEFAULT 0,
    horizon INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, scope)
) STRICT, WITHOUT ROWID;

-- Every entity once, as it is after its last change. `fields` is a JSON object kept to the byte;
-- NULL makes the row a tombstone. Snapshots read the table in the order of its key.
CREATE TABLE entity (
    tenant  TEXT NOT NULL,
    type    TEXT NOT NULL,
    id      TEXT NOT NULL,
    scope   TEXT NOT NULL,
    version INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    fields  TEXT,
    key     TEXT,
    PRIMARY KEY (tenant, type, id)
) STRICT, WITHOUT ROWID;

-- The feed is this index: entities in the order of their last change.
CREATE UNIQUE INDEX entity_feed ON entity (tenant, scope, seq);

-- What became of each idempotency key, written in the transaction of the effect, never changed.
-- `fingerprint` is the SHA-256 of what the key was used for; NULL when the record stands whatever is
-- sent under the key.
CREATE TABLE outcome (
    tenant      TEXT NOT NULL,
    client      TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB,
    outcome     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, client, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX outcome_age ON outcome (created_at);

-- To whom a client installation belongs: the subject that used its id first. `previous` and
-- `current` number its exchange tokens in this history. Keys that carry a time at or below
-- `key_watermark` may have been forgotten.
CREATE TABLE client (
    tenant     TEXT NOT NULL,
    client     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    previous   INTEGER NOT NULL DEFAULT 0,
    current    INTEGER NOT NULL DEFAULT 0,
    key_watermark INTEGER,
    PRIMARY KEY (tenant, client)
) STRICT, WITHOUT ROWID;

-- Where the head of a scope was at a time: what was deleted before may be forgotten some time later.
CREATE TABLE head_mark (
    tenant TEXT NOT NULL,
    scope  TEXT NOT NULL,
    at     INTEGER NOT NULL,
    head   INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope, at)
) STRICT, WITHOUT ROWID;

-- Entities by the hash of a value, for declared unique fields and references.
CREATE TABLE indexed (
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    value  BLOB NOT NULL,
    type   TEXT NOT NULL,
    id     TEXT NOT NULL,
    PRIMARY KEY (tenant, name, value, type, id)
) STRICT, WITHOUT ROWID;

-- The entity types that have been seen. `definition` is what the devices' tables look like, a JSON
-- object kept to the byte. `last_id` is the greatest integer id seen. `index_rules` says by which rules
-- the type's entities stand in `indexed`.
CREATE TABLE entity_type (
    tenant         TEXT NOT NULL,
    type           TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    schema_version INTEGER,
    definition     TEXT,
    last_id        INTEGER NOT NULL DEFAULT 0,
    index_rules    TEXT,
    PRIMARY KEY (tenant, type)
) STRICT, WITHOUT ROWID;
