//! How a remote is set up. Every default works; what cannot work is refused before anything is sent.

use crate::token::Credentials;
use crate::transport::HttpTransport;
use crate::{HttpRemote, HttpRemoteError, TokenSource};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use syncline_protocol::TraceParent;
use url::Url;

/// Longer time-outs are cut to this: far beyond any use, and no sum of times overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where plain `http` (without TLS) may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainHttp {
    /// Only to this very machine: `localhost`, `127.0.0.0/8`, `::1`. No proxy is used for these.
    #[default]
    LoopbackOnly,
    /// Anywhere: token and data travel unprotected.
    Anywhere,
}

/// Sets up an [`HttpRemote`]; made by [`HttpRemote::builder`]. No time-out is longer than a day.
#[derive(Clone)]
pub struct HttpRemoteBuilder {
    base_url: String,
    token: TokenSource,
    plain_http: PlainHttp,
    connect_timeout: Duration,
    bounds: Bounds,
    trace: TraceContext,
    transport: Option<Arc<dyn HttpTransport>>,
}

/// Which trace the requests belong to, if their host says so.
#[derive(Clone, Default)]
pub(crate) struct TraceContext(Option<Arc<dyn Fn() -> Option<TraceParent> + Send + Sync>>);

impl TraceContext {
    pub(crate) fn current(&self) -> Option<TraceParent> {
        self.0.as_ref().and_then(|current| current())
    }
}

/// Without the address, which may still contain a password.
impl fmt::Debug for HttpRemoteBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRemoteBuilder")
            .field("token", &self.token)
            .field("plain_http", &self.plain_http)
            .field("connect_timeout", &self.connect_timeout)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// What no request may exceed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) request_timeout: Duration,
    pub(crate) progress_timeout: Duration,
    pub(crate) live_silence: Duration,
    pub(crate) max_response_bytes: usize,
    pub(crate) compress_above: usize,
    pub(crate) log_values: bool,
}

impl HttpRemoteBuilder {
    pub(crate) fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            token: TokenSource::None,
            plain_http: PlainHttp::LoopbackOnly,
            connect_timeout: Duration::from_secs(10),
            bounds: Bounds {
                request_timeout: Duration::from_secs(30),
                progress_timeout: Duration::from_secs(15),
                live_silence: Duration::from_secs(60),
                max_response_bytes: 64 << 20,
                compress_above: 1 << 10,
                log_values: false,
            },
            trace: TraceContext::default(),
            transport: None,
        }
    }

    /// Where the bearer token comes from; default: [`TokenSource::None`].
    #[must_use]
    pub fn token(mut self, token: TokenSource) -> Self {
        self.token = token;
        self
    }

    /// Where plain `http` may go; default: [`PlainHttp::LoopbackOnly`].
    #[must_use]
    pub fn plain_http(mut self, plain_http: PlainHttp) -> Self {
        self.plain_http = plain_http;
        self
    }

    /// A transport of the host's own in place of the one that comes along (feature `reqwest`).
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn HttpTransport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The longest wait for a connection, TLS included; default: 10 s. Nothing to a transport of the
    /// host's own.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// The longest a request may take from the first look at the token to the last byte of the
    /// answer; default: 30 s. A renewal of the token has the same bound.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.request_timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// The longest wait for the next bytes of an answer, for its first ones too unless a push is
    /// under way (whose upload may take longer); default: 15 s.
    #[must_use]
    pub fn progress_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.progress_timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// The longest that a live stream may be silent before it is taken for dead; default: 60 s. A
    /// server of ours says something every 25 s.
    #[must_use]
    pub fn live_silence(mut self, timeout: Duration) -> Self {
        self.bounds.live_silence = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// The longest answer, after decompression, in bytes; default: 64 MiB.
    #[must_use]
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.bounds.max_response_bytes = bytes;
        self
    }

    /// A push body longer than this is compressed (zstd); default: 1 KiB. `usize::MAX`: never.
    #[must_use]
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.bounds.compress_above = bytes;
        self
    }

    /// Asked before each request, in the task that sends it, for the trace that it belongs to: the
    /// header `traceparent` is what it answers. Without one, and when it answers `None`, each request
    /// begins a trace of its own.
    #[must_use]
    pub fn trace_context(
        mut self,
        current: impl Fn() -> Option<TraceParent> + Send + Sync + 'static,
    ) -> Self {
        self.trace = TraceContext(Some(Arc::new(current)));
        self
    }

    /// Whether log lines may show what is in rows: at level debug each mutation as it is sent. The
    /// default is no.
    #[must_use]
    pub fn log_values(mut self, shown: bool) -> Self {
        self.bounds.log_values = shown;
        self
    }

    /// Checks everything and makes the remote; nothing is sent yet.
    pub fn build(self) -> Result<HttpRemote, HttpRemoteError> {
        let (base, place) = read_base(&self.base_url)?;
        if let (Place::Elsewhere, "http", PlainHttp::LoopbackOnly) =
            (place, base.scheme(), self.plain_http)
        {
            let host = base.host_str().unwrap_or_default().to_owned();
            return Err(HttpRemoteError::PlainHttp { host });
        }
        self.check_bounds()?;
        let credentials =
            Credentials::new(self.token).map_err(|detail| HttpRemoteError::BadToken { detail })?;
        let transport = match self.transport {
            Some(transport) => transport,
            None => make_transport(self.connect_timeout, &base, place)?,
        };
        let (bounds, trace) = (self.bounds, self.trace);
        Ok(HttpRemote::new(transport, base, credentials, bounds, trace))
    }

    fn check_bounds(&self) -> Result<(), HttpRemoteError> {
        let bounds = &self.bounds;
        for (setting, zero) in [
            ("the connect time-out", self.connect_timeout.is_zero()),
            ("the request time-out", bounds.request_timeout.is_zero()),
            ("the progress time-out", bounds.progress_timeout.is_zero()),
            ("the longest live silence", bounds.live_silence.is_zero()),
            ("the longest answer", bounds.max_response_bytes == 0),
        ] {
            if zero {
                return Err(HttpRemoteError::ZeroSetting { setting });
            }
        }
        Ok(())
    }
}

/// Whether the server is this very machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Loopback,
    Elsewhere,
}

fn read_base(text: &str) -> Result<(Url, Place), HttpRemoteError> {
    let bad = |detail: String| HttpRemoteError::BadUrl { detail };
    let url = Url::parse(text.trim()).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("its scheme is neither http nor https".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(HttpRemoteError::UrlWithCredentials);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query or a fragment".to_owned()));
    }
    let host = url.host_str().unwrap_or_default();
    let place = match is_loopback(host) {
        true => Place::Loopback,
        false => Place::Elsewhere,
    };
    Ok((url, place))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => bare == "localhost",
    }
}

#[cfg(feature = "reqwest")]
fn make_transport(
    connect_timeout: Duration,
    base: &Url,
    place: Place,
) -> Result<Arc<dyn HttpTransport>, HttpRemoteError> {
    let loopback = place == Place::Loopback;
    let transport = crate::reqwest_transport::Reqwest::new(connect_timeout, base, loopback)?;
    Ok(Arc::new(transport))
}

#[cfg(not(feature = "reqwest"))]
fn make_transport(
    _: Duration,
    _: &Url,
    _: Place,
) -> Result<Arc<dyn HttpTransport>, HttpRemoteError> {
    Err(HttpRemoteError::NoTransport)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(url: &str) -> Result<HttpRemote, HttpRemoteError> {
        HttpRemoteBuilder::new(url).build()
    }

    #[test]
    fn good_addresses_are_taken() {
        for url in [
            "https://sync.example.org",
            "https://sync.example.org:8443/base/",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://localhost:1",
            "http://LOCALHOST",
            "http://[::1]:1",
        ] {
            build(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }

    #[test]
    fn bad_addresses_are_refused() {
        for url in [
            "",
            "sync.example.org",
            "/v1",
            "ftp://example.org",
            "https://",
            "https://example.org/?a=b",
            "https://example.org/#a",
            "unix:/tmp/socket",
        ] {
            let error = build(url).unwrap_err();
            assert!(
                matches!(error, HttpRemoteError::BadUrl { .. }),
                "{url}: {error}"
            );
        }
        let error = build("https://joe:canary@example.org").unwrap_err();
        assert_eq!(error, HttpRemoteError::UrlWithCredentials);
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_allowed() {
        for host in [
            "example.org",
            "10.0.0.1",
            "localhost.example.org",
            "[2001:db8::1]",
            "0.0.0.0",
        ] {
            let url = format!("http://{host}:80");
            let error = build(&url).unwrap_err();
            let expected = HttpRemoteError::PlainHttp {
                host: host.to_owned(),
            };
            assert_eq!(error, expected);
            let allowed = HttpRemoteBuilder::new(&url).plain_http(PlainHttp::Anywhere);
            assert!(allowed.build().is_ok());
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let builder = || HttpRemoteBuilder::new("http://localhost");
        for refused in [
            builder().connect_timeout(Duration::ZERO),
            builder().request_timeout(Duration::ZERO),
            builder().progress_timeout(Duration::ZERO),
            builder().max_response_bytes(0),
        ] {
            let error = refused.build().unwrap_err();
            assert!(matches!(error, HttpRemoteError::ZeroSetting { .. }));
        }
        for token in ["", "two words", "line\nbreak", "ümlaut"] {
            let error = builder()
                .token(TokenSource::Static(token.into()))
                .build()
                .unwrap_err();
            assert!(matches!(error, HttpRemoteError::BadToken { .. }));
            assert!(token.is_empty() || !error.to_string().contains(token));
        }
    }
}
