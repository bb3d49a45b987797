//! What a create was before later edits were folded into it. A copy of the file that was made before that sends the
//! create alone, under the key that both have (I2): where the copy was first, the create here is taken apart
//! again, and what the copy's did not say is sent after it.
//!
//! Never touches what may have been sent and has no answer.

use crate::captured;
use crate::error::{StoreError, json, to_json};
use crate::outbox::Entry;
use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};
use syncline_protocol::{Fields, MutationId};

/// The create itself, or an edit that became part of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    seq: i64,
    mutation: MutationId,
    covers: Option<String>,
    fields: Fields,
}

impl Part {
    fn of(tx: &Transaction<'_>, entry: &Entry) -> Result<Self, StoreError> {
        Ok(Self {
            seq: entry.seq,
            mutation: entry.mutation.clone(),
            covers: entry.covers.clone(),
            fields: captured::fields_of_mutation(tx, entry.seq)?.unwrap_or_default(),
        })
    }
}

/// Writes down what a create and the edits are that are about to become one.
pub(crate) fn note(
    tx: &Transaction<'_>,
    create: &Entry,
    folded: &[Entry],
) -> Result<(), StoreError> {
    let mut parts = match read(tx, create)? {
        Some(parts) => parts,
        None => vec![Part::of(tx, create)?],
    };
    for later in folded {
        parts.push(Part::of(tx, later)?);
    }
    tx.prepare_cached("UPDATE syncline_outbox SET parts = ?2 WHERE seq = ?1")?
        .execute(params![create.seq, to_json(&parts)])?;
    Ok(())
}

/// The parts of a create, unless it was made to say something else since.
fn read(tx: &Transaction<'_>, create: &Entry) -> Result<Option<Vec<Part>>, StoreError> {
    let parts: Option<String> = tx
        .prepare_cached("SELECT parts FROM syncline_outbox WHERE seq = ?1")?
        .query_row([create.seq], |row| row.get(0))?;
    let Some(parts) = parts else {
        return Ok(None);
    };
    let parts: Vec<Part> = json("parts of an outbox entry", &parts)?;
    let mut all = Fields::new();
    parts.iter().for_each(|part| all.patch(&part.fields));
    let says = captured::fields_of_mutation(tx, create.seq)?;
    Ok((says == Some(all)).then_some(parts))
}

/// The create says again what it said by itself, and each edit follows it at its old place in the local order.
pub(crate) fn take_apart(tx: &Transaction<'_>, create: &Entry) -> Result<(), StoreError> {
    let Some(parts) = read(tx, create)? else {
        return Ok(());
    };
    let Some((own, edits)) = parts.split_first() else {
        return Ok(());
    };
    captured::write_payload(tx, create.seq, Some(&own.fields))?;
    tx.prepare_cached("UPDATE syncline_outbox SET covers = ?2, parts = NULL WHERE seq = ?1")?
        .execute(params![create.seq, own.covers])?;
    for edit in edits {
        // Numbers are never given twice, so the old one is free; should it not be, the end is.
        tx.prepare_cached(
            "INSERT INTO syncline_outbox (seq, mutation, entity_type, entity_id, op, created_at, schema_version, lane, covers)
             SELECT CASE WHEN EXISTS (SELECT 1 FROM syncline_outbox AS o WHERE o.seq = ?2)
                         THEN 1 + (SELECT max(seq) FROM syncline_outbox) ELSE ?2 END,
                    ?3, entity_type, entity_id, 'update', created_at, schema_version, lane, ?4
               FROM syncline_outbox WHERE seq = ?1",
        )?
        .execute(params![
            create.seq,
            edit.seq,
            edit.mutation.as_str(),
            edit.covers
        ])?;
        captured::write_payload(tx, tx.last_insert_rowid(), Some(&edit.fields))?;
    }
    Ok(())
}
