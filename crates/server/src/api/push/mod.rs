//! `POST /v1/push`: an ordered batch of mutations, in one transaction.
//!
//! ```text
//!  parse ──> transaction: bind the client, exchange its token                      (exchange)
//!             per mutation: claim the key or replay ─> authorize ─> validate ─> choose the id
//!                           ─> precondition ─> new fields ─> unique and references
//!                           ─> planned effect, in memory
//!                                 (batch, keys, assign, rules, evolve, constraints)
//!             take the positions ─> write the rows ─> record the outcomes            (commit, record)
//! ```
//!
//! The key comes before every check: a success that is sent again is repeated, even if its
//! precondition would no longer hold. An effect is planned over the storage and written only when
//! the whole batch has been decided, so the head of the feed is locked last and a mutation that is
//! not applied leaves nothing behind.

mod assign;
mod batch;
mod commit;
mod constraints;
mod evolve;
mod exchange;
mod keys;
mod parse;
mod record;
mod rules;
mod validate;

pub(super) use keys::is_forgotten;
pub(super) use parse::Incoming;
pub(super) use record::{read_record, write_record};

use super::{check_client, check_content_type, default_scope, json};
use crate::hub::Move;
use crate::problems::Refusal;
use crate::{Identity, Now, Request, Response, Service, Storage};
use batch::{Batch, Caller, Verdict};
use parse::Incomings;
use std::collections::BTreeMap;
use syncline_protocol::{ClientId, Epoch, HEADER_CLIENT, Outcome, PushResponse, PushResult};

pub(crate) fn push<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    now: Now,
) -> Result<Response, Refusal> {
    check_content_type(request)?;
    let limits = &service.config.limits;
    if request.body.len() > limits.push_bytes {
        return Err(Refusal::body_too_large(limits.push_bytes));
    }
    let push = parse::parse(&request.body, limits, &service.declared)?;
    check_client(&push.client)?;
    if let Some(header) = request.headers.get(HEADER_CLIENT)
        && header != push.client.as_str()
    {
        return Err(Refusal::malformed("header and body name different clients"));
    }
    json(&run(service, identity, &push, now)?)
}

/// A single mutation that did not come in a push, by the same rules.
pub(super) fn push_one<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    client: ClientId,
    incoming: Incoming,
    now: Now,
) -> Result<(Epoch, PushResult), Refusal> {
    let push = Incomings {
        client,
        mutations: vec![incoming],
        inherited: BTreeMap::new(),
        token: None,
        exchanges: false,
    };
    let PushResponse { epoch, results, .. } = run(service, identity, &push, now)?;
    let result = results.into_iter().next();
    Ok((epoch, result.ok_or_else(Refusal::internal)?))
}

fn run<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    push: &Incomings,
    now: Now,
) -> Result<PushResponse, Refusal> {
    let caller = Caller {
        identity,
        scope: default_scope(),
        now_ms: now.unix_ms,
        declared: &service.declared,
        mint: &service.mint,
    };
    trail::received(push, service.log_values);
    let verdict = service.storage.write(|tx| {
        let verdict = Batch::new(tx, &caller, push).run()?;
        if let Verdict::Decided(response) = &verdict {
            trail::decided(push, response);
        }
        Ok(verdict)
    })?;
    match verdict {
        Verdict::ClientMismatch => Err(Refusal::client_mismatch()),
        Verdict::Forked => Err(Refusal::client_forked()),
        Verdict::Decided(response) => {
            trail::committed(push, &response);
            crate::meter::pushed(&response);
            tell_listeners(service, &caller, push, &response);
            Ok(response)
        }
    }
}

/// The head was moved by what took effect just now; the positions of a batch have no gap.
fn tell_listeners<S: Storage>(
    service: &Service<S>,
    caller: &Caller<'_>,
    push: &Incomings,
    response: &PushResponse,
) {
    let fresh = response.results.iter().filter(|result| !result.duplicate);
    let positions = || {
        fresh.clone().filter_map(|result| match result.outcome {
            Outcome::Applied { position, .. } => Some(position),
            _ => None,
        })
    };
    if let (Some(first), Some(last)) = (positions().min(), positions().max()) {
        service.hub.moved(&Move {
            tenant: caller.tenant(),
            scope: &caller.scope,
            epoch: &response.epoch,
            from: first - 1,
            to: last,
            by: Some(&push.client),
        });
    }
}

/// The way of each mutation, for whoever follows one by its id.
mod trail {
    use super::parse::Incomings;
    use syncline_protocol::{Fields, Outcome, PushResponse};

    pub(super) fn received(push: &Incomings, log_values: bool) {
        for one in &push.mutations {
            let values = log_values.then(|| json(&one.fields)).flatten();
            tracing::debug!(
                mutation = %one.mutation,
                key = %one.key,
                client = %push.client,
                entity_type = %one.entity_type.escape_debug(),
                entity_id = %one.id.escape_debug(),
                op = ?one.op,
                values,
                "received"
            );
        }
    }

    fn json(fields: &Fields) -> Option<String> {
        serde_json::to_string(fields).ok()
    }

    /// Still within the transaction, which may yet fail.
    pub(super) fn decided(push: &Incomings, response: &PushResponse) {
        for (one, result) in push.mutations.iter().zip(&response.results) {
            tracing::debug!(
                mutation = %one.mutation,
                key = %one.key,
                outcome = result.outcome.word(),
                duplicate = result.duplicate,
                "decided"
            );
        }
    }

    /// What is remembered from now on, however often it is asked again.
    pub(super) fn committed(push: &Incomings, response: &PushResponse) {
        for (one, result) in push.mutations.iter().zip(&response.results) {
            if !result.outcome.is_final() || result.duplicate {
                continue;
            }
            let position = match result.outcome {
                Outcome::Applied { position, .. } => Some(position),
                _ => None,
            };
            tracing::debug!(
                mutation = %one.mutation,
                key = %one.key,
                outcome = result.outcome.word(),
                position,
                "committed"
            );
        }
    }
}
