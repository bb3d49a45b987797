//! One device: an app's database, an engine on it that can be stopped and started, and a link.

use crate::link::Link;
use crate::recording::Traces;
use rusqlite::Connection;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use syncline::trace::Recorder;
use syncline::{
    Checkpoint, Config, Engine, Existing, Notice, Now, Policy, RequestId, Store, StoreOptions,
    Watcher,
};
use syncline_core::{ConflictRules, RemoteRequest, Resolver};
use syncline_protocol::ClientId;
use syncline_store::attach::{AttachRequest, Declaration, Tables, attach};
use syncline_store::{StateDirectory, StoreError, TypeOptions};

/// A named peer in a story.
pub struct Device {
    pub(crate) path: PathBuf,
    /// What its machine remembers outside of the file.
    pub(crate) state: PathBuf,
    pub(crate) engine: Option<Engine>,
    /// The app's own connection: an ordinary one, without anything of Syncline's.
    pub(crate) app: Connection,
    pub(crate) link: Link,
    /// Requests that the story holds back.
    pub(crate) held: VecDeque<(RequestId, RemoteRequest)>,
    /// Everything the engine told.
    pub notices: Vec<Notice>,
    /// What its app brings along to decide conflicts with.
    pub(crate) resolvers: BTreeMap<String, Arc<dyn Resolver>>,
    /// How long one of them may take.
    pub(crate) resolver_deadline_ms: u64,
    pub(crate) starts: u64,
    /// What its engines were recorded into, one trace for each start.
    pub(crate) traces: Traces,
}

impl Device {
    pub(crate) fn attach(
        path: PathBuf,
        schema: &str,
        seed: u64,
        (existing, policy): (Existing, Policy),
        declared: BTreeMap<String, (TypeOptions, ConflictRules)>,
        now: Now,
    ) -> Self {
        let app = Connection::open(&path).unwrap();
        app.execute_batch(schema).unwrap();
        app.pragma_update(None, "foreign_keys", true).unwrap();
        // No power fails in a story, and some write thousands of times.
        app.pragma_update(None, "synchronous", "OFF").unwrap();
        let request = AttachRequest {
            remote: "test:".to_owned(),
            tables: Tables::All,
            rules: Default::default(),
            existing,
            policy,
            declared: declared
                .into_iter()
                .map(|(table, (options, rules))| {
                    let name = table.clone();
                    let declared = Declaration {
                        name,
                        rules,
                        options,
                    };
                    (table, declared)
                })
                .collect(),
            settings: None,
            client: ClientId::new(format!("{seed:032x}")),
        };
        let mut conn = Connection::open(&path).unwrap();
        attach(&mut conn, &request, now).unwrap();
        let state = path.with_extension("state");
        Self::new(path, state, app, seed)
    }

    /// Always holds: what the outbox is said to have is what it has.
    pub(crate) fn check_counts(&self) {
        let counted = "SELECT entity_type, state, entries, bytes FROM syncline_backlog";
        let there =
            "SELECT entity_type, state, count(*), sum(coalesce(length(CAST(payload AS BLOB)), 0))
                       FROM syncline_outbox GROUP BY entity_type, state";
        let differ = format!(
            "SELECT EXISTS (SELECT * FROM ({counted}) EXCEPT SELECT * FROM ({there}))
                 OR EXISTS (SELECT * FROM ({there}) EXCEPT SELECT * FROM ({counted}))"
        );
        let differ = self.app.query_row(&differ, [], |row| row.get(0));
        assert!(!differ.unwrap_or(false), "syncline_backlog is wrong");
    }

    /// A device whose file is there and attached.
    pub(crate) fn open(path: PathBuf, state: PathBuf, seed: u64) -> Self {
        let app = Connection::open(&path).unwrap();
        app.pragma_update(None, "journal_mode", "WAL").unwrap();
        app.pragma_update(None, "foreign_keys", true).unwrap();
        Self::new(path, state, app, seed)
    }

    fn new(path: PathBuf, state: PathBuf, app: Connection, seed: u64) -> Self {
        Self {
            path,
            state,
            engine: None,
            app,
            link: Link {
                online: true,
                ..Link::default()
            },
            held: VecDeque::new(),
            notices: Vec::new(),
            resolvers: BTreeMap::new(),
            resolver_deadline_ms: 60_000,
            starts: seed,
            traces: Traces::default(),
        }
    }

    /// Starts the engine, as the app does after a crash or a restart.
    pub(crate) fn start(
        &mut self,
        config: &Config,
        checkpoint: Option<Checkpoint>,
        watcher: Option<Watcher>,
        recorder: Option<fn() -> Recorder>,
    ) {
        self.try_start(config, checkpoint, watcher, recorder)
            .unwrap();
    }

    pub(crate) fn try_start(
        &mut self,
        config: &Config,
        checkpoint: Option<Checkpoint>,
        watcher: Option<Watcher>,
        recorder: Option<fn() -> Recorder>,
    ) -> Result<(), StoreError> {
        self.starts += 1;
        let mut options =
            StoreOptions::new(format!("{:?}#{}", self.path, self.starts), self.starts);
        options.watcher = watcher;
        options.resolvers = self.resolvers.clone();
        options.resolver_deadline_ms = self.resolver_deadline_ms;
        options.checkpoint = checkpoint;
        options.records = Some(Arc::new(StateDirectory::new(&self.state)));
        let store = Store::open(&self.path, options)?;
        let mut engine = Engine::new(store, config.clone(), self.starts)?;
        if let Some(recorder) = recorder {
            engine.record(recorder(), self.traces.clone());
        }
        self.engine = Some(engine);
        Ok(())
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("the device is running")
    }
}

impl Device {
    /// Whether no fault waits for a request.
    pub fn link_is_clear(&self) -> bool {
        self.link.faults.is_empty()
    }
}
