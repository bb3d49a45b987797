//! The service over HTTP: sockets in, [`Service`] on a bounded pool of threads, answers out.
//!
//! Owns everything that takes time (deadlines for headers and bodies, the clock, the shutdown) and
//! every bound on what strangers may use up. Knows nothing of the protocol beyond the form of its
//! errors; never panics on outside data, and turns a panic of a handler into an error answer.

mod accept;
mod body;
mod correlate;
pub(crate) mod encoding;
mod live;

use crate::meter;
use crate::problems::Refusal;
use crate::service::endpoint_word;
use crate::{Headers, Now, Request, Response, Service, Storage};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

/// Not at once: a server that has just started has better things to do.
const FIRST_PURGE: Duration = Duration::from_secs(60);

/// Bounds of the adapter; the defaults suit a small machine.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// How long a connection may take to send the headers of a request, also between requests.
    pub header_timeout: Duration,
    /// How long a request may take to send its body.
    pub body_timeout: Duration,
    /// How long requests under way may go on after the shutdown was asked for.
    pub shutdown_grace: Duration,
    /// Connections served at once; more wait to be accepted.
    pub connections: usize,
    /// Requests handled at once; more wait.
    pub concurrency: usize,
    /// How long a request waits for its turn before it is answered 503.
    pub queue_timeout: Duration,
    /// How long a peer may take nothing of what is sent to it before its connection is cut (on Linux
    /// and Android for every connection, elsewhere for live streams).
    pub stall_timeout: Duration,
    /// Live streams at once; each takes one of the connections. More are answered 503.
    pub live_streams: usize,
    /// Live streams of one principal at once; more are answered 429.
    pub live_streams_per_principal: usize,
    /// A live stream is never silent for longer; clients rely on
    /// [`HEARTBEAT_MS`](syncline_protocol::HEARTBEAT_MS).
    pub live_heartbeat: Duration,
    /// A live stream brings no two events within this time.
    pub live_pace: Duration,
    /// How often the storage is asked for what other processes have written.
    pub live_look: Duration,
    /// How often keys and tombstones past their retention are forgotten.
    pub purge_interval: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(10),
            connections: 1024,
            concurrency: 16,
            queue_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            live_streams: 512,
            live_streams_per_principal: 64,
            live_heartbeat: Duration::from_millis(syncline_protocol::HEARTBEAT_MS),
            live_pace: Duration::from_millis(100),
            live_look: Duration::from_secs(5),
            purge_interval: Duration::from_secs(60 * 60),
        }
    }
}

/// Serves until `shutdown` is ready, then lets requests under way finish. Errors are those of the
/// listener.
pub async fn serve<S: Storage>(
    listener: TcpListener,
    service: Arc<Service<S>>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_with(listener, service, HttpConfig::default(), shutdown).await
}

/// [`serve`] with bounds of one's own.
pub async fn serve_with<S: Storage>(
    listener: TcpListener,
    service: Arc<Service<S>>,
    config: HttpConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (open, closing) = watch::channel(());
    let app = Arc::new(App {
        turns: Semaphore::new(config.concurrency),
        service,
        config: config.clone(),
        closing,
    });
    let service = Arc::clone(&app.service);
    let forgetting = tokio::spawn(forget(service, config.purge_interval));
    let looking = tokio::spawn(live::look_around(Arc::clone(&app)));
    let router = Router::new().fallback(answer::<S>).with_state(app);
    let shutdown = async move {
        shutdown.await;
        drop(open); // live streams end by themselves only when told to
    };
    let served = accept::run(listener, router, config, shutdown).await;
    forgetting.abort();
    looking.abort();
    served
}

/// Forgets what is past its retention, shortly after the start and then from time to time.
async fn forget<S: Storage>(service: Arc<Service<S>>, interval: Duration) {
    let first = tokio::time::Instant::now() + interval.min(FIRST_PURGE);
    let mut ticks = tokio::time::interval_at(first, interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let service = Arc::clone(&service);
        let work = tokio::task::spawn_blocking(move || {
            crate::purge(service.storage(), service.config(), now())
        });
        match work.await {
            Ok(Ok(purged)) => {
                meter::forgot(Some(purged));
                tracing::info!(?purged, "forgot what is past its retention");
            }
            Ok(Err(error)) => {
                meter::forgot(None);
                tracing::error!(%error, cause = error.cause(), "nothing could be forgotten");
            }
            Err(_) => tracing::error!("forgetting did not come to its end"),
        }
    }
}

struct App<S> {
    service: Arc<Service<S>>,
    turns: Semaphore,
    config: HttpConfig,
    /// Changes when the server stops.
    closing: watch::Receiver<()>,
}

async fn answer<S: Storage>(
    State(app): State<Arc<App<S>>>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let (head, body) = request.into_parts();
    let mut headers = headers(&head.headers);
    correlate::correlate(&mut headers);
    let request = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers,
        body: Vec::new(),
    };
    let (endpoint, begun) = (endpoint_word(&request), Instant::now());
    let in_flight = meter::InFlight::begin();
    let answer = exchange(&app, request, body).await;
    drop(in_flight);
    meter::answered(endpoint, answer.status().as_u16(), begun.elapsed());
    answer
}

/// From a request whose body is still to come to its answer.
async fn exchange<S: Storage>(
    app: &Arc<App<S>>,
    request: Request,
    body: Body,
) -> axum::response::Response {
    let limit = app.service.config().limits.push_bytes;
    let read = tokio::time::timeout(
        app.config.body_timeout,
        body::read(body, body::declared_length(&request.headers), limit),
    );
    let body = match read.await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return http(app.service.refuse(&request, refusal)),
        Err(_) => return http(app.service.refuse(&request, body_too_slow())),
    };
    meter::received(body.len());
    let Ok(Ok(_turn)) = tokio::time::timeout(app.config.queue_timeout, app.turns.acquire()).await
    else {
        return http(app.service.refuse(&request, Refusal::overloaded(1)));
    };
    if request.method == "GET" && request.path == "/v1/live" {
        return match live::open(app, request).await {
            Ok((start, events)) => http(start).map(|_| events),
            Err(refused) => http(refused),
        };
    }
    let service = Arc::clone(&app.service);
    let asked = request.clone();
    let work = tokio::task::spawn_blocking(move || handle(&service, request, body, limit));
    let done = work.await;
    http(done.unwrap_or_else(|error| broke_down(&app.service, &asked, &error)))
}

fn broke_down<S: Storage>(
    service: &Service<S>,
    request: &Request,
    error: &tokio::task::JoinError,
) -> Response {
    // The panic's own words may quote a row; the process's panic hook decides about those.
    tracing::error!(
        panicked = error.is_panic(),
        "a handler did not come to its end"
    );
    service.refuse(request, Refusal::internal())
}

/// What needs a thread of its own: decompression, the service, compression.
fn handle<S: Storage>(
    service: &Service<S>,
    mut request: Request,
    body: Vec<u8>,
    limit: usize,
) -> Response {
    let accepted = encoding::accepted(&request.headers);
    match encoding::decode(body, request.headers.get("content-encoding"), limit) {
        Ok(body) => request.body = body,
        Err(refusal) => return service.refuse(&request, refusal),
    }
    encoding::encode(service.handle(&request, now()), accepted)
}

/// The one place where the server reads a clock.
fn now() -> Now {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn body_too_slow() -> Refusal {
    Refusal::new(408, "body-timeout", "The body did not arrive in time")
}

fn headers(map: &axum::http::HeaderMap) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in map {
        // Bytes that are not UTF-8 become a character that no valid value has.
        headers.add(name.as_str(), String::from_utf8_lossy(value.as_bytes()));
    }
    headers
}

fn http(response: Response) -> axum::response::Response {
    meter::sent(response.body.len());
    let mut answer = axum::response::Response::new(Body::from(response.body));
    *answer.status_mut() =
        StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}
