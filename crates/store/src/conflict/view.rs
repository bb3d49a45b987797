//! Conflicts for people: what there is, and one in full, field by field. Reads only.

use super::record::{self, Loss, Record, Showed, Side};
use crate::captured;
use crate::error::StoreError;
use crate::follow;
use crate::meta;
use crate::outbox;
use crate::row;
use crate::store::{EntityTypes, RegisteredType};
use rusqlite::{Connection, params_from_iter, types::Value as SqlValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use syncline_core::{
    ConflictInput, Decision, EntityRef, PendingMutation, what_each_policy_would_do,
};
use syncline_protocol::{Fields, Value};

/// Which conflicts are listed; the default: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConflictFilter {
    /// Only those that are open, or only those that are decided.
    pub state: Option<ConflictState>,
    /// Only those of this type.
    pub entity_type: Option<String>,
    /// Only those of this id.
    pub entity_id: Option<String>,
    /// So many at most, the newest.
    pub limit: Option<u64>,
}

impl ConflictFilter {
    /// Those that wait for a person.
    pub fn open() -> Self {
        Self {
            state: Some(ConflictState::Open),
            ..Self::default()
        }
    }
}

/// Where a conflict stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictState {
    /// It waits for a person.
    Open,
    /// It is decided.
    Resolved,
}

/// A conflict. Times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conflict {
    /// Its number.
    pub id: i64,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// Where it stands.
    pub state: ConflictState,
    /// How it showed itself, and why a person is needed.
    pub showed: Showed,
    /// The correlation ids of the mutations that it is about.
    pub mutations: Vec<String>,
    /// The rule that decided, or what a person chose; `None` while it is open.
    pub resolution: Option<String>,
    /// When it was opened.
    pub opened_at: i64,
    /// When it was decided.
    pub resolved_at: Option<i64>,
    /// A person decided it, so it may be taken back while nothing of it was sent.
    pub by_person: bool,
}

/// A conflict in full.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConflictDetails {
    /// The conflict.
    #[serde(flatten)]
    pub conflict: Conflict,
    /// The last state on which both sides agreed; `None`: it did not exist.
    pub base: Option<Fields>,
    /// The local row: of an open conflict, as it is now.
    pub local: Option<Fields>,
    /// The server's state.
    pub remote: Option<Fields>,
    /// The row that came of it; `None` while it is open, or when there is none.
    pub result: Option<Fields>,
    /// Field by field.
    pub fields: Vec<FieldDetails>,
    /// What was changed here and gave way.
    pub lost_mine: Loss,
    /// What was changed on the server and gave way.
    pub lost_theirs: Loss,
    /// What each policy would do about it; empty where a constraint is the matter.
    pub policies: Vec<PolicyOutcome>,
}

/// One field of a conflict. A value that is absent: the row is not there on that side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldDetails {
    /// Its name.
    pub name: String,
    /// On what both sides agreed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Value>,
    /// Here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mine: Option<Value>,
    /// On the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Value>,
    /// In the row that came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Who changed it.
    pub changed_by: ChangedBy,
    /// Whose value was taken: `mine`, `theirs` or `merged`, where both had changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took: Option<String>,
    /// The rule that decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Who changed a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangedBy {
    /// Nobody.
    Nobody,
    /// This side.
    Mine,
    /// The server's side.
    Theirs,
    /// Both.
    Both,
}

/// What a policy would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyOutcome {
    /// The policy's word; `declared`: what is declared of the type.
    pub policy: String,
    /// A person would be asked, for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manual: Option<String>,
    /// The row that would come of it; `None`: none, or a person would be asked.
    pub row: Option<Fields>,
}

/// Conflicts, newest first.
pub fn list(conn: &Connection, filter: &ConflictFilter) -> Result<Vec<Conflict>, StoreError> {
    meta::require_readable(conn)?;
    let (mut wheres, mut values): (Vec<&str>, Vec<SqlValue>) = (Vec::new(), Vec::new());
    match filter.state {
        None => {}
        Some(ConflictState::Open) => wheres.push("resolved_at IS NULL"),
        Some(ConflictState::Resolved) => wheres.push("resolved_at IS NOT NULL"),
    }
    if let Some(name) = &filter.entity_type {
        wheres.push("entity_type = ?");
        values.push(SqlValue::Text(name.clone()));
    }
    if let Some(id) = &filter.entity_id {
        wheres.push("entity_id = ?");
        values.push(SqlValue::Text(id.clone()));
    }
    let limit = filter.limit.and_then(|limit| i64::try_from(limit).ok());
    values.push(SqlValue::Integer(limit.unwrap_or(i64::MAX)));
    let wheres = match wheres.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", wheres.join(" AND ")),
    };
    let rest = format!("{wheres} ORDER BY id DESC LIMIT ?");
    let records = record::read(conn, &rest, params_from_iter(values))?;
    Ok(records.iter().map(conflict).collect())
}

fn conflict(record: &Record) -> Conflict {
    Conflict {
        id: record.id,
        entity_type: record.entity_type.clone(),
        entity_id: record.entity_id.clone(),
        state: match record.resolved_at {
            None => ConflictState::Open,
            Some(_) => ConflictState::Resolved,
        },
        showed: record.showed.clone(),
        mutations: record.mutations.clone(),
        resolution: record.resolution.clone(),
        opened_at: record.opened_at,
        resolved_at: record.resolved_at,
        by_person: record.undo.is_some(),
    }
}

/// One conflict in full, for whoever has only the file.
pub fn read(conn: &Connection, id: i64) -> Result<ConflictDetails, StoreError> {
    meta::require_readable(conn)?;
    show(conn, &EntityTypes::load(conn)?, id)
}

/// One conflict in full.
pub fn show(
    conn: &Connection,
    types: &EntityTypes,
    id: i64,
) -> Result<ConflictDetails, StoreError> {
    meta::require_readable(conn)?;
    let mut record = record::get(conn, id)?;
    let entity = record.entity()?;
    let entity_type = types.get(&record.entity_type);
    let mut pending = Vec::new();
    if let (Some(entity_type), None) = (entity_type, record.resolved_at) {
        // Local edits may have come since it was opened.
        record.local = row::read(conn, &entity_type.table, &entity.id)?;
        pending = pending_of(conn, &entity)?;
        record.mutations = pending.iter().map(|one| one.mutation.clone()).collect();
    }
    let outcome = record.outcome.clone().unwrap_or_default();
    Ok(ConflictDetails {
        conflict: conflict(&record),
        fields: fields(&record),
        policies: policies(&record, &entity, entity_type, &pending, server_time(conn)?),
        lost_mine: outcome.lost_mine,
        lost_theirs: outcome.lost_theirs,
        base: record.base,
        local: record.local,
        remote: record.remote,
        result: record.result,
    })
}

/// The server's time by this machine's clock and what is known of the difference.
fn server_time(conn: &Connection) -> Result<Option<i64>, StoreError> {
    let ahead_ms: Option<i64> = meta::get(conn, meta::key::SERVER_CLOCK)?;
    let here = follow::time(conn)?.unix_ms;
    Ok(ahead_ms.map(|ahead| here.saturating_add(ahead)))
}

fn pending_of(conn: &Connection, entity: &EntityRef) -> Result<Vec<PendingMutation>, StoreError> {
    let entries = outbox::of_entity(conn, entity.entity_type.as_str(), entity.id.as_str())?;
    let shown = entries.iter().map(|entry| {
        // What cannot be read can never be sent either, and says so in the outbox.
        let fields = captured::fields_of_mutation(conn, entry.seq).ok().flatten();
        PendingMutation {
            mutation: entry.mutation.as_str().to_owned(),
            op: entry.op,
            fields: fields.unwrap_or_default(),
        }
    });
    Ok(shown.collect())
}

fn fields(record: &Record) -> Vec<FieldDetails> {
    let sides = [&record.base, &record.local, &record.remote, &record.result];
    let names: BTreeSet<&str> = sides
        .into_iter()
        .flatten()
        .flat_map(Fields::names)
        .collect();
    let details = names.into_iter().map(|name| {
        let value = |side: &Option<Fields>| side.as_ref().and_then(|side| side.get(name)).cloned();
        let (base, mine, theirs) = (
            value(&record.base),
            value(&record.local),
            value(&record.remote),
        );
        let decided = record
            .outcome
            .as_ref()
            .and_then(|outcome| outcome.fields.get(name));
        FieldDetails {
            name: name.to_owned(),
            changed_by: match (mine != base, theirs != base) {
                (false, false) => ChangedBy::Nobody,
                (true, false) => ChangedBy::Mine,
                (false, true) => ChangedBy::Theirs,
                (true, true) => ChangedBy::Both,
            },
            result: value(&record.result),
            took: decided.map(|decided| decided.took.clone()),
            rule: decided.map(|decided| decided.rule.clone()),
            base,
            mine,
            theirs,
        }
    });
    details.collect()
}

/// What each policy would do; nothing, where a constraint and not the server's state is the matter.
fn policies(
    record: &Record,
    entity: &EntityRef,
    entity_type: Option<&RegisteredType>,
    pending: &[PendingMutation],
    server_time_ms: Option<i64>,
) -> Vec<PolicyOutcome> {
    let Some(entity_type) = entity_type.filter(|_| record.showed.side != Side::Violation) else {
        return Vec::new();
    };
    let cause = record.showed.cause();
    let input = ConflictInput {
        entity,
        base: record.base.as_ref(),
        local: record.local.as_ref(),
        remote: record.remote.as_ref(),
        pending,
        cause: &cause,
        server_time_ms,
    };
    let outcomes = what_each_policy_would_do(&input, &entity_type.rules);
    let told = outcomes.into_iter().map(|(policy, decision)| {
        let (manual, row) = match decision {
            Decision::Manual { reason, .. } => (Some(reason), None),
            Decision::Settled(settled) => (None, settled.row),
        };
        PolicyOutcome {
            policy: policy.to_owned(),
            manual,
            row,
        }
    });
    told.collect()
}
