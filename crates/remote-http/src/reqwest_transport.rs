//! The transport that comes along: `reqwest` with rustls, HTTP/1.1 and HTTP/2, gzip and zstd.
//!
//! It follows no redirect, and uses the proxies that the environment names, except for this very machine.

use crate::HttpRemoteError;
use crate::text::chain;
use crate::transport::{
    HttpBody, HttpFault, HttpFuture, HttpRequest, HttpResponse, HttpTransport, parsed, plain,
};
use std::error::Error;
use std::io;
use std::time::Duration;
use url::Url;

/// Connections idle for longer are not used again: servers and balancers mostly close theirs after
/// a minute, and a request that meets the closing is lost.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

pub(crate) struct Reqwest(reqwest::Client);

impl Reqwest {
    pub(crate) fn new(
        connect_timeout: Duration,
        base: &Url,
        loopback: bool,
    ) -> Result<Self, HttpRemoteError> {
        // An error means that the app has chosen a provider for the process before: that one is taken.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("syncline/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(IDLE_CONNECTION)
            .tcp_nodelay(true);
        if loopback {
            client = client.no_proxy();
        }
        if base.scheme() == "http" {
            // Nothing will ever be encrypted: do not load the system's certificates, nor fail for want
            // of them.
            client = client.tls_certs_only([]);
        }
        let client = client.build().map_err(|error| HttpRemoteError::Client {
            detail: chain(&error.without_url()),
        })?;
        Ok(Self(client))
    }
}

impl HttpTransport for Reqwest {
    fn send(&self, request: HttpRequest) -> HttpFuture<'_, HttpResponse> {
        Box::pin(async move {
            let lost = |error: reqwest::Error| HttpFault::Lost(chain(&error.without_url()));
            let method = reqwest::Method::from_bytes(request.method.as_bytes())
                .map_err(|error| HttpFault::Lost(error.to_string()))?;
            let mut sending = self
                .0
                .request(method, request.url)
                .headers(parsed(request.headers));
            if let Some(body) = request.body {
                sending = sending.body(body);
            }
            let response = sending.send().await.map_err(lost)?;
            Ok(HttpResponse {
                status: response.status().as_u16(),
                headers: plain(response.headers()),
                body: Box::new(Body(response)),
            })
        })
    }
}

struct Body(reqwest::Response);

impl HttpBody for Body {
    fn next<'a>(&'a mut self, into: &'a mut Vec<u8>) -> HttpFuture<'a, bool> {
        Box::pin(async move {
            let piece = self.0.chunk().await;
            let piece = piece.map_err(|error| fault(&error.without_url()))?;
            into.extend_from_slice(piece.as_deref().unwrap_or_default());
            Ok(piece.is_some())
        })
    }
}

/// What the connection itself reports is a loss, except that it cannot make sense of the bytes;
/// everything else comes from decompression.
fn fault(error: &reqwest::Error) -> HttpFault {
    let mut on_connection = false;
    let mut senseless = false;
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        on_connection |= error.is::<hyper::Error>();
        senseless |= error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
            )
        });
        cause = error.source();
    }
    let detail = format!("the answer broke off: {}", chain(error));
    match on_connection && !senseless {
        true => HttpFault::Lost(detail),
        false => HttpFault::Garbled(detail),
    }
}
