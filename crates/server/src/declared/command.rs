//! Commands: an entity's fields and some arguments go in, the new fields come out.
//!
//! Pure, be it a handler of the program that embeds the server or one that the configuration
//! declares. Never repeats a value in what it says.

use super::violations;
use crate::CommandConfig;
use jsonschema::Validator;
use std::collections::BTreeMap;
use std::fmt;
use syncline_protocol::{FieldError, Fields, Value};

type Handler = dyn Fn(&Fields, &Fields) -> Result<Fields, Vec<FieldError>> + Send + Sync;

/// Carries a command out.
pub(crate) enum Command {
    /// A closure of the embedding program.
    Handler(Box<Handler>),
    /// As the configuration says.
    Declared(Steps),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(_) => f.write_str("Handler"),
            Self::Declared(steps) => steps.fmt(f),
        }
    }
}

/// What a declared command does.
#[derive(Debug)]
pub(crate) struct Steps {
    args: Option<Validator>,
    set: BTreeMap<String, Source>,
    add: BTreeMap<String, (Sign, Source)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

/// Where a value comes from.
#[derive(Debug)]
enum Source {
    Argument(String),
    Literal(Value),
}

impl Command {
    /// An error says what it is about: the key within the command's table.
    pub(crate) fn declared(config: &CommandConfig) -> Result<Self, (Vec<&str>, String)> {
        let args = config.args.as_ref().map(jsonschema::validator_for);
        let args = args.transpose().map_err(|error| {
            let message = format!("it is not a JSON Schema: {error}");
            (vec!["args"], message)
        })?;
        let mut set = BTreeMap::new();
        for (field, json) in &config.set {
            let source = source(json).ok_or_else(|| {
                let message = "give \"$argument\", a text, a number or null";
                (vec!["set", field], message.to_owned())
            })?;
            set.insert(field.clone(), source);
        }
        let mut add = BTreeMap::new();
        for (field, json) in &config.add {
            let step = addend(json).ok_or_else(|| {
                let message = "give \"$argument\", \"-$argument\" or a number";
                (vec!["add", field], message.to_owned())
            })?;
            add.insert(field.clone(), step);
        }
        Ok(Self::Declared(Steps { args, set, add }))
    }

    /// The fields of the entity after the command, or why it is refused.
    pub(crate) fn run(&self, fields: &Fields, args: &Fields) -> Result<Fields, Vec<FieldError>> {
        match self {
            Self::Handler(handler) => handler(fields, args),
            Self::Declared(steps) => steps.run(fields, args),
        }
    }
}

impl Steps {
    fn run(&self, fields: &Fields, args: &Fields) -> Result<Fields, Vec<FieldError>> {
        let wrong = self.args.as_ref().map(|schema| violations(schema, args));
        let mut errors = wrong.unwrap_or_default();
        let mut after = fields.clone();
        for (field, source) in &self.set {
            match source.value(args) {
                Ok(value) => drop(after.insert(field.as_str(), value.clone())),
                Err(error) => errors.push(error),
            }
        }
        for (field, (sign, source)) in &self.add {
            let before = after.get(field).cloned().unwrap_or(Value::Integer(0));
            let sum = source
                .value(args)
                .and_then(|value| sum(field, &before, *sign, value));
            match sum {
                Ok(value) => drop(after.insert(field.as_str(), value)),
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(after),
            false => Err(errors),
        }
    }
}

impl Source {
    fn value<'a>(&'a self, args: &'a Fields) -> Result<&'a Value, FieldError> {
        match self {
            Self::Literal(value) => Ok(value),
            Self::Argument(name) => args
                .get(name)
                .ok_or_else(|| error(name, "required", "the command needs this argument")),
        }
    }
}

/// NULL counts as 0.
fn sum(field: &str, before: &Value, sign: Sign, value: &Value) -> Result<Value, FieldError> {
    let numbers_only = || error(field, "type", "only numbers can be added");
    let integer = |value: &Value| match value {
        Value::Integer(integer) => Some(*integer),
        Value::Null => Some(0),
        _ => None,
    };
    let real = |value: &Value| match value {
        Value::Real(real) => Some(*real),
        other => integer(other).map(|integer| integer as f64),
    };
    if let (Some(a), Some(b)) = (integer(before), integer(value)) {
        let sum = match sign {
            Sign::Plus => a.checked_add(b),
            Sign::Minus => a.checked_sub(b),
        };
        let sum = sum.ok_or_else(|| error(field, "range", "the sum does not fit 64 bits"))?;
        return Ok(Value::Integer(sum));
    }
    let (a, b) = real(before).zip(real(value)).ok_or_else(numbers_only)?;
    let sum = if sign == Sign::Plus { a + b } else { a - b };
    match sum.is_nan() {
        true => Err(error(field, "range", "the sum is not a number")),
        false => Ok(Value::Real(sum)),
    }
}

fn error(field: &str, code: &str, detail: &str) -> FieldError {
    FieldError {
        field: field.to_owned(),
        code: code.to_owned(),
        detail: detail.to_owned(),
    }
}

fn source(json: &serde_json::Value) -> Option<Source> {
    if let Some(name) = json.as_str().and_then(|text| text.strip_prefix('$')) {
        return Some(Source::Argument(name.to_owned()));
    }
    // The same JSON as on the wire: booleans and lists are no values.
    serde_json::from_str(&json.to_string())
        .ok()
        .map(Source::Literal)
}

fn addend(json: &serde_json::Value) -> Option<(Sign, Source)> {
    match json.as_str() {
        Some(text) => match text.strip_prefix('-') {
            Some(rest) => Some((
                Sign::Minus,
                Source::Argument(rest.strip_prefix('$')?.to_owned()),
            )),
            None => Some((
                Sign::Plus,
                Source::Argument(text.strip_prefix('$')?.to_owned()),
            )),
        },
        None if json.is_number() => Some((Sign::Plus, source(json)?)),
        None => None,
    }
}
