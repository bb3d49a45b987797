//! The copy of the repository into which bugs are planted: the working tree is never touched.

use crate::Failure;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of all files that belong to the repository.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) tree: PathBuf,
}

impl Copy {
    /// Makes the copy what the working tree is. A file that is the same already keeps its time, so that
    /// nothing is built twice.
    pub(super) fn of(root: &Path, tree: PathBuf) -> Result<Self, Failure> {
        let wanted = files(root)?;
        let copy = Self { tree };
        for file in &wanted {
            copy.take(root, file)?;
        }
        copy.clear(&copy.tree.clone(), &wanted)?;
        Ok(copy)
    }

    fn take(&self, root: &Path, file: &Path) -> Result<(), Failure> {
        let (from, to) = (root.join(file), self.tree.join(file));
        let read = |error| Failure::Read(from.clone(), error);
        let content = fs::read(&from).map_err(read)?;
        if fs::read(&to).is_ok_and(|there| there == content) {
            return Ok(());
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(read)?;
        }
        fs::write(&to, content).map_err(read)
    }

    /// Removes what does not belong there (any more).
    fn clear(&self, folder: &Path, wanted: &BTreeSet<PathBuf>) -> Result<(), Failure> {
        let read = |error| Failure::Read(folder.to_path_buf(), error);
        for entry in fs::read_dir(folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let name = path.strip_prefix(&self.tree).unwrap_or(&path);
            if path.is_dir() && name != Path::new("target") {
                self.clear(&path, wanted)?;
            } else if path.is_file() && !wanted.contains(name) {
                fs::remove_file(&path).map_err(read)?;
            }
        }
        Ok(())
    }

    /// Plants a bug, or takes it out again.
    pub(super) fn apply(&self, patch: &Path, backwards: bool) -> Result<(), String> {
        let mut git = Command::new("git");
        git.current_dir(&self.tree).arg("apply");
        if backwards {
            git.arg("--reverse");
        }
        // The copy lies inside of the repository and is no part of it.
        let above = self.tree.parent().unwrap_or(&self.tree);
        let done = git
            .arg(patch)
            .env("GIT_CEILING_DIRECTORIES", above)
            .output();
        match done {
            Ok(done) if done.status.success() => Ok(()),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Every file that is or will be part of the repository.
fn files(root: &Path) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut git = Command::new("git");
    git.current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let listed = git
        .output()
        .map_err(|error| Failure::Read(root.to_path_buf(), error))?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from);
    Ok(names.filter(|name| root.join(name).is_file()).collect())
}
