//! Scripts of a device: the app writes, the engine pushes, pulls, sweeps, begins anew, is opened.

use crate::matrix::{Scene, Script};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::Path;
use syncline_core::{FaultKind, Notice};
use syncline_fault_vfs::{Faults, set_clock};
use syncline_server::{ReadTx, Storage};
use syncline_testkit::World;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, project TEXT NOT NULL REFERENCES project(id),
                       title TEXT, done INTEGER NOT NULL DEFAULT 0);";

/// What both devices have at the beginning.
const BEGINNING: &str = "
    INSERT INTO project VALUES ('p1', 'house'), ('p2', 'garden');
    INSERT INTO task (id, project, title) VALUES ('t1', 'p1', 'one'), ('t2', 'p1', 'two'),
      ('t3', 'p1', 'three'), ('t4', 'p2', 'four'), ('t5', 'p2', 'five'), ('t6', 'p2', 'six');";

/// What Bob does before Alice's work begins, and has synced.
const BOB: &str = "
    INSERT INTO project VALUES ('pb', 'of Bob');
    INSERT INTO task (id, project, title) VALUES ('tb1', 'pb', 'b one'), ('tb2', 'p1', 'b two');
    UPDATE task SET done = 1 WHERE id = 't1';
    UPDATE task SET title = 'four of Bob' WHERE id = 't4';
    DELETE FROM task WHERE id IN ('t5', 't6');";

/// Transactions of the app on Alice's device: each three rows, marked by a project of their own.
const WRITES: [(&str, &str); 3] = [
    (
        "w1",
        "INSERT INTO project VALUES ('w1', 'first');
         UPDATE task SET title = 'of w1' WHERE id = 't1';
         INSERT INTO task (id, project, title) VALUES ('w1t', 'w1', 'new');",
    ),
    (
        "w2",
        "INSERT INTO project VALUES ('w2', 'second');
         UPDATE task SET title = 'of w2' WHERE id = 't2';
         INSERT INTO task (id, project, title) VALUES ('w2t', 'w2', 'new');",
    ),
    (
        "w3",
        "INSERT INTO project VALUES ('w3', 'third');
         UPDATE task SET title = 'of w3' WHERE id = 't4';
         INSERT INTO task (id, project, title) VALUES ('w3t', 'w3', 'new');",
    ),
];

pub(crate) fn scripts() -> Vec<Script> {
    let script = |name, prepare| Script { name, prepare };
    vec![
        script("write-and-push", || scene(Kind::Push)),
        script("pull-and-resolve", || scene(Kind::Pull)),
        script("snapshot-and-sweep", || scene(Kind::Sweep)),
        script("new-history", || scene(Kind::History)),
        script("open-and-sync", || scene(Kind::Open)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Push,
    Pull,
    Sweep,
    History,
    Open,
}

struct Devices {
    faults: Faults,
    world: World,
    kind: Kind,
    /// Head of the server's feed when the work began.
    head: i64,
    /// Transactions that were tried, and those that were acknowledged.
    tried: BTreeSet<&'static str>,
    acknowledged: BTreeSet<&'static str>,
}

fn scene(kind: Kind) -> Box<dyn Scene> {
    let mut world = World::new(SCHEMA);
    let faults = Faults::in_folder(&world.folder());
    world.configure(|config| {
        config.push_mutations = 3;
        config.page_changes = 4;
    });
    for name in ["Alice", "Bob"] {
        world.device(name);
        // Here power does fail.
        world.sql(name, "PRAGMA synchronous = FULL");
    }
    world.sql("Alice", BEGINNING);
    world.run_until_quiet();
    if kind != Kind::Push {
        world.sql("Bob", BOB);
        world.sync("Bob");
    }
    let backup = world.back_up_server("epoch-2");
    let mut scene = Devices {
        faults,
        head: 0,
        kind,
        tried: BTreeSet::new(),
        acknowledged: BTreeSet::new(),
        world,
    };
    match kind {
        Kind::Push | Kind::Pull => {}
        Kind::Sweep => scene.world.forget_cursor("Alice"),
        Kind::History => {
            // Alice has confirmed what the restored server does not know.
            scene.write(0);
            scene.world.run_until_quiet();
            scene.world.restore_server(backup);
        }
        Kind::Open => {
            scene.write(0);
            scene.world.crash("Alice");
        }
    }
    scene.head = scene.server_head();
    Box::new(scene)
}

impl Devices {
    /// The app's n-th transaction.
    fn write(&mut self, nth: usize) {
        let (name, sql) = WRITES[nth];
        self.tried.insert(name);
        let sql = format!("BEGIN IMMEDIATE; {sql} COMMIT;");
        if self.world.try_sql("Alice", &sql).is_ok() {
            self.acknowledged.insert(name);
        }
    }

    fn server_head(&self) -> i64 {
        let head = |tx: &dyn ReadTx| tx.head("default", &"default".into());
        self.world.server().storage().read(head).unwrap()
    }

    fn alice(&mut self, sql: &str) -> BTreeSet<String> {
        self.world.rows("Alice", sql).into_iter().collect()
    }

    /// S1, S2, A5: what the file holds right after the fault.
    fn judge_file(&mut self) {
        self.world.sql("Alice", "BEGIN IMMEDIATE; ROLLBACK");
        let check = self.world.rows("Alice", "PRAGMA integrity_check");
        assert_eq!(check, ["ok"], "the file is damaged");
        let guards = self.alice("SELECT held FROM syncline_guard");
        assert!(guards.is_empty(), "a guard was left behind");
        let visible = self.alice("SELECT id FROM project");
        let children = self.alice("SELECT id FROM task");
        let recorded = self.alice(
            "SELECT entity_id FROM syncline_outbox UNION SELECT entity_id FROM syncline_log",
        );
        for (name, sql) in WRITES {
            let there = visible.contains(name);
            assert!(
                there || !self.acknowledged.contains(name),
                "{name} was acknowledged and is gone"
            );
            assert!(!there || self.tried.contains(name), "{name} from nowhere");
            let child = format!("{name}t");
            assert_eq!(children.contains(&child), there, "half of {name} is there");
            for entity in [name, &child] {
                let entry = recorded.contains(entity);
                assert_eq!(entry, there, "{entity}: row and entry, after {sql}");
            }
        }
    }

    /// What everyone must have in the end, given which transactions there were.
    fn expected(&mut self, committed: &BTreeSet<&str>) -> Vec<String> {
        let app = Connection::open_in_memory().unwrap();
        app.execute_batch(SCHEMA).unwrap();
        app.execute_batch(BEGINNING).unwrap();
        if self.kind != Kind::Push {
            app.execute_batch(BOB).unwrap();
        }
        for (name, sql) in WRITES {
            if committed.contains(name) {
                app.execute_batch(sql).unwrap();
            }
        }
        let mut rows = Vec::new();
        for sql in [
            "SELECT 'project: ' || id || ' | ' || name FROM project",
            "SELECT 'task: ' || id || ' | ' || project || ' | ' || title || ' | ' || done FROM task",
        ] {
            let mut statement = app.prepare(sql).unwrap();
            let found = statement.query_map([], |row| row.get::<_, String>(0));
            rows.extend(found.unwrap().map(|row| row.unwrap()));
        }
        rows.sort();
        rows
    }
}

impl Scene for Devices {
    fn faults(&self) -> &Faults {
        &self.faults
    }

    fn work(&mut self) {
        set_clock(Some(self.world.now().unix_ms));
        match self.kind {
            Kind::Push => {
                self.write(0);
                self.write(1);
            }
            Kind::Pull | Kind::Sweep => self.write(2),
            Kind::History => self.write(1),
            Kind::Open => {
                // An error is one of its answers; the app tries again later.
                let _ = self.world.try_restart("Alice");
            }
        }
        self.world.sync("Alice");
        // It tries again by itself while things still fail.
        for _ in 0..2 {
            let now = self.world.now().monotonic_ms;
            self.world.pass(10_000);
            set_clock(Some(self.world.now().unix_ms));
            assert!(self.world.now().monotonic_ms > now);
            self.world.feed("Alice", syncline::Input::Tick);
        }
    }

    fn crash(&mut self) {
        self.world.crash("Alice");
    }

    fn replace(&mut self, folder: &Path) {
        self.world.replace_file("Alice", &folder.join("Alice.db"));
    }

    fn judge(&mut self) {
        set_clock(Some(self.world.now().unix_ms));
        for notice in &self.world.get("Alice").notices {
            if let Notice::StoreTrouble(fault) = notice {
                assert_ne!(
                    fault.kind,
                    FaultKind::Other,
                    "an error without a kind: {fault}"
                );
            }
        }
        self.judge_file();
        if !self.world.is_running("Alice") {
            self.world.restart("Alice");
        }
        // Once more before anyone looks: also the last sync of all may have been one that failed.
        self.world.run_until_quiet();
        let visible = self.alice("SELECT id FROM project WHERE id LIKE 'w_'");
        let committed: BTreeSet<&str> = visible.iter().map(String::as_str).collect();
        let expected = self.expected(&committed);
        for name in ["Alice", "Bob"] {
            assert_eq!(self.world.dump(name), expected, "{name}'s rows");
            self.world.assert_equals_server(name);
        }
        let status = self.world.status("Alice");
        let left: u64 = status.outbox.values().sum();
        assert_eq!(left, 0, "work is left: {status:?}");
        // Exactly once: three effects of each transaction, none of them twice.
        let effects = i64::try_from(committed.len()).unwrap() * 3;
        assert_eq!(
            self.server_head() - self.head,
            effects,
            "effects on the server"
        );
    }
}
