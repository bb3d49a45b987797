//! Takes the text of a CREATE INDEX apart: its terms and its WHERE clause.
//!
//! SQLite tells everything about an index but the text of expressions; that stands only in the
//! statement that made it. The text is used as it is, never interpreted.

/// The terms (without ASC and DESC) and the WHERE clause of a CREATE INDEX statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IndexSql {
    pub(super) terms: Vec<String>,
    pub(super) filter: Option<String>,
}

/// Takes the statement apart; `None` if it is not understood.
pub(super) fn parse(sql: &str) -> Option<IndexSql> {
    let pieces = pieces(sql)?;
    let open = pieces.iter().position(|piece| piece.text == "(")?;
    let close = open + pieces[open..].iter().position(|piece| piece.closes_to(0))?;

    let mut terms = Vec::new();
    let mut start = pieces[open].end;
    for piece in &pieces[open + 1..=close] {
        let separates = piece.text == "," && piece.depth == 1;
        if separates || piece.closes_to(0) {
            terms.push(without_direction(sql.get(start..piece.start)?));
            start = piece.end;
        }
    }
    let rest = pieces[close + 1..].iter().find(|piece| !piece.comment);
    let filter = match rest {
        None => None,
        Some(word) if word.text.eq_ignore_ascii_case("where") => {
            Some(sql.get(word.end..)?.trim().to_owned())
        }
        Some(_) => return None,
    };
    Some(IndexSql { terms, filter })
}

/// A word, a quoted name or text, a comment, or a single character.
struct Piece<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    /// How many parentheses are open after it.
    depth: usize,
    comment: bool,
}

impl Piece<'_> {
    fn closes_to(&self, depth: usize) -> bool {
        self.text == ")" && self.depth == depth
    }
}

fn pieces(sql: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut depth: usize = 0;
    let mut start = 0;
    while let Some(first) = sql[start..].chars().next() {
        let rest = &sql[start..];
        let length = match first {
            '\'' | '"' | '`' => quoted(rest, first)?,
            '[' => rest.find(']')? + 1,
            '-' if rest.starts_with("--") => rest.find('\n').map_or(rest.len(), |end| end + 1),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let text = &rest[..length];
        match text {
            "(" => depth += 1,
            ")" => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if !first.is_whitespace() {
            let comment = text.starts_with("--") || text.starts_with("/*");
            let end = start + length;
            pieces.push(Piece {
                text,
                start,
                end,
                depth,
                comment,
            });
        }
        start += length;
    }
    (depth == 0).then_some(pieces)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The length of the quoted piece at the start of `rest`, a doubled quote standing for itself.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut from = 1;
    loop {
        let end = from + rest[from..].find(quote)? + 1;
        if !rest[end..].starts_with(quote) {
            return Some(end);
        }
        from = end + 1;
    }
}

fn without_direction(term: &str) -> String {
    let term = term.trim();
    let word_start = term.rfind(|c| !is_word(c)).map_or(0, |at| {
        at + term[at..].chars().next().map_or(1, char::len_utf8)
    });
    let (before, word) = term.split_at(word_start);
    let direction = word.eq_ignore_ascii_case("asc") || word.eq_ignore_ascii_case("desc");
    if direction && !before.is_empty() {
        before.trim_end().to_owned()
    } else {
        term.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_and_filter_are_found() {
        for (sql, terms, filter) in [
            ("CREATE UNIQUE INDEX i ON t(a)", vec!["a"], None),
            (
                "CREATE UNIQUE INDEX \"i(\" ON [t (x)] (lower(a) DESC, b COLLATE nocase asc)",
                vec!["lower(a)", "b COLLATE nocase"],
                None,
            ),
            (
                "CREATE UNIQUE INDEX i ON t (coalesce(a, ',)', \"d\"\"(\") /* ) */, b)\nwhere a = ')' ",
                vec!["coalesce(a, ',)', \"d\"\"(\") /* ) */", "b"],
                Some("a = ')'"),
            ),
        ] {
            let terms = terms.into_iter().map(str::to_owned).collect();
            let filter = filter.map(str::to_owned);
            assert_eq!(parse(sql), Some(IndexSql { terms, filter }), "{sql}");
        }
    }

    #[test]
    fn what_is_no_index_is_not_understood() {
        for sql in ["", "CREATE", "CREATE INDEX i ON t(a", "x(a)) ", "x(a) else"] {
            assert_eq!(parse(sql), None, "{sql}");
        }
    }
}
