//! Taking a step: what the app, the host, a person and the rest of the world do.

use super::file::{File, Write};
use super::plan::Step;
use super::world::{Doom, World, entity};
use crate::level::Broken;
use syncline_core::{Allowance, Constraints, FaultKind, Input, Live, Reason, State};
use syncline_protocol::{EntityId, Fields, Operation, Value};

const FIELDS: [&str; 3] = ["a", "b", "c"];

const REASONS: [Reason; 11] = [
    Reason::AppStart,
    Reason::Foreground,
    Reason::NetworkAvailable,
    Reason::AuthRefreshed,
    Reason::UserAsked,
    Reason::MutationEnqueued,
    Reason::UrgentMutation,
    Reason::BackgroundMutation,
    Reason::RemoteHint,
    Reason::Timer,
    Reason::Remediated,
];

const FAULTS: [FaultKind; 8] = [
    FaultKind::Fenced,
    FaultKind::Busy,
    FaultKind::Full,
    FaultKind::Unavailable,
    FaultKind::Corrupt,
    FaultKind::OutOfOrder,
    FaultKind::BadPage,
    FaultKind::Other,
];

impl World {
    /// Takes one step.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), Broken> {
        match step {
            Step::Write {
                process,
                entity,
                pick,
            } => {
                let (at, id) = (self.at(process), self.entity(entity));
                self.write(at, &id, pick, None)
            }
            Step::Group { process, entity } => {
                self.fresh += 1;
                let (at, group) = (self.at(process), format!("g{}", self.fresh));
                for entity in [entity, entity.wrapping_add(1)] {
                    let id = self.entity(entity);
                    self.write(at, &id, 0b0011_1100, Some(&group))?;
                }
                Ok(())
            }
            Step::Foreign { entity, delete } => {
                let id = self.entity(entity);
                self.foreign(&id, delete);
                Ok(())
            }
            Step::Deliver(process, fate) => self.deliver(self.at(process), fate),
            Step::Ghost(process) => self.ghost(self.at(process)),
            Step::Echo(process) => self.echo(self.at(process)),
            Step::Pass(ms) => self.pass(u64::from(ms)),
            Step::Wake(process) => self.wake(self.at(process)),
            Step::Tick(process) => self.feed(self.at(process), Input::Tick),
            Step::Trigger(process, reason) => {
                let reason = REASONS.get(usize::from(reason)).copied();
                let reason = reason.unwrap_or(Reason::UserAsked);
                self.feed(self.at(process), Input::Trigger(reason))
            }
            Step::NetworkLost(_)
            | Step::Constraints(..)
            | Step::Bounded(..)
            | Step::Pause(_)
            | Step::Resume(_)
            | Step::Live(..)
            | Step::Credentials(..)
            | Step::Account(..) => self.host(step),
            Step::StoreFault(..)
            | Step::Crash(..)
            | Step::Stop(_)
            | Step::Start(_)
            | Step::Clock(..)
            | Step::File(..) => self.machine_room(step),
            Step::Server(_) | Step::Epoch | Step::Purge | Step::Poison(..) | Step::Busy(..) => {
                self.server_room(step);
                Ok(())
            }
            Step::Person(process, pick) => self.person(self.at(process), pick),
        }
    }

    fn at(&self, process: u8) -> usize {
        usize::from(process) % self.processes.len().max(1)
    }

    fn file_of(&self, process: u8) -> usize {
        let process = self.processes.get(self.at(process));
        process.map_or(0, |process| process.file)
    }

    fn entity(&self, number: u8) -> EntityId {
        entity(number % self.setup.entities.max(1))
    }

    /// The app writes through a process, which hears of it if it lives.
    fn write(
        &mut self,
        at: usize,
        id: &EntityId,
        pick: u8,
        group: Option<&str>,
    ) -> Result<(), Broken> {
        let Some(at_file) = self.processes.get(at).map(|process| process.file) else {
            return Ok(());
        };
        let Some(file) = self.files.get(at_file) else {
            return Ok(());
        };
        let exists = file.rows.contains_key(id);
        let op = match (exists, pick % 5) {
            (false, _) => Operation::Create,
            (true, 0) if group.is_none() => Operation::Delete,
            (true, _) => Operation::Update,
        };
        let mut fields = Fields::new();
        for (index, name) in FIELDS.iter().enumerate() {
            let written = op == Operation::Create || (pick >> (3 + index)) & 1 == 1;
            if op != Operation::Delete && written {
                fields.insert(*name, Value::Integer(self.ledger.value(id, name)));
            }
        }
        if op == Operation::Update && fields.is_empty() {
            return Ok(());
        }
        let (lane, reason) = match pick / 16 {
            0 => (1, Reason::UrgentMutation),
            1 => (-1, Reason::BackgroundMutation),
            _ => (0, Reason::MutationEnqueued),
        };
        let mutation = self.ledger.record(at_file, id, op, &fields);
        let write = Write {
            mutation,
            entity: id.clone(),
            op,
            fields,
            lane,
            group: group.map(str::to_owned),
        };
        if let Some(file) = self.files.get_mut(at_file) {
            file.write(write);
        }
        self.played.count("mutations", 1);
        self.feed(at, Input::Trigger(reason))
    }

    fn foreign(&mut self, id: &EntityId, delete: bool) {
        let alive = self
            .server
            .rows
            .get(id)
            .is_some_and(|row| row.fields.is_some());
        let fields = match (delete, alive) {
            (true, false) => return,
            (true, true) => None,
            (false, _) => {
                let mut fields = Fields::new();
                for name in FIELDS {
                    fields.insert(name, Value::Integer(self.ledger.value(id, name)));
                }
                Some(fields)
            }
        };
        self.ledger.foreign(id, fields.as_ref());
        self.server.write(id, fields);
    }

    /// Time passes, and whoever wants to be woken is.
    pub(crate) fn pass(&mut self, ms: u64) -> Result<(), Broken> {
        self.now_ms = self.now_ms.saturating_add(ms);
        for at in 0..self.processes.len() {
            // A lease to be renewed, then what was waited for.
            for _ in 0..2 {
                let process = self.processes.get(at).filter(|process| process.alive);
                let due = process.and_then(|process| process.machine.next_wakeup());
                if due.is_some_and(|(due, _)| due <= self.now_ms) {
                    self.feed(at, Input::Tick)?;
                }
            }
        }
        Ok(())
    }

    fn wake(&mut self, at: usize) -> Result<(), Broken> {
        let process = self.processes.get(at).filter(|process| process.alive);
        let Some((due, _)) = process.and_then(|process| process.machine.next_wakeup()) else {
            return Ok(());
        };
        self.pass(due.saturating_sub(self.now_ms))
    }

    fn host(&mut self, step: Step) -> Result<(), Broken> {
        match step {
            Step::NetworkLost(process) => {
                self.played.fault("network lost");
                self.feed(self.at(process), Input::NetworkLost)
            }
            Step::Constraints(process, metered) => {
                let constraints = Constraints {
                    metered,
                    low_power: false,
                };
                self.feed(self.at(process), Input::Constraints(constraints))
            }
            Step::Bounded(process, requests) => {
                let allowance = Allowance {
                    requests: u64::from(requests),
                    bytes: u64::from(requests) * 400,
                };
                let pass = Input::Pass((requests > 0).then_some(allowance));
                self.feed(self.at(process), pass)
            }
            Step::Pause(process) => self.feed(self.at(process), Input::Pause),
            Step::Resume(process) => self.feed(self.at(process), Input::Resume),
            Step::Live(process, heard) => {
                let live = if heard { Live::Heard } else { Live::Lost };
                self.feed(self.at(process), Input::Live(live))
            }
            Step::Credentials(process, new) => {
                let at = self.at(process);
                self.credentials(at, new)
            }
            Step::Account(process, own) => {
                let file = self.file_of(process);
                if let Some(account) = self.accounts.get_mut(file) {
                    *account = if own { 1 } else { 2 };
                }
                self.played.fault("another account");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// New credentials, or the news that there are none. Nobody brings any unasked, except where the
    /// machine waits for a person anyway.
    pub(crate) fn credentials(&mut self, at: usize, new: bool) -> Result<(), Broken> {
        let Some(process) = self.processes.get_mut(at) else {
            return Ok(());
        };
        process.refresh = false;
        let wanted = process.machine.state() == State::BlockedAuth;
        if new {
            if wanted {
                self.renew_token(at);
            }
            return self.feed(at, Input::Credentials(Ok(())));
        }
        self.played.fault("no credentials");
        self.feed(at, Input::Credentials(Err("none".to_owned())))
    }

    fn machine_room(&mut self, step: Step) -> Result<(), Broken> {
        match step {
            Step::StoreFault(process, which) => {
                let kind = FAULTS.get(usize::from(which) % FAULTS.len());
                self.doom(self.at(process), kind.map(|kind| Doom::Fault(*kind)));
            }
            Step::Crash(process, before) => {
                let doom = if before {
                    Doom::CrashBefore
                } else {
                    Doom::CrashAfter
                };
                self.doom(self.at(process), Some(doom));
            }
            Step::Stop(process) => {
                let at = self.at(process);
                if self.processes.get(at).is_none_or(|process| !process.alive) {
                    return Ok(());
                }
                self.feed(at, Input::Stop)?;
                self.after_the_end(at)?;
                let done = self
                    .processes
                    .get(at)
                    .map(|process| process.machine.state());
                if done.is_some_and(|state| state != State::Stopped) {
                    return Err(Broken::new("F:L9", format!("stopped, and is {done:?}")));
                }
                self.kill(at);
            }
            Step::Start(process) => return self.start(self.at(process)),
            Step::Clock(process, seconds) => {
                let file = self.file_of(process);
                if let Some(ahead) = self.ahead_ms.get_mut(file) {
                    *ahead = ahead.saturating_add(i64::from(seconds) * 1_000);
                }
                self.played.fault("clock jump");
            }
            Step::File(process, restore) => self.copy(self.file_of(process), restore),
            _ => {}
        }
        Ok(())
    }

    /// Nothing comes of whatever a machine hears after it was stopped.
    fn after_the_end(&mut self, at: usize) -> Result<(), Broken> {
        let on = Constraints {
            metered: true,
            low_power: false,
        };
        let more = [
            Input::NetworkLost,
            Input::Constraints(on),
            Input::Constraints(Constraints::default()),
            Input::Pause,
            Input::Resume,
            Input::Pass(Some(Allowance::default())),
            Input::Pass(None),
            Input::Live(Live::Heard),
            Input::Live(Live::Lost),
            Input::Tick,
            Input::Credentials(Ok(())),
            Input::Credentials(Err("none".to_owned())),
            Input::Stop,
        ];
        for input in REASONS.map(Input::Trigger).into_iter().chain(more) {
            self.feed(at, input)?;
        }
        self.echo(at)
    }

    fn doom(&mut self, at: usize, doom: Option<Doom>) {
        if let Some(process) = self.processes.get_mut(at).filter(|process| process.alive) {
            process.doom = doom;
        }
    }

    fn copy(&mut self, at: usize, restore: bool) {
        let (Some(file), Some(backup)) = (self.files.get_mut(at), self.backups.get_mut(at)) else {
            return;
        };
        if !restore && file.account.is_some() {
            *backup = Some(file.clone());
            return;
        }
        let Some(backup) = backup.take().filter(|_| restore) else {
            return;
        };
        *file = File {
            lease: file.lease,
            ..backup
        };
        let client = file.client.clone();
        self.forget_keys(&client);
        self.ledger.file_restored(at);
        self.played.fault("file restored");
        let of: Vec<usize> = (0..self.processes.len())
            .filter(|one| self.processes.get(*one).is_some_and(|one| one.file == at))
            .collect();
        for process in of {
            self.kill(process);
        }
    }

    fn is_anyone_starting(&self) -> bool {
        self.files
            .iter()
            .any(|file| file.epoch.is_some() && file.cursor.is_none())
    }

    fn server_room(&mut self, step: Step) {
        match step {
            Step::Server(false) => {
                self.server_backup = Some((self.server.clone(), self.ledger.effects()));
            }
            // A page does not say which history it is of: a first pull cannot tell.
            Step::Server(true) | Step::Epoch if self.is_anyone_starting() => {}
            Step::Server(true) => {
                if let Some((backup, effects)) = self.server_backup.take() {
                    let had = self.server.alive();
                    self.server.restore(backup);
                    let has = self.server.alive();
                    self.ledger.server_restored(&effects, had.difference(&has));
                    self.played.fault("server restored");
                }
            }
            Step::Epoch => {
                let same = self.server.clone();
                self.server.restore(same);
                self.played.fault("epoch changed");
            }
            Step::Purge => {
                self.server.purge();
                self.played.fault("tombstones purged");
            }
            Step::Poison(number, on) => {
                let id = self.entity(number);
                if on {
                    self.server.poison.insert(id);
                    self.played.fault("poison");
                } else {
                    self.server.poison.remove(&id);
                }
            }
            Step::Busy(number, on) => {
                let id = self.entity(number);
                if on {
                    self.server.busy.insert(id);
                    self.played.fault("entity busy");
                } else {
                    self.server.busy.remove(&id);
                }
            }
            _ => {}
        }
    }

    /// A person looks after the first thing that waits for one, or gives up something that does not.
    fn person(&mut self, at: usize, pick: u8) -> Result<(), Broken> {
        let Some(at_file) = self.processes.get(at).map(|process| process.file) else {
            return Ok(());
        };
        let new = self.ledger.next_id();
        let Some(file) = self.files.get_mut(at_file) else {
            return Ok(());
        };
        let before = file.last_seq;
        match pick % 4 {
            0 => {
                let entity = file.conflicts.keys().next().cloned();
                if let Some(entity) = entity {
                    file.resolve_by_hand(&entity, pick > 127, new);
                }
            }
            1 => {
                let given_up = file.outbox.values().find(|entry| entry.is_given_up());
                if let Some(seq) = given_up.map(|entry| entry.seq) {
                    file.retry(seq);
                }
            }
            2 => {
                let waits = file.outbox.values().nth(usize::from(pick / 64));
                if let Some(seq) = waits.map(|entry| entry.seq) {
                    self.discard(at_file, seq);
                }
            }
            _ => file.confirm_sweep(),
        }
        self.note_recorded(at_file, before);
        self.tell(at_file)?;
        self.feed(at, Input::Trigger(Reason::Remediated))
    }

    /// What the store recorded itself is the ledger's as well.
    pub(crate) fn note_recorded(&mut self, at: usize, before: i64) {
        let Some(file) = self.files.get(at) else {
            return;
        };
        for entry in file.outbox.values().filter(|entry| entry.seq > before) {
            self.ledger
                .record(at, &entry.entity, entry.op, &entry.fields);
        }
    }
}
