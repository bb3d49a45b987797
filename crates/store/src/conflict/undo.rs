//! Taking a person's choice back, as long as nothing of it was sent: the conflict is open again, the
//! row and its mutations are as they were. What was edited since stays, laid over.

use super::reconcile::Way;
use super::record;
use crate::apply::{Applier, after_mutation};
use crate::captured::{self, BaseState};
use crate::error::StoreError;
use crate::inbox::{self, Waiting};
use crate::meta;
use crate::outbox;
use crate::row::{self, Written};
use crate::state;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use syncline_core::{EntityRef, WaitsFor};
use syncline_protocol::{Fields, RemoteState, Scope, ServerVersion};

/// What a choice is taken back with: the column `undo`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Undo {
    local: Option<Fields>,
    base: Base,
    entries: Vec<StoredEntry>,
    known: Option<Known>,
    waiting: Option<Parked>,
    /// What the choice made of it, to see whether it is still so.
    after: After,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Base {
    Unknown,
    Absent,
    Present(Fields),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct After {
    row: Option<Fields>,
    base: Option<Fields>,
    entries: Vec<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    version: ServerVersion,
    position: i64,
    deleted: bool,
}

/// A change that had waited in the inbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Parked {
    scope: String,
    remote: RemoteState,
}

/// An outbox entry that was never sent, or was refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredEntry {
    seq: i64,
    mutation: String,
    op: String,
    payload: Option<Fields>,
    created_at: i64,
    state: String,
    idempotency_key: Option<String>,
    attempts: i64,
    not_before: i64,
    last_error: Option<String>,
    schema_version: i64,
    lane: Option<i64>,
    group_id: Option<String>,
    command: Option<String>,
    depends_on: Option<String>,
    covers: Option<String>,
    origin: Option<String>,
}

impl Undo {
    /// How things are before a choice is written.
    pub(super) fn of(
        applier: &Applier<'_>,
        way: &Way<'_>,
        waiting: Option<&Waiting>,
    ) -> Result<Self, StoreError> {
        let names = (way.entity.entity_type.as_str(), way.entity.id.as_str());
        let entries = way
            .here
            .entries
            .iter()
            .map(|entry| stored(applier.tx, entry.seq));
        Ok(Self {
            local: row::read(applier.tx, &way.entity_type.table, &way.entity.id)?,
            base: match captured::base_of(applier.tx, names.0, names.1)? {
                BaseState::None => Base::Unknown,
                BaseState::Absent => Base::Absent,
                BaseState::Present(fields) => Base::Present(fields),
            },
            entries: entries.collect::<Result<_, _>>()?,
            known: known(applier.tx, way.entity)?,
            waiting: waiting.map(|one| Parked {
                scope: one.scope.to_string(),
                remote: one.remote.clone(),
            }),
            after: After::default(),
        })
    }

    /// How things are after it.
    pub(super) fn note_result(
        &mut self,
        applier: &Applier<'_>,
        entity: &EntityRef,
        row: Option<&Fields>,
        base: Option<&Fields>,
    ) -> Result<(), StoreError> {
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let entries = outbox::of_entity(applier.tx, names.0, names.1)?;
        self.after = After {
            row: row.cloned(),
            base: base.cloned(),
            entries: entries.iter().map(|entry| entry.seq).collect(),
        };
        Ok(())
    }

    /// Whether the entity is still as the choice left it, but for later edits; else why not.
    fn check(&self, applier: &Applier<'_>, way: &Still<'_>) -> Result<(), StoreError> {
        let late = |why: &str| {
            Err(StoreError::Refused(format!(
                "too late to take it back: {why}"
            )))
        };
        let names = (way.entity.entity_type.as_str(), way.entity.id.as_str());
        let left: BTreeSet<i64> = way.entries.iter().map(|entry| entry.seq).collect();
        if way.entries.iter().any(outbox::Entry::is_sent) {
            return late("it was sent, or may have been");
        }
        if self.after.entries.iter().any(|seq| !left.contains(seq)) {
            return late("its mutations are settled or have become others");
        }
        if left.is_empty() {
            return match way.row == self.after.row {
                true => Ok(()),
                false => late("the row has changed since"),
            };
        }
        match captured::base_of(applier.tx, names.0, names.1)?.into_fields() == self.after.base {
            true => Ok(()),
            false => late("the server's row has changed since"),
        }
    }
}

/// The entity as it is when the choice is to be taken back.
struct Still<'a> {
    entity: &'a EntityRef,
    entries: Vec<outbox::Entry>,
    row: Option<Fields>,
}

/// Takes back what a person chose about a conflict.
pub(crate) fn undo(applier: &mut Applier<'_>, id: i64) -> Result<(), StoreError> {
    let tx = applier.tx;
    let record = record::get(tx, id)?;
    let refuse = |why: String| Err(StoreError::Refused(why));
    let Some(undo) = &record.undo else {
        return refuse(match &record.resolution {
            None => format!("conflict {id} is open: there is nothing to take back"),
            Some(rule) => format!("conflict {id} was decided by {rule}, not by a person"),
        });
    };
    let entity = record.entity()?;
    let Some(entity_type) = applier.types.get(entity.entity_type.as_str()) else {
        return refuse(format!("the table of {entity} is not there"));
    };
    if record::open_of(tx, &entity)?.is_some() {
        return refuse(format!("another conflict of {entity} is open"));
    }
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let still = Still {
        entity: &entity,
        entries: outbox::of_entity(tx, names.0, names.1)?,
        row: row::read(tx, &entity_type.table, &entity.id)?,
    };
    undo.check(applier, &still)?;
    let mut wanted = undo.local.clone();
    for entry in &still.entries {
        if !undo.after.entries.contains(&entry.seq) {
            let payload = captured::fields_of_mutation(tx, entry.seq)?;
            wanted = after_mutation(wanted, entry.op, payload);
        }
    }
    restore_entries(tx, &entity, undo)?;
    match &undo.base {
        Base::Unknown => captured::delete_base(tx, names.0, names.1)?,
        Base::Absent => captured::write_base(tx, names.0, names.1, None)?,
        Base::Present(fields) => captured::write_base(tx, names.0, names.1, Some(fields))?,
    }
    match &undo.known {
        None => state::forget_known(tx, &entity)?,
        Some(one) => state::set_known(tx, &entity, &one.version, one.position, one.deleted)?,
    }
    if wanted != still.row {
        match applier.write_row(entity_type, &entity, wanted.as_ref())? {
            Written::Done => {}
            Written::NoParent(why) | Written::Refused(why) => {
                return refuse(format!("{entity} cannot be as it was any more: {why}"));
            }
        }
    }
    if let Some(parked) = &undo.waiting {
        let constraint = record.showed.constraint.as_deref().unwrap_or_default();
        park_again(applier, &entity, parked, constraint)?;
    }
    applier.rekeying.outbox_changed();
    record::reopen(tx, id)
}

fn park_again(
    applier: &Applier<'_>,
    entity: &EntityRef,
    parked: &Parked,
    constraint: &str,
) -> Result<(), StoreError> {
    let waiting = Waiting {
        stored: (parked.remote.position, String::new(), String::new()),
        entity: entity.clone(),
        scope: Scope::new(parked.scope.clone()),
        remote: parked.remote.clone(),
    };
    inbox::park(
        applier.tx,
        &waiting.scope,
        &waiting.change(),
        WaitsFor::Constraint,
        constraint,
        applier.now,
    )
}

fn known(conn: &Connection, entity: &EntityRef) -> Result<Option<Known>, StoreError> {
    let sql = "SELECT version, position, deleted FROM syncline_entity_state
                WHERE entity_type = ?1 AND entity_id = ?2";
    let names = [entity.entity_type.as_str(), entity.id.as_str()];
    let known = conn.prepare_cached(sql)?.query_row(names, |row| {
        Ok(Known {
            version: ServerVersion::new(row.get::<_, String>(0)?),
            position: row.get(1)?,
            deleted: row.get(2)?,
        })
    });
    Ok(known.optional()?)
}

fn stored(tx: &Transaction<'_>, seq: i64) -> Result<StoredEntry, StoreError> {
    let payload = captured::fields_of_mutation(tx, seq)?;
    let sql =
        "SELECT mutation, op, created_at, state, idempotency_key, attempts, not_before, last_error,
                      schema_version, lane, group_id, command, depends_on, covers, origin
                 FROM syncline_outbox WHERE seq = ?1";
    Ok(tx.prepare_cached(sql)?.query_row([seq], |row| {
        Ok(StoredEntry {
            seq,
            payload,
            mutation: row.get(0)?,
            op: row.get(1)?,
            created_at: row.get(2)?,
            state: row.get(3)?,
            idempotency_key: row.get(4)?,
            attempts: row.get(5)?,
            not_before: row.get(6)?,
            last_error: row.get(7)?,
            schema_version: row.get(8)?,
            lane: row.get(9)?,
            group_id: row.get(10)?,
            command: row.get(11)?,
            depends_on: row.get(12)?,
            covers: row.get(13)?,
            origin: row.get(14)?,
        })
    })?)
}

/// Entries of the choice go, those before it come back under their numbers. A key that was spent
/// since stays spent (E3).
fn restore_entries(
    tx: &Transaction<'_>,
    entity: &EntityRef,
    undo: &Undo,
) -> Result<(), StoreError> {
    let mut spent = Vec::new();
    for seq in &undo.after.entries {
        if let Some(entry) = outbox::get(tx, *seq)? {
            spent.push((entry.seq, entry.key));
        }
        captured::delete_reals(tx, *seq)?;
        tx.prepare_cached("DELETE FROM syncline_outbox WHERE seq = ?1")?
            .execute([seq])?;
        meta::raise(tx, meta::key::LAST_SEQ, *seq)?;
    }
    for one in &undo.entries {
        let key = spent.iter().find(|(seq, _)| *seq == one.seq);
        let key = key.and_then(|(_, key)| key.clone());
        tx.prepare_cached(
            "INSERT INTO syncline_outbox (seq, mutation, entity_type, entity_id, op, created_at, state,
                    idempotency_key, attempts, not_before, last_error, schema_version, lane, group_id,
                    command, depends_on, covers, origin)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
        )?
        .execute(params![
            one.seq,
            one.mutation,
            entity.entity_type.as_str(),
            entity.id.as_str(),
            one.op,
            one.created_at,
            one.state,
            key.as_ref().or(one.idempotency_key.as_ref()),
            one.attempts,
            one.not_before,
            one.last_error,
            one.schema_version,
            one.lane,
            one.group_id,
            one.command,
            one.depends_on,
            one.covers,
            one.origin
        ])?;
        captured::write_payload(tx, one.seq, one.payload.as_ref())?;
    }
    Ok(())
}
