//! Random histories in which the server is restored from backups: in the end all devices and the
//! server have the same, every row that nobody deleted is there once, and every command was carried
//! out once.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use syncline_server::{CommandConfig, MemoryStorage, ServerConfig, TypeConfig};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, note TEXT);
    CREATE TABLE entry (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE counter (id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL);";

const DEVICES: [&str; 3] = ["Alice", "Bob", "Carol"];

#[derive(Debug, Clone)]
enum Act {
    /// A new task.
    Create(usize),
    /// A new entry, whose id SQLite assigns.
    Enter(usize),
    /// The n-th task that there is.
    Title(usize, usize),
    Note(usize, usize),
    Delete(usize, usize),
    /// A command that adds so much.
    Add(usize, i64),
    Sync(usize),
    Fault(usize, Fault),
    Offline(usize),
    Online(usize),
    Crash(usize),
    Release(usize),
    Pass(u64),
    BackUp,
    Restore,
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::LoseRequest),
        Just(Fault::LoseAnswer),
        Just(Fault::Repeat),
        Just(Fault::Hold),
        Just(Fault::Status(500, None)),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    let of = (0..DEVICES.len(), 0..8usize);
    of.prop_flat_map(|(device, n)| {
        prop_oneof![
            4 => Just(Act::Create(device)),
            2 => Just(Act::Enter(device)),
            3 => Just(Act::Title(device, n)),
            3 => Just(Act::Note(device, n)),
            1 => Just(Act::Delete(device, n)),
            2 => (1..9i64).prop_map(move |amount| Act::Add(device, amount)),
            9 => Just(Act::Sync(device)),
            2 => any_fault().prop_map(move |fault| Act::Fault(device, fault)),
            1 => Just(Act::Offline(device)),
            1 => Just(Act::Online(device)),
            1 => Just(Act::Crash(device)),
            1 => Just(Act::Release(device)),
            1 => (1..5_000u64).prop_map(Act::Pass),
            2 => Just(Act::BackUp),
            1 => Just(Act::Restore),
        ]
    })
}

/// A history, and what has to be true at its end.
struct Play {
    world: World,
    backup: MemoryStorage,
    /// Everything that was ever made, by title or text.
    made: BTreeSet<String>,
    entered: BTreeSet<String>,
    deleted: BTreeSet<String>,
    added: i64,
    restores: usize,
    steps: usize,
}

impl Play {
    fn begin() -> Self {
        let add = CommandConfig {
            add: BTreeMap::from([("n".to_owned(), "$amount".into())]),
            ..CommandConfig::default()
        };
        let counter = TypeConfig {
            commands: BTreeMap::from([("add".to_owned(), add)]),
            ..TypeConfig::default()
        };
        let types = ["task", "entry"].map(|name| (name.to_owned(), TypeConfig::default()));
        let mut types = BTreeMap::from(types);
        types.insert("counter".to_owned(), counter);
        let rules = ServerConfig {
            types,
            ..ServerConfig::default()
        };
        let mut world = World::with_server(SCHEMA, rules);
        world.configure(|config| {
            config.push_mutations = 3;
            config.page_changes = 2;
        });
        DEVICES.iter().for_each(|name| world.device(name));
        world.sql("Alice", "INSERT INTO counter VALUES ('all', 0)");
        world.run_until_quiet();
        Self {
            backup: world.copy_server(),
            world,
            made: BTreeSet::new(),
            entered: BTreeSet::new(),
            deleted: BTreeSet::new(),
            added: 0,
            restores: 0,
            steps: 0,
        }
    }

    fn play(&mut self, act: &Act) {
        self.steps += 1;
        let step = self.steps;
        match act {
            Act::Create(device) => {
                let id = format!("t{step}");
                let sql = format!("INSERT INTO task VALUES ('{id}', 'made {step}', NULL)");
                self.world.sql(DEVICES[*device], &sql);
                self.made.insert(id);
            }
            Act::Enter(device) => {
                let what = format!("entry {step}");
                let sql = format!("INSERT INTO entry (what) VALUES ('{what}')");
                self.world.sql(DEVICES[*device], &sql);
                self.entered.insert(what);
            }
            Act::Title(device, n) => self.edit(*device, *n, &format!("title = 'title {step}'")),
            Act::Note(device, n) => self.edit(*device, *n, &format!("note = 'note {step}'")),
            Act::Delete(device, n) => {
                let name = DEVICES[*device];
                if let Some(id) = self.task(name, *n) {
                    let sql = format!("DELETE FROM task WHERE id = '{id}'");
                    self.world.sql(name, &sql);
                    self.deleted.insert(id);
                }
            }
            Act::Add(device, amount) => self.add(*device, *amount),
            Act::Sync(device) => self.world.sync(DEVICES[*device]),
            Act::Fault(device, fault) => self.world.fault(DEVICES[*device], fault.clone()),
            Act::Offline(device) => self.world.offline(DEVICES[*device]),
            Act::Online(device) => self.world.online(DEVICES[*device]),
            Act::Crash(device) => {
                self.world.crash(DEVICES[*device]);
                self.world.restart(DEVICES[*device]);
            }
            Act::Release(device) => self.world.release(DEVICES[*device]),
            Act::Pass(ms) => self.world.pass(*ms),
            Act::BackUp => self.backup = self.world.copy_server(),
            Act::Restore => {
                self.restores += 1;
                let epoch = format!("after restore {}", self.restores);
                self.world.restore_server(self.backup.backup(&epoch));
            }
        }
    }

    fn task(&mut self, name: &str, n: usize) -> Option<String> {
        let ids = self.world.rows(name, "SELECT id FROM task ORDER BY id");
        ids.get(n).cloned()
    }

    fn edit(&mut self, device: usize, n: usize, set: &str) {
        let name = DEVICES[device];
        if let Some(id) = self.task(name, n) {
            let sql = format!("UPDATE task SET {set} WHERE id = '{id}'");
            self.world.sql(name, &sql);
        }
    }

    fn add(&mut self, device: usize, amount: i64) {
        let sql = format!(
            "BEGIN IMMEDIATE;
             UPDATE counter SET n = n + {amount};
             UPDATE syncline_outbox
                SET command = json_object('name', 'add', 'args', json_object('amount', {amount}))
              WHERE seq = (SELECT max(seq) FROM syncline_outbox) AND entity_type = 'counter';
             COMMIT"
        );
        self.world.sql(DEVICES[device], &sql);
        self.added += amount;
    }

    /// Everybody comes back; what is held was deleted by somebody, as people say then.
    fn end(&mut self) {
        for name in DEVICES {
            self.world.heal(name);
        }
        for _ in 0..4 {
            self.world.run_until_quiet();
        }
        for name in DEVICES {
            let now = self.world.now();
            let held: Vec<String> = self.world.status(name).held_removals.into_keys().collect();
            for entity_type in held {
                let store = self.world.get(name).engine().store();
                store.confirm_sweep(&entity_type, now).unwrap();
            }
        }
        self.world.run_until_quiet();
    }

    fn judge(&mut self) -> Result<(), TestCaseError> {
        self.world.assert_converged();
        for name in DEVICES {
            let status = self.world.status(name);
            prop_assert_eq!(
                status.outbox["failed"] + status.outbox["dead"],
                0,
                "{}",
                name
            );
            prop_assert_eq!(status.open_conflicts, 0, "{}", name);
            self.world.assert_equals_server(name);
            let ids: BTreeSet<String> = self
                .world
                .rows(name, "SELECT id FROM task")
                .into_iter()
                .collect();
            let lost: Vec<_> = self
                .made
                .difference(&self.deleted)
                .filter(|id| !ids.contains(*id))
                .collect();
            prop_assert!(lost.is_empty(), "{} lost {:?}", name, lost);
            let entries = self.world.rows(name, "SELECT what FROM entry");
            let once: BTreeSet<String> = entries.iter().cloned().collect();
            prop_assert_eq!(entries.len(), once.len(), "{}: {:?}", name, entries);
            prop_assert_eq!(&once, &self.entered, "{}", name);
            let n = self.world.rows(name, "SELECT n FROM counter");
            prop_assert_eq!(n, vec![self.added.to_string()], "{}", name);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_doubled_by_restoring_the_server(acts in proptest::collection::vec(any_act(), 1..60)) {
        let mut play = Play::begin();
        acts.iter().for_each(|act| play.play(act));
        play.play(&Act::Restore);
        play.end();
        play.judge()?;
    }
}
