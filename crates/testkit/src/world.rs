//! The world of a story.

use crate::device::Device;
use crate::link::{Delivery, Fault, Traffic};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use syncline::trace::Recorder;
use syncline::{
    Checkpoint, Config, Engine, Existing, Input, Outgoing, Policy, Reason, State, Status, Watcher,
};
use syncline_core::{ConflictRules, Now, Resolver};
use syncline_protocol::{Access, Fields, Principal, PullLine};
use syncline_server::{
    Authenticator, Identity, MemoryStorage, Now as ServerNow, Request, ServerConfig, Service,
    issue_token,
};
use syncline_store::TypeOptions;
use tempfile::TempDir;

const SECRET: &[u8] = b"a secret of exactly enough bytes";

/// Devices, a server, links and a clock.
pub struct World {
    folder: TempDir,
    schema: String,
    server: Service<MemoryStorage>,
    rules: ServerConfig,
    devices: BTreeMap<String, Device>,
    pub(crate) config: Config,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) recorder: Option<fn() -> Recorder>,
    now: Now,
    /// By how much the devices' clocks were set.
    set_by: i64,
    seeds: u64,
}

impl World {
    /// A world in which every device has tables of this schema, and a server that takes anything.
    pub fn new(schema: &str) -> Self {
        Self::with_server(schema, ServerConfig::default())
    }

    /// A world with rules on the server.
    pub fn with_server(schema: &str, config: ServerConfig) -> Self {
        let server = serve(MemoryStorage::new("epoch-1"), &config);
        Self {
            folder: tempfile::tempdir().unwrap(),
            schema: schema.to_owned(),
            server,
            rules: config,
            devices: BTreeMap::new(),
            config: Config::default(),
            checkpoint: None,
            recorder: None,
            now: Now {
                monotonic_ms: 1_000,
                unix_ms: 1_800_000_000_000,
            },
            set_by: 0,
            seeds: 0,
        }
    }

    /// Other settings for engines started from here on.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// Engines started from here on pull in checkpoint mode, or again page by page.
    pub fn checkpoint(&mut self, checkpoint: Option<Checkpoint>) {
        self.checkpoint = checkpoint;
    }

    /// Adds a device with the default policy and starts its engine.
    pub fn device(&mut self, name: &str) {
        self.device_with(name, Policy::default());
    }

    /// Adds a device whose tables have rows already when they are attached.
    pub fn device_existing(&mut self, name: &str, rows: &str, existing: Existing) {
        let schema = format!("{};{rows}", self.schema);
        let options = BTreeMap::new();
        self.add(name, &schema, (existing, Policy::default()), options);
    }

    /// Adds a device with another schema, and with what is declared for its tables.
    pub fn device_declared(
        &mut self,
        name: &str,
        schema: &str,
        options: BTreeMap<String, TypeOptions>,
    ) {
        let choices = (Existing::Upload, Policy::default());
        let declared = options.into_iter();
        let declared =
            declared.map(|(table, options)| (table, (options, ConflictRules::default())));
        self.add(name, schema, choices, declared.collect());
    }

    /// Adds a device on which conflicts of a table are decided by these rules, named by columns.
    pub fn device_ruled(&mut self, name: &str, table: &str, rules: &ConflictRules) {
        let schema = self.schema.clone();
        let choices = (Existing::Upload, Policy::default());
        let declared = (TypeOptions::default(), rules.clone());
        self.add(
            name,
            &schema,
            choices,
            [(table.to_owned(), declared)].into(),
        );
    }

    /// From its next start on the app of a device decides conflicts of a type itself.
    pub fn resolver(&mut self, name: &str, entity_type: &str, resolver: Arc<dyn Resolver>) {
        let resolvers = &mut self.get(name).resolvers;
        resolvers.insert(entity_type.to_owned(), resolver);
    }

    /// From its next start on the resolvers of a device's app get so long; a minute otherwise, so that
    /// a slow machine decides nothing.
    pub fn resolver_deadline(&mut self, name: &str, ms: u64) {
        self.get(name).resolver_deadline_ms = ms;
    }

    /// Adds a device with a policy and starts its engine.
    pub fn device_with(&mut self, name: &str, policy: Policy) {
        let schema = self.schema.clone();
        let options = BTreeMap::new();
        self.add(name, &schema, (Existing::Upload, policy), options);
    }

    fn add(
        &mut self,
        name: &str,
        schema: &str,
        choices: (Existing, Policy),
        declared: BTreeMap<String, (TypeOptions, ConflictRules)>,
    ) {
        let path = self.folder.path().join(format!("{name}.db"));
        let seed = self.next_seed();
        let mut device = Device::attach(path, schema, seed, choices, declared, self.now);
        device.link.token = self.token("somebody");
        self.add_device(name, device);
    }

    pub(crate) fn add_device(&mut self, name: &str, mut device: Device) {
        device.start(&self.config, self.checkpoint, None, self.recorder);
        self.devices.insert(name.to_owned(), device);
    }

    /// Differs from that of every engine started before.
    pub(crate) fn next_seed(&mut self) -> u64 {
        self.seeds += 1_000;
        self.seeds
    }

    /// Where the devices' files are.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The device's token from here on.
    pub fn use_token(&mut self, name: &str, token: String) {
        self.get(name).link.token = token;
    }

    /// Another, empty server in the old one's place.
    pub fn replace_server(&mut self, epoch: &str) {
        self.restore_server(MemoryStorage::new(epoch));
    }

    /// A backup of the server as it is now; once restored, its history has this identity.
    pub fn back_up_server(&self, epoch: &str) -> MemoryStorage {
        self.server.storage().backup(epoch)
    }

    /// A backup of the server that, once restored, does not know that it is one.
    pub fn copy_server(&self) -> MemoryStorage {
        self.server.storage().copy()
    }

    /// The server goes on from a backup.
    pub fn restore_server(&mut self, backup: MemoryStorage) {
        self.server = serve(backup, &self.rules);
    }

    /// The same server, started again with other settings.
    pub fn reconfigure_server(&mut self, change: impl FnOnce(&mut ServerConfig)) {
        change(&mut self.rules);
        self.restore_server(self.server.storage().copy());
    }

    /// The device's position in the feed is lost, as when the server no longer serves it.
    pub fn forget_cursor(&mut self, name: &str) {
        self.sql(name, "DELETE FROM syncline_cursor");
    }

    /// A token for a subject of the one tenant, valid for a year.
    pub fn token(&self, subject: &str) -> String {
        let principal = Principal {
            tenant: "default".to_owned(),
            subject: subject.to_owned(),
        };
        let identity = Identity {
            principal,
            access: Access::Write,
        };
        let now = self.server_now();
        issue_token(SECRET, &identity, now, 31_000_000).unwrap()
    }

    /// A device by name.
    pub fn get(&mut self, name: &str) -> &mut Device {
        self.devices
            .get_mut(name)
            .unwrap_or_else(|| panic!("no device {name}"))
    }

    /// Where a device's database is.
    pub fn path(&mut self, name: &str) -> PathBuf {
        self.get(name).path.clone()
    }

    /// The app on a device runs plain SQL on a connection of its own.
    pub fn sql(&mut self, name: &str, sql: &str) {
        self.get(name)
            .app
            .execute_batch(sql)
            .unwrap_or_else(|error| panic!("{name}: {sql}: {error}"));
    }

    /// The next request of a device goes wrong like this; several faults wait in line.
    pub fn fault(&mut self, name: &str, fault: Fault) {
        self.get(name).link.faults.push_back(fault);
    }

    /// Every push that contains `text` is answered 500 as a whole.
    pub fn poison(&mut self, name: &str, text: &str) {
        self.get(name).link.poison = Some(text.to_owned());
    }

    /// Every push that contains `text` is answered 413, until another text, or none, is named.
    pub fn too_large(&mut self, name: &str, text: Option<&str>) {
        self.get(name).link.too_large = text.map(str::to_owned);
    }

    /// Every push that contains `text` is never answered, though the server is there.
    pub fn hang(&mut self, name: &str, text: &str) {
        self.get(name).link.hang = Some(text.to_owned());
    }

    /// What a device asked of the server since the last call, each request by its word.
    pub fn requests(&mut self, name: &str) -> Vec<&'static str> {
        std::mem::take(&mut self.get(name).link.requests)
    }

    /// A device's server does not offer this request, as one that is older does not.
    pub fn without(&mut self, name: &str, request: &'static str) {
        self.get(name).link.without = Some(request);
    }

    /// Every push of a device so far: operation and entity of each of its mutations.
    pub fn batches(&mut self, name: &str) -> Vec<Vec<String>> {
        self.get(name).link.batches.clone()
    }

    /// The device's token is refused after this many more requests.
    pub fn expire_token_after(&mut self, name: &str, requests: u64) {
        self.get(name).link.expire_after = Some(requests);
    }

    /// Takes a device off the network.
    pub fn offline(&mut self, name: &str) {
        self.get(name).link.online = false;
    }

    /// Takes a device off the network after this many more requests.
    pub fn offline_after(&mut self, name: &str, requests: u64) {
        self.get(name).link.offline_after = Some(requests);
    }

    /// Brings it back and tells its engine.
    pub fn online(&mut self, name: &str) {
        self.get(name).link.online = true;
        self.get(name).link.offline_after = None;
        self.feed(name, Input::Trigger(Reason::NetworkAvailable));
    }

    /// What went over a device's link so far.
    pub fn traffic(&mut self, name: &str) -> Traffic {
        self.get(name).link.traffic
    }

    /// The user asks for a sync; everything that follows without the passing of time is done.
    pub fn sync(&mut self, name: &str) {
        self.feed(name, Input::Trigger(Reason::UserAsked));
    }

    /// Feeds one input to a device's engine and everything that follows from it.
    pub fn feed(&mut self, name: &str, input: Input) {
        let now = self.now;
        let server_now = self.server_now();
        let device = self
            .devices
            .get_mut(name)
            .unwrap_or_else(|| panic!("no device {name}"));
        let Some(engine) = device.engine.as_mut() else {
            return;
        };
        let mut inputs = VecDeque::from([input]);
        for _ in 0..100_000 {
            let Some(input) = inputs.pop_front() else {
                return device.check_counts();
            };
            let mut all = engine.handle(input, now);
            while let Some(more) = engine.proceed(now) {
                all.extend(more);
            }
            for outgoing in all {
                match outgoing {
                    Outgoing::Notice(notice) => device.notices.push(notice),
                    Outgoing::RefreshCredentials => {
                        device.link.expire_after = None;
                        inputs.push_back(Input::Credentials(Ok(())));
                    }
                    Outgoing::Request(id, request) => {
                        match device.link.deliver(&request, &self.server, server_now) {
                            Delivery::Answer(answer) => inputs.push_back(Input::Remote(id, answer)),
                            Delivery::Held => device.held.push_back((id, request)),
                        }
                    }
                }
            }
        }
        panic!("{name} never comes to rest")
    }

    /// Asks for a sync and holds its next push back on the way, until it is released.
    pub fn hold_push(&mut self, name: &str) {
        self.hold_any_push(name);
        assert!(!self.get(name).held.is_empty(), "{name} pushed nothing");
    }

    /// As `hold_push`, if there is anything to push.
    pub fn hold_any_push(&mut self, name: &str) {
        self.get(name).link.hold_pushes = true;
        self.sync(name);
        self.get(name).link.hold_pushes = false;
    }

    /// The user asks for a sync in which nothing is due to be sent.
    pub fn pull_only(&mut self, name: &str) {
        let put_off = "UPDATE syncline_outbox SET not_before = 1800000000000 + 600000";
        self.sql(name, put_off);
        self.sync(name);
        self.sql(name, "UPDATE syncline_outbox SET not_before = 0");
    }

    /// The id by which an entity goes now, as the app looks it up.
    pub fn current_id(&mut self, name: &str, entity_type: &str, id: &str) -> String {
        let id = syncline_protocol::EntityId::parse(id).unwrap();
        let app = &self.get(name).app;
        let current = syncline_store::ids::current_id(app, entity_type, &id).unwrap();
        current.to_string()
    }

    /// Lets the requests that were held back arrive, and feeds their answers.
    pub fn release(&mut self, name: &str) {
        while let Some((id, request)) = self.get(name).held.pop_front() {
            let now = self.server_now();
            let device = self
                .devices
                .get_mut(name)
                .unwrap_or_else(|| panic!("no device {name}"));
            let answer = device.link.exchange(&request, &self.server, now);
            self.feed(name, Input::Remote(id, answer));
        }
    }

    /// Stops a device's engine without warning, as a crash does, and forgets what was under way.
    pub fn crash(&mut self, name: &str) {
        let device = self.get(name);
        device.engine = None;
        device.held.clear();
    }

    /// Starts a device's engine again. The clock moves on beyond the old engine's lease.
    pub fn restart(&mut self, name: &str) {
        self.start(name, None);
    }

    /// As `restart`, with someone who is told the moments of each unit of store work.
    pub fn restart_watched(&mut self, name: &str, watcher: Watcher) {
        self.start(name, Some(watcher));
    }

    fn start(&mut self, name: &str, watcher: Option<Watcher>) {
        self.try_start(name, watcher).unwrap();
    }

    /// Time passes; deadlines are not looked at.
    pub fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.unix_ms += i64::try_from(ms).unwrap();
    }

    /// Somebody sets the clocks of all devices, forwards or back. Neither the time that passes nor the
    /// server's clock has to do with it.
    pub fn set_clocks(&mut self, by_ms: i64) {
        self.now.unix_ms += by_ms;
        self.set_by += by_ms;
    }

    fn server_now(&self) -> ServerNow {
        ServerNow::from_unix_ms(self.now.unix_ms - self.set_by)
    }

    /// The moment it is.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Lets time pass from deadline to deadline until every running device is at rest with
    /// nothing more to do, then has everyone pull once more.
    pub fn run_until_quiet(&mut self) {
        let names: Vec<String> = self.devices.keys().cloned().collect();
        for _ in 0..2 {
            for name in &names {
                self.sync(name);
                self.settle(name);
            }
        }
    }

    /// Lets time pass for one device until it has nothing more to do by itself.
    pub fn settle(&mut self, name: &str) {
        for _ in 0..500 {
            let now = self.now;
            let device = self.get(name);
            let put_off = "SELECT EXISTS (SELECT 1 FROM syncline_outbox WHERE state = 'pending' AND not_before > ?1)";
            let due_later: bool = device
                .app
                .query_row(put_off, [now.unix_ms], |row| row.get(0))
                .unwrap();
            let Some(engine) = device.engine.as_ref() else {
                return;
            };
            let more = due_later || engine.state() == State::Backoff || is_waiting(engine);
            let (true, Some((at, _))) = (more, engine.next_wakeup()) else {
                return;
            };
            self.pass(at.saturating_sub(now.monotonic_ms));
            self.feed(name, Input::Tick);
        }
        panic!("{name} is never quiet: {:?}", self.status(name))
    }

    /// A device's status.
    pub fn status(&mut self, name: &str) -> Status {
        let now = self.now;
        engine_status(self.get(name).engine(), now)
    }

    /// What the server has of a type, read like any client would: id to fields.
    pub fn on_server(&self, entity_type: &str) -> BTreeMap<String, Fields> {
        let mut found = BTreeMap::new();
        let mut cursor = String::new();
        for _ in 0..10_000 {
            let request = Request::new("GET", &format!("/v1/pull?scope=default{cursor}"))
                .header("syncline-protocol", syncline_protocol::PROTOCOL_VERSION)
                .header(
                    "authorization",
                    format!("Bearer {}", self.token("somebody")),
                );
            let answer = self.server.handle(&request, self.server_now());
            assert_eq!(
                answer.status,
                200,
                "{}",
                String::from_utf8_lossy(&answer.body)
            );
            for line in String::from_utf8(answer.body).unwrap().lines() {
                match serde_json::from_str(line).unwrap() {
                    PullLine::Change(change) if change.entity_type.as_str() == entity_type => {
                        match change.kind {
                            syncline_protocol::ChangeKind::Upsert(fields) => {
                                found.insert(change.id.to_string(), fields);
                            }
                            syncline_protocol::ChangeKind::Delete => {
                                found.remove(change.id.as_str());
                            }
                        }
                    }
                    PullLine::Change(_) => {}
                    PullLine::Page(end) if end.at_head => return found,
                    PullLine::Page(end) => cursor = format!("&cursor={}", end.cursor),
                }
            }
        }
        panic!("the server's feed has no head")
    }

    /// The server, to ask it directly.
    pub fn server(&self) -> &Service<MemoryStorage> {
        &self.server
    }

    /// Ends everything bad: the device is online, no fault waits, nothing is held back.
    pub fn heal(&mut self, name: &str) {
        let link = &mut self.get(name).link;
        link.faults.clear();
        link.poison = None;
        link.hang = None;
        link.expire_after = None;
        self.release(name);
        self.online(name);
    }

    /// A device's rows are the server's, field by field.
    pub fn assert_equals_server(&mut self, name: &str) {
        let types = self.get(name).engine().store().types().clone();
        for entity_type in types.iter() {
            let here = self
                .get(name)
                .engine()
                .store()
                .entities(entity_type)
                .unwrap();
            assert_eq!(
                here,
                self.on_server(&entity_type.name),
                "{name}: {}",
                entity_type.name
            );
        }
    }

    /// All devices have the same rows in every table, and nothing is left to sync.
    pub fn assert_converged(&mut self) {
        let names: Vec<String> = self.devices.keys().cloned().collect();
        let mut first: Option<(String, Vec<String>)> = None;
        for name in names {
            let status = self.status(&name);
            let left = status.outbox["pending"] + status.outbox["in_flight"] + status.inbox;
            assert_eq!(left, 0, "{name} has work left: {status:?}");
            let dump = self.dump(&name);
            match &first {
                None => first = Some((name, dump)),
                Some((other, expected)) => {
                    assert_eq!(&dump, expected, "{name} differs from {other}")
                }
            }
        }
    }
}

fn serve(storage: MemoryStorage, rules: &ServerConfig) -> Service<MemoryStorage> {
    let authenticator = Authenticator::hs256(SECRET).unwrap();
    Service::new(storage, authenticator, rules.clone()).unwrap()
}

fn engine_status(engine: &mut Engine, now: Now) -> Status {
    engine.store().status(now).unwrap()
}

fn is_waiting(engine: &Engine) -> bool {
    use syncline_core::WakeReason::{Debounce, EntryDue};
    engine
        .next_wakeup()
        .is_some_and(|(_, why)| matches!(why, Debounce | EntryDue))
}
