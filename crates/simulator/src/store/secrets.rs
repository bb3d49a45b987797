//! Nothing that is told shows a secret: neither credentials nor what stands in rows (F:S23). Every value that
//! an app writes has one word in it, which is looked for in notices, refusals, what is kept of errors and,
//! in some of the seeds, in everything that is logged at any level.

use super::world::World;
use crate::level::Broken;
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// How every value of a history begins.
pub(super) const VALUE: &str = "canary";

/// In one of so many seeds it is listened to what is logged.
const LISTENED_IN: u64 = 8;

/// What must not be shown.
#[derive(Clone)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// The values of rows, and the signatures of these tokens.
    pub(super) fn new(tokens: &[&str]) -> Self {
        let signatures = tokens.iter().filter_map(|token| token.rsplit('.').next());
        Self(signatures.chain([VALUE]).map(str::to_owned).collect())
    }

    /// F:S23: a text has none of them.
    pub(super) fn keeps(&self, place: &str, text: &str) -> Result<(), Broken> {
        match self.0.iter().any(|secret| text.contains(secret)) {
            true => Err(Broken::new("F:S23", format!("{place} shows {text}"))),
            false => Ok(()),
        }
    }
}

impl World {
    /// F:S23, of something that was told.
    pub(super) fn keeps_secrets(&mut self, place: &str, text: &str) {
        if let Err(broken) = self.secrets.keeps(place, text) {
            self.breaks(broken);
        }
    }

    /// F:S23: why a mutation was refused is said without the values that it has. (The row that it met is
    /// part of the answer.)
    pub(super) fn refuses_without_values(&mut self, answer: &Value) {
        for result in answer["results"].as_array().into_iter().flatten() {
            let mut said = result.clone();
            if let Some(said) = said.as_object_mut() {
                said.remove("fields");
                said.remove("remote");
            }
            self.keeps_secrets("an outcome", &said.to_string());
        }
    }
}

/// Hears everything that is logged, and keeps the first of it that shows a secret.
struct Listener {
    secrets: Secrets,
    heard: Arc<Mutex<Option<Broken>>>,
}

/// Plays something, and listens to what is logged meanwhile if this is such a seed.
pub(super) fn listening<T>(
    seed: u64,
    secrets: &Secrets,
    play: impl FnOnce() -> T,
) -> (T, Option<Broken>) {
    if seed % LISTENED_IN != 1 {
        return (play(), None);
    }
    let heard = Arc::new(Mutex::new(None));
    let listener = Listener {
        secrets: secrets.clone(),
        heard: Arc::clone(&heard),
    };
    let done = tracing::subscriber::with_default(listener, play);
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).take();
    (done, heard)
}

impl Listener {
    fn hear(&self, text: &str) {
        if let Err(broken) = self.secrets.keeps("a line of the log", text) {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.get_or_insert(broken);
        }
    }
}

/// The fields of a line, as text.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text does not fail.
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(span.metadata().name().to_owned());
        span.record(&mut text);
        self.hear(&text.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut text = Text(String::new());
        values.record(&mut text);
        self.hear(&text.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.hear(&text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
