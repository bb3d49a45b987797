//! Checkpoint mode: pages wait until one has reached the head, and then show all at once.

use crate::support::{Device, scope, text, upsert};
use syncline_core::{FaultKind, Notice, PageChange, StoreAnswer, StoreWork};
use syncline_protocol::{Change, PagePhase};
use syncline_store::Checkpoint;

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT);
    CREATE TABLE step (id TEXT PRIMARY KEY NOT NULL, task TEXT REFERENCES task(id));";

const ROOMY: Checkpoint = Checkpoint {
    changes: 1_000,
    bytes: 1 << 20,
};

fn task(id: &str, position: i64, title: &str) -> Change {
    upsert("task", text(id), position, &[("title", title.into())])
}

/// A device with tasks a, b and c as of position 3.
fn device() -> Device {
    let mut device = Device::new(SCHEMA);
    device.snapshot(3, ["a", "b", "c"].map(|id| task(id, 3, "old")).into());
    device.pull_with(Some(ROOMY));
    device
}

fn tasks(device: &Device) -> String {
    device
        .rows("SELECT id || '=' || title FROM task ORDER BY id")
        .join(" ")
}

fn staged(device: &Device) -> Vec<String> {
    device.rows("SELECT staged FROM syncline_status")
}

fn forget_cursor(device: &mut Device) {
    let forget = StoreWork::ForgetCursor(scope());
    let forgotten = device.store.perform(&forget, crate::support::NOW);
    assert_eq!(forgotten, StoreAnswer::CursorForgotten);
    device.start_again();
}

#[test]
fn rows_change_all_at_once_when_the_head_is_reached() {
    let mut device = device();
    let seen = device.before_head(
        PagePhase::Feed,
        5,
        vec![task("a", 4, "x"), task("b", 5, "x")],
    );
    assert_eq!(
        (seen.upserts, tasks(&device).as_str()),
        (0, "a=old b=old c=old")
    );
    device.before_head(PagePhase::Feed, 6, vec![task("c", 6, "x")]);
    assert_eq!(tasks(&device), "a=old b=old c=old");
    assert_eq!(staged(&device), ["3"]);
    let seen = device.feed(7, vec![task("d", 7, "x")]);
    assert_eq!(
        (seen.upserts, tasks(&device).as_str()),
        (4, "a=x b=x c=x d=x")
    );
    assert_eq!(staged(&device), ["0"]);
    let left = "SELECT count(*) FROM syncline_staged";
    assert_eq!(device.rows(left), ["0"], "nothing is left behind");
}

#[test]
fn writes_are_based_on_the_applied_position_and_staged_rows_are_not_sent() {
    let mut device = device();
    device.before_head(PagePhase::Feed, 5, vec![task("a", 5, "theirs")]);
    device.sql("UPDATE task SET title = 'mine'");
    assert_eq!(device.claimed(), ["task/b", "task/c"]);
    let bases = "SELECT DISTINCT frozen ->> '$.base.position.position' FROM syncline_outbox WHERE frozen IS NOT NULL";
    assert_eq!(
        device.rows(bases),
        ["3"],
        "what the rows reflect, not what was read"
    );
    let waits = "SELECT waits_for FROM syncline_pending WHERE entity_id = 'a'";
    assert_eq!(device.rows(waits), ["checkpoint"]);
    device.feed(6, vec![task("d", 6, "new")]);
    assert_eq!(
        tasks(&device),
        "a=mine b=mine c=mine d=new",
        "the policy has decided"
    );
    assert_eq!(device.claimed(), ["task/a", "task/b", "task/c"]);
}

#[test]
fn a_first_pull_shows_everything_or_nothing_and_survives_restarts() {
    let mut device = Device::new(SCHEMA);
    device.pull_with(Some(ROOMY));
    // The order of keys: steps come before their tasks.
    let step = upsert("step", text("s"), 2, &[("task", "b".into())]);
    device.before_head(PagePhase::Snapshot, 4, vec![step]);
    device.restart();
    assert_eq!(device.stored_cursor().as_deref(), Some("c1"));
    device.before_head(PagePhase::Snapshot, 4, vec![task("a", 1, "x")]);
    device.restart();
    device.before_head(PagePhase::SnapshotEnd, 4, vec![task("b", 3, "x")]);
    device.restart();
    device.before_head(PagePhase::Feed, 6, vec![task("c", 6, "x")]);
    assert_eq!(tasks(&device), "");
    device.sql("INSERT INTO task VALUES ('own', 'x')");
    assert_eq!(
        device.claimed(),
        ["task/own"],
        "what is new needs no position"
    );
    device.feed(7, vec![task("a", 7, "y")]);
    assert_eq!(tasks(&device), "a=y b=x c=x own=x");
    assert_eq!(device.rows("SELECT task FROM step"), ["b"]);
    // Should the answer say that it was there before: then it is gone since.
    assert_eq!(device.inbox(), ["task|own|answer"]);
}

#[test]
fn a_sweep_spares_what_came_after_the_snapshot() {
    let mut device = device();
    forget_cursor(&mut device);
    device.before_head(PagePhase::Snapshot, 9, vec![task("a", 3, "old")]);
    device.before_head(PagePhase::SnapshotEnd, 9, vec![task("b", 8, "new")]);
    assert_eq!(tasks(&device), "a=old b=old c=old");
    device.feed(11, vec![task("d", 10, "new"), task("e", 11, "new")]);
    assert_eq!(tasks(&device), "a=old b=new d=new e=new");
    assert_eq!(device.rows("SELECT count(*) FROM syncline_held"), ["0"]);
}

#[test]
fn an_empty_history_is_held_though_more_follows_before_the_head() {
    let mut device = device();
    forget_cursor(&mut device);
    device.before_head(PagePhase::SnapshotEnd, 1, vec![]);
    let summary = device.feed(2, vec![task("d", 2, "new")]);
    let told = |notice: &Notice| matches!(notice, Notice::SweepHeld { rows: 3, .. });
    assert!(summary.notices.iter().any(told), "{summary:?}");
    assert_eq!(tasks(&device), "a=old b=old c=old d=new");
}

#[test]
fn what_is_staged_of_a_lost_cursor_or_another_history_is_dropped() {
    let mut device = device();
    device.before_head(PagePhase::Feed, 5, vec![task("a", 5, "x")]);
    forget_cursor(&mut device);
    assert_eq!(
        (staged(&device), device.stored_cursor()),
        (vec!["0".into()], None)
    );
    device.before_head(PagePhase::Snapshot, 9, vec![task("b", 8, "x")]);
    device.greet("epoch-2");
    device.start_again();
    assert_eq!(
        (staged(&device), device.stored_cursor()),
        (vec!["0".into()], None)
    );
    device.snapshot(1, ["a", "b", "c"].map(|id| task(id, 1, "z")).into());
    assert_eq!(tasks(&device), "a=z b=z c=z");
}

#[test]
fn staged_pages_that_do_not_follow_the_cursor_any_more_are_asked_for_again() {
    let mut device = device();
    device.before_head(PagePhase::Feed, 5, vec![task("a", 5, "x")]);
    // Attaching more starts the pull anew, as do other changes of what is attached.
    device.sql("DELETE FROM syncline_cursor");
    assert_eq!(device.stored_cursor(), None);
    device.start_again();
    device.before_head(PagePhase::Snapshot, 9, vec![task("a", 8, "y")]);
    assert_eq!(staged(&device), ["1"]);
    device.snapshot(9, ["b", "c"].map(|id| task(id, 3, "old")).into());
    assert_eq!(tasks(&device), "a=y b=old c=old");
}

#[test]
fn the_mode_can_change_while_something_is_staged() {
    let mut device = device();
    device.before_head(PagePhase::Feed, 4, vec![task("a", 4, "x")]);
    device.pull_with(None);
    let seen = device.before_head(PagePhase::Feed, 5, vec![task("b", 5, "x")]);
    assert_eq!(
        (seen.upserts, tasks(&device).as_str()),
        (2, "a=x b=x c=old")
    );
    device.pull_with(Some(ROOMY));
    device.before_head(PagePhase::Feed, 6, vec![task("c", 6, "x")]);
    assert_eq!(tasks(&device), "a=x b=x c=old");
    device.feed(6, vec![]);
    assert_eq!(tasks(&device), "a=x b=x c=x");
}

#[test]
fn beyond_the_limit_it_takes_several_transactions_and_that_is_told() {
    for limit in [
        Checkpoint {
            changes: 2,
            ..ROOMY
        },
        Checkpoint {
            bytes: 200,
            ..ROOMY
        },
    ] {
        let mut device = device();
        device.pull_with(Some(limit));
        device.before_head(PagePhase::Feed, 4, vec![task("a", 4, "x")]);
        let seen = device.before_head(PagePhase::Feed, 5, vec![task("b", 5, "x")]);
        assert_eq!(
            (seen.notices, tasks(&device).as_str()),
            (vec![], "a=old b=old c=old")
        );
        let seen = device.before_head(PagePhase::Feed, 6, vec![task("c", 6, "x")]);
        assert_eq!(
            seen.notices,
            [Notice::CheckpointSplit { changes: 2 }],
            "{limit:?}"
        );
        assert_eq!(tasks(&device), "a=x b=x c=old");
        device.restart();
        device.feed(6, vec![]);
        assert_eq!(tasks(&device), "a=x b=x c=x");
    }
}

#[test]
fn a_page_that_does_not_follow_or_brings_too_much_rubbish_is_not_staged() {
    let mut device = device();
    device.before_head(PagePhase::Feed, 5, vec![task("a", 5, "x")]);
    device.refused(PagePhase::Feed, 4, vec![]);
    device.refused(
        PagePhase::Feed,
        6,
        vec![PageChange::Valid(task("b", 5, "x"))],
    );
    device.refused(PagePhase::Snapshot, 6, vec![]);
    let rubbish = |n: usize| PageChange::Invalid {
        raw: format!("rubbish {n}"),
        detail: "no JSON".to_owned(),
    };
    let page = |changes: Vec<PageChange>, cursor: &str| syncline_core::Page {
        bytes: 0,
        end: syncline_protocol::PageEnd {
            cursor: cursor.to_owned(),
            position: 6,
            count: changes.len(),
            phase: PagePhase::Feed,
            at_head: false,
            to_come: None,
            epoch: None,
        },
        changes,
    };
    let full = page((0..10_000).map(rubbish).collect(), "full");
    device.take_page(full).unwrap();
    let fault = device
        .take_page(page(vec![rubbish(10_000)], "more"))
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::BadPage);
    device.feed(6, vec![]);
    assert_eq!(tasks(&device), "a=x b=old c=old");
    assert_eq!(device.inbox().len(), 10_000);
}
