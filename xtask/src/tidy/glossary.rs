//! One word per concept, in code, comments, SQL and documents.
//!
//! The table holds only phrases that are wrong wherever they stand; anything that needs judgement
//! is left to reviewers. Case, `_`, `-`, camel humps and a plural `s` make no difference.
//! Strings of Rust code and fenced blocks of documents may quote the words of others.

use super::Finding;
use super::links::without_fences;
use super::tree::Tree;

/// What is not said, and what is.
const WORDS: &[(&[&str], &str)] = &[
    (&["queue item", "outbox item", "outbox job"], "outbox entry"),
    (
        &["dead letter queue", "dlq", "poison message", "poison pill"],
        "dead letter",
    ),
    (
        &["sync token", "resume token", "continuation token"],
        "cursor",
    ),
    (&["changelog table", "change log table"], "feed"),
    (&["deletion marker", "delete marker"], "tombstone"),
    (&["dirty column"], "dirty field"),
    (&["shadow copy"], "base"),
    (&["idempotency token"], "idempotency key"),
    (&["conflict handler"], "resolver"),
];

/// No banned phrase anywhere.
pub(super) fn one_word_per_concept(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        findings.extend(check(file.path, &file.masked.prose));
    }
    for (path, text) in tree.ending(".sql") {
        findings.extend(check(path, text));
    }
    for (path, text) in tree.ending(".md") {
        findings.extend(check(path, &without_fences(text)));
    }
    findings
}

fn check(path: &str, text: &str) -> Vec<Finding> {
    let words = words(text);
    let mut findings = Vec::new();
    for start in 0..words.len() {
        for (banned, right) in WORDS {
            for phrase in *banned {
                if begins_with(&words[start..], phrase) {
                    let message = format!("\"{phrase}\" is called \"{right}\" here");
                    findings.push(Finding::new(path, words[start].line, message));
                }
            }
        }
    }
    findings
}

struct Word {
    lower: String,
    line: usize,
}

/// The words of a text in lower case; `dirtyField`, `dirty_field` and `dirty-field` are two each.
/// Punctuation stands as a word without letters, so that no phrase reaches over it.
fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start_matches(|c: char| c.is_whitespace() || "/!*->#".contains(c));
        let mut current = String::new();
        let mut finish = |current: &mut String| {
            words.push(Word {
                lower: std::mem::take(current),
                line: index + 1,
            });
        };
        let mut after_lower = false;
        for c in content.chars() {
            let hump = c.is_uppercase() && after_lower;
            if (hump || !c.is_alphanumeric()) && !current.is_empty() {
                finish(&mut current);
            }
            if c.is_alphanumeric() {
                current.extend(c.to_lowercase());
            } else if !c.is_whitespace() && !"_-*".contains(c) {
                finish(&mut current);
            }
            after_lower = c.is_lowercase() || c.is_ascii_digit();
        }
        if !current.is_empty() || content.is_empty() {
            finish(&mut current);
        }
    }
    words
}

/// Whether the words begin with the phrase, its last word in singular or plural.
fn begins_with(words: &[Word], phrase: &str) -> bool {
    // Nearly every word ends the search here.
    let first = words.first().map_or("", |word| &word.lower);
    if first.is_empty() || !phrase.starts_with(first.trim_end_matches('s')) {
        return false;
    }
    let parts: Vec<&str> = phrase.split(' ').collect();
    let Some(window) = words.get(..parts.len()) else {
        return false;
    };
    let last = parts.len() - 1;
    window
        .iter()
        .zip(&parts)
        .enumerate()
        .all(|(at, (word, part))| {
            word.lower == *part || (at == last && word.lower.strip_suffix('s') == Some(*part))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let found = one_word_per_concept(&Tree::of(&[(path, text)]));
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_banned_phrase_is_found_in_any_spelling() {
        let text = "a sync token\nSyncToken\nsync_tokens\nnextSyncToken\nSYNC-TOKEN\n";
        assert_eq!(lines("docs/a.md", text), [1, 2, 3, 4, 5]);
        assert_eq!(
            lines("crates/a/src/lib.rs", "// the DLQ\nfn dlq_len() {}\n"),
            [1, 2]
        );
        assert_eq!(lines("crates/a/src/a.sql", "-- a\n-- outbox items\n"), [2]);
    }

    #[test]
    fn a_phrase_may_break_over_lines() {
        assert_eq!(lines("docs/a.md", "the dead\nletter queue\n"), [1]);
        let text = "//! the outbox\n//! item\n";
        assert_eq!(lines("crates/a/src/lib.rs", text), [1]);
    }

    #[test]
    fn the_right_words_and_quotations_pass() {
        let text = "outbox entries, dead letters, cursor\n```\nsync_token=1\n```\n";
        assert!(lines("docs/a.md", text).is_empty());
        let text = "fn f() { g(\"syncToken\"); async_token(); sync(token); }\n";
        assert!(lines("crates/a/src/lib.rs", text).is_empty());
        assert!(lines("docs/a.md", "a queue\n\nitem; a queue. Items").is_empty());
    }

    #[test]
    fn the_message_names_both_words() {
        let found = one_word_per_concept(&Tree::of(&[("a.md", "queue items")]));
        assert_eq!(
            found[0].to_string(),
            "a.md:1: \"queue item\" is called \"outbox entry\" here"
        );
    }
}
