//! A device's process dies at every named point of a sync, before, inside and after each store
//! transaction, and is started again: nothing is lost, nothing doubled, the cursor never ahead.

// A test that cannot go on has failed; the panic says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "crash/ids.rs"]
mod ids;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use syncline_process_tests::{
    Device, Rows, Server, assert_same, assert_settled, copy_database, copy_state, listing, number,
    rows, settled, token,
};
use tempfile::TempDir;

const DEVICE: &str = env!("CARGO_BIN_EXE_syncline-test-device");
const SERVER: &str = env!("CARGO_BIN_EXE_syncline-test-server");

const SCHEMA: &str = "
    CREATE TABLE project (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, budget REAL);
    CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, project TEXT NOT NULL REFERENCES project(id),
                       title TEXT, done INTEGER NOT NULL DEFAULT 0, notes BLOB);";

const BEGINNING: &str = "
    INSERT INTO project VALUES ('p1', 'house', 0.1), ('p2', 'garden', NULL), ('p3', 'car', 1e300);
    INSERT INTO task (id, project, title, notes) VALUES
      ('t1', 'p1', 'one', x'00ff'), ('t2', 'p1', 'two', NULL), ('t3', 'p1', 'three', NULL),
      ('t4', 'p2', 'four', NULL), ('t5', 'p2', 'five', x''), ('t6', 'p2', 'six', NULL),
      ('t7', 'p3', 'seven', NULL), ('t8', 'p3', 'eight', NULL);";

/// What Alice does offline: her process is the one that dies.
const ALICE: &str = "
    INSERT INTO project VALUES ('pa', 'of Alice', 2.5);
    INSERT INTO task (id, project, title) VALUES ('ta1', 'pa', 'a one'), ('ta2', 'pa', 'a two');
    UPDATE task SET title = 'one of Alice' WHERE id = 't1';
    UPDATE task SET title = 'two of Alice' WHERE id = 't2';
    UPDATE task SET title = 'four of Alice' WHERE id = 't4';
    UPDATE task SET title = 'seven of Alice' WHERE id = 't7';
    DELETE FROM task WHERE id = 't3';";

/// What Bob did meanwhile: his edits are on the server before.
const BOB: &str = "
    INSERT INTO project VALUES ('pb', 'of Bob', -0.0);
    INSERT INTO task (id, project, title) VALUES ('tb1', 'pb', 'b one'), ('tb2', 'p3', 'b two');
    UPDATE task SET done = 1 WHERE id = 't2';
    UPDATE task SET title = 'four of Bob' WHERE id = 't4';
    UPDATE task SET title = 'five of Bob' WHERE id = 't5';
    DELETE FROM task WHERE id = 't6';
    DELETE FROM task WHERE id = 't7';";

/// Effects on the server: the beginning's 11, Bob's 8, and of Alice's 8 all but the edit of the
/// row that Bob deleted.
const EFFECTS: i64 = 11 + 8 + 7;

/// What everyone has in the end, wherever Alice's process died.
const END: &str = "
    INSERT INTO project VALUES ('p1', 'house', 0.1), ('p2', 'garden', NULL), ('p3', 'car', 1e300),
      ('pa', 'of Alice', 2.5), ('pb', 'of Bob', -0.0);
    INSERT INTO task VALUES
      ('t1', 'p1', 'one of Alice', 0, x'00ff'), ('t2', 'p1', 'two of Alice', 1, NULL),
      ('t4', 'p2', 'four of Alice', 0, NULL), ('t5', 'p2', 'five of Bob', 0, x''),
      ('t8', 'p3', 'eight', 0, NULL), ('ta1', 'pa', 'a one', 0, NULL), ('ta2', 'pa', 'a two', 0, NULL),
      ('tb1', 'pb', 'b one', 0, NULL), ('tb2', 'p3', 'b two', 0, NULL);";

/// Every unit of store work that a sync is made of.
const UNITS: [&str; 7] = [
    "acquire",
    "greet",
    "claim",
    "book",
    "read-cursor",
    "apply-page",
    "survey",
];

/// Small batches and pages, so that each unit occurs several times; a lease that ends soon.
const OPTIONS: &str = "--set push_mutations=3 --set page_changes=4 --set lease_ttl_ms=100";

/// Two devices and a server's data, at rest.
struct World {
    folder: TempDir,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self) -> Server {
        Server::own(SERVER, &self.path("server"), None)
    }

    fn device(&self, name: &str, server: &Server) -> Device {
        Device::existing(DEVICE, self.path(name))
            .remote(&server.url(), &token())
            .options(OPTIONS)
    }

    fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Both have synced the beginning; then both have edited; Bob has synced again.
    fn before_alices_sync() -> Self {
        let world = Self::empty();
        let mut server = world.server();
        for name in ["alice.db", "bob.db", "carol.db"] {
            Device::create(DEVICE, world.path(name), SCHEMA);
        }
        let (alice, bob) = (
            world.device("alice.db", &server),
            world.device("bob.db", &server),
        );
        alice.sql(BEGINNING);
        alice.run("--attach upload sync").success();
        bob.run("--attach upload sync").success();
        bob.sql(BOB);
        bob.sync();
        alice.sql(ALICE);
        // Carol has never synced; what she wrote before is uploaded with her first sync.
        let carol = world.device("carol.db", &server);
        carol.sql("INSERT INTO project VALUES ('pc', 'of Carol', 1)");
        carol.run("--attach upload attach").success();
        server.kill();
        world
    }

    fn copy(&self) -> Self {
        let copy = Self::empty();
        for name in ["alice.db", "bob.db", "carol.db"] {
            copy_database(&self.path(name), &copy.path(name));
        }
        copy_state(self.folder.path(), copy.folder.path());
        std::fs::create_dir(copy.path("server")).unwrap();
        for name in ["secret", "lock"] {
            let inside = |world: &Self| world.path("server").join(name);
            std::fs::copy(inside(self), inside(&copy)).unwrap();
        }
        copy_database(
            &self.path("server/server.db"),
            &copy.path("server/server.db"),
        );
        copy
    }

    fn effects(&self) -> i64 {
        number(&self.path("server/server.db"), "SELECT sum(head) FROM head")
    }

    /// Without those that were folded into others and never sent.
    fn keys_applied(&self) -> i64 {
        number(
            &self.path("server/server.db"),
            "SELECT count(*) FROM outcome WHERE fingerprint IS NOT NULL AND json_extract(outcome, '$.outcome.outcome') = 'applied'",
        )
    }
}

fn the_end(more: &str) -> Rows {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    conn.execute_batch(&format!("{SCHEMA}{END}{more}")).unwrap();
    syncline_process_tests::rows_of(&conn)
}

/// The moments of a sync as it goes without a crash, of each unit's first few occurrences.
fn moments(device: &Device, occurrences: usize) -> Vec<String> {
    let ended = device.run("--trace sync").success();
    let is_wanted = |moment: &&str| {
        let (unit, count) = (moment.split(':').next(), moment.rsplit(':').next());
        let occurrence: usize = count.unwrap().parse().unwrap();
        UNITS.contains(&unit.unwrap()) && occurrence <= occurrences
    };
    let moments: Vec<String> = ended
        .lines
        .iter()
        .filter_map(|line| line.strip_prefix("moment "))
        // The lease is renewed when time has passed, not at a point of a sync.
        .filter(is_wanted)
        .map(str::to_owned)
        .collect();
    for unit in UNITS {
        for moment in ["before", "written", "committed"] {
            let first = format!("{unit}:{moment}:1");
            assert!(
                moments.contains(&first),
                "a sync has no {first}: {moments:?}"
            );
        }
    }
    moments
}

/// Plays all cases on both of the machine's cores.
fn in_parallel<T: Sync>(cases: &[T], play: impl Fn(&T) + Sync) {
    let next = Mutex::new(cases.iter());
    let worker = || {
        loop {
            let case = next.lock().unwrap().next();
            let Some(case) = case else { return };
            play(case);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
}

/// Runs a sync that dies at this moment. Only a cycle that time brings about (the poll, say) may
/// have been in the list and not come this time.
fn crash(device: &Device, moment: &str) {
    let ended = device.run(&format!("--crash {moment} sync"));
    let first = moment.ends_with(":1");
    match ended.status.code() {
        None => {}
        Some(0) if !first => println!("{moment} did not come this time"),
        Some(_) => panic!("it was to die at {moment}: {ended:?}"),
    }
}

/// P1, S8: whatever the server has up to the stored position is in the rows, unless the entity
/// has unsettled work or a change of it waits in the inbox.
fn assert_cursor_not_ahead(context: &str, device: &Path, server: &Path) {
    let conn = rusqlite::Connection::open(device).unwrap();
    let position: Option<i64> = conn
        .query_row(
            "SELECT max(position) FROM syncline_cursor WHERE phase = 'feed'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let Some(position) = position else { return };
    let excused: BTreeSet<(String, String)> = conn
        .prepare(
            "SELECT entity_type, entity_id FROM syncline_outbox
              UNION SELECT entity_type, entity_id FROM syncline_inbox
              UNION SELECT entity_type, entity_id FROM syncline_conflict WHERE resolved_at IS NULL",
        )
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let own = rows(device);
    let server = rusqlite::Connection::open(server).unwrap();
    let mut statement = server
        .prepare("SELECT type, id, fields, seq FROM entity WHERE seq <= ?1")
        .unwrap();
    let mut listed = statement.query([position]).unwrap();
    while let Some(row) = listed.next().unwrap() {
        let name: (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let fields: Option<String> = row.get(2).unwrap();
        let fields = fields.map(|text| serde_json::from_str(&text).unwrap());
        if !excused.contains(&name) {
            let seq: i64 = row.get(3).unwrap();
            assert_eq!(
                own.get(&name),
                fields.as_ref(),
                "{context}: the cursor is at {position}, {name:?} of {seq} is not in the rows"
            );
        }
    }
}

fn assert_all_as_expected(context: &str, world: &World, server: &Server, expected: &Rows) {
    let listed = listing(&server.url(), &token());
    assert_same(
        context,
        ("the server", &listed),
        ("what it should be", expected),
    );
    for name in ["alice.db", "bob.db"] {
        let own = rows(&world.path(name));
        assert_same(context, (name, &own), ("what it should be", expected));
        assert_settled(context, &world.path(name));
    }
}

/// Alice's device dies at the moments, one process after the other; then everyone syncs.
fn play(prepared: &World, deaths: &[&str]) {
    let context = format!("Alice dies at {deaths:?}");
    let world = prepared.copy();
    let server = world.server();
    let (alice, bob) = (
        world.device("alice.db", &server),
        world.device("bob.db", &server),
    );
    for (index, moment) in deaths.iter().enumerate() {
        if index == 0 {
            crash(&alice, moment);
        } else {
            // After the first death a sync may be too short to come to the second one.
            alice.run(&format!("--crash {moment} sync"));
        }
        let database = world.path("server/server.db");
        assert_cursor_not_ahead(&context, &alice.path, &database);
    }
    alice.sync();
    bob.sync();
    assert_all_as_expected(&context, &world, &server, &the_end(""));
    assert_eq!(world.effects(), EFFECTS, "{context}: effects on the server");
    assert_eq!(world.keys_applied(), EFFECTS, "{context}: keys applied");
}

#[test]
fn a_process_dies_at_every_point_of_a_sync() {
    let prepared = World::before_alices_sync();
    let control = prepared.copy();
    let server = control.server();
    let moments = moments(&control.device("alice.db", &server), 3);
    drop(server);
    println!("{} points: {moments:?}", moments.len());
    in_parallel(&moments, |moment| play(&prepared, &[moment]));
}

#[test]
fn a_process_dies_again_while_it_recovers() {
    let seed = std::env::var("SEED").map_or(42, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let prepared = World::before_alices_sync();
    let control = prepared.copy();
    let server = control.server();
    let moments = moments(&control.device("alice.db", &server), 3);
    drop(server);
    let mut pick = || moments[dice.usize(..moments.len())].as_str();
    let cases: Vec<[&str; 3]> = (0..6).map(|_| [pick(), pick(), pick()]).collect();
    in_parallel(&cases, |deaths| play(&prepared, deaths));
}

/// Carol's first sync: her upload, and a snapshot of several pages.
#[test]
fn a_process_dies_at_every_point_of_its_first_sync() {
    let prepared = World::before_alices_sync();
    let control = prepared.copy();
    let server = control.server();
    let moments = moments(&control.device("carol.db", &server), 2);
    let expected = listing(&server.url(), &token());
    let own = rows(&control.path("carol.db"));
    assert_same(
        "Carol without a crash",
        ("Carol", &own),
        ("the server", &expected),
    );
    drop(server);
    let before = prepared.effects();
    println!("{} points: {moments:?}", moments.len());
    in_parallel(&moments, |moment| {
        let context = format!("Carol dies at {moment}");
        let world = prepared.copy();
        let server = world.server();
        let carol = world.device("carol.db", &server);
        crash(&carol, moment);
        let database = world.path("server/server.db");
        assert_cursor_not_ahead(&context, &carol.path, &database);
        carol.sync();
        assert_same(
            &context,
            ("Carol", &carol.rows()),
            ("the server", &expected),
        );
        assert_eq!(listing(&server.url(), &token()), expected, "{context}");
        assert_eq!(settled(&carol.path), [0; 6], "{context}");
        assert_eq!(
            world.effects(),
            before + 1,
            "{context}: effects on the server"
        );
    });
}
