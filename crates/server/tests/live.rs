//! Live streams: who may listen, what is told, what is not, and when a stream ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;
#[path = "common/sockets.rs"]
mod sockets;

use common::*;
use sockets::*;
use std::time::{Duration, Instant};
use syncline_protocol::{Epoch, Head};
use syncline_server::{HttpConfig, Now, Service, Storage, issue_token};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A bound for tests in which nothing of the kind is to happen.
const NEVER: Duration = Duration::from_secs(3600);

fn quick() -> HttpConfig {
    HttpConfig {
        live_pace: Duration::from_millis(1),
        live_look: NEVER,
        ..HttpConfig::default()
    }
}

/// A stream that is read.
struct Stream {
    response: reqwest::Response,
    buffer: String,
}

#[derive(Debug, PartialEq)]
enum Heard {
    Head(Head),
    Beat,
    End,
}

impl Stream {
    async fn open<S: Storage>(running: &Running<S>, client: &str) -> Self {
        let request = running.get("/v1/live").header("syncline-client", client);
        Self::of(within(5, request.send()).await.unwrap())
    }

    fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        Self {
            response,
            buffer: String::new(),
        }
    }

    async fn next(&mut self) -> Heard {
        loop {
            if let Some((one, rest)) = self.buffer.split_once("\n\n") {
                let (one, rest) = (one.to_owned(), rest.to_owned());
                self.buffer = rest;
                return match one.strip_prefix("event: head\ndata: ") {
                    Some(data) => Heard::Head(serde_json::from_str(data).unwrap()),
                    None => {
                        assert_eq!(one, ": beat");
                        Heard::Beat
                    }
                };
            }
            match within(5, self.response.chunk()).await.unwrap() {
                Some(piece) => self.buffer += std::str::from_utf8(&piece).unwrap(),
                None => return Heard::End,
            }
        }
    }

    async fn position(&mut self) -> i64 {
        match self.next().await {
            Heard::Head(head) => {
                assert_eq!(
                    (head.scope.as_str(), head.epoch.as_str()),
                    ("default", EPOCH)
                );
                head.position
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Somebody pushes one create.
fn push<S: Storage>(service: &Service<S>, client: &str, id: &str) {
    let whole = whole(
        &Caller::new("acme", "ann", client),
        &[create(id, id, "milk")],
    );
    let token = token(600);
    let request = syncline_server::Request::new("POST", "/v1/push")
        .header("syncline-protocol", "2026-11-01")
        .header("authorization", format!("Bearer {token}"))
        .json(serde_json::to_vec(&whole).unwrap());
    let response = service.handle(&request, now());
    assert_eq!(response.status, 200, "{}", text(&response));
}

fn now() -> Now {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Now::from_unix_ms(i64::try_from(unix.unwrap().as_millis()).unwrap())
}

/// Ann's token, valid for this long, the minute of leeway aside.
fn token(seconds: i64) -> String {
    let issued = Now::from_unix_ms(now().unix_ms + seconds * 1000 - 600_000);
    issue_token(SECRET, &ann().identity(), issued, 600).unwrap()
}

#[test]
fn without_a_socket_the_head_is_told_once() {
    let server = server();
    let first = server.get(&ann(), "/v1/live");
    assert_eq!(first.status, 200);
    assert_eq!(first.headers.get("content-type"), Some("text/event-stream"));
    let told = |position| {
        format!(
            "event: head\ndata: {{\"scope\":\"default\",\"epoch\":\"{EPOCH}\",\"position\":{position}}}\n\n"
        )
    };
    assert_eq!(text(&first), told(0));
    server.push_one(&ann(), &create("k1", "t1", "milk"));
    assert_eq!(text(&server.get(&ann(), "/v1/live?scope=default")), told(1));
    let other = Caller::new("other", "ann", PHONE);
    assert_eq!(
        text(&server.get(&other, "/v1/live")),
        told(0),
        "another tenant's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_pull_may_not_listen() {
    let running = start(quick()).await;
    let live = |path: &str| running.get(path);
    for (request, status, word) in [
        (live("/v1/live?scope=else"), 403, "scope-forbidden"),
        (
            live("/v1/live?scope=default&scope=default"),
            400,
            "malformed",
        ),
        (
            live("/v1/live").header("syncline-client", "me"),
            400,
            "malformed",
        ),
        (
            running.mark(running.client.post(running.url("/v1/live"))),
            405,
            "method-not-allowed",
        ),
        (live("/v1/live").bearer_auth("x"), 401, "token-invalid"),
        (
            running.client.get(running.url("/v1/live")),
            400,
            "protocol-unsupported",
        ),
        (
            running
                .client
                .get(running.url("/v1/live"))
                .header("syncline-protocol", "2026-11-01"),
            401,
            "token-missing",
        ),
    ] {
        let response = within(5, request.send()).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{word}");
        let problem: syncline_protocol::Problem =
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(problem.word(), word);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_moves_are_told_at_once_and_own_ones_are_not() {
    let running = start(quick()).await;
    let service = &running.service;
    push(service, LAPTOP, "a");
    let mut phone = Stream::open(&running, PHONE).await;
    let headers = phone.response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["syncline-protocol"], "2026-11-01");
    assert_eq!(headers["syncline-request"], "r-9");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(!headers.contains_key("content-encoding"));
    let mut laptop = Stream::open(&running, LAPTOP).await;
    assert_eq!((phone.position().await, laptop.position().await), (1, 1));
    push(service, PHONE, "b");
    assert_eq!(laptop.position().await, 2);
    push(service, LAPTOP, "c");
    assert_eq!(phone.position().await, 3, "its own move to 2 was not told");
    // A push that changes nothing is no news, nor is another tenant's.
    push(service, LAPTOP, "c");
    running.stop().await;
    assert_eq!(laptop.next().await, Heard::End);
    assert_eq!(phone.next().await, Heard::End);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_commits_gives_few_events() {
    let http = HttpConfig {
        live_pace: Duration::from_millis(200),
        ..quick()
    };
    let running = start(http).await;
    let mut phone = Stream::open(&running, PHONE).await;
    assert_eq!(phone.position().await, 0);
    let begun = Instant::now();
    for nth in 1..=300 {
        push(&running.service, LAPTOP, &format!("t{nth}"));
    }
    let mut events = 0;
    let mut last = 0;
    while last < 300 {
        last = phone.position().await;
        events += 1;
    }
    let most = 2 + begun.elapsed().as_millis() / 200;
    assert!(events <= most, "{events} of at most {most}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_filled_with_heart_beats_and_a_stop_ends_the_stream_at_once() {
    let http = HttpConfig {
        live_heartbeat: Duration::from_millis(20),
        ..quick()
    };
    let running = start(http).await;
    let mut phone = Stream::open(&running, PHONE).await;
    assert_eq!(phone.position().await, 0);
    for _ in 0..3 {
        assert_eq!(phone.next().await, Heard::Beat);
    }
    let begun = Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    while phone.next().await != Heard::End {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_with_the_token() {
    let running = start(quick()).await;
    let request = running.client.get(running.url("/v1/live"));
    let request = request
        .header("syncline-protocol", "2026-11-01")
        .bearer_auth(token(-59));
    let begun = Instant::now();
    let mut phone = Stream::of(request.send().await.unwrap());
    assert_eq!(phone.position().await, 0);
    assert_eq!(phone.next().await, Heard::End);
    assert!(begun.elapsed() < Duration::from_secs(4));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_with_the_history() {
    let running = start(HttpConfig {
        live_look: Duration::from_millis(20),
        ..quick()
    })
    .await;
    let mut phone = Stream::open(&running, PHONE).await;
    assert_eq!(phone.position().await, 0);
    let storage = running.service.storage();
    storage
        .write(|tx| tx.set_epoch(&Epoch::new("another")))
        .unwrap();
    assert_eq!(phone.next().await, Heard::End);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_wrote_is_found_by_looking() {
    let running = start(HttpConfig {
        live_look: Duration::from_millis(20),
        ..quick()
    })
    .await;
    let mut phone = Stream::open(&running, PHONE).await;
    assert_eq!(phone.position().await, 0);
    // Not through the service: so does the storage of another node.
    let storage = running.service.storage();
    storage
        .write(|tx| tx.bump_head("acme", &"default".into(), 4))
        .unwrap();
    assert_eq!(phone.position().await, 4);
    push(&running.service, PHONE, "own");
    tokio::time::sleep(Duration::from_millis(100)).await;
    push(&running.service, LAPTOP, "others");
    assert_eq!(
        phone.position().await,
        6,
        "looks do not tell what it wrote itself"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_a_device_has_one() {
    let http = HttpConfig {
        live_streams: 3,
        live_streams_per_principal: 2,
        ..quick()
    };
    let running = start(http).await;
    let client = |nth: u32| format!("{nth:032x}");
    let mut first = Stream::open(&running, &client(1)).await;
    assert_eq!(first.position().await, 0);
    // It lost its connection without a word, and comes back.
    let mut again = Stream::open(&running, &client(1)).await;
    assert_eq!(again.position().await, 0);
    assert_eq!(first.next().await, Heard::End);
    let second = Stream::open(&running, &client(2)).await;
    let third = || {
        running
            .get("/v1/live")
            .header("syncline-client", client(3))
            .send()
    };
    let refused = third().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"60".parse().unwrap())
    );
    // Others have a place, as long as the server has.
    let bob = Caller::new("acme", "bob", PHONE).identity();
    let bobs = issue_token(SECRET, &bob, now(), 600).unwrap();
    let open = |token: &str| {
        let request = running.client.get(running.url("/v1/live"));
        request
            .header("syncline-protocol", "2026-11-01")
            .bearer_auth(token)
            .send()
    };
    let bob = Stream::of(open(&bobs).await.unwrap());
    let refused = open(&bobs).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "60");
    // Who goes makes room.
    drop((second, bob));
    let deadline = Instant::now() + Duration::from_secs(5);
    while third().await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline, "the place is not free again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(again);
    running.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_does_not_read_is_cut() {
    let http = HttpConfig {
        live_heartbeat: Duration::from_millis(1),
        stall_timeout: Duration::from_millis(500),
        live_streams: 1,
        ..quick()
    };
    let running = start(http).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let mut deaf = socket.connect(running.address).await.unwrap();
    let request = format!(
        "GET /v1/live HTTP/1.1\r\nhost: x\r\nsyncline-protocol: 2026-11-01\r\n\
         authorization: Bearer {}\r\n\r\n",
        running.token
    );
    deaf.write_all(request.as_bytes()).await.unwrap();
    // It has the place; nothing more of what it is told is read.
    let mut status = [0; 12];
    deaf.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    let deadline = Instant::now() + Duration::from_secs(30);
    for wanted in [503, 200] {
        // The only place is taken, then it is free again.
        while running.get("/v1/live").send().await.unwrap().status() != wanted {
            assert!(Instant::now() < deadline, "no {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    running.stop().await;
}
