//! What can be wrong with a mutation whatever the state of its entity.
//!
//! Never looks at the storage; the schema, which judges the entity as it would be, is asked in
//! `evolve`.

use super::parse::Incoming;
use crate::declared::{Declared, is_type_name};
use syncline_protocol::{EntityId, FieldError, Fields, Operation, Outcome};

const MAX_FIELD_NAME_BYTES: usize = 128;

/// Why the mutation will never be accepted, if so.
pub(crate) fn flaw(incoming: &Incoming, declared: &Declared) -> Option<Outcome> {
    let Incoming {
        entity_type,
        id,
        op,
        assign,
        base,
        fields,
        command,
        ..
    } = incoming;
    if !is_type_name(entity_type) {
        return Some(rejected(
            "validation",
            "a type's name has 1 to 128 bytes and no control characters",
        ));
    }
    if !declared.knows(entity_type) {
        return Some(rejected(
            "unknown-type",
            &format!("the server has no entity type {entity_type:?}"),
        ));
    }
    if let Err(error) = EntityId::parse(id.as_str()) {
        return Some(rejected("validation", &error.to_string()));
    }
    if *op != Operation::Create && base.is_none() && command.is_none() {
        return Some(rejected(
            "base-required",
            "an update or delete says which state it was made on",
        ));
    }
    if assign.is_some() && *op != Operation::Create {
        return Some(rejected(
            "id-assignment",
            "only a created entity can be given an id",
        ));
    }
    if let Some(command) = command {
        if *op == Operation::Delete {
            return Some(rejected("validation", "a delete has no command"));
        }
        if declared.command(entity_type, &command.name).is_none() {
            return Some(unknown_command(&command.name));
        }
    }
    let mut errors = field_flaws(fields);
    if *op == Operation::Delete && !fields.is_empty() {
        return Some(rejected("validation", "a delete has no fields"));
    }
    if let Some(command) = command {
        errors.extend(field_flaws(&command.args));
    }
    invalid(errors)
}

/// The rejection that these field errors make, if there are any.
pub(crate) fn invalid(errors: Vec<FieldError>) -> Option<Outcome> {
    (!errors.is_empty()).then(|| Outcome::Rejected {
        code: "validation".to_owned(),
        detail: "the entity does not hold to its type".to_owned(),
        errors,
    })
}

pub(super) fn unknown_command(name: &str) -> Outcome {
    let detail = format!("the type has no command {name:?}");
    rejected("unknown-command", &detail)
}

pub(crate) fn too_large(bytes: usize, limit: usize) -> Outcome {
    rejected(
        "too-large",
        &format!("the mutation has {bytes} bytes as JSON; at most {limit} are taken"),
    )
}

pub(crate) fn rejected(code: &str, detail: &str) -> Outcome {
    Outcome::Rejected {
        code: code.to_owned(),
        detail: detail.to_owned(),
        errors: Vec::new(),
    }
}

pub(super) fn field_flaws(fields: &Fields) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, value) in fields {
        let named =
            (1..=MAX_FIELD_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
        if !named {
            errors.push(FieldError {
                field: String::new(),
                code: "name".to_owned(),
                detail: "a field's name has 1 to 128 bytes and no control characters".to_owned(),
            });
        }
        if let Err(error) = value.validate() {
            errors.push(FieldError {
                field: if named { name.clone() } else { String::new() },
                code: "type".to_owned(),
                detail: error.to_string(),
            });
        }
    }
    errors.truncate(16);
    errors
}
