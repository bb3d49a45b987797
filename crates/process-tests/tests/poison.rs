//! One mutation among a thousand that the server will not have, or that spoils every request it
//! travels in: the others arrive, in few round trips, and the one waits for a person.

// A test that cannot go on has failed; the panic says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::{Duration, Instant};
use syncline_process_tests::{Act, Device, Proxy, Server, Tool, listing, number, settled, token};
use tempfile::TempDir;

const DEVICE: &str = env!("CARGO_BIN_EXE_syncline-test-device");
const SERVER: &str = env!("CARGO_BIN_EXE_syncline-test-server");

const SCHEMA: &str = "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT NOT NULL)";

/// A thousand rows, of which the 700th is different.
fn thousand(title: &str) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO task SELECT i, iif(i = 700, '{title}', 'task ' || i) FROM n"
    )
}

struct World {
    folder: TempDir,
    server: Server,
    proxy: Proxy,
}

impl World {
    fn new(config: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = config.map(|config| {
            let path = folder.path().join("server.toml");
            std::fs::write(&path, config).unwrap();
            path
        });
        let server = Server::own(SERVER, &folder.path().join("server"), path.as_deref());
        let proxy = Proxy::start(server.address());
        Self {
            folder,
            server,
            proxy,
        }
    }

    fn device(&self, name: &str) -> Device {
        Device::create(DEVICE, self.folder.path().join(name), SCHEMA)
            .remote(&self.proxy.url(), &token())
    }

    fn assert_all_but_one_arrived(&self, device: &Device) {
        let mut expected = device.rows();
        let poison = ("task".to_owned(), "700".to_owned());
        assert!(
            expected.remove(&poison).is_some(),
            "the row stays on the device"
        );
        assert_eq!(expected.len(), 999);
        assert_eq!(listing(&self.server.url(), &token()), expected);
    }
}

/// The one dead letter as `syncline outbox list` and `show` tell of it.
fn told(path: &Path) -> (String, String) {
    let tool = Tool::find();
    let seq = number(path, "SELECT seq FROM syncline_outbox");
    let list = tool.run(path, "outbox list", "").success().output();
    let show = tool.command(None, "outbox show", "");
    let mut show = show;
    show.arg(path).arg(seq.to_string());
    let show = syncline_process_tests::Running::start(&mut show)
        .wait(syncline_process_tests::PATIENCE)
        .success();
    (list, show.output())
}

#[test]
fn one_that_the_schema_refuses_stands_alone_with_its_field() {
    let world = World::new(Some(
        "[types.task]\nschema = { type = \"object\", properties = { title = { type = \"string\", maxLength = 20 } } }\n",
    ));
    let device = world.device("alice.db");
    device.run("--attach upload attach").success();
    device.sql(&thousand("a title that is far too long for this server"));
    device.sync();

    let traffic = world.proxy.take_traffic();
    println!("{traffic:?}");
    assert!((1..=10).contains(&traffic.pushes), "{traffic:?}");
    world.assert_all_but_one_arrived(&device);
    assert_eq!(settled(&device.path), [0, 0, 1, 0, 0, 0], "one has failed");
    let (list, show) = told(&device.path);
    assert!(list.contains("failed") && list.contains("700"), "{list}");
    assert!(show.contains("title"), "the field is named: {show}");

    // It stays where it is: another sync sends nothing.
    device.sync();
    assert_eq!(world.proxy.take_traffic().pushes, 0);

    // A person mends the row and retries.
    device.sql("UPDATE task SET title = 'short' WHERE id = 700");
    let seq = number(&device.path, "SELECT min(seq) FROM syncline_outbox");
    let mut retry = Tool::find().command(None, "outbox retry", "");
    retry.arg(&device.path).arg(seq.to_string());
    let ended = syncline_process_tests::Running::start(&mut retry)
        .wait(syncline_process_tests::PATIENCE)
        .success();
    println!("{}", ended.output());
    device.sync();
    assert_eq!(settled(&device.path), [0; 6], "{ended:?}");
    assert_eq!(listing(&world.server.url(), &token()), device.rows());
}

#[test]
fn one_that_makes_the_whole_request_fail_is_found_and_dies_alone() {
    let world = World::new(None);
    let device = world
        .device("alice.db")
        .options("--plain --set max_attempts=3 --set backoff_base_ms=20 --set backoff_cap_ms=100");
    device.run("--attach upload attach").success();
    device.sql(&thousand("MARKED"));
    world.proxy.rule(
        |request| match request.is_push() && request.mentions("MARKED") {
            true => Act::Status(500),
            false => Act::Pass,
        },
    );
    // One engine sees it through: that others get through meanwhile is known to it alone.
    let engine = device.start("run");
    let begun = Instant::now();
    while settled(&device.path)[..4] != [0, 0, 0, 1] {
        assert!(begun.elapsed() < syncline_process_tests::PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    engine.kill();

    let traffic = world.proxy.take_traffic();
    println!("{traffic:?}");
    assert!(traffic.requests <= 40, "{traffic:?}");
    world.assert_all_but_one_arrived(&device);
    // That it is absent from the first snapshot waits for its answer.
    assert_eq!(settled(&device.path), [0, 0, 0, 1, 1, 0], "one is dead");
    let (list, _) = told(&device.path);
    assert!(list.contains("dead") && list.contains("700"), "{list}");
    assert!(list.contains("500"), "the error is shown: {list}");

    // Once the server can take it, a person's retry brings it there.
    world.proxy.pass();
    let seq = number(&device.path, "SELECT seq FROM syncline_outbox");
    let mut retry = Tool::find().command(None, "outbox retry", "");
    retry.arg(&device.path).arg(seq.to_string());
    syncline_process_tests::Running::start(&mut retry)
        .wait(syncline_process_tests::PATIENCE)
        .success();
    device.sync();
    assert_eq!(settled(&device.path), [0; 6]);
    assert_eq!(listing(&world.server.url(), &token()), device.rows());
}
