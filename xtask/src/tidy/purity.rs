//! The core reads no clock, rolls no dice, does no I/O and names no database.
//!
//! The rule reads the paths in the sources of `crates/core`, `use` trees expanded; it cannot see
//! through macros. What a dependency does is the business of the layer rule.

use super::tree::Tree;
use super::{Finding, line_of};

/// Where the core's sources are.
const CORE: &str = "crates/core/src/";

/// Path prefixes that the core must not use, and why.
const BANNED: &[(&str, &str)] = &[
    ("std::time", "time comes in with the input"),
    ("std::fs", "the core does no I/O"),
    ("std::net", "the core does no I/O"),
    ("std::process", "the core does no I/O"),
    ("std::env", "the core does no I/O"),
    ("std::thread", "the driver owns the threads"),
    ("rand", "randomness comes from the seeded generator"),
    ("getrandom", "randomness comes from the seeded generator"),
    ("rusqlite", "the store owns the database"),
    ("tokio", "the driver owns the runtime"),
];

/// What of the banned is allowed all the same.
const ALLOWED: &[&str] = &["std::time::Duration"];

/// The core uses nothing that would make it impure.
pub(super) fn core_stays_pure(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| file.path.starts_with(CORE)) {
        for used in paths(&file.masked.code) {
            if let Some(why) = reason_against(&used.path) {
                let message = format!("`{}` in the core: {why}", used.path);
                let line = line_of(&file.masked.code, used.at);
                findings.push(Finding::new(file.path, line, message));
            }
        }
    }
    findings
}

fn reason_against(path: &str) -> Option<&'static str> {
    let below = |prefix: &str| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    if ALLOWED.iter().any(|allowed| below(allowed)) {
        return None;
    }
    let banned = BANNED.iter().find(|(prefix, _)| below(prefix));
    banned.map(|(_, why)| *why)
}

#[derive(Debug, PartialEq, Eq)]
struct UsedPath {
    path: String,
    at: usize,
}

/// Every path with `::` in it; `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<UsedPath> {
    let mut reader = Reader { code, at: 0 };
    let mut found = Vec::new();
    while let Some(c) = reader.rest().chars().next() {
        if is_word(c) {
            reader.path(String::new(), &mut found);
        } else {
            reader.at += c.len_utf8();
        }
    }
    found.retain(|used| used.path.contains("::"));
    found
}

struct Reader<'a> {
    code: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.code[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Reads a path or a `use` tree behind `prefix`.
    fn path(&mut self, prefix: String, found: &mut Vec<UsedPath>) {
        let at = self.at;
        let word = self.word();
        let path = match (prefix.is_empty(), word) {
            (true, word) => word.to_owned(),
            (false, "self") => prefix,
            (false, word) => format!("{prefix}::{word}"),
        };
        if !self.rest().starts_with("::") {
            found.push(UsedPath { path, at });
            return;
        }
        self.at += 2;
        match self.rest().chars().next() {
            Some('{') => self.group(&path, found),
            Some(c) if is_word(c) || c == '*' => self.path(path, found),
            _ => found.push(UsedPath { path, at }),
        }
    }

    /// Reads `{…}` behind `prefix::`.
    fn group(&mut self, prefix: &str, found: &mut Vec<UsedPath>) {
        self.at += 1;
        loop {
            self.skip_space();
            match self.rest().chars().next() {
                Some(c) if is_word(c) || c == '*' => self.path(prefix.to_owned(), found),
                Some(',') => self.at += 1,
                Some('}') => {
                    self.at += 1;
                    return;
                }
                _ => return,
            }
            self.skip_alias();
        }
    }

    fn skip_alias(&mut self) {
        self.skip_space();
        if self.rest().starts_with("as ") {
            self.at += 3;
            self.skip_space();
            self.word();
        }
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let length = match rest.starts_with('*') {
            true => 1,
            false => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let found = core_stays_pure(&Tree::of(&[(path, text)]));
        let describe = |finding: &Finding| format!("{} {}", finding.line, finding.message);
        found.iter().map(describe).collect()
    }

    #[test]
    fn paths_and_use_trees_are_read() {
        let code = "use a::{self, b::{c as d, *}, e};\nlet x = f::g::<h::I>(j);\nuse std::k as l;";
        let found: Vec<_> = paths(code).into_iter().map(|used| used.path).collect();
        assert_eq!(
            found,
            ["a::b::c", "a::b::*", "a::e", "f::g", "h::I", "std::k"]
        );
    }

    #[test]
    fn clocks_dice_and_io_are_found() {
        let text = "use std::{\n    time::{Duration, Instant},\n    fs,\n};\n\
            fn f() { std::time::SystemTime::now(); rand::random(); std::thread::sleep(x) }\n";
        let found = found("crates/core/src/retry.rs", text);
        assert_eq!(found.len(), 5);
        assert_eq!(
            found[0],
            "2 `std::time::Instant` in the core: time comes in with the input"
        );
        assert!(found[1].starts_with("3 `std::fs`"));
        assert!(found[2].starts_with("5 `std::time::SystemTime::now`"));
    }

    #[test]
    fn the_core_may_speak_of_durations_and_of_clocks_in_prose() {
        let text = "//! Never std::time::Instant.\nuse std::time::Duration;\n\
            fn f() { g(\"std::fs\", crate::rand::next(), std::collections::BTreeMap::new()) }\n";
        assert!(found("crates/core/src/lib.rs", text).is_empty());
    }

    #[test]
    fn other_crates_may_read_the_clock() {
        let text = "use std::time::Instant;\n";
        assert!(found("crates/client/src/lib.rs", text).is_empty());
        assert!(found("crates/core/tests/speed.rs", text).is_empty());
    }
}
