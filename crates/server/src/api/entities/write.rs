//! Writes over REST: each becomes a push of one mutation, and its outcome an HTTP status.

use super::tag::{Tags, etag};
use super::{Resource, no_entity, path_of};
use crate::api::check_json;
use crate::api::push::{Incoming, push_one};
use crate::declared::IdAssignment;
use crate::problems::Refusal;
use crate::service::is_visible_ascii;
use crate::{EntityKey, Fingerprint, Identity, Now, Request, Response, Service, Storage};
use crate::{StorageError, json_scan};
use sha2::{Digest, Sha256};
use syncline_protocol::{
    Assign, Base, ClientId, Command, ConflictReason, EntityId, Epoch, Fields, IdempotencyKey,
    Operation, Outcome, ServerVersion,
};

const MERGE_PATCH: &str = "application/merge-patch+json";

pub(crate) fn write<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    resource: &Resource,
    now: Now,
) -> Result<Response, Refusal> {
    if !service.declared.knows(&resource.entity_type) {
        return Err(no_entity());
    }
    if let Some(id) = &resource.id
        && EntityId::parse(id.as_str()).is_err()
    {
        return Err(no_entity());
    }
    let incoming = incoming(service, identity, request, resource)?;
    let client = ClientId::new(format!("rest:{}", identity.principal.subject));
    let creates = incoming.op == Operation::Create;
    let (epoch, result) = push_one(service, identity, client, incoming, now)?;
    let mut response = match result.outcome {
        Outcome::Applied {
            version,
            fields,
            id,
            ..
        } => {
            let mut response = match &fields {
                None => Response::bare(204),
                Some(fields) => {
                    let body = serde_json::to_vec(fields).map_err(StorageError::internal)?;
                    let status = if creates { 201 } else { 200 };
                    Response::new(status, "application/json", body)
                }
            };
            if fields.is_some() {
                let tag = etag(&service.mint, &epoch, version.as_str());
                response.headers.add("etag", tag);
            }
            let id = id.map(String::from).or_else(|| resource.id.clone());
            if let (true, Some(id)) = (creates, id) {
                let location = path_of(&resource.entity_type, &id);
                response.headers.add("location", location);
            }
            response
        }
        other => refusal(other).into_response(),
    };
    if result.duplicate {
        response.headers.add("idempotency-replayed", "true");
    }
    Ok(response)
}

/// The request as a mutation.
fn incoming<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    resource: &Resource,
) -> Result<Incoming, Refusal> {
    let (if_match, if_none) = (
        Tags::of(&request.headers, "if-match"),
        Tags::of(&request.headers, "if-none-match"),
    );
    let method = request.method.as_str();
    let body = body(service, request)?;
    let mut incoming = Incoming::plain(&resource.entity_type, resource.id.as_deref());
    match (method, &resource.command) {
        ("POST", Some(name)) => {
            incoming.op = Operation::Update;
            incoming.command = Some(Command {
                name: name.clone(),
                args: body,
            });
        }
        ("POST", None) => {
            incoming.op = Operation::Create;
            incoming.assign = Some(Assign::Always);
            incoming.fields = body;
        }
        ("DELETE", _) => incoming.op = Operation::Delete,
        ("PUT", _) if if_none == Tags::Any && if_match == Tags::Absent => {
            if service.declared.id_assignment(&resource.entity_type) != IdAssignment::Client {
                let title = "The server chooses the ids of this type";
                let refusal = Refusal::new(422, "id-assignment", title);
                return Err(refusal.detail("POST to the collection instead"));
            }
            incoming.op = Operation::Create;
            incoming.fields = body;
        }
        _ => {
            incoming.op = Operation::Update;
            incoming.replace = method == "PUT";
            incoming.fields = body;
        }
    }
    let needs_base = incoming.op != Operation::Create && incoming.command.is_none();
    match (&if_match, &if_none) {
        (Tags::Absent, _) if needs_base => return Err(precondition_required(method)),
        (Tags::Absent, _) => {}
        (_, Tags::Absent) => incoming.base = Some(base(service, identity, resource, &if_match)?),
        _ => {
            return Err(Refusal::malformed(
                "If-Match and If-None-Match exclude each other",
            ));
        }
    }
    if let Some(key) = request.headers.get("idempotency-key") {
        if !is_visible_ascii(key, 64) {
            let detail = "an Idempotency-Key is 1 to 64 visible ASCII characters";
            return Err(Refusal::malformed(detail));
        }
        incoming.key = IdempotencyKey::from(key);
        incoming.keyed = true;
    }
    incoming.fingerprint = fingerprint(method, &if_match, &incoming)?;
    incoming.check(
        &service.config.limits,
        request.body.len(),
        &service.declared,
    );
    Ok(incoming)
}

fn body<S: Storage>(service: &Service<S>, request: &Request) -> Result<Fields, Refusal> {
    let limit = service.config.limits.push_bytes;
    if request.body.len() > limit {
        return Err(Refusal::body_too_large(limit));
    }
    match request.method.as_str() {
        "DELETE" => return Ok(Fields::new()),
        "PATCH" => check_json(request, MERGE_PATCH)?,
        _ => check_json(request, "application/json")?,
    }
    json_scan::scan(&request.body).map_err(|flaw| Refusal::malformed(flaw.to_string()))?;
    serde_json::from_slice(&request.body).map_err(|error| Refusal::unreadable(&error))
}

/// The version that a matching tag names; one that does not match holds for nothing.
fn base<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    resource: &Resource,
    if_match: &Tags,
) -> Result<Base, Refusal> {
    let key = EntityKey {
        tenant: &identity.principal.tenant,
        entity_type: &resource.entity_type,
        id: resource.id.as_deref().unwrap_or_default(),
    };
    let (epoch, entity) = service
        .storage
        .read(|tx| Ok((tx.epoch()?, tx.entity(key)?)))?;
    let version = entity.map(|entity| entity.version.to_string());
    let matching =
        version.filter(|version| if_match.matches(&etag(&service.mint, &epoch, version)));
    Ok(match matching {
        Some(version) => Base::Version {
            epoch,
            version: ServerVersion::new(version),
        },
        None => Base::Version {
            epoch: Epoch::from(""),
            version: ServerVersion::from(""),
        },
    })
}

/// What the key stands for: the request, not the state that it found.
fn fingerprint(
    method: &str,
    if_match: &Tags,
    incoming: &Incoming,
) -> Result<Fingerprint, StorageError> {
    let Incoming {
        entity_type,
        id,
        op,
        fields,
        command,
        ..
    } = incoming;
    let tags = if_match.text();
    let meaning = ("rest", method, entity_type, id, op, tags, fields, command);
    let json = serde_json::to_vec(&meaning).map_err(StorageError::internal)?;
    Ok(Sha256::digest(json).into())
}

fn precondition_required(method: &str) -> Refusal {
    let detail = match method {
        "PUT" => "send If-Match with the ETag that was read, or If-None-Match: * to create",
        _ => "send If-Match with the ETag that was read",
    };
    Refusal::new(428, "precondition-required", "A precondition is needed").detail(detail)
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Conflict { reason, .. } => match reason {
            ConflictReason::Missing => no_entity(),
            ConflictReason::Deleted => Refusal::new(409, "deleted", "The entity was deleted"),
            ConflictReason::Stale | ConflictReason::Exists => {
                Refusal::new(412, "precondition-failed", "The entity is another by now")
                    .detail("read it again, and send its ETag")
            }
        },
        Outcome::Rejected {
            code,
            detail,
            errors,
        } => {
            let status = match code.as_str() {
                "too-large" => 413,
                "referenced" => 409,
                "unknown-command" => 404,
                _ => 422,
            };
            let refusal = Refusal::new(status, &code, "The request is not accepted");
            refusal.detail(detail).errors(errors)
        }
        Outcome::Forbidden { .. } => Refusal::read_only(),
        Outcome::Cancelled => Refusal::new(409, "cancelled", "The key was cancelled"),
        Outcome::Expired => {
            Refusal::new(409, "expired", "The key is older than the server's memory")
        }
        Outcome::Applied { .. } | Outcome::Retry { .. } | Outcome::Skipped { .. } => {
            Refusal::overloaded(1)
        }
    }
}
