//! The example in the project's README is the doctest of this crate, line by line.

use std::path::Path;

fn example(text: &str) -> Vec<&str> {
    let fenced = text
        .lines()
        .map(str::trim_end)
        .skip_while(|line| !line.starts_with("```rust"))
        .skip(1);
    fenced.take_while(|line| *line != "```").collect()
}

#[test]
fn the_readme_shows_the_doctest() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(here.join(path)).unwrap();
    let readme = read("../../README.md");
    let docs: String = read("src/lib.rs")
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{line}\n"))
        .collect();
    let docs = docs.replacen("```\n", "```rust\n", 1);
    let shown = example(&readme);
    assert!(!shown.is_empty(), "the README has no example");
    assert_eq!(shown, example(&docs));
}
