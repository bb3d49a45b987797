//! What counts as sent, and what does not (E5): after a refusal, under a new identity, and when an
//! entry is taken back.

use crate::support::{Device, NOW, text, upsert};
use syncline_core::{Booking, Counted, MutationError, StoreWork, Verdict};
use syncline_protocol::{Change, IdempotencyKey};

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, note TEXT);";

fn task(id: &str, position: i64, title: &str) -> Change {
    let fields = [("title", title.into()), ("note", "-".into())];
    upsert("task", text(id), position, &fields)
}

fn device() -> Device {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, ["a", "b", "c", "d"].map(|id| task(id, 1, "milk")).into());
    device
}

fn seqs(device: &Device) -> Vec<i64> {
    let rows = device.rows("SELECT seq FROM syncline_outbox ORDER BY seq");
    rows.iter().map(|seq| seq.parse().unwrap()).collect()
}

/// Books refusals of these and lets the others wait.
fn refuse(device: &mut Device, refused: &[i64]) {
    let verdict = |seq| match refused.contains(&seq) {
        true => Verdict::Failed(MutationError::new("validation", "")),
        false => Verdict::Later {
            after_ms: 0,
            counted: Counted::No,
            error: MutationError::new("not-answered", ""),
        },
    };
    let bookings = seqs(device).into_iter().map(|seq| Booking {
        seq,
        verdict: verdict(seq),
    });
    let work = StoreWork::Book {
        bookings: bookings.collect(),
        token: None,
    };
    device.store.perform(&work, NOW);
}

/// The second was based on the first, in a request that nobody answered. The first is refused when it
/// is sent alone: so the second had no effect either, and is free.
#[test]
fn what_follows_a_refused_mutation_does_not_count_as_sent() {
    let mut device = device();
    device.sql("UPDATE task SET title = 'oat milk' WHERE id = 'a'");
    device.claimed();
    device.sql(
        "UPDATE task SET note = 'fresh' WHERE id = 'a'; UPDATE task SET note = 'fresh' WHERE id = 'b'",
    );
    assert_eq!(device.claimed(), ["task/a", "task/a", "task/b"]);
    let first = seqs(&device)[0];
    refuse(&mut device, &[first]);
    assert_eq!(
        device.rows("SELECT entity_id, state, frozen IS NULL FROM syncline_outbox ORDER BY seq"),
        ["a|failed|1", "a|pending|1", "b|pending|0"]
    );
    let second = seqs(&device)[1];
    let discarded = device.store.discard(second, NOW).unwrap();
    assert_eq!(discarded.gone, [second], "nobody has to be asked");
}

/// It was skipped, so there is no key that could be cancelled; of the first nobody knows what became.
#[test]
fn what_was_skipped_and_is_to_be_cancelled_is_given_up_at_once() {
    let mut device = device();
    device.sql("UPDATE task SET title = 'oat milk' WHERE id = 'a'");
    device.claimed();
    device.sql("UPDATE task SET note = 'fresh' WHERE id = 'a'");
    assert_eq!(device.claimed(), ["task/a", "task/a"]);
    let (first, second) = (seqs(&device)[0], seqs(&device)[1]);
    let discarded = device.store.discard(second, NOW).unwrap();
    assert_eq!(discarded.cancelling, [second]);
    let sql = format!("SELECT idempotency_key FROM syncline_outbox WHERE seq = {first}");
    let because = IdempotencyKey::new(device.rows(&sql).remove(0));
    let verdicts = [
        Verdict::Failed(MutationError::new("expired", "")),
        Verdict::Skipped { because },
    ];
    let bookings = [first, second].into_iter().zip(verdicts);
    let work = StoreWork::Book {
        bookings: bookings
            .map(|(seq, verdict)| Booking { seq, verdict })
            .collect(),
        token: None,
    };
    device.store.perform(&work, NOW);
    assert_eq!(seqs(&device), [first]);
    let row = "SELECT title, note FROM task WHERE id = 'a'";
    assert_eq!(device.rows(row), ["oat milk|-"]);
}

/// What waits for a person is not sent by a copy of the file either, nor is what follows it.
#[test]
fn a_new_identity_does_not_take_for_sent_what_waits_for_a_person() {
    let mut device = device();
    device.sql(
        "UPDATE syncline_entity_type SET conflict_rules = '{\"policy\":\"manual\"}';
         UPDATE task SET title = 'oat milk' WHERE id IN ('a', 'b')",
    );
    device.restart();
    device.claimed();
    let first = seqs(&device)[0];
    refuse(&mut device, &[first]);
    device.sql(
        "UPDATE task SET note = 'fresh' WHERE id = 'a';
         UPDATE task SET title = 'oat milk' WHERE id IN ('c', 'd')",
    );
    device.feed(2, vec![task("c", 2, "soy milk")]);
    let open = "SELECT entity_id FROM syncline_conflict WHERE resolved_at IS NULL";
    assert_eq!(device.rows(open), ["c"]);
    device.store.perform(&StoreWork::Remint, NOW);
    assert_eq!(
        device.rows(
            "SELECT entity_id, state, origin_client IS NULL FROM syncline_outbox ORDER BY entity_id, seq"
        ),
        [
            "a|failed|1",
            "a|pending|1",
            "b|pending|0",
            "c|pending|1",
            "d|pending|0"
        ]
    );
}

/// What another copy of the file may have sent has no outcome yet: a change of its entity waits for
/// that, also when a later entry of the entity is given up.
#[test]
fn taking_an_entry_back_waits_for_what_another_copy_may_have_sent() {
    let mut device = device();
    device.sql("UPDATE task SET title = 'oat milk' WHERE id = 'a'");
    device.store.perform(&StoreWork::Remint, NOW);
    device.feed(2, vec![task("a", 2, "soy milk")]);
    assert_eq!(device.inbox(), ["task|a|answer"]);
    device.sql("UPDATE task SET note = 'fresh' WHERE id = 'a'");
    let second = seqs(&device)[1];
    let discarded = device.store.discard(second, NOW).unwrap();
    assert_eq!(discarded.gone, [second]);
    assert_eq!(device.inbox(), ["task|a|answer"]);
    let row = "SELECT title, note FROM task WHERE id = 'a'";
    assert_eq!(device.rows(row), ["oat milk|-"]);
}

/// What was sent is offered again whatever waits for its answer: that is work, and the cycle goes on.
#[test]
fn what_was_sent_is_worth_a_claim_also_when_a_change_waits_for_its_answer() {
    let mut device = device();
    device.sql("UPDATE task SET title = 'oat milk' WHERE id = 'a'");
    assert!(device.is_claimable());
    device.claimed();
    refuse(&mut device, &[]);
    device.feed(2, vec![task("a", 2, "soy milk")]);
    assert_eq!(device.inbox(), ["task|a|answer"]);
    assert!(device.is_claimable());
    assert_eq!(device.claimed(), ["task/a"]);
}
