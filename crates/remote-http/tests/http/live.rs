//! Live streams as they should be, and as proxies and broken servers make them.

use crate::fixtures::{PROBLEM, bucket, client};
use crate::server::{Received, Reply, Server, Step};
use std::io::Write as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use syncline_core::{ListenEnd, Remote};
use syncline_protocol::Head;
use syncline_remote_http::{HttpRemote, HttpRemoteBuilder, TokenSource};

const SHORT: Duration = Duration::from_millis(250);
const PATIENT: Duration = Duration::from_secs(10);

fn head(position: i64) -> String {
    format!(
        "event: head\ndata: {{\"scope\":\"default\",\"epoch\":\"e\",\"position\":{position}}}\n\n"
    )
}

/// The start of a stream's answer, which has no length.
fn opening(request: &Received) -> Reply {
    Reply::marked(request, 200, "text/event-stream", "").header("transfer-encoding", "chunked")
}

fn chunk(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    Step::Send(framed)
}

fn last_chunk() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}

/// A server whose streams have this in them.
fn streaming(steps: impl Fn() -> Vec<Step> + Send + Sync + 'static) -> Server {
    Server::start(move |request| {
        let mut all = vec![Step::Send(opening(request).bytes())];
        all.extend(steps());
        all
    })
}

fn builder(server: &Server) -> HttpRemoteBuilder {
    HttpRemote::builder(&server.url)
        .progress_timeout(SHORT)
        .live_silence(2 * SHORT)
}

/// Listens to the end, which has to come within the test's patience.
async fn listen(remote: &HttpRemote) -> (ListenEnd, Vec<i64>) {
    let (hear, heard): (_, Receiver<Head>) = channel();
    let listening = remote.listen(client(), Box::new(move |head| hear.send(head).unwrap()));
    let end = tokio::time::timeout(PATIENT, listening).await;
    let heard = heard.try_iter().map(|head| head.position).collect();
    (end.expect("the stream has no end"), heard)
}

async fn failure(server: &Server) -> (&'static str, String, Vec<i64>) {
    let remote = builder(server).build().unwrap();
    match listen(&remote).await {
        (ListenEnd::Failed(error), heard) => (bucket(&error), error.to_string(), heard),
        (other, _) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn heads_are_passed_on_until_the_server_ends_the_stream() {
    let server = streaming(|| {
        let cut = head(2);
        let (start, rest) = cut.split_at(20);
        vec![
            chunk(head(1)),
            chunk(": beat\n\n"),
            chunk(start),
            chunk(format!("{rest}{}", head(7))),
            last_chunk(),
        ]
    });
    let remote = builder(&server).token(TokenSource::Static("secret".into()));
    let (end, heard) = listen(&remote.build().unwrap()).await;
    assert_eq!((end, heard), (ListenEnd::Closed, vec![1, 2, 7]));
    let request = server.received().remove(0);
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("GET", "/v1/live")
    );
    for (name, value) in [
        ("syncline-protocol", "2026-11-01"),
        ("syncline-client", client().as_str()),
        ("authorization", "Bearer secret"),
        ("accept", "text/event-stream, application/problem+json"),
        ("accept-encoding", "identity"),
    ] {
        assert_eq!(request.header(name), Some(value));
    }
}

#[tokio::test]
async fn heart_beats_keep_a_stream_and_silence_ends_it() {
    // Twice the bound on silence, in dots.
    let beats = ": beat beat beat\n\n".repeat(2);
    let pause = 4 * SHORT / u32::try_from(beats.len()).unwrap();
    let server = streaming(move || {
        vec![
            chunk(head(1)),
            Step::Send(format!("{:x}\r\n", beats.len()).into_bytes()),
            Step::Dribble(beats.clone().into_bytes(), pause),
            Step::Send(b"\r\n".to_vec()),
            chunk(head(2)),
            Step::Hold,
        ]
    });
    let begun = Instant::now();
    let (bucket, said, heard) = failure(&server).await;
    assert_eq!((bucket, heard), ("unreachable", vec![1, 2]), "{said}");
    assert!(begun.elapsed() >= 5 * SHORT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_proxy_that_holds_the_stream_back() {
    let no_head = Server::start(|_| vec![Step::Hold]);
    let no_event = streaming(|| vec![Step::Hold]);
    let only_beats = streaming(|| {
        let beats = ": beat\n\n".repeat(100);
        let length = Step::Send(format!("{:x}\r\n", beats.len()).into_bytes());
        vec![
            length,
            Step::Dribble(beats.into_bytes(), Duration::from_millis(20)),
        ]
    });
    for server in [no_head, no_event, only_beats] {
        let (bucket, said, heard) = failure(&server).await;
        assert_eq!((bucket, heard), ("unreachable", vec![]), "{said}");
    }
}

#[tokio::test]
async fn streams_that_break_or_make_no_sense() {
    type Steps = fn() -> Vec<Step>;
    let cases: [(Steps, &str, &[i64]); 8] = [
        (|| vec![], "unreachable", &[]),
        (|| vec![chunk(head(1))], "unreachable", &[1]),
        (|| vec![last_chunk()], "transient", &[]),
        (|| vec![chunk(": beat\n\n"), last_chunk()], "transient", &[]),
        (
            || {
                vec![
                    chunk(head(1)),
                    chunk("event: head\ndata: <html>\n\n"),
                    Step::Hold,
                ]
            },
            "transient",
            &[1],
        ),
        (
            || vec![chunk(head(1)), chunk("x".repeat(100_000)), Step::Hold],
            "transient",
            &[1],
        ),
        (
            || vec![chunk(head(1)), chunk(": x\n".repeat(100_000)), Step::Hold],
            "transient",
            &[1],
        ),
        (
            || vec![Step::Send(b"this is no chunk\r\n".to_vec()), Step::Hold],
            "transient",
            &[],
        ),
    ];
    for (steps, expected, positions) in cases {
        let (bucket, said, heard) = failure(&streaming(steps)).await;
        assert_eq!((bucket, heard.as_slice()), (expected, positions), "{said}");
    }
}

#[tokio::test]
async fn a_proxy_that_compresses_the_stream_is_read_or_given_up() {
    let server = Server::start(|request| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(head(1).as_bytes()).unwrap();
        encoder.flush().unwrap();
        let opening = opening(request).header("content-encoding", "gzip");
        vec![
            Step::Send(opening.bytes()),
            chunk(encoder.get_ref()),
            Step::Hold,
        ]
    });
    let (bucket, _, heard) = failure(&server).await;
    assert_eq!((bucket, heard), ("unreachable", vec![1]));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&b": x\n".repeat(1 << 20)).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < 64 << 10, "it looks harmless");
    let bomb = Server::start(move |request| {
        let opening = opening(request).header("content-encoding", "gzip");
        vec![Step::Send(opening.bytes()), chunk(&packed), Step::Hold]
    });
    let (bucket, said, _) = failure(&bomb).await;
    assert_eq!(bucket, "transient", "{said}");
}

#[tokio::test]
async fn refusals_fall_into_the_buckets_of_other_requests() {
    let refusing = |status: u16, retry: Option<&'static str>| {
        Server::start(move |request| {
            let body =
                format!(r#"{{"type":"urn:syncline:problem:x","status":{status},"title":"x"}}"#);
            let mut reply = Reply::marked(request, status, PROBLEM, body);
            if let Some(retry) = retry {
                reply = reply.header("retry-after", retry);
            }
            reply.steps()
        })
    };
    for status in [403, 404, 405, 426, 501] {
        let remote = builder(&refusing(status, None)).build().unwrap();
        assert_eq!(
            listen(&remote).await,
            (ListenEnd::NotOffered, vec![]),
            "{status}"
        );
    }
    assert_eq!(failure(&refusing(401, None)).await.0, "auth");
    assert_eq!(failure(&refusing(500, None)).await.0, "transient");
    let busy = builder(&refusing(503, Some("7"))).build().unwrap();
    let (ListenEnd::Failed(error), _) = listen(&busy).await else {
        panic!("a stream");
    };
    let syncline_core::RemoteError::Transient { retry_after, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    // Some other machine's answers.
    let portal = Server::start(|_| {
        Reply::bare(200, "<html>")
            .header("content-type", "text/html")
            .steps()
    });
    assert_eq!(failure(&portal).await.0, "unreachable");
    let unmarked = Server::start(|_| {
        Reply::bare(200, head(1))
            .header("content-type", "text/event-stream")
            .steps()
    });
    assert_eq!(failure(&unmarked).await.0, "unreachable");
}
