//! How a store is opened, and who is told what it does.

use crate::identity::InstallationRecords;
use crate::settings::{Retention, Settings, Synchronous};
use crate::stage::Checkpoint;
use std::collections::BTreeMap;
use std::sync::Arc;
use syncline_core::Resolver;

/// Moments of a unit of work, for those who watch (crash tests above all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Its transaction is about to begin.
    Before,
    /// Everything is written, nothing is committed.
    Written,
    /// It is committed.
    Committed,
}

/// Told the name of each unit of work and its moments.
pub type Watcher = Arc<dyn Fn(&'static str, Moment) + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Names this engine among processes; random.
    pub holder: String,
    /// For keys.
    pub seed: u64,
    /// How long the lease lasts.
    pub lease_ttl_ms: u64,
    /// How long a statement waits for another writer, in milliseconds.
    pub busy_timeout_ms: u64,
    /// What a commit waits for.
    pub synchronous: Synchronous,
    /// How much of what was settled is remembered.
    pub retention: Retention,
    /// How much of what was confirmed is kept, to be offered again to a server that lost it.
    pub journal: Retention,
    /// How many decided conflicts are remembered; open ones always are.
    pub conflicts: Retention,
    /// Where it is remembered, outside the file, that this file is this installation's; `None`:
    /// only the server can notice that a file is a copy.
    pub records: Option<Arc<dyn InstallationRecords>>,
    /// How much may be staged for a checkpoint; `None`: each page is applied as it comes.
    pub checkpoint: Option<Checkpoint>,
    /// Who watches units of work.
    pub watcher: Option<Watcher>,
    /// Resolvers of the app's own, by entity type: they decide in place of the declared policy.
    pub resolvers: BTreeMap<String, Arc<dyn Resolver>>,
    /// How long one of them may take for one conflict. The write lock is held meanwhile, so the app's
    /// own writes wait as long.
    pub resolver_deadline_ms: u64,
}

impl StoreOptions {
    /// Options for an engine of this name.
    pub fn new(holder: impl Into<String>, seed: u64) -> Self {
        Self {
            holder: holder.into(),
            seed,
            lease_ttl_ms: 0,
            busy_timeout_ms: 0,
            synchronous: Synchronous::default(),
            retention: Retention::default(),
            journal: Settings::default().journal(),
            conflicts: Settings::default().conflicts(),
            records: None,
            checkpoint: None,
            watcher: None,
            resolvers: BTreeMap::new(),
            resolver_deadline_ms: 0,
        }
        .settings(&Settings::default())
    }

    /// Takes over the numbers that concern the store.
    #[must_use]
    pub fn settings(mut self, settings: &Settings) -> Self {
        self.lease_ttl_ms = settings.config().lease_ttl_ms;
        self.busy_timeout_ms = settings.busy_timeout_ms();
        self.synchronous = settings.synchronous();
        self.retention = settings.retention();
        self.checkpoint = settings.checkpoint();
        self.journal = settings.journal();
        self.conflicts = settings.conflicts();
        self.resolver_deadline_ms = settings.resolver_deadline_ms();
        self
    }
}
