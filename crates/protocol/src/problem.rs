//! Errors on the wire: `application/problem+json` (RFC 9457).

use serde::{Deserialize, Serialize};

/// Content type of every error answer.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// A problem document. `kind` is a stable word that programs switch on; `detail` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word such as `cursor-expired`, sent as `urn:syncline:problem:<word>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status again.
    pub status: u16,
    /// A short text that is the same for every occurrence.
    pub title: String,
    /// What happened this time and what to do about it; never a secret, never another's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What is wrong with which field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One field that the server refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field's name, or empty for the entity as a whole.
    pub field: String,
    /// A stable word: `required`, `type`, `schema`, `unique`, `reference`, `unknown`, `read-only` …
    pub code: String,
    /// For people.
    pub detail: String,
}

impl Problem {
    /// The prefix of [`Problem::kind`].
    pub const PREFIX: &'static str = "urn:syncline:problem:";

    /// A problem of the given kind (the bare word).
    pub fn new(status: u16, word: &str, title: &str) -> Self {
        Self {
            kind: format!("{}{word}", Self::PREFIX),
            status,
            title: title.to_owned(),
            detail: None,
            errors: Vec::new(),
        }
    }

    /// Adds what happened this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The bare word of the kind.
    pub fn word(&self) -> &str {
        self.kind.strip_prefix(Self::PREFIX).unwrap_or(&self.kind)
    }
}
