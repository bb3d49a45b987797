//! The outbox as rows: reading entries, settling them, and the log of what became of them.

use crate::capture::MUTATION_ID;
use crate::captured;
use crate::error::{StoreError, to_json};
use crate::journal;
use crate::keys;
use crate::meta;
use crate::store::RegisteredType;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use std::collections::BTreeMap;
use syncline_core::{EntityRef, MutationError, Now};
use syncline_protocol::{EntityId, EntityType, Fields, MutationId, Operation};

/// One outbox entry without its payload.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) seq: i64,
    pub(crate) mutation: MutationId,
    pub(crate) entity_type: EntityType,
    /// As recorded; checked only when the entry is about to be sent.
    pub(crate) entity_id: String,
    pub(crate) op: Operation,
    pub(crate) state: EntryState,
    pub(crate) not_before: i64,
    pub(crate) attempts: u32,
    pub(crate) key: Option<String>,
    pub(crate) frozen: Option<String>,
    /// `None`: the normal lane.
    pub(crate) lane: Option<i64>,
    pub(crate) group: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) depends_on: Option<String>,
    pub(crate) covers: Option<String>,
    /// The installation that may have sent it, when that was another one than this is now.
    pub(crate) origin_client: Option<String>,
    pub(crate) cancel: bool,
    /// Where it comes from, unless a capture trigger recorded it.
    pub(crate) origin: Option<String>,
}

/// The states of an entry that is still in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// Waits to be sent.
    Pending,
    /// Sent, or about to be; no answer yet.
    InFlight,
    /// The server's final no.
    Failed,
    /// Given up after too many failures.
    Dead,
}

impl EntryState {
    /// The word for it in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryState::Pending => "pending",
            EntryState::InFlight => "in_flight",
            EntryState::Failed => "failed",
            EntryState::Dead => "dead",
        }
    }

    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "in_flight" => EntryState::InFlight,
            "failed" => EntryState::Failed,
            "dead" => EntryState::Dead,
            _ => EntryState::Pending,
        }
    }
}

const COLUMNS: &str = "seq, mutation, entity_type, entity_id, op, state, not_before, attempts, \
                       idempotency_key, frozen, lane, group_id, command, depends_on, covers, \
                       origin_client, cancel, origin";

pub(crate) fn op_word(op: Operation) -> &'static str {
    match op {
        Operation::Create => "create",
        Operation::Update => "update",
        Operation::Delete => "delete",
    }
}

pub(crate) fn op_of(word: &str) -> Operation {
    match word {
        "create" => Operation::Create,
        "delete" => Operation::Delete,
        _ => Operation::Update,
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let op: String = row.get(4)?;
    let state: String = row.get(5)?;
    Ok(Entry {
        seq: row.get(0)?,
        mutation: MutationId::new(row.get::<_, String>(1)?),
        entity_type: EntityType::new(row.get::<_, String>(2)?),
        entity_id: captured::recorded_id(row, 3)?,
        op: op_of(&op),
        state: EntryState::parse(&state),
        not_before: row.get(6)?,
        attempts: row.get(7)?,
        key: row.get(8)?,
        frozen: row.get(9)?,
        lane: row.get(10)?,
        group: row.get(11)?,
        command: row.get(12)?,
        depends_on: row.get(13)?,
        covers: row.get(14)?,
        origin_client: row.get(15)?,
        cancel: row.get(16)?,
        origin: row.get(17)?,
    })
}

impl Entry {
    /// Whether it may have been sent and has no final outcome yet (E5): by this installation, or by
    /// another copy of the file that this one continues.
    pub(crate) fn is_sent(&self) -> bool {
        self.frozen.is_some() || self.origin_client.is_some()
    }

    /// Whether it may have reached the server in its present history.
    pub(crate) fn is_under_way(&self) -> bool {
        self.frozen.is_some() || (self.origin_client.is_some() && !self.is_offered_again())
    }

    /// Whether it was sent to a server whose history has changed since, and nothing is known yet of
    /// what became of its key in the new one.
    pub(crate) fn is_offered_again(&self) -> bool {
        self.origin_client.is_some() && self.origin.as_deref() == Some(journal::ORIGIN)
    }

    /// Not to be coalesced: it means more than its fields, or counts as sent.
    pub(crate) fn stands_alone(&self) -> bool {
        self.group.is_some()
            || self.command.is_some()
            || self.depends_on.is_some()
            || self.origin_client.is_some()
            || self.cancel
    }

    /// The entity by name, when its id is one that can be synced.
    pub(crate) fn entity(&self) -> Result<EntityRef, String> {
        let id = captured::parse_entity_id(&self.entity_id).map_err(|error| {
            let recorded = captured::shown_id(&self.entity_id);
            format!("{error} (it is recorded as {recorded})")
        })?;
        Ok(EntityRef {
            entity_type: self.entity_type.clone(),
            id,
        })
    }
}

/// Up to `limit` entries after `seq`, in local order.
pub(crate) fn after(conn: &Connection, seq: i64, limit: usize) -> Result<Vec<Entry>, StoreError> {
    // SQLite compiles a statement anew for each other value of a limit that is a bare parameter.
    let sql =
        format!("SELECT {COLUMNS} FROM syncline_outbox WHERE seq > ?1 ORDER BY seq LIMIT ?2 + 0");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![seq, limit], entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Up to `limit` entries of a lane that is not the normal one, after `seq`, in local order.
pub(crate) fn of_lane(
    conn: &Connection,
    lane: i64,
    seq: i64,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM syncline_outbox WHERE lane = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3 + 0"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![lane, seq, limit], entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether any entry is off the normal lane.
pub(crate) fn has_lanes(conn: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM syncline_outbox WHERE lane IS NOT NULL)";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// All entries of a group, in local order.
pub(crate) fn of_group(conn: &Connection, group: &str) -> Result<Vec<Entry>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM syncline_outbox WHERE group_id = ?1 ORDER BY seq");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([group], entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// `o` has a key that can be asked about, and nothing earlier of its entity has been sent and is unsettled,
/// unless it is to be cancelled as well: what became of that is known first (O1).
pub(crate) const CAN_BE_CANCELLED: &str = "o.idempotency_key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM syncline_outbox AS e
     WHERE e.entity_type = o.entity_type AND e.entity_id = o.entity_id AND e.seq < o.seq AND e.cancel = 0
       AND (e.frozen IS NOT NULL OR e.origin_client IS NOT NULL))";

/// The first entry whose key is to be cancelled now.
pub(crate) fn to_cancel(conn: &Connection) -> Result<Option<Entry>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM syncline_outbox AS o WHERE cancel = 1 AND {CAN_BE_CANCELLED}
          ORDER BY seq LIMIT 1"
    );
    Ok(conn.prepare_cached(&sql)?.query_row([], entry).optional()?)
}

/// Every unsettled mutation and its entity: what explicit dependencies are looked up in.
pub(crate) fn all_mutations(
    conn: &Connection,
) -> Result<BTreeMap<String, (String, String)>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT mutation, entity_type, entity_id FROM syncline_outbox")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, (row.get(1)?, captured::recorded_id(row, 2)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All entries of a type that have a payload, in local order.
pub(crate) fn of_type(conn: &Connection, entity_type: &str) -> Result<Vec<Entry>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM syncline_outbox
          WHERE entity_type = ?1 AND op <> 'delete' ORDER BY seq"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([entity_type], entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All entries of an entity, in local order.
pub(crate) fn of_entity(
    conn: &Connection,
    entity_type: &str,
    entity_id: &str,
) -> Result<Vec<Entry>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM syncline_outbox WHERE entity_type = ?1 AND entity_id = ?2 ORDER BY seq"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([entity_type, entity_id], entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One entry.
pub(crate) fn get(conn: &Connection, seq: i64) -> Result<Option<Entry>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM syncline_outbox WHERE seq = ?1");
    Ok(conn
        .prepare_cached(&sql)?
        .query_row([seq], entry)
        .optional()?)
}

/// The unsettled create of a row that an entry has to wait for, since it references that row (O3), unless
/// both are of one group. What was recorded before a row was deleted and created anew is about the row
/// that there was until then, and the delete waits for it.
pub(crate) fn create_before(
    conn: &Connection,
    (seq, group): (i64, Option<&str>),
    parent: &EntityRef,
) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT min(c.seq) FROM syncline_outbox AS c
                WHERE c.entity_type = ?1 AND c.entity_id = ?2 AND c.op = 'create'
                  AND (?4 IS NULL OR c.group_id IS NOT ?4)
                  AND (c.seq < ?3 OR NOT EXISTS (
                       SELECT 1 FROM syncline_outbox AS o
                        WHERE o.entity_type = ?1 AND o.entity_id = ?2 AND o.seq < c.seq))";
    let names = (parent.entity_type.as_str(), parent.id.as_str());
    Ok(conn
        .prepare_cached(sql)?
        .query_row(params![names.0, names.1, seq, group], |row| row.get(0))?)
}

/// Takes a settled entry out of the outbox and remembers its outcome.
pub(crate) fn settle(
    conn: &Transaction<'_>,
    entry: &Entry,
    kind: &str,
    detail: &impl Serialize,
    now: Now,
) -> Result<(), StoreError> {
    captured::delete_reals(conn, entry.seq)?;
    conn.prepare_cached("DELETE FROM syncline_outbox WHERE seq = ?1")?
        .execute([entry.seq])?;
    meta::raise(conn, meta::key::LAST_SEQ, entry.seq)?;
    log(conn, entry, kind, &to_json(detail), now)
}

/// What the engine itself records as a mutation.
pub(crate) struct Recorded<'a> {
    pub(crate) entity_type: &'a RegisteredType,
    pub(crate) id: &'a EntityId,
    pub(crate) op: Operation,
    /// `None` for a delete.
    pub(crate) fields: Option<&'a Fields>,
    /// Why it is recorded, in a word.
    pub(crate) origin: &'a str,
}

/// Records a mutation as a capture trigger would, and returns its number. The base is the
/// caller's to write.
pub(crate) fn record(
    tx: &Transaction<'_>,
    recorded: &Recorded<'_>,
    now: Now,
) -> Result<i64, StoreError> {
    let entity_type = recorded.entity_type;
    tx.prepare_cached(&format!(
        "INSERT INTO syncline_outbox (seq, mutation, entity_type, entity_id, op, payload, created_at, schema_version, lane, origin)
         SELECT 1 + max(coalesce((SELECT max(seq) FROM syncline_outbox), 0),
                        coalesce((SELECT value FROM syncline_meta WHERE key = ?1), 0)),
                {MUTATION_ID}, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9"
    ))?
    .execute(params![
        meta::key::LAST_SEQ,
        entity_type.name,
        recorded.id.as_str(),
        op_word(recorded.op),
        // Unchecked, as from a capture trigger: what can never sync fails when it is claimed.
        recorded.fields.map(to_json),
        now.unix_ms,
        entity_type.schema_version,
        entity_type.options.lane.number(),
        recorded.origin
    ])?;
    Ok(tx.last_insert_rowid())
}

/// Remembers an outcome.
pub(crate) fn log(
    conn: &Connection,
    entry: &Entry,
    kind: &str,
    detail: &str,
    now: Now,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO syncline_log (at, kind, mutation, idempotency_key, entity_type, entity_id, op, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        now.unix_ms,
        kind,
        entry.mutation.as_str(),
        entry.key,
        entry.entity_type.as_str(),
        entry.entity_id,
        op_word(entry.op),
        detail
    ])?;
    Ok(())
}

/// Marks an entry with its final no. Its key is spent (it stays, so that no other use is made of
/// it), and nothing of the entry counts as sent any more. What a copy of the file has as well stays that.
pub(crate) fn fail(
    conn: &Connection,
    entry: &Entry,
    error: &MutationError,
    now: Now,
) -> Result<(), StoreError> {
    let detail = to_json(error);
    conn.prepare_cached(
        &format!("UPDATE syncline_outbox SET state = 'failed', frozen = NULL, cancel = 0,
                {NOT_OFFERED},
                shared_with = coalesce(
                  nullif(origin_client, (SELECT value FROM syncline_meta WHERE key = 'client_id')), shared_with),
                origin_client = NULL, last_error = ?2, lease_token = NULL, lease_until = NULL WHERE seq = ?1"),
    )?
    .execute(params![entry.seq, detail])?;
    log(conn, entry, "failed", &detail, now)
}

/// What another copy's key was used for is not offered again under it once it has its answer.
const NOT_OFFERED: &str = "
    origin = CASE WHEN origin = 'journal' AND origin_client <> (SELECT value FROM syncline_meta WHERE key = 'client_id')
                  THEN NULL ELSE origin END";
/// What stays of being another copy's, where nothing of it counts as sent any more. A file's own keys are its own
/// affair.
const OF_A_COPY: &str = "origin_client = nullif(origin_client, (SELECT value FROM syncline_meta WHERE key = 'client_id'))";

/// The key of an entry was answered with its final no.
pub(crate) fn spend(conn: &Connection, entry: &Entry) -> Result<(), StoreError> {
    let key = entry
        .key
        .clone()
        .or_else(|| Some(entry.mutation.to_string()));
    write_unfrozen(conn, entry, key.as_deref(), EntryState::Pending)
}

/// What an entry was frozen to was not done and never will be, without a word about its key.
pub(crate) fn unfreeze(
    conn: &Connection,
    entry: &Entry,
    state: EntryState,
) -> Result<(), StoreError> {
    let key = match &entry.key {
        // It is not spent.
        Some(key) if entry.frozen.is_some() || entry.is_offered_again() => {
            keys::before(&entry.mutation, key)
        }
        key => key.clone(),
    };
    write_unfrozen(conn, entry, key.as_deref(), state)
}

/// A copy of this file has used the key, with other bytes: what came of that is asked, as it would ask, under the name of
/// this file unless it is another's. That key is the next one now, also of what was offered again before.
pub(crate) fn inherit(conn: &Connection, entry: &Entry) -> Result<(), StoreError> {
    unfreeze(conn, entry, EntryState::Pending)?;
    conn.prepare_cached(
        "UPDATE syncline_outbox
            SET origin_client = coalesce(origin_client, (SELECT value FROM syncline_meta WHERE key = ?2)),
                origin = nullif(origin, ?3)
          WHERE seq = ?1",
    )?
    .execute(params![entry.seq, meta::key::CLIENT_ID, journal::ORIGIN])?;
    Ok(())
}

fn write_unfrozen(
    conn: &Connection,
    entry: &Entry,
    spent: Option<&str>,
    state: EntryState,
) -> Result<(), StoreError> {
    conn.prepare_cached(&format!(
        "UPDATE syncline_outbox SET state = ?2, idempotency_key = ?3, frozen = NULL, {NOT_OFFERED}, {OF_A_COPY},
                lease_token = NULL, lease_until = NULL WHERE seq = ?1"
    ))?
    .execute(params![entry.seq, state.as_str(), spent])?;
    Ok(())
}

/// Makes an entry that does not count as sent, or no more, do something else. A key that it has is spent.
pub(crate) fn rewrite(
    conn: &Transaction<'_>,
    seq: i64,
    op: Operation,
    fields: &Fields,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        &format!("UPDATE syncline_outbox SET op = ?2, state = 'pending', frozen = NULL, {NOT_OFFERED}, {OF_A_COPY}, covers = NULL, parts = NULL, shared_with = NULL,
                attempts = 0, not_before = 0, last_error = NULL, lease_token = NULL, lease_until = NULL
          WHERE seq = ?1"),
    )?
    .execute(params![seq, op_word(op)])?;
    let payload = (op != Operation::Delete).then_some(fields);
    captured::write_payload(conn, seq, payload)?;
    Ok(())
}
