//! Narrow repair: rows that differ from the server without a reason take over its state, the way a
//! pulled change would, and what they were is kept in the log.
//!
//! A row that was written or received meanwhile is left alone; one with unsettled mutations is never
//! touched (P2). Removals that are too many wait for a person, as after a snapshot (I3).

use crate::apply::{Applier, Landed};
use crate::digest::{self, Divergence};
use crate::error::{StoreError, to_json};
use crate::held;
use crate::identity;
use crate::lease;
use crate::meta;
use crate::orphans;
use crate::page;
use crate::recover;
use crate::retry::{Occasion, retry_waiting};
use crate::row;
use crate::store::{RegisteredType, Store};
use crate::sweep;
use crate::table::quote_ident;
use rusqlite::params;
use serde::Serialize;
use std::collections::BTreeMap;
use syncline_core::{EntityRef, Now, PageSummary};
use syncline_protocol::{ChangeKind, ContentHash, Fields, Scope};

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Rows that are now what the server has.
    pub taken_over: u64,
    /// Rows that are gone, as on the server.
    pub removed: u64,
    /// Rows that the server does not have and whose removal waits for a person.
    pub held: u64,
    /// Changes that find no place here now and wait in the inbox.
    pub waiting: u64,
    /// Rows that changed meanwhile, and were left alone.
    pub left_alone: u64,
}

impl Store {
    /// Rows that differ from the server without a reason take over its state, as of the applied
    /// `position` of the scope, in one transaction. What they were is kept in `syncline_log`. Only for
    /// the engine of the file (S2).
    pub fn repair(
        &mut self,
        at: (&Scope, i64),
        found: &[Divergence],
        now: Now,
    ) -> Result<Repaired, StoreError> {
        let (client, token) = (self.client.clone(), self.token);
        self.remedy(now, |applier| {
            identity::check(applier.tx, &client)?;
            lease::check(applier.tx, token)?;
            repair(applier, at, found)
        })
    }

    /// Rows of which mutations do not say what they hold are recorded after all, and all rows are
    /// compared with the server by the next sync, where writes escaped capture in spite of its
    /// triggers; how many types that concerns.
    pub fn recover_escaped(&mut self, now: Now) -> Result<usize, StoreError> {
        self.remedy(now, |applier| {
            let mut found = 0;
            for entity_type in applier.types.iter() {
                if !recover::escaped_ids(applier.tx, entity_type)?.is_empty() {
                    recover::start(applier.tx, applier.types, entity_type, &[], now)?;
                    found += 1;
                }
            }
            Ok(found)
        })
    }
}

fn repair(
    applier: &mut Applier<'_>,
    (scope, position): (&Scope, i64),
    found: &[Divergence],
) -> Result<Repaired, StoreError> {
    let tx = applier.tx;
    if meta::get::<i64>(tx, meta::key::RECOVER)?.is_some() {
        return Err(StoreError::Refused(
            "writes may have escaped capture, so what differs may be the user's: run `syncline sync` first, which records them"
                .to_owned(),
        ));
    }
    let mut repaired = Repaired::default();
    if page::applied_position(tx)? != Some(position) {
        repaired.left_alone = found.len() as u64;
        return Ok(repaired);
    }
    let too_many = too_many(applier, found)?;
    for one in found {
        let types = applier.types;
        let Some(own) = types.get(one.entity.entity_type.as_str()) else {
            repaired.left_alone += 1;
            continue;
        };
        let row = row::read(tx, &own.table, &one.entity.id)?;
        let hash = row.as_ref().map(|row| ContentHash::of_compared(row, None));
        if hash != one.here || !digest::is_clean(tx, &one.entity)? {
            repaired.left_alone += 1;
            continue;
        }
        let gone = !one.is_on_server();
        if gone && too_many.contains_key(own.name.as_str()) {
            held::hold_one(applier, &one.entity)?;
            repaired.held += 1;
            continue;
        }
        match mend(applier, scope, own, one, row.as_ref())? {
            Landed::Upserted | Landed::Merged => repaired.taken_over += 1,
            Landed::Deleted => repaired.removed += 1,
            Landed::Parked => {
                repaired.waiting += 1;
                continue;
            }
            Landed::Skipped => {
                repaired.left_alone += 1;
                continue;
            }
        }
        remember(applier, &one.entity, row.as_ref(), gone)?;
    }
    orphans::mend(applier)?;
    retry_waiting(applier, Occasion::Changed, &mut PageSummary::default())?;
    Ok(repaired)
}

impl Divergence {
    /// Whether the server has the row.
    fn is_on_server(&self) -> bool {
        let kind = self.remote.as_ref().map(|change| &change.kind);
        matches!(kind, Some(ChangeKind::Upsert(_)))
    }
}

/// The types of which so many rows would go that a person has to say so.
fn too_many<'f>(
    applier: &Applier<'_>,
    found: &'f [Divergence],
) -> Result<BTreeMap<&'f str, usize>, StoreError> {
    let mut gone: BTreeMap<&str, usize> = BTreeMap::new();
    for one in found.iter().filter(|one| !one.is_on_server()) {
        *gone.entry(one.entity.entity_type.as_str()).or_default() += 1;
    }
    let mut kept = BTreeMap::new();
    for (name, gone) in gone {
        let Some(own) = applier.types.get(name) else {
            continue;
        };
        let sql = format!("SELECT count(*) FROM {}", quote_ident(&own.table.name));
        let all: i64 = applier.tx.query_row(&sql, [], |row| row.get(0))?;
        let left = usize::try_from(all).unwrap_or(0).saturating_sub(gone);
        if sweep::is_too_many(gone, left) {
            kept.insert(name, gone);
        }
    }
    Ok(kept)
}

/// What the row was: nothing is lost that no record keeps.
fn remember(
    applier: &Applier<'_>,
    entity: &EntityRef,
    row: Option<&Fields>,
    gone: bool,
) -> Result<(), StoreError> {
    let op = match (row, gone) {
        (None, _) => "create",
        (Some(_), true) => "delete",
        (Some(_), false) => "update",
    };
    let detail = serde_json::json!({ "reason": "it differed from the server", "was": row });
    applier
        .tx
        .prepare_cached(
            "INSERT INTO syncline_log (at, kind, entity_type, entity_id, op, detail)
             VALUES (?1, 'repaired', ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            applier.now.unix_ms,
            entity.entity_type.as_str(),
            entity.id.as_str(),
            op,
            to_json(&detail)
        ])?;
    Ok(())
}

fn mend(
    applier: &mut Applier<'_>,
    scope: &Scope,
    own: &RegisteredType,
    one: &Divergence,
    row: Option<&Fields>,
) -> Result<Landed, StoreError> {
    match (&one.remote, row) {
        (Some(change), _) => applier.change(scope, change),
        // The server knows nothing of it: as a snapshot that does not have it.
        (None, Some(row)) => {
            sweep::remove(applier, own, &one.entity.id, row)?;
            Ok(Landed::Deleted)
        }
        (None, None) => Ok(Landed::Skipped),
    }
}
