//! `GET /v1/live`: server-sent events that say where the head of a scope's feed is.
//!
//! The first event tells the head as it is; each later one that somebody else moved it. A burst of
//! commits is one event, and what the listening device pushed itself is none. Who may pull a scope
//! may listen to it. The HTTP adapter keeps the stream open; asked without one, the endpoint tells
//! the head once.

use super::{check_client, default_scope};
use crate::auth::Verified;
use crate::hub::{Full, LiveBounds, Subscription};
use crate::problems::Refusal;
use crate::{Identity, Request, Response, Service, Storage};
use syncline_protocol::{CONTENT_TYPE_EVENTS, ClientId, EVENT_HEAD, HEADER_CLIENT, Head, Scope};

/// When whoever found no place may ask again, in seconds.
const FULL_RETRY_S: u32 = 60;

/// Begins to listen.
pub(crate) fn listen<S: Storage>(
    service: &Service<S>,
    caller: Verified,
    request: &Request,
    bounds: LiveBounds,
) -> Result<Subscription, Refusal> {
    let (scope, client) = read(request)?;
    let joined = service.hub.join(&caller.identity, scope, client, bounds);
    let mut subscription = joined.map_err(|full| match full {
        Full::Server => Refusal::overloaded(FULL_RETRY_S),
        Full::Principal => Refusal::too_many_streams(FULL_RETRY_S),
    })?;
    let head = head(service, &caller.identity, &subscription.head().scope)?;
    subscription.begin(head.epoch, head.position);
    subscription.until_ms = caller.until_ms;
    Ok(subscription)
}

/// The head as it is now, and nothing after it.
pub(crate) fn look<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
) -> Result<Response, Refusal> {
    let (scope, _) = read(request)?;
    let mut response = start();
    response.body = event(&head(service, identity, &scope)?).into_bytes();
    Ok(response)
}

/// The start of the answer, before any event.
pub(crate) fn start() -> Response {
    let mut response = Response::new(200, CONTENT_TYPE_EVENTS, Vec::new());
    // What nginx and its like must be told to pass on at once.
    response.headers.add("x-accel-buffering", "no");
    response
}

/// An event as it is sent.
pub(crate) fn event(head: &Head) -> String {
    // Two texts and a number can always be written.
    let data = serde_json::to_string(head).unwrap_or_default();
    format!("event: {EVENT_HEAD}\ndata: {data}\n\n")
}

/// Looks where the heads are that somebody listens to, and tells what other processes have moved.
pub(crate) fn look_around<S: Storage>(service: &Service<S>) -> Result<(), crate::StorageError> {
    let feeds = service.hub.feeds();
    if feeds.is_empty() {
        return Ok(());
    }
    let (epoch, heads) = service.storage.read(|tx| {
        let mut heads = Vec::with_capacity(feeds.len());
        for feed in &feeds {
            heads.push((feed.clone(), tx.head(&feed.0, &feed.1)?));
        }
        Ok((tx.epoch()?, heads))
    })?;
    service.hub.looked(&epoch, &heads);
    Ok(())
}

fn read(request: &Request) -> Result<(Scope, Option<ClientId>), Refusal> {
    let mut asked = form_urlencoded::parse(request.query.as_bytes())
        .filter_map(|(name, value)| (name == "scope").then_some(value));
    let scope = default_scope();
    if asked.next().is_some_and(|asked| asked != scope.as_str()) {
        return Err(Refusal::scope_forbidden());
    }
    if asked.next().is_some() {
        return Err(Refusal::malformed("scope stands twice in the query"));
    }
    let client = request.headers.get(HEADER_CLIENT).map(ClientId::new);
    if let Some(client) = &client {
        check_client(client)?;
    }
    Ok((scope, client))
}

fn head<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    scope: &Scope,
) -> Result<Head, Refusal> {
    let tenant = identity.principal.tenant.as_str();
    let (epoch, position) = service
        .storage
        .read(|tx| Ok((tx.epoch()?, tx.head(tenant, scope)?)))?;
    Ok(Head {
        scope: scope.clone(),
        epoch,
        position,
    })
}
