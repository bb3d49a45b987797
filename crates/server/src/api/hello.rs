//! `GET /v1/hello`: who is asking, who answers, and within which limits.

use super::{default_scope, json};
use crate::problems::Refusal;
use crate::{Identity, Now, Response, Service, Storage};
use syncline_protocol::{Grant, Hello, PROTOCOL_VERSION};

pub(crate) fn hello<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    now: Now,
) -> Result<Response, Refusal> {
    let scope = default_scope();
    let tenant = &identity.principal.tenant;
    let (epoch, horizon) = service
        .storage
        .read(|tx| Ok((tx.epoch()?, tx.horizon(tenant, &scope)?)))?;
    json(&Hello {
        protocol_versions: vec![PROTOCOL_VERSION.to_owned()],
        server: concat!("syncline-server/", env!("CARGO_PKG_VERSION")).to_owned(),
        epoch,
        server_time_ms: now.unix_ms,
        principal: identity.principal.clone(),
        scopes: vec![Grant {
            scope,
            access: identity.access,
            horizon,
        }],
        limits: service.config.limits,
        key_retention_ms: service.config.key_retention_ms,
    })
}
