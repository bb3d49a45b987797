//! Reads the body of a push.
//!
//! What cannot be read at all makes the whole request malformed; a mutation that can be read but
//! never accepted carries its rejection along, to be told only after its key has been looked up.

use super::validate;
use crate::Fingerprint;
use crate::api::check_client;
use crate::declared::Declared;
use crate::json_scan;
use crate::problems::{Refusal, json_fault};
use crate::service::is_visible_ascii;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{
    Assign, Base, ClientId, Command, ExchangeToken, Fields, IdempotencyKey, Limits, MutationId,
    Operation, Outcome,
};

/// A push that could be read.
pub(crate) struct Incomings {
    pub(crate) client: ClientId,
    pub(crate) mutations: Vec<Incoming>,
    /// Keys that live in the key space of another client.
    pub(crate) inherited: BTreeMap<IdempotencyKey, ClientId>,
    pub(crate) token: Option<ExchangeToken>,
    /// It comes from a file that books answers, and exchanges tokens.
    pub(crate) exchanges: bool,
}

/// A mutation that could be read.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) key: IdempotencyKey,
    pub(crate) mutation: MutationId,
    pub(crate) entity_type: String,
    pub(crate) id: String,
    pub(crate) op: Operation,
    pub(crate) assign: Option<Assign>,
    pub(crate) base: Option<Base>,
    pub(crate) fields: Fields,
    /// The fields are all that the entity is to have.
    pub(crate) replace: bool,
    pub(crate) command: Option<Command>,
    pub(crate) covers: Vec<MutationId>,
    /// It has a key of its own; else nothing is looked up nor recorded.
    pub(crate) keyed: bool,
    /// All fields are told when it is applied.
    pub(crate) told: bool,
    /// With which others it takes effect all or none.
    pub(crate) group: Option<usize>,
    pub(crate) fingerprint: Fingerprint,
    /// Why it will never be accepted, whatever the state.
    pub(crate) flaw: Option<Outcome>,
}

impl Incoming {
    /// A create without key and fields, to be filled in: not from a Syncline client.
    pub(crate) fn plain(entity_type: &str, id: Option<&str>) -> Self {
        Self {
            key: IdempotencyKey::from("none"),
            mutation: MutationId::from("rest"),
            entity_type: entity_type.to_owned(),
            id: id.unwrap_or("new").to_owned(),
            op: Operation::Create,
            assign: None,
            base: None,
            fields: Fields::new(),
            replace: false,
            command: None,
            covers: Vec::new(),
            keyed: false,
            told: true,
            group: None,
            fingerprint: [0; 32],
            flaw: None,
        }
    }

    /// Notes why it will never be accepted, if so.
    pub(crate) fn check(&mut self, limits: &Limits, bytes: usize, declared: &Declared) {
        self.flaw = match bytes > limits.mutation_bytes {
            true => Some(validate::too_large(bytes, limits.mutation_bytes)),
            false => validate::flaw(self, declared),
        };
    }

    /// The entity that it names.
    pub(crate) fn name(&self) -> (String, String) {
        (self.entity_type.clone(), self.id.clone())
    }
}

#[derive(Deserialize)]
struct WirePush<'a> {
    client: ClientId,
    /// Split first, read after they have been counted and measured.
    #[serde(borrow)]
    mutations: Vec<&'a RawValue>,
    #[serde(default)]
    groups: Vec<Vec<IdempotencyKey>>,
    #[serde(default)]
    inherited: BTreeMap<IdempotencyKey, ClientId>,
    #[serde(default)]
    token: Option<ExchangeToken>,
}

/// `protocol::Mutation` with its names still unchecked, so that a bad one is its own rejection.
#[derive(Deserialize)]
struct WireMutation {
    key: IdempotencyKey,
    mutation: MutationId,
    #[serde(default)]
    covers: Vec<MutationId>,
    #[serde(rename = "type")]
    entity_type: String,
    id: String,
    op: Operation,
    #[serde(default)]
    assign: Option<Assign>,
    #[serde(default)]
    base: Option<Base>,
    #[serde(default)]
    fields: Fields,
    #[serde(default)]
    command: Option<Command>,
}

/// What a key stands for: the mutation without its key, in canonical form (fields in name order).
#[derive(Serialize)]
struct Canonical<'a> {
    mutation: &'a MutationId,
    entity_type: &'a str,
    id: &'a str,
    op: Operation,
    assign: Option<Assign>,
    base: Option<&'a Base>,
    fields: &'a Fields,
    command: Option<&'a Command>,
}

pub(crate) fn parse(
    body: &[u8],
    limits: &Limits,
    declared: &Declared,
) -> Result<Incomings, Refusal> {
    // RFC 8259, 8.1. What nobody reads of the body is not looked at otherwise.
    std::str::from_utf8(body)
        .map_err(|error| Refusal::malformed(format!("the body is not UTF-8: {error}")))?;
    json_scan::scan(body).map_err(|flaw| Refusal::malformed(flaw.to_string()))?;
    let push: WirePush<'_> =
        serde_json::from_slice(body).map_err(|error| Refusal::unreadable(&error))?;
    if push.mutations.len() > limits.push_mutations {
        return Err(
            Refusal::new(413, "batch-too-large", "The batch has too many mutations")
                .detail(format!("at most {}", limits.push_mutations)),
        );
    }
    let mut mutations: Vec<Incoming> = push
        .mutations
        .iter()
        .enumerate()
        .map(|(index, raw)| read_mutation(index, raw.get(), limits, declared))
        .collect::<Result<_, _>>()?;
    set_groups(&mut mutations, &push.groups)?;
    check_inherited(&mutations, &push.inherited)?;
    if let Some(token) = &push.token
        && !is_visible_ascii(token.as_str(), 64)
    {
        return Err(Refusal::malformed(
            "an exchange token is 1 to 64 visible ASCII characters",
        ));
    }
    Ok(Incomings {
        client: push.client,
        mutations,
        inherited: push.inherited,
        token: push.token,
        exchanges: true,
    })
}

fn set_groups(mutations: &mut [Incoming], groups: &[Vec<IdempotencyKey>]) -> Result<(), Refusal> {
    let mut group_of = BTreeMap::new();
    for (group, keys) in groups.iter().enumerate() {
        for key in keys {
            if group_of.insert(key, group).is_some() {
                let detail = format!("key {:?} stands twice in groups", key.as_str());
                return Err(Refusal::malformed(detail));
            }
        }
    }
    let mut missing: BTreeSet<&IdempotencyKey> = group_of.keys().copied().collect();
    for mutation in mutations.iter_mut() {
        mutation.group = group_of.get(&mutation.key).copied();
        missing.remove(&mutation.key);
    }
    match missing.first() {
        None => Ok(()),
        Some(key) => Err(Refusal::malformed(format!(
            "groups: no mutation of the request has the key {:?}",
            key.as_str()
        ))),
    }
}

fn check_inherited(
    mutations: &[Incoming],
    inherited: &BTreeMap<IdempotencyKey, ClientId>,
) -> Result<(), Refusal> {
    let keys: BTreeSet<&IdempotencyKey> = mutations.iter().map(|one| &one.key).collect();
    for (key, client) in inherited {
        check_client(client)?;
        if !keys.contains(key) {
            return Err(Refusal::malformed(format!(
                "inherited: no mutation of the request has the key {:?}",
                key.as_str()
            )));
        }
    }
    Ok(())
}

fn read_mutation(
    index: usize,
    json: &str,
    limits: &Limits,
    declared: &Declared,
) -> Result<Incoming, Refusal> {
    let malformed = |detail: &dyn std::fmt::Display| {
        Refusal::malformed(format!("mutations[{index}]: {detail}"))
    };
    let wire: WireMutation =
        serde_json::from_str(json).map_err(|error| malformed(&json_fault(&error)))?;
    let covered = wire.covers.iter().map(MutationId::as_str);
    for text in [wire.key.as_str(), wire.mutation.as_str()]
        .into_iter()
        .chain(covered)
    {
        if !is_visible_ascii(text, 64) {
            return Err(malformed(
                &"key, mutation and what it covers are 1 to 64 visible ASCII characters",
            ));
        }
    }
    let mut incoming = Incoming {
        fingerprint: fingerprint(&wire).map_err(|error| malformed(&json_fault(&error)))?,
        key: wire.key,
        mutation: wire.mutation,
        entity_type: wire.entity_type,
        id: wire.id,
        op: wire.op,
        assign: wire.assign,
        base: wire.base,
        fields: wire.fields,
        replace: false,
        command: wire.command,
        covers: wire.covers,
        keyed: true,
        told: false,
        group: None,
        flaw: None,
    };
    incoming.check(limits, json.len(), declared);
    Ok(incoming)
}

fn fingerprint(wire: &WireMutation) -> Result<Fingerprint, serde_json::Error> {
    let canonical = serde_json::to_vec(&Canonical {
        mutation: &wire.mutation,
        entity_type: &wire.entity_type,
        id: &wire.id,
        op: wire.op,
        assign: wire.assign,
        base: wire.base.as_ref(),
        fields: &wire.fields,
        command: wire.command.as_ref(),
    })?;
    Ok(Sha256::digest(canonical).into())
}
