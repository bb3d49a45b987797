//! The body of an answer, read piece by piece within its bounds of time and size.

use crate::text::tame;
use crate::transport::{HttpBody, HttpFault};
use std::time::Duration;
use syncline_core::RemoteError;
use tokio::time::{Instant, timeout_at};

/// Reads an answer's body. The size is counted after decompression, so that a small answer
/// cannot grow without bound.
pub(crate) struct BodyReader {
    body: Box<dyn HttpBody>,
    deadline: Instant,
    progress: Duration,
    left: usize,
}

/// Why a body could not be read to its end.
pub(crate) enum BodyFault {
    /// The connection broke or fell silent: says nothing about the server.
    Lost(String),
    /// What came is not what HTTP or the content encoding allows, or there is too much of it.
    Garbled(String),
}

impl BodyReader {
    pub(crate) fn new(
        body: Box<dyn HttpBody>,
        deadline: Instant,
        progress: Duration,
        most: usize,
    ) -> Self {
        Self {
            body,
            deadline,
            progress,
            left: most,
        }
    }

    /// At most this many bytes more.
    pub(crate) fn at_most(mut self, bytes: usize) -> Self {
        self.left = self.left.min(bytes);
        self
    }

    /// The whole of what follows has to come within this time.
    pub(crate) fn within(&mut self, time: Duration) {
        self.deadline = self.deadline.min(Instant::now() + time);
    }

    /// From here on it may take as long as it likes, as long as it is never silent for longer than
    /// this.
    pub(crate) fn endless(&mut self, silence: Duration) {
        // Some thirty years: a moment that every clock can tell.
        self.deadline = Instant::now() + Duration::from_secs(1 << 30);
        self.progress = silence;
    }

    /// So many bytes may come from now on.
    pub(crate) fn allow(&mut self, bytes: usize) {
        self.left = bytes;
    }

    /// Appends the next piece; `false` once the body is complete.
    pub(crate) async fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, BodyFault> {
        let silence = Instant::now() + self.progress;
        let before = into.len();
        let Ok(more) = timeout_at(silence.min(self.deadline), self.body.next(into)).await else {
            let why = match Instant::now() >= self.deadline {
                true => "the answer took too long",
                false => "the answer stopped in the middle",
            };
            return Err(BodyFault::Lost(why.to_owned()));
        };
        let more = more.map_err(BodyFault::from)?;
        let came = into.len().saturating_sub(before);
        self.left = self.left.checked_sub(came).ok_or_else(|| {
            BodyFault::Garbled("the answer is longer than this client accepts".to_owned())
        })?;
        crate::meter::received(came);
        Ok(more)
    }

    /// The whole rest.
    pub(crate) async fn rest(&mut self) -> Result<Vec<u8>, BodyFault> {
        let mut whole = Vec::new();
        while self.next(&mut whole).await? {}
        Ok(whole)
    }

    /// Reads what little may follow, unseen, so that the connection can serve the next request.
    pub(crate) async fn drain(mut self) {
        const LONGEST: Duration = Duration::from_millis(50);
        const MOST: usize = 16 << 10;
        self.progress = LONGEST;
        self.deadline = self.deadline.min(Instant::now() + LONGEST);
        let _ = self.at_most(MOST).rest().await;
    }
}

impl BodyFault {
    /// The bucket of the fault in a believed answer of this status.
    pub(crate) fn into_error(self, status: u16) -> RemoteError {
        match self {
            Self::Lost(detail) => RemoteError::Unreachable { detail },
            Self::Garbled(detail) => RemoteError::Transient {
                status,
                detail,
                retry_after: None,
                overloaded: false,
            },
        }
    }
}

impl From<HttpFault> for BodyFault {
    fn from(fault: HttpFault) -> Self {
        match fault {
            HttpFault::Lost(detail) => Self::Lost(tame(&detail)),
            HttpFault::Garbled(detail) => Self::Garbled(tame(&detail)),
        }
    }
}
