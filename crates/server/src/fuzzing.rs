//! Doors for the fuzzer to what is not public: compressed bodies. No part of the API, and nothing that a
//! caller could not reach over HTTP.

use crate::http::encoding::{self, Coding};
use crate::problems::Refusal;
use crate::{Headers, Response};

/// A request's body decompressed; the status of the refusal otherwise.
pub fn decode(body: Vec<u8>, coding: Option<&str>, limit: usize) -> Result<Vec<u8>, u16> {
    encoding::decode(body, coding, limit)
        .map_err(Refusal::into_response)
        .map_err(|r| r.status)
}

/// An answer's body compressed; `None` where that does not pay.
pub fn encode(body: Vec<u8>, coding: &str) -> Option<Vec<u8>> {
    let mut headers = Headers::default();
    headers.add("accept-encoding", coding);
    let accepted: Coding = encoding::accepted(&headers);
    let response = encoding::encode(Response::new(200, "application/json", body), accepted);
    response
        .headers
        .get("content-encoding")
        .is_some()
        .then_some(response.body)
}
