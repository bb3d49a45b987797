//! Scripts of a file without a running engine: it is attached, and its schema is migrated.

use crate::device::SCHEMA;
use crate::matrix::{Scene, Script};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use syncline_core::Now;
use syncline_fault_vfs::Faults;
use syncline_protocol::ClientId;
use syncline_store::attach::{AttachRequest, Existing, Tables, attach};
use syncline_store::migrate::migrate;
use syncline_store::{Store, StoreOptions};
use tempfile::TempDir;

const ROWS: &str = "
    INSERT INTO project VALUES ('p1', 'house'), ('p2', 'garden');
    INSERT INTO task (id, project, title) VALUES ('t1', 'p1', 'one'), ('t2', 'p2', 'two');";

const SCRIPT: &str = "
    ALTER TABLE task ADD COLUMN notes TEXT;
    ALTER TABLE task RENAME COLUMN done TO finished;
    UPDATE task SET notes = 'migrated';
    INSERT INTO project VALUES ('p3', 'by the script');";

const NOW: Now = Now {
    monotonic_ms: 1_000,
    unix_ms: 1_800_000_000_000,
};

pub(crate) fn scripts() -> Vec<Script> {
    let script = |name, prepare| Script { name, prepare };
    vec![
        script("attach", || scene(Work::Attach)),
        script("migrate", || scene(Work::Migrate)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Attach,
    Migrate,
}

struct File {
    faults: Faults,
    folder: TempDir,
    work: Work,
    acknowledged: bool,
}

fn scene(work: Work) -> Box<dyn Scene> {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::in_folder(folder.path());
    let file = File {
        faults,
        folder,
        work,
        acknowledged: false,
    };
    let app = file.app();
    app.pragma_update(None, "journal_mode", "WAL").unwrap();
    app.execute_batch(SCHEMA).unwrap();
    app.execute_batch(ROWS).unwrap();
    drop(app);
    if work == Work::Migrate {
        file.attach().unwrap();
    }
    Box::new(file)
}

fn request() -> AttachRequest {
    AttachRequest {
        remote: "test:".to_owned(),
        tables: Tables::All,
        rules: Default::default(),
        existing: Existing::Upload,
        policy: Default::default(),
        declared: Default::default(),
        settings: None,
        client: ClientId::new("0123456789abcdef0123456789abcdef"),
    }
}

impl File {
    fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    fn app(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn attach(&self) -> Result<(), syncline_store::StoreError> {
        let mut conn = Connection::open(self.path())?;
        attach(&mut conn, &request(), NOW).map(drop)
    }

    fn count(&self, sql: &str) -> i64 {
        self.app().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Whether the work is in the file: as a whole or not at all.
    fn is_done(&self) -> bool {
        let app = self.app();
        let check: String = app
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok", "the file is damaged");
        match self.work {
            Work::Attach => {
                let tables = self.count(
                    "SELECT count(*) FROM sqlite_schema
                      WHERE name LIKE 'syncline%' AND type = 'table'",
                );
                if tables == 0 {
                    let triggers = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'";
                    assert_eq!(self.count(triggers), 0, "triggers without tables");
                    return false;
                }
                assert_eq!(
                    self.count("SELECT count(*) FROM syncline_entity_type"),
                    2,
                    "both tables are attached"
                );
                let uploads = "SELECT count(*) FROM syncline_outbox";
                assert_eq!(self.count(uploads), 4, "each row is uploaded once");
                true
            }
            Work::Migrate => {
                let has = |name: &str| {
                    let sql = "SELECT count(*) FROM pragma_table_info('task') WHERE name = ?1";
                    let found = app.query_row(sql, [name], |row| row.get::<_, i64>(0));
                    found.unwrap() == 1
                };
                let done = has("notes");
                assert_eq!(has("finished"), done, "half a script");
                assert_eq!(has("done"), !done, "half a script");
                let by_script = "SELECT count(*) FROM project WHERE id = 'p3'";
                assert_eq!(self.count(by_script) == 1, done, "half a script");
                done
            }
        }
    }

    fn open(&self) -> Store {
        Store::open(&self.path(), StoreOptions::new("after", 7)).unwrap()
    }
}

impl Scene for File {
    fn faults(&self) -> &Faults {
        &self.faults
    }

    fn work(&mut self) {
        let done = match self.work {
            Work::Attach => self.attach().map_err(|error| error.to_string()),
            Work::Migrate => migrate(&self.path(), SCRIPT)
                .map(drop)
                .map_err(|error| error.to_string()),
        };
        self.acknowledged = done.is_ok();
    }

    fn crash(&mut self) {}

    fn replace(&mut self, folder: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("app.db{suffix}");
            let _ = std::fs::remove_file(self.folder.path().join(&name));
            let found = folder.join(&name);
            if found.exists() {
                std::fs::copy(found, self.folder.path().join(&name)).unwrap();
            }
        }
    }

    fn judge(&mut self) {
        let done = self.is_done();
        assert!(
            done || !self.acknowledged,
            "it was acknowledged and is gone"
        );
        if !done {
            match self.work {
                Work::Attach => self.attach().unwrap(),
                Work::Migrate => drop(migrate(&self.path(), SCRIPT).unwrap()),
            }
            assert!(self.is_done(), "the second time it has to work");
        }
        // The store opens it, and what the app writes from here on is captured.
        drop(self.open());
        let recorded =
            "SELECT count(*) FROM syncline_outbox WHERE entity_id = 't2' AND op = 'update'";
        let before = self.count(recorded);
        self.app()
            .execute("UPDATE task SET title = 'later' WHERE id = 't2'", [])
            .unwrap();
        assert_eq!(
            self.count(recorded),
            before + 1,
            "a later write is captured"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F:A7. There is one version of each schema so far, which attaching and starting make on files that
    /// fail. The day there is a second one, an older file has to be brought forward on such files too.
    #[test]
    fn f_a7_every_older_version_of_a_schema_has_a_script() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch(SCHEMA).unwrap();
        let request = request();
        attach(&mut Connection::open(&path).unwrap(), &request, NOW).unwrap();
        let metadata = "SELECT value FROM syncline_meta WHERE key = 'schema_version'";
        let metadata: i64 = app.query_row(metadata, [], |row| row.get(0)).unwrap();
        drop(syncline_server_sqlite::SqliteStorage::open(folder.path()).unwrap());
        let server = Connection::open(folder.path().join("server.db")).unwrap();
        let server: i64 = server
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        let names: Vec<&str> = crate::scripts().iter().map(|script| script.name).collect();
        for (what, newest) in [("open-metadata", metadata), ("start-server", server)] {
            for older in 1..newest {
                let name = format!("{what}-{older}");
                assert!(names.contains(&name.as_str()), "there is no script {name}");
            }
        }
    }
}
