//! The error answers of the protocol, each a problem document with a stable word.
//!
//! Never puts a secret, a row's value or a storage's own words into an answer: what a storage says
//! about itself goes to the log.

use crate::{Response, StorageError};
use syncline_protocol::{CONTENT_TYPE_PROBLEM, FieldError, PROTOCOL_VERSION, Problem};

/// An error answer: the document and the headers that belong to it.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Box<Problem>,
    header: Option<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, word: &str, title: &str) -> Self {
        Self {
            problem: Box::new(Problem::new(status, word, title)),
            header: None,
        }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.problem.detail = Some(detail.into());
        self
    }

    pub(crate) fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.problem.errors = errors;
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(400, "malformed", "The request cannot be read").detail(detail)
    }

    /// JSON of another shape; serde's own words may quote what was sent.
    pub(crate) fn unreadable(error: &serde_json::Error) -> Self {
        Self::malformed(json_fault(error))
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "not-found", "There is nothing at this path")
    }

    pub(crate) fn method_not_allowed(allow: &str) -> Self {
        Self::new(405, "method-not-allowed", "The path has other methods").header("allow", allow)
    }

    pub(crate) fn unsupported_protocol(sent: Option<&str>) -> Self {
        let sent = match sent {
            Some(version) if version.len() <= 64 => format!("{version:?} was sent"),
            Some(_) => "an overlong version was sent".to_owned(),
            None => "no syncline-protocol header was sent".to_owned(),
        };
        Self::new(
            400,
            "protocol-unsupported",
            "The server does not speak this version",
        )
        .detail(format!("{sent}; this server speaks: {PROTOCOL_VERSION}"))
    }

    pub(crate) fn unauthorized(word: &str, title: &str) -> Self {
        let challenge = match word {
            "token-missing" => "Bearer realm=\"syncline\"",
            _ => "Bearer realm=\"syncline\", error=\"invalid_token\"",
        };
        Self::new(401, word, title).header("www-authenticate", challenge)
    }

    pub(crate) fn client_mismatch() -> Self {
        Self::new(
            403,
            "client-mismatch",
            "The client id belongs to another principal",
        )
        .detail("take a new client id; the one sent was first used by someone else")
    }

    pub(crate) fn client_forked() -> Self {
        Self::new(
            409,
            "client-forked",
            "Another file answers to the same client id",
        )
        .detail("this file was copied, or restored from a backup: take a new client id and send as inherited what may have been sent; nothing was done")
    }

    /// The same whether the scope exists or not.
    pub(crate) fn scope_forbidden() -> Self {
        Self::new(403, "scope-forbidden", "The scope is not granted")
    }

    pub(crate) fn read_only() -> Self {
        Self::new(403, "read-only", "The token grants reading only")
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(413, "body-too-large", "The request body is too large")
            .detail(format!("at most {limit} bytes after decompression"))
    }

    pub(crate) fn overloaded(retry_after_s: u32) -> Self {
        Self::new(503, "unavailable", "The server cannot do this for now")
            .header("retry-after", retry_after_s.to_string())
    }

    pub(crate) fn too_many_streams(retry_after_s: u32) -> Self {
        Self::new(
            429,
            "too-many-streams",
            "The subject has too many live streams",
        )
        .header("retry-after", retry_after_s.to_string())
    }

    pub(crate) fn internal() -> Self {
        Self::new(500, "internal", "The server failed")
            .detail("nothing was changed; the server's log says why")
    }

    pub(crate) fn status(&self) -> u16 {
        self.problem.status
    }

    pub(crate) fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = Response::new(self.status(), CONTENT_TYPE_PROBLEM, body);
        if let Some((name, value)) = self.header {
            response.headers.add(name, value);
        }
        response
    }
}

/// What is wrong with JSON, without any of its values.
pub(crate) fn json_fault(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let quotes = error.is_data()
        && !words.starts_with("missing field ")
        && !words.starts_with("duplicate field ");
    match quotes {
        true => format!(
            "something has an unexpected type or value at line {} column {}",
            error.line(),
            error.column()
        ),
        false => words,
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        crate::meter::storage_failed(&error);
        tracing::error!(error = %error, cause = error.cause(), "the storage failed");
        match error {
            StorageError::Busy { .. } => Self::overloaded(1),
            StorageError::Unavailable { .. } => Self::overloaded(10),
            StorageError::Full { .. } => Self::overloaded(60),
            StorageError::Internal { .. } => Self::internal(),
        }
    }
}
