//! Lanes and groups: in which order the entries of the outbox are looked at.

use super::{Claimer, Name, Send, Step, name};
use crate::error::StoreError;
use crate::outbox::{self, Entry};
use syncline_core::{EntityRef, MutationError, Notice};
use syncline_protocol::Operation;

/// How the column `lane` counts.
const URGENT: i64 = 0;
const BACKGROUND: i64 = 2;

/// How far an urgent entry is followed to what it needs first.
const DEPTH: usize = 16;

impl Claimer<'_> {
    /// Urgent entries with all that they need, then the others, then background. Deletes of rows
    /// that others may reference come last and in local order, since they wait for what still
    /// references them, in whichever lane that is.
    pub(super) fn scan_by_lane(&mut self) -> Result<(), StoreError> {
        self.scan_urgent()?;
        self.scan_with(outbox::after, |claimer, entry| match entry.lane {
            None => claimer.visit(entry, false),
            Some(_) => Ok(()),
        })?;
        self.scan_with(
            |tx, last, limit| outbox::of_lane(tx, BACKGROUND, last, limit),
            |claimer, entry| claimer.promote(entry, DEPTH),
        )?;
        self.by_lane = false;
        self.deferred.clear();
        self.referenced.clear();
        self.scan_with(outbox::after, |claimer, entry| {
            if claimer.seen.contains(&entry.seq) {
                return claimer.note_references(entry);
            }
            claimer.visit(entry, false)
        })
    }

    /// Urgent entries with all that they need, in whichever lane that is.
    pub(super) fn scan_urgent(&mut self) -> Result<(), StoreError> {
        self.by_lane = true;
        self.scan_with(
            |tx, last, limit| outbox::of_lane(tx, URGENT, last, limit),
            |claimer, entry| claimer.promote(entry, DEPTH),
        )
    }

    /// Whether an entry is left to the last pass, which goes in local order.
    pub(super) fn is_deferred(&mut self, entry: &Entry, name: &Name) -> bool {
        if !self.by_lane {
            return false;
        }
        if entry.op == Operation::Delete && self.is_parent_type(entry.entity_type.as_str()) {
            self.deferred.insert(name.clone());
        }
        self.deferred.contains(name)
    }

    /// Looks at an entry after everything that has to go before it, whatever lane that is in.
    fn promote(&mut self, entry: &Entry, depth: usize) -> Result<(), StoreError> {
        if depth == 0 || self.seen.contains(&entry.seq) || self.gone.contains(&entry.seq) {
            return Ok(());
        }
        if let Ok(entity) = entry.entity() {
            let names = (entity.entity_type.as_str(), entity.id.as_str());
            let entries = outbox::of_entity(self.tx, names.0, names.1)?;
            let fields = crate::captured::fields_of_mutation(self.tx, entry.seq);
            let fields = fields.ok().flatten().unwrap_or_default();
            for parent in self.uncreated_parents(entry.seq, &entity, &fields)? {
                let (kind, id) = (parent.entity_type.as_str(), parent.id.as_str());
                for needed in outbox::of_entity(self.tx, kind, id)? {
                    self.promote(&needed, depth - 1)?;
                    if needed.op == Operation::Create {
                        break;
                    }
                }
            }
            for earlier in entries.iter().filter(|earlier| earlier.seq < entry.seq) {
                self.promote(earlier, depth - 1)?;
            }
        }
        self.visit(entry, false)
    }

    /// A group goes as a whole or not at all.
    pub(super) fn visit_group(&mut self, group: &str) -> Result<(), StoreError> {
        let members = outbox::of_group(self.tx, group)?;
        self.seen.extend(members.iter().map(|member| member.seq));
        let (chain, waits) = (self.chain.clone(), self.waits.clone());
        let planned = self.plan_group(&members);
        self.together.clear();
        self.chain = chain;
        match planned? {
            Some(sends) => {
                self.waits = waits;
                for (member, send) in members.iter().filter_map(|member| {
                    let send = sends.iter().find(|(seq, _)| *seq == member.seq)?;
                    Some((member, send.1.clone()))
                }) {
                    self.take(member, send)?;
                }
            }
            None => {
                for member in &members {
                    self.hold(member)?;
                }
            }
        }
        Ok(())
    }

    fn plan_group(&mut self, members: &[Entry]) -> Result<Option<Vec<(i64, Send)>>, StoreError> {
        if members.len() > self.limits.most_mutations {
            let most = self.limits.most_mutations;
            return self.fail_group(
                members,
                &format!(
                    "it has {} mutations, the server takes {most} at once",
                    members.len()
                ),
            );
        }
        let room = self.batch.entries.is_empty()
            || self.batch.entries.len() + members.len() <= self.limits.mutations;
        let free = members.iter().all(|member| {
            !self.held.contains(&name(member)) && !self.limits.under_way.contains(&member.seq)
        });
        if !room || !free {
            return Ok(None);
        }
        let created = |member: &Entry| {
            let entity: Option<EntityRef> = member.entity().ok();
            entity.filter(|_| member.op == Operation::Create)
        };
        self.together = members.iter().filter_map(created).collect();
        let mut sends = Vec::with_capacity(members.len());
        let mut bytes = 0;
        for member in members {
            match self.consider(member, false)? {
                Step::Gone => {}
                Step::Hold => return Ok(None),
                Step::Send(send) => {
                    bytes += send.frozen.len();
                    self.chain.insert(name(member), send.key.as_str().into());
                    sends.push((member.seq, send));
                }
            }
        }
        if bytes > self.limits.most_bytes {
            let most = self.limits.most_bytes;
            return self.fail_group(
                members,
                &format!("it has {bytes} bytes, the server takes {most} at once"),
            );
        }
        Ok(self.has_room(bytes).then_some(sends))
    }

    fn fail_group(
        &mut self,
        members: &[Entry],
        why: &str,
    ) -> Result<Option<Vec<(i64, Send)>>, StoreError> {
        let error = MutationError::new(
            "group-too-large",
            format!(
                "the group cannot be sent as a whole: {why}; discard it and write smaller groups"
            ),
        );
        for member in members {
            if member.frozen.is_none() && member.state == outbox::EntryState::Pending {
                outbox::fail(self.tx, member, &error, self.now)?;
                self.notices.push(Notice::MutationFailed {
                    mutation: member.mutation.clone(),
                    entity: member.entity().ok(),
                    error: error.clone(),
                });
            }
        }
        Ok(None)
    }
}
