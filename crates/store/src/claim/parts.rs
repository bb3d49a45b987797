//! What a create or an edit was before later edits were folded into it. A copy of the file that was made before that
//! sends it alone, under the key that both have (I2): where the copy was first, the mutation here is taken apart
//! again, and what the copy's did not say is sent after it.
//!
//! Never touches what may have been sent and has no answer.

use crate::captured;
use crate::error::{StoreError, json, to_json};
use crate::keys;
use crate::meta;
use crate::outbox::Entry;
use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};
use syncline_protocol::{Fields, MutationId, Operation};

/// An edit of which more are folded than this, or more bytes, goes under a key of its own instead: a copy that sends
/// the first of them then does it once more.
const MOST_EDITS: usize = 32;
const MOST_BYTES: usize = 64 * 1024;

/// The mutation itself, or an edit that became part of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    seq: i64,
    mutation: MutationId,
    /// The last of its keys that is spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spent: Option<String>,
    covers: Option<String>,
    fields: Fields,
}

impl Part {
    fn of(tx: &Transaction<'_>, entry: &Entry) -> Result<Self, StoreError> {
        Ok(Self {
            seq: entry.seq,
            mutation: entry.mutation.clone(),
            spent: entry.key.clone(),
            covers: entry.covers.clone(),
            fields: captured::fields_of_mutation(tx, entry.seq)?.unwrap_or_default(),
        })
    }
}

/// What a mutation and the edits are that became one.
#[derive(Clone)]
pub(crate) struct Parts {
    all: Vec<Part>,
    text: String,
}

impl Parts {
    /// The keys under which those would be sent that were refused by themselves before.
    pub(crate) fn next_keys(&self) -> impl Iterator<Item = String> {
        let edits = self.all.iter().skip(1);
        edits.filter_map(|part| Some(keys::after(&part.mutation, part.spent.as_deref()?)))
    }
}

/// What a mutation and the edits are that become one which says this, to be written down with it. `None`: nothing
/// became one, or it cannot be told what each of them said.
pub(crate) fn of(
    tx: &Transaction<'_>,
    entry: &Entry,
    folded: &[Entry],
    says: &Fields,
) -> Result<Option<Parts>, StoreError> {
    let is_one = folded.is_empty() && entry.covers.is_none();
    if is_one || entry.op == Operation::Delete {
        return Ok(None);
    }
    let is_edit = entry.op == Operation::Update;
    if is_edit && folded.len() > MOST_EDITS {
        return Ok(None);
    }
    let mut all = match read(tx, entry)? {
        Some(parts) => parts,
        None if is_edit && entry.covers.is_some() => return Ok(None),
        None => vec![Part::of(tx, entry)?],
    };
    for later in folded {
        all.push(Part::of(tx, later)?);
    }
    let text = to_json(&all);
    let told =
        !is_edit || all.len() <= MOST_EDITS && text.len() <= MOST_BYTES && is_said_by(&all, says);
    Ok(told.then_some(Parts { all, text }))
}

/// Writes them down where the mutation is not sent yet.
pub(crate) fn write(
    tx: &Transaction<'_>,
    entry: &Entry,
    parts: Option<&Parts>,
) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE syncline_outbox SET parts = ?2 WHERE seq = ?1")?
        .execute(params![entry.seq, parts.map(|parts| parts.text.as_str())])?;
    Ok(())
}

/// The parts of a mutation of which only these fields are said again.
pub(crate) fn narrowed(parts: &str, says: &Fields) -> Result<Option<String>, StoreError> {
    let mut parts: Vec<Part> = json("parts of a journal row", parts)?;
    for part in &mut parts {
        let said = part
            .fields
            .iter()
            .filter(|(name, _)| says.get(name).is_some());
        part.fields = said
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
    }
    Ok(is_said_by(&parts, says).then(|| to_json(&parts)))
}

/// Whether these parts together say that. Fields that are as they were in the end are not said.
fn is_said_by(parts: &[Part], says: &Fields) -> bool {
    let mut all = Fields::new();
    parts.iter().for_each(|part| all.patch(&part.fields));
    says.iter()
        .all(|(name, value)| all.get(name) == Some(value))
}

/// The parts of a mutation, unless it was made to say something else since.
fn read(tx: &Transaction<'_>, entry: &Entry) -> Result<Option<Vec<Part>>, StoreError> {
    let parts: Option<String> = tx
        .prepare_cached("SELECT parts FROM syncline_outbox WHERE seq = ?1")?
        .query_row([entry.seq], |row| row.get(0))?;
    let Some(parts) = parts else {
        return Ok(None);
    };
    let parts: Vec<Part> = json("parts of an outbox entry", &parts)?;
    let says = captured::fields_of_mutation(tx, entry.seq)?;
    let as_made = says.is_some_and(|says| is_said_by(&parts, &says));
    Ok(as_made.then_some(parts))
}

/// The mutation says again what it said by itself, and each edit follows it at its old place in the local order. Where the server has
/// said no to the mutation, it says so again for each edit, but for one that a copy has done by itself: that is why their keys
/// are not spent. Returns whether it was taken apart.
pub(crate) fn take_apart(tx: &Transaction<'_>, entry: &Entry) -> Result<bool, StoreError> {
    if entry.covers.is_none() {
        return Ok(false);
    }
    let Some(parts) = read(tx, entry)? else {
        return Ok(false);
    };
    let Some((own, edits)) = parts.split_first().filter(|(_, edits)| !edits.is_empty()) else {
        return Ok(false);
    };
    captured::write_payload(tx, entry.seq, Some(&own.fields))?;
    tx.prepare_cached("UPDATE syncline_outbox SET covers = ?2, parts = NULL WHERE seq = ?1")?
        .execute(params![entry.seq, own.covers])?;
    for edit in edits {
        // Numbers are never given twice, so the old one is free; should it not be, the end is.
        tx.prepare_cached(
            "INSERT INTO syncline_outbox (seq, mutation, entity_type, entity_id, op, created_at, schema_version, lane, covers,
                                          idempotency_key, origin_client)
             SELECT CASE WHEN EXISTS (SELECT 1 FROM syncline_outbox AS o WHERE o.seq = ?2)
                         THEN 1 + (SELECT max(seq) FROM syncline_outbox) ELSE ?2 END,
                    ?3, entity_type, entity_id, 'update', created_at, schema_version, lane, ?4, ?5,
                    nullif(origin_client, (SELECT value FROM syncline_meta WHERE key = ?6))
               FROM syncline_outbox WHERE seq = ?1",
        )?
        .execute(params![
            entry.seq,
            edit.seq,
            edit.mutation.as_str(),
            edit.covers,
            edit.spent,
            meta::key::CLIENT_ID,
        ])?;
        captured::write_payload(tx, tx.last_insert_rowid(), Some(&edit.fields))?;
    }
    Ok(true)
}
