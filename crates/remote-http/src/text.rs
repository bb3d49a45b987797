//! Texts from outside made fit for a person's eye: bounded, on one line, without secrets.

/// The longest text from outside that goes into a detail, in characters.
const MAX_CHARS: usize = 400;

/// The text on one line, without control characters, cut to a readable length.
pub(crate) fn tame(text: &str) -> String {
    let mut tame: String = text
        .chars()
        .take(MAX_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        tame.push('…');
    }
    tame.trim().to_owned()
}

/// At most `max` bytes of the text, cut between characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Why JSON could not be read, without any of its values (serde's own message may quote them).
pub(crate) fn json_fault(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let what = match error.classify() {
        Category::Eof => "ends too early",
        Category::Syntax => "is not JSON",
        Category::Data => "has an unexpected shape",
        Category::Io => "could not be read",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// An error and its causes in one line, each said once.
#[cfg(feature = "reqwest")]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        cause = error.source();
    }
    tame(&said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_with_line_breaks_is_tamed() {
        let tame = tame(&format!("a\r\n\u{1b}[31m{}", "ü".repeat(1000)));
        assert!(tame.starts_with("a   [31mü"));
        assert_eq!(tame.chars().count(), MAX_CHARS + 1);
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aü", 2), "a");
        assert_eq!(cut("aü", 3), "aü");
        assert_eq!(cut("", 3), "");
    }

    #[test]
    fn a_json_fault_quotes_no_value() {
        let error = serde_json::from_str::<bool>("\"canary\"").unwrap_err();
        assert!(error.to_string().contains("canary"));
        assert!(!json_fault(&error).contains("canary"));
    }
}
