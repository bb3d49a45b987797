//! The whole table of statuses, with the protocol's marks and without.

use crate::fixtures::{PROBLEM, always, bucket, builder, hello, pull, push};
use crate::server::{Reply, Server};
use std::time::Duration;
use syncline_core::RemoteError;

fn problem(status: u16, word: &str) -> String {
    format!(
        r#"{{"type":"urn:syncline:problem:{word}","status":{status},"title":"Titled","detail":"explained"}}"#
    )
}

fn refusing(status: u16, word: &'static str, retry_after: Option<&'static str>) -> Server {
    always(move |request| {
        let reply = Reply::marked(request, status, PROBLEM, problem(status, word));
        match retry_after {
            Some(value) => reply.header("retry-after", value),
            None => reply,
        }
    })
}

#[tokio::test]
async fn every_status_falls_into_its_bucket() {
    for (status, word, expected) in [
        (400, "protocol-unsupported", "incompatible"),
        (400, "cursor-invalid", "cursor-gone"),
        (400, "body-invalid", "misconfigured"),
        (401, "token-expired", "auth"),
        (402, "payment", "misconfigured"),
        (403, "forbidden", "misconfigured"),
        (403, "cursor-invalid", "misconfigured"),
        (404, "unknown-path", "misconfigured"),
        (405, "method", "misconfigured"),
        (406, "accept", "misconfigured"),
        (407, "proxy", "misconfigured"),
        (408, "timeout", "transient"),
        (409, "running", "misconfigured"),
        (410, "cursor-expired", "cursor-gone"),
        (413, "too-large", "too-large"),
        (415, "content-type", "incompatible"),
        (418, "teapot", "misconfigured"),
        (422, "key-reused", "misconfigured"),
        (425, "early", "transient"),
        (426, "upgrade", "incompatible"),
        (429, "rate", "overloaded"),
        (500, "bug", "transient"),
        (501, "not-implemented", "transient"),
        (502, "gateway", "transient"),
        (503, "busy", "overloaded"),
        (504, "gateway", "transient"),
        (507, "storage", "transient"),
        (599, "odd", "transient"),
        (999, "odder", "transient"),
    ] {
        let server = refusing(status, word, None);
        let remote = builder(&server).build().unwrap();
        let errors = [
            hello(&remote).await.unwrap_err(),
            push(&remote, &["{}"]).await.unwrap_err(),
            pull(&remote, None).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(bucket(&error), expected, "{status} {word}: {error:?}");
            let text = error.to_string();
            assert!(text.contains(&format!("explained [{word}]")), "{text}");
        }
    }
}

#[tokio::test]
async fn no_status_is_believed_without_the_marks() {
    for status in [
        200, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 407, 410, 413, 415,
        426, 429, 500, 502, 503, 504, 511,
    ] {
        let server = always(move |_| {
            Reply::bare(status, "<html>Welcome to Hotel WiFi</html>")
                .header("content-type", "text/html")
                .header("retry-after", "7")
        });
        let remote = builder(&server).build().unwrap();
        for error in [
            hello(&remote).await.unwrap_err(),
            push(&remote, &["{}"]).await.unwrap_err(),
            pull(&remote, None).await.unwrap_err(),
        ] {
            let expected = match status {
                404 | 405 => "misconfigured",
                _ => "unreachable",
            };
            assert_eq!(bucket(&error), expected, "{status}: {error:?}");
            assert!(!error.to_string().contains("Hotel"));
        }
    }
}

#[tokio::test]
async fn retry_after_is_obeyed_and_clamped_on_every_transient() {
    for (status, value, seconds) in [
        (429, "7", Some(7)),
        (503, "0", Some(1)),
        (503, "999999999999999999999", Some(3600)),
        (503, "Tue, 01 Jan 2999 00:00:00 GMT", Some(3600)),
        (503, "Thu, 01 Jan 1970 00:00:00 GMT", Some(1)),
        (503, "-3", Some(1)),
        (500, "9", Some(9)),
        (502, "9", Some(9)),
        (408, "9", Some(9)),
        (503, "whenever", None),
    ] {
        let server = refusing(status, "busy", Some(value));
        let remote = builder(&server).build().unwrap();
        match hello(&remote).await.unwrap_err() {
            RemoteError::Transient {
                status: told,
                retry_after,
                ..
            } => {
                assert_eq!(told, status);
                assert_eq!(retry_after, seconds.map(Duration::from_secs), "{value}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_problem_that_cannot_be_read_leaves_the_status_to_speak() {
    for (status, expected) in [
        (400, "transient"),
        (401, "auth"),
        (404, "misconfigured"),
        (410, "cursor-gone"),
        (413, "too-large"),
        (415, "incompatible"),
        (429, "overloaded"),
        (500, "transient"),
    ] {
        for body in ["", "{", "null", "\u{feff}{}", "[]", "<html>"] {
            let server = always(move |request| {
                Reply::marked(request, status, PROBLEM, body).header("retry-after", "5")
            });
            let remote = builder(&server).build().unwrap();
            let error = hello(&remote).await.unwrap_err();
            assert_eq!(bucket(&error), expected, "{status} {body:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_problem_with_an_endless_detail_is_told_briefly() {
    let server = always(|request| {
        let detail = "line\\nbreak ".repeat(4000);
        let body = format!(r#"{{"type":"x","status":500,"title":"t","detail":"{detail}"}}"#);
        Reply::marked(request, 500, PROBLEM, body)
    });
    let remote = builder(&server).build().unwrap();
    let text = hello(&remote).await.unwrap_err().to_string();
    assert!(text.len() < 1000 && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn good_answers_are_believed() {
    let server = always(crate::fixtures::good);
    let remote = builder(&server).build().unwrap();
    assert_eq!(hello(&remote).await.unwrap().server, "test");
    assert_eq!(push(&remote, &["{}"]).await.unwrap().results.len(), 1);
    let page = pull(&remote, Some("c")).await.unwrap();
    assert_eq!((page.changes.len(), page.end.at_head), (1, true));
}
