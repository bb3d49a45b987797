//! Requests and answers without sockets, and the time at which a request is handled.
//!
//! Never reads a clock and never interprets a body; it is what the HTTP adapter and a simulator
//! both fill in.

/// The time at which something is handled, always given from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: i64,
}

impl Now {
    /// The given milliseconds since the Unix epoch.
    pub fn from_unix_ms(unix_ms: i64) -> Self {
        Self { unix_ms }
    }
}

/// A request whose body is already complete and decompressed.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// The path as sent, percent-encoded, without the query.
    pub path: String,
    /// The query as sent, without the `?`.
    pub query: String,
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without headers and body; what stands behind a `?` becomes the query.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.add(name, value);
        self
    }

    /// Sets a JSON body with its content type.
    #[must_use]
    pub fn json(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.headers.add("content-type", "application/json");
        self.body = body.into();
        self
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body, not compressed.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer with a body of the given content type.
    pub(crate) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let mut headers = Headers::default();
        headers.add("content-type", content_type);
        headers.add("cache-control", "no-store");
        Self {
            status,
            headers,
            body,
        }
    }

    /// An answer without a body.
    pub(crate) fn bare(status: u16) -> Self {
        let mut headers = Headers::default();
        headers.add("cache-control", "no-store");
        Self {
            status,
            headers,
            body: Vec::new(),
        }
    }
}

/// Header lines; names are compared without case.
#[derive(Debug, Clone, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Adds a line.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_ascii_lowercase(), value.into()));
    }

    /// Makes this the only line of its name.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.retain(|(line, _)| !line.eq_ignore_ascii_case(name));
        self.add(name, value);
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find_map(|(line, value)| line.eq_ignore_ascii_case(name).then_some(value))
    }

    /// All lines, names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
