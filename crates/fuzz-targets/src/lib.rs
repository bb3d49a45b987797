//! Everything that Syncline reads from outside, as functions of arbitrary bytes that check what must
//! hold: no panic, and the laws of each kind (one reading only, the same answer twice, nothing changed
//! by what was refused, bounds).
//!
//! The fuzzer of the folder `fuzz` runs these functions guided by coverage. The tests of this crate run
//! them on the corpora and on short random mutations of those, without any guidance.

// Tools of tests: what does not hold panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod database;
mod decisions;
mod mutate;
mod server;
mod traces;

pub use mutate::{mutate, mutate_for};

/// One kind of input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics if something does not hold.
    pub check: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every kind.
pub const TARGETS: [Target; 15] = [
    target("push_request", server::push_request, server::push_seeds),
    target("rest_body", server::rest_body, server::rest_seeds),
    target(
        "request_target",
        server::request_target,
        server::target_seeds,
    ),
    target("cursor", server::cursor, server::cursor_seeds),
    target("token", server::token, server::token_seeds),
    target(
        "compressed_body",
        server::compressed_body,
        server::compressed_seeds,
    ),
    target("server_config", server::server_config, server::config_seeds),
    target("client_config", client::client_config, client::config_seeds),
    target("pull_page", client::pull_page, client::page_seeds),
    target(
        "push_response",
        client::push_response,
        client::response_seeds,
    ),
    target("live_events", client::live_events, client::event_seeds),
    target("database_file", database::database_file, database::seeds),
    target("trace_file", traces::trace_file, traces::seeds),
    target("entity_id", decisions::entity_id, decisions::id_seeds),
    target(
        "resolver_input",
        decisions::resolver_input,
        decisions::resolver_seeds,
    ),
];

const fn target(name: &'static str, check: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, check, seeds }
}

/// Checks one input of the target of this name.
pub fn check(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|target| target.name == name);
    (found.unwrap_or_else(|| panic!("no target {name:?}")).check)(data);
}

/// Texts as inputs.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
