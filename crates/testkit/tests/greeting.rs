//! Stories of a long session: limits that change on the server are noticed, and an idle device asks for
//! nothing because of it.
#![allow(clippy::unwrap_used)] // helpers of tests

use syncline::Config;
use syncline_server::ServerConfig;
use syncline_testkit::World;

const SCHEMA: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)";
const MINUTE_MS: u64 = 60_000;

/// Alice, in sync with a server that takes so many mutations in a push.
fn greeted(push_mutations: usize) -> World {
    let mut config = ServerConfig::default();
    config.limits.push_mutations = push_mutations;
    let mut world = World::with_server(SCHEMA, config);
    world.device("Alice");
    world.run_until_quiet();
    world
}

fn write(world: &mut World, rows: u32) -> Vec<usize> {
    let before = world.batches("Alice").len();
    for row in 0..rows {
        let sql = format!("INSERT INTO task VALUES ('{before} {row}', 'x')");
        world.sql("Alice", &sql);
    }
    world.sync("Alice");
    let batches = &world.batches("Alice")[before..];
    batches.iter().map(Vec::len).collect()
}

/// Time passes, and the engine does what is due.
fn wait(world: &mut World, minutes: u64) {
    for _ in 0..minutes * 4 {
        world.pass(MINUTE_MS / 4);
        world.feed("Alice", syncline::Input::Tick);
    }
}

#[test]
fn limits_that_were_lowered_are_learnt_by_the_first_refusal() {
    let mut world = greeted(500);
    world.reconfigure_server(|config| config.limits.push_mutations = 3);
    wait(&mut world, 2);
    let greetings = world.traffic("Alice").greetings;
    assert_eq!(write(&mut world, 16), [16, 3, 3, 3, 3, 3, 1]);
    assert_eq!(world.traffic("Alice").greetings, greetings + 1);
    world.assert_equals_server("Alice");
}

#[test]
fn limits_that_were_raised_are_learnt_with_the_first_work_after_an_hour() {
    let mut world = greeted(3);
    world.reconfigure_server(|config| config.limits.push_mutations = 500);
    wait(&mut world, 30);
    assert_eq!(write(&mut world, 5), [3, 2]);
    let greetings = world.traffic("Alice").greetings;
    wait(&mut world, 180);
    assert_eq!(
        world.traffic("Alice").greetings,
        greetings,
        "nothing is asked for the sake of the time alone"
    );
    assert_eq!(write(&mut world, 5), [5]);
    assert_eq!(world.traffic("Alice").greetings, greetings + 1);
    assert_eq!(Config::default().greet_after_ms, 60 * MINUTE_MS);
}
