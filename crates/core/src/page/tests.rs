//! Every way in which a page can contradict itself or what came before.

use super::*;
use syncline_protocol::{EntityId, EntityType, Fields, ServerVersion};

fn change(position: i64) -> PageChange {
    PageChange::Valid(Change {
        entity_type: EntityType::new("task"),
        id: EntityId::from(position),
        kind: ChangeKind::Delete,
        version: ServerVersion::new("1"),
        position,
        key: None,
    })
}

fn page(phase: PagePhase, end: i64, positions: &[i64]) -> Page {
    Page {
        bytes: 0,
        changes: positions.iter().map(|position| change(*position)).collect(),
        end: PageEnd {
            cursor: "c".to_owned(),
            position: end,
            count: positions.len(),
            phase,
            at_head: true,
            to_come: None,
            epoch: None,
        },
    }
}

fn at(position: i64, in_snapshot: bool) -> Option<Standing> {
    Some(Standing {
        position,
        in_snapshot,
    })
}

#[test]
fn a_page_that_continues_what_is_stored_is_taken() {
    use PagePhase::{Feed, Snapshot, SnapshotEnd};
    for (stored, page) in [
        (None, page(Snapshot, 9, &[12, 3, 7])),
        (None, page(SnapshotEnd, 9, &[])),
        (at(9, true), page(Snapshot, 9, &[1])),
        (at(9, true), page(SnapshotEnd, 9, &[20])),
        (at(9, false), page(Feed, 9, &[])),
        (at(9, false), page(Feed, 12, &[10, 12])),
        (at(9, false), page(Feed, 15, &[10])),
    ] {
        assert_eq!(check_order(&page, stored), Ok(()), "{stored:?} {page:?}");
        assert_eq!(check_answer(&page, 10), Ok(()));
    }
}

#[test]
fn a_page_that_contradicts_what_is_stored_is_refused() {
    use PagePhase::{Feed, Snapshot, SnapshotEnd};
    for (stored, page) in [
        (None, page(Feed, 9, &[])),
        (at(9, true), page(Feed, 12, &[10])),
        (at(9, false), page(Snapshot, 9, &[])),
        (at(9, false), page(SnapshotEnd, 9, &[])),
        (at(9, false), page(Feed, 8, &[])),
        (at(9, true), page(Snapshot, 8, &[])),
        (at(9, false), page(Feed, 12, &[9])),
        (at(9, false), page(Feed, 12, &[11, 10])),
        (at(9, false), page(Feed, 12, &[11, 11])),
        (at(9, false), page(Feed, 12, &[13])),
        (at(9, false), page(Feed, 12, &[i64::MAX])),
        (at(9, false), page(Feed, 12, &[i64::MIN])),
    ] {
        assert!(check_order(&page, stored).is_err(), "{stored:?} {page:?}");
    }
}

#[test]
fn a_page_that_does_not_answer_its_request_is_refused() {
    let good = page(PagePhase::Feed, 9, &[1, 2, 3]);
    assert_eq!(check_answer(&good, 3), Ok(()));
    assert_eq!(
        check_answer(&good, 2),
        Err(PageFault::TooMany { asked: 2, came: 3 })
    );
    let mut counted = good.clone();
    counted.end.count = 4;
    assert_eq!(
        check_answer(&counted, 10),
        Err(PageFault::Count { said: 4, came: 3 })
    );
    for cursor in [String::new(), "x".repeat(MAX_CURSOR_BYTES + 1)] {
        let mut page = good.clone();
        let bytes = cursor.len();
        page.end.cursor = cursor;
        assert_eq!(check_answer(&page, 10), Err(PageFault::Cursor(bytes)));
    }
}

#[test]
fn what_no_table_can_hold_is_set_aside() {
    let upsert = |fields: Fields| {
        let PageChange::Valid(mut one) = change(1) else {
            unreachable!()
        };
        one.kind = ChangeKind::Upsert(fields);
        one
    };
    let many: Fields = (0..=MAX_FIELDS)
        .map(|n| (format!("f{n}"), syncline_protocol::Value::Null))
        .collect();
    let long: Fields = [(
        "x".repeat(MAX_NAME_BYTES + 1),
        syncline_protocol::Value::Null,
    )]
    .into_iter()
    .collect();
    let empty: Fields = [(String::new(), syncline_protocol::Value::Null)]
        .into_iter()
        .collect();
    let good: Fields = [("title".to_owned(), syncline_protocol::Value::Null)]
        .into_iter()
        .collect();
    for fields in [many, long, empty] {
        assert!(unstorable(&upsert(fields)).is_some());
    }
    assert_eq!(unstorable(&upsert(good)), None);
}
