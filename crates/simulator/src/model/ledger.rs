//! The reference: what every app wrote, what took effect at the server, what was recorded about it.
//! Imports nothing of core, so that "all empty" and shared mistakes are found.
//!
//! Every value is written once in a world, so that a value says by itself who wrote it and where it
//! belongs.

use super::server::Effect;
use crate::level::Broken;
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{EntityId, Fields, MutationId, Operation, Value};

/// How a mutation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It took effect under its own name.
    Applied,
    /// It became part of another one.
    Coalesced,
    /// A decided conflict left nothing of it.
    Resolved,
    /// A person gave it up.
    Discarded,
}

/// What a file kept of a side that gave way.
#[derive(Debug, Clone, Default)]
struct Lost {
    fields: BTreeSet<String>,
    deletion: bool,
}

/// One recorded mutation.
#[derive(Debug, Clone)]
struct Written {
    file: usize,
    entity: EntityId,
    op: Operation,
    fields: Fields,
    effects: u32,
    end: Option<End>,
    /// A backup was put back over it: it may be lost, and may have had its effect.
    forgiven: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    written: Vec<Written>,
    /// Where each value belongs, by value.
    values: Vec<(EntityId, &'static str)>,
    /// Values that the server showed at some time.
    shown: BTreeSet<i64>,
    /// Entities that were deleted at the server at some time.
    deleted: BTreeSet<EntityId>,
    /// The newest mutation that took effect, by file and entity.
    newest: BTreeMap<(usize, EntityId), usize>,
    lost: BTreeMap<(usize, EntityId), Lost>,
    /// Files that were restored: what they say twice, the server need not hear twice.
    restored: BTreeSet<usize>,
    /// For whom a file's mutations took effect.
    subjects: BTreeMap<usize, u8>,
}

/// The name of a mutation by number.
pub(crate) fn mutation_id(number: usize) -> MutationId {
    MutationId::new(format!("m{number}"))
}

fn number(mutation: &MutationId) -> Option<usize> {
    mutation.as_str().strip_prefix('m')?.parse().ok()
}

impl Ledger {
    /// A value nobody has written yet.
    pub(crate) fn value(&mut self, entity: &EntityId, field: &'static str) -> i64 {
        self.values.push((entity.clone(), field));
        i64::try_from(self.values.len()).unwrap_or(i64::MAX)
    }

    /// A mutation is recorded.
    pub(crate) fn record(
        &mut self,
        file: usize,
        entity: &EntityId,
        op: Operation,
        fields: &Fields,
    ) -> MutationId {
        self.written.push(Written {
            file,
            entity: entity.clone(),
            op,
            fields: fields.clone(),
            effects: 0,
            end: None,
            forgiven: false,
        });
        mutation_id(self.written.len() - 1)
    }

    /// The next mutation's name, for one that the store records itself.
    pub(crate) fn next_id(&self) -> MutationId {
        mutation_id(self.written.len())
    }

    /// How many effects each mutation had so far.
    pub(crate) fn effects(&self) -> Vec<u32> {
        self.written.iter().map(|one| one.effects).collect()
    }

    /// The server is what it was: later effects are undone, and what had them may be lost. It has these
    /// entities no more.
    pub(crate) fn server_restored<'a>(
        &mut self,
        effects: &[u32],
        gone: impl Iterator<Item = &'a EntityId>,
    ) {
        self.deleted.extend(gone.cloned());
        let zero = &0;
        for (index, one) in self.written.iter_mut().enumerate() {
            let before = *effects.get(index).unwrap_or(zero);
            if one.effects != before {
                one.forgiven = true;
                self.deleted.insert(one.entity.clone());
            }
            one.effects = before;
        }
        self.newest.clear();
    }

    /// A file is what it was when so many mutations were recorded.
    pub(crate) fn file_restored(&mut self, file: usize) {
        for one in self.written.iter_mut().filter(|one| one.file == file) {
            one.forgiven = true;
        }
        self.restored.insert(file);
        self.newest.retain(|(of, _), _| *of != file);
    }

    /// Somebody else wrote at the server.
    pub(crate) fn foreign(&mut self, entity: &EntityId, fields: Option<&Fields>) {
        match fields {
            Some(fields) => self.show(fields),
            None => {
                self.deleted.insert(entity.clone());
            }
        }
    }

    fn show(&mut self, fields: &Fields) {
        let values = fields.iter().filter_map(|(_, value)| integer(value));
        self.shown.extend(values);
    }

    /// A mutation took effect at the server.
    pub(crate) fn effect(&mut self, effect: &Effect) -> Result<(), Broken> {
        for (name, value) in &effect.fields {
            let belongs =
                integer(value).and_then(|value| self.values.get(usize::try_from(value - 1).ok()?));
            let right =
                belongs.is_some_and(|(entity, field)| *entity == effect.entity && field == name);
            if !right {
                let detail = format!("{name} of {} became {value:?}", effect.entity);
                return Err(Broken::new("F:S12", detail));
            }
        }
        self.show(&effect.fields);
        if effect.op == Operation::Delete {
            self.deleted.insert(effect.entity.clone());
        }
        let mut covered: Vec<usize> = effect.covers.iter().filter_map(number).collect();
        covered.extend(number(&effect.mutation));
        covered.sort_unstable();
        covered.dedup();
        for index in &covered {
            let Some(one) = self.written.get_mut(*index) else {
                return Err(Broken::new("D:E1", format!("nobody wrote m{index}")));
            };
            one.effects += 1;
            if one.effects > 1 && !one.forgiven {
                return Err(Broken::new("F:S4", format!("m{index} took effect twice")));
            }
            let file = one.file;
            let subject = *self.subjects.entry(file).or_insert(effect.subject);
            if subject != effect.subject {
                let detail = format!("m{index} was sent under account {}", effect.subject);
                return Err(Broken::new("D:I1", detail));
            }
            let newest = (file, effect.entity.clone());
            let before = self.newest.insert(newest, *index);
            if let Some(before) = before.filter(|before| before > index)
                && !self.written.get(before).is_some_and(|one| one.forgiven)
            {
                let detail = format!("m{index} took effect after m{before}");
                return Err(Broken::new("D:O1", detail));
            }
        }
        Ok(())
    }

    /// A file says how a mutation ended.
    pub(crate) fn end(&mut self, mutation: &MutationId, end: End) -> Result<(), Broken> {
        let Some(one) = number(mutation).and_then(|index| self.written.get_mut(index)) else {
            return Ok(());
        };
        // Whatever became part of another goes its way.
        let part = |end: &End| matches!(end, End::Coalesced | End::Resolved);
        let ended = one
            .end
            .filter(|before| !part(before) && *before != End::Discarded);
        if let (Some(before), false) = (ended, one.forgiven) {
            let detail = format!("{mutation} ended as {before:?} and again as {end:?}");
            return Err(Broken::new("F:S3", detail));
        }
        if end == End::Applied && one.effects == 0 && !one.forgiven {
            let detail = format!("{mutation} is booked as applied and had no effect");
            return Err(Broken::new("F:S4", detail));
        }
        one.end = Some(end);
        Ok(())
    }

    /// A file recorded what gave way: these fields, or a deletion.
    pub(crate) fn gave_way(&mut self, file: usize, entity: &EntityId, fields: Option<&Fields>) {
        let lost = self.lost.entry((file, entity.clone())).or_default();
        match fields {
            Some(fields) => lost.fields.extend(fields.names().map(str::to_owned)),
            None => lost.deletion = true,
        }
    }

    /// F:S3: every mutation is in the outbox or has ended, never both, never neither.
    pub(crate) fn check_outbox<'a>(
        &self,
        file: usize,
        outbox: impl Iterator<Item = &'a MutationId>,
    ) -> Result<(), Broken> {
        let mut there: BTreeSet<usize> = BTreeSet::new();
        for mutation in outbox {
            let new = number(mutation).is_some_and(|index| there.insert(index));
            if !new {
                return Err(Broken::new(
                    "F:S3",
                    format!("{mutation} is in the outbox twice"),
                ));
            }
        }
        for (index, one) in self
            .written
            .iter()
            .enumerate()
            .filter(|(_, one)| one.file == file)
        {
            if !one.forgiven && one.end.is_some() == there.contains(&index) {
                let detail = format!(
                    "m{index}: {:?}, in the outbox: {}",
                    one.end,
                    one.end.is_some()
                );
                return Err(Broken::new("F:S3", detail));
            }
        }
        Ok(())
    }

    /// F:S12, D:E2: everything written is or was at the server, was overwritten where it was written,
    /// or is on record as given up.
    pub(crate) fn check_nothing_lost(&self) -> Result<(), Broken> {
        for (index, one) in self.written.iter().enumerate() {
            let restored = one.forgiven || self.restored.contains(&one.file);
            if restored || one.end == Some(End::Discarded) {
                continue;
            }
            let nothing = Lost::default();
            let lost = self
                .lost
                .get(&(one.file, one.entity.clone()))
                .unwrap_or(&nothing);
            let explained = match one.op {
                Operation::Delete => {
                    one.end != Some(End::Resolved)
                        || lost.deletion
                        || self.deleted.contains(&one.entity)
                        || self.is_of_a_stillborn(index, one)
                        || self.is_overwritten(index, one, None)
                }
                Operation::Create | Operation::Update => one.fields.iter().all(|(name, value)| {
                    integer(value).is_none_or(|value| self.shown.contains(&value))
                        || lost.fields.contains(name)
                        || self.is_overwritten(index, one, Some(name))
                }),
            };
            if !explained {
                let detail = format!("m{index} is gone without a trace: {one:?}");
                return Err(Broken::new("F:S12", detail));
            }
        }
        Ok(())
    }

    /// Whether a delete takes back what the same file had created and never got to the server.
    fn is_of_a_stillborn(&self, index: usize, one: &Written) -> bool {
        self.written.iter().take(index).any(|earlier| {
            earlier.file == one.file
                && earlier.entity == one.entity
                && earlier.op == Operation::Create
                && earlier.effects == 0
        })
    }

    /// Whether the same file wrote the field again, or deleted the row; of a deleted row: created it.
    fn is_overwritten(&self, index: usize, one: &Written, field: Option<&str>) -> bool {
        self.written.iter().skip(index + 1).any(|later| {
            later.file == one.file
                && later.entity == one.entity
                && match field {
                    Some(field) => later.op == Operation::Delete || later.fields.contains(field),
                    None => later.op == Operation::Create,
                }
        })
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(value) => Some(*value),
        _ => None,
    }
}
