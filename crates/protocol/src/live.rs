//! `GET /v1/live`: server-sent events, each saying where the head of a scope's feed is.

use crate::{Epoch, Scope};
use serde::{Deserialize, Serialize};

/// Content type of a live stream.
pub const CONTENT_TYPE_EVENTS: &str = "text/event-stream";

/// The name of the event whose data is a [`Head`]. Events of other names are to be ignored.
pub const EVENT_HEAD: &str = "head";

/// A live stream is never silent for longer than this, in milliseconds: without events a comment
/// comes.
pub const HEARTBEAT_MS: u64 = 25_000;

/// Where the head of a scope's feed is. Only a hint that pulling would bring something: nothing is
/// lost when it does not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The scope.
    pub scope: Scope,
    /// The history that the position belongs to.
    pub epoch: Epoch,
    /// The last position taken in the feed.
    pub position: i64,
}
