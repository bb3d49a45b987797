//! The world of a scenario: devices, one server, messages under way, and the time. One thread; what
//! happens next is decided by the time and, at one moment, by the order in which it was put on the list.

use super::bounds::Bounds;
use super::check;
use super::device::{Device, Died, Process, holder};
use super::fault::{NetFault, Plan, TIME_OUT_MS, plan};
use super::fence;
use super::files::{Files, Pool};
use super::histories;
use super::http;
use super::noted::Noted;
use super::order::Order;
use super::poison::Stage;
use super::scenario::{Setup, StorageKind};
use super::schema;
use super::secrets::Secrets;
use super::server::{self, Backup, Server};
use super::words::{input_kind, short};
use crate::level::{Broken, Played};
use crate::reference::history::History;
use crate::reference::ledger::Ledger;
use crate::reference::server::Server as Model;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use syncline::{Checkpoint, Input, Outgoing, Reason, RequestId, State, SyncOrder};
use syncline_core::{RemoteAnswer, RemoteError, RemoteRequest};
use syncline_protocol::Access;
use syncline_server::Response;

/// When the world begins, in milliseconds on its own clock.
pub(crate) const BEGINNING_MS: u64 = 1_000;

/// The true Unix time.
pub(crate) fn unix_ms(world_ms: u64) -> i64 {
    1_800_000_000_000 + i64::try_from(world_ms).unwrap_or(i64::MAX)
}

/// A process of a device, in one of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) device: usize,
    pub(crate) process: usize,
    pub(crate) run: u64,
}

/// What will happen at a moment.
pub(crate) enum Event {
    /// A request arrives at the server; the second number is when its answer is back.
    Arrive(Box<Message>, Option<Plan>),
    /// An answer is back.
    Answer(Place, RequestId, Box<RemoteAnswer>, Trust),
    /// A client has waited long enough.
    GiveUp(Place, RequestId),
    /// New credentials, or none.
    Credentials(Place, bool),
    /// A process is started.
    Start { device: usize, process: usize },
}

/// Whether an answer is one that must change nothing (F:S25).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It may.
    Usual,
    /// It is nonsense, or somebody else's.
    None,
}

/// A request under way.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) place: Place,
    pub(crate) id: RequestId,
    pub(crate) request: RemoteRequest,
    pub(crate) wire: syncline_server::Request,
    pub(crate) wire_id: u64,
    pub(crate) fault: Option<NetFault>,
}

/// Devices, a server, what is under way, and everything that is watched.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) devices: Vec<Device>,
    pub(crate) server: Server,
    pub(crate) backup: Option<(Backup, Model)>,
    pub(crate) now: u64,
    pub(crate) down_until: u64,
    events: BTreeMap<(u64, u64), Event>,
    serials: u64,
    /// Counts values that are written.
    pub(crate) values: u64,
    pub(crate) model: Model,
    pub(crate) ledger: Ledger,
    pub(crate) history: History,
    /// Mutations that a commit acknowledged, by device.
    pub(crate) acknowledged: BTreeSet<(usize, String)>,
    pub(crate) played: Played,
    pub(crate) noted: Noted,
    pub(crate) broken: Option<Broken>,
    /// The credentials of somebody else.
    pub(crate) stranger: String,
    /// What each device sent under each key.
    pub(crate) sent: BTreeMap<(usize, String), String>,
    /// The first page that anybody was given.
    pub(crate) first_page: Option<Response>,
    pub(crate) bounds: Bounds,
    pub(crate) order: Order,
    pub(crate) poison: Stage,
    pub(crate) secrets: Secrets,
    /// How many changes of the schema somebody has had; everybody will.
    pub(crate) version: usize,
    /// Whether everything that happens is printed.
    pub(crate) verbose: bool,
}

impl World {
    /// A world as it begins: every device is running.
    pub(crate) fn new(setup: &Setup, pool: &Pool, within: &Path) -> Self {
        syncline_fault_vfs::set_clock(Some(unix_ms(BEGINNING_MS)));
        let folder = tempfile::Builder::new()
            .prefix("sim-")
            .tempdir_in(within)
            .expect("a folder can be made");
        let mut config = server::config();
        schema::declare(setup, &mut config);
        let sqlite = setup.storage == StorageKind::Sqlite;
        let server = Server::new(sqlite, config, folder.path());
        let begin = unix_ms(BEGINNING_MS);
        let own = server::token("somebody", Access::Write, begin);
        let stranger = format!(
            "Bearer {}",
            server::token("somebody else", Access::Write, begin)
        );
        let secrets = Secrets::new(&[&own, &stranger]);
        let mut world = Self {
            setup: setup.clone(),
            devices: Vec::new(),
            server,
            backup: None,
            now: BEGINNING_MS,
            down_until: 0,
            events: BTreeMap::new(),
            serials: 0,
            values: 0,
            model: Model::new("e0"),
            ledger: Ledger::default(),
            history: History::new(histories::declared(setup)),
            acknowledged: BTreeSet::new(),
            played: Played::default(),
            noted: Noted::default(),
            broken: None,
            stranger,
            sent: BTreeMap::new(),
            first_page: None,
            bounds: Bounds::default(),
            order: Order::default(),
            poison: Stage::begins(setup.poison),
            secrets,
            version: 0,
            verbose: false,
            folder,
        };
        for n in 0..usize::from(setup.devices) {
            world.add_device(n, pool.take(setup, within));
        }
        world
    }

    /// What it leaves for others.
    pub(crate) fn end_all(mut self, pool: &Pool) {
        for mut device in self.devices.drain(..) {
            device.gone(0);
            device.gone(1);
            pool.give(device.files);
        }
    }

    fn add_device(&mut self, n: usize, files: Files) {
        let seed = self.setup.seed ^ (n as u64) << 32;
        let client = format!("{:032x}", u128::from(seed) + 1);
        let device = Device::new(files, Some(&client), Rng::new(seed));
        self.join(n, device);
    }

    /// One more device, with the settings that the setup has for it.
    pub(crate) fn join(&mut self, n: usize, mut device: Device) {
        let bit = |bits: u8| bits.checked_shr(n as u32).unwrap_or(0) & 1 == 1;
        device.config.push_mutations = usize::from(self.setup.push_mutations.max(1));
        if self.setup.push_bytes > 0 {
            device.config.push_bytes = usize::from(self.setup.push_bytes);
        }
        device.config.page_changes = usize::from(self.setup.page_changes.max(1));
        device.config.poll_interval_ms = 120_000;
        if bit(self.setup.pull_first) {
            device.config.order = SyncOrder::PullThenPush;
        }
        device.checkpoint = bit(self.setup.checkpoint).then_some(Checkpoint {
            changes: 7,
            bytes: 1 << 20,
        });
        let begin = unix_ms(BEGINNING_MS);
        device.own_token = server::token("somebody", Access::Write, begin);
        device.read_token = server::token("somebody", Access::Read, begin);
        device.token.clone_from(&device.own_token);
        self.devices.push(device);
        self.start(n, 0);
    }

    /// A number that no other has.
    pub(crate) fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// Notes that something must not be.
    pub(crate) fn breaks(&mut self, broken: Broken) {
        if self.verbose {
            eprintln!("{} BROKEN {broken:?}", self.now);
        }
        self.broken.get_or_insert(broken);
    }

    /// Starts a process, unless it runs.
    pub(crate) fn start(&mut self, device: usize, process: usize) {
        let run = self.setup.seed.wrapping_mul(1_000) + self.serial();
        let peer = &mut self.devices[device];
        if peer.processes[process].is_some() {
            return;
        }
        if let Err(error) = peer.start(process, run) {
            let is_locked = !peer.files.app.is_autocommit();
            if peer.files.disk.failed() > 0 || is_locked {
                // It is tried again, as whoever starts programs does, once the device is awake.
                let wait = peer.asleep_until.saturating_sub(self.now).max(60_000);
                return self.later(wait, Event::Start { device, process });
            }
            let detail = format!("device {device} cannot start: {error}");
            return self.breaks(Broken::new("F:A8", detail));
        }
        if let Err(broken) = check::accounted(self, device, "F:S2") {
            return self.breaks(broken);
        }
        self.feed(device, process, Input::Trigger(Reason::AppStart));
    }

    /// A process ends, in order or not.
    pub(crate) fn end(&mut self, device: usize, process: usize, in_order: bool) {
        let now = self.devices[device].now(self.now);
        if let Some(ended) = self.devices[device].processes[process].as_mut()
            && in_order
        {
            ended.engine.stop(now);
        }
        self.devices[device].gone(process);
    }

    /// Puts something on the list.
    pub(crate) fn later(&mut self, after_ms: u64, event: Event) {
        let at = self.now + after_ms;
        let serial = self.serial();
        self.events.insert((at, serial), event);
    }

    /// Feeds an input to a process and does what follows from it without the passing of time.
    pub(crate) fn feed(&mut self, device: usize, process: usize, input: Input) {
        if self.broken.is_some() {
            return;
        }
        let peer = &mut self.devices[device];
        let now = peer.now(self.now);
        let Some(running) = peer.processes[process].as_mut() else {
            return;
        };
        self.played
            .cell(running.engine.state().as_str(), input_kind(&input));
        if self.verbose {
            eprintln!(
                "{} device {device}.{process} {} <- {}",
                self.now,
                running.engine.state(),
                short(&input)
            );
        }
        let run = running.run;
        let theirs = fence::of_another(peer, process);
        let Some(running) = peer.processes[process].as_mut() else {
            return;
        };
        let engine = &mut running.engine;
        let work = || {
            let mut all = engine.handle(input, now);
            while let Some(more) = engine.proceed(now) {
                all.extend(more);
            }
            all
        };
        let done = catch_unwind(AssertUnwindSafe(work));
        let mine = holder(run);
        match theirs.map(|theirs| fence::respected(peer, &theirs, &mine)) {
            Some(Ok(true)) => self.played.fault("device: lease taken over"),
            Some(Err(broken)) => self.breaks(broken),
            Some(Ok(false)) | None => {}
        }
        match done {
            Ok(outgoing) => {
                let place = Place {
                    device,
                    process,
                    run,
                };
                self.dispatch(place, outgoing);
            }
            Err(panic) if panic.is::<Died>() => {
                self.played.fault("device: dies during store work");
                self.devices[device].gone(process);
                self.later(1_000, Event::Start { device, process });
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    fn dispatch(&mut self, place: Place, outgoing: Vec<Outgoing>) {
        for outgoing in outgoing {
            match outgoing {
                Outgoing::Request(id, request) => self.send(place, id, request),
                Outgoing::RefreshCredentials => {
                    self.is_owed_credentials(place.device);
                    let has = self.devices[place.device].no_token_until <= self.now;
                    self.later(50, Event::Credentials(place, has));
                }
                Outgoing::Notice(notice) => {
                    let told = format!("{notice:?}");
                    let word = told.split('{').next().unwrap_or("");
                    self.noted.trace.add(word.as_bytes());
                    if self.verbose {
                        eprintln!("{}   device {} told {told}", self.now, place.device);
                    }
                    self.keeps_secrets("a notice", &told);
                }
            }
        }
    }

    fn send(&mut self, place: Place, id: RequestId, request: RemoteRequest) {
        let wire_id = self.serial();
        let latency_ms = self.setup.latency_ms;
        let device = &mut self.devices[place.device];
        let wire = http::request(&request, wire_id, &device.token);
        let fault = device.faults.pop_front();
        let online = device.online;
        let way = plan(fault, device.latency(latency_ms));
        if let Some(running) = device.processes[place.process].as_mut() {
            running.awaited.insert(id, request.clone());
        }
        if self.verbose {
            eprintln!(
                "{}   device {} sends {} {fault:?}: {}",
                self.now,
                place.device,
                wire.path,
                String::from_utf8_lossy(&wire.body)
            );
        }
        let is_unread = online && fault == Some(NetFault::Status413);
        self.keeps_its_word(place.device, &request, is_unread);
        self.keeps_within(place.device, &request);
        if !online {
            self.played.fault("network: offline");
            let detail = "offline".to_owned();
            let error = RemoteError::Unreachable { detail };
            let answer = Box::new(http::failure(&request, error));
            return self.later(5, Event::Answer(place, id, answer, Trust::Usual));
        }
        self.played.count(http::kind(&request), 1);
        self.later(TIME_OUT_MS, Event::GiveUp(place, id));
        let message = Message {
            place,
            id,
            request,
            wire,
            wire_id,
            fault,
        };
        if let Some(fault) = fault.filter(|fault| fault.is_on_the_way()) {
            self.played.fault(fault.name());
        }
        if let Some(at) = way.also {
            self.later(at, Event::Arrive(Box::new(message.clone()), None));
        }
        if let Some(at) = way.arrives {
            self.later(at, Event::Arrive(Box::new(message), Some(way)));
        }
    }

    /// Lets time pass to `until`, and everything happen that is due.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.broken.is_none() {
            let event = self.events.keys().next().copied();
            let wake = self.next_wakeup();
            let (at, is_event) = match (event, wake) {
                (Some((at, _)), Some((wake, _))) if at <= wake => (at, true),
                (_, Some((wake, _))) => (wake, false),
                (Some((at, _)), None) => (at, true),
                (None, None) => break,
            };
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            if is_event {
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(event);
                }
            } else if let Some((_, (device, process))) = wake {
                self.feed(device, process, Input::Tick);
            }
        }
        self.now = self.now.max(until);
    }

    fn next_wakeup(&self) -> Option<(u64, (usize, usize))> {
        let mut next: Option<(u64, (usize, usize))> = None;
        for (n, device) in self.devices.iter().enumerate() {
            for (which, process) in device.processes.iter().enumerate() {
                let due = process.as_ref().and_then(|p| p.engine.next_wakeup());
                if let Some((at, _)) = due {
                    let at = at.max(device.deaf_until(which)).max(self.now);
                    if next.is_none_or(|(earliest, _)| at < earliest) {
                        next = Some((at, (n, which)));
                    }
                }
            }
        }
        next
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(message, way) => self.arrive(&message, way),
            Event::Start { device, process } => self.start(device, process),
            Event::Answer(place, id, answer, trust) => {
                let asleep = self.devices[place.device].deaf_until(place.process);
                if asleep > self.now {
                    let again = Event::Answer(place, id, answer, trust);
                    return self.later(asleep - self.now, again);
                }
                if let Some(running) = self.running(place) {
                    let is_awaited = running.awaited.remove(&id).is_some();
                    self.bounds.heard(place.device, &answer);
                    let head = Self::head_of(&answer).filter(|_| is_awaited);
                    self.hear(place, Input::Remote(id, *answer), trust);
                    if let Some(head) = head.filter(|_| trust == Trust::Usual) {
                        self.may_be_at_head(place, head);
                    }
                }
            }
            Event::GiveUp(place, id) => {
                let asleep = self.devices[place.device].deaf_until(place.process);
                if asleep > self.now {
                    return self.later(asleep - self.now, Event::GiveUp(place, id));
                }
                let Some(request) = self.running(place).and_then(|p| p.awaited.remove(&id)) else {
                    return;
                };
                let error = RemoteError::Unreachable {
                    detail: "timed out".to_owned(),
                };
                let answer = http::failure(&request, error);
                self.feed(place.device, place.process, Input::Remote(id, answer));
            }
            Event::Credentials(place, has) => {
                let given = match has {
                    true => Ok(()),
                    false => Err("there are none".to_owned()),
                };
                if self.running(place).is_some() {
                    self.feed(place.device, place.process, Input::Credentials(given));
                }
            }
        }
    }

    fn running(&mut self, place: Place) -> Option<&mut Process> {
        self.devices[place.device].processes[place.process]
            .as_mut()
            .filter(|running| running.run == place.run)
    }

    /// Whether every process of a device can be told something now.
    pub(crate) fn hears(&self, device: usize) -> bool {
        (0..2).all(|process| self.devices[device].deaf_until(process) <= self.now)
    }

    /// Whether an engine rests with nothing under way.
    pub(crate) fn rests(&self, device: usize) -> bool {
        let mut running = self.devices[device].processes.iter().flatten();
        running.all(|process| {
            process.awaited.is_empty()
                && !matches!(
                    process.engine.state(),
                    State::Connecting | State::Pushing | State::Pulling
                )
        })
    }
}
