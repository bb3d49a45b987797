//! What is offered to another history: answers to what had none when the server's history changed, and
//! rows that the new one lacks.

use super::book::state_of;
use super::file::{Desk, Entry, File, after_mutation};
use syncline_protocol::{Change, ChangeKind, EntityId, Operation, ServerVersion};

/// What the server says of a mutation that took effect.
pub(crate) struct Answer<'a> {
    pub(crate) version: &'a ServerVersion,
    pub(crate) position: i64,
    pub(crate) duplicate: bool,
    /// About what a copy of this file has sent before it, or an earlier state of it.
    pub(crate) of_another_copy: bool,
}

impl File {
    /// It has left the outbox: the row becomes what the server has, with what is left laid over it.
    pub(crate) fn book_again(&mut self, entry: &Entry, answer: &Answer<'_>, desk: &mut Desk<'_>) {
        let entity = &entry.entity;
        let waiting = self.inbox.remove(entity);
        let left = self.of_entity(entity).next().is_some();
        match waiting {
            // What came has it already, with whatever was done after it.
            Some(waiting) if waiting.position >= answer.position => {
                self.known.remove(entity);
                self.advance_base(entry);
                self.change(&waiting, i64::MAX, &mut Vec::new(), desk);
            }
            None if answer.duplicate => {
                self.known.remove(entity);
                self.advance_base(entry);
                if self.has_passed(answer.position) && entry.op != Operation::Delete {
                    self.held.insert(entity.clone());
                }
            }
            // It was done on what came, of which what is left to be sent knows nothing.
            Some(waiting) if left => {
                let made = after_mutation(state_of(&waiting).fields, entry.op, &entry.fields);
                self.advance_base(entry);
                let made = Change {
                    kind: made.map_or(ChangeKind::Delete, ChangeKind::Upsert),
                    version: answer.version.clone(),
                    position: answer.position,
                    ..waiting
                };
                self.change(&made, i64::MAX, &mut Vec::new(), desk);
            }
            // It was done on what came.
            waiting => {
                let below = match waiting {
                    Some(waiting) => state_of(&waiting).fields,
                    None => self.base.get(entity).cloned().flatten(),
                };
                let made = after_mutation(below, entry.op, &entry.fields);
                let known = (answer.version.as_str().to_owned(), answer.position);
                self.known.insert(entity.clone(), known);
                self.move_base(entity, made.clone());
                let mut row = made;
                for later in self.of_entity(entity) {
                    row = after_mutation(row, later.op, &later.fields);
                }
                self.put_row(entity, row);
            }
        }
    }

    /// The new history lacks a row of which there are only edits here: they wait with it for what is
    /// decided about it (I3). False: it is a conflict like any other.
    pub(crate) fn hold_missing(&mut self, entity: &EntityId) -> bool {
        let lost = self.reset && self.is_only_updated(entity, i64::MIN);
        if lost {
            self.held.insert(entity.clone());
        }
        lost
    }

    /// Whether all that is known of an entity beyond its row, as of this position, are updates that are not
    /// under way.
    pub(crate) fn is_only_updated(&self, entity: &EntityId, position: i64) -> bool {
        let known = self.known.get(entity).map(|(_, known)| *known);
        self.of_entity(entity).next().is_some()
            && !self.is_under_way(entity)
            && known.is_none_or(|known| known <= position)
            && !self.inbox.contains_key(entity)
            && self
                .of_entity(entity)
                .all(|entry| entry.op == Operation::Update)
    }

    /// Whether something of it may have reached the server in its present history.
    pub(crate) fn is_under_way(&self, entity: &EntityId) -> bool {
        let first = self.of_entity(entity).next();
        self.of_entity(entity).any(|entry| entry.frozen.is_some())
            || first.is_some_and(Entry::is_under_way)
    }
}
