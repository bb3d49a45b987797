//! What a storage must do for the server: [`Storage`] and its two kinds of transaction.
//!
//! A storage keeps and finds; it never decides. Which mutation is a conflict, what a version is and
//! in which order things are checked stands in `api::push`. `conformance` tests every promise here.

use std::error::Error;
use std::ops::ControlFlow;
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};

/// SHA-256 over a mutation's canonical form without its key.
pub type Fingerprint = [u8; 32];

/// Where the server keeps its data.
///
/// **Synchronous on purpose**: SQLite and PostgreSQL's blocking client both are, a simulator must
/// be able to run the server without a runtime, and a transaction that cannot be awaited in can
/// never be held open over the network. The HTTP adapter calls it from a bounded pool of threads.
///
/// # Contract
///
/// - **All or nothing.** If the closure given to [`write`](Self::write) returns `Err` or panics, or
///   the commit fails, nothing of it is ever seen. If `write` returns `Ok`, everything is durable.
/// - **As if alone.** A write closure sees its own writes and otherwise a state that no other
///   transaction changes until its commit. A storage with several writers locks what is read, or
///   rolls back and runs the closure again (hence `FnMut`), or gives [`StorageError::Busy`].
/// - **One snapshot.** Everything read in one [`read`](Self::read) is from one committed state.
/// - **Feed order is commit order.** Positions come from [`WriteTx::bump_head`] only. Once a reader
///   sees a head of `n`, no entity will ever appear at a position of `n` or lower that it does not
///   see now.
/// - **Tenants are apart.** Every call names its tenant; nothing of another is touched or told.
/// - Texts are compared as bytes.
pub trait Storage: Send + Sync + 'static {
    /// Runs `work` in one read-write transaction and commits. `work` may run more than once.
    fn write<T>(
        &self,
        work: impl FnMut(&mut dyn WriteTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError>;

    /// Runs `work` on one read snapshot.
    fn read<T>(
        &self,
        work: impl FnMut(&dyn ReadTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError>;

    /// The secret that authenticates cursors: the same for as long as the data lives, on all nodes.
    fn cursor_secret(&self) -> [u8; 32];

    /// Whether a read would succeed now.
    fn ready(&self) -> Result<(), StorageError> {
        self.read(|tx| tx.epoch().map(drop))
    }
}

/// What can be read in a transaction.
pub trait ReadTx {
    /// The identity of this history.
    fn epoch(&self) -> Result<Epoch, StorageError>;

    /// The last position taken in the scope's feed; 0 before the first.
    fn head(&self, tenant: &str, scope: &Scope) -> Result<i64, StorageError>;

    /// The lowest position from which the feed is still complete; 0 before anything was purged.
    fn horizon(&self, tenant: &str, scope: &Scope) -> Result<i64, StorageError>;

    /// How many entities and tombstones the scope has. Asked once for each snapshot of several pages.
    fn scope_size(&self, tenant: &str, scope: &Scope) -> Result<u64, StorageError>;

    /// An entity or its tombstone.
    fn entity(&self, key: EntityKey<'_>) -> Result<Option<Entity>, StorageError>;

    /// What was recorded for an idempotency key.
    fn key_record(
        &self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
    ) -> Result<Option<KeyRecord>, StorageError>;

    /// The subject that a client id is bound to.
    fn client_subject(
        &self,
        tenant: &str,
        client: &ClientId,
    ) -> Result<Option<String>, StorageError>;

    /// The exchange tokens of a client; none yet, or none in this history: the default.
    fn exchange(&self, tenant: &str, client: &ClientId) -> Result<Exchange, StorageError>;

    /// The highest watermark that [`WriteTx::forget_key`] was given for a key of this client.
    fn key_watermark(&self, tenant: &str, client: &ClientId) -> Result<Option<i64>, StorageError>;

    /// Keys of any tenant whose outcome was recorded before `before_ms`, at most `limit`.
    fn old_keys(&self, before_ms: i64, limit: usize) -> Result<Vec<OldKey>, StorageError>;

    /// The entity types registered by the tenant, in order.
    fn entity_types(&self, tenant: &str) -> Result<Vec<EntityType>, StorageError>;

    /// The tenant's type definitions, in the order of their types.
    fn type_definitions(&self, tenant: &str) -> Result<Vec<StoredDefinition>, StorageError>;

    /// The greatest id that [`WriteTx::raise_last_id`] was given for the type; 0 before the first.
    fn last_id(&self, tenant: &str, entity_type: &str) -> Result<i64, StorageError>;

    /// The rules by which the type's entities stand in the indexes, if they do.
    fn index_rules(&self, tenant: &str, entity_type: &str) -> Result<Option<String>, StorageError>;

    /// The entities (type and id) that stand in an index under a value, in order, at most `limit`.
    fn indexed(
        &self,
        tenant: &str,
        index: &str,
        value: &[u8; 32],
        limit: usize,
    ) -> Result<Vec<(String, String)>, StorageError>;

    /// Every tenant's scopes that have a head, in order.
    fn scopes(&self) -> Result<Vec<(String, Scope)>, StorageError>;

    /// The head of the scope at its last mark before `before_ms`.
    fn marked_head(
        &self,
        tenant: &str,
        scope: &Scope,
        before_ms: i64,
    ) -> Result<Option<i64>, StorageError>;

    /// Visits the scope's entities and tombstones with a position above `after`, in ascending
    /// order of position, at most `limit`, until `visit` breaks.
    fn feed(
        &self,
        tenant: &str,
        scope: &Scope,
        after: i64,
        limit: usize,
        visit: &mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), StorageError>;

    /// Visits the scope's live entities behind `after` (type and id) in the order of (type, id) as
    /// bytes, at most `limit`, until `visit` breaks.
    fn snapshot(
        &self,
        tenant: &str,
        scope: &Scope,
        after: Option<(&str, &str)>,
        limit: usize,
        visit: &mut dyn FnMut(EntityRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), StorageError>;
}

/// What can be done in a read-write transaction.
pub trait WriteTx: ReadTx {
    /// Binds a client id to a subject unless it is bound already; says to whom it is bound now.
    fn bind_client(
        &mut self,
        tenant: &str,
        client: &ClientId,
        subject: &str,
        now_ms: i64,
    ) -> Result<String, StorageError>;

    /// Keeps the exchange tokens of a client that is bound.
    fn put_exchange(
        &mut self,
        tenant: &str,
        client: &ClientId,
        exchange: Exchange,
    ) -> Result<(), StorageError>;

    /// Claims an idempotency key, or returns what was recorded for it. Another transaction that
    /// claims the same key waits for this one. A claim for which nothing was recorded by the time
    /// of the commit leaves nothing behind.
    fn claim_key(
        &mut self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
    ) -> Result<Option<KeyRecord>, StorageError>;

    /// Records the outcome of a claimed key; a record is written once and never changed.
    fn record_outcome(
        &mut self,
        tenant: &str,
        client: &ClientId,
        key: &IdempotencyKey,
        record: &KeyRecord,
        now_ms: i64,
    ) -> Result<(), StorageError>;

    /// Forgets what was recorded for a key, and raises the watermark of its client; one that is
    /// lower or absent changes nothing.
    fn forget_key(&mut self, key: &OldKey, watermark: Option<i64>) -> Result<(), StorageError>;

    /// Registers an entity type; harmless when it is registered already.
    fn register_entity_type(
        &mut self,
        tenant: &str,
        entity_type: &EntityType,
        now_ms: i64,
    ) -> Result<(), StorageError>;

    /// Registers an entity type if need be and keeps its definition, in place of an earlier one.
    fn define_type(
        &mut self,
        tenant: &str,
        entity_type: &EntityType,
        definition: &StoredDefinition,
        now_ms: i64,
    ) -> Result<(), StorageError>;

    /// Raises the last id of a registered type; a lower one changes nothing.
    fn raise_last_id(
        &mut self,
        tenant: &str,
        entity_type: &str,
        id: i64,
    ) -> Result<(), StorageError>;

    /// Takes all entities of a registered type out of the indexes, and keeps by which rules they
    /// are about to be put there.
    fn set_index_rules(
        &mut self,
        tenant: &str,
        entity_type: &str,
        rules: Option<&str>,
    ) -> Result<(), StorageError>;

    /// Puts an entity into an index; harmless when it stands there already.
    fn put_indexed(&mut self, tenant: &str, entry: &IndexEntry) -> Result<(), StorageError>;

    /// Takes an entity out of an index; harmless when it does not stand there.
    fn remove_indexed(&mut self, tenant: &str, entry: &IndexEntry) -> Result<(), StorageError>;

    /// Takes the next `count` positions of the scope's feed and returns the last of them.
    ///
    /// From here to the commit the scope's head is locked against other writers, so this is called
    /// once per scope, after everything has been read and decided: only the rows that carry the
    /// new positions and the outcomes that name them are written behind it.
    fn bump_head(&mut self, tenant: &str, scope: &Scope, count: i64) -> Result<i64, StorageError>;

    /// Writes an entity or its tombstone, in place of what was there.
    fn put_entity(&mut self, key: EntityKey<'_>, entity: &Entity) -> Result<(), StorageError>;

    /// Raises the horizon and forgets the tombstones at or below it; lowering does nothing.
    fn raise_horizon(
        &mut self,
        tenant: &str,
        scope: &Scope,
        horizon: i64,
    ) -> Result<(), StorageError>;

    /// Notes that the scope's head is where it is at this time.
    fn mark_head(&mut self, tenant: &str, scope: &Scope, now_ms: i64) -> Result<(), StorageError>;

    /// Forgets the marks of the scope's head before this time.
    fn forget_marks(
        &mut self,
        tenant: &str,
        scope: &Scope,
        before_ms: i64,
    ) -> Result<(), StorageError>;

    /// Starts a new history: after a restore from a backup, say. Makes all cursors useless, and
    /// forgets every client's exchange tokens.
    fn set_epoch(&mut self, epoch: &Epoch) -> Result<(), StorageError>;
}

/// The key of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntityKey<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// The entity's type.
    pub entity_type: &'a str,
    /// The entity's id in canonical form.
    pub id: &'a str,
}

/// An entity as it is kept, or its tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// The scope it is in.
    pub scope: Scope,
    /// Its version; never falls, also not over a deletion.
    pub version: i64,
    /// Its position in the scope's feed; unique there.
    pub seq: i64,
    /// Its fields as JSON, kept to the byte; none when it is deleted.
    pub fields: Option<String>,
    /// The key of the mutation that wrote it last.
    pub key: Option<IdempotencyKey>,
}

/// An entity as a feed or snapshot shows it, borrowed from the storage.
#[derive(Debug, Clone, Copy)]
pub struct EntityRef<'a> {
    /// The entity's type.
    pub entity_type: &'a str,
    /// The entity's id in canonical form.
    pub id: &'a str,
    /// See [`Entity::version`].
    pub version: i64,
    /// See [`Entity::seq`].
    pub seq: i64,
    /// See [`Entity::fields`].
    pub fields: Option<&'a str>,
    /// See [`Entity::key`].
    pub key: Option<&'a str>,
}

/// What is remembered about an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// What the key was used for; none when the record stands whatever is sent under the key.
    pub fingerprint: Option<Fingerprint>,
    /// What became of it, as JSON.
    pub outcome: String,
}

/// A key whose outcome may be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldKey {
    /// Whose.
    pub tenant: String,
    /// The client in whose key space it is.
    pub client: ClientId,
    /// The key.
    pub key: IdempotencyKey,
}

/// The numbers of the exchange tokens that a client may present; 0 stands for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The one that was presented last.
    pub previous: i64,
    /// The one that was handed out last.
    pub current: i64,
}

/// An entity's place in an index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// The index's name.
    pub index: String,
    /// The hash of what it is found by.
    pub value: [u8; 32],
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id in canonical form.
    pub id: String,
}

/// A type definition as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDefinition {
    /// Counts the changes of the type's schema.
    pub schema_version: u32,
    /// The definition as JSON, kept to the byte.
    pub json: String,
}

/// Why a storage could not do what was asked. Nothing of the transaction has happened, except that
/// a failed commit may turn out to have been durable; sending again under the same keys is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another writer was in the way for too long. Trying again soon helps.
    #[error("the storage is busy with another writer; try again soon")]
    Busy {
        /// What the storage itself said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no room. Trying again helps once someone has made some.
    #[error("the storage is full; make room, then try again")]
    Full {
        /// What the storage itself said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It cannot be reached or read for now. Trying again later may help.
    #[error("the storage cannot be reached or read for now; try again later")]
    Unavailable {
        /// What the storage itself said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is broken or was used wrongly. Trying again does not help.
    #[error("the storage failed and trying again will not help")]
    Internal {
        /// What the storage itself said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StorageError {
    /// An [`Internal`](Self::Internal) error.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal {
            source: source.into(),
        }
    }

    /// Whether doing the same again may succeed without a person.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unavailable { .. })
    }

    /// The cause in words, for the log only.
    pub(crate) fn cause(&self) -> String {
        self.source().map(ToString::to_string).unwrap_or_default()
    }
}
