//! The service over real sockets: bombs, floods, slow and broken peers, and an orderly end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;
#[path = "common/sockets.rs"]
mod sockets;

use common::*;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::json;
use sockets::*;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use syncline_protocol::{Problem, PushResponse};
use syncline_server::{HttpConfig, ReadTx, Storage, StorageError, WriteTx};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn expect_problem(request: RequestBuilder, status: u16, word: &str) {
    let response = within(10, request.send()).await.unwrap();
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["syncline-protocol"], "2026-11-01");
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["syncline-request"], "r-9");
    let problem: Problem = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(problem.word(), word);
}

fn batch(count: usize) -> String {
    let mutations: Vec<_> = (0..count)
        .map(|nth| create(&format!("k{nth}"), &format!("id{nth}"), "the same title"))
        .collect();
    json!({"client": PHONE, "mutations": mutations}).to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_and_a_pull_compressed_both_ways() {
    let running = start(HttpConfig::default()).await;
    let zstd = zstd::bulk::compress(batch(100).as_bytes(), 3).unwrap();
    for (coding, body) in [("gzip", gzip(batch(100).as_bytes())), ("zstd", zstd)] {
        let request = running.push().header("content-encoding", coding).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let push: PushResponse = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(push.results.len(), 100);
        assert_eq!(push.results[7].outcome, applied(8));
        assert_eq!(push.results[7].duplicate, coding == "zstd");
    }
    // reqwest decodes by itself; a bare client shows what was sent.
    let bare = Client::builder()
        .no_proxy()
        .no_gzip()
        .no_zstd()
        .build()
        .unwrap();
    for (accept, coding) in [
        ("gzip, zstd", Some("zstd")),
        ("gzip;q=1.0", Some("gzip")),
        ("zstd;q=0, gzip", Some("gzip")),
        ("br", None),
        ("", None),
    ] {
        let request = running.mark(bare.get(running.url("/v1/pull")));
        let response = request
            .header("accept-encoding", accept)
            .send()
            .await
            .unwrap();
        let sent = response.headers().get("content-encoding").cloned();
        assert_eq!(
            sent.as_ref().map(|value| value.to_str().unwrap()),
            coding,
            "{accept}"
        );
        let body = response.bytes().await.unwrap();
        assert_eq!(body.len() < 5000, coding.is_some(), "{accept}");
    }
    let response = running.get("/v1/pull").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let page = read_page(&response.bytes().await.unwrap());
    assert_eq!(page.end.count, 100);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_floods_and_garbage_are_refused_and_leave_nothing() {
    let running = start(HttpConfig::default()).await;
    let zeros = vec![b' '; 64 << 20];
    let bombs = [
        ("gzip", gzip(&zeros)),
        ("zstd", zstd::bulk::compress(&zeros, 19).unwrap()),
    ];
    for (coding, bomb) in bombs {
        assert!(bomb.len() < 1 << 20, "it looks harmless");
        let request = running.push().header("content-encoding", coding).body(bomb);
        expect_problem(request, 413, "body-too-large").await;
    }
    let large = vec![b' '; (1 << 20) + 1];
    expect_problem(running.push().body(large.clone()), 413, "body-too-large").await;
    // Without a length, in chunks.
    let mut chunked = b"POST /v1/push HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for chunk in large.chunks(100_000) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = within(10, running.raw(&chunked)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let plain = running.mark(running.client.post(running.url("/v1/push")));
    expect_problem(plain.body(batch(1)), 415, "content-type").await;
    for coding in ["br", "gzip, gzip", "deflate"] {
        let request = running.push().header("content-encoding", coding);
        expect_problem(request.body(batch(1)), 415, "content-encoding").await;
    }
    for coding in ["gzip", "zstd"] {
        let request = running.push().header("content-encoding", coding);
        expect_problem(request.body(batch(1)), 400, "malformed").await;
        let cut = gzip(batch(9).as_bytes());
        let request = running.push().header("content-encoding", coding);
        expect_problem(
            request.body(cut[..cut.len() / 2].to_vec()),
            400,
            "malformed",
        )
        .await;
    }
    for path in ["/nowhere", "/v1/push/..%2f", "/%ff%00", "/v1/pull/"] {
        expect_problem(running.get(path), 404, "not-found").await;
    }
    let put = running.mark(running.client.put(running.url("/v1/push")));
    expect_problem(put, 405, "method-not-allowed").await;
    for garbage in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /v1/pull HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame, is it now",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ] {
        let answer = within(12, running.raw(garbage)).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    let page = running.get("/v1/pull").send().await.unwrap();
    assert_eq!(read_page(&page.bytes().await.unwrap()).end.position, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_peers_are_let_go_and_do_not_hold_up_others() {
    let http = HttpConfig {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        connections: 40,
        ..HttpConfig::default()
    };
    let running = start(http).await;
    let begun = Instant::now();
    let silent = running.raw(b"");
    let in_preface = running.raw(b"PRI * HT");
    let in_header = running.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ");
    let in_body = running.raw(b"POST /v1/push HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{");
    let all = async { tokio::join!(silent, in_preface, in_header, in_body) };
    let (silent, in_preface, _, in_body) = within(5, all).await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!((silent.as_str(), in_preface.as_str()), ("", ""));
    assert!(in_body.starts_with("HTTP/1.1 408"), "{in_body}");
    assert!(in_body.contains("body-timeout"), "{in_body}");

    // More slow ones than there are connections: the next is served once they are let go.
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(TcpStream::connect(running.address).await.unwrap());
    }
    let health = within(5, running.get("/healthz").send()).await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    drop(held);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge() {
    let running = start(HttpConfig::default()).await;
    let client = Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let request = running.mark(client.get(running.url("/v1/hello")));
    let response = within(5, request.send()).await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(response.status(), StatusCode::OK);
    drop(client);
    running.stop().await;
}

/// A storage with a bug.
struct Panicking;

impl Storage for Panicking {
    fn write<T>(
        &self,
        _: impl FnMut(&mut dyn WriteTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        panic!("planned: canary")
    }

    fn read<T>(
        &self,
        _: impl FnMut(&dyn ReadTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        panic!("planned: canary")
    }

    fn cursor_secret(&self) -> [u8; 32] {
        [0; 32]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_error_answer_and_the_server_goes_on() {
    let http = HttpConfig {
        concurrency: 1,
        ..HttpConfig::default()
    };
    let running = start_over(Panicking, http).await;
    for _ in 0..3 {
        expect_problem(running.get("/v1/pull"), 500, "internal").await;
        expect_problem(running.push().body(batch(1)), 500, "internal").await;
    }
    expect_problem(running.get("/nowhere"), 404, "not-found").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_finished_when_the_server_stops() {
    let running = start(HttpConfig::default()).await;
    let body = batch(1);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = format!(
        "POST /v1/push HTTP/1.1\r\nhost: x\r\nsyncline-protocol: 2026-11-01\r\n\
         authorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        running.token,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let Running {
        address,
        service,
        stop,
        server,
        ..
    } = running;
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!server.is_finished(), "it waits for what is under way");
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nothing new is taken"
    );
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within(5, stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    within(5, server).await.unwrap().unwrap();
    let head =
        syncline_server::Storage::read(service.storage(), |tx| tx.head("acme", &"default".into()));
    assert_eq!(head.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_those_who_say_nothing() {
    let running = start(HttpConfig::default()).await;
    let _silent = TcpStream::connect(running.address).await.unwrap();
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    idle.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    running.stop().await;
}

/// A storage that takes its time and counts who is in it at once.
#[derive(Default)]
struct Slow {
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Storage for Slow {
    fn write<T>(
        &self,
        _: impl FnMut(&mut dyn WriteTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        Err(StorageError::internal("nothing writes here"))
    }

    fn read<T>(
        &self,
        _: impl FnMut(&dyn ReadTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Err(StorageError::internal("slow"))
    }

    fn cursor_secret(&self) -> [u8; 32] {
        [0; 32]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_requests_are_worked_on_at_once_and_none_waits_for_ever() {
    let http = HttpConfig {
        concurrency: 2,
        queue_timeout: Duration::from_millis(300),
        ..HttpConfig::default()
    };
    let running = start_over(Slow::default(), http).await;
    let requests: Vec<_> = (0..8)
        .map(|_| tokio::spawn(running.get("/v1/pull").send()))
        .collect();
    let mut statuses = Vec::new();
    for request in requests {
        let response = within(5, request).await.unwrap().unwrap();
        let status = response.status().as_u16();
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 503
        );
        statuses.push(status);
    }
    assert_eq!(running.service.storage().most.load(Ordering::SeqCst), 2);
    assert!(
        statuses.contains(&500) && statuses.contains(&503),
        "{statuses:?}"
    );
    running.stop().await;
}
