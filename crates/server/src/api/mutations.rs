//! `GET /v1/mutations/{key}` and `POST /v1/mutations/{key}/cancel`: what became of a mutation of
//! the asking client, and making sure that it never takes effect.
//!
//! Keys live per (tenant, client); a client id that belongs to another principal is refused as it
//! is in a push, so nothing can be learnt about other people's keys.

use super::push::{is_forgotten, read_record, write_record};
use super::{check_client, json};
use crate::problems::Refusal;
use crate::service::is_visible_ascii;
use crate::{Identity, KeyRecord, Now, Request, Response, Service, Storage, StorageError};
use percent_encoding::percent_decode_str;
use syncline_protocol::{ClientId, HEADER_CLIENT, IdempotencyKey, KeyOutcome, Outcome, PushResult};

pub(crate) fn mutation<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    encoded_key: &str,
) -> Result<Response, Refusal> {
    let (client, key) = name(request, encoded_key)?;
    let tenant = identity.principal.tenant.as_str();
    let (owner, record, forgotten) = service.storage.read(|tx| {
        Ok((
            tx.client_subject(tenant, &client)?,
            tx.key_record(tenant, &client, &key)?,
            is_forgotten(tx, tenant, &client, &key)?,
        ))
    })?;
    if owner.is_some_and(|owner| owner != identity.principal.subject) {
        return Err(Refusal::client_mismatch());
    }
    match record {
        None if forgotten => json(&fresh(key, Outcome::Expired)),
        None => json(&KeyOutcome::Unknown),
        Some(record) => json(&repeated(key, &record)?),
    }
}

/// Known: its final result. Forgotten: expired. Unknown: recorded as cancelled, whatever is sent under it later.
pub(crate) fn cancel<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    encoded_key: &str,
    now: Now,
) -> Result<Response, Refusal> {
    let (client, key) = name(request, encoded_key)?;
    let principal = &identity.principal;
    let tenant = principal.tenant.as_str();
    let answer = service.storage.write(|tx| {
        let bound = tx.bind_client(tenant, &client, &principal.subject, now.unix_ms)?;
        if bound != principal.subject {
            return Ok(None);
        }
        if let Some(record) = tx.claim_key(tenant, &client, &key)? {
            return repeated(key.clone(), &record).map(Some);
        }
        if is_forgotten(tx, tenant, &client, &key)? {
            return Ok(Some(fresh(key.clone(), Outcome::Expired)));
        }
        let record = KeyRecord {
            fingerprint: None,
            outcome: write_record("", "", &Outcome::Cancelled)?,
        };
        tx.record_outcome(tenant, &client, &key, &record, now.unix_ms)?;
        Ok(Some(fresh(key.clone(), Outcome::Cancelled)))
    })?;
    json(&answer.ok_or_else(Refusal::client_mismatch)?)
}

/// Whose key is meant, and which.
fn name(request: &Request, encoded_key: &str) -> Result<(ClientId, IdempotencyKey), Refusal> {
    let client = request
        .headers
        .get(HEADER_CLIENT)
        .ok_or_else(|| Refusal::malformed("the syncline-client header names whose key is meant"))?;
    let client = ClientId::from(client);
    check_client(&client)?;
    let key = percent_decode_str(encoded_key).decode_utf8();
    let key = key.ok().filter(|key| is_visible_ascii(key, 64));
    let key = key.ok_or_else(|| Refusal::malformed("a key is 1 to 64 visible ASCII characters"))?;
    Ok((client, IdempotencyKey::new(key)))
}

fn fresh(key: IdempotencyKey, outcome: Outcome) -> KeyOutcome {
    let result = PushResult {
        key,
        outcome,
        duplicate: false,
    };
    KeyOutcome::Final { result }
}

fn repeated(key: IdempotencyKey, record: &KeyRecord) -> Result<KeyOutcome, StorageError> {
    Ok(KeyOutcome::Final {
        result: PushResult {
            key,
            outcome: read_record(record)?.outcome,
            duplicate: true,
        },
    })
}
