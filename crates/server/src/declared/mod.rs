//! Declared entity types: what is asked of their entities and what the server adds to them.
//!
//! Never fetches a `$ref` from elsewhere (the validator is built without it) and never repeats a
//! row's value in what it says.

mod command;
pub(crate) mod rules;

pub(crate) use crate::config::IdAssignment;
pub(crate) use command::Command;
pub(crate) use rules::IndexRules;

use crate::{ConfigError, ServerSet, TypeConfig};
use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use std::collections::{BTreeMap, BTreeSet};
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

/// What is asked of the entities of a type, and added to them.
#[derive(Debug, Default)]
pub(crate) struct DeclaredType {
    schema: Option<Validator>,
    id: IdAssignment,
    commands: BTreeMap<String, Command>,
    pub(crate) set: BTreeMap<String, ServerSet>,
    pub(crate) read_only: BTreeSet<String>,
    pub(crate) index: IndexRules,
}

impl Declared {
    pub(crate) fn compile(types: &BTreeMap<String, TypeConfig>) -> Result<Self, ConfigError> {
        let compiled = types
            .iter()
            .map(|(name, config)| Ok((name.clone(), DeclaredType::compile(name, config)?)))
            .collect::<Result<BTreeMap<_, _>, ConfigError>>()?;
        for (name, declared) in &compiled {
            for (field, target) in &declared.index.references {
                if !compiled.contains_key(target) {
                    let message = format!("the type {target:?} is not declared");
                    let key = ["references", field];
                    return Err(ConfigError::of_type(name, &key, message));
                }
            }
        }
        Ok(Self {
            open: types.is_empty(),
            types: compiled,
        })
    }

    /// Adds a command, declaring its type if need be.
    pub(crate) fn add_command(&mut self, entity_type: &str, name: &str, command: Command) {
        let declared = self.types.entry(entity_type.to_owned()).or_default();
        declared.commands.insert(name.to_owned(), command);
    }

    pub(crate) fn knows(&self, entity_type: &str) -> bool {
        self.open || self.types.contains_key(entity_type)
    }

    pub(crate) fn get(&self, entity_type: &str) -> Option<&DeclaredType> {
        self.types.get(entity_type)
    }

    pub(crate) fn command(&self, entity_type: &str, name: &str) -> Option<&Command> {
        self.get(entity_type)?.commands.get(name)
    }

    /// Who chooses the ids of created entities.
    pub(crate) fn id_assignment(&self, entity_type: &str) -> IdAssignment {
        let declared = self.get(entity_type);
        declared.map_or(IdAssignment::Client, |declared| declared.id)
    }

    /// The types whose entities stand in indexes.
    pub(crate) fn indexed_types(&self) -> impl Iterator<Item = (&str, &IndexRules)> {
        let rules = self
            .types
            .iter()
            .map(|(name, one)| (name.as_str(), &one.index));
        rules.filter(|(_, rules)| !rules.is_empty())
    }

    /// What is wrong with an entity that has these fields.
    pub(crate) fn violations(&self, entity_type: &str, fields: &Fields) -> Vec<FieldError> {
        let schema = self.get(entity_type).and_then(|one| one.schema.as_ref());
        schema.map_or(Vec::new(), |schema| violations(schema, fields))
    }
}

impl DeclaredType {
    fn compile(name: &str, config: &TypeConfig) -> Result<Self, ConfigError> {
        if !is_type_name(name) {
            let message = "it is not a type's name: 1 to 128 bytes without control characters";
            return Err(ConfigError::of_type(name, &[], message));
        }
        let schema = config.schema.as_ref().map(jsonschema::validator_for);
        let schema = schema.transpose().map_err(|error| {
            let message = format!("it is not a JSON Schema: {error}");
            ConfigError::of_type(name, &["schema"], message)
        })?;
        let mut commands = BTreeMap::new();
        for (command, declared) in &config.commands {
            let compiled = Command::declared(declared).map_err(|(key, why)| {
                let key: Vec<&str> = ["commands", command].into_iter().chain(key).collect();
                ConfigError::of_type(name, &key, why)
            })?;
            commands.insert(command.clone(), compiled);
        }
        if config.unique.iter().any(Vec::is_empty) {
            let message = "one of the lists is empty";
            return Err(ConfigError::of_type(name, &["unique"], message));
        }
        let fields = || config.fields.iter();
        Ok(Self {
            schema,
            id: config.id,
            commands,
            set: fields()
                .filter_map(|(name, field)| Some((name.clone(), field.set?)))
                .collect(),
            read_only: fields()
                .filter(|(_, field)| field.read_only)
                .map(|(name, _)| name.clone())
                .collect(),
            index: IndexRules {
                unique: config.unique.clone(),
                references: config.references.clone(),
            },
        })
    }
}

fn violations(schema: &Validator, fields: &Fields) -> Vec<FieldError> {
    let Ok(instance) = serde_json::to_value(fields) else {
        return Vec::new();
    };
    schema
        .iter_errors(&instance)
        .take(MAX_FIELD_ERRORS)
        .map(|error| FieldError {
            field: field_of(&error),
            code: "schema".to_owned(),
            detail: error.masked().to_string(),
        })
        .collect()
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
