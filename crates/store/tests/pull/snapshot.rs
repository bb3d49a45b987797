//! Mark and sweep: what a snapshot does to rows that it lacks, and what people decide about them.

use crate::support::{Device, NOW, text, upsert};
use syncline_core::{Notice, PageChange, StoreAnswer, StoreWork};
use syncline_protocol::{Change, PagePhase};

const SCHEMA: &str =
    "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, place INTEGER UNIQUE);";

fn task(n: i64) -> Change {
    let fields = [("title", "milk".into()), ("place", n.into())];
    upsert("task", text(&format!("t{n}")), 1, &fields)
}

fn with_tasks(count: i64) -> Device {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, (0..count).map(task).collect());
    device
}

fn held(device: &Device) -> Option<u64> {
    let status = device.store.status(NOW).unwrap();
    status.held_removals.get("task").copied()
}

/// The server's history is another one, without these rows.
fn lost(device: &mut Device) {
    device.greet("epoch-2");
    device.start_again();
    let summary = device.snapshot(1, vec![task(0)]);
    let told = |notice: &Notice| matches!(notice, Notice::SweepHeld { rows: 2, .. });
    assert!(summary.notices.iter().any(told), "{summary:?}");
}

#[test]
fn a_held_removal_is_done_when_it_is_confirmed() {
    let mut device = with_tasks(3);
    lost(&mut device);
    assert_eq!(held(&device), Some(2));
    device.restart();
    assert_eq!(held(&device), Some(2), "it outlives the program");
    assert_eq!(device.store.confirm_sweep("task", NOW).unwrap(), 2);
    assert_eq!(device.rows("SELECT id FROM task"), ["t0"]);
    assert_eq!(held(&device), None);
    assert_eq!(device.rows("SELECT count(*) FROM syncline_outbox"), ["0"]);
    assert!(
        device.store.confirm_sweep("task", NOW).is_err(),
        "nothing is held any more"
    );
    assert!(device.store.restore_sweep("nothing", NOW).is_err());
}

#[test]
fn held_rows_are_offered_again_as_creates_when_they_are_restored() {
    let mut device = with_tasks(3);
    lost(&mut device);
    assert_eq!(device.store.restore_sweep("task", NOW).unwrap(), 2);
    assert_eq!(held(&device), None);
    assert_eq!(
        device.rows("SELECT op, entity_id, payload ->> 'place' FROM syncline_outbox ORDER BY 2"),
        ["create|t1|1", "create|t2|2"]
    );
    assert_eq!(device.claimed(), ["task/t1", "task/t2"]);
}

#[test]
fn an_edit_of_a_held_row_waits_and_is_part_of_it_when_it_is_restored() {
    let mut device = with_tasks(3);
    device.sql("UPDATE task SET title = 'oat milk' WHERE id = 't1'");
    lost(&mut device);
    device.sql(
        "UPDATE task SET title = 'soy milk' WHERE id = 't2'; DELETE FROM task WHERE id = 't0'",
    );
    assert_eq!(device.claimed(), ["task/t0"], "only what the server knows");
    device.store.restore_sweep("task", NOW).unwrap();
    assert_eq!(
        device.rows("SELECT op, entity_id, payload ->> 'title' FROM syncline_outbox WHERE entity_id <> 't0' ORDER BY 2"),
        ["create|t1|oat milk", "create|t2|soy milk"]
    );
}

#[test]
fn a_held_row_of_which_the_feed_speaks_is_held_no_longer() {
    let mut device = with_tasks(3);
    lost(&mut device);
    let fields = [("title", "bread".into()), ("place", 1.into())];
    device.feed(2, vec![upsert("task", text("t1"), 2, &fields)]);
    assert_eq!(held(&device), Some(1));
    assert_eq!(device.store.confirm_sweep("task", NOW).unwrap(), 1);
    assert_eq!(
        device.rows("SELECT id, title FROM task ORDER BY id"),
        ["t0|milk", "t1|bread"]
    );
}

#[test]
fn a_snapshot_goes_on_after_a_crash_and_sweeps_what_no_page_had() {
    let mut device = with_tasks(4);
    device
        .store
        .perform(&StoreWork::ForgetCursor(crate::support::scope()), NOW);
    device.start_again();
    let page = |n| vec![PageChange::Valid(task(n))];
    device.take(PagePhase::Snapshot, 5, page(0)).unwrap();
    device.restart();
    // Nothing is pushed meanwhile but creates: there is no position to base a write on.
    device.sql("UPDATE task SET title = 'oat milk' WHERE id = 't0'; INSERT INTO task VALUES ('new', 'tea', 9)");
    assert_eq!(device.claimed(), ["task/new"]);
    device.take(PagePhase::Snapshot, 5, page(1)).unwrap();
    device.restart();
    device.take(PagePhase::SnapshotEnd, 5, page(2)).unwrap();
    assert_eq!(
        device.rows("SELECT id, title FROM task ORDER BY id"),
        ["new|tea", "t0|oat milk", "t1|milk", "t2|milk"]
    );
    assert_eq!(held(&device), None);
    assert_eq!(device.claimed(), ["task/t0", "task/new"]);
}

#[test]
fn a_push_that_the_cursor_had_not_reached_does_not_spare_a_row_deleted_since() {
    let mut device = with_tasks(3);
    // Pushed at position 3, deleted by another device at 4; then the cursor expired.
    device.sql(
        "INSERT INTO syncline_entity_state (entity_type, entity_id, version, position) VALUES ('task', 't1', '3', 3),
                ('task', 't2', '9', 9)",
    );
    device
        .store
        .perform(&StoreWork::ForgetCursor(crate::support::scope()), NOW);
    device.start_again();
    device.snapshot(5, vec![task(0)]);
    assert_eq!(
        device.rows("SELECT id FROM task ORDER BY id"),
        ["t0", "t2"],
        "what was pushed since the snapshot began is spared"
    );
}

#[test]
fn nothing_of_another_history_is_used_any_more() {
    let mut device = with_tasks(2);
    device.sql(
        "INSERT INTO syncline_entity_state (entity_type, entity_id, version, position) VALUES ('task', 't1', '3', 3)",
    );
    let odd = upsert("tag", text("x"), 2, &[]);
    device.feed(2, vec![odd]);
    device.sql("UPDATE task SET title = 'tea'");
    let answer = device.greet("epoch-2");
    assert!(matches!(
        answer,
        StoreAnswer::Greeted {
            epoch_changed: true,
            ..
        }
    ));
    for table in ["syncline_cursor", "syncline_entity_state", "syncline_inbox"] {
        assert_eq!(
            device.rows(&format!("SELECT count(*) FROM {table}")),
            ["0"],
            "{table}"
        );
    }
    assert_eq!(
        device.rows("SELECT count(*) FROM syncline_outbox"),
        ["2"],
        "work is kept"
    );
    assert_eq!(
        device.claimed(),
        Vec::<String>::new(),
        "there is no position yet"
    );
    let again = device.greet("epoch-2");
    assert!(
        matches!(
            again,
            StoreAnswer::Greeted {
                epoch_changed: false,
                ..
            }
        ),
        "one reset per change"
    );
}
