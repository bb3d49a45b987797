//! The protocol without sockets: a request and a time go in, an answer comes out.
//!
//! Decides what every endpoint has in common (protocol version, who is asking, which path) and
//! leaves the rest to `api`. Never reads a clock, and answers the same for the same state.

use crate::api::entities::Resource;
use crate::auth::Verified;
use crate::cursor::CursorSeal;
use crate::declared::{Command, Declared};
use crate::hub::{Hub, LiveBounds, Subscription};
use crate::mint::Mint;
use crate::problems::Refusal;
use crate::{
    Authenticator, ConfigError, Headers, Identity, Now, Request, Response, ServerConfig, Storage,
    api,
};
use std::sync::Arc;
use syncline_protocol::{
    FieldError, Fields, HEADER_PROTOCOL, HEADER_REQUEST, HEADER_TRACE_PARENT,
    HEADER_TRACE_RESPONSE, PROTOCOL_VERSION, TraceParent,
};

/// The server's protocol over a storage.
#[derive(Debug)]
pub struct Service<S> {
    pub(crate) storage: S,
    pub(crate) config: ServerConfig,
    pub(crate) declared: Declared,
    pub(crate) seal: CursorSeal,
    pub(crate) mint: Mint,
    pub(crate) hub: Arc<Hub>,
    pub(crate) log_values: bool,
    authenticator: Authenticator,
}

/// The endpoints behind a verified caller.
enum Endpoint<'a> {
    Hello,
    Push,
    Pull,
    Digest,
    Live,
    Mutation { key: &'a str },
    Cancel { key: &'a str },
    ReadTypes,
    PutTypes,
    ReadEntities(Resource),
    WriteEntities(Resource),
}

impl<S: Storage> Service<S> {
    /// A service over a storage. Fails when a declared schema is not one.
    pub fn new(
        storage: S,
        authenticator: Authenticator,
        config: ServerConfig,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            declared: Declared::compile(&config.types)?,
            seal: CursorSeal::new(&storage.cursor_secret()),
            mint: Mint::new(&storage.cursor_secret()),
            hub: Arc::default(),
            log_values: false,
            storage,
            config,
            authenticator,
        })
    }

    /// Adds a command to an entity type: the entity's fields and the arguments come in, the new
    /// fields go out, or what is wrong. It must be pure, for it may run more than once; a create
    /// that carries a command gives it the fields that were sent. The type counts as declared.
    #[must_use]
    pub fn command(
        mut self,
        entity_type: &str,
        name: &str,
        handler: impl Fn(&Fields, &Fields) -> Result<Fields, Vec<FieldError>> + Send + Sync + 'static,
    ) -> Self {
        let command = Command::Handler(Box::new(handler));
        self.declared.add_command(entity_type, name, command);
        self
    }

    /// Whether log lines may show what is in rows: at level debug each mutation as it was received.
    /// The default is no.
    #[must_use]
    pub fn log_values(mut self, shown: bool) -> Self {
        self.log_values = shown;
        self
    }

    /// The storage below.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// The configuration.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Answers a request.
    pub fn handle(&self, request: &Request, now: Now) -> Response {
        let _entered = span(request).entered();
        let response = self
            .route(request, now)
            .unwrap_or_else(Refusal::into_response);
        log(request, response.status);
        mark(response, &request.headers)
    }

    /// Opens a live stream: the start of its answer, and what there will be to tell; or the refusal.
    pub(crate) fn listen(
        &self,
        request: &Request,
        bounds: LiveBounds,
        now: Now,
    ) -> Result<(Response, Subscription), Response> {
        let _entered = span(request).entered();
        let opened = self
            .admit(request, now)
            .and_then(|caller| api::live::listen(self, caller, request, bounds));
        let opened = opened.map_err(Refusal::into_response);
        log(
            request,
            opened
                .as_ref()
                .map_or_else(|refused| refused.status, |_| 200),
        );
        match opened {
            Ok(subscription) => Ok((mark(api::live::start(), &request.headers), subscription)),
            Err(refused) => Err(mark(refused, &request.headers)),
        }
    }

    /// The answer to a request that was not read to its end, in the protocol's form.
    pub(crate) fn refuse(&self, request: &Request, refusal: Refusal) -> Response {
        let _entered = span(request).entered();
        let response = refusal.into_response();
        log(request, response.status);
        mark(response, &request.headers)
    }

    fn route(&self, request: &Request, now: Now) -> Result<Response, Refusal> {
        if request.path == "/healthz" {
            allow(request, "GET")?;
            return Ok(api::health(&self.storage));
        }
        let endpoint = endpoint(request)?;
        let plain = matches!(
            endpoint,
            Endpoint::ReadEntities(_) | Endpoint::WriteEntities(_)
        );
        let caller = match plain {
            true => self.authenticate(request, now)?,
            false => self.admit(request, now)?,
        };
        self.run(&endpoint, &caller.identity, request, now)
    }

    /// Who speaks to us in our version of the protocol.
    fn admit(&self, request: &Request, now: Now) -> Result<Verified, Refusal> {
        match request.headers.get(HEADER_PROTOCOL) {
            Some(PROTOCOL_VERSION) => self.authenticate(request, now),
            version => Err(Refusal::unsupported_protocol(version)),
        }
    }

    fn authenticate(&self, request: &Request, now: Now) -> Result<Verified, Refusal> {
        let caller = self.authenticator.authenticate(&request.headers, now)?;
        let tenant = caller.identity.principal.tenant.as_str();
        tracing::Span::current().record("tenant", tenant);
        Ok(caller)
    }

    fn run(
        &self,
        endpoint: &Endpoint<'_>,
        identity: &Identity,
        request: &Request,
        now: Now,
    ) -> Result<Response, Refusal> {
        match endpoint {
            Endpoint::Hello => api::hello(self, identity, now),
            Endpoint::Push => api::push(self, identity, request, now),
            Endpoint::Pull => api::pull(self, identity, request, now),
            Endpoint::Digest => api::digest(self, identity, request),
            Endpoint::Live => api::live::look(self, identity, request),
            Endpoint::Mutation { key } => api::mutation(self, identity, request, key),
            Endpoint::Cancel { key } => api::cancel(self, identity, request, key, now),
            Endpoint::ReadTypes => api::read_types(self, identity),
            Endpoint::PutTypes => api::put_types(self, identity, request, now),
            Endpoint::ReadEntities(resource) => {
                api::entities::read(self, identity, request, resource)
            }
            Endpoint::WriteEntities(resource) => {
                api::entities::write(self, identity, request, resource, now)
            }
        }
    }
}

fn span(request: &Request) -> tracing::Span {
    let trace = trace(&request.headers);
    tracing::info_span!(
        "request",
        request = request_id(&request.headers),
        trace = trace.map(|trace| tracing::field::display(trace.trace_id())),
        parent = trace.map(|trace| tracing::field::display(trace.span_id())),
        tenant = tracing::field::Empty,
    )
}

fn log(request: &Request, status: u16) {
    tracing::info!(
        method = %request.method.escape_debug(),
        path = %request.path.escape_debug(),
        status,
        "answered"
    );
}

fn endpoint(request: &Request) -> Result<Endpoint<'_>, Refusal> {
    let segments: Vec<&str> = request.path.split('/').collect();
    let ["", "v1", rest @ ..] = segments.as_slice() else {
        return Err(Refusal::not_found());
    };
    let methods = match (request.method.as_str(), rest) {
        ("GET", ["hello"]) => return Ok(Endpoint::Hello),
        ("POST", ["push"]) => return Ok(Endpoint::Push),
        ("GET", ["pull"]) => return Ok(Endpoint::Pull),
        ("GET", ["digest"]) => return Ok(Endpoint::Digest),
        ("GET", ["live"]) => return Ok(Endpoint::Live),
        ("GET", ["types"]) => return Ok(Endpoint::ReadTypes),
        ("PUT", ["types"]) => return Ok(Endpoint::PutTypes),
        (_, ["mutations", "", ..]) => return Err(Refusal::not_found()),
        ("GET", ["mutations", key]) => return Ok(Endpoint::Mutation { key }),
        ("POST", ["mutations", key, "cancel"]) => return Ok(Endpoint::Cancel { key }),
        (_, ["hello" | "pull" | "digest" | "live"] | ["mutations", _]) => "GET",
        (_, ["push"] | ["mutations", _, "cancel"]) => "POST",
        (_, ["types"]) => "GET, PUT",
        (method, ["entities", entity_type]) => return entities(method, entity_type, None),
        (method, ["entities", entity_type, id]) => return entities(method, entity_type, Some(id)),
        _ => return Err(Refusal::not_found()),
    };
    Err(Refusal::method_not_allowed(methods))
}

/// One word for the endpoint that a request is for; there are few.
pub(crate) fn endpoint_word(request: &Request) -> &'static str {
    if request.path == "/healthz" {
        return "healthz";
    }
    match endpoint(request) {
        Ok(Endpoint::Hello) => "hello",
        Ok(Endpoint::Push) => "push",
        Ok(Endpoint::Pull) => "pull",
        Ok(Endpoint::Digest) => "digest",
        Ok(Endpoint::Live) => "live",
        Ok(Endpoint::Mutation { .. }) => "mutation",
        Ok(Endpoint::Cancel { .. }) => "cancel",
        Ok(Endpoint::ReadTypes | Endpoint::PutTypes) => "types",
        Ok(Endpoint::ReadEntities(_) | Endpoint::WriteEntities(_)) => "entities",
        Err(_) => "none",
    }
}

fn entities<'a>(
    method: &str,
    entity_type: &str,
    id: Option<&str>,
) -> Result<Endpoint<'a>, Refusal> {
    let resource = Resource::parse(entity_type, id, method).ok_or_else(Refusal::not_found)?;
    match (method, &resource.id, &resource.command) {
        ("GET", _, _) => Ok(Endpoint::ReadEntities(resource)),
        ("POST", None, _)
        | ("POST", Some(_), Some(_))
        | ("PUT" | "PATCH" | "DELETE", Some(_), _) => Ok(Endpoint::WriteEntities(resource)),
        (_, None, _) => Err(Refusal::method_not_allowed("GET, POST")),
        _ => Err(Refusal::method_not_allowed("GET, PUT, PATCH, DELETE")),
    }
}

fn allow(request: &Request, method: &str) -> Result<(), Refusal> {
    if request.method == method {
        return Ok(());
    }
    Err(Refusal::method_not_allowed(method))
}

/// Puts the protocol's marks on an answer, by which a client knows that it is one.
fn mark(mut response: Response, request: &Headers) -> Response {
    response.headers.add(HEADER_PROTOCOL, PROTOCOL_VERSION);
    if let Some(id) = request_id(request) {
        response.headers.add(HEADER_REQUEST, id);
    }
    if let Some(trace) = trace(request) {
        response
            .headers
            .add(HEADER_TRACE_RESPONSE, trace.to_string());
    }
    response
}

/// The trace that a request belongs to, if it names one.
pub(crate) fn trace(headers: &Headers) -> Option<TraceParent> {
    headers
        .get(HEADER_TRACE_PARENT)
        .and_then(TraceParent::parse)
}

pub(crate) fn request_id(headers: &Headers) -> Option<&str> {
    visible(headers.get(HEADER_REQUEST), 64)
}

fn visible(value: Option<&str>, max_bytes: usize) -> Option<&str> {
    value.filter(|text| is_visible_ascii(text, max_bytes))
}

/// 1 to `max_bytes` visible ASCII characters.
pub(crate) fn is_visible_ascii(text: &str, max_bytes: usize) -> bool {
    (1..=max_bytes).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
