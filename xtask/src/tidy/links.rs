//! Relative links of Markdown files lead to a file that exists, and to a heading that exists.
//!
//! Links to other hosts are not followed. Read are inline links and images, and reference
//! definitions; headings in the `#` style; anchors as GitHub makes them, and `<a id="…">`.

use super::tree::{Tree, resolve};
use super::{Finding, line_of};
use std::collections::{BTreeMap, BTreeSet};

/// Every relative link resolves.
pub(super) fn links_resolve(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        for link in links(text) {
            if let Some(message) = problem(tree, path, &link.target) {
                findings.push(Finding::new(path, link.line, message));
            }
        }
    }
    findings
}

struct Link {
    target: String,
    line: usize,
}

/// What is wrong with this link of this file.
fn problem(tree: &Tree, path: &str, target: &str) -> Option<String> {
    if leaves_the_files(target) {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = file.split('?').next().unwrap_or(file).replace("%20", " ");
    let Some(found) = (if file.is_empty() {
        Some(path.to_owned())
    } else {
        resolve(path, &file)
    }) else {
        return Some(format!("the link `{target}` leaves the repository"));
    };
    if !tree.exists(&found) {
        return Some(format!("the link `{target}` leads to no file"));
    }
    let text = tree.text(&found).filter(|_| found.ends_with(".md"))?;
    let missing = !anchor.is_empty() && !anchors(text).contains(anchor);
    missing.then(|| format!("the link `{target}` leads to no heading of {found}"))
}

/// Whether the link has a scheme (`https:`, `mailto:`) or names a host.
fn leaves_the_files(target: &str) -> bool {
    let scheme = target.split(['/', '#', '?']).next().unwrap_or(target);
    scheme.contains(':') || target.starts_with("//")
}

fn links(text: &str) -> Vec<Link> {
    let text = without_code(text);
    let mut links = Vec::new();
    for (at, _) in text.match_indices("](") {
        if let Some(target) = target(&text[at + 2..], ')') {
            let line = line_of(&text, at);
            links.push(Link { target, line });
        }
    }
    for (index, line) in text.lines().enumerate() {
        let definition = line.trim_start().strip_prefix('[');
        let Some((label, rest)) = definition.and_then(|rest| rest.split_once("]:")) else {
            continue;
        };
        if label.starts_with('^') || label.contains(']') {
            continue;
        }
        if let Some(target) = target(rest.trim_start(), '\n') {
            let line = index + 1;
            links.push(Link { target, line });
        }
    }
    links
}

/// The link target at the start: in angle brackets, or up to a space or the closing character.
fn target(rest: &str, close: char) -> Option<String> {
    let target = match rest.strip_prefix('<') {
        Some(angled) => angled.split('>').next()?,
        None => rest
            .split(|c: char| c == close || c.is_whitespace())
            .next()?,
    };
    (!target.is_empty()).then(|| target.to_owned())
}

/// The text with its fenced blocks blank; lines stay.
pub(super) fn without_fences(text: &str) -> String {
    let mut fence: Option<&str> = None;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let content = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|m| content.starts_with(m));
        match (fence, mark) {
            (None, None) => kept.push_str(line),
            (None, opened) => fence = opened,
            (Some(_), closed) if closed == fence => fence = None,
            (Some(_), _) => {}
        }
        kept.push('\n');
    }
    kept
}

/// The text with its fenced blocks and code spans blank; lines stay.
fn without_code(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in without_fences(text).lines() {
        let mut parts = line.split('`');
        kept.push_str(parts.next().unwrap_or_default());
        // A backtick without a partner opens nothing.
        while let Some(inside) = parts.next() {
            match parts.next() {
                Some(outside) => kept.push_str(outside),
                None => kept.push_str(inside),
            }
        }
        kept.push('\n');
    }
    kept
}

/// The anchors of a Markdown text.
fn anchors(text: &str) -> BTreeSet<String> {
    let text = without_fences(text);
    let mut anchors = BTreeSet::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some(title) = heading(line) {
            let slug = slug(title);
            let times = seen.entry(slug.clone()).or_default();
            anchors.insert(match *times {
                0 => slug,
                again => format!("{slug}-{again}"),
            });
            *times += 1;
        }
        for opening in ["id=\"", "name=\""] {
            let explicit = line.split(opening).skip(1);
            anchors.extend(explicit.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
        }
    }
    anchors
}

fn heading(line: &str) -> Option<&str> {
    let title = line.trim_start_matches('#');
    let level = line.len() - title.len();
    ((1..=6).contains(&level) && title.starts_with(' ')).then(|| title.trim())
}

/// The anchor that GitHub gives a heading: letters, digits, `_`, `-`, and `-` for each space.
fn slug(title: &str) -> String {
    let mut slug = String::new();
    let mut in_target = false;
    let mut before = ' ';
    for c in title.chars() {
        in_target = (in_target && before != ')') || (c == '(' && before == ']');
        if !in_target {
            match c {
                ' ' => slug.push('-'),
                c if c.is_alphanumeric() || matches!(c, '_' | '-') => slug.extend(c.to_lowercase()),
                _ => {}
            }
        }
        before = c;
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("docs/a.md", text),
            ("docs/b c.md", "# One\n"),
            (
                "README.md",
                "# The `Engine`, in short\n## Twice\n## Twice\n<a id=\"here\"></a>\n",
            ),
            ("crates/core/src/lib.rs", ""),
        ]);
        let found = links_resolve(&tree);
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn links_to_files_folders_and_headings_pass() {
        let text = "# Own\n[a](../README.md) [b](../crates/core/) ![c](/crates/core/src/lib.rs#L3)\n\
            [d](#own) [e](../README.md#the-engine-in-short) [f](../README.md#twice-1 \"title\")\n\
            [g](../README.md#here) [h](<b c.md>) [i](b%20c.md#one) [j](https://x.example/y#z)\n\
            [k](mailto:a@x.example)\n\n[ref]: ../README.md#twice\n[^1]: a note\n";
        assert_eq!(messages(text), Vec::<String>::new());
    }

    #[test]
    fn broken_links_are_found_with_their_line() {
        let found =
            messages("x\n[a](gone.md)\n[b](../README.md#gone)\n[c](../../x)\n\n[d]: gone\n");
        assert_eq!(
            found,
            [
                "docs/a.md:2: the link `gone.md` leads to no file",
                "docs/a.md:3: the link `../README.md#gone` leads to no heading of README.md",
                "docs/a.md:4: the link `../../x` leaves the repository",
                "docs/a.md:6: the link `gone` leads to no file",
            ]
        );
    }

    #[test]
    fn links_in_code_are_not_links() {
        assert!(messages("`[a](gone)` and ``\n```md\n[b](gone)\n```\n").is_empty());
        assert_eq!(messages("a ` b [c](gone)\n").len(), 1);
    }

    #[test]
    fn headings_in_fences_are_no_anchors() {
        assert_eq!(messages("```sh\n# install\n```\n[a](#install)\n").len(), 1);
    }

    #[test]
    fn slugs_are_those_of_github() {
        assert_eq!(slug("A [link](x.md) & more"), "a-link--more");
        assert_eq!(slug("`syncline_outbox`: what?"), "syncline_outbox-what");
        assert_eq!(slug("Über-uns 2"), "über-uns-2");
    }
}
