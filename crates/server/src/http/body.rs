//! Reads a request's body within a bound, counted while it arrives.

use crate::Headers;
use crate::problems::Refusal;
use axum::body::Body;
use http_body_util::BodyExt as _;

/// A body that is refused is still read this many times the limit, so that its sender comes to
/// read the answer instead of a reset connection.
const DRAIN_FACTOR: u64 = 4;

pub(super) fn declared_length(headers: &Headers) -> u64 {
    let length = headers.get("content-length");
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The whole body as sent (still compressed), or why it is not taken.
pub(super) async fn read(mut body: Body, declared: u64, limit: usize) -> Result<Vec<u8>, Refusal> {
    let bound = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut received = 0_u64;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::malformed("the body broke off before its end"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        received = received.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if declared > bound || received > bound {
            bytes = Vec::new();
            if received.max(declared) > bound.saturating_mul(DRAIN_FACTOR) {
                break;
            }
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    if declared > bound || received > bound {
        return Err(Refusal::body_too_large(limit));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::{Bytes, Frame};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A sender who never stops; counts what was taken from it.
    struct Endless<'a>(&'a std::sync::atomic::AtomicUsize);

    impl hyper::body::Body for Endless<'static> {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.fetch_add(1000, std::sync::atomic::Ordering::SeqCst);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1000])))))
        }
    }

    #[tokio::test]
    async fn an_endless_body_is_not_read_for_ever() {
        static TAKEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        for declared in [0, u64::MAX] {
            let body = Body::new(Endless(&TAKEN));
            let refused = read(body, declared, 10_000).await.unwrap_err();
            assert_eq!(refused.status(), 413);
        }
        let taken = TAKEN.load(std::sync::atomic::Ordering::SeqCst);
        assert!(taken <= 50_000, "{taken} bytes were taken");
    }
}
