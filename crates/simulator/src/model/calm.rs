//! After the chaos: faults stop, and everything that is owed has to come within bounds of virtual time.
//!
//! First without a person and with what poisons a push still there: everything that depends on neither
//! goes through. Then everything is mended, persons do their part, and all has to agree.

use super::file::File;
use super::plan::Fate;
use super::server::Server;
use super::world::World;
use crate::level::Broken;
use syncline_core::{Constraints, Input, Live, Reason, State};
use syncline_protocol::{EntityId, Fields};

/// Within so long, in milliseconds: what a server asked for, a lease, and waits of five minutes.
const LONGEST_MS: u64 = 12 * 3_600_000;
/// Requests between two moments at which somebody waits (F:L4).
const MOST_REQUESTS: u64 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// What is poisoned or waits for a person stays.
    Alone,
    /// All of it is mended.
    Mended,
}

impl World {
    /// Plays the calm phase and checks what holds at its end.
    pub(crate) fn calm(&mut self) -> Result<(), Broken> {
        self.heal()?;
        self.settle_down(Stage::Alone)?;
        self.server.poison.clear();
        self.settle_down(Stage::Mended)?;
        for at in 0..self.files.len() {
            self.agree(at)?;
        }
        self.check()?;
        match (0..self.files.len()).all(|at| self.pushes(at)) {
            true => self.ledger.check_nothing_lost(),
            false => Ok(()),
        }
    }

    fn heal(&mut self) -> Result<(), Broken> {
        self.server.busy.clear();
        for (file, account) in self.files.iter().zip(&mut self.accounts) {
            let own = file
                .account
                .as_ref()
                .map(|account| account.subject.as_str());
            *account = if own == Some("s2") { 2 } else { 1 };
        }
        for at in 0..self.processes.len() {
            if let Some(process) = self.processes.get_mut(at) {
                process.doom = None;
            }
            self.start(at)?;
            self.feed(at, Input::Pass(None))?;
            self.feed(at, Input::Resume)?;
            self.feed(at, Input::Constraints(Constraints::default()))?;
            self.feed(at, Input::Live(Live::Lost))?;
            self.feed(at, Input::Trigger(Reason::NetworkAvailable))?;
        }
        Ok(())
    }

    fn settle_down(&mut self, stage: Stage) -> Result<(), Broken> {
        let until = self.now_ms + LONGEST_MS;
        let mut asked = self.requests;
        loop {
            let mut acted = false;
            for at in 0..self.processes.len() {
                acted |= self.go_on(at)?;
            }
            if self.requests - asked > MOST_REQUESTS {
                let detail = format!("{MOST_REQUESTS} requests and no rest");
                return Err(Broken::new("F:L4", detail));
            }
            self.check()?;
            if acted {
                continue;
            }
            if stage == Stage::Mended && self.persons()? {
                continue;
            }
            let left: Vec<String> = (0..self.files.len())
                .filter_map(|at| self.owed(at, stage))
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            let due = self.processes.iter().filter(|process| process.alive);
            let due = due
                .filter_map(|process| Some(process.machine.next_wakeup()?.0))
                .min();
            match due {
                Some(due) if due <= until => {
                    asked = self.requests;
                    self.pass(due.saturating_sub(self.now_ms).max(1))?;
                }
                _ => {
                    let detail = format!("in calm ({stage:?}) still: {}", left.join("; "));
                    return Err(Broken::new("F:L1", detail));
                }
            }
        }
    }

    /// The network and the host do what a process waits for.
    fn go_on(&mut self, at: usize) -> Result<bool, Broken> {
        let Some(process) = self.processes.get(at) else {
            return Ok(false);
        };
        if !process.alive {
            self.start(at)?;
            return Ok(true);
        }
        if process.refresh {
            self.credentials(at, true)?;
            return Ok(true);
        }
        if process.asked.is_some() {
            self.deliver(at, Fate::Answered)?;
            return Ok(true);
        }
        if process.machine.state() == State::BlockedAuth {
            self.renew_token(at);
            self.feed(at, Input::Trigger(Reason::AuthRefreshed))?;
            return Ok(true);
        }
        Ok(false)
    }

    fn order(&self, at: usize) -> u8 {
        (self.setup.orders >> (2 * at)) & 3
    }

    /// Whether a file's local writes reach the server, everything being as it should.
    fn pushes(&self, at: usize) -> bool {
        self.order(at) < 2
    }

    fn pulls(&self, at: usize) -> bool {
        self.order(at) != 3
    }

    /// What a file still owes, if anything.
    fn owed(&self, at: usize, stage: Stage) -> Option<String> {
        let file = self.files.get(at)?;
        let waits = |id: &EntityId| {
            stage == Stage::Alone
                && (self.server.poison.contains(id)
                    || file.conflicts.contains_key(id)
                    || file.held.contains(id)
                    || file
                        .of_entity(id)
                        .any(|entry| entry.is_given_up() || entry.group.is_some()))
        };
        if self.pushes(at)
            && let Some(entry) = file.outbox.values().find(|entry| !waits(&entry.entity))
        {
            return Some(format!("file {at} has to push {entry:?}"));
        }
        if self.pushes(at) && self.pulls(at) && stage == Stage::Mended {
            let left = file.inbox.len() + file.conflicts.len() + file.held.len();
            if left > 0 {
                return Some(format!("file {at} has {left} things waiting"));
            }
        }
        let here = format!("{}:", self.server.epoch_name());
        let head = file.cursor.as_ref().is_some_and(|cursor| {
            let newest = cursor.position == self.server.head && !cursor.in_snapshot;
            newest && cursor.text.starts_with(&here)
        });
        (self.pulls(at) && !head).then(|| format!("file {at} has to pull"))
    }

    /// Persons decide what waits for them: failed mutations are given up, dead ones sent again.
    fn persons(&mut self) -> Result<bool, Broken> {
        let mut acted = false;
        for at in 0..self.files.len() {
            let new = self.ledger.next_id();
            let Some(file) = self.files.get_mut(at) else {
                continue;
            };
            let (before, mut act) = (file.last_seq, false);
            for entity in file.conflicts.keys().cloned().collect::<Vec<_>>() {
                if !act {
                    let mine = self.fresh.is_multiple_of(2);
                    file.resolve_by_hand(&entity, mine, new.clone());
                    act = !file.conflicts.contains_key(&entity);
                }
            }
            let given_up: Vec<(i64, bool)> = (file.outbox.values())
                .filter(|one| one.is_given_up())
                .map(|one| (one.seq, one.frozen.is_some()))
                .collect();
            if !act && given_up.is_empty() && !file.held.is_empty() {
                let held = file.held.len();
                file.confirm_sweep();
                act = file.held.len() < held;
            }
            for (seq, sent) in given_up {
                // Of what is asked about already, nothing is left to do.
                act = act || self.give_up_or_retry(at, seq, sent);
            }
            self.note_recorded(at, before);
            self.tell(at)?;
            if act {
                acted = true;
                for process in 0..self.processes.len() {
                    if self
                        .processes
                        .get(process)
                        .is_some_and(|one| one.file == at)
                    {
                        self.feed(process, Input::Trigger(Reason::Remediated))?;
                    }
                }
            }
        }
        Ok(acted)
    }

    /// Whether that changes anything.
    fn give_up_or_retry(&mut self, at: usize, seq: i64, sent: bool) -> bool {
        let Some(file) = self.files.get_mut(at) else {
            return false;
        };
        let outbox = file.outbox.clone();
        match sent {
            true => file.retry(seq),
            false => self.discard(at, seq),
        }
        (self.files.get(at)).is_some_and(|file| file.outbox != outbox)
    }

    /// F:S11: rows of a file that is done are the server's.
    fn agree(&self, at: usize) -> Result<(), Broken> {
        let Some(file) = self.files.get(at).filter(|_| self.pulls(at)) else {
            return Ok(());
        };
        match difference(file, &self.server) {
            None => Ok(()),
            Some((id, here, there)) => {
                let detail = format!("file {at} has {here:?} of {id}, the server {there:?}");
                Err(Broken::new("F:S11", detail))
            }
        }
    }
}

type Different = (EntityId, Option<Fields>, Option<Fields>);

fn difference(file: &File, server: &Server) -> Option<Different> {
    let ids = file.rows.keys().chain(server.rows.keys());
    ids.filter(|id| file.of_entity(id).next().is_none())
        .find_map(|id| {
            let here = file.rows.get(id).cloned();
            let there = server.rows.get(id).and_then(|row| row.fields.clone());
            (here != there).then(|| (id.clone(), here, there))
        })
}
