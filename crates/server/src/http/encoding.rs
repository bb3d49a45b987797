//! Compression of requests and answers: zstd and gzip, at their fastest levels.
//!
//! Decoding stops one byte beyond the limit, so a bomb costs no more than an honest body; zstd's
//! window is bounded too.

use crate::problems::Refusal;
use crate::{Headers, Response};
use std::io::{Cursor, Read, Write};

/// Answers smaller than this are not worth it.
const MIN_BYTES: usize = 1024;
const ZSTD_LEVEL: i32 = 1;
/// 8 MiB, the most a decoder has to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How an answer may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Gzip,
    Identity,
}

/// The best coding that the client accepts.
pub(crate) fn accepted(headers: &Headers) -> Coding {
    let accepts = |coding: &str| {
        headers
            .iter()
            .filter(|(name, _)| *name == "accept-encoding")
            .flat_map(|(_, value)| value.split(','))
            .any(|item| {
                let mut parts = item.split(';').map(str::trim);
                let named = parts
                    .next()
                    .is_some_and(|name| name.eq_ignore_ascii_case(coding));
                let refused = parts.any(|parameter| {
                    let weight = parameter.strip_prefix("q=").map(str::parse::<f32>);
                    matches!(weight, Some(Ok(weight)) if weight <= 0.0)
                });
                named && !refused
            })
    };
    if accepts("zstd") {
        Coding::Zstd
    } else if accepts("gzip") {
        Coding::Gzip
    } else {
        Coding::Identity
    }
}

/// The body decompressed, if it is not larger than `limit` then.
pub(crate) fn decode(
    body: Vec<u8>,
    coding: Option<&str>,
    limit: usize,
) -> Result<Vec<u8>, Refusal> {
    let coding = coding.unwrap_or("identity").trim().to_ascii_lowercase();
    match coding.as_str() {
        "identity" | "" => Ok(body),
        "gzip" | "x-gzip" => {
            read_bounded(flate2::read::MultiGzDecoder::new(Cursor::new(body)), limit)
        }
        "zstd" => {
            let mut decoder =
                zstd::stream::read::Decoder::new(Cursor::new(body)).map_err(|_| undecodable())?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(|_| undecodable())?;
            read_bounded(decoder, limit)
        }
        _ => Err(Refusal::new(
            415,
            "content-encoding",
            "The body must be sent plain or with zstd or gzip",
        )),
    }
}

fn read_bounded(decoder: impl Read, limit: usize) -> Result<Vec<u8>, Refusal> {
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut decoded = Vec::new();
    decoder
        .take(bound)
        .read_to_end(&mut decoded)
        .map_err(|_| undecodable())?;
    if decoded.len() > limit {
        return Err(Refusal::body_too_large(limit));
    }
    Ok(decoded)
}

fn undecodable() -> Refusal {
    Refusal::malformed("the body cannot be decompressed")
}

/// The answer compressed, when that is asked for and pays.
pub(crate) fn encode(mut response: Response, coding: Coding) -> Response {
    if response.body.len() < MIN_BYTES {
        return response;
    }
    let (name, compressed) = match coding {
        Coding::Identity => return response,
        Coding::Zstd => ("zstd", zstd::bulk::compress(&response.body, ZSTD_LEVEL)),
        Coding::Gzip => ("gzip", gzip(&response.body)),
    };
    match compressed {
        Ok(body) => {
            response.body = body;
            response.headers.add("content-encoding", name);
            response.headers.add("vary", "accept-encoding");
        }
        Err(error) => tracing::warn!(%error, "an answer is sent uncompressed"),
    }
    response
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_stops_at_the_limit() {
        struct Endless(usize);
        impl Read for Endless {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                self.0 += into.len();
                assert!(self.0 < 100_000, "it goes on beyond the limit");
                into.fill(0);
                Ok(into.len())
            }
        }
        assert_eq!(
            read_bounded(Endless(0).take(10_000), 10_000).unwrap().len(),
            10_000
        );
        let refused = read_bounded(Endless(0), 10_000).unwrap_err();
        assert_eq!(refused.status(), 413);
    }
}
