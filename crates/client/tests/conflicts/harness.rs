//! A real server on loopback, devices with real engines, and a way between them that can lose an
//! answer. Everything goes over HTTP; a device syncs only when it is told to.

use rusqlite::Connection;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use syncline::protocol::{Access, Principal};
use syncline::{
    Builder, Choice, ConflictDetails, ConflictFilter, Notice, Status, SyncEnd, Syncline,
    TokenSource,
};
use syncline_server::{
    Authenticator, Identity, Now, ServerConfig, Service, issue_token, rotate_epoch, serve,
};
use syncline_server_sqlite::SqliteStorage;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No sync of these stories takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

const SECRET: &[u8] = b"known to every device of a story";

/// A server and the folder in which everything lives.
pub(crate) struct World {
    folder: tempfile::TempDir,
    runtime: Runtime,
    running: Option<(oneshot::Sender<()>, JoinHandle<std::io::Result<()>>)>,
    proxy: Proxy,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_server("")
    }

    /// The server is told this in its `server.toml`.
    pub(crate) fn with_server(config: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            runtime,
            running: None,
            proxy: Proxy::start(),
        };
        std::fs::write(world.config(), config).unwrap();
        world.serve();
        world
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("server.toml")
    }

    /// A server that was stopped may have a connection to end before it gives its files back.
    fn storage(&self) -> SqliteStorage {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match SqliteStorage::open(self.folder.path().join("server")) {
                Ok(storage) => return storage,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn serve(&mut self) {
        let authenticator = Authenticator::hs256(SECRET).unwrap();
        let config = ServerConfig::load(&self.config()).unwrap();
        let service = Service::new(self.storage(), authenticator, config).unwrap();
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = self.runtime.block_on(listening).unwrap();
        self.proxy.lead_to(listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let served = self
            .runtime
            .spawn(serve(listener, Arc::new(service), shutdown));
        self.running = Some((stop, served));
    }

    /// The server comes back with another history, as after a restored backup.
    pub(crate) fn reset_epoch(&mut self) {
        let (stop, served) = self.running.take().unwrap();
        stop.send(()).unwrap();
        self.runtime.block_on(served).unwrap().unwrap();
        rotate_epoch(&self.storage(), now()).unwrap();
        self.serve();
    }

    /// The next push reaches the server, and its answer reaches nobody.
    pub(crate) fn lose_next_answer(&self) {
        self.proxy.lose.store(true, Ordering::SeqCst);
    }

    pub(crate) fn answer_was_lost(&self) -> bool {
        !self.proxy.lose.load(Ordering::SeqCst)
    }

    /// A device with these tables, described by `describe` whenever its engine starts.
    pub(crate) fn device(
        &self,
        name: &str,
        schema: &str,
        describe: impl Fn(Builder) -> Builder + 'static,
    ) -> Device {
        let path = self.folder.path().join(format!("{name}.db"));
        let app = Connection::open(&path).unwrap();
        app.busy_timeout(PATIENCE).unwrap();
        app.execute_batch(schema).unwrap();
        let (url, state) = (self.proxy.url(), self.folder.path().join("state"));
        let describe = move |builder: Builder| {
            let builder = builder
                .remote(url.clone())
                .token(TokenSource::Static(token()))
                .state_dir(&state)
                .attach_all();
            describe(builder)
        };
        describe(Syncline::builder(&path)).attach_only().unwrap();
        Device {
            path,
            app,
            describe: Box::new(describe),
            upstream: Arc::clone(&self.proxy.upstream),
            notices: Vec::new(),
        }
    }
}

fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now::from_unix_ms(i64::try_from(since.unwrap().as_millis()).unwrap())
}

fn token() -> String {
    let principal = Principal {
        tenant: "default".to_owned(),
        subject: "ann".to_owned(),
    };
    let access = Access::Write;
    issue_token(SECRET, &Identity { principal, access }, now(), 3600).unwrap()
}

/// A database, and an engine on it while it syncs.
pub(crate) struct Device {
    path: PathBuf,
    app: Connection,
    describe: Box<dyn Fn(Builder) -> Builder>,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    /// Everything that its engines told.
    pub(crate) notices: Vec<Notice>,
}

impl Device {
    /// Plain SQL by an app, while no engine runs.
    pub(crate) fn sql(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap();
    }

    /// Rows as text, columns separated by a bar.
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        let mut statement = self.app.prepare(sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let mut all = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let cell = |at| match row.get_ref(at).unwrap() {
                rusqlite::types::ValueRef::Null => String::new(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                rusqlite::types::ValueRef::Integer(integer) => integer.to_string(),
                other => format!("{other:?}"),
            };
            all.push((0..columns).map(cell).collect::<Vec<_>>().join("|"));
        }
        all
    }

    /// The first row.
    pub(crate) fn row(&self, sql: &str) -> String {
        self.rows(sql).into_iter().next().unwrap_or_default()
    }

    /// Runs something with an engine that does not reach the server.
    pub(crate) fn alone<T>(&mut self, act: impl FnOnce(&Syncline) -> T) -> T {
        let server = self.upstream.lock().unwrap().take();
        let done = self.with(act);
        *self.upstream.lock().unwrap() = server;
        done
    }

    /// Runs something with an engine.
    fn with<T>(&mut self, act: impl FnOnce(&Syncline) -> T) -> T {
        let sync = (self.describe)(Syncline::builder(&self.path))
            .open()
            .unwrap();
        let mut told = sync.notices();
        let done = act(&sync);
        sync.close();
        let reading = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        while let Some(notice) = reading.block_on(told.next()) {
            self.notices.push(notice);
        }
        done
    }

    /// One full cycle.
    pub(crate) fn sync(&mut self) -> Status {
        self.with(|sync| {
            let end = sync.sync_blocking(PATIENCE);
            assert!(matches!(end, SyncEnd::Cycle(_)), "{end:?}");
            sync.status().unwrap()
        })
    }

    /// The conflicts that wait for a person, in full.
    pub(crate) fn open_conflicts(&mut self) -> Vec<ConflictDetails> {
        self.alone(|sync| {
            let open = sync.conflicts(&ConflictFilter::open()).unwrap();
            let full = open.iter().map(|one| sync.conflict(one.id).unwrap());
            full.collect()
        })
    }

    /// The one conflict that waits for a person.
    #[track_caller]
    pub(crate) fn conflict(&mut self) -> ConflictDetails {
        let mut open = self.open_conflicts();
        assert_eq!(open.len(), 1, "{open:#?}");
        open.remove(0)
    }

    /// Decides the one conflict that waits.
    #[track_caller]
    pub(crate) fn decide(&mut self, choice: Choice) {
        let id = self.conflict().conflict.id;
        self.alone(|sync| sync.resolve_conflict_blocking(id, choice).unwrap());
    }
}

/// Both devices sync until neither has anything to send.
pub(crate) fn settle(devices: &mut [&mut Device]) {
    for _ in 0..2 {
        for device in devices.iter_mut() {
            device.sync();
        }
    }
}

/// Every device has these very rows, and nothing waits anywhere.
#[track_caller]
pub(crate) fn assert_all(devices: &mut [&mut Device], sql: &str, rows: &[&str]) {
    for device in devices.iter_mut() {
        let status = device.alone(|sync| sync.status().unwrap());
        let waiting: u64 = status.outbox.values().sum();
        let name = device.path.display();
        assert_eq!(device.rows(sql), rows, "{name}: {status:#?}");
        assert_eq!(
            (waiting, status.inbox, status.open_conflicts),
            (0, 0, 0),
            "{name}: {status:#?}"
        );
    }
}

/// Passes bytes on between devices and the server.
struct Proxy {
    address: SocketAddr,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    lose: Arc<AtomicBool>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            upstream: Arc::default(),
            lose: Arc::default(),
        };
        let (upstream, lose) = (Arc::clone(&proxy.upstream), Arc::clone(&proxy.lose));
        // It ends with the process.
        thread::spawn(move || {
            for device in listener.incoming().flatten() {
                let server = upstream.lock().unwrap().map(TcpStream::connect);
                if let Some(Ok(server)) = server {
                    pass(device, server, &lose);
                }
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn lead_to(&self, server: SocketAddr) {
        *self.upstream.lock().unwrap() = Some(server);
    }
}

/// Passes bytes both ways, until a push whose answer is to be lost: what comes back after that is
/// thrown away, and the connection ends.
fn pass(device: TcpStream, server: TcpStream, lose: &Arc<AtomicBool>) {
    let (mut from_device, mut to_server) =
        (device.try_clone().unwrap(), server.try_clone().unwrap());
    let (mut from_server, mut to_device) = (server, device);
    let (lose, swallow) = (Arc::clone(lose), Arc::new(AtomicBool::new(false)));
    let swallowing = Arc::clone(&swallow);
    thread::spawn(move || {
        copy(&mut from_device, &mut to_server, |bytes| {
            let push = bytes.starts_with(b"POST /v1/push");
            if push && lose.swap(false, Ordering::SeqCst) {
                swallow.store(true, Ordering::SeqCst);
            }
            true
        });
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        copy(&mut from_server, &mut to_device, |_| {
            !swallowing.load(Ordering::SeqCst)
        });
        let _ = to_device.shutdown(Shutdown::Both);
    });
}

/// Copies until the end, or until `go_on` says no to what was read.
fn copy(from: &mut TcpStream, to: &mut TcpStream, mut go_on: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !go_on(&bytes[..count]) || to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
