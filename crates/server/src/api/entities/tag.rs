//! Entity tags: a version and the history that it belongs to.

use crate::Headers;
use crate::mint::Mint;
use syncline_protocol::Epoch;

pub(super) fn etag(mint: &Mint, epoch: &Epoch, version: &str) -> String {
    format!("\"{}-{version}\"", mint.epoch_mark(epoch))
}

/// The tags of a conditional header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tags {
    /// The header is not there.
    Absent,
    /// `*`
    Any,
    /// These, as they were sent.
    These(Vec<String>),
}

impl Tags {
    pub(super) fn of(headers: &Headers, name: &str) -> Self {
        match headers.get(name).map(str::trim) {
            None => Self::Absent,
            Some("*") => Self::Any,
            Some(list) => Self::These(list.split(',').map(|one| one.trim().to_owned()).collect()),
        }
    }

    /// A weak tag never matches: nothing may be written over on its word.
    pub(super) fn matches(&self, etag: &str) -> bool {
        match self {
            Self::Absent => false,
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| tag == etag),
        }
    }

    /// A weak tag is good enough to read.
    pub(super) fn matches_weakly(&self, etag: &str) -> bool {
        match self {
            Self::These(tags) => tags
                .iter()
                .any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag),
            other => other.matches(etag),
        }
    }

    /// As text, to tell requests apart.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Absent => String::new(),
            Self::Any => "*".to_owned(),
            Self::These(tags) => tags.join(","),
        }
    }
}
