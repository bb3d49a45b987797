-- The engine's own tables, version 1. They live beside the app's tables in the app's file, all
-- named syncline_*. The app's PRAGMA user_version is never touched: the version of this schema is
-- the row 'schema_version' of syncline_meta. docs/metadata.md describes every table for readers.

-- One value per key: schema_version, client_id, remote, account, epoch, capture_cookie, last_push_at …
CREATE TABLE syncline_meta (
  key   TEXT PRIMARY KEY NOT NULL,
  value
) WITHOUT ROWID;

-- Has a row only inside the engine's own transactions. The capture triggers record nothing while
-- it has (P3); other connections never see that row, because it never outlives its transaction.
CREATE TABLE syncline_guard (
  held INTEGER PRIMARY KEY NOT NULL
);

-- The registered tables.
CREATE TABLE syncline_entity_type (
  name       TEXT PRIMARY KEY NOT NULL,  -- the entity type
  table_name TEXT NOT NULL UNIQUE,       -- the app's table
  conflict_rules TEXT NOT NULL DEFAULT '{}', -- JSON: how conflicts are decided, in the words of syncline.toml; names are fields
  schema_version INTEGER NOT NULL DEFAULT 1, -- counts the changes of the table's schema
  options    TEXT NOT NULL DEFAULT '{}', -- JSON: lane, id mode, declared references, columns left out, renamed fields
  columns    TEXT NOT NULL DEFAULT '[]'  -- JSON: the table's columns when it was last looked at
) WITHOUT ROWID;

-- The durable queue of mutations: everything not yet settled, and the dead letters. What is
-- settled (applied, superseded) moves to syncline_log in the transaction that settles it.
CREATE TABLE syncline_outbox (
  seq         INTEGER PRIMARY KEY,       -- local order
  mutation    TEXT NOT NULL,             -- correlation id, 32 hex digits
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,             -- canonical key text
  op          TEXT NOT NULL,             -- create, update, delete
  payload     TEXT,                      -- fields as JSON; NULL for a delete
  created_at  INTEGER NOT NULL,          -- ms since 1970, for people only
  state       TEXT NOT NULL DEFAULT 'pending', -- pending, in_flight, failed, dead
  idempotency_key TEXT,                  -- set with frozen
  frozen      TEXT,                      -- the JSON as sent: not NULL means it may have been sent (E3, E5)
  attempts    INTEGER NOT NULL DEFAULT 0,-- attributable failures only
  not_before  INTEGER NOT NULL DEFAULT 0,-- ms since 1970
  last_error  TEXT,                      -- JSON
  lease_token INTEGER,                   -- fencing token of the engine that claimed it
  lease_until INTEGER,                   -- ms since 1970
  schema_version INTEGER NOT NULL DEFAULT 1, -- of the entity type, when it was recorded
  -- What follows may be set by whoever recorded the mutation, in the same transaction.
  lane        INTEGER,                   -- 0 urgent, 2 background; NULL: normal. That of the type, unless the write said otherwise
  group_id    TEXT,                      -- all entries of a group take effect, or none
  command     TEXT,                      -- JSON: {"name":…,"args":{…}}; the payload is the local effect only
  depends_on  TEXT,                      -- JSON array of mutations that must be settled before
  -- What follows is the engine's.
  covers      TEXT,                      -- JSON array of mutations coalesced into this one
  parts       TEXT,                      -- JSON: what it and the edits coalesced into it were, each by itself
  origin      TEXT,                      -- attach, recovered, restored, journal, reference; NULL: captured
  origin_client TEXT,                    -- another installation may have sent it: as it was called then
  shared_with TEXT,                      -- the installation whose failed entry it is as well: sent again by hand, it counts as sent by that
  cancel      INTEGER NOT NULL DEFAULT 0 -- 1: to be cancelled at the server, then discarded
);
CREATE INDEX syncline_outbox_entity ON syncline_outbox (entity_type, entity_id);
-- Only entries off the normal lane, in a group, to be cancelled, or that cover others: the usual write pays for none.
CREATE INDEX syncline_outbox_lane ON syncline_outbox (lane, seq) WHERE lane IS NOT NULL;
CREATE INDEX syncline_outbox_group ON syncline_outbox (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX syncline_outbox_cancel ON syncline_outbox (seq) WHERE cancel = 1;
CREATE INDEX syncline_outbox_covers ON syncline_outbox (seq) WHERE covers IS NOT NULL;
-- What the feed shows is recognised by its key. It is set when the entry is sent.
CREATE INDEX syncline_outbox_key ON syncline_outbox (idempotency_key) WHERE idempotency_key IS NOT NULL;
-- For the status: what failed. A write that goes well is in neither.
CREATE INDEX syncline_outbox_dead ON syncline_outbox (seq) WHERE state IN ('failed', 'dead');
CREATE INDEX syncline_outbox_error ON syncline_outbox (seq) WHERE last_error IS NOT NULL;

-- How many entries the outbox has up to the number 'counted' in syncline_meta, and how many bytes of
-- payload, so that the status need not go through them. The engine counts what is newer when it
-- renews its lease, and readers when they look, so that recording a write dirties no further page.
-- A type that is here has a row for each of the four states.
CREATE TABLE syncline_count (
  entity_type TEXT NOT NULL,
  state       TEXT NOT NULL,
  entries     INTEGER NOT NULL,
  bytes       INTEGER NOT NULL,
  PRIMARY KEY (entity_type, state)
) WITHOUT ROWID;

CREATE TRIGGER syncline_count_insert AFTER INSERT ON syncline_outbox
WHEN NEW.seq <= (SELECT value FROM syncline_meta WHERE key = 'counted')
BEGIN
  INSERT INTO syncline_count (entity_type, state, entries, bytes)
  SELECT NEW.entity_type, s.column1, 0, 0
    FROM (VALUES ('pending'), ('in_flight'), ('failed'), ('dead')) AS s
   WHERE NOT EXISTS (SELECT 1 FROM syncline_count WHERE entity_type = NEW.entity_type);
  UPDATE syncline_count
     SET entries = entries + 1, bytes = bytes + coalesce(length(CAST(NEW.payload AS BLOB)), 0)
   WHERE entity_type = NEW.entity_type AND state = NEW.state;
END;

CREATE TRIGGER syncline_count_state AFTER UPDATE OF state ON syncline_outbox
WHEN NEW.state <> OLD.state AND NEW.seq <= (SELECT value FROM syncline_meta WHERE key = 'counted')
BEGIN
  UPDATE syncline_count
     SET entries = entries - 1, bytes = bytes - coalesce(length(CAST(OLD.payload AS BLOB)), 0)
   WHERE entity_type = OLD.entity_type AND state = OLD.state;
  UPDATE syncline_count
     SET entries = entries + 1, bytes = bytes + coalesce(length(CAST(NEW.payload AS BLOB)), 0)
   WHERE entity_type = NEW.entity_type AND state = NEW.state;
END;

CREATE TRIGGER syncline_count_payload AFTER UPDATE OF payload ON syncline_outbox
WHEN NEW.state = OLD.state AND NEW.seq <= (SELECT value FROM syncline_meta WHERE key = 'counted')
BEGIN
  UPDATE syncline_count
     SET bytes = bytes + coalesce(length(CAST(NEW.payload AS BLOB)), 0)
                       - coalesce(length(CAST(OLD.payload AS BLOB)), 0)
   WHERE entity_type = NEW.entity_type AND state = NEW.state;
END;

CREATE TRIGGER syncline_count_delete AFTER DELETE ON syncline_outbox
WHEN OLD.seq <= (SELECT value FROM syncline_meta WHERE key = 'counted')
BEGIN
  UPDATE syncline_count
     SET entries = entries - 1, bytes = bytes - coalesce(length(CAST(OLD.payload AS BLOB)), 0)
   WHERE entity_type = OLD.entity_type AND state = OLD.state;
END;

-- REAL values of payloads, bit for bit: the JSON functions of older SQLite libraries round them.
-- The payload holds {"$real":"row"} in their place.
CREATE TABLE syncline_outbox_real (
  seq   INTEGER NOT NULL,
  field TEXT NOT NULL,
  value REAL NOT NULL,
  PRIMARY KEY (seq, field)
) WITHOUT ROWID;

-- The last agreed state of entities with unsettled mutations. A row without an outbox entry of its
-- entity means nothing (a REPLACE that was ignored leaves one) and may be removed at any time.
CREATE TABLE syncline_base (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  fields      TEXT,                      -- all synced fields as JSON; NULL: the entity did not exist
  PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

-- REAL values of bases, as syncline_outbox_real.
CREATE TABLE syncline_base_real (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  field       TEXT NOT NULL,
  value       REAL NOT NULL,
  PRIMARY KEY (entity_type, entity_id, field)
) WITHOUT ROWID;

-- Rows that the statement under way may be about to replace; only capture triggers use it.
CREATE TABLE syncline_stash (
  entity_type TEXT NOT NULL,
  new_id      TEXT NOT NULL,             -- the row being written
  old_id      TEXT NOT NULL,             -- a row that it may replace
  PRIMARY KEY (entity_type, new_id, old_id)
) WITHOUT ROWID;

-- Sparse: only where more is known than "as of the applied position" (an own push ahead of the cursor).
CREATE TABLE syncline_entity_state (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  version     TEXT NOT NULL,             -- server version
  position    INTEGER NOT NULL,          -- its position in the scope's feed
  deleted     INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

-- Changes received that cannot be applied yet: the newest one per entity.
CREATE TABLE syncline_inbox (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  scope       TEXT NOT NULL,
  fields      TEXT,                      -- JSON; NULL: deleted
  version     TEXT NOT NULL,
  position    INTEGER NOT NULL,
  received_at INTEGER NOT NULL,          -- ms since 1970
  waits_for   TEXT NOT NULL,             -- answer, parent, constraint, type, valid, checkpoint
  detail      TEXT,                      -- which parent, which constraint …
  PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

CREATE INDEX syncline_inbox_waits ON syncline_inbox (waits_for, position);

-- Pages that wait for a checkpoint, in the order in which they came. They are applied together when
-- a page has reached the head; until then syncline_cursor says what the rows reflect.
CREATE TABLE syncline_staged_page (
  page        INTEGER PRIMARY KEY,
  scope       TEXT NOT NULL,
  from_cursor TEXT,                      -- the cursor that it was asked with; NULL: the first page of a snapshot
  page_end    TEXT NOT NULL,             -- JSON: the page's end, with the cursor after it
  changes     INTEGER NOT NULL,          -- how many
  bytes       INTEGER NOT NULL,          -- of their texts
  received_at INTEGER NOT NULL           -- ms since 1970
);
CREATE TABLE syncline_staged (
  page        INTEGER NOT NULL,
  place       INTEGER NOT NULL,          -- in the page
  entity_type TEXT,                      -- NULL where it cannot be told
  entity_id   TEXT,
  change      TEXT NOT NULL,             -- JSON; of a change that was not understood, its text
  detail      TEXT,                      -- why it was not understood
  PRIMARY KEY (page, place)
) WITHOUT ROWID;
CREATE INDEX syncline_staged_entity ON syncline_staged (entity_type, entity_id);
CREATE INDEX syncline_staged_invalid ON syncline_staged (page) WHERE detail IS NOT NULL;

-- Fields that the remote has and the local table has not (yet): kept, and written once it has.
CREATE TABLE syncline_unknown_fields (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  fields      TEXT NOT NULL,             -- JSON
  PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

-- Ids that were replaced: an app that still holds an old one finds the new one here.
CREATE TABLE syncline_id_map (
  entity_type TEXT NOT NULL,
  old_id      TEXT NOT NULL,
  new_id      TEXT NOT NULL,
  reason      TEXT NOT NULL,             -- assigned (by the server), collision (a pulled row needed it), natural-key
  mapped_at   INTEGER NOT NULL,          -- ms since 1970, as the device's clock said
  aged_from   INTEGER,                   -- ms since 1970: how old it is; NULL while that clock is not believed
  PRIMARY KEY (entity_type, old_id)
) WITHOUT ROWID;
CREATE INDEX syncline_id_map_new ON syncline_id_map (entity_type, new_id);

-- Mutations confirmed lately, bounded: offered again when the server's history turns out to be an
-- older one.
CREATE TABLE syncline_journal (
  id          INTEGER PRIMARY KEY,       -- in the order of confirmation
  seq         INTEGER NOT NULL,          -- its place in the local order
  mutation    TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  client      TEXT NOT NULL,             -- the installation that sent it
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  op          TEXT NOT NULL,
  fields      TEXT,                      -- JSON: what was sent; NULL for a delete
  before      TEXT,                      -- JSON: the same fields before it, all of them before a delete
  command     TEXT,                      -- JSON
  group_id    TEXT,
  depends_on  TEXT,                      -- JSON
  covers      TEXT,                      -- JSON
  applied_at  INTEGER NOT NULL,          -- ms since 1970
  parts       TEXT                       -- JSON: what it was before edits became part of it
);

-- How far each scope has been seen and applied.
CREATE TABLE syncline_cursor (
  scope     TEXT PRIMARY KEY NOT NULL,
  epoch     TEXT NOT NULL,
  cursor    TEXT NOT NULL,
  position  INTEGER NOT NULL,            -- every row of the scope reflects it, once phase is 'feed'
  phase     TEXT NOT NULL,               -- snapshot, feed
  pulled_at INTEGER NOT NULL,            -- ms since 1970
  head_at   INTEGER,                     -- when the head was last reached
  -- Of the pull under way, or the last one: changes and bytes received, and how many changes are
  -- still to come. NULL: the server did not say; 0: the head was reached.
  received       INTEGER NOT NULL DEFAULT 0,
  received_bytes INTEGER NOT NULL DEFAULT 0,
  to_come        INTEGER
) WITHOUT ROWID;

-- Conflicts, decided or open. The losing values are kept here.
CREATE TABLE syncline_conflict (
  id          INTEGER PRIMARY KEY,
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  mutations   TEXT NOT NULL,             -- JSON array of the mutations that it is about
  base        TEXT,                      -- JSON fields; NULL: absent
  local       TEXT,
  remote      TEXT,
  error       TEXT NOT NULL,             -- JSON: where and why it showed, and the remote's version
  resolution  TEXT,                      -- the rule, or what a person chose; NULL: open
  result      TEXT,                      -- JSON: the row that came of it; NULL: none
  outcome     TEXT,                      -- JSON: field by field what was taken, and what either side lost
  undo        TEXT,                      -- JSON: what a person's choice is taken back with
  opened_at   INTEGER NOT NULL,
  resolved_at INTEGER
);
CREATE INDEX syncline_conflict_open ON syncline_conflict (entity_type, entity_id) WHERE resolved_at IS NULL;

-- Who is the engine of this file, until when; every engine transaction checks the token (S2).
CREATE TABLE syncline_lease (
  id     INTEGER PRIMARY KEY CHECK (id = 1),
  holder TEXT NOT NULL,
  token  INTEGER NOT NULL,
  until  INTEGER NOT NULL                -- ms since 1970
);

-- Recent outcomes, bounded.
CREATE TABLE syncline_log (
  id          INTEGER PRIMARY KEY,
  at          INTEGER NOT NULL,          -- ms since 1970
  kind        TEXT NOT NULL,             -- applied, superseded, failed, dead, merged, discarded …
  mutation    TEXT,
  idempotency_key TEXT,
  entity_type TEXT,
  entity_id   TEXT,
  op          TEXT,
  detail      TEXT                       -- JSON
);

-- Entities met by the snapshot under way, when the tables were not empty before it: what is clean
-- and was not met is gone on the server (mark and sweep).
CREATE TABLE syncline_seen (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

-- Rows of a snapshot under way that is compared with the tables (writes had escaped capture) and
-- that are missing here: whether they were deleted is decided when all are known.
CREATE TABLE syncline_missing (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  scope       TEXT NOT NULL,
  fields      TEXT NOT NULL,             -- JSON
  version     TEXT NOT NULL,
  position    INTEGER NOT NULL,
  PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

-- Rows that a snapshot did not have and that are not removed unasked (I3).
CREATE TABLE syncline_held (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

-- Rows that went because the server does not have them, while rows here may reference them: judged
-- when the head is reached.
CREATE TABLE syncline_removed (
  entity_type TEXT NOT NULL,
  entity_id   TEXT NOT NULL,
  fields      TEXT NOT NULL,             -- JSON: the row as it was
  version     TEXT,                      -- of the deletion, where it is known
  position    INTEGER,
  PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

-- For UIs in any language: how much waits in the outbox, by entity type and state. (NOT INDEXED: by
-- seq alone, and not through all of an index for the sake of its order.)
CREATE VIEW syncline_backlog AS
SELECT entity_type, state, sum(entries) AS entries, sum(bytes) AS bytes
  FROM (SELECT entity_type, state, entries, bytes FROM syncline_count
        UNION ALL
        SELECT entity_type, state, count(*), sum(coalesce(length(CAST(payload AS BLOB)), 0))
          FROM syncline_outbox NOT INDEXED
         WHERE seq > coalesce((SELECT value FROM syncline_meta WHERE key = 'counted'), 0)
         GROUP BY entity_type, state)
 GROUP BY entity_type, state HAVING sum(entries) > 0;

-- For UIs in any language: where everything stands, in one row.
CREATE VIEW syncline_status AS
SELECT
  CASE WHEN here THEN coalesce((SELECT value FROM syncline_meta WHERE key = 'engine_state'), 'running')
       ELSE 'stopped' END AS engine,
  b.pending, b.in_flight, b.failed, b.dead, b.backlog_bytes,
  (SELECT count(*) FROM syncline_inbox)                            AS inbox,
  (SELECT coalesce(sum(changes), 0) FROM syncline_staged_page)     AS staged,
  (SELECT count(*) FROM syncline_conflict WHERE resolved_at IS NULL) AS open_conflicts,
  (SELECT created_at FROM syncline_outbox WHERE state IN ('pending', 'in_flight') ORDER BY seq LIMIT 1) AS oldest_pending_at,
  (SELECT value FROM syncline_meta WHERE key = 'last_push_at')     AS last_push_at,
  (SELECT value FROM syncline_meta WHERE key = 'last_pull_at')     AS last_pull_at,
  (SELECT value FROM syncline_meta WHERE key = 'last_error')       AS last_error,
  CASE WHEN here THEN (SELECT value FROM syncline_meta WHERE key = 'blocked_because') END AS blocked_because,
  CASE WHEN here THEN (SELECT value FROM syncline_meta WHERE key = 'blocked_detail') END AS blocked_detail,
  CASE WHEN here THEN (SELECT value FROM syncline_meta WHERE key = 'blocked_until') END AS blocked_until,
  CASE WHEN here THEN (SELECT value FROM syncline_meta WHERE key = 'wakeup_at') END AS wakeup_at,
  CASE WHEN here THEN (SELECT value FROM syncline_meta WHERE key = 'wakeup_reason') END AS wakeup_reason,
  (SELECT coalesce(sum(received), 0) FROM syncline_cursor WHERE to_come IS NOT 0) AS pull_rows,
  (SELECT coalesce(sum(received_bytes), 0) FROM syncline_cursor WHERE to_come IS NOT 0) AS pull_bytes,
  (SELECT sum(to_come) FROM syncline_cursor WHERE to_come IS NOT 0) AS pull_to_come
FROM (SELECT coalesce(sum(entries) FILTER (WHERE state = 'pending'), 0)   AS pending,
             coalesce(sum(entries) FILTER (WHERE state = 'in_flight'), 0) AS in_flight,
             coalesce(sum(entries) FILTER (WHERE state = 'failed'), 0)    AS failed,
             coalesce(sum(entries) FILTER (WHERE state = 'dead'), 0)      AS dead,
             coalesce(sum(bytes) FILTER (WHERE state IN ('pending', 'in_flight')), 0) AS backlog_bytes
        FROM syncline_backlog) AS b,
     -- An engine that was paused gives the lease back.
     (SELECT EXISTS (SELECT 1 FROM syncline_lease
                      WHERE until > CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER))
          OR EXISTS (SELECT 1 FROM syncline_meta WHERE key = 'engine_state' AND value = 'paused') AS here);

-- For UIs in any language: every row that is not simply synced, and what it waits for.
CREATE VIEW syncline_row_state AS
SELECT entity_type, entity_id,
       CASE max(CASE state WHEN 'dead' THEN 4 WHEN 'failed' THEN 3 WHEN 'in_flight' THEN 2 ELSE 1 END)
         WHEN 4 THEN 'dead' WHEN 3 THEN 'failed' WHEN 2 THEN 'in_flight' ELSE 'pending' END AS state,
       count(*) AS mutations,
       max(last_error) AS last_error
  FROM syncline_outbox
 WHERE NOT EXISTS (SELECT 1 FROM syncline_conflict c
                    WHERE c.entity_type = syncline_outbox.entity_type
                      AND c.entity_id = syncline_outbox.entity_id AND c.resolved_at IS NULL)
 GROUP BY entity_type, entity_id
UNION ALL
SELECT entity_type, entity_id, 'conflict', 0, error FROM syncline_conflict WHERE resolved_at IS NULL
UNION ALL
SELECT entity_type, entity_id, 'inbox:' || waits_for, 0, detail FROM syncline_inbox;

-- For UIs in any language: what a person has to mend, one row for each field that the server named,
-- or one row with no field.
CREATE VIEW syncline_dead_letter AS
SELECT o.seq, o.mutation, o.entity_type, o.entity_id, o.op, o.state, o.attempts, o.created_at,
       json_extract(o.last_error, '$.code')   AS code,
       json_extract(o.last_error, '$.detail') AS detail,
       json_extract(e.value, '$.field')       AS field,
       json_extract(e.value, '$.code')        AS field_code,
       json_extract(e.value, '$.detail')      AS field_detail
  FROM syncline_outbox AS o LEFT JOIN json_each(o.last_error, '$.errors') AS e
 WHERE o.state IN ('failed', 'dead');

-- For UIs in any language: what is still to be sent or answered, in local order.
CREATE VIEW syncline_pending AS
SELECT seq, mutation, entity_type, entity_id, op, state, attempts, created_at,
       frozen IS NOT NULL AS may_have_been_sent,
       CASE WHEN state = 'in_flight' THEN 'answer'
            WHEN EXISTS (SELECT 1 FROM syncline_conflict AS c WHERE c.entity_type = o.entity_type
                          AND c.entity_id = o.entity_id AND c.resolved_at IS NULL) THEN 'conflict'
            WHEN EXISTS (SELECT 1 FROM syncline_inbox AS i WHERE i.entity_type = o.entity_type
                          AND i.entity_id = o.entity_id) THEN 'inbox'
            WHEN EXISTS (SELECT 1 FROM syncline_staged AS s WHERE s.entity_type = o.entity_type
                          AND s.entity_id = o.entity_id) THEN 'checkpoint'
            WHEN EXISTS (SELECT 1 FROM syncline_outbox AS p WHERE p.entity_type = o.entity_type
                          AND p.entity_id = o.entity_id AND p.seq < o.seq) THEN 'earlier'
            WHEN cancel = 1 THEN 'cancel'
            WHEN o.frozen IS NULL AND EXISTS (
                   SELECT 1 FROM json_each(CASE WHEN json_valid(o.depends_on) THEN o.depends_on ELSE '[]' END) AS named
                     JOIN syncline_outbox AS d ON d.mutation = named.value
                    WHERE (d.entity_type, d.entity_id) <> (o.entity_type, o.entity_id)
                      AND (o.group_id IS NULL OR d.group_id IS NOT o.group_id)) THEN 'named'
            WHEN o.group_id IS NOT NULL AND o.frozen IS NULL AND EXISTS (
                   SELECT 1 FROM syncline_outbox AS g WHERE g.group_id = o.group_id AND g.seq <> o.seq
                     AND (g.state IN ('failed', 'dead')
                       OR g.not_before > CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)
                       OR EXISTS (SELECT 1 FROM syncline_conflict AS c WHERE c.entity_type = g.entity_type
                                     AND c.entity_id = g.entity_id AND c.resolved_at IS NULL))) THEN 'group'
            WHEN not_before > CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)
            THEN 'time'
       END AS waits_for,
       not_before
  FROM syncline_outbox AS o WHERE state IN ('pending', 'in_flight');
