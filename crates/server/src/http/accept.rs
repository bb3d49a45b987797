//! Accepts connections: HTTP/1.1 and HTTP/2 (with prior knowledge), with deadlines that are really
//! armed, a bound on connections, and an orderly end.
//!
//! Which of the two a connection speaks is found out here, under the header deadline: a stranger
//! who sends nothing, or only the beginning of a preface, is let go.

use super::HttpConfig;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2_STREAMS: u32 = 64;
const HTTP2_PING: Duration = Duration::from_secs(20);
const PEEK_PAUSE: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    config: HttpConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let connections = Arc::new(Semaphore::new(config.connections));
    let graceful = GracefulShutdown::new();
    let (closing, _) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        let next = accept(&listener, &connections);
        let (stream, permit) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next?,
        };
        let watcher = graceful.watcher();
        let (router, config, closed) = (router.clone(), config.clone(), closing.subscribe());
        tokio::spawn(async move {
            serve_connection(stream, router, &config, watcher, closed).await;
            drop(permit);
        });
    }
    drop(listener);
    drop(closing); // whoever has said nothing yet need not be waited for
    if tokio::time::timeout(config.shutdown_grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests had not ended when the time for it was over");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok((stream, permit)),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                // Out of descriptors, say: wait for connections to end instead of giving up.
                tracing::error!(%error, "no connection can be accepted for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    config: &HttpConfig,
    watcher: Watcher,
    mut closed: watch::Receiver<()>,
) {
    let first_bytes = tokio::time::timeout(config.header_timeout, speaks_http2(&stream));
    let http2 = tokio::select! {
        biased; // who has spoken is heard, also while the server closes
        first = first_bytes => match first {
            Ok(Ok(http2)) => http2,
            Ok(Err(_)) | Err(_) => return,
        },
        _ = closed.changed() => return,
    };
    // Answers are small and complete: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    cut_when_stalled(&stream, config.stall_timeout);
    let io = TokioIo::new(stream);
    let service = TowerToHyperService::new(router);
    let served = if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS)
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING);
        watcher.watch(builder.serve_connection(io, service)).await
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout);
        watcher.watch(builder.serve_connection(io, service)).await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A device that has gone away without a word, or reads nothing, would else hold its connection, and
/// what is to be sent on it, for as long as the system likes.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn cut_when_stalled(stream: &TcpStream, timeout: Duration) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout)) {
        tracing::debug!(%error, "a connection cannot be bounded in time");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn cut_when_stalled(_: &TcpStream, _: Duration) {}

/// Looks at the first bytes without taking them.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0_u8; HTTP2_PREFACE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        let seen = start.get(..seen).unwrap_or_default();
        if seen.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !HTTP2_PREFACE.starts_with(seen) {
            return Ok(false);
        }
        if seen.len() == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // A peek returns at once as long as anything is there; give the rest time to arrive.
        tokio::time::sleep(PEEK_PAUSE).await;
    }
}
