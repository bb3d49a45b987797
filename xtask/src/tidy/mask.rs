//! Views of a Rust file with its strings, or its strings and comments, blanked out.
//!
//! A view has the same bytes at the same places, except that what is masked is spaces: lines and
//! columns stay true, and a brace or a word in a string never counts. This is a lexer for code
//! that compiles; it makes no promise about anything else.

/// The two views.
#[derive(Debug)]
pub(super) struct Masked {
    /// Code and comments; strings and characters are blank.
    pub(super) prose: String,
    /// Code only.
    pub(super) code: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl Masked {
    /// Masks a file.
    pub(super) fn new(text: &str) -> Self {
        let mut prose = String::with_capacity(text.len());
        let mut code = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let (kind, length) = token(rest);
            let (token, after) = rest.split_at(length);
            let blank = blank(token);
            prose.push_str(if kind == Kind::Literal { &blank } else { token });
            code.push_str(if kind == Kind::Code { token } else { &blank });
            rest = after;
        }
        Masked { prose, code }
    }
}

/// As many spaces as the token has bytes; its line ends stay.
fn blank(token: &str) -> String {
    let blank_byte = |byte| if byte == b'\n' { '\n' } else { ' ' };
    token.bytes().map(blank_byte).collect()
}

/// What the text starts with, and how many bytes that has: at least one.
fn token(rest: &str) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if rest.starts_with('"') {
        return (Kind::Literal, quoted(rest, '"'));
    }
    if rest.starts_with('\'') {
        return match character(rest) {
            Some(length) => (Kind::Literal, length),
            None => (Kind::Code, 1),
        };
    }
    let word = word_length(rest);
    if word > 0 {
        return match raw_string(rest, word) {
            Some(length) => (Kind::Literal, length),
            None => (Kind::Code, word),
        };
    }
    (Kind::Code, rest.chars().next().map_or(1, char::len_utf8))
}

/// The length of the identifier, keyword or number at the start.
fn word_length(rest: &str) -> usize {
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    end.unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    let bytes = rest.as_bytes();
    while at < bytes.len() {
        match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a literal with escapes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.chars().skip(1);
    let first = chars.next()?;
    (first == '\\' || chars.next() == Some('\'')).then(|| quoted(rest, '\''))
}

/// The length of `r"…"` or `br##"…"##`, given the length of the word before the quotes.
fn raw_string(rest: &str, word: usize) -> Option<usize> {
    if !matches!(&rest[..word], "r" | "br" | "cr") {
        return None;
    }
    let after = &rest[word..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(word + hashes + 1 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let masked = Masked::new(text);
        assert_eq!(masked.code.len(), text.len());
        assert_eq!(masked.prose.len(), text.len());
        masked.code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blank_in_code() {
        assert_eq!(code("a // { b\nc"), "a c");
        assert_eq!(code("a /* { /* b */ */ c"), "a c");
        assert_eq!(code(r#"a("{ \" b", c)"#), "a( , c)");
        assert_eq!(
            code(r"match c { '{' | '\'' | '\\' | '“' => d }"),
            "match c { | | | => d }"
        );
        assert_eq!(code("r#\"{ \" b\"# + br\"\\\" + r#type"), "+ + r#type");
        assert_eq!(code("b\"{\" b'}'"), "b b");
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(
            code("'outer: loop { break 'outer; }"),
            "'outer: loop { break 'outer; }"
        );
    }

    #[test]
    fn prose_keeps_comments_and_line_ends() {
        let masked = Masked::new("a // é b\n\"c\nd\" /* e\n */ f\n");
        assert_eq!(masked.prose, "a // é b\n  \n   /* e\n */ f\n");
        assert_eq!(masked.code.lines().count(), 4);
    }
}
