//! `/v1/entities/…`: plain REST over the same entities, for everyone who is no Syncline client.
//!
//! A write becomes a push of one mutation in the key space of the subject, and goes the push's way:
//! there is one place that decides. An entity of someone else and one that does not exist are answered
//! the same. Needs no protocol header.

mod tag;
mod write;

pub(crate) use write::write;

use super::default_scope;
use crate::problems::Refusal;
use crate::{EntityKey, Identity, Request, Response, Service, Storage};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use serde_json::value::RawValue;
use std::ops::ControlFlow;
use tag::Tags;

const DEFAULT_LIMIT: usize = 100;
/// What stands in a path or query as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a path below `/v1/entities` names, percent-decoded.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) entity_type: String,
    pub(crate) id: Option<String>,
    pub(crate) command: Option<String>,
}

impl Resource {
    /// The last colon of a POST's last segment begins the command.
    pub(crate) fn parse(entity_type: &str, rest: Option<&str>, method: &str) -> Option<Self> {
        let (id, command) = match (rest, method) {
            (Some(rest), "POST") => match rest.rsplit_once(':') {
                Some((id, command)) => (Some(id), Some(command)),
                None => (Some(rest), None),
            },
            (rest, _) => (rest, None),
        };
        Some(Self {
            entity_type: decode(entity_type)?,
            id: match id {
                Some(id) => Some(decode(id)?),
                None => None,
            },
            command: match command {
                Some(command) => Some(decode(command)?),
                None => None,
            },
        })
    }
}

fn decode(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

fn path_of(entity_type: &str, id: &str) -> String {
    format!("/v1/entities/{}/{}", encode(entity_type), encode(id))
}

#[derive(Serialize)]
struct Listing {
    items: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Item {
    id: String,
    etag: String,
    fields: Box<RawValue>,
}

pub(crate) fn read<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    resource: &Resource,
) -> Result<Response, Refusal> {
    match &resource.id {
        None => list(service, identity, request, &resource.entity_type),
        Some(id) => one(service, identity, request, &resource.entity_type, id),
    }
}

fn one<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    entity_type: &str,
    id: &str,
) -> Result<Response, Refusal> {
    let key = EntityKey {
        tenant: &identity.principal.tenant,
        entity_type,
        id,
    };
    let (epoch, entity) = service
        .storage
        .read(|tx| Ok((tx.epoch()?, tx.entity(key)?)))?;
    let Some((version, fields)) = entity.and_then(|one| Some((one.version, one.fields?))) else {
        return Err(no_entity());
    };
    let etag = tag::etag(&service.mint, &epoch, &version.to_string());
    let unchanged = Tags::of(&request.headers, "if-none-match").matches_weakly(&etag);
    let mut response = match unchanged {
        true => Response::bare(304),
        false => Response::new(200, "application/json", fields.into_bytes()),
    };
    response.headers.add("etag", etag);
    Ok(response)
}

fn list<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    entity_type: &str,
) -> Result<Response, Refusal> {
    if !service.declared.knows(entity_type) {
        return Err(no_entity());
    }
    let (limit, after) = parse_query(&request.query)?;
    let limit = limit.min(service.config.limits.page_changes);
    let mut rows = Vec::new();
    let epoch = service.storage.read(|tx| {
        rows.clear();
        tx.snapshot(
            &identity.principal.tenant,
            &default_scope(),
            Some((entity_type, &after)),
            limit.saturating_add(1),
            &mut |row| {
                if row.entity_type != entity_type {
                    return ControlFlow::Break(());
                }
                let fields = row.fields.unwrap_or_default().to_owned();
                rows.push((row.id.to_owned(), row.version, fields));
                ControlFlow::Continue(())
            },
        )?;
        tx.epoch()
    })?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|(id, _, _)| {
        let (entity_type, id) = (encode(entity_type), encode(id));
        format!("/v1/entities/{entity_type}?limit={limit}&after={id}")
    });
    let items = rows.into_iter().map(|(id, version, fields)| {
        Ok(Item {
            id,
            etag: tag::etag(&service.mint, &epoch, &version.to_string()),
            fields: RawValue::from_string(fields).map_err(crate::StorageError::internal)?,
        })
    });
    let items = items.collect::<Result<_, Refusal>>()?;
    let link = next.as_ref().map(|next| format!("<{next}>; rel=\"next\""));
    let mut response = super::json(&Listing { items, next })?;
    if let Some(link) = link {
        response.headers.add("link", link);
    }
    Ok(response)
}

fn parse_query(text: &str) -> Result<(usize, String), Refusal> {
    let (mut limit, mut after) = (DEFAULT_LIMIT, String::new());
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match name.as_ref() {
            "limit" => {
                let number = value.parse().ok().filter(|number| *number > 0);
                limit = number
                    .ok_or_else(|| Refusal::malformed("limit is a number of entities from 1 on"))?;
            }
            "after" => after = value.into_owned(),
            _ => {}
        }
    }
    Ok((limit, after))
}

/// The same whether it never was, is deleted, or belongs to another tenant.
fn no_entity() -> Refusal {
    Refusal::new(404, "no-entity", "There is no such entity")
}
