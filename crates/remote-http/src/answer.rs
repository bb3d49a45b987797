//! Into which bucket an answer falls.

use crate::body::BodyReader;
use crate::text::{json_fault, tame};
use http::StatusCode;
use std::time::Duration;
use syncline_core::RemoteError;
use syncline_protocol::Problem;

/// Longer problem documents are not read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// A believed error answer as a [`RemoteError`]: reads its problem document, but does without it
/// where the status alone says enough.
pub(crate) async fn refusal(
    status: StatusCode,
    retry_after: Option<Duration>,
    body: BodyReader,
) -> RemoteError {
    let body = body.at_most(MAX_PROBLEM_BYTES).rest().await;
    let problem = match body {
        Ok(bytes) => serde_json::from_slice::<Problem>(&bytes)
            .map_err(|error| garbled(status.as_u16(), "the problem", &error)),
        Err(fault) => Err(fault.into_error(status.as_u16())),
    };
    match problem {
        Ok(problem) => classify(status.as_u16(), problem.word(), told(&problem), retry_after),
        // Only the problem's word tells what a 400 is about.
        Err(error) if status == StatusCode::BAD_REQUEST => error,
        Err(_) => {
            let detail = "the server's explanation could not be read".to_owned();
            classify(status.as_u16(), "", detail, retry_after)
        }
    }
}

/// A believed answer whose JSON makes no sense.
pub(crate) fn garbled(status: u16, what: &str, error: &serde_json::Error) -> RemoteError {
    garbage(status, format!("{what} {}", json_fault(error)))
}

/// A believed answer that makes no sense.
pub(crate) fn garbage(status: u16, detail: String) -> RemoteError {
    RemoteError::Transient {
        status,
        detail,
        retry_after: None,
        overloaded: false,
    }
}

/// The table of the protocol: status and problem word to bucket.
fn classify(status: u16, word: &str, detail: String, retry_after: Option<Duration>) -> RemoteError {
    let transient = |overloaded, detail| RemoteError::Transient {
        status,
        detail,
        retry_after,
        overloaded,
    };
    match (status, word) {
        (401, _) => RemoteError::Auth { detail },
        (429 | 503, _) => transient(true, detail),
        (408 | 425 | 500.., _) => transient(false, detail),
        (413, _) => RemoteError::TooLarge { detail },
        (409, "client-forked") => RemoteError::Forked { detail },
        (410, _) | (400, "cursor-invalid") => RemoteError::CursorGone { detail },
        (415 | 426, _) | (400, "protocol-unsupported") => RemoteError::Incompatible { detail },
        _ => RemoteError::Misconfigured { status, detail },
    }
}

fn told(problem: &Problem) -> String {
    let text = problem.detail.as_deref().unwrap_or(&problem.title);
    tame(&format!("{text} [{}]", problem.word()))
}
