//! A law over real stores: whatever devices do and whenever they sync, they end equal, and no value
//! is gone that nobody overwrote knowingly and that no record keeps.
#![allow(clippy::unwrap_used)] // helpers of tests

use proptest::prelude::*;
use std::collections::BTreeSet;
use syncline::Policy;
use syncline_core::{ConflictRules, DeleteRule, DeleteRules, FieldRule};
use syncline_testkit::{Fault, World};

const SCHEMA: &str =
    "CREATE TABLE item (id TEXT PRIMARY KEY NOT NULL, name TEXT, note TEXT, stock INTEGER)";
const DEVICES: [&str; 3] = ["Alice", "Bob", "Carol"];

/// One thing that happens on a device.
#[derive(Debug, Clone)]
enum Step {
    Edit { row: usize, field: &'static str },
    Add { row: usize, by: i64 },
    Delete { row: usize },
    Sync,
    LoseAnswer,
}

fn any_step() -> impl Strategy<Value = (usize, Step)> {
    let field = prop_oneof![Just("name"), Just("note")];
    let step = prop_oneof![
        4 => (0..3usize, field).prop_map(|(row, field)| Step::Edit { row, field }),
        2 => (0..3usize, -5..6i64).prop_map(|(row, by)| Step::Add { row, by }),
        1 => (0..3usize).prop_map(|row| Step::Delete { row }),
        4 => Just(Step::Sync),
        1 => Just(Step::LoseAnswer),
    ];
    (0..DEVICES.len(), step)
}

fn any_rules() -> impl Strategy<Value = ConflictRules> {
    let edit_wins = DeleteRules {
        here: Some(DeleteRule::EditWins),
        there: Some(DeleteRule::EditWins),
    };
    let merge = ConflictRules {
        merge: [
            ("stock".to_owned(), FieldRule::Counter),
            ("note".to_owned(), FieldRule::Theirs),
        ]
        .into(),
        ..ConflictRules::default()
    };
    prop_oneof![
        Just(ConflictRules::default()),
        Just(Policy::ServerWins.into()),
        Just(Policy::ClientWins.into()),
        Just(ConflictRules {
            deletes: edit_wins,
            ..merge.clone()
        }),
        Just(merge),
    ]
}

/// What was written, and what whoever wrote next had before their eyes.
#[derive(Default)]
struct Values {
    written: BTreeSet<String>,
    overwritten: BTreeSet<String>,
}

impl Values {
    /// Notes what stands in a row; nothing, if it is not there.
    fn see(&mut self, world: &mut World, name: &str, row: usize, field: &str) -> bool {
        let sql = format!("SELECT coalesce({field}, '') FROM item WHERE id = 'r{row}'");
        let seen = world.rows(name, &sql);
        let is_there = !seen.is_empty();
        self.overwritten.extend(seen);
        is_there
    }
}

fn play(world: &mut World, values: &mut Values, at: usize, (device, step): &(usize, Step)) {
    let name = DEVICES[*device];
    match step {
        Step::Sync => world.sync(name),
        Step::LoseAnswer => {
            world.fault(name, Fault::LoseAnswer);
            world.sync(name);
        }
        Step::Edit { row, field } => {
            if values.see(world, name, *row, field) {
                values.written.insert(format!("v{at}"));
                world.sql(
                    name,
                    &format!("UPDATE item SET {field} = 'v{at}' WHERE id = 'r{row}'"),
                );
            }
        }
        Step::Add { row, by } => {
            world.sql(
                name,
                &format!("UPDATE item SET stock = stock + {by} WHERE id = 'r{row}'"),
            );
        }
        Step::Delete { row } => {
            for field in ["name", "note"] {
                values.see(world, name, *row, field);
            }
            world.sql(name, &format!("DELETE FROM item WHERE id = 'r{row}'"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn everyone_ends_equal_and_no_value_is_lost_that_is_in_no_record(
        rules in any_rules(), steps in proptest::collection::vec(any_step(), 1..40),
    ) {
        let mut world = World::new(SCHEMA);
        for name in DEVICES {
            world.device_ruled(name, "item", &rules);
        }
        world.sql("Alice", "INSERT INTO item VALUES ('r0', 'n', 'n', 0), ('r1', 'n', 'n', 0), ('r2', 'n', 'n', 0)");
        world.run_until_quiet();
        let mut values = Values::default();
        for (at, step) in steps.iter().enumerate() {
            play(&mut world, &mut values, at, step);
        }
        world.run_until_quiet();
        world.run_until_quiet();
        world.assert_converged();
        world.assert_equals_server("Alice");
        let mut known = values.overwritten;
        for name in DEVICES {
            let kept = "SELECT v.value FROM syncline_conflict AS c, json_tree(c.outcome) AS v WHERE v.type = 'text'";
            known.extend(world.rows(name, kept));
        }
        for field in ["name", "note"] {
            known.extend(world.rows("Alice", &format!("SELECT {field} FROM item")));
        }
        let lost: Vec<&String> = values.written.difference(&known).collect();
        prop_assert!(lost.is_empty(), "{lost:?} are nowhere");
    }
}
