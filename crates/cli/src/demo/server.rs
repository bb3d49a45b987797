//! The demo's server: Syncline's own, on SQLite, over real HTTP on loopback, in this process.

use super::trouble;
use crate::{Failure, secret};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use syncline_protocol::{Access, Principal};
use syncline_server::{Authenticator, Identity, Now, ServerConfig, Service, issue_token};
use syncline_server_sqlite::SqliteStorage;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What the server asks of rows, as the file that `syncline serve --config` takes.
const CONFIG: &str = "\
# Only these types are taken; a task's priority is 1 to 5.
[types.project]

[types.task.schema]
type = \"object\"
required = [\"title\"]

[types.task.schema.properties.priority]
type = \"integer\"
minimum = 1
maximum = 5
";

/// Whose data it is: both devices belong to one person.
pub(super) const SUBJECT: &str = "ana";

/// The running server, until stopped or dropped.
pub(super) struct Server {
    runtime: Runtime,
    address: SocketAddr,
    token: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Starts it on a free port, with its data and configuration below `folder`.
    pub(super) fn start(folder: &Path) -> Result<Self, Failure> {
        let data = folder.join("server");
        let file = folder.join("server.toml");
        std::fs::write(&file, CONFIG)
            .map_err(|error| trouble(format!("cannot write {}", file.display()), error))?;
        let config = ServerConfig::load(&file).map_err(|error| trouble("the server", error))?;
        let storage = SqliteStorage::open(&data).map_err(|error| trouble("the server", error))?;
        let secret = secret::load(&data)?.bytes;
        let authenticator =
            Authenticator::hs256(&secret).map_err(|error| trouble("the server", error))?;
        let service = Service::new(storage, authenticator, config)
            .map_err(|error| trouble("the server", error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| trouble("the server", error))?;
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .map_err(|error| trouble("cannot listen on loopback", error))?;
        let address = listener
            .local_addr()
            .map_err(|error| trouble("cannot listen on loopback", error))?;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            // An error means that the demo is over.
            let _ = stopped.await;
        };
        let served = runtime.spawn(syncline_server::serve(
            listener,
            Arc::new(service),
            shutdown,
        ));
        Ok(Self {
            runtime,
            address,
            token: token(&secret)?,
            stop,
            served,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token for an hour.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// For what has to be awaited beside it.
    pub(super) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Stops it and waits until its files are closed.
    pub(super) fn stop(self) {
        // It has ended already if nobody listens.
        let _ = self.stop.send(());
        let _ = self.runtime.block_on(self.served);
    }
}

fn token(secret: &[u8]) -> Result<String, Failure> {
    let identity = Identity {
        principal: Principal {
            tenant: "default".to_owned(),
            subject: SUBJECT.to_owned(),
        },
        access: Access::Write,
    };
    let now = Now::from_unix_ms(crate::database::now().unix_ms);
    issue_token(secret, &identity, now, 3_600).map_err(|error| trouble("the token", error))
}
