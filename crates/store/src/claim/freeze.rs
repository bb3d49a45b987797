//! From an entry to the bytes that are sent: coalescing what was never sent, then freezing (E3).

use super::parts::{self, Parts};
use super::{Claimer, Send, Step};
use crate::captured::{self, BaseState};
use crate::error::{StoreError, to_json};
use crate::ids;
use crate::journal;
use crate::keys;
use crate::outbox::{self, Entry, EntryState};
use crate::state;
use syncline_core::{EntityRef, Folded, Intent, fold};
use syncline_protocol::{
    Base, Command, Fields, IdempotencyKey, Mutation, MutationId, Operation, ServerVersion,
};

impl Claimer<'_> {
    /// Folds the entity's further never-sent entries into this one. `None`: nothing is left of it,
    /// or it is part of a later delete now. The mutations folded in are added to `covers`; their entries
    /// are superseded with the freezing and not before: a copy of the file that was made in between
    /// would take the outcome of the first, which an older copy may have sent alone, for that of all (I2).
    pub(super) fn coalesce(
        &mut self,
        entry: &Entry,
        entity: &EntityRef,
        first: Intent,
        covers: &mut Vec<MutationId>,
    ) -> Result<Option<(Intent, Vec<Entry>)>, StoreError> {
        let (mut intent, mut folded) = (first, Vec::new());
        if entry.stands_alone() {
            return Ok(Some((intent, folded)));
        }
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        let entries = outbox::of_entity(self.tx, names.0, names.1)?;
        for later in entries.iter().filter(|later| later.seq > entry.seq) {
            if later.frozen.is_some()
                || later.state != EntryState::Pending
                || later.lane != entry.lane
                || later.stands_alone()
            {
                break;
            }
            let Ok(fields) = captured::fields_of_mutation(self.tx, later.seq) else {
                break;
            };
            let second = Intent {
                op: later.op,
                fields: fields.unwrap_or_default(),
            };
            let apart = self.adds_up(entity, &intent, &second) && !self.is_retried(entry)?;
            match fold(&intent, &second) {
                _ if apart => break,
                Folded::Apart => break,
                Folded::Nothing => {
                    self.supersede_folded(&folded)?;
                    self.supersede(entry, "created and deleted again before it was sent")?;
                    self.supersede(later, "created and deleted again before it was sent")?;
                    self.drop_base_if_clean(entity)?;
                    return Ok(None);
                }
                Folded::One(one) if one.op == Operation::Delete => {
                    // The delete keeps its own, later place: others may still reference the row.
                    self.supersede_folded(&folded)?;
                    self.supersede(entry, "coalesced into a later delete")?;
                    let covered = with_own(entry, std::mem::take(covers));
                    return self.hand_over(later, covered).map(|()| None);
                }
                Folded::One(one) => {
                    if !self
                        .uncreated_parents(later.seq, entity, &second.fields)?
                        .is_empty()
                    {
                        break;
                    }
                    covers.extend(with_own(later, covered_by(later)));
                    intent = one;
                    folded.push(later.clone());
                }
            }
        }
        if intent.op == Operation::Update {
            self.drop_unchanged(entity, &mut intent.fields)?;
            if intent.fields.is_empty() {
                self.supersede_folded(&folded)?;
                self.supersede(entry, "it changes nothing any more")?;
                self.drop_base_if_clean(entity)?;
                return Ok(None);
            }
        }
        Ok(Some((intent, folded)))
    }

    /// Whether one of two updates adds to a field. They are sent one by one: a copy of the file may send one of
    /// them, and whoever sent both as one could not tell how much of the sum was counted already (I2).
    fn adds_up(&self, entity: &EntityRef, earlier: &Intent, later: &Intent) -> bool {
        let updates = earlier.op == Operation::Update && later.op == Operation::Update;
        updates && (self.adds(entity, earlier) || self.adds(entity, later))
    }

    fn adds(&self, entity: &EntityRef, one: &Intent) -> bool {
        let entity_type = self.types.get(entity.entity_type.as_str());
        entity_type.is_some_and(|entity_type| {
            (one.fields.names()).any(|name| entity_type.rules.adds_up(name))
        })
    }

    /// Whether a person sends again what was refused. What was corrected since belongs to it.
    fn is_retried(&self, entry: &Entry) -> Result<bool, StoreError> {
        let sql = "SELECT last_error IS NOT NULL
                      AND (idempotency_key IS NOT NULL OR json_extract(last_error, '$.code') = 'too-large')
                     FROM syncline_outbox WHERE seq = ?1";
        Ok(self
            .tx
            .prepare_cached(sql)?
            .query_row([entry.seq], |row| row.get(0))?)
    }

    /// Without being sent: it is one with them that it fails.
    fn fold_in(
        &mut self,
        entry: &Entry,
        intent: &Intent,
        covers: &[MutationId],
        (folded, parts): (&[Entry], Option<&Parts>),
    ) -> Result<(), StoreError> {
        parts::write(self.tx, entry, parts)?;
        captured::write_payload(self.tx, entry.seq, Some(&intent.fields))?;
        self.note_covers(entry, covers)?;
        self.supersede_folded(folded)
    }

    pub(super) fn supersede_folded(&mut self, folded: &[Entry]) -> Result<(), StoreError> {
        for later in folded {
            self.supersede(later, "coalesced into an earlier mutation")?;
        }
        Ok(())
    }

    /// What was folded into a later entry is remembered there until it is sent.
    fn hand_over(&mut self, later: &Entry, mut covered: Vec<MutationId>) -> Result<(), StoreError> {
        covered.extend(covered_by(later));
        self.note_covers(later, &covered)?;
        self.handed_over.insert(later.seq, covered);
        Ok(())
    }

    fn note_covers(&self, entry: &Entry, covered: &[MutationId]) -> Result<(), StoreError> {
        self.tx
            .prepare_cached("UPDATE syncline_outbox SET covers = ?2 WHERE seq = ?1")?
            .execute((entry.seq, to_json(&covered)))?;
        Ok(())
    }

    fn supersede(&mut self, entry: &Entry, reason: &str) -> Result<(), StoreError> {
        self.gone.insert(entry.seq);
        let detail = serde_json::json!({ "reason": reason });
        outbox::settle(self.tx, entry, "superseded", &detail, self.now)
    }

    fn drop_base_if_clean(&self, entity: &EntityRef) -> Result<(), StoreError> {
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        if outbox::of_entity(self.tx, names.0, names.1)?.is_empty() {
            captured::delete_base(self.tx, names.0, names.1)?;
        }
        Ok(())
    }

    fn drop_unchanged(&self, entity: &EntityRef, fields: &mut Fields) -> Result<(), StoreError> {
        let names = (entity.entity_type.as_str(), entity.id.as_str());
        if self
            .chain
            .contains_key(&(names.0.to_owned(), names.1.to_owned()))
        {
            // The base is older than what it follows.
            return Ok(());
        }
        if let BaseState::Present(base) = captured::base_of(self.tx, names.0, names.1)? {
            let same = |name: &str| base.get(name) == fields.get(name);
            let unchanged: Vec<String> = fields
                .names()
                .filter(|name| same(name))
                .map(str::to_owned)
                .collect();
            unchanged.iter().for_each(|name| {
                fields.remove(name);
            });
        }
        Ok(())
    }

    pub(super) fn freeze(
        &mut self,
        entry: &Entry,
        entity: EntityRef,
        (intent, folded): (Intent, Vec<Entry>),
        covers: Vec<MutationId>,
    ) -> Result<Step, StoreError> {
        let command = match entry
            .command
            .as_deref()
            .map(serde_json::from_str::<Command>)
        {
            None => None,
            Some(Ok(command)) => Some(command),
            Some(Err(error)) => {
                let why = format!("the command is not {{\"name\":…,\"args\":{{…}}}}: {error}");
                return self.fail(entry, Some(entity), "invalid-command", why);
            }
        };
        let entity_type = self.types.get(entity.entity_type.as_str());
        let assign = entity_type.and_then(|entity_type| ids::assign_for(entry, entity_type));
        let known = state::known_version(self.tx, &entity)?;
        let base = match (&command, assign) {
            (None, None) => self.base(entry, &entity, &intent, known)?,
            // A command is carried out on whatever is there. A row whose id is only proposed follows
            // nothing, also where a row was deleted that had the id before it: on that as its base it
            // would take its place, and whoever deletes the old row elsewhere would delete this one.
            _ => None,
        };
        let covers = match covers.is_empty() {
            true => covers,
            false => with_own(entry, covers),
        };
        let op = intent.op;
        let parts = parts::of(self.tx, entry, &folded, &intent.fields)?;
        let key = self.key(entry, covers.is_empty() || parts.is_some());
        let frozen = to_json(&Mutation {
            key: IdempotencyKey::new(key.clone()),
            mutation: entry.mutation.clone(),
            covers: told_covers(entry, &key, &covers, parts.as_ref()),
            entity_type: entity.entity_type.clone(),
            id: entity.id.clone(),
            op,
            assign,
            base,
            fields: intent.fields.clone(),
            command,
        });
        if frozen.len() > self.limits.mutation_bytes {
            let detail = format!(
                "the mutation has {} bytes, the server takes {}; make the row smaller",
                frozen.len(),
                self.limits.mutation_bytes
            );
            if !folded.is_empty() {
                self.fold_in(entry, &intent, &covers, (&folded, parts.as_ref()))?;
            }
            return self.fail(entry, Some(entity), "too-large", detail);
        }
        let payload = (op != Operation::Delete).then_some(intent.fields);
        Ok(Step::Send(Send {
            key,
            frozen,
            entity,
            covers,
            folded,
            fresh: Some(Box::new((payload, parts))),
        }))
    }

    /// Whether an entry that is offered again, or that another copy of the file may have sent, would follow one in the
    /// batch over a state that waits and that is not what it was made on. Or whether an entry would add to a sum that may be another one there, since what it follows is
    /// offered again or may have been sent by another copy of the file. First that one's outcome brings the two together.
    pub(super) fn is_unseen(
        &self,
        entry: &Entry,
        entity: &EntityRef,
        intent: &Intent,
    ) -> Result<bool, StoreError> {
        let name = (entity.entity_type.to_string(), entity.id.to_string());
        if !self.chain.contains_key(&name) {
            return Ok(false);
        }
        let again = entry.is_offered_again();
        // The members of a group are never apart.
        let is_open = (again || self.of_copies.contains(&name)) && entry.group.is_none();
        if is_open && self.adds(entity, intent) {
            return Ok(true);
        }
        let inherited = entry.origin_client.is_some() && entry.group.is_none();
        if !again && !inherited {
            return Ok(false);
        }
        Ok(state::view(self.tx, entity)?.waiting.is_some()
            && journal::base_in(self.tx, entry, entity, &intent.fields)?.is_none())
    }

    /// The state that a mutation is made on.
    fn base(
        &self,
        entry: &Entry,
        entity: &EntityRef,
        intent: &Intent,
        known: Option<ServerVersion>,
    ) -> Result<Option<Base>, StoreError> {
        let name = (entity.entity_type.to_string(), entity.id.to_string());
        if let Some(before) = self.chain.get(&name) {
            return Ok(Some(Base::After(before.clone())));
        }
        Ok(match (intent.op, known) {
            (_, Some(version)) => Some(self.version(version)),
            (Operation::Create, None) => None,
            (_, None) if entry.is_sent() && state::view(self.tx, entity)?.waiting.is_some() => {
                match journal::base_in(self.tx, entry, entity, &intent.fields)? {
                    Some(version) => Some(self.version(version)),
                    None => self.before_everything(),
                }
            }
            (_, None) => self.position.clone(),
        })
    }

    fn version(&self, version: ServerVersion) -> Base {
        Base::Version {
            epoch: self.epoch.clone(),
            version,
        }
    }

    /// The row is older than a change of it that waits, nobody knows how much: the server refuses
    /// whatever is based on that, unless it has done it already.
    fn before_everything(&self) -> Option<Base> {
        match self.position.clone() {
            Some(Base::Position { epoch, scope, .. }) => Some(Base::Position {
                epoch,
                scope,
                position: 0,
            }),
            other => other,
        }
    }

    /// An untouched mutation is sent under its own id, and under the key that follows when that is spent: a
    /// copied or restored file, which knows the id but not what was sent, then sends it under the same key. So is one
    /// of which edits became part, if it can be `told` from them: for a create or delete that always holds, since a row
    /// is not to be made twice, and a delete must not hit the next row of that id.
    fn key(&mut self, entry: &Entry, told: bool) -> String {
        let alone = told || entry.origin_client.is_some() || entry.op != Operation::Update;
        match &entry.key {
            Some(key) if entry.is_offered_again() => key.clone(),
            None if alone => entry.mutation.to_string(),
            Some(spent) if alone => keys::after(&entry.mutation, spent),
            spent => keys::folded(&self.dice.key(self.now), spent.as_deref()),
        }
    }
}

/// What is said to be covered: every key that a copy of the file may use for a part of it. What a server refused that
/// has been restored since, it may not know: a copy that is still at an earlier key is to be told what became of this one.
fn told_covers(
    entry: &Entry,
    key: &str,
    covers: &[MutationId],
    parts: Option<&Parts>,
) -> Vec<MutationId> {
    let mut told = covers.to_vec();
    let next = parts.into_iter().flat_map(Parts::next_keys);
    told.extend(next.map(MutationId::new));
    if entry.is_offered_again() {
        let earlier = keys::earlier(&entry.mutation, key);
        told.extend(earlier.iter().map(|key| MutationId::new(key.as_str())));
    }
    told
}

/// What was coalesced into an entry before.
pub(super) fn covered_by(entry: &Entry) -> Vec<MutationId> {
    let covers = entry.covers.as_deref();
    covers
        .and_then(|covers| serde_json::from_str(covers).ok())
        .unwrap_or_default()
}

fn with_own(entry: &Entry, mut covers: Vec<MutationId>) -> Vec<MutationId> {
    if !covers.contains(&entry.mutation) {
        covers.insert(0, entry.mutation.clone());
    }
    covers
}
