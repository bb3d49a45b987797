//! Work that was not confirmed when the server was restored, or when a cursor expired.

use super::{BOTH, all_settled, pair, tasks};
use syncline::Policy;
use syncline_server::{Now, Purged, ServerConfig, purge};
use syncline_testkit::{Fault, World};

const DAY_MS: u64 = 86_400_000;

#[test]
fn pending_work_follows_what_is_offered_again() {
    let mut world = pair();
    let backup = world.back_up_server("epoch-2");
    world.sql("Alice", "INSERT INTO task VALUES ('4', 'jam', NULL, 0); UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.run_until_quiet();
    world.offline("Alice");
    world.sql("Alice", "UPDATE task SET note = 'plum' WHERE id = '4'; UPDATE task SET title = 'soy milk', done = 1 WHERE id = '1'; DELETE FROM task WHERE id = '2'");
    world.restore_server(backup);
    world.sync("Bob");
    world.online("Alice");
    all_settled(&mut world, &BOTH);
    assert_eq!(
        tasks(&mut world, "Bob"),
        ["1 soy milk", "3 tea", "4 jam plum"]
    );
}

/// The device takes a new identity on top: everything in its outbox counts as sent then.
#[test]
fn pending_work_follows_also_under_a_new_identity() {
    let mut world = pair();
    let backup = world.back_up_server("epoch-2");
    world.sql("Alice", "INSERT INTO task VALUES ('4', 'jam', NULL, 0); UPDATE task SET title = 'oat milk' WHERE id = '1'");
    world.run_until_quiet();
    world.offline("Alice");
    world.sql("Alice", "UPDATE task SET note = 'plum' WHERE id = '4'; UPDATE task SET title = 'soy milk' WHERE id = '1'; DELETE FROM task WHERE id = '2'");
    world.restore_server(backup);
    world.sync("Bob");
    let state = world.path("Alice").with_extension("state");
    world.crash("Alice");
    std::fs::remove_dir_all(state).unwrap();
    world.restart("Alice");
    world.online("Alice");
    all_settled(&mut world, &BOTH);
    assert_eq!(
        tasks(&mut world, "Bob"),
        ["1 soy milk", "3 tea", "4 jam plum"]
    );
    let told = |n: &syncline::Notice| *n == syncline::Notice::IdentityChanged;
    assert!(world.get("Alice").notices.iter().any(told));
}

/// Where the server always wins, it wins against other devices, not against its own backup.
#[test]
fn a_policy_by_which_the_server_wins_loses_nothing_to_a_restore() {
    let mut world = World::new(super::SCHEMA);
    world.device_with("Alice", Policy::ServerWins);
    world.sql(
        "Alice",
        "INSERT INTO task VALUES ('1', 'milk', NULL, 0), ('2', 'bread', NULL, 0)",
    );
    world.run_until_quiet();
    let backup = world.back_up_server("epoch-2");
    world.sql(
        "Alice",
        "UPDATE task SET title = 'oat milk' WHERE id = '1'; DELETE FROM task WHERE id = '2'",
    );
    world.run_until_quiet();
    world.sql("Alice", "UPDATE task SET note = 'one' WHERE id = '1'");
    world.run_until_quiet();
    world.offline("Alice");
    world.sql("Alice", "UPDATE task SET done = 1 WHERE id = '1'");
    world.restore_server(backup);
    world.online("Alice");
    all_settled(&mut world, &["Alice"]);
    let sql = "SELECT title || ' ' || note || ' ' || done FROM task";
    assert_eq!(world.rows("Alice", sql), ["oat milk one 1"]);
    assert_eq!(
        world.rows("Alice", "SELECT count(*) FROM syncline_conflict"),
        ["0"]
    );
}

/// The answer was lost, and then the server that gave it.
#[test]
fn what_was_under_way_when_the_server_was_restored_is_done_once() {
    for backup_has_it in [true, false] {
        for policy in [Policy::FieldMerge, Policy::ServerWins] {
            let mut world = World::new(super::SCHEMA);
            world.device_with("Alice", policy);
            world.sql(
                "Alice",
                "INSERT INTO task VALUES ('1', 'milk', NULL, 0), ('2', 'bread', NULL, 0)",
            );
            world.run_until_quiet();
            let older = world.back_up_server("epoch-2");
            world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'; DELETE FROM task WHERE id = '2'; INSERT INTO task VALUES ('4', 'jam', NULL, 0)");
            world.fault("Alice", Fault::LoseAnswer);
            world.sync("Alice");
            let newer = world.back_up_server("epoch-2");
            world.restore_server(if backup_has_it { newer } else { older });
            world.device_with("Bob", policy);
            all_settled(&mut world, &BOTH);
            let expected = ["1 oat milk", "4 jam"];
            assert_eq!(
                tasks(&mut world, "Bob"),
                expected,
                "{backup_has_it} {policy}"
            );
        }
    }
}

/// Held back on the way, the push arrives at a server that was restored meanwhile and has not been
/// told so; what it says of the old bases decides nothing.
#[test]
fn outcomes_that_rest_on_an_older_history_decide_nothing() {
    for policy in [Policy::FieldMerge, Policy::ServerWins] {
        let mut world = World::new(super::SCHEMA);
        world.device_with("Alice", policy);
        world.sql(
            "Alice",
            "INSERT INTO task VALUES ('1', 'milk', NULL, 0), ('2', 'bread', NULL, 0)",
        );
        world.run_until_quiet();
        let backup = world.back_up_server("epoch-2");
        world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'");
        world.run_until_quiet();
        world.sql(
            "Alice",
            "UPDATE task SET note = 'one' WHERE id = '1'; DELETE FROM task WHERE id = '2'",
        );
        world.hold_push("Alice");
        world.restore_server(backup);
        world.release("Alice");
        all_settled(&mut world, &["Alice"]);
        assert_eq!(tasks(&mut world, "Alice"), ["1 oat milk one"], "{policy}");
        assert_eq!(
            world.rows("Alice", "SELECT count(*) FROM syncline_conflict"),
            ["0"]
        );
    }
}

/// The server answered, was restored, and only then the answer came.
#[test]
fn an_answer_of_the_older_history_that_comes_late_is_no_promise() {
    let mut world = pair();
    let backup = world.back_up_server("epoch-2");
    world.sql("Alice", "UPDATE task SET note = 'one' WHERE id = '1'; INSERT INTO task VALUES ('4', 'jam', NULL, 0)");
    // Its answer is booked after the backup, before anybody knows of the other history.
    world.sync("Alice");
    world.restore_server(backup);
    world.sql("Alice", "UPDATE task SET done = 1 WHERE id IN ('1', '4')");
    all_settled(&mut world, &BOTH);
    assert_eq!(tasks(&mut world, "Bob")[0], "1 milk one");
    assert_eq!(world.rows("Bob", "SELECT sum(done) FROM task"), ["2"]);
}

#[test]
fn a_cursor_that_expired_brings_a_snapshot_and_pending_work_is_kept() {
    let mut world = pair();
    world.offline("Bob");
    world.sql("Bob", "UPDATE task SET note = 'rye' WHERE id = '2'; INSERT INTO task VALUES ('5', 'salt', NULL, 0)");
    world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'; UPDATE task SET done = 1 WHERE id = '2'");
    world.sync("Alice");
    world.forget_cursor("Bob");
    world.online("Bob");
    all_settled(&mut world, &BOTH);
    assert_eq!(
        tasks(&mut world, "Alice"),
        ["1 oat milk", "2 bread rye", "3 tea", "5 salt"]
    );
}

/// The server forgets what is past its retention.
fn forget(world: &World) -> Purged {
    let now = Now::from_unix_ms(world.now().unix_ms);
    purge(world.server().storage(), &ServerConfig::default(), now).unwrap()
}

/// As above, and here it is the server that no longer knows what was deleted since.
#[test]
fn who_was_away_for_longer_than_deletions_are_remembered_gets_a_snapshot_and_keeps_pending_work() {
    let mut world = pair();
    world.offline("Bob");
    world.sql("Bob", "UPDATE task SET note = 'rye' WHERE id = '2'; INSERT INTO task VALUES ('5', 'salt', NULL, 0)");
    world.sql(
        "Alice",
        "DELETE FROM task WHERE id = '3'; UPDATE task SET done = 1 WHERE id = '2'",
    );
    world.sync("Alice");
    assert_eq!(forget(&world), Purged::default());
    world.pass(91 * DAY_MS);
    assert_eq!(forget(&world).scopes, 1, "the deletion is forgotten");
    world.requests("Bob");
    world.online("Bob");
    let asked = world.requests("Bob");
    let pulls = asked.iter().filter(|request| **request == "pull").count();
    assert_eq!(pulls, 2, "refused, then a snapshot: {asked:?}");
    all_settled(&mut world, &BOTH);
    for name in BOTH {
        let expected = ["1 milk", "2 bread rye", "5 salt"];
        assert_eq!(tasks(&mut world, name), expected, "{name}");
    }
    let done = "SELECT done FROM task WHERE id = '2'";
    assert_eq!(world.rows("Bob", done), ["1"]);
}

#[test]
fn a_cursor_that_expired_while_a_push_had_no_answer_keeps_what_was_under_way() {
    for fault in [Fault::LoseAnswer, Fault::LoseRequest] {
        let mut world = pair();
        world.sql("Bob", "UPDATE task SET note = 'rye' WHERE id = '2'; DELETE FROM task WHERE id = '3'; INSERT INTO task VALUES ('5', 'salt', NULL, 0)");
        world.fault("Bob", fault.clone());
        world.sync("Bob");
        world.offline("Bob");
        world.sql("Alice", "UPDATE task SET title = 'oat milk' WHERE id = '1'; UPDATE task SET done = 1 WHERE id = '2'");
        world.sync("Alice");
        world.forget_cursor("Bob");
        world.sql("Bob", "UPDATE task SET title = 'loaf' WHERE id = '2'");
        world.online("Bob");
        all_settled(&mut world, &BOTH);
        assert_eq!(
            tasks(&mut world, "Alice"),
            ["1 oat milk", "2 loaf rye", "5 salt"],
            "{fault:?}"
        );
        assert_eq!(
            world.rows("Bob", "SELECT done FROM task WHERE id = '2'"),
            ["1"]
        );
    }
}

/// Both made a row of the same id: that waits for a person, whatever becomes of cursor and server.
#[test]
fn an_open_conflict_outlasts_an_expired_cursor_and_a_restore() {
    for restored in [false, true] {
        let mut world = pair();
        let backup = world.back_up_server("epoch-2");
        world.offline("Bob");
        world.sql("Alice", "INSERT INTO task VALUES ('7', 'eggs', NULL, 0)");
        world.sql("Bob", "INSERT INTO task VALUES ('7', 'salt', NULL, 0); UPDATE task SET note = 'rye' WHERE id = '2'");
        world.sync("Alice");
        world.online("Bob");
        world.run_until_quiet();
        assert_eq!(world.status("Bob").open_conflicts, 1);
        match restored {
            true => world.restore_server(backup),
            false => world.forget_cursor("Bob"),
        }
        world.run_until_quiet();
        assert_eq!(world.status("Bob").open_conflicts, 1, "{restored}");
        assert_eq!(
            tasks(&mut world, "Bob"),
            ["1 milk", "2 bread rye", "3 tea", "7 salt"]
        );
        assert_eq!(
            tasks(&mut world, "Alice"),
            ["1 milk", "2 bread rye", "3 tea", "7 eggs"]
        );
        let now = world.now();
        let seq = world.rows("Bob", "SELECT seq FROM syncline_outbox")[0]
            .parse()
            .unwrap();
        world.get("Bob").engine().store().discard(seq, now).unwrap();
        all_settled(&mut world, &BOTH);
        assert_eq!(tasks(&mut world, "Bob")[3], "7 eggs", "{restored}");
    }
}
