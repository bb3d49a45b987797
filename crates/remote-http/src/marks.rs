//! The marks by which an answer is known to come from a Syncline server and to answer our request.
//!
//! Hotel portals, company proxies, load balancers and caches all answer HTTP requests. An answer
//! is believed only with the protocol's header, the echo of our request id, and the content type
//! that the protocol asks for; what anyone else says is as good as no answer.

use crate::text::tame;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use syncline_protocol::{CONTENT_TYPE_PROBLEM, HEADER_PROTOCOL, HEADER_REQUEST};
use url::Url;

/// Whether the answer may be believed; otherwise why not.
pub(crate) fn check(
    status: StatusCode,
    headers: &HeaderMap,
    request_id: &str,
    expects: &str,
    asked: &Url,
) -> Result<(), String> {
    if status.is_redirection() {
        return Err(redirected(status, headers, asked));
    }
    let protocol = headers.get(HEADER_PROTOCOL);
    let missing = if protocol.is_none_or(|value| value.is_empty()) {
        format!("the header {HEADER_PROTOCOL}")
    } else if !echoes(headers, request_id) {
        "the echo of the request's id".to_owned()
    } else {
        let wanted = match status.is_success() {
            true => expects,
            false => CONTENT_TYPE_PROBLEM,
        };
        if essence(headers).eq_ignore_ascii_case(wanted) {
            return Ok(());
        }
        format!("the content type {wanted}")
    };
    Err(format!(
        "an answer came (status {}, content type {:?}), but without {missing}: \
         some other machine gave it (a proxy, a sign-in page of the network), \
         or the address is not that of a Syncline server",
        status.as_u16(),
        tame(essence(headers)),
    ))
}

fn echoes(headers: &HeaderMap, request_id: &str) -> bool {
    let mut echoes = headers.get_all(HEADER_REQUEST).iter();
    let ours = echoes
        .next()
        .is_some_and(|echo| echo.as_bytes() == request_id.as_bytes());
    ours && echoes.next().is_none()
}

/// The content type without its parameters.
fn essence(headers: &HeaderMap) -> &str {
    let whole = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    whole.split(';').next().unwrap_or_default().trim()
}

fn redirected(status: StatusCode, headers: &HeaderMap, asked: &Url) -> String {
    let host = headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|location| asked.join(location).ok())
        .and_then(|target| target.host_str().map(tame));
    let target = host.map_or_else(|| "nowhere".to_owned(), |host| format!("to {host}"));
    format!(
        "the request was redirected {target} (status {}); redirects are never followed, \
         so give the final address",
        status.as_u16()
    )
}
