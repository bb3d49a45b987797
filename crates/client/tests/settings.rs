//! Waits that are set and that no remote shows: what is waited for with them, and how long.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use rusqlite::Connection;
use std::net::TcpListener;
use std::time::Duration;
use syncline::{CycleEnd, Notice, RemoteError, Settings, SyncEnd, Syncline, TokenSource};

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine for this address with these settings.
fn engine(
    address: &str,
    token: TokenSource,
    numbers: &[(&str, u64)],
) -> (tempfile::TempDir, Syncline) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL)")
        .unwrap();
    let mut settings = Settings::default();
    for (key, value) in numbers {
        settings.set(key, *value).unwrap();
    }
    let sync = Syncline::builder(&path)
        .remote(address)
        .token(token)
        .state_dir(folder.path().join("state"))
        .settings(settings)
        .attach(["task"])
        .open()
        .unwrap();
    (folder, sync)
}

/// The connection is made and nobody speaks TLS on it. Without the setting the answer is waited for, and
/// that ends first.
#[tokio::test]
async fn a_connection_is_waited_for_as_long_as_was_set() {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", deaf.local_addr().unwrap());
    let numbers = [("connect_timeout_ms", 50), ("progress_timeout_ms", 5_000)];
    let (_folder, sync) = engine(&address, TokenSource::None, &numbers);
    let end = sync.sync(PATIENCE).await;
    let SyncEnd::Cycle(CycleEnd::RemoteFailed(RemoteError::Unreachable { detail })) = end else {
        panic!("{end:?}");
    };
    assert!(detail.contains("Connect"), "{detail}");
    assert!(!detail.contains("did not answer"), "{detail}");
}

/// Without the setting the request is over first, and the renewal after it.
#[cfg(unix)]
#[tokio::test]
async fn a_tokens_program_is_waited_for_as_long_as_was_set() {
    let sleeper = syncline::TokenCommand::new("sleep", ["60"]);
    let numbers = [("token_timeout_ms", 50), ("request_timeout_ms", 2_000)];
    let source = TokenSource::Command(sleeper);
    let (_folder, sync) = engine("http://127.0.0.1:1", source, &numbers);
    let mut notices = sync.notices();
    let needed = async {
        loop {
            if let Notice::CredentialsNeeded { detail } = notices.next().await.unwrap() {
                return detail;
            }
        }
    };
    let detail = tokio::time::timeout(PATIENCE, needed).await.unwrap();
    let told = "the token command sleep did not end in time";
    assert!(detail.contains(told), "{detail}");
}
