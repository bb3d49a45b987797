//! Unique fields and references, over the storage and what the batch itself has planned.
//!
//! When the declared rules have changed since a tenant's entities were indexed, they are indexed
//! anew in the same transaction, before anything is decided. What broke a rule before it was
//! declared stays; new writes keep to it.

use super::batch::{Batch, Name, Result};
use super::validate::{invalid, rejected};
use crate::declared::IndexRules;
use crate::declared::rules::{Place, reference_place, referred, unique_place};
use crate::{IndexEntry, StorageError};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use syncline_protocol::{EntityType, FieldError, Fields, Outcome};

impl Batch<'_> {
    /// Brings the tenant's indexes in line with the declared rules.
    pub(super) fn renew_indexes(&mut self) -> Result<()> {
        let tenant = self.caller.tenant();
        for (entity_type, rules) in self.caller.declared.indexed_types() {
            let text = rules.text();
            if self.tx.index_rules(tenant, entity_type)?.as_ref() == Some(&text) {
                continue;
            }
            let name = EntityType::from(entity_type);
            self.tx
                .register_entity_type(tenant, &name, self.caller.now_ms)?;
            self.tx.set_index_rules(tenant, entity_type, Some(&text))?;
            for entry in self.all_entries(entity_type, rules)? {
                self.tx.put_indexed(tenant, &entry)?;
            }
        }
        Ok(())
    }

    fn all_entries(&self, entity_type: &str, rules: &IndexRules) -> Result<Vec<IndexEntry>> {
        let mut entries = Vec::new();
        let mut broken = None;
        let after = Some((entity_type, ""));
        self.tx.snapshot(
            self.caller.tenant(),
            &self.caller.scope,
            after,
            usize::MAX,
            &mut |row| {
                if row.entity_type != entity_type {
                    return ControlFlow::Break(());
                }
                match serde_json::from_str(row.fields.unwrap_or("{}")) {
                    Ok(fields) => entries.extend(rules.entries(entity_type, row.id, &fields)),
                    Err(error) => broken = Some(error),
                }
                ControlFlow::Continue(())
            },
        )?;
        match broken {
            None => Ok(entries),
            Some(error) => Err(StorageError::internal(error)),
        }
    }

    /// Why the effect would break a rule; else its index entries are planned.
    pub(super) fn constrain(
        &mut self,
        target: &Name,
        before: Option<&Fields>,
        after: Option<&Fields>,
    ) -> Result<Option<Outcome>> {
        let declared = self.caller.declared;
        if after.is_none() && self.is_referenced(target)? {
            return Ok(Some(rejected(
                "referenced",
                "other entities refer to this one; delete or change them first",
            )));
        }
        let Some(rules) = declared.get(&target.0).map(|one| &one.index) else {
            return Ok(None);
        };
        if let Some(after) = after {
            let mut errors = self.taken(target, rules, after)?;
            errors.extend(self.dangling(target, rules, after)?);
            if let Some(rejection) = invalid(errors) {
                return Ok(Some(rejection));
            }
        }
        let entries = |fields: Option<&Fields>| -> BTreeSet<IndexEntry> {
            fields.map_or_else(BTreeSet::new, |fields| {
                rules.entries(&target.0, &target.1, fields)
            })
        };
        for entry in entries(before) {
            self.plan.index.insert(entry, false);
        }
        for entry in entries(after) {
            self.plan.index.insert(entry, true);
        }
        Ok(None)
    }

    fn taken(&self, target: &Name, rules: &IndexRules, after: &Fields) -> Result<Vec<FieldError>> {
        let mut errors = Vec::new();
        for list in &rules.unique {
            let Some(place) = unique_place(&target.0, list, after) else {
                continue;
            };
            if self.stands_other(&place, target)? {
                errors.extend(list.iter().map(|field| FieldError {
                    field: field.clone(),
                    code: "unique".to_owned(),
                    detail: "another entity has this value".to_owned(),
                }));
            }
        }
        Ok(errors)
    }

    fn dangling(
        &mut self,
        target: &Name,
        rules: &IndexRules,
        after: &Fields,
    ) -> Result<Vec<FieldError>> {
        let mut errors = Vec::new();
        for (field, referred_type) in &rules.references {
            let Some(value) = after.get(field).filter(|value| !value.is_null()) else {
                continue;
            };
            let found = match referred(value) {
                None => false,
                Some(id) => {
                    let name = (referred_type.clone(), id);
                    let there = self.current(&name)?;
                    name == *target || there.is_some_and(|there| there.fields.is_some())
                }
            };
            if !found {
                errors.push(FieldError {
                    field: field.clone(),
                    code: "reference".to_owned(),
                    detail: format!("there is no such {referred_type}"),
                });
            }
        }
        Ok(errors)
    }

    fn is_referenced(&self, target: &Name) -> Result<bool> {
        let mut types = self.caller.declared.indexed_types();
        if !types.any(|(_, rules)| rules.references.values().any(|name| *name == target.0)) {
            return Ok(false);
        }
        self.stands_other(&reference_place(&target.0, &target.1), target)
    }

    /// Whether an entity other than this one stands there, as the batch sees it.
    fn stands_other(&self, (index, value): &Place, own: &Name) -> Result<bool> {
        let planned = self.plan.index.iter();
        let planned = planned.filter(|(entry, _)| entry.index == *index && entry.value == *value);
        let name = |entry: &IndexEntry| (entry.entity_type.clone(), entry.id.clone());
        let (mut here, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for (entry, stands) in planned {
            match stands {
                true => here.insert(name(entry)),
                false => gone.insert(name(entry)),
            };
        }
        if here.iter().any(|name| name != own) {
            return Ok(true);
        }
        let limit = gone.len() + 2; // those that leave, the entity itself, and one more
        let stored = self.tx.indexed(self.caller.tenant(), index, value, limit)?;
        Ok(stored
            .iter()
            .any(|name| name != own && !gone.contains(name)))
    }

    pub(super) fn write_index(&mut self) -> Result<()> {
        let tenant = self.caller.tenant();
        for (entry, stands) in &self.plan.index {
            match stands {
                true => self.tx.put_indexed(tenant, entry)?,
                false => self.tx.remove_indexed(tenant, entry)?,
            }
        }
        Ok(())
    }

    /// An entity of this type was written without rules: what was indexed before is of no use.
    pub(super) fn drop_stale_index(&mut self, entity_type: &str) -> Result<()> {
        let rules = self.caller.declared.get(entity_type).map(|one| &one.index);
        let tenant = self.caller.tenant();
        if rules.is_none_or(IndexRules::is_empty)
            && self.tx.index_rules(tenant, entity_type)?.is_some()
        {
            self.tx.set_index_rules(tenant, entity_type, None)?;
        }
        Ok(())
    }
}
