//! An app that writes and an engine that syncs, in two processes on one file, are killed again and
//! again at random moments: what was acknowledged arrives, and everything arrives once.

// A test that cannot go on has failed; the panic says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;
use syncline_process_tests::{
    Device, PATIENCE, Running, Server, assert_same, assert_settled, listing, number, token,
};

const DEVICE: &str = env!("CARGO_BIN_EXE_syncline-test-device");
const SERVER: &str = env!("CARGO_BIN_EXE_syncline-test-server");

const SCHEMA: &str = "
    CREATE TABLE entry (id TEXT PRIMARY KEY NOT NULL, number INTEGER NOT NULL);
    CREATE TABLE tally (id TEXT PRIMARY KEY NOT NULL, entries INTEGER NOT NULL);";

const ROUNDS: usize = 15;

/// What a killed writer had acknowledged.
fn acknowledged(writer: Running, first: String) -> Vec<String> {
    let rest = writer.kill().lines;
    let ids = rest
        .iter()
        .filter_map(|line| line.strip_prefix("ack ").map(str::to_owned));
    std::iter::once(first).chain(ids).collect()
}

#[test]
fn what_was_acknowledged_survives_kill_after_kill() {
    let seed = std::env::var("SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::own(SERVER, &folder.path().join("server"), None);
    let device = |name: &str| {
        Device::create(DEVICE, folder.path().join(name), SCHEMA)
            .remote(&server.url(), &token())
            .options("--set debounce_ms=5 --set poll_interval_ms=50 --set lease_ttl_ms=60 --set push_mutations=50")
    };
    let (alice, bob) = (device("alice.db"), device("bob.db"));
    alice.sql("INSERT INTO tally VALUES ('all', 0)");
    alice.run("--attach upload sync").success();
    let mut promised = BTreeSet::from([]);
    for round in 0..ROUNDS {
        let engine = alice.start("run");
        engine.line_after("running", PATIENCE).unwrap();
        let writer = alice.start(&format!("append round{round}"));
        let first = writer.line_after("ack ", PATIENCE).unwrap();
        // Two pushes are through, a third may be anywhere.
        for _ in 0..2 {
            engine.line_after("pushed ", PATIENCE).unwrap();
        }
        let mut pause = |most| std::thread::sleep(Duration::from_micros(dice.u64(..most)));
        pause(60_000);
        if round % 2 == 0 {
            engine.kill();
            pause(20_000);
            promised.extend(acknowledged(writer, first));
        } else {
            promised.extend(acknowledged(writer, first));
            pause(20_000);
            engine.kill();
        }
    }
    alice.sync();
    bob.run("--attach upload sync").success();

    let on_server = listing(&server.url(), &token());
    let (own, others) = (alice.rows(), bob.rows());
    assert_same(
        "after the kills",
        ("Alice", &own),
        ("the server", &on_server),
    );
    assert_same(
        "after the kills",
        ("Bob", &others),
        ("the server", &on_server),
    );
    assert_settled("after the kills", &alice.path);
    let entry = |id: &String| ("entry".to_owned(), id.clone());
    let lost: Vec<&String> = promised
        .iter()
        .filter(|id| !on_server.contains_key(&entry(id)))
        .collect();
    assert!(
        lost.is_empty(),
        "SEED={seed}: acknowledged and lost: {lost:?}"
    );

    // Each entry took effect once, and the row that counts them was written with each.
    let entries = number(&alice.path, "SELECT count(*) FROM entry");
    assert_eq!(number(&alice.path, "SELECT entries FROM tally"), entries);
    let database = folder.path().join("server/server.db");
    let keys = "SELECT count(*) FROM outcome WHERE json_extract(outcome, '$.type') = 'entry'";
    assert_eq!(
        number(&database, keys),
        entries,
        "SEED={seed}: keys used for entries"
    );
    // Without those that a coalesced mutation was recorded under as well.
    let applied = "SELECT count(*) FROM outcome WHERE fingerprint IS NOT NULL
                      AND json_extract(outcome, '$.outcome.outcome') = 'applied'";
    let effects = number(&database, "SELECT sum(head) FROM head");
    assert_eq!(number(&database, applied), effects, "SEED={seed}");
    let unacknowledged = entries - i64::try_from(promised.len()).unwrap();
    println!(
        "{} acknowledged, {unacknowledged} committed without, {effects} effects",
        promised.len()
    );
    assert!(unacknowledged <= i64::try_from(ROUNDS).unwrap());
    assert!(promised.len() > ROUNDS, "the writer wrote next to nothing");
}
