//! Stories of the outbox: lanes, chains, explicit dependencies, and finding what spoils a push.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use syncline::{Engine, Settings, Store, StoreOptions};
use syncline_store::{Lane, TypeOptions};
use syncline_testkit::{Fault, World};

const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, project TEXT REFERENCES project(id), title TEXT);";

fn alice() -> World {
    let mut world = World::new(SCHEMA);
    world.configure(|config| config.push_mutations = 5);
    world.device("Alice");
    world
}

fn tasks(world: &mut World, ids: std::ops::Range<u32>) {
    for id in ids {
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('t{id:03}', NULL, 'x')"),
        );
    }
}

/// In which batch an entity was first sent, counted from 0.
fn batch_of(world: &mut World, entity: &str) -> usize {
    let batches = world.batches("Alice");
    let has = |batch: &Vec<String>| batch.iter().any(|sent| sent.ends_with(entity));
    batches
        .iter()
        .position(has)
        .unwrap_or_else(|| panic!("{entity} was never sent: {batches:?}"))
}

#[test]
fn an_urgent_write_overtakes_a_backlog_and_takes_its_parent_along() {
    let mut world = alice();
    tasks(&mut world, 0..40);
    world.sql(
        "Alice",
        "INSERT INTO project VALUES ('p', 'alarm');
         INSERT INTO task VALUES ('fire', 'p', 'run');
         UPDATE syncline_outbox SET lane = 0 WHERE entity_id = 'fire';",
    );
    world.run_until_quiet();
    assert_eq!(batch_of(&mut world, "project/p"), 0);
    let fire = batch_of(&mut world, "task/fire");
    assert!(
        fire <= 2,
        "one batch was ready when its parent arrived, then: {fire}"
    );
    assert!(batch_of(&mut world, "task/t039") > 5);
    world.assert_equals_server("Alice");
}

/// Declared for the type, so that nobody has to say it with a write.
#[test]
fn a_lane_declared_for_a_type_decides_when_its_writes_go() {
    let schema = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT);
        CREATE TABLE alarm (id TEXT PRIMARY KEY NOT NULL, title TEXT);
        CREATE TABLE report (id TEXT PRIMARY KEY NOT NULL, title TEXT);";
    let mut world = World::new(schema);
    world.configure(|config| config.push_mutations = 2);
    let lane = |lane| TypeOptions {
        lane,
        ..TypeOptions::default()
    };
    let declared = [
        ("alarm".to_owned(), lane(Lane::Urgent)),
        ("report".to_owned(), lane(Lane::Background)),
    ];
    world.device_declared("Alice", schema, declared.into());
    world.sql(
        "Alice",
        "INSERT INTO report VALUES ('1', 'x'), ('2', 'x'), ('3', 'x'), ('4', 'x');
         INSERT INTO task VALUES ('1', 'x'), ('2', 'x'), ('3', 'x'), ('4', 'x');
         INSERT INTO alarm VALUES ('1', 'x'), ('2', 'x');",
    );
    world.run_until_quiet();
    let batches = world.batches("Alice");
    let types: Vec<&str> = (batches.iter().flatten())
        .filter_map(|sent| sent.split([' ', '/']).nth(1))
        .collect();
    let expected = [["alarm"; 2].as_slice(), &["task"; 4], &["report"; 4]].concat();
    assert_eq!(types, expected, "{batches:?}");
    world.assert_equals_server("Alice");
}

#[test]
fn what_was_settled_is_remembered_for_as_long_as_was_said() {
    const DAY_MS: u64 = 86_400_000;
    let mut world = alice();
    let logged = "SELECT entity_id FROM syncline_log WHERE kind = 'applied' ORDER BY id";
    for (id, days) in [("old", 60), ("young", 31), ("new", 0)] {
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('{id}', NULL, 'x')"),
        );
        world.sync("Alice");
        world.run_until_quiet();
        world.pass(days * DAY_MS);
    }
    // 90 days is the default: the oldest outcome is 91 days old when the newest is booked.
    assert_eq!(world.rows("Alice", logged), ["young", "new"]);
    world.assert_equals_server("Alice");
}

#[test]
fn of_what_was_settled_as_many_rows_are_remembered_as_was_said() {
    let mut world = alice();
    let mut settings = Settings::default();
    settings.set("log_rows", 2).unwrap();
    let options = StoreOptions::new("an engine with settings", 99).settings(&settings);
    let store = Store::open(&world.path("Alice"), options).unwrap();
    *world.get("Alice").engine() = Engine::new(store, settings.config(), 99).unwrap();
    for id in ["a", "b", "c", "d"] {
        world.sql(
            "Alice",
            &format!("INSERT INTO task VALUES ('{id}', NULL, 'x')"),
        );
        world.sync("Alice");
    }
    let logged = "SELECT kind || ' ' || entity_id FROM syncline_log ORDER BY id";
    assert_eq!(world.rows("Alice", logged), ["applied c", "applied d"]);
    world.assert_equals_server("Alice");
}

#[test]
fn earlier_writes_of_an_urgent_entity_go_first() {
    let mut world = alice();
    tasks(&mut world, 0..40);
    world.sync("Alice");
    tasks(&mut world, 40..80);
    world.offline("Alice");
    world.sql(
        "Alice",
        "DELETE FROM task WHERE id = 't000';
         INSERT INTO task VALUES ('t000', NULL, 'again');
         UPDATE task SET title = 'now' WHERE id = 't000';
         UPDATE syncline_outbox SET lane = 0 WHERE seq = (SELECT max(seq) FROM syncline_outbox)",
    );
    let before = world.batches("Alice").len();
    world.online("Alice");
    let first = world.batches("Alice")[before].clone();
    assert_eq!(
        first[..3],
        ["Delete task/t000", "Create task/t000", "Update task/t000"],
        "{first:?}"
    );
    world.run_until_quiet();
    world.assert_equals_server("Alice");
}

#[test]
fn background_writes_wait_but_not_for_ever() {
    let mut world = alice();
    tasks(&mut world, 0..1);
    world.sql("Alice", "UPDATE syncline_outbox SET lane = 2");
    tasks(&mut world, 1..200);
    world.sql(
        "Alice",
        "UPDATE syncline_outbox SET lane = 0 WHERE lane IS NULL",
    );
    world.run_until_quiet();
    let sent = batch_of(&mut world, "task/t000");
    assert!((1..8).contains(&sent), "sent in batch {sent}");
    world.assert_equals_server("Alice");
}

#[test]
fn a_parent_is_not_deleted_before_a_background_write_that_references_it() {
    let mut world = alice();
    world.sql("Alice", "INSERT INTO project VALUES ('p', 'old')");
    world.run_until_quiet();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('t', 'p', 'last');
         UPDATE syncline_outbox SET lane = 2;
         UPDATE task SET project = NULL WHERE id = 't';
         UPDATE syncline_outbox SET lane = 2;
         DELETE FROM project",
    );
    world.run_until_quiet();
    let last = |world: &mut World, what: &str| {
        let batches = world.batches("Alice").concat();
        batches.iter().rposition(|sent| sent == what).unwrap()
    };
    assert!(last(&mut world, "Delete project/p") > last(&mut world, "Create task/t"));
    world.assert_equals_server("Alice");
}

#[test]
fn a_row_deleted_and_made_again_goes_in_one_request() {
    let mut world = alice();
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, 'first')");
    world.run_until_quiet();
    let before = world.batches("Alice").len();
    world.sql(
        "Alice",
        "DELETE FROM task; INSERT INTO task VALUES ('a', NULL, 'second')",
    );
    world.sync("Alice");
    assert_eq!(
        world.batches("Alice")[before],
        ["Delete task/a", "Create task/a"]
    );
    world.run_until_quiet();
    world.assert_equals_server("Alice");
}

#[test]
fn a_chain_whose_first_link_breaks_is_decided_anew_as_a_whole() {
    let mut world = alice();
    world.device("Bob");
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, 'first')");
    world.run_until_quiet();
    world.sql("Bob", "UPDATE task SET title = 'from Bob'");
    world.sync("Bob");
    world.offline("Alice");
    world.sql(
        "Alice",
        "DELETE FROM task; INSERT INTO task VALUES ('a', NULL, 'second')",
    );
    world.online("Alice");
    world.run_until_quiet();
    world.assert_converged();
    assert_eq!(world.rows("Bob", "SELECT title FROM task"), ["second"]);
}

#[test]
fn a_lost_answer_to_a_chain_doubles_nothing() {
    let mut world = alice();
    world.sql("Alice", "INSERT INTO task VALUES ('a', NULL, 'first')");
    world.run_until_quiet();
    world.sql(
        "Alice",
        "DELETE FROM task; INSERT INTO task VALUES ('a', NULL, 'second')",
    );
    world.fault("Alice", Fault::LoseAnswer);
    world.run_until_quiet();
    world.assert_equals_server("Alice");
    assert_eq!(world.on_server("task").len(), 1);
}

#[test]
fn a_write_waits_for_the_ones_that_it_names() {
    let mut world = alice();
    world.poison("Alice", "needed");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, 'needed');
         INSERT INTO task VALUES ('b', NULL, 'waits');
         INSERT INTO task VALUES ('c', NULL, 'free');
         UPDATE syncline_outbox
            SET depends_on = (SELECT json_array(mutation) FROM syncline_outbox WHERE entity_id = 'a')
          WHERE entity_id = 'b'",
    );
    world.sync("Alice");
    world.settle("Alice");
    assert_eq!(world.on_server("task").keys().collect::<Vec<_>>(), ["c"]);
    world.heal("Alice");
    world.sql(
        "Alice",
        "UPDATE syncline_outbox SET state = 'pending', not_before = 0",
    );
    world.run_until_quiet();
    assert_eq!(world.on_server("task").len(), 3);
    assert!(batch_of(&mut world, "task/b") > batch_of(&mut world, "task/c"));
    world.assert_equals_server("Alice");
}

#[test]
fn writes_that_name_each_other_still_go() {
    let mut world = alice();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, 'x'), ('b', NULL, 'y');
         UPDATE syncline_outbox
            SET depends_on = (SELECT json_array(other.mutation) FROM syncline_outbox other
                               WHERE other.entity_id <> syncline_outbox.entity_id)",
    );
    world.run_until_quiet();
    world.assert_equals_server("Alice");
}

#[test]
fn a_dependency_that_cannot_be_read_fails_its_own_entry_only() {
    let mut world = alice();
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, 'x');
         UPDATE syncline_outbox SET depends_on = 'nonsense';
         INSERT INTO task VALUES ('b', NULL, 'y')",
    );
    world.run_until_quiet();
    assert_eq!(world.status("Alice").outbox["failed"], 1);
    assert_eq!(world.on_server("task").keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn the_next_batch_is_ready_before_the_answer_is_there() {
    let mut world = alice();
    world.sync("Alice");
    tasks(&mut world, 0..12);
    world.fault("Alice", Fault::Hold);
    world.sync("Alice");
    let in_flight = "SELECT count(*) FROM syncline_outbox WHERE state = 'in_flight'";
    assert_eq!(
        world.rows("Alice", in_flight),
        ["10"],
        "one sent, one ready"
    );
    world.release("Alice");
    world.run_until_quiet();
    world.assert_equals_server("Alice");
    assert_eq!(world.on_server("task").len(), 12);
    assert_eq!(world.traffic("Alice").mutations, 12, "each sent once");
}

#[test]
fn an_edit_made_while_its_batch_waits_for_its_turn_survives() {
    let mut world = alice();
    world.sync("Alice");
    tasks(&mut world, 0..10);
    world.fault("Alice", Fault::Hold);
    world.sync("Alice");
    world.sql("Alice", "UPDATE task SET title = 'edited'");
    world.release("Alice");
    world.run_until_quiet();
    world.assert_equals_server("Alice");
    let titles = "SELECT DISTINCT title FROM task";
    assert_eq!(world.rows("Alice", titles), ["edited"]);
}

#[test]
fn a_write_that_makes_the_server_hang_ends_dead_alone() {
    let mut world = alice();
    tasks(&mut world, 0..20);
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('bad', NULL, 'hangs the server')",
    );
    tasks(&mut world, 20..40);
    world.hang("Alice", "hangs the server");
    world.run_until_quiet();
    assert_eq!(world.on_server("task").len(), 40, "the rest has gone");
    for id in 40..60 {
        tasks(&mut world, id..id + 1);
        world.run_until_quiet();
    }
    let status = world.status("Alice");
    assert_eq!((status.outbox["dead"], status.outbox["pending"]), (1, 0));
    assert_eq!(world.on_server("task").len(), 60);
    world.heal("Alice");
    world.sql(
        "Alice",
        "UPDATE syncline_outbox SET state = 'pending', attempts = 0",
    );
    world.run_until_quiet();
    world.assert_equals_server("Alice");
}

#[test]
fn a_lone_write_that_always_fails_is_told_after_an_hour_and_blocks_no_pull() {
    let mut world = alice();
    world.device("Bob");
    world.sql("Alice", "INSERT INTO task VALUES ('bad', NULL, 'spoils')");
    world.poison("Alice", "spoils");
    let hour = 3_600_000;
    let (from, mut last_alive) = (world.now().monotonic_ms, 0);
    for round in 0..400 {
        world.sql(
            "Bob",
            &format!("INSERT INTO task VALUES ('b{round}', NULL, 'x')"),
        );
        world.sync("Bob");
        world.pass(30_000);
        world.sync("Alice");
        if world.status("Alice").outbox["dead"] > 0 {
            break;
        }
        last_alive = world.now().monotonic_ms - from;
    }
    assert!(last_alive > hour, "given up after {last_alive} ms");
    assert_eq!(world.status("Alice").outbox["dead"], 1);
    let pulled = world.rows("Alice", "SELECT count(*) > 100 FROM task");
    assert_eq!(pulled, ["1"]);
}

/// Makes Alice sync every half minute for so long.
fn keep_at_it(world: &mut World, minutes: u64) {
    for _ in 0..2 * minutes {
        world.pass(30_000);
        world.sync("Alice");
    }
}

#[test]
fn two_writes_that_make_the_server_hang_end_dead_one_after_the_other() {
    let mut world = alice();
    world.sync("Alice");
    tasks(&mut world, 0..2);
    world.hang("Alice", "t00");
    keep_at_it(&mut world, 50);
    assert_eq!(world.status("Alice").outbox["dead"], 0);
    keep_at_it(&mut world, 70);
    assert_eq!(world.status("Alice").outbox["dead"], 1);
    keep_at_it(&mut world, 120);
    let status = world.status("Alice");
    assert_eq!((status.outbox["dead"], status.outbox["pending"]), (2, 0));
}

/// O4: a server that takes no push for hours costs one mutation an hour at most, however many there are.
#[test]
fn a_server_that_reads_and_does_not_write_costs_one_mutation_an_hour() {
    let mut world = alice();
    world.sync("Alice");
    tasks(&mut world, 0..4);
    world.poison("Alice", "t00");
    keep_at_it(&mut world, 55);
    assert_eq!(world.status("Alice").outbox["dead"], 0);
    keep_at_it(&mut world, 120);
    let dead = world.status("Alice").outbox["dead"];
    assert!((1..=2).contains(&dead), "{dead}");
    world.heal("Alice");
    keep_at_it(&mut world, 10);
    assert_eq!(world.on_server("task").len() + dead as usize, 4);
}

#[test]
fn an_hour_of_503_kills_nothing() {
    let mut world = alice();
    tasks(&mut world, 0..20);
    let from = world.now().monotonic_ms;
    while world.now().monotonic_ms < from + 3_600_000 {
        world.fault("Alice", Fault::Status(503, None));
        world.sync("Alice");
        world.pass(20_000);
    }
    let status = world.status("Alice");
    assert_eq!(status.outbox["dead"] + status.outbox["failed"], 0);
    world.heal("Alice");
    world.run_until_quiet();
    assert_eq!(world.on_server("task").len(), 20);
}

#[test]
fn a_mutation_goes_under_its_own_id_and_a_coalesced_one_names_what_it_covers() {
    let mut world = alice();
    world.sync("Alice");
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('a', NULL, 'x'), ('b', NULL, 'y');
         UPDATE task SET title = 'z' WHERE id = 'b'",
    );
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    let keys = "SELECT entity_id || ' ' || json_array_length(coalesce(covers, '[]')) || ' ' || (idempotency_key = mutation)
                  FROM syncline_outbox ORDER BY seq";
    // A copy of the file, made in between, would find the same key for the row that is made.
    assert_eq!(world.rows("Alice", keys), ["a 0 1", "b 2 1"]);
    world.run_until_quiet();
    world.sql(
        "Alice",
        "UPDATE task SET title = 'u' WHERE id = 'a'; UPDATE task SET title = 'v' WHERE id = 'a'",
    );
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    // And for edits that became one, as long as it can be told what each of them said.
    assert_eq!(world.rows("Alice", keys), ["a 2 1"]);
    world.run_until_quiet();
    let edits = "UPDATE task SET title = title || '+' WHERE id = 'a';";
    world.sql("Alice", &edits.repeat(40));
    world.fault("Alice", Fault::LoseRequest);
    world.sync("Alice");
    assert_eq!(world.rows("Alice", keys), ["a 40 0"]);
}
