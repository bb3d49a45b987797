//! What goes over the wire: paths, headers, and frozen bytes as they are.

use crate::fixtures::{
    FETCHED, HELLO, JSON, always, bucket, builder, client, fetch, good, hello, pull, push,
};
use crate::server::{Reply, Server, Step};
use std::collections::BTreeSet;
use syncline_core::{Remote, RemoteAnswer, RemoteError, RemoteRequest};
use syncline_protocol::{ClientId, TraceParent};
use syncline_remote_http::{HttpRemote, TokenSource};

#[tokio::test]
async fn each_call_has_its_path_and_headers() {
    let server = always(good);
    let remote = HttpRemote::builder(format!("{}/base/", server.url))
        .token(TokenSource::Static("secret-token".into()))
        .build()
        .unwrap();
    hello(&remote).await.unwrap();
    push(&remote, &["{}"]).await.unwrap();
    pull(&remote, None).await.unwrap();
    pull(&remote, Some("a+b/c=&d")).await.unwrap();
    let received = server.received();
    let lines: Vec<_> = received
        .iter()
        .map(|request| format!("{} {}", request.method, request.target))
        .collect();
    assert_eq!(
        lines,
        [
            "GET /base/v1/hello",
            "POST /base/v1/push",
            "GET /base/v1/pull?scope=list%2F%C3%BC%261&limit=100",
            "GET /base/v1/pull?scope=list%2F%C3%BC%261&cursor=a%2Bb%2Fc%3D%26d&limit=100",
        ]
    );
    for request in &received {
        assert_eq!(request.header("syncline-protocol"), Some("2026-11-01"));
        assert_eq!(request.header("syncline-client"), Some(client().as_str()));
        assert_eq!(request.header("authorization"), Some("Bearer secret-token"));
        assert!(request.header("accept-encoding").unwrap().contains("zstd"));
        assert!(
            request
                .header("user-agent")
                .unwrap()
                .starts_with("syncline/")
        );
        let accept = request.header("accept").unwrap();
        assert!(accept.contains("application/problem+json"), "{accept}");
    }
    assert_eq!(received[1].header("content-type"), Some(JSON));
    assert!(received[2].header("accept").unwrap().contains("x-ndjson"));
    let ids: BTreeSet<_> = received
        .iter()
        .map(|request| request.header("syncline-request").unwrap())
        .collect();
    assert_eq!(ids.len(), received.len(), "a request id was used twice");
}

#[tokio::test]
async fn entities_are_fetched_by_their_ids() {
    let server = always(good);
    let fetched = fetch(&builder(&server).build().unwrap()).await.unwrap();
    assert_eq!((fetched.epoch.as_str(), fetched.position), ("e", 7));
    assert_eq!(
        (fetched.changes.len(), fetched.bytes),
        (1, FETCHED.len() as u64)
    );
    let target = "/v1/digest?scope=s&type=task&ids=%5B%221%22%2C%22%5C%222%5C%22%22%5D";
    assert_eq!(server.received()[0].target, target);
    let older = always(|request| Reply::marked(request, 404, "application/problem+json", "{}"));
    let refused = fetch(&builder(&older).build().unwrap()).await.unwrap_err();
    assert_eq!(
        bucket(&refused),
        "misconfigured",
        "the feed is read instead"
    );
}

#[tokio::test]
async fn each_request_belongs_to_a_trace() {
    let server = always(good);
    let remote = builder(&server).build().unwrap();
    let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let given = TraceParent::parse(text).unwrap();
    let traced = builder(&server).trace_context(move || Some(given));
    hello(&remote).await.unwrap();
    push(&remote, &["{}"]).await.unwrap();
    hello(&traced.build().unwrap()).await.unwrap();
    let received = server.received();
    let parents: Vec<_> = received
        .iter()
        .map(|request| TraceParent::parse(request.header("traceparent").unwrap()).unwrap())
        .collect();
    assert_ne!(parents[0].trace_id(), parents[1].trace_id());
    assert_eq!(parents[2], given);
}

#[tokio::test]
async fn two_remotes_never_share_a_request_id() {
    let server = always(good);
    for _ in 0..2 {
        hello(&builder(&server).build().unwrap()).await.unwrap();
    }
    let received = server.received();
    let id = |index: usize| received[index].header("syncline-request").unwrap();
    assert_ne!(id(0), id(1));
}

#[tokio::test]
async fn without_a_token_there_is_no_authorization() {
    let server = always(good);
    hello(&builder(&server).build().unwrap()).await.unwrap();
    assert_eq!(server.received()[0].header("authorization"), None);
}

/// White space, escapes, order, digits: nothing that a JSON library would change is changed.
#[tokio::test]
async fn frozen_mutations_are_sent_byte_for_byte() {
    let odd = [
        r#"{ "key" : "k1" ,"fields":{"b":1.0,"a":1e2,"a2":1.10,"big":12345678901234567890}}"#,
        "{\"key\":\"k2\",\"fields\":{\"t\":\"\\u00fc\\/\u{fc}\u{2028}\"}}\t",
        r#"{"x":1,"x":2}"#,
        "not even JSON",
    ];
    let long = format!(r#"{{"t":"{}"}}"#, "milk and honey, ".repeat(20_000));
    let mut longer = odd.to_vec();
    longer.push(&long);
    for (frozen, encoding) in [
        (&odd[..], None),
        (&longer[..], Some("zstd")),
        (&[][..], None),
    ] {
        let server = always(good);
        let remote = builder(&server).build().unwrap();
        push(&remote, frozen).await.unwrap();
        let request = &server.received()[0];
        let expected = format!(
            r#"{{"client":"{}","mutations":[{}]}}"#,
            client(),
            frozen.join(",")
        );
        assert_eq!(request.header("content-encoding"), encoding);
        assert_eq!(String::from_utf8(request.plain_body()).unwrap(), expected);
    }
}

#[tokio::test]
async fn compression_can_be_switched_off() {
    let server = always(good);
    let remote = builder(&server).compress_above(usize::MAX).build().unwrap();
    push(&remote, &["a".repeat(5000).as_str()]).await.unwrap();
    let request = &server.received()[0];
    assert_eq!(request.header("content-encoding"), None);
    assert!(request.body.len() > 5000);
}

#[tokio::test]
async fn redirects_are_never_followed_and_the_token_stays() {
    let elsewhere = always(good);
    for status in [300, 301, 302, 303, 307, 308] {
        let target = elsewhere.url.clone();
        let server = always(move |request| {
            Reply::marked(request, status, JSON, HELLO)
                .header("location", &format!("{target}/v1/hello?user:pass@x"))
        });
        let remote = builder(&server)
            .token(TokenSource::Static("secret-token".into()))
            .build()
            .unwrap();
        let error = hello(&remote).await.unwrap_err();
        assert_eq!(crate::fixtures::bucket(&error), "unreachable");
        assert!(
            error.to_string().contains("redirected to 127.0.0.1"),
            "{error}"
        );
        push(&remote, &["{}"]).await.unwrap_err();
        assert_eq!(server.received().len(), 2);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server =
        Server::start(|request| vec![Step::Send(good(request).bytes()), Step::NextRequest]);
    let remote = builder(&server).build().unwrap();
    for _ in 0..3 {
        hello(&remote).await.unwrap();
        push(&remote, &["{}"]).await.unwrap();
        pull(&remote, None).await.unwrap();
    }
    assert_eq!((server.received().len(), server.connections()), (9, 1));
}

#[tokio::test]
async fn a_client_id_that_is_no_header_is_told_and_nothing_is_sent() {
    let server = always(good);
    let remote = builder(&server).build().unwrap();
    let request = RemoteRequest::Hello {
        client: ClientId::new("a\r\nevil: header"),
    };
    let answer = remote.send(request).await;
    let told = matches!(
        &answer,
        RemoteAnswer::Hello(Err(RemoteError::Misconfigured { status: 0, .. }))
    );
    assert!(told, "{answer:?}");
    assert_eq!(server.connections(), 0);
}
