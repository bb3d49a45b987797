//! DEFAULT clauses that are plain literals, as values and back.

use syncline_protocol::Value;

/// The value of a literal; `None` for an expression, for NULL (no default says the same), and for
/// what can never be synced.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut text = text.trim();
    while let Some(inner) = text
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
    {
        text = inner.trim();
    }
    let value = match text.to_ascii_lowercase().as_str() {
        "true" => Some(Value::Integer(1)),
        "false" => Some(Value::Integer(0)),
        _ if text.starts_with('\'') => quoted(text, '\'').map(Value::Text),
        // SQLite takes a double-quoted default for a text.
        _ if text.starts_with('"') => quoted(text, '"').map(Value::Text),
        _ if text.starts_with(['x', 'X']) => blob(text.get(1..)?),
        _ => number(text),
    };
    value.filter(|value| value.validate().is_ok())
}

fn quoted(text: &str, quote: char) -> Option<String> {
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut plain = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        if letter == quote && letters.next() != Some(quote) {
            return None;
        }
        plain.push(letter);
    }
    Some(plain)
}

fn blob(text: &str) -> Option<Value> {
    let hex = quoted(text, '\'')?;
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    bytes.filter(|_| rest.is_empty()).map(Value::Blob)
}

fn number(text: &str) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits.trim_start()),
        None => (false, text.strip_prefix('+').unwrap_or(text).trim_start()),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let signed = match negative {
        true => format!("-{digits}"),
        false => digits.to_owned(),
    };
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(integer) = signed.parse()
    {
        return Some(Value::Integer(integer));
    }
    signed.parse().ok().map(Value::Real)
}

/// The value as a literal that reads back as the same value.
pub(super) fn write(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) if real.is_finite() => format!("{real:?}"),
        Value::Real(real) if *real < 0.0 => "-9e999".to_owned(),
        Value::Real(_) => "9e999".to_owned(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{hex}'")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_and_written() {
        for (text, value) in [
            ("0", Value::Integer(0)),
            (" -5 ", Value::Integer(-5)),
            ("+7", Value::Integer(7)),
            ("-9223372036854775808", Value::Integer(i64::MIN)),
            (
                "9223372036854775808",
                Value::Real(9_223_372_036_854_775_808.0),
            ),
            ("((1.5))", Value::Real(1.5)),
            ("-.5e3", Value::Real(-500.0)),
            ("9e999", Value::Real(f64::INFINITY)),
            ("-1e300", Value::Real(-1e300)),
            ("TRUE", Value::Integer(1)),
            ("'it''s; --'", Value::Text("it's; --".into())),
            ("\"say \"\"hi\"\"\"", Value::Text("say \"hi\"".into())),
            ("''", Value::Text(String::new())),
            ("x'00Ff'", Value::Blob(vec![0, 255])),
        ] {
            assert_eq!(parse(text), Some(value.clone()), "{text}");
            assert_eq!(parse(&write(&value)), Some(value), "{text}");
        }
    }

    #[test]
    fn expressions_are_no_literals() {
        for text in [
            "NULL",
            "CURRENT_TIMESTAMP",
            "1 + 1",
            "'a' || 'b'",
            "(1)+(2)",
            "x'0'",
            "x'zz'",
            "abs(-1)",
            "inf",
            "nan",
            "",
            "(",
            "'\0'",
            "0x1g",
            "--5",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
