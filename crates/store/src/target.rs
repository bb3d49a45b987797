//! Targeted pull: what is about to be sent is looked at first, and what the server has of it meets the
//! mutations here as the state that comes with a refused push does: the same resolver, the same
//! record, a base of its own ahead of the cursor.
//!
//! Nothing is applied that is not dirty: a clean row is as of the applied position of its scope (P6).
//! Whatever only the feed can explain, an entity that is absent or a parent that is gone, is left to
//! the feed, which is then read before anything is sent (I3).

use crate::apply::Applier;
use crate::captured::{self, CapturedError};
use crate::claim::{self, LONGEST_WAIT_MS};
use crate::conflict::{Reconciled, natural};
use crate::error::StoreError;
use crate::meta;
use crate::outbox::{self, Entry, EntryState};
use crate::page;
use crate::rekey::{self, Room};
use crate::retry::{Occasion, hold_back, retry_waiting};
use crate::row;
use crate::stage;
use crate::state;
use crate::store::{EntityTypes, RegisteredType};
use crate::type_options::IdMode;
use rusqlite::{Connection, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{
    ConflictCause, EntityRef, Fetched, LocalView, MeetSummary, Now, PageChange, PageSummary,
    Targets, Wanted, unstorable,
};
use syncline_protocol::{
    Change, ChangeKind, DIGEST_IDS, EntityId, EntityType, Operation, RemoteState,
};

const CHUNK: usize = 256;
/// Bytes of ids that one request asks for, unless a single one has more.
const MOST_ID_BYTES: usize = 4096;

/// What to look at before up to `most` mutations behind `after` are claimed.
pub(crate) fn targets(
    tx: &Transaction<'_>,
    types: &EntityTypes,
    (after, most): (i64, usize),
    (now, due_ms): (Now, i64),
) -> Result<Targets, StoreError> {
    let mut targets = Targets {
        last: after,
        ..Targets::default()
    };
    let recovering = meta::get::<i64>(tx, meta::key::RECOVER)?.is_some();
    if recovering || page::applied_position(tx)?.is_none() {
        targets.unread = true;
        return Ok(targets);
    }
    let head = natural::Head::read(tx, now)?;
    let mut found: BTreeMap<EntityType, Vec<EntityId>> = BTreeMap::new();
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    'outbox: loop {
        let chunk = outbox::after(tx, targets.last, CHUNK)?;
        for entry in &chunk {
            if count >= most {
                break 'outbox;
            }
            targets.last = entry.seq;
            let Some((own, entity)) = may_conflict(types, head, entry, due_ms) else {
                continue;
            };
            if !is_open(tx, &entity)? {
                continue;
            }
            count += 1;
            let fields = captured::fields_of_mutation(tx, entry.seq).ok().flatten();
            let parents = match (&fields, entry.op) {
                (Some(fields), Operation::Create | Operation::Update) => {
                    claim::parents(types, own, &entity, fields)
                }
                _ => Vec::new(),
            };
            for one in [entity].into_iter().chain(parents) {
                if seen.insert(one.clone()) {
                    found.entry(one.entity_type).or_default().push(one.id);
                }
            }
        }
        if chunk.len() < CHUNK {
            break;
        }
    }
    for (entity_type, ids) in found {
        targets.wanted.extend(requests(&entity_type, ids));
    }
    Ok(targets)
}

/// The entity of an entry that could be claimed now and be refused as a conflict.
fn may_conflict<'t>(
    types: &'t EntityTypes,
    head: natural::Head,
    entry: &Entry,
    due_ms: i64,
) -> Option<(&'t RegisteredType, EntityRef)> {
    let own = types.get(entry.entity_type.as_str())?;
    // Where the server may choose another id, having the same one is no conflict.
    let new = entry.op == Operation::Create && own.id_mode() != IdMode::Client;
    let longest = due_ms.saturating_add_unsigned(LONGEST_WAIT_MS);
    let waits = entry.not_before > due_ms && entry.not_before <= longest;
    let pending = entry.state == EntryState::Pending && !entry.is_sent() && !entry.cancel;
    let looked_at = pending && !waits && !new && entry.command.is_none();
    let entity = entry.entity().ok()?;
    (looked_at && !head.holds(own, entry)).then_some((own, entity))
}

/// Whether nothing of the entity may have been sent (E5), and nothing of it waits.
fn is_open(conn: &Connection, entity: &EntityRef) -> Result<bool, StoreError> {
    let view = state::view(conn, entity)?;
    Ok(!waits(&view) && !stage::holds(conn, entity)?)
}

fn waits(view: &LocalView) -> bool {
    view.sent || view.conflict_open || view.held || view.waiting.is_some()
}

fn requests(entity_type: &EntityType, ids: Vec<EntityId>) -> Vec<Wanted> {
    let mut requests: Vec<Wanted> = Vec::new();
    let mut bytes = 0;
    for id in ids {
        bytes += id.as_str().len();
        match requests.last_mut() {
            Some(last) if last.ids.len() < DIGEST_IDS && bytes <= MOST_ID_BYTES => {
                last.ids.push(id);
            }
            _ => {
                bytes = id.as_str().len();
                requests.push(Wanted {
                    entity_type: entity_type.clone(),
                    ids: vec![id],
                });
            }
        }
    }
    requests
}

/// Lets what was fetched meet what waits here.
pub(crate) fn meet(
    applier: &mut Applier<'_>,
    wanted: &Wanted,
    fetched: &Fetched,
) -> Result<MeetSummary, StoreError> {
    let mut summary = MeetSummary::default();
    let applied = page::applied_position(applier.tx)?;
    let valid: BTreeMap<&EntityId, &Change> = valid(wanted, fetched);
    let beyond = |change: &&Change| change.position > fetched.position;
    let (Some(applied), Some(own)) = (applied, applier.types.get(wanted.entity_type.as_str()))
    else {
        summary.pull_first = true;
        return Ok(summary);
    };
    if fetched.position < applied || valid.values().any(beyond) {
        // A server that has gone back, or contradicts itself.
        summary.pull_first = true;
        return Ok(summary);
    }
    applier.rekeying.ids.expect(valid.values().copied());
    // Of what is not understood it is not known which entity it is.
    let complete = valid.len() == fetched.changes.len();
    for id in &wanted.ids {
        let entity = EntityRef {
            entity_type: wanted.entity_type.clone(),
            id: id.clone(),
        };
        let change = valid.get(id).copied();
        if let Some(change) = change {
            rekey::recognise(applier, &entity, change)?;
        }
        let mut way = decide(applier, own, &entity, change, applied)?;
        if let Way::Meets(remote) = &way {
            // A row that was created here under the same id is another one.
            way = match rekey::make_room(applier, own, &entity, remote.fields.as_ref())? {
                Room::NotNeeded => way,
                Room::Made => decide(applier, own, &entity, change, applied)?,
                Room::Refused(_) | Room::Waits(_) => Way::NeedsFeed,
            };
        }
        match way {
            Way::Nothing => {}
            Way::NeedsFeed => summary.pull_first |= complete,
            Way::Meets(remote) => {
                summary.pull_first |= !meet_one(applier, own, &entity, &remote, &mut summary)?;
            }
        }
    }
    if summary.merged > 0 {
        retry_waiting(applier, Occasion::Changed, &mut PageSummary::default())?;
    }
    summary.notices.append(&mut applier.notices);
    Ok(summary)
}

fn valid<'f>(wanted: &Wanted, fetched: &'f Fetched) -> BTreeMap<&'f EntityId, &'f Change> {
    let valid = fetched.changes.iter().filter_map(|change| match change {
        PageChange::Valid(change) => Some(change),
        PageChange::Invalid { .. } => None,
    });
    valid
        .filter(|change| change.entity_type == wanted.entity_type && unstorable(change).is_none())
        .map(|change| (&change.id, change))
        .collect()
}

enum Way {
    Nothing,
    NeedsFeed,
    Meets(RemoteState),
}

fn decide(
    applier: &Applier<'_>,
    own: &RegisteredType,
    entity: &EntityRef,
    change: Option<&Change>,
    applied: i64,
) -> Result<Way, StoreError> {
    let view = state::view(applier.tx, entity)?;
    if waits(&view) || stage::holds(applier.tx, entity)? {
        return Ok(Way::Nothing);
    }
    let entries = outbox::of_entity(applier.tx, entity.entity_type.as_str(), entity.id.as_str())?;
    let first = entries
        .iter()
        .find(|entry| entry.state == EntryState::Pending);
    let fields = change.and_then(|change| match &change.kind {
        ChangeKind::Upsert(fields) => Some(fields),
        ChangeKind::Delete => None,
    });
    let Some(first) = first else {
        // Something refers to it. It stays as it is, as of its position.
        let gone = fields.is_none() && row::read(applier.tx, &own.table, &entity.id)?.is_some();
        let known = view.reflects.is_some() || !entries.is_empty();
        return Ok(match gone && !known {
            true => Way::NeedsFeed,
            false => Way::Nothing,
        });
    };
    let reflects = view.reflects.map_or(applied, |known| known.max(applied));
    Ok(match change {
        Some(change) if change.position <= reflects => Way::Nothing,
        Some(change) => Way::Meets(RemoteState {
            version: change.version.clone(),
            position: change.position,
            fields: fields.cloned(),
        }),
        None if first.op == Operation::Create || view.reflects.is_some() => Way::Nothing,
        None => Way::NeedsFeed,
    })
}

/// Brings an entity and its newer state together; false: only the feed can.
fn meet_one(
    applier: &mut Applier<'_>,
    own: &RegisteredType,
    entity: &EntityRef,
    remote: &RemoteState,
    summary: &mut MeetSummary,
) -> Result<bool, StoreError> {
    if hold_back(applier, entity, Some(remote))? {
        summary.parked += 1;
        return Ok(true);
    }
    let met = match applier.reconcile(own, entity, Some(remote), &ConflictCause::Pull) {
        Err(StoreError::Captured(CapturedError::Unsyncable { .. })) => return Ok(false),
        met => met?,
    };
    match met {
        Reconciled::Settled => {
            let deleted = remote.fields.is_none();
            let (version, position) = (&remote.version, remote.position);
            state::set_known(applier.tx, entity, version, position, deleted)?;
        }
        Reconciled::Waits => {}
        // What it refers to, or what leaves its place to it, comes with the feed.
        Reconciled::NoPlace(_) => return Ok(false),
    }
    summary.merged += 1;
    Ok(true)
}
