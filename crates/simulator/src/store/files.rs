//! Files of devices that are used again in another world. A connection to an attached file reads a
//! schema of hundreds of kilobytes before its first statement, which takes longer than most histories;
//! so a world that ended well leaves its files and connections, and another one begins on them.
//!
//! Nothing of a history may stay: the file gets the bytes of the template, its log becomes empty, and the
//! index of the log is made void, whereupon each connection forgets what it has read of the file.

use super::drawn::Drawn;
use super::scenario::{OnDelete, Rules, Setup, Tables};
use super::schema;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use syncline_fault_vfs::Faults;
use syncline_store::Left;

/// How many kinds of files with drawn tables are kept.
const MOST_DRAWN: usize = 24;

/// What files differ in when a world begins.
pub(crate) type Kind = (Tables, Rules, OnDelete, Vec<Drawn>);

/// A device's file in a folder of its own, and who has it open.
pub(crate) struct Files {
    /// `None`: it has become something else, and is not used again.
    pub(crate) kind: Option<Kind>,
    /// Removed with it.
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    /// The app's own connection.
    pub(crate) app: Connection,
    /// What engines left.
    pub(crate) spare: Vec<Left>,
    /// What goes wrong with the files.
    pub(crate) disk: Faults,
}

/// Attached databases, to begin with.
#[derive(Default)]
pub(crate) struct Pool {
    templates: Mutex<BTreeMap<Kind, Arc<Vec<u8>>>>,
    free: Mutex<BTreeMap<Kind, Vec<Files>>>,
}

impl Pool {
    /// A file as it is after attaching, with these tables and rules.
    pub(crate) fn take(&self, setup: &Setup, within: &Path) -> Files {
        // Rules are about notes, and what becomes of tasks about the tree.
        let rules = match setup.tables.notes() {
            true => setup.rules,
            false => Rules::Default,
        };
        let on_delete = match setup.tables.tree() {
            true => setup.on_delete,
            false => OnDelete::default(),
        };
        let kind = (setup.tables, rules, on_delete, setup.at(0).drawn);
        let template = self.template(&kind, within);
        let free = (self.free.lock().unwrap_or_else(PoisonError::into_inner))
            .get_mut(&kind)
            .and_then(Vec::pop);
        match free {
            Some(files) => {
                files.renew(&template).expect("a file can be written");
                files
            }
            None => {
                let write = |path: &Path| std::fs::write(path, &*template).is_ok();
                let files = Files::new(Some(kind), within, write);
                files.expect("the file can be written")
            }
        }
    }

    /// Takes back what a world leaves, if it can be used again.
    pub(crate) fn give(&self, files: Files) {
        let rests = files.app.is_autocommit() && files.spare.iter().all(Left::rests);
        if let Some(kind) = files.kind.clone()
            && rests
            && files.disk.failed() == 0
        {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.entry(kind).or_default().push(files);
        }
    }

    fn template(&self, kind: &Kind, within: &Path) -> Arc<Vec<u8>> {
        let mut known = self
            .templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = known.get(kind) {
            return Arc::clone(made);
        }
        if !kind.3.is_empty() {
            self.make_room(&mut known);
        }
        let folder = tempfile::tempdir_in(within).expect("a folder can be made");
        let made = Arc::new(schema::attached(kind, folder.path()));
        known.insert(kind.clone(), Arc::clone(&made));
        made
    }
}

impl Pool {
    /// Drawn tables come and go: of those with them, few kinds are kept.
    fn make_room(&self, templates: &mut BTreeMap<Kind, Arc<Vec<u8>>>) {
        let is_drawn = |kind: &Kind| !kind.3.is_empty();
        if templates.keys().filter(|kind| is_drawn(kind)).count() >= MOST_DRAWN {
            templates.retain(|kind, _| !is_drawn(kind));
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.retain(|kind, _| !is_drawn(kind));
        }
    }
}

impl Files {
    /// A file that `write` puts there; `None` when it does not.
    pub(crate) fn new(
        kind: Option<Kind>,
        within: &Path,
        write: impl FnOnce(&Path) -> bool,
    ) -> Option<Self> {
        let folder = tempfile::Builder::new()
            .prefix("device-")
            .tempdir_in(within)
            .expect("a folder can be made");
        let path = folder.path().join("app.db");
        if !write(&path) {
            return None;
        }
        let disk = Faults::in_folder(folder.path());
        Some(Self {
            kind,
            app: open_app(&path),
            path,
            _folder: folder,
            spare: Vec::new(),
            disk,
        })
    }

    /// Another state of the file takes its place; no process has it open.
    pub(crate) fn replace(&mut self, backup: &Path) {
        self.kind = None;
        self.disk.heal();
        self.spare.clear();
        self.app = Connection::open_in_memory().expect("SQLite works");
        for suffix in ["", "-wal", "-shm"] {
            // Only the first is always there.
            let _ = std::fs::remove_file(format!("{}{suffix}", self.path.display()));
        }
        std::fs::copy(backup, &self.path).expect("the backup is there");
        self.app = open_app(&self.path);
        self.app
            .pragma_update(None, "journal_mode", "WAL")
            .expect("a pragma");
    }

    /// Nobody is in a transaction.
    fn renew(&self, template: &[u8]) -> std::io::Result<()> {
        self.disk.fail_each(&[]);
        let open = |suffix: &str| {
            let path = format!("{}{suffix}", self.path.display());
            OpenOptions::new().write(true).open(path)
        };
        let mut file = open("")?;
        file.write_all(template)?;
        file.set_len(template.len() as u64)?;
        open("-wal")?.set_len(0)?;
        // Both copies of the index's header, and what it knows of readers.
        open("-shm")?.write_all(&[0; 136])
    }
}

/// An app's connection.
fn open_app(path: &Path) -> Connection {
    let app = Connection::open(path).expect("the file can be opened");
    app.pragma_update(None, "foreign_keys", true)
        .expect("a pragma");
    app.pragma_update(None, "synchronous", "OFF")
        .expect("a pragma");
    app.set_prepared_statement_cache_capacity(256);
    app
}
