//! `cargo xtask tidy`: the house rules that a machine can check.
//!
//! The files are read once into a [`Tree`]; every rule is a pure function from a tree to findings,
//! so that its tests are small trees in memory.

mod glossary;
mod include_sql;
mod links;
mod mask;
mod packages;
mod purity;
mod shape;
mod tree;

use crate::Failure;
use std::fmt;
use std::path::Path;
use tree::Tree;

/// A broken rule, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    /// A finding in this line, counted from 1.
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        let (path, message) = (path.to_owned(), message.into());
        Finding {
            path,
            line,
            message,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A rule: what is wrong in this tree.
type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: &[Rule] = &[
    shape::opens_with_a_description,
    shape::files_are_short,
    shape::functions_are_short,
    shape::nothing_is_left_unfinished,
    glossary::one_word_per_concept,
    links::links_resolve,
    include_sql::sql_opens_with_a_comment,
    purity::core_stays_pure,
    packages::packages_have_a_description,
    packages::layers_hold,
];

/// Checks the repository below `root` and prints what it finds.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let tree = Tree::load(root)?;
    let findings = check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        return Err(Failure::Findings(findings.len()));
    }
    println!("tidy: {} files read, nothing found", tree.texts().count());
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(tree)).collect();
    findings.sort();
    findings
}

/// The line of this byte, counted from 1.
fn line_of(text: &str, byte: usize) -> usize {
    1 + text[..byte].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_all_rules_come_sorted_and_print_as_path_line_message() {
        let tree = Tree::of(&[
            ("docs/a.md", "one\n[x](gone.md)\n"),
            ("crates/b/src/lib.rs", "fn f() {}\n"),
        ]);
        let printed: Vec<String> = check(&tree).iter().map(Finding::to_string).collect();
        assert_eq!(printed.len(), 2);
        assert!(printed[0].starts_with("crates/b/src/lib.rs:1: "));
        assert!(printed[1].starts_with("docs/a.md:2: "));
    }

    #[test]
    fn a_clean_tree_has_no_findings() {
        let tree = Tree::of(&[("crates/b/src/lib.rs", "//! Fine.\nfn f() {}\n")]);
        assert_eq!(check(&tree), []);
    }
}
