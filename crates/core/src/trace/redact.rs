//! What a trace shows of rows, payloads, tokens and names of people: by default placeholders.
//!
//! The machine decides by shapes, ids, keys and states and never looks at a value, so a value can
//! be another one as long as equal ones stay equal. A placeholder is a keyed hash of the value, of
//! the same kind (NULL stays NULL); without the key, which is in no trace, it cannot be guessed back.
//! Texts for people are left out: they say in new words what codes say already, and the machine
//! composes them, so that the parts of one could not be told apart.
//!
//! Every field of every type is named here, so that a new one does not compile until somebody has
//! decided what a trace may show of it.

mod border;
mod notice;
mod wire;

use crate::MAX_CURSOR_BYTES;
use sha2::{Digest, Sha256};
use syncline_protocol::{EntityId, KeyPart};

/// Decides what of a value is shown.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// With what placeholders are made; `None`: everything is as it should be.
    key: Option<[u8; 32]>,
    /// Rows, ids and other values are shown; tokens, cursors and people never are.
    values: bool,
    /// Texts for people are shown.
    details: bool,
}

impl Redactor {
    /// Hides values, tokens and people behind placeholders made with this key, which should be random
    /// and is to be forgotten.
    pub fn hiding(key: [u8; 32]) -> Self {
        Self {
            key: Some(key),
            values: false,
            details: false,
        }
    }

    /// Shows values and texts for people, and hides tokens, cursors and people all the same.
    #[must_use]
    pub fn showing_values(mut self) -> Self {
        self.values = true;
        self.details = true;
        self
    }

    /// Leaves texts for people out, and everything else as it is: what was redacted before.
    pub(crate) fn leaving_details_out() -> Self {
        Self {
            key: None,
            values: true,
            details: false,
        }
    }

    /// The same without texts for people.
    pub(crate) fn without_details(&self) -> Self {
        Self {
            details: false,
            ..self.clone()
        }
    }

    /// Whether values are shown.
    pub fn shows_values(&self) -> bool {
        self.values
    }

    fn hash(&self, bytes: &[u8]) -> Option<u64> {
        let digest = Sha256::new()
            .chain_update(self.key?)
            .chain_update(bytes)
            .finalize();
        let first = digest.first_chunk::<8>()?;
        Some(u64::from_be_bytes(*first))
    }

    /// A text that is never shown.
    fn secret(&self, text: &str) -> String {
        match self.hash(text.as_bytes()) {
            Some(_) if text.is_empty() => String::new(),
            Some(hash) => format!("~{hash:016x}"),
            None => text.to_owned(),
        }
    }

    /// A text that is a value.
    pub(crate) fn text(&self, text: &str) -> String {
        match self.values {
            true => text.to_owned(),
            false => self.secret(text),
        }
    }

    /// A text for people.
    pub(crate) fn detail(&self, text: &str) -> String {
        match self.details {
            true => text.to_owned(),
            false => String::new(),
        }
    }

    /// A word that programs switch on, unless it is none.
    fn word(&self, text: &str) -> String {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        match text.len() <= 32 && text.bytes().all(plain) {
            true => text.to_owned(),
            false => self.text(text),
        }
    }

    /// Cursors may carry anything. One that is too long stays so, since that is seen by the machine.
    pub(crate) fn cursor(&self, cursor: &str) -> String {
        let hidden = self.secret(cursor);
        match self.key.is_some() && cursor.len() > MAX_CURSOR_BYTES {
            true => format!("{hidden:~<width$}", width = MAX_CURSOR_BYTES + 1),
            false => hidden,
        }
    }

    fn id(&self, id: &EntityId) -> EntityId {
        let uuid = |text: &str| {
            (32..=36).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        };
        let says_nothing = id.parts().iter().all(|part| match part {
            KeyPart::Integer(_) => true,
            KeyPart::Text(text) => uuid(text),
            KeyPart::Blob(bytes) => bytes.len() == 16,
        });
        if self.values || says_nothing {
            return id.clone();
        }
        // A placeholder is an id: it starts like a plain text and is short.
        EntityId::parse(self.secret(id.as_str())).unwrap_or_else(|_| EntityId::from(0))
    }
}

/// Has values that a trace need not show.
pub(crate) trait Redact {
    /// The same, with what is hidden replaced.
    fn redacted(&self, by: &Redactor) -> Self;
}

impl<T: Redact> Redact for Vec<T> {
    fn redacted(&self, by: &Redactor) -> Self {
        self.iter().map(|one| one.redacted(by)).collect()
    }
}

impl<T: Redact> Redact for Option<T> {
    fn redacted(&self, by: &Redactor) -> Self {
        self.as_ref().map(|one| one.redacted(by))
    }
}

impl<T: Redact, E: Redact> Redact for Result<T, E> {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            Ok(one) => Ok(one.redacted(by)),
            Err(error) => Err(error.redacted(by)),
        }
    }
}

impl Redact for () {
    fn redacted(&self, _: &Redactor) -> Self {}
}
