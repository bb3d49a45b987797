//! The files that the rules look at, in memory, by their path from the root with `/`.
//!
//! Texts are kept for the kinds of files that have rules; of everything else only the path is
//! known, so that links to it resolve.

use super::mask::Masked;
use crate::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Folders with nothing of ours in them, wherever they stand.
const SKIPPED: &[&str] = &[".git", ".venv", "__pycache__", "node_modules", "target"];

/// The folders whose Rust files obey the rules.
const RUST_ROOTS: &[&str] = &[
    "bench/",
    "bindings/",
    "crates/",
    "examples/",
    "fuzz/",
    "xtask/",
];

/// The files of a repository.
#[derive(Debug, Default)]
pub(super) struct Tree {
    texts: BTreeMap<String, String>,
    masked: BTreeMap<String, Masked>,
    paths: BTreeSet<String>,
}

/// A Rust file: as written, and with its strings and comments masked.
pub(super) struct RustFile<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    pub(super) masked: &'a Masked,
}

impl Tree {
    /// Reads everything below `root`.
    pub(super) fn load(root: &Path) -> Result<Self, Failure> {
        let mut tree = Tree::default();
        tree.load_folder(root, "")?;
        Ok(tree)
    }

    fn load_folder(&mut self, folder: &Path, prefix: &str) -> Result<(), Failure> {
        let failure = |error| Failure::Read(folder.to_path_buf(), error);
        for entry in fs::read_dir(folder).map_err(failure)? {
            let entry = entry.map_err(failure)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.file_type().map_err(failure)?.is_dir() {
                self.load_folder(&entry.path(), &format!("{path}/"))?;
            } else if has_rules(&path) {
                let text = fs::read_to_string(entry.path())
                    .map_err(|error| Failure::Read(entry.path(), error))?;
                self.insert(&path, text);
            }
            self.paths.insert(path);
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, text: String) {
        if path.ends_with(".rs") && RUST_ROOTS.iter().any(|root| path.starts_with(root)) {
            self.masked.insert(path.to_owned(), Masked::new(&text));
        }
        self.texts.insert(path.to_owned(), text);
    }

    /// A tree of these files.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.insert(path, (*text).to_owned());
            for (slash, _) in path.match_indices('/') {
                tree.paths.insert(path[..slash].to_owned());
            }
            tree.paths.insert((*path).to_owned());
        }
        tree
    }

    /// Whether a file or folder has this path.
    pub(super) fn exists(&self, path: &str) -> bool {
        path.is_empty() || self.paths.contains(path)
    }

    /// The text of this file, if its kind has rules.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// All files with rules: path and text.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files whose path ends like this.
    pub(super) fn ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(move |(path, _)| path.ends_with(end))
    }

    /// The Rust files that obey the rules.
    pub(super) fn rust(&self) -> impl Iterator<Item = RustFile<'_>> {
        self.masked.iter().filter_map(|(path, masked)| {
            let text = self.text(path)?;
            Some(RustFile { path, text, masked })
        })
    }
}

fn has_rules(path: &str) -> bool {
    [".rs", ".md", ".sql"].iter().any(|end| path.ends_with(end)) || is_manifest(path)
}

/// Whether this is a package's or workspace's manifest.
pub(super) fn is_manifest(path: &str) -> bool {
    path == "Cargo.toml" || path.ends_with("/Cargo.toml")
}

/// The path that `relative` means in the folder of `file`; `None` when it leaves the repository.
pub(super) fn resolve(file: &str, relative: &str) -> Option<String> {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let (start, relative) = match relative.strip_prefix('/') {
        Some(from_root) => ("", from_root),
        None => (folder, relative),
    };
    let mut parts: Vec<&str> = start.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_resolve_from_the_folder_of_the_file() {
        let resolved = |relative| resolve("docs/adr/1.md", relative);
        assert_eq!(resolved("2.md").unwrap(), "docs/adr/2.md");
        assert_eq!(resolved("../../crates/./core/").unwrap(), "crates/core");
        assert_eq!(resolved("/README.md").unwrap(), "README.md");
        assert_eq!(resolved("../..").unwrap(), "");
        assert_eq!(resolved("../../../etc"), None);
    }

    #[test]
    fn this_package_is_loaded_with_its_folders_and_without_its_builds() {
        let tree = Tree::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(tree.exists("src/tidy"));
        assert!(!tree.exists("target"));
        assert!(tree.text("src/tidy/tree.rs").is_some());
        assert!(tree.text("Cargo.toml").is_some());
    }

    #[test]
    fn rust_outside_the_workspace_folders_has_no_rules() {
        let tree = Tree::of(&[("docs/sample.rs", ""), ("bench/src/main.rs", "")]);
        let paths: Vec<_> = tree.rust().map(|file| file.path).collect();
        assert_eq!(paths, ["bench/src/main.rs"]);
    }
}
