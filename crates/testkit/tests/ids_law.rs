//! Random histories with ids that SQLite gives: whatever is written, lost, repeated or crashed, in
//! the end everybody has the same rows, none is lost, none is doubled, and children have their parents.
#![allow(clippy::unwrap_used)] // helpers of tests

use proptest::prelude::*;
use syncline_testkit::{Fault, World};

/// `made` names the row for ever: ids change, names do not.
const SCHEMA: &str = "
    CREATE TABLE project (id INTEGER PRIMARY KEY, made TEXT NOT NULL, name TEXT);
    CREATE TABLE task (id INTEGER PRIMARY KEY AUTOINCREMENT, made TEXT NOT NULL,
                       project INTEGER REFERENCES project(id), of TEXT);
    CREATE TABLE step (task INTEGER NOT NULL REFERENCES task(id), number INTEGER NOT NULL, of TEXT,
                       PRIMARY KEY (task, number)) WITHOUT ROWID;
    CREATE TABLE remark (id TEXT PRIMARY KEY NOT NULL, about INTEGER, of TEXT);";

const REFERENCES: &str = r#"{"references":[{"columns":["about"],"table":"task"}]}"#;

const DEVICES: [&str; 3] = ["Alice", "Bob", "Carol"];

#[derive(Debug, Clone)]
enum Act {
    /// A project with a task, a step and a remark, in one transaction.
    Project(usize),
    /// A task of the newest own project, if it is there.
    Task(usize),
    /// The project or task that this device made n-th, under whatever id, if it is there.
    Rename(usize, usize),
    Delete(usize, usize),
    Sync(usize),
    Fault(usize, Fault),
    HoldPush(usize),
    Crash(usize),
    Release(usize),
    Pass(u64),
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::LoseRequest),
        Just(Fault::LoseAnswer),
        Just(Fault::LoseAnswer),
        Just(Fault::Repeat),
        Just(Fault::Hold),
        Just(Fault::Status(500, None)),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    let device = 0..DEVICES.len();
    (device, 0..4usize).prop_flat_map(|(device, n)| {
        prop_oneof![
            4 => Just(Act::Project(device)),
            3 => Just(Act::Task(device)),
            2 => Just(Act::Rename(device, n)),
            2 => Just(Act::Delete(device, n)),
            4 => Just(Act::Sync(device)),
            3 => any_fault().prop_map(move |fault| Act::Fault(device, fault)),
            1 => Just(Act::HoldPush(device)),
            1 => Just(Act::Crash(device)),
            2 => Just(Act::Release(device)),
            1 => (1..5_000u64).prop_map(Act::Pass),
        ]
    })
}

/// What was made and not deleted, by its name for ever.
#[derive(Default)]
struct Model {
    made: usize,
    projects: Vec<String>,
    tasks: Vec<String>,
}

impl Model {
    fn next(&mut self, device: usize) -> String {
        self.made += 1;
        format!("{}{}", DEVICES[device], self.made)
    }
}

fn is_there(world: &mut World, device: usize, table: &str, made: &str) -> bool {
    let sql = format!("SELECT 1 FROM {table} WHERE made = '{made}'");
    !world.rows(DEVICES[device], &sql).is_empty()
}

/// The n-th of those that this device made, if it is there.
fn own(world: &mut World, device: usize, table: &str, made: &[String], n: usize) -> Option<String> {
    let own: Vec<&String> = (made.iter())
        .filter(|made| made.starts_with(DEVICES[device]))
        .collect();
    let made = (*own.get(n % own.len().max(1))?).clone();
    is_there(world, device, table, &made).then_some(made)
}

fn write(world: &mut World, model: &mut Model, act: &Act) {
    match act {
        Act::Project(device) => {
            let (project, task) = (model.next(*device), model.next(*device));
            world.sql(DEVICES[*device], &format!(
                "BEGIN IMMEDIATE;
                 INSERT INTO project (made) VALUES ('{project}');
                 INSERT INTO task (made, project, of) VALUES ('{task}', last_insert_rowid(), '{project}');
                 INSERT INTO step SELECT id, 1, made FROM task WHERE made = '{task}';
                 INSERT INTO remark SELECT '{task}', id, made FROM task WHERE made = '{task}';
                 COMMIT;"
            ));
            model.projects.push(project);
            model.tasks.push(task);
        }
        Act::Task(device) => {
            let projects = model.projects.clone();
            let Some(project) = own(world, *device, "project", &projects, usize::MAX) else {
                return;
            };
            let task = model.next(*device);
            world.sql(DEVICES[*device], &format!(
                "INSERT INTO task (made, project, of) SELECT '{task}', id, made FROM project WHERE made = '{project}'"
            ));
            model.tasks.push(task);
        }
        Act::Rename(device, n) => {
            if let Some(project) = own(world, *device, "project", &model.projects.clone(), *n) {
                let sql = format!("UPDATE project SET name = 'n{n}' WHERE made = '{project}'");
                world.sql(DEVICES[*device], &sql);
            }
        }
        Act::Delete(device, n) => {
            if let Some(task) = own(world, *device, "task", &model.tasks.clone(), *n) {
                world.sql(
                    DEVICES[*device],
                    &format!(
                        "BEGIN IMMEDIATE;
                     DELETE FROM step WHERE task = (SELECT id FROM task WHERE made = '{task}');
                     DELETE FROM remark WHERE about = (SELECT id FROM task WHERE made = '{task}');
                     DELETE FROM task WHERE made = '{task}';
                     COMMIT;"
                    ),
                );
                model.tasks.retain(|made| *made != task);
            }
        }
        _ => {}
    }
}

fn play(acts: &[Act]) -> (World, Model) {
    let mut world = World::new(SCHEMA);
    world.configure(|config| {
        config.push_mutations = 3;
        config.page_changes = 2;
    });
    for name in DEVICES {
        let options = serde_json::from_str(REFERENCES).unwrap();
        world.device_declared(name, SCHEMA, [("remark".to_owned(), options)].into());
    }
    let mut model = Model::default();
    for act in acts {
        write(&mut world, &mut model, act);
        match act {
            Act::Sync(device) => world.sync(DEVICES[*device]),
            Act::Fault(device, fault) => world.fault(DEVICES[*device], fault.clone()),
            Act::HoldPush(device) => world.hold_any_push(DEVICES[*device]),
            Act::Crash(device) => {
                world.crash(DEVICES[*device]);
                world.restart(DEVICES[*device]);
            }
            Act::Release(device) => world.release(DEVICES[*device]),
            Act::Pass(ms) => world.pass(*ms),
            _ => {}
        }
    }
    for name in DEVICES {
        world.heal(name);
    }
    world.run_until_quiet();
    world.run_until_quiet();
    (world, model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_row_is_lost_or_doubled_and_every_child_has_its_parent(
        acts in proptest::collection::vec(any_act(), 1..50)
    ) {
        let (mut world, mut model) = play(&acts);
        world.assert_converged();
        model.projects.sort();
        model.tasks.sort();
        for name in DEVICES {
            world.assert_equals_server(name);
            prop_assert_eq!(world.status(name).open_conflicts, 0);
            let made = |world: &mut World, table| {
                world.rows(name, &format!("SELECT made FROM {table} ORDER BY made"))
            };
            prop_assert_eq!(made(&mut world, "project"), model.projects.clone());
            prop_assert_eq!(made(&mut world, "task"), model.tasks.clone());
            let astray = "
                SELECT 'task ' || made FROM task t
                 WHERE of IS NOT (SELECT made FROM project WHERE id = t.project)
                UNION ALL SELECT 'step ' || of FROM step s
                 WHERE of IS NOT (SELECT made FROM task WHERE id = s.task)
                UNION ALL SELECT 'remark ' || of FROM remark r
                 WHERE of IS NOT (SELECT made FROM task WHERE id = r.about)";
            prop_assert_eq!(world.rows(name, astray), Vec::<String>::new());
        }
    }
}
