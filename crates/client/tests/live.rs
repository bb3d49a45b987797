//! Live updates end to end: real engines, a real server on loopback, and polling put far away.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use rusqlite::Connection;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use syncline::protocol::{Access, ClientId, Principal};
use syncline::{
    HttpRemote, LiveUpdates, Remote, RemoteRequest, Settings, State, Syncline, TokenSource,
};
use syncline_core::{AnswerFuture, Hear, ListenFuture};
use syncline_server::{
    Authenticator, Identity, MemoryStorage, Now, ServerConfig, Service, issue_token,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const SECRET: &[u8] = b"a secret of at least 32 bytes for tests";

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for what is not to happen to show.
const QUIET: Duration = Duration::from_millis(700);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Somebody's token, valid for so many seconds, the minute of leeway aside.
fn token(seconds: i64) -> String {
    let identity = Identity {
        principal: Principal {
            tenant: "acme".to_owned(),
            subject: "ann".to_owned(),
        },
        access: Access::Write,
    };
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let unix_ms = i64::try_from(unix.as_millis()).unwrap();
    let issued = Now::from_unix_ms(unix_ms + (seconds - 600) * 1000);
    issue_token(SECRET, &identity, issued, 600).unwrap()
}

/// A server that can be stopped and comes back on its port with what it knew.
struct Server {
    runtime: Runtime,
    service: Arc<Service<MemoryStorage>>,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<std::io::Result<()>>)>,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let authenticator = Authenticator::hs256(SECRET).unwrap();
        let storage = MemoryStorage::new("epoch-1");
        let mut server = Self {
            runtime: Runtime::new().unwrap(),
            service: Arc::new(
                Service::new(storage, authenticator, ServerConfig::default()).unwrap(),
            ),
            address: "127.0.0.1:0".parse().unwrap(),
            running: None,
            folder: tempfile::tempdir().unwrap(),
        };
        server.up();
        server
    }

    fn up(&mut self) {
        let listener = self.runtime.block_on(async {
            loop {
                // Somebody's passing connection may have the port for a moment.
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = syncline_server::serve(listener, Arc::clone(&self.service), async {
            let _ = stopped.await;
        });
        self.running = Some((stop, self.runtime.spawn(serving)));
    }

    fn down(&mut self) {
        let (stop, serving) = self.running.take().unwrap();
        stop.send(()).unwrap();
        self.runtime.block_on(serving).unwrap().unwrap();
    }

    fn device(&self, name: &str, change: impl FnOnce(&mut Settings)) -> Device {
        self.device_with(name, TokenSource::Static(token(600)), change)
    }

    fn device_with(
        &self,
        name: &str,
        token: TokenSource,
        change: impl FnOnce(&mut Settings),
    ) -> Device {
        let path = self.folder.path().join(format!("{name}.db"));
        let app = Connection::open(&path).unwrap();
        app.execute_batch("CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)")
            .unwrap();
        let mut settings = Settings::default();
        for (key, value) in [
            ("debounce_ms", 5),
            ("poll_interval_ms", 3_600_000),
            ("live_poll_interval_ms", 3_600_000),
            ("backoff_base_ms", 10),
        ] {
            settings.set(key, value).unwrap();
        }
        change(&mut settings);
        let url = format!("http://{}", self.address);
        let http = HttpRemote::builder(url.clone()).token(token);
        let remote = Arc::new(Counting {
            http: http.build().unwrap(),
            log: Mutex::default(),
            streams: Arc::default(),
            deaf: Arc::default(),
        });
        let sync = Syncline::builder(&path)
            .remote(url)
            .remote_with(Arc::clone(&remote) as Arc<dyn Remote>)
            .state_dir(self.folder.path().join("state"))
            .settings(settings)
            .attach(["task"])
            .open()
            .unwrap();
        Device { path, remote, sync }
    }
}

/// The remote over HTTP, counted.
struct Counting {
    http: HttpRemote,
    log: Mutex<Vec<&'static str>>,
    /// Streams that have told their first head.
    streams: Arc<AtomicUsize>,
    /// Hints are lost, but for the first of a stream.
    deaf: Arc<AtomicBool>,
}

impl Remote for Counting {
    fn send(&self, request: RemoteRequest) -> AnswerFuture<'_> {
        let word = match &request {
            RemoteRequest::Hello { .. } => "hello",
            RemoteRequest::Push { .. } => "push",
            RemoteRequest::Pull { .. } => "pull",
            _ => "other",
        };
        self.log.lock().unwrap().push(word);
        self.http.send(request)
    }

    fn refresh_credentials(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        self.log.lock().unwrap().push("refresh");
        self.http.refresh_credentials()
    }

    fn listen(&self, client: ClientId, mut hear: Hear) -> ListenFuture<'_> {
        self.log.lock().unwrap().push("listen");
        let (streams, deaf) = (Arc::clone(&self.streams), Arc::clone(&self.deaf));
        let mut first = true;
        let filtered = move |head| {
            let first = std::mem::replace(&mut first, false);
            streams.fetch_add(usize::from(first), Ordering::SeqCst);
            if first || !deaf.load(Ordering::SeqCst) {
                hear(head);
            }
        };
        self.http.listen(client, Box::new(filtered))
    }
}

struct Device {
    path: PathBuf,
    remote: Arc<Counting>,
    sync: Syncline,
}

impl Device {
    fn count(&self, word: &str) -> usize {
        let log = self.remote.log.lock().unwrap();
        log.iter().filter(|one| **one == word).count()
    }

    fn requests(&self) -> usize {
        self.remote.log.lock().unwrap().len()
    }

    fn streams(&self) -> usize {
        self.remote.streams.load(Ordering::SeqCst)
    }

    fn is_listening(&self) {
        until("it listens", || {
            self.streams() > 0 && self.sync.state() == State::Idle
        });
    }

    /// By a connection of the app's own: another process could do no less.
    fn insert(&self, id: &str) {
        let app = Connection::open(&self.path).unwrap();
        app.busy_timeout(PATIENCE).unwrap();
        app.execute("INSERT INTO task VALUES (?1, 'milk')", [id])
            .unwrap();
    }

    fn rows(&self) -> i64 {
        let app = Connection::open(&self.path).unwrap();
        app.busy_timeout(PATIENCE).unwrap();
        let count = "SELECT count(*) FROM task";
        app.query_row(count, [], |row| row.get(0)).unwrap()
    }

    fn is_settled(&self) -> bool {
        let status = self.sync.status().unwrap();
        status.outbox.values().sum::<u64>() == 0 && self.sync.state() == State::Idle
    }
}

#[test]
fn a_write_reaches_the_other_device_at_once_and_its_writer_once() {
    let server = Server::start();
    let (phone, laptop) = (
        server.device("phone", |_| ()),
        server.device("laptop", |_| ()),
    );
    phone.is_listening();
    laptop.is_listening();
    let shown = laptop
        .sync
        .live_query("SELECT id FROM task", vec![])
        .unwrap();
    let mut shown = shown.blocking().unwrap();
    assert!(shown.next().unwrap().unwrap().rows.is_empty());
    let pulls = phone.count("pull");
    phone.insert("a");
    until("the hint woke it", || laptop.rows() == 1);
    let result = shown.next().unwrap().unwrap();
    assert_eq!(result.rows, [["a".to_owned().into()]]);
    until("it is pushed", || phone.is_settled());
    std::thread::sleep(QUIET);
    assert_eq!(phone.count("pull"), pulls + 1, "only that of its own cycle");
    laptop.insert("b");
    until("and back", || phone.rows() == 2);
    until("both are done", || {
        phone.is_settled() && laptop.is_settled()
    });
    // Nobody asks anything while nothing happens.
    let asked = (phone.requests(), laptop.requests());
    std::thread::sleep(QUIET);
    assert_eq!((phone.requests(), laptop.requests()), asked);
}

#[test]
fn while_hints_are_heard_polling_is_rare_and_a_lost_hint_is_found_by_it() {
    let server = Server::start();
    let often = |settings: &mut Settings| settings.set("poll_interval_ms", 100).unwrap();
    let phone = server.device("phone", often);
    phone.is_listening();
    let asked = phone.requests();
    std::thread::sleep(QUIET);
    // A poll that was due when the first hint came may have been under way.
    assert!(phone.requests() <= asked + 1, "{}", phone.requests());
    let laptop = server.device("laptop", |settings| {
        settings.set("live_poll_interval_ms", 300).unwrap();
        settings.set("poll_interval_ms", 100).unwrap();
    });
    laptop.is_listening();
    laptop.remote.deaf.store(true, Ordering::SeqCst);
    phone.insert("a");
    until("it was found", || laptop.rows() == 1);
}

#[test]
fn a_server_that_comes_back_is_listened_to_again() {
    let mut server = Server::start();
    let (phone, laptop) = (
        server.device("phone", |_| ()),
        server.device("laptop", |_| ()),
    );
    phone.is_listening();
    laptop.is_listening();
    let begun = Instant::now();
    server.down();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "streams do not hold it up"
    );
    server.up();
    phone.insert("a");
    until("it is woken by the new stream", || laptop.rows() == 1);
    assert!(laptop.streams() >= 2);
}

#[test]
fn a_token_that_ends_is_renewed_once() {
    let server = Server::start();
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let source = TokenSource::Callback(Arc::new(move || {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        Ok(token(if nth == 0 { -57 } else { 600 }))
    }));
    let phone = server.device_with("phone", source, |_| ());
    phone.is_listening();
    until("it listens with the next token", || phone.streams() == 2);
    assert_eq!(
        (made.load(Ordering::SeqCst), phone.count("refresh")),
        (2, 1)
    );
    let laptop = server.device("laptop", |_| ());
    laptop.insert("a");
    until("the hint woke it", || phone.rows() == 1);
}

#[test]
fn a_token_that_cannot_be_renewed_is_told_at_once() {
    let server = Server::start();
    let source = TokenSource::Static(token(-57));
    let phone = server.device_with("phone", source, |_| ());
    phone.is_listening();
    until("the app is told", || {
        phone.sync.state() == State::BlockedAuth
    });
    let asked = phone.requests();
    std::thread::sleep(QUIET);
    assert_eq!(phone.requests(), asked, "and the server is left alone");
}

#[test]
fn switched_off_or_not_offered_it_only_polls() {
    let server = Server::start();
    let phone = server.device("phone", |settings| settings.set_live(LiveUpdates::Off));
    until("it is at rest", || {
        phone.count("pull") > 0 && phone.is_settled()
    });
    std::thread::sleep(QUIET);
    assert_eq!(phone.count("listen"), 0);

    struct Plain(HttpRemote, AtomicUsize);
    impl Remote for Plain {
        fn send(&self, request: RemoteRequest) -> AnswerFuture<'_> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.send(request)
        }
        fn refresh_credentials(
            &self,
        ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
            self.0.refresh_credentials()
        }
    }
    let path = server.folder.path().join("plain.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT)")
        .unwrap();
    let url = format!("http://{}", server.address);
    let http = HttpRemote::builder(url.clone()).token(TokenSource::Static(token(600)));
    let plain = Arc::new(Plain(http.build().unwrap(), AtomicUsize::new(0)));
    let mut settings = Settings::default();
    settings.set("poll_interval_ms", 100).unwrap();
    let _sync = Syncline::builder(&path)
        .remote(url)
        .remote_with(Arc::clone(&plain) as Arc<dyn Remote>)
        .state_dir(server.folder.path().join("state"))
        .settings(settings)
        .attach(["task"])
        .open()
        .unwrap();
    until("it goes on polling", || plain.1.load(Ordering::SeqCst) > 5);
}

#[test]
fn a_stop_does_not_wait_for_the_stream() {
    let server = Server::start();
    let phone = server.device("phone", |_| ());
    phone.is_listening();
    let begun = Instant::now();
    phone.sync.close();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}
