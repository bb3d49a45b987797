//! Answers that go wrong: those that are given in the server's place, and those that are changed on
//! the way back.

use super::fault::NetFault;
use serde_json::{Value, json};
use syncline_protocol::{CONTENT_TYPE_PROBLEM, HEADER_PROTOCOL, HEADER_REQUEST, PROTOCOL_VERSION};
use syncline_server::{Headers, Request, Response};

/// The answer that a request gets in the server's place.
pub(crate) fn instead(fault: NetFault, request: &Request) -> Response {
    match fault {
        NetFault::Portal => page_of_a_stranger(200),
        NetFault::Foreign404 => page_of_a_stranger(404),
        NetFault::Foreign403 => page_of_a_stranger(403),
        NetFault::Gateway502 => page_of_a_stranger(502),
        NetFault::Gateway504 => page_of_a_stranger(504),
        NetFault::Status400 => problem(request, 400, "malformed", None),
        NetFault::Status403 => problem(request, 403, "forbidden", None),
        NetFault::Status503 => problem(request, 503, "unavailable", Some("2")),
        NetFault::Status429 => problem(request, 429, "too-many", Some("0")),
        NetFault::Status408 => problem(request, 408, "body-timeout", None),
        NetFault::Status404 => problem(request, 404, "not-found", None),
        NetFault::Status413 => problem(request, 413, "batch-too-large", None),
        NetFault::Status426 => problem(request, 426, "protocol-unsupported", None),
        NetFault::TokenExpired | NetFault::TokenRefused => {
            problem(request, 401, "token-expired", None)
        }
        _ => problem(request, 500, "internal", None),
    }
}

fn page_of_a_stranger(status: u16) -> Response {
    let mut headers = Headers::default();
    headers.add("content-type", "text/html; charset=utf-8");
    Response {
        status,
        headers,
        body: b"<!DOCTYPE html><title>Welcome</title>Please sign in.".to_vec(),
    }
}

/// A refusal in the protocol's own form.
pub(crate) fn problem(request: &Request, status: u16, word: &str, after: Option<&str>) -> Response {
    let mut headers = Headers::default();
    headers.add("content-type", CONTENT_TYPE_PROBLEM);
    headers.add(HEADER_PROTOCOL, PROTOCOL_VERSION);
    if let Some(id) = request.headers.get(HEADER_REQUEST) {
        headers.add(HEADER_REQUEST, id);
    }
    if let Some(seconds) = after {
        headers.add("retry-after", seconds);
    }
    let kind = format!("urn:syncline:problem:{word}");
    let body = json!({"type": kind, "status": status, "title": "a fault of the simulation"});
    Response {
        status,
        headers,
        body: body.to_string().into_bytes(),
    }
}

/// Changes an answer on its way back; false when the fault has nothing to change in it.
pub(crate) fn alter(fault: NetFault, request: &Request, response: &mut Response) -> bool {
    match fault {
        NetFault::Garbled => garble(&mut response.body),
        NetFault::Truncated => {
            let half = response.body.len() / 2;
            response.body.truncate(half);
            true
        }
        NetFault::ContentType => replace_header(response, "content-type", "text/plain"),
        NetFault::ForeignEcho => replace_header(response, HEADER_REQUEST, "another"),
        _ if response.status != 200 => false,
        NetFault::MissingResult
        | NetFault::ExtraResult
        | NetFault::ReorderedResults
        | NetFault::UnknownOutcome => alter_results(fault, response),
        NetFault::WrongCount
        | NetFault::UnknownType
        | NetFault::InvalidChange
        | NetFault::ReorderedPage
        | NetFault::RepeatedChange
        | NetFault::SameCursor
        | NetFault::PositionBack => alter_page(fault, request, response),
        _ => false,
    }
}

fn garble(body: &mut [u8]) -> bool {
    // The first byte: a line whose form can be told is kept as a change that nobody understands yet.
    match body.first_mut() {
        Some(byte) => {
            *byte = 0xff;
            true
        }
        None => false,
    }
}

fn replace_header(response: &mut Response, name: &str, value: &str) -> bool {
    let mut headers = Headers::default();
    for (known, was) in response.headers.iter() {
        let is_it = known.eq_ignore_ascii_case(name);
        headers.add(known, if is_it { value } else { was });
    }
    response.headers = headers;
    true
}

fn alter_results(fault: NetFault, response: &mut Response) -> bool {
    let Ok(mut body) = serde_json::from_slice::<Value>(&response.body) else {
        return false;
    };
    let Some(results) = body.get_mut("results").and_then(Value::as_array_mut) else {
        return false;
    };
    match fault {
        NetFault::MissingResult if !results.is_empty() => drop(results.pop()),
        NetFault::ReorderedResults if results.len() > 1 => results.reverse(),
        NetFault::MissingResult | NetFault::ReorderedResults => return false,
        NetFault::UnknownOutcome => {
            results.push(json!({"key": "foreign", "outcome": "perhaps"}));
        }
        _ => {
            let foreign =
                json!({"key": "foreign", "outcome": "applied", "version": "999", "position": 999});
            results.insert(0, foreign);
        }
    }
    response.body = body.to_string().into_bytes();
    true
}

fn alter_page(fault: NetFault, request: &Request, response: &mut Response) -> bool {
    let mut lines: Vec<Value> = (response.body.split(|byte| *byte == b'\n'))
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let Some(mut end) = lines.pop().filter(|end| end.get("page").is_some()) else {
        return false;
    };
    let page = &mut end["page"];
    match fault {
        NetFault::WrongCount => page["count"] = json!(lines.len() + 1),
        NetFault::PositionBack => page["position"] = json!(-1),
        NetFault::SameCursor => {
            let asked = (request.query.split('&')).find_map(|part| part.strip_prefix("cursor="));
            let Some(asked) = asked else {
                return false;
            };
            page["cursor"] = json!(asked);
            page["at_head"] = json!(false);
        }
        NetFault::ReorderedPage if lines.len() > 1 => lines.reverse(),
        NetFault::RepeatedChange if !lines.is_empty() => {
            lines.push(lines[0].clone());
            page["count"] = json!(lines.len());
        }
        NetFault::UnknownType | NetFault::InvalidChange => {
            // As a newer server may send: a type or a value that this client has never heard of,
            // at a position that the page covers.
            let fields = match fault {
                NetFault::UnknownType => json!({"x": 1}),
                _ => json!({"x": [1]}),
            };
            let position = page["position"].as_i64().unwrap_or(0);
            let change = json!({"change": {"type": "martian", "id": "m", "op": "upsert",
                "version": position.to_string(), "position": position, "fields": fields}});
            lines.push(change);
            page["count"] = json!(lines.len());
        }
        _ => return false,
    }
    lines.push(end);
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    response.body = (text.join("\n") + "\n").into_bytes();
    true
}
