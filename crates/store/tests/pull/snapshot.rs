//! Mark and sweep: what a snapshot does to rows that it lacks, and what people decide about them.

use crate::support::{Device, NOW, text, upsert};
use syncline_core::{
    Booking, Counted, MutationError, Notice, PageChange, StoreAnswer, StoreWork, Verdict,
};
use syncline_protocol::{Change, ConflictReason, PagePhase, RemoteState, Value};
use syncline_store::conflict::Choice;

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

/// The cursor has expired, the history is the same.
fn expired(device: &mut Device) {
    device
        .store
        .perform(&StoreWork::ForgetCursor(crate::support::scope()), NOW);
    device.start_again();
}

/// P5: a row that was edited here and deleted there, in a part of the feed that is gone, leaves.
#[test]
fn an_edited_row_that_a_snapshot_lacks_was_deleted() {
    let mut device = with_tasks(4);
    device.sql("UPDATE task SET title = 'oat milk' WHERE id = 't1'");
    expired(&mut device);
    device.snapshot(5, vec![task(0), task(2), task(3)]);
    assert_eq!(
        device.rows("SELECT id FROM task ORDER BY id"),
        ["t0", "t2", "t3"]
    );
    assert_eq!(device.rows("SELECT count(*) FROM syncline_outbox"), ["0"]);
    let sql = "SELECT entity_id, resolution, local ->> 'title' FROM syncline_conflict";
    assert_eq!(device.rows(sql), ["t1|field-merge|oat milk"]);
}

/// The same while a refused edit waits for a person, who then gives it up.
#[test]
fn a_refused_edit_of_a_row_that_a_snapshot_lacks_leaves_no_row_behind() {
    let mut device = with_tasks(4);
    device.sql(
        "UPDATE task SET title = 'oat milk' WHERE id = 't1';
         UPDATE syncline_outbox SET frozen = '{}', idempotency_key = 'k', state = 'dead'",
    );
    expired(&mut device);
    device.snapshot(5, vec![task(0), task(2), task(3)]);
    assert_eq!(device.inbox(), ["task|t1|answer"], "it may have been sent");
    let seq: i64 = device.rows("SELECT seq FROM syncline_outbox")[0]
        .parse()
        .unwrap();
    device.sql("UPDATE syncline_outbox SET frozen = NULL, state = 'failed'");
    device.store.discard(seq, NOW).unwrap();
    assert_eq!(
        device.rows("SELECT id FROM task ORDER BY id"),
        ["t0", "t2", "t3"]
    );
    assert_eq!(device.inbox(), Vec::<String>::new());
}

/// What waits for its parent, and is gone before that comes, does not appear with it.
#[test]
fn what_waits_and_is_in_no_snapshot_any_more_is_forgotten() {
    let mut device = with_tasks(3);
    // Its place is another row's.
    let fields = [("title", "bread".into()), ("place", 2.into())];
    device.feed(2, vec![upsert("task", text("t9"), 2, &fields)]);
    assert_eq!(device.inbox(), ["task|t9|constraint"]);
    expired(&mut device);
    device.snapshot(5, vec![task(0), task(1)]);
    assert_eq!(device.inbox(), Vec::<String>::new());
    assert_eq!(device.rows("SELECT id FROM task ORDER BY id"), ["t0", "t1"]);
}

/// I3: an answer to a push shows the row alive, so nobody is to be asked about it any more.
#[test]
fn a_held_row_that_a_refused_push_shows_is_held_no_longer() {
    let mut device = with_tasks(3);
    lost(&mut device);
    device.sql("DELETE FROM task WHERE id = 't1'; INSERT INTO task VALUES ('t1', 'soy milk', 1)");
    assert_eq!(device.claimed(), ["task/t1", "task/t1"]);
    let seqs: Vec<i64> = device
        .rows("SELECT seq FROM syncline_outbox ORDER BY seq")
        .iter()
        .map(|seq| seq.parse().unwrap())
        .collect();
    let fields = [("title", "bread".into()), ("place", 1.into())];
    let remote = RemoteState {
        version: "3".into(),
        position: 3,
        fields: Some(
            fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Value::clone(value)))
                .collect(),
        ),
    };
    let verdicts = [
        Verdict::Conflict {
            reason: ConflictReason::Stale,
            remote: Some(remote),
            replayed: false,
        },
        Verdict::Later {
            after_ms: 0,
            counted: Counted::No,
            error: MutationError::new("skipped", ""),
        },
    ];
    let bookings = seqs.iter().zip(verdicts);
    let bookings = bookings.map(|(seq, verdict)| Booking { seq: *seq, verdict });
    let work = StoreWork::Book {
        bookings: bookings.collect(),
        token: None,
    };
    device.store.perform(&work, NOW);
    assert_eq!(held(&device), Some(1), "only t2");
    device.store.confirm_sweep("task", NOW).unwrap();
    assert_eq!(device.rows("SELECT id FROM task ORDER BY id"), ["t0", "t1"]);
}

/// I3 for rows that were edited: as many of them as all are not removed unasked either.
#[test]
fn edited_rows_that_a_snapshot_lacks_count_among_those_that_are_held() {
    let mut device = with_tasks(3);
    device.sql("UPDATE task SET title = 'oat milk'");
    expired(&mut device);
    device.snapshot(5, vec![]);
    assert_eq!(held(&device), Some(3));
    assert_eq!(device.rows("SELECT count(*) FROM task"), ["3"]);
}

/// A conflict that waits for a person shows what the server has, and that is nothing any more.
#[test]
fn theirs_in_a_conflict_about_a_row_that_a_snapshot_lacks_is_no_row() {
    for rows in [vec![], vec![task(0), task(2), task(3)]] {
        let mut device = with_tasks(4);
        device.sql(
            "UPDATE syncline_entity_type SET conflict_rules = '{\"policy\":\"manual\"}';
             UPDATE task SET title = 'oat milk' WHERE id = 't1'",
        );
        device.restart();
        let fields = [("title", "soy milk".into()), ("place", 1.into())];
        device.feed(2, vec![upsert("task", text("t1"), 2, &fields)]);
        let open = "SELECT id FROM syncline_conflict WHERE resolved_at IS NULL";
        let id = device.rows(open)[0].parse().unwrap();
        expired(&mut device);
        device.snapshot(5, rows);
        assert_eq!(device.rows(open), [format!("{id}")]);
        device
            .store
            .resolve_conflict(id, &Choice::Theirs, NOW)
            .unwrap();
        let left = "SELECT count(*) FROM task WHERE id = 't1'";
        assert_eq!(device.rows(left), ["0"]);
        assert_eq!(device.rows("SELECT count(*) FROM syncline_outbox"), ["0"]);
    }
}

/// A create that was under way during a snapshot without it, and is refused then, was never deleted.
#[test]
fn a_refused_create_that_a_snapshot_lacked_stays_with_its_person() {
    let mut device = with_tasks(3);
    device.sql("INSERT INTO task VALUES ('new', 'tea', 9)");
    assert_eq!(device.claimed(), ["task/new"]);
    expired(&mut device);
    device.snapshot(5, (0..3).map(task).collect());
    assert_eq!(device.inbox(), ["task|new|answer"]);
    let work = StoreWork::Book {
        bookings: vec![Booking {
            seq: device.rows("SELECT seq FROM syncline_outbox")[0]
                .parse()
                .unwrap(),
            verdict: Verdict::Failed(MutationError::new("validation", "no tea")),
        }],
        token: None,
    };
    device.store.perform(&work, NOW);
    assert_eq!(device.inbox(), Vec::<String>::new());
    assert_eq!(
        device.rows("SELECT title FROM task WHERE id = 'new'"),
        ["tea"]
    );
    assert_eq!(
        device.rows("SELECT op, state FROM syncline_outbox"),
        ["create|failed"]
    );
    assert_eq!(device.rows("SELECT count(*) FROM syncline_conflict"), ["0"]);
}
