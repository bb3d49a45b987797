//! Pages that contradict themselves or what came before: refused as a whole, and the cursor stays.

use crate::support::{Device, text, upsert};
use syncline_core::{FaultKind, PageChange};
use syncline_protocol::{Change, PagePhase};

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT);";

fn task(id: &str, position: i64) -> Change {
    upsert("task", text(id), position, &[("title", "milk".into())])
}

fn valid(changes: Vec<Change>) -> Vec<PageChange> {
    changes.into_iter().map(PageChange::Valid).collect()
}

#[test]
fn a_page_that_does_not_follow_is_refused_and_changes_nothing() {
    use PagePhase::{Feed, Snapshot, SnapshotEnd};
    let mut device = Device::new(SCHEMA);
    device.refused(Feed, 5, valid(vec![task("a", 3)]));
    device.take(Snapshot, 5, valid(vec![task("a", 3)])).unwrap();
    device.refused(Feed, 6, valid(vec![task("b", 6)]));
    device.refused(Snapshot, 4, valid(vec![task("b", 6)]));
    // Where a snapshot stands outlives the program.
    device.restart();
    device.refused(Feed, 6, valid(vec![task("b", 6)]));
    device.snapshot(5, vec![task("b", 4)]);
    device.refused(Snapshot, 5, valid(vec![task("c", 5)]));
    device.refused(SnapshotEnd, 5, vec![]);
    device.refused(Feed, 4, vec![]);
    device.refused(Feed, 9, valid(vec![task("c", 10)]));
    device.refused(Feed, 9, valid(vec![task("c", 5)]));
    device.refused(Feed, 9, valid(vec![task("c", 7), task("d", 6)]));
    device.refused(Feed, i64::MAX - 1, valid(vec![task("c", i64::MAX)]));
    assert_eq!(device.rows("SELECT id FROM task ORDER BY id"), ["a", "b"]);
    device.feed(9, vec![task("c", 7), task("d", 9)]);
    assert_eq!(device.rows("SELECT count(*) FROM task"), ["4"]);
}

#[test]
fn of_two_changes_of_one_entity_in_a_page_the_later_stands() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![]);
    let later = upsert("task", text("a"), 3, &[("title", "oat milk".into())]);
    device.feed(3, vec![task("a", 2), later]);
    assert_eq!(device.rows("SELECT title FROM task"), ["oat milk"]);
}

#[test]
fn more_that_nobody_understands_than_is_kept_stops_at_a_page_that_can_be_asked_for_again() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![]);
    let odd = |n: usize| PageChange::Invalid {
        raw: format!("{{\"change\":{n}}}"),
        detail: "no change".to_owned(),
    };
    for page in 0..10 {
        let changes = (0..1000).map(|n| odd(page * 1000 + n)).collect();
        device.take(PagePhase::Feed, 1, changes).unwrap();
    }
    assert_eq!(
        device.rows("SELECT count(*) FROM syncline_inbox WHERE waits_for = 'valid'"),
        ["10000"],
        "none takes the place of another"
    );
    let fault = device.refused(PagePhase::Feed, 2, vec![odd(0)]);
    assert_eq!(fault.kind, FaultKind::BadPage);
    // What is understood goes on.
    device.feed(2, vec![task("a", 2)]);
    assert_eq!(device.rows("SELECT id FROM task"), ["a"]);
}
