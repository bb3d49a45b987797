//! Setting an engine up: every setting has a default that works.

use crate::driver::{self, Driver};
use crate::{Clock, ConfigFile, Error, Recording, Syncline, write};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use syncline_core::{
    Config, ConflictInput, ConflictRules, Constraints, Input, Policy, Remote, Resolution, Resolver,
    SyncOrder,
};
use syncline_protocol::ClientId;
#[cfg(feature = "http")]
use syncline_protocol::TraceParent;
use syncline_store::attach::{AttachReport, AttachRequest, Declaration, Existing, Tables, attach};
use syncline_store::{
    InstallationRecords, LiveUpdates, PullMode, Settings, StateDirectory, Store, StoreError,
    StoreOptions, Watcher, holder, status,
};

#[cfg(feature = "http")]
type TraceContext = Arc<dyn Fn() -> Option<TraceParent> + Send + Sync>;

/// Builds a [`Syncline`]; see [`Syncline::builder`].
pub struct Builder {
    path: PathBuf,
    url: Option<String>,
    remote: Option<Arc<dyn Remote>>,
    #[cfg(feature = "http")]
    token: Option<crate::TokenSource>,
    #[cfg(feature = "http")]
    plain_http: crate::PlainHttp,
    #[cfg(feature = "http")]
    trace_context: Option<TraceContext>,
    #[cfg(feature = "http")]
    log_values: bool,
    #[cfg(feature = "http")]
    transport: Option<Arc<dyn crate::HttpTransport>>,
    settings: Option<Settings>,
    tables: Option<Tables>,
    declared: BTreeMap<String, Declaration>,
    existing: Existing,
    policy: Policy,
    rules: BTreeMap<String, ConflictRules>,
    resolvers: BTreeMap<String, Arc<dyn Resolver>>,
    config: Option<Config>,
    pull_mode: Option<PullMode>,
    schedule: Schedule,
    records: Option<Arc<dyn InstallationRecords>>,
    watcher: Option<Watcher>,
    recording: Option<Recording>,
}

impl Builder {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            url: None,
            remote: None,
            #[cfg(feature = "http")]
            token: None,
            #[cfg(feature = "http")]
            plain_http: crate::PlainHttp::default(),
            #[cfg(feature = "http")]
            trace_context: None,
            #[cfg(feature = "http")]
            log_values: false,
            #[cfg(feature = "http")]
            transport: None,
            settings: None,
            tables: None,
            declared: BTreeMap::new(),
            existing: Existing::Upload,
            policy: Policy::default(),
            rules: BTreeMap::new(),
            resolvers: BTreeMap::new(),
            config: None,
            pull_mode: None,
            schedule: Schedule::default(),
            records: None,
            watcher: None,
            recording: None,
        }
    }

    /// The server's address. Not needed for a database that was attached before.
    #[must_use]
    pub fn remote(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// A remote of your own instead of HTTP.
    #[must_use]
    pub fn remote_with(mut self, remote: Arc<dyn Remote>) -> Self {
        self.remote = Some(remote);
        self
    }

    /// Where the access token comes from.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn token(mut self, token: crate::TokenSource) -> Self {
        self.token = Some(token);
        self
    }

    /// Whether plain HTTP may be spoken beyond this machine.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn plain_http(mut self, plain_http: crate::PlainHttp) -> Self {
        self.plain_http = plain_http;
        self
    }

    /// Which trace each request to the server belongs to, in the words of W3C Trace Context; asked
    /// before each request, in the task that sends it. Without it each request is a trace of its own.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn trace_context(
        mut self,
        current: impl Fn() -> Option<TraceParent> + Send + Sync + 'static,
    ) -> Self {
        self.trace_context = Some(Arc::new(current));
        self
    }

    /// Whether log lines may show what is in rows, as each mutation is sent; the default is no.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn log_values(mut self, shown: bool) -> Self {
        self.log_values = shown;
        self
    }

    /// What speaks HTTP in place of what comes along: the system's own client on a phone, a tunnel.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn crate::HttpTransport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Takes over what a `syncline.toml` says: address, token, numbers, and the types, whose tables
    /// are attached when opening. What is called after it goes before it.
    pub fn config_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(self.with_config(ConfigFile::read(path)?))
    }

    /// As [`Builder::config_file`], with one that was read before.
    #[must_use]
    pub fn with_config(mut self, config: ConfigFile) -> Self {
        self.url = config.url.or(self.url);
        #[cfg(feature = "http")]
        {
            self.token = config.token.map(crate::TokenSource::from).or(self.token);
            if config.allow_plain_http {
                self.plain_http = crate::PlainHttp::Anywhere;
            }
        }
        self.settings = Some(config.settings);
        if !config.types.is_empty() {
            self.tables = Some(Tables::Named(config.types.keys().cloned().collect()));
        }
        self.declared = (config.types.into_iter())
            .map(|(table, one)| {
                let declaration = Declaration {
                    name: one.name,
                    rules: one.rules,
                    options: one.options,
                };
                (table, declaration)
            })
            .collect();
        self
    }

    /// Attaches these tables when opening, where they are not attached yet.
    #[must_use]
    pub fn attach<T: Into<String>>(mut self, tables: impl IntoIterator<Item = T>) -> Self {
        self.tables = Some(Tables::Named(tables.into_iter().map(Into::into).collect()));
        self
    }

    /// Attaches every table when opening.
    #[must_use]
    pub fn attach_all(mut self) -> Self {
        self.tables = Some(Tables::All);
        self
    }

    /// What happens with rows that a table has when it is attached; the default is to upload them.
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
    }

    /// How conflicts in tables attached now are decided; the default is a merge field by field.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Declares how conflicts in this table are decided, and attaches it when opening if it is not
    /// attached yet. A table attached before takes the rules over. Names in the rules are those of
    /// columns.
    #[must_use]
    pub fn conflict_rules(mut self, table: impl Into<String>, rules: ConflictRules) -> Self {
        self.rules.insert(table.into(), rules);
        self
    }

    /// Has conflicts of an entity type (by its name, which is its table's unless declared otherwise)
    /// decided by code of your own, in place of the declared policy. Natural keys and invariants of its
    /// rules count all the same.
    ///
    /// It has to answer from what it is given and from nothing else. A panic, an answer that breaks an
    /// invariant or lacks a field, or none within `resolver_deadline_ms` leaves the conflict to a person;
    /// after the last it is not asked again until the database is opened anew
    /// ([`Notice::ResolverDisabled`](crate::Notice::ResolverDisabled)). Only the process that has it
    /// asks it, so give it to every process that syncs the database.
    #[must_use]
    pub fn resolver(
        mut self,
        entity_type: impl Into<String>,
        resolver: impl Resolver + 'static,
    ) -> Self {
        let resolver = Arc::new(resolver);
        self.resolvers.insert(entity_type.into(), resolver);
        self
    }

    /// As [`Builder::resolver`], with a closure; `rule` is its name in conflict records.
    #[must_use]
    pub fn resolve_with(
        self,
        entity_type: impl Into<String>,
        rule: impl Into<String>,
        resolve: impl Fn(&ConflictInput<'_>) -> Resolution + Send + Sync + 'static,
    ) -> Self {
        let rule = rule.into();
        self.resolver(entity_type, Closure { rule, resolve })
    }

    /// Every number by its name in `syncline.toml`; without them, those that the database was
    /// attached with.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// The numbers of the state machine alone; they go before [`Builder::settings`].
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// When what was pulled is applied; goes before [`Builder::settings`], and is stored in the
    /// database when this attaches it. The default is each page as it comes.
    #[must_use]
    pub fn pull_mode(mut self, mode: PullMode) -> Self {
        self.pull_mode = Some(mode);
        self
    }

    /// What a cycle does, in which order; goes before [`Builder::settings`].
    #[must_use]
    pub fn order(mut self, order: SyncOrder) -> Self {
        self.schedule.order = Some(order);
        self
    }

    /// How often the server is asked for changes while no hints are heard, ±20 %; goes before
    /// [`Builder::settings`].
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.schedule.poll = Some(interval);
        self
    }

    /// Whether the remote's hints are listened for; goes before [`Builder::settings`].
    #[must_use]
    pub fn live(mut self, live: LiveUpdates) -> Self {
        self.schedule.live = Some(live);
        self
    }

    /// How the network is to be used from the start; goes before [`Builder::settings`]. Later:
    /// [`Syncline::set_constraints`].
    #[must_use]
    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.schedule.constraints = Some(constraints);
        self
    }

    /// Asks nothing of the world before [`Syncline::resume`] or [`Syncline::run_for`].
    #[must_use]
    pub fn start_paused(mut self) -> Self {
        self.schedule.paused = true;
        self
    }

    /// The settings as given, over those that the database has.
    fn settings_of(&self, conn: &Connection) -> Result<Option<Settings>, Error> {
        let Some(mode) = self.pull_mode else {
            return Ok(self.settings.clone());
        };
        let mut settings = match &self.settings {
            Some(settings) => settings.clone(),
            None => Settings::stored(conn)?,
        };
        settings.set_pull_mode(mode);
        Ok(Some(settings))
    }

    /// The directory in which it is remembered, outside the database, that the file is this
    /// installation's; the default is [`StateDirectory::usual`]. It should not be part of what a
    /// backup of the file restores.
    #[must_use]
    pub fn state_dir(self, path: impl Into<PathBuf>) -> Self {
        self.records(Arc::new(StateDirectory::new(path)))
    }

    /// A place of your own for that, such as the platform's keychain.
    #[must_use]
    pub fn records(mut self, records: Arc<dyn InstallationRecords>) -> Self {
        self.records = Some(records);
        self
    }

    /// Where installations are remembered. Without a place only the server notices copies.
    pub(crate) fn kept_records(&self) -> Option<Arc<dyn InstallationRecords>> {
        let usual = || -> Option<Arc<dyn InstallationRecords>> {
            let usual = StateDirectory::usual();
            if usual.is_none() {
                tracing::warn!(
                    "the environment names no place for state, so a copied or restored database \
                     is only noticed by the server; set SYNCLINE_STATE_DIR"
                );
            }
            Some(Arc::new(usual?))
        };
        self.records.clone().or_else(usual)
    }

    /// Someone who is told the moments of each unit of store work (crash tests above all).
    #[must_use]
    pub fn watcher(mut self, watcher: Watcher) -> Self {
        self.watcher = Some(watcher);
        self
    }

    /// Keeps a trace of everything that happens to the engine, to be looked at with `syncline replay`.
    #[must_use]
    pub fn record(mut self, recording: Recording) -> Self {
        self.recording = Some(recording);
        self
    }

    /// Those that were named for attaching and those of which rules were declared.
    fn wanted_tables(&self) -> Option<Tables> {
        let ruled = self.rules.keys().cloned();
        match &self.tables {
            None if self.rules.is_empty() => None,
            None => Some(Tables::Named(ruled.collect())),
            Some(Tables::All) => Some(Tables::All),
            Some(Tables::Named(names)) => {
                Some(Tables::Named(names.iter().cloned().chain(ruled).collect()))
            }
        }
    }

    /// The server's address, or the one that the database was attached with.
    fn address(&self, conn: &Connection) -> Result<String, Error> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        match status::read(conn, Clock::start().now()) {
            Ok(status) => status.remote.ok_or(Error::NoRemote),
            Err(StoreError::NotAttached) => Err(Error::NoRemote),
            Err(error) => Err(error.into()),
        }
    }

    /// Attaches without starting an engine. Works offline.
    pub fn attach_only(&self) -> Result<AttachReport, Error> {
        let Some(tables) = self.wanted_tables() else {
            return Ok(AttachReport::default());
        };
        let mut conn = open_existing(&self.path)?;
        let request = AttachRequest {
            remote: self.address(&conn)?,
            tables,
            existing: self.existing,
            policy: self.policy,
            rules: self.rules.clone(),
            declared: self.declared.clone(),
            settings: self.settings_of(&conn)?,
            client: ClientId::new(driver::random_name()?),
        };
        let report = attach(&mut conn, &request, Clock::start().now())?;
        if let Some(records) = self.kept_records() {
            let seed = driver::random_seed()?;
            syncline_store::enrol(&mut conn, &self.path, records.as_ref(), seed)?;
        }
        Ok(report)
    }

    /// Attaches what is to be attached, opens the store and starts the engine on its own thread.
    pub fn open(self) -> Result<Syncline, Error> {
        // Before anything is touched: the wrong file may have been named.
        let recording = self.recording.as_ref().map(Recording::start).transpose()?;
        self.attach_only()?;
        let file = open_existing(&self.path)?;
        let settings = match self.settings_of(&file)? {
            Some(settings) => settings,
            None => Settings::stored(&file)?,
        };
        drop(file);
        let mut config = self.config.clone().unwrap_or_else(|| settings.config());
        let start = self.schedule.apply(&mut config, &settings);
        let name = holder::of_this_process(&driver::random_name()?);
        let options = StoreOptions::new(name, driver::random_seed()?);
        let mut options = options.settings(&settings);
        options.records = self.kept_records();
        options.lease_ttl_ms = config.lease_ttl_ms;
        options.watcher = self.watcher.clone();
        options.resolvers = self.resolvers.clone();
        let store = Store::open(&self.path, options)?;
        let remote = self.make_remote(&store, &settings)?;
        let writer = write::connect(&self.path, &settings)?;
        let live = self.schedule.live.unwrap_or_else(|| settings.live());
        let driver = Driver::new(store, remote, config, live, recording, &self.path)?;
        Syncline::start(driver, writer, settings.outbox_rows(), &self.path, start)
    }

    #[cfg(feature = "http")]
    fn make_remote(&self, store: &Store, settings: &Settings) -> Result<Arc<dyn Remote>, Error> {
        if let Some(remote) = &self.remote {
            return Ok(Arc::clone(remote));
        }
        let url = match &self.url {
            Some(url) => url.clone(),
            None => store.remote()?,
        };
        Ok(Arc::new(self.http_remote(url, settings)?))
    }

    #[cfg(not(feature = "http"))]
    fn make_remote(&self, _store: &Store, _settings: &Settings) -> Result<Arc<dyn Remote>, Error> {
        self.remote.clone().ok_or(Error::NoRemote)
    }
}

#[cfg(feature = "http")]
impl Builder {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn url(&self) -> Option<String> {
        self.url.clone()
    }

    pub(crate) fn default_policy(&self) -> Policy {
        self.policy
    }

    pub(crate) fn declared_rules(&self) -> BTreeMap<String, ConflictRules> {
        self.rules.clone()
    }

    pub(crate) fn declarations(&self) -> BTreeMap<String, Declaration> {
        self.declared.clone()
    }

    pub(crate) fn given_settings(&self) -> Option<Settings> {
        let mut settings = self.settings.clone();
        if let Some(mode) = self.pull_mode {
            settings.get_or_insert_default().set_pull_mode(mode);
        }
        settings
    }

    /// The remote at this address, with everything that was set.
    pub(crate) fn http_remote(
        &self,
        url: String,
        settings: &Settings,
    ) -> Result<crate::HttpRemote, Error> {
        let mut builder = crate::HttpRemote::builder(url)
            .plain_http(self.plain_http)
            .log_values(self.log_values);
        if let Some(current) = self.trace_context.clone() {
            builder = builder.trace_context(move || current());
        }
        let time = |key: &str| settings.get(key).map(Duration::from_millis);
        let size = |key: &str| {
            let bytes = settings.get(key)?;
            Some(usize::try_from(bytes).unwrap_or(usize::MAX))
        };
        if let Some(timeout) = time("connect_timeout_ms") {
            builder = builder.connect_timeout(timeout);
        }
        if let Some(timeout) = time("request_timeout_ms") {
            builder = builder.request_timeout(timeout);
        }
        if let Some(timeout) = time("progress_timeout_ms") {
            builder = builder.progress_timeout(timeout);
        }
        if let Some(timeout) = time("live_silence_ms") {
            builder = builder.live_silence(timeout);
        }
        if let Some(bytes) = size("max_response_bytes") {
            builder = builder.max_response_bytes(bytes);
        }
        if let Some(bytes) = size("compress_above_bytes") {
            builder = builder.compress_above(bytes);
        }
        if let Some(transport) = &self.transport {
            builder = builder.transport(Arc::clone(transport));
        }
        match (self.token.clone(), time("token_timeout_ms")) {
            (Some(crate::TokenSource::Command(command)), Some(timeout)) => {
                builder = builder.token(crate::TokenSource::Command(command.timeout(timeout)));
            }
            (Some(token), _) => builder = builder.token(token),
            (None, _) => {}
        }
        Ok(builder.build()?)
    }
}

/// What was said of the schedule in code.
#[derive(Default)]
struct Schedule {
    order: Option<SyncOrder>,
    poll: Option<Duration>,
    live: Option<LiveUpdates>,
    constraints: Option<Constraints>,
    paused: bool,
}

impl Schedule {
    /// Changes what the settings say, and gives the inputs that the engine begins with.
    fn apply(&self, config: &mut Config, settings: &Settings) -> Vec<Input> {
        if let Some(order) = self.order {
            config.order = order;
        }
        if let Some(poll) = self.poll {
            config.poll_interval_ms = u64::try_from(poll.as_millis()).unwrap_or(u64::MAX).max(1);
        }
        let constraints = self.constraints.unwrap_or_else(|| settings.constraints());
        let constraints = constraints.any().then_some(Input::Constraints(constraints));
        let pause = self.paused.then_some(Input::Pause);
        constraints.into_iter().chain(pause).collect()
    }
}

/// A resolver that is a closure.
struct Closure<F> {
    rule: String,
    resolve: F,
}

impl<F: Fn(&ConflictInput<'_>) -> Resolution + Send + Sync> Resolver for Closure<F> {
    fn name(&self) -> &str {
        &self.rule
    }

    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution {
        (self.resolve)(input)
    }
}

fn open_existing(path: &Path) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::NoDatabase(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(conn)
}
