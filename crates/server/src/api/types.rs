//! `GET` and `PUT /v1/types`: what the devices' tables look like, so that another device can make
//! them.
//!
//! Kept per tenant. A definition replaces one with a lower schema version and yields to any other.
//! Names are checked here, so that no device is handed one that it could not quote.

use super::json;
use crate::declared::is_type_name;
use crate::problems::Refusal;
use crate::{
    Identity, Now, Request, Response, Service, Storage, StorageError, StoredDefinition, WriteTx,
    json_scan,
};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{Access, EntityType, TypeDefinition, TypeDefinitions};

/// Types of one tenant.
const MAX_TYPES: usize = 1000;
/// Columns, keys' columns, unique lists and references of one type: each.
const MAX_PARTS: usize = 500;
/// Bytes of one definition as JSON.
const MAX_DEFINITION_BYTES: usize = 256 << 10;
const MAX_NAME_BYTES: usize = 128;

pub(crate) fn read_types<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
) -> Result<Response, Refusal> {
    let tenant = &identity.principal.tenant;
    let stored = service.storage.read(|tx| tx.type_definitions(tenant))?;
    let types = stored.iter().map(parse).collect::<Result<_, _>>()?;
    json(&TypeDefinitions { types })
}

pub(crate) fn put_types<S: Storage>(
    service: &Service<S>,
    identity: &Identity,
    request: &Request,
    now: Now,
) -> Result<Response, Refusal> {
    super::check_content_type(request)?;
    let limit = service.config.limits.push_bytes;
    if request.body.len() > limit {
        return Err(Refusal::body_too_large(limit));
    }
    if identity.access != Access::Write {
        return Err(Refusal::read_only());
    }
    json_scan::scan(&request.body).map_err(|flaw| Refusal::malformed(flaw.to_string()))?;
    let sent: TypeDefinitions =
        serde_json::from_slice(&request.body).map_err(|error| Refusal::unreadable(&error))?;
    let mut offered = BTreeMap::new();
    for definition in &sent.types {
        let name = definition.name.as_str();
        if let Err(flaw) = check(definition) {
            return Err(Refusal::malformed(format!("type {name:?}: {flaw}")));
        }
        if !service.declared.knows(name) {
            return Err(undeclared(name));
        }
        let json = serde_json::to_string(definition).map_err(StorageError::internal)?;
        if json.len() > MAX_DEFINITION_BYTES {
            return Err(Refusal::malformed(format!(
                "type {name:?}: the definition has more than {MAX_DEFINITION_BYTES} bytes"
            )));
        }
        let stored = StoredDefinition {
            schema_version: definition.schema_version,
            json,
        };
        if offered.insert(definition.name.clone(), stored).is_some() {
            return Err(Refusal::malformed(format!("type {name:?} stands twice")));
        }
    }
    let tenant = &identity.principal.tenant;
    let kept = service
        .storage
        .write(|tx| keep(tx, tenant, &offered, now.unix_ms))?;
    match kept {
        Some(types) => json(&TypeDefinitions { types }),
        None => Err(Refusal::malformed(format!(
            "the tenant would have more than {MAX_TYPES} types"
        ))),
    }
}

/// All of the tenant's definitions afterwards; nothing when they would be too many.
fn keep(
    tx: &mut dyn WriteTx,
    tenant: &str,
    offered: &BTreeMap<EntityType, StoredDefinition>,
    now_ms: i64,
) -> Result<Option<Vec<TypeDefinition>>, StorageError> {
    let mut known = BTreeMap::new();
    for stored in tx.type_definitions(tenant)? {
        known.insert(parse(&stored)?.name, stored);
    }
    let fresh = offered.keys().filter(|name| !known.contains_key(name));
    if known.len() + fresh.count() > MAX_TYPES {
        return Ok(None);
    }
    for (name, definition) in offered {
        let newer = known
            .get(name)
            .is_none_or(|known| known.schema_version < definition.schema_version);
        if newer {
            tx.define_type(tenant, name, definition, now_ms)?;
            known.insert(name.clone(), definition.clone());
        }
    }
    known
        .values()
        .map(parse)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn parse(stored: &StoredDefinition) -> Result<TypeDefinition, StorageError> {
    serde_json::from_str(&stored.json).map_err(StorageError::internal)
}

fn undeclared(name: &str) -> Refusal {
    Refusal::new(403, "unknown-type", "The server takes declared types only").detail(format!(
        "{name:?} is not declared in the server's configuration"
    ))
}

fn check(definition: &TypeDefinition) -> Result<(), String> {
    if !is_type_name(definition.name.as_str()) {
        return Err("a type's name has 1 to 128 bytes and no control characters".to_owned());
    }
    check_name(&definition.table)?;
    let lower = definition.table.to_ascii_lowercase();
    if lower.starts_with("sqlite_") || lower.starts_with("syncline_") {
        return Err(format!("the table name {:?} is reserved", definition.table));
    }
    let columns = check_columns(definition)?;
    let lists = [definition.key.as_slice()].into_iter();
    let lists = lists.chain(definition.unique.iter().map(Vec::as_slice));
    let lists = lists.chain(
        definition
            .references
            .iter()
            .map(|one| one.columns.as_slice()),
    );
    for list in lists {
        if list.is_empty() || list.len() > MAX_PARTS {
            return Err("a key, unique list or reference has 1 to 500 columns".to_owned());
        }
        let distinct: BTreeSet<&String> = list.iter().collect();
        if distinct.len() < list.len() {
            return Err("a column stands twice in a key, unique list or reference".to_owned());
        }
        if let Some(name) = list.iter().find(|name| !columns.contains(name.as_str())) {
            return Err(format!("there is no column {name:?}"));
        }
    }
    if definition.unique.len() > MAX_PARTS || definition.references.len() > MAX_PARTS {
        return Err("a type has at most 500 unique lists and 500 references".to_owned());
    }
    for reference in &definition.references {
        check_name(&reference.table)?;
        reference
            .to_columns
            .iter()
            .try_for_each(|name| check_name(name))?;
        if reference.to_columns.len() != reference.columns.len() {
            return Err("a reference has as many columns here as there".to_owned());
        }
    }
    Ok(())
}

fn check_columns(definition: &TypeDefinition) -> Result<BTreeSet<&str>, String> {
    if !(1..=MAX_PARTS).contains(&definition.columns.len()) {
        return Err("a type has 1 to 500 columns".to_owned());
    }
    let mut columns = BTreeSet::new();
    let mut folded = BTreeSet::new();
    let mut fields = BTreeSet::new();
    for column in &definition.columns {
        check_name(&column.name)?;
        let field = column.field.as_ref().unwrap_or(&column.name);
        check_name(field)?;
        columns.insert(column.name.as_str());
        // SQLite compares column names without case.
        if !folded.insert(column.name.to_ascii_lowercase()) || !fields.insert(field.as_str()) {
            return Err(format!("column or field {:?} stands twice", column.name));
        }
        if column.declared.len() > MAX_NAME_BYTES || column.declared.chars().any(char::is_control) {
            return Err(format!(
                "column {:?}: the declared type is too long",
                column.name
            ));
        }
        if let Some(default) = &column.default {
            default.validate().map_err(|error| error.to_string())?;
        }
    }
    Ok(columns)
}

fn check_name(name: &str) -> Result<(), String> {
    match (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err("a name has 1 to 128 bytes and no control characters".to_owned()),
    }
}
