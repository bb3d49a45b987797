//! Every SQL file that code includes opens with a comment: what it is, who runs it.

use super::tree::{Tree, resolve};
use super::{Finding, line_of};

const MACRO: &str = "include_str!";

/// Every `include_str!` of a `.sql` file leads to one that opens with a comment.
pub(super) fn sql_opens_with_a_comment(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (at, _) in file.masked.code.match_indices(MACRO) {
            // Strings are blank in the masked code; the path is read from the text as written.
            let Some(included) = literal(&file.text[at + MACRO.len()..]) else {
                continue;
            };
            if !included.ends_with(".sql") {
                continue;
            }
            let found = resolve(file.path, included).unwrap_or_default();
            match tree.text(&found) {
                Some(sql) if is_commented(sql) => {}
                Some(_) => findings.push(Finding::new(
                    &found,
                    1,
                    "the SQL file does not open with a comment",
                )),
                None => findings.push(Finding::new(
                    file.path,
                    line_of(file.text, at),
                    format!("`{included}` is included but is no file"),
                )),
            }
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// The string literal that is the macro's only argument.
fn literal(after_macro: &str) -> Option<&str> {
    let argument = after_macro.trim_start().strip_prefix(['(', '[', '{'])?;
    argument.trim_start().strip_prefix('"')?.split('"').next()
}

fn is_commented(sql: &str) -> bool {
    let sql = sql.trim_start();
    sql.starts_with("--") || sql.starts_with("/*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rust: &str, sql: &str) -> Vec<String> {
        let tree = Tree::of(&[("crates/a/src/b/mod.rs", rust), ("crates/a/sql/c.sql", sql)]);
        let found = sql_opens_with_a_comment(&tree);
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn included_sql_with_a_comment_passes() {
        let rust = "const C: &str = include_str!(\n    \"../../sql/c.sql\"\n);\n";
        assert!(found(rust, "\n-- What it is.\nSELECT 1;\n").is_empty());
        assert!(found(rust, "/* What it is. */\nSELECT 1;\n").is_empty());
    }

    #[test]
    fn included_sql_without_a_comment_is_found_once() {
        let rust = "include_str!(\"../../sql/c.sql\"); include_str!(\"../../sql/c.sql\");";
        assert_eq!(
            found(rust, "SELECT 1; -- late\n"),
            ["crates/a/sql/c.sql:1: the SQL file does not open with a comment"]
        );
    }

    #[test]
    fn missing_sql_is_found_where_it_is_included() {
        assert_eq!(found("//! a\ninclude_str!(\"gone.sql\");", "").len(), 1);
    }

    #[test]
    fn other_includes_and_mentions_are_ignored() {
        let rust =
            "// include_str!(\"../../sql/c.sql\")\ninclude_str!(\"x.txt\"); include_str!(x!());";
        assert!(found(rust, "SELECT 1;").is_empty());
    }
}
