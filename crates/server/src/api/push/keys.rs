//! Keys and bases: what became of a key before, which entity a mutation is really about, and
//! whether its base holds.
//!
//! A key lives in the key space of a client: the sender's own, or the one that it was inherited
//! from.

use super::batch::{Batch, Draft, Name, Result};
use super::parse::Incoming;
use super::record::{Recorded, read_record};
use super::rules::{Current, Hold, Place};
use crate::key_time::uuid7_ms;
use crate::{Fingerprint, ReadTx};
use syncline_protocol::{Base, ClientId, IdempotencyKey, MutationId, Operation, Outcome};

/// What is remembered about the key of a mutation.
pub(super) enum Known {
    /// Nothing: the mutation is new.
    Unknown,
    /// The key may have been forgotten.
    Forgotten,
    /// An outcome, and what the key was used for.
    Recorded {
        used_for: Option<Fingerprint>,
        record: Recorded,
    },
}

impl<'a> Batch<'a> {
    /// The client in whose key space the key is.
    pub(super) fn space(&self, key: &IdempotencyKey) -> &'a ClientId {
        self.push.inherited.get(key).unwrap_or(&self.push.client)
    }

    /// What became of the key before, in this batch or in an earlier request.
    pub(super) fn earlier(&mut self, index: usize) -> Result<Option<Draft>> {
        let incoming = &self.push.mutations[index];
        if !incoming.keyed {
            return Ok(None);
        }
        if let Some(first) = self.plan.keys.get(&incoming.key) {
            let same = self.push.mutations[*first].fingerprint == incoming.fingerprint;
            return Ok(Some(if same {
                Draft::SameAs(*first)
            } else {
                Draft::KeyReused
            }));
        }
        if !self.known.contains_key(&index) {
            let space = self.space(&incoming.key);
            let known = match self.claim(space, &incoming.key)? {
                Known::Unknown => self.under_earlier_key(space, incoming)?,
                known => known,
            };
            self.known.insert(index, known);
        }
        let used_for = match self.known.get(&index) {
            Some(Known::Recorded { used_for, .. }) => used_for,
            Some(Known::Forgotten) => return Ok(Some(Draft::Fresh(Outcome::Expired))),
            Some(Known::Unknown) | None => return Ok(None),
        };
        let is_same = match used_for {
            Some(used_for) if *used_for == incoming.fingerprint => true,
            Some(_) if !self.push.inherited.contains_key(&incoming.key) => false,
            used_for => {
                let inherited = used_for.is_some();
                self.covers_no_more(index, inherited)?
            }
        };
        if !is_same {
            return Ok(Some(Draft::KeyReused));
        }
        let Some(Known::Recorded { record, .. }) = self.known.get(&index) else {
            return Ok(None);
        };
        if record.is_about(&incoming.name()) {
            self.plan.targets[index] = record.target();
        }
        Ok(Some(Draft::Replay(record.told(incoming))))
    }

    /// Whether everything that a mutation covers was covered or sent too, where its key was covered by another one, or
    /// used by another copy of the file. Nobody knows then what was done under the key, but for the mutations that
    /// became part of that. Of a delete there is nothing more to be done. What may be forgotten was done with it, but
    /// for a mutation of another copy, which is told of it by itself.
    fn covers_no_more(&mut self, index: usize, inherited: bool) -> Result<bool> {
        let incoming = &self.push.mutations[index];
        if incoming.op == Operation::Delete {
            return Ok(true);
        }
        let (tenant, space) = (self.caller.tenant(), self.space(&incoming.key));
        for covered in &incoming.covers {
            let key = IdempotencyKey::new(covered.as_str());
            if !is_key_of(&incoming.mutation, covered)
                && self.tx.claim_key(tenant, space, &key)?.is_none()
                && (inherited || !is_forgotten(self.tx, tenant, space, &key)?)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What became of a mutation under a key that it had before, of those that it covers: another copy of the file may
    /// have offered it to a restored server under the key that it had there.
    fn under_earlier_key(&mut self, space: &ClientId, incoming: &Incoming) -> Result<Known> {
        if !self.push.inherited.contains_key(&incoming.key) {
            return Ok(Known::Unknown);
        }
        let own = |key: &&MutationId| is_key_of(&incoming.mutation, key);
        for earlier in incoming.covers.iter().filter(own) {
            let known = self.claim(space, &IdempotencyKey::new(earlier.as_str()))?;
            if let Known::Recorded { record, .. } = &known
                && matches!(record.outcome, Outcome::Applied { .. })
            {
                return Ok(known);
            }
        }
        Ok(Known::Unknown)
    }

    fn claim(&mut self, space: &ClientId, key: &IdempotencyKey) -> Result<Known> {
        let tenant = self.caller.tenant();
        let record = self.tx.claim_key(tenant, space, key)?;
        Ok(match record {
            None if is_forgotten(self.tx, tenant, space, key)? => Known::Forgotten,
            None => Known::Unknown,
            Some(record) => Known::Recorded {
                used_for: record.fingerprint,
                record: read_record(&record)?,
            },
        })
    }

    /// The entity that a mutation is about: the one it names, unless it follows a mutation whose
    /// entity was given another id.
    pub(super) fn target(&mut self, incoming: &Incoming) -> Result<Name> {
        let named = incoming.name();
        let Some(Base::After(key)) = &incoming.base else {
            return Ok(named);
        };
        if let Some(index) = self.plan.keys.get(key) {
            let target = &self.plan.targets[*index];
            let same = self.push.mutations[*index].name() == named;
            return Ok(if same { target.clone() } else { named });
        }
        Ok(match self.recorded(key, incoming)? {
            Some(record) if record.is_about(&named) => record.target(),
            _ => named,
        })
    }

    pub(super) fn hold(&mut self, index: usize, current: Option<&Current>) -> Result<Hold> {
        let incoming = &self.push.mutations[index];
        let stored = match current.map(|current| current.place) {
            Some(Place::Stored { version, seq }) => Some((version, seq)),
            _ => None,
        };
        let holds = match &incoming.base {
            None => return Ok(Hold::NoBase),
            Some(Base::Position {
                epoch,
                scope,
                position,
            }) => {
                let known =
                    *epoch == self.epoch && *scope == self.caller.scope && *position <= self.head;
                known && stored.is_some_and(|(_, seq)| seq <= *position)
            }
            Some(Base::Version { epoch, version }) => {
                *epoch == self.epoch
                    && stored.is_some_and(|(now, _)| now.to_string() == version.as_str())
            }
            Some(Base::After(key)) => match self.plan.keys.get(key) {
                Some(earlier) => return Ok(self.holds_after(*earlier, index, current)),
                None => self.holds_after_record(key, index, current)?,
            },
        };
        Ok(if holds { Hold::Yes } else { Hold::No })
    }

    /// `after` a mutation of this batch.
    fn holds_after(&self, mut earlier: usize, index: usize, current: Option<&Current>) -> Hold {
        let place = current.map(|current| current.place);
        if let Some(Draft::SameAs(first)) = self.plan.drafts.get(earlier) {
            earlier = *first;
        }
        let Some(draft) = self.plan.drafts.get(earlier) else {
            return Hold::No;
        };
        if !self.is_applied(draft) {
            return Hold::Skip {
                because: self.push.mutations[earlier].key.clone(),
            };
        }
        let left_by_it = match draft {
            Draft::Applied { by, .. } => place == Some(Place::Planned(*by)),
            Draft::Replay(outcome) | Draft::Fresh(outcome) => is_place_of(outcome, place),
            _ => false,
        };
        if left_by_it && self.plan.targets[earlier] == self.plan.targets[index] {
            Hold::Yes
        } else {
            Hold::No
        }
    }

    /// `after` a mutation of an earlier request.
    fn holds_after_record(
        &mut self,
        key: &IdempotencyKey,
        index: usize,
        current: Option<&Current>,
    ) -> Result<bool> {
        let Some(record) = self.recorded(key, &self.push.mutations[index])? else {
            return Ok(false);
        };
        let same = record.target() == self.plan.targets[index];
        let place = current.map(|current| current.place);
        Ok(same && is_place_of(&record.outcome, place))
    }

    /// What was recorded for a key that a base names: looked up first where the mutation's own key
    /// lives, then with the other clients that this one speaks for.
    fn recorded(&mut self, key: &IdempotencyKey, incoming: &Incoming) -> Result<Option<Recorded>> {
        let mut spaces = vec![self.space(&incoming.key), &self.push.client];
        spaces.extend(self.push.inherited.values());
        for (nth, space) in spaces.iter().enumerate() {
            if spaces[..nth].contains(space) {
                continue;
            }
            if let Some(record) = self.tx.key_record(self.caller.tenant(), space, key)? {
                return read_record(&record).map(Some);
            }
        }
        Ok(None)
    }
}

/// Whether a mutation may have gone under this key before: its id, or that with a number.
fn is_key_of(mutation: &MutationId, key: &MutationId) -> bool {
    let rest = key.as_str().strip_prefix(mutation.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a key without a record may have had one: its own time is not later than that of a key of
/// the client that was forgotten.
pub(crate) fn is_forgotten<T: ReadTx + ?Sized>(
    tx: &T,
    tenant: &str,
    client: &ClientId,
    key: &IdempotencyKey,
) -> Result<bool> {
    let Some(ms) = uuid7_ms(key.as_str()) else {
        return Ok(false);
    };
    let watermark = tx.key_watermark(tenant, client)?;
    Ok(watermark.is_some_and(|watermark| ms <= watermark))
}

fn is_place_of(outcome: &Outcome, place: Option<Place>) -> bool {
    match (outcome, place) {
        (Outcome::Applied { version, .. }, Some(Place::Stored { version: now, .. })) => {
            version.as_str() == now.to_string()
        }
        _ => false,
    }
}
