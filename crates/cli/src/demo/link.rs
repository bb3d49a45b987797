//! The network between one device and the server: a small proxy on loopback that can be bad.
//!
//! What it passes on is the real traffic, byte for byte; it decides only whether an answer comes,
//! and looks at each push to count what was sent again. It never changes or invents a mutation or
//! a result.

mod traffic;

use super::http::{Message, bound, exchange};
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use syncline_protocol::{
    CONTENT_TYPE_PROBLEM, HEADER_PROTOCOL, HEADER_REQUEST, PROTOCOL_VERSION, Problem,
};
pub(super) use traffic::Traffic;

/// What happens to one push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server handles it; its answer is dropped.
    LoseAnswer,
    /// It never reaches the server: 503 with `Retry-After: 1`, in the server's name.
    Busy,
    /// The server handles it; its answer is held back until the link ends.
    HoldAnswer,
}

/// Whether anything passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Net {
    Up,
    Down,
}

/// One device's way to the server, until dropped.
pub(super) struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    net: Net,
    faults: VecDeque<Fault>,
    traffic: Traffic,
    ended: bool,
}

impl Link {
    /// A link to the server, down at first.
    pub(super) fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            state: Mutex::new(State {
                net: Net::Down,
                faults: VecDeque::new(),
                traffic: Traffic::default(),
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("demo-link".to_owned())
            .spawn(move || accept(&listener, &own))?;
        Ok(Self {
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// The address that a device takes for the server's.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn set(&self, net: Net) {
        self.shared.lock().net = net;
    }

    /// The next push meets this.
    pub(super) fn plan(&self, fault: Fault) {
        self.shared.lock().faults.push_back(fault);
    }

    /// What went over it so far.
    pub(super) fn traffic(&self) -> Traffic {
        self.shared.lock().traffic.clone()
    }

    /// Waits until an answer is being held back; `false` when that takes too long.
    pub(super) fn wait_until_held(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.traffic.held == 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        // Wakes the acceptor; if that fails, it ends with the process.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            // A panic on that thread was already reported there.
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request, answered or not.
    fn carry(&self, stream: &mut TcpStream) -> io::Result<()> {
        bound(stream)?;
        let request = Message::read(stream)?;
        let fault = if request.start().starts_with("POST /v1/push") {
            let mut state = self.lock();
            state.traffic.saw_push(&request.body);
            state.faults.pop_front()
        } else {
            None
        };
        if fault == Some(Fault::Busy) {
            self.lock().traffic.busy += 1;
            return busy(&request)?.write(stream);
        }
        let answer = exchange(self.server, request)?;
        match fault {
            None | Some(Fault::Busy) => {
                self.lock().traffic.saw_answer(&answer.body);
                answer.write(stream)
            }
            Some(Fault::LoseAnswer) => {
                self.lock().traffic.lost += 1;
                Ok(())
            }
            Some(Fault::HoldAnswer) => {
                self.hold();
                Ok(())
            }
        }
    }

    fn hold(&self) {
        let mut state = self.lock();
        state.traffic.held += 1;
        self.changed.notify_all();
        while !state.ended {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let (net, ended) = {
            let state = shared.lock();
            (state.net, state.ended)
        };
        if ended {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        if net == Net::Down {
            continue;
        }
        let shared = Arc::clone(shared);
        // A failure to carry a request is what the device sees of it: no answer.
        let carry = move || {
            let _ = shared.carry(&mut stream);
            let _ = stream.shutdown(Shutdown::Both);
        };
        let _ = std::thread::Builder::new().spawn(carry);
    }
}

/// 503 as the server gives it when it is overloaded, with the marks by which it is believed.
fn busy(request: &Message) -> io::Result<Message> {
    let problem = Problem::new(503, "overloaded", "The server is busy");
    let body = serde_json::to_vec(&problem)?;
    Ok(Message {
        head: vec![
            "HTTP/1.1 503 Service Unavailable".to_owned(),
            format!("content-type: {CONTENT_TYPE_PROBLEM}"),
            format!("content-length: {}", body.len()),
            format!("{HEADER_PROTOCOL}: {PROTOCOL_VERSION}"),
            format!(
                "{HEADER_REQUEST}: {}",
                request.header(HEADER_REQUEST).unwrap_or_default()
            ),
            "retry-after: 1".to_owned(),
            "connection: close".to_owned(),
        ],
        body,
    })
}
