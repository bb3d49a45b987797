//! The comparison finds whatever is not equal, and lets a refused mutation explain only its own.

use super::*;
use crate::demo::device::Device;
use crate::demo::link::Net;
use crate::demo::listing;
use crate::demo::server::Server;

fn name(id: &str) -> Name {
    Name {
        entity_type: "task".to_owned(),
        entity_id: id.to_owned(),
    }
}

fn row(title: &str, priority: i64) -> Fields {
    let mut fields = Fields::new();
    fields.insert("title", title);
    fields.insert("priority", priority);
    fields
}

fn refusal(id: &str, op: &str, fields: Fields) -> Refused {
    Refused {
        seq: 1,
        name: name(id),
        op: op.to_owned(),
        fields,
        error: MutationError::new("validation", "too much"),
    }
}

#[test]
fn a_refused_mutation_explains_its_own_difference_and_no_other() {
    let server = Rows::from([(name("a"), row("milk", 2)), (name("b"), row("tea", 1))]);
    let patch: Fields = [("priority", 9)].into_iter().collect();
    let refused = [refusal("a", "update", patch)];
    let device = |title: &str, priority| {
        Rows::from([
            (name("a"), row(title, priority)),
            (name("b"), row("tea", 1)),
        ])
    };
    assert!(compare(&server, &server, &refused).is_empty());
    let explained = |device: &Rows| -> Vec<bool> {
        let found = compare(device, &server, &refused);
        found.iter().map(|difference| difference.refused).collect()
    };
    assert_eq!(explained(&device("milk", 9)), [true]);
    assert_eq!(explained(&device("milk", 8)), [false]);
    assert_eq!(explained(&device("cream", 9)), [false]);
    let mut missing = device("milk", 9);
    missing.remove(&name("b"));
    assert_eq!(explained(&missing), [true, false]);
}

#[test]
fn refused_creates_and_deletes_explain_a_row_on_one_side() {
    let full = Rows::from([(name("a"), row("milk", 9))]);
    let create = [refusal("a", "create", row("milk", 9))];
    assert!(compare(&full, &Rows::new(), &create)[0].refused);
    let delete = [refusal("a", "delete", Fields::new())];
    assert!(compare(&Rows::new(), &full, &delete)[0].refused);
    assert!(!compare(&Rows::new(), &full, &create)[0].refused);
}

/// One device synced with a real server; its file and what the server lists.
fn synced(folder: &Path) -> (Device, Rows) {
    let server = Server::start(folder).unwrap();
    let mut device = Device::new("laptop", folder, &server).unwrap();
    device.start().unwrap();
    device.go(Net::Up);
    device
        .app_writes(
            "INSERT INTO project VALUES ('p', 'Garden');
             INSERT INTO task (id, project, title) VALUES ('t', 'p', 'Sow'), ('7', 'p', 'Dig');",
        )
        .unwrap();
    device.settle().unwrap();
    device.stop();
    let listed = listing::fetch(server.address(), server.token()).unwrap();
    server.stop();
    (device, listed)
}

#[test]
fn a_row_corrupted_behind_the_engines_back_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (device, listed) = synced(folder.path());
    let read = || of_file(&open(&device.path).unwrap()).unwrap();
    assert_eq!(read().len(), 3);
    assert_eq!(compare(&read(), &listed, &[]), []);

    // While the guard is held the capture triggers take the writer for the engine.
    let intruder = Connection::open(&device.path).unwrap();
    intruder
        .execute_batch(
            "BEGIN; INSERT INTO syncline_guard VALUES (1);
             UPDATE task SET title = 'Mow' WHERE id = 't';
             DELETE FROM syncline_guard; COMMIT;",
        )
        .unwrap();
    let found = compare(&read(), &listed, &[]);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].name, found[0].refused), (&name("t"), false));
    assert_eq!(
        device.waiting().unwrap(),
        0,
        "the engine knows nothing of it"
    );
    assert!(refused(&open(&device.path).unwrap()).unwrap().is_empty());
}
