//! A bound on the nesting of JSON, checked before any parser recurses into it.
//!
//! Only counts brackets outside of strings; it never says whether the text is JSON at all.

/// The deepest nesting of arrays and objects in a request.
pub(crate) const MAX_DEPTH: usize = 32;

/// Whether the nesting goes beyond [`MAX_DEPTH`].
pub(crate) fn too_deep(json: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => {
                bytes.next();
            }
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_only_outside_of_strings() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(!too_deep(&nested(MAX_DEPTH)));
        assert!(too_deep(&nested(MAX_DEPTH + 1)));
        assert!(too_deep(&vec![b'{'; 100_000]));
        let text = format!("\"\\\"{}\"", "[".repeat(100));
        assert!(!too_deep(text.as_bytes()));
    }
}
