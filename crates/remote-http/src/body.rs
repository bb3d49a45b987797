//! The body of an answer, read piece by piece within its bounds of time and size.

use crate::text::chain;
use reqwest::Response;
use std::error::Error;
use std::io;
use std::time::Duration;
use syncline_core::RemoteError;
use tokio::time::{Instant, timeout_at};

/// Reads an answer's body. The size is counted after decompression, so that a small answer
/// cannot grow without bound.
pub(crate) struct BodyReader {
    response: Response,
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
        response: Response,
        deadline: Instant,
        progress: Duration,
        most: usize,
    ) -> Self {
        Self {
            response,
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
        let Ok(piece) = timeout_at(silence.min(self.deadline), self.response.chunk()).await else {
            let why = match Instant::now() >= self.deadline {
                true => "the answer took too long",
                false => "the answer stopped in the middle",
            };
            return Err(BodyFault::Lost(why.to_owned()));
        };
        let Some(piece) = piece.map_err(|error| fault(&error.without_url()))? else {
            return Ok(false);
        };
        self.left = self.left.checked_sub(piece.len()).ok_or_else(|| {
            BodyFault::Garbled("the answer is longer than this client accepts".to_owned())
        })?;
        into.extend_from_slice(&piece);
        Ok(true)
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

/// What the connection itself reports is a loss, except that it cannot make sense of the bytes;
/// everything else comes from decompression.
fn fault(error: &reqwest::Error) -> BodyFault {
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
        true => BodyFault::Lost(detail),
        false => BodyFault::Garbled(detail),
    }
}
