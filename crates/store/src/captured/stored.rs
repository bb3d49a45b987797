//! One stored object of values, in the triggers' form or in wire form, as far as its text tells.

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use syncline_protocol::Value;

/// One member of a stored object.
pub(super) enum Stored {
    /// The value itself.
    Value(Value),
    /// A REAL, which stands in a row of its own.
    RealInRow,
    /// A text with U+0000.
    Nul,
    /// A value beyond the size limit.
    Large,
    /// Not a field: when the base was taken.
    TakenAt,
}

/// The members of a stored object in their order; a name may stand twice.
pub(super) fn parse_object(json: &str) -> Result<Vec<(String, Stored)>, serde_json::Error> {
    serde_json::from_str::<Members>(json).map(|members| members.0)
}

struct Members(Vec<(String, Stored)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of field values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StoredVisitor)
    }
}

struct StoredVisitor;

impl<'de> Visitor<'de> for StoredVisitor {
    type Value = Stored;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Stored, E> {
        Ok(Stored::Value(Value::Null))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Stored, E> {
        Ok(Stored::Value(Value::Integer(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Stored, E> {
        let value = i64::try_from(value)
            .map_err(|_| E::custom(format!("integer {value} is beyond 64 signed bits")))?;
        self.visit_i64(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Stored, E> {
        Ok(Stored::Value(Value::Real(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Stored, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Stored, E> {
        Ok(Stored::Value(Value::Text(value)))
    }

    /// A tagged value: those of the triggers here, the others as the wire has them.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stored, A::Error> {
        let entry = map.next_entry::<String, serde_json::Value>()?;
        let (tag, inner) = entry.ok_or_else(|| de::Error::custom("an object without a tag"))?;
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("an object value has exactly one tag"));
        }
        match (tag.as_str(), &inner) {
            ("$nul", _) => Ok(Stored::Nul),
            ("$large", _) => Ok(Stored::Large),
            ("$at", _) => Ok(Stored::TakenAt),
            ("$real", serde_json::Value::String(text)) if text == "row" => Ok(Stored::RealInRow),
            ("$hex", serde_json::Value::String(hex)) => decode_hex(hex)
                .map(|bytes| Stored::Value(Value::Blob(bytes)))
                .ok_or_else(|| de::Error::custom("$hex is not hexadecimal")),
            _ => {
                let object = serde_json::Value::Object([(tag, inner)].into_iter().collect());
                Value::deserialize(object)
                    .map(Stored::Value)
                    .map_err(de::Error::custom)
            }
        }
    }
}

fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(nibble(*high)? << 4 | nibble(*low)?).ok())
        .collect()
}
