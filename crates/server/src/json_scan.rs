//! A first look at JSON, before any parser recurses into it: how deep it is nested, and whether its
//! integers fit 64 bits.
//!
//! The parser would turn an integer beyond 64 bits into the nearest REAL without a word; here it is
//! refused. Never says whether the text is JSON at all.

/// The deepest nesting of arrays and objects in a request.
pub(crate) const MAX_DEPTH: usize = 32;

/// What the parser must not be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonFlaw {
    #[error("the JSON is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("an integer does not fit 64 signed bits; write it as a text or as a REAL")]
    IntegerTooLarge,
}

/// Looks through the text once.
pub(crate) fn scan(json: &[u8]) -> Result<(), JsonFlaw> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(json, at),
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(JsonFlaw::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                let end = number_end(json, at);
                check_number(json.get(at - 1..end).unwrap_or_default())?;
                at = end;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The place behind the closing quote.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            b'"' => break,
            _ => {}
        }
    }
    at
}

fn number_end(json: &[u8], start: usize) -> usize {
    let rest = json.get(start..).unwrap_or_default();
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    start + rest.iter().take_while(|byte| is_part(byte)).count()
}

fn check_number(number: &[u8]) -> Result<(), JsonFlaw> {
    const SURELY_FITS: usize = 18;
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let negative_zero = digits == b"0" && number.len() == 2;
    let suspicious = digits.len() > SURELY_FITS || negative_zero;
    if !suspicious || !digits.iter().all(u8::is_ascii_digit) {
        return Ok(()); // small, a REAL, or for the parser to refuse
    }
    let text = std::str::from_utf8(number).unwrap_or_default();
    if negative_zero || text.parse::<i64>().is_err() {
        return Err(JsonFlaw::IntegerTooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_only_outside_of_strings() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(scan(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(scan(&nested(MAX_DEPTH + 1)), Err(JsonFlaw::TooDeep));
        assert_eq!(scan(&vec![b'{'; 100_000]), Err(JsonFlaw::TooDeep));
        let text = format!("\"\\\"{}\\\\\",1", "[".repeat(100));
        assert_eq!(scan(text.as_bytes()), Ok(()));
        assert_eq!(scan(b"\"\\"), Ok(()));
    }

    #[test]
    fn integers_fit_or_are_refused() {
        for good in [
            "9223372036854775807",
            "-9223372036854775808",
            "[0,-1,1.0,-0.0,1e300]",
            "123456789012345678901234567890.0",
            "1e0000000000000000000000000000",
            "\"99999999999999999999\"",
            "-",
        ] {
            assert_eq!(scan(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "9223372036854775808",
            "-9223372036854775809",
            "{\"a\":18446744073709551616}",
            "[1,-0]",
        ] {
            let found = scan(bad.as_bytes());
            assert_eq!(found, Err(JsonFlaw::IntegerTooLarge), "{bad}");
        }
    }
}
