//! Rows of `syncline_conflict`: what happened, kept for people. An open one pauses its entity.

use super::undo::Undo;
use crate::error::{StoreError, json, to_json};
use crate::state;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use syncline_core::{ConflictCause, EntityRef, Lost, Now, Settled};
use syncline_protocol::{ConflictReason, EntityId, EntityType, Fields, RemoteState};

/// Where a conflict showed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The server refused a pushed mutation.
    Push,
    /// A change was pulled for an entity with unsettled mutations.
    Pull,
    /// A constraint of the local schema leaves a row no place.
    Violation,
}

/// An entity by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherEntity {
    /// Its type.
    pub entity_type: String,
    /// Its id.
    pub entity_id: String,
}

/// How a conflict showed itself: the column `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Showed {
    /// Where.
    pub side: Side,
    /// Push: the HTTP status that the refusal stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Push: why the server refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ConflictReason>,
    /// Violation: which constraint, in the words of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    /// Violation: the other entity, where one is known: what waits for this one's place, or stands
    /// in this one's way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<OtherEntity>,
    /// Why a person is, or was, needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The server's state with its version; none: it does not know the entity, or the conflict is
    /// not about its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteState>,
}

impl Showed {
    pub(super) fn new(cause: &ConflictCause, remote: Option<&RemoteState>) -> Self {
        let mut showed = Self {
            side: Side::Pull,
            status: cause.status(),
            code: None,
            constraint: None,
            other: None,
            reason: None,
            remote: remote.cloned(),
        };
        match cause {
            ConflictCause::Pull => {}
            ConflictCause::Push(reason) => {
                showed.side = Side::Push;
                showed.code = Some(*reason);
            }
            ConflictCause::Violation { constraint, other } => {
                showed.side = Side::Violation;
                showed.constraint = Some(constraint.clone());
                showed.other = other.as_ref().map(|other| OtherEntity {
                    entity_type: other.entity_type.to_string(),
                    entity_id: other.id.to_string(),
                });
            }
        }
        showed
    }

    /// As the resolver was told.
    pub(crate) fn cause(&self) -> ConflictCause {
        match (self.side, self.code) {
            (Side::Push, Some(reason)) => ConflictCause::Push(reason),
            (Side::Violation, _) => ConflictCause::Violation {
                constraint: self.constraint.clone().unwrap_or_default(),
                other: self.other.as_ref().and_then(|other| {
                    Some(EntityRef {
                        entity_type: EntityType::new(other.entity_type.clone()),
                        id: EntityId::parse(other.entity_id.clone()).ok()?,
                    })
                }),
            },
            (Side::Push | Side::Pull, _) => ConflictCause::Pull,
        }
    }
}

/// What became of a field that both sides had changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldRecord {
    /// Whose value it has now: `mine`, `theirs` or `merged`.
    pub took: String,
    /// The rule that decided.
    pub rule: String,
}

/// What one side had done and the outcome does not show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Everything that it did is there.
    #[default]
    Nothing,
    /// Values that it had given to fields.
    Values(Fields),
    /// It had deleted the entity.
    Deletion,
}

impl Loss {
    /// The values that a row does not show.
    pub(crate) fn of(values: Fields, row: &Fields) -> Self {
        let values = values.into_iter();
        let hidden: Fields = values
            .filter(|(name, value)| row.get(name) != Some(value))
            .collect();
        match hidden.is_empty() {
            true => Self::Nothing,
            false => Self::Values(hidden),
        }
    }
}

impl From<Lost> for Loss {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Nothing => Loss::Nothing,
            Lost::Values(fields) => Loss::Values(fields),
            Lost::Deletion => Loss::Deletion,
        }
    }
}

/// What a decision did, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Fields that both sides had changed, each to another value.
    pub fields: BTreeMap<String, FieldRecord>,
    /// What was changed here and gave way.
    pub lost_mine: Loss,
    /// What was changed on the server and gives way with the next push.
    pub lost_theirs: Loss,
}

impl From<&Settled> for Outcome {
    fn from(settled: &Settled) -> Self {
        let fields = settled.fields.iter().map(|(name, outcome)| {
            let took = outcome.took.as_str().to_owned();
            let rule = outcome.rule.clone();
            (name.clone(), FieldRecord { took, rule })
        });
        Self {
            fields: fields.collect(),
            lost_mine: settled.lost_mine.clone().into(),
            lost_theirs: settled.lost_theirs.clone().into(),
        }
    }
}

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: i64,
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    pub(crate) mutations: Vec<String>,
    pub(crate) base: Option<Fields>,
    pub(crate) local: Option<Fields>,
    pub(crate) remote: Option<Fields>,
    pub(crate) showed: Showed,
    pub(crate) resolution: Option<String>,
    pub(crate) result: Option<Fields>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) undo: Option<Undo>,
    pub(crate) opened_at: i64,
    pub(crate) resolved_at: Option<i64>,
}

impl Record {
    pub(super) fn entity(&self) -> Result<EntityRef, StoreError> {
        let id = EntityId::parse(self.entity_id.clone());
        Ok(EntityRef {
            entity_type: EntityType::new(self.entity_type.clone()),
            id: id.map_err(|error| StoreError::Refused(error.to_string()))?,
        })
    }
}

/// What is written of a conflict before it is decided.
pub(super) struct About<'a> {
    pub(super) entity: &'a EntityRef,
    pub(super) mutations: Vec<&'a str>,
    pub(super) base: Option<&'a Fields>,
    pub(super) local: Option<&'a Fields>,
    pub(super) remote: Option<&'a Fields>,
    pub(super) showed: Showed,
}

/// What was decided.
pub(super) struct Decided<'a> {
    pub(super) resolution: &'a str,
    pub(super) result: Option<&'a Fields>,
    pub(super) outcome: Option<Outcome>,
    pub(super) undo: Option<&'a Undo>,
}

const COLUMNS: &str = "id, entity_type, entity_id, mutations, base, local, remote, error, resolution, \
                       result, outcome, undo, opened_at, resolved_at";

/// Reads rows: `rest` follows the FROM clause.
pub(super) fn read(
    conn: &Connection,
    rest: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Record>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM syncline_conflict {rest}");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

fn record(row: &Row<'_>) -> Result<Record, StoreError> {
    fn stored<T: serde::de::DeserializeOwned>(
        row: &Row<'_>,
        at: usize,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<String> = row.get(at)?;
        text.map(|text| json("conflict", &text)).transpose()
    }
    Ok(Record {
        id: row.get(0)?,
        entity_type: row.get(1)?,
        entity_id: row.get(2)?,
        mutations: stored(row, 3)?.unwrap_or_default(),
        base: stored(row, 4)?,
        local: stored(row, 5)?,
        remote: stored(row, 6)?,
        showed: json("conflict", &row.get::<_, String>(7)?)?,
        resolution: row.get(8)?,
        result: stored(row, 9)?,
        outcome: stored(row, 10)?,
        undo: stored(row, 11)?,
        opened_at: row.get(12)?,
        resolved_at: row.get(13)?,
    })
}

/// One by its number.
pub(super) fn get(conn: &Connection, id: i64) -> Result<Record, StoreError> {
    let found = read(conn, "WHERE id = ?1", [id])?;
    found
        .into_iter()
        .next()
        .ok_or(StoreError::NoSuchConflict(id))
}

/// The open one of an entity.
pub(crate) fn open_of(conn: &Connection, entity: &EntityRef) -> Result<Option<Record>, StoreError> {
    let rest = "WHERE entity_type = ?1 AND entity_id = ?2 AND resolved_at IS NULL";
    let found = read(
        conn,
        rest,
        [entity.entity_type.as_str(), entity.id.as_str()],
    )?;
    Ok(found.into_iter().next())
}

/// What both sides had agreed on of a row before it was deleted there and this mutation created it again.
pub(super) fn before_deletion(
    conn: &Connection,
    entity: &EntityRef,
    mutation: &str,
) -> Result<Option<Fields>, StoreError> {
    let rest = "WHERE entity_type = ?1 AND entity_id = ?2 AND resolved_at IS NOT NULL
                  AND base IS NOT NULL AND remote IS NULL
                  AND EXISTS (SELECT 1 FROM json_each(mutations) WHERE value = ?3)
                ORDER BY id DESC LIMIT 1";
    let about = [entity.entity_type.as_str(), entity.id.as_str(), mutation];
    let found = read(conn, rest, about)?;
    Ok(found.into_iter().next().and_then(|record| record.base))
}

/// Whether an open conflict of the entity shows it alive on the server.
pub(crate) fn shows_remote(conn: &Connection, entity: &EntityRef) -> Result<bool, StoreError> {
    let open = open_of(conn, entity)?;
    let remote = open.and_then(|open| open.showed.remote);
    Ok(remote.is_some_and(|remote| remote.fields.is_some()))
}

/// The server does not have it any more: what an open conflict shows of it is out of date.
pub(crate) fn lost_remote(conn: &Connection, entity: &EntityRef) -> Result<(), StoreError> {
    let Some(mut open) = open_of(conn, entity)? else {
        return Ok(());
    };
    if let Some(remote) = open
        .showed
        .remote
        .as_mut()
        .filter(|one| one.fields.is_some())
    {
        remote.fields = None;
        remote.version = state::nameless();
        conn.prepare_cached(
            "UPDATE syncline_conflict SET remote = NULL, error = ?2 WHERE id = ?1",
        )?
        .execute(params![open.id, to_json(&open.showed)])?;
    }
    Ok(())
}

fn text(fields: Option<&Fields>) -> Option<String> {
    fields.map(to_json)
}

/// What the app's schema decided about a row when another went: kept like any decision.
pub(crate) struct BySchema<'a> {
    pub(crate) entity: &'a EntityRef,
    pub(crate) mutations: Vec<&'a str>,
    pub(crate) base: Option<&'a Fields>,
    pub(crate) local: Option<&'a Fields>,
    /// The row as it is from now on.
    pub(crate) result: Option<&'a Fields>,
    pub(crate) rule: &'a str,
    pub(crate) reason: String,
    pub(crate) lost_mine: Loss,
    pub(crate) lost_theirs: Loss,
}

/// Records a decision of the app's schema.
pub(crate) fn by_schema(conn: &Connection, one: BySchema<'_>, now: Now) -> Result<(), StoreError> {
    let mut showed = Showed::new(&ConflictCause::Pull, None);
    showed.reason = Some(one.reason);
    let about = About {
        entity: one.entity,
        mutations: one.mutations,
        base: one.base,
        local: one.local,
        remote: None,
        showed,
    };
    let decided = Decided {
        resolution: one.rule,
        result: one.result,
        outcome: Some(Outcome {
            fields: BTreeMap::new(),
            lost_mine: one.lost_mine,
            lost_theirs: one.lost_theirs,
        }),
        undo: None,
    };
    let (id, _) = open(conn, &about, None, now)?;
    decide(conn, id, &decided, now)
}

/// A clean row in which columns went back to their defaults, since the server says nothing of them.
pub(crate) struct Reset {
    pub(crate) before: Fields,
    pub(crate) after: Fields,
    pub(crate) lost: Fields,
}

/// Keeps what stood there.
pub(crate) fn reset(
    conn: &Connection,
    entity: &EntityRef,
    reset: &Reset,
    now: Now,
) -> Result<(), StoreError> {
    let decision = BySchema {
        entity,
        mutations: Vec::new(),
        base: Some(&reset.before),
        local: Some(&reset.before),
        result: Some(&reset.after),
        rule: "untold",
        reason: "the server says nothing of a column, which holds its default then".to_owned(),
        lost_mine: Loss::Values(reset.lost.clone()),
        lost_theirs: Loss::Nothing,
    };
    by_schema(conn, decision, now)
}

/// Opens one, or refreshes the one that is open; its number, and whether it is a new one.
pub(super) fn open(
    conn: &Connection,
    about: &About<'_>,
    known: Option<i64>,
    now: Now,
) -> Result<(i64, bool), StoreError> {
    let (base, local, remote) = (text(about.base), text(about.local), text(about.remote));
    let (mutations, showed) = (to_json(&about.mutations), to_json(&about.showed));
    if let Some(id) = known {
        conn.prepare_cached(
            "UPDATE syncline_conflict SET mutations = ?2, base = ?3, local = ?4, remote = ?5, error = ?6
              WHERE id = ?1",
        )?
        .execute(params![id, mutations, base, local, remote, showed])?;
        return Ok((id, false));
    }
    conn.prepare_cached(
        "INSERT INTO syncline_conflict (entity_type, entity_id, mutations, base, local, remote, error, opened_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        about.entity.entity_type.as_str(),
        about.entity.id.as_str(),
        mutations,
        base,
        local,
        remote,
        showed,
        now.unix_ms
    ])?;
    Ok((conn.last_insert_rowid(), true))
}

/// Writes down what was decided.
pub(super) fn decide(
    conn: &Connection,
    id: i64,
    decided: &Decided<'_>,
    now: Now,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE syncline_conflict
            SET resolution = ?2, result = ?3, outcome = ?4, undo = ?5, resolved_at = ?6 WHERE id = ?1",
    )?
    .execute(params![
        id,
        decided.resolution,
        text(decided.result),
        decided.outcome.as_ref().map(to_json),
        decided.undo.map(to_json),
        now.unix_ms
    ])?;
    Ok(())
}

/// Closes one about which nothing is left to decide.
pub(crate) fn close(
    conn: &Connection,
    id: i64,
    resolution: &str,
    now: Now,
) -> Result<(), StoreError> {
    let decided = Decided {
        resolution,
        result: None,
        outcome: None,
        undo: None,
    };
    decide(conn, id, &decided, now)
}

/// It is open again.
pub(super) fn reopen(conn: &Connection, id: i64) -> Result<(), StoreError> {
    conn.execute(
        "UPDATE syncline_conflict
            SET resolution = NULL, result = NULL, outcome = NULL, undo = NULL, resolved_at = NULL
          WHERE id = ?1",
        [id],
    )?;
    Ok(())
}

/// Whether any violation waits for a person.
pub(crate) fn any_violation(conn: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM syncline_conflict
                               WHERE resolved_at IS NULL AND error ->> '$.side' = 'violation')";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// The row of an entity has found its place: violations about it are over.
pub(crate) fn landed(conn: &Connection, entity: &EntityRef, now: Now) -> Result<(), StoreError> {
    close_all(
        conn,
        entity,
        "UPDATE syncline_conflict SET resolution = 'landed', resolved_at = ?3
          WHERE resolved_at IS NULL AND error ->> '$.side' = 'violation'
            AND (entity_type = ?1 AND entity_id = ?2
              OR error ->> '$.other.entity_type' = ?1 AND error ->> '$.other.entity_id' = ?2)",
        now,
    )
}

/// A copy of this file has made the row: what was taken for another one of the same id is that.
pub(crate) fn recognised(
    conn: &Connection,
    entity: &EntityRef,
    now: Now,
) -> Result<(), StoreError> {
    close_all(
        conn,
        entity,
        "UPDATE syncline_conflict SET resolution = 'recognised', resolved_at = ?3
          WHERE resolved_at IS NULL AND base IS NULL AND error ->> '$.side' <> 'violation'
            AND entity_type = ?1 AND entity_id = ?2",
        now,
    )
}

/// Closes records about an entity, `?1` and `?2` of the statement, at the time `?3`.
fn close_all(conn: &Connection, entity: &EntityRef, sql: &str, now: Now) -> Result<(), StoreError> {
    conn.prepare_cached(sql)?.execute(params![
        entity.entity_type.as_str(),
        entity.id.as_str(),
        now.unix_ms
    ])?;
    Ok(())
}
