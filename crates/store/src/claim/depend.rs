//! What an entry waits for: parents that are not created yet, what still references a row that it
//! deletes, and mutations that it names itself (O3).

use super::{Claimer, Step};
use crate::captured::{self, BaseState};
use crate::error::StoreError;
use crate::inbox;
use crate::outbox::{self, Entry};
use crate::row;
use crate::store::{EntityTypes, RegisteredType};
use crate::table::Reference;
use rusqlite::Connection;
use std::collections::BTreeSet;
use syncline_core::{EntityRef, WaitsFor};
use syncline_protocol::{EntityId, EntityType, Fields, Operation};

impl Claimer<'_> {
    /// The first entry whose parents, every one of them, wait in turn for it.
    pub(super) fn first_in_a_cycle(&self) -> Option<i64> {
        let waits_for = |from: &EntityRef, to: &EntityRef| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
            while let Some(entity) = next.pop() {
                if entity == to {
                    return true;
                }
                if seen.insert(entity) {
                    next.extend(
                        self.waits
                            .get(entity)
                            .into_iter()
                            .flat_map(|(_, parents)| parents),
                    );
                }
            }
            false
        };
        self.waits
            .iter()
            .filter(|(entity, (_, parents))| parents.iter().all(|parent| waits_for(parent, entity)))
            .map(|(_, (seq, _))| *seq)
            .min()
    }

    /// The rows that these fields of an entry reference and that are not created on the server yet,
    /// except those that are created together with them.
    pub(super) fn uncreated_parents(
        &self,
        seq: i64,
        entity: &EntityRef,
        fields: &Fields,
    ) -> Result<Vec<EntityRef>, StoreError> {
        let mut uncreated = Vec::new();
        for parent in self.parents(entity, fields) {
            if parent != *entity
                && !self.together.contains(&parent)
                && outbox::create_before(self.tx, (seq, None), &parent)?.is_some()
            {
                uncreated.push(parent);
            }
        }
        Ok(uncreated)
    }

    pub(super) fn waits_for_parent(
        &mut self,
        entry: &Entry,
        entity: &EntityRef,
        fields: &Fields,
    ) -> Result<bool, StoreError> {
        if entry.op == Operation::Delete {
            return Ok(false);
        }
        let parents = self.uncreated_parents(entry.seq, entity, fields)?;
        if parents.is_empty() {
            return Ok(false);
        }
        self.waits.insert(entity.clone(), (entry.seq, parents));
        Ok(true)
    }

    /// Whether a mutation that the entry names is unsettled. Its own entity's order is kept
    /// anyway, and a group goes together.
    pub(super) fn waits_for_mutation(
        &mut self,
        entry: &Entry,
        entity: &EntityRef,
    ) -> Result<Option<Step>, StoreError> {
        let Some(named) = &entry.depends_on else {
            return Ok(None);
        };
        let Ok(named) = serde_json::from_str::<Vec<String>>(named) else {
            let why = "depends_on is not a JSON array of mutation ids; correct it, then retry";
            let entity = Some(entity.clone());
            return self
                .fail(entry, entity, "invalid-dependency", why.to_owned())
                .map(Some);
        };
        if self.unsettled.is_none() {
            self.unsettled = Some(outbox::all_mutations(self.tx)?);
        }
        let unsettled = self.unsettled.iter().flatten();
        let others = unsettled
            .filter(|(mutation, _)| named.contains(mutation))
            .filter_map(|(_, (entity_type, id))| {
                Some(EntityRef {
                    entity_type: EntityType::new(entity_type.clone()),
                    id: EntityId::parse(id.clone()).ok()?,
                })
            })
            .filter(|other| other != entity && !self.together.contains(other))
            .collect::<Vec<_>>();
        if others.is_empty() {
            return Ok(None);
        }
        self.waits.insert(entity.clone(), (entry.seq, others));
        Ok(Some(Step::Hold))
    }

    pub(super) fn parents(&self, entity: &EntityRef, fields: &Fields) -> Vec<EntityRef> {
        parents_of(self.types, entity, fields)
    }

    /// Remembers what an entry that stays unsettled references, before and after it.
    pub(super) fn note_references(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let Ok(entity) = entry.entity() else {
            return Ok(());
        };
        let has_references = self
            .types
            .get(entity.entity_type.as_str())
            .is_some_and(|t| !t.table.references.is_empty());
        if !has_references {
            return Ok(());
        }
        let fields = captured::fields_of_mutation(self.tx, entry.seq)
            .ok()
            .flatten();
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let base = captured::base_of(self.tx, names.0, names.1);
        let base = base.ok().and_then(BaseState::into_fields);
        let doomed = doomed_parents((self.tx, self.types), self.due_ms, &entity)?;
        for fields in [fields, base].into_iter().flatten() {
            let parents = self.parents(&entity, &fields);
            let parents = parents.into_iter().filter(|one| !doomed.contains(one));
            self.referenced.extend(parents);
        }
        Ok(())
    }

    /// Whether rows of other tables can reference this type's.
    pub(super) fn is_parent_type(&self, entity_type: &str) -> bool {
        let Some(own) = self.types.get(entity_type) else {
            return false;
        };
        let points_here =
            |reference: &Reference| reference.table.eq_ignore_ascii_case(&own.table.name);
        self.types
            .iter()
            .any(|other| other.table.references.iter().any(points_here))
    }
}

/// The parent without which what the server has of an entity finds no place here, where it is deleted here and not yet
/// on the server: that deletion must not wait for the entity in turn.
pub(crate) fn doomed_parents(
    (conn, types): (&Connection, &EntityTypes),
    due_ms: i64,
    entity: &EntityRef,
) -> Result<Vec<EntityRef>, StoreError> {
    let Some(reason) = inbox::reason(conn, entity)? else {
        return Ok(Vec::new());
    };
    let names = (entity.entity_type.as_str(), entity.id.as_str());
    let entries = outbox::of_entity(conn, names.0, names.1)?;
    if entries.iter().any(|entry| entry.frozen.is_some()) {
        return Ok(Vec::new());
    }
    // What another copy of the file may have sent was answered, found no place, and is asked again later.
    let asked = |entry: &Entry| !entry.is_offered_again() && entry.not_before > due_ms;
    let missing = match reason == WaitsFor::Parent.as_str() {
        true => Some(inbox::detail(conn, entity)?),
        false if reason == WaitsFor::Answer.as_str() && entries.first().is_some_and(asked) => None,
        false => return Ok(Vec::new()),
    };
    let waiting = inbox::waiting(conn, entity)?;
    let fields = waiting.and_then(|waiting| waiting.remote.fields);
    let mut doomed = Vec::new();
    for parent in parents_of(types, entity, &fields.unwrap_or_default()) {
        let table = (types.get(parent.entity_type.as_str())).map(|one| &one.table.name);
        let named = table.map(|table| format!("{table}/{}", parent.id));
        if missing.is_some() && missing != named {
            continue;
        }
        let names = (parent.entity_type.as_str(), parent.id.as_str());
        let last = outbox::of_entity(conn, names.0, names.1)?.pop();
        if last.is_some_and(|last| last.op == Operation::Delete) {
            doomed.push(parent);
        }
    }
    Ok(doomed)
}

fn parents_of(types: &EntityTypes, entity: &EntityRef, fields: &Fields) -> Vec<EntityRef> {
    match types.get(entity.entity_type.as_str()) {
        Some(own) => parents(types, own, entity, fields),
        None => Vec::new(),
    }
}

/// The rows that a row with these fields references.
pub(crate) fn parents(
    types: &EntityTypes,
    own: &RegisteredType,
    entity: &EntityRef,
    fields: &Fields,
) -> Vec<EntityRef> {
    let parent = |reference: &Reference| {
        let values = row::reference_values(&own.table, reference, &entity.id, fields)?;
        types.parent(reference, &values)
    };
    own.table.references.iter().filter_map(parent).collect()
}
