//! The border to whatever speaks HTTP: hosts that bring their own (a phone's system client, a browser's
//! `fetch`, a tunnel) implement [`HttpTransport`].
//!
//! Only plain types cross it. Everything that is Syncline's stays on this side: the marks by which an answer
//! is believed, tokens, bounds of time and size, buckets. A transport decides nothing.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::future::Future;
use std::pin::Pin;

/// A future that a transport returns.
pub type HttpFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, HttpFault>> + Send + 'a>>;

/// One request, complete.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET`, `POST`, `PUT`.
    pub method: String,
    /// Where to, in full.
    pub url: String,
    /// The headers, names in lower case. One of them is the access token: they belong in no log.
    pub headers: Vec<(String, String)>,
    /// The body, as it is to be sent; its encoding is said in the headers.
    pub body: Option<Vec<u8>>,
}

/// Without headers and body, which say what nobody is to read in a log.
impl std::fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The head of an answer, and its body to be read.
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The headers; one that came twice stands twice.
    pub headers: Vec<(String, String)>,
    /// The body, decoded from whatever encoding the transport itself asked for.
    pub body: Box<dyn HttpBody>,
}

/// The body of an answer, piece by piece as it arrives.
pub trait HttpBody: Send {
    /// Appends the next piece; `false` once the body is complete. A body that breaks off is a fault, never
    /// an end. Pieces are passed on as they come: one that waits for more holds live hints back.
    fn next<'a>(&'a mut self, into: &'a mut Vec<u8>) -> HttpFuture<'a, bool>;
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpFault {
    /// The server could not be reached, or the connection broke. Says nothing about the server.
    #[error("{0}")]
    Lost(String),
    /// What came is not what HTTP or the content encoding allows.
    #[error("{0}")]
    Garbled(String),
}

/// Something that speaks HTTP.
///
/// - It follows no redirect, answers nothing from a cache, and repeats nothing by itself.
/// - It returns as soon as the head of the answer is there, whatever the status.
/// - It need not bound its waits: whoever asks gives up by dropping the future, which ends the exchange.
/// - It checks the server's certificate. Plain `http` beyond this machine is refused before it is asked.
pub trait HttpTransport: Send + Sync {
    /// Sends the request and waits for the head of its answer.
    fn send(&self, request: HttpRequest) -> HttpFuture<'_, HttpResponse>;
}

/// As plain texts. A value that is no text cannot be among ours.
pub(crate) fn plain(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

/// What can be a header of those that came; nothing that we look for is among the others.
pub(crate) fn parsed(headers: Vec<(String, String)>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(mut value)) =
            (HeaderName::try_from(name), HeaderValue::try_from(value))
        {
            value.set_sensitive(name == AUTHORIZATION);
            map.append(name, value);
        }
    }
    map
}
