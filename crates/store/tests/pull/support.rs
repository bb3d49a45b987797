//! A device whose server is played by the test: it hands over pages, true or false ones.

use rusqlite::Connection;
use std::path::PathBuf;
use syncline_core::{
    ClaimLimits, FaultKind, Now, Page, PageChange, PageSummary, StoreAnswer, StoreFault, StoreWork,
};
use syncline_protocol::{
    Change, ChangeKind, ClientId, EntityId, EntityType, Fields, Hello, PageEnd, PagePhase, Scope,
    ServerVersion, Value,
};
use syncline_store::attach::{AttachRequest, Existing, Tables, attach};
use syncline_store::{Checkpoint, Store, StoreOptions};
use tempfile::TempDir;

pub(crate) const NOW: Now = Now {
    monotonic_ms: 1_000,
    unix_ms: 1_800_000_000_000,
};

pub(crate) struct Device {
    _folder: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) store: Store,
    /// The app's own connection.
    pub(crate) app: Connection,
    cursor: Option<String>,
    epoch: String,
    pages: u64,
    checkpoint: Option<Checkpoint>,
}

impl Device {
    pub(crate) fn new(schema: &str) -> Self {
        Self::with(schema, Tables::All)
    }

    /// A device of which these tables are attached.
    pub(crate) fn with(schema: &str, tables: Tables) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.pragma_update(None, "synchronous", "OFF").unwrap();
        app.execute_batch(schema).unwrap();
        attach(&mut Connection::open(&path).unwrap(), &request(tables), NOW).unwrap();
        let mut device = Self {
            store: Store::open(&path, StoreOptions::new("test", 1)).unwrap(),
            _folder: folder,
            path,
            app,
            cursor: None,
            epoch: "epoch-1".to_owned(),
            pages: 0,
            checkpoint: None,
        };
        device.become_engine();
        device
    }

    fn become_engine(&mut self) {
        assert_eq!(
            self.store.perform(&StoreWork::Acquire, NOW),
            StoreAnswer::Acquired
        );
        let epoch = self.epoch.clone();
        self.greet(&epoch);
    }

    pub(crate) fn greet(&mut self, epoch: &str) -> StoreAnswer {
        epoch.clone_into(&mut self.epoch);
        let hello = hello(epoch);
        self.store.perform(&StoreWork::Greet(hello), NOW)
    }

    /// The cursor is gone: the next page is the first of a snapshot.
    pub(crate) fn start_again(&mut self) {
        self.cursor = None;
    }

    /// The program ends and starts again.
    pub(crate) fn restart(&mut self) {
        self.store.release().unwrap();
        let mut options = StoreOptions::new("test again", 2);
        options.checkpoint = self.checkpoint;
        self.store = Store::open(&self.path, options).unwrap();
        self.become_engine();
    }

    /// From here on pages are staged, or applied as they come; the program starts again for that.
    pub(crate) fn pull_with(&mut self, checkpoint: Option<Checkpoint>) {
        self.checkpoint = checkpoint;
        self.restart();
    }

    /// Where the store says that the next page starts.
    pub(crate) fn stored_cursor(&mut self) -> Option<String> {
        match self.store.perform(&StoreWork::ReadCursor(scope()), NOW) {
            StoreAnswer::Cursor(cursor) => cursor,
            other => panic!("{other:?}"),
        }
    }

    /// Hands over a page that has not reached the head.
    pub(crate) fn before_head(
        &mut self,
        phase: PagePhase,
        end: i64,
        changes: Vec<Change>,
    ) -> PageSummary {
        self.pages += 1;
        let page = Page {
            bytes: 0,
            end: PageEnd {
                cursor: format!("c{}", self.pages),
                position: end,
                count: changes.len(),
                phase,
                at_head: false,
                to_come: None,
                epoch: None,
            },
            changes: changes.into_iter().map(PageChange::Valid).collect(),
        };
        self.take_page(page).unwrap()
    }

    /// Hands over a page that follows the last one.
    pub(crate) fn take(
        &mut self,
        phase: PagePhase,
        end: i64,
        changes: Vec<PageChange>,
    ) -> Result<PageSummary, StoreFault> {
        self.pages += 1;
        let page = Page {
            bytes: 0,
            end: PageEnd {
                cursor: format!("c{}", self.pages),
                position: end,
                count: changes.len(),
                phase,
                at_head: true,
                to_come: None,
                epoch: None,
            },
            changes,
        };
        self.take_page(page)
    }

    pub(crate) fn take_page(&mut self, page: Page) -> Result<PageSummary, StoreFault> {
        let cursor = page.end.cursor.clone();
        let work = StoreWork::ApplyPage {
            scope: scope(),
            from: self.cursor.clone(),
            page,
        };
        match self.store.perform(&work, NOW) {
            StoreAnswer::PageApplied(summary) => {
                self.cursor = Some(cursor);
                Ok(summary)
            }
            StoreAnswer::Failed(fault) => Err(fault),
            other => panic!("{other:?}"),
        }
    }

    /// A feed page with these changes, up to this position.
    pub(crate) fn feed(&mut self, end: i64, changes: Vec<Change>) -> PageSummary {
        let changes = changes.into_iter().map(PageChange::Valid).collect();
        self.take(PagePhase::Feed, end, changes).unwrap()
    }

    /// A whole snapshot in one page.
    pub(crate) fn snapshot(&mut self, pinned: i64, changes: Vec<Change>) -> PageSummary {
        let changes = changes.into_iter().map(PageChange::Valid).collect();
        self.take(PagePhase::SnapshotEnd, pinned, changes).unwrap()
    }

    /// A page that has to be refused: nothing may have changed.
    pub(crate) fn refused(
        &mut self,
        phase: PagePhase,
        end: i64,
        changes: Vec<PageChange>,
    ) -> StoreFault {
        let before = self.everything();
        let fault = self.take(phase, end, changes).unwrap_err();
        assert_eq!(fault.kind, FaultKind::BadPage, "{fault}");
        assert_eq!(self.everything(), before, "after {fault}");
        fault
    }

    fn everything(&self) -> Vec<String> {
        let mut found =
            self.rows("SELECT scope || cursor || position || phase FROM syncline_cursor");
        found.extend(self.inbox());
        for table in self.rows(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'syncline%' AND name NOT LIKE 'sqlite%'",
        ) {
            found.extend(self.rows(&format!("SELECT * FROM {table}")));
        }
        found
    }

    /// The rows of a query as text, columns joined by a bar.
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        let mut statement = self.app.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let text = |index| {
                row.get::<_, rusqlite::types::Value>(index)
                    .map(|value| match value {
                        rusqlite::types::Value::Null => "NULL".to_owned(),
                        rusqlite::types::Value::Integer(integer) => integer.to_string(),
                        rusqlite::types::Value::Real(real) => real.to_string(),
                        rusqlite::types::Value::Text(text) => text,
                        rusqlite::types::Value::Blob(blob) => format!("{blob:?}"),
                    })
            };
            let texts: Result<Vec<String>, _> = (0..columns).map(text).collect();
            Ok(texts?.join("|"))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// What waits: type, id and for what.
    pub(crate) fn inbox(&self) -> Vec<String> {
        self.rows("SELECT entity_type, entity_id, waits_for FROM syncline_inbox ORDER BY 1, 2")
    }

    /// What a claim would send now, as entities; the claimed entries stay in flight.
    pub(crate) fn claimed(&mut self) -> Vec<String> {
        let limits = ClaimLimits {
            urgent_only: false,
            mutations: 100,
            bytes: 1 << 20,
            mutation_bytes: 1 << 18,
            alone: Default::default(),
            most_mutations: 100,
            most_bytes: 1 << 20,
            under_way: Default::default(),
            in_order: false,
        };
        match self.store.perform(&StoreWork::Claim(limits), NOW) {
            StoreAnswer::Claimed(claimed) => {
                let entries = claimed.batch.entries.iter();
                entries.map(|entry| entry.entity.to_string()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether the store says that a claim is worth it.
    pub(crate) fn is_claimable(&mut self) -> bool {
        match self.store.perform(&StoreWork::Survey, NOW) {
            StoreAnswer::Surveyed(survey) => survey.claimable,
            other => panic!("{other:?}"),
        }
    }

    /// Attaches further tables.
    pub(crate) fn attach_also(&mut self, tables: &[&str]) {
        let request = request(Tables::Named(
            tables.iter().map(|t| (*t).to_owned()).collect(),
        ));
        attach(&mut Connection::open(&self.path).unwrap(), &request, NOW).unwrap();
    }

    pub(crate) fn sql(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap();
    }
}

pub(crate) fn request(tables: Tables) -> AttachRequest {
    AttachRequest {
        remote: "test:".to_owned(),
        tables,
        rules: Default::default(),
        existing: Existing::Upload,
        policy: Default::default(),
        client: ClientId::new("0".repeat(32)),
        declared: Default::default(),
        settings: None,
    }
}

pub(crate) fn scope() -> Scope {
    Scope::new("default")
}

pub(crate) fn hello(epoch: &str) -> Hello {
    serde_json::from_value(serde_json::json!({
        "protocol_versions": [syncline_protocol::PROTOCOL_VERSION], "server": "test", "epoch": epoch,
        "server_time_ms": NOW.unix_ms, "principal": {"tenant": "t", "subject": "s"},
        "scopes": [{"scope": "default", "access": "write"}],
        "limits": {"push_mutations": 500, "push_bytes": 8388608, "mutation_bytes": 262144, "page_changes": 1000},
        "key_retention_ms": 86400000,
    }))
    .unwrap()
}

/// An id that is a text.
pub(crate) fn text(id: &str) -> EntityId {
    EntityId::parse(id.to_owned()).unwrap()
}

pub(crate) fn upsert(
    entity_type: &str,
    id: impl Into<EntityId>,
    position: i64,
    fields: &[(&str, Value)],
) -> Change {
    let fields: Fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    change(entity_type, id.into(), position, ChangeKind::Upsert(fields))
}

pub(crate) fn delete(entity_type: &str, id: impl Into<EntityId>, position: i64) -> Change {
    change(entity_type, id.into(), position, ChangeKind::Delete)
}

fn change(entity_type: &str, id: EntityId, position: i64, kind: ChangeKind) -> Change {
    Change {
        entity_type: EntityType::new(entity_type),
        id,
        kind,
        version: ServerVersion::new(position.to_string()),
        position,
        key: None,
    }
}
