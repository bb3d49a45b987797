//! A loopback proxy between devices and a server, which looks at each request and may spoil its
//! exchange: lose the answer, answer in the server's place, or repeat the request.

use crate::http::Message;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use syncline_protocol::{CONTENT_TYPE_PROBLEM, HEADER_PROTOCOL, HEADER_REQUEST, PROTOCOL_VERSION};

const SILENCE: Duration = Duration::from_secs(30);

/// What the proxy saw of a request.
pub struct Seen<'a> {
    /// `POST`, `GET`.
    pub method: &'a str,
    /// The path with its query.
    pub target: &'a str,
    /// The body as sent, perhaps compressed.
    pub body: &'a [u8],
}

impl Seen<'_> {
    /// Whether it is a push.
    pub fn is_push(&self) -> bool {
        self.target.starts_with("/v1/push")
    }

    /// Whether its body contains this text; compressed bodies never do.
    pub fn mentions(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.body.windows(text.len()).any(|window| window == text)
    }
}

/// What the proxy does with an exchange.
pub enum Act {
    /// Hands both ways on.
    Pass,
    /// Hands the request on, takes the answer, does this, and cuts the connection.
    LoseAnswer(Box<dyn FnOnce() + Send>),
    /// Sends the request twice and hands the second answer on.
    Repeat,
    /// Answers with this status in the server's place, with all the protocol's marks.
    Status(u16),
    /// Hands the request on, does this, and hands on what answer there still is.
    Then(Box<dyn FnOnce() + Send>),
}

/// What went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests of any kind.
    pub requests: u64,
    /// Pushes among them.
    pub pushes: u64,
    /// The longest that the server took for one.
    pub slowest: Duration,
}

type Rule = Box<dyn FnMut(&Seen<'_>) -> Act + Send>;

struct Shared {
    upstream: SocketAddr,
    rule: Mutex<Rule>,
    traffic: Mutex<Traffic>,
    ended: AtomicBool,
}

/// A running proxy; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one that passes everything on to `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            rule: Mutex::new(Box::new(|_| Act::Pass)),
            traffic: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let all = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            for client in listener.incoming() {
                if all.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&all)) else {
                    continue;
                };
                // An error is a connection that broke: both sides see it close.
                thread::spawn(move || shared.connection(&client));
            }
        });
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Where devices reach it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From here on, this decides about each request.
    pub fn rule(&self, rule: impl FnMut(&Seen<'_>) -> Act + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// From here on, everything passes.
    pub fn pass(&self) {
        self.rule(|_| Act::Pass);
    }

    /// What went through since the last call.
    pub fn take_traffic(&self) -> Traffic {
        std::mem::take(&mut self.shared.traffic.lock().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; if nobody listens any more, it has ended.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn connection(&self, client: &TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(SILENCE))?;
        client.set_nodelay(true)?;
        let mut requests = BufReader::new(client.try_clone()?);
        while let Some(request) = Message::read(&mut requests)? {
            let Some(answer) = self.exchange(&request)? else {
                return Ok(());
            };
            (&*client).write_all(&answer)?;
        }
        Ok(())
    }

    /// The answer's bytes; `None` cuts the connection.
    fn exchange(&self, request: &Message) -> io::Result<Option<Vec<u8>>> {
        match self.judge(request) {
            Act::Pass => self.forward(request, || ()).map(Some),
            Act::LoseAnswer(then) => {
                self.forward(request, || ())?;
                then();
                Ok(None)
            }
            Act::Repeat => {
                self.forward(request, || ())?;
                self.forward(request, || ()).map(Some)
            }
            Act::Status(status) => Ok(Some(problem(status, request))),
            Act::Then(act) => self.forward(request, act).map(Some),
        }
    }

    fn judge(&self, request: &Message) -> Act {
        let mut words = request.start.split(' ');
        let seen = Seen {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            body: &request.body,
        };
        let mut traffic = self.traffic.lock().unwrap();
        traffic.requests += 1;
        traffic.pushes += u64::from(seen.is_push());
        drop(traffic);
        (self.rule.lock().unwrap())(&seen)
    }

    fn forward(&self, request: &Message, then: impl FnOnce()) -> io::Result<Vec<u8>> {
        // A connection of its own for each: nothing depends on how the server keeps them.
        let mut server = TcpStream::connect(self.upstream)?;
        server.set_read_timeout(Some(SILENCE))?;
        server.set_nodelay(true)?;
        server.write_all(&request.bytes)?;
        let sent = Instant::now();
        then();
        let answer = Message::read(&mut BufReader::new(server))?;
        let mut traffic = self.traffic.lock().unwrap();
        traffic.slowest = traffic.slowest.max(sent.elapsed());
        drop(traffic);
        answer
            .map(|answer| answer.bytes)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn problem(status: u16, request: &Message) -> Vec<u8> {
    let body = format!("{{\"type\":\"about:blank\",\"title\":\"Told to\",\"status\":{status}}}");
    let id = request.header(HEADER_REQUEST).unwrap_or_default();
    format!(
        "HTTP/1.1 {status} Told to\r\n{HEADER_PROTOCOL}: {PROTOCOL_VERSION}\r\n\
         {HEADER_REQUEST}: {id}\r\ncontent-type: {CONTENT_TYPE_PROBLEM}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
