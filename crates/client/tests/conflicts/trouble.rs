//! Conflicts where the network or the server's history does not play along.

use crate::harness::{Device, World, assert_all, settle};
use syncline::{ConflictRules, FieldRule};

const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, stock INTEGER, name TEXT)";

fn pair(world: &World) -> (Device, Device) {
    let device = |name: &str| {
        world.device(name, SCHEMA, |builder| {
            let rules = ConflictRules {
                merge: [("stock".to_owned(), FieldRule::Counter)].into(),
                ..ConflictRules::default()
            };
            builder.conflict_rules("item", rules)
        })
    };
    (device("ann"), device("ben"))
}

/// What is added while the answer to a push is lost is added once, whether the push had taken effect
/// or was a conflict.
#[test]
fn a_counter_is_added_once_although_the_answer_was_lost() {
    for ann_first in [true, false] {
        let world = World::new();
        let (mut ann, mut ben) = pair(&world);
        ann.sql("INSERT INTO item VALUES (1, 10, 'nail')");
        settle(&mut [&mut ann, &mut ben]);
        ann.sql("UPDATE item SET stock = stock + 3");
        ben.sql("UPDATE item SET stock = stock + 20");
        if ann_first {
            ann.sync();
        }
        world.lose_next_answer();
        ben.sync();
        assert!(world.answer_was_lost());
        ben.sql("UPDATE item SET stock = stock + 100");
        settle(&mut [&mut ann, &mut ben]);
        let stock = "SELECT stock FROM item";
        assert_all(&mut [&mut ann, &mut ben], stock, &["133"]);
    }
}

/// Ben has a thousand edits to send when the server comes back with another history; Ann has changed
/// some of the same rows.
#[test]
fn a_thousand_edits_survive_a_new_history_and_are_rebased() {
    let mut world = World::new();
    let (mut ann, mut ben) = pair(&world);
    ann.sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO item SELECT i, 100, 'item ' || i FROM n",
    );
    settle(&mut [&mut ann, &mut ben]);
    ben.sql("UPDATE item SET stock = stock + 1");
    ann.sql("UPDATE item SET stock = stock + 10, name = 'seen' WHERE id % 4 = 0");
    ann.sync();
    world.reset_epoch();
    let pending = ben.alone(|sync| sync.status().unwrap().outbox["pending"]);
    assert!(pending <= 1000);
    settle(&mut [&mut ben, &mut ann]);
    let all = "SELECT count(*), stock, name = 'seen' FROM item GROUP BY 2, 3 ORDER BY 2";
    let rows = ["750|101|0", "250|111|1"];
    assert_all(&mut [&mut ann, &mut ben], all, &rows);
}
