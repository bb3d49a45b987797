//! `GET /healthz`: the process lives; its storage can be read, or 503.
//!
//! Asks for no credentials and tells nothing about what is stored.

use crate::problems::Refusal;
use crate::{Response, Storage};

pub(crate) fn health(storage: &impl Storage) -> Response {
    match storage.ready() {
        Ok(()) => Response::new(200, "application/json", b"{\"status\":\"ready\"}".to_vec()),
        Err(error) => {
            tracing::error!(error = %error, cause = error.cause(), "the storage is not ready");
            Refusal::overloaded(5).into_response()
        }
    }
}
