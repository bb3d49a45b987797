//! What every storage must do, as functions to call from a storage's own tests.
//!
//! Each function takes an empty storage and panics at the first promise of [`Storage`] that does
//! not hold. Only for tests: it is compiled with the feature `conformance` and never served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bookkeeping;

use crate::{
    Entity, EntityKey, KeyRecord, ReadTx, Storage, StorageError, StoredDefinition, WriteTx,
};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};

const TENANT: &str = "acme";
const OTHER: &str = "acme2";

/// Runs all of the suite, each part on a storage of its own.
pub fn run<S: Storage>(make: impl Fn() -> S) {
    starts_empty(&make());
    keeps_entities(&make());
    numbers_the_feed(&make());
    pages_in_key_order(&make());
    keeps_outcomes(&make());
    binds_clients(&make());
    keeps_definitions(&make());
    bookkeeping::run(&make);
    undoes_failures(&make());
    undoes_panics(&make());
    keeps_tenants_apart(&make());
    purges_with_the_horizon(&make());
    keeps_the_feed_complete_under_writers(&make());
    reads_one_snapshot(&make());
}

fn scope() -> Scope {
    Scope::from("default")
}

fn client() -> ClientId {
    ClientId::from("0123456789abcdef0123456789abcdef")
}

fn key<'a>(tenant: &'a str, entity_type: &'a str, id: &'a str) -> EntityKey<'a> {
    EntityKey {
        tenant,
        entity_type,
        id,
    }
}

fn entity(seq: i64, fields: Option<&str>) -> Entity {
    Entity {
        scope: scope(),
        version: seq,
        seq,
        fields: fields.map(str::to_owned),
        key: Some(IdempotencyKey::new(format!("k{seq}"))),
    }
}

fn put(
    tx: &mut dyn WriteTx,
    tenant: &str,
    entity_type: &str,
    id: &str,
    fields: Option<&str>,
) -> i64 {
    let seq = tx.bump_head(tenant, &scope(), 1).unwrap();
    tx.put_entity(key(tenant, entity_type, id), &entity(seq, fields))
        .unwrap();
    seq
}

fn write<T>(storage: &impl Storage, mut work: impl FnMut(&mut dyn WriteTx) -> T) -> T {
    storage.write(|tx| Ok(work(tx))).unwrap()
}

fn read<T>(storage: &impl Storage, mut work: impl FnMut(&dyn ReadTx) -> T) -> T {
    storage.read(|tx| Ok(work(tx))).unwrap()
}

fn feed(tx: &dyn ReadTx, tenant: &str, after: i64, limit: usize) -> Vec<(i64, String)> {
    let mut rows = Vec::new();
    tx.feed(tenant, &scope(), after, limit, &mut |row| {
        rows.push((row.seq, row.id.to_owned()));
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

fn snapshot(
    tx: &dyn ReadTx,
    tenant: &str,
    after: Option<(&str, &str)>,
    limit: usize,
) -> Vec<String> {
    let mut rows = Vec::new();
    tx.snapshot(tenant, &scope(), after, limit, &mut |row| {
        assert!(row.fields.is_some(), "a snapshot shows no tombstones");
        rows.push(format!("{}/{}", row.entity_type, row.id));
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

fn starts_empty(storage: &impl Storage) {
    let epoch = read(storage, |tx| {
        assert_eq!(tx.head(TENANT, &scope()).unwrap(), 0);
        assert_eq!(tx.horizon(TENANT, &scope()).unwrap(), 0);
        assert_eq!(tx.entity(key(TENANT, "task", "1")).unwrap(), None);
        assert!(feed(tx, TENANT, 0, 10).is_empty());
        assert!(snapshot(tx, TENANT, None, 10).is_empty());
        tx.epoch().unwrap()
    });
    assert!(!epoch.as_str().is_empty());
    assert_eq!(read(storage, |tx| tx.epoch().unwrap()), epoch);
    assert_eq!(storage.cursor_secret(), storage.cursor_secret());
    storage.ready().unwrap();
    write(storage, |tx| tx.set_epoch(&Epoch::from("new")).unwrap());
    assert_eq!(read(storage, |tx| tx.epoch().unwrap()).as_str(), "new");
}

fn keeps_entities(storage: &impl Storage) {
    // Odd spacing and numbers: the text must come back to the byte.
    let fields = "{\"a\": 1.0,\"b\":\"\\u0001é\",\"c\":9223372036854775807}";
    let id = "{\"$hex\":\"00\"}";
    write(storage, |tx| {
        let seq = put(tx, TENANT, "ta'sk", id, Some(fields));
        let stored = tx.entity(key(TENANT, "ta'sk", id)).unwrap();
        assert_eq!(stored, Some(entity(seq, Some(fields))), "own writes show");
    });
    let stored = read(storage, |tx| tx.entity(key(TENANT, "ta'sk", id)).unwrap());
    assert_eq!(stored, Some(entity(1, Some(fields))));
    write(storage, |tx| {
        let bare = Entity {
            version: i64::MAX,
            key: None,
            ..entity(2, None)
        };
        tx.bump_head(TENANT, &scope(), 1).unwrap();
        tx.put_entity(key(TENANT, "ta'sk", id), &bare).unwrap();
        assert_eq!(tx.entity(key(TENANT, "ta'sk", id)).unwrap(), Some(bare));
    });
    // Ids are bytes: no case folding, no trimming, no normalisation.
    write(storage, |tx| {
        for (name, content) in [
            ("a", "1"),
            ("A", "2"),
            ("a ", "3"),
            ("e\u{301}", "4"),
            ("é", "5"),
        ] {
            put(tx, TENANT, "t", name, Some(content));
        }
        for (name, content) in [
            ("a", "1"),
            ("A", "2"),
            ("a ", "3"),
            ("e\u{301}", "4"),
            ("é", "5"),
        ] {
            let stored = tx.entity(key(TENANT, "t", name)).unwrap().unwrap();
            assert_eq!(stored.fields.as_deref(), Some(content), "{name:?}");
        }
        for name in ["task", "Task", "task"] {
            tx.register_entity_type(TENANT, &EntityType::from(name), 1)
                .unwrap();
        }
        let types = tx.entity_types(TENANT).unwrap();
        assert_eq!(types, [EntityType::from("Task"), EntityType::from("task")]);
    });
}

fn numbers_the_feed(storage: &impl Storage) {
    write(storage, |tx| {
        assert_eq!(tx.bump_head(TENANT, &scope(), 3).unwrap(), 3);
        for (seq, id) in [(1, "c"), (2, "b"), (3, "a")] {
            tx.put_entity(key(TENANT, "t", id), &entity(seq, Some("{}")))
                .unwrap();
        }
    });
    write(storage, |tx| put(tx, TENANT, "t", "c", None));
    read(storage, |tx| {
        assert_eq!(tx.head(TENANT, &scope()).unwrap(), 4);
        let all = [(2, "b"), (3, "a"), (4, "c")].map(|(seq, id)| (seq, id.to_owned()));
        assert_eq!(
            feed(tx, TENANT, 0, 10),
            all,
            "each entity once, where it is last"
        );
        assert_eq!(feed(tx, TENANT, 0, 2), all[..2]);
        assert_eq!(feed(tx, TENANT, 3, 10), all[2..]);
        assert!(feed(tx, TENANT, 4, 10).is_empty());
        assert!(feed(tx, TENANT, i64::MAX, 10).is_empty());
        assert_eq!(feed(tx, TENANT, 0, usize::MAX), all);
        let mut seen = 0;
        tx.feed(TENANT, &scope(), 0, 10, &mut |_| {
            seen += 1;
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(seen, 1, "a visit that breaks is the last");
        assert_eq!(
            tx.scope_size(TENANT, &scope()).unwrap(),
            3,
            "a tombstone too"
        );
        assert_eq!(tx.scope_size("other", &scope()).unwrap(), 0);
        let elsewhere = Scope::from("elsewhere");
        assert_eq!(tx.scope_size(TENANT, &elsewhere).unwrap(), 0);
        assert_eq!(tx.head(TENANT, &elsewhere).unwrap(), 0);
        tx.feed(TENANT, &elsewhere, 0, 10, &mut |_| {
            panic!("another scope's")
        })
        .unwrap();
    });
}

fn pages_in_key_order(storage: &impl Storage) {
    write(storage, |tx| {
        for (entity_type, id) in [("b", "1"), ("a", "é"), ("a", "z"), ("a", "10"), ("a", "9")] {
            put(tx, TENANT, entity_type, id, Some("{}"));
        }
        put(tx, TENANT, "a", "dead", None);
    });
    read(storage, |tx| {
        let all = ["a/10", "a/9", "a/z", "a/é", "b/1"];
        assert_eq!(snapshot(tx, TENANT, None, 10), all);
        assert_eq!(snapshot(tx, TENANT, None, 2), all[..2]);
        assert_eq!(snapshot(tx, TENANT, Some(("a", "9")), 2), all[2..4]);
        assert_eq!(snapshot(tx, TENANT, Some(("a", "dead")), 10), all[2..]);
        assert_eq!(snapshot(tx, TENANT, Some(("a", "é")), 10), all[4..]);
        assert!(snapshot(tx, TENANT, Some(("b", "1")), 10).is_empty());
    });
}

fn keeps_outcomes(storage: &impl Storage) {
    let record = KeyRecord {
        fingerprint: Some([0xa5; 32]),
        outcome: "{\"outcome\":\"é\"}".to_owned(),
    };
    let name = IdempotencyKey::from("k");
    write(storage, |tx| {
        assert_eq!(tx.claim_key(TENANT, &client(), &name).unwrap(), None);
    });
    write(storage, |tx| {
        let again = tx.claim_key(TENANT, &client(), &name).unwrap();
        assert_eq!(again, None, "a claim without an outcome leaves nothing");
        tx.record_outcome(TENANT, &client(), &name, &record, 5)
            .unwrap();
    });
    write(storage, |tx| {
        let found = tx.claim_key(TENANT, &client(), &name).unwrap();
        assert_eq!(found, Some(record.clone()));
    });
    let whatever = KeyRecord {
        fingerprint: None,
        ..record.clone()
    };
    let open = IdempotencyKey::from("open");
    write(storage, |tx| {
        tx.record_outcome(TENANT, &client(), &open, &whatever, 5)
            .unwrap();
    });
    let kept = read(storage, |tx| {
        tx.key_record(TENANT, &client(), &open).unwrap()
    });
    assert_eq!(kept, Some(whatever));
    let twice = storage.write(|tx| tx.record_outcome(TENANT, &client(), &name, &record, 6));
    assert!(twice.is_err(), "an outcome is written once");
    read(storage, |tx| {
        let found = tx.key_record(TENANT, &client(), &name).unwrap();
        assert_eq!(found, Some(record.clone()));
        let other = ClientId::from("ffffffffffffffffffffffffffffffff");
        assert_eq!(tx.key_record(TENANT, &other, &name).unwrap(), None);
        let upper = IdempotencyKey::from("K");
        assert_eq!(tx.key_record(TENANT, &client(), &upper).unwrap(), None);
    });
}

fn binds_clients(storage: &impl Storage) {
    write(storage, |tx| {
        assert_eq!(tx.bind_client(TENANT, &client(), "ann", 1).unwrap(), "ann");
        assert_eq!(tx.bind_client(TENANT, &client(), "bob", 2).unwrap(), "ann");
        assert_eq!(tx.bind_client(OTHER, &client(), "bob", 3).unwrap(), "bob");
    });
    read(storage, |tx| {
        let bound = tx.client_subject(TENANT, &client()).unwrap();
        assert_eq!(bound.as_deref(), Some("ann"));
        let unknown = ClientId::from("ffffffffffffffffffffffffffffffff");
        assert_eq!(tx.client_subject(TENANT, &unknown).unwrap(), None);
    });
}

fn keeps_definitions(storage: &impl Storage) {
    let definition = |schema_version, json: &str| StoredDefinition {
        schema_version,
        json: json.to_owned(),
    };
    let (first, second) = (definition(1, "{ \"é\":1}"), definition(u32::MAX, "{}"));
    let (note, task) = (EntityType::from("note"), EntityType::from("task"));
    write(storage, |tx| {
        assert!(tx.type_definitions(TENANT).unwrap().is_empty());
        tx.register_entity_type(TENANT, &task, 1).unwrap();
        assert!(tx.type_definitions(TENANT).unwrap().is_empty());
        tx.define_type(TENANT, &task, &first, 2).unwrap();
        tx.define_type(TENANT, &note, &first, 2).unwrap();
        tx.define_type(TENANT, &task, &second, 3).unwrap();
        tx.register_entity_type(TENANT, &task, 4).unwrap();
    });
    read(storage, |tx| {
        let kept = tx.type_definitions(TENANT).unwrap();
        assert_eq!(kept, [first.clone(), second.clone()], "in order of type");
        let types = tx.entity_types(TENANT).unwrap();
        assert_eq!(types, [note.clone(), task.clone()]);
        assert!(tx.type_definitions(OTHER).unwrap().is_empty());
    });
    let failed = storage.write(|tx| {
        tx.define_type(TENANT, &task, &first, 5)?;
        Err::<(), _>(StorageError::internal("planned"))
    });
    assert!(failed.is_err());
    let kept = read(storage, |tx| tx.type_definitions(TENANT).unwrap());
    assert_eq!(kept[1], second);
}

/// Writes one of everything over what `undoes_*` put there first.
fn write_everything(tx: &mut dyn WriteTx) {
    tx.bind_client(TENANT, &client(), "ann", 1).unwrap();
    tx.register_entity_type(TENANT, &EntityType::from("task"), 1)
        .unwrap();
    put(tx, TENANT, "t", "old", None);
    put(tx, TENANT, "t", "new", Some("{}"));
    put(tx, TENANT, "t", "new", None);
    tx.raise_horizon(TENANT, &scope(), 3).unwrap();
    let record = KeyRecord {
        fingerprint: None,
        outcome: "{}".to_owned(),
    };
    tx.record_outcome(TENANT, &client(), &IdempotencyKey::from("k"), &record, 1)
        .unwrap();
    tx.set_epoch(&Epoch::from("other")).unwrap();
}

fn assert_untouched(storage: &impl Storage, epoch: &Epoch) {
    read(storage, |tx| {
        assert_eq!(&tx.epoch().unwrap(), epoch);
        assert_eq!(tx.head(TENANT, &scope()).unwrap(), 2);
        assert_eq!(tx.horizon(TENANT, &scope()).unwrap(), 0);
        assert_eq!(
            feed(tx, TENANT, 0, 10),
            [(1, "old".to_owned()), (2, "dead".to_owned())]
        );
        assert_eq!(snapshot(tx, TENANT, None, 10), ["t/old"]);
        assert_eq!(tx.client_subject(TENANT, &client()).unwrap(), None);
        assert!(tx.entity_types(TENANT).unwrap().is_empty());
        let record = tx.key_record(TENANT, &client(), &IdempotencyKey::from("k"));
        assert_eq!(record.unwrap(), None);
    });
    // And the storage goes on.
    write(storage, |tx| put(tx, OTHER, "t", "1", Some("{}")));
}

fn put_old(storage: &impl Storage) -> Epoch {
    write(storage, |tx| {
        put(tx, TENANT, "t", "old", Some("{}"));
        put(tx, TENANT, "t", "dead", None);
        tx.epoch().unwrap()
    })
}

fn undoes_failures(storage: &impl Storage) {
    let epoch = put_old(storage);
    let failed = storage.write(|tx| {
        write_everything(tx);
        Err::<(), _>(StorageError::internal("planned"))
    });
    assert!(matches!(failed, Err(StorageError::Internal { .. })));
    assert_untouched(storage, &epoch);
}

fn undoes_panics(storage: &impl Storage) {
    let epoch = put_old(storage);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        storage.write::<()>(|tx| {
            write_everything(tx);
            std::panic::resume_unwind(Box::new("planned"));
        })
    }));
    assert!(panicked.is_err());
    assert_untouched(storage, &epoch);
}

fn keeps_tenants_apart(storage: &impl Storage) {
    write(storage, |tx| {
        put(tx, TENANT, "t", "1", Some("{\"mine\":1}"));
        put(tx, OTHER, "t", "1", Some("{\"theirs\":1}"));
        put(tx, OTHER, "t", "2", None);
        tx.register_entity_type(OTHER, &EntityType::from("secret"), 1)
            .unwrap();
        let record = KeyRecord {
            fingerprint: None,
            outcome: "{}".to_owned(),
        };
        tx.record_outcome(OTHER, &client(), &IdempotencyKey::from("k"), &record, 1)
            .unwrap();
        tx.raise_horizon(OTHER, &scope(), 1).unwrap();
    });
    read(storage, |tx| {
        assert_eq!(tx.head(TENANT, &scope()).unwrap(), 1, "own numbers");
        assert_eq!(tx.horizon(TENANT, &scope()).unwrap(), 0);
        assert_eq!(feed(tx, TENANT, 0, 10), [(1, "1".to_owned())]);
        assert_eq!(snapshot(tx, TENANT, None, 10), ["t/1"]);
        let mine = tx.entity(key(TENANT, "t", "1")).unwrap().unwrap();
        assert_eq!(mine.fields.as_deref(), Some("{\"mine\":1}"));
        assert_eq!(tx.entity(key(TENANT, "t", "2")).unwrap(), None);
        assert!(tx.entity_types(TENANT).unwrap().is_empty());
        let record = tx.key_record(TENANT, &client(), &IdempotencyKey::from("k"));
        assert_eq!(record.unwrap(), None);
        // A tenant whose name begins like another's is still another.
        assert!(feed(tx, "acm", 0, 10).is_empty());
        assert!(snapshot(tx, "acm", None, 10).is_empty());
    });
}

fn purges_with_the_horizon(storage: &impl Storage) {
    write(storage, |tx| {
        put(tx, TENANT, "t", "gone", None);
        put(tx, TENANT, "t", "alive", Some("{}"));
        put(tx, TENANT, "t", "later", None);
    });
    write(storage, |tx| tx.raise_horizon(TENANT, &scope(), 2).unwrap());
    write(storage, |tx| tx.raise_horizon(TENANT, &scope(), 1).unwrap());
    read(storage, |tx| {
        assert_eq!(tx.horizon(TENANT, &scope()).unwrap(), 2, "never lower");
        assert_eq!(tx.head(TENANT, &scope()).unwrap(), 3);
        assert_eq!(tx.entity(key(TENANT, "t", "gone")).unwrap(), None);
        assert_eq!(
            feed(tx, TENANT, 0, 10),
            [(2, "alive".to_owned()), (3, "later".to_owned())]
        );
    });
    write(storage, |tx| {
        assert_eq!(tx.bump_head(TENANT, &scope(), 1).unwrap(), 4);
    });
}

/// Writers race; a reader that follows the feed by its head must see everything they committed.
fn keeps_the_feed_complete_under_writers(storage: &impl Storage) {
    const WRITERS: usize = 3;
    const WRITES: usize = 25;
    let done = AtomicBool::new(false);
    let followed = std::thread::scope(|threads| {
        let follower = threads.spawn(|| {
            let mut position = 0;
            let mut seen = Vec::new();
            loop {
                let last_look = done.load(Ordering::SeqCst);
                let (head, rows) = read(storage, |tx| {
                    let head = tx.head(TENANT, &scope()).unwrap();
                    (head, feed(tx, TENANT, position, usize::MAX))
                });
                assert!(rows.iter().all(|(seq, _)| *seq <= head), "beyond the head");
                seen.extend(rows);
                position = head;
                if last_look {
                    return seen;
                }
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                threads.spawn(move || {
                    for nth in 0..WRITES {
                        let id = format!("{writer}-{nth}");
                        while let Err(error) = storage.write(|tx| {
                            put(tx, TENANT, "t", &id, Some("{}"));
                            Ok(())
                        }) {
                            assert!(error.is_retryable(), "{error}");
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        follower.join().unwrap()
    });
    let seqs: Vec<i64> = followed.iter().map(|(seq, _)| *seq).collect();
    let total = i64::try_from(WRITERS * WRITES).unwrap();
    assert_eq!(seqs, (1..=total).collect::<Vec<_>>(), "missed or doubled");
}

/// Two entities are always written together; no read may see one without the other.
fn reads_one_snapshot(storage: &impl Storage) {
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for round in 0..40 {
                let fields = format!("{{\"round\":{round}}}");
                write(storage, |tx| {
                    put(tx, TENANT, "t", "left", Some(&fields));
                    put(tx, TENANT, "t", "right", Some(&fields));
                });
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let (left, right) = read(storage, |tx| {
                let left = tx.entity(key(TENANT, "t", "left")).unwrap();
                std::thread::yield_now();
                (left, tx.entity(key(TENANT, "t", "right")).unwrap())
            });
            assert_eq!(
                left.and_then(|entity| entity.fields),
                right.and_then(|entity| entity.fields),
                "a read saw half a transaction"
            );
        }
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_storage_conforms() {
        super::run(|| crate::MemoryStorage::new("epoch"));
    }
}
