//! The world of the core level: machines over model stores, a reference server, a clock and a network
//! that ends a request only when a step says so.

use super::cover::{Cells, kind_index, state_index};
use super::file::{Desk, Fact, File, Holder, Why, fault};
use super::ledger::{End, Ledger};
use super::plan::Setup;
use super::server::Server;
use super::watch::{Keys, Watch};
use crate::level::{Broken, Played, Trace};
use std::collections::VecDeque;
use syncline_core::{
    Config, ConflictRules, Effect, FaultKind, Input, Lost, Machine, Notice, Now, Policy, Reason,
    RemoteAnswer, RemoteRequest, RequestId, State, StoreWork, SyncOrder,
};
use syncline_protocol::{ClientId, EntityId, Fields};

/// The Unix time at which every world begins.
const BEGIN_MS: i64 = 1_800_000_000_000;
/// Inputs that may follow from one before the world is asked for anything.
const LONGEST_CASCADE: usize = 64;
/// Given-up requests and old answers that are remembered of a process.
const REMEMBERED: usize = 3;

/// What the next store work of a process meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    Fault(FaultKind),
    CrashBefore,
    CrashAfter,
}

/// A request under way, or given up.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) id: RequestId,
    pub(crate) request: RemoteRequest,
    /// Whose token it carries.
    pub(crate) subject: u8,
}

/// A process with an engine in it.
pub(crate) struct Process {
    pub(crate) machine: Machine,
    pub(crate) file: usize,
    client: ClientId,
    holder: Holder,
    watch: Watch,
    pub(crate) alive: bool,
    /// The request under way.
    pub(crate) asked: Option<Asked>,
    /// Requests that were given up; they may arrive all the same.
    pub(crate) ghosts: Vec<Asked>,
    /// Answers that were heard before.
    pub(crate) echoes: Vec<(RequestId, RemoteAnswer)>,
    /// Whom the credentials in use name.
    token: u8,
    /// New credentials are wanted.
    pub(crate) refresh: bool,
    pub(crate) doom: Option<Doom>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now_ms: u64,
    /// What the wall clock of each file's machine is ahead.
    pub(crate) ahead_ms: Vec<i64>,
    pub(crate) files: Vec<File>,
    pub(crate) backups: Vec<Option<File>>,
    /// Whom new credentials of each file name; older ones for somebody else are refused.
    pub(crate) accounts: Vec<u8>,
    pub(crate) processes: Vec<Process>,
    pub(crate) server: Server,
    pub(crate) server_backup: Option<(Server, Vec<u32>)>,
    pub(crate) ledger: Ledger,
    pub(crate) rules: ConflictRules,
    pub(crate) fresh: u64,
    pub(crate) requests: u64,
    keys: Keys,
    cells: Cells,
    pub(crate) trace: Trace,
    pub(crate) played: Played,
    broken: VecDeque<Broken>,
    /// Everything that happens is printed.
    pub(crate) verbose: bool,
}

/// An entity by number.
pub(crate) fn entity(number: u8) -> EntityId {
    EntityId::from(i64::from(number))
}

fn rules(policy: u8) -> ConflictRules {
    let policy = match policy {
        0..3 => Policy::FieldMerge,
        3 => Policy::ServerWins,
        4 => Policy::ClientWins,
        _ => Policy::Manual,
    };
    ConflictRules {
        policy,
        ..ConflictRules::default()
    }
}

fn config(setup: &Setup, file: usize) -> Config {
    let order = SyncOrder::ALL.get(usize::from(setup.orders >> (2 * file)) & 3);
    let mut config = Config::default();
    config.order = order.copied().unwrap_or_default();
    config.push_mutations = usize::from(setup.push).max(1);
    config.page_changes = usize::from(setup.page).max(1);
    config.max_attempts = u32::from(setup.attempts).max(1);
    // Half of the worlds have little to spend on retries.
    if setup.dice.is_multiple_of(2) {
        config.retry_budget = 30;
    }
    config
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let count = usize::from(setup.files).clamp(1, 3);
        let files: Vec<File> = (0..count)
            .map(|at| File::new(ClientId::new(format!("f{at}"))))
            .collect();
        let mut world = Self {
            setup,
            now_ms: 0,
            ahead_ms: vec![0; count],
            backups: vec![None; count],
            accounts: vec![1; count],
            files,
            processes: Vec::new(),
            server: Server::default(),
            server_backup: None,
            ledger: Ledger::default(),
            rules: rules(setup.policy),
            fresh: 0,
            requests: 0,
            keys: Keys::new(),
            cells: Cells::default(),
            trace: Trace::default(),
            played: Played::default(),
            broken: VecDeque::new(),
            verbose: false,
        };
        for file in (0..count).chain(setup.second.then_some(0)) {
            let process = world.process(file);
            world.processes.push(process);
        }
        world
    }

    fn process(&mut self, file: usize) -> Process {
        self.fresh += 1;
        let config = config(&self.setup, file);
        let client = self.files.get(file).map(|file| file.client.clone());
        let client = client.unwrap_or_else(|| ClientId::new(""));
        Process {
            watch: Watch::new(&config),
            machine: Machine::new(config, client.clone(), self.setup.dice ^ self.fresh),
            file,
            client,
            holder: Holder {
                name: u32::try_from(self.fresh).unwrap_or(u32::MAX),
                token: 0,
            },
            alive: true,
            asked: None,
            ghosts: Vec::new(),
            echoes: Vec::new(),
            token: self.accounts.get(file).copied().unwrap_or(0),
            refresh: false,
            doom: None,
        }
    }

    /// For a reader of standard error.
    pub(crate) fn say(&self, what: impl Fn() -> String) {
        if self.verbose {
            eprintln!("{:>9} {}", self.now_ms, what());
        }
    }

    /// The time as a process sees it.
    pub(crate) fn now(&self, file: usize) -> Now {
        let ahead = self.ahead_ms.get(file).copied().unwrap_or(0);
        Now {
            monotonic_ms: self.now_ms,
            unix_ms: BEGIN_MS
                .saturating_add_unsigned(self.now_ms)
                .saturating_add(ahead),
        }
    }

    /// Starts a process that has ended.
    pub(crate) fn start(&mut self, at: usize) -> Result<(), Broken> {
        let Some(process) = self.processes.get(at).filter(|process| !process.alive) else {
            return Ok(());
        };
        let (file, ghosts) = (process.file, process.ghosts.clone());
        let mut process = self.process(file);
        process.ghosts = ghosts;
        if let Some(slot) = self.processes.get_mut(at) {
            *slot = process;
        }
        self.feed(at, Input::Trigger(Reason::AppStart))
    }

    /// The newest credentials are in use from here on.
    pub(crate) fn renew_token(&mut self, at: usize) {
        if let Some(process) = self.processes.get_mut(at)
            && let Some(account) = self.accounts.get(process.file)
        {
            process.token = *account;
        }
    }

    /// A person gives an entry up.
    pub(crate) fn discard(&mut self, at: usize, seq: i64) {
        let now = self.now(at);
        let mut desk = Desk {
            now,
            rules: &self.rules,
            ttl_ms: 0,
            fresh: &mut self.fresh,
            broken: &mut self.broken,
        };
        if let Some(file) = self.files.get_mut(at) {
            file.discard(seq, &mut Vec::new(), &mut desk);
        }
    }

    /// Two files have used the same identity: what one sent under a key says nothing of the other.
    pub(crate) fn forget_keys(&mut self, client: &ClientId) {
        self.keys.retain(|(of, _), _| of != client);
    }

    /// A process is gone; what it had asked for may arrive all the same.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(process) = self.processes.get_mut(at) {
            process.alive = false;
            give_up(process);
        }
    }

    /// Feeds one input and does all that follows, up to what only the network can do.
    pub(crate) fn feed(&mut self, at: usize, input: Input) -> Result<(), Broken> {
        let mut inputs = VecDeque::from([input]);
        let mut taken = 0;
        while let Some(input) = inputs.pop_front() {
            taken += 1;
            if taken > LONGEST_CASCADE {
                let detail = format!("{taken} inputs in a row and no end");
                return Err(Broken::new("F:L4", detail));
            }
            for effect in self.handle(at, input)? {
                match self.effect(at, effect)? {
                    Done::Answer(answer) => inputs.push_back(answer),
                    Done::Nothing => {}
                    Done::Died => return self.settle_broken(),
                }
            }
        }
        self.rest(at);
        self.settle_broken()
    }

    fn settle_broken(&mut self) -> Result<(), Broken> {
        match self.broken.pop_front() {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }

    fn handle(&mut self, at: usize, input: Input) -> Result<Vec<Effect>, Broken> {
        let Some(file) = self.processes.get(at).map(|process| process.file) else {
            return Ok(Vec::new());
        };
        let now = self.now(file);
        self.say(|| format!("  {at} hears {input:?}"));
        let Some(process) = self.processes.get_mut(at).filter(|process| process.alive) else {
            return Ok(Vec::new());
        };
        let awaited = match &input {
            Input::Remote(id, _) => process.asked.as_ref().is_some_and(|asked| asked.id == *id),
            Input::Tick => {
                let due = process.machine.next_wakeup();
                due.is_some_and(|(due, _)| due <= now.monotonic_ms)
            }
            _ => true,
        };
        let asked = process
            .asked
            .as_ref()
            .map(|asked| (asked.id, &asked.request));
        let before = Watch::before(&process.machine, &input, asked, now);
        let kind = kind_index(&input, awaited && !before.is_inert());
        let state = state_index(process.machine.state());
        self.cells.visit(state, kind);
        let what = [state, kind].map(|one| u8::try_from(one).unwrap_or(u8::MAX));
        self.trace.add(&what);
        if !before.is_inert() && matches!(input, Input::Remote(..)) {
            process.asked = None;
        }
        let effects = process.machine.handle(input, now);
        self.played.steps += 1;
        process
            .watch
            .after(&before, &process.machine, &effects, now, &mut self.keys)?;
        self.trace.add(&now.monotonic_ms.to_le_bytes());
        Ok(effects)
    }

    fn effect(&mut self, at: usize, effect: Effect) -> Result<Done, Broken> {
        self.say(|| format!("  {at} wants {effect:?}"));
        match effect {
            Effect::Store(work) => {
                self.trace.add(b"store");
                self.store(at, &work)
            }
            Effect::Remote(id, request) => {
                self.trace.add(b"remote");
                self.requests += 1;
                if let Some(process) = self.processes.get_mut(at) {
                    give_up(process);
                    let subject = process.token;
                    process.asked = Some(Asked {
                        id,
                        request,
                        subject,
                    });
                }
                Ok(Done::Nothing)
            }
            Effect::RefreshCredentials => {
                if let Some(process) = self.processes.get_mut(at) {
                    process.refresh = true;
                }
                Ok(Done::Nothing)
            }
            Effect::Notice(notice) => {
                self.trace.add(b"notice");
                if let Notice::ConflictOpened { .. } = notice {
                    self.played.count("conflicts for a person", 1);
                }
                Ok(Done::Nothing)
            }
        }
    }

    fn store(&mut self, at: usize, work: &StoreWork) -> Result<Done, Broken> {
        let Some(process) = self.processes.get(at) else {
            return Ok(Done::Nothing);
        };
        let (at_file, doom, client) = (process.file, process.doom, process.client.clone());
        let now = self.now(at_file);
        let (Some(process), Some(file)) = (self.processes.get_mut(at), self.files.get_mut(at_file))
        else {
            return Ok(Done::Nothing);
        };
        process.doom = None;
        // Another process has given the file a new identity: it is opened anew.
        let reopened = file.client != client;
        if doom == Some(Doom::CrashBefore) || reopened {
            if !reopened {
                self.played.fault("crash before store work");
            }
            self.kill(at);
            return Ok(Done::Died);
        }
        if let Some(Doom::Fault(kind)) = doom {
            self.played.fault(fault_name(kind));
            return Ok(Done::Answer(Input::Store(fault(kind))));
        }
        let mut desk = Desk {
            now,
            rules: &self.rules,
            ttl_ms: process.machine.config().lease_ttl_ms,
            fresh: &mut self.fresh,
            broken: &mut self.broken,
        };
        let answer = file.perform(&mut process.holder, work, &mut desk);
        process.client = file.client.clone();
        self.tell(at_file)?;
        if doom == Some(Doom::CrashAfter) {
            self.played.fault("crash after store work");
            self.kill(at);
            return Ok(Done::Died);
        }
        Ok(Done::Answer(Input::Store(answer)))
    }

    /// Passes on to the ledger what a file has to say.
    pub(crate) fn tell(&mut self, at: usize) -> Result<(), Broken> {
        let Some(file) = self.files.get_mut(at) else {
            return Ok(());
        };
        for fact in std::mem::take(&mut file.facts) {
            match fact {
                Fact::Applied(mutation) => self.ledger.end(&mutation, End::Applied)?,
                Fact::Superseded(mutation, why) => {
                    let end = match why {
                        Why::Coalesced => End::Coalesced,
                        Why::Resolved => End::Resolved,
                        Why::Discarded => End::Discarded,
                    };
                    self.ledger.end(&mutation, end)?;
                }
                Fact::Record(entity, lost) => {
                    self.played.count("conflicts decided", 1);
                    match lost {
                        Lost::Nothing => {}
                        Lost::Values(fields) => self.lost(at, &entity, Some(&fields)),
                        Lost::Deletion => self.lost(at, &entity, None),
                    }
                }
            }
        }
        Ok(())
    }

    fn lost(&mut self, file: usize, entity: &EntityId, fields: Option<&Fields>) {
        self.ledger.gave_way(file, entity, fields);
    }

    /// What a driver does once the machine is at rest: requests are over, the lease is let go.
    fn rest(&mut self, at: usize) {
        let Some(process) = self.processes.get_mut(at) else {
            return;
        };
        let state = process.machine.state();
        let busy = matches!(state, State::Connecting | State::Pushing | State::Pulling);
        if !busy {
            give_up(process);
        }
        if state != State::BlockedAuth {
            process.refresh = false;
        }
        if matches!(state, State::Paused | State::Stopped) {
            let holder = process.holder;
            if let Some(file) = self.files.get_mut(process.file) {
                file.release(&holder);
            }
        }
    }

    /// What has to hold after every step.
    pub(crate) fn check(&mut self) -> Result<(), Broken> {
        for process in self.processes.iter().filter(|process| process.alive) {
            let state = process.machine.state();
            let busy = matches!(state, State::Connecting | State::Pushing | State::Pulling);
            if busy && process.asked.is_none() {
                let detail = format!("{state}, and nothing is under way");
                return Err(Broken::new("F:L1", detail));
            }
        }
        for (at, file) in self.files.iter().enumerate() {
            self.ledger
                .check_outbox(at, file.outbox.values().map(|entry| &entry.mutation))?;
            check_cursor(file, &self.server)?;
        }
        Ok(())
    }

    /// The end of the run: what was counted.
    pub(crate) fn finish(mut self, broken: Option<Broken>) -> Played {
        self.cells.tell(&mut self.played);
        for file in &self.files {
            self.trace
                .add(format!("{:?}{:?}", file.rows, file.outbox).as_bytes());
        }
        self.trace.add(format!("{:?}", self.server.rows).as_bytes());
        self.played.trace = self.trace.hash();
        self.played.virtual_ms = self.now_ms;
        self.played.count("requests", self.requests);
        self.played.broken = broken;
        self.played
    }
}

enum Done {
    Answer(Input),
    Nothing,
    Died,
}

fn give_up(process: &mut Process) {
    if let Some(asked) = process.asked.take() {
        if process.ghosts.len() >= REMEMBERED {
            process.ghosts.remove(0);
        }
        process.ghosts.push(asked);
    }
}

/// Remembers an answer, to be heard once more.
pub(crate) fn remember(process: &mut Process, id: RequestId, answer: &RemoteAnswer) {
    if process.echoes.len() >= REMEMBERED {
        process.echoes.remove(0);
    }
    process.echoes.push((id, answer.clone()));
}

/// F:S8: every change up to the cursor is in the row, in the base, or on record as waiting.
fn check_cursor(file: &File, server: &Server) -> Result<(), Broken> {
    let Some(cursor) = file.cursor.as_ref().filter(|cursor| !cursor.in_snapshot) else {
        return Ok(());
    };
    if file.epoch.as_ref() != Some(&server.epoch_name()) {
        return Ok(());
    }
    for (id, row) in server
        .rows
        .iter()
        .filter(|(_, row)| row.position <= cursor.position)
    {
        let dirty = file.of_entity(id).next().is_some();
        let waits = file.inbox.contains_key(id)
            || file.conflicts.contains_key(id)
            || file.known.contains_key(id)
            || file.held.contains(id);
        let local = match dirty {
            true => file.base.get(id).cloned().flatten(),
            false => file.rows.get(id).cloned(),
        };
        // A snapshot says nothing of a deletion; whoever writes there is told.
        let untold = dirty && row.fields.is_none();
        if !waits && !untold && local != row.fields {
            let detail = format!(
                "at {} the file has {local:?} of {id} (dirty: {dirty}), the server {row:?}",
                cursor.position
            );
            return Err(Broken::new("F:S8", detail));
        }
    }
    Ok(())
}

fn fault_name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Fenced => "store fenced",
        FaultKind::Busy => "store busy",
        FaultKind::Full => "store full",
        FaultKind::Unavailable => "store unavailable",
        FaultKind::Corrupt => "store corrupt",
        FaultKind::OutOfOrder => "store out of order",
        FaultKind::BadPage => "store bad page",
        _ => "store other",
    }
}
