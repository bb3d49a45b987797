//! Reads and writes what the capture triggers recorded: payloads of mutations, bases of entities.
//!
//! Two forms of a value stand in the same columns. The triggers, made of plain SQL, write a form
//! of their own; the engine writes the wire form. Readers accept both.
//!
//! | value | trigger form | wire form |
//! |---|---|---|
//! | BLOB | `{"$hex":"0A"}` | `{"$blob":"Cg=="}` |
//! | REAL | `{"$real":"row"}`: the value stands in `syncline_outbox_real` or `syncline_base_real` | a JSON number, `{"$real":"inf"}` |
//! | text with U+0000 | `{"$nul":1}` | – |
//! | beyond the size limit | `{"$large":1}` | – |
//! | when a base was taken | `{"$at":<ms>}`, not a field | – |
//!
//! What can never sync is [`CapturedError::Unsyncable`], with a message for the user: the app's
//! write went through, its record is to be marked failed.

mod stored;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::HashMap;
use stored::{Stored, parse_object};
use syncline_protocol::{EntityId, EntityIdError, Fields, Value};

/// What is known of an entity before its first unsettled mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseState {
    /// Nothing is recorded: the row as it is has no unsettled mutation.
    None,
    /// The entity did not exist.
    Absent,
    /// All its synced fields.
    Present(Fields),
}

impl BaseState {
    /// The fields of the agreed state; `None` when the entity did not exist in it.
    pub fn into_fields(self) -> Option<Fields> {
        match self {
            BaseState::Present(fields) => Some(fields),
            BaseState::None | BaseState::Absent => None,
        }
    }
}

/// Why something recorded could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CapturedError {
    /// The store could not be read or written; trying again may help.
    #[error("reading what was captured: {0}")]
    Storage(#[from] rusqlite::Error),
    /// There is no outbox entry of that number.
    #[error("there is no outbox entry {0}")]
    NoSuchEntry(i64),
    /// The stored text is none that a trigger or this module writes.
    #[error("{place} is damaged: {reason}")]
    Damaged {
        /// Which row of which table.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The app's write is recorded, but can never be synced as it is.
    #[error("{}{reason}", field.as_ref().map_or_else(String::new, |field| format!("{field}: ")))]
    Unsyncable {
        /// The field, if it is known which.
        field: Option<String>,
        /// What is wrong and what would mend it, for the user.
        reason: String,
    },
}

const NUL: &str = "text contains U+0000, which cannot be synced; remove that character";
const LARGE: &str = "the value is larger than 16 MiB, which cannot be synced; store it elsewhere";
const NOT_UTF8: &str = "text is not valid UTF-8, which cannot be synced; store it as a BLOB";

/// The payload of an outbox entry: `None` for a delete.
pub fn fields_of_mutation(conn: &Connection, seq: i64) -> Result<Option<Fields>, CapturedError> {
    let payload = conn
        .prepare_cached("SELECT payload FROM syncline_outbox WHERE seq = ?1")?
        .query_row([seq], |row| bytes(row.get_ref(0)?))
        .optional()?
        .ok_or(CapturedError::NoSuchEntry(seq))?;
    let Some(payload) = payload else {
        return Ok(None);
    };
    let mut statement =
        conn.prepare_cached("SELECT field, value FROM syncline_outbox_real WHERE seq = ?1")?;
    let reals = || {
        let rows = statement.query_map([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    decode(&payload, reals, || format!("outbox entry {seq}")).map(Some)
}

/// The entity id of an outbox entry, if it is one that can be synced.
pub fn entity_id_of_mutation(conn: &Connection, seq: i64) -> Result<EntityId, CapturedError> {
    let id = conn
        .prepare_cached("SELECT entity_id FROM syncline_outbox WHERE seq = ?1")?
        .query_row([seq], |row| recorded_id(row, 0))
        .optional()?
        .ok_or(CapturedError::NoSuchEntry(seq))?;
    parse_entity_id(&id)
}

/// How the id begins of a row whose key has text that is not valid UTF-8. No key has such a form.
const NOT_UTF8_ID: &str = "{\"$text\":";

/// An entity id as it is recorded, whatever it is: the triggers take the bytes of a key, and what is not
/// valid UTF-8 is read as `{"$text":"FF"}`, in hexadecimal.
pub(crate) fn recorded_id(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let recorded = bytes(row.get_ref(column)?)?.unwrap_or_default();
    Ok(String::from_utf8(recorded).unwrap_or_else(|error| {
        let bytes = error.as_bytes().iter();
        let hex: String = bytes.map(|byte| format!("{byte:02X}")).collect();
        format!("{NOT_UTF8_ID}\"{hex}\"}}")
    }))
}

/// Reads the text that capture triggers give a key, saying for the user what is wrong with a key
/// that cannot be synced.
pub fn parse_entity_id(text: &str) -> Result<EntityId, CapturedError> {
    if text.starts_with(NOT_UTF8_ID) {
        return Err(unsyncable_key(NOT_UTF8));
    }
    EntityId::parse(text).map_err(|error| match error {
        EntityIdError::NotCanonical(_) if text.contains("{\"$null\":") => {
            unsyncable_key("the key is NULL, which identifies no row; give it a value")
        }
        EntityIdError::NotCanonical(_) if text.contains("{\"$real\":") => unsyncable_key(
            "the key is a floating-point number, which cannot identify a row; use an integer, a text or a blob",
        ),
        EntityIdError::NotCanonical(_) if text.contains("{\"$nul\":") => unsyncable_key(NUL),
        other => unsyncable_key(&other.to_string()),
    })
}

/// What is recorded of an id that cannot be synced, for a person: on one line, and not endlessly long.
pub(crate) fn shown_id(recorded: &str) -> String {
    const MOST: usize = 80;
    let escaped = |c: char| match c.is_control() {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    let mut shown: String = recorded.chars().take(MOST).map(escaped).collect();
    if recorded.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

fn unsyncable_key(reason: &str) -> CapturedError {
    CapturedError::Unsyncable {
        field: None,
        reason: reason.to_owned(),
    }
}

/// The base of an entity. Whether it counts depends on there being outbox entries of that entity.
pub fn base_of(
    conn: &Connection,
    entity_type: &str,
    entity_id: &str,
) -> Result<BaseState, CapturedError> {
    let key = params![entity_type, entity_id];
    let fields = conn
        .prepare_cached(
            "SELECT fields FROM syncline_base WHERE entity_type = ?1 AND entity_id = ?2",
        )?
        .query_row(key, |row| bytes(row.get_ref(0)?))
        .optional()?;
    let fields = match fields {
        None => return Ok(BaseState::None),
        Some(None) => return Ok(BaseState::Absent),
        Some(Some(fields)) => fields,
    };
    let mut statement = conn.prepare_cached(
        "SELECT field, value FROM syncline_base_real WHERE entity_type = ?1 AND entity_id = ?2",
    )?;
    let reals = || {
        let rows = statement.query_map(key, |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    decode(&fields, reals, || {
        format!("the base of {entity_type} {entity_id}")
    })
    .map(BaseState::Present)
}

/// Sets the base of an entity; `None` says that it did not exist.
pub fn write_base(
    tx: &Transaction<'_>,
    entity_type: &str,
    entity_id: &str,
    fields: Option<&Fields>,
) -> Result<(), CapturedError> {
    let json = fields.map(encode).transpose()?;
    delete_base_reals(tx, entity_type, entity_id)?;
    tx.prepare_cached(
        "INSERT INTO syncline_base (entity_type, entity_id, fields) VALUES (?1, ?2, ?3)
         ON CONFLICT (entity_type, entity_id) DO UPDATE SET fields = excluded.fields",
    )?
    .execute(params![entity_type, entity_id, json])?;
    Ok(())
}

/// Sets the payload of an outbox entry; `None` for a delete.
pub fn write_payload(
    tx: &Transaction<'_>,
    seq: i64,
    fields: Option<&Fields>,
) -> Result<(), CapturedError> {
    let json = fields.map(encode).transpose()?;
    delete_reals(tx, seq)?;
    let changed = tx
        .prepare_cached("UPDATE syncline_outbox SET payload = ?2 WHERE seq = ?1")?
        .execute(params![seq, json])?;
    match changed {
        0 => Err(CapturedError::NoSuchEntry(seq)),
        _ => Ok(()),
    }
}

/// Removes the base of an entity, as is due when its last mutation settles.
pub fn delete_base(
    tx: &Transaction<'_>,
    entity_type: &str,
    entity_id: &str,
) -> Result<(), CapturedError> {
    delete_base_reals(tx, entity_type, entity_id)?;
    tx.prepare_cached("DELETE FROM syncline_base WHERE entity_type = ?1 AND entity_id = ?2")?
        .execute(params![entity_type, entity_id])?;
    Ok(())
}

/// Removes the base below an entry whose id can be read by nobody.
pub(crate) fn delete_base_below(tx: &Transaction<'_>, seq: i64) -> Result<(), CapturedError> {
    for table in ["syncline_base_real", "syncline_base"] {
        tx.prepare_cached(&format!(
            "DELETE FROM {table}
              WHERE (entity_type, entity_id) = (SELECT entity_type, entity_id FROM syncline_outbox WHERE seq = ?1)"
        ))?
        .execute([seq])?;
    }
    Ok(())
}

/// Removes the REALs of an outbox entry that is removed or rewritten.
pub fn delete_reals(tx: &Transaction<'_>, seq: i64) -> Result<(), CapturedError> {
    tx.prepare_cached("DELETE FROM syncline_outbox_real WHERE seq = ?1")?
        .execute([seq])?;
    Ok(())
}

/// Removes what statements that came to nothing have left: the stash, and bases of entities
/// without outbox entries. Cheap when there is none; call it between the engine's other work.
pub fn sweep(tx: &Transaction<'_>) -> Result<(), CapturedError> {
    tx.prepare_cached("DELETE FROM syncline_stash")?
        .execute([])?;
    for table in ["syncline_base_real", "syncline_base"] {
        tx.prepare_cached(&format!(
            "DELETE FROM {table} WHERE NOT EXISTS (
               SELECT 1 FROM syncline_outbox
                WHERE syncline_outbox.entity_type = {table}.entity_type
                  AND syncline_outbox.entity_id = {table}.entity_id)"
        ))?
        .execute([])?;
    }
    Ok(())
}

fn delete_base_reals(
    tx: &Transaction<'_>,
    entity_type: &str,
    entity_id: &str,
) -> Result<(), CapturedError> {
    tx.prepare_cached("DELETE FROM syncline_base_real WHERE entity_type = ?1 AND entity_id = ?2")?
        .execute(params![entity_type, entity_id])?;
    Ok(())
}

/// The bytes of a text: it need not be valid UTF-8.
fn bytes(value: ValueRef<'_>) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    Ok(match value {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
    })
}

type Reals = HashMap<String, f64>;

/// Reads either form. `reals` asks for the REALs that stand in rows of their own, if there are
/// any; `place` says for an error where the text stands.
fn decode(
    json: &[u8],
    reals: impl FnOnce() -> Result<Reals, rusqlite::Error>,
    place: impl Fn() -> String,
) -> Result<Fields, CapturedError> {
    let damaged = |reason: String| CapturedError::Damaged {
        place: place(),
        reason,
    };
    let Ok(json) = std::str::from_utf8(json) else {
        return Err(not_utf8(json));
    };
    let members = parse_object(json).map_err(|error| damaged(error.to_string()))?;
    let in_rows = |stored: &Stored| matches!(stored, Stored::RealInRow);
    let reals = match members.iter().any(|(_, stored)| in_rows(stored)) {
        true => reals()?,
        false => Reals::new(),
    };
    let mut fields = Fields::new();
    for (name, stored) in members {
        let unsyncable = |reason: &str| CapturedError::Unsyncable {
            field: Some(name.clone()),
            reason: reason.to_owned(),
        };
        let value = match stored {
            Stored::TakenAt => continue,
            Stored::Nul => return Err(unsyncable(NUL)),
            Stored::Large => return Err(unsyncable(LARGE)),
            Stored::Value(value) => value,
            Stored::RealInRow => match reals.get(&name) {
                Some(real) => Value::Real(*real),
                None => return Err(damaged(format!("the REAL of field {name:?} is missing"))),
            },
        };
        value
            .validate()
            .map_err(|error| unsyncable(&error.to_string()))?;
        if fields.insert(name.clone(), value).is_some() {
            return Err(damaged(format!("field {name:?} stands twice")));
        }
    }
    Ok(fields)
}

/// Names, as well as it can be told, the field whose text is not UTF-8.
fn not_utf8(json: &[u8]) -> CapturedError {
    let replaced = String::from_utf8_lossy(json);
    let members = parse_object(&replaced).unwrap_or_default();
    let is_marked = |stored: &Stored| match stored {
        Stored::Value(Value::Text(text)) => text.contains(char::REPLACEMENT_CHARACTER),
        _ => false,
    };
    let field = members.into_iter().find(|(_, stored)| is_marked(stored));
    CapturedError::Unsyncable {
        field: field.map(|(name, _)| name),
        reason: NOT_UTF8.to_owned(),
    }
}

fn encode(fields: &Fields) -> Result<String, CapturedError> {
    for (name, value) in fields {
        value
            .validate()
            .map_err(|error| CapturedError::Unsyncable {
                field: Some(name.clone()),
                reason: error.to_string(),
            })?;
    }
    serde_json::to_string(fields).map_err(|error| CapturedError::Damaged {
        place: "the fields to be written".to_owned(),
        reason: error.to_string(),
    })
}
