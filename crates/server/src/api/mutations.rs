//! `GET /v1/mutations/{key}`: what became of a mutation of the asking client.
//!
//! Keys live per (tenant, client); a client id that belongs to another principal is refused as it
//! is in a push, so nothing can be learnt about other people's keys.

use super::push::read_record;
use super::{check_client, json};
use crate::problems::Refusal;
use crate::service::is_visible_ascii;
use crate::{Identity, Request, Response, Service, Storage};
use percent_encoding::percent_decode_str;
use syncline_protocol::{ClientId, HEADER_CLIENT, IdempotencyKey, KeyOutcome, PushResult};

pub(crate) fn mutation<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    encoded_key: &str,
) -> Result<Response, Refusal> {
    let client = request
        .headers
        .get(HEADER_CLIENT)
        .ok_or_else(|| Refusal::malformed("the syncline-client header names whose key is meant"))?;
    let client = ClientId::from(client);
    check_client(&client)?;
    let key = percent_decode_str(encoded_key).decode_utf8();
    let key = key.ok().filter(|key| is_visible_ascii(key, 64));
    let key = key.ok_or_else(|| Refusal::malformed("a key is 1 to 64 visible ASCII characters"))?;
    let key = IdempotencyKey::new(key);

    let tenant = identity.principal.tenant.as_str();
    let (owner, record) = service.storage.read(|tx| {
        Ok((
            tx.client_subject(tenant, &client)?,
            tx.key_record(tenant, &client, &key)?,
        ))
    })?;
    if owner.is_some_and(|owner| owner != identity.principal.subject) {
        return Err(Refusal::client_mismatch());
    }
    let Some(record) = record else {
        return json(&KeyOutcome::Unknown);
    };
    let outcome = read_record(&record)?.outcome;
    json(&KeyOutcome::Final {
        result: PushResult {
            key,
            outcome,
            duplicate: true,
        },
    })
}
