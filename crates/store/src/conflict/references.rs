//! A row of a group that deletes another row, to which somebody else has moved the first one meanwhile: the
//! group was written knowing both, so its row keeps what it referenced here, and goes with the deletion.

use super::reconcile::Way;
use crate::apply::Applier;
use crate::captured;
use crate::error::StoreError;
use crate::outbox::{self, Entry};
use crate::row;
use std::collections::BTreeMap;
use syncline_core::{ConflictInput, EntityRef, Resolution, Resolver};
use syncline_protocol::{Fields, Operation};

/// The word for it in records.
const RULE: &str = "group";

impl Applier<'_> {
    /// The local values of the fields by which a decided row would reference one that its own group deletes.
    pub(super) fn own_references(
        &self,
        way: &Way<'_>,
        decided: Option<&Fields>,
    ) -> Result<Fields, StoreError> {
        let (mut own, table) = (Fields::new(), &way.entity_type.table);
        let (Some(decided), Some(local)) = (decided, &way.here.local) else {
            return Ok(own);
        };
        for reference in &table.references {
            let values = row::reference_values(table, reference, &way.entity.id, decided);
            let found = values.and_then(|values| self.types.parent(reference, &values));
            let Some(parent) = found else { continue };
            if self.goes_with(&way.here.entries, &parent)? {
                let columns = &reference.columns;
                let mine = (table.columns.iter())
                    .filter(|column| {
                        columns
                            .iter()
                            .any(|one| one.eq_ignore_ascii_case(&column.name))
                    })
                    .filter_map(|column| {
                        Some((column.field.clone(), local.get(&column.field)?.clone()))
                    });
                mine.for_each(|(name, value)| drop(own.insert(name, value)));
            }
        }
        Ok(own)
    }

    /// Whether the last that was done to an entity is its deletion, in a group of one of these entries.
    fn goes_with(&self, entries: &[Entry], entity: &EntityRef) -> Result<bool, StoreError> {
        if entries.iter().all(|entry| entry.group.is_none()) {
            return Ok(false);
        }
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let last = outbox::of_entity(self.tx, names.0, names.1)?.pop();
        Ok(last.is_some_and(|last| {
            last.op == Operation::Delete
                && last.group.is_some()
                && entries.iter().any(|entry| entry.group == last.group)
        }))
    }

    /// Has a mutation write these fields too.
    pub(super) fn write_along(&self, entry: &Entry, own: &Fields) -> Result<(), StoreError> {
        let mut fields = captured::fields_of_mutation(self.tx, entry.seq)?.unwrap_or_default();
        fields.patch(own);
        Ok(captured::write_payload(self.tx, entry.seq, Some(&fields))?)
    }
}

/// The last of the mutations that says no more than its fields.
pub(super) fn last_plain(entries: &[Entry]) -> Option<&Entry> {
    let is_plain = |entry: &&Entry| entry.command.is_none() && entry.op != Operation::Delete;
    entries.iter().rfind(is_plain)
}

/// Decides as another one does, but for some fields, which stay as they are here.
pub(super) struct Keeping<'a> {
    pub(super) inner: &'a dyn Resolver,
    pub(super) kept: &'a Fields,
}

impl Resolver for Keeping<'_> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution {
        if self.kept.is_empty() {
            return self.inner.resolve(input);
        }
        let (fields, mut how) = match self.inner.resolve(input) {
            Resolution::ServerWins => (input.remote.cloned(), BTreeMap::new()),
            Resolution::Merged { fields, how } => (Some(fields), how),
            other @ (Resolution::ClientWins | Resolution::Manual { .. }) => return other,
        };
        let Some(mut fields) = fields else {
            return Resolution::ServerWins;
        };
        fields.patch(self.kept);
        how.extend(
            self.kept
                .names()
                .map(|name| (name.to_owned(), RULE.to_owned())),
        );
        Resolution::Merged { fields, how }
    }
}
