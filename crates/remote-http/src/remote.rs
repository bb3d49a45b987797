//! The remote itself: one request at a time from token to bucket, every wait bounded.

use crate::answer::{garbage, garbled, refusal};
use crate::body::{BodyFault, BodyReader};
use crate::builder::{Bounds, HttpRemoteBuilder, TraceContext};
use crate::followed::Followed;
use crate::marks;
use crate::page::PageReader;
use crate::request::{Request, RequestIds, new_trace};
use crate::retry_after::retry_after;
use crate::text::tame;
use crate::token::{Bearer, Credentials};
use crate::transport::{self, HttpRequest, HttpTransport};
use http::StatusCode;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;
use syncline_core::{
    AnswerFuture, Hear, ListenFuture, Page, Remote, RemoteAnswer, RemoteError, RemoteRequest,
};
use syncline_protocol::{ClientId, PushResponse, TraceParent, TypeDefinitions};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

/// Syncline's native protocol over HTTP/1.1 or HTTP/2. Needs a tokio runtime with time, and with I/O
/// unless the host brings a transport of its own ([`HttpRemoteBuilder::transport`]).
///
/// Requests may run side by side. The transport that comes along keeps connections and reuses them, and
/// uses proxies named by the environment (`HTTPS_PROXY` and its kin), except for this very machine.
pub struct HttpRemote {
    transport: Arc<dyn HttpTransport>,
    pub(crate) base: Url,
    credentials: Credentials,
    pub(crate) bounds: Bounds,
    ids: RequestIds,
    trace: TraceContext,
}

impl fmt::Debug for HttpRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRemote")
            .field("base", &self.base.as_str())
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl Remote for HttpRemote {
    fn send(&self, request: RemoteRequest) -> AnswerFuture<'_> {
        Box::pin(async move {
            match request {
                RemoteRequest::Hello { client } => {
                    let request = Request::hello(&self.base);
                    RemoteAnswer::Hello(self.ask(&client, request).await)
                }
                RemoteRequest::Push {
                    client,
                    batch,
                    token,
                } => {
                    let body = batch.push_body(&client, token.as_ref());
                    let followed = Followed::of(batch, self.bounds.log_values);
                    let request = Request::push(&self.base, body, &self.bounds);
                    RemoteAnswer::Push(self.push(&client, request, &followed).await)
                }
                RemoteRequest::Cancel { client, key } => {
                    let request = Request::cancel(&self.base, &key);
                    RemoteAnswer::Cancel(self.ask(&client, request).await)
                }
                RemoteRequest::Register { client, types } => {
                    let request = Request::register(&self.base, &types);
                    let answer = self.ask::<IgnoredAny>(&client, request).await;
                    RemoteAnswer::Register(answer.map(|_| ()))
                }
                RemoteRequest::Fetch {
                    client,
                    scope,
                    wanted,
                } => RemoteAnswer::Fetch(self.fetch(&client, &scope, &wanted).await),
                RemoteRequest::Pull {
                    client,
                    scope,
                    cursor,
                    limit,
                    bytes,
                } => {
                    let cursor = cursor.as_deref();
                    let request = Request::pull(&self.base, &scope, cursor, limit, bytes);
                    RemoteAnswer::Pull(self.pull(&client, request, limit).await)
                }
            }
        })
    }

    fn refresh_credentials(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move {
            let renewed = timeout(self.bounds.request_timeout, self.credentials.renew()).await;
            let result = renewed
                .unwrap_or_else(|_| Err("the token's source did not answer in time".to_owned()))
                .map_err(|reason| tame(&reason));
            tracing::debug!(renewed = result.is_ok(), "credentials renewed");
            result
        })
    }

    fn listen(&self, client: ClientId, hear: Hear) -> ListenFuture<'_> {
        Box::pin(self.live(client, hear))
    }
}

impl HttpRemote {
    /// Sets up a remote at this address, which may have a path: `https://host[:port][/path]`.
    pub fn builder(base_url: impl Into<String>) -> HttpRemoteBuilder {
        HttpRemoteBuilder::new(base_url)
    }

    /// What the synced tables look like, as devices that attached them have told the server.
    pub async fn types(&self, client: &ClientId) -> Result<TypeDefinitions, RemoteError> {
        self.ask(client, Request::types(&self.base)).await
    }

    pub(crate) fn new(
        transport: Arc<dyn HttpTransport>,
        base: Url,
        credentials: Credentials,
        bounds: Bounds,
        trace: TraceContext,
    ) -> Self {
        Self {
            transport,
            base,
            credentials,
            bounds,
            ids: RequestIds::new(),
            trace,
        }
    }

    /// Sends a request whose answer is one JSON document.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        client: &ClientId,
        request: Request,
    ) -> Result<T, RemoteError> {
        Ok(self.ask_counted(client, request).await?.0)
    }

    /// The same, and how many bytes the answer had.
    pub(crate) async fn ask_counted<T: DeserializeOwned>(
        &self,
        client: &ClientId,
        request: Request,
    ) -> Result<(T, u64), RemoteError> {
        let call = self.begin(&request);
        self.exchange(call, client, request).await
    }

    /// The same, and says of each mutation that it was sent and what was answered.
    async fn push(
        &self,
        client: &ClientId,
        request: Request,
        followed: &Followed,
    ) -> Result<PushResponse, RemoteError> {
        let call = self.begin(&request);
        let (id, span) = (call.id.clone(), call.span.clone());
        span.in_scope(|| followed.sent(client, &id, call.trace.trace_id()));
        let answer = self.exchange(call, client, request).await;
        let answer = answer.map(|(answer, _)| answer);
        span.in_scope(|| match &answer {
            Ok(response) => followed.answered(&id, response),
            Err(error) => followed.not_answered(&id, error.word()),
        });
        answer
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        mut call: Call,
        client: &ClientId,
        request: Request,
    ) -> Result<(T, u64), RemoteError> {
        let result = async {
            let mut body = self.open(&mut call, client, request).await?;
            let bytes = body.rest().await.map_err(|fault| call.fault(fault))?;
            let answer = serde_json::from_slice(&bytes)
                .map_err(|error| garbled(call.status, "the answer", &error))?;
            Ok((answer, bytes.len() as u64))
        }
        .await;
        self.end(call, result).await
    }

    /// Sends a pull, whose answer is read as it arrives.
    async fn pull(
        &self,
        client: &ClientId,
        request: Request,
        limit: usize,
    ) -> Result<Page, RemoteError> {
        let mut call = self.begin(&request);
        let result = async {
            let mut body = self.open(&mut call, client, request).await?;
            let mut reader = PageReader::new(limit);
            loop {
                let more = body.next(reader.buffer()).await;
                let more = more.map_err(|fault| call.fault(fault))?;
                let page = match more {
                    true => reader.advance(),
                    false => return reader.finish().map_err(|why| garbage(call.status, why)),
                };
                if let Some(page) = page.map_err(|why| garbage(call.status, why))? {
                    body.drain().await;
                    return Ok(page);
                }
            }
        }
        .await;
        self.end(call, result).await
    }

    pub(crate) fn begin(&self, request: &Request) -> Call {
        let trace = self.trace.current().unwrap_or_else(new_trace);
        let (method, path) = (request.method.clone(), request.url.path().to_owned());
        Call {
            id: self.ids.next(),
            span: tracing::debug_span!(
                "exchange",
                %method,
                path,
                trace = %trace.trace_id(),
                span = %trace.span_id()
            ),
            trace,
            method,
            path,
            started: Instant::now(),
            deadline: Instant::now() + self.bounds.request_timeout,
            bearer: None,
            status: 0,
        }
    }

    /// Sends the request and returns the body of its answer, if that is a believed success.
    pub(crate) async fn open(
        &self,
        call: &mut Call,
        client: &ClientId,
        request: Request,
    ) -> Result<BodyReader, RemoteError> {
        call.bearer = match timeout_at(call.deadline, self.credentials.current()).await {
            Ok(bearer) => bearer.map_err(|detail| RemoteError::Auth { detail })?,
            Err(_) => {
                let detail = "the token's source did not answer in time".to_owned();
                return Err(RemoteError::Auth { detail });
            }
        };
        let authorization = call.bearer.as_ref().map(Bearer::header);
        let headers = request.headers(client, (&call.id, &call.trace), authorization);
        let headers = headers.map_err(|detail| RemoteError::Misconfigured { status: 0, detail })?;
        let mut head_by = call.deadline;
        if request.body.is_none() {
            head_by = head_by.min(Instant::now() + self.bounds.progress_timeout);
        }
        crate::meter::sent(request.body.as_ref().map_or(0, |body| body.bytes.len()));
        let sending = self.transport.send(HttpRequest {
            method: request.method.as_str().to_owned(),
            url: request.url.as_str().to_owned(),
            headers: transport::plain(&headers),
            body: request.body.map(|body| body.bytes),
        });
        let unreachable = |detail| RemoteError::Unreachable { detail };
        let response = timeout_at(head_by, sending)
            .await
            .map_err(|_| unreachable("the server did not answer in time".to_owned()))?
            .map_err(|fault| unreachable(tame(&fault.to_string())))?;
        call.status = response.status;
        let status = StatusCode::from_u16(response.status)
            .map_err(|_| unreachable(format!("{} is no status", response.status)))?;
        let (headers, url) = (transport::parsed(response.headers), &request.url);
        marks::check(status, &headers, &call.id, request.expects, url).map_err(|detail| {
            match status {
                // Some web server answers, but it has no such service: the address is wrong.
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                    RemoteError::Misconfigured {
                        status: status.as_u16(),
                        detail,
                    }
                }
                _ => unreachable(detail),
            }
        })?;
        let wait = retry_after(&headers, SystemTime::now());
        let (bounds, deadline) = (&self.bounds, call.deadline);
        let (progress, most) = (bounds.progress_timeout, bounds.max_response_bytes);
        let body = BodyReader::new(response.body, deadline, progress, most);
        match status.is_success() {
            true => Ok(body),
            false => Err(refusal(status, wait, body).await),
        }
    }

    /// Logs the call, notes a refused token, and takes the token out of what was said.
    pub(crate) async fn end<T>(
        &self,
        call: Call,
        result: Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let result = result.map_err(|error| call.redact(error));
        if let (Err(RemoteError::Auth { .. }), 401, Some(bearer)) =
            (&result, call.status, &call.bearer)
        {
            self.credentials.refuse(bearer).await;
        }
        call.log(result.as_ref().err());
        result
    }
}

/// One request under way.
pub(crate) struct Call {
    id: String,
    trace: TraceParent,
    span: tracing::Span,
    method: http::Method,
    path: String,
    started: Instant,
    deadline: Instant,
    bearer: Option<Bearer>,
    /// The status of the answer; 0 until there is one.
    pub(crate) status: u16,
}

impl Call {
    pub(crate) fn fault(&self, fault: BodyFault) -> RemoteError {
        fault.into_error(self.status)
    }

    /// One line a request. What the server said is left out, since it may quote a row.
    fn log(&self, error: Option<&RemoteError>) {
        let unreachable = match error {
            Some(RemoteError::Unreachable { detail }) => Some(detail.as_str()),
            _ => None,
        };
        let _entered = self.span.enter();
        tracing::debug!(
            request = %self.id,
            trace = %self.trace.trace_id(),
            method = %self.method,
            path = %self.path,
            status = self.status,
            elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            outcome = error.map_or("ok", RemoteError::word),
            unreachable,
            "request"
        );
    }

    fn redact(&self, mut error: RemoteError) -> RemoteError {
        use RemoteError as E;
        let Some(bearer) = &self.bearer else {
            return error;
        };
        match &mut error {
            E::Unreachable { detail }
            | E::Transient { detail, .. }
            | E::Auth { detail }
            | E::TooLarge { detail }
            | E::CursorGone { detail }
            | E::Incompatible { detail }
            | E::Misconfigured { detail, .. } => *detail = bearer.redact(detail),
            _ => {}
        }
        error
    }
}
