//! Values and ids as they stand on the wire, said a second time: how a key becomes an id and an id a key, and under
//! which text a value is known to the ledger.

use serde_json::{Value, json};

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A BLOB as the value of a field.
pub fn blob(bytes: &[u8]) -> Value {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4 {
            match n <= three.len() {
                true => text.push(char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize])),
                false => text.push('='),
            }
        }
    }
    json!({ "$blob": text })
}

/// A BLOB as a part of an id.
pub fn hex(bytes: &[u8]) -> Value {
    let text: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    json!({ "$hex": text })
}

/// The value of a field as it stands in an id that it refers to.
pub fn part(field: &Value) -> Value {
    let Some(text) = field["$blob"].as_str() else {
        return field.clone();
    };
    let mut bits = 0_u32;
    let mut bytes = Vec::new();
    for (n, digit) in text.bytes().take_while(|digit| *digit != b'=').enumerate() {
        let six = DIGITS.iter().position(|known| *known == digit);
        bits = bits << 6 | six.unwrap_or(0) as u32;
        if n % 4 > 0 {
            bytes.push((bits >> (6 - 2 * (n % 4))) as u8);
        }
    }
    hex(&bytes)
}

/// The value of a field as the protocol writes it, where the capture triggers have written it in their own way; `None`
/// where they keep it elsewhere.
pub fn captured(value: &Value) -> Option<Value> {
    if value.get("$real").is_some() {
        return None;
    }
    let Some(text) = value["$hex"].as_str() else {
        return Some(value.clone());
    };
    let byte = |at| u8::from_str_radix(text.get(at..at + 2).unwrap_or(""), 16).unwrap_or(0);
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect();
    Some(blob(&bytes))
}

/// The id of a key.
pub fn id(parts: &[Value]) -> String {
    match parts {
        [Value::String(text)] => {
            let is_number = text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'-');
            match text.is_empty() || is_number || text.starts_with(['"', '[', '{']) {
                true => Value::from(text.as_str()).to_string(),
                false => text.clone(),
            }
        }
        [one] => one.to_string(),
        many => Value::from(many).to_string(),
    }
}

/// The key of an id.
pub fn key(id: &str) -> Vec<Value> {
    match serde_json::from_str(id) {
        Ok(Value::Array(parts)) => parts,
        Ok(one @ (Value::String(_) | Value::Number(_) | Value::Object(_))) => vec![one],
        _ => vec![id.into()],
    }
}

/// The text under which a value is known; `None` for nothing.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(blob) => Some(blob.get("$blob")?.as_str()?.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_ids_and_ids_keys() {
        for (parts, written) in [
            (json!(["milk"]), "milk"),
            (json!(["42"]), r#""42""#),
            (json!([""]), r#""""#),
            (json!(["[1"]), r#""[1""#),
            (json!([-7]), "-7"),
            (json!([{"$hex": "0A0B"}]), r#"{"$hex":"0A0B"}"#),
            (json!(["a", 1, {"$hex": "00"}]), r#"["a",1,{"$hex":"00"}]"#),
        ] {
            let parts = parts.as_array().cloned().unwrap_or_default();
            assert_eq!(id(&parts), written);
            assert_eq!(key(written), parts);
        }
    }

    #[test]
    fn bytes_are_written_in_three_ways() {
        for (bytes, base64) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xde\xad\xbe\xef", "3q2+7w=="),
        ] {
            assert_eq!(blob(bytes), json!({ "$blob": base64 }));
            assert_eq!(part(&blob(bytes)), hex(bytes));
            assert_eq!(captured(&hex(bytes)), Some(blob(bytes)));
        }
    }
}
