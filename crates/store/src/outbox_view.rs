//! The outbox for people: what is in it, what each entry waits for, what became of settled ones.
//!
//! Reads only; decides nothing. What an entry waits for is worked out as the claim would, without
//! the cost of looking at the whole backlog.

pub(crate) mod waits;

use crate::captured::{self, BaseState};
use crate::error::{StoreError, json, to_json};
use crate::meta;
use crate::outbox::{self, EntryState};
use crate::store::EntityTypes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use syncline_core::{EntityRef, MutationError, Now};
use syncline_protocol::Fields;

/// Which entries are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All that are not settled.
    All,
    /// Those that are not sent again without a person.
    DeadLetters,
}

/// One outbox entry. Times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntryView {
    /// Local order; also its name for `retry` and `discard`.
    pub seq: i64,
    /// The mutation's correlation id.
    pub mutation: String,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id, as recorded.
    pub entity_id: String,
    /// `create`, `update` or `delete`.
    pub op: String,
    /// Where it stands.
    pub state: EntryState,
    /// Failures that count against it.
    pub attempts: u32,
    /// When it was recorded.
    pub created_at: i64,
    /// It may have been sent and has no final answer yet.
    pub may_have_been_sent: bool,
    /// What it waits for; `None`: for the next sync.
    pub waits_for: Option<WaitsFor>,
    /// Its last failure.
    pub last_error: Option<MutationError>,
}

/// What an outbox entry waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "for", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitsFor {
    /// A person: it is a dead letter.
    Person,
    /// The server's answer.
    Answer,
    /// A person, to decide an open conflict of its entity.
    Conflict,
    /// A change of its entity that waits in the inbox, for this reason.
    Inbox {
        /// Why the change waits.
        because: String,
    },
    /// An earlier entry of the same entity.
    Earlier {
        /// That entry.
        seq: i64,
    },
    /// The create of an entity that it references.
    Parent {
        /// That entry.
        seq: i64,
        /// The type of what it references.
        entity_type: String,
        /// The id of what it references.
        entity_id: String,
    },
    /// The mutation that it names as one to be settled before.
    Mutation {
        /// That entry.
        seq: i64,
        /// The mutation.
        mutation: String,
        /// The type of what it changes.
        entity_type: String,
        /// The id of what it changes.
        entity_id: String,
    },
    /// An earlier entry that references the row which this one deletes.
    Reference {
        /// That entry.
        seq: i64,
        /// The type of what references the row.
        entity_type: String,
        /// The id of what references the row.
        entity_id: String,
    },
    /// A member of its group that cannot go now.
    Group {
        /// That entry.
        seq: i64,
    },
    /// A person, to say whether its row is to go: the server does not have it.
    Held,
    /// The first snapshot: before that nobody knows what the row is based on.
    Snapshot,
    /// The head of the feed: the server may have the same thing under another id.
    Head,
    /// The server, to cancel its key; then it is discarded.
    Cancel,
    /// A moment.
    Time {
        /// Milliseconds since 1970.
        until: i64,
    },
}

/// An entry with everything that is recorded of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntryDetail {
    /// The entry.
    #[serde(flatten)]
    pub entry: EntryView,
    /// The key under which it is or was sent, once it has one.
    pub idempotency_key: Option<String>,
    /// What it writes; `None` for a delete.
    pub payload: Option<Fields>,
    /// Why the payload cannot be shown and never be sent, if that is so.
    pub unsyncable: Option<String>,
    /// The entity's last agreed state; `None`: it did not exist.
    pub base: Option<Fields>,
    /// 0: urgent, 2: background; `None`: the normal lane.
    pub lane: Option<i64>,
    /// All entries of a group take effect, or none.
    pub group: Option<String>,
    /// Mutations that have to be settled before.
    pub depends_on: Option<serde_json::Value>,
    /// Name and arguments of the command that it is.
    pub command: Option<serde_json::Value>,
    /// It is to be cancelled at the server, then discarded.
    pub cancel: bool,
}

/// What became of a mutation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettledView {
    /// When it was settled, in milliseconds since 1970.
    pub at: i64,
    /// `applied`, `superseded`, or what happened to it before: `failed`, `dead`, `retried`.
    pub outcome: String,
    /// The mutation's correlation id.
    pub mutation: String,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// `create`, `update` or `delete`.
    pub op: String,
    /// The outcome's circumstances.
    pub detail: serde_json::Value,
}

/// The first `limit` entries, in local order, and how many there are.
pub fn list(
    conn: &Connection,
    which: Which,
    limit: usize,
    now: Now,
) -> Result<(Vec<EntryView>, u64), StoreError> {
    meta::require_readable(conn)?;
    let states = match which {
        Which::All => "'pending', 'in_flight', 'failed', 'dead'",
        Which::DeadLetters => "'failed', 'dead'",
    };
    let count = format!("SELECT count(*) FROM syncline_outbox WHERE state IN ({states})");
    let total = conn.query_row(&count, [], |row| row.get(0))?;
    let sql = format!(
        "SELECT {COLUMNS} FROM syncline_outbox WHERE state IN ({states}) ORDER BY seq LIMIT ?1 + 0"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let raw: Vec<RawEntry> = conn
        .prepare(&sql)?
        .query_map([limit], raw_entry)?
        .collect::<Result<_, _>>()?;
    let types = EntityTypes::load(conn)?;
    let entries = raw.into_iter().map(|raw| view(conn, &types, raw, now));
    Ok((entries.collect::<Result<_, _>>()?, total))
}

/// The entries of one entity, in local order.
pub(crate) fn of_entity(
    conn: &Connection,
    types: &EntityTypes,
    entity: &EntityRef,
    now: Now,
) -> Result<Vec<EntryView>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM syncline_outbox WHERE entity_type = ?1 AND entity_id = ?2 ORDER BY seq"
    );
    let names = [entity.entity_type.as_str(), entity.id.as_str()];
    let raw: Vec<RawEntry> = conn
        .prepare_cached(&sql)?
        .query_map(names, raw_entry)?
        .collect::<Result<_, _>>()?;
    let entries = raw.into_iter().map(|raw| view(conn, types, raw, now));
    entries.collect()
}

/// One entry in full.
pub fn show(conn: &Connection, seq: i64, now: Now) -> Result<EntryDetail, StoreError> {
    meta::require_readable(conn)?;
    let sql = format!("SELECT {COLUMNS} FROM syncline_outbox WHERE seq = ?1");
    let raw = conn.query_row(&sql, [seq], raw_entry).optional()?;
    let raw = raw.ok_or(StoreError::NoSuchEntry(seq))?;
    let entry = view(conn, &EntityTypes::load(conn)?, raw, now)?;
    let (payload, unsyncable) = match captured::fields_of_mutation(conn, seq) {
        Ok(payload) => (payload, None),
        Err(error @ captured::CapturedError::Unsyncable { .. }) => (None, Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let base = match captured::base_of(conn, &entry.entity_type, &entry.entity_id)? {
        BaseState::Present(fields) => Some(fields),
        BaseState::None | BaseState::Absent => None,
    };
    let raw = outbox::get(conn, seq)?.ok_or(StoreError::NoSuchEntry(seq))?;
    // Whoever recorded it may have written anything there.
    let told = |text: Option<String>| {
        text.map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
    };
    Ok(EntryDetail {
        entry,
        idempotency_key: raw.key,
        payload,
        unsyncable,
        base,
        lane: raw.lane,
        group: raw.group,
        depends_on: told(raw.depends_on),
        command: told(raw.command),
        cancel: raw.cancel,
    })
}

/// Every entry in full, in local order, one at a time: for a backup, or to be mended elsewhere. All of
/// them are as of one moment, whatever the engine settles meanwhile.
pub fn export<E: From<StoreError>>(
    conn: &Connection,
    which: Which,
    now: Now,
    mut each: impl FnMut(&EntryDetail) -> Result<(), E>,
) -> Result<u64, E> {
    let tx = conn.unchecked_transaction().map_err(StoreError::from)?;
    let (entries, total) = list(&tx, which, usize::MAX, now)?;
    for entry in entries {
        each(&show(&tx, entry.seq, now)?)?;
    }
    tx.commit().map_err(StoreError::from)?;
    Ok(total)
}

/// The newest `limit` settled mutations, newest first.
pub fn settled(conn: &Connection, limit: usize) -> Result<Vec<SettledView>, StoreError> {
    meta::require_readable(conn)?;
    let mut statement = conn.prepare(&format!(
        "{LOGGED} WHERE kind IN ('applied', 'superseded') ORDER BY id DESC LIMIT ?1 + 0"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map([limit], logged)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The newest `limit` things that happened to mutations of one entity, newest first.
pub(crate) fn settled_of(
    conn: &Connection,
    entity: &EntityRef,
    limit: usize,
) -> Result<Vec<SettledView>, StoreError> {
    let mut statement = conn.prepare(&format!(
        "{LOGGED} WHERE entity_type = ?1 AND entity_id = ?2 ORDER BY id DESC LIMIT ?3 + 0"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let names = params![entity.entity_type.as_str(), entity.id.as_str(), limit];
    let rows = statement.query_map(names, logged)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

const LOGGED: &str = "SELECT at, kind, coalesce(mutation, ''), coalesce(entity_type, ''), \
                      coalesce(entity_id, ''), coalesce(op, ''), coalesce(detail, 'null') \
                      FROM syncline_log";

fn logged(row: &Row<'_>) -> rusqlite::Result<SettledView> {
    let detail: String = row.get(6)?;
    Ok(SettledView {
        at: row.get(0)?,
        outcome: row.get(1)?,
        mutation: row.get(2)?,
        entity_type: row.get(3)?,
        entity_id: row.get(4)?,
        op: row.get(5)?,
        detail: serde_json::from_str(&detail).unwrap_or(serde_json::Value::String(detail)),
    })
}

/// When the next entry that was put off is due, in milliseconds since 1970.
pub fn next_due(conn: &Connection, now: Now) -> Result<Option<i64>, StoreError> {
    meta::require_readable(conn)?;
    Ok(conn.query_row(
        "SELECT min(not_before) FROM syncline_outbox WHERE state = 'pending' AND not_before > ?1",
        [now.unix_ms],
        |row| row.get(0),
    )?)
}

const COLUMNS: &str = "seq, mutation, entity_type, entity_id, op, state, attempts, created_at, \
                       frozen IS NOT NULL, last_error";

struct RawEntry {
    view: EntryView,
    last_error: Option<String>,
}

fn raw_entry(row: &Row<'_>) -> rusqlite::Result<RawEntry> {
    let state: String = row.get(5)?;
    Ok(RawEntry {
        view: EntryView {
            seq: row.get(0)?,
            mutation: row.get(1)?,
            entity_type: row.get(2)?,
            entity_id: captured::recorded_id(row, 3)?,
            op: row.get(4)?,
            state: EntryState::parse(&state),
            attempts: row.get(6)?,
            created_at: row.get(7)?,
            may_have_been_sent: row.get(8)?,
            waits_for: None,
            last_error: None,
        },
        last_error: row.get(9)?,
    })
}

fn view(
    conn: &Connection,
    types: &EntityTypes,
    raw: RawEntry,
    now: Now,
) -> Result<EntryView, StoreError> {
    let mut view = raw.view;
    view.last_error = match raw.last_error {
        Some(text) => Some(json("mutation error", &text)?),
        None => None,
    };
    view.waits_for = waits::of(conn, types, &view, now)?;
    Ok(view)
}

/// Writes that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// Every mutation up to this entry.
    UpTo(i64),
    /// These mutations, of which these entries were there when it was asked: see [`await_these`].
    These {
        /// The mutations.
        mutations: Vec<String>,
        /// Their entries.
        entries: Vec<i64>,
    },
}

/// Where awaited writes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// None of them is left: each was confirmed by the server, or superseded with a recorded reason.
    Settled,
    /// Some are on their way.
    Waiting,
    /// All that is left of them waits for a person: dead letters, open conflicts, and later writes of
    /// their rows.
    NeedsPerson,
}

/// The newest entry of the outbox: everything written so far is up to it.
pub fn newest(conn: &Connection) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce(max(seq), 0) FROM syncline_outbox";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// What has to be known to ask again and again where these mutations stand.
pub fn await_these(conn: &Connection, mutations: Vec<String>) -> Result<Awaited, StoreError> {
    let sql = "SELECT seq FROM syncline_outbox WHERE mutation IN (SELECT value FROM json_each(?1))";
    let entries = conn
        .prepare_cached(sql)?
        .query_map([to_json(&mutations)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(Awaited::These { mutations, entries })
}

/// Where awaited writes stand. A mutation that was coalesced into another counts as that one does.
/// Asked after everything that the engine does, so it looks at the awaited entries alone.
pub fn standing(conn: &Connection, awaited: &Awaited) -> Result<Standing, StoreError> {
    // The entries themselves, and those that cover others: few, and found by an index of their own.
    let (which, themselves, covers) = match awaited {
        Awaited::UpTo(seq) => (Value::Integer(*seq), "o.seq <= ?1", "?1 IS NOT NULL"),
        Awaited::These { mutations, entries } => (
            // Numbers never start again, but a number may be that of another write by now.
            Value::Text(to_json(&(entries, mutations))),
            "o.seq IN (SELECT value FROM json_each(?1, '$[0]'))
                AND o.mutation IN (SELECT value FROM json_each(?1, '$[1]'))",
            "EXISTS (SELECT 1 FROM json_each(o.covers) AS covered
                      WHERE covered.value IN (SELECT value FROM json_each(?1, '$[1]')))",
        ),
    };
    let covers = format!("o.covers IS NOT NULL AND {covers}");
    let places = [
        ("syncline_outbox AS o NOT INDEXED", themselves),
        (
            "syncline_outbox AS o INDEXED BY syncline_outbox_covers",
            &covers,
        ),
    ];
    let any = |and: &str| -> Result<bool, StoreError> {
        for (place, condition) in places {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {place} WHERE {condition} {and})");
            let mut statement = conn.prepare_cached(&sql)?;
            if statement.query_row([&which], |row| row.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let for_nobody = "AND o.state NOT IN ('failed', 'dead')
        AND NOT EXISTS (SELECT 1 FROM syncline_conflict AS c WHERE c.entity_type = o.entity_type
                         AND c.entity_id = o.entity_id AND c.resolved_at IS NULL)
        AND NOT EXISTS (SELECT 1 FROM syncline_outbox AS e WHERE e.entity_type = o.entity_type
                         AND e.entity_id = o.entity_id AND e.seq < o.seq AND e.state IN ('failed', 'dead'))";
    Ok(match any(for_nobody)? {
        true => Standing::Waiting,
        false if any("")? => Standing::NeedsPerson,
        false => Standing::Settled,
    })
}

/// Local writes that are still to be sent, or whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Left {
    /// How many.
    pub mutations: u64,
    /// About how many bytes they have as JSON.
    pub bytes: u64,
}

/// What is left to be sent.
pub fn left(conn: &Connection) -> Result<Left, StoreError> {
    // What is not frozen yet gets its envelope around the payload.
    let sql = "SELECT count(*), coalesce(sum(coalesce(length(CAST(frozen AS BLOB)),
                                       120 + coalesce(length(CAST(payload AS BLOB)), 0))), 0)
                 FROM syncline_outbox WHERE state IN ('pending', 'in_flight')";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Left {
            mutations: row.get(0)?,
            bytes: row.get(1)?,
        })
    };
    Ok(conn.prepare_cached(sql)?.query_row([], read)?)
}
