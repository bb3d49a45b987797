//! What refers to a row that gets another id: reference fields that unsettled mutations have set.
//!
//! A reference in a clean row, in a base or in a remote state means the server's row of that id and
//! stays. A child whose own key contains the reference gets another id as well.

use super::{Move, Moved, relocate, with_id};
use crate::apply::Applier;
use crate::captured;
use crate::claim;
use crate::error::StoreError;
use crate::inbox;
use crate::meta;
use crate::outbox::{self, Entry, Recorded};
use crate::retry::apply_waiting;
use crate::row;
use crate::store::{EntityTypes, RegisteredType};
use crate::table::Reference;
use crate::type_options::IdMode;
use rusqlite::{Connection, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{EntityRef, WaitsFor};
use syncline_protocol::{Change, ChangeKind, EntityId, Fields, KeyPart, Operation, Value};

/// Unsettled entries by the rows that they refer to; read once in a transaction.
#[derive(Debug, Default)]
pub(super) struct Index(Option<BTreeMap<EntityRef, BTreeSet<i64>>>);

impl Index {
    fn read(conn: &Connection, types: &EntityTypes) -> Result<Self, StoreError> {
        let mut index: BTreeMap<EntityRef, BTreeSet<i64>> = BTreeMap::new();
        for entity_type in types.iter() {
            let references = references_within(types, entity_type);
            if references.is_empty() {
                continue;
            }
            for entry in outbox::of_type(conn, &entity_type.name)? {
                for (reference, parent) in &references {
                    if let Some(target) = target(conn, entity_type, reference, parent, &entry)? {
                        index.entry(target).or_default().insert(entry.seq);
                    }
                }
            }
        }
        Ok(Self(Some(index)))
    }

    fn take(&mut self, of: &EntityRef) -> BTreeSet<i64> {
        let index = self.0.as_mut();
        index.and_then(|index| index.remove(of)).unwrap_or_default()
    }

    fn put(&mut self, of: EntityRef, seqs: BTreeSet<i64>) {
        if let (Some(index), false) = (&mut self.0, seqs.is_empty()) {
            index.entry(of).or_default().extend(seqs);
        }
    }
}

/// The references of a type whose targets are registered, each with its target.
fn references_within<'t>(
    types: &'t EntityTypes,
    entity_type: &'t RegisteredType,
) -> Vec<(&'t Reference, &'t RegisteredType)> {
    let references = entity_type.table.references.iter();
    references
        .filter_map(|reference| Some((reference, types.of_table(&reference.table)?)))
        .collect()
}

/// The parent of a remote row, as its table and id, where the row that stands at that id was created here and may get
/// another id yet: the parent is another one, which is still to come.
pub(crate) fn parent_to_come(
    applier: &Applier<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    remote: &Change,
) -> Result<Option<String>, StoreError> {
    let ChangeKind::Upsert(fields) = &remote.kind else {
        return Ok(None);
    };
    if applier.plain {
        return Ok(None);
    }
    for parent in claim::parents(applier.types, entity_type, entity, fields) {
        let Some(parent_type) = applier.types.get(parent.entity_type.as_str()) else {
            continue;
        };
        if parent == *entity || parent_type.id_mode() == IdMode::Client {
            continue;
        }
        let names = (parent.entity_type.as_str(), parent.id.as_str());
        let entries = outbox::of_entity(applier.tx, names.0, names.1)?;
        // Where something else comes first, the server has a row of that id, which this one takes the place of.
        let is_create = |entry: &&Entry| entry.op == Operation::Create;
        if let Some(create) = entries.first().filter(is_create)
            && !parent_type.is_known_by_id(create)
        {
            return Ok(Some(format!("{}/{}", parent_type.table.name, parent.id)));
        }
    }
    Ok(None)
}

/// The row that an entry refers to by a reference that it sets, in whole or in part.
fn target(
    conn: &Connection,
    entity_type: &RegisteredType,
    reference: &Reference,
    parent: &RegisteredType,
    entry: &Entry,
) -> Result<Option<EntityRef>, StoreError> {
    let Ok(entity) = entry.entity() else {
        return Ok(None);
    };
    // What can never sync as it is will be mended by an edit, which sets it anew.
    let Ok(Some(mut fields)) = captured::fields_of_mutation(conn, entry.seq) else {
        return Ok(None);
    };
    if reference.columns.len() > 1
        && let Some(mut whole) = row::read(conn, &entity_type.table, &entity.id)?
    {
        whole.patch(&fields);
        fields = whole;
    }
    let values = row::reference_values(&entity_type.table, reference, &entity.id, &fields);
    let id = values.and_then(|values| row::parent_id(&parent.table, reference, &values));
    Ok(id.map(|id| EntityRef {
        entity_type: parent.entity_type(),
        id,
    }))
}

/// Makes everything that means the row mean its new id. Entries up to `boundary` mean a row that
/// had the old id before. So do those that the server had confirmed before this one was made, if it `is_new`.
pub(super) fn follow(
    applier: &mut Applier<'_>,
    way: &Move,
    (boundary, is_new): (i64, bool),
) -> Result<(), StoreError> {
    let types = applier.types;
    let name = way.entity.entity_type.as_str();
    let is_referenced = types
        .iter()
        .flat_map(|entity_type| references_within(types, entity_type))
        .any(|(_, parent)| parent.name == name);
    if !is_referenced {
        return Ok(());
    }
    if applier.rekeying.references.0.is_none() {
        applier.rekeying.references = Index::read(applier.tx, types)?;
    }
    let (mut stay, mut follow) = (BTreeSet::new(), BTreeSet::new());
    for seq in applier.rekeying.references.take(&way.entity) {
        let was_confirmed = is_new
            && seq < way.from
            && outbox::get(applier.tx, seq)?.is_some_and(|one| one.is_offered_again());
        match seq <= boundary || was_confirmed {
            true => stay.insert(seq),
            false => follow.insert(seq),
        };
    }
    applier.rekeying.references.put(way.entity.clone(), stay);
    let (mut children, mut added) = (Vec::new(), BTreeSet::new());
    for seq in &follow {
        if let Some(entry) = outbox::get(applier.tx, *seq)? {
            let rewritten = rewrite(applier, way, &entry)?;
            children.extend(rewritten.moves);
            added.extend(rewritten.added);
        }
    }
    applier.rekeying.references.put(way.to.clone(), added);
    applier.rekeying.references.put(way.to.clone(), follow);
    for child in children {
        let met = match types.get(child.to.entity_type.as_str()) {
            Some(entity_type) => row::read(applier.tx, &entity_type.table, &child.to.id)?,
            None => None,
        };
        if let Moved::Refused(why) = relocate(applier, &child)? {
            tracing::warn!(entity = %child.entity, why, "its parent has another id; it cannot follow");
            continue;
        }
        if let Some(met) = met {
            ask(applier, &child, met)?;
        }
        // What waited for an answer under the old id is about another row.
        apply_waiting(applier, &child.entity)?;
    }
    Ok(())
}

/// A row that was created here has the id now of one that the server has: another copy of this file may have made just
/// that. What became of the create is asked, and until then what the server has waits.
fn ask(applier: &Applier<'_>, child: &Move, met: Fields) -> Result<(), StoreError> {
    applier
        .tx
        .prepare_cached(
            "UPDATE syncline_outbox SET origin_client = coalesce(shared_with, (SELECT value FROM syncline_meta WHERE key = ?2))
              WHERE seq = ?1 AND frozen IS NULL AND origin_client IS NULL",
        )?
        .execute(params![child.from, meta::key::CLIENT_ID])?;
    let kind = ChangeKind::Upsert(met);
    inbox::park_pulled(
        applier.tx,
        &child.to,
        kind,
        WaitsFor::Answer,
        "",
        applier.now,
    )
}

/// What came of rewriting one entry.
#[derive(Default)]
struct Rewritten {
    /// The reference is part of the child's own key: the way to its new id.
    moves: Option<Move>,
    /// The entry was sent; this one follows it.
    added: Option<i64>,
}

/// Rewrites one entry and its row.
fn rewrite(applier: &mut Applier<'_>, way: &Move, entry: &Entry) -> Result<Rewritten, StoreError> {
    let (tx, types) = (applier.tx, applier.types);
    let (Some(own), Ok(entity)) = (types.get(entry.entity_type.as_str()), entry.entity()) else {
        return Ok(Rewritten::default());
    };
    let (mut sets, mut key) = (Vec::new(), entity.id.parts());
    for (reference, parent) in references_within(types, own) {
        if target(tx, own, reference, parent, entry)?.as_ref() != Some(&way.entity) {
            continue;
        }
        let mut set = Fields::new();
        for (column, part) in changed_parts(reference, parent, way) {
            let named = |known: &&crate::table::Column| known.name.eq_ignore_ascii_case(column);
            if let Some(at) = own.table.key.iter().position(|known| named(&known)) {
                if let Some(place) = key.get_mut(at) {
                    *place = part;
                }
            } else if let Some(column) = own.table.columns.iter().find(named) {
                set.insert(column.field.clone(), value(part));
            }
        }
        sets.push(set);
    }
    let added = write_fields(tx, own, entry, &entity, &sets, applier.now)?;
    // What only another copy may have sent is answered with the id that it got there.
    let moves = key != entity.id.parts() && entry.op == Operation::Create && entry.frozen.is_none();
    let id = match moves {
        true => EntityId::from_parts(&key).ok(),
        false => None,
    };
    let moves = id.map(|id| Move {
        to: with_id(&entity, id),
        entity,
        from: entry.seq,
        reason: way.reason,
        settling: None,
    });
    Ok(Rewritten { moves, added })
}

/// The referring columns whose value is another now, with that value.
fn changed_parts<'r>(
    reference: &'r Reference,
    parent: &RegisteredType,
    way: &Move,
) -> Vec<(&'r str, KeyPart)> {
    let (old, new) = (way.entity.id.parts(), way.to.id.parts());
    let changed = |(column, to): (&'r String, &String)| {
        let at = (parent.table.key.iter()).position(|key| key.name.eq_ignore_ascii_case(to))?;
        (old.get(at) != new.get(at)).then(|| Some((column.as_str(), new.get(at)?.clone())))?
    };
    let pairs = reference.columns.iter().zip(&reference.to_columns);
    pairs.filter_map(changed).collect()
}

fn value(part: KeyPart) -> Value {
    match part {
        KeyPart::Integer(integer) => Value::Integer(integer),
        KeyPart::Text(text) => Value::Text(text),
        KeyPart::Blob(bytes) => Value::Blob(bytes),
    }
}

/// Writes what references say now, each into the entry and, where the row still shows what the entry says of it, into
/// the row: a later entry may have set another of them.
fn write_fields(
    tx: &Transaction<'_>,
    own: &RegisteredType,
    entry: &Entry,
    entity: &EntityRef,
    sets: &[Fields],
    now: syncline_core::Now,
) -> Result<Option<i64>, StoreError> {
    let before = captured::fields_of_mutation(tx, entry.seq)?.unwrap_or_default();
    // A part that the entry does not set is the server's and stays.
    let given = |set: &Fields| -> Fields {
        (set.iter())
            .filter(|(name, _)| before.get(name).is_some())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let sets: Vec<Fields> = sets.iter().map(given).collect();
    let all = all_of(sets.iter());
    if all.is_empty() {
        return Ok(None);
    }
    let row = row::read(tx, &own.table, &entity.id)?;
    let is_shown = |set: &&Fields| {
        (row.as_ref()).is_none_or(|row| set.names().all(|name| row.get(name) == before.get(name)))
    };
    let shown = all_of(sets.iter().filter(is_shown));
    let mut added = None;
    if entry.frozen.is_none() {
        let mut payload = before.clone();
        payload.patch(&all);
        captured::write_payload(tx, entry.seq, Some(&payload))?;
    } else if !shown.is_empty() {
        // It was sent as it is; what it should say by now follows it, unless a later entry says something else.
        let follows = Recorded {
            entity_type: own,
            id: &entity.id,
            op: Operation::Update,
            fields: Some(&shown),
            origin: "rekey",
        };
        added = Some(outbox::record(tx, &follows, now)?);
    }
    if row.is_some()
        && !shown.is_empty()
        && let row::Written::Refused(why) = row::set(tx, &own.table, &entity.id, &shown)?
    {
        tracing::warn!(%entity, why, "it cannot refer to its parent's new id here");
    }
    Ok(added)
}

fn all_of<'a>(sets: impl Iterator<Item = &'a Fields>) -> Fields {
    sets.fold(Fields::new(), |mut all, set| {
        all.patch(set);
        all
    })
}
