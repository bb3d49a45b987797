//! A transport of the host's own: whole syncs without a socket. And what hosts call that get little time
//! and network: suspending at each step of a sync, bounded passes.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use syncline::protocol::{Access, Principal};
use syncline::{
    Budget, Builder, CycleEnd, HttpBody, HttpFault, HttpFuture, HttpRequest, HttpResponse,
    HttpTransport, Settings, State, SyncEnd, Syncline, TokenSource,
};
use syncline_server::{
    Authenticator, Identity, MemoryStorage, Now, Request, ServerConfig, Service, issue_token,
};
use tokio::sync::Notify;

const SECRET: &[u8] = b"a secret of at least 32 bytes for tests";

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a request is held for ever.
#[derive(Clone, Copy)]
struct Hold {
    nth: usize,
    /// The server has handled it; only its answer does not come.
    handled: bool,
}

/// A server in memory, reached by function call.
struct InMemory {
    service: Service<MemoryStorage>,
    hold: Mutex<Option<Hold>>,
    held: Notify,
    asked: AtomicUsize,
    under_way: AtomicUsize,
    sent: AtomicUsize,
}

/// Counts a request for as long as somebody waits for it.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Now::from_unix_ms(i64::try_from(unix.as_millis()).unwrap())
}

impl InMemory {
    fn new() -> Arc<Self> {
        let authenticator = Authenticator::hs256(SECRET).unwrap();
        let storage = MemoryStorage::new("epoch-1");
        let service = Service::new(storage, authenticator, ServerConfig::default()).unwrap();
        Arc::new(Self {
            service,
            hold: Mutex::new(None),
            held: Notify::new(),
            asked: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
        })
    }

    fn exchange(&self, request: HttpRequest) -> HttpResponse {
        let target = request.url.strip_prefix("https://sync.example").unwrap();
        let mut asked = Request::new(&request.method, target);
        for (name, value) in &request.headers {
            asked = asked.header(name, value);
        }
        asked.body = request.body.unwrap_or_default();
        self.sent.fetch_add(asked.body.len(), Ordering::SeqCst);
        let answer = self.service.handle(&asked, now());
        let lines = answer.headers.iter();
        HttpResponse {
            status: answer.status,
            headers: lines
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: Box::new(InPieces(answer.body)),
        }
    }
}

impl HttpTransport for InMemory {
    fn send(&self, request: HttpRequest) -> HttpFuture<'_, HttpResponse> {
        Box::pin(async move {
            let _under_way = UnderWay::new(&self.under_way);
            let nth = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let hold = *self.hold.lock().unwrap();
            let hold = hold.filter(|hold| hold.nth == nth);
            if hold.is_some_and(|hold| !hold.handled) {
                self.held.notify_one();
                return std::future::pending().await;
            }
            let answer = self.exchange(request);
            if hold.is_some() {
                self.held.notify_one();
                return std::future::pending().await;
            }
            Ok(answer)
        })
    }
}

/// A body that comes in small pieces.
struct InPieces(Vec<u8>);

impl HttpBody for InPieces {
    fn next<'a>(&'a mut self, into: &'a mut Vec<u8>) -> HttpFuture<'a, bool> {
        Box::pin(async move {
            let piece = self.0.len().min(100);
            into.extend(self.0.drain(..piece));
            Ok::<_, HttpFault>(piece > 0)
        })
    }
}

/// An app's database and its way to the server.
struct App {
    folder: tempfile::TempDir,
    server: Arc<InMemory>,
}

impl App {
    fn new(server: &Arc<InMemory>) -> Self {
        let app = Self {
            folder: tempfile::tempdir().unwrap(),
            server: Arc::clone(server),
        };
        let schema = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL)";
        app.sql().execute_batch(schema).unwrap();
        app
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    fn sql(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn builder(&self) -> Builder {
        let identity = Identity {
            principal: Principal {
                tenant: "acme".to_owned(),
                subject: "ann".to_owned(),
            },
            access: Access::Write,
        };
        let token = issue_token(SECRET, &identity, now(), 3_600).unwrap();
        let mut settings = Settings::default();
        settings.set("compress_above_bytes", 1 << 40).unwrap();
        settings.set("live", 1).unwrap();
        let transport: Arc<dyn HttpTransport> = Arc::clone(&self.server) as _;
        Syncline::builder(self.path())
            .remote("https://sync.example")
            .token(TokenSource::Static(token))
            .transport(transport)
            .settings(settings)
            .state_dir(self.folder.path().join("state"))
            .attach(["task"])
    }

    fn tasks(&self) -> i64 {
        let count = "SELECT count(*) FROM task";
        self.sql().query_row(count, [], |row| row.get(0)).unwrap()
    }

    fn insert(&self, prefix: &str, rows: usize, bytes: usize) {
        let app = self.sql();
        for nth in 0..rows {
            let title = "x".repeat(bytes);
            app.execute(
                "INSERT INTO task VALUES (?1, ?2)",
                (format!("{prefix}{nth}"), title),
            )
            .unwrap();
        }
    }
}

async fn sync(syncline: &Syncline) {
    let end = syncline.sync(PATIENCE).await;
    assert_eq!(end, SyncEnd::Cycle(CycleEnd::Complete));
}

#[tokio::test]
async fn two_devices_sync_through_a_transport_of_the_hosts_own() {
    let server = InMemory::new();
    let (ann, bob) = (App::new(&server), App::new(&server));
    let (a, b) = (ann.builder().open().unwrap(), bob.builder().open().unwrap());
    ann.insert("a", 3, 500);
    bob.insert("b", 2, 5);
    for syncline in [&a, &b, &a] {
        sync(syncline).await;
    }
    assert_eq!((ann.tasks(), bob.tasks()), (5, 5));
}

/// Whether nobody who comes now has to wait for this engine.
fn assert_nothing_is_open(app: &App) {
    let other = app.sql();
    other.busy_timeout(Duration::ZERO).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE; COMMIT").unwrap();
    let lease = "SELECT coalesce(max(until), 0) FROM syncline_lease";
    let until: i64 = other.query_row(lease, [], |row| row.get(0)).unwrap();
    assert_eq!(until, 0, "the lease is given back");
}

#[tokio::test]
async fn suspending_at_each_step_of_a_sync_leaves_nothing_open_and_loses_nothing() {
    for handled in [false, true] {
        let mut steps = 0;
        loop {
            let server = InMemory::new();
            let (ann, bob) = (App::new(&server), App::new(&server));
            bob.insert("b", 3, 5);
            let other = bob.builder().open().unwrap();
            sync(&other).await;
            let syncline = Arc::new(ann.builder().start_paused().open().unwrap());
            ann.insert("a", 3, 5);
            let nth = server.asked.load(Ordering::SeqCst) + steps + 1;
            *server.hold.lock().unwrap() = Some(Hold { nth, handled });
            syncline.resume();
            let cycle = tokio::spawn({
                let syncline = Arc::clone(&syncline);
                async move { syncline.sync(PATIENCE).await }
            });
            tokio::select! {
                () = server.held.notified() => {}
                _ = cycle => break,
            }
            steps += 1;
            tokio::time::timeout(PATIENCE, syncline.suspend())
                .await
                .expect("suspended in time");
            assert_eq!(syncline.state(), State::Paused);
            assert_nothing_is_open(&ann);
            let deadline = Instant::now() + PATIENCE;
            while server.under_way.load(Ordering::SeqCst) > 0 {
                assert!(Instant::now() < deadline, "a request is still awaited");
                tokio::task::yield_now().await;
            }
            // The app writes on, and nothing is asked of the world.
            ann.insert("later", 1, 5);
            let asked = server.asked.load(Ordering::SeqCst);
            *server.hold.lock().unwrap() = None;
            syncline.suspend().await;
            assert_eq!(server.asked.load(Ordering::SeqCst), asked);
            syncline.resume();
            sync(&syncline).await;
            sync(&other).await;
            assert_eq!((ann.tasks(), bob.tasks()), (7, 7), "step {steps}");
        }
        assert!(steps >= 3, "a sync of only {steps} requests");
    }
}

#[tokio::test]
async fn a_pass_keeps_to_its_bytes_and_says_what_is_left() {
    let server = InMemory::new();
    let ann = App::new(&server);
    ann.builder().attach_only().unwrap();
    ann.insert("a", 40, 1_000);
    let syncline = ann.builder().start_paused().open().unwrap();
    let (mut left, mut passes) = (40, 0);
    loop {
        let before = server.sent.load(Ordering::SeqCst);
        let pass = syncline.run_for(Budget::time(PATIENCE).bytes(12_000)).await;
        passes += 1;
        let sent = server.sent.load(Ordering::SeqCst) - before;
        assert!(sent < 12_000 + 2_000, "{sent} bytes with all envelopes");
        assert_eq!(syncline.state(), State::Paused, "as before");
        assert_nothing_is_open(&ann);
        if pass.end == SyncEnd::Cycle(CycleEnd::Complete) {
            assert_eq!((pass.left.mutations, pass.left.bytes), (0, 0));
            assert!(!pass.more_to_pull);
            break;
        }
        assert_eq!(pass.end, SyncEnd::Cycle(CycleEnd::BudgetUsedUp));
        assert!(pass.more_to_pull);
        assert!(
            pass.left.mutations < left || passes > 4,
            "no pass is in vain"
        );
        assert!(pass.left.bytes >= pass.left.mutations * 1_000);
        left = pass.left.mutations;
        assert!(passes < 12);
    }
    assert!(passes >= 4, "40 kB in {passes} passes of 12");
    let bob = App::new(&server);
    let other = bob.builder().open().unwrap();
    sync(&other).await;
    assert_eq!(bob.tasks(), 40);
}

#[tokio::test]
async fn a_pull_within_a_pass_comes_in_pages_of_what_is_left() {
    let server = InMemory::new();
    let (ann, bob) = (App::new(&server), App::new(&server));
    let other = bob.builder().open().unwrap();
    bob.insert("b", 30, 1_000);
    sync(&other).await;
    let syncline = ann.builder().start_paused().open().unwrap();
    let pass = syncline.run_for(Budget::time(PATIENCE).bytes(8_000)).await;
    assert_eq!(pass.end, SyncEnd::Cycle(CycleEnd::BudgetUsedUp));
    assert!((7..=8).contains(&ann.tasks()), "{}", ann.tasks());
    let pass = syncline.run_for(Budget::time(PATIENCE).requests(1)).await;
    assert_eq!(pass.end, SyncEnd::Cycle(CycleEnd::Complete));
    assert_eq!(ann.tasks(), 30, "and it goes on where it was");
}

#[tokio::test]
async fn a_pass_ends_on_time_though_the_server_does_not_answer() {
    for handled in [false, true] {
        let server = InMemory::new();
        let ann = App::new(&server);
        ann.builder().attach_only().unwrap();
        ann.insert("a", 3, 5);
        // The push is the third request: greeting, telling the types, push.
        *server.hold.lock().unwrap() = Some(Hold { nth: 3, handled });
        let syncline = ann.builder().start_paused().open().unwrap();
        let begun = Instant::now();
        let time = Duration::from_millis(1_500);
        let pass = syncline.run_for(Budget::time(time)).await;
        assert!(begun.elapsed() < PATIENCE / 2);
        assert_ne!(pass.end, SyncEnd::Cycle(CycleEnd::Complete));
        assert_eq!(pass.left.mutations, 3);
        assert_eq!(syncline.state(), State::Paused);
        assert_nothing_is_open(&ann);
        let pass = syncline.run_for(Budget::time(PATIENCE)).await;
        assert_eq!(pass.end, SyncEnd::Cycle(CycleEnd::Complete));
        assert_eq!(pass.left.mutations, 0);
    }
}
