//! What a storage keeps beside entities and outcomes: exchange tokens, last ids, indexes, marks of
//! heads, and what it forgets.

use super::{OTHER, TENANT, client, put, read, scope, write};
use crate::{Exchange, IndexEntry, KeyRecord, OldKey, Storage, StorageError, WriteTx};
use syncline_protocol::{ClientId, EntityType, Epoch, IdempotencyKey, Scope};

pub(super) fn run<S: Storage>(make: &impl Fn() -> S) {
    keeps_exchanges(&make());
    forgets_keys(&make());
    counts_ids(&make());
    indexes(&make());
    marks_heads(&make());
    undoes_it_all(&make());
}

fn other_client() -> ClientId {
    ClientId::from("ffffffffffffffffffffffffffffffff")
}

fn bind(tx: &mut dyn WriteTx) {
    for (tenant, client) in [
        (TENANT, client()),
        (TENANT, other_client()),
        (OTHER, client()),
    ] {
        tx.bind_client(tenant, &client, "ann", 1).unwrap();
    }
}

fn keeps_exchanges(storage: &impl Storage) {
    let exchange = Exchange {
        previous: 7,
        current: i64::MAX,
    };
    write(storage, |tx| {
        let none = Exchange::default();
        assert_eq!(tx.exchange(TENANT, &client()).unwrap(), none);
        bind(tx);
        tx.put_exchange(TENANT, &client(), none).unwrap();
        tx.put_exchange(TENANT, &client(), exchange).unwrap();
        assert_eq!(tx.exchange(TENANT, &client()).unwrap(), exchange);
    });
    read(storage, |tx| {
        assert_eq!(tx.exchange(TENANT, &client()).unwrap(), exchange);
        for (tenant, client) in [(TENANT, other_client()), (OTHER, client())] {
            assert_eq!(tx.exchange(tenant, &client).unwrap(), Exchange::default());
        }
    });
    write(storage, |tx| tx.set_epoch(&Epoch::from("new")).unwrap());
    let forgotten = read(storage, |tx| tx.exchange(TENANT, &client()).unwrap());
    assert_eq!(forgotten, Exchange::default(), "with its history");
}

fn forgets_keys(storage: &impl Storage) {
    let record = KeyRecord {
        fingerprint: None,
        outcome: "{}".to_owned(),
    };
    let named = |tenant: &str, client: ClientId, key: &str| OldKey {
        tenant: tenant.to_owned(),
        client,
        key: IdempotencyKey::from(key),
    };
    let (k1, k2) = (named(TENANT, client(), "k1"), named(OTHER, client(), "k2"));
    let k3 = named(TENANT, other_client(), "k3");
    write(storage, |tx| {
        bind(tx);
        for (key, at) in [(&k1, 10), (&k2, 20), (&k3, 30)] {
            tx.record_outcome(&key.tenant, &key.client, &key.key, &record, at)
                .unwrap();
        }
        assert!(tx.old_keys(10, 100).unwrap().is_empty());
        assert_eq!(tx.old_keys(11, 100).unwrap(), vec![k1.clone()]);
        assert_eq!(tx.old_keys(100, 100).unwrap().len(), 3, "of all tenants");
        assert_eq!(tx.old_keys(100, 2).unwrap().len(), 2);
        assert_eq!(tx.key_watermark(TENANT, &client()).unwrap(), None);
        tx.forget_key(&k1, Some(5)).unwrap();
        tx.forget_key(&k1, Some(3)).unwrap();
        tx.forget_key(&k1, None).unwrap();
        tx.forget_key(&k2, None).unwrap();
    });
    write(storage, |tx| {
        assert_eq!(tx.old_keys(100, 100).unwrap(), vec![k3.clone()]);
        let found = tx.claim_key(TENANT, &client(), &k1.key).unwrap();
        assert_eq!(found, None);
        assert_eq!(tx.key_watermark(TENANT, &client()).unwrap(), Some(5));
        assert_eq!(tx.key_watermark(TENANT, &other_client()).unwrap(), None);
        assert_eq!(tx.key_watermark(OTHER, &client()).unwrap(), None);
        assert!(
            tx.key_record(TENANT, &other_client(), &k3.key)
                .unwrap()
                .is_some()
        );
        tx.record_outcome(TENANT, &client(), &k1.key, &record, 40)
            .unwrap();
    });
}

fn counts_ids(storage: &impl Storage) {
    let (task, note) = (EntityType::from("task"), EntityType::from("note"));
    write(storage, |tx| {
        assert_eq!(tx.last_id(TENANT, "task").unwrap(), 0);
        for entity_type in [&task, &note] {
            tx.register_entity_type(TENANT, entity_type, 1).unwrap();
        }
        tx.raise_last_id(TENANT, "task", 7).unwrap();
        tx.raise_last_id(TENANT, "task", 5).unwrap();
        assert_eq!(tx.last_id(TENANT, "task").unwrap(), 7);
        tx.raise_last_id(TENANT, "task", i64::MAX).unwrap();
        tx.register_entity_type(TENANT, &task, 2).unwrap();
    });
    read(storage, |tx| {
        assert_eq!(tx.last_id(TENANT, "task").unwrap(), i64::MAX);
        assert_eq!(tx.last_id(TENANT, "note").unwrap(), 0);
        assert_eq!(tx.last_id(OTHER, "task").unwrap(), 0);
    });
}

fn entry(index: &str, value: u8, entity_type: &str, id: &str) -> IndexEntry {
    IndexEntry {
        index: index.to_owned(),
        value: [value; 32],
        entity_type: entity_type.to_owned(),
        id: id.to_owned(),
    }
}

fn indexes(storage: &impl Storage) {
    let names = |found: Vec<(String, String)>| -> Vec<String> {
        found.into_iter().map(|(_, id)| id).collect()
    };
    write(storage, |tx| {
        for entity_type in ["a", "b"] {
            let entity_type = EntityType::from(entity_type);
            tx.register_entity_type(TENANT, &entity_type, 1).unwrap();
        }
        assert_eq!(tx.index_rules(TENANT, "a").unwrap(), None);
        tx.set_index_rules(TENANT, "a", Some("r1")).unwrap();
        for one in [
            entry("x", 1, "b", "1"),
            entry("x", 1, "a", "2"),
            entry("x", 1, "a", "1"),
            entry("x", 1, "a", "1"),
            entry("x", 2, "a", "3"),
            entry("y", 1, "a", "4"),
        ] {
            tx.put_indexed(TENANT, &one).unwrap();
        }
        tx.put_indexed(OTHER, &entry("x", 1, "a", "5")).unwrap();
        tx.remove_indexed(TENANT, &entry("x", 2, "a", "3")).unwrap();
        tx.remove_indexed(TENANT, &entry("x", 9, "a", "3")).unwrap();
    });
    read(storage, |tx| {
        let at = |value: u8| tx.indexed(TENANT, "x", &[value; 32], 10).unwrap();
        assert_eq!(names(at(1)), ["1", "2", "1"], "in order of type and id");
        assert!(at(2).is_empty());
        let two = tx.indexed(TENANT, "x", &[1; 32], 2).unwrap();
        assert_eq!(names(two), ["1", "2"]);
        assert_eq!(tx.index_rules(TENANT, "a").unwrap().as_deref(), Some("r1"));
        assert_eq!(tx.index_rules(OTHER, "a").unwrap(), None);
    });
    write(storage, |tx| {
        tx.set_index_rules(TENANT, "a", None).unwrap();
        assert_eq!(tx.index_rules(TENANT, "a").unwrap(), None);
        let left = tx.indexed(TENANT, "x", &[1; 32], 10).unwrap();
        assert_eq!(left, [("b".to_owned(), "1".to_owned())]);
        let others = tx.indexed(OTHER, "x", &[1; 32], 10).unwrap();
        assert_eq!(names(others), ["5"]);
    });
}

fn marks_heads(storage: &impl Storage) {
    write(storage, |tx| {
        put(tx, TENANT, "t", "1", Some("{}"));
        put(tx, OTHER, "t", "1", Some("{}"));
    });
    write(storage, |tx| {
        let scopes = tx.scopes().unwrap();
        let expected = [TENANT, OTHER].map(|tenant| (tenant.to_owned(), scope()));
        assert_eq!(scopes, expected, "in order");
        assert_eq!(tx.marked_head(TENANT, &scope(), i64::MAX).unwrap(), None);
        tx.mark_head(TENANT, &scope(), 10).unwrap();
        put(tx, TENANT, "t", "2", Some("{}"));
        tx.mark_head(TENANT, &scope(), 20).unwrap();
        put(tx, TENANT, "t", "3", Some("{}"));
        tx.mark_head(TENANT, &scope(), 20).unwrap();
        tx.mark_head(OTHER, &scope(), 15).unwrap();
    });
    write(storage, |tx| {
        for (before, head) in [(10, None), (11, Some(1)), (20, Some(1)), (21, Some(3))] {
            let marked = tx.marked_head(TENANT, &scope(), before).unwrap();
            assert_eq!(marked, head, "before {before}");
        }
        let elsewhere = Scope::from("elsewhere");
        assert_eq!(tx.marked_head(TENANT, &elsewhere, 99).unwrap(), None);
        tx.forget_marks(TENANT, &scope(), 20).unwrap();
        assert_eq!(tx.marked_head(TENANT, &scope(), 20).unwrap(), None);
        assert_eq!(tx.marked_head(TENANT, &scope(), 21).unwrap(), Some(3));
        assert_eq!(tx.marked_head(OTHER, &scope(), 21).unwrap(), Some(1));
    });
}

fn undoes_it_all(storage: &impl Storage) {
    let task = EntityType::from("task");
    let key = OldKey {
        tenant: TENANT.to_owned(),
        client: client(),
        key: IdempotencyKey::from("k"),
    };
    let record = KeyRecord {
        fingerprint: None,
        outcome: "{}".to_owned(),
    };
    let before = Exchange {
        previous: 1,
        current: 2,
    };
    write(storage, |tx| {
        bind(tx);
        put(tx, TENANT, "task", "1", Some("{}"));
        tx.register_entity_type(TENANT, &task, 1).unwrap();
        tx.set_index_rules(TENANT, "task", Some("r")).unwrap();
        tx.put_indexed(TENANT, &entry("x", 1, "task", "1")).unwrap();
        tx.put_exchange(TENANT, &client(), before).unwrap();
        tx.record_outcome(TENANT, &client(), &key.key, &record, 1)
            .unwrap();
        tx.mark_head(TENANT, &scope(), 1).unwrap();
        tx.raise_last_id(TENANT, "task", 3).unwrap();
    });
    let failed = storage.write(|tx| {
        tx.put_exchange(TENANT, &client(), Exchange::default())?;
        tx.forget_key(&key, Some(9))?;
        tx.raise_last_id(TENANT, "task", 9)?;
        tx.put_indexed(TENANT, &entry("x", 1, "task", "2"))?;
        tx.remove_indexed(TENANT, &entry("x", 1, "task", "1"))?;
        tx.set_index_rules(TENANT, "task", None)?;
        tx.mark_head(TENANT, &scope(), 2)?;
        tx.forget_marks(TENANT, &scope(), 2)?;
        tx.set_epoch(&Epoch::from("other"))?;
        Err::<(), _>(StorageError::internal("planned"))
    });
    assert!(failed.is_err());
    read(storage, |tx| {
        assert_eq!(tx.exchange(TENANT, &client()).unwrap(), before);
        assert_eq!(tx.key_watermark(TENANT, &client()).unwrap(), None);
        let kept = tx.key_record(TENANT, &client(), &key.key).unwrap();
        assert_eq!(kept, Some(record.clone()));
        assert_eq!(tx.last_id(TENANT, "task").unwrap(), 3);
        let found = tx.indexed(TENANT, "x", &[1; 32], 10).unwrap();
        assert_eq!(found, [("task".to_owned(), "1".to_owned())]);
        assert_eq!(
            tx.index_rules(TENANT, "task").unwrap().as_deref(),
            Some("r")
        );
        assert_eq!(tx.marked_head(TENANT, &scope(), 2).unwrap(), Some(1));
        assert_eq!(tx.marked_head(TENANT, &scope(), 3).unwrap(), Some(1));
    });
}
