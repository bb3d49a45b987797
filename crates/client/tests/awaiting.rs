//! Waiting until writes are confirmed: a real engine, a real server on loopback.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

use rusqlite::Connection;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline::protocol::{Access, Principal};
use syncline::{Error, Recorded, Settings, SyncedEnd, Syncline, TokenSource, WriteOptions, Writes};
use syncline_server::{
    Authenticator, Identity, MemoryStorage, Now, ServerConfig, Service, issue_token,
};
use tokio::net::TcpListener;

const SECRET: &[u8] = b"a secret of at least 32 bytes for tests";

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for what is not to happen to show.
const QUIET: Duration = Duration::from_millis(300);

struct Home {
    folder: tempfile::TempDir,
    listener: Option<TcpListener>,
    sync: Syncline,
}

/// An engine whose server has a port but does not answer on it yet.
async fn home() -> Home {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)")
        .unwrap();
    let identity = Identity {
        principal: Principal {
            tenant: "acme".to_owned(),
            subject: "ann".to_owned(),
        },
        access: Access::Write,
    };
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let issued = Now::from_unix_ms(i64::try_from(unix.as_millis()).unwrap());
    let token = issue_token(SECRET, &identity, issued, 600).unwrap();
    let mut settings = Settings::default();
    settings.set("debounce_ms", 5).unwrap();
    let sync = Syncline::builder(&path)
        .remote(format!("http://{address}"))
        .token(TokenSource::Static(token))
        .state_dir(folder.path().join("state"))
        .settings(settings)
        .attach(["task"])
        .open()
        .unwrap();
    Home {
        folder,
        listener: Some(listener),
        sync,
    }
}

impl Home {
    /// From now on the server answers.
    fn serve(&mut self) {
        let authenticator = Authenticator::hs256(SECRET).unwrap();
        let storage = MemoryStorage::new("epoch-1");
        let service = Service::new(storage, authenticator, ServerConfig::default()).unwrap();
        let listener = self.listener.take().unwrap();
        let serving =
            syncline_server::serve(listener, Arc::new(service), std::future::pending::<()>());
        tokio::spawn(serving);
    }

    fn write(&self, sql: &str) -> Writes {
        let options = WriteOptions::default();
        let recorded: Recorded<()> = self
            .sync
            .write_with(&options, |tx| Ok::<_, Error>(tx.execute_batch(sql)?))
            .unwrap();
        Writes::These(recorded.mutations)
    }
}

#[tokio::test]
async fn writes_are_confirmed_once_the_server_has_them() {
    let mut home = home().await;
    let writes = home.write("INSERT INTO task VALUES ('1', 'milk')");
    assert_eq!(
        home.sync.await_synced(writes.clone(), QUIET).await,
        SyncedEnd::TimedOut
    );
    assert_eq!(
        home.sync.await_synced(Writes::SoFar, QUIET).await,
        SyncedEnd::TimedOut
    );
    home.serve();
    let (these, all) = tokio::join!(
        home.sync.await_synced(writes.clone(), PATIENCE),
        home.sync.await_synced(Writes::SoFar, PATIENCE),
    );
    assert_eq!((these, all), (SyncedEnd::Confirmed, SyncedEnd::Confirmed));
    assert_eq!(home.sync.status().unwrap().outbox["pending"], 0);
    let again = home.sync.await_synced(writes, QUIET).await;
    assert_eq!(again, SyncedEnd::Confirmed, "it stays confirmed");
}

#[tokio::test]
async fn a_write_that_was_coalesced_is_confirmed_with_the_other() {
    let mut home = home().await;
    let first = home.write("INSERT INTO task VALUES ('1', 'milk')");
    let second = home.write("UPDATE task SET title = 'oat milk'");
    let other = home.write("INSERT INTO task VALUES ('2', 'tea'); DELETE FROM task WHERE id = '2'");
    home.serve();
    for writes in [first, second, other] {
        let end = home.sync.await_synced(writes, PATIENCE).await;
        assert_eq!(end, SyncedEnd::Confirmed);
    }
}

#[tokio::test]
async fn a_refused_write_needs_a_person_and_holds_up_no_other() {
    let mut home = home().await;
    home.serve();
    let app = Connection::open(home.folder.path().join("app.db")).unwrap();
    app.execute_batch("INSERT INTO task VALUES ('bad', 'a' || char(0))")
        .unwrap();
    let mutation: String = app
        .query_row("SELECT mutation FROM syncline_outbox", [], |row| row.get(0))
        .unwrap();
    let bad = Writes::These(vec![mutation.as_str().into()]);
    let good = home.write("INSERT INTO task VALUES ('good', 'b')");
    assert_eq!(
        home.sync.await_synced(bad, PATIENCE).await,
        SyncedEnd::NeedsPerson
    );
    assert_eq!(
        home.sync.await_synced(good, PATIENCE).await,
        SyncedEnd::Confirmed
    );
    assert_eq!(
        home.sync.await_synced(Writes::SoFar, PATIENCE).await,
        SyncedEnd::NeedsPerson
    );
    // A later write of the same row goes nowhere before the first is decided.
    let later = home.write("UPDATE task SET title = 'c' WHERE id = 'bad'");
    assert_eq!(
        home.sync.await_synced(later, PATIENCE).await,
        SyncedEnd::NeedsPerson
    );
}
