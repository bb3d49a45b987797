//! A person mends the outbox through the handle of a running engine, whose server refuses some of it;
//! and an id that the server changed is found by the one before.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used)] // helpers of tests

use rusqlite::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline::protocol::{Access, EntityId, Fields, PROTOCOL_VERSION, Principal};
use syncline::{
    CycleEnd, Discarded, Error, Notice, Settings, SyncEnd, SyncedEnd, Syncline, TokenSource, Which,
    Writes,
};
use syncline_server::{
    Authenticator, IdAssignment, Identity, MemoryStorage, Now, Request, ServerConfig, Service,
    TypeConfig, issue_token,
};
use tokio::net::TcpListener;

const SECRET: &[u8] = b"a secret of at least 32 bytes for tests";

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

struct Home {
    folder: tempfile::TempDir,
    service: Arc<Service<MemoryStorage>>,
    token: String,
    sync: Syncline,
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Now::from_unix_ms(i64::try_from(unix.as_millis()).unwrap())
}

/// A server that refuses tasks with a title of more than ten characters, and chooses the ids of notes.
fn service() -> Arc<Service<MemoryStorage>> {
    let schema = serde_json::json!({ "properties": { "title": { "maxLength": 10 } } });
    let task = TypeConfig {
        schema: Some(schema),
        ..TypeConfig::default()
    };
    let note = TypeConfig {
        id: IdAssignment::Integer,
        ..TypeConfig::default()
    };
    let config = ServerConfig {
        types: BTreeMap::from([("task".to_owned(), task), ("note".to_owned(), note)]),
        ..ServerConfig::default()
    };
    let authenticator = Authenticator::hs256(SECRET).unwrap();
    let storage = MemoryStorage::new("epoch-1");
    Arc::new(Service::new(storage, authenticator, config).unwrap())
}

/// An engine in sync with that server, which asks for nothing without a reason.
async fn home() -> Home {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = service();
    let serving =
        syncline_server::serve(listener, Arc::clone(&service), std::future::pending::<()>());
    tokio::spawn(serving);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let schema = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT);
                  CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)";
    let app = Connection::open(&path).unwrap();
    app.execute_batch(schema).unwrap();
    let identity = Identity {
        principal: Principal {
            tenant: "acme".to_owned(),
            subject: "ann".to_owned(),
        },
        access: Access::Write,
    };
    let token = issue_token(SECRET, &identity, now(), 3_600).unwrap();
    let mut settings = Settings::default();
    settings.set("debounce_ms", 5).unwrap();
    settings.set("poll_interval_ms", 86_400_000).unwrap();
    settings.set("live", 1).unwrap();
    let sync = Syncline::builder(&path)
        .remote(format!("http://{address}"))
        .token(TokenSource::Static(token.clone()))
        .state_dir(folder.path().join("state"))
        .settings(settings)
        .attach(["task", "note"])
        .open()
        .unwrap();
    sync.sync(PATIENCE).await;
    Home {
        folder,
        service,
        token,
        sync,
    }
}

impl Home {
    fn write(&self, sql: &str) {
        let write = self.sync.write(|tx| Ok::<_, Error>(tx.execute_batch(sql)?));
        write.unwrap();
    }

    /// What became of everything that was written.
    async fn settled(&self) -> SyncedEnd {
        self.sync.await_synced(Writes::SoFar, PATIENCE).await
    }

    /// The one entry that the server has refused, once the engine has nothing more to do.
    async fn refused(&self) -> i64 {
        let end = self.sync.sync(PATIENCE).await;
        assert_eq!(end, SyncEnd::Cycle(CycleEnd::Complete));
        assert_eq!(self.settled().await, SyncedEnd::NeedsPerson);
        let (entries, all) = self.sync.outbox(Which::DeadLetters, 9).unwrap();
        assert_eq!(all, 1, "{entries:?}");
        assert_eq!(entries[0].last_error.as_ref().unwrap().code, "validation");
        entries[0].seq
    }

    fn text(&self, sql: &str) -> String {
        let app = Connection::open(self.folder.path().join("app.db")).unwrap();
        app.query_row(sql, [], |row| row.get::<_, Option<String>>(0))
            .unwrap()
            .unwrap_or_default()
    }

    /// Everything that the server has, as it comes over the wire.
    fn on_server(&self) -> String {
        let request = Request::new("GET", "/v1/pull?scope=default")
            .header("syncline-protocol", PROTOCOL_VERSION)
            .header("authorization", format!("Bearer {}", self.token));
        let answer = self.service.handle(&request, now());
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 200, "{text}");
        text
    }
}

#[tokio::test]
async fn a_refused_write_is_edited_and_goes_through() {
    let home = home().await;
    home.write("INSERT INTO task VALUES ('a', 'much too long a title')");
    let seq = home.refused().await;
    let mut changes = Fields::new();
    changes.insert("title", "short");
    home.sync.edit(seq, changes.clone()).await.unwrap();
    assert_eq!(home.text("SELECT title FROM task"), "short");
    assert_eq!(home.settled().await, SyncedEnd::Confirmed);
    let there = home.on_server();
    assert!(there.contains(r#""title":"short""#), "{there}");
    let gone = home.sync.edit(seq, changes).await.unwrap_err().to_string();
    assert!(gone.contains("the outbox has no entry"), "{gone}");
}

#[tokio::test]
async fn a_refused_write_is_sent_again_with_what_was_corrected_since() {
    let home = home().await;
    home.write("INSERT INTO task VALUES ('a', 'much too long a title')");
    let seq = home.refused().await;
    home.write("UPDATE task SET title = 'short'");
    assert_eq!(home.refused().await, seq, "the correction waits behind it");
    home.sync.retry(seq).await.unwrap();
    assert_eq!(home.settled().await, SyncedEnd::Confirmed);
    let there = home.on_server();
    assert!(there.contains(r#""title":"short""#), "{there}");
    let gone = home.sync.retry(seq).await.unwrap_err().to_string();
    assert!(gone.contains("the outbox has no entry"), "{gone}");
}

#[tokio::test]
async fn a_refused_write_is_given_up_with_what_depends_on_it_and_its_row_is_taken_back() {
    let home = home().await;
    home.write("INSERT INTO task VALUES ('a', 'much too long a title'), ('b', 'fine')");
    let seq = home.refused().await;
    home.write("UPDATE task SET title = 'another' WHERE id = 'a'");
    let (left, _) = home.sync.outbox(Which::All, 9).unwrap();
    let gone: Vec<i64> = left.iter().map(|entry| entry.seq).collect();
    assert_eq!((gone.len(), gone[0]), (2, seq), "{left:?}");
    let cancelling = Vec::new();
    let expected = Discarded { gone, cancelling };
    assert_eq!(home.sync.discard(seq).await.unwrap(), expected);
    assert_eq!(home.text("SELECT group_concat(id) FROM task"), "b");
    assert_eq!(home.settled().await, SyncedEnd::Confirmed);
    assert!(!home.on_server().contains("another"));
    let gone = home.sync.discard(seq).await.unwrap_err().to_string();
    assert!(gone.contains("the outbox has no entry"), "{gone}");
}

#[tokio::test]
async fn a_row_whose_id_the_server_changed_is_found_by_the_one_before() {
    let home = home().await;
    let mut notices = home.sync.notices();
    home.write("INSERT INTO note VALUES (7, 'milk')");
    let changed = async {
        loop {
            let notice = notices.next().await.unwrap();
            if let Notice::IdChanged {
                entity_type,
                old,
                new,
            } = notice
            {
                return (entity_type.to_string(), old, new);
            }
        }
    };
    let changed = tokio::time::timeout(PATIENCE, changed).await.unwrap();
    let [old, new] = ["7", "1"].map(|id| EntityId::parse(id).unwrap());
    assert_eq!(changed, ("note".to_owned(), old.clone(), new.clone()));
    assert_eq!(home.text("SELECT CAST(id AS TEXT) FROM note"), "1");
    assert_eq!(home.sync.current_id("note", &old).unwrap(), new);
    assert_eq!(home.sync.current_id("note", &new).unwrap(), new);
    assert_eq!(home.sync.current_id("task", &old).unwrap(), old);
}
