//! Declared entity types: their schemas compiled, and who chooses their ids.
//!
//! Never fetches a `$ref` from elsewhere (the validator is built without it) and never repeats a
//! row's value in what it says.

pub(crate) use crate::config::IdAssignment;
use crate::{ConfigError, TypeConfig};
use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use std::collections::BTreeMap;
use syncline_protocol::{FieldError, Fields};

const MAX_FIELD_ERRORS: usize = 16;
const MAX_TYPE_BYTES: usize = 128;

/// Which types there are and what they ask of their entities.
#[derive(Debug)]
pub(crate) struct Declared {
    /// Nothing is declared: every type is welcome.
    open: bool,
    types: BTreeMap<String, DeclaredType>,
}

/// What is asked of the entities of a type.
#[derive(Debug)]
struct DeclaredType {
    schema: Option<Validator>,
    id: IdAssignment,
}

impl Declared {
    pub(crate) fn compile(types: &BTreeMap<String, TypeConfig>) -> Result<Self, ConfigError> {
        let compiled = types
            .iter()
            .map(|(name, declared)| {
                if !is_type_name(name) {
                    return Err(ConfigError::TypeName(name.clone()));
                }
                let validator = declared.schema.as_ref().map(jsonschema::validator_for);
                let validator = validator.transpose().map_err(|error| ConfigError::Schema {
                    entity_type: name.clone(),
                    message: error.to_string(),
                })?;
                let compiled = DeclaredType {
                    schema: validator,
                    id: declared.id,
                };
                Ok((name.clone(), compiled))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            open: types.is_empty(),
            types: compiled,
        })
    }

    pub(crate) fn knows(&self, entity_type: &str) -> bool {
        self.open || self.types.contains_key(entity_type)
    }

    /// Who chooses the ids of created entities.
    pub(crate) fn id_assignment(&self, entity_type: &str) -> IdAssignment {
        let declared = self.types.get(entity_type);
        declared.map_or(IdAssignment::Client, |declared| declared.id)
    }

    /// What is wrong with an entity that has these fields.
    pub(crate) fn violations(&self, entity_type: &str, fields: &Fields) -> Vec<FieldError> {
        let declared = self.types.get(entity_type);
        let Some(validator) = declared.and_then(|declared| declared.schema.as_ref()) else {
            return Vec::new();
        };
        let Ok(instance) = serde_json::to_value(fields) else {
            return Vec::new();
        };
        validator
            .iter_errors(&instance)
            .take(MAX_FIELD_ERRORS)
            .map(|error| FieldError {
                field: field_of(&error),
                code: "schema".to_owned(),
                detail: error.masked().to_string(),
            })
            .collect()
    }
}

/// The grammar of a type's name.
pub(crate) fn is_type_name(name: &str) -> bool {
    (1..=MAX_TYPE_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn field_of(error: &jsonschema::ValidationError<'_>) -> String {
    if let ValidationErrorKind::Required { property } = error.kind()
        && let Some(name) = property.as_str()
    {
        return name.to_owned();
    }
    let path = error.instance_path().to_string();
    let first = path.split('/').nth(1).unwrap_or_default();
    first.replace("~1", "/").replace("~0", "~")
}
