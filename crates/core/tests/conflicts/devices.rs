//! A pure model: a server and devices that share one entity. A server takes a write only if it was made
//! on the current state; a device asks the resolver like the store does. No I/O, no time.

use crate::case::{Decider, entity, mutation};
use syncline_core::{
    ConflictCause, ConflictRules, Decision, Intent, OwnedConflictInput, PendingMutation, Rewrite,
    Settled, changed, rebase,
};
use syncline_protocol::{ConflictReason, Fields, Operation};

/// The server: the entity and everything that it ever was.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) row: Option<Fields>,
    pub(crate) history: Vec<Option<Fields>>,
}

impl Server {
    fn version(&self) -> usize {
        self.history.len()
    }

    fn write(&mut self, op: Operation, fields: &Fields) {
        self.row = match (op, self.row.take()) {
            (Operation::Delete, _) => None,
            (Operation::Create, _) => Some(fields.clone()),
            (Operation::Update, row) => row.map(|mut row| {
                row.patch(fields);
                row
            }),
        };
        self.history.push(self.row.clone());
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) row: Option<Fields>,
    pub(crate) pending: Vec<PendingMutation>,
    /// The conflict that waits for a person.
    pub(crate) open: Option<String>,
    /// What was settled by rule and is worth a record.
    pub(crate) records: Vec<Settled>,
    base: Option<Fields>,
    seen: usize,
    mutations: usize,
}

pub(crate) struct World<'a> {
    pub(crate) server: Server,
    pub(crate) devices: Vec<Device>,
    pub(crate) server_time_ms: Option<i64>,
    rules: &'a ConflictRules,
    decider: Decider<'a>,
}

impl<'a> World<'a> {
    /// Everyone begins with the same state.
    pub(crate) fn new(
        start: Option<Fields>,
        devices: usize,
        rules: &'a ConflictRules,
        decider: Decider<'a>,
    ) -> Self {
        let device = Device {
            row: start.clone(),
            pending: Vec::new(),
            open: None,
            records: Vec::new(),
            base: start.clone(),
            seen: 1,
            mutations: 0,
        };
        let server = Server {
            row: start.clone(),
            history: vec![start],
        };
        Self {
            server,
            devices: vec![device; devices],
            server_time_ms: None,
            rules,
            decider,
        }
    }

    /// An app writes: creates the entity if it is not there. Writing what is there is no mutation.
    pub(crate) fn write(&mut self, device: usize, patch: &Fields) {
        let device = &mut self.devices[device];
        match &mut device.row {
            None => {
                device.row = Some(patch.clone());
                device.record(Operation::Create, patch.clone());
            }
            Some(row) => {
                let fields = changed(row, patch);
                row.patch(&fields);
                if !fields.is_empty() {
                    device.record(Operation::Update, fields);
                }
            }
        }
    }

    pub(crate) fn delete(&mut self, device: usize) {
        let device = &mut self.devices[device];
        if device.row.take().is_some() {
            device.record(Operation::Delete, Fields::new());
        }
    }

    /// Learns the server's state.
    pub(crate) fn pull(&mut self, device: usize) {
        if self.devices[device].seen != self.server.version() {
            self.meet(device, ConflictCause::Pull);
        }
    }

    /// Sends one mutation. On a state that is not current any more it is refused, and resolved.
    pub(crate) fn push(&mut self, device: usize) {
        let one = &self.devices[device];
        let Some(first) = one.pending.first().filter(|_| one.open.is_none()) else {
            return;
        };
        if one.seen != self.server.version() {
            return self.meet(device, ConflictCause::Push(ConflictReason::Stale));
        }
        let first = first.clone();
        self.server.write(first.op, &first.fields);
        let device = &mut self.devices[device];
        device.pending.remove(0);
        device.base = self.server.row.clone();
        device.seen = self.server.version();
    }

    /// Everyone pulls and pushes until nothing moves; an error if that does not end.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..64 {
            let before = self.server.version();
            for device in 0..self.devices.len() {
                self.sync(device);
            }
            let quiet = |device: &Device| device.open.is_some() || device.pending.is_empty();
            let seen = |device: &Device| device.seen == self.server.version();
            if before == self.server.version() && self.devices.iter().all(|d| quiet(d) && seen(d)) {
                return Ok(());
            }
        }
        Err("the devices do not come to rest".to_owned())
    }

    pub(crate) fn sync(&mut self, device: usize) {
        self.pull(device);
        for _ in 0..self.devices[device].pending.len() {
            self.push(device);
        }
    }

    /// A person takes this row; the result flows out as ordinary mutations.
    pub(crate) fn resolve(&mut self, device: usize, row: Option<Fields>) {
        let (remote, version) = (self.server.row.clone(), self.server.version());
        let device = &mut self.devices[device];
        let rebased = rebase(&device.pending, row.as_ref(), remote.as_ref());
        device.open = None;
        (device.row, device.base, device.seen) = (row, remote, version);
        device.rewrite(&rebased.each, rebased.new);
    }

    fn meet(&mut self, device: usize, cause: ConflictCause) {
        let remote = self.server.row.clone();
        let one = &mut self.devices[device];
        one.seen = self.server.version();
        if one.pending.is_empty() {
            one.row.clone_from(&remote);
            one.base = remote;
            return;
        }
        let question = OwnedConflictInput {
            entity: entity(1),
            base: one.base.clone(),
            local: one.row.clone(),
            remote: remote.clone(),
            pending: one.pending.clone(),
            cause,
            server_time_ms: self.server_time_ms,
        };
        match (self.decider)(self.rules, &question.input()) {
            Decision::Manual { reason, .. } => one.open = Some(reason),
            Decision::Settled(settled) => {
                one.open = None;
                one.row.clone_from(&settled.row);
                one.base = remote;
                one.rewrite(&settled.pending.each, settled.pending.new.clone());
                if settled.loses_something() || !settled.fields.is_empty() {
                    one.records.push(settled);
                }
            }
        }
    }
}

impl Device {
    fn record(&mut self, op: Operation, fields: Fields) {
        self.pending.push(mutation(self.mutations, op, fields));
        self.mutations += 1;
    }

    fn rewrite(&mut self, each: &[Rewrite], new: Option<Intent>) {
        let old = std::mem::take(&mut self.pending);
        let rewritten = old.into_iter().zip(each);
        self.pending = rewritten
            .filter_map(|(one, rewrite)| match rewrite {
                Rewrite::Supersede => None,
                Rewrite::Write(intent) => Some(PendingMutation {
                    op: intent.op,
                    fields: intent.fields.clone(),
                    ..one
                }),
            })
            .collect();
        if let Some(Intent { op, fields }) = new {
            self.record(op, fields);
        }
    }
}
