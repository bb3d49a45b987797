//! The endpoints, one file each. None of them knows a socket.

mod health;
mod hello;
mod mutations;
mod pull;
mod push;

pub(crate) use health::health;
pub(crate) use hello::hello;
pub(crate) use mutations::mutation;
pub(crate) use pull::pull;
pub(crate) use push::push;

use crate::problems::Refusal;
use crate::{DEFAULT_SCOPE, Response};
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
