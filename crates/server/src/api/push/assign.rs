//! Ids that the server chooses: the next integer of the tenant and type, or a UUID of version 7.
//!
//! A chosen integer lies above every integer id that the type has seen, so it was never another
//! entity's. Ids beyond [`MAX_COUNTED`] do not count, or a single one could use up all numbers.

use super::batch::{Batch, Name, Result};
use super::validate::rejected;
use crate::declared::IdAssignment;
use syncline_protocol::{Assign, EntityId, KeyPart, Operation, Outcome};

const MAX_COUNTED: i64 = 1 << 62;

impl Batch<'_> {
    /// Gives a created entity its id, if the server is to choose it; or says why it cannot.
    pub(super) fn assign(&mut self, index: usize) -> Result<Option<Outcome>> {
        let incoming = &self.push.mutations[index];
        if incoming.op != Operation::Create || incoming.base.is_some() {
            return Ok(None);
        }
        let declared = self.caller.declared.id_assignment(&incoming.entity_type);
        let assign = match declared {
            IdAssignment::Client => incoming.assign,
            IdAssignment::Integer | IdAssignment::Uuid => Some(Assign::Always),
        };
        let named = incoming.name();
        let kind = match (assign, parts(&named).as_slice()) {
            (None, _) => return Ok(None),
            (Some(_), [KeyPart::Integer(_)]) if declared == IdAssignment::Client => {
                IdAssignment::Integer
            }
            (Some(_), [KeyPart::Text(_)]) if declared == IdAssignment::Client => IdAssignment::Uuid,
            (Some(_), [KeyPart::Integer(_) | KeyPart::Text(_)]) => declared,
            _ => return Ok(Some(not_assignable())),
        };
        if assign == Some(Assign::IfTaken)
            && self.current(&named)?.is_none()
            && !self.may_have_been_used(&named)?
        {
            return Ok(None);
        }
        let chosen = match kind {
            IdAssignment::Integer => self.next_integer(&named.0)?,
            _ => Some(self.next_uuid(index, &named.0)?),
        };
        let Some(id) = chosen else {
            return Ok(Some(rejected("id-assignment", "no integer id is left")));
        };
        self.plan.targets[index] = (named.0, id);
        Ok(None)
    }

    /// Whether an integer that is free may be the id of an entity whose deletion is forgotten: somebody may still have
    /// work on that one, which must not hit another.
    fn may_have_been_used(&self, (entity_type, id): &Name) -> Result<bool> {
        let Ok(id) = id.parse::<i64>() else {
            return Ok(false);
        };
        let forgotten = self.tx.horizon(self.caller.tenant(), &self.caller.scope)? > 0;
        Ok(forgotten && id <= self.last_id(entity_type)?)
    }

    fn next_integer(&mut self, entity_type: &str) -> Result<Option<String>> {
        let mut last = self.last_id(entity_type)?;
        loop {
            let Some(next) = last.checked_add(1) else {
                return Ok(None);
            };
            let name = (entity_type.to_owned(), next.to_string());
            if self.current(&name)?.is_none() {
                return Ok(Some(name.1));
            }
            last = next;
        }
    }

    fn next_uuid(&mut self, index: usize, entity_type: &str) -> Result<String> {
        let key = &self.push.mutations[index].key;
        let place = format!("{}/{index}", self.head);
        let parts = [
            self.epoch.as_str(),
            self.caller.tenant(),
            self.push.client.as_str(),
            key.as_str(),
            entity_type,
            &place,
        ];
        Ok(self.caller.mint.uuid(self.caller.now_ms, &parts))
    }

    fn last_id(&self, entity_type: &str) -> Result<i64> {
        match self.plan.last_ids.get(entity_type) {
            Some(last) => Ok(*last),
            None => self.tx.last_id(self.caller.tenant(), entity_type),
        }
    }

    /// Remembers the integer id of an entity that is written.
    pub(super) fn note_id(&mut self, (entity_type, id): &Name) -> Result<()> {
        let Ok(id) = id.parse::<i64>() else {
            return Ok(());
        };
        if id < MAX_COUNTED && self.last_id(entity_type)? < id {
            self.plan.last_ids.insert(entity_type.clone(), id);
        }
        Ok(())
    }
}

fn parts((_, id): &Name) -> Vec<KeyPart> {
    EntityId::parse(id.as_str())
        .map(|id| id.parts())
        .unwrap_or_default()
}

fn not_assignable() -> Outcome {
    rejected(
        "id-assignment",
        "the server can choose an id that is one integer or one text, not this one",
    )
}
