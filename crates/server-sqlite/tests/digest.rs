//! Digests over SQLite: the same stories as over the storage in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

#[path = "../../server/tests/common/mod.rs"]
mod common;
#[path = "../../server/tests/common/digests.rs"]
mod digests;

use common::*;
use syncline_server::ServerConfig;
use syncline_server_sqlite::SqliteStorage;

fn run(story: impl Fn(&Server<SqliteStorage>)) {
    let directory = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(directory.path()).unwrap();
    let server = Server::new(storage, ServerConfig::default());
    story(&server);
}

#[test]
fn every_story() {
    run(digests::ranges_are_those_of_what_a_pull_brings);
    run(digests::a_range_is_told_entity_by_entity);
    run(digests::only_who_may_pull_may_ask);
}
