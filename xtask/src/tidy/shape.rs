//! Rules about the shape of Rust files: their opening, their length, the length of functions,
//! and that nothing in them is left for later.

use super::tree::{RustFile, Tree};
use super::{Finding, line_of};

/// The longest file, in lines.
const MAX_FILE_LINES: usize = 600;

/// The longest function, in lines from `fn` to the closing brace.
const MAX_FUNCTION_LINES: usize = 70;

/// The same in a `tests` folder, where a function may be one long table of cases.
const MAX_TEST_LINES: usize = 120;

/// What marks something as unfinished, in code and comments.
const UNFINISHED_WORDS: &[&str] = &["TODO", "FIXME", "XXX"];

/// What marks something as unfinished, in code only.
const UNFINISHED_CODE: &[&str] = &["todo!", "#[ignore"];

/// Every file opens with `//!`: what it is, what it must never do.
pub(super) fn opens_with_a_description(tree: &Tree) -> Vec<Finding> {
    let is_described = |text: &str| {
        let first = text.lines().find(|line| !line.trim().is_empty());
        first.is_some_and(|line| line.starts_with("//!"))
    };
    tree.rust()
        .filter(|file| !is_described(file.text))
        .map(|file| Finding::new(file.path, 1, "the file does not open with a `//!` comment"))
        .collect()
}

/// No file is too long.
pub(super) fn files_are_short(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .map(|file| (file.path, file.text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .map(|(path, lines)| {
            let message = format!("the file has {lines} lines; at most {MAX_FILE_LINES}");
            Finding::new(path, MAX_FILE_LINES + 1, message)
        })
        .collect()
}

/// No function is too long.
pub(super) fn functions_are_short(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .flat_map(|file| {
            let in_tests = file.path.contains("/tests/");
            let most = if in_tests {
                MAX_TEST_LINES
            } else {
                MAX_FUNCTION_LINES
            };
            let long = functions(&file.masked.code).into_iter();
            long.filter(|function| function.lines > most)
                .map(|function| {
                    let (name, lines) = (&function.name, function.lines);
                    let message = format!("`fn {name}` has {lines} lines; at most {most}");
                    Finding::new(file.path, function.line, message)
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Every function with a body.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let inside_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if inside_word {
            continue;
        }
        if let Some(end) = body_end(code, at) {
            let name: String = code[at + 3..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '#' | '$'))
                .collect();
            let line = line_of(code, at);
            let lines = line_of(code, end) - line + 1;
            found.push(Function { name, line, lines });
        }
    }
    found
}

/// Where the body closes of the function that starts here; `None` if it has none.
fn body_end(code: &str, start: usize) -> Option<usize> {
    // Parentheses and brackets hide the `;` of `[u8; 4]`; outside of them, `;` means no body.
    let (mut nested, mut braces) = (0_usize, 0_usize);
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested = nested.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return (braces == 1).then_some(at),
            b'}' => braces -= 1,
            b';' if nested == 0 && braces == 0 => return None,
            _ => {}
        }
    }
    None
}

/// No marker of unfinished work, no test that is skipped.
pub(super) fn nothing_is_left_unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = tree.rust().flat_map(|file| unfinished(&file)).collect();
    for (path, text) in tree.ending(".sql") {
        findings.extend(marked(path, text, UNFINISHED_WORDS));
    }
    findings
}

fn unfinished(file: &RustFile<'_>) -> Vec<Finding> {
    let mut findings = marked(file.path, &file.masked.prose, UNFINISHED_WORDS);
    findings.extend(marked(file.path, &file.masked.code, UNFINISHED_CODE));
    findings
}

fn marked(path: &str, view: &str, markers: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for marker in markers {
        for (at, _) in view.match_indices(marker) {
            if stands_alone(view, at, marker) {
                let message = format!("`{marker}`: finish it or take it out");
                findings.push(Finding::new(path, line_of(view, at), message));
            }
        }
    }
    findings
}

/// Whether what was found at `at` is no part of a longer word.
fn stands_alone(view: &str, at: usize, found: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    !view[..at].ends_with(in_word) && !view[at + found.len()..].starts_with(in_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Tree {
        Tree::of(&[("crates/a/src/lib.rs", text)])
    }

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_file_opens_with_a_description() {
        let found = |text| opens_with_a_description(&file(text)).len();
        assert_eq!(found("\n//! What it is.\nfn f() {}\n"), 0);
        assert_eq!(found("// no doc\n//! What it is.\n"), 1);
        assert_eq!(found("/// the function\nfn f() {}\n"), 1);
        assert_eq!(found(""), 1);
    }

    #[test]
    fn a_file_has_at_most_so_many_lines() {
        assert_eq!(files_are_short(&file(&"x\n".repeat(600))), []);
        assert_eq!(lines(&files_are_short(&file(&"x\n".repeat(601)))), [601]);
    }

    #[test]
    fn a_function_has_at_most_so_many_lines() {
        let function = |body| format!("\n    fn f() {{\n{}    }}\n", "        g();\n".repeat(body));
        assert_eq!(functions_are_short(&file(&function(68))), []);
        let found = functions_are_short(&file(&function(69)));
        assert_eq!(lines(&found), [2]);
        assert_eq!(found[0].message, "`fn f` has 71 lines; at most 70");
        let table = |body| Tree::of(&[("crates/a/tests/t.rs", &function(body))]);
        assert_eq!(functions_are_short(&table(118)), []);
        assert_eq!(functions_are_short(&table(119)).len(), 1);
    }

    #[test]
    fn functions_are_found_with_any_header() {
        let code = "
pub(crate) async fn one<T: Into<[u8; 4]>>(
    a: [u8; 4],
) -> T
where
    T: Copy,
{
    if a { b } else { c }
}
trait T {
    fn none(&self) -> [u8; 4];
    fn none_either<X>() where X: Copy;
    fn two(&self) { }
}
type Pointer = fn (u8) -> u8;
macro_rules! m { () => { fn $three() {
} } }
";
        let found = functions(code);
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.lines)).collect();
        assert_eq!(found, [("one", 8), ("two", 1), ("$three", 2)]);
    }

    #[test]
    fn braces_in_strings_do_not_end_a_function() {
        let body = "g(\"}\"); // }\n".repeat(70);
        let found = functions_are_short(&file(&format!("fn f() {{\n{body}}}\n")));
        assert_eq!(lines(&found), [1]);
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments() {
        let text =
            "//! x\n// TODO: y\n#[ignore = \"slow\"]\nfn f() { todo!() }\n/* XXX */ // FIXME\n";
        let mut found = lines(&nothing_is_left_unfinished(&file(text)));
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4, 5, 5]);
        let sql = Tree::of(&[("crates/a/src/a.sql", "-- a\n-- TODO b\n")]);
        assert_eq!(lines(&nothing_is_left_unfinished(&sql)), [2]);
    }

    #[test]
    fn words_that_only_look_unfinished_are_fine() {
        let text =
            "//! `todo!` and #[ignore] in prose\nfn f() { g(\"TODO list\", TODOS, XXXX); }\n";
        assert_eq!(nothing_is_left_unfinished(&file(text)), []);
    }
}
