//! Spans for a collector, with the feature `otel`.

use crate::harness::{Home, Server, run, syncline};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A collector that takes everything; what it is sent comes out.
fn collector() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let message = take(stream.unwrap());
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    (url, received)
}

fn take(mut stream: TcpStream) -> Value {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    stream.write_all(answer.as_bytes()).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn a_push_is_a_span_in_the_trace_of_whoever_started_the_command() {
    let home = Home::new();
    let (url, received) = collector();
    let server = Server::start_with(home.folder.path(), "127.0.0.1:0", &[]);
    let rows = "INSERT INTO task VALUES ('t1', 'canary', 0, NULL)";
    let db = home.attached("a.db", rows, &server.url);
    let mut command = syncline(&["sync", &db]);
    command
        .env("SYNCLINE_TOKEN", &server.token)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        .env(
            "TRACEPARENT",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    run(command).expect_code(0);
    let message = received.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(!message.to_string().contains("canary"), "{message}");
    let spans = message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array();
    let spans = spans.unwrap();
    let events = |span: &Value| span["events"].as_array().map(Vec::len);
    assert!(
        spans.iter().all(|span| events(span) >= Some(1)),
        "{spans:#?}"
    );
    let push = spans
        .iter()
        .find(|span| span["events"][0]["name"] == "sent");
    let push = push.unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!(push["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(push["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(push["kind"], 3);
}
