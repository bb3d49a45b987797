//! Every wait and every size has its bound.

use crate::fixtures::{
    CHANGE, END, HELLO, JSON, NDJSON, always, bucket, builder, hello, pull, push,
};
use crate::server::{Reply, Server, Step};
use std::time::{Duration, Instant};
use syncline_remote_http::{HttpRemote, HttpRemoteBuilder};

const SHORT: Duration = Duration::from_millis(250);

/// Far beyond the short one, so that a busy machine is not mistaken for a missing bound.
const PATIENT: Duration = Duration::from_secs(10);

fn impatient(server: &Server) -> HttpRemoteBuilder {
    HttpRemote::builder(&server.url)
        .connect_timeout(SHORT)
        .progress_timeout(SHORT)
        .request_timeout(2 * SHORT)
}

#[tokio::test]
async fn a_server_that_never_answers() {
    let server = Server::start(|_| vec![Step::Hold]);
    let started = Instant::now();
    let patient_in_all = impatient(&server).request_timeout(PATIENT).build().unwrap();
    let error = hello(&patient_in_all).await.unwrap_err();
    assert_eq!(bucket(&error), "unreachable", "{error:?}");
    let remote = impatient(&server).build().unwrap();
    let error = push(&remote, &["{}"]).await.unwrap_err();
    assert_eq!(bucket(&error), "unreachable", "{error:?}");
    assert!(started.elapsed() < PATIENT);
}

#[tokio::test]
async fn a_server_that_falls_silent_in_the_body() {
    let server = Server::start(|request| {
        let bytes = Reply::marked(request, 200, JSON, HELLO).bytes();
        vec![Step::Send(bytes[..bytes.len() - 9].to_vec()), Step::Hold]
    });
    let remote = impatient(&server).request_timeout(PATIENT).build().unwrap();
    let started = Instant::now();
    let error = hello(&remote).await.unwrap_err();
    assert!(
        error.to_string().contains("stopped in the middle"),
        "{error}"
    );
    assert_eq!(bucket(&error), "unreachable");
    assert!(started.elapsed() < PATIENT);
}

/// There is always progress, and never an end.
#[tokio::test]
async fn a_server_that_dribbles() {
    let pause = Duration::from_millis(20);
    let in_the_head = Server::start(move |request| {
        let bytes = Reply::marked(request, 200, JSON, HELLO).bytes();
        vec![Step::Dribble(bytes, pause)]
    });
    let in_the_body = Server::start(move |request| {
        let mut head = Reply::marked(request, 200, JSON, HELLO).bytes();
        let body = head.split_off(head.len() - HELLO.len());
        vec![Step::Send(head), Step::Dribble(body, pause)]
    });
    for (server, said) in [
        (in_the_head, "did not answer in time"),
        (in_the_body, "took too long"),
    ] {
        let remote = impatient(&server).build().unwrap();
        let started = Instant::now();
        let error = hello(&remote).await.unwrap_err();
        assert_eq!(bucket(&error), "unreachable");
        assert!(error.to_string().contains(said), "{error}");
        assert!(started.elapsed() < PATIENT);
    }
}

/// A push's own upload and work may take longer than the progress time-out.
#[tokio::test]
async fn a_push_may_be_worked_on_longer_than_a_pull_is_silent() {
    let server = Server::start(|request| {
        std::thread::sleep(2 * SHORT);
        crate::fixtures::good(request).steps()
    });
    let remote = impatient(&server).request_timeout(PATIENT).build().unwrap();
    push(&remote, &["{}"]).await.unwrap();
    assert_eq!(
        bucket(&pull(&remote, None).await.unwrap_err()),
        "unreachable"
    );
}

/// After a page's end nobody waits for more than a moment.
#[tokio::test]
async fn a_page_is_taken_although_the_answer_goes_on() {
    let server = Server::start(|request| {
        let body = format!("{CHANGE}\n{END}\n");
        let reply = Reply::marked(request, 200, NDJSON, body).header("content-length", "100000");
        vec![Step::Send(reply.bytes()), Step::Hold]
    });
    let remote = builder(&server).build().unwrap();
    let started = Instant::now();
    assert_eq!(pull(&remote, None).await.unwrap().changes.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// Half a gigabyte of nothing in a few kilobytes.
fn bomb() -> Vec<u8> {
    let megabyte = zstd::bulk::compress(&vec![b' '; 1 << 20], 1).unwrap();
    megabyte.repeat(512)
}

/// The same trick in gzip: a deflate stream of one endless run, made by hand. Each block repeats
/// the longest match (258 bytes, distance 1) in fixed Huffman codes of 13 bits.
fn gzip_bomb(runs: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0b1, 1); // the last block
    bits.put(0b01, 2); // fixed codes
    bits.put(u32::from(reversed(0x30 + b' ')), 8); // one space
    for _ in 0..runs {
        bits.put(u32::from(reversed(0b1100_0101)), 8); // length 258
        bits.put(0, 5); // distance 1
    }
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bytes.extend_from_slice(&bits.bytes);
    bytes
}

fn reversed(code: u8) -> u8 {
    code.reverse_bits()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    filled: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            if self.filled.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(value >> bit & 1 == 1) << (self.filled % 8);
            }
            self.filled += 1;
        }
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_at_the_cap() {
    for (encoding, body) in [("zstd", bomb()), ("gzip", gzip_bomb(500_000))] {
        assert!(body.len() < 1 << 20);
        for status in [200, 400] {
            let body = body.clone();
            let server = always(move |request| {
                let kind = match status {
                    200 if request.target.contains("pull") => NDJSON,
                    200 => JSON,
                    _ => crate::fixtures::PROBLEM,
                };
                Reply::marked(request, status, kind, &body).header("content-encoding", encoding)
            });
            let remote = builder(&server)
                .max_response_bytes(1 << 20)
                .build()
                .unwrap();
            for error in [
                hello(&remote).await.unwrap_err(),
                pull(&remote, None).await.unwrap_err(),
            ] {
                assert_eq!(bucket(&error), "transient", "{encoding}: {error:?}");
                assert!(
                    error.to_string().contains("longer than"),
                    "{encoding}: {error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_plain_flood_is_stopped_at_the_cap() {
    let server = always(|request| Reply::marked(request, 200, NDJSON, vec![b'\n'; 100_000]));
    let remote = builder(&server).max_response_bytes(50_000).build().unwrap();
    let error = pull(&remote, None).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}
