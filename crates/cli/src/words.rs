//! A command line in one argument, taken apart as a shell would, but without a shell: quotes keep
//! white space together, nothing is expanded.

/// The words of a line. `'…'` is taken as it is; in `"…"` and outside, `\` takes the next
/// character as it is.
pub(crate) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = line.chars();
    while let Some(next) = rest.next() {
        match (next, quote) {
            (end, Some(open)) if end == open => quote = None,
            ('\\', None | Some('"')) => match rest.next() {
                Some(taken) => word.get_or_insert_default().push(taken),
                None => return Err("it ends with a backslash".to_owned()),
            },
            ('\'' | '"', None) => {
                quote = Some(next);
                word.get_or_insert_default();
            }
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    match quote {
        Some(open) => Err(format!("a {open} is not closed")),
        None if words.is_empty() => Err("it names no program".to_owned()),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_a_shell_makes_of_them() {
        for (line, words) in [
            ("pass show syncline", vec!["pass", "show", "syncline"]),
            ("  a\tb  ", vec!["a", "b"]),
            ("'a b'c \"d 'e'\" ''", vec!["a bc", "d 'e'", ""]),
            (r#"a\ b "c\"d" 'e\f'"#, vec!["a b", "c\"d", "e\\f"]),
            ("sh -c 'echo $X; id'", vec!["sh", "-c", "echo $X; id"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for line in ["", "  ", "'a", "\"a", "a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
