//! The endpoints, one file each. None of them knows a socket.

mod digest;
pub(crate) mod entities;
mod health;
mod hello;
pub(crate) mod live;
mod mutations;
mod pull;
mod push;
mod types;

pub(crate) use digest::digest;
pub(crate) use health::health;
pub(crate) use hello::hello;
pub(crate) use mutations::{cancel, mutation};
pub(crate) use pull::pull;
pub(crate) use push::push;
pub(crate) use types::{put_types, read_types};

use crate::problems::Refusal;
use crate::{DEFAULT_SCOPE, Request, Response};
use serde::Serialize;
use syncline_protocol::{ClientId, Scope};

fn json(value: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        Refusal::internal()
    })?;
    Ok(Response::new(200, "application/json", body))
}

fn default_scope() -> Scope {
    Scope::from(DEFAULT_SCOPE)
}

fn check_client(client: &ClientId) -> Result<(), Refusal> {
    let text = client.as_str();
    if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(Refusal::malformed(
        "a client id is 32 hexadecimal digits, chosen at random by the client",
    ))
}

fn check_content_type(request: &Request) -> Result<(), Refusal> {
    check_json(request, "application/json")
}

fn check_json(request: &Request, content_type: &str) -> Result<(), Refusal> {
    let sent = request.headers.get("content-type").unwrap_or_default();
    let mut parts = sent.split(';').map(str::trim);
    let is_json = parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case(content_type));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if is_json && is_utf8 {
        return Ok(());
    }
    Err(Refusal::new(
        415,
        "content-type",
        "The body has another content type than it must",
    )
    .detail(format!("send {content_type} in UTF-8")))
}
