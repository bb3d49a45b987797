//! Stories of conflicts that are decided by rules or by the app's own resolver, on both sides, and of
//! what is recorded of them.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::Arc;
use std::time::Duration;
use syncline::{Notice, Policy};
use syncline_core::{
    Bound, ConflictInput, ConflictRules, DeleteRule, DeleteRules, FieldRule, Invariant, Resolution,
    Resolver, Timestamp,
};
use syncline_protocol::{Fields, Value};
use syncline_store::conflict::{Choice, ConflictFilter, Loss};
use syncline_testkit::{Fault, World};

const SCHEMA: &str =
    "CREATE TABLE item (id TEXT PRIMARY KEY NOT NULL, name TEXT, stock INTEGER, at INTEGER)";

fn ruled(rules: &ConflictRules) -> World {
    let mut world = World::new(SCHEMA);
    for name in ["Alice", "Bob"] {
        world.device_ruled(name, "item", rules);
    }
    world.sql("Alice", "INSERT INTO item VALUES ('a', 'nail', 10, 1000)");
    world.run_until_quiet();
    world
}

/// Both change the row; Alice's change is on the server before Bob's is pushed, or pulled.
fn dispute(world: &mut World, alice: &str, bob: &str, pulled: bool) {
    world.sql("Alice", alice);
    world.sql("Bob", bob);
    world.sync("Alice");
    match pulled {
        true => world.pull_only("Bob"),
        false => world.sync("Bob"),
    }
    world.run_until_quiet();
    world.assert_converged();
}

fn rows(world: &mut World) -> Vec<String> {
    world.rows("Alice", "SELECT concat_ws('|', name, stock, at) FROM item")
}

#[test]
fn each_policy_decides_alike_when_a_push_is_refused_and_when_a_change_is_pulled() {
    let counter = ConflictRules {
        merge: [
            ("stock".to_owned(), FieldRule::Counter),
            ("name".to_owned(), FieldRule::Theirs),
        ]
        .into(),
        ..ConflictRules::default()
    };
    let stamped = ConflictRules {
        policy: Policy::LastWriterWins,
        timestamp: Some(Timestamp {
            field: "at".to_owned(),
            unit: Default::default(),
        }),
        ..ConflictRules::default()
    };
    for (rules, expected) in [
        (ConflictRules::default(), "bob|7|3000"),
        (Policy::ServerWins.into(), "alice|8|2000"),
        (Policy::ClientWins.into(), "bob|7|3000"),
        (Policy::LastWriterWins.into(), "bob|7|3000"),
        (stamped, "bob|7|3000"),
        (counter, "alice|5|3000"),
    ] {
        for pulled in [false, true] {
            let mut world = ruled(&rules);
            dispute(
                &mut world,
                "UPDATE item SET name = 'alice', stock = 8, at = 2000",
                "UPDATE item SET name = 'bob', stock = 7, at = 3000",
                pulled,
            );
            assert_eq!(rows(&mut world), [expected], "{rules:?}, pulled: {pulled}");
            let record = world.rows(
                "Bob",
                "SELECT id FROM syncline_conflict WHERE result IS NOT NULL",
            );
            assert_eq!(record.len(), 1, "{rules:?}");
            let store = world.get("Bob").engine().store();
            let record = store.conflict(record[0].parse().unwrap()).unwrap();
            assert_eq!(record.conflict.mutations.len(), 1);
            let lost = [&record.lost_mine, &record.lost_theirs];
            assert!(
                lost.iter().any(|lost| matches!(lost, Loss::Values(_))),
                "{record:?}"
            );
        }
    }
}

#[test]
fn a_counter_is_added_once_although_the_answer_was_lost_before_a_conflict() {
    let rules = ConflictRules {
        merge: [("stock".to_owned(), FieldRule::Counter)].into(),
        ..ConflictRules::default()
    };
    let mut world = ruled(&rules);
    world.sql("Bob", "UPDATE item SET stock = stock + 5");
    world.fault("Bob", Fault::LoseAnswer);
    world.sync("Bob");
    world.sync("Alice");
    world.sql("Alice", "UPDATE item SET stock = stock - 1");
    world.sql("Bob", "UPDATE item SET stock = stock + 2");
    world.sync("Alice");
    world.run_until_quiet();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Alice", "SELECT stock FROM item"), ["16"]);
}

/// Both decide over the deletion without knowing of each other, as they do when they sync at once.
#[test]
fn a_row_that_two_devices_create_again_after_a_deletion_is_one_row_with_what_both_did() {
    let edit_wins = ConflictRules {
        merge: [("stock".to_owned(), FieldRule::Counter)].into(),
        deletes: DeleteRules {
            here: None,
            there: Some(DeleteRule::EditWins),
        },
        ..ConflictRules::default()
    };
    for (rules, expected) in [
        (edit_wins, "screw|12|1000"),
        (Policy::ClientWins.into(), "nail|12|1000"),
    ] {
        let mut world = ruled(&rules);
        world.device_ruled("Carol", "item", &rules);
        world.sync("Carol");
        world.sql("Alice", "DELETE FROM item");
        world.sql("Bob", "UPDATE item SET name = 'screw'");
        world.sql("Carol", "UPDATE item SET stock = stock + 2");
        world.sync("Alice");
        world.fault("Carol", Fault::LoseAnswer);
        world.sync("Carol");
        world.run_until_quiet();
        world.assert_converged();
        assert_eq!(rows(&mut world), [expected]);
        let open = "SELECT id FROM syncline_conflict WHERE resolved_at IS NULL";
        assert!(world.rows("Carol", open).is_empty());
    }
}

#[test]
fn an_outcome_that_breaks_an_invariant_waits_for_a_person_and_the_person_cannot_break_it_either() {
    let rules = ConflictRules {
        merge: [("stock".to_owned(), FieldRule::Counter)].into(),
        invariants: vec![Invariant {
            name: "stock is never negative".to_owned(),
            sum: vec!["stock".to_owned()],
            min: Some(Bound::Number(Value::Integer(0))),
            max: None,
        }],
        ..ConflictRules::default()
    };
    let mut world = ruled(&rules);
    world.sql("Alice", "UPDATE item SET stock = stock - 7");
    world.sql("Bob", "UPDATE item SET stock = stock - 6");
    world.sync("Alice");
    world.sync("Bob");
    let now = world.now();
    let store = world.get("Bob").engine().store();
    let found = store.conflicts(&ConflictFilter::open()).unwrap();
    assert_eq!(found.len(), 1);
    let document = |stock: i64| {
        let fields = [
            ("name", Value::from("nail")),
            ("stock", stock.into()),
            ("at", 1i64.into()),
        ];
        Choice::Document(fields.into_iter().collect::<Fields>())
    };
    let refused = store
        .resolve_conflict(found[0].id, &document(-3), now)
        .unwrap_err();
    assert!(
        refused.to_string().contains("stock is never negative"),
        "{refused}"
    );
    store
        .resolve_conflict(found[0].id, &document(0), now)
        .unwrap();
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Alice", "SELECT stock FROM item"), ["0"]);
}

/// The app's own resolver.
struct Own(fn(&ConflictInput<'_>) -> Resolution);

impl Resolver for Own {
    fn name(&self) -> &str {
        "own"
    }

    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution {
        (self.0)(input)
    }
}

/// Both names, one after the other.
fn joined(input: &ConflictInput<'_>) -> Resolution {
    let mut fields = input.remote.cloned().unwrap_or_default();
    let name = |side: Option<&Fields>| match side.and_then(|side| side.get("name")) {
        Some(Value::Text(name)) => name.clone(),
        _ => String::new(),
    };
    let both = format!("{} and {}", name(input.remote), name(input.local));
    fields.insert("name", Value::Text(both));
    Resolution::Merged {
        fields,
        how: Default::default(),
    }
}

fn with_own(resolve: fn(&ConflictInput<'_>) -> Resolution) -> World {
    with_own_within(60_000, resolve)
}

fn with_own_within(ms: u64, resolve: fn(&ConflictInput<'_>) -> Resolution) -> World {
    let mut world = ruled(&ConflictRules::default());
    world.resolver_deadline("Bob", ms);
    world.resolver("Bob", "item", Arc::new(Own(resolve)));
    world.crash("Bob");
    world.restart("Bob");
    world.sql("Alice", "UPDATE item SET name = 'alice'");
    world.sql("Bob", "UPDATE item SET name = 'bob'");
    world.sync("Alice");
    world.sync("Bob");
    world
}

#[test]
fn an_apps_own_resolver_decides_in_place_of_the_policy() {
    let mut world = with_own(joined);
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(rows(&mut world), ["alice and bob|10|1000"]);
    let rule = "SELECT resolution FROM syncline_conflict ORDER BY id DESC LIMIT 1";
    assert_eq!(world.rows("Bob", rule), ["own"]);
}

#[test]
fn a_resolver_that_panics_or_answers_nonsense_or_too_late_loses_nothing() {
    let late = |_: &ConflictInput<'_>| {
        std::thread::sleep(Duration::from_secs(3));
        Resolution::ServerWins
    };
    let nonsense = |_: &ConflictInput<'_>| Resolution::Merged {
        fields: [("colour", "red")].into_iter().collect(),
        how: Default::default(),
    };
    for (resolve, ms, why) in [
        (
            (|_| panic!("no idea")) as fn(&ConflictInput<'_>) -> Resolution,
            60_000,
            "panicked: no idea",
        ),
        (nonsense, 60_000, "its result has no field"),
        (late, 100, "did not answer"),
    ] {
        let mut world = with_own_within(ms, resolve);
        let store = world.get("Bob").engine().store();
        let found = store.conflicts(&ConflictFilter::open()).unwrap();
        let reason = found[0].showed.reason.clone().unwrap();
        assert!(reason.contains(why), "{reason}");
        let disabled = |n: &Notice| matches!(n, Notice::ResolverDisabled { resolver, .. } if resolver == "own");
        let told = world.get("Bob").notices.iter().any(disabled);
        assert_eq!(told, why.starts_with("did not"));
        let now = world.now();
        let store = world.get("Bob").engine().store();
        store
            .resolve_conflict(found[0].id, &Choice::Mine, now)
            .unwrap();
        world.run_until_quiet();
        world.assert_converged();
        assert!(rows(&mut world)[0].starts_with("bob"));
    }
}

#[test]
fn a_thousand_pending_mutations_survive_a_new_history_of_the_server() {
    let mut world = World::new(SCHEMA);
    world.device_with("Alice", Policy::ServerWins);
    world.device("Bob");
    let many: Vec<String> = (0..1_000)
        .map(|n| format!("('k{n}', 'nail', {n}, 0)"))
        .collect();
    world.sql(
        "Alice",
        &format!("INSERT INTO item VALUES {}", many.join(", ")),
    );
    world.run_until_quiet();
    world.offline("Alice");
    world.sql("Alice", "UPDATE item SET name = 'screw'");
    world.sql("Bob", "UPDATE item SET name = 'bolt' WHERE id = 'k7'");
    world.sync("Bob");
    let backup = world.back_up_server("epoch-2");
    world.restore_server(backup);
    world.online("Alice");
    world.run_until_quiet();
    world.run_until_quiet();
    world.assert_converged();
    let count = "SELECT name || count(*) FROM item GROUP BY name ORDER BY name";
    assert_eq!(world.rows("Bob", count), ["bolt1", "screw999"]);
    let lost = "SELECT entity_id || (local ->> 'name') FROM syncline_conflict";
    assert_eq!(
        world.rows("Alice", lost),
        ["k7screw"],
        "only what was given up is recorded"
    );
}

#[test]
fn what_depended_on_a_mutation_that_became_part_of_another_depends_on_that_one() {
    let mut world = ruled(&ConflictRules::default());
    world.sql("Alice", "UPDATE item SET name = 'alice'");
    world.sync("Alice");
    world.sql(
        "Bob",
        "UPDATE item SET name = 'b1'; UPDATE item SET name = 'b2', stock = 3;
         INSERT INTO item VALUES ('z', 'after', 0, 0);
         UPDATE syncline_outbox SET depends_on = (SELECT json_array(mutation) FROM syncline_outbox ORDER BY seq LIMIT 1)
          WHERE entity_id = 'z'",
    );
    let mutations = world.rows("Bob", "SELECT mutation FROM syncline_outbox ORDER BY seq");
    world.pull_only("Bob");
    let depends = "SELECT depends_on ->> 0 FROM syncline_outbox WHERE entity_id = 'z'";
    assert_eq!(world.rows("Bob", depends), [mutations[1].as_str()]);
    let why =
        "SELECT detail ->> 'conflict' = (SELECT max(id) FROM syncline_conflict) FROM syncline_log
                WHERE kind = 'superseded'";
    assert_eq!(
        world.rows("Bob", why),
        ["1"],
        "closed with a reference to why"
    );
    world.run_until_quiet();
    world.assert_converged();
}

#[test]
fn decided_conflicts_are_forgotten_after_a_while_and_open_ones_never() {
    let mut world = World::new(SCHEMA);
    world.device("Alice");
    let rules = ConflictRules {
        merge: [("stock".to_owned(), FieldRule::Manual)].into(),
        ..ConflictRules::default()
    };
    world.device_ruled("Bob", "item", &rules);
    world.sql(
        "Alice",
        "INSERT INTO item VALUES ('a', 'nail', 10, 0), ('b', 'nail', 10, 0)",
    );
    world.run_until_quiet();
    for name in ["Alice", "Bob"] {
        world.sql(
            name,
            &format!("UPDATE item SET name = '{name}' WHERE id = 'a'"),
        );
        world.sql(name, "UPDATE item SET stock = random() WHERE id = 'b'");
        world.sync(name);
    }
    let kept = "SELECT entity_id || (resolved_at IS NULL) FROM syncline_conflict ORDER BY 1";
    assert_eq!(world.rows("Bob", kept), ["a0", "b1"]);
    world.pass(89 * 86_400_000);
    world.sync("Bob");
    assert_eq!(world.rows("Bob", kept), ["a0", "b1"]);
    world.pass(2 * 86_400_000);
    world.sync("Bob");
    assert_eq!(world.rows("Bob", kept), ["b1"]);
}
