//! JSON arrays as sets: both sides' additions and removals against the base.

use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::Value;

/// Deeper than this, values are compared as they are written.
const MAX_DEPTH: usize = 128;

/// A set as it is written: each element once, by its canonical form, in the order of the array.
struct Set<'a> {
    elements: Vec<(String, &'a str)>,
    keys: BTreeSet<String>,
}

impl<'a> Set<'a> {
    /// NULL and absent are the empty set; `None`: no JSON array.
    fn of(value: Option<&'a Value>) -> Option<Self> {
        let raw: Vec<&RawValue> = match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Text(text)) => serde_json::from_str(text).ok()?,
            Some(_) => return None,
        };
        let (mut elements, mut keys) = (Vec::new(), BTreeSet::new());
        for element in raw {
            let key = canonical(element.get(), MAX_DEPTH);
            if keys.insert(key.clone()) {
                elements.push((key, element.get()));
            }
        }
        Some(Self { elements, keys })
    }
}

/// Theirs without what was removed here, then what was added here. `None`: one of the three is no JSON
/// array. Where one side's text already says it, it stays byte for byte.
pub(super) fn merge(base: Option<&Value>, mine: &Value, theirs: &Value) -> Option<Value> {
    let (before, here, there) = (Set::of(base)?, Set::of(Some(mine))?, Set::of(Some(theirs))?);
    if here.keys.is_empty() && there.keys.is_empty() && (mine.is_null() || theirs.is_null()) {
        return Some(Value::Null);
    }
    let removed_here = |key: &String| before.keys.contains(key) && !here.keys.contains(key);
    let added_here = |key: &String| !before.keys.contains(key) && !there.keys.contains(key);
    let kept = there.elements.iter().filter(|(key, _)| !removed_here(key));
    let added = here.elements.iter().filter(|(key, _)| added_here(key));
    let merged: Vec<&(String, &str)> = kept.chain(added).collect();
    let says = |side: &Set<'_>| {
        let keys = side.elements.iter().map(|(key, _)| key);
        keys.eq(merged.iter().map(|(key, _)| key))
    };
    if says(&there) {
        return Some(theirs.clone());
    }
    if says(&here) {
        return Some(mine.clone());
    }
    let texts: Vec<&str> = merged.iter().map(|(_, text)| *text).collect();
    Some(Value::Text(format!("[{}]", texts.join(","))))
}

/// The same text for equal JSON: no space, keys in order, numbers by value, strings without needless
/// escapes. What cannot be read any further stands for itself.
fn canonical(json: &str, depth: usize) -> String {
    let json = json.trim();
    let Some(deeper) = depth.checked_sub(1) else {
        return json.to_owned();
    };
    let read = match json.as_bytes().first() {
        Some(b'{') => object(json, deeper),
        Some(b'[') => array(json, deeper),
        Some(b'"') => string(json),
        Some(b'-' | b'0'..=b'9') => decimal(json),
        _ => None,
    };
    read.unwrap_or_else(|| json.to_owned())
}

fn object(json: &str, depth: usize) -> Option<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
    let written = members.iter().map(|(key, value)| {
        let key = serde_json::to_string(key).ok()?;
        Some(format!("{key}:{}", canonical(value.get(), depth)))
    });
    let written: Option<Vec<String>> = written.collect();
    Some(format!("{{{}}}", written?.join(",")))
}

fn array(json: &str, depth: usize) -> Option<String> {
    let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let elements = elements.iter().map(|one| canonical(one.get(), depth));
    Some(format!("[{}]", elements.collect::<Vec<_>>().join(",")))
}

fn string(json: &str) -> Option<String> {
    let text: String = serde_json::from_str(json).ok()?;
    serde_json::to_string(&text).ok()
}

/// A number as its digits without zeros at either end, times a power of ten: exact, however long.
fn decimal(json: &str) -> Option<String> {
    let (sign, unsigned) = match json.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", json),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let behind_point = i64::try_from(fraction.len()).ok()?;
    let exponent = exponent.checked_sub(behind_point)?.checked_add(zeros)?;
    match significant.trim_start_matches('0') {
        "" => Some("0".to_owned()),
        significant => Some(format!("{sign}{significant}e{exponent}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_json_has_one_canonical_form() {
        for (one, other, equal) in [
            (r#"{"a":1,"b":[1,2]}"#, r#"{ "b" : [1, 2], "a" : 1 }"#, true),
            (r#"{"a":[2,1]}"#, r#"{"a":[1,2]}"#, false),
            ("1", "1.0", true),
            ("100", "1e2", true),
            ("0.001", "1E-3", true),
            ("-0", "0.0", true),
            ("-1", "1", false),
            ("10", "1", false),
            ("9007199254740993", "9007199254740992", false),
            ("18446744073709551617", "18446744073709551616", false),
            (r#""a""#, r#""\u0061""#, true),
            (r#""1""#, "1", false),
            ("null", r#""null""#, false),
            ("true", "false", false),
        ] {
            let same = canonical(one, MAX_DEPTH) == canonical(other, MAX_DEPTH);
            assert_eq!(same, equal, "{one} and {other}");
        }
    }

    #[test]
    fn odd_json_is_merged_without_a_panic() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        for odd in [
            r#"["\ud800"]"#,
            r#"[{"\ud800":1}]"#,
            "[1e99999999999999999999]",
            r#"[{"a":1,"a":2}]"#,
            deep.as_str(),
        ] {
            let merged = merge(None, &Value::from(odd), &Value::from("[7]"));
            assert!(merged.is_some(), "{}", odd.get(..20).unwrap_or(odd));
        }
    }
}
