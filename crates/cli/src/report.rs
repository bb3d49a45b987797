//! What a subcommand has to say at its end, as text and as one JSON object.

use crate::{Exit, Failure};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::Write;

/// A subcommand's result.
#[derive(Debug, Default)]
pub(crate) struct Report {
    exit: Option<Exit>,
    text: String,
    json: Option<Map<String, Value>>,
    trouble: Option<Failure>,
}

impl Report {
    /// Nothing to print: whatever there was to say has been said.
    pub(crate) fn silent() -> Self {
        Self::default()
    }

    /// A result; `json` is to serialise as an object.
    pub(crate) fn new(text: impl Into<String>, json: &impl Serialize) -> Result<Self, Failure> {
        let json = match serde_json::to_value(json) {
            Ok(Value::Object(map)) => map,
            Ok(other) => Map::from_iter([("result".to_owned(), other)]),
            Err(error) => return Err(Failure::new("internal", error.to_string())),
        };
        Ok(Self {
            text: text.into(),
            json: Some(json),
            ..Self::default()
        })
    }

    /// Ends with this code instead of 0.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = Some(exit);
        self
    }

    /// Something went wrong all the same: it is told on stderr, and as `error` in the JSON.
    pub(crate) fn trouble(mut self, trouble: Option<Failure>) -> Self {
        self.trouble = trouble;
        self
    }

    /// What is printed, as text and as JSON.
    pub(crate) fn both(self) -> (String, String) {
        let json = self.json.map(Value::Object).unwrap_or_default();
        (self.text, json.to_string())
    }

    pub(crate) fn print(mut self, as_json: bool) -> Exit {
        if let Some(trouble) = &self.trouble {
            trouble.print_text();
        }
        match (as_json, self.json.take()) {
            (true, Some(mut json)) => {
                if let Some(trouble) = &self.trouble {
                    json.insert("error".to_owned(), trouble.json());
                }
                line(&Value::Object(json).to_string());
            }
            (false, _) if !self.text.is_empty() => line(self.text.trim_end()),
            _ => {}
        }
        self.exit.unwrap_or(Exit::Done)
    }
}

/// Writes a line to stdout at once. A reader that went away (`| head`) is no error.
pub(crate) fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
