//! A corpus of odd answers: whatever comes, it is told in the right bucket and nothing is believed
//! that should not be.

use crate::fixtures::{
    CHANGE, END, HELLO, JSON, NDJSON, PROBLEM, PUSHED, always, bucket, builder, hello, pull, push,
};
use crate::server::{Received, Reply, Server, Step, read_request};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use syncline_core::PageChange;
use syncline_remote_http::HttpRemote;

/// A case's name, its answer, and the bucket that it must fall into.
type Odd = (&'static str, fn(&Received) -> Vec<u8>, &'static str);

/// A case's name and its answer.
type Harmless = (&'static str, fn(&Received) -> Vec<u8>);

fn ok(request: &Received) -> Reply {
    Reply::marked(request, 200, JSON, HELLO)
}

fn chunked(request: &Received, body: &[u8]) -> Vec<u8> {
    let reply = Reply::marked(request, 200, JSON, body);
    reply.header("transfer-encoding", "chunked").bytes()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    // A "stored" deflate block: no library needed. The checksum is not right on purpose: unused.
    let length = u16::try_from(plain.len()).unwrap();
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&(!length).to_le_bytes());
    bytes.extend_from_slice(plain);
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 1).unwrap()
}

#[rustfmt::skip]
const NOT_OURS: &[Odd] = &[
    ("HTML with status 200", |_| Reply::bare(200, "<html>Sign in</html>").header("content-type", "text/html").bytes(), "unreachable"),
    ("HTML with our marks", |r| Reply::marked(r, 200, "text/html", "<html>").bytes(), "unreachable"),
    ("JSON without any mark", |_| Reply::bare(200, HELLO).header("content-type", JSON).bytes(), "unreachable"),
    ("no protocol header", |r| ok(r).without("syncline-protocol").bytes(), "unreachable"),
    ("empty protocol header", |r| ok(r).without("syncline-protocol").header("syncline-protocol", "").bytes(), "unreachable"),
    ("no echo", |r| ok(r).without("syncline-request").bytes(), "unreachable"),
    ("another's echo", |r| ok(r).without("syncline-request").header("syncline-request", "0-1").bytes(), "unreachable"),
    ("a cut echo", |r| { let id = &r.header("syncline-request").unwrap()[1..]; ok(r).without("syncline-request").header("syncline-request", id).bytes() }, "unreachable"),
    ("two echoes", |r| ok(r).header("syncline-request", "0-1").bytes(), "unreachable"),
    ("no content type", |r| ok(r).without("content-type").bytes(), "unreachable"),
    ("empty content type", |r| Reply::marked(r, 200, "", HELLO).bytes(), "unreachable"),
    ("a content type that begins alike", |r| Reply::marked(r, 200, "application/jsonp", HELLO).bytes(), "unreachable"),
    ("NDJSON instead of JSON", |r| Reply::marked(r, 200, NDJSON, HELLO).bytes(), "unreachable"),
    ("a problem with status 200", |r| Reply::marked(r, 200, PROBLEM, HELLO).bytes(), "unreachable"),
    ("an error as plain JSON", |r| Reply::marked(r, 500, JSON, "{}").bytes(), "unreachable"),
    ("an error as HTML", |r| Reply::marked(r, 503, "text/html", "down").bytes(), "unreachable"),
    ("401 of a proxy", |_| Reply::bare(401, "").header("www-authenticate", "Basic").bytes(), "unreachable"),
    ("407 of a proxy", |_| Reply::bare(407, "").header("proxy-authenticate", "Basic").bytes(), "unreachable"),
    ("a redirect with our marks", |r| Reply::marked(r, 302, JSON, HELLO).header("location", "/other").bytes(), "unreachable"),
    ("a redirect to nowhere", |_| Reply::bare(302, "").bytes(), "unreachable"),
    ("a redirect to nonsense", |_| Reply::bare(302, "").header("location", "http://[").bytes(), "unreachable"),
    ("a redirect to another scheme", |_| Reply::bare(302, "").header("location", "file:///etc/passwd").bytes(), "unreachable"),
    ("not modified", |r| Reply::marked(r, 304, JSON, "").bytes(), "unreachable"),
    ("no HTTP at all", |_| b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), "unreachable"),
    ("TLS spoken on a plain port", |_| vec![21, 3, 1, 0, 2, 2, 70], "unreachable"),
    ("nothing, then the end", |_| Vec::new(), "unreachable"),
    ("half a status line", |_| b"HTTP/1.1 20".to_vec(), "unreachable"),
    ("a status beyond three digits", |_| b"HTTP/1.1 20000 OK\r\n\r\n".to_vec(), "unreachable"),
    ("headers without end", |_| b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n".to_vec(), "unreachable"),
    ("a header that is none", |_| b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n".to_vec(), "unreachable"),
    ("two lengths", |r| ok(r).header("content-length", "5").header("content-length", "6").bytes(), "unreachable"),
    ("a length that is no number", |r| ok(r).header("content-length", "lots").bytes(), "unreachable"),
    ("a megabyte of headers", |r| { let long = "x".repeat(1 << 20); ok(r).header("x-long", &long).bytes() }, "unreachable"),
    ("a thousand headers", |r| (0..1000).fold(ok(r), |reply, n| reply.header("x-many", &n.to_string())).bytes(), "unreachable"),
    ("a switch of protocols", |r| Reply::marked(r, 101, JSON, "").bytes(), "unreachable"),
    ("a body cut before its stated length", |r| ok(r).header("content-length", "9999").bytes(), "unreachable"),
    ("chunks without their end", |r| chunked(r, b"5\r\n{\"pro"), "unreachable"),
];

#[rustfmt::skip]
const GARBLED: &[Odd] = &[
    ("an empty body", |r| Reply::marked(r, 200, JSON, "").bytes(), "transient"),
    ("no content", |r| Reply::marked(r, 204, JSON, "").bytes(), "transient"),
    ("a byte-order mark", |r| Reply::marked(r, 200, JSON, format!("\u{feff}{HELLO}")).bytes(), "transient"),
    ("UTF-16", |r| Reply::marked(r, 200, JSON, HELLO.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).bytes(), "transient"),
    ("bytes that are no UTF-8", |r| Reply::marked(r, 200, JSON, HELLO.replace("test", "\u{1}").into_bytes()).bytes(), "transient"),
    ("null", |r| Reply::marked(r, 200, JSON, "null").bytes(), "transient"),
    ("an empty object", |r| Reply::marked(r, 200, JSON, "{}").bytes(), "transient"),
    ("an array", |r| Reply::marked(r, 200, JSON, "[]").bytes(), "transient"),
    ("the answer to a push", |r| Reply::marked(r, 200, JSON, PUSHED).bytes(), "transient"),
    ("the answer twice", |r| Reply::marked(r, 200, JSON, format!("{HELLO}{HELLO}")).bytes(), "transient"),
    ("HTML called JSON", |r| Reply::marked(r, 200, JSON, "<html></html>").bytes(), "transient"),
    ("a length too short", |r| ok(r).header("content-length", "9").bytes(), "transient"),
    ("deep nesting", |r| Reply::marked(r, 200, JSON, "[".repeat(200_000)).bytes(), "transient"),
    ("a chunk length that is none", |r| chunked(r, b"zz\r\n{}\r\n0\r\n\r\n"), "transient"),
    ("a chunk longer than it says", |r| chunked(r, b"1\r\n{}{}\r\n0\r\n\r\n"), "transient"),
    ("a chunk of absurd length", |r| chunked(r, b"fffffffffffffffff\r\n{}"), "transient"),
    ("gzip that is none", |r| ok(r).header("content-encoding", "gzip").bytes(), "transient"),
    ("gzip with a wrong checksum", |r| Reply::marked(r, 200, JSON, gzip(HELLO.as_bytes())).header("content-encoding", "gzip").bytes(), "transient"),
    ("gzip cut short", |r| Reply::marked(r, 200, JSON, &gzip(HELLO.as_bytes())[..99]).header("content-encoding", "gzip").bytes(), "transient"),
    ("zstd that is none", |r| ok(r).header("content-encoding", "zstd").bytes(), "transient"),
    ("zstd cut short", |r| { let z = zstd(HELLO.as_bytes()); Reply::marked(r, 200, JSON, &z[..z.len() / 2]).header("content-encoding", "zstd").bytes() }, "transient"),
    ("an encoding nobody asked for", |r| Reply::marked(r, 200, JSON, gzip(HELLO.as_bytes())).header("content-encoding", "br").bytes(), "transient"),
];

#[tokio::test]
async fn the_corpus_falls_into_its_buckets() {
    assert!(NOT_OURS.len() + GARBLED.len() >= 40);
    for (name, answer, expected) in NOT_OURS.iter().chain(GARBLED) {
        let server = Server::start(|request| vec![Step::Send(answer(request))]);
        let remote = builder(&server).build().unwrap();
        let error = hello(&remote).await.expect_err(name);
        assert_eq!(bucket(&error), *expected, "{name}: {error:?}");
    }
}

#[tokio::test]
async fn harmless_oddities_are_accepted() {
    let harmless: &[Harmless] = &[
        ("a charset", |r| {
            let kind = "Application/JSON ; charset=UTF-8";
            Reply::marked(r, 200, kind, HELLO).bytes()
        }),
        ("another success", |r| {
            Reply::marked(r, 201, JSON, HELLO).bytes()
        }),
        ("white space around", |r| {
            Reply::marked(r, 200, JSON, format!("\r\n {HELLO}\n\n")).bytes()
        }),
        ("an unknown field", |r| {
            let body = HELLO.replacen('{', r#"{"news":[{}],"#, 1);
            Reply::marked(r, 200, JSON, body).bytes()
        }),
        ("a newer protocol", |r| {
            let reply = ok(r).without("syncline-protocol");
            reply.header("syncline-protocol", "2027-01-01").bytes()
        }),
        ("chunks", |r| {
            let body = format!(
                "1\r\n{{\r\n{:x};a=b\r\n{}\r\n0\r\nx: y\r\n\r\n",
                HELLO.len() - 1,
                &HELLO[1..]
            );
            chunked(r, body.as_bytes())
        }),
        ("zstd", |r| {
            let reply = Reply::marked(r, 200, JSON, zstd(HELLO.as_bytes()));
            reply.header("content-encoding", "zstd").bytes()
        }),
        ("an interim answer", |r| {
            let mut bytes = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_vec();
            bytes.extend_from_slice(&ok(r).bytes());
            bytes
        }),
    ];
    for (name, answer) in harmless {
        let server = Server::start(|request| vec![Step::Send(answer(request))]);
        let remote = builder(&server).build().unwrap();
        hello(&remote)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Gives the whole at first, then one byte less each time. The stated length agrees: the
/// transport has nothing to complain about.
fn shrinking(kind: &'static str, whole: String) -> Server {
    let cut = AtomicUsize::new(whole.len());
    always(move |request| {
        let length = cut.fetch_sub(1, Ordering::SeqCst);
        Reply::marked(request, 200, kind, &whole[..length])
    })
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_never_believed() {
    let remote = builder(&shrinking(JSON, PUSHED.to_owned()))
        .build()
        .unwrap();
    push(&remote, &["{}"]).await.unwrap();
    for cut in (0..PUSHED.len()).rev() {
        let error = push(&remote, &["{}"]).await.unwrap_err();
        assert_eq!(bucket(&error), "transient", "cut at {cut}: {error:?}");
    }
}

#[tokio::test]
async fn a_page_cut_at_any_byte_is_never_believed() {
    let page = format!("{CHANGE}\n{END}");
    let remote = builder(&shrinking(NDJSON, page.clone())).build().unwrap();
    pull(&remote, None).await.unwrap();
    for cut in (0..page.len()).rev() {
        let error = pull(&remote, None).await.unwrap_err();
        assert_eq!(bucket(&error), "transient", "cut at {cut}: {error:?}");
    }
}

#[tokio::test]
async fn odd_pages() {
    #[rustfmt::skip]
    let cases = [
        (NDJSON, format!("{CHANGE}\n{END}"), None),
        (NDJSON, format!("{CHANGE}\n{END}\n<html>"), None),
        ("application/x-ndjson; charset=utf-8", format!("{CHANGE}\n{END}\n"), None),
        (NDJSON, format!("\u{feff}{CHANGE}\n{END}\n"), Some("transient")),
        (NDJSON, format!("{CHANGE}\n{CHANGE}\n{END}\n"), Some("transient")),
        (NDJSON, format!("{END}\n"), Some("transient")),
        (NDJSON, format!("{CHANGE}\n"), Some("transient")),
        (NDJSON, format!("{CHANGE}\ngarbage\n{END}\n"), Some("transient")),
        (NDJSON, String::new(), Some("transient")),
        (JSON, format!("{CHANGE}\n{END}\n"), Some("unreachable")),
        ("text/html", format!("{CHANGE}\n{END}\n"), Some("unreachable")),
    ];
    for (kind, body, expected) in cases {
        let text = body.clone();
        let server = always(move |r| Reply::marked(r, 200, kind, &body));
        let remote = builder(&server).build().unwrap();
        let result = pull(&remote, None).await;
        assert_eq!(
            result.as_ref().err().map(bucket),
            expected,
            "{kind}: {text}"
        );
    }
}

#[tokio::test]
async fn a_change_that_is_not_understood_does_not_stop_the_feed() {
    let odd = r#"{"change":{"type":"task","id":"a","op":"explode"}}"#;
    let server = always(move |r| Reply::marked(r, 200, NDJSON, format!("{odd}\n{END}\n")));
    let page = pull(&builder(&server).build().unwrap(), None)
        .await
        .unwrap();
    assert!(matches!(&page.changes[0], PageChange::Invalid { raw, .. } if raw == odd));
}

/// A connection closed with unread bytes is reset by the system.
#[tokio::test]
async fn a_reset_connection_is_unreachable() {
    let before = Server::raw(|mut stream| {
        let _ = stream.read(&mut [0; 10]);
    });
    let within = Server::raw(|mut stream| {
        if let Some(request) = read_request(&mut stream) {
            let answer = ok(&request).bytes();
            let _ = stream.write_all(&answer[..answer.len() / 2]);
        }
    });
    for server in [&before, &within] {
        let remote = builder(server).build().unwrap();
        let error = hello(&remote).await.unwrap_err();
        assert_eq!(bucket(&error), "unreachable", "{error:?}");
    }
    let nobody = "http://127.0.0.1:9";
    let remote = HttpRemote::builder(nobody).build().unwrap();
    let error = hello(&remote).await.unwrap_err();
    assert_eq!(bucket(&error), "unreachable", "{error:?}");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_unreachable() {
    let server = Server::raw(|mut stream| {
        let _ = stream.read(&mut [0; 5]);
        let _ = stream.write_all(&Reply::bare(400, "speak plainly").bytes());
    });
    let url = server.url.replace("http:", "https:");
    let remote = HttpRemote::builder(url).build().unwrap();
    let error = hello(&remote).await.unwrap_err();
    assert_eq!(bucket(&error), "unreachable", "{error:?}");
}
