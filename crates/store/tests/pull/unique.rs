//! UNIQUE values that change hands: whatever the order in which the feed tells it, and wherever
//! pages end, the rows become the server's.

use crate::support::{Device, delete, text, upsert};
use proptest::prelude::*;
use std::collections::BTreeMap;
use syncline_core::PageChange;
use syncline_protocol::{Change, EntityId, PagePhase, Value};

const SCHEMA: &str = "
    CREATE TABLE seat (id TEXT PRIMARY KEY NOT NULL, place TEXT NOT NULL UNIQUE,
                       label TEXT UNIQUE COLLATE NOCASE, note TEXT);";

fn seat(id: &str, position: i64, place: &str) -> Change {
    upsert(
        "seat",
        text(id),
        position,
        &[
            ("place", place.into()),
            ("label", Value::Null),
            ("note", Value::Null),
        ],
    )
}

fn seats(device: &Device) -> Vec<String> {
    device.rows("SELECT id, place FROM seat ORDER BY id")
}

fn abc() -> Device {
    let mut device = Device::new(SCHEMA);
    let rows = [("a", "1"), ("b", "2"), ("c", "3")];
    let rows = rows.map(|(id, place)| seat(id, 1, place)).to_vec();
    device.snapshot(1, rows);
    device
}

#[test]
fn two_rows_swap_their_values() {
    let mut device = abc();
    let summary = device.feed(3, vec![seat("a", 2, "2"), seat("b", 3, "1")]);
    assert_eq!((summary.upserts, summary.parked), (2, 0));
    assert_eq!(seats(&device), ["a|2", "b|1", "c|3"]);
    assert!(device.inbox().is_empty());
}

#[test]
fn a_circle_that_two_pages_tell_closes_with_the_second() {
    let mut device = abc();
    device.feed(2, vec![seat("a", 2, "2")]);
    assert_eq!(device.inbox(), ["seat|a|constraint"]);
    device.feed(4, vec![seat("b", 3, "3"), seat("c", 4, "1")]);
    assert_eq!(seats(&device), ["a|2", "b|3", "c|1"]);
    assert!(device.inbox().is_empty());
}

#[test]
fn a_delete_frees_the_value_that_an_earlier_upsert_uses() {
    let mut device = abc();
    device.feed(3, vec![seat("d", 2, "1"), delete("seat", text("a"), 3)]);
    assert_eq!(seats(&device), ["b|2", "c|3", "d|1"]);
}

#[test]
fn what_does_not_fit_waits_and_keeps_its_row_while_the_others_swap() {
    let mut device = abc();
    // Taken offline by a row that the server does not know: that one stays where it is.
    device.sql("INSERT INTO seat VALUES ('mine', '9', NULL, NULL)");
    device.feed(
        4,
        vec![seat("a", 2, "2"), seat("b", 3, "1"), seat("c", 4, "9")],
    );
    assert_eq!(seats(&device), ["a|2", "b|1", "c|3", "mine|9"]);
    assert_eq!(device.inbox(), ["seat|c|constraint"]);
    let why = device.rows("SELECT detail FROM syncline_inbox");
    assert!(
        why[0].contains("UNIQUE constraint failed: seat.place"),
        "{why:?}"
    );
    // Once its holder has moved on, it finds its place.
    device.sql("UPDATE seat SET place = '10' WHERE id = 'mine'");
    device.feed(5, vec![seat("e", 5, "7")]);
    assert_eq!(seats(&device), ["a|2", "b|1", "c|9", "e|7", "mine|10"]);
}

#[test]
fn a_locally_edited_row_takes_part_in_a_swap() {
    let mut device = abc();
    device.sql("UPDATE seat SET note = 'by the window' WHERE id = 'a'");
    device.feed(3, vec![seat("a", 2, "2"), seat("b", 3, "1")]);
    assert_eq!(
        device.rows("SELECT id, place, note FROM seat ORDER BY id"),
        ["a|2|by the window", "b|1|NULL", "c|3|NULL"]
    );
    assert_eq!(
        device.rows("SELECT op, payload FROM syncline_outbox"),
        ["update|{\"note\":\"by the window\"}"]
    );
}

#[test]
fn a_swap_keeps_the_rowid_and_computed_columns() {
    let mut device = Device::new(
        "CREATE TABLE seat (id TEXT PRIMARY KEY NOT NULL, place TEXT UNIQUE, label TEXT, note TEXT,
                            shown TEXT GENERATED ALWAYS AS ('#' || place) STORED UNIQUE);",
    );
    device.snapshot(1, vec![seat("a", 1, "1"), seat("b", 1, "2")]);
    let before = device.rows("SELECT rowid, id FROM seat ORDER BY id");
    device.feed(3, vec![seat("a", 2, "2"), seat("b", 3, "1")]);
    assert_eq!(
        device.rows("SELECT rowid, id FROM seat ORDER BY id"),
        before
    );
    assert_eq!(
        device.rows("SELECT id, shown FROM seat ORDER BY id"),
        ["a|#2", "b|#1"]
    );
}

/// What the server has of one seat in the end, if it has it.
#[derive(Debug, Clone)]
struct Fate {
    before: bool,
    after: bool,
    /// It is not mentioned by the feed, so it stays as it was.
    untouched: bool,
    edited_here: bool,
}

fn any_fate() -> impl Strategy<Value = Fate> {
    (
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(before, after, untouched, edited_here)| Fate {
            before,
            after,
            untouched,
            edited_here,
        })
}

const MOST: usize = 12;

prop_compose! {
    fn any_history()(
        fates in proptest::collection::vec(any_fate(), 2..MOST),
        places in Just((0..MOST).collect::<Vec<usize>>()).prop_shuffle(),
        labels in Just((0..MOST).collect::<Vec<usize>>()).prop_shuffle(),
        order in Just((0..MOST).collect::<Vec<usize>>()).prop_shuffle(),
        page in 1..8usize,
    ) -> (Vec<Fate>, Vec<usize>, Vec<usize>, Vec<usize>, usize) {
        (fates, places, labels, order, page)
    }
}

fn full(id: usize, position: i64, place: usize, label: usize) -> Change {
    let label = if label.is_multiple_of(3) {
        Value::Null
    } else {
        format!("Label{label}").as_str().into()
    };
    upsert(
        "seat",
        text(&format!("s{id}")),
        position,
        &[
            ("place", format!("p{place}").as_str().into()),
            ("label", label),
            ("note", Value::Null),
        ],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any permutation of unique values over rows, with creates and deletes, told in any order and
    /// in pages of any size, ends equal to the server's rows.
    #[test]
    fn any_permutation_of_unique_values_ends_as_on_the_server(
        (fates, places, labels, order, page) in any_history()
    ) {
        let mut device = Device::new(SCHEMA);
        let alive = |fate: &Fate| fate.before || fate.untouched;
        let begin = fates.iter().enumerate().filter(|(_, fate)| alive(fate));
        device.snapshot(1, begin.map(|(id, _)| full(id, 1, id, id)).collect());
        for (id, fate) in fates.iter().enumerate().filter(|(_, f)| alive(f) && f.edited_here) {
            let _ = fate;
            device.sql(&format!("UPDATE seat SET note = 'mine' WHERE id = 's{id}'"));
        }
        // Seats that the feed does not mention keep their values, so these are not given away.
        let moved: Vec<usize> = (0..fates.len()).filter(|id| !fates[*id].untouched).collect();
        let free = |all: &[usize]| -> Vec<usize> {
            all.iter().copied().filter(|n| fates.get(*n).is_none_or(|f| !f.untouched)).collect()
        };
        let (places, labels) = (free(&places), free(&labels));
        let mut wanted: BTreeMap<EntityId, (String, String)> = BTreeMap::new();
        let mut changes = Vec::new();
        for id in order.iter().filter(|id| moved.contains(id)) {
            let position = 2 + changes.len() as i64;
            let at = moved.iter().position(|other| other == id).unwrap();
            changes.push(if fates[*id].after {
                full(*id, position, places[at], labels[at])
            } else {
                delete("seat", text(&format!("s{id}")), position)
            });
        }
        for (id, fate) in fates.iter().enumerate() {
            let at = moved.iter().position(|other| *other == id);
            let (place, label) = at.map_or((id, id), |at| (places[at], labels[at]));
            if fate.untouched || fate.after {
                let label = if label.is_multiple_of(3) { "NULL".to_owned() } else { format!("Label{label}") };
                wanted.insert(text(&format!("s{id}")), (format!("p{place}"), label));
            }
        }
        let last = 1 + changes.len() as i64;
        let mut end = 1;
        for chunk in changes.chunks(page) {
            end += chunk.len() as i64;
            let chunk = chunk.iter().cloned().map(PageChange::Valid).collect();
            device.take(PagePhase::Feed, end, chunk).unwrap();
        }
        prop_assert_eq!(end, last);
        prop_assert_eq!(device.inbox(), Vec::<String>::new());
        let wanted: Vec<String> =
            wanted.iter().map(|(id, (place, label))| format!("{id}|{place}|{label}")).collect();
        prop_assert_eq!(device.rows("SELECT id, place, label FROM seat ORDER BY id"), wanted);
    }
}
