//! What the log says: enough to follow a mutation, never a token nor a row's value.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use syncline_protocol::Operation;
use syncline_server::StorageError;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn mutations_can_be_followed_and_nothing_private_is_told() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let server = server();
    let token = server.token(&ann());
    tracing::subscriber::with_default(subscriber, || {
        let private = serde_json::json!({"title": "canary", "n": 424_242, "bad": "canary\0"});
        server.push(
            &ann(),
            &[create("k1", "1", "canary"), create("k2", "1", "canary")],
        );
        server.push(
            &ann(),
            &[mutation("k3", Operation::Create, "3", None, private)],
        );
        server.push_body(&ann(), "{\"client\":\"canary\"}");
        server.pull(&ann(), None, 10);
        server.get(&ann(), "/v1/pull?cursor=canary");
        server
            .service
            .storage()
            .fail_after(0, StorageError::internal("disk on fire"));
        server.push_body(
            &ann(),
            format!("{{\"client\":\"{PHONE}\",\"mutations\":[]}}"),
        );
        let request = server
            .request(&ann(), "GET", "/v1/\u{1b}[31m\nforged line")
            .header("traceparent", "00-aaaa-bbbb-01\nforged");
        server.send(&request);
        let request = server.request(&ann(), "GET", "/v1/hello").header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
        server.send(&request);
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for wanted in [
        "r-1",
        "acme",
        "m-k1",
        "k2",
        "applied",
        "conflict",
        "rejected",
        "disk on fire",
        "trace=0af7651916cd43dd8448eb211c80319c",
        "received",
        "decided",
        "committed",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in the log:\n{text}");
    }
    let signature = token.rsplit_once('.').unwrap().1;
    for private in ["canary", "424242", signature, "\u{1b}", "\nforged", "bbbb"] {
        assert!(
            !text.contains(private),
            "{private:?} is in the log:\n{text}"
        );
    }
}
