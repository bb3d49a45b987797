//! `GET /metrics` for Prometheus, on a listener of its own that is only there when it was asked for.
//!
//! It speaks just enough HTTP for that, shows numbers that name no tenant and no row, and takes
//! nothing in; whoever is slow or talks too much is cut off.

use crate::prometheus::PrometheusRecorder;
use crate::{Failure, report};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Requests answered at once; more wait.
const AT_ONCE: usize = 4;
/// The longest from a connection to the end of its answer.
const LONGEST: Duration = Duration::from_secs(10);
/// A request has no more bytes than this.
const MOST_BYTES: usize = 16 << 10;

/// What is looked up before the numbers are told.
pub(crate) type Look = Box<dyn Fn() + Send + Sync>;

/// A listener that is not answered yet.
pub(crate) struct Exposition {
    recorder: PrometheusRecorder,
    listener: TcpListener,
    address: SocketAddr,
}

impl Exposition {
    /// Takes the address, and begins to count.
    pub(crate) async fn listen(address: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(
                "cannot-listen",
                format!("cannot listen on {address} for metrics: {error}"),
            )
            .hint("give a free address of this machine, or port 0 to have one picked")
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "anyone who reaches this address can read the metrics");
        }
        let recorder = PrometheusRecorder::default();
        // Only once in a process; a second one would show nothing, and there is none.
        let _ = metrics::set_global_recorder(recorder.clone());
        syncline::describe_metrics();
        syncline_server::describe_metrics();
        Ok(Self {
            recorder,
            listener,
            address,
        })
    }

    /// Says on stdout where it is.
    pub(crate) fn tell(&self, as_json: bool) {
        let url = format!("http://{}/metrics", self.address);
        match as_json {
            true => report::line(&json!({ "metrics": url }).to_string()),
            false => report::line(&format!("metrics on {url}")),
        }
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve(self, look: Look) {
        let (turns, look) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(look));
        loop {
            let accepted = self.listener.accept().await;
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
                return;
            };
            match accepted {
                Ok((stream, _)) => {
                    let (recorder, look) = (self.recorder.clone(), Arc::clone(&look));
                    tokio::spawn(async move {
                        let _turn = turn;
                        let answering = answer(stream, &recorder, &look);
                        // Whoever asked has gone, or is too slow to be told.
                        let _ = tokio::time::timeout(LONGEST, answering).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection can be accepted for now");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    recorder: &PrometheusRecorder,
    look: &Look,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece).await?;
        if count == 0 || request.len() > MOST_BYTES {
            return Ok(());
        }
        request.extend_from_slice(&piece[..count]);
    }
    let line = request
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let (status, body) = match line.strip_prefix(b"GET /metrics") {
        Some([b' ' | b'?', ..]) => {
            look();
            ("200 OK", recorder.render())
        }
        _ => (
            "404 Not Found",
            "there is only GET /metrics here\n".to_owned(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n\
         cache-control: no-store\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
