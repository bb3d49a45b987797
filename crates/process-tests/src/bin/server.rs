//! The tests' own server: the real service on SQLite over real HTTP, with a secret that the tests
//! know. Prints where it listens; ends only by being killed.
//!
//! `syncline-test-server DATA LISTEN [CONFIG]`

// A tool of tests: what cannot go on panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::Arc;
use syncline_process_tests::SECRET;
use syncline_server::{Authenticator, ServerConfig, Service, serve};
use syncline_server_sqlite::SqliteStorage;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().expect("a data directory"));
    let listen = arguments.next().expect("a listen address");
    let config = arguments.next().map_or_else(ServerConfig::default, |path| {
        ServerConfig::load(&PathBuf::from(path)).unwrap()
    });
    let storage = SqliteStorage::open(data).unwrap();
    let authenticator = Authenticator::hs256(SECRET).unwrap();
    let service = Arc::new(Service::new(storage, authenticator, config).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(&listen).await.unwrap();
        println!("listening on http://{}", listener.local_addr().unwrap());
        serve(listener, service, std::future::pending())
            .await
            .unwrap();
    });
}
