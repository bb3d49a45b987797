//! The lines of a trace, as `docs/trace.md` describes them.
//!
//! Whatever stands in a file ends in lines or in an error, never in a panic.

use super::hash::hash_redacted;
use super::summary::summary;
use crate::{Config, Effect, Input, Machine, Now, State, WakeReason};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use syncline_protocol::ClientId;

/// The version of the format that is written. A reader takes this one only.
pub const FORMAT: u32 = 1;

/// The first line of a trace: what made it, and what its machine was made with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub trace: u32,
    /// The version of the core that wrote it.
    pub core: String,
    /// The version of the protocol that it spoke.
    pub protocol: String,
    /// The installation.
    pub client: ClientId,
    /// The seed of the machine's draws.
    pub seed: u64,
    /// The machine's settings.
    pub config: Config,
    /// Row values are shown.
    pub values: bool,
    /// The machine as it stood, unless it was at its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Box<Machine>>,
}

/// What happened.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct In<'a> {
    /// Its number, from 1.
    pub(super) n: u64,
    /// When, as monotonic and Unix milliseconds.
    pub(super) now: (u64, i64),
    #[serde(rename = "in")]
    pub(super) input: Cow<'a, Input>,
}

/// Where the machine stands after an input, and what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// Its state.
    pub state: State,
    /// When it wants to be woken (monotonic milliseconds), and why.
    pub wake: Option<(u64, WakeReason)>,
    /// Its effects in order.
    pub out: Vec<EffectMark>,
}

/// An effect as a trace keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EffectMark {
    /// The hash of everything but texts for people.
    pub hash: u64,
    /// It in a few words.
    pub summary: String,
}

impl EffectMark {
    /// Of an effect without texts for people, and with hidden values if any are hidden.
    pub(super) fn of(effect: &Effect) -> Self {
        Self {
            hash: hash_redacted(effect),
            summary: summary(effect),
        }
    }
}

impl fmt::Display for EffectMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {}", self.hash, self.summary)
    }
}

impl From<EffectMark> for String {
    fn from(mark: EffectMark) -> String {
        mark.to_string()
    }
}

impl TryFrom<String> for EffectMark {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (hash, summary) = text.split_once(' ').ok_or("an effect without a hash")?;
        let hash = u64::from_str_radix(hash, 16).map_err(|_| "an effect without a hash")?;
        Ok(Self {
            hash,
            summary: summary.to_owned(),
        })
    }
}

/// Why a file cannot be replayed, or not further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// It does not begin like one.
    #[error("this is no trace: its first line is no header ({0})")]
    NotATrace(String),
    /// A later version wrote it.
    #[error("the trace has format {0}, and this program knows format {FORMAT}; use a newer one")]
    Newer(u64),
    /// A line in the middle is damaged, or one is missing.
    #[error("line {line} of the trace is damaged: {detail}")]
    Damaged {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        detail: String,
    },
}

/// Reads a header.
pub(super) fn read_header(line: &[u8]) -> Result<Header, TraceError> {
    #[derive(Deserialize)]
    struct Version {
        trace: u64,
    }
    let not = |error: serde_json::Error| TraceError::NotATrace(error.to_string());
    let Version { trace } = serde_json::from_slice(line).map_err(not)?;
    if trace != u64::from(FORMAT) {
        return Err(TraceError::Newer(trace));
    }
    serde_json::from_slice(line).map_err(|error| TraceError::Damaged {
        line: 1,
        detail: error.to_string(),
    })
}

/// Writes a line with its end.
pub(super) fn write(line: &impl Serialize) -> String {
    // Maps, lists, texts and numbers: this cannot fail.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

impl In<'_> {
    pub(super) fn now(&self) -> Now {
        let (monotonic_ms, unix_ms) = self.now;
        Now {
            monotonic_ms,
            unix_ms,
        }
    }
}
