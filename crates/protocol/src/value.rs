//! A field's value: the five storage classes of SQLite, in JSON, exact both ways.
//!
//! | class | JSON | note |
//! |---|---|---|
//! | NULL | `null` | |
//! | INTEGER | `42` | a number without fraction or exponent, exact over all of `i64` |
//! | REAL | `1.5`, `1.0`, `-0.0`, `1e300` | a number with fraction or exponent, the shortest that reads back bit by bit |
//! | REAL, infinite | `{"$real":"inf"}`, `{"$real":"-inf"}` | JSON has no infinity |
//! | TEXT | `"milk"` | valid UTF-8 |
//! | BLOB | `{"$blob":"3q0="}` | standard base64 with padding |
//!
//! NaN does not exist here, as it does not in SQLite (which stores NULL for it).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// One value of one field. Two REALs are equal when their bits are.
#[derive(Debug, Clone)]
pub enum Value {
    /// SQL NULL: present and empty, which is not the same as absent.
    Null,
    /// A signed 64-bit integer.
    Integer(i64),
    /// A double, finite or infinite, never NaN.
    Real(f64),
    /// Valid UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// Why a value cannot be carried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// U+0000 inside a text: some stores could never take it, so none is asked to.
    #[error("text contains U+0000, which cannot be synced; remove that character")]
    NulCharacter,
    /// NaN, which SQLite turns into NULL.
    #[error("NaN is not a value that can be synced; store NULL instead")]
    NotANumber,
}

impl Value {
    /// Checks what the type alone cannot: no U+0000 in text, no NaN.
    pub fn validate(&self) -> Result<(), ValueError> {
        match self {
            Value::Text(text) if text.contains('\0') => Err(ValueError::NulCharacter),
            Value::Real(real) if real.is_nan() => Err(ValueError::NotANumber),
            _ => Ok(()),
        }
    }

    /// Whether this is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Integer(a), Value::Integer(b)) => a == b,
            (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Blob(a), Value::Blob(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Integer(integer) => serializer.serialize_i64(*integer),
            Value::Real(real) if real.is_finite() => serializer.serialize_f64(*real),
            Value::Real(real) if real.is_nan() => serializer.serialize_unit(),
            Value::Real(real) => {
                let sign = if *real > 0.0 { "inf" } else { "-inf" };
                tagged(serializer, "$real", sign)
            }
            Value::Text(text) => serializer.serialize_str(text),
            Value::Blob(bytes) => tagged(serializer, "$blob", &BASE64.encode(bytes)),
        }
    }
}

fn tagged<S: Serializer>(serializer: S, tag: &str, text: &str) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(tag, text)?;
    map.end()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a number, a string, {\"$blob\":base64} or {\"$real\":\"inf\"|\"-inf\"}")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Integer)
            .map_err(|_| E::custom(format!("integer {value} is beyond 64 signed bits")))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Real(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some((tag, text)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::custom(
                "an object value needs a tag: $blob or $real",
            ));
        };
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("an object value has exactly one tag"));
        }
        match (tag.as_str(), text.as_str()) {
            ("$blob", encoded) => BASE64
                .decode(encoded)
                .map(Value::Blob)
                .map_err(|error| de::Error::custom(format!("$blob is not base64: {error}"))),
            ("$real", "inf") => Ok(Value::Real(f64::INFINITY)),
            ("$real", "-inf") => Ok(Value::Real(f64::NEG_INFINITY)),
            _ => Err(de::Error::custom(format!("unknown value tag {tag:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<u64>()
                .prop_map(f64::from_bits)
                .prop_filter("NaN is no value", |real| !real.is_nan())
                .prop_map(Value::Real),
            any::<String>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn every_value_survives_the_wire(value in any_value()) {
            let wire = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&wire).unwrap(), value);
        }
    }

    #[test]
    fn storage_classes_stay_apart() {
        for (wire, value) in [
            ("1", Value::Integer(1)),
            ("1.0", Value::Real(1.0)),
            ("-0.0", Value::Real(-0.0)),
            ("\"1\"", Value::Text("1".into())),
            ("9223372036854775807", Value::Integer(i64::MAX)),
            ("{\"$blob\":\"AA==\"}", Value::Blob(vec![0])),
        ] {
            assert_eq!(serde_json::from_str::<Value>(wire).unwrap(), value);
            assert_eq!(serde_json::to_string(&value).unwrap(), wire);
        }
    }

    #[test]
    fn what_is_not_a_value_is_refused() {
        for wire in [
            "true",
            "[1]",
            "{}",
            "{\"a\":1}",
            "9223372036854775808",
            "1e400",
            "{\"$blob\":\"A\"}",
            "{\"$real\":\"nan\"}",
            "{\"$blob\":\"\",\"$blob\":\"\"}",
        ] {
            assert!(
                serde_json::from_str::<Value>(wire).is_err(),
                "{wire} was accepted"
            );
        }
    }
}
