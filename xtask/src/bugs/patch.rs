//! A planted bug: a patch with a few lines in front that say what it is, what it breaks and who must
//! find it.

use crate::Failure;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the patches are.
pub(super) const FOLDER: &str = "crates/simulator/bugs";

/// One planted bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bug {
    /// The file's name without its ending.
    pub(super) name: String,
    /// What is wrong.
    pub(super) what: String,
    /// The invariants that it breaks.
    pub(super) breaks: String,
    /// The simulator's level that must find it.
    pub(super) level: String,
    pub(super) path: PathBuf,
}

/// All of them, in the order of their names.
pub(super) fn all(root: &Path) -> Result<Vec<Bug>, Failure> {
    let folder = root.join(FOLDER);
    let entries = fs::read_dir(&folder).map_err(|error| Failure::Read(folder.clone(), error))?;
    let mut bugs = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| Failure::Read(folder.clone(), error))?
            .path();
        if path.extension().is_some_and(|ending| ending == "patch") {
            bugs.push(read(&path)?);
        }
    }
    bugs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bugs)
}

fn read(path: &Path) -> Result<Bug, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| Failure::Read(path.to_path_buf(), error))?;
    let head = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.trim().to_owned())
    };
    let found = (head("bug:"), head("breaks:"), head("level:"));
    match found {
        (Some(what), Some(breaks), Some(level)) if level == "core" || level == "store" => Ok(Bug {
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            what,
            breaks,
            level,
            path: path.to_path_buf(),
        }),
        _ => Err(Failure::Missing(format!(
            "{} does not begin with lines bug:, breaks: and level: (core or store)",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::process::Command;

    /// M3: the table is whole, and every patch fits the code as it is.
    #[test]
    fn every_planted_bug_says_what_it_is_and_applies() {
        let root = crate::root();
        let bugs = all(&root).unwrap();
        assert!(bugs.len() >= 40, "{}", bugs.len());
        let names: BTreeSet<&str> = bugs
            .iter()
            .filter_map(|bug| bug.name.split_once('-'))
            .map(|(_, name)| name)
            .collect();
        assert_eq!(
            names.len(),
            bugs.len(),
            "each has a number and a name of its own"
        );
        for bug in &bugs {
            let mut git = Command::new("git");
            let checked = git
                .current_dir(&root)
                .args(["apply", "--check"])
                .arg(&bug.path)
                .output();
            let checked = checked.unwrap();
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "{}: {said}", bug.name);
        }
    }
}
