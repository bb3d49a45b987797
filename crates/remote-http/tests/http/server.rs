//! A tiny scripted HTTP server: one thread a connection, no framework, no manners.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body without its content encoding.
    pub(crate) fn plain_body(&self) -> Vec<u8> {
        match self.header("content-encoding") {
            Some("zstd") => zstd::bulk::decompress(&self.body, 16 << 20).unwrap(),
            Some(other) => panic!("encoded as {other}"),
            None => self.body.clone(),
        }
    }
}

/// What the server does with the connection once a request has been read.
#[derive(Clone)]
pub(crate) enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes one by one with this pause between them.
    Dribble(Vec<u8>, Duration),
    /// Waits for the next request on the connection, instead of closing it.
    NextRequest,
    /// Holds the connection open without a word until the client goes away.
    Hold,
}

/// A server that lives as long as the process.
pub(crate) struct Server {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    /// Answers each request with what the script makes of it.
    pub(crate) fn start<S>(script: S) -> Self
    where
        S: Fn(&Received) -> Vec<Step> + Send + Sync + 'static,
    {
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let log = Arc::clone(&received);
        let mut server = Self::raw(move |mut stream| {
            while let Some(request) = read_request(&mut stream) {
                log.lock().unwrap().push(request.clone());
                if !perform(&mut stream, script(&request)) {
                    return;
                }
            }
        });
        server.received = received;
        server
    }

    /// Leaves each connection to the handler.
    pub(crate) fn raw<H>(handler: H) -> Self
    where
        H: Fn(TcpStream) + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections: Arc<Mutex<usize>> = Arc::default();
        let counted = Arc::clone(&connections);
        let handler = Arc::new(handler);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                *counted.lock().unwrap() += 1;
                let handler = Arc::clone(&handler);
                thread::spawn(move || handler(stream));
            }
        });
        Self {
            url,
            received: Arc::default(),
            connections,
        }
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

/// Whether the connection goes on.
fn perform(stream: &mut TcpStream, steps: Vec<Step>) -> bool {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return false;
                }
            }
            Step::Dribble(bytes, pause) => {
                for byte in bytes {
                    if stream.write_all(&[byte]).is_err() {
                        return false;
                    }
                    thread::sleep(pause);
                }
            }
            Step::NextRequest => return true,
            Step::Hold => {
                let _ = stream.read(&mut [0; 1]);
            }
        }
    }
    false
}

/// Reads one request with a `content-length` or without a body.
pub(crate) fn read_request(stream: &mut TcpStream) -> Option<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let mut request = Received {
        method: first.next()?.to_owned(),
        target: first.next()?.to_owned(),
        ..Received::default()
    };
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let header = (name.to_ascii_lowercase(), value.trim().to_owned());
        request.headers.push(header);
    }
    let length = request.header("content-length").unwrap_or("0");
    request.body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// An answer under construction; its length is stated unless a test says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// An answer without any mark.
    pub(crate) fn bare(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.as_ref().to_vec(),
        }
    }

    /// An answer with all the marks of the protocol.
    pub(crate) fn marked(
        request: &Received,
        status: u16,
        content_type: &str,
        body: impl AsRef<[u8]>,
    ) -> Self {
        let echo = request.header("syncline-request").unwrap_or_default();
        Self::bare(status, body)
            .header("syncline-protocol", "2026-11-01")
            .header("syncline-request", echo)
            .header("content-type", content_type)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(header, _)| header != name);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} Whatever\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let framed = |(name, _): &(String, String)| {
            matches!(name.as_str(), "content-length" | "transfer-encoding")
        };
        if !self.headers.iter().any(framed) {
            let length = format!("content-length: {}\r\n", self.body.len());
            bytes.extend_from_slice(length.as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it and closes the connection, saying so.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let last = self.clone().header("connection", "close");
        vec![Step::Send(last.bytes())]
    }
}
