//! A database file that somebody else has written, opened by a device.

use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use syncline_core::{ClaimLimits, Now, StoreAnswer, StoreWork};
use syncline_protocol::ClientId;
use syncline_store::attach::{AttachRequest, Existing, Tables, attach};
use syncline_store::{Store, StoreOptions, outbox_view, status};

const NOW: Now = Now {
    monotonic_ms: 1_000,
    unix_ms: 1_800_000_000_000,
};

const MAGIC: &[u8] = b"SQLite format 3\0";

/// An attached file with work in it, made once.
fn honest() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("honest.db");
        let mut app = Connection::open(&path).unwrap();
        app.execute_batch(
            "PRAGMA page_size = 1024;
             CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, n INTEGER);
             INSERT INTO task VALUES ('1', 'one', 1), ('2', 'two', 2);",
        )
        .unwrap();
        let request = AttachRequest {
            remote: "test:".to_owned(),
            tables: Tables::All,
            rules: Default::default(),
            existing: Existing::Upload,
            policy: Default::default(),
            declared: Default::default(),
            settings: None,
            client: ClientId::new("0123456789abcdef0123456789abcdef"),
        };
        attach(&mut app, &request, NOW).unwrap();
        app.execute("UPDATE task SET title = 'changed' WHERE id = '1'", [])
            .unwrap();
        app.pragma_update(None, "journal_mode", "DELETE").unwrap();
        drop(app);
        std::fs::read(path).unwrap()
    })
}

/// The bytes are a file of their own if they begin like one; otherwise they say where and how an
/// honest file is changed, four bytes a change: three of a place, one of a value.
fn file(data: &[u8]) -> Vec<u8> {
    if data.starts_with(MAGIC) {
        return data.to_vec();
    }
    let mut file = honest().to_vec();
    for change in data.chunks_exact(4) {
        let at =
            usize::from(change[0]) << 16 | usize::from(change[1]) << 8 | usize::from(change[2]);
        let length = file.len();
        file[at % length] = change[3];
    }
    file
}

/// Opened, worked with and looked at, it gives typed errors or answers, and is still there.
pub(crate) fn database_file(data: &[u8]) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = folder.path().join("app.db");
    std::fs::write(&path, file(data)).unwrap();
    if let Ok(app) = Connection::open(&path) {
        // A damaged file may hold views that never end; a person would stop as well.
        app.progress_handler(10_000, Some(|| true)).ok();
        let _ = status::read(&app, NOW);
        let _ = outbox_view::list(&app, outbox_view::Which::All, 10, NOW);
    }
    let options = StoreOptions::new("fuzz", 7);
    if let Ok(mut store) = Store::open(&path, options) {
        for work in [
            StoreWork::Acquire,
            StoreWork::Claim(limits()),
            StoreWork::ReadCursor("default".into()),
            StoreWork::Survey,
        ] {
            if let StoreAnswer::Failed(fault) = store.perform(&work, NOW) {
                assert!(!fault.detail.is_empty());
            }
        }
        let _ = store.release();
    }
    assert!(path.exists(), "a damaged file was removed");
}

fn limits() -> ClaimLimits {
    ClaimLimits {
        mutations: 10,
        bytes: 10_000,
        mutation_bytes: 10_000,
        alone: Default::default(),
        most_mutations: 10,
        most_bytes: 10_000,
        under_way: Default::default(),
        urgent_only: false,
        in_order: false,
    }
}

/// Where files are made: in memory, if the system has such a place.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        // The page size, the version numbers, the first cell of the schema.
        vec![0, 0, 16, 255],
        vec![0, 0, 18, 2, 0, 0, 19, 2],
        vec![0, 0, 100, 5, 0, 4, 10, 0],
        vec![0, 10, 20, 1, 0, 12, 7, 255, 0, 30, 3, 9],
        MAGIC.to_vec(),
    ]
}
