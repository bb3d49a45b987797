//! A server on a socket, for the tests that need one.

#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use crate::common::*;
use reqwest::{Client, RequestBuilder};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline_server::{
    Authenticator, HttpConfig, MemoryStorage, Now, ServerConfig, Service, Storage, issue_token,
    serve_with,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct Running<S = MemoryStorage> {
    pub address: SocketAddr,
    pub service: Arc<Service<S>>,
    pub stop: oneshot::Sender<()>,
    pub server: JoinHandle<std::io::Result<()>>,
    pub client: Client,
    pub token: String,
}

pub async fn start(http: HttpConfig) -> Running {
    start_over(MemoryStorage::new(EPOCH), http).await
}

pub async fn start_over<S: Storage>(storage: S, http: HttpConfig) -> Running<S> {
    let mut config = ServerConfig::default();
    config.limits.push_bytes = 1 << 20;
    start_with(storage, config, http).await
}

pub async fn start_with<S: Storage>(
    storage: S,
    config: ServerConfig,
    http: HttpConfig,
) -> Running<S> {
    // An error means that another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authenticator = Authenticator::hs256(SECRET).unwrap();
    let service = Service::new(storage, authenticator, config).unwrap();
    let service = Arc::new(service);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = serve_with(listener, Arc::clone(&service), http, async {
        let _ = stopped.await;
    });
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Now::from_unix_ms(i64::try_from(unix.as_millis()).unwrap());
    Running {
        address,
        service,
        stop,
        server: tokio::spawn(serving),
        client: Client::builder().no_proxy().build().unwrap(),
        token: issue_token(SECRET, &ann().identity(), now, 600).unwrap(),
    }
}

impl<S: Storage> Running<S> {
    pub fn mark(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .header("syncline-protocol", "2026-11-01")
            .header("syncline-request", "r-9")
            .bearer_auth(&self.token)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn push(&self) -> RequestBuilder {
        let request = self.client.post(self.url("/v1/push"));
        self.mark(request)
            .header("content-type", "application/json")
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.mark(self.client.get(self.url(path)))
    }

    /// Writes bytes and reads until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        within(5, self.server).await.unwrap().unwrap();
    }
}

pub async fn within<T>(seconds: u64, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), work)
        .await
        .expect("it took too long")
}
