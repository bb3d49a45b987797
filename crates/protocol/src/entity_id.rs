//! The text form of a primary key.
//!
//! An entity id says which row, with the storage class of its key, in one canonical text:
//!
//! | key | text |
//! |---|---|
//! | INTEGER 42 | `42` |
//! | TEXT | the text itself, unless it is empty, starts with `"`, `[` or `{`, or consists only of digits and `-`: then its JSON string (`"42"`) |
//! | BLOB 0A 0B | `{"$hex":"0A0B"}` (upper case) |
//! | composite | a JSON array in key order without spaces: `["a",1,{"$hex":"00"}]` |
//!
//! The form is built by plain SQL in the capture triggers and must be the same here to the byte;
//! ids are compared as bytes, without any Unicode normalisation.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest entity id, in bytes.
pub const MAX_ENTITY_ID_BYTES: usize = 256;

/// A primary key in canonical text form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntityId(String);

/// One column's value of a primary key. REAL and NULL cannot be keys of synced rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyPart {
    /// An INTEGER key.
    Integer(i64),
    /// A TEXT key.
    Text(String),
    /// A BLOB key.
    Blob(Vec<u8>),
}

/// Why a text is not an entity id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntityIdError {
    /// Longer than [`MAX_ENTITY_ID_BYTES`].
    #[error("the id has {0} bytes; at most {MAX_ENTITY_ID_BYTES} can be synced")]
    TooLong(usize),
    /// A control character, U+0000 included.
    #[error("the id contains the control character U+{:04X}; remove it from the key", u32::from(*.0))]
    ControlCharacter(char),
    /// Not the canonical form of any key.
    #[error(
        "{0:?} is not the canonical form of a key (an integer, a text, a blob, or a JSON array of those)"
    )]
    NotCanonical(String),
}

impl EntityId {
    /// Reads the canonical text form.
    pub fn parse(text: impl Into<String>) -> Result<Self, EntityIdError> {
        let text = text.into();
        if text.len() > MAX_ENTITY_ID_BYTES {
            return Err(EntityIdError::TooLong(text.len()));
        }
        let parts = decode(&text).ok_or_else(|| EntityIdError::NotCanonical(text.clone()))?;
        let control = |part: &KeyPart| match part {
            KeyPart::Text(text) => text.chars().find(|c| c.is_control()),
            KeyPart::Integer(_) | KeyPart::Blob(_) => None,
        };
        if let Some(character) = parts.iter().find_map(control) {
            return Err(EntityIdError::ControlCharacter(character));
        }
        if encode(&parts) != text {
            return Err(EntityIdError::NotCanonical(text));
        }
        Ok(Self(text))
    }

    /// The id of a key with these parts, in key order; at least one.
    pub fn from_parts(parts: &[KeyPart]) -> Result<Self, EntityIdError> {
        Self::parse(encode(parts))
    }

    /// The key's columns, in key order.
    pub fn parts(&self) -> Vec<KeyPart> {
        decode(&self.0).unwrap_or_default()
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for EntityId {
    type Error = EntityIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

impl From<EntityId> for String {
    fn from(id: EntityId) -> String {
        id.0
    }
}

impl From<i64> for EntityId {
    fn from(key: i64) -> Self {
        Self(key.to_string())
    }
}

fn encode(parts: &[KeyPart]) -> String {
    if let [single] = parts {
        return match single {
            KeyPart::Text(text) if stands_plain(text) => text.clone(),
            other => encode_json(other),
        };
    }
    let inner: Vec<String> = parts.iter().map(encode_json).collect();
    format!("[{}]", inner.join(","))
}

fn stands_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['"', '[', '{'])
        && !text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
}

fn encode_json(part: &KeyPart) -> String {
    match part {
        KeyPart::Integer(integer) => integer.to_string(),
        KeyPart::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        KeyPart::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("{{\"$hex\":\"{hex}\"}}")
        }
    }
}

fn decode(text: &str) -> Option<Vec<KeyPart>> {
    if text.starts_with('[') {
        let parts: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
        let composite = parts.len() >= 2;
        return composite
            .then(|| parts.iter().map(decode_json).collect())
            .flatten();
    }
    if text.starts_with(['"', '{']) {
        return Some(vec![decode_json(&serde_json::from_str(text).ok()?)?]);
    }
    if stands_plain(text) {
        return Some(vec![KeyPart::Text(text.to_owned())]);
    }
    text.parse()
        .ok()
        .map(|integer| vec![KeyPart::Integer(integer)])
}

fn decode_json(value: &serde_json::Value) -> Option<KeyPart> {
    match value {
        serde_json::Value::Number(number) => number.as_i64().map(KeyPart::Integer),
        serde_json::Value::String(text) => Some(KeyPart::Text(text.clone())),
        serde_json::Value::Object(map) if map.len() == 1 => map
            .get("$hex")?
            .as_str()
            .and_then(decode_hex)
            .map(KeyPart::Blob),
        _ => None,
    }
}

fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    digits
        .chunks_exact(2)
        .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_part() -> impl Strategy<Value = KeyPart> {
        prop_oneof![
            any::<i64>().prop_map(KeyPart::Integer),
            "\\PC{0,12}".prop_map(KeyPart::Text),
            "[0-9-]{0,6}".prop_map(KeyPart::Text),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(KeyPart::Blob),
        ]
    }

    proptest! {
        #[test]
        fn a_key_survives_its_text_form(parts in proptest::collection::vec(any_part(), 1..4)) {
            let id = EntityId::from_parts(&parts).unwrap();
            prop_assert_eq!(id.parts(), parts);
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text in any::<String>()) {
            if let Ok(id) = EntityId::parse(text.clone()) {
                prop_assert_eq!(&EntityId::from_parts(&id.parts()).unwrap(), &id);
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }

    #[test]
    fn the_forms_of_the_table() {
        for (text, part) in [
            ("42", KeyPart::Integer(42)),
            ("\"42\"", KeyPart::Text("42".into())),
            ("milk", KeyPart::Text("milk".into())),
            ("\"\"", KeyPart::Text(String::new())),
            ("018f-a", KeyPart::Text("018f-a".into())),
            ("{\"$hex\":\"0AFF\"}", KeyPart::Blob(vec![0x0a, 0xff])),
        ] {
            assert_eq!(EntityId::parse(text).unwrap().parts(), [part]);
        }
    }

    #[test]
    fn odd_forms_are_refused() {
        for text in [
            "",
            "007",
            "-0",
            "--1",
            "[1]",
            "[]",
            "[1, 2]",
            "\"milk\"",
            "{\"$hex\":\"ff\"}",
            "9223372036854775808",
            "a\u{1}b",
            "[null,1]",
            "[1.5,2]",
        ] {
            assert!(EntityId::parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(EntityId::parse("x".repeat(257)).is_err());
    }
}
