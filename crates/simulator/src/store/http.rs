//! Requests of the engine as requests of the protocol, and answers of the protocol as answers to the
//! engine: the real client, over a transport that has no sockets. It is asked twice for each exchange, once for what it
//! sends and once for what it makes of what came back, since time passes in between.

use std::cell::OnceCell;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use syncline_core::{Remote, RemoteAnswer, RemoteError, RemoteRequest};
use syncline_protocol::{HEADER_REQUEST, TraceParent};
use syncline_remote_http::{
    HttpBody, HttpFault, HttpFuture, HttpRemote, HttpRequest, HttpResponse, HttpTransport,
    TokenSource,
};
use syncline_server::{Request, Response};
use tokio::runtime::{Builder, Runtime};

const SERVER: &str = "http://127.0.0.1";

/// A request as it goes over the wire, under this request id.
pub(crate) fn request(request: &RemoteRequest, id: u64, token: &str) -> Request {
    exchange(request, id, token, None).0
}

/// What a client makes of an answer to its request of this id.
pub(crate) fn read(request: &RemoteRequest, id: u64, response: &Response) -> RemoteAnswer {
    exchange(request, id, "-", Some(response)).1
}

/// What the client sends, and what it makes of this answer; without one the connection is lost.
fn exchange(
    request: &RemoteRequest,
    id: u64,
    token: &str,
    response: Option<&Response>,
) -> (Request, RemoteAnswer) {
    let wire = Arc::new(Wire {
        id: id.to_string(),
        response: Mutex::new(response.cloned()),
        sent: Mutex::default(),
    });
    let remote = HttpRemote::builder(SERVER)
        .token(TokenSource::Static(token.to_owned()))
        .compress_above(usize::MAX)
        .trace_context(|| TraceParent::new(1, 1, true))
        .transport(Arc::clone(&wire) as Arc<dyn HttpTransport>)
        .build();
    let answer = match remote {
        Ok(remote) => on_this_thread(|runtime| runtime.block_on(remote.send(request.clone()))),
        Err(error) => panic!("the client cannot be set up: {error}"),
    };
    let sent = mem::take(&mut *wire.sent.lock().unwrap_or_else(PoisonError::into_inner));
    (sent, answer)
}

/// Nothing ever waits on it; the client wants one for its time-outs.
fn on_this_thread<T>(with: impl FnOnce(&Runtime) -> T) -> T {
    thread_local!(static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() });
    RUNTIME.with(|runtime| {
        with(runtime.get_or_init(|| {
            let made = Builder::new_current_thread().enable_time().build();
            made.unwrap_or_else(|error| panic!("no runtime: {error}"))
        }))
    })
}

/// Carries one request away and one answer back. The client makes ids of its own, in whose place the wire knows
/// another, so that a seed always plays alike.
struct Wire {
    id: String,
    response: Mutex<Option<Response>>,
    sent: Mutex<Request>,
}

impl HttpTransport for Wire {
    fn send(&self, request: HttpRequest) -> HttpFuture<'_, HttpResponse> {
        let target = request.url.strip_prefix(SERVER).unwrap_or_default();
        let mut sent = Request::new(&request.method, target);
        let mut own_id = String::new();
        for (name, value) in request.headers {
            match name == HEADER_REQUEST {
                true => {
                    sent = sent.header(&name, &self.id);
                    own_id = value;
                }
                false => sent = sent.header(&name, value),
            }
        }
        sent.body = request.body.unwrap_or_default();
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = sent;
        let response = self
            .response
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let answer = response.ok_or_else(|| HttpFault::Lost("lost".to_owned()));
        let answer = answer.map(|response| self.answer(response, &own_id));
        Box::pin(async move { answer })
    }
}

impl Wire {
    fn answer(&self, response: Response, own_id: &str) -> HttpResponse {
        let headers = response.headers.iter().map(|(name, value)| {
            let is_echo = name == HEADER_REQUEST && value == self.id;
            let value = if is_echo { own_id } else { value };
            (name.to_owned(), value.to_owned())
        });
        HttpResponse {
            status: response.status,
            headers: headers.collect(),
            body: Box::new(InPieces {
                piece: 64 + response.body.len() % 1021,
                rest: response.body,
            }),
        }
    }
}

/// A body that comes in pieces, which end wherever they do.
struct InPieces {
    rest: Vec<u8>,
    piece: usize,
}

impl HttpBody for InPieces {
    fn next<'a>(&'a mut self, into: &'a mut Vec<u8>) -> HttpFuture<'a, bool> {
        let piece = self.rest.len().min(self.piece);
        into.extend(self.rest.drain(..piece));
        Box::pin(async move { Ok(piece > 0) })
    }
}

/// The kind of a request, for the report.
pub(crate) fn kind(request: &RemoteRequest) -> &'static str {
    match request {
        RemoteRequest::Hello { .. } => "hello",
        RemoteRequest::Push { .. } => "push",
        RemoteRequest::Cancel { .. } => "cancel",
        RemoteRequest::Register { .. } => "register",
        RemoteRequest::Fetch { .. } => "fetch",
        RemoteRequest::Pull { .. } => "pull",
    }
}

/// An answer without a result, of the kind of the request.
pub(crate) fn failure(request: &RemoteRequest, error: RemoteError) -> RemoteAnswer {
    match request {
        RemoteRequest::Hello { .. } => RemoteAnswer::Hello(Err(error)),
        RemoteRequest::Push { .. } => RemoteAnswer::Push(Err(error)),
        RemoteRequest::Cancel { .. } => RemoteAnswer::Cancel(Err(error)),
        RemoteRequest::Register { .. } => RemoteAnswer::Register(Err(error)),
        RemoteRequest::Fetch { .. } => RemoteAnswer::Fetch(Err(error)),
        RemoteRequest::Pull { .. } => RemoteAnswer::Pull(Err(error)),
    }
}

/// Whether an answer has no result.
pub(crate) fn is_error(answer: &RemoteAnswer) -> bool {
    matches!(
        answer,
        RemoteAnswer::Hello(Err(_))
            | RemoteAnswer::Push(Err(_))
            | RemoteAnswer::Cancel(Err(_))
            | RemoteAnswer::Register(Err(_))
            | RemoteAnswer::Fetch(Err(_))
            | RemoteAnswer::Pull(Err(_))
    )
}
